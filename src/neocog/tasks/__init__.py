"""What a label means: head, loss, statistics, decoding. Floor 2, room tasks.

Imports floors 0 and 1, NumPy and torch; each task is imported when it is built. A task fits the
`Task` protocol of `neocog.engine.task` by shape; the two rooms do not import each other.

A task is fully described by its `TaskSpec` (name and JSON arguments), so that a bundle can build it
again without the training data: class weights and the units of numbers are in the arguments.
"""

from __future__ import annotations

import importlib
import inspect
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neocog.errors import ConfigError, DataError, near
from neocog.records import TaskSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neocog.config import LossRecipe, Recipe
    from neocog.tasks.classify import Classify
    from neocog.tasks.multilabel import Multilabel
    from neocog.tasks.regress import Regress

    AnyTask = Classify | Multilabel | Regress

__all__ = ["CATALOGUE", "TrainingData", "build", "for_data"]

CATALOGUE = {
    "classify": "tasks.classify:Classify",
    "multilabel": "tasks.multilabel:Multilabel",
    "regress": "tasks.regress:Regress",
}
"""Name → where the task lives, below `neocog`. Listing imports nothing."""

_USUAL = {"class": "classify", "labels": "multilabel", "numbers": "regress"}
"""Kind of target → the task that `auto` means."""
_WORDS = {
    "class": "one class a sample",
    "labels": "any number of labels a sample",
    "numbers": "numbers",
}


class TrainingData(Protocol):
    """The part of a data set that decides the task."""

    @property
    def kind(self) -> str:
        """`class`, `labels` or `numbers`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, labels or columns."""

    @property
    def targets(self) -> Any:
        """N class indices, or N×K 0/1 labels or numbers; NumPy array or tensor on the CPU."""

    @property
    def splits(self) -> Mapping[str, Any]:
        """`train` → indices of the samples to learn from."""


def build(spec: TaskSpec) -> AnyTask:
    """The task that a spec describes.

    Raises:
        ConfigError: no task of this name, or arguments that do not fit it.

    >>> build(TaskSpec(name="classify", args={"classes": ["cat", "dog"]})).outputs
    2
    >>> build(TaskSpec(name="clasify", args={}))
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: there is no task 'clasify'
      hint: did you mean 'classify'?
    """
    if spec.name not in CATALOGUE:
        raise ConfigError(f"there is no task {spec.name!r}", near(spec.name, CATALOGUE))
    module, _, name = CATALOGUE[spec.name].partition(":")
    factory = getattr(importlib.import_module(f"neocog.{module}"), name)
    try:
        inspect.signature(factory).bind(**spec.args)
    except TypeError as error:
        raise ConfigError(
            f"the arguments of task {spec.name!r} do not fit: {error}",
            f"it takes {', '.join(inspect.signature(factory).parameters)}",
        ) from error
    task: AnyTask = factory(**spec.args)
    return task


def for_data(data: TrainingData, recipe: Recipe) -> AnyTask:
    """The task of a recipe for this data; what it needs to know comes from the training part.

    `auto` follows the kind of target. Class names that are all numbers ("0", "2.5") can also be
    regressed.

    Raises:
        ConfigError: a task that the targets do not allow, or a loss setting that the task would
            ignore.
        DataError: an empty training part.
    """
    if data.kind not in _USUAL:
        raise ConfigError(f"there is no kind of target {data.kind!r}", near(data.kind, _USUAL))
    usual = _USUAL[data.kind]
    name = usual if recipe.task == "auto" else recipe.task
    values: list[float] = []
    if name == "regress" and data.kind == "class":
        values = _numbers(data.classes)
    elif name != usual:
        raise ConfigError(
            f"task {name} does not fit: the targets are {_WORDS[data.kind]}",
            f"--task {usual} fits, and so does --task auto",
        )
    _refuse_ignored(name, recipe.loss)
    targets = np.asarray(data.targets)[np.asarray(data.splits["train"])]
    if len(targets) == 0:
        raise DataError("expected samples to learn from, got an empty training part")
    classes = list(data.classes)
    if name == "classify":
        if len(classes) < 2:
            raise ConfigError(
                f"expected at least two classes, got {classes}", "there is nothing to tell apart"
            )
        args = {"classes": classes, "label_smoothing": recipe.loss.label_smoothing}
        if recipe.loss.class_weights == "balanced":
            args["class_weights"] = _balanced(targets, len(classes))
    elif name == "multilabel":
        args = {"classes": classes, "label_smoothing": recipe.loss.label_smoothing}
    else:
        args = {
            "columns": ["value"] if values else classes,
            "kind": recipe.loss.kind,
            "delta": recipe.loss.delta,
            "values": values,
            **_units(np.asarray(values)[targets][:, None] if values else targets),
        }
    return build(TaskSpec(name=name, args=args))


def _numbers(names: tuple[str, ...]) -> list[float]:
    """Class names as numbers.

    Raises:
        ConfigError: a name is no number.
    """
    values = []
    for name in names:
        try:
            value = float(name)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(
                f"task regress needs numbers, but class {name!r} is none",
                "--task classify fits, and so does --task auto",
            )
        values.append(value)
    return values


def _refuse_ignored(name: str, loss: LossRecipe) -> None:
    """Stop at a loss setting that this task would not use; silence would look like consent."""
    ignored = []
    if name == "regress" and loss.label_smoothing:
        ignored.append("label_smoothing")
    if name != "classify" and loss.class_weights != "none":
        ignored.append("class_weights")
    if name != "regress" and loss.kind != "squared":
        ignored.append("kind")
    if name != "regress" and loss.delta != 1.0:
        ignored.append("delta")
    if ignored:
        raise ConfigError(
            f"task {name} does not use loss.{', loss.'.join(ignored)}", "leave it at its default"
        )


def _balanced(targets: NDArray[Any], size: int) -> list[float]:
    """n / (K · count) for each of the K classes that occur, so that samples weigh 1 on average.

    A class without training samples weighs 1; there is nothing to balance.

    >>> _balanced(np.array([0, 0, 0, 1]), 3)
    [0.6666666666666666, 2.0, 1.0]
    """
    counts = np.bincount(targets.astype(np.int64), minlength=size)
    occur = int((counts > 0).sum())
    return [len(targets) / (occur * int(count)) if count else 1.0 for count in counts]


def _units(targets: NDArray[Any]) -> dict[str, list[float]]:
    """Mean and standard deviation of each column; a column that does not vary has 1 for the latter.

    Raises:
        DataError: a number is NaN or infinite.
    """
    numbers = targets.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("expected finite numbers as targets, got NaN or infinity")
    std = numbers.std(axis=0)
    std[np.ptp(numbers, axis=0) == 0] = 1.0
    return {"mean": numbers.mean(axis=0).tolist(), "std": std.tolist()}
