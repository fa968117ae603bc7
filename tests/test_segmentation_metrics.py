"""Pixel scores against plain NumPy counts and scikit-learn, outlines against SciPy's distances,
intervals against coverage and naive resampling of pictures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, stats
from sklearn import metrics as reference

from neocog.errors import DataError, NonFiniteLossError
from neocog.metrics import SegmentationStatistics, direction, segmentation
from neocog.metrics.boundary import boundary_counts, boundary_f
from neocog.metrics.intervals import drawn_ends
from neocog.records import VOID, Batch, Interval, scores_from_dict, scores_to_dict

Masks = NDArray[np.uint8]


def names(size: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(size))


def batch(targets: torch.Tensor, valid: torch.Tensor | None = None, first: int = 0) -> Batch:
    n = len(targets)
    return Batch(
        images=torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        targets=targets,
        weights=torch.ones(n),
        valid=torch.ones(n, dtype=torch.bool) if valid is None else valid,
        ids=torch.arange(first, first + n),
    )


def sure(masks: Masks, size: int) -> torch.Tensor:
    """Probabilities whose largest is that of the given class: B×K×H×W."""
    hot = torch.nn.functional.one_hot(torch.from_numpy(masks).long(), size).movedim(-1, 1)
    return (hot * 4.0).softmax(1)


def drawn(
    n: int, size: int, shape: tuple[int, int], void: float, seed: int, right: float = 0.6
) -> tuple[Masks, Masks, NDArray[np.float32]]:
    """Truth with void pixels, answers that are right in some of the pixels, and losses."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, size, (n, *shape)).astype(np.uint8)
    other = random.integers(0, size, truth.shape).astype(np.uint8)
    answer = np.where(random.random(truth.shape) < right, truth, other)
    truth[random.random(truth.shape) < void] = VOID
    return truth, answer, random.random(n).astype(np.float32)


def counted(truth: Masks, answer: Masks, losses: NDArray[np.float32], size: int):  # type: ignore[no-untyped-def]
    statistics = SegmentationStatistics(names(size))
    statistics.update(sure(answer, size), torch.from_numpy(losses), batch(torch.from_numpy(truth)))
    return statistics


def jaccards(truth: Masks, answer: Masks, size: int) -> list[float | None]:
    """Σ [y=k][a=k] / Σ max([y=k], [a=k]), pixel after pixel as the formula says."""
    found: list[float | None] = []
    y, a = truth[truth != VOID], answer[truth != VOID]
    for k in range(size):
        top, bottom = ((y == k) * (a == k)).sum(), np.maximum(y == k, a == k).sum()
        found.append(top / bottom if bottom else None)
    return found


def mean(values: list[float | None]) -> float:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else math.nan


# ------------------------------------------------------------------------------------- counts


@given(
    n=st.integers(1, 6),
    size=st.integers(1, 7),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    void=st.sampled_from([0.0, 0.3, 0.95]),
    step=st.integers(1, 4),
    backwards=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_scores_are_those_of_a_plain_count(
    n: int, size: int, height: int, width: int, void: float, step: int, backwards: bool, seed: int
) -> None:
    truth, answer, losses = drawn(n, size, (height, width), void, seed)
    parts = []
    for first in range(0, n, step):
        rows = slice(first, first + step)
        # The last batch is filled up with rows of nonsense that are not valid.
        short = step - len(truth[rows])
        masks = np.concatenate([truth[rows], np.full((short, height, width), 254, np.uint8)])
        given = np.concatenate([answer[rows], np.zeros((short, height, width), np.uint8)])
        loss = np.concatenate([losses[rows], np.full(short, np.nan, np.float32)])
        valid = torch.arange(step) < step - short
        part = SegmentationStatistics(names(size))
        part.update(
            sure(given, size), torch.from_numpy(loss), batch(torch.from_numpy(masks), valid)
        )
        parts.append(part)
    whole = SegmentationStatistics(names(size))
    for part in reversed(parts) if backwards else parts:
        whole.merge(part)
    labelled = truth != VOID
    if not labelled.any():
        with pytest.raises(DataError, match="labelled"):
            whole.values()
        return
    scores, values = whole.scores(), whole.values()
    assert list(values) == list(scores.metrics)
    y, a = truth[labelled], answer[labelled]
    expected = jaccards(truth, answer, size)
    assert values["jaccard"] == pytest.approx(mean(expected))
    assert values["accuracy"] == pytest.approx((y == a).mean())
    assert values["loss"] == pytest.approx(losses.mean())
    # scikit-learn warns of a confusion with a single class.
    if size > 1:
        theirs = reference.confusion_matrix(y, a, labels=range(size))
        assert np.array_equal(np.array(scores.confusion), theirs)
    known = [k for k in range(size) if expected[k] is not None]
    theirs = dict(
        zip(known, reference.jaccard_score(y, a, average=None, labels=known), strict=True)
    )
    for k, row in enumerate(scores.classes):
        assert (None if row.jaccard is None else pytest.approx(row.jaccard.value)) == expected[k]
        assert row.n == (y == k).sum()
        if row.jaccard is not None:
            assert row.jaccard.value == pytest.approx(theirs[k])
            assert row.jaccard.low <= row.jaccard.value <= row.jaccard.high
    rows = reference.precision_recall_fscore_support(y, a, labels=range(size), zero_division=np.nan)
    for k, row in enumerate(scores.classes):
        for mine, one in zip((row.precision, row.recall, row.f1), rows[:3], strict=True):
            assert (None if mine is None else pytest.approx(mine.value)) == (
                None if np.isnan(one[k]) else one[k]
            )
    order = [i for first in range(0, n, step) for i in range(first, min(n, first + step))]
    if backwards:
        order = [
            i for first in reversed(range(0, n, step)) for i in range(first, min(n, first + step))
        ]
    single = [mean(jaccards(truth[i : i + 1], answer[i : i + 1], size)) for i in order]
    np.testing.assert_allclose(whole.per_picture(), single)


def test_void_and_absent_classes_by_hand() -> None:
    truth = np.array([[[0, 0, 1, VOID], [0, 1, 1, VOID]]], np.uint8)
    answer = np.array([[[0, 1, 1, 2], [0, 1, 0, 2]]], np.uint8)
    statistics = counted(truth, answer, np.zeros(1, np.float32), 4)
    a, b, c, d = statistics.scores().classes
    assert a.jaccard is not None
    assert b.jaccard is not None
    assert (a.jaccard.value, b.jaccard.value) == (2 / 4, 2 / 4)
    # Class 2 was answered on void pixels only, class 3 never: both 0/0.
    for row in (c, d):
        assert (row.jaccard, row.precision, row.recall, row.f1, row.n) == (None,) * 4 + (0,)
    assert statistics.values()["jaccard"] == 0.5
    assert statistics.values()["accuracy"] == 4 / 6
    assert np.array(statistics.scores().confusion).sum() == 6
    # A class that is answered where another one is true is wrong, not absent.
    answer[0, 0, 0] = 3
    row = counted(truth, answer, np.zeros(1, np.float32), 4).scores().classes[3]
    assert row.jaccard is not None
    assert (row.jaccard.value, row.recall) == (0.0, None)


def test_the_first_of_equals_and_the_last_of_255_classes() -> None:
    even = SegmentationStatistics(names(3))
    even.update(torch.full((1, 3, 2, 2), 1 / 3), torch.zeros(1), batch(torch.zeros(1, 2, 2).byte()))
    assert even.values()["accuracy"] == 1.0
    truth = np.array([[[254, 254, 0], [254, VOID, 0]]], np.uint8)
    answer = np.array([[[254, 254, 254], [254, 254, 0]]], np.uint8)
    values = counted(truth, answer, np.zeros(1, np.float32), 255).values()
    assert values["jaccard"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="255 classes"):
        SegmentationStatistics(names(256))


def test_how_pictures_are_grouped_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, answer, losses = drawn(7, 5, (20, 30), 0.2, 1)
    whole = counted(truth, answer, losses, 5).scores()
    monkeypatch.setattr(segmentation, "CACHED", 1300)  # two pictures at a time
    assert counted(truth, answer, losses, 5).scores() == whole


def test_void_pictures_add_nothing_but_their_loss() -> None:
    truth, answer, losses = drawn(4, 3, (12, 12), 0.1, 2)
    before = counted(truth, answer, losses, 3)
    after = counted(truth, answer, losses, 3)
    after.merge(counted(np.full_like(truth, VOID), answer, np.zeros(4, np.float32), 3))
    old, new = before.scores(), after.scores()
    assert old.classes[0].n == new.classes[0].n
    assert old.confusion == new.confusion
    for name in ("jaccard", "accuracy", "boundary_f"):
        assert new.metrics[name].value == pytest.approx(old.metrics[name].value)
        assert new.metrics[name].n == old.metrics[name].n == 4
    assert new.metrics["loss"].value == pytest.approx(old.metrics["loss"].value / 2)
    assert new.metrics["loss"].n == 8
    assert np.isnan(after.per_picture()[4:]).all()
    empty = SegmentationStatistics(names(3))
    assert empty.per_picture().shape == (0,)
    with pytest.raises(DataError, match="got none"):
        empty.values()


def test_what_does_not_fit_is_refused() -> None:
    truth, answer, _ = drawn(2, 3, (4, 5), 0.2, 3)
    good, masks, loss = sure(answer, 3), torch.from_numpy(truth), torch.zeros(2)
    for answers in (good[:, :2], good[..., :-1], good[:1], good.flatten(2)):
        with pytest.raises(ValueError, match="expected answers B×3×H×W"):
            SegmentationStatistics(names(3)).update(answers, loss, batch(masks))
    with pytest.raises(ValueError, match="uint8"):
        SegmentationStatistics(names(3)).update(good, loss, batch(masks.long()))
    with pytest.raises(ValueError, match="rows"):
        SegmentationStatistics(names(3)).update(good, torch.zeros(3), batch(masks))
    strange = masks.clone()
    strange[1, 2, 2:4] = torch.tensor([3, 254])
    with pytest.raises(ValueError, match="in 2 pixels"):
        SegmentationStatistics(names(3)).update(good, loss, batch(strange))
    valid = torch.tensor([True, False])
    SegmentationStatistics(names(3)).update(good, loss, batch(strange, valid))
    broken = good.clone()
    broken[1, 2, 3, 4] = torch.nan
    with pytest.raises(NonFiniteLossError, match=r"1 of 2 samples \(ids 8\)"):
        SegmentationStatistics(names(3)).update(broken, loss, batch(masks, first=7))
    SegmentationStatistics(names(3)).update(broken, loss, batch(masks, valid))
    with pytest.raises(ValueError, match="same classes"):
        SegmentationStatistics(names(3)).merge(SegmentationStatistics(names(4)))


# ------------------------------------------------------------------------------------ outlines


def slow_boundary_f(truth: Masks, answer: Masks, size: int) -> float:
    """One picture, one class after the other, by distance transforms."""
    height, width = truth.shape
    tolerance = 0.0075 * math.hypot(height, width)
    answer = np.where(truth == VOID, VOID, answer)

    def outline(labels: Masks, k: int) -> NDArray[np.bool_]:
        others = (labels != k) & (labels != VOID)
        return (labels == k) & ndimage.binary_dilation(others)  # by the four neighbours

    scores = []
    for k in range(size):
        y, a = outline(truth, k), outline(answer, k)
        if y.any() and a.any():
            precision = (ndimage.distance_transform_edt(~y)[a] < tolerance - 1e-9).mean()
            recall = (ndimage.distance_transform_edt(~a)[y] < tolerance - 1e-9).mean()
            total = precision + recall
            scores.append(2 * precision * recall / total if total else 0.0)
        elif y.any() or a.any():
            scores.append(0.0)
    return float(np.mean(scores)) if scores else math.nan


def fast_boundary_f(truth: Masks, answer: Masks, size: int) -> NDArray[np.float64]:
    counts = boundary_counts(torch.from_numpy(truth), torch.from_numpy(answer), size)
    return boundary_f(counts.numpy().astype(float))


def blobs(n: int, size: int, shape: tuple[int, int], seed: int, noise: float = 0.5) -> tuple:  # type: ignore[type-arg]
    """Smooth regions as truth, the same with wavering outlines as answer, and some void."""
    random = np.random.default_rng(seed)
    coarse = max(2, min(shape) // 12)
    fields = ndimage.gaussian_filter(random.normal(size=(n, size, *shape)), (0, 0, coarse, coarse))
    other = ndimage.gaussian_filter(random.normal(size=fields.shape), (0, 0, 2, 2))
    truth = fields.argmax(1).astype(np.uint8)
    answer = (fields / fields.std() + noise * other / other.std()).argmax(1).astype(np.uint8)
    truth[:, : shape[0] // 9] = VOID
    truth[:, shape[0] // 2, shape[1] // 3 :] = VOID
    return truth, answer


@pytest.mark.parametrize(
    ("size", "shape"),
    # Tolerances of 1.2, 1.5 and 3 pixels; the last has no pixel on its circle, and more classes
    # than fit one word.
    [(3, (90, 130)), (70, (120, 160)), (5, (240, 320)), (2, (1, 300)), (4, (300, 2))],
)
def test_outlines_are_those_of_distance_transforms(size: int, shape: tuple[int, int]) -> None:
    truth, answer = blobs(2, size, shape, seed=size)
    expected = [slow_boundary_f(y, a, size) for y, a in zip(truth, answer, strict=True)]
    np.testing.assert_allclose(fast_boundary_f(truth, answer, size), expected, rtol=1e-12)
    if min(shape) > 2:
        assert 0.05 < expected[0] < 0.95
        values = counted(truth, answer, np.zeros(2, np.float32), size).values()
        assert values["boundary_f"] == pytest.approx(np.mean(expected))


@given(
    size=st.integers(1, 4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    void=st.sampled_from([0.0, 0.3, 0.9]),
    right=st.sampled_from([0.5, 0.95, 1.0]),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=40)
def test_outlines_of_noise(
    size: int, height: int, width: int, void: float, right: float, seed: int
) -> None:
    truth, answer, _ = drawn(3, size, (height, width), void, seed, right)
    expected = [slow_boundary_f(y, a, size) for y, a in zip(truth, answer, strict=True)]
    np.testing.assert_allclose(fast_boundary_f(truth, answer, size), expected, rtol=1e-12)


def test_a_square_that_moved() -> None:
    """400×400: the tolerance is 4.24 pixels, so four to the side still meet, five do not all."""
    truth = np.zeros((3, 400, 400), np.uint8)
    truth[:, 100:200, 100:200] = 1
    answer = np.stack([np.roll(truth[0], by, axis=1) for by in (4, 5, 40)])
    scores = fast_boundary_f(truth, answer, 2)
    assert scores[0] == 1.0
    assert 0.5 < scores[1] < 1.0
    assert 0.0 < scores[2] < scores[1]
    # The frame is no boundary: a picture of one class has none, and is left out of the mean.
    plain = np.zeros((1, 400, 400), np.uint8)
    assert np.isnan(fast_boundary_f(plain, plain, 2)).all()
    assert fast_boundary_f(plain, truth[:1], 2) == 0.0
    statistics = counted(plain, plain, np.zeros(1, np.float32), 2)
    assert list(statistics.values()) == list(statistics.scores().metrics)
    assert "boundary_f" not in statistics.values()
    statistics.merge(counted(truth[:1], answer[:1], np.zeros(1, np.float32), 2))
    assert statistics.scores().metrics["boundary_f"].n == 1


# ----------------------------------------------------------------------------------- intervals


def population(
    random: np.random.Generator, n: int, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (overlap, truth, answer) and F-scores of n pictures.

    Classes differ in size from picture to picture and are absent from some; a bad picture is bad in
    all classes.
    """
    pixels = np.exp(random.normal(6, 1, (n, size)))
    pixels = np.round(pixels * (random.random((n, size)) < np.linspace(1, 0.4, size)))
    pixels[:, 0] += 50
    spread = random.normal(0, 0.7, (n, 1)) + random.normal(0, 0.5, (n, size))
    share = 1 / (1 + np.exp(-1.5 - spread))
    overlap = np.round(pixels * share)
    answer = overlap + np.round(pixels * (1 - share) * random.random((n, size)) * 1.5)
    return np.concatenate([overlap, pixels, answer], axis=1), share.mean(axis=1)


def told(rows: tuple[NDArray[np.float64], NDArray[np.float64]]) -> SegmentationStatistics:
    """Statistics that counted these pictures."""
    pixels, outlines = rows
    statistics = SegmentationStatistics(names(pixels.shape[1] // 3))
    statistics.pixels, statistics.boundaries = [pixels], [outlines]
    statistics.losses = [np.zeros(len(pixels))]
    return statistics


@pytest.mark.parametrize("n", [2, 3, 5, 12, 40])
def test_intervals_cover_for_few_pictures(n: int) -> None:
    random = np.random.default_rng(0)
    many = told(population(random, 100_000, 4))
    truth, rows = many.values(), many.pixels[0].sum(axis=0).reshape(3, 4)
    classes = rows[0] / (rows[1] + rows[2] - rows[0])
    covered: dict[str, list[bool]] = {"jaccard": [], "accuracy": [], "boundary_f": [], "class": []}
    bare, widths = [], []
    for _ in range(150):
        sample = told(population(random, n, 4))
        scores = sample.scores()
        for name in ("jaccard", "accuracy", "boundary_f"):
            one = scores.metrics[name]
            covered[name].append(one.low <= truth[name] <= one.high)
        for k, row in enumerate(scores.classes):
            if row.jaccard is not None:
                covered["class"].append(row.jaccard.low <= classes[k] <= row.jaccard.high)
        widths.append(scores.metrics["accuracy"].high - scores.metrics["accuracy"].low)
        picked = random.integers(0, n, (300, n))
        sums = sample.pixels[0][picked].sum(axis=1).reshape(300, 3, 4).sum(axis=2)
        low, high = drawn_ends(sample.values()["accuracy"], sums[:, 0] / sums[:, 1])
        bare.append(low <= truth["accuracy"] <= high)
    for name, hits in covered.items():
        assert np.mean(hits) >= (0.85 if n == 2 else 0.87), name
    # The plain bootstrap covers the truth rarely where pictures are few.
    assert np.mean(bare) < (0.8 if n < 5 else 0.96)
    if n == 40:
        assert np.mean(widths) < 0.12


def test_intervals_are_those_of_resampling_pictures_one_by_one() -> None:
    truth, answer, losses = drawn(60, 4, (9, 11), 0.2, 5)
    truth[:30] = np.where(truth[:30] == 3, VOID, truth[:30])
    answer[:10] = 0  # some pictures are far worse
    statistics = counted(truth, answer, losses, 4)
    scores = statistics.scores()
    random = np.random.default_rng(1)
    means, right = [], []
    for _ in range(1500):
        picked = random.integers(0, 60, 60)
        y, a = truth[picked], answer[picked]
        means.append(mean(jaccards(y, a, 4)))
        right.append((y == a)[y != VOID].mean())
    wider = stats.t.ppf(0.975, 59) / stats.norm.ppf(0.975) * math.sqrt(60 / 59)
    for name, draws in (("jaccard", means), ("accuracy", right)):
        one = scores.metrics[name]
        ends = np.percentile(draws, [2.5, 97.5]) - np.mean(draws)
        # Half the width is 0.04; that many draws leave 0.002 of doubt.
        assert (one.low, one.high) == pytest.approx(tuple(one.value + wider * ends), abs=0.006), (
            name
        )
        assert one.n == 60


def test_one_picture_and_perfect_pictures_keep_their_doubt() -> None:
    truth, answer, losses = drawn(1, 3, (50, 60), 0.1, 6)
    for name, one in counted(truth, answer, losses, 3).scores().metrics.items():
        if name != "loss":
            assert one.n == 1
            assert one.high - one.low > 0.7, name
    truth, _ = blobs(12, 3, (40, 40), seed=0)
    scores = counted(truth, np.where(truth == VOID, 0, truth), np.zeros(12, np.float32), 3).scores()
    every = [*scores.metrics.values(), *(row.jaccard for row in scores.classes)]
    for found in every:
        assert found is not None
        if found is not scores.metrics["loss"]:
            assert found.value == found.high == 1.0
            assert 0.7 < found.low < 0.95


def test_a_mean_is_no_surer_than_its_classes() -> None:
    """Two of four classes are perfect, in one picture each: no resample can doubt them."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, (12, 20, 20)).astype(np.uint8)
    answer = truth ^ (random.random(truth.shape) < 0.1)
    for masks in (truth, answer):
        masks[3, :5], masks[7, :5] = 2, 3
    scores = counted(truth, answer, np.zeros(12, np.float32), 4).scores()
    widths = [row.jaccard.high - row.jaccard.low for row in scores.classes if row.jaccard]
    assert max(widths[:2]) < 0.1
    assert min(widths[2:]) > 0.7
    one = scores.metrics["jaccard"]
    assert 0.2 < one.high - one.low < 0.4


def test_scores_repeat_and_survive_json() -> None:
    truth, answer = blobs(5, 4, (40, 50), seed=3)
    truth[truth == 3] = VOID
    answer[answer == 3] = 0
    scores = counted(truth, answer, np.linspace(0, 1, 5, dtype=np.float32), 4).scores()
    assert counted(truth, answer, np.linspace(0, 1, 5, dtype=np.float32), 4).scores() == scores
    assert list(scores.metrics) == ["jaccard", "accuracy", "boundary_f", "loss"]
    assert isinstance(scores.classes[0].jaccard, Interval)
    assert scores.classes[3].jaccard is None
    text = json.dumps(scores_to_dict(scores), allow_nan=False)
    assert scores_from_dict(json.loads(text)) == scores


def test_which_way_the_scores_improve() -> None:
    for name in ("val_jaccard", "val_boundary_f", "boundary_f", "val_accuracy"):
        assert direction(name) == "max"
    assert direction("val_loss") == "min"
