"""Shares that may be 0/0, elementwise. Floor 1, room metrics; imports NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["known_mean", "ratio"]


def ratio(part: NDArray[Any] | np.generic, whole: NDArray[Any] | np.generic) -> Floats:
    """part / whole, NaN for 0/0.

    >>> ratio(np.array([1, 0]), np.array([2, 0])).tolist()
    [0.5, nan]
    """
    bottom = np.asarray(whole)
    result: Floats = np.full(bottom.shape, np.nan)
    np.divide(part, bottom, out=result, where=bottom != 0)
    return result


def known_mean(values: Floats) -> Floats:
    """Mean over the last axis of the entries that are not NaN; NaN where there is none.

    >>> known_mean(np.array([[1.0, np.nan], [np.nan, np.nan]])).tolist()
    [1.0, nan]
    """
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
