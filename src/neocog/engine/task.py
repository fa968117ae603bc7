"""What a task is to the engine: the seam that keeps the loop free of labels. Floor 2, room engine.

A task says how wide the head is, what is made small, what an output means and how it is counted.
The loop, checkpoints and the command line never ask which task it is. Tasks live in their own room
and fit this protocol by shape; the two rooms do not import each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from neocog.records import Batch, Scores, TaskSpec

__all__ = ["Statistics", "Task"]


class Statistics(Protocol):
    """Additive sums over batches; values and scores are pure functions of them."""

    def update(self, answers: Tensor, losses: Tensor, batch: Batch) -> None:
        """Count the valid rows of one batch.

        Args:
            answers: what `Task.decode` gave, one row a sample.
            losses: what `Task.loss` gave, B.
            batch: the batch that was answered.
        """

    def values(self) -> dict[str, float]:
        """The metrics of everything counted so far, `loss` among them: cheap, after each epoch."""

    def scores(self) -> Scores:
        """The same metrics with their intervals, and all that belongs beside them."""


class Task(Protocol):
    """One kind of target."""

    @property
    def spec(self) -> TaskSpec:
        """Name and arguments that build this task again."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class, label or column names, in the order of the outputs."""

    @property
    def outputs(self) -> int:
        """Width of the head."""

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs for one sample of this size: K, or K×H×W."""

    def loss(self, outputs: Tensor, batch: Batch, *, training: bool = False) -> Tensor:
        """Loss of each sample, B, before weighting.

        Label smoothing and class weights apply in training only, so that a validation loss
        compares across recipes.
        """

    def decode(self, outputs: Tensor) -> Tensor:
        """What the outputs mean: probabilities B×K, or numbers in the target's own units."""

    def statistics(self) -> Statistics:
        """A fresh, empty count."""

    def answer(self, decoded: Tensor) -> list[dict[str, Any]]:
        """For people and JSON, one entry a row: label, probability, top; or the numbers. A `mask`
        is an array, H×W uint8, which `predict` writes as a file."""

    def truth(self, targets: Tensor) -> list[str]:
        """What the targets of a data set say, one text a row, in the words of `answer`'s label."""
