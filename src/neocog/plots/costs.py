"""Where the memory of a training step goes. Room plots; floor 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.plots.style import ACCENT, FAINT, INK, MUTED, PAPER, WARM, blank, heading, plain, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

__all__ = ["Part", "memory"]

_SHADES = ((ACCENT, 1.0), (ACCENT, 0.55), (ACCENT, 0.28), (WARM, 0.8), (MUTED, 0.35))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of several sizes that add up."""

    name: str
    """What it is, with its size in words; written beside it."""
    size: float
    """In the figure's unit."""


def memory(
    parts: Sequence[Part],
    peak: tuple[float, float, float],
    *,
    unit: str,
    said: str,
    free: Part | None = None,
) -> Figure:
    """Bars of parts, one beginning where the other ends, and below them the peak with its range.

    Args:
        parts: at most five; those of size 0 are left out.
        peak: low, value and high.
        unit: of all sizes, for the axis.
        said: the peak in words.
        free: what there is; drawn as a line where it is no more than three times the peak.

    Raises:
        ValueError: no part, or more than five.
    """
    if not 1 <= len(parts) <= len(_SHADES):
        raise ValueError(f"expected 1 to {len(_SHADES)} parts, found {len(parts)}")
    low, value, high = peak
    known = [part for part in parts if part.size > 0]
    line = free if free is not None and free.size <= 3 * high else None
    most = max(high, sum(part.size for part in known), line.size if line else 0)
    gap, start, last = 0.012 * most, 0.0, len(known)
    with styled():
        figure = blank(560, 100 + 20 * last)
        axes = figure.subplots()
        heading(figure, "Memory of a training step")
        for at, (part, (colour, alpha)) in enumerate(zip(known, _SHADES, strict=False)):
            end = start + part.size
            axes.barh(at, part.size, left=start, height=0.62, color=colour, alpha=alpha, lw=0)
            left = start > most - end
            place, side = (start - gap, "right") if left else (end + gap, "left")
            axes.text(place, at, part.name, ha=side, va="center", color=INK)
            start = end
        axes.plot([low, high], [last, last], color=INK, lw=1.6)
        axes.plot([value], [last], "o", ms=7, color=INK, mec=PAPER, mew=1.2)
        left = low > most - high
        place, side = (low - gap, "right") if left else (high + gap, "left")
        axes.text(place, last, said, ha=side, va="center", color=INK)
        if line:
            axes.axvline(line.size, color=WARM, lw=1.2, ls=(0, (1, 2)))
            axes.text(line.size - gap, -0.75, line.name, ha="right", va="center", color=WARM)
        axes.set_ylim(last + 0.6, -1.1 if line else -0.6)
        axes.set_xlim(0, 1.02 * most)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(plain)
        axes.set_xlabel(unit)
        axes.grid(axis="x", color=FAINT)
    return figure
