"""The marks of a network's drawing, each as SVG text. Floor 1, room html.

Standard library, floor 0 and types of this room. Every word that comes from outside goes through
`_text`.
"""

from __future__ import annotations

import itertools
import unicodedata
from html import escape
from typing import TYPE_CHECKING

from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.html.drawing import Box, Family, Frame
    from neocog.html.layered import Point

__all__ = [
    "RADIUS",
    "arrow",
    "box",
    "frame",
    "header",
    "line",
    "sheet",
    "sign_width",
    "title_width",
    "width_of",
]

RADIUS = 11.0
"""Of the circles where branches join."""

_INK, _MUTED, _FAINT, _PAPER = (
    *("var(--ink,#1d2126)", "var(--muted,#5b626b)"),
    *("var(--line,#d8dad5)", "var(--paper,#fdfdfb)"),
)
_COLORS: dict[Family, tuple[str, str]] = {
    "input": ("#7d868f", "input"),
    "convolution": ("#2f7fc1", "convolution"),
    "pointwise": ("#4a9a5b", "norm, activation"),
    "pooling": ("#cf7f2b", "pooling, resizing"),
    "linear": ("#8b62c4", "linear"),
    "attention": ("#c4476f", "attention"),
    "other": ("#7d868f", "other"),
    "join": (_MUTED, "join"),
}
"""Colour and name in the legend: middle tones, to be seen on light and on dark."""

_SANS = "system-ui,-apple-system,'Segoe UI','Noto Sans','Liberation Sans',Arial,sans-serif"
_NARROW = frozenset("iljtfrI.,:;|!'()[]·/ ")
_MARK = 19.0


def width_of(text: str, size: float) -> float:
    """About how wide a text is; rather too wide, as nobody knows the reader's typeface."""
    total = 0.0
    for char in printable(text):
        if char in _NARROW:
            total += 0.36
        elif unicodedata.east_asian_width(char) in "WF":
            total += 1.02
        else:
            total += 0.72 if char.isupper() or char in "mwMW%+×…@—" else 0.61
    return total * size


def _fitted(text: str, size: float, width: float) -> str:
    """`text` as it is shown, its middle left out where it is too wide."""
    text = printable(text)
    if width_of(text, size) <= width:
        return text
    keep = len(text) - 1
    while (
        keep > 1 and width_of(f"{text[: keep - keep // 2]}…{_tail(text, keep // 2)}", size) > width
    ):
        # A hostile name may be very long: big steps first.
        keep -= max(1, keep // 8)
    return f"{text[: keep - keep // 2]}…{_tail(text, keep // 2)}"


def _tail(text: str, count: int) -> str:
    return text[len(text) - count :]


def _n(value: float) -> str:
    """A coordinate, cut short."""
    return f"{value:.1f}".removesuffix(".0").replace("-0", "0" if value == 0 else "-0")


def _text(
    words: str,
    x: float,
    y: float,
    size: float,
    *,
    fill: str = _INK,
    anchor: str = "",
    bold: bool = False,
    width: float = float("inf"),
) -> str:
    """A line of text, escaped, no wider than `width`."""
    shown = escape(_fitted(words, size * (1.1 if bold else 1), width))
    more = (f' text-anchor="{anchor}"' if anchor else "") + (' font-weight="600"' if bold else "")
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size:g}" fill="{fill}"{more}>{shown}</text>'


def _rect(x: float, y: float, wide: float, high: float, more: str) -> str:
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(wide)}" height="{_n(high)}" {more}/>'


def sheet(width: float, height: float, title: str, body: Sequence[str]) -> str:
    """The whole drawing on its ground."""
    wide, high = _n(width), _n(height)
    label = escape(printable(title or "network"), quote=True)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="network" viewBox="0 0 {wide} {high}" '
        f'width="{wide}" height="{high}" role="img" aria-label="{label}" '
        f'font-family="{_SANS}" style="min-width:{0.6 * width:.0f}px">'
    )
    ground = _rect(0, 0, width, height, f'fill="{_PAPER}"')
    return "\n".join([opening, ground, *body, "</svg>\n"])


def header(
    title: str, subtitle: str, families: Sequence[Family], width: float
) -> tuple[list[str], float]:
    """Title and legend, and how far down they reach."""
    marks, y = [], 16.0
    if title:
        y += 24
        marks.append(_text(title, 32, y, 21, bold=True, width=width - 64))
    if subtitle:
        y += 20
        marks.append(_text(subtitle, 32, y, 12, fill=_MUTED, width=width - 64))
    y += 26
    x = 32.0
    shown = [family for family in _COLORS if family in families and family != "input"]
    for family in shown:
        color, name = _COLORS[family]
        wide = 20 + width_of(name, 11) + 16
        if x > 32 and x + wide > width - 24:
            x, y = 32.0, y + 20
        if family == "join":
            marks.append(
                f'<circle cx="{_n(x + 7)}" cy="{_n(y - 4)}" r="6" fill="none" stroke="{color}"/>'
            )
        else:
            marks.append(_rect(x, y - 10, 14, 12, _tinted(color)))
        marks.append(_text(name, x + 20, y, 11, fill=_MUTED))
        x += wide
    said = "what one value sees of the picture"
    if x > 32 and x + 22 + width_of(said, 11) > width - 24:
        x, y = 32.0, y + 20
    marks += _sight(x, y - 11, 14, (0.45,), everything=False)
    marks.append(_text(said, x + 22, y, 11, fill=_MUTED))
    y += 17
    said = "A box is as wide as the logarithm of its channels. Sizes are channels × height × width."
    marks.append(_text(said, 32, y, 11, fill=_MUTED, width=width - 64))
    return marks, y


def _tinted(color: str) -> str:
    return f'rx="2" fill="{color}" fill-opacity="0.2" stroke="{color}"'


def title_width(frame: Frame) -> float:
    """How much room a frame's title takes."""
    times = width_of(f"× {frame.times}", 15) + 8 if frame.times > 1 else 0.0
    detail = width_of(frame.detail, 10) + 10 if frame.detail else 0.0
    return min(230.0, width_of(frame.title, 11)) + times + detail + 20


def frame(given: Frame, x: float, y: float, wide: float, high: float, free: float) -> str:
    """A frame, of several with their cards behind; its title stands at x = `free`."""
    stroke = f'rx="7" stroke="{_MUTED}" stroke-opacity="0.55"'
    cards = min(2, given.times - 1)
    parts = [
        _rect(x + 4 * card, y + 4 * card, wide, high, f'{stroke} fill="{_PAPER}"')
        for card in range(cards, 0, -1)
    ]
    parts.append(_rect(x, y, wide, high, f'{stroke} fill="{_PAPER}" data-frame="{given.times}"'))
    parts.append(_rect(x, y, wide, high, f'rx="7" fill="{_MUTED}" fill-opacity="0.05"'))
    at = free + 10
    if given.times > 1:
        parts.append(_text(f"× {given.times}", at, y + 18, 15, bold=True))
        at += width_of(f"× {given.times}", 15) + 8
    parts.append(_text(given.title, at, y + 17, 11, fill=_MUTED, width=230))
    if given.detail:
        at += min(230.0, width_of(given.title, 11)) + 10
        parts.append(_text(given.detail, at, y + 17, 10, fill=_MUTED))
    return "".join(parts)


def line(points: Sequence[Point], edge: tuple[int, int]) -> str:
    """A line from box to box: straight, or in S curves where it changes sides."""
    kept = [points[0]]
    for point in points[1:]:
        if point == kept[-1]:
            continue
        upright = len(kept) > 1 and kept[-2][0] == kept[-1][0] == point[0]
        if upright:
            kept.pop()
        kept.append(point)
    path = f"M{_n(kept[0][0])} {_n(kept[0][1])}"
    for (x, y), (u, v) in itertools.pairwise(kept):
        if x == u:
            path += f"V{_n(v)}"
        elif y == v:
            path += f"H{_n(u)}"
        else:
            half = _n((y + v) / 2)
            path += f"C{_n(x)} {half} {_n(u)} {half} {_n(u)} {_n(v)}"
    return (
        f'<path d="{path}" fill="none" stroke="{_MUTED}" stroke-width="1.3" '
        f'stroke-linejoin="round" data-edge="{edge[0]}-{edge[1]}"/>'
    )


def arrow(x: float, y: float) -> str:
    """The head of a line that comes from above."""
    return f'<path d="M{_n(x)} {_n(y)}l-3.5 -6.5h7z" fill="{_MUTED}"/>'


def sign_width(sign: str) -> float:
    """How wide the mark of a join is: a circle, longer for a word."""
    if sign in ("+", "×", "−", "cat"):
        return 2 * RADIUS
    return max(2 * RADIUS, min(110.0, width_of(sign, 10)) + 14)


def _join(given: Box, x: float, y: float, height: float) -> list[str]:
    """A circle with its sign, and words to the right of it."""
    wide, middle = sign_width(given.kind), y + height / 2
    parts = [
        _rect(
            *(x - wide / 2, y, wide, height),
            f'rx="{_n(RADIUS)}" fill="{_PAPER}" stroke="{_INK}" stroke-width="1.3" data-body=""',
        )
    ]
    strokes = {
        "+": "m-5 0h10m-5 -5v10",
        "×": "m-4 -4l8 8m0 -8l-8 8",
        "−": "m-5 0h10",
        "cat": "m-2.5 -5v10m5 0v-10",
    }
    if given.kind in strokes:
        parts.append(
            f'<path d="M{_n(x)} {_n(middle)}{strokes[given.kind]}" fill="none" '
            f'stroke="{_INK}" stroke-width="1.6"/>'
        )
    else:
        parts.append(_text(given.kind, x, middle + 3.5, 10, anchor="middle", width=110))
    lines = [words for words in (given.below, given.size) if words]
    for at, words in enumerate(lines):
        down = middle + 3.5 + 11 * (at - (len(lines) - 1) / 2)
        parts.append(_text(words, x + wide / 2 + 6, down, 9.5, fill=_MUTED))
    return parts


def box(
    given: Box, number: int, x: float, y: float, left: float, right: float, height: float
) -> str:
    """A box or a join at its axis and top, with all that it says."""
    names = [printable(name) for name in given.members[:12]]
    if len(given.members) > 12:
        names.append(f"and {len(given.members) - 12} more")
    if given.sees:
        names.append(f"receptive field {printable(given.sees)}")
    told = escape("\n".join(names))
    opening = f'<g data-box="{number}" data-layers="{len(given.members)}"><title>{told}</title>'
    if given.family == "join":
        return "".join([opening, *_join(given, x, y, height), "</g>"])
    color, _ = _COLORS[given.family]
    cards = min(2, given.times - 1)
    wide, high = 2 * left, height - 4 * cards
    start = x - left
    around = f'rx="4" stroke="{color}" stroke-width="1.2"'
    parts = [
        _rect(start + 4 * card, y + 4 * card, wide, high, f'{around} fill="{_PAPER}"')
        for card in range(cards, 0, -1)
    ]
    parts.append(_rect(start, y, wide, high, f'{around} fill="{_PAPER}" data-body=""'))
    parts.append(_rect(start, y, wide, high, f'rx="4" fill="{color}" fill-opacity="0.16"'))
    marked = bool(given.field) or given.everything
    room = wide - 16 - (_MARK + 7 if marked else 0)
    at, down = start + 9, y + 5
    if given.above:
        down += 13
        parts.append(_text(given.above, at, down - 1, 10, fill=_MUTED, width=room))
    down += 13
    if given.times > 1:
        times = f"× {given.times}"
        parts.append(_text(times, start + wide - 9, y - 4, 12, anchor="end", bold=True))
    parts.append(_text(given.kind, at, down, 12.5, bold=True, width=room))
    if given.below:
        down += 13
        parts.append(_text(given.below, at, down, 10, fill=_MUTED, width=room))
    down += 14.5
    said = "   ".join(words for words in (given.size, given.weight) if words)
    parts.append(_text(said.replace("   ", " \u00a0 "), at, down, 10.5, width=room))
    if marked:
        parts += _sight(
            *(start + wide - _MARK - 7, y + (high - _MARK - 9) / 2, _MARK),
            given.field,
            everything=given.everything,
        )
        if given.sees:
            end, line = start + wide - 7, y + (high + _MARK) / 2 + 5
            if width_of(given.sees, 8.5) > _MARK:
                parts.append(_text(given.sees, end, line, 8.5, fill=_MUTED, anchor="end"))
            else:
                middle = end - _MARK / 2
                parts.append(_text(given.sees, middle, line, 8.5, fill=_MUTED, anchor="middle"))
    return "".join([opening, *parts, "</g>"])


def _sight(
    x: float, y: float, side: float, shares: Sequence[float], *, everything: bool
) -> list[str]:
    """The picture as a square, and in it what one value sees.

    Where a gate or attention looks at the whole picture besides, the whole is tinted. Of repeated
    boxes the last's is drawn in outline round the first's.
    """
    parts = [_rect(x, y, side, side, f'fill="{_PAPER}" stroke="{_INK}" stroke-width="0.9"')]
    if everything:
        opacity = "0.85" if not shares or shares[0] >= 1 else "0.3"
        parts.append(_rect(x, y, side, side, f'fill="{_INK}" fill-opacity="{opacity}"'))
    for at, share in enumerate(sorted({min(1.0, share) for share in shares}, reverse=True)):
        inner = max(1.5, side * share)
        first = at == len({min(1.0, share) for share in shares}) - 1
        opacity = "0.85" if first else "0.35"
        middle = (side - inner) / 2
        parts.append(
            _rect(x + middle, y + middle, inner, inner, f'fill="{_INK}" fill-opacity="{opacity}"')
        )
    return parts
