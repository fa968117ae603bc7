"""What a label means: head, loss, statistics, decoding. Floor 2, room tasks.

Imports floors 0 and 1, NumPy and torch; each task is imported when it is built. A task fits the
`Task` protocol of `neocog.engine.task` by shape; the two rooms do not import each other.

A task is fully described by its `TaskSpec` (name and JSON arguments), so that a bundle can build it
again without the training data: class weights and the units of numbers are in the arguments. Its
class says which settings of the loss it uses (`SETTINGS`), and makes it from data (`for_data`).
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neocog.data.samples import WORDS
from neocog.errors import ConfigError, DataError, near
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.config import LossRecipe, Recipe
    from neocog.records import TaskSpec
    from neocog.tasks.classify import Classify
    from neocog.tasks.multilabel import Multilabel
    from neocog.tasks.regress import Regress
    from neocog.tasks.segment import Segment

    AnyTask = Classify | Multilabel | Regress | Segment

__all__ = ["CATALOGUE", "Entry", "TrainingData", "build", "check", "for_data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One task."""

    factory: str
    """Where it lives, below `neocog`."""
    kind: str
    """The kind of target that it is the usual task for; `auto` means it then."""
    also: tuple[str, ...] = ()
    """Other kinds that it can do."""


CATALOGUE = {
    "classify": Entry(factory="tasks.classify:Classify", kind="class"),
    "multilabel": Entry(factory="tasks.multilabel:Multilabel", kind="labels"),
    "regress": Entry(factory="tasks.regress:Regress", kind="numbers", also=("class",)),
    "segment": Entry(factory="tasks.segment:Segment", kind="mask"),
}
"""Listing imports nothing."""


class TrainingData(Protocol):
    """The part of a data set that decides the task."""

    @property
    def kind(self) -> str:
        """`class`, `labels`, `numbers`, `mask`, …"""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, labels or columns."""

    @property
    def targets(self) -> Any:
        """N class indices, or N×K: 0/1 labels, numbers, or pixels of each class; NumPy array or
        tensor on the CPU."""

    @property
    def splits(self) -> Mapping[str, Any]:
        """`train` → indices of the samples to learn from."""


def _factory(name: str) -> Any:
    """The class of a task.

    Raises:
        ConfigError: no task of this name.
    """
    if name not in CATALOGUE:
        raise ConfigError(f"there is no task {name!r}", near(name, CATALOGUE))
    module, _, member = CATALOGUE[name].factory.partition(":")
    return getattr(importlib.import_module(f"neocog.{module}"), member)


def build(spec: TaskSpec) -> AnyTask:
    """The task that a spec describes.

    Raises:
        ConfigError: no task of this name, or arguments that do not fit it.

    >>> from neocog.records import TaskSpec
    >>> build(TaskSpec(name="classify", args={"classes": ["cat", "dog"]})).outputs
    2
    >>> build(TaskSpec(name="clasify", args={}))
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: there is no task 'clasify'
      hint: did you mean 'classify'?
    """
    factory = _factory(spec.name)
    try:
        inspect.signature(factory).bind(**spec.args)
    except TypeError as error:
        raise ConfigError(
            f"the arguments of task {spec.name!r} do not fit: {error}",
            f"it takes {', '.join(inspect.signature(factory).parameters)}",
        ) from error
    task: AnyTask = factory(**spec.args)
    return task


def check(spec: TaskSpec, classes: tuple[str, ...]) -> None:
    """A spec from a stranger can be built, and has the classes that stand beside it.

    Raises:
        ValueError: with what does not fit; a ConfigError is one.
    """
    try:
        task = build(spec)
    except (AttributeError, OverflowError, TypeError) as error:
        raise ValueError(f"task {spec.name}: {error}") from error
    if task.classes != classes:
        # The arguments of a task may be of any type that JSON has.
        both = (task.classes, classes)
        theirs, ours = (printable(", ".join(map(str, one)))[:200] for one in both)
        raise ValueError(f"classes: the task has {theirs}, beside it stand {ours}")


def for_data(data: TrainingData, recipe: Recipe) -> AnyTask:
    """The task of a recipe for this data; what it needs to know comes from the training part.

    `auto` follows the kind of target. Class names that are all numbers ("0", "2.5") can also be
    regressed.

    Raises:
        ConfigError: a task that the targets do not allow, or a loss setting that the task would
            ignore.
        DataError: an empty training part.
    """
    usual = {entry.kind: name for name, entry in CATALOGUE.items()}
    if data.kind not in usual:
        raise ConfigError(f"there is no kind of target {data.kind!r}", near(data.kind, usual))
    name = usual[data.kind] if recipe.task == "auto" else recipe.task
    factory = _factory(name)
    if data.kind not in (CATALOGUE[name].kind, *CATALOGUE[name].also):
        raise ConfigError(
            f"task {name} does not fit: the targets are {WORDS.get(data.kind, data.kind)}",
            f"--task {usual[data.kind]} fits, and so does --task auto",
        )
    _refuse_ignored(name, factory.SETTINGS, recipe.loss)
    targets = np.asarray(data.targets)[np.asarray(data.splits["train"])]
    if len(targets) == 0:
        raise DataError("expected samples to learn from, got an empty training part")
    task: AnyTask = factory.for_data(data.classes, targets, data.kind, recipe.loss)
    return task


def _refuse_ignored(name: str, used: tuple[str, ...], loss: LossRecipe) -> None:
    """Stop at a loss setting that this task would not use; silence would look like consent."""
    ignored = [
        field.name
        for field in fields(loss)
        if field.name not in used and getattr(loss, field.name) != field.default
    ]
    if ignored:
        raise ConfigError(
            f"task {name} does not use loss.{', loss.'.join(ignored)}", "leave it at its default"
        )
