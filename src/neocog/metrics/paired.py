"""Two networks against each other: on the same samples, and over seeds. Floor 1, room metrics.

Imports floor 0 and NumPy. Two accuracies on the same samples go up and down together, so their own
intervals say little about their difference: what counts is where only one of the two is right.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.metrics import student
from neocog.metrics.intervals import Z, mean_ends
from neocog.records import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Paired",
    "Seeds",
    "holm",
    "mcnemar",
    "mean_difference",
    "over_seeds",
    "paired",
    "tango_bounds",
]

_HALVINGS = 60
FEW = 5
"""Runs of one kind below which their spread is hardly known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Right and wrong answers of two networks, A and B, on the same samples."""

    both: int
    """Samples on which both are right."""
    only_a: int
    """Samples on which A is right and B wrong."""
    only_b: int
    """Samples on which B is right and A wrong."""
    neither: int
    """Samples on which both are wrong."""
    p: float
    """McNemar's test (mid-p): how often chance alone would part them so far, if both were equally
    good."""
    difference: Interval
    """Accuracy of B minus that of A, with Tango's score interval."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def paired(a: ArrayLike, b: ArrayLike) -> Paired:
    """Compare two networks by which samples each answers rightly.

    Args:
        a: N flags, true where A is right.
        b: N flags of B, of the same samples in the same order.

    Raises:
        ValueError: lengths differ, or there are no samples.

    >>> found = paired([1, 1, 1, 0, 0], [1, 1, 0, 1, 0])
    >>> (found.both, found.only_a, found.only_b, found.neither), found.difference.value, found.p
    ((2, 1, 1, 1), 0.0, 1.0)
    """
    first, second = np.asarray(a, np.bool_), np.asarray(b, np.bool_)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(f"expected two equally long rows, found {first.shape}, {second.shape}")
    n = len(first)
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    low, high = (float(end) for end in tango_bounds(only_a, only_b, n))
    both = int((first & second).sum())
    return Paired(
        both=both,
        only_a=only_a,
        only_b=only_b,
        neither=n - both - only_a - only_b,
        p=mcnemar(only_a, only_b),
        difference=Interval(value=(only_b - only_a) / n, low=low, high=high, n=n),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's test as mid-p: two-sided, from the binomial distribution itself, at any number.

    Given n discordant samples, under equal accuracy their number on one side is binomial (n, ½). Of
    the outcome that was seen half the chance is counted: the exact test counts all of it and misses
    too much, the χ² test without continuity correction finds too much where n is small (Fagerland,
    Lydersen and Laake 2013, BMC Medical Research Methodology 13, 91).

    >>> mcnemar(0, 0), mcnemar(0, 5), round(mcnemar(12, 31), 4)
    (1.0, 0.03125, 0.0037)
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    # log C(n, k) / 2ⁿ for k = 0…fewer: ratios of neighbours, summed.
    k = np.arange(1, fewer + 1, dtype=np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1) - np.log(k))]) - n * math.log(2)
    chances = np.exp(logs)
    return min(1.0, float(2 * chances.sum() - chances[-1]))


def tango_bounds(only_a: ArrayLike, only_b: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    """Both ends of a 95 % interval for accuracy B − accuracy A, elementwise.

    The differences Δ that the score test does not refuse (Tango 1998, Statistics in Medicine 17,
    891): (b − a − nΔ)² ≤ z² n (2q + Δ(1 − Δ)), where q is what the chance of "only A is right" is
    most likely to be, given Δ. It needs no correction where nothing is discordant.

    Args:
        only_a: samples on which only A is right.
        only_b: samples on which only B is right.
        n: all samples, at least one.
    """
    a, b, total = (np.asarray(one, np.float64) for one in np.broadcast_arrays(only_a, only_b, n))
    value = (b - a) / total

    def refused(delta: Floats) -> NDArray[np.bool_]:
        linear = -a - b + (2 * total - b + a) * delta
        root = np.sqrt(np.maximum(linear**2 + 8 * total * a * delta * (1 - delta), 0))
        # Of two forms of the same root the one without cancellation.
        small = 2 * a * delta * (1 - delta)
        with np.errstate(invalid="ignore", divide="ignore"):
            q = np.where(linear > 0, small / (root + linear), (root - linear) / (4 * total))
        q = np.clip(np.nan_to_num(q), 0, None)
        spread = total * (2 * q + delta * (1 - delta))
        outside: NDArray[np.bool_] = (b - a - total * delta) ** 2 > Z * Z * np.maximum(spread, 0)
        return outside

    ends = []
    for limit in (-1.0, 1.0):
        inside, outside = value.copy(), np.full_like(value, limit)
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            out = refused(middle)
            inside, outside = np.where(out, inside, middle), np.where(out, middle, outside)
        ends.append(inside)
    return ends[0], ends[1]


def mean_difference(a: ArrayLike, b: ArrayLike) -> Interval:
    """Mean of B − A over the same samples, with the normal interval: for losses.

    Raises:
        ValueError: lengths differ, or there are no samples.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(f"expected two equally long rows, found {first.shape}, {second.shape}")
    each = second - first
    mean = float(each.mean())
    low, high = mean_ends(mean, float(np.square(each).sum()), len(each))
    return Interval(value=mean, low=low, high=high, n=len(each))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Two recipes, each run with several seeds."""

    a: tuple[float, ...]
    """The score of each run of A."""
    b: tuple[float, ...]
    """The score of each run of B."""
    difference: Interval
    """Mean of B − mean of A, with Welch's t interval; n counts runs."""
    p: float
    """Welch's t test, two-sided."""
    remark: str
    """How far so few runs can be trusted."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "a": list(self.a), "b": list(self.b)}


def over_seeds(a: Sequence[float], b: Sequence[float]) -> Seeds | None:
    """Compare two recipes by the scores of runs that differ in their seeds alone.

    Welch (1947, Biometrika 34, 28): spreads may differ, and the degrees of freedom follow from
    both. The interval is about the recipes; that of `paired` is about two trained networks.

    Returns:
        None where either has fewer than two runs: nothing is known of their spread.

    >>> found = over_seeds([0.90, 0.91, 0.92], [0.93, 0.95, 0.94])
    >>> round(found.difference.value, 3), round(found.difference.low, 3), round(found.p, 3)
    (0.03, 0.007, 0.021)
    """
    if min(len(a), len(b)) < 2:
        return None
    rows = [np.asarray(one, np.float64) for one in (a, b)]
    value = float(rows[1].mean() - rows[0].mean())
    parts = [float(row.var(ddof=1)) / len(row) for row in rows]
    error = math.sqrt(sum(parts))
    runs = len(a) + len(b)
    remark = ""
    if min(len(a), len(b)) < FEW:
        remark = (
            f"{len(a)} and {len(b)} runs: their spread is itself hardly known, so the interval is "
            f"wide; {FEW} runs of each would tell more"
        )
    if error == 0:
        remark = "the runs of each side score the same: nothing is known of their spread"
        ends, p = (value, value), (1.0 if value == 0 else 0.0)
    else:
        squares = (part**2 / (len(row) - 1) for part, row in zip(parts, rows, strict=True))
        freedom = max(1.0, error**4 / sum(squares))
        half = student.quantile(freedom) * error
        ends, p = (value - half, value + half), student.tails(value / error, freedom)
    difference = Interval(value=value, low=ends[0], high=ends[1], n=runs)
    return Seeds(a=tuple(a), b=tuple(b), difference=difference, p=p, remark=remark)


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several tests, raised so that one mistake among all stays as rare as said.

    The smallest of m is multiplied by m, the next by m − 1, and so on, and none falls below the one
    before (Holm 1979, Scandinavian Journal of Statistics 6, 65).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    raised, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p[i] * (len(p) - rank)))
        raised[i] = least
    return raised
