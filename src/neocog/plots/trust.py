"""Confidence against accuracy, and numbers answered against numbers true. Room plots; floor 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neocog.plots.style import (
    ACCENT,
    FAINT,
    INK,
    MUTED,
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

_CROWD = 1500
"""More points than this become a bitmap: thousands of circles make a page slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Answers of about one confidence."""

    confidence: float
    """Their mean confidence."""
    accuracy: float
    """The share of them that was right."""
    low: float
    """Lower end of the accuracy's 95 % interval."""
    high: float
    """Upper end of the accuracy's 95 % interval."""
    n: int
    """How many they are; bins without answers are left out."""
    edges: tuple[float, float]
    """Where the bin begins and ends."""


def reliability(bins: Sequence[Bin], *, title: str = "Accuracy by confidence") -> Figure:
    """Reliability diagram (Niculescu-Mizil, Caruana 2005): on the diagonal, confidence is earned.

    Below it, how many answers each bin holds.

    Raises:
        ValueError: no bins.
    """
    if not bins:
        raise ValueError("expected at least one bin to draw")
    from matplotlib.ticker import FuncFormatter

    with styled():
        figure = blank(420, 440)
        axes, band = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [6, 1], "hspace": 0.02}
        )
        heading(figure, title)
        axes.plot((0, 1), (0, 1), color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
        for one in bins:
            axes.plot((one.confidence,) * 2, (one.low, one.high), color=ACCENT, lw=2.4, alpha=0.5)
            axes.plot(
                *(one.confidence, one.accuracy, "o"), ms=7, color=ACCENT, mew=0, clip_on=False
            )
        axes.text(0.03, 0.955, "more right than it thinks", color=MUTED, va="top", size=10)
        axes.text(0.97, 0.05, "less right than it thinks", color=MUTED, ha="right", size=10)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_yticks((0, 0.25, 0.5, 0.75, 1))
        axes.grid(axis="y")
        axes.yaxis.set_major_formatter(FuncFormatter(whole_percent))
        axes.tick_params(bottom=False, labelbottom=False)
        most = max(one.n for one in bins)
        for one in bins:
            low, high = one.edges
            band.bar(
                (low + high) / 2, one.n, width=0.86 * (high - low), color=MUTED, alpha=0.45, lw=0
            )
        band.set_ylim(0, most)
        band.set_yticks((most,), (f"{most:,}",))
        band.set_xticks((0, 0.25, 0.5, 0.75, 1))
        band.xaxis.set_major_formatter(FuncFormatter(whole_percent))
        band.set_xlabel("confidence; below, number of answers")
    return figure


def scatter(truth: Sequence[float], answer: Sequence[float], *, name: str = "target") -> Figure:
    """Answer over truth, with the line on which both are equal.

    Raises:
        ValueError: lengths differ or nothing to draw.
    """
    x, y = _numbers(truth, answer)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    pad = 0.04 * (high - low) or 0.5
    with styled():
        figure = blank(420, 420)
        axes = figure.subplots()
        heading(figure, f"{name}: answer over truth")
        limits = (low - pad, high + pad)
        axes.plot(limits, limits, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
        _cloud(axes, x, y)
        axes.set(xlim=limits, ylim=limits, xlabel="truth", aspect="equal")
        _ticks(axes)
    return figure


def residuals(truth: Sequence[float], answer: Sequence[float], *, name: str = "target") -> Figure:
    """Answer minus truth over truth: a slope is a bias towards the middle, a funnel uneven noise.

    Raises:
        ValueError: lengths differ or nothing to draw.
    """
    x, y = _numbers(truth, answer)
    with styled():
        figure = blank(420, 420)
        axes = figure.subplots()
        heading(figure, f"{name}: answer − truth")
        axes.axhline(0, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
        _cloud(axes, x, y - x)
        reach = 1.06 * float(np.abs(y - x).max()) or 1.0
        axes.set(ylim=(-reach, reach), xlabel="truth")
        _ticks(axes)
    return figure


def _numbers(truth: Sequence[float], answer: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(truth, dtype=np.float64), np.asarray(answer, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(
            f"expected two equally long rows of numbers, found {x.shape} and {y.shape}"
        )
    return x, y


def _cloud(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    crowd = len(x) > _CROWD
    axes.plot(
        *(x, y, "o"),
        ms=3 if crowd else 4.5,
        mew=0,
        color="#3d8fcf" if crowd else ACCENT,  # a bitmap cannot follow light and dark
        alpha=max(0.08, min(0.5, 150 / len(x) ** 0.75)),
        rasterized=crowd,
        zorder=2,
    )


def _ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.grid(color=FAINT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10)))
        axis.set_major_formatter(FuncFormatter(plain))


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """One row of two dots."""

    name: str
    """Written left of it."""
    a: float
    """The filled dot, a share of 1."""
    b: float
    """The ring, a share of 1."""


def versus(rows: Sequence[Versus], *, names: tuple[str, str], title: str) -> Figure:
    """Two shares a row, joined by a line: how far the second is from the first.

    Args:
        rows: from top to bottom.
        names: of the disc (blue) and of the ring (orange).
        title: what the shares are.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("expected at least one row to draw")
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    least = min(min(row.a, row.b) for row in rows)
    floor = max(0.0, np.floor(least * 10 - 0.2) / 10) if least < 0.95 else 0.9
    with styled():
        figure = blank(440, 21 * len(rows) + 96)
        axes = figure.subplots()
        heading(figure, title)
        for place, row in enumerate(rows):
            axes.plot((floor, 1), (place, place), color=FAINT, lw=0.8, zorder=1)
            color = WARM if row.b > row.a else ACCENT
            axes.plot((row.a, row.b), (place, place), color=color, lw=2.4, alpha=0.5, zorder=2)
            axes.plot(row.a, place, "o", ms=6.5, color=ACCENT, mew=0, zorder=3, clip_on=False)
            axes.plot(
                *(row.b, place, "o"),
                ms=8.5,
                mfc="none",
                mec=WARM,
                mew=1.8,
                zorder=4,
                clip_on=False,
            )
        for name, color, sign, at, side in zip(
            names, (ACCENT, WARM), "●○", (0.0, 1.0), ("left", "right"), strict=True
        ):
            axes.annotate(
                *(f"{sign} {label(name, 26)}", (at, 1), (0, 4)),
                xycoords="axes fraction",
                textcoords="offset points",
                ha=side,
                color=color,
                size=10,
            )
        axes.set_yticks(range(len(rows)), [label(row.name) for row in rows])
        axes.set(xlim=(floor, 1.0), ylim=(len(rows) - 0.4, -0.6))
        axes.tick_params(axis="y", labelcolor=INK, pad=9)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10)))
        axes.xaxis.set_major_formatter(FuncFormatter(whole_percent))
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One row of panels: a share in each of some groups, from little of something to much."""

    name: str
    """Of what."""
    ends: tuple[str, str]
    """What the first and the last group are."""
    shares: Sequence[tuple[float, float, float]]
    """Value, low and high of each group."""


def groups(rows: Sequence[Group], *, title: str) -> Figure:
    """Small panels side by side, two a line, on one scale: a share over groups with its interval.

    Raises:
        ValueError: nothing to draw.
    """
    if not rows or not all(row.shares for row in rows):
        raise ValueError("expected at least one row with groups to draw")
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    least = min(low for row in rows for _, low, _ in row.shares)
    floor = max(0.0, float(np.floor(least * 20 - 0.2)) / 20)
    lines = -(-len(rows) // 2)
    with styled():
        figure = blank(440, 118 * lines + 34)
        panels = figure.subplots(lines, 2, sharey=True, squeeze=False).ravel()
        heading(figure, title)
        figure.set_layout_engine(
            ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03, hspace=0.12, wspace=0.06)
        )
        for axes, row in zip(panels, rows, strict=False):
            for place, (value, low, high) in enumerate(row.shares):
                axes.plot((place, place), (low, high), color=ACCENT, lw=2.4, alpha=0.5)
                axes.plot(place, value, "o", ms=6, color=ACCENT, mew=0, clip_on=False)
            last = len(row.shares) - 1
            axes.set(xlim=(-0.5, last + 0.5), ylim=(floor, 1))
            axes.set_title(row.name, loc="left", size=10, color=INK, pad=6)
            axes.set_xticks((0, last), row.ends, size=9.5)
            for tick, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
                tick.set_ha(side)
            axes.tick_params(bottom=False)
            axes.grid(axis="y")
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=(1, 2, 2.5, 5, 10)))
            axes.yaxis.set_major_formatter(FuncFormatter(whole_percent))
        for axes in panels[len(rows) :]:
            axes.set_visible(False)
    return figure
