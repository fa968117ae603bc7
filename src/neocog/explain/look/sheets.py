"""Numbers as tiles of grey or colour, and tiles as one sheet. Floor 1, explain; imports NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SCALES", "Scale", "Tiles", "columns_for", "levels", "sheet", "strongest"]

Scale = Literal["signed", "positive", "range"]
"""How numbers become grey values."""

SCALES: dict[Scale, str] = {
    "signed": "0 is the middle grey; the largest absolute value is black or white",
    "positive": "0 is black, the largest value white",
    "range": "the smallest value is black, the largest white",
}
"""What each scale shows, in words."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiles:
    """Small pictures of one size, in rows."""

    pixels: NDArray[np.uint8]
    """K×h×w, or K×h×w×3 in colour."""
    numbers: tuple[int, ...]
    """Of the kernel or channel that each tile shows."""
    columns: int
    """Tiles in a row."""
    scale: Scale
    """How grey values were chosen."""
    each: bool
    """Whether each tile (each kernel) has a scale of its own; otherwise they share one."""


def levels(values: NDArray[np.floating], scale: Scale, *, each: bool = True) -> NDArray[np.uint8]:
    """Numbers as grey values 0 … 255.

    Args:
        values: K×…, of which each has a scale of its own, or all one.
        scale: `signed`: −m … m to 1 … 255, 0 to 128, where m is the largest absolute value;
            `positive`: 0 … max to 0 … 255, what is negative to 0; `range`: min … max to 0 … 255.
        each: a scale for each of the K.

    Raises:
        ValueError: a value that is not finite.

    >>> levels(np.array([[-1.0, 0.0, 0.5]]), "signed").tolist()
    [[1, 128, 192]]
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("expected finite values to show, found NaN or infinity")
    axes = tuple(range(1, values.ndim)) if each else None
    if not values.size:
        return values.astype(np.uint8)
    low = values.min(axes, keepdims=True) if scale == "range" else np.zeros(())
    high = (np.abs(values) if scale == "signed" else values - low).max(axes, keepdims=True)
    share = (values - low) / np.where(high > 0, high, 1)
    shown = 128 + 127 * share if scale == "signed" else 255 * share.clip(0, 1)
    return np.floor(shown + 0.5).astype(np.uint8)


def sheet(tiles: Tiles, *, gap: int = 1, ground: int = 255) -> NDArray[np.uint8]:
    """All tiles as one picture, H×W or H×W×3.

    Args:
        tiles: in reading order.
        gap: pixels between two tiles; none around the sheet.
        ground: grey value of the gaps, and of places without a tile.
    """
    count, high, wide, *colour = tiles.pixels.shape
    columns = tiles.columns
    rows = math.ceil(count / columns)
    size = (rows * (high + gap) - gap, columns * (wide + gap) - gap)
    pixels = np.full((*size, *colour), ground, np.uint8)
    for at, tile in enumerate(tiles.pixels):
        top, left = at // columns * (high + gap), at % columns * (wide + gap)
        pixels[top : top + high, left : left + wide] = tile
    return pixels


def columns_for(count: int, tall: float = 1.0) -> int:
    """Tiles in a row such that a sheet is a little wider than high.

    Args:
        count: of tiles.
        tall: height of a tile to its width.

    >>> columns_for(64), columns_for(6)
    (10, 3)
    """
    return min(count, max(1, math.ceil(math.sqrt(1.5 * count * tall))))


def strongest(values: NDArray[np.floating], most: int, *, by_strength: bool) -> NDArray[np.int64]:
    """Numbers of the K that have the largest root mean square, at most `most`.

    Args:
        values: K×….
        most: how many at most.
        by_strength: the strongest first; otherwise by number.
    """
    power = np.square(values.astype(np.float64)).reshape(len(values), -1).mean(1)
    kept = np.argsort(-power, kind="stable")[:most].astype(np.int64)
    return kept if by_strength else np.sort(kept)
