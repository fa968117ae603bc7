"""Counting answers with any number of labels a sample. Floor 1, room metrics.

Imports floor 0 and NumPy. Average precision depends on the order of all samples, so the
statistics keep every answer: 5 bytes for each sample and label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.errors import DataError
from neocog.metrics.intervals import (
    DRAWS,
    around,
    drawn_ends,
    f1_bounds,
    generator,
    mean_ends,
    mean_of_bounds,
    resample_weights,
    resampled_sums,
    wilson,
    wilson_ends,
)
from neocog.metrics.rows import valid_rows
from neocog.metrics.shares import known_mean, ratio
from neocog.records import ClassRow, Interval, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.records import Batch

    Ends = tuple[float, float]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

__all__ = ["THRESHOLD", "MultilabelStatistics", "average_precision"]

THRESHOLD = 0.5
"""A label is answered when its probability lies above."""
WORK = 100_000_000
"""Samples × labels × resamples for the mean average precision; beyond it fewer resamples."""
UNIT = (0.0, 1.0)


class MultilabelStatistics:
    """Additive statistics over batches of probabilities B×K and 0/1 targets B×K.

    Args:
        classes: label names in the order of the outputs.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = tuple(classes)
        self.answers: list[NDArray[np.float32]] = []
        self.targets: list[Flags] = []
        self.losses: list[Floats] = []

    def update(self, answers: Tensor, losses: Tensor, batch: Batch) -> None:
        """Keep the valid rows of one batch.

        Args:
            answers: probabilities, B×K, on any device.
            losses: B.
            batch: with 0/1 targets, B×K float32.

        Raises:
            NonFiniteLossError: NaN or infinity in a valid row.
            ValueError: shapes that do not fit the labels.
        """
        size = len(self.classes)
        if answers.shape[1:] != (size,) or batch.targets.shape[1:] != (size,):
            raise ValueError(
                f"expected answers and targets B×{size}, got "
                f"{tuple(answers.shape)} and {tuple(batch.targets.shape)}"
            )
        device = answers.device
        rows = valid_rows([answers, batch.targets.to(device), losses.to(device)], batch)
        self.answers.append(rows[:, :size].astype(np.float32))
        self.targets.append(rows[:, size : 2 * size] > 0.5)
        self.losses.append(rows[:, -1].copy())

    def merge(self, other: MultilabelStatistics) -> None:
        """Add what another object kept."""
        if other.classes != self.classes:
            raise ValueError("expected statistics over the same labels in the same order")
        self.answers += other.answers
        self.targets += other.targets
        self.losses += other.losses

    def values(self) -> dict[str, float]:
        """accuracy, hamming_loss, micro_f1, macro_f1, mean_average_precision, loss.

        `accuracy` asks for all labels of a sample to be right (subset accuracy). What is 0/0 is
        left out: F1 without any label in truth and answers, average precision without positives.

        Raises:
            DataError: nothing was counted.
        """
        return _values(*self._rows())

    def scores(self) -> Scores:
        """The metrics of `values` with their intervals, and the labels.

        A K×K confusion has no meaning where labels occur together, so `confusion` stays empty.

        Raises:
            DataError: nothing was counted.
        """
        answers, truth, losses = self._rows()
        values, n = _values(answers, truth, losses), len(losses)
        named = answers > THRESHOLD
        ends = {
            "accuracy": wilson_ends(_all_right(truth, named), n),
            "loss": mean_ends(values["loss"], float(np.square(losses).sum()), n),
        }
        ends |= _count_ends(truth, named, values)
        name = "mean_average_precision"
        if name in values:
            ends[name] = _precision_ends(answers, truth, values[name])
        return Scores(
            metrics=around(values, ends, n), classes=_label_rows(self.classes, truth, named)
        )

    def _rows(self) -> tuple[NDArray[np.float32], Flags, Floats]:
        """Answers, truth and losses of every sample."""
        if not sum(map(len, self.losses)):
            raise DataError(
                "expected samples to score, got none", "is this part of the data empty?"
            )
        answers, targets = np.concatenate(self.answers), np.concatenate(self.targets)
        return answers, targets, np.concatenate(self.losses)


def _values(answers: NDArray[np.float32], truth: Flags, losses: Floats) -> dict[str, float]:
    """Every metric, what is 0/0 left out."""
    named = answers > THRESHOLD
    values = {
        "accuracy": _all_right(truth, named) / len(truth),
        "hamming_loss": float((truth != named).mean()),
    }
    tp, union = (both.sum(axis=0) for both in (truth & named, truth | named))
    if union.any():
        values["micro_f1"] = float(_f1(tp.sum(), union.sum()))
        values["macro_f1"] = float(known_mean(_f1(tp, union)))
    labels = np.flatnonzero(truth.any(axis=0))
    if labels.size:
        single = [float(average_precision(answers[:, k], truth[:, k])[0]) for k in labels]
        values["mean_average_precision"] = float(np.mean(single))
    values["loss"] = float(losses.mean())
    return values


def _all_right(truth: Flags, named: Flags) -> int:
    """Samples with every label right."""
    return int((named == truth).all(axis=1).sum())


def _share(hits: int, n: int) -> Interval | None:
    """Wilson's interval, or None for 0/0."""
    return wilson(hits, n) if n else None


def _label_rows(classes: tuple[str, ...], truth: Flags, named: Flags) -> tuple[ClassRow, ...]:
    """One row per label, as for classes: Wilson, and Wilson indirect for F1; 0/0 is None."""
    rows = []
    for index, name in enumerate(classes):
        hits = int((truth[:, index] & named[:, index]).sum())
        samples, answers = int(truth[:, index].sum()), int(named[:, index].sum())
        either = samples + answers - hits
        f1 = None
        if either:
            low, high = f1_bounds(hits, either)
            value = 2 * hits / (samples + answers)
            f1 = Interval(value=value, low=float(low), high=float(high), n=either)
        rows.append(
            ClassRow(
                name=name,
                precision=_share(hits, answers),
                recall=_share(hits, samples),
                f1=f1,
                n=samples,
            )
        )
    return tuple(rows)


def _count_ends(truth: Flags, named: Flags, values: Mapping[str, float]) -> dict[str, Ends]:
    """Both ends for the scores that follow from sums over samples; bootstrap over samples.

    Labels of one sample hang together, so samples are drawn, not labels. Where all is right and a
    bootstrap has no width, the interval is that of one observation a sample.
    """
    n, size = truth.shape
    either = truth | named
    both = np.concatenate([truth & named, either], axis=1).astype(np.float64)
    wrong = (truth != named).mean(axis=1, keepdims=True)
    drawn = resampled_sums(np.concatenate([both, wrong, np.ones((n, 1))], axis=1), "labels")
    draws = {"hamming_loss": drawn[:, -2] / drawn[:, -1]}
    floors = {"hamming_loss": _narrowest(values["hamming_loss"], n)}
    if "macro_f1" in values:
        drawn_tp, drawn_union = drawn[:, :size], drawn[:, size:-2]
        draws["micro_f1"] = _f1(drawn_tp.sum(axis=1), drawn_union.sum(axis=1))
        draws["macro_f1"] = known_mean(_f1(drawn_tp, drawn_union))
        floors["micro_f1"] = _narrowest(values["micro_f1"], int(either.any(axis=1).sum()))
        tp, union = both[:, :size].sum(axis=0), both[:, size:].sum(axis=0)
        floors["macro_f1"] = mean_of_bounds(_f1(tp, union), *f1_bounds(tp, union))
    return {
        name: drawn_ends(values[name], draws[name], floor=floors[name], limits=UNIT)
        for name in draws
    }


def _narrowest(value: float, n: int) -> Ends | None:
    """For a score of exactly 0 or 1, which no resample can leave: Wilson's interval."""
    return None if 0 < value < 1 else wilson_ends(value * n, n)


def _f1(tp: NDArray[Any] | np.generic, union: NDArray[Any] | np.generic) -> Floats:
    """2·tp / (tp + union), since tp + union = 2·tp + fp + fn; NaN for 0/0."""
    hits = np.asarray(tp, np.float64)
    return ratio(2 * hits, hits + np.asarray(union, np.float64))


def average_precision(
    scores: NDArray[np.float32], truth: Flags, weights: NDArray[np.int32] | None = None
) -> Floats:
    """Average precision Σ_t (R_t − R_{t−1})·P_t over the distinct thresholds t.

    Not interpolated; equal scores enter together, as in scikit-learn. Only thresholds at which a
    positive enters add anything, so sums are taken over the runs of samples between those.

    Args:
        scores: n numbers; more is more likely.
        truth: n flags.
        weights: how often each sample counts, n×d; None: each once. Samples go first: whole rows
            are gathered and added, which is many times faster than columns.

    Returns:
        One value for each column of weights (1 without weights); NaN where there is no positive.
    """
    counts = np.ones((len(scores), 1), np.int32) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    positive = np.flatnonzero(truth[order])
    if positive.size == 0:
        return np.full(counts.shape[1], np.nan)
    ordered = scores[order]
    block = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))
    blocks, firsts = np.unique(block[positive], return_index=True)
    ends = np.searchsorted(block, blocks, side="right")
    starts = np.append(0, ends[:-1])
    entering = np.add.reduceat(counts[order[positive]], firsts, axis=0)
    seen = np.add.reduceat(counts[order[: ends[-1]]], starts, axis=0).cumsum(axis=0)
    precision = entering.cumsum(axis=0) / np.maximum(seen, 1)
    total = entering.sum(axis=0)
    result: Floats = np.full(total.shape, np.nan)
    np.divide((entering * precision).sum(axis=0), total, out=result, where=total != 0)
    return result


def _precision_ends(scores: NDArray[np.float32], truth: Flags, value: float) -> Ends:
    """Both ends for the mean average precision; bootstrap over samples.

    There are fewer than 1000 resamples, but never below 100, once samples × labels × resamples pass
    10⁸.
    """
    labels = np.flatnonzero(truth.any(axis=0))
    n = len(scores)
    draws = int(np.clip(WORK // (n * len(labels)), 100, DRAWS))
    means = []
    for weights in resample_weights(n, draws, generator("average precision")):
        upright = np.ascontiguousarray(weights.T, dtype=np.int32)
        drawn = [average_precision(scores[:, k], truth[:, k], upright) for k in labels]
        means.append(known_mean(np.stack(drawn, axis=-1)))
    floor = _narrowest(value, int(truth[:, labels].any(axis=1).sum()))
    return drawn_ends(value, np.concatenate(means), floor=floor, limits=UNIT)
