"""What becomes of answers while pictures are changed more and more. Room plots; floor 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    plain,
    styled,
    whole_percent,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = (216, 132)
"""Width and height of one small figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What one change does."""

    name: str
    """Of the change."""
    unit: str
    """Of its levels."""
    levels: Sequence[float]
    """Rising; all of them positive if `log`."""
    none: float
    """The level that changes nothing."""
    value: Sequence[float]
    """A share for each level: accuracy, or the probability of a class."""
    low: Sequence[float]
    """Lower end of its interval or range."""
    high: Sequence[float]
    """Upper end."""
    second: Sequence[float] = ()
    """Another share for each level, such as the confidence; none by default."""
    otherwise: Sequence[bool] = ()
    """For each level, whether the answer is another one than without the change."""
    log: bool = False
    """Whether levels are factors."""


def responses(
    panels: Sequence[Response],
    *,
    title: str,
    value: str = "accuracy",
    band: str = "95 % interval",
    second: str = "confidence",
    columns: int = 2,
) -> Figure:
    """Small multiples: a share over the levels of each change, all on one scale of 0 … 100 %.

    Args:
        panels: one for each change, at least one.
        title: of the figure.
        value: what the blue line is.
        band: what the band around it is.
        second: what the orange line is, where there is one.
        columns: panels in a row.

    Raises:
        ValueError: no panels, or one whose numbers are not as many as its levels.
    """
    if not panels or columns < 1:
        raise ValueError("expected at least one change to draw, in at least one column")
    for one in panels:
        told = (one.value, one.low, one.high, one.second, one.otherwise)
        if not one.levels or any(len(row) not in (0, len(one.levels)) for row in told):
            raise ValueError(f"expected {len(one.levels)} numbers for {one.name}, one a level")
    rows = -(-(len(panels) + 1) // columns)  # the last cell holds the legend
    with styled():
        figure = blank(columns * _CELL[0] + 8, rows * _CELL[1] + 40)
        cells = figure.subplots(rows, columns, squeeze=False)
        figure.get_layout_engine().set(hspace=0.07, wspace=0.05)  # type: ignore[union-attr,call-arg]
        heading(figure, title)
        for at, (axes, one) in enumerate(zip(cells.flat, panels, strict=False)):
            _panel(axes, one, first=at % columns == 0)
        for axes in cells.flat[len(panels) :]:
            axes.axis("off")
        _legend(cells.flat[len(panels)], panels, value, band, second)
    return figure


def _panel(axes: Axes, one: Response, *, first: bool) -> None:
    from matplotlib.ticker import FuncFormatter

    if one.log:
        axes.set_xscale("log")
    axes.axvline(one.none, color=MUTED, lw=0.9, ls=(0, (1, 2.5)), zorder=1)
    axes.fill_between(one.levels, one.low, one.high, color=ACCENT, alpha=0.2, lw=0)
    if one.second:
        axes.plot(one.levels, one.second, color=WARM, lw=1.4, ls=(0, (4, 2)), zorder=2)
    axes.plot(one.levels, one.value, color=ACCENT, lw=1.8, zorder=3)
    changed = one.otherwise or [False] * len(one.levels)
    for level, share, other in zip(one.levels, one.value, changed, strict=True):
        face, edge = (PAPER, WARM) if other else (ACCENT, ACCENT)
        axes.plot(
            *(level, share, "s" if other else "o"),
            ms=5 if other else 4,
            mfc=face,
            mec=edge,
            mew=1.3 if other else 0,
            clip_on=False,
            zorder=4,
        )
    axes.set_ylim(0, 1)
    axes.set_yticks((0, 0.5, 1))
    axes.yaxis.set_major_formatter(FuncFormatter(whole_percent))
    axes.tick_params(labelleft=first, labelsize=9.5)
    axes.grid(axis="y", color=FAINT)
    _ticks(axes, one)
    name = axes.text(
        *(0, 1.09, label(one.name)), transform=axes.transAxes, size=11, color=INK, weight="bold"
    )
    axes.annotate(
        label(one.unit),
        (1, 1.09),
        (6, 0),
        xycoords=(name, "axes fraction"),
        textcoords="offset points",
        size=9.5,
        color=MUTED,
        va="baseline",
    )


def _ticks(axes: Axes, one: Response) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    low, high = min(one.levels), max(one.levels)
    if one.log:
        # Halves and doubles of what changes nothing lie evenly.
        halves = [one.none * 2.0**power for power in range(-6, 7)]
        axes.set_xticks([at for at in halves if low * 0.999 <= at <= high * 1.001])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low / 1.06, high * 1.06)
    else:
        pad = 0.03 * (high - low) or 1.0
        axes.set_xlim(low - pad, high + pad)
        whole = all(float(level).is_integer() for level in one.levels)
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10), integer=whole, min_n_ticks=1)
        )
    axes.xaxis.set_major_formatter(FuncFormatter(plain))


def _legend(axes: Axes, panels: Sequence[Response], value: str, band: str, second: str) -> None:
    """What lines and points are, in the cell that is left over."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = [
        (Line2D([], [], color=ACCENT, lw=1.8, marker="o", ms=4, mew=0), value),
        (Patch(color=ACCENT, alpha=0.2, lw=0), band),
    ]
    if any(one.second for one in panels):
        entries.append((Line2D([], [], color=WARM, lw=1.4, ls=(0, (4, 2))), second))
    if any(any(one.otherwise) for one in panels):
        hollow = Line2D([], [], ls="", marker="s", ms=5, mfc=PAPER, mec=WARM, mew=1.3)
        entries.append((hollow, "another answer"))
    entries.append((Line2D([], [], color=MUTED, lw=0.9, ls=(0, (1, 2.5))), "unchanged"))
    axes.legend(
        *zip(*entries, strict=True),
        loc="upper left",
        bbox_to_anchor=(0, 1.1),
        frameon=False,
        fontsize=10,
        labelcolor=MUTED,
        handlelength=1.8,
        borderaxespad=0,
    )
