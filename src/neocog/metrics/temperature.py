"""One number that makes confidences honest: the temperature of the softmax. Floor 1, room metrics.

Imports floor 0 and NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.metrics.classification import bin_sums, calibration
from neocog.metrics.intervals import CELLS, generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

__all__ = ["FEWEST", "LIMITS", "Temperature", "fit"]

LIMITS = (0.05, 20.0)
"""Temperatures that are looked for."""
FEWEST = 50
"""Samples below which nothing is fitted."""
FOLDS = 5
"""Parts of the samples; each is judged by the temperature of the other four."""
_STEPS = 100
_CLOSE = 1e-10
"""Steps of 1/T relative to it below which the search is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """What logits are divided by, and what that is worth on samples that it was not fitted to."""

    value: float
    """T; 1 where nothing was gained, or nothing could be fitted."""
    n: int
    """Samples that it comes from."""
    nll: tuple[float, float]
    """Mean −log p of the true class with T = 1, and cross-fitted; nats."""
    ece: tuple[float, float]
    """Expected calibration error with T = 1, and cross-fitted."""
    calibration: dict[str, Any]
    """`ece` with its interval and `bins`, cross-fitted, as `metrics.calibration` tells them."""
    reason: str = ""
    """Why T is 1, or that it lies at a bound of `LIMITS`; empty where it was fitted within them."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `value`, `n`, `nll` and `ece` before and after, `reason`.

        >>> told = fit(np.zeros((3, 2)), np.array([0, 1, 1])).to_dict()
        >>> told["value"], told["reason"]
        (1.0, 'a temperature is fitted to at least 50 samples, found 3')
        """
        return {
            "value": self.value,
            "n": self.n,
            "nll": dict(zip(("before", "after"), self.nll, strict=True)),
            "ece": dict(zip(("before", "after"), self.ece, strict=True)),
            "reason": self.reason,
        }


def fit(logits: ArrayLike, truth: ArrayLike) -> Temperature:
    """The temperature T with the least mean of −log softmax(z/T)_y (Guo et al. 2017, 1706.04599).

    A temperature that is fitted to samples looks too good on the same samples, and one that rests
    on a handful of mistakes can do harm. So the samples are cut into five parts by a fixed draw,
    each part is judged with the temperature of the other four, and T stays 1 unless the mean loss
    of all samples judged so is smaller than without. The order of the classes by probability, and
    with it every answer, is the same at any temperature.

    Args:
        logits: N×K, finite; held in their own type, computed in float64 some rows at a time.
        truth: class indices, N.

    Raises:
        ValueError: shapes that do not fit, indices outside 0…K−1, NaN or infinity, or no samples.
    """
    z, y = _checked(logits, truth)
    n = len(y)
    plain, right, sure = _judged(z, y, np.ones(n))
    before = calibration(*bin_sums(sure, right))

    def result(value: float, nll: float, after: dict[str, Any], reason: str = "") -> Temperature:
        return Temperature(
            value=value,
            n=n,
            nll=(plain, nll),
            ece=(before["ece"]["value"], after["ece"]["value"]),
            calibration=after,
            reason=reason,
        )

    if n < FEWEST:
        reason = f"a temperature is fitted to at least {FEWEST} samples, found {n}"
        return result(1.0, plain, before, reason)
    if right.all() or not right.any():
        answers = "all" if right.all() else "none"
        reason = f"{answers} of {n:,} answers are right, so that no temperature is the best"
        return result(1.0, plain, before, reason)
    part = np.empty(n, np.int64)
    part[generator("temperature").permutation(n)] = np.arange(n) % FOLDS
    value = _best(z, y, np.arange(n), 1.0)
    apart = [_best(z, y, np.flatnonzero(part != fold), value) for fold in range(FOLDS)]
    held, _, sure = _judged(z, y, np.array(apart)[part])
    if held >= plain:
        reason = (
            "on samples that it was not fitted to, a temperature does not lower the loss: "
            f"{plain:.4f} without, {held:.4f} with it"
        )
        return result(1.0, plain, before, reason)
    reason = ""
    if not LIMITS[0] * 1.001 < value < LIMITS[1] / 1.001:
        reason = f"it is the {'largest' if value > 1 else 'smallest'} that is looked for"
    return result(value, held, calibration(*bin_sums(sure, right)), reason)


def _checked(logits: ArrayLike, truth: ArrayLike) -> tuple[NDArray[Any], Indices]:
    """Logits N×K in their own floating type and indices N."""
    z, y = np.asarray(logits), np.asarray(truth)
    if not np.issubdtype(z.dtype, np.floating):
        z = z.astype(np.float64)
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(y) or z.shape[1] < 1:
        raise ValueError(f"expected logits N×K and N class indices, found {z.shape} and {y.shape}")
    if not np.issubdtype(y.dtype, np.integer) or not 0 <= y.min() <= y.max() < z.shape[1]:
        raise ValueError(f"expected class indices 0…{z.shape[1] - 1}, found {y.min()}…{y.max()}")
    if not np.isfinite(z).all():
        raise ValueError("expected finite logits, found NaN or infinity")
    return z, y.astype(np.int64)


def _rows(z: NDArray[Any], y: Indices, ids: Indices) -> Iterator[tuple[Indices, Floats, Indices]]:
    """Ids, logits relative to the row's largest, and truths, some rows at a time, in float64."""
    step = max(1, CELLS // (4 * z.shape[1]))
    for first in range(0, len(ids), step):
        some = ids[first : first + step]
        part = z[some].astype(np.float64)
        yield some, part - part.max(axis=1, keepdims=True), y[some]


def _judged(z: NDArray[Any], y: Indices, each: Floats) -> tuple[float, NDArray[np.bool_], Floats]:
    """Mean loss, which answers are right, and their confidence, with a temperature for each row."""
    losses, right, sure = np.empty(len(y)), np.empty(len(y), np.bool_), np.empty(len(y))
    for ids, top, truth in _rows(z, y, np.arange(len(y))):
        scaled = top / each[ids, None]
        total = np.exp(scaled).sum(axis=1)
        losses[ids] = np.log(total) - scaled[np.arange(len(ids)), truth]
        # The largest is 0; of equals the first is the answer, as everywhere.
        right[ids] = top.argmax(axis=1) == truth
        sure[ids] = 1 / total
    return float(losses.mean()), right, sure


def _slopes(z: NDArray[Any], y: Indices, ids: Indices, cold: float) -> tuple[float, float]:
    """First and second derivative of the summed loss in a = 1/T: E_p[z] − z_y, and Var_p[z]."""
    first = second = 0.0
    for some, top, truth in _rows(z, y, ids):
        shares = np.exp(cold * top)
        shares /= shares.sum(axis=1, keepdims=True)
        mean = (shares * top).sum(axis=1)
        first += float((mean - top[np.arange(len(some)), truth]).sum())
        second += float((shares * (top - mean[:, None]) ** 2).sum())
    return first, second


def _best(z: NDArray[Any], y: Indices, ids: Indices, start: float) -> float:
    """The best temperature for some rows, within `LIMITS`.

    The loss is convex in a = 1/T, so its slope rises, and Newton's steps that leave the bracket of
    its sign are replaced by halving that on a logarithmic scale.
    """
    low, high = 1 / LIMITS[1], 1 / LIMITS[0]
    cold = min(max(1 / start, low), high)
    for _ in range(_STEPS):
        first, second = _slopes(z, y, ids, cold)
        if first == 0:
            break
        low, high = (cold, high) if first < 0 else (low, cold)
        new = cold - first / second if second > 0 else math.inf
        if not low < new < high:
            new = math.sqrt(low * high)
        moved, cold = abs(new - cold), new
        if moved <= _CLOSE * cold:
            break
    return 1 / cold
