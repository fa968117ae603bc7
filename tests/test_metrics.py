"""Scores against scikit-learn and SciPy, intervals against exact coverage and naive resampling."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from neocog.errors import ConfigError, DataError, NonFiniteLossError
from neocog.metrics import (
    ClassificationStatistics,
    MultilabelStatistics,
    RegressionStatistics,
    direction,
    intervals,
    wilson,
)
from neocog.metrics.classification import BINS, average_ends, averages, calibration
from neocog.metrics.multilabel import average_precision
from neocog.records import Batch, DataCount, Interval, Scores, scores_from_dict, scores_to_dict


def batch(targets: torch.Tensor, valid: torch.Tensor | None = None, first: int = 0) -> Batch:
    n = len(targets)
    return Batch(
        images=torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        targets=targets,
        weights=torch.ones(n),
        valid=torch.ones(n, dtype=torch.bool) if valid is None else valid,
        ids=torch.arange(first, first + n),
    )


def names(size: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(size))


def draw(kind: str, n: int, size: int, seed: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Fresh statistics, answers and targets of one kind, better than chance but not perfect."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, size, generator=g)
    if kind == "classification":
        targets = torch.randint(0, size, (n,), generator=g)
        logits = noise + 2 * torch.nn.functional.one_hot(targets, size)
        return ClassificationStatistics(names(size)), logits.softmax(1), targets
    if kind == "multilabel":
        targets = (torch.rand(n, size, generator=g) < 0.3).float()
        return MultilabelStatistics(names(size)), (noise + 2 * targets - 1).sigmoid(), targets
    targets = torch.randn(n, size, generator=g) * 3 + 2000
    return RegressionStatistics(names(size)), targets + noise, targets


KINDS = ("classification", "multilabel", "regression")


def counted(kind: str, n: int, size: int, seed: int = 0) -> tuple[Scores, Any, Any, Any]:
    """Scores, answers, targets and losses, the latter three as NumPy arrays."""
    statistics, answers, targets = draw(kind, n, size, seed)
    losses = torch.rand(n, generator=torch.Generator().manual_seed(seed + 1))
    statistics.update(answers, losses, batch(targets))
    return statistics.scores(), answers.numpy(), targets.numpy(), losses.numpy()


def same(one: Scores, other: Scores) -> None:
    """Equal counts, and sums equal up to the order of addition."""
    assert one.confusion == other.confusion
    assert one.classes == other.classes
    assert one.metrics.keys() == other.metrics.keys()
    for name, mine in one.metrics.items():
        theirs = other.metrics[name]
        assert mine.n == theirs.n
        got, expected = ((x.value, x.low, x.high) for x in (mine, theirs))
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    if one.calibration:
        assert one.calibration["ece"] == pytest.approx(other.calibration["ece"], abs=1e-12)
        for mine, theirs in zip(one.calibration["bins"], other.calibration["bins"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-12)


# ---------------------------------------------------------------------------------- intervals


@given(n=st.integers(1, 100_000), share=st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_wilson_is_that_of_scipy(n: int, share: float) -> None:
    successes = round(share * n)
    mine = wilson(successes, n)
    theirs = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)
    assert 0 <= mine.low <= mine.value <= mine.high <= 1
    assert mine.n == n


def test_wilson_at_the_edges() -> None:
    z2 = intervals.Z**2
    assert wilson(0, 20) == Interval(value=0.0, low=0.0, high=pytest.approx(z2 / (20 + z2)), n=20)
    assert wilson(20, 20) == Interval(value=1.0, low=pytest.approx(20 / (20 + z2)), high=1.0, n=20)
    assert pytest.approx(stats.norm.ppf(0.975), rel=1e-15) == intervals.Z
    for successes, n in [(0, 0), (3, 2), (-1, 2)]:
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, n)


@pytest.mark.parametrize("n", [20, 100])
def test_wilson_covers_on_average(n: int) -> None:
    """No simulation: over all outcomes, weighted by their exact probability."""
    hits = np.arange(n + 1)
    low, high = intervals.wilson_bounds(hits, np.full(n + 1, n))
    chances = np.linspace(0.02, 0.98, 97)
    covered = (low[:, None] <= chances) & (chances <= high[:, None])
    exact = (stats.binom.pmf(hits[:, None], n, chances) * covered).sum(axis=0)
    assert exact.mean() == pytest.approx(0.95, abs=0.01)
    assert exact.min() > 0.88


def test_f1_interval_covers_where_a_bootstrap_does_not() -> None:
    """A rare class with few errors: 2·tp / (2·tp + fp + fn) of four multinomial cells."""
    chances = np.array([0.1, 0.005, 0.005, 0.89])
    truth = 2 * 0.1 / (2 * 0.1 + 0.01)
    cells = np.random.default_rng(0).multinomial(100, chances, size=4000)
    low, high = intervals.f1_bounds(cells[:, 0], cells[:, :3].sum(axis=1))
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.03)
    drawn = [
        np.random.default_rng(i).multinomial(100, row / 100, 300)
        for i, row in enumerate(cells[:300])
    ]
    ends = [
        np.percentile(2 * d[:, 0] / (2 * d[:, 0] + d[:, 1] + d[:, 2] + 1e-300), [2.5, 97.5])
        for d in drawn
    ]
    assert np.mean([a <= truth <= b for a, b in ends]) < 0.8


def test_the_ends_of_a_mean() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=400)
    mine = intervals.mean_ends(values.mean(), np.square(values).sum(), 400)
    half = stats.norm.ppf(0.975) * values.std(ddof=1) / 20
    assert mine == pytest.approx((values.mean() - half, values.mean() + half))
    assert intervals.mean_ends(3.0, 9.0, 1) == (3.0, 3.0)
    # Rounding must not make the variance of a constant negative.
    low, high = intervals.mean_ends(0.1, 0.01 * 3, 3)
    assert low <= 0.1 <= high


def test_resampling_has_the_variance_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in groups, and also where the rows come sorted."""
    values = np.sort(np.random.default_rng(0).normal(size=6000))
    rows = np.stack([values, np.ones(6000)], axis=1)
    for limit in (10_000, 1500):
        monkeypatch.setattr(intervals, "GROUPS", limit)
        sums = intervals.resampled_sums(rows, "test")
        means = sums[:, 0] / sums[:, 1]
        assert means.std() == pytest.approx(values.std() / 6000**0.5, rel=0.1)
        assert means.mean() == pytest.approx(values.mean(), abs=3e-3)


def test_resampling_is_chunked_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 2))
    first = intervals.resampled_sums(rows, "test")
    np.testing.assert_array_equal(first, intervals.resampled_sums(rows, "test"))
    assert not np.array_equal(first, intervals.resampled_sums(rows, "other"))
    monkeypatch.setattr(intervals, "CELLS", 50 * 7)
    shapes = {w.shape for w in intervals.resample_weights(50, 30, np.random.default_rng(0))}
    assert shapes == {(7, 50), (2, 50)}
    assert all(
        (w.sum(axis=1) == 50).all()
        for w in intervals.resample_weights(50, 30, np.random.default_rng(0))
    )


# ----------------------------------------------------------------------------- classification


@pytest.mark.parametrize(("n", "size"), [(40, 3), (500, 10), (60, 30)])
def test_classification_is_that_of_scikit_learn(n: int, size: int) -> None:
    scores, p, truth, losses = counted("classification", n, size)
    label, known = p.argmax(axis=1), np.arange(size)
    expected = reference.confusion_matrix(truth, label, labels=known)
    np.testing.assert_array_equal(np.array(scores.confusion), expected)
    value = {name: one.value for name, one in scores.metrics.items()}
    assert value["accuracy"] == pytest.approx(reference.accuracy_score(truth, label))
    assert value["macro_f1"] == pytest.approx(reference.f1_score(truth, label, average="macro"))
    recall = reference.recall_score(truth, label, labels=np.unique(truth), average="macro")
    assert value["balanced_accuracy"] == pytest.approx(recall)
    assert value["loss"] == pytest.approx(losses.mean(dtype=np.float64))
    if size > 5:
        top = reference.top_k_accuracy_score(truth, p, k=5, labels=known)
        assert value["top5"] == pytest.approx(top)
    else:
        assert "top5" not in value
    rows = reference.precision_recall_fscore_support(
        truth, label, labels=known, zero_division=np.nan
    )
    for row, precision, found, f1, support in zip(scores.classes, *rows, strict=True):
        for mine, theirs in ((row.precision, precision), (row.recall, found), (row.f1, f1)):
            assert (None if mine is None else pytest.approx(mine.value)) == (
                None if np.isnan(theirs) else theirs
            )
        assert row.n == support


def test_zero_over_zero_is_none_and_zero_is_zero() -> None:
    statistics = ClassificationStatistics(("a", "b", "c", "d"))
    answers = torch.eye(4)[[0, 1, 1, 3]]  # c is never answered, d is never true
    statistics.update(answers, torch.zeros(4), batch(torch.tensor([0, 1, 2, 0])))
    a, b, c, d = statistics.scores().classes
    assert (a.precision.value, a.recall.value, a.n) == (1.0, 0.5, 2)  # type: ignore[union-attr]
    assert b.precision.value == 0.5  # type: ignore[union-attr]
    assert c.precision is None
    assert (c.recall.value, c.f1.value, c.n) == (0.0, 0.0, 1)  # type: ignore[union-attr]
    assert d.recall is None
    assert (d.precision.value, d.n) == (0.0, 0)  # type: ignore[union-attr]
    unseen = ClassificationStatistics(("a", "b", "c"))
    unseen.update(torch.eye(3)[[0, 1]], torch.zeros(2), batch(torch.tensor([0, 1])))
    row = unseen.scores().classes[2]
    assert (row.precision, row.recall, row.f1, row.n) == (None, None, None, 0)
    assert unseen.scores().metrics["macro_f1"].value == 1.0


def test_of_equal_probabilities_the_first_wins() -> None:
    statistics = ClassificationStatistics(names(7))
    statistics.update(torch.full((7, 7), 1 / 7), torch.zeros(7), batch(torch.arange(7)))
    scores = statistics.scores()
    assert [row[0] for row in scores.confusion] == [1] * 7
    assert scores.metrics["top5"].value == pytest.approx(5 / 7)  # classes 0 to 4, no more


def test_the_edge_of_a_bin_belongs_to_the_bin_below() -> None:
    statistics = ClassificationStatistics(("a", "b"))
    third = 2 / 3  # 10/15
    p = torch.tensor([[third, 1 - third], [1.0, 0.0]], dtype=torch.float64)
    statistics.update(p, torch.zeros(2), batch(torch.tensor([0, 0])))
    filled = [one for one in statistics.scores().calibration["bins"] if one["n"]]
    assert [(one["low"], one["high"]) for one in filled] == [(9 / 15, 10 / 15), (14 / 15, 1.0)]


def test_calibration_error_is_the_formula() -> None:
    scores, p, truth, _ = counted("classification", 700, 4)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    expected = 0.0
    for m in range(1, BINS + 1):
        inside = ((m - 1) / BINS < confidence) & (confidence <= m / BINS)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].astype(np.float64).mean()
            expected += inside.sum() / 700 * abs(gap)
    assert scores.calibration["ece"]["value"] == pytest.approx(expected)
    assert sum(one["n"] for one in scores.calibration["bins"]) == 700
    assert sum(one["hits"] for one in scores.calibration["bins"]) == right.sum()


def calibrated(n: int, shift: float, random: np.random.Generator) -> dict[str, Any]:
    """Calibration of a network whose answers are right with probability confidence − shift."""
    confidence = 0.4 + 0.6 * random.beta(3, 1, size=n)
    right = (random.random(n) < confidence - shift).astype(int)
    bins = np.ceil(confidence * BINS).astype(int) - 1
    counts, sums = np.zeros((BINS, 2), np.int64), np.zeros((BINS, 2))
    np.add.at(counts, (bins, right), 1)
    np.add.at(sums, (bins, right), confidence)
    return calibration(counts, sums)


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_calibration_interval_covers(shift: float) -> None:
    """The true ECE is the shift; where that is 0, the estimate still never is."""
    random = np.random.default_rng(0)
    found = [calibrated(400, shift, random)["ece"] for _ in range(200)]
    assert all(one["low"] <= one["value"] <= one["high"] for one in found)
    assert np.mean([one["low"] <= shift <= one["high"] for one in found]) >= 0.91
    assert np.mean([one["high"] - one["low"] for one in found]) < 0.12


def test_averages_agree_with_resampling_samples_one_by_one() -> None:
    """The multinomial short cut against the plain bootstrap over samples."""
    _, p, truth, _ = counted("classification", 3000, 4, seed=3)
    label = p.argmax(axis=1)
    confusion = reference.confusion_matrix(truth, label)
    random = np.random.default_rng(1)
    draws = []
    for _ in range(1500):
        picked = random.integers(0, 3000, 3000)
        cells = np.bincount(truth[picked] * 4 + label[picked], minlength=16).reshape(4, 4)
        tp = np.diag(cells)
        f1 = 2 * tp / (cells.sum(axis=0) + cells.sum(axis=1))
        draws.append((f1.mean(), (tp / cells.sum(axis=1)).mean()))
    values = averages(confusion)
    mine = average_ends(confusion, values)
    for place, name in enumerate(("macro_f1", "balanced_accuracy")):
        theirs = np.array(draws)[:, place]
        ends = np.percentile(theirs, [2.5, 97.5]) - (theirs.mean() - values[name])
        # Half the width is 0.014; that many draws leave 0.0006 of doubt.
        assert mine[name] == pytest.approx(ends.tolist(), abs=0.002)


# The last has three samples a class: resamples miss whole classes, and their bias is large.
@pytest.mark.parametrize(
    ("size", "n", "accuracy"), [(10, 180, 0.98), (5, 40, 0.7), (20, 400, 0.6), (60, 180, 0.9)]
)
def test_intervals_of_averages_cover(size: int, n: int, accuracy: float) -> None:
    chances = np.full((size, size), (1 - accuracy) / (size - 1) / size)
    np.fill_diagonal(chances, accuracy / size)
    random = np.random.default_rng(0)
    # All classes alike: mean recall and mean F1 of the population both equal the accuracy.
    drawn = [random.multinomial(n, chances.ravel()).reshape(size, size) for _ in range(100)]
    found = [average_ends(confusion, averages(confusion)) for confusion in drawn]
    for name in ("macro_f1", "balanced_accuracy"):
        ends = [one[name] for one in found]
        assert np.mean([low <= accuracy <= high for low, high in ends]) >= 0.88, name


def test_a_perfect_score_keeps_its_doubt() -> None:
    statistics = ClassificationStatistics(names(3))
    truth = torch.arange(3).repeat(10)
    statistics.update(torch.eye(3)[truth], torch.zeros(30), batch(truth))
    scores = statistics.scores()
    for one in (*scores.metrics.values(), *(row.f1 for row in scores.classes)):
        assert one is not None
        if one is not scores.metrics["loss"]:
            assert one.value == 1.0 == one.high
            assert 0.6 < one.low < 0.96


def test_a_thousand_classes() -> None:
    scores, _, truth, _ = counted("classification", 3000, 1000)
    assert len(scores.classes) == 1000
    assert sum(map(sum, scores.confusion)) == 3000
    absent = set(range(1000)) - set(truth.tolist())
    assert {i for i, row in enumerate(scores.classes) if row.recall is None} == absent


# --------------------------------------------------------------------------------- multilabel


def test_multilabel_is_that_of_scikit_learn() -> None:
    scores, p, truth, losses = counted("multilabel", 200, 5)
    named = p > 0.5
    value = {name: one.value for name, one in scores.metrics.items()}
    assert value == pytest.approx(
        {
            "accuracy": reference.accuracy_score(truth, named),
            "hamming_loss": reference.hamming_loss(truth, named),
            "micro_f1": reference.f1_score(truth, named, average="micro"),
            "macro_f1": reference.f1_score(truth, named, average="macro"),
            "mean_average_precision": reference.average_precision_score(truth, p, average="macro"),
            "loss": losses.mean(dtype=np.float64),
        }
    )
    rows = reference.precision_recall_fscore_support(truth, named)
    for row, precision, recall, f1, support in zip(scores.classes, *rows, strict=True):
        assert row.precision is not None
        assert row.recall is not None
        assert row.f1 is not None
        got = (row.precision.value, row.recall.value, row.f1.value, row.n)
        assert got == pytest.approx((precision, recall, f1, support))
    assert scores.confusion == ()
    for one in scores.metrics.values():
        assert one.low < one.value < one.high
        assert one.n == 200


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30
    )
)
@settings(deadline=None, max_examples=60)
def test_average_precision_with_ties_and_weights(rows: list[tuple[int, bool, int]]) -> None:
    """A weight of k counts like k equal samples; equal scores enter together."""
    raw, flags, times = (np.array(column) for column in zip(*rows, strict=True))
    scores, truth = raw.astype(np.float32) / 6, flags.astype(bool)
    repeated = np.repeat(np.arange(len(rows)), times)
    weights = np.stack([np.ones(len(rows), np.int32), times.astype(np.int32)], axis=1)
    mine = average_precision(scores, truth, weights)
    for value, picked in zip(mine, (np.arange(len(rows)), repeated), strict=True):
        if truth[picked].any():
            expected = reference.average_precision_score(truth[picked], scores[picked])
            assert value == pytest.approx(expected)
        else:
            assert np.isnan(value)


def test_multilabel_without_labels_leaves_out_what_is_undefined() -> None:
    statistics = MultilabelStatistics(("a", "b"))
    statistics.update(torch.full((5, 2), 0.25), torch.zeros(5), batch(torch.zeros(5, 2)))
    scores = statistics.scores()
    assert scores.metrics.keys() == {"accuracy", "hamming_loss", "loss"}
    assert scores.metrics["hamming_loss"].value == 0.0
    assert scores.metrics["hamming_loss"].high > 0.3
    assert [(row.precision, row.recall, row.f1) for row in scores.classes] == [(None,) * 3] * 2


def test_a_perfect_multilabel_score_keeps_its_doubt() -> None:
    truth = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]] * 5)
    statistics = MultilabelStatistics(("a", "b"))
    statistics.update(truth * 0.8 + 0.1, torch.zeros(20), batch(truth))
    for name, one in statistics.scores().metrics.items():
        if name not in ("loss", "hamming_loss"):
            assert one.value == one.high == 1.0, name
            assert 0.7 < one.low < 0.97, name


# --------------------------------------------------------------------------------- regression


@pytest.mark.parametrize("size", [1, 3])
def test_regression_is_that_of_scikit_learn(size: int) -> None:
    scores, answers, truth, losses = counted("regression", 150, size)
    value = {name: one.value for name, one in scores.metrics.items()}
    exact = truth.astype(np.float64), answers.astype(np.float64)
    assert value["r2"] == pytest.approx(reference.r2_score(*exact))
    assert value["loss"] == pytest.approx(losses.mean(dtype=np.float64))
    for name, function in (
        ("mae", reference.mean_absolute_error),
        ("rmse", reference.root_mean_squared_error),
        ("r2", reference.r2_score),
    ):
        each = function(*exact, multioutput="raw_values")
        names_here = [name] if size == 1 else [f"{name}:{one}" for one in names(size)]
        assert [value[one] for one in names_here] == pytest.approx(each)
    if size == 1:
        assert list(value) == ["mae", "rmse", "r2", "loss"]
    else:
        # Nothing that would add metres to years; what has no unit comes first.
        assert next(iter(value)) == "r2"
        assert len(value) == 2 + 3 * size
        assert not {"mae", "rmse"} & set(value)
    assert all(one.low < one.value < one.high for one in scores.metrics.values())


def test_regression_interval_covers() -> None:
    covered = []
    for seed in range(120):
        statistics, answers, targets = draw("regression", 80, 1, seed)
        statistics.update(answers, torch.zeros(80), batch(targets))
        one = statistics.scores().metrics
        # Errors are standard normal: E|e| = √(2/π), √E e² = 1; targets vary with 3² = 9.
        inside = [
            one[name].low <= truth <= one[name].high
            for name, truth in (("mae", (2 / np.pi) ** 0.5), ("rmse", 1.0), ("r2", 1 - 1 / 9))
        ]
        covered.append(inside)
    assert (np.mean(covered, axis=0) >= 0.88).all()


def test_r2_is_left_out_where_targets_do_not_vary() -> None:
    statistics = RegressionStatistics(("x", "y"))
    targets = torch.stack([torch.full((6,), 0.1), torch.arange(6.0)], dim=1)
    statistics.update(targets + 0.5, torch.zeros(6), batch(targets))
    metrics = statistics.scores().metrics
    assert "r2:x" not in metrics
    assert metrics["r2"] == metrics["r2:y"]
    flat = RegressionStatistics(("x", "y"))
    flat.update(torch.zeros(6, 2), torch.zeros(6), batch(torch.ones(6, 2)))
    assert flat.scores().metrics.keys() == {"mae:x", "mae:y", "rmse:x", "rmse:y", "loss"}
    alone = RegressionStatistics(("x",))
    alone.update(torch.zeros(6, 1), torch.zeros(6), batch(targets[:, :1]))
    assert alone.scores().metrics.keys() == {"mae", "rmse", "loss"}


def test_r2_of_large_numbers_does_not_cancel() -> None:
    """Seconds since 1970 that differ by a few: squares about zero would leave no digit."""
    random = np.random.default_rng(0)
    truth = 1.7e9 + random.normal(size=(50, 1)) * 3
    answers = truth + random.normal(size=(50, 1))
    statistics = RegressionStatistics(("seconds",))
    statistics.update(torch.tensor(answers), torch.zeros(50), batch(torch.tensor(truth)))
    r2 = statistics.scores().metrics["r2"]
    assert r2.value == pytest.approx(reference.r2_score(truth, answers), rel=1e-6)
    assert 0 < r2.low < r2.value < r2.high < 1


def test_classes_that_stand_for_numbers() -> None:
    statistics = RegressionStatistics(("value",), (10.0, 20.0, 40.0))
    answers = torch.tensor([[12.0], [40.0], [0.0]])
    valid = torch.tensor([True, True, False])
    statistics.update(answers, torch.zeros(3), batch(torch.tensor([0, 2, -1]), valid))
    assert statistics.scores().metrics["mae"].value == 1.0


# --------------------------------------------------------------------------- what all must keep


@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 30),
    size=st.integers(1, 8),
    seed=st.integers(0, 1000),
    flat=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_values_are_those_of_the_scores(
    kind: str, n: int, size: int, seed: int, flat: bool
) -> None:
    """To the last bit and in the same order, also where something is 0/0 and left out."""
    statistics, answers, targets = draw(kind, n, size, seed)
    if flat:
        targets = torch.zeros_like(targets)
    losses = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    statistics.update(answers, losses, batch(targets))
    values = statistics.values()
    metrics = statistics.scores().metrics
    assert values == {name: one.value for name, one in metrics.items()}
    assert list(values) == list(metrics)
    assert all(type(value) is float and np.isfinite(value) for value in values.values())
    assert all(one.n == n and one.low <= one.value <= one.high for one in metrics.values())


@pytest.mark.parametrize("kind", KINDS)
def test_values_draw_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics, answers, targets = draw(kind, 30, 6, 0)
    statistics.update(answers, torch.rand(30), batch(targets))

    def refuse(*_: Any) -> None:
        raise AssertionError("resampled")

    monkeypatch.setattr(np.random, "default_rng", refuse)
    assert "loss" in statistics.values()
    with pytest.raises(AssertionError, match="resampled"):
        statistics.scores()


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), cuts=st.sets(st.integers(1, 39)))
@settings(deadline=None, max_examples=20)
def test_any_division_into_batches_gives_the_same_scores(
    kind: str, seed: int, cuts: set[int]
) -> None:
    whole, answers, targets = draw(kind, 40, 6, seed)
    losses = torch.rand(40, generator=torch.Generator().manual_seed(seed))
    whole.update(answers, losses, batch(targets))
    parts, _, _ = draw(kind, 40, 6, seed)
    other, _, _ = draw(kind, 40, 6, seed)
    edges = [0, *sorted(cuts), 40]
    for place, (start, end) in enumerate(itertools.pairwise(edges)):
        into = parts if place < len(edges) // 2 else other
        into.update(answers[start:end], losses[start:end], batch(targets[start:end], first=start))
    parts.merge(other)
    same(parts.scores(), whole.scores())


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), data=st.data())
@settings(deadline=None, max_examples=20)
def test_padding_changes_nothing(kind: str, seed: int, data: st.DataObject) -> None:
    bare, answers, targets = draw(kind, 12, 6, seed)
    losses = torch.rand(12, generator=torch.Generator().manual_seed(seed))
    bare.update(answers, losses, batch(targets))
    padded, _, _ = draw(kind, 12, 6, seed)
    valid = torch.tensor(data.draw(st.permutations([True] * 12 + [False] * 5)))
    rubbish = {"answers": torch.nan, "targets": -1, "losses": torch.inf}
    wide = {}
    for name, tensor in (("answers", answers), ("targets", targets), ("losses", losses)):
        full = torch.full((17, *tensor.shape[1:]), rubbish[name], dtype=tensor.dtype)
        full[valid] = tensor
        wide[name] = full
    padded.update(wide["answers"], wide["losses"], batch(wide["targets"], valid))
    same(padded.scores(), bare.scores())


@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_refused_with_its_ids(kind: str) -> None:
    statistics, answers, targets = draw(kind, 8, 3, 0)
    answers[5, 1] = torch.nan
    with pytest.raises(NonFiniteLossError, match=r"1 of 8 samples \(ids 105\)"):
        statistics.update(answers, torch.zeros(8), batch(targets, first=100))
    losses = torch.zeros(8)
    losses[2] = torch.inf
    with pytest.raises(NonFiniteLossError, match="ids 2"):
        statistics.update(answers[:5], losses[:5], batch(targets[:5]))
    with pytest.raises(DataError, match="none"):
        statistics.scores()  # a refused batch was not counted in part
    with pytest.raises(DataError, match="none"):
        statistics.values()


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_that_do_not_fit_are_refused(kind: str) -> None:
    statistics, answers, targets = draw(kind, 8, 3, 0)
    with pytest.raises(ValueError, match="expected"):
        statistics.update(answers[:, :2], torch.zeros(8), batch(targets))
    with pytest.raises(ValueError, match="rows"):
        statistics.update(answers, torch.zeros(7), batch(targets))
    other, _, _ = draw(kind, 8, 4, 0)
    with pytest.raises(ValueError, match="same"):
        statistics.merge(other)


def test_a_target_that_no_class_has_is_refused() -> None:
    statistics = ClassificationStatistics(("a", "b"))
    with pytest.raises(ValueError, match="targets"):
        statistics.update(torch.eye(2), torch.zeros(2), batch(torch.tensor([0, 2])))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_repeat_and_leave_the_statistics_alone(kind: str) -> None:
    statistics, answers, targets = draw(kind, 30, 6, 0)
    statistics.update(answers, torch.rand(30), batch(targets))
    assert statistics.scores() == statistics.scores()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 40])
def test_scores_survive_json(kind: str, n: int) -> None:
    scores = counted(kind, n, 6)[0]
    plain = json.loads(json.dumps(scores_to_dict(scores), allow_nan=False))
    assert scores_from_dict(plain) == scores
    counts = DataCount(found=n + 3, used=n, skipped=3)
    full = Scores(
        metrics=scores.metrics,
        classes=scores.classes,
        confusion=scores.confusion,
        calibration=scores.calibration,
        data=counts,
    )
    plain = json.loads(json.dumps(scores_to_dict(full), allow_nan=False))
    assert plain["data"] == {"found": n + 3, "used": n, "skipped": 3}
    assert scores_from_dict(plain) == full


def test_the_json_form_is_the_contract() -> None:
    plain = scores_to_dict(counted("classification", 40, 6)[0])
    assert set(plain["accuracy"]) == {"value", "low", "high", "n"}
    assert {"top5", "loss", "classes", "confusion", "calibration", "data"} <= set(plain)
    row = plain["classes"][0]
    assert set(row) == {"name", "precision", "recall", "f1", "n", "intervals"}
    assert isinstance(row["recall"], float)
    assert row["intervals"]["recall"]["value"] == row["recall"]
    assert isinstance(plain["calibration"]["ece"], float)
    assert plain["calibration"]["ece_interval"]["value"] == plain["calibration"]["ece"]
    assert len(plain["calibration"]["bins"]) == BINS
    with pytest.raises(ValueError, match="data"):
        scores_to_dict(Scores(metrics={"data": wilson(1, 2)}))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_scores_on_a_gpu_are_those_on_the_cpu(kind: str) -> None:
    here, answers, targets = draw(kind, 200, 7, 0)
    there, _, _ = draw(kind, 200, 7, 0)
    losses = torch.rand(200, generator=torch.Generator().manual_seed(0))
    here.update(answers, losses, batch(targets))
    on = batch(targets.cuda())
    on = Batch(
        images=on.images.cuda(),
        targets=on.targets,
        weights=on.weights.cuda(),
        valid=on.valid.cuda(),
        ids=on.ids.cuda(),
    )
    there.update(answers.cuda(), losses.cuda(), on)
    same(there.scores(), here.scores())


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("val_loss", "min"),
        ("loss", "min"),
        ("val_mae", "min"),
        ("rmse:width", "min"),
        ("val_hamming_loss", "min"),
        ("ece", "min"),
        ("top5_error", "min"),
        ("val_accuracy", "max"),
        ("balanced_accuracy", "max"),
        ("val_top5", "max"),
        ("val_macro_f1", "max"),
        ("micro_f1", "max"),
        ("mean_average_precision", "max"),
        ("val_r2", "max"),
        ("val_r2:seconds", "max"),  # the name of a column decides nothing
        ("mae:accuracy", "min"),
    ],
)
def test_direction(name: str, way: str) -> None:
    assert direction(name) == way


def test_direction_of_an_unknown_metric_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match="cannot tell"):
        direction("val_wobble")


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_has_a_direction(kind: str) -> None:
    for name in counted(kind, 40, 6)[0].metrics:
        assert direction(f"val_{name}") in ("min", "max")
