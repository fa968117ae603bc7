"""How classes fare and which are mistaken for which. Room plots; floor 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.plots.style import (
    ACCENT,
    FAINT,
    INK,
    MUTED,
    PAPER,
    WARM,
    blank,
    heading,
    label,
    styled,
    whole_percent,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MANY = 15
"""More classes than this, and numbers no longer fit into a confusion matrix."""


def confusion(
    counts: Sequence[Sequence[int]], names: Sequence[str], *, shares: bool = False
) -> Figure:
    """Counts of true class (rows) against answer (columns), shaded by share of the row.

    Up to 15 classes each cell holds its count; beyond, the matrix is a map to be read for its
    patterns, and `pairs` names the confusions. Mistakes are shaded by the root of their share, so
    that rare ones are seen.

    Args:
        counts: K×K.
        names: K.
        shares: write the share of the row in % into each cell: for counts of millions.

    Raises:
        ValueError: counts that are not K×K.
    """
    table = np.asarray(counts, dtype=np.int64)
    if table.shape != (len(names), len(names)) or not len(names):
        raise ValueError(f"expected counts {len(names)}×{len(names)}, found {table.shape}")
    totals = table.sum(axis=1, keepdims=True)
    share = np.divide(table, totals, out=np.zeros(table.shape), where=totals > 0)
    right = np.eye(len(names), dtype=bool)
    depth = np.where(right, share, np.sqrt(share))
    with styled():
        if len(names) > MANY:
            return _confusion_map(depth, names)
        cells, worded = (share, _share_text) if shares else (table, _count_text)
        texts = [[worded(cell) for cell in row] for row in cells.tolist()]
        return _confusion_cells(table, depth, texts, names)


def _count_text(count: int) -> str:
    return f"{count:,}" if count < 1e5 else f"{count:.2g}"


def _share_text(share: float) -> str:
    """A share above 0 in percent, short enough for a cell.

    >>> _share_text(0.873), _share_text(0.0123), _share_text(0.0001), _share_text(0.9999)
    ('87', '1.2', '<0.1', '>99')
    """
    percent = 100 * share
    if percent < 0.1:
        return "<0.1"
    if 99.5 <= percent < 100:
        return ">99"
    return f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"


def _confusion_cells(
    table: NDArray[np.int64], depth: Any, texts: Sequence[Sequence[str]], names: Sequence[str]
) -> Figure:
    from matplotlib.patches import Rectangle

    n = len(names)
    labels = [label(name, 18) for name in names]
    longest = max(len(label) for label in labels)
    side = 92 if n == 2 else 66 if n <= 5 else 46 if n <= 10 else 38
    turned = longest * 7 > side - 8
    above = 34 + (min(longest, 18) * 5.2 if turned else 12)
    figure = blank(side * n + 24 + min(longest, 18) * 7 + (30 if turned else 8), side * n + above)
    axes = figure.subplots()
    for row in range(n):
        for column in range(n):
            count = int(table[row, column])
            alpha = max(0.07, round(0.95 * float(depth[row, column]), 3))
            color = FAINT if not count else ACCENT if row == column else WARM
            axes.add_patch(
                Rectangle(
                    *((column + 0.03, row + 0.03), 0.94, 0.94),
                    fc=color,
                    alpha=alpha if count else 0.3,
                    lw=0,
                )
            )
            if count:
                axes.text(
                    *(column + 0.5, row + 0.5, texts[row][column]),
                    ha="center",
                    va="center_baseline",
                    color=PAPER if alpha > 0.6 else INK,
                    size=15 if n == 2 else 12 if len(texts[row][column]) < 4 or n <= 5 else 10,
                )
    _matrix_axes(axes, n, labels, turned)
    return figure


def _confusion_map(depth: Any, names: Sequence[str]) -> Figure:
    """The same as a bitmap: 100 classes are 10,000 cells. Its colours suit light and dark."""
    n = len(names)
    pixels = np.zeros((n, n, 4))
    pixels[...] = (0.92, 0.47, 0.13, 0)
    pixels[np.eye(n, dtype=bool)] = (0.18, 0.54, 0.83, 0)
    pixels[:, :, 3] = np.where(depth > 0, 0.12 + 0.88 * depth, 0)
    named = n <= 40
    side = max(330, 13 * n) if named else 400
    figure = blank(side + (120 if named else 55), side + (110 if named else 45))
    axes = figure.subplots()
    axes.imshow(pixels, interpolation="none", extent=(0, n, n, 0))
    if named:
        _matrix_axes(axes, n, [label(name, 16) for name in names], True, size=9)
    else:
        ticks = [tick for tick in (1, *range(10, n + 1, 10 * math.ceil(n / 120))) if tick <= n]
        _matrix_axes(axes, n, [str(tick) for tick in ticks], False, [tick - 0.5 for tick in ticks])
    axes.set_frame_on(True)
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT)
    return figure


def _matrix_axes(
    axes: Axes,
    n: int,
    labels: Sequence[str],
    turned: bool,
    places: Sequence[float] = (),
    size: float = 11,
) -> None:
    at = places or [i + 0.5 for i in range(n)]
    axes.set(xlim=(0, n), ylim=(n, 0), aspect="equal", frame_on=False)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    turn: dict[str, Any] = (
        {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if turned else {}
    )
    axes.set_xticks(at, labels, **turn)
    axes.set_yticks(at, labels)
    axes.tick_params(length=0, labelcolor=INK, labelsize=size)
    axes.set_xlabel("answer", loc="left", labelpad=8)
    axes.set_ylabel("truth", loc="top", labelpad=8)


def confused_pairs(
    counts: Sequence[Sequence[int]], *, shares: bool = False
) -> list[tuple[int, int, int]]:
    """(true class, answer, count) of every confusion that occurs, most frequent first.

    Args:
        counts: K×K.
        shares: sort by the share of the true class, so that a rare class is heard.

    >>> confused_pairs([[5, 1, 0], [3, 9, 0], [0, 0, 2]])
    [(1, 0, 3), (0, 1, 1)]
    >>> confused_pairs([[97, 3], [1, 1]], shares=True)
    [(1, 0, 1), (0, 1, 3)]
    """
    table = np.array(counts, dtype=np.int64)
    totals = table.sum(axis=1).tolist() if shares else [1] * len(table)
    np.fill_diagonal(table, 0)
    rows, columns = np.nonzero(table)
    found = [(int(r), int(c), int(table[r, c])) for r, c in zip(rows, columns, strict=True)]
    return sorted(found, key=lambda pair: (-pair[2] / totals[pair[0]], pair[0], pair[1]))


def pairs(
    counts: Sequence[Sequence[int]], names: Sequence[str], *, top: int = 20, shares: bool = False
) -> Figure:
    """The most frequent confusions as bars: how often, and of how many of the true class.

    Args:
        counts: K×K.
        names: K.
        top: bars at most.
        shares: draw and sort by the share of the true class instead of the count.

    Raises:
        ValueError: no sample was confused.
    """
    found = confused_pairs(counts, shares=shares)[:top]
    if not found:
        raise ValueError("expected at least one confusion to draw")
    totals = [sum(row) for row in counts]
    lengths = [count / totals[true] if shares else count for true, _, count in found]
    with styled():
        figure = blank(440, 22 * len(found) + 40)
        axes = figure.subplots()
        heading(figure, "Most frequent confusions")
        for place, (true, _, count) in enumerate(found):
            axes.barh(place, lengths[place], height=0.62, color=WARM, alpha=0.75, lw=0)
            text = f"{count:,} of {totals[true]:,}"
            if shares:
                text = f"{_share_text(lengths[place])} %"
            axes.annotate(
                *(text, (lengths[place], place), (6, 0)),
                textcoords="offset points",
                va="center",
                color=MUTED,
            )
        names_of = [f"{label(names[t], 16)} → {label(names[a], 16)}" for t, a, _ in found]
        axes.set_yticks(range(len(found)), names_of)
        axes.set(ylim=(len(found) - 0.4, -0.6), xlim=(0, 1.02 * lengths[0]), frame_on=False)
        axes.tick_params(labelcolor=INK)
        axes.set_xticks([])
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Whisker:
    """One row of a dot-and-whisker plot."""

    name: str
    """Written left of it."""
    value: float
    """The dot, a share of 1."""
    low: float
    """Left end of the whisker."""
    high: float
    """Right end of the whisker."""
    note: str = ""
    """Written right of it, such as a count."""


def whiskers(
    rows: Sequence[Whisker], *, title: str, line: tuple[float, str] | None = None
) -> Figure:
    """Dots with their 95 % intervals, lowest first.

    Args:
        rows: any order; equal values keep theirs.
        title: what the values are.
        line: a share to compare with, drawn across all rows, and its name.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("expected at least one row to draw")
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ordered = sorted(rows, key=lambda row: row.value)
    least = min(row.low for row in rows)
    floor = max(0.0, math.floor(least * 10 - 0.2) / 10) if least < 0.95 else 0.9
    with styled():
        figure = blank(440, 21 * len(rows) + 76)
        axes = figure.subplots()
        heading(figure, title)
        for place, row in enumerate(ordered):
            axes.plot((floor, 1), (place, place), color=FAINT, lw=0.8, zorder=1)
            axes.plot(
                (row.low, row.high), (place, place), color=ACCENT, lw=2.4, alpha=0.5, zorder=2
            )
            axes.plot(row.value, place, "o", ms=6.5, color=ACCENT, mew=0, zorder=3, clip_on=False)
            if row.note:
                axes.annotate(
                    *(row.note, (1, place), (10, 0)),
                    textcoords="offset points",
                    va="center",
                    color=MUTED,
                    size=10,
                )
        if line:
            axes.axvline(line[0], color=WARM, lw=1.1, ls=(0, (3, 2)), zorder=1)
            axes.annotate(
                *(line[1], (line[0], 1), (0, 3)),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right" if line[0] > (1 + floor) / 2 else "left",
                color=WARM,
                size=10,
            )
        axes.set_yticks(range(len(rows)), [label(row.name) for row in ordered])
        axes.set(xlim=(floor, 1.0), ylim=(len(rows) - 0.4, -0.6))
        axes.tick_params(axis="y", labelcolor=INK, pad=7)  # clear of a dot at the floor
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10)))
        axes.xaxis.set_major_formatter(FuncFormatter(whole_percent))
    return figure


def balance(
    names: Sequence[str], counts: Mapping[str, Sequence[int]], *, unit: str = "sample"
) -> Figure:
    """How many samples each class has, one bar a class, one segment a split.

    Up to 40 classes are named; more are drawn as an outline, largest first.

    Args:
        names: K.
        counts: split → K counts; the first split is drawn strongest.
        unit: what is counted. Of anything but samples, which may be millions, the share of all is
            written.

    Raises:
        ValueError: no classes, or counts of another length.
    """
    if not names or any(len(row) != len(names) for row in counts.values()):
        raise ValueError(f"expected {len(names)} counts a split, and at least one class")
    with styled():
        if len(names) > 40:
            return _outline(counts, unit)
        figure = blank(440, 19 * len(names) + 62)
        axes = figure.subplots()
        heading(figure, f"{unit}s a class".capitalize())
        left = np.zeros(len(names))
        shades = ((ACCENT, 0.85), (WARM, 0.8), (MUTED, 0.6))
        for (split, row), (color, alpha) in zip(counts.items(), shades, strict=False):
            axes.barh(
                range(len(names)),
                row,
                left=left,
                height=0.62,
                fc=color,
                alpha=alpha,
                lw=0,
                label=split,
            )
            left = left + np.asarray(row)
        for place, total in enumerate(left):
            text = f"{int(total):,}"
            if unit != "sample":
                text = f"{_share_text(total / left.sum())} %" if total else "0 %"
            axes.annotate(
                *(text, (total, place), (6, 0)),
                textcoords="offset points",
                va="center",
                color=MUTED,
                size=10,
            )
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, max(*left, 1) * 1.02), frame_on=False)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_xticks([])
        _key(axes)
    return figure


def _outline(counts: Mapping[str, Sequence[int]], unit: str) -> Figure:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from neocog.plots.style import plain

    figure = blank(440, 230)
    axes = figure.subplots()
    heading(figure, f"{unit}s a class, largest first".capitalize())
    for (split, row), color in zip(counts.items(), (ACCENT, WARM, MUTED), strict=False):
        axes.plot(range(1, len(row) + 1), sorted(row, reverse=True), color=color, lw=2, label=split)
    axes.set_ylim(bottom=0)
    axes.set_xlim(1, max(len(row) for row in counts.values()))
    axes.set_xlabel("classes")
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    _key(axes)
    return figure


def _key(axes: Axes) -> None:
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        ncols=3,
        frameon=False,
        fontsize=10,
        labelcolor=MUTED,
        handlelength=0.9,
        handleheight=0.8,
        borderaxespad=0.2 if not axes.get_xlabel() else 3,
        borderpad=0,
        columnspacing=1.4,
    )
