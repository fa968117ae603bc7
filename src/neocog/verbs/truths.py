"""The loss of one answer, for a truth that is named in words. Floor 5, room verbs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from neocog import tasks
from neocog.errors import ConfigError
from neocog.records import Batch
from neocog.tasks.classify import Classify
from neocog.tasks.multilabel import Multilabel
from neocog.tasks.regress import Regress
from neocog.verbs.why import output_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from neocog.records import TaskSpec

__all__ = ["truth_loss"]


def truth_loss(spec: TaskSpec, truth: str) -> tuple[int | Callable[[Tensor], Tensor], str]:
    """The run's own loss for one picture of which the truth is known, and what it is called.

    Args:
        spec: of the task.
        truth: a class; labels joined by `|`, none where it is empty; or a number for each column,
            joined by commas.

    Returns:
        What `weight_paths` takes: a class for cross-entropy, else a function of the outputs 1×K.

    Raises:
        ConfigError: no such class, no numbers, or a task of another kind.

    >>> from neocog.records import TaskSpec
    >>> truth_loss(TaskSpec(name="classify", args={"classes": ["cat", "dog"]}), "dog")
    (1, 'cross-entropy to dog')
    """
    task = tasks.build(spec)
    if isinstance(task, Classify):
        return output_named(truth, task.classes), f"cross-entropy to {truth}"
    if isinstance(task, Multilabel):
        names = [name for name in truth.split("|") if name]
        rows = {output_named(name, task.classes) for name in names}
        target = torch.tensor([[float(at in rows) for at in range(len(task.classes))]])
        said = f"the mean binary cross-entropy, with the labels {', '.join(names) or 'none'}"
    elif isinstance(task, Regress):
        numbers = _numbers(truth, task.outputs)
        target = torch.tensor([numbers])
        if task.values:  # classes that stand for numbers: targets are their places
            if numbers[0] not in task.values:
                known = ", ".join(f"{one:g}" for one in task.values)
                raise ConfigError(f"no class stands for {truth}", f"known: {known}")
            target = torch.tensor([task.values.index(numbers[0])])
        said = f"the run's own, to {truth}"
    else:
        raise ConfigError(
            f"--weight follows one answer a picture to its loss, and {spec.name} gives more",
            "--trace works for it, and so does neocog.explain.weight_paths in Python",
        )

    def loss(outputs: Tensor) -> Tensor:
        one = torch.ones(1)
        batch = Batch(
            images=torch.empty(0),
            targets=target.to(outputs.dtype) if target.is_floating_point() else target,
            weights=one,
            valid=one.bool(),
            ids=torch.zeros(1, dtype=torch.int64),
        )
        each: Tensor = task.loss(outputs, batch)
        return each.sum()

    return loss, said


def _numbers(truth: str, columns: int) -> list[float]:
    """One number for each column.

    Raises:
        ConfigError: fewer, more, or no numbers.
    """
    try:
        found = [float(one) for one in truth.split(",")]
    except ValueError:
        found = []
    if len(found) != columns or not all(map(math.isfinite, found)):
        raise ConfigError(
            f"expected {columns} number(s) as the truth, found {truth!r}",
            "for example --target 3.5" if columns == 1 else "for example --target 3.5,2",
        )
    return found
