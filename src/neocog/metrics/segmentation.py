"""Counting answers for every pixel: Jaccard, pixel accuracy, outlines. Floor 1, room metrics.

Imports floor 0, NumPy and torch. Pixels of one picture hang together: a million of them from ten
pictures are ten observations. So the statistics keep some numbers for each picture, and intervals
come from drawing pictures again, never pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog.errors import DataError
from neocog.metrics import student
from neocog.metrics.boundary import boundary_counts, boundary_f
from neocog.metrics.intervals import (
    Z,
    drawn_ends,
    mean_ends,
    mean_of_bounds,
    resampled_sums,
    wilson_ends,
)
from neocog.metrics.rows import valid_rows
from neocog.metrics.shares import known_mean, ratio
from neocog.records import VOID, ClassRow, Interval, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.records import Batch

    Ends = tuple[float, float]
    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = ["SegmentationStatistics"]

UNIT = (0.0, 1.0)
CACHED = 1 << 18
"""Pixels that a CPU counts at a time: some bytes each stay in its cache."""
LAUNCHED = 1 << 24
"""Pixels that other devices count at a time: few launches, and 128 MiB of indices."""


class SegmentationStatistics:
    """Additive counts over batches of probabilities B×K×H×W and masks B×H×W.

    Over all labelled pixels with truth y and answer a, the most probable class (of equals the one
    with the lowest index):

    - Jaccard of class k: Σ [y=k][a=k] / Σ max([y=k], [a=k]), the overlap over the union. `jaccard`
      is its mean over the classes that occur, as truth or as answer; one that does not is 0/0,
      None, and left out.
    - `accuracy`: the share of pixels with y = a.
    - `boundary_f`: see `boundary.boundary_f`; the mean over pictures that have a boundary, left out
      where none has.
    - `loss`: the mean over pictures.

    Void pixels (`VOID`) are excluded from all of it: what was answered there is not looked at.

    Args:
        classes: names in the order of the outputs, 255 at most.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        if len(classes) > VOID:
            raise ValueError(f"expected {VOID} classes at most, got {len(classes)}")
        self.classes = tuple(classes)
        size = len(self.classes)
        self.confusion: Counts = np.zeros((size, size), np.int64)
        # Each of one row a picture: N×3K pixels (overlap, truth, answer), N F-scores, N losses.
        self.pixels: list[Floats] = []
        self.boundaries: list[Floats] = []
        self.losses: list[Floats] = []

    def update(self, answers: Tensor, losses: Tensor, batch: Batch) -> None:
        """Count the valid pictures of one batch.

        Args:
            answers: probabilities, B×K×H×W, on any device.
            losses: B.
            batch: with masks (B×H×W, uint8) as targets.

        Raises:
            NonFiniteLossError: NaN or infinity in a valid picture.
            ValueError: shapes or targets that do not fit the classes.
        """
        size, shape = len(self.classes), tuple(batch.targets.shape)
        cells = size * size
        fits = answers.dim() == 4 and answers.shape[1] == size
        if not fits or (len(answers), *answers.shape[2:]) != shape:
            raise ValueError(
                f"expected answers B×{size}×H×W and masks B×H×W, got {tuple(answers.shape)} and "
                f"{shape}"
            )
        if batch.targets.dtype != torch.uint8:
            raise ValueError(f"expected masks of type uint8, got {batch.targets.dtype}")
        targets = batch.targets.to(answers.device)
        parts = [_counted(answers[one], targets[one], size) for one in _pieces(targets)]
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        rows = valid_rows([*columns, losses.to(answers.device)], batch)
        strange, edges = rows[:, cells], rows[:, cells + 2 : -2]
        if strange.any():
            raise ValueError(
                f"expected targets 0…{size - 1}, or {VOID} for void, got others in "
                f"{int(strange.sum())} pixels; padding must be marked in `valid`"
            )
        confusion = rows[:, :cells].reshape(-1, size, size)
        self.confusion += confusion.sum(axis=0).astype(np.int64)
        three = [confusion.diagonal(axis1=1, axis2=2), confusion.sum(axis=2), confusion.sum(axis=1)]
        self.pixels.append(np.concatenate(three, axis=1))
        self.boundaries.append(boundary_f(edges.reshape(-1, size, 4)))
        self.losses.append(rows[:, -1].copy())

    def merge(self, other: SegmentationStatistics) -> None:
        """Add what another object kept, its pictures after those here."""
        if other.classes != self.classes:
            raise ValueError("expected statistics over the same classes in the same order")
        self.confusion += other.confusion
        self.pixels += other.pixels
        self.boundaries += other.boundaries
        self.losses += other.losses

    def per_picture(self) -> Floats:
        """Jaccard of each picture, N, in the order in which they were counted.

        The mean over the classes that occur in its truth or in its answer; NaN for a picture that
        is void.
        """
        if not self.pixels:
            return np.zeros(0)
        return known_mean(_jaccard(*_three(np.concatenate(self.pixels))))

    def values(self) -> dict[str, float]:
        """jaccard, accuracy, boundary_f, loss.

        Raises:
            DataError: nothing was counted.
        """
        pixels, boundaries, losses = self._rows()
        sums = np.concatenate([pixels.sum(axis=0), _known_sum(boundaries)])
        return {name: float(one) for name, one in _ratios(sums).items() if np.isfinite(one)} | {
            "loss": float(losses.mean())
        }

    def scores(self) -> Scores:
        """The metrics of `values` with their intervals, the classes and the confusion of pixels.

        The n of an interval counts the pictures behind it, that of a class its labelled pixels.
        The intervals are bootstraps over pictures, made fit for few of them by `_few`; that of the
        loss is the normal one.

        Raises:
            DataError: nothing was counted.
        """
        values = self.values()
        pixels, boundaries, losses = self._rows()
        known = np.isfinite(boundaries)
        columns = [pixels, np.where(known, boundaries, 0.0)[:, None], known[:, None]]
        drawn = resampled_sums(np.concatenate(columns, axis=1), "pictures")
        classes = self._classes(pixels, drawn[:, :-2])
        pictures = int((pixels > 0).any(axis=1).sum())
        behind = {"jaccard": pictures, "accuracy": pictures, "boundary_f": int(known.sum())}
        metrics = {}
        for name, draws in _ratios(drawn).items():
            if name not in values:
                continue
            floor = _mean_floor(classes) if name == "jaccard" else None
            metrics[name] = _few(values[name], draws, behind[name], floor)
        low, high = mean_ends(values["loss"], float(np.square(losses).sum()), len(losses))
        metrics["loss"] = Interval(value=values["loss"], low=low, high=high, n=len(losses))
        return Scores(
            metrics=metrics,
            classes=classes,
            confusion=tuple(tuple(row) for row in self.confusion.tolist()),
        )

    def _rows(self) -> tuple[Floats, Floats, Floats]:
        """Pixels, F-scores and losses of every picture."""
        if not any(part.any() for part in self.pixels):
            raise DataError(
                "expected labelled pixels to score, got none",
                "is this part of the data empty, or void everywhere?",
            )
        lists = self.pixels, self.boundaries, self.losses
        pixels, boundaries, losses = (np.concatenate(one) for one in lists)
        return pixels, boundaries, losses

    def _classes(self, pixels: Floats, drawn: Floats) -> tuple[ClassRow, ...]:
        """One row a class; F1 of pixels is also known as the Dice coefficient.

        Args:
            pixels: N×3K.
            drawn: sums over resamples, D×3K.
        """
        found = {}
        for name, of in _SCORES.items():
            (part, whole), (parts, wholes) = of(*_three(pixels.sum(axis=0))), of(*_three(drawn))
            values, draws = ratio(part, whole), ratio(parts, wholes)
            behind = (of(*_three(pixels))[1] > 0).sum(axis=0)
            found[name] = [
                _few(float(values[k]), draws[:, k], int(behind[k])) if behind[k] else None
                for k in range(len(self.classes))
            ]
        labelled = _three(pixels.sum(axis=0))[1]
        return tuple(
            ClassRow(name=name, n=int(labelled[k]), **{key: of[k] for key, of in found.items()})
            for k, name in enumerate(self.classes)
        )


def _pieces(targets: Tensor) -> Iterator[slice]:
    """Runs of pictures that are counted together; at least one picture each."""
    limit = CACHED if targets.device.type == "cpu" else LAUNCHED
    step = max(1, limit // max(1, targets[0].numel()))
    for first in range(0, len(targets), step):
        yield slice(first, first + step)


def _counted(answers: Tensor, targets: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each picture: K·K cells, strange and void pixels; boundaries; the largest answer.

    The largest is there for what is not finite: `max` hands a NaN on.
    """
    largest, label = answers.max(dim=1)
    count, cells = len(targets), size * size
    truth = targets.long()
    cell = torch.where(truth < size, truth * size + label, cells + (truth == VOID))
    cell += torch.arange(count, device=cell.device)[:, None, None] * (cells + 2)
    found = torch.bincount(cell.flatten(), minlength=count * (cells + 2)).view(count, cells + 2)
    edges = boundary_counts(targets, label.to(torch.uint8), size)
    return found, edges.flatten(1), largest.flatten(1).amax(dim=1)


def _three(pixels: Floats) -> tuple[Floats, Floats, Floats]:
    """Overlap, truth and answer of each class, from …×3K."""
    overlap, truth, answer = np.split(pixels, 3, axis=-1)
    return overlap, truth, answer


_SCORES: dict[str, Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]] = {
    "precision": lambda overlap, truth, answer: (overlap, answer),
    "recall": lambda overlap, truth, answer: (overlap, truth),
    "f1": lambda overlap, truth, answer: (2 * overlap, truth + answer),
    "jaccard": lambda overlap, truth, answer: (overlap, truth + answer - overlap),
}
"""What is divided by what, for each number of a class."""


def _jaccard(overlap: Floats, truth: Floats, answer: Floats) -> Floats:
    """Overlap over union, elementwise; NaN for 0/0."""
    return ratio(*_SCORES["jaccard"](overlap, truth, answer))


def _known_sum(values: Floats) -> Floats:
    """Sum and number of the entries that are not NaN."""
    known = np.isfinite(values)
    return np.array([values[known].sum(), known.sum()])


def _ratios(sums: Floats) -> dict[str, Floats]:
    """jaccard, accuracy and boundary_f from sums over pictures, …×(3K+2); NaN for 0/0."""
    overlap, truth, answer = _three(sums[..., :-2])
    return {
        "jaccard": known_mean(_jaccard(overlap, truth, answer)),
        "accuracy": ratio(overlap.sum(axis=-1), truth.sum(axis=-1)),
        "boundary_f": ratio(sums[..., -2], sums[..., -1]),
    }


def _mean_floor(classes: tuple[ClassRow, ...]) -> Ends:
    """What the interval of the mean Jaccard covers at least: as if classes were independent."""
    rows = [row.jaccard for row in classes if row.jaccard is not None]
    values, low, high = (
        np.array([getattr(one, end) for one in rows]) for end in ("value", "low", "high")
    )
    return mean_of_bounds(values, low, high)


def _few(value: float, draws: Floats, n: int, floor: Ends | None = None) -> Interval:
    """An interval by bootstrap that allows for few pictures.

    Draws from n pictures vary too little, by √((n−1)/n), and their ends lie where those of a normal
    distribution do, not of Student's t. So both ends are moved away by t/z · √(n/(n−1)) (Hesterberg
    2015, The American Statistician 69, 371). Where the draws do not vary at all, because one
    picture decides or all are perfect, the interval is Wilson's, each picture one trial: the widest
    that anything between 0 and 1 deserves.

    Args:
        value: the estimate.
        draws: of each resample; NaN where it is undefined.
        n: pictures behind it, at least 1.
        floor: an interval that the result covers at least.
    """
    known = draws[np.isfinite(draws)]
    if n == 1 or known.size == 0 or np.ptp(known) < 1e-12:
        low, high = wilson_ends(value * n, n)
    else:
        low, high = drawn_ends(value, known)
        wider = student.quantile(n - 1) / Z * (n / (n - 1)) ** 0.5
        low, high = value - wider * (value - low), value + wider * (high - value)
    if floor is not None:
        low, high = min(low, floor[0]), max(high, floor[1])
    return Interval(value=value, low=max(low, UNIT[0]), high=min(high, UNIT[1]), n=n)
