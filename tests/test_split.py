"""The validation split: totals close, every class keeps a sample, chance is a function."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neocog.data.split import allocate, held_back

COUNTS = st.lists(st.integers(0, 200), min_size=1, max_size=12)
SHARES = st.floats(0.001, 0.999)


@settings(deadline=None)
@given(COUNTS, SHARES)
def test_allocation_closes(counts: list[int], share: float) -> None:
    total = np.array(counts)
    taken = allocate(total, share)
    assert (taken >= 0).all()
    assert (taken <= np.maximum(total - 1, 0)).all()
    wanted = max(1, int(share * total.sum() + 0.5))
    assert taken.sum() == min(wanted, np.maximum(total - 1, 0).sum())


@settings(deadline=None)
@given(COUNTS, st.floats(0.01, 0.5))
def test_allocation_stays_within_one_of_the_quota(counts: list[int], share: float) -> None:
    total = np.array([count + 100 for count in counts])  # room enough: pure largest remainder
    assert (np.abs(allocate(total, share) - share * total) < 1).all()


def test_hamilton_by_hand() -> None:
    # Quotas 1.6, 1.5, 0.9 of total 4: floors 1, 1, 0, remainders .6, .5, .9 → third, first.
    assert allocate(np.array([16, 15, 9]), 0.1).tolist() == [2, 1, 1]
    assert allocate(np.array([5, 5]), 0.0).tolist() == [0, 0]
    assert allocate(np.array([1, 1, 1]), 0.5).tolist() == [0, 0, 0]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**40), SHARES, st.lists(st.integers(0, 4), min_size=1, max_size=300))
def test_stratified(seed: int, share: float, labels: list[int]) -> None:
    classes = np.array(labels)
    ids = np.arange(len(labels)) * 7919
    chosen = held_back(ids, share, seed=seed, classes=classes)
    expected = allocate(np.bincount(classes), share)
    assert np.array_equal(np.bincount(classes[chosen], minlength=len(expected)), expected)
    # The order in which samples are listed does not matter.
    order = np.random.default_rng(0).permutation(len(labels))
    again = held_back(ids[order], share, seed=seed, classes=classes[order])
    assert np.array_equal(again, chosen[order])


def test_seed_decides_and_adding_a_sample_moves_few() -> None:
    ids = np.random.default_rng(1).integers(0, 2**32, 2000)
    first = held_back(ids, 0.1, seed=0)
    assert np.array_equal(first, held_back(ids, 0.1, seed=0))
    assert first.sum() == 200
    other = held_back(ids, 0.1, seed=1)
    assert (first & other).sum() == pytest.approx(20, abs=15)  # 10 % of 10 %, 3.5 deviations
    more = held_back(np.append(ids, 12345), 0.1, seed=0)[:-1]
    assert (first != more).sum() <= 2


def test_each_sample_is_as_likely_as_any_other() -> None:
    ids = np.arange(50)
    hits = sum(held_back(ids, 0.2, seed=seed).astype(int) for seed in range(2000))
    # Binomial(2000, 0.2): mean 400, deviation 17.9; five deviations for fifty samples.
    assert np.abs(np.asarray(hits) - 400).max() < 90
