"""One optimiser step, a plain function. Floor 2, room engine; imports floor 0 and this room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, cast

import torch

from neocog.engine import optim
from neocog.engine.growth import shrunk
from neocog.errors import NonFiniteLossError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from neocog.engine.heads import Heads
    from neocog.engine.job import Job
    from neocog.layers import Normalize
    from neocog.records import Batch

__all__ = ["Samples", "Stepped", "non_finite", "train_step"]


@dataclass(frozen=True, slots=True)
class Samples:
    """What naming a sample takes; the pictures may go."""

    losses: Tensor
    """B float32; over all heads."""
    ids: Tensor
    """B, int64."""
    valid: Tensor
    """B, bool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What a step found, on its device."""

    loss: Tensor
    """The weighted mean loss with that of auxiliary heads and all penalties, a scalar."""
    samples: Sequence[Samples]
    """Of each batch."""


def train_step(
    heads: Heads,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[Batch],
    *,
    job: Job,
    normalize: Normalize,
    optimizers: optim.Optimizers,
    scaler: torch.amp.GradScaler,
    check: bool = True,
    size: tuple[int, ...] | None = None,
) -> Stepped:
    """One optimiser step over one or more batches.

    Args:
        heads: of the network, or of what it was compiled to.
        parameters: those that are trained.
        batches: of one step.
        job: task, recipe, device and arithmetic.
        normalize: bytes to what the network takes.
        optimizers: over the parameters.
        scaler: of the loss, for fp16.
        check: read the loss, and raise before any weight moves where it is not finite. Without,
            nothing waits for the device, and whoever reads the loss must look.
        size: what the pictures are scaled down to; None: as they are.

    Raises:
        NonFiniteLossError: with the ids of the samples.
    """
    recipe, precision = job.recipe.optim, job.choice.precision
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    optimizers.zero_grad()
    # The mean is over all batches of the step, weighted: accumulating n batches of b pictures is
    # the same step as one batch of n·b.
    counts = [one.weights * one.valid for one in batches]
    weight = reduce(torch.add, (each.sum() for each in counts))
    weight = weight.clamp(min=1e-12)  # a step of nothing but samples of weight 0 teaches nothing
    shares = [each / weight for each in counts]
    parts: list[Tensor] = []
    samples: list[Samples] = []
    for one, share in zip(batches, shares, strict=True):
        images = normalize(one.images)
        if size is not None:
            images = shrunk(images, size).contiguous(memory_format=normalize.order)
        with torch.autocast(job.device.type, dtype=dtype, enabled=dtype is not None):
            outputs = heads.outputs(images)
        losses = heads.losses(job.task, outputs, one, training=True)
        loss = losses.dot(share)
        samples.append(Samples(losses.detach(), one.ids, one.valid))
        if check and not math.isfinite(value := loss.item()):
            raise non_finite(value, samples[-1:])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        parts.append(loss.detach())
    extra = optim.penalty(parameters, recipe)
    if extra is not None:
        scaler.scale(extra).backward()  # type: ignore[no-untyped-call]
        parts.append(extra.detach())
    # `Optimizers` is to the scaler what a torch optimiser is: parameter groups and a step.
    steps = cast("torch.optim.Optimizer", optimizers)
    scaler.unscale_(steps)
    if recipe.centralize:
        optim.centralize(parameters)
    if recipe.clip_norm:
        optim.clip(parameters, recipe.clip_norm)
    scaler.step(steps)
    scaler.update()
    return Stepped(loss=reduce(torch.add, parts), samples=samples)


def non_finite(loss: float, samples: Sequence[Samples]) -> NonFiniteLossError:
    """The error that names the samples; the loop adds the step and the names."""
    bad = [
        number
        for one in samples
        for number in one.ids[~torch.isfinite(one.losses) & one.valid].tolist()
    ]
    every = [number for one in samples for number in one.ids[one.valid].tolist()]
    return NonFiniteLossError(f"the loss is {loss}", ids=bad or every)
