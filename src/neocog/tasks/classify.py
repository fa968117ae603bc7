"""One class a sample. Floor 2, room tasks; imports floors 0 and 1 and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from neocog.errors import ConfigError
from neocog.metrics import ClassificationStatistics, refuse_nonfinite
from neocog.records import TaskSpec
from neocog.tasks.settings import checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.config import LossRecipe
    from neocog.records import Batch

__all__ = ["Classify", "with_temperature"]

_TOP = 5
LEAST, MOST = 1e-3, 1e3
"""Temperatures beyond these are damage: at them every answer is sure, or none is."""


class Classify:
    """Softmax and cross-entropy −Σ_c w_c · t_c · log p_c.

    In training the targets are smoothed, t' = (1 − ε)·t + ε/K (Szegedy et al., arXiv 1512.00567),
    and each term has its class weight. Outside training ε is 0 and every weight 1.

    Outputs are divided by a temperature T before they become probabilities (Guo et al. 2017, arXiv
    1706.04599). It changes how sure an answer is, not the answer, and no loss: that is of the
    outputs as they are.

    Args:
        classes: names in the order of the outputs.
        label_smoothing: ε in [0, 1).
        class_weights: w, one for each class; None: all 1.
        temperature: T, above 0; `metrics.temperature` fits it.

    Raises:
        ConfigError: repeated names, ε out of range, weights that do not fit, or a temperature that
            is none.
    """

    SETTINGS = ("label_smoothing", "class_weights")

    @classmethod
    def for_data(
        cls, classes: Sequence[str], targets: NDArray[Any], kind: str, loss: LossRecipe
    ) -> Classify:
        """The task for training samples of these class indices, N.

        Raises:
            ConfigError: fewer than two classes, or weights that only masks have.
        """
        if len(classes) < 2:
            raise ConfigError(
                f"expected at least two classes, got {list(classes)}",
                "there is nothing to tell apart",
            )
        if loss.class_weights == "median_frequency":
            raise ConfigError(
                "loss.class_weights=median_frequency is for masks", "balanced is for classes"
            )
        weights = None if loss.class_weights == "none" else _balanced(targets, len(classes))
        return cls(classes=classes, label_smoothing=loss.label_smoothing, class_weights=weights)

    def __init__(
        self,
        *,
        classes: Sequence[str],
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        weights = checked(classes, label_smoothing, class_weights)
        if not LEAST <= temperature <= MOST:
            raise ConfigError(
                f"a temperature lies in {LEAST:g}…{MOST:g}, got {temperature}",
                "1 leaves probabilities as the network gives them",
            )
        self.classes = tuple(classes)
        self.label_smoothing = float(label_smoothing)
        self._weights = None if weights is None else torch.tensor(weights)
        self.temperature = float(temperature)
        args = {"classes": list(classes), "label_smoothing": self.label_smoothing}
        self.spec = TaskSpec(name="classify", args={**args, "class_weights": weights})
        if self.temperature != 1:  # left out at 1, as those wrote it who knew of no temperature
            self.spec = with_temperature(self.spec, self.temperature)

    @property
    def outputs(self) -> int:
        """One output a class."""
        return len(self.classes)

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """One row of outputs for each sample, whatever its size."""
        return (self.outputs,)

    def loss(self, outputs: Tensor, batch: Batch, *, training: bool = False) -> Tensor:
        """Cross-entropy of each sample, B, in nats; float32 at least.

        Args:
            outputs: logits, B×K.
            batch: class indices (B, int64), or shares of the classes (B×K, float) after mixing.
            training: smooth the targets and weigh the classes.
        """
        logits = outputs if outputs.dtype == torch.float64 else outputs.float()
        targets, indices = batch.targets, batch.targets.dim() == 1
        # Padding may hold an index that does not exist; on a GPU that would end the process.
        targets = targets * batch.valid if indices else targets.to(logits.dtype)
        if not training:
            return F.cross_entropy(logits, targets, reduction="none")
        weights = None
        if self._weights is not None:
            # Not kept there: a task that remembers tensors would also remember those of a meta or
            # fake device. Some bytes without waiting cost nothing.
            weights = self._weights.to(logits.dtype).to(logits.device, non_blocking=True)
        return F.cross_entropy(
            logits,
            targets,
            weight=weights,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )

    def decode(self, outputs: Tensor) -> Tensor:
        """Logits B×K → probabilities B×K."""
        logits = outputs if outputs.dtype == torch.float64 else outputs.float()
        if self.temperature != 1:
            # Relative to the largest, where a difference in the last bit outlives the division: two
            # classes that are almost as probable must not change places.
            logits = (logits - logits.amax(dim=1, keepdim=True)) / self.temperature
        return logits.softmax(dim=1)

    def statistics(self) -> ClassificationStatistics:
        """A fresh, empty count."""
        return ClassificationStatistics(self.classes)

    def answer(self, decoded: Tensor) -> list[dict[str, Any]]:
        """Probabilities B×K → label, probability and the five most probable; ties by index.

        Raises:
            NonFiniteLossError: a probability is NaN.
        """
        ordered, index = refuse_nonfinite(decoded).sort(dim=1, descending=True, stable=True)
        answers = []
        for row, order in zip(ordered.tolist(), index.tolist(), strict=True):
            top = [
                {"label": self.classes[place], "probability": share}
                for share, place in zip(row[:_TOP], order[:_TOP], strict=True)
            ]
            answers.append({**top[0], "top": top})
        return answers

    def truth(self, targets: Tensor) -> list[str]:
        """Class indices B → class names, in the words of `answer`."""
        return [self.classes[index] for index in targets.tolist()]


def with_temperature(spec: TaskSpec, temperature: float) -> TaskSpec:
    """The spec of a classification with this temperature in place of its own.

    Raises:
        ConfigError: a task that has no temperature.

    >>> spec = Classify(classes=["cat", "dog"]).spec
    >>> with_temperature(spec, 2.0).args["temperature"]
    2.0
    >>> with_temperature(with_temperature(spec, 2.0), 1.0) == spec
    True
    """
    if spec.name != "classify":
        raise ConfigError(
            f"task {spec.name} has no temperature", "only classify makes its outputs a softmax"
        )
    args = {name: value for name, value in spec.args.items() if name != "temperature"}
    if temperature != 1:
        args["temperature"] = float(temperature)
    return TaskSpec(name=spec.name, args=args)


def _balanced(targets: NDArray[Any], size: int) -> list[float]:
    """n / (K · count) for each of the K classes that occur, so that samples weigh 1 on average.

    A class without training samples weighs 1; there is nothing to balance.

    >>> _balanced(np.array([0, 0, 0, 1]), 3)
    [0.6666666666666666, 2.0, 1.0]
    """
    counts = np.bincount(targets.astype(np.int64), minlength=size)
    occur = int((counts > 0).sum())
    return [len(targets) / (occur * int(count)) if count else 1.0 for count in counts]
