"""Counting answers that are numbers. Floor 1, room metrics.

Imports floor 0 and NumPy. The statistics keep every answer, so that intervals can be resampled:
16 bytes for each sample and column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.errors import DataError
from neocog.metrics.intervals import from_draws, mean_interval, resampled_sums
from neocog.metrics.rows import valid_rows
from neocog.records import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.records import Batch, Interval

    Floats = NDArray[np.float64]

__all__ = ["RegressionStatistics"]


class RegressionStatistics:
    """Additive statistics over batches of numbers B×K, answers and targets in the same units.

    Args:
        columns: names of the numbers in the order of the outputs.
        values: where the targets are class indices, the number that each stands for.
    """

    def __init__(self, columns: tuple[str, ...], values: tuple[float, ...] = ()) -> None:
        self.columns = tuple(columns)
        self.values: Floats = np.asarray(values, np.float64)
        self.answers: list[Floats] = []
        self.targets: list[Floats] = []
        self.losses: list[Floats] = []

    def update(self, answers: Tensor, losses: Tensor, batch: Batch) -> None:
        """Keep the valid rows of one batch.

        Args:
            answers: B×K, on any device, in the units of the targets.
            losses: B.
            batch: with numbers B×K, or class indices B where `values` were given.

        Raises:
            NonFiniteLossError: NaN or infinity in a valid row.
            ValueError: shapes that do not fit the columns.
        """
        size = len(self.columns)
        wanted = () if self.values.size else (size,)
        if answers.shape[1:] != (size,) or batch.targets.shape[1:] != wanted:
            raise ValueError(
                f"expected answers B×{size} and targets {'B' if not wanted else f'B×{size}'}, got "
                f"{tuple(answers.shape)} and {tuple(batch.targets.shape)}"
            )
        device = answers.device
        rows = valid_rows([answers, batch.targets.to(device), losses.to(device)], batch)
        targets = rows[:, size:-1]
        if self.values.size:
            targets = self.values[targets.astype(np.int64)]
        self.answers.append(rows[:, :size].copy())
        self.targets.append(targets.copy())
        self.losses.append(rows[:, -1].copy())

    def merge(self, other: RegressionStatistics) -> None:
        """Add what another object kept."""
        if other.columns != self.columns:
            raise ValueError("expected statistics over the same columns in the same order")
        self.answers += other.answers
        self.targets += other.targets
        self.losses += other.losses

    def pairs(self) -> dict[str, tuple[list[float], list[float]]]:
        """Truths and answers of every sample, by column, for plots."""
        targets, answers = np.concatenate(self.targets), np.concatenate(self.answers)
        return {
            name: (targets[:, place].tolist(), answers[:, place].tolist())
            for place, name in enumerate(self.columns)
        }

    def scores(self) -> Scores:
        """mae, rmse, r2, loss; with several columns also `mae:COLUMN` and so on for each.

        With several columns `mae`, `rmse` and `r2` are the plain averages over the columns. r2 = 1
        − Σ(y − a)²/Σ(y − ȳ)² is left out where the targets do not vary. `loss` is in the units in
        which the task trains, which for `regress` are standard deviations of the target.

        Raises:
            DataError: nothing was counted.
        """
        n = sum(map(len, self.losses))
        if n == 0:
            raise DataError(
                "expected samples to score, got none", "is this part of the data empty?"
            )
        losses = np.concatenate(self.losses)
        metrics = _errors(self.columns, np.concatenate(self.answers), np.concatenate(self.targets))
        metrics["loss"] = mean_interval(float(losses.sum()), float(np.square(losses).sum()), n)
        return Scores(metrics=metrics)


def _errors(columns: tuple[str, ...], answers: Floats, targets: Floats) -> dict[str, Interval]:
    """mae, rmse and r2 with intervals by bootstrap over samples, both of n×K."""
    n, size = targets.shape
    error = answers - targets
    # Centred, so that the sum of squares about the mean does not cancel (years near 2000).
    centred = targets - targets.mean(axis=0)
    parts = [np.abs(error), error**2, centred, centred**2, np.ones((n, 1))]
    moments = np.concatenate(parts, axis=1)
    single = _from_sums(moments.sum(axis=0, keepdims=True), size)
    drawn = _from_sums(resampled_sums(moments, "numbers"), size)
    # Rounding leaves some 1e-32 of a constant; only the values themselves tell that it is one.
    varies = np.ptp(targets, axis=0) > 0
    metrics: dict[str, Interval] = {}
    for index, name in enumerate(("mae", "rmse", "r2")):
        limits = (-np.inf, 1.0) if name == "r2" else (0.0, np.inf)
        kept = np.flatnonzero(varies) if name == "r2" else np.arange(size)
        if kept.size == 0:
            continue
        mine, theirs = single[index][0, kept], drawn[index][:, kept]
        metrics[name] = from_draws(float(mine.mean()), theirs.mean(axis=1), n, limits=limits)
        if size > 1:
            for place, column in enumerate(kept):
                metrics[f"{name}:{columns[column]}"] = from_draws(
                    float(mine[place]), theirs[:, place], n, limits=limits
                )
    return metrics


def _from_sums(sums: Floats, size: int) -> tuple[Floats, Floats, Floats]:
    """mae, rmse and r2 from d×(4K + 1) sums of |e|, e², y, y² and 1; each d×K."""
    n = sums[:, -1:]
    absolute, squared, first, second = (sums[:, i * size : (i + 1) * size] for i in range(4))
    about_mean = second - first**2 / n
    left: Floats = np.full(about_mean.shape, np.nan)
    # A resample may hold one value only; what it says about r2 is 0/0.
    tiny = about_mean <= 1e-12 * second
    np.divide(squared, about_mean, out=left, where=~tiny)
    return absolute / n, np.sqrt(squared / n), 1.0 - left
