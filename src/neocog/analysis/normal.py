"""Normal numbers that come from what they are for. Floor 1, analysis; imports floor 0 and NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neocog import chance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["normal"]


def normal(shape: Sequence[int], key: int) -> NDArray[np.float32]:
    """Independent standard normal numbers (Box and Muller 1958), decided by `key` alone.

    >>> normal((2, 2), 7).shape
    (2, 2)
    """
    ids = np.arange(math.prod(shape), dtype=np.int64)
    first, second = ((chance.draw(key, ids, at) + 0.5) / 2**32 for at in (0, 1))
    drawn = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    found: NDArray[np.float32] = drawn.astype(np.float32).reshape(tuple(shape))
    return found
