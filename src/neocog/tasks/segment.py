"""One class a pixel. Floor 2, room tasks; imports floors 0 and 1 and torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.nn.functional as F

from neocog.errors import ConfigError, near
from neocog.metrics import SegmentationStatistics, refuse_nonfinite
from neocog.records import VOID, TaskSpec
from neocog.tasks.settings import checked
from neocog.tasks.weighting import class_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.config import LossRecipe
    from neocog.records import Batch

__all__ = ["Pixels", "Segment"]

Pixels = Literal["cross_entropy", "dice", "focal", "cross_entropy+dice"]
"""What is made small in training."""
_SMALLEST = 1e-12
"""1 − p below it counts as this much: a power below 1 has no slope at 0."""


class Segment:
    """Softmax over the classes of each pixel, and a loss of each picture.

    With p_c the probability of class c and y the truth, over the n labelled pixels of the picture:

    - `cross_entropy`: Σ −w_y log p_y / n. In training the targets are smoothed as in `Classify`,
      t' = (1 − ε)·t + ε/K.
    - `focal`: Σ −w_y (1 − p_y)^γ log p_y / n (Lin et al. 2017, arXiv 1708.02002).
    - `dice`: 1 − the mean of D_c = 2 Σ [y=c] p_c / (Σ p_c² + Σ [y=c]) over the classes that the
      truth of the picture shows (squares as Milletari et al. 2016, arXiv 1606.04797, have them).
      Each of them has a pixel, so nothing is divided by 0 and there is no smoothing term.
    - `cross_entropy+dice`: the sum of the two.

    Void pixels (`VOID`) take part in none of the sums; a picture without a labelled pixel has a
    loss of 0. All this is training: outside it the loss is the cross-entropy, with ε 0 and every
    weight 1, so that validation losses compare across recipes.

    Args:
        classes: names in the order of the outputs, 255 at most.
        pixels: the loss in training.
        focal_gamma: γ, 0 or more; 0: cross-entropy.
        class_weights: w, one for each class; None: all 1. Dice counts all classes alike and knows
            none.
        label_smoothing: ε in [0, 1); for cross-entropy.

    Raises:
        ConfigError: repeated names, numbers out of range, weights that do not fit, or weights or
            smoothing that the loss would ignore.
    """

    SETTINGS = ("pixels", "focal_gamma", "class_weights", "label_smoothing")

    @classmethod
    def for_data(
        cls, classes: Sequence[str], targets: NDArray[Any], kind: str, loss: LossRecipe
    ) -> Segment:
        """The task for training pictures with so many labelled pixels of each class, N×K."""
        how = loss.class_weights
        return cls(
            classes=classes,
            pixels=loss.pixels,
            focal_gamma=loss.focal_gamma,
            class_weights=None if how == "none" else class_weights(targets, how),
            label_smoothing=loss.label_smoothing,
        )

    def __init__(
        self,
        *,
        classes: Sequence[str],
        pixels: Pixels = "cross_entropy",
        focal_gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        weights = checked(classes, label_smoothing, class_weights)
        if len(classes) > VOID:
            raise ConfigError(f"a mask tells {VOID} classes apart, got {len(classes)}")
        if pixels not in get_args(Pixels):
            raise ConfigError(f"there is no pixel loss {pixels!r}", near(pixels, get_args(Pixels)))
        if not 0 <= focal_gamma < math.inf:
            raise ConfigError(f"focal gamma is 0 or more, got {focal_gamma}")
        if weights is not None and pixels == "dice":
            raise ConfigError(
                "the dice loss uses no class weights: it counts all classes alike",
                "leave loss.class_weights at none, or take cross_entropy+dice",
            )
        if label_smoothing and not pixels.startswith("cross_entropy"):
            raise ConfigError(
                f"the {pixels} loss smooths no labels",
                "leave loss.label_smoothing at 0, or take cross_entropy",
            )
        self.classes = tuple(classes)
        self.pixels = pixels
        self.focal_gamma = float(focal_gamma)
        self.label_smoothing = float(label_smoothing)
        self._weights = None if weights is None else torch.tensor(weights)
        loss = {"pixels": pixels, "focal_gamma": self.focal_gamma, "class_weights": weights}
        args = {"classes": list(classes), **loss, "label_smoothing": self.label_smoothing}
        self.spec = TaskSpec(name="segment", args=args)

    @property
    def outputs(self) -> int:
        """One output a class."""
        return len(self.classes)

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Of one sample's outputs, (K, H, W), for an input of this size (H, W)."""
        return (len(self.classes), *size)

    def loss(self, outputs: Tensor, batch: Batch, *, training: bool = False) -> Tensor:
        """Loss of each picture, B, in nats; float32 at least.

        Args:
            outputs: logits, B×K×H×W.
            batch: masks (B×H×W, uint8). An index that does not exist counts as void here, because
                on a GPU it would end the process; the statistics refuse it.
            training: the loss that was chosen, with weights and smoothing.
        """
        labelled = (batch.targets < len(self.classes)) & batch.valid[:, None, None]
        targets = batch.targets.masked_fill(~labelled, VOID).long()
        log_p = outputs.log_softmax(dim=1, dtype=_wide(outputs))
        nll = F.nll_loss(log_p, targets, ignore_index=VOID, reduction="none")
        if not training:
            return _over_labelled(nll, labelled)
        if self.pixels == "dice":
            return _dice(log_p, nll, targets)
        if self.pixels == "focal":
            wrong = -torch.expm1(-nll)
            nll = nll * wrong.clamp(min=_SMALLEST) ** self.focal_gamma
        loss = _over_labelled(self._weighed(nll, log_p, targets, labelled), labelled)
        return loss + _dice(log_p, nll, targets) if "dice" in self.pixels else loss

    def _weighed(self, loss: Tensor, log_p: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
        """The loss of each pixel, B×H×W, with class weights and label smoothing."""
        weights = None
        if self._weights is not None:
            # Not kept there: see `Classify.loss`.
            weights = self._weights.to(loss.dtype).to(loss.device, non_blocking=True)
            loss = loss * weights[targets.masked_fill(~labelled, 0)]
        if not self.label_smoothing:
            return loss
        every = log_p if weights is None else log_p * weights[:, None, None]
        even = torch.where(labelled, every.mean(dim=1), 0.0)
        return (1 - self.label_smoothing) * loss - self.label_smoothing * even

    def decode(self, outputs: Tensor) -> Tensor:
        """Logits B×K×H×W → probabilities B×K×H×W."""
        return outputs.softmax(dim=1, dtype=_wide(outputs))

    def statistics(self) -> SegmentationStatistics:
        """A fresh, empty count."""
        return SegmentationStatistics(self.classes)

    def answer(self, decoded: Tensor) -> list[dict[str, Any]]:
        """Probabilities B×K×H×W → the class that covers most of each picture, and all shares.

        `shares` maps the classes that were answered to their share of all pixels, largest first;
        of equals the one with the lowest index. A picture has no single probability, and no
        runners-up: `probability` is None and `top` empty. `mask` is the class of each pixel, H×W
        uint8.

        Raises:
            NonFiniteLossError: a probability is NaN.
        """
        largest, label = decoded.max(dim=1)
        refuse_nonfinite(largest.flatten(1))
        answers: list[dict[str, Any]] = []
        for count in self._counts(label).tolist():
            shares = {self.classes[k]: count[k] / sum(count) for k in _by_size(count)}
            first = next(iter(shares))
            answers.append({"label": first, "probability": None, "top": [], "shares": shares})
        for answer, one in zip(answers, label, strict=True):
            answer["mask"] = one.to(torch.uint8).numpy()
        return answers

    def truth(self, targets: Tensor) -> list[str]:
        """Masks B×H×W, or labelled pixels of each class B×K → the classes that a picture shows.

        Names joined by a comma, those that cover most first; empty for a picture that is void.
        """
        counts = self._counts(targets) if targets.dim() == 3 else targets
        return [", ".join(self.classes[k] for k in _by_size(count)) for count in counts.tolist()]

    def _counts(self, masks: Tensor) -> Tensor:
        """Pixels of each class in each picture, B×K; others and void are left out."""
        index = masks.long() + torch.arange(len(masks), device=masks.device)[:, None, None] * 256
        counts = torch.bincount(index.flatten(), minlength=len(masks) * 256)
        return counts.view(len(masks), 256)[:, : len(self.classes)]


def _wide(outputs: Tensor) -> torch.dtype:
    """The type in which probabilities are computed: float32 at least."""
    return torch.float64 if outputs.dtype == torch.float64 else torch.float32


def _over_labelled(loss: Tensor, labelled: Tensor) -> Tensor:
    """The sum over a picture's pixels by the number of labelled ones, B; 0 where there is none."""
    return loss.sum(dim=(1, 2)) / labelled.sum(dim=(1, 2)).clamp(min=1)


def _dice(log_p: Tensor, nll: Tensor, targets: Tensor) -> Tensor:
    """1 − mean D_c over the classes of each picture's truth, B; see `Segment`.

    Sums over one class after another need no one-hot copy; they are made without atomic additions,
    whose order, and with it the last bits, a GPU leaves to luck.

    Args:
        log_p: B×K×H×W.
        nll: −log p_y, 0 at void pixels, B×H×W.
        targets: class indices, `VOID` where there is no label, B×H×W.
    """
    void = targets == VOID
    # exp keeps its result alone for the way back: zeros at void pixels take part in nothing there.
    squares = log_p.masked_fill(void[:, None], -math.inf).exp().square().sum(dim=(2, 3))
    own = (-nll).exp()
    of_class = [targets == k for k in range(log_p.shape[1])]
    overlap = torch.stack([(own * one).sum(dim=(1, 2)) for one in of_class], dim=1)
    truth = torch.stack([one.sum(dim=(1, 2)) for one in of_class], dim=1)
    shown = truth > 0
    # At least 1 for a class that is shown; others divide by 1, for nothing.
    score = 2 * overlap / torch.where(shown, squares + truth, 1.0)
    return ((1 - score) * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)


def _by_size(counts: Sequence[float]) -> list[int]:
    """Places of what is not 0, largest first; of equals the first."""
    return sorted((k for k in range(len(counts)) if counts[k]), key=lambda k: -counts[k])
