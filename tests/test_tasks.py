"""Tasks: which one fits, building again from the spec, what an answer looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from neocog import tasks
from neocog.config import LossRecipe, Recipe
from neocog.errors import ConfigError, DataError, NonFiniteLossError
from neocog.records import Batch, TaskSpec
from neocog.tasks.classify import Classify
from neocog.tasks.multilabel import Multilabel
from neocog.tasks.regress import Regress
from neocog.tasks.segment import Segment


@dataclass
class Data:
    """What `for_data` reads of a data set."""

    kind: str
    classes: tuple[str, ...]
    targets: Any
    splits: dict[str, Any]


def some(kind: str, **changes: Any) -> Data:
    every = {
        "class": Data("class", ("cat", "dog"), np.array([0, 0, 0, 1, 1]), {}),
        "labels": Data("labels", ("red", "round"), np.eye(2, dtype=np.float32)[[0, 1, 1]], {}),
        "numbers": Data(
            "numbers", ("w", "h"), np.array([[1, 5], [3, 5], [8, 5]], dtype=np.float32), {}
        ),
    }
    data = every[kind]
    data.splits = {"train": np.arange(len(data.targets)), "val": np.array([0])}
    return replace(data, **changes)


def batch(targets: torch.Tensor) -> Batch:
    n = len(targets)
    return Batch(
        images=torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        targets=targets,
        weights=torch.ones(n),
        valid=torch.ones(n, dtype=torch.bool),
        ids=torch.arange(n),
    )


TASKS = [
    Classify(classes=("a", "b", "c"), label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5]),
    Multilabel(classes=("a", "b", "c"), label_smoothing=0.1),
    Regress(columns=("x", "y", "z"), mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 0.5], kind="huber"),
]
PIXELS = Segment(classes=("a", "b", "c"), class_weights=[1.0, 2.0, 0.5])
"""Its contract is in test_segment."""


def test_every_entry_of_the_catalogue_resolves() -> None:
    for task in [*TASKS, PIXELS]:
        assert type(tasks.build(task.spec)) is type(task)
    assert {task.spec.name for task in [*TASKS, PIXELS]} == set(tasks.CATALOGUE)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.spec.name)
def test_contract(task: Any) -> None:
    """What the engine relies on, for every task."""
    again = tasks.build(
        TaskSpec(**json.loads(json.dumps({"name": task.spec.name, "args": dict(task.spec.args)})))
    )
    assert again.spec == task.spec
    assert again.classes == task.classes == tuple(task.classes)
    assert again.outputs == len(task.classes) == 3
    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets = {
        "classify": torch.tensor([0, 1, 2, 0, 1, 2]),
        "multilabel": torch.eye(3).repeat(2, 1),
        "regress": torch.arange(18.0).view(6, 3),
    }[task.spec.name]
    before = outputs.clone(), targets.clone()
    one = batch(targets)
    for training in (False, True):
        loss = task.loss(outputs, one, training=training)
        assert loss.shape == (6,)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(again.loss(outputs, one, training=training), loss)
        # Per sample: a row's loss does not depend on the others.
        alone = task.loss(outputs[2:3], batch(targets[2:3]), training=training)
        torch.testing.assert_close(alone, loss[2:3])
    decoded = task.decode(outputs)
    torch.testing.assert_close(again.decode(outputs), decoded)
    statistics = task.statistics()
    statistics.update(decoded, task.loss(outputs, one), one)
    assert statistics.scores().metrics["loss"].n == 6
    answers = task.answer(decoded)
    assert len(answers) == 6
    for answer in json.loads(json.dumps(answers, allow_nan=False)):
        assert {"label", "probability", "top"} <= set(answer)
    assert torch.equal(outputs, before[0])
    assert torch.equal(targets, before[1])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.spec.name)
def test_a_task_remembers_no_tensor_of_a_meta_device(task: Any) -> None:
    outputs, targets = torch.randn(2, 3), torch.ones(2, 3)
    expected = task.decode(outputs), task.loss(outputs, batch(targets), training=True)
    meta = batch(targets)
    meta = replace(meta, targets=targets.to("meta"), valid=meta.valid.to("meta"))
    task.loss(outputs.to("meta"), meta, training=True)
    task.decode(outputs.to("meta"))
    torch.testing.assert_close(task.decode(outputs), expected[0])
    torch.testing.assert_close(task.loss(outputs, batch(targets), training=True), expected[1])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.spec.name)
def test_nan_is_no_answer(task: Any) -> None:
    decoded = torch.full((2, 3), 0.25)
    decoded[1, 2] = torch.nan
    with pytest.raises(NonFiniteLossError, match="row"):
        task.answer(decoded)


# ---------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("kind", "name"), [("class", "classify"), ("labels", "multilabel"), ("numbers", "regress")]
)
def test_auto_follows_the_kind_of_target(kind: str, name: str) -> None:
    data = some(kind)
    task = tasks.for_data(data, Recipe())
    assert task.spec.name == name
    assert task.classes == data.classes
    assert tasks.for_data(data, Recipe(task=name)).spec == task.spec  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["class", "labels", "numbers"])
@pytest.mark.parametrize("name", ["classify", "multilabel", "regress"])
def test_a_task_that_does_not_fit_is_refused_with_one_that_does(kind: str, name: str) -> None:
    usual = tasks.for_data(some(kind), Recipe()).spec.name
    if name == usual:
        return
    with pytest.raises(ConfigError) as caught:
        tasks.for_data(some(kind), Recipe(task=name))
    assert f"--task {usual}" in caught.value.hint


def test_class_names_that_are_numbers_can_be_regressed() -> None:
    data = some("class", classes=("10", "2.5", "-1e1"), targets=np.array([0, 0, 1, 2]))
    data.splits["train"] = np.array([0, 1, 2, 3])
    task = tasks.for_data(data, Recipe(task="regress"))
    assert isinstance(task, Regress)
    assert task.values == (10.0, 2.5, -10.0)
    numbers = np.array([10, 10, 2.5, -10])
    assert task.spec.args["mean"] == pytest.approx([numbers.mean()])
    assert task.spec.args["std"] == pytest.approx([numbers.std()])
    for name in ("nan", "inf", "ten", ""):
        with pytest.raises(ConfigError, match="class"):
            tasks.for_data(replace(data, classes=("10", "2.5", name)), Recipe(task="regress"))


def test_units_come_from_the_training_part_alone() -> None:
    data = some("numbers")
    data.splits["train"] = torch.tensor([0, 1])
    data.targets = torch.tensor(data.targets)
    args = tasks.for_data(data, Recipe()).spec.args
    assert args["mean"] == [2.0, 5.0]
    # The second column does not vary: its unit stays.
    assert args["std"] == [1.0, 1.0]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    truth = np.random.default_rng(0).choice(4, size=200, p=[0.6, 0.3, 0.05, 0.05])
    data = some("class", classes=tuple("abcd"), targets=truth)
    data.splits["train"] = np.arange(150)
    recipe = Recipe(loss=LossRecipe(class_weights="balanced"))
    weights = tasks.for_data(data, recipe).spec.args["class_weights"]
    theirs = compute_class_weight("balanced", classes=np.arange(4), y=truth[:150])
    assert weights == pytest.approx(theirs.tolist())
    assert np.mean([weights[label] for label in truth[:150]]) == pytest.approx(1.0)


def test_a_class_without_training_samples_does_not_break_the_weights() -> None:
    data = some("class", classes=("cat", "dog", "eel"))
    recipe = Recipe(loss=LossRecipe(class_weights="balanced"))
    weights = tasks.for_data(data, recipe).spec.args["class_weights"]
    assert weights == pytest.approx([5 / 6, 5 / 4, 1.0])


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("class", LossRecipe(kind="huber")),
        ("class", LossRecipe(delta=2.0)),
        ("labels", LossRecipe(class_weights="balanced")),
        ("class", LossRecipe(pixels="dice")),
        ("class", LossRecipe(focal_gamma=1.0)),
        ("numbers", LossRecipe(label_smoothing=0.1)),
        ("numbers", LossRecipe(class_weights="balanced")),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(kind: str, loss: LossRecipe) -> None:
    with pytest.raises(ConfigError, match="does not use"):
        tasks.for_data(some(kind), Recipe(loss=loss))


def test_the_recipe_reaches_the_task() -> None:
    smooth = tasks.for_data(some("labels"), Recipe(loss=LossRecipe(label_smoothing=0.2)))
    assert smooth.spec.args["label_smoothing"] == 0.2
    robust = tasks.for_data(some("numbers"), Recipe(loss=LossRecipe(kind="huber", delta=0.5)))
    assert (robust.spec.args["kind"], robust.spec.args["delta"]) == ("huber", 0.5)


def test_what_cannot_be_learnt_is_refused() -> None:
    empty = some("class")
    empty.splits["train"] = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="empty"):
        tasks.for_data(empty, Recipe())
    with pytest.raises(ConfigError, match="two classes"):
        tasks.for_data(some("class", classes=("cat",), targets=np.zeros(5, int)), Recipe())
    with pytest.raises(ConfigError, match="kind of target"):
        tasks.for_data(replace(some("class"), kind="clas"), Recipe())
    broken = some("numbers")
    broken.targets[1, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        tasks.for_data(broken, Recipe())


@pytest.mark.parametrize(
    "spec",
    [
        TaskSpec(name="segment", args={}),
        TaskSpec(name="classify", args={}),
        TaskSpec(name="classify", args={"classes": ["a", "b"], "smoothing": 0.1}),
        TaskSpec(name="classify", args={"classes": ["a", "a"]}),
        TaskSpec(name="classify", args={"classes": ["a", "b"], "class_weights": [1.0]}),
        TaskSpec(name="classify", args={"classes": ["a", "b"], "class_weights": [1.0, -1.0]}),
        TaskSpec(name="classify", args={"classes": ["a", "b"], "label_smoothing": 1.0}),
        TaskSpec(name="multilabel", args={"classes": []}),
        TaskSpec(name="regress", args={"columns": ["x"], "mean": [0.0], "std": [0.0]}),
        TaskSpec(name="regress", args={"columns": ["x"], "mean": [0.0, 1.0], "std": [1.0]}),
        TaskSpec(
            name="regress", args={"columns": ["x"], "mean": [0.0], "std": [1.0], "kind": "l2"}
        ),
        TaskSpec(
            name="regress",
            args={"columns": ["x", "y"], "mean": [0.0] * 2, "std": [1.0] * 2, "values": [1.0]},
        ),
    ],
    ids=repr,
)
def test_a_spec_that_does_not_fit_is_a_config_error(spec: TaskSpec) -> None:
    with pytest.raises(ConfigError):
        tasks.build(spec)


# ------------------------------------------------------------------------------------ answers


def test_classify_answers_with_the_five_most_probable() -> None:
    task = Classify(classes=tuple("abcdefg"))
    p = torch.tensor([[0.05, 0.3, 0.2, 0.3, 0.05, 0.06, 0.04]], dtype=torch.float64)
    (answer,) = task.answer(p)
    assert answer["label"] == "b"  # of equals the one that comes first
    assert answer["probability"] == 0.3
    assert [one["label"] for one in answer["top"]] == ["b", "d", "c", "f", "a"]
    assert [one["probability"] for one in answer["top"]] == [0.3, 0.3, 0.2, 0.06, 0.05]
    (short,) = Classify(classes=("a", "b")).answer(torch.tensor([[0.25, 0.75]]))
    assert short["top"] == [
        {"label": "b", "probability": 0.75},
        {"label": "a", "probability": 0.25},
    ]


def test_multilabel_answers_with_every_label_that_holds() -> None:
    task = Multilabel(classes=("red", "round", "small"))
    several, none = task.answer(torch.tensor([[0.75, 0.25, 0.875], [0.5, 0.25, 0.125]]))
    assert several["labels"] == ["red", "small"]
    assert several["label"] == "red|small"
    assert several["probability"] == 0.875
    assert [one["label"] for one in several["top"]] == ["small", "red", "round"]
    assert (none["labels"], none["label"], none["probability"]) == ([], "", 0.5)


def test_regress_answers_in_the_units_of_the_target() -> None:
    one = Regress(columns=("age",), mean=[40.0], std=[10.0])
    (answer,) = one.answer(one.decode(torch.tensor([[0.25]])))
    assert answer == {"label": "42.5", "value": 42.5, "probability": None, "top": []}
    two = Regress(columns=("w", "h"), mean=[0.0, 1.0], std=[2.0, 1.0])
    (answer,) = two.answer(two.decode(torch.tensor([[1.0, 0.5]])))
    assert answer["values"] == {"w": 2.0, "h": 1.5}
    assert answer["label"] == "w=2, h=1.5"
    assert "value" not in answer


@pytest.mark.parametrize("classes", [[None, "a"], [1, 2], [["a"], "b"]])
def test_names_of_classes_are_texts(classes: list[Any]) -> None:
    with pytest.raises(ConfigError, match="expected the names of classes"):
        Classify(classes=classes)
