"""What convolution, pooling, padding and scaling read along one axis. Floor 1, room analysis.

Each function answers for one axis with `Taps`: for every output position the input positions that
it reads. Sizes are those of the axis, padding is on its left.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from neocog.analysis.span import Taps

if TYPE_CHECKING:
    from neocog.analysis.span import Positions

__all__ = ["adaptive", "mirrored", "scaled", "shifted", "transposed", "windowed"]


@lru_cache(maxsize=512)
def windowed(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int = 1
) -> Taps:
    """Convolution and pooling: output i reads i · stride − padding + k · dilation."""
    starts = np.arange(out)[:, None] * stride - padding
    positions = starts + np.arange(kernel)[None, :] * dilation
    ideal = tuple(k * dilation - padding for k in range(kernel))
    return Taps(_inside(positions, size), 1, stride, (ideal,))


@lru_cache(maxsize=512)
def transposed(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int = 1
) -> Taps:
    """Transposed convolution: output i reads j where j · stride − padding + k · dilation = i."""
    reads = np.arange(out)[:, None] + padding - np.arange(kernel)[None, :] * dilation
    positions = np.where(reads % stride == 0, reads // stride, -1)
    # A kernel shorter than the stride leaves gaps; then phases read nothing, and no interval
    # repeats.
    phases = []
    for phase in range(stride):
        taps = [phase + padding - k * dilation for k in range(kernel)]
        phases.append(tuple(one // stride for one in taps if one % stride == 0))
    ideal = tuple(phases) if all(phases) else ()
    return Taps(_inside(positions, size), stride, 1, ideal)


@lru_cache(maxsize=256)
def adaptive(size: int, out: int) -> Taps:
    """Adaptive pooling: output i reads from ⌊i·size/out⌋ up to ⌈(i+1)·size/out⌉."""
    if size % out == 0:
        return windowed(size, out, size // out, size // out, 0)
    starts = np.arange(out) * size // out
    ends = -((-(np.arange(out) + 1) * size) // out)
    reach = int((ends - starts).max())
    positions = starts[:, None] + np.arange(reach)[None, :]
    positions = np.where(positions < ends[:, None], positions, -1)
    common = math.gcd(size, out)
    period, moves = out // common, size // common
    ideal = tuple(tuple(range(int(starts[i]), int(ends[i]))) for i in range(period))
    return Taps(positions, period, moves, ideal)


@lru_cache(maxsize=256)
def scaled(size: int, out: int, mode: str, align_corners: bool) -> Taps:
    """Interpolation: nearest, nearest-exact, linear or cubic, by the pixels' centres or corners."""
    index = np.arange(out)
    if mode.startswith("nearest"):
        near = _nearest(index, size, out, mode)
        positions = near[:, None]
    else:
        if align_corners:
            centre = index * ((size - 1) / max(1, out - 1))
        else:
            centre = (index + 0.5) * size / out - 0.5
        if mode == "linear":
            centre = np.maximum(centre, 0)
        # Rounding must not turn 2.9999999 into 2.
        base = np.floor(np.round(centre, 9)).astype(np.int64)
        exact = np.isclose(centre, base, atol=1e-9)
        offsets = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
        positions = np.stack(
            [
                np.where(exact & (offset != 0), base, np.clip(base + offset, 0, size - 1))
                for offset in offsets
            ],
            axis=1,
        )
    common = math.gcd(size, out)
    period, moves = out // common, size // common
    if align_corners or period > 64:
        return Taps(positions, 1, 1, ())
    if mode.startswith("nearest"):
        ideal = tuple[tuple[int, ...], ...]((int(one),) for one in near[:period])
    else:
        ideal = tuple(_around(i, size, out, mode) for i in range(period))
    return Taps(positions, period, moves, ideal)


def _nearest(index: Positions, size: int, out: int, mode: str) -> Positions:
    """⌊i · size/out⌋, or, of `nearest-exact`, the position that holds the centre of i."""
    # Where a centre falls on an edge, rounding decides: these are the roundings of torch, compared
    # with it for all sizes up to 60 and 100.
    scale = np.float32(size) / np.float32(out)
    if mode == "nearest":
        place = index.astype(np.float32) * scale
    else:
        half = np.float32(0.5)
        place = (np.float64(scale) * (index + 0.5) - 0.5).astype(np.float32) + half
    found: Positions = np.minimum(np.floor(place).astype(np.int64), size - 1)
    return found


def _around(index: int, size: int, out: int, mode: str) -> tuple[int, ...]:
    """What an output position reads on an endless axis."""
    # (2i + 1) · size / (2 · out) − 1/2, in whole numbers.
    numerator, denominator = (2 * index + 1) * size - out, 2 * out
    base = numerator // denominator
    if numerator % denominator == 0:
        return (base,)
    return (base, base + 1) if mode == "linear" else (base - 1, base, base + 1, base + 2)


@lru_cache(maxsize=256)
def shifted(size: int, out: int, left: int) -> Taps:
    """Padding with a constant, or cropping where `left` is negative: output i reads i − left."""
    positions = np.arange(out)[:, None] - left
    return Taps(_inside(positions, size), 1, 1, ((-left,),))


@lru_cache(maxsize=256)
def mirrored(size: int, out: int, left: int, mode: str) -> Taps:
    """Padding by reflection (`reflect`) or by repeating the edge (`replicate`)."""
    index = np.arange(out) - left
    if mode == "reflect":
        index = np.abs(index)
        index = (size - 1) - np.abs(size - 1 - index)
    else:
        index = np.clip(index, 0, size - 1)
    return Taps(index[:, None], 1, 1, ((-left,),))


def _inside(positions: np.ndarray, size: int) -> np.ndarray:
    """Positions outside the axis become −1: nothing is read there."""
    return np.where((positions >= 0) & (positions < size), positions, -1)
