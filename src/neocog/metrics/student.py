"""Student's t, for intervals of a few numbers. Floor 1, room metrics; imports NumPy."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["quantile", "tails"]

_POINTS = 64
_HALVINGS = 60


@functools.cache
def _rule() -> tuple[Floats, Floats]:
    """Nodes and weights on −1…1."""
    return np.polynomial.legendre.leggauss(_POINTS)


def tails(t: float, freedom: float) -> float:
    """The chance that |T| is larger than |t|, for any number of degrees of freedom from 1.

    With t = √ν tan θ the density becomes cos^(ν−1) θ on a finite range, which Gauss–Legendre's rule
    with 64 points integrates to some ten digits.

    >>> round(tails(1.0, 1), 6), round(tails(2.2281, 10), 6)  # Cauchy: a half; a table: 0.05
    (0.5, 0.050003)
    """
    if not freedom >= 1:
        raise ValueError(f"expected at least one degree of freedom, got {freedom}")
    end = math.atan(abs(t) / math.sqrt(freedom))
    nodes, weights = _rule()
    angles = end * (nodes + 1) / 2
    area = float((weights * np.cos(angles) ** (freedom - 1)).sum()) * end / 2
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return max(0.0, 1 - 2 / math.sqrt(math.pi) * math.exp(log_scale) * area)


@functools.lru_cache(maxsize=1024)
def quantile(freedom: float, outside: float = 0.05) -> float:
    """The t with so much chance outside ±t; at one degree of freedom 12.7, at infinitely many 1.96.

    >>> round(quantile(1), 3), round(quantile(4.5), 3), round(quantile(1e9), 3)
    (12.706, 2.659, 1.96)
    """
    low, high = 0.0, 1.0
    while tails(high, freedom) > outside:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if tails(middle, freedom) > outside else (low, middle)
    return high
