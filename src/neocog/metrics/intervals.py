"""95 % intervals for proportions, means and whatever can be resampled. Floor 1, room metrics.

Imports floor 0 and NumPy.

Proportions get Wilson's score interval, a mean loss the normal one, everything else a bootstrap.
An interval is two ends laid about a value that is known already: nothing here decides what a score
is. Two things can go wrong with a bootstrap, and both are met in `drawn_ends`:

- It cannot see an error that has not happened. When every answer is right, every resample is
  perfect and the interval has no width. So a caller may pass a `floor`, an interval by formula that
  the result always covers.
- A statistic that is not linear is biased, and each resample is biased once more. The draws are
  therefore shifted back by the bias that they themselves show (their mean minus the estimate).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.chance import key
from neocog.records import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    Ends = tuple[float, float]
    Floats = NDArray[np.float64]

__all__ = [
    "DRAWS",
    "Z",
    "around",
    "drawn_ends",
    "f1_bounds",
    "generator",
    "mean_ends",
    "mean_of_bounds",
    "resample_weights",
    "resampled_sums",
    "wilson",
    "wilson_bounds",
    "wilson_ends",
]

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
DRAWS = 1000
"""Resamples of one bootstrap, unless said otherwise."""
GROUPS = 10_000
"""Larger samples are resampled in this many random groups."""
CELLS = 4_000_000
"""Numbers that one chunk of resampling may hold at a time."""


def wilson(successes: float, n: float, z: float = Z) -> Interval:
    """Wilson's score interval for a proportion (Wilson 1927).

    Unlike p ± z·√(p(1−p)/n) it keeps its width and stays inside [0, 1] when all or none succeed.

    Args:
        successes: how many of `n` succeeded.
        n: trials, at least one.
        z: normal quantile; the default gives 95 %.

    Raises:
        ValueError: no trials (0/0 has no value), or successes outside 0…n.

    >>> interval = wilson(9, 10)
    >>> interval.value, round(interval.low, 4), round(interval.high, 4)
    (0.9, 0.5958, 0.9821)
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"expected 0 ≤ successes ≤ n and n > 0, got {successes} of {n}")
    low, high = wilson_ends(successes, n, z)
    return Interval(value=successes / n, low=low, high=high, n=int(n))


def wilson_ends(successes: float, n: float, z: float = Z) -> Ends:
    """Both ends of Wilson's interval for one proportion."""
    low, high = wilson_bounds(successes, n, z)
    return float(low), float(high)


def wilson_bounds(successes: ArrayLike, n: ArrayLike, z: float = Z) -> tuple[Floats, Floats]:
    """Both ends of Wilson's interval, elementwise; NaN where n is 0."""
    hits, trials = np.asarray(successes, np.float64), np.asarray(n, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = (hits + z * z / 2) / (trials + z * z)
        half = z / (trials + z * z) * np.sqrt(hits * (trials - hits) / trials + z * z / 4)
    # Exact at the edges, where centre and half cancel only up to rounding.
    low = np.where(hits == 0, np.where(trials > 0, 0.0, np.nan), centre - half)
    high = np.where(hits == trials, np.where(trials > 0, 1.0, np.nan), centre + half)
    return low, high


def f1_bounds(hits: ArrayLike, named: ArrayLike) -> tuple[Floats, Floats]:
    """Both ends of an interval for F1 = 2·tp / (2·tp + fp + fn), elementwise; NaN where 0/0.

    F1 = 2J / (1 + J) rises with J = tp / (tp + fp + fn), and given tp + fp + fn the number tp is
    binomial. So Wilson's interval for J, mapped, is one for F1 (the "Wilson indirect" interval of
    Lam, Gopal and Qian, arXiv 2309.14621). A bootstrap of the same counts covers the truth only
    about half the time when a class has few errors: it never draws an error that was not seen.

    Args:
        hits: true positives.
        named: samples that are of the class or were answered as it: tp + fp + fn.
    """
    low, high = wilson_bounds(hits, named)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def mean_ends(mean: float, squares: float, n: int) -> Ends:
    """Both ends of an interval for the mean of n numbers, from their sum of squares.

    mean ± z·s/√n, the normal approximation. It is rough where n is small and a few large losses
    decide. With one number there is no spread to measure, and the ends equal the mean.

    >>> low, high = mean_ends(2.0, 14.0, 3)
    >>> round(low, 4), round(high, 4)
    (0.8684, 3.1316)
    """
    spread = max(squares - n * mean * mean, 0.0) / (n - 1) if n > 1 else 0.0
    half = Z * (spread / n) ** 0.5
    return mean - half, mean + half


def mean_of_bounds(values: Floats, low: Floats, high: Floats) -> Ends:
    """Both ends of an interval for the mean of several estimates, from the ends of each.

    Distances to the ends add up in squares (MOVER; Zou and Donner 2008, Statistics in Medicine 27,
    1693), as if the estimates were independent. NaN entries are left out.
    """
    count = max(int(np.isfinite(values).sum()), 1)
    mean = float(np.nansum(values)) / count
    below = float(np.sqrt(np.nansum((values - low) ** 2))) / count
    above = float(np.sqrt(np.nansum((high - values) ** 2))) / count
    return mean - below, mean + above


def drawn_ends(
    value: float,
    draws: Floats,
    *,
    floor: Ends | None = None,
    limits: Ends = (-np.inf, np.inf),
) -> Ends:
    """Both ends of a bootstrap: percentiles, shifted by the bias of the draws.

    Args:
        value: the estimate.
        draws: the same statistic of each resample; NaN where a resample leaves it undefined.
        floor: an interval by formula that the result covers at least.
        limits: what the statistic can be at all.
    """
    known = draws[np.isfinite(draws)]
    low, high = value, value
    if known.size:
        ends = np.percentile(known, [2.5, 97.5]) - (float(known.mean()) - value)
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    if floor is not None:
        low, high = min(low, floor[0]), max(high, floor[1])
    return max(low, limits[0]), min(high, limits[1])


def around(values: Mapping[str, float], ends: Mapping[str, Ends], n: int) -> dict[str, Interval]:
    """The values as they are, in their order, each with its ends.

    Args:
        values: every metric.
        ends: both ends of each.
        n: samples behind all of them.
    """
    return {
        name: Interval(value=value, low=ends[name][0], high=ends[name][1], n=n)
        for name, value in values.items()
    }


def generator(purpose: str) -> np.random.Generator:
    """The draws for one purpose: the same every time, so that a score repeats exactly."""
    return np.random.default_rng(key("metrics", purpose))


def resample_weights(
    n: int, draws: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """How often each of n samples occurs in each resample, in chunks of some draws (c×n).

    The memory of a chunk is bounded, whatever n and `draws` are.
    """
    chunk = max(1, CELLS // n)
    for first in range(0, draws, chunk):
        count = min(chunk, draws - first)
        picked = random.integers(0, n, size=(count, n))
        picked += np.arange(count)[:, None] * n
        yield np.bincount(picked.ravel(), minlength=count * n).reshape(count, n)


def resampled_sums(rows: Floats, purpose: str, draws: int = DRAWS) -> Floats:
    """Sums over resamples of the rows: n×p → draws×p.

    Above `GROUPS` rows, random groups of equal size are resampled instead of single rows. The sum
    over m groups drawn with replacement has the variance of the sum over n rows drawn so, in
    expectation over the grouping; groups in stored order would not do, because data sorted by class
    make them too much alike.
    """
    n = len(rows)
    random = generator(purpose)
    if n > GROUPS:
        order = random.permutation(n)
        starts = np.arange(GROUPS) * n // GROUPS
        rows = np.add.reduceat(rows[order], starts, axis=0)
    chunks = [weights @ rows for weights in resample_weights(len(rows), draws, random)]
    return np.concatenate(chunks)
