"""What a training is, before it runs: its parts, its length, its arithmetic. Floor 2, room engine.

Imports data, layers and floor 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from neocog.data.batches import batches_per_epoch
from neocog.errors import ConfigError, DataError
from neocog.layers import Normalize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from neocog.config import EngineRecipe, Recipe
    from neocog.data.augment import Augment
    from neocog.data.dataset import Dataset
    from neocog.engine.task import Task
    from neocog.records import InputSpec

Precision = Literal["fp32", "bf16", "fp16"]
Layout = Literal["contiguous", "channels_last"]

__all__ = ["Choice", "Job", "Learning", "Length", "Outcome", "length", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How the arithmetic is done; `auto` has been decided."""

    precision: Precision
    """fp32, bf16 or fp16."""
    layout: Layout
    """contiguous or channels_last."""
    compile: bool
    """Whether the network is compiled."""
    threads: int
    """Threads of one operation on the processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a training needs."""

    network: nn.Module
    """On its device. It is trained in place."""
    task: Task
    """What its outputs mean."""
    data: Dataset
    """Pictures, targets and splits."""
    input: InputSpec
    """Size and normalisation."""
    recipe: Recipe
    """Resolved: batch is a number, and either epochs or minutes is."""
    augment: Augment
    """What the training pictures go through."""
    device: torch.device
    """Where the network is."""
    choice: Choice
    """How the arithmetic is done."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Parameter → factor of its learning rate; 1 for those that are not named."""
    still: tuple[str, ...] = ()
    """Paths of the modules that stay in evaluation mode: batch norms keep their statistics."""
    carried: bool = False
    """Whether its weights were learnt elsewhere."""
    ends: float | None = None
    """When the whole run must be over, by `time.monotonic`; None: when its epochs are done."""

    def normalizer(self) -> Normalize:
        """Bytes to what the network takes, in the memory order of `choice`."""
        last = self.choice.layout == "channels_last"
        order = torch.channels_last if last else torch.contiguous_format
        spec = self.input
        return Normalize(spec.mean, spec.std, len(spec.size), order).to(self.device)

    def arrange(self, network: nn.Module) -> None:
        """Kernels in the order of the pictures, in place, on an accelerator, whose library wants
        one order for both. A processor's brings kernels into an order of its own in every call:
        there the other one made `resnet18` 2 % faster and `lenet5` 3 % slower."""
        if self.choice.layout == "channels_last" and self.device.type != "cpu":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a training is."""

    batch: int
    """Pictures a batch, at most."""
    steps: int
    """Optimiser steps an epoch."""
    total: int | None
    """Optimiser steps in all; None: as many as the time allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a training leaves behind."""

    weights: Mapping[str, Tensor]
    """The weights to keep: averaged ones where averaging is on, the best where they were
    restored."""
    epochs: int
    """Epochs done."""
    steps: int
    """Optimiser steps done."""
    seconds: float
    """Time in the training steps of the epochs that ended in this process, without evaluation."""
    images: int
    """Pictures trained on in these epochs."""
    reason: str
    """Why it ended: `all epochs done`, `the time is up`, or what a callback said."""
    unsaved: str = ""
    """Why there is no checkpoint of it; empty where there is."""


class Learning:
    """Training mode for all of a job's network but what stays still.

    Args:
        job: its network has all of its modules by now.
    """

    def __init__(self, job: Job) -> None:
        self._network = job.network
        self._still = [job.network.get_submodule(path) for path in job.still]
        # Walking the modules takes ten times as long, 1 % of a step of a small network.
        self._parts = tuple(job.network.modules())
        self._modes: list[bool] = []

    def keep(self) -> None:
        """Set it, where it is not set yet, or was changed by a callback or a validation."""
        if self._found() != self._modes:
            self._network.train()
            for part in self._still:
                part.eval()
            # As found: a network may have a `train` of its own, which leaves parts as they are.
            self._modes = self._found()

    def _found(self) -> list[bool]:
        return [part.training for part in self._parts]


def plain(recipe: EngineRecipe, device: torch.device) -> Choice:
    """What everybody writes: fp32, contiguous, not compiled, all threads; what the recipe says
    goes before. `tuner.tune` finds out whether something else is faster.

    Raises:
        ConfigError: fp16 without CUDA, where neither the range nor the speed is there.
    """
    if recipe.precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"fp16 training needs a CUDA device, got {device.type}", "use bf16 or fp32 here"
        )
    return Choice(
        precision="fp32" if recipe.precision == "auto" else recipe.precision,
        layout="contiguous" if recipe.layout == "auto" else recipe.layout,
        compile=recipe.compile == "on",
        threads=recipe.threads or torch.get_num_threads(),
    )


def length(recipe: Recipe, samples: int) -> Length:
    """Steps an epoch and in all: every picture once an epoch; the last step of an epoch may hold
    fewer batches. A recipe with `minutes` has no epochs, and no total.

    Raises:
        DataError: nothing to train on.
        ConfigError: epochs or batch are not decided yet.
    """
    engine = recipe.engine
    if samples < 1:
        raise DataError("the training part is empty", "hold back less with --val")
    if engine.batch is None or (engine.epochs is None and engine.minutes is None):
        raise ConfigError("engine.epochs and engine.batch must be numbers here")
    steps = math.ceil(batches_per_epoch(samples, engine.batch) / engine.accumulate)
    total = None if engine.epochs is None else steps * engine.epochs
    return Length(batch=min(engine.batch, samples), steps=steps, total=total)
