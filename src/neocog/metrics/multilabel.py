"""Counting answers with any number of labels a sample. Floor 1, room metrics.

Imports floor 0 and NumPy. Average precision depends on the order of all samples, so the
statistics keep every answer: 5 bytes for each sample and label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.errors import DataError
from neocog.metrics.intervals import (
    DRAWS,
    f1_bounds,
    from_draws,
    generator,
    mean_interval,
    mean_of_bounds,
    resample_weights,
    resampled_sums,
    wilson,
    wilson_bounds,
)
from neocog.metrics.rows import valid_rows
from neocog.records import ClassRow, Interval, Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.records import Batch

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
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

    def scores(self) -> Scores:
        """accuracy, hamming_loss, micro_f1, macro_f1, mean_average_precision, loss; and the rows.

        `accuracy` asks for all labels of a sample to be right (subset accuracy). What is 0/0 is
        left out: F1 without any label in truth and answers, average precision without positives.
        A K×K confusion has no meaning where labels occur together, so `confusion` stays empty.

        Raises:
            DataError: nothing was counted.
        """
        n = sum(map(len, self.losses))
        if n == 0:
            raise DataError(
                "expected samples to score, got none", "is this part of the data empty?"
            )
        answers, truth = np.concatenate(self.answers), np.concatenate(self.targets)
        losses = np.concatenate(self.losses)
        named = answers > THRESHOLD
        metrics = {"accuracy": wilson(int((named == truth).all(axis=1).sum()), n)}
        metrics |= _counted(truth, named)
        mean_precision = _mean_average_precision(answers, truth)
        if mean_precision is not None:
            metrics["mean_average_precision"] = mean_precision
        metrics["loss"] = mean_interval(float(losses.sum()), float(np.square(losses).sum()), n)
        return Scores(metrics=metrics, classes=_label_rows(self.classes, truth, named))


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


def _counted(truth: Flags, named: Flags) -> dict[str, Interval]:
    """Scores that follow from sums over samples; bootstrap over samples.

    Labels of one sample hang together, so samples are drawn, not labels. Where all is right and a
    bootstrap has no width, the interval is that of one observation a sample.
    """
    n, size = truth.shape
    hits, either = truth & named, truth | named
    both = np.concatenate([hits, either], axis=1).astype(np.float64)
    wrong = (truth != named).mean(axis=1, keepdims=True)
    drawn = resampled_sums(np.concatenate([both, wrong, np.ones((n, 1))], axis=1), "labels")
    sums = both.sum(axis=0)
    hamming = float(wrong.mean())
    metrics = {
        "hamming_loss": from_draws(
            hamming,
            drawn[:, -2] / drawn[:, -1],
            n,
            floor=_narrowest(hamming, n),
            limits=UNIT,
        )
    }
    tp, union = sums[:size], sums[size:]
    if union.sum() == 0:
        return metrics
    drawn_tp, drawn_union = drawn[:, :size], drawn[:, size:-2]
    active = int(either.any(axis=1).sum())
    micro = float(_f1(tp.sum(), union.sum()))
    metrics["micro_f1"] = from_draws(
        micro,
        _f1(drawn_tp.sum(axis=1), drawn_union.sum(axis=1)),
        n,
        floor=_narrowest(micro, active),
        limits=UNIT,
    )
    single = _f1(tp, union)
    metrics["macro_f1"] = from_draws(
        float(np.nanmean(single)),
        _known_mean(_f1(drawn_tp, drawn_union)),
        n,
        floor=mean_of_bounds(single, *f1_bounds(tp, union)),
        limits=UNIT,
    )
    return metrics


def _narrowest(value: float, n: int) -> tuple[float, float] | None:
    """For a score of exactly 0 or 1, which no resample can leave: Wilson's interval."""
    if 0 < value < 1:
        return None
    low, high = wilson_bounds(value * n, n)
    return float(low), float(high)


def _f1(tp: Floats | np.float64, union: Floats | np.float64) -> Floats:
    """2·tp / (tp + union), since tp + union = 2·tp + fp + fn; NaN for 0/0."""
    bottom = np.asarray(tp + union, np.float64)
    result: Floats = np.full_like(bottom, np.nan)
    np.divide(2.0 * tp, bottom, out=result, where=bottom != 0)
    return result


def _known_mean(values: Floats) -> Floats:
    """Mean over the last axis of the entries that are not NaN; NaN where there is none."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    result: Floats = np.full(count.shape, np.nan)
    np.divide(total, count, out=result, where=count != 0)
    return result


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


def _mean_average_precision(scores: NDArray[np.float32], truth: Flags) -> Interval | None:
    """Mean over the labels that have positives; None where none has.

    Bootstrap over samples; fewer than 1000 resamples, but never below 100, once samples × labels ×
    resamples pass 10⁸.
    """
    labels = np.flatnonzero(truth.any(axis=0))
    if labels.size == 0:
        return None
    n = len(scores)
    single = [float(average_precision(scores[:, k], truth[:, k])[0]) for k in labels]
    value = float(np.mean(single))
    draws = int(np.clip(WORK // (n * len(labels)), 100, DRAWS))
    means = []
    for weights in resample_weights(n, draws, generator("average precision")):
        upright = np.ascontiguousarray(weights.T, dtype=np.int32)
        drawn = [average_precision(scores[:, k], truth[:, k], upright) for k in labels]
        means.append(_known_mean(np.stack(drawn, axis=-1)))
    floor = _narrowest(value, int(truth[:, labels].any(axis=1).sum()))
    return from_draws(value, np.concatenate(means), n, floor=floor, limits=UNIT)
