"""Counting one-class answers: confusion, calibration, loss. Floor 1, room metrics.

Imports floor 0, NumPy and torch. The state is K×K integers, thirty numbers for calibration and two
sums, whatever the number of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog.errors import DataError
from neocog.metrics.intervals import (
    CELLS,
    DRAWS,
    around,
    drawn_ends,
    f1_bounds,
    generator,
    mean_ends,
    mean_of_bounds,
    wilson_bounds,
    wilson_ends,
)
from neocog.metrics.rows import valid_rows
from neocog.metrics.shares import ratio
from neocog.records import ClassRow, Interval, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.records import Batch

    Ends = tuple[float, float]
    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = [
    "BINS",
    "ClassificationStatistics",
    "average_ends",
    "averages",
    "bin_sums",
    "calibration",
    "class_rows",
]

BINS = 15
"""Bins of equal width for the calibration error, as in Guo et al. 2017."""
TOP = 5
"""A sample counts for `top5` when fewer than five classes go before the true one."""
WORK = 5_000_000
"""Cells times resamples for the averages over classes; beyond it there are fewer resamples."""


class ClassificationStatistics:
    """Additive counts over batches of probabilities B×K and class indices B.

    The label is the most probable class, of equals the one with the lowest index.

    Args:
        classes: names in the order of the outputs.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = tuple(classes)
        size = len(self.classes)
        self.n = 0
        self.confusion: Counts = np.zeros((size, size), np.int64)
        self.top_hits = 0
        # Rows are bins, columns wrong and right answers.
        self.bin_counts: Counts = np.zeros((BINS, 2), np.int64)
        self.bin_confidence: Floats = np.zeros((BINS, 2), np.float64)
        self.loss_sum = 0.0
        self.loss_squares = 0.0

    def update(self, answers: Tensor, losses: Tensor, batch: Batch) -> None:
        """Count the valid rows of one batch.

        Args:
            answers: probabilities, B×K, on any device.
            losses: B.
            batch: with class indices (B, int64) as targets.

        Raises:
            NonFiniteLossError: NaN or infinity in a valid row.
            ValueError: shapes or targets that do not fit the classes.
        """
        size = len(self.classes)
        if answers.dim() != 2 or answers.shape[1] != size or batch.targets.dim() != 1:
            raise ValueError(
                f"expected answers B×{size} and class indices B, got "
                f"{tuple(answers.shape)} and {tuple(batch.targets.shape)}"
            )
        targets = batch.targets.to(answers.device)
        # `max` hands a NaN on, which `valid_rows` then refuses, and takes the first of equals.
        confidence, predicted = answers.max(dim=1)
        columns = [targets, predicted, confidence, losses.to(answers.device)]
        if size > TOP:
            columns.append(_ahead(answers, targets))
        rows = valid_rows(columns, batch)
        truth, label = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
        if len(truth) and not 0 <= truth.min() <= truth.max() < size:
            raise ValueError(
                f"expected targets 0…{size - 1}, got {truth.min()}…{truth.max()}; "
                f"padding must be marked in `valid`"
            )
        self.n += len(rows)
        np.add.at(self.confusion, (truth, label), 1)
        if size > TOP:
            self.top_hits += int((rows[:, 4] < TOP).sum())
        cell = _cells(rows[:, 2], truth == label)
        np.add.at(self.bin_counts, cell, 1)
        np.add.at(self.bin_confidence, cell, rows[:, 2])
        self.loss_sum += float(rows[:, 3].sum())
        self.loss_squares += float(np.square(rows[:, 3]).sum())

    def merge(self, other: ClassificationStatistics) -> None:
        """Add what another object counted, for example in another process."""
        if other.classes != self.classes:
            raise ValueError("expected statistics over the same classes in the same order")
        self.n += other.n
        self.confusion += other.confusion
        self.top_hits += other.top_hits
        self.bin_counts += other.bin_counts
        self.bin_confidence += other.bin_confidence
        self.loss_sum += other.loss_sum
        self.loss_squares += other.loss_squares

    def values(self) -> dict[str, float]:
        """accuracy, top5 (above five classes), macro_f1, balanced_accuracy, loss.

        Raises:
            DataError: nothing was counted.
        """
        if self.n == 0:
            raise DataError(
                "expected samples to score, got none", "is this part of the data empty?"
            )
        values = {"accuracy": int(np.trace(self.confusion)) / self.n}
        if len(self.classes) > TOP:
            values["top5"] = self.top_hits / self.n
        values |= averages(self.confusion)
        values["loss"] = self.loss_sum / self.n
        return values

    def scores(self) -> Scores:
        """The metrics of `values` with their intervals, the classes, confusion and calibration.

        `data` is left for the caller, who knows what was skipped.

        Raises:
            DataError: nothing was counted.
        """
        values = self.values()
        ends = {
            "accuracy": wilson_ends(int(np.trace(self.confusion)), self.n),
            "top5": wilson_ends(self.top_hits, self.n),
            "loss": mean_ends(values["loss"], self.loss_squares, self.n),
        }
        ends |= average_ends(self.confusion, values)
        return Scores(
            metrics=around(values, ends, self.n),
            classes=class_rows(self.classes, self.confusion),
            confusion=tuple(tuple(row) for row in self.confusion.tolist()),
            calibration=calibration(self.bin_counts, self.bin_confidence),
        )


def _ahead(answers: Tensor, targets: Tensor) -> Tensor:
    """How many classes go before the true one: more probable, or as probable with a lower index."""
    # Padding may hold any index; it is dropped later, but must not break `gather` now.
    index = targets.clamp(0, answers.shape[1] - 1).unsqueeze(1)
    own = answers.gather(1, index)
    lower = torch.arange(answers.shape[1], device=answers.device) < index
    return ((answers > own) | ((answers == own) & lower)).sum(dim=1)


def class_rows(classes: tuple[str, ...], confusion: Counts) -> tuple[ClassRow, ...]:
    """One row per class: Wilson for precision and recall, Wilson indirect for F1; 0/0 is None.

    Args:
        classes: K names.
        confusion: K×K counts; row: true class, column: answer.
    """
    hits, samples, answers = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    named = samples + answers - hits
    precision = _intervals(hits, answers, *wilson_bounds(hits, answers))
    recall = _intervals(hits, samples, *wilson_bounds(hits, samples))
    f1 = _intervals(2 * hits, samples + answers, *f1_bounds(hits, named), n=named)
    return tuple(
        ClassRow(name=name, precision=precision[i], recall=recall[i], f1=f1[i], n=int(samples[i]))
        for i, name in enumerate(classes)
    )


def _intervals(
    part: Counts, whole: Counts, low: Floats, high: Floats, n: Counts | None = None
) -> list[Interval | None]:
    """part/whole with the given ends, elementwise; None for 0/0."""
    counts = (whole if n is None else n).tolist()
    columns = zip(part.tolist(), whole.tolist(), low.tolist(), high.tolist(), counts, strict=True)
    return [
        Interval(value=top / bottom, low=below, high=above, n=count) if bottom else None
        for top, bottom, below, above, count in columns
    ]


def averages(confusion: Counts) -> dict[str, float]:
    """`macro_f1` and `balanced_accuracy`.

    Macro F1 averages over the classes that occur as truth or as answer, balanced accuracy (the mean
    recall) over those that occur as truth; scikit-learn does the same.
    """
    recall, f1 = _recall_and_f1(confusion)
    return {"macro_f1": float(np.nanmean(f1)), "balanced_accuracy": float(np.nanmean(recall))}


def average_ends(confusion: Counts, values: Mapping[str, float]) -> dict[str, Ends]:
    """Both ends of the bootstrap intervals about what `averages` found.

    To draw n samples with replacement and count their confusion is to draw the K×K counts from one
    multinomial distribution with the observed shares: the cell is all that a sample adds. So the
    counts are drawn at once; cells at zero stay there and are left out. There are 1000 draws, and
    fewer, but never below 200, where more than 5000 cells are filled.
    """
    hits, samples, answers = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall, f1 = _recall_and_f1(confusion)
    recalls, f1s = _draw_averages(confusion)
    return {
        "macro_f1": drawn_ends(
            values["macro_f1"],
            f1s,
            floor=mean_of_bounds(f1, *f1_bounds(hits, samples + answers - hits)),
            limits=(0.0, 1.0),
        ),
        "balanced_accuracy": drawn_ends(
            values["balanced_accuracy"],
            recalls,
            floor=mean_of_bounds(recall, *wilson_bounds(hits, samples)),
            limits=(0.0, 1.0),
        ),
    }


def _recall_and_f1(confusion: Counts) -> tuple[Floats, Floats]:
    """Recall and F1 of each class, NaN for 0/0."""
    hits, samples, answers = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return ratio(hits, samples), ratio(2 * hits, samples + answers)


def _draw_averages(confusion: Counts) -> tuple[Floats, Floats]:
    """Mean recall and mean F1 of resampled confusions, one entry a draw."""
    rows, columns = np.nonzero(confusion)
    counts = confusion[rows, columns]
    n = int(counts.sum())
    draws = int(np.clip(WORK // len(rows), 200, DRAWS))
    by_column = np.argsort(columns, kind="stable")
    on_diagonal = np.flatnonzero(rows == columns)
    size = len(confusion)
    random = generator("confusion")
    recalls, f1s = [], []
    chunk = max(1, CELLS // max(len(rows), size))
    for first in range(0, draws, chunk):
        drawn = random.multinomial(n, counts / n, size=min(chunk, draws - first))
        hits = np.zeros((len(drawn), size), np.int64)
        hits[:, rows[on_diagonal]] = drawn[:, on_diagonal]
        samples = _sum_runs(drawn, rows, size)
        answers = _sum_runs(drawn[:, by_column], columns[by_column], size)
        recalls.append(np.nanmean(ratio(hits, samples), axis=1))
        f1s.append(np.nanmean(ratio(2 * hits, samples + answers), axis=1))
    return np.concatenate(recalls), np.concatenate(f1s)


def _sum_runs(values: Counts, keys: Counts, size: int) -> Counts:
    """Sums of the columns of `values` that share a key; `keys` ascend. d×c → d×size."""
    present, starts = np.unique(keys, return_index=True)
    result = np.zeros((len(values), size), np.int64)
    result[:, present] = np.add.reduceat(values, starts, axis=1)
    return result


def _cells(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """Bin of each confidence, and 1 where the answer is right: bin m holds ((m−1)/15, m/15]."""
    share = np.ceil(confidence * BINS).astype(np.int64) - 1
    return np.clip(share, 0, BINS - 1), right.astype(np.int64)


def bin_sums(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Counts, Floats]:
    """Number and summed confidence of wrong and right answers in each bin, 15×2 each.

    Args:
        confidence: probabilities of the answers, N.
        right: which of them are right, N.
    """
    cell = _cells(confidence, right)
    counts, sums = np.zeros((BINS, 2), np.int64), np.zeros((BINS, 2), np.float64)
    np.add.at(counts, cell, 1)
    np.add.at(sums, cell, confidence)
    return counts, sums


def calibration(counts: Counts, confidence: Floats) -> dict[str, Any]:
    """Expected calibration error Σ_b n_b/n · |accuracy_b − confidence_b| (Guo et al. 2017).

    The interval is drawn like that of `averages`, over the (bin, right or wrong) cells. Absolute
    values make the ECE of a finite sample too large, and that of a resample larger still. So the
    upper end is the 97.5 % point of the draws as they are, the lower end mirrors it about the
    estimate, and it is 0 when a perfectly calibrated network would reach an ECE this large by
    chance (consistency resampling: Bröcker and Smith 2007).

    Args:
        counts: wrong and right answers per bin, 15×2.
        confidence: sums of their confidences, 15×2.

    Returns:
        `ece` (value, low, high, n) and `bins`: low, high, n, hits, and the mean confidence and the
        accuracy (None in an empty bin).
    """
    n = int(counts.sum())
    total, sums, hits = counts.sum(axis=1), confidence.sum(axis=1), counts[:, 1]
    value = float(np.abs(hits - sums).sum()) / n
    # What one sample of a cell adds to hits − confidence, on average.
    gaps = np.array([0.0, 1.0]) - np.nan_to_num(ratio(confidence, counts))
    random = generator("calibration")
    drawn = random.multinomial(n, counts.ravel() / n, size=DRAWS).reshape(DRAWS, -1, 2)
    errors = np.abs((drawn * gaps).sum(axis=2)).sum(axis=1) / n
    chances = np.clip(np.nan_to_num(ratio(sums, total)), 0, 1)
    perfect = np.abs(random.binomial(total, chances, size=(DRAWS, BINS)) - sums).sum(axis=1) / n
    high = max(float(np.percentile(errors, 97.5)), value)
    low = 0.0 if value <= float(np.percentile(perfect, 97.5)) else max(2 * value - high, 0.0)
    bins = [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "n": int(total[index]),
            "hits": int(hits[index]),
            "confidence": float(sums[index] / total[index]) if total[index] else None,
            "accuracy": float(hits[index] / total[index]) if total[index] else None,
        }
        for index in range(BINS)
    ]
    return {"ece": {"value": value, "low": low, "high": min(high, 1.0), "n": n}, "bins": bins}
