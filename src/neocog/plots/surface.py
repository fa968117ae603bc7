"""The loss around a network's weights, from above and in relief. Room plots; floor 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.plots.style import FAINT, INK, MUTED, PAPER, WARM, blank, heading, plain, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SIDE = 360
_BANDS = 14
_HUE = (0.18, 0.54, 0.83)
"""A blue whose strength is its opacity shows on light and on dark pages."""
_TRACK = "#b04c0b"
"""On a relief, whose blues are the same on every page."""
_VECTORS = 26
"""Points along an axis from which a relief is a bitmap: a page of its faces would be larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Where checkpoints lie on the plane, in the order of the training."""

    x: Sequence[float]
    """Along the first direction."""
    y: Sequence[float]
    """Along the second."""
    note: str = ""
    """What is to be said of it, such as how much of the way the plane holds."""


def landscape(
    x: Floats,
    y: Floats,
    loss: Floats,
    *,
    centre: float,
    track: Track | None = None,
    title: str = "Loss around the weights",
    axes_names: tuple[str, str] = ("first direction", "second direction"),
) -> Figure:
    """Map of the loss with contours at equal ratios, the network at (0, 0), and the lowest point.

    Args:
        x: n places, rising.
        y: m places, rising.
        loss: m×n; what is not finite is left blank.
        centre: the loss of the network.
        track: checkpoints, if any.
        title: of the figure.
        axes_names: what the directions are.

    Raises:
        ValueError: other shapes, or no finite loss.
    """
    shown, _ = _checked(x, y, loss)
    edges = _bands(shown)
    shades = [(*_HUE, 0.04 + 0.78 * at / (len(edges) - 2 or 1)) for at in range(len(edges) - 1)]
    with styled():
        figure = blank(_SIDE + 84, _SIDE + 76 + 18 * 3)
        axes = figure.subplots()
        heading(figure, title)
        # As one bitmap: between the areas of a drawing lines would shine through.
        filled = axes.contourf(x, y, shown, levels=edges, colors=shades, antialiased=False)
        filled.set_rasterized(True)
        _contours(axes, x, y, shown, edges[1:-1], centre)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
        _coordinates(axes)
        _marks(axes, x, y, loss, centre, track)
    return figure


def relief(
    x: Floats,
    y: Floats,
    loss: Floats,
    *,
    centre: float,
    track: Track | None = None,
    title: str = "Loss around the weights, in relief",
) -> Figure:
    """The same surface in three dimensions; the height is logarithmic if losses span decades.

    Args:
        x: n places, rising.
        y: m places, rising.
        loss: m×n; what is not finite is drawn as high as the highest.
        centre: the loss of the network.
        track: checkpoints, if any, drawn on the surface.
        title: of the figure.

    Raises:
        ValueError: other shapes, or no finite loss.
    """
    shown, low = _checked(x, y, loss)
    shown = shown.filled(float(shown.max()))
    log = low > 0 and centre > 0 and shown.max() / low > 20
    height = np.log10(shown) if log else shown
    with styled():
        figure = blank(_SIDE + 84, _SIDE + 44)
        axes: Any = figure.add_subplot(projection="3d", computed_zorder=False)
        heading(figure, f"{title}, logarithmic" if log else title)
        _faces(axes, x, y, height)
        on = math.log10(centre) if log else centre
        if track:
            lifted = [_between(x, y, height, *at) for at in zip(track.x, track.y, strict=True)]
            way = ([*track.x, 0], [*track.y, 0], [*lifted, on])
            axes.plot(*way, color=_TRACK, lw=1.6, marker="o", ms=3, mew=0, zorder=2)
        axes.plot([0], [0], [on], "o", ms=6, mfc=_TRACK, mec="#ffffff", mew=1, zorder=3)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        _space(axes, height, log)
    return figure


def _faces(axes: Any, x: Floats, y: Floats, height: Floats) -> None:
    """The surface itself, darker where it is deep, lit from above."""
    from matplotlib.colors import LightSource, LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list("depth", ("#0f5c96", "#3d8fcf", "#cfe6f6"))
    bitmap = max(height.shape) >= _VECTORS
    axes.plot_surface(
        *np.meshgrid(x, y),
        height,
        rstride=1,
        cstride=1,
        facecolors=ramp((height - height.min()) / (np.ptp(height) or 1.0)),
        lightsource=LightSource(azdeg=315, altdeg=50),
        # In a drawing, gaps between faces would shine through where no edge covers them.
        edgecolor="none" if bitmap else (1, 1, 1, 0.25),
        linewidth=0 if bitmap else 0.3,
        antialiased=not bitmap,
        rasterized=bitmap,
        clip_on=False,
        zorder=1,
    )


def _space(axes: Any, height: Floats, log: bool) -> None:
    """Where it is seen from, and a grid that stays behind."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    axes.view_init(elev=32, azim=-58)
    axes.set_box_aspect((1, 1, 0.72), zoom=1.1)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0, 0, 0, 0))
        axis.line.set_color(FAINT)
        axis._axinfo["grid"].update(color=FAINT, linewidth=0.6)
        axis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10)))
        axis.set_major_formatter(FuncFormatter(plain))
    if log:
        axes.zaxis.set_major_locator(FixedLocator(_decades(height)))
        axes.zaxis.set_major_formatter(FuncFormatter(lambda at, _: _short(10**at)))
    axes.tick_params(labelsize=9.5, pad=1)


def _checked(x: Floats, y: Floats, loss: Floats) -> tuple[Any, float]:
    """The losses with what is not finite masked, and the lowest of them."""
    if loss.ndim != 2 or loss.shape != (len(y), len(x)) or min(loss.shape) < 2:
        raise ValueError(f"expected {len(y)}×{len(x)} losses, found {loss.shape}")
    shown = np.ma.masked_invalid(loss)
    if shown.count() == 0:
        raise ValueError("expected at least one finite loss")
    return shown, float(shown.min())


def _bands(shown: Any) -> Floats:
    """Edges of bands of equal ratios; above the lowest where losses are not all positive."""
    low, high = float(shown.min()), float(shown.max())
    if high <= low:
        return np.array([low - 0.5, low + 0.5])
    if low > 0 and high / low > 1.5:
        edges = np.geomspace(low, high, _BANDS + 1)
    else:
        edges = low + np.concatenate([[0], np.geomspace(2e-3, 1, _BANDS) * (high - low)])
    # Rounding must not leave out the ends.
    edges[0], edges[-1] = min(low, edges[0]), max(high, edges[-1])
    return edges


def _contours(axes: Axes, x: Floats, y: Floats, shown: Any, levels: Floats, centre: float) -> None:
    """Lines between the bands, every other one named."""
    if not len(levels):
        return
    lines = axes.contour(x, y, shown, levels=levels, colors=[INK], linewidths=0.6, alpha=0.45)
    # The contour nearest to the network would be named where its mark is.
    named = np.delete(levels, int(np.abs(levels - centre).argmin()))[::2]
    for text in axes.clabel(lines, named, fontsize=8.5, colors=[INK], fmt=_short):
        text.set_alpha(0.9)


def _short(value: float, _: Any = None) -> str:
    return plain(float(f"{value:.2g}"))


def _decades(height: Floats) -> list[float]:
    """Where 1, 2 and 5 times the powers of ten lie, or the powers alone if there are many."""
    low, high = float(height.min()), float(height.max())
    powers = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [power + math.log10(step) for power in powers for step in steps]
        found = [at for at in found if low <= at <= high]
        if len(found) <= 7:
            break
    return found


def _between(x: Floats, y: Floats, height: Floats, at_x: float, at_y: float) -> float:
    """Bilinear; beyond the grid, its edge."""
    column = float(np.interp(at_x, x, np.arange(len(x))))
    row = float(np.interp(at_y, y, np.arange(len(y))))
    left, top = min(int(column), len(x) - 2), min(int(row), len(y) - 2)
    right, down = column - left, row - top
    square = height[top : top + 2, left : left + 2]
    return float(np.array([1 - down, down]) @ square @ np.array([1 - right, right]))


def _coordinates(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10)))
        axis.set_major_formatter(FuncFormatter(plain))


def _marks(
    axes: Axes, x: Floats, y: Floats, loss: Floats, centre: float, track: Track | None
) -> None:
    """Checkpoints, the lowest point of the grid and the network, with what they are below."""
    if track:
        way = (*track.x, 0), (*track.y, 0)
        note = f"checkpoints{f': {track.note}' if track.note else ''}"
        axes.plot(*way, color=WARM, lw=1.6, marker="o", ms=4, mew=0, zorder=3, label=note)
    finite = np.where(np.isfinite(loss), loss, np.inf)
    row, column = np.unravel_index(int(finite.argmin()), finite.shape)
    there = (x[column], y[row]) == (0, 0)
    if not there:
        lowest = f"lowest point of the grid: {_short(float(loss[row, column]))}"
        axes.plot(
            *(x[column], y[row], "X"),
            ms=9,
            mfc=INK,
            mec=PAPER,
            mew=0.8,
            ls="",
            zorder=4,
            clip_on=False,
            label=lowest,
        )
    axes.plot(
        *(0, 0, "o"),
        ms=8,
        mfc=WARM,
        mec=PAPER,
        mew=1.2,
        ls="",
        zorder=5,
        label=f"the network: {_short(centre)}{', the lowest point of the grid' if there else ''}",
    )
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, -46 / _SIDE),
        frameon=False,
        fontsize=10,
        labelcolor=MUTED,
        handlelength=1.6,
        borderaxespad=0,
        borderpad=0,
    )
