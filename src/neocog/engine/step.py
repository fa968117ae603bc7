"""One optimiser step, a plain function. Floor 2, room engine; imports floor 0 and this room."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from neocog.engine import optim
from neocog.errors import NonFiniteLossError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from neocog.engine.job import Job
    from neocog.layers import Normalize
    from neocog.records import Batch

__all__ = ["train_step"]


def train_step(
    forward: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    batches: Sequence[Batch],
    *,
    job: Job,
    normalize: Normalize,
    optimizers: optim.Optimizers,
    scaler: torch.amp.GradScaler,
) -> Tensor:
    """One optimiser step over one or more batches; the weighted mean loss, a scalar.

    A non-finite loss raises before any weight moves.

    Raises:
        NonFiniteLossError: with the ids of the samples.
    """
    recipe, precision = job.recipe.optim, job.choice.precision
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    optimizers.zero_grad()
    # The mean is over all batches of the step, weighted: accumulating n batches of b pictures is
    # the same step as one batch of n·b.
    weight = torch.stack([(one.weights * one.valid).sum() for one in batches]).sum()
    weight = weight.clamp(min=1e-12)  # a step of nothing but samples of weight 0 teaches nothing
    total = torch.zeros((), device=job.device)
    for one in batches:
        images = normalize(one.images)
        if job.choice.layout == "channels_last":
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(job.device.type, dtype=dtype, enabled=dtype is not None):
            outputs = forward(images)
        losses = job.task.loss(outputs.float(), one, training=True)
        loss = (losses * one.weights * one.valid).sum() / weight
        if not torch.isfinite(loss):
            raise _non_finite(loss, losses, one)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    extra = optim.penalty(parameters, recipe)
    if extra is not None:
        scaler.scale(extra).backward()  # type: ignore[no-untyped-call]
        total += extra.detach()
    # `Optimizers` is to the scaler what a torch optimiser is: parameter groups and a step.
    steps = cast("torch.optim.Optimizer", optimizers)
    scaler.unscale_(steps)
    if recipe.centralize:
        optim.centralize(parameters)
    if recipe.clip_norm:
        optim.clip(parameters, recipe.clip_norm)
    scaler.step(steps)
    scaler.update()
    return total


def _non_finite(loss: Tensor, losses: Tensor, batch: Batch) -> NonFiniteLossError:
    """The error that names the samples; the loop adds the step and the names."""
    bad = batch.ids[~torch.isfinite(losses) & batch.valid].tolist()
    return NonFiniteLossError(
        f"the loss is {loss.item()}", ids=bad or batch.ids[batch.valid].tolist()
    )
