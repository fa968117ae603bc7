"""Do 95 % intervals hold the truth in 95 of 100 cases? Drawn anew a thousand times and counted.

The world is known: a confusion matrix of chances, a distribution of losses, a network whose
confidence is off by a known amount. Of 1,000 draws a share of 0.95 has a standard error of 0.7 %,
so that 93–97 % is three of them to either side.
"""

from __future__ import annotations

import numpy as np
import pytest

from neocog.metrics import intervals
from neocog.metrics.classification import (
    average_ends,
    averages,
    bin_sums,
    calibration,
    class_rows,
)
from neocog.metrics.paired import over_seeds, tango_bounds

TIMES = 1000
CLASSES = ("a", "b", "c", "d")
# Row: truth; column: answer. Classes of different size and difficulty.
CHANCES = np.array(
    [
        [0.36, 0.02, 0.01, 0.01],
        [0.03, 0.24, 0.02, 0.01],
        [0.01, 0.02, 0.15, 0.02],
        [0.01, 0.01, 0.02, 0.06],
    ]
)


def drawn(n: int, seed: int, chances: np.ndarray = CHANCES) -> np.ndarray:
    """Confusions of n samples each, TIMES×K×K."""
    found = np.random.default_rng(seed).multinomial(n, chances.ravel(), size=TIMES)
    return found.reshape(TIMES, *chances.shape)


def share(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("chance", [0.7, 0.9, 0.97])
def test_accuracy(n: int, chance: float) -> None:
    hits = np.random.default_rng(n).binomial(n, chance, size=TIMES)
    low, high = intervals.wilson_bounds(hits, np.full(TIMES, n))
    assert 0.93 <= share(low, high, chance) <= 0.97


@pytest.mark.parametrize("n", [300, 2000])
def test_precision_recall_and_f1_of_classes(n: int) -> None:
    hits, truth, answer = np.diagonal(CHANCES), CHANCES.sum(axis=1), CHANCES.sum(axis=0)
    exact = {"precision": hits / answer, "recall": hits / truth, "f1": 2 * hits / (truth + answer)}
    rows = [class_rows(CLASSES, one) for one in drawn(n, seed=n)]
    for measure, values in exact.items():
        for k, value in enumerate(values):
            ends = [getattr(row[k], measure) for row in rows]
            known = [one for one in ends if one is not None]
            assert len(known) > 0.99 * TIMES
            low, high = (np.array([getattr(one, end) for one in known]) for end in ("low", "high"))
            assert 0.93 <= share(low, high, value) <= 0.97, (measure, CLASSES[k])


def test_averages_over_classes() -> None:
    exact = averages((CHANCES * 1e9).astype(np.int64))
    found = [average_ends(one, averages(one)) for one in drawn(600, seed=1)]
    for name, truth in exact.items():
        low, high = np.array([ends[name] for ends in found]).T
        assert 0.93 <= share(low, high, truth) <= 0.97, name


@pytest.mark.parametrize("n", [200, 2000])
def test_mean_loss(n: int) -> None:
    """Losses as a classifier has them: most small, some large."""
    random = np.random.default_rng(n)
    losses = random.gamma(0.5, 0.6, size=(TIMES, n))
    ends = [
        intervals.mean_ends(float(row.mean()), float(np.square(row).sum()), n) for row in losses
    ]
    low, high = np.array(ends).T
    assert 0.93 <= share(low, high, 0.3) <= 0.97


@pytest.mark.parametrize(("n", "tilt"), [(1000, 0.0), (1000, 0.03)])
def test_calibration_error(n: int, tilt: float) -> None:
    """Confidence c, right with chance c − tilt: the error of every bin is the tilt."""
    random = np.random.default_rng(n)
    sure = 0.3 + 0.7 * random.beta(3, 1, size=(TIMES, n))
    right = random.random((TIMES, n)) < sure - tilt
    told = [calibration(*bin_sums(*row))["ece"] for row in zip(sure, right, strict=True)]
    low, high = (np.array([one[end] for one in told]) for end in ("low", "high"))
    assert 0.93 <= share(low, high, tilt) <= 0.97


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("apart", [(0.05, 0.10), (0.04, 0.04), (0.2, 0.25)])
def test_difference_of_two_accuracies(n: int, apart: tuple[float, float]) -> None:
    cells = np.random.default_rng(n).multinomial(n, (*apart, 1 - sum(apart)), size=TIMES)
    low, high = tango_bounds(cells[:, 0], cells[:, 1], n)
    assert 0.93 <= share(low, high, apart[1] - apart[0]) <= 0.97


@pytest.mark.parametrize("runs", [2, 3, 5, 10])
def test_difference_over_seeds(runs: int) -> None:
    random = np.random.default_rng(runs)
    a, b = random.normal(0.90, 0.01, (TIMES, runs)), random.normal(0.92, 0.006, (TIMES, runs))
    found = [over_seeds(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    ends = [(one.difference.low, one.difference.high) for one in found if one is not None]
    low, high = np.array(ends).T
    # With two runs of each Welch's degrees of freedom are a cautious guess.
    assert 0.93 <= share(low, high, 0.02) <= (0.97 if runs > 2 else 0.99)
