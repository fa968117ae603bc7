"""Distributions against SciPy's; the draws are fixed, so a passing test passes always."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from neocog import chance
from neocog.data import draws

IDS = torch.arange(20_000)
UNLIKELY = 1e-3


def test_unit_is_exact_and_stays_below_one() -> None:
    bits = torch.tensor([0, 255, 256, 2**31, 2**32 - 1])
    assert draws.unit(bits).tolist() == [0.0, 0.0, 2**-24, 0.5, 1 - 2**-24]


def test_between_is_even() -> None:
    drawn = draws.between(chance.key("between"), IDS, -3, 5)
    assert drawn.dtype == torch.float32
    assert stats.kstest(drawn.numpy(), stats.uniform(-3, 8).cdf).pvalue > UNLIKELY


@pytest.mark.parametrize("count", [1, 2, 9, 300])
def test_integers_are_even(count: int) -> None:
    drawn = draws.integers(chance.key("integers"), IDS, count)
    assert drawn.dtype == torch.int64
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < count
    if count > 1:
        assert stats.chisquare(np.bincount(drawn, minlength=count)).pvalue > UNLIKELY


def test_integers_with_a_count_for_each() -> None:
    counts = IDS % 7 + 1
    drawn = draws.integers(chance.key("each"), IDS, counts)
    for count in range(1, 8):
        seen = np.bincount(drawn[counts == count], minlength=count)
        assert len(seen) == count
        assert count == 1 or stats.chisquare(seen).pvalue > UNLIKELY


@pytest.mark.parametrize("count", [1, 12, 13])
def test_normals_of_each_sample(count: int) -> None:
    drawn = draws.normals(chance.key("normals"), IDS[:4000], count)
    assert drawn.shape == (4000, count)
    assert stats.kstest(drawn.flatten().numpy(), stats.norm.cdf).pvalue > UNLIKELY
    # Over 4000 samples a correlation of independent columns has σ = 0.016.
    if count > 1:
        correlation = np.corrcoef(drawn.numpy(), rowvar=False) - np.eye(count)
        assert np.abs(correlation).max() < 0.08
    few = draws.normals(chance.key("normals"), torch.tensor([17, 3]), count)
    assert torch.equal(few, drawn[[17, 3]])


def test_samples_share_no_noise() -> None:
    drawn = draws.normals(chance.key("normals"), torch.arange(40), 3000).numpy()
    correlation = np.corrcoef(drawn) - np.eye(40)
    assert np.abs(correlation).max() < 0.09


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 1.5, 8.0])
def test_beta(alpha: float) -> None:
    drawn = draws.beta(chance.key("beta"), IDS, alpha).numpy().astype(float)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    # Small shapes crowd at 1, where float32 has few numbers: each half is compared near 0.
    for half in (drawn[drawn < 0.5], 1 - drawn[drawn > 0.5]):
        assert abs(len(half) - 10_000) < 400
        keep = half[half > 1e-6]
        low = stats.beta.cdf(1e-6, alpha, alpha)

        def conditional(x: np.ndarray, low: float = low) -> np.ndarray:
            return (stats.beta.cdf(x, alpha, alpha) - low) / (0.5 - low)

        assert stats.kstest(keep, conditional).pvalue > UNLIKELY
        assert abs((half <= 1e-6).mean() - 2 * low) < 0.02


def test_beta_of_tiny_shapes_is_finite() -> None:
    drawn = draws.beta(chance.key("tiny"), IDS, 1e-4)
    assert bool(drawn.isfinite().all())
    assert abs(float((drawn > 0.5).float().mean()) - 0.5) < 0.02
