"""One class a pixel: losses against NumPy written from the formulas and finite differences, what
an answer says, class weights against numbers by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from neocog.errors import ConfigError, NonFiniteLossError
from neocog.records import VOID, Batch
from neocog.tasks.segment import Segment
from neocog.tasks.weighting import class_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("sky", "road", "car", "tree")
RECIPES: list[dict[str, Any]] = [
    {},
    {"class_weights": [1.0, 2.0, 0.5, 0.0], "label_smoothing": 0.2},
    {"label_smoothing": 0.3},
    {"pixels": "focal", "focal_gamma": 1.5, "class_weights": [1.0, 2.0, 0.5, 3.0]},
    {"pixels": "focal", "focal_gamma": 0.0},
    {"pixels": "dice"},
    {"pixels": "cross_entropy+dice", "class_weights": [1.0, 2.0, 0.5, 3.0], "label_smoothing": 0.1},
]


def batch(targets: torch.Tensor, valid: torch.Tensor | None = None) -> Batch:
    n = len(targets)
    return Batch(
        images=torch.zeros(n, 1, 1, 1, dtype=torch.uint8, device=targets.device),
        targets=targets,
        weights=torch.ones(n, device=targets.device),
        valid=torch.ones(n, dtype=torch.bool) if valid is None else valid,
        ids=torch.arange(n),
    )


def draw(n: int = 3, shape: tuple[int, int] = (4, 5), void: float = 0.3, seed: int = 0) -> tuple:  # type: ignore[type-arg]
    """Logits B×4×H×W in float64 and masks B×H×W; the last picture does not show the last class."""
    random = np.random.default_rng(seed)
    masks = random.integers(0, 4, (n, *shape)).astype(np.uint8)
    masks[-1] %= 3
    masks[random.random(masks.shape) < void] = VOID
    return random.normal(size=(n, 4, *shape)) * 3, masks


def formula(
    logits: NDArray[np.float64],
    mask: NDArray[np.uint8],
    pixels: str = "cross_entropy",
    focal_gamma: float = 2.0,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
) -> float:
    """The loss of one picture, pixel after pixel."""
    K = len(logits)
    w = class_weights or [1.0] * K
    places = [place for place in np.ndindex(mask.shape) if mask[place] != VOID]
    if not places:
        return 0.0
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    total = 0.0
    for i in places:
        y = mask[i]
        if pixels == "focal":
            total -= w[y] * (1 - p[(y, *i)]) ** focal_gamma * math.log(p[(y, *i)])
        elif "cross_entropy" in pixels:
            for c in range(K):
                t = (1 - label_smoothing) * (c == y) + label_smoothing / K
                total -= w[c] * t * math.log(p[(c, *i)])
    loss = total / len(places)
    if "dice" in pixels:
        scores = []
        for c in {int(mask[i]) for i in places}:
            own = [p[(c, *i)] for i in places]
            truth = [float(mask[i] == c) for i in places]
            overlap = sum(a * b for a, b in zip(own, truth, strict=True))
            scores.append(2 * overlap / (sum(a * a for a in own) + sum(b * b for b in truth)))
        loss += 1 - sum(scores) / len(scores)
    return loss


def label(recipe: dict[str, Any]) -> str:
    return "-".join([recipe.get("pixels", "cross_entropy"), *sorted(set(recipe) - {"pixels"})])


# -------------------------------------------------------------------------------------- losses


def test_losses_by_hand() -> None:
    # One pixel of class a with p = 1/2, one of b with p = 1/4, one void.
    p = torch.tensor([[[0.5, 0.75, 0.1]], [[0.5, 0.25, 0.9]]])[None]
    one = batch(torch.tensor([[[0, 1, VOID]]], dtype=torch.uint8))
    logits = torch.log(p)
    plain = Segment(classes=("a", "b")).loss(logits, one)
    assert plain.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    weighted = Segment(classes=("a", "b"), class_weights=[1.0, 4.0])
    assert weighted.loss(logits, one, training=True).item() == pytest.approx(
        (math.log(2) + 4 * math.log(4)) / 2
    )
    focal = Segment(classes=("a", "b"), pixels="focal").loss(logits, one, training=True)
    assert focal.item() == pytest.approx((math.log(2) / 4 + math.log(4) * 9 / 16) / 2)
    # Class a: overlap 1/2, squares 1/4 + 9/16, one pixel; b: overlap 1/4, squares 1/4 + 1/16.
    dice = Segment(classes=("a", "b"), pixels="dice").loss(logits, one, training=True)
    scores = 1 / (13 / 16 + 1), 0.5 / (5 / 16 + 1)
    assert dice.item() == pytest.approx(1 - sum(scores) / 2)


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
@given(seed=st.integers(0, 10_000), void=st.sampled_from([0.0, 0.4, 0.97]))
@settings(deadline=None, max_examples=10)
def test_losses_are_the_formulas(recipe: dict[str, Any], seed: int, void: float) -> None:
    logits, masks = draw(seed=seed, void=void)
    task, one = Segment(classes=NAMES, **recipe), batch(torch.from_numpy(masks))
    ours = task.loss(torch.tensor(logits), one, training=True)
    assert ours.dtype == torch.float64
    expected = [formula(z, mask, **recipe) for z, mask in zip(logits, masks, strict=True)]
    # Weights are kept in float32.
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6, atol=1e-12)
    plain = [formula(z, mask) for z, mask in zip(logits, masks, strict=True)]
    np.testing.assert_allclose(task.loss(torch.tensor(logits), one).numpy(), plain, rtol=1e-9)


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_gradients_and_void(recipe: dict[str, Any]) -> None:
    """Central differences; exactly nothing from void pixels, void pictures and padding."""
    logits, masks = draw(n=4, shape=(3, 4))
    masks[1] = VOID
    task = Segment(classes=NAMES, **recipe)
    one = batch(torch.from_numpy(masks), torch.tensor([True, True, True, False]))

    def total(values: NDArray[np.float64]) -> float:
        return float(task.loss(torch.tensor(values), one, training=True).sum())

    slopes = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-5
        slopes[place] = (total(logits + step) - total(logits - step)) / 2e-5
    variable = torch.tensor(logits, requires_grad=True)
    loss = task.loss(variable, one, training=True)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert variable.grad is not None
    found = variable.grad.numpy()
    np.testing.assert_allclose(found, slopes, atol=1e-8)
    assert loss[1] == loss[3] == 0
    silent = (masks == VOID) | ~one.valid.numpy()[:, None, None]
    assert silent.any()
    assert (np.moveaxis(found, 1, -1)[silent] == 0).all()
    assert (np.moveaxis(found, 1, -1)[~silent] != 0).any()
    other = logits.copy()
    np.moveaxis(other, 1, -1)[silent] = np.random.default_rng(9).normal(size=4) * 50
    assert torch.equal(task.loss(torch.tensor(other), one, training=True), loss.detach())


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_indices_that_do_not_exist_break_nothing(recipe: dict[str, Any]) -> None:
    logits, masks = draw()
    task = Segment(classes=NAMES, **recipe)
    expected = task.loss(torch.tensor(logits), batch(torch.from_numpy(masks)), training=True)
    strange = torch.from_numpy(np.where(masks == VOID, 4, masks).astype(np.uint8))
    before = strange.clone()
    assert torch.equal(task.loss(torch.tensor(logits), batch(strange), training=True), expected)
    assert torch.equal(strange, before)
    wide = strange.long()
    task.loss(torch.tensor(logits), batch(wide), training=True)
    assert torch.equal(wide, before.long())


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
@pytest.mark.parametrize("size", [1e4, 1e30, 0.0])
def test_extreme_logits_stay_finite(recipe: dict[str, Any], size: float) -> None:
    logits, masks = draw()
    variable = torch.tensor(np.sign(logits) * size, dtype=torch.float32, requires_grad=True)
    task = Segment(classes=NAMES, **recipe)
    loss = task.loss(variable, batch(torch.from_numpy(masks)), training=True)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert variable.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(variable.grad).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_slope_where_a_pixel_is_certain(gamma: float) -> None:
    variable = torch.tensor([[[[200.0]], [[0.0]]]], requires_grad=True)
    task = Segment(classes=("a", "b"), pixels="focal", focal_gamma=gamma)
    loss = task.loss(variable, batch(torch.zeros(1, 1, 1, dtype=torch.uint8)), training=True)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert variable.grad is not None
    assert loss.item() == 0
    assert (variable.grad == 0).all()


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_half_precision_logits_are_judged_in_float32(recipe: dict[str, Any]) -> None:
    logits, masks = draw()
    half = torch.tensor(logits).bfloat16().requires_grad_()
    task, one = Segment(classes=NAMES, **recipe), batch(torch.from_numpy(masks))
    loss = task.loss(half, one, training=True)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, task.loss(half.detach().double(), one, training=True).float(), rtol=1e-5, atol=1e-6
    )
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    decoded = task.decode(half.detach())
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded.sum(dim=1), torch.ones(3, 4, 5))


# -------------------------------------------------------------------------------------- protocol


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_contract(recipe: dict[str, Any]) -> None:
    """What the engine relies on."""
    task = Segment(classes=list(NAMES), **recipe)
    again = Segment(**json.loads(json.dumps(dict(task.spec.args))))
    assert again.spec == task.spec
    assert task.spec.name == "segment"
    assert set(task.spec.args) == {
        "classes",
        "pixels",
        "focal_gamma",
        "class_weights",
        "label_smoothing",
    }
    assert task.classes == NAMES
    assert task.outputs == 4
    logits, masks = draw(n=5, shape=(6, 7))
    outputs, targets = torch.tensor(logits).float(), torch.from_numpy(masks)
    assert task.shape((6, 7)) == outputs.shape[1:]
    one, before = batch(targets), (outputs.clone(), targets.clone())
    for training in (False, True):
        loss = task.loss(outputs, one, training=training)
        assert (loss.shape, loss.dtype) == ((5,), torch.float32)
        assert torch.equal(again.loss(outputs, one, training=training), loss)
        alone = task.loss(outputs[2:3], batch(targets[2:3]), training=training)
        torch.testing.assert_close(alone, loss[2:3])
        # Channels last is what a GPU hands over.
        last = outputs.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(task.loss(last, one, training=training), loss)
    decoded = task.decode(outputs)
    statistics = task.statistics()
    statistics.update(decoded, task.loss(outputs, one), one)
    assert statistics.scores().metrics["loss"].n == 5
    answers = task.answer(decoded)
    for probable, answer in zip(decoded, answers, strict=True):
        assert torch.equal(torch.from_numpy(answer.pop("mask")), probable.argmax(0).to(torch.uint8))
    answers = json.loads(json.dumps(answers, allow_nan=False))
    assert len(answers) == len(task.truth(targets)) == 5
    assert torch.equal(outputs, before[0])
    assert torch.equal(targets, before[1])
    # A task remembers no tensor of a device without numbers.
    meta = replace(one, targets=targets.to("meta"), valid=one.valid.to("meta"))
    assert task.loss(outputs.to("meta"), meta, training=True).shape == (5,)
    assert task.decode(outputs.to("meta")).shape == outputs.shape
    assert torch.equal(task.decode(outputs), decoded)


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"classes": []}, "different names"),
        ({"classes": ["a", "a"]}, "different names"),
        ({"classes": [str(k) for k in range(256)]}, "255"),
        ({"pixels": "dise"}, "pixel loss"),
        ({"pixels": "focal", "focal_gamma": -1.0}, "gamma"),
        ({"focal_gamma": math.nan}, "gamma"),
        ({"label_smoothing": 1.0}, "smoothing"),
        ({"class_weights": [1.0]}, "4 class weights"),
        ({"class_weights": [1.0, 1.0, 1.0, -1.0]}, "4 class weights"),
        ({"class_weights": [1.0, 1.0, 1.0, math.inf]}, "4 class weights"),
        ({"class_weights": [1.0] * 4, "pixels": "dice"}, "no class weights"),
        ({"label_smoothing": 0.1, "pixels": "dice"}, "smooths no labels"),
        ({"label_smoothing": 0.1, "pixels": "focal"}, "smooths no labels"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(args: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        Segment(**{"classes": NAMES, **args})
    if args.get("pixels") == "dise":
        assert "dice" in caught.value.hint


def test_answers_and_truth() -> None:
    task = Segment(classes=NAMES)
    masks = torch.tensor(
        [
            [[2, 2, 1], [2, 1, 3]],
            [[3, 1, 1], [3, 3, 1]],
            [[VOID] * 3, [VOID, 0, 0]],
            [[VOID] * 3] * 2,
        ],
        dtype=torch.uint8,
    )
    hot = torch.nn.functional.one_hot(masks[:2].long(), 4).movedim(-1, 1).float()
    first, second = task.answer(hot)
    for answer, truth in ((first, masks[0]), (second, masks[1])):
        assert torch.equal(torch.from_numpy(answer.pop("mask")), truth)
    assert first == {
        "label": "car",
        "probability": None,
        "top": [],
        "shares": {"car": 3 / 6, "road": 2 / 6, "tree": 1 / 6},
    }
    assert list(first["shares"]) == ["car", "road", "tree"]
    assert second["label"] == "road"  # of equals the one that comes first
    assert list(second["shares"]) == ["road", "tree"]
    texts = ["car, road, tree", "road, tree", "sky", ""]
    assert task.truth(masks) == texts
    counts = torch.tensor([[0.0, 2, 3, 1], [0, 3, 0, 3], [2, 0, 0, 0], [0, 0, 0, 0]])
    assert task.truth(counts) == texts
    hot[1, 2, 1, 0] = torch.nan
    with pytest.raises(NonFiniteLossError, match=r"row\(s\) \[1\]"):
        task.answer(hot)


# ------------------------------------------------------------------------------- class weights


def test_median_frequency_by_hand() -> None:
    counts = np.array([[600, 300, 100, 0], [800, 0, 100, 0], [0, 50, 50, 0]])
    # f: 1400/1900, 350/1100, 250/2000; the median is 350/1100. Class 3 never occurs.
    expected = [(350 / 1100) / (1400 / 1900), 1.0, (350 / 1100) / (250 / 2000), 1.0]
    assert class_weights(counts, "median_frequency") == pytest.approx(expected)


@pytest.mark.parametrize("how", ["balanced", "inverse_frequency"])
def test_inverse_frequency_is_that_of_scikit_learn(how: Any) -> None:
    random = np.random.default_rng(0)
    masks = random.choice(4, size=(5, 400), p=[0.7, 0.2, 0.08, 0.02])
    counts = np.stack([np.bincount(mask, minlength=5) for mask in masks]).astype(np.float32)
    theirs = compute_class_weight("balanced", classes=np.arange(4), y=masks.ravel())
    assert class_weights(counts, how) == pytest.approx([*theirs, 1.0])


def test_weights_of_nothing_and_of_no_such_word() -> None:
    for how in ("balanced", "inverse_frequency", "median_frequency"):
        assert class_weights(np.zeros((3, 2)), how) == [1.0, 1.0]
        assert class_weights(np.zeros((0, 2)), how) == [1.0, 1.0]
    with pytest.raises(ConfigError, match="median") as caught:
        class_weights(np.ones((1, 2)), "median")  # type: ignore[arg-type]
    assert "median_frequency" in caught.value.hint


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_a_gpu_finds_the_same(recipe: dict[str, Any]) -> None:
    logits, masks = draw(n=6, shape=(70, 90))
    masks[0, :5] = 200  # no such class
    outputs, targets = torch.tensor(logits).float(), torch.from_numpy(masks)
    task = Segment(classes=NAMES, **recipe)
    here, there = batch(targets), batch(targets.cuda())
    there = replace(there, valid=there.valid.cuda(), ids=there.ids.cuda())
    found = []
    for values, one in ((outputs, here), (outputs.cuda(), there)):
        variable = values.clone().requires_grad_()
        loss = task.loss(variable, one, training=True)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        assert variable.grad is not None
        found.append((loss.detach().cpu(), variable.grad.cpu()))
    torch.testing.assert_close(found[1], found[0])
    clean = masks.copy()
    clean[clean == 200] = VOID
    scores = []
    for device in ("cpu", "cuda"):
        statistics = task.statistics()
        one = batch(torch.from_numpy(clean).to(device))
        statistics.update(task.decode(outputs).to(device), torch.zeros(6, device=device), one)
        scores.append(statistics.scores())
    assert scores[0] == scores[1]
