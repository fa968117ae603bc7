"""What a network gave for each sample of a part, kept while it is scored. Floor 2, room engine.

For what sums over batches cannot tell: fitting a temperature, comparing two networks picture by
picture. Imports floor 0 and torch.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from neocog.engine.task import Statistics, Task
    from neocog.records import Batch

__all__ = ["MOST", "Kept"]

MOST = 1 << 30
"""Bytes of outputs that are kept, at most; of larger parts nothing is."""


class Kept:
    """Outputs and targets of all samples, where they were computed, in the order of the ids.

    Given to `evaluate` as `each`. It holds 4·K bytes a sample for K outputs in float32, so it is
    for one answer a sample; the outputs of dense tasks are as large as the pictures.

    Args:
        most: bytes of outputs; beyond it all are dropped, and `complete` is False.
    """

    def __init__(self, most: int = MOST) -> None:
        self._left = most
        self._batches: list[tuple[Batch, Tensor]] = []
        self.complete = True

    def __call__(self, batch: Batch, outputs: Tensor) -> None:
        """Keep what belongs to one batch, but for its pictures."""
        self._left -= outputs.numel() * outputs.element_size()
        if self._left < 0:
            self._batches, self.complete = [], False
        if self.complete:
            bare = dataclasses.replace(batch, images=batch.images[:0].clone())
            self._batches.append((bare, outputs.detach()))

    def count(self, task: Task) -> Statistics:
        """Count once more, for a task that makes something else of the same outputs; bit for bit
        what `evaluate` would find with it."""
        statistics = task.statistics()
        with torch.no_grad():
            for batch, outputs in self._batches:
                loss = task.loss(outputs, batch)
                statistics.update(task.decode(outputs), loss, batch)
        return statistics

    @property
    def outputs(self) -> Tensor:
        """N×K on the host, as the network gave them: not decoded."""
        rows = [outputs[batch.valid].cpu() for batch, outputs in self._batches]
        return torch.cat(rows) if rows else torch.empty(0, 0)

    @property
    def targets(self) -> Tensor:
        """N class indices, or N×K, on the host."""
        rows = [batch.targets[batch.valid].cpu() for batch, _ in self._batches]
        return torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64)
