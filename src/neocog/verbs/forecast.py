"""What a training will take, and what it took. Floor 5, room verbs."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from typing import TYPE_CHECKING, Any

import torch

from neocog.analysis.trace import TraceError
from neocog.data.batches import fetch
from neocog.engine.evaluate import widest
from neocog.engine.growth import Growth
from neocog.engine.job import length
from neocog.host import memory_held
from neocog.planning import How
from neocog.planning.make import answering, costs
from neocog.planning.text import between, bytes_text, span_text
from neocog.planning.times import known_profile
from neocog.records import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from neocog.engine.job import Job
    from neocog.planning import Costs, Range
    from neocog.records import Event
    from neocog.verbs.console import Console

__all__ = ["Forecast", "forecast"]

WORTH = 1e13
"""Multiply-accumulates of a training that is long enough for measuring this machine first, which
takes some seconds; a shorter one is told only where it was measured before."""


class Forecast:
    """What a training will take, and then what it took."""

    def __init__(self, found: Costs | None, batches: float) -> None:
        self._costs = found
        self._batches = batches
        self._held: list[int] = []

    @property
    def epoch(self) -> Range | None:
        """Seconds of an epoch."""
        if self._costs is None or self._costs.seconds is None:
            return None
        return self._costs.seconds.times(self._batches)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note the memory that is held within the block."""
        with memory_held() as self._held:
            yield

    def told(self, events: Sequence[Event]) -> dict[str, Any] | None:
        """Prediction and measurement, for `evaluation.json`.

        Args:
            events: of the run; its epochs are what was measured.
        """
        if self._costs is None:
            return None
        spent = [one.values["seconds"] for one in events if one.kind == "epoch"]
        epoch = self.epoch
        return {
            "peak_bytes": dataclasses.asdict(self._costs.peak),
            "epoch_seconds": dataclasses.asdict(epoch) if epoch else None,
            "measured": {
                "peak_bytes": self._held[0] if self._held else None,
                "epoch_seconds": statistics.fmean(spent) if spent else None,
            },
        }

    def say_before(self, console: Console) -> None:
        """One line."""
        if self._costs is None:
            return
        words = [f"{between(self._costs.peak, bytes_text)} of memory for tensors"]
        if self.epoch:
            words.append(f"{between(self.epoch, span_text)} an epoch")
        console.say(f"plan: {', '.join(words)}")

    def say_after(self, events: Sequence[Event], console: Console) -> None:
        """One line."""
        found = self.told(events)
        if found is None:
            return
        measured = found["measured"]
        words = []
        if measured["peak_bytes"]:
            words.append(f"the process grew by {bytes_text(measured['peak_bytes'])}")
        if measured["epoch_seconds"]:
            words.append(f"{span_text(measured['epoch_seconds'])} an epoch")
        if words:
            console.say(f"measured: {', '.join(words)}")


def _loss(job: Job, batch: int) -> Callable[[Tensor], Tensor]:
    """The loss of a training step, for outputs without memory."""
    one = fetch(job.data, job.data.splits["train"][:1])
    few = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    empty = {
        name: torch.empty((batch, *tensor.shape[1:]), dtype=tensor.dtype, device="meta")
        for name, tensor in few.items()
    }
    return lambda outputs: job.task.loss(outputs, Batch(**empty), training=True).mean()


def forecast(job: Job) -> Forecast:
    """What a training will take; of a network that cannot be planned, nothing."""
    recipe, choice = job.recipe, job.choice
    size = length(recipe, len(job.data.splits["train"]))
    how = How(
        batch=size.batch,
        precision=choice.precision,
        channels_last=choice.layout == "channels_last",
        device=str(job.device),
        optimizer=recipe.optim.name,
    )
    sample = (job.input.channels, *job.input.size)
    # On average over the training, of whose pictures the first may be small.
    growth = Growth(recipe.schedule, job.input.size)
    batches = size.steps * recipe.engine.accumulate * growth.work(1.0)
    settings: Any = {"rule": recipe.optim, "largest": False}
    if job.data.whole:  # with an answer for each pixel the loss is no trifle
        settings["loss"] = _loss(job, size.batch)
    try:
        found = costs(job.network, sample, (), how, time=False, **settings)
        # With a time to keep, nothing is measured that is not needed.
        total = found.macs * (size.total or 0) * recipe.engine.accumulate
        if recipe.engine.minutes is None and (total > WORTH or known_profile(how)):
            found = costs(job.network, sample, (), how, **settings)
    except TraceError:
        return Forecast(None, batches)
    if job.data.whole:  # whole pictures may take more than the crops that are learnt from
        batch, whole = widest(job.data)
        looking = answering(job.network, (job.input.channels, *whole), batch, how)
        looking = looking.plus(found.gradients + found.state)
        found = dataclasses.replace(found, peak=max(found.peak, looking, key=lambda one: one.value))
    if recipe.engine.ema:  # averaged weights are another copy
        more = sum(one.numel() * one.element_size() for one in job.network.parameters())
        found = dataclasses.replace(found, peak=found.peak.plus(more))
    return Forecast(found, batches)
