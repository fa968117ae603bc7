"""Suspected label errors against the definition written out, and against planted flips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neocog.metrics.suspects import suspects


def naive(
    p: list[list[float]], labels: list[int]
) -> tuple[list[list[float]], list[bool], list[float]]:
    """Confident joint, who is counted as an error, how unlikely labels are; one by one."""
    classes = len(p[0])
    threshold = []
    for k in range(classes):
        own = [row[k] for row, label in zip(p, labels, strict=True) if label == k]
        threshold.append(sum(own) / len(own) if own else None)
    counts = [[0.0] * classes for _ in range(classes)]
    errors, unlikely = [], []
    for row, label in zip(p, labels, strict=True):
        passing = [
            (row[k], -k)
            for k in range(classes)
            if threshold[k] is not None and row[k] >= threshold[k]
        ]
        guess = -max(passing)[1] if passing else None
        if guess is not None:
            counts[label][guess] += 1
        errors.append(guess is not None and guess != label)
        unlikely.append(1 - row[label])
    joint = []
    for i in range(classes):
        n = labels.count(i)
        total = sum(counts[i])
        joint.append(
            [c / total * n for c in counts[i]]
            if total
            else [n if i == j else 0 for j in range(classes)]
        )
    whole = sum(map(sum, joint))
    return [[one / whole for one in row] for row in joint], errors, unlikely


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 10**6))
def test_against_the_definition(classes: int, n: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    p = chance.dirichlet(np.full(classes, 0.5), n)
    labels = chance.integers(0, classes, n)
    found = suspects(p, labels)
    joint, errors, unlikely = naive(p.tolist(), labels.tolist())
    np.testing.assert_allclose(found.joint, joint, atol=1e-12)
    assert found.confident.tolist() == errors
    np.testing.assert_allclose(found.scores, unlikely, atol=1e-12)
    assert np.all(np.diff(found.scores[found.order]) <= 0)
    assert sorted(found.order.tolist()) == list(range(n))
    assert found.errors == pytest.approx(n * (1 - np.trace(np.array(joint))))
    assert np.all(found.suggested != labels)


def test_a_class_is_judged_by_its_own_confidence() -> None:
    # Of class 1 the network is never surer than 0.6: 0.55 passes there, and would not for class 0.
    p = np.array([[0.9, 0.1]] * 8 + [[0.45, 0.55]] * 8 + [[0.45, 0.55]])
    labels = [0] * 8 + [1] * 8 + [0]
    found = suspects(p, labels)
    assert found.confident.tolist() == [False] * 16 + [True]
    assert found.order[0] == 16
    assert found.suggested[16] == 1


def test_planted_flips_come_first_and_are_counted() -> None:
    chance = np.random.default_rng(0)
    n, classes = 5000, 10
    truth = chance.integers(0, classes, n)
    logits = chance.normal(0, 1.0, (n, classes))
    logits[np.arange(n), truth] += 4.0
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = truth.copy()
    flips = chance.choice(n, 50, replace=False)
    labels[flips] = (truth[flips] + chance.integers(1, classes, 50)) % classes
    found = suspects(p, labels)
    top = found.order[: n // 20]
    assert np.isin(flips, top).mean() >= 0.95
    assert (found.suggested[flips] == truth[flips]).mean() > 0.9
    assert 30 <= found.errors <= 120
    clean = suspects(p, truth)
    assert clean.errors < found.errors - 25


@pytest.mark.parametrize("skill", [0.7, 1.5, 4.0])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_wrong_labels_are_bounded_however_weak_the_network(skill: float, share: float) -> None:
    n, classes = 2000, 10
    broken, bounds, counted = 0, [], []
    for seed in range(24):
        chance = np.random.default_rng(seed)
        truth = chance.integers(0, classes, n)
        logits = chance.normal(0, 1.0, (n, classes))
        logits[np.arange(n), truth] += skill
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = truth.copy()
        wrong = chance.random(n) < share
        labels[wrong] = (truth[wrong] + chance.integers(1, classes, wrong.sum())) % classes
        found = suspects(p, labels)
        broken += found.most < wrong.sum()
        bounds.append(found.most)
        counted.append(found.errors)
    assert broken <= 2
    assert np.mean(bounds) < 0.75 * np.mean(counted) or skill > 2
    if skill > 2:  # and a good network bounds them closely
        assert np.mean(bounds) < 1.5 * n * share + 25


def test_a_class_without_samples_is_never_counted() -> None:
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.1, 0.8, 0.1]])
    found = suspects(p, [0, 0, 1])
    assert found.joint[2].sum() == 0
    assert found.joint[:, 2].sum() == 0
    assert found.suggested[1] == 2  # the likeliest, all the same


@pytest.mark.parametrize(
    ("p", "labels"),
    [
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [-1]),
        ([[0.5, 0.5]], [0, 1]),
        ([[np.nan, 0.5]], [0]),
        ([0.5, 0.5], [0, 1]),
    ],
)
def test_what_does_not_fit_is_refused(p: object, labels: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        suspects(p, labels)  # type: ignore[arg-type]


def test_nothing_gives_nothing() -> None:
    found = suspects(np.zeros((0, 3)), [])
    assert found.errors == found.most == 0
    assert len(found.order) == 0
