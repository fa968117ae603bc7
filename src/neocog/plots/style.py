"""The one look of all figures, and how a figure becomes SVG for a page. Room plots; floor 1."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK, MUTED, FAINT, ACCENT, WARM, PAPER = (
    *("#1d2126", "#5b626b", "#d8dad5"),
    *("#0a67a6", "#b8500a", "#fdfdfb"),
)
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    FAINT: "--line",
    ACCENT: "--accent",
    WARM: "--warm",
    PAPER: "--paper",
}
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "neocog",
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "text.parse_math": False,  # a class may be called $x$
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """matplotlib's defaults and our style on top, for the length of a block."""
    import matplotlib.style

    # Fonts without a glyph (class names in Chinese) only matter to bitmaps: a browser finds one.
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many units; call it inside `styled`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72))


def heading(figure: Figure, text: str) -> None:
    """The figure's title, flush with its left edge."""
    figure.suptitle(label(text, 60), x=0.004, ha="left", size=12, weight="bold")


def label(text: str, width: int = 22) -> str:
    """`text` without what cannot be seen, its middle left out where it is long.

    >>> label("Ursus arctos horribilis, female, 2019", 18)
    'Ursus arcto…, 2019'
    """
    shown = printable(text)
    if len(shown) <= width:
        return shown
    tail = (width - 1) * 2 // 5
    return f"{shown[: width - 1 - tail]}…{shown[len(shown) - tail :]}"


def diverging() -> Colormap:
    """Blue below 0, paper at 0, orange above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", ["#05304f", ACCENT, PAPER, WARM, "#5a2503"])


def plain(value: float, _: Any = None) -> str:
    """A tick's number without mathematics mode."""
    return f"{value:.6g}".replace("-", "−")


def whole_percent(value: float, _: Any = None) -> str:
    """A tick's share as a percentage."""
    return f"{100 * value:.6g} %"


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element to put into a page: colours as CSS variables, text as text.

    Text is escaped, ids are unique to the drawing, and there is no metadata, date or address in it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with styled():
        figure.savefig(buffer, format="svg", transparent=True, dpi=144, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    # matplotlib's style element would leak into the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"<g id=\"[^\"]*\"", "<g", text)
    mark = "p" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r"<[^>]*>", lambda tag: _tidy_tag(tag[0], mark), text)
    width, height = (float(n) for n in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])
    opening = (
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" style="min-width:{0.7 * width:.0f}px;stroke-linejoin:round">'
    )
    body = text[text.index(">", text.index("<svg")) + 1 :]
    return opening + re.sub(r">\s+<", "><", body).strip()


def _tidy_tag(tag: str, mark: str) -> str:
    """One tag with palette colours as variables, ids made unique and coordinates cut short."""
    if 'href="data:' not in tag:
        tag = re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), tag)
        tag = re.sub(
            r"#[0-9a-f]{6}",
            lambda c: f"var({_VARIABLES[c[0]]},{c[0]})" if c[0] in _VARIABLES else c[0],
            tag,
        )
    tag = re.sub(r' id="([^"]+)"', rf' id="{mark}\1"', tag)
    tag = tag.replace('xlink:href="#', f'href="#{mark}').replace("url(#", f"url(#{mark}")
    return tag.replace("xlink:href=", "href=")


def beside(axes: Axes, text: str, height: float, color: str, size: float = 11) -> None:
    """Text right of the axes, at a share of their height."""
    axes.annotate(
        text,
        (1, height),
        (8, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        va="center",
        color=color,
        size=size,
        linespacing=1.15,
    )
