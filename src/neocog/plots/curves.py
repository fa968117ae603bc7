"""Curves over time. Room plots; floor 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from neocog.plots.style import (
    ACCENT,
    MUTED,
    WARM,
    beside,
    blank,
    heading,
    plain,
    styled,
    whole_percent,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve."""

    name: str
    """Written at its end, with its last value."""
    x: Sequence[float]
    """Epochs, rising."""
    y: Sequence[float]
    """As long as `x`, finite."""
    role: Literal["main", "second", "faint"] = "main"
    """`main`: strong, blue; `second`: orange; `faint`: grey, behind the others, unnamed."""


def curves(
    lines: Sequence[Line],
    *,
    title: str,
    percent: bool = False,
    log: bool = False,
    rate: Line | None = None,
    best: tuple[float, float] | None = None,
) -> Figure:
    """Curves over epochs, named at their ends, with the learning rate as a thin band below.

    Args:
        lines: what is drawn; at least one, none empty.
        title: what the vertical axis is.
        percent: write values as percentages.
        log: logarithmic vertical axis (all values must be positive).
        rate: learning rate over epochs.
        best: epoch and value to circle.

    Raises:
        ValueError: nothing to draw.
    """
    if not lines or any(len(line.x) == 0 or len(line.x) != len(line.y) for line in lines):
        raise ValueError("expected at least one curve, each with as many x as y and none empty")
    with styled():
        figure = blank(440, 290)
        if rate:
            axes, band = figure.subplots(
                2, 1, sharex=True, gridspec_kw={"height_ratios": [6, 0.8], "hspace": 0.02}
            )
        else:
            axes = band = figure.subplots()
        heading(figure, f"{title}, logarithmic" if log else title)
        if log:
            axes.set_yscale("log")
        for line in sorted(lines, key=lambda one: one.role != "faint"):
            _draw_line(axes, line)
        _time_axis(axes, lines)
        _value_axis(axes, lines, percent=percent, log=log)
        if best:
            axes.plot(*best, "o", ms=9, mfc="none", mec=ACCENT, mew=1.3, zorder=5, clip_on=False)
        _name_ends(axes, [line for line in lines if line.role != "faint"], percent)
        if rate:
            axes.tick_params(bottom=False, labelbottom=False)
            axes.spines["bottom"].set_visible(False)
            band.fill_between(rate.x, rate.y, color=MUTED, alpha=0.35, lw=0)
            band.set_ylim(0, 1.05 * max(*rate.y, 1e-12))
            band.set_yticks([])
            peak = f"{rate.name},\npeak {plain(float(f'{max(rate.y):.3g}'))}"
            beside(band, peak, 0.5, MUTED, size=9.5)
        band.set_xlabel("epoch")
    return figure


def _draw_line(axes: Axes, line: Line) -> None:
    color, width, order = {
        "main": (ACCENT, 2.0, 3),
        "second": (WARM, 1.6, 2),
        "faint": (MUTED, 0.8, 1),
    }[line.role]
    marker = "o" if len(line.x) < 3 and line.role != "faint" else ""
    axes.plot(
        *(line.x, line.y),
        color=color,
        lw=width,
        marker=marker,
        ms=5,
        zorder=order,
        alpha=0.4 if line.role == "faint" else 1,
    )


def _time_axis(axes: Axes, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    first, last = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    axes.set_xlim((first, last) if last > first else (first - 1, first))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))


def _value_axis(axes: Axes, lines: Sequence[Line], *, percent: bool, log: bool) -> None:
    """Limits from what matters: a wild first step must not flatten the rest of the curve."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    kept = [value for line in lines if line.role != "faint" for value in line.y]
    kept = kept or [value for line in lines for value in line.y]
    low, high = min(kept), max(kept)
    if log:
        axes.set_ylim(low / 1.25, high * 1.25)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_tick_params(which="minor", size=0)
    else:
        pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        bottom = low - pad if low < 0 or percent else max(low - pad, 0)
        axes.set_ylim(bottom, min(high + pad, 1.0) if percent and high <= 1 else high + pad)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10)))
    axes.yaxis.set_major_formatter(FuncFormatter(whole_percent if percent else plain))
    axes.grid(axis="y")


def _name_ends(axes: Axes, lines: Sequence[Line], percent: bool) -> None:
    """Name each line at its right end, pushed apart where ends meet."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        low, high = math.log(low), math.log(high)

    def place(line: Line) -> float:
        value = math.log(line.y[-1]) if axes.get_yscale() == "log" else line.y[-1]
        return min(max((value - low) / (high - low), 0.0), 1.0)

    gap = 0.17  # two lines of type in an axes of this height
    ordered = sorted(lines, key=place)
    places = [place(line) for line in ordered]
    for index, (below, above) in enumerate(pairwise(list(places))):
        if above - below < gap:
            middle = (above + below) / 2
            places[index], places[index + 1] = middle - gap / 2, middle + gap / 2
    shift = max(0.0, 0.07 - min(places, default=1.0)) - max(0.0, max(places, default=0.0) - 0.95)
    for line, at in zip(ordered, places, strict=True):
        last = f"{100 * line.y[-1]:.1f} %" if percent else plain(float(f"{line.y[-1]:.3g}"))
        color = ACCENT if line.role == "main" else WARM
        beside(axes, f"{line.name}\n{last}", at + shift, color)
