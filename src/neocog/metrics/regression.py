"""Counting answers that are numbers. Floor 1, room metrics.

Imports floor 0 and NumPy. The statistics keep every answer, so that intervals can be resampled:
16 bytes for each sample and column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.errors import DataError
from neocog.metrics.intervals import around, drawn_ends, mean_ends, resampled_sums
from neocog.metrics.rows import valid_rows
from neocog.records import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.records import Batch

    Floats = NDArray[np.float64]

__all__ = ["RegressionStatistics"]


class RegressionStatistics:
    """Additive statistics over batches of numbers B×K, answers and targets in the same units.

    Args:
        columns: names of the numbers in the order of the outputs.
        meanings: where the targets are class indices, the number that each stands for.
    """

    def __init__(self, columns: tuple[str, ...], meanings: tuple[float, ...] = ()) -> None:
        self.columns = tuple(columns)
        self.meanings: Floats = np.asarray(meanings, np.float64)
        self.answers: list[Floats] = []
        self.targets: list[Floats] = []
        self.losses: list[Floats] = []

    def update(self, answers: Tensor, losses: Tensor, batch: Batch) -> None:
        """Keep the valid rows of one batch.

        Args:
            answers: B×K, on any device, in the units of the targets.
            losses: B.
            batch: with numbers B×K, or class indices B where `meanings` were given.

        Raises:
            NonFiniteLossError: NaN or infinity in a valid row.
            ValueError: shapes that do not fit the columns.
        """
        size = len(self.columns)
        wanted = () if self.meanings.size else (size,)
        if answers.shape[1:] != (size,) or batch.targets.shape[1:] != wanted:
            raise ValueError(
                f"expected answers B×{size} and targets {'B' if not wanted else f'B×{size}'}, got "
                f"{tuple(answers.shape)} and {tuple(batch.targets.shape)}"
            )
        device = answers.device
        rows = valid_rows([answers, batch.targets.to(device), losses.to(device)], batch)
        targets = rows[:, size:-1]
        if self.meanings.size:
            targets = self.meanings[targets.astype(np.int64)]
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

    def values(self) -> dict[str, float]:
        """mae, rmse, r2, loss; with several columns r2, `mae:COLUMN` and so on for each, loss.

        r2 = 1 − Σ(y − a)²/Σ(y − ȳ)² is left out where the targets do not vary. With several columns
        it is the mean over those that do. An average of errors in metres and in years would mean
        nothing, so `mae` and `rmse` are then told by column only. `loss` is in the units in which
        the task trains, which for `regress` are standard deviations of the target.

        Raises:
            DataError: nothing was counted.
        """
        answers, targets, losses = self._rows()
        return self._values(_moments(answers, targets), targets, losses)

    def scores(self) -> Scores:
        """The metrics of `values` with their intervals, by bootstrap over samples.

        Raises:
            DataError: nothing was counted.
        """
        answers, targets, losses = self._rows()
        moments, n = _moments(answers, targets), len(losses)
        values = self._values(moments, targets, losses)
        draws = _errors(self.columns, resampled_sums(moments, "numbers"), _varies(targets))
        ends = {"loss": mean_ends(values["loss"], float(np.square(losses).sum()), n)}
        for name, drawn in draws.items():
            limits = (-np.inf, 1.0) if name.partition(":")[0] == "r2" else (0.0, np.inf)
            ends[name] = drawn_ends(values[name], drawn, limits=limits)
        return Scores(metrics=around(values, ends, n))

    def _rows(self) -> tuple[Floats, Floats, Floats]:
        """Answers, targets and losses of every sample."""
        if not sum(map(len, self.losses)):
            raise DataError(
                "expected samples to score, got none", "is this part of the data empty?"
            )
        answers, targets = np.concatenate(self.answers), np.concatenate(self.targets)
        return answers, targets, np.concatenate(self.losses)

    def _values(self, moments: Floats, targets: Floats, losses: Floats) -> dict[str, float]:
        sums = moments.sum(axis=0, keepdims=True)
        errors = _errors(self.columns, sums, _varies(targets))
        values = {name: float(one[0]) for name, one in errors.items()}
        return values | {"loss": float(losses.mean())}


def _moments(answers: Floats, targets: Floats) -> Floats:
    """What has to be summed over samples: |e|, e², y, y² and 1, n×(4K + 1)."""
    error = answers - targets
    # Centred, so that the sum of squares about the mean does not cancel (years near 2000).
    centred = targets - targets.mean(axis=0)
    ones = np.ones((len(targets), 1))
    return np.concatenate([np.abs(error), error**2, centred, centred**2, ones], axis=1)


def _varies(targets: Floats) -> NDArray[np.bool_]:
    """Which columns vary. Their sums would not tell: rounding leaves some 1e-32 of a constant."""
    varies: NDArray[np.bool_] = np.ptp(targets, axis=0) > 0
    return varies


def _errors(columns: tuple[str, ...], sums: Floats, varies: NDArray[np.bool_]) -> dict[str, Floats]:
    """Every metric but the loss by name, from d×(4K + 1) sums of the moments; d numbers each."""
    mae, rmse, r2 = _from_sums(sums, len(columns))
    kept = np.flatnonzero(varies)
    if len(columns) == 1:
        found = {"mae": mae[:, 0], "rmse": rmse[:, 0]}
        return found | {"r2": r2[:, 0]} if kept.size else found
    found = {"r2": r2[:, kept].mean(axis=1)} if kept.size else {}
    found |= {f"mae:{name}": mae[:, place] for place, name in enumerate(columns)}
    found |= {f"rmse:{name}": rmse[:, place] for place, name in enumerate(columns)}
    return found | {f"r2:{columns[place]}": r2[:, place] for place in kept}


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
