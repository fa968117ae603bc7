"""What signals and volumes look like in a report. Floor 1, room data; NumPy.

A signal is drawn as a wave, least value at the bottom and greatest at the top; of a volume the
middle slice along its first axis is shown. What uint8 holds is shown as it is, other values from
the least (black) to the greatest (white) of the volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["faces"]

_WIDE, _HIGH = 192, 64
"""Pixels of a drawn wave."""
_MOST = 3
"""Channels that are drawn, one below the other."""
_PAPER, _INK = 245, 40


def faces(samples: NDArray[Any]) -> list[NDArray[np.uint8]]:
    """A picture of each sample, H×W×1 or H×W×3.

    Args:
        samples: B×C×L or B×C×D×H×W, in a type of `records.FULL_SCALE`.

    >>> [face.shape for face in faces(np.zeros((2, 1, 500), np.float32))]
    [(64, 192, 1), (64, 192, 1)]
    >>> faces(np.full((1, 1, 3, 2, 2), 7, np.uint8))[0].ravel().tolist()
    [7, 7, 7, 7]
    """
    draw = _wave if samples.ndim == 3 else _slice
    return [draw(one) for one in samples]


def _wave(signal: NDArray[Any]) -> NDArray[np.uint8]:
    """C×L → the least and greatest value that falls on each column, joined to the next."""
    values = signal[:_MOST].astype(np.float64)
    bottom, top = float(values.min()), float(values.max())
    starts = np.arange(_WIDE) * values.shape[1] // _WIDE
    bands = []
    for one in values:
        low, high = np.minimum.reduceat(one, starts), np.maximum.reduceat(one, starts)
        low[1:], high[1:] = np.minimum(low[1:], high[:-1]), np.maximum(high[1:], low[:-1])
        # A signal that never moves is a line in the middle.
        scale = (_HIGH - 1) / (top - bottom) if top > bottom else 0.0
        middle = 0 if scale else _HIGH // 2
        first, last = (np.rint((top - end) * scale).astype(int) + middle for end in (high, low))
        row = np.arange(_HIGH)[:, None]
        bands.append(np.where((row >= first) & (row <= last), _INK, _PAPER))
    wave: NDArray[np.uint8] = np.concatenate(bands).astype(np.uint8)[..., None]
    return wave


def _slice(volume: NDArray[Any]) -> NDArray[np.uint8]:
    """C×D×H×W → its middle, in colour where there are three channels of uint8."""
    middle = volume[:, volume.shape[1] // 2]
    if volume.dtype == np.uint8:
        shown = middle if len(middle) == 3 else middle[:1]
        return np.ascontiguousarray(shown.transpose(1, 2, 0), np.uint8)
    low, high = float(volume[0].min()), float(volume[0].max())
    scaled = (middle[0].astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    shades: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)[..., None]
    return shades
