"""One way to compute a training step: timed, and compared with fp32. Floor 2, room engine.

Imports layers, floor 0 and its own room.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from typing import TYPE_CHECKING

import torch

from neocog.engine import optim
from neocog.engine.heads import Heads
from neocog.engine.job import Learning
from neocog.engine.step import train_step
from neocog.rewriting import rewrite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from neocog.engine.job import Choice, Job
    from neocog.records import Batch

__all__ = ["TOLERANCE", "Candidate", "agreement", "draws", "gradients", "within"]

TOLERANCE: dict[str, tuple[float, float]] = {
    "fp32": (1e-3, 1e-3),
    "bf16": (0.02, 0.4),
    "fp16": (0.02, 0.4),
}
"""Largest relative difference of the loss, and largest ‖g − g₀‖ / ‖g₀‖ of all gradients together,
against fp32 in plain layout, on 32 pictures. Half precision rounds each number by up to 0.4 %,
which a deep network in training mode amplifies: measured 0.06 for `cnn`, 0.13 for `speednet`, 0.30
for `resnet18`. An error of 0.4 turns the gradient by less than 24°; two batches of 32 pictures
differ by far more than that."""


class Candidate:
    """A copy of the job that trains in its own way."""

    def __init__(self, job: Job, choice: Choice) -> None:
        network = copy.deepcopy(job.network)
        self.job = dataclasses.replace(job, network=network, choice=choice)
        self.job.arrange(network)
        rewrite(network)
        self.choice = choice
        self.learning = Learning(self.job)
        self.heads = Heads(network, compiled=choice.compile)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizers = optim.build(network, job.recipe.optim, rates=job.rates, own=job.carried)
        self.normalize = self.job.normalizer()
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=choice.precision == "fp16")
        self.times: list[float] = []
        self.error = (0.0, 0.0)

    @property
    def best(self) -> float:
        """The shortest step so far."""
        return min(self.times)

    def step(self, batches: Sequence[Batch]) -> None:
        """One timed training step, as the loop does it."""
        torch.set_num_threads(self.choice.threads)
        # A rate of nothing: the timing must not depend on where the weights wander.
        self.optimizers.set_lr(0.0)
        self.learning.keep()
        _wait(self.job.device)
        began = time.perf_counter()
        train_step(
            self.heads,
            self.parameters,
            batches,
            job=self.job,
            normalize=self.normalize,
            optimizers=self.optimizers,
            scaler=self.scaler,
        )
        _wait(self.job.device)
        self.times.append(time.perf_counter() - began)

    def warm(self, batches: Sequence[Batch]) -> None:
        """The first step also sets up memory and kernels; the second is the first that counts."""
        self.step(batches)
        self.times.clear()
        self.step(batches)


def draws(candidate: Candidate, batch: Batch) -> bool:
    """Whether the network is random in training: dropout and the like draw in the order of memory,
    so that two layouts never drop the same units and their gradients cannot be compared."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(gradients(candidate, batch, training=True))
    return not within(agreement(found[0], found[1]), "fp32")


def gradients(candidate: Candidate, batch: Batch, training: bool) -> tuple[float, Tensor]:
    """Loss and gradient of one batch, in training mode where that is not random: there norms see
    what they will see, while their first running statistics fit nothing."""
    torch.set_num_threads(candidate.choice.threads)
    job = candidate.job
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(candidate.choice.precision)
    images = candidate.normalize(batch.images)
    if training:
        candidate.learning.keep()
    else:
        job.network.eval()
    with torch.autocast(job.device.type, dtype=dtype, enabled=dtype is not None):
        outputs = candidate.heads.outputs(images)
    loss = candidate.heads.losses(job.task, outputs, batch).mean()
    candidate.optimizers.zero_grad()
    candidate.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scale = candidate.scaler.get_scale()
    flat = torch.cat(
        [p.grad.reshape(-1) / scale for p in candidate.parameters if p.grad is not None]
    )
    return loss.item(), flat.cpu()


def agreement(reference: tuple[float, Tensor], found: tuple[float, Tensor]) -> tuple[float, float]:
    """Relative difference of the loss, and of the gradient in norm.

    Args:
        reference: loss, and all gradients in one row, in fp32.
        found: the same of a candidate.

    >>> agreement((2.0, torch.tensor([3.0, 4.0])), (2.5, torch.tensor([3.0, 4.5])))
    (0.25, 0.1)
    """
    loss = abs(found[0] - reference[0]) / max(abs(reference[0]), 1e-12)
    size = max(float(reference[1].norm()), 1e-12)
    return loss, float((found[1] - reference[1]).norm()) / size


def within(error: tuple[float, float], precision: str) -> bool:
    """Whether both differences are within `TOLERANCE`; NaN never is.

    >>> within((0.01, 0.2), "bf16"), within((0.01, 0.2), "fp32")
    (True, False)
    >>> within((0.0, float("nan")), "bf16")
    False
    """
    return all(one <= most for one, most in zip(error, TOLERANCE[precision], strict=True))


def _wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
