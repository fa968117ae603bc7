"""Any number of labels a sample. Floor 2, room tasks; imports floors 0 and 1 and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from neocog.errors import ConfigError
from neocog.metrics import MultilabelStatistics, refuse_nonfinite
from neocog.metrics.multilabel import THRESHOLD
from neocog.records import TaskSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.config import LossRecipe
    from neocog.records import Batch

__all__ = ["Multilabel"]

_TOP = 5


class Multilabel:
    """One sigmoid a label and binary cross-entropy −(t·log p + (1−t)·log(1−p)), mean over labels.

    In training the targets are smoothed, t' = (1 − ε)·t + ε/2: each label is a choice of two.

    Args:
        classes: label names in the order of the outputs.
        label_smoothing: ε in [0, 1).

    Raises:
        ConfigError: repeated names, or ε out of range.
    """

    SETTINGS = ("label_smoothing",)

    @classmethod
    def for_data(
        cls, classes: Sequence[str], targets: NDArray[Any], kind: str, loss: LossRecipe
    ) -> Multilabel:
        """The task for training samples of these labels, N×K of 0 and 1."""
        return cls(classes=classes, label_smoothing=loss.label_smoothing)

    def __init__(self, *, classes: Sequence[str], label_smoothing: float = 0.0) -> None:
        if not classes or len(set(classes)) != len(classes):
            raise ConfigError(f"expected labels with different names, got {list(classes)}")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label smoothing lies in [0, 1), got {label_smoothing}")
        self.classes = tuple(classes)
        self.label_smoothing = float(label_smoothing)
        args = {"classes": list(classes), "label_smoothing": self.label_smoothing}
        self.spec = TaskSpec(name="multilabel", args=args)

    @property
    def outputs(self) -> int:
        """One output a label."""
        return len(self.classes)

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """One row of outputs for each sample, whatever its size."""
        return (self.outputs,)

    def loss(self, outputs: Tensor, batch: Batch, *, training: bool = False) -> Tensor:
        """Binary cross-entropy of each sample, B, in nats a label; float32 at least.

        Args:
            outputs: logits, B×K.
            batch: targets in [0, 1], B×K.
            training: smooth the targets.
        """
        logits = outputs if outputs.dtype == torch.float64 else outputs.float()
        targets = batch.targets.to(logits.dtype)
        if training and self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    def decode(self, outputs: Tensor) -> Tensor:
        """Logits B×K → a probability for each label, B×K."""
        return (outputs if outputs.dtype == torch.float64 else outputs.float()).sigmoid()

    def statistics(self) -> MultilabelStatistics:
        """A fresh, empty count."""
        return MultilabelStatistics(self.classes)

    def answer(self, decoded: Tensor) -> list[dict[str, Any]]:
        """Probabilities B×K → the labels above 0.5, the largest probability, and the top five.

        `label` joins the labels with `|`, in the order of the classes; it is empty when none holds.

        Raises:
            NonFiniteLossError: a probability is NaN.
        """
        shares = refuse_nonfinite(decoded)
        ordered, index = shares.sort(dim=1, descending=True, stable=True)
        answers = []
        for given, row, order in zip(
            shares.tolist(), ordered.tolist(), index.tolist(), strict=True
        ):
            pairs = zip(self.classes, given, strict=True)
            labels = [name for name, share in pairs if share > THRESHOLD]
            top = [
                {"label": self.classes[place], "probability": share}
                for share, place in zip(row[:_TOP], order[:_TOP], strict=True)
            ]
            answers.append(
                {"label": "|".join(labels), "labels": labels, "probability": row[0], "top": top}
            )
        return answers

    def truth(self, targets: Tensor) -> list[str]:
        """Labels B×K of 0 and 1 → their names joined by `|`, in the words of `answer`."""
        return [
            "|".join(name for name, given in zip(self.classes, row, strict=True) if given)
            for row in targets.tolist()
        ]
