"""Maps of what counted, laid over the picture that they are of. Room plots; floor 1.

Pixels in, pixels out. The picture turns grey and pale, so that its own colours and shadows are not
taken for the map's; the map colours it where it is large: orange for, blue against. The two stay
apart for colour-blind readers, and everywhere a stronger colour is a larger number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = TypeVar("Number", np.uint8, np.bool_)

__all__ = ["AGAINST", "FOR", "enlarged", "extent", "hidden", "why_overlay"]

FOR, AGAINST = (214, 94, 0), (0, 100, 190)
"""Colours of the largest numbers above and below 0."""
_PALE = (158.0, 246.0)
"""Grey values that black and white become."""
_STRONGEST = 0.88
"""Share of colour where the map is largest: something of the picture is always seen."""
_OUTLIERS = 99.5
"""Percentile that counts as largest; single pixels above it do not make the rest pale."""
_BELOW = 0.75
"""Exponent of the share of colour, so that half of the largest is well seen."""


def extent(values: NDArray[np.floating]) -> float:
    """What is drawn as the largest number of a map; 0 where all of it is 0.

    Args:
        values: H×W or C×H×W; of several channels the sum is drawn.

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    size = np.abs(_flat(values))
    most = float(np.percentile(size, _OUTLIERS))
    return most if most > 0 else float(size.max())


def why_overlay(
    picture: NDArray[np.uint8], values: NDArray[np.floating], *, most: float | None = None
) -> NDArray[np.uint8]:
    """The picture in pale grey, coloured by the map.

    Args:
        picture: H×W, H×W×1 or H×W×3.
        values: h×w or C×h×w, for numbers above 0, against below; of several channels the sum is
            drawn, and a map of another size is stretched bilinearly.
        most: the number that gets the full colour, to compare maps; None: `extent`.

    Returns:
        H×W×3.

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """
    high, wide = picture.shape[:2]
    top = extent(values) if most is None else most
    flat = _stretched(_flat(values), (high, wide))
    base = np.repeat(_pale(picture)[:, :, None], 3, axis=2)
    share = np.clip(np.abs(flat) / top, 0, 1) ** _BELOW if top > 0 else np.zeros_like(flat)
    colour = np.where((flat > 0)[:, :, None], np.array(FOR), np.array(AGAINST))
    mixed = base + _STRONGEST * share[:, :, None] * (colour - base)
    return np.rint(mixed).astype(np.uint8)


def hidden(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with the part of a mask struck out: pale, with dark stripes.

    Args:
        picture: H×W, H×W×1 or H×W×3.
        mask: H×W, True where it is hidden.

    Raises:
        ValueError: a mask of another size.
    """
    if mask.shape != picture.shape[:2]:
        raise ValueError(f"expected a mask of {picture.shape[:2]}, found {mask.shape}")
    shown = np.repeat(picture.reshape(*mask.shape, -1), 3 // (picture.size // mask.size), axis=2)
    rows, columns = np.indices(mask.shape)
    width = max(2, round(min(mask.shape) / 40))
    stripes = ((rows + columns) // width) % 3 == 0
    struck = np.where(stripes, 70, 226)[:, :, None]
    mixed: NDArray[np.uint8] = np.where(mask[:, :, None], struck, shown).astype(np.uint8)
    return mixed


def enlarged(pixels: NDArray[Number], least: int = 240) -> NDArray[Number]:
    """Small pictures or masks with every pixel a square, so that the longest side has so many.

    >>> enlarged(np.zeros((8, 4, 3), np.uint8), 30).shape
    (32, 16, 3)
    """
    times = max(1, -(-least // max(pixels.shape[:2])))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _flat(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """H×W, the channels added."""
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(f"expected a map H×W or C×H×W, found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("expected a map of finite numbers, found NaN or infinity")
    numbers = values.astype(np.float64)
    summed: NDArray[np.float64] = numbers.sum(axis=0) if values.ndim == 3 else numbers
    return summed


def _stretched(values: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Bilinear, pixel centres on pixel centres."""
    from PIL import Image

    if values.shape == size:
        return values
    # Pillow computes in float32: brought near 1 first, so that tiny numbers are not lost.
    most = float(np.abs(values).max()) or 1.0
    picture = Image.fromarray((values / most).astype(np.float32))
    stretched = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(stretched, np.float64) * most


def _pale(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Luma of Rec. 601, between two light greys."""
    if picture.dtype != "uint8" or picture.ndim not in (2, 3) or picture.size == 0:
        raise ValueError(f"expected H×W×C uint8, found {picture.shape} {picture.dtype}")
    if picture.ndim == 3 and picture.shape[2] not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, found {picture.shape[2]}")
    numbers = picture.astype(np.float64).reshape(*picture.shape[:2], -1)
    weights = np.array([0.299, 0.587, 0.114]) if numbers.shape[2] == 3 else np.ones(1)
    low, high = _PALE
    return low + (numbers @ weights) / 255 * (high - low)
