"""Temperature scaling against SciPy and against worlds whose temperature is known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from neocog import tasks
from neocog.bundle import Bundle
from neocog.config import DataRecipe, EngineRecipe, Recipe
from neocog.data import dataset
from neocog.engine.evaluate import evaluate
from neocog.engine.kept import Kept
from neocog.errors import ConfigError, RunError
from neocog.metrics import temperature
from neocog.models import catalog
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
from neocog.settings import to_dict
from neocog.tasks.classify import Classify, with_temperature
from neocog.verbs.calibrate import calibrated, told

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = [str(digit) for digit in range(10)]


def world(n: int, k: int, seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that mean what they say, and truths drawn from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)) * spread
    shares = np.exp(log_softmax(logits, axis=1)).cumsum(axis=1)
    return logits, (shares < random.random((n, 1))).sum(axis=1).clip(max=k - 1)


def nll(logits: np.ndarray, truth: np.ndarray, t: float = 1.0) -> float:
    return float(-log_softmax(logits / t, axis=1)[np.arange(len(truth)), truth].mean())


@pytest.mark.parametrize("scale", [3.0, 0.4])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_known_temperature_is_found(scale: float, kind: type) -> None:
    logits, truth = world(20_000, 5, seed=0)
    found = temperature.fit((logits * scale).astype(kind), truth)
    assert found.value == pytest.approx(scale, rel=0.03)
    assert found.nll[1] == pytest.approx(nll(logits, truth), abs=1e-3)
    assert found.nll[0] == pytest.approx(nll(logits * scale, truth), rel=1e-5)
    assert found.ece[1] < 0.01 < 0.05 < found.ece[0]
    assert found.n == 20_000
    assert found.reason == ""


def test_a_temperature_at_its_bound_says_so() -> None:
    logits, truth = world(2000, 5, seed=3)
    found = temperature.fit(logits * 1000, truth)
    assert found.value == pytest.approx(temperature.LIMITS[1])
    assert found.reason == "it is the largest that is looked for"
    assert found.reason in told(found)


@pytest.mark.parametrize("seed", range(4))
def test_the_minimum_is_that_of_scipy(seed: int) -> None:
    logits, truth = world(400, 7, seed)
    logits = 1.8 * logits + 5
    exact = minimize_scalar(
        lambda log_t: nll(logits, truth, np.exp(log_t)), bounds=(-2, 3), method="bounded"
    )
    assert temperature.fit(logits, truth).value == pytest.approx(np.exp(exact.x), rel=1e-4)


def test_cross_fitting_is_what_it_says() -> None:
    """The held-out loss, made again with SciPy and the same folds."""
    logits, truth = world(500, 4, seed=3)
    logits *= 2.5
    found = temperature.fit(logits, truth)
    part = np.empty(500, int)
    part[temperature.generator("temperature").permutation(500)] = np.arange(500) % 5
    losses = []
    for fold in range(5):
        own, others = part == fold, part != fold
        best = minimize_scalar(
            lambda log_t, at=others: nll(logits[at], truth[at], np.exp(log_t)),
            bounds=(-2, 3),
            method="bounded",
            options={"xatol": 1e-9},
        )
        losses.append(nll(logits[own], truth[own], np.exp(best.x)) * own.sum())
    assert found.nll[1] == pytest.approx(sum(losses) / 500, rel=1e-6)


def test_it_never_makes_the_held_out_loss_worse() -> None:
    values = []
    for seed in range(60):
        logits, truth = world(80, 3, seed)
        found = temperature.fit(logits, truth)
        assert found.nll[1] <= found.nll[0]
        assert (found.value == 1) == bool(found.reason)
        values.append(found.value)
    assert values.count(1.0) > 20  # honest already: most fits are noise and are left alone


def test_what_cannot_be_fitted_stays_one() -> None:
    logits, truth = world(200, 3, seed=1)
    few = temperature.fit(logits[:20], truth[:20])
    right = temperature.fit(logits, logits.argmax(axis=1))
    wrong = temperature.fit(logits, logits.argmin(axis=1))
    assert [one.value for one in (few, right, wrong)] == [1.0, 1.0, 1.0]
    assert "at least 50" in few.reason
    assert right.reason.startswith("all of 200")
    assert wrong.reason.startswith("none of 200")
    # One mistake of a sure network: the four folds without it know of right answers alone.
    nearly = logits.argmax(axis=1)
    nearly[0] = logits[0].argmin()
    assert temperature.fit(4 * logits, nearly).reason.startswith("on samples that it was not")
    told_of = json.loads(json.dumps(few.to_dict()))
    assert told_of["ece"] == {"before": few.ece[0], "after": few.ece[0]}


@pytest.mark.parametrize(
    ("logits", "truth", "words"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "N×K"),
        (np.zeros((3, 2)), np.zeros(2, int), "N×K"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "class indices 0…1"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0]), "class indices"),
        (np.full((3, 2), np.nan), np.array([0, 1, 1]), "finite"),
    ],
)
def test_what_is_no_input(logits: np.ndarray, truth: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        temperature.fit(logits, truth)


# ----------------------------------------------------------------------------------- the task


def test_the_task_divides_and_nothing_else_changes() -> None:
    plain, warm = (
        Classify(classes=["a", "b", "c"]),
        Classify(classes=["a", "b", "c"], temperature=2),
    )
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 4
    expected = np.exp(log_softmax(logits.double().numpy() / 2, axis=1))
    assert np.allclose(warm.decode(logits).numpy(), expected, atol=1e-6)
    assert torch.equal(plain.decode(logits), logits.softmax(dim=1))
    assert warm.decode(logits.double()).dtype == torch.float64
    labels = [[one["label"] for one in task.answer(task.decode(logits))] for task in (plain, warm)]
    assert labels[0] == labels[1]


@pytest.mark.parametrize("value", [0.3, 1.7, 8.0])
def test_near_ties_keep_their_order(value: float) -> None:
    """Two logits that differ in the last bit alone."""
    low = torch.linspace(8, 16, 5000)
    high = torch.nextafter(low, torch.tensor(100.0))
    decoded = Classify(classes=["a", "b"], temperature=value).decode(torch.stack([low, high], 1))
    assert bool((decoded.argmax(dim=1) == 1).all())


def test_the_spec_carries_it() -> None:
    task = Classify(classes=["a", "b"])
    assert "temperature" not in task.spec.args  # as older versions wrote it
    warm = with_temperature(task.spec, 1.5)
    assert tasks.build(warm).temperature == 1.5
    assert tasks.build(warm).spec == warm
    assert with_temperature(warm, 1.0) == task.spec
    for bad in (0.0, -1.0, float("nan"), float("inf"), 1e9):
        with pytest.raises(ConfigError, match="temperature lies in"):
            tasks.build(TaskSpec(name="classify", args={"classes": ["a", "b"], "temperature": bad}))
    with pytest.raises(ConfigError, match="has no temperature"):
        with_temperature(TaskSpec(name="segment", args={}), 2.0)


# --------------------------------------------------------------------------------- the bundle


def untrained(scale: float) -> tuple[Bundle, dataset.Dataset]:
    """A softmax regression by least squares, its outputs too large by a factor: it is too sure."""
    recipe = Recipe(data=DataRecipe(source="digits", val=0.4), engine=EngineRecipe(epochs=1))
    data = dataset.load(recipe.data)
    network = catalog.build("mlp", channels=1, size=(8, 8), outputs=10, args={"depth": 0})
    ids = data.splits["train"]
    x = data.images.gather(ids, (8, 8)).flatten(1).double() / 255
    y = torch.nn.functional.one_hot(data.targets[ids], 10).double()
    fitted = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y, driver="gelsd")
    weights = {}
    for name, one in network.state_dict().items():
        source = fitted.solution[:-1].T if one.dim() > 1 else fitted.solution[-1]
        weights[name] = (scale * source).reshape(one.shape).float().contiguous()
    bundle = Bundle(
        model=ModelSpec(name="mlp", args={"depth": 0}),
        weights=weights,
        input=InputSpec(channels=1, size=(8, 8), mean=(0.0,), std=(1.0,)),
        task=TaskSpec(name="classify", args={"classes": CLASSES}),
        classes=tuple(CLASSES),
        manifest=Manifest(config=to_dict(recipe), seed=0, versions={}, argv=(), device={}, data={}),
    )
    return bundle, data


def answered(bundle: Bundle, data: dataset.Dataset, **limit: int) -> Kept:
    """What a bundle gives for the validation part."""
    kept, task = Kept(**limit), tasks.build(bundle.task)
    device = torch.device("cpu")
    evaluate(bundle.predictor(), task, data, data.splits["val"], device=device, each=kept)
    return kept


def test_a_bundle_is_calibrated_and_answers_the_same(tmp_path: Path) -> None:
    bundle, data = untrained(40.0)
    device = torch.device("cpu")
    warm, found = calibrated(bundle, answered(bundle, data))
    assert found is not None
    assert found.value > 1.2
    assert found.ece[1] < found.ece[0]
    assert f"divided by {found.value:.3g}" in told(found)
    warm.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    scores = []
    for one in (bundle, loaded):
        kept = Kept()
        task = tasks.build(one.task)
        result = evaluate(one.predictor(), task, data, data.splits["val"], device=device, each=kept)
        scores.append((result, kept, result.statistics.scores()))
    (before, kept, cold), (after, same, hot) = scores
    assert torch.equal(kept.outputs, same.outputs)
    assert torch.equal(kept.targets, data.targets[data.splits["val"]])
    assert cold.confusion == hot.confusion
    assert torch.equal(before.losses, after.losses)
    assert cold.metrics == hot.metrics
    assert cold.calibration["ece"]["value"] == pytest.approx(found.ece[0], abs=1e-6)
    assert hot.calibration["ece"]["value"] < cold.calibration["ece"]["value"]
    # What was kept is counted as the bundle with its temperature counts, to the last bit.
    assert kept.count(tasks.build(loaded.task)).scores() == hot
    # Fitted again, it comes to the same: its own temperature is no part of it.
    again, twice = calibrated(loaded, same)
    assert again.task == loaded.task
    assert twice == found


def test_collecting_does_not_change_a_score() -> None:
    bundle, data = untrained(8.0)
    task, ids = tasks.build(bundle.task), data.splits["val"]
    plain, kept = (
        evaluate(bundle.predictor(), task, data, ids, device=torch.device("cpu"), each=each)
        for each in (None, Kept())
    )
    assert plain.statistics.scores() == kept.statistics.scores()
    assert torch.equal(plain.losses, kept.losses)


def test_nothing_to_calibrate() -> None:
    bundle, data = untrained(8.0)
    assert calibrated(bundle, Kept()) == (bundle, None)
    other = replace(bundle, task=TaskSpec(name="regress", args={}))
    assert calibrated(other, answered(bundle, data)) == (other, None)
    few = answered(bundle, data, most=1000)
    assert not few.complete
    assert calibrated(bundle, few) == (bundle, None)


def test_a_damaged_temperature_is_refused(tmp_path: Path) -> None:
    bundle, _ = untrained(8.0)
    bundle.save(tmp_path)
    path = tmp_path / "bundle.json"
    description = json.loads(path.read_text())
    for bad in (0, -3.5, "warm", None, [2.0]):
        description["task"]["args"]["temperature"] = bad
        path.write_text(json.dumps(description))
        with pytest.raises(RunError, match="damaged"):
            Bundle.load(tmp_path)
