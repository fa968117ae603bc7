"""How much each pixel counts for a unit, and where its fields end. Room plots; floor 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.plots.style import FAINT, INK, MUTED, WARM, blank, heading, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Box = tuple[tuple[int, int], tuple[int, int]]

_SIDE = 360
"""The longer side of the picture, in the figure."""


def effective(
    weights: NDArray[np.float64],
    *,
    box: Box,
    square: Box,
    size: tuple[int, int],
    side: int,
    title: str = "Effective receptive field",
) -> Figure:
    """Heat map of the effective receptive field, with the theoretical one around it.

    Shades follow the square root of the weight: the Gaussian's flanks would be invisible otherwise.

    Args:
        weights: H×W, not negative.
        box: first and last row, first and last column of the theoretical field on this picture.
        square: likewise, what holds 95 % of the weights.
        size: height and width of the theoretical field on an endless picture.
        side: of the square, what lies outside the picture included.
        title: of the figure.

    Raises:
        ValueError: weights that are no map, negative, or all zero.
    """
    if weights.ndim != 2 or weights.size == 0 or not (weights >= 0).all() or not weights.any():
        raise ValueError(f"expected H×W weights of at least zero, found {weights.shape}")
    high, wide = weights.shape
    scale = _SIDE / max(high, wide)
    # One hue whose strength is its opacity shows on light and on dark pages.
    pixels = np.empty((high, wide, 4))
    pixels[...] = (0.18, 0.54, 0.83, 0)
    pixels[:, :, 3] = np.sqrt(weights / weights.max())
    with styled():
        figure = blank(max(wide * scale, 300) + 44, high * scale + 118)
        axes = figure.subplots()
        heading(figure, title)
        axes.imshow(pixels, interpolation="none", extent=(0, wide, high, 0))
        axes.set(xlim=(0, wide), ylim=(high, 0), aspect="equal")
        axes.set_xticks((0, wide))
        axes.set_yticks((0, high))
        axes.set_xlabel("darker counts more", labelpad=-8)
        axes.tick_params(length=0)
        covered = box == ((0, high - 1), (0, wide - 1))
        for spine in axes.spines.values():
            spine.set(visible=not covered, color=FAINT)
        whole = "" if _sides(box) == size else f", {_text(_sides(box))} on the picture"
        cut = "" if _sides(square) == (side, side) else f", {_text(_sides(square))} on the picture"
        # The dashes lie on top: where both are one, both show.
        _frame(axes, square, WARM, "-", f"95 % of the gradient within {side}×{side}{cut}")
        _frame(axes, box, INK, (0, (4, 3)), f"theoretical field {_text(size)}{whole}")
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0, -30 / (high * scale)),
            frameon=False,
            fontsize=10,
            labelcolor=MUTED,
            handlelength=1.6,
            borderaxespad=0,
            borderpad=0,
        )
    return figure


def _sides(box: Box) -> tuple[int, int]:
    (top, bottom), (left, right) = box
    return bottom - top + 1, right - left + 1


def _text(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"


def _frame(axes: Axes, box: Box, color: str, style: object, name: str) -> None:
    """A rectangle around pixels, which the edge of the picture does not cut in half."""
    (top, bottom), (left, right) = box
    corners = ((left, top), (right + 1, top), (right + 1, bottom + 1), (left, bottom + 1))
    x, y = zip(*corners, corners[0], strict=True)
    axes.plot(x, y, color=color, lw=1.6, ls=style, clip_on=False, label=name)
