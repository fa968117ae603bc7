"""Pictures as points in the plane, coloured by class. Room plots; floor 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.plots.masks import palette
from neocog.plots.style import INK, MUTED, PAPER, blank, heading, label, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_SIDE = 520
_LEGEND = 150
_FEW = 12
"""Classes up to which colours stay apart, so that a legend can be read."""
_CROWD = 600
"""Points from which they are drawn as a bitmap."""


def embedding(
    places: NDArray[np.floating],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    title: str,
    axes: tuple[str, str] = ("", ""),
) -> Figure:
    """Points coloured by class. Each class's name stands where it is densest; up to twelve classes
    have a legend, too.

    Args:
        places: N×2.
        labels: N, the class of each point.
        classes: their names.
        title: of the figure.
        axes: what lies along x and y; empty where distances have no unit.

    Raises:
        ValueError: shapes that do not fit, a class without a name, or more than 255 classes.
    """
    points, kinds = np.asarray(places, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if (
        points.ndim != 2
        or points.shape[1] != 2
        or kinds.shape != points.shape[:1]
        or not len(kinds)
    ):
        raise ValueError(f"expected places N×2 and N labels, found {points.shape}, {kinds.shape}")
    if kinds.min() < 0 or kinds.max() >= len(classes):
        raise ValueError(f"expected classes 0 … {len(classes) - 1}, found {kinds.max()}")
    colours = ["#" + bytes(one).hex() for one in palette(len(classes))]
    shown = [int(kind) for kind in np.unique(kinds)]
    few = len(shown) <= _FEW
    with styled():
        figure = blank(_SIDE + (_LEGEND if few else 0), _SIDE + 30)
        drawn = figure.subplots()
        heading(figure, title)
        _cloud(drawn, points, kinds, colours)
        _frame(drawn, points, axes)
        _names(drawn, points, kinds, [label(name, 18) for name in classes])
        if few:
            for kind in shown:
                count = int((kinds == kind).sum())
                drawn.plot(
                    *([], [], "o"),
                    color=colours[kind],
                    ms=6,
                    label=f"{label(classes[kind], 16)} · {count}",
                )
            drawn.legend(
                *drawn.get_legend_handles_labels(),
                loc="upper left",
                bbox_to_anchor=(1.02, 1),
                frameon=False,
                fontsize=10,
                labelcolor=MUTED,
                borderaxespad=0,
                handletextpad=0.2,
            )
    return figure


def _cloud(
    axes: Axes, points: NDArray[np.float64], kinds: NDArray[np.int64], colours: Sequence[str]
) -> None:
    """All points in one go, in an order that hides no class behind another."""
    order = np.argsort((np.arange(len(points)) * 0.6180339887) % 1, kind="stable")
    axes.scatter(
        points[order, 0],
        points[order, 1],
        c=[colours[kind] for kind in kinds[order]],
        s=float(np.clip(9000 / len(points), 7, 30)),
        edgecolors=MUTED,  # the palest colours need a rim on light, the darkest on dark
        linewidths=0.3,
        rasterized=len(points) > _CROWD,
        zorder=2,
    )


def _frame(axes: Axes, points: NDArray[np.float64], names: tuple[str, str]) -> None:
    """Equal units both ways, and no ticks: places have no meaning but to each other."""
    low, high = points.min(0), points.max(0)
    middle, reach = (low + high) / 2, 0.54 * float((high - low).max()) or 1.0
    axes.set_frame_on(False)
    axes.set(
        xlim=(middle[0] - reach, middle[0] + reach),
        ylim=(middle[1] - reach, middle[1] + reach),
        xticks=[],
        yticks=[],
        xlabel=names[0],
        ylabel=names[1],
        aspect="equal",
    )


def _names(
    axes: Axes, points: NDArray[np.float64], kinds: NDArray[np.int64], names: Sequence[str]
) -> None:
    """The name of each class at its point that is nearest to all others of it; the largest classes
    first, and none over another."""
    span = float(np.ptp(points, axis=0).max()) or 1.0
    taken: list[tuple[float, float, float]] = []
    present, counts = np.unique(kinds, return_counts=True)
    for kind in present[np.argsort(-counts, kind="stable")]:
        own = points[kinds == kind]
        x, y = own[np.abs(own - np.median(own, axis=0)).sum(1).argmin()]
        half = 0.0085 * span * len(names[kind])
        if any(abs(x - a) < half + b and abs(y - c) < 0.035 * span for a, b, c in taken):
            continue
        taken.append((x, half, y))
        axes.text(
            *(x, y, names[kind]),
            ha="center",
            va="center",
            color=INK,
            size=10.5,
            weight="bold",
            # Not an outline of the letters: text with one is no text any more in an SVG.
            bbox={"boxstyle": "round,pad=0.12", "fc": PAPER, "ec": "none", "alpha": 0.75},
            zorder=3,
        )
