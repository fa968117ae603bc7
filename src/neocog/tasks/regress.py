"""One or more numbers a sample. Floor 2, room tasks; imports floors 0 and 1 and torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from neocog.errors import ConfigError, DataError, near
from neocog.metrics import RegressionStatistics, refuse_nonfinite
from neocog.records import TaskSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.config import LossRecipe
    from neocog.records import Batch

__all__ = ["Regress"]

_KINDS = ("squared", "absolute", "huber")


class Regress:
    """Numbers, learnt in units of standard deviations and answered in their own.

    The network's outputs z stand for z · std + mean. The loss compares z with (t − mean) / std, so
    that learning rates mean the same for prices and for angles; with several columns it is their
    mean. d being the difference:

    - `squared`: d²
    - `absolute`: |d|
    - `huber`: d²/2 where |d| ≤ δ, else δ·(|d| − δ/2) (Huber 1964)

    Args:
        columns: names of the numbers in the order of the outputs.
        mean: of each column over the training part.
        std: of each column over the training part.
        kind: the loss.
        delta: δ of Huber, in standard deviations.
        values: where the targets are class indices, the number that each stands for (one column).

    Raises:
        ConfigError: arguments that do not fit each other.
    """

    SETTINGS = ("kind", "delta")

    @classmethod
    def for_data(
        cls, classes: Sequence[str], targets: NDArray[Any], kind: str, loss: LossRecipe
    ) -> Regress:
        """The task for training samples of these numbers, N×K, or class indices N of classes that
        are called like numbers.

        Raises:
            ConfigError: a class that is called otherwise.
            DataError: a number that is not finite.
        """
        values = _numbers(classes) if kind == "class" else []
        return cls(
            columns=["value"] if values else classes,
            kind=loss.kind,
            delta=loss.delta,
            values=values,
            **_units(np.asarray(values)[targets][:, None] if values else targets),
        )

    def __init__(
        self,
        *,
        columns: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        kind: Literal["squared", "absolute", "huber"] = "squared",
        delta: float = 1.0,
        values: Sequence[float] = (),
    ) -> None:
        if not columns or len(set(columns)) != len(columns):
            raise ConfigError(f"expected columns with different names, got {list(columns)}")
        numbers = [*mean, *std, *values]
        if not len(columns) == len(mean) == len(std) or not all(map(math.isfinite, numbers)):
            raise ConfigError(f"expected a finite mean and std for each of {list(columns)}")
        if min(std) <= 0 or delta <= 0:
            raise ConfigError(f"expected std and delta above 0, got {list(std)} and {delta}")
        if kind not in _KINDS:
            raise ConfigError(f"there is no loss {kind!r} for numbers", near(kind, _KINDS))
        if values and len(columns) != 1:
            raise ConfigError(f"classes stand for one number each, got columns {list(columns)}")
        self.classes = tuple(columns)
        self.kind = kind
        self.delta = float(delta)
        self.values = tuple(float(one) for one in values)
        self._units = torch.tensor([list(mean), list(std)], dtype=torch.float64)
        self.spec = TaskSpec(
            name="regress",
            args={
                "columns": list(columns),
                "mean": [float(one) for one in mean],
                "std": [float(one) for one in std],
                "kind": kind,
                "delta": self.delta,
                "values": list(self.values),
            },
        )

    @property
    def outputs(self) -> int:
        """One output a column."""
        return len(self.classes)

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """One row of outputs for each sample, whatever its size."""
        return (self.outputs,)

    def loss(self, outputs: Tensor, batch: Batch, *, training: bool = False) -> Tensor:
        """Loss of each sample, B, in standard deviations of the targets (squared: their squares).

        Args:
            outputs: B×K.
            batch: numbers B×K; or, for classes that stand for numbers, indices B or shares of the
                classes B×C.
            training: makes no difference here.
        """
        z = outputs if outputs.dtype == torch.float64 else outputs.float()
        mean, std = self._like(z)
        goal = (self._numbers(batch, z) - mean) / std
        if self.kind == "squared":
            each = F.mse_loss(z, goal, reduction="none")
        elif self.kind == "absolute":
            each = F.l1_loss(z, goal, reduction="none")
        else:
            each = F.huber_loss(z, goal, reduction="none", delta=self.delta)
        return each.mean(dim=1)

    def _like(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std, 1×K, where z is and as z is; nothing is kept there (see `Classify`)."""
        units = self._units.to(z.dtype).to(z.device, non_blocking=True)
        return units[:1], units[1:]

    def _numbers(self, batch: Batch, z: Tensor) -> Tensor:
        """The targets as numbers, B×K."""
        if not self.values:
            return batch.targets.to(z.dtype)
        values = torch.tensor(self.values, dtype=z.dtype).to(z.device, non_blocking=True)
        if batch.targets.dim() == 2:
            return (batch.targets.to(z.dtype) @ values)[:, None]
        index = torch.where(batch.valid, batch.targets, torch.zeros_like(batch.targets))
        return values[index][:, None]

    def decode(self, outputs: Tensor) -> Tensor:
        """Outputs B×K → numbers in their own units, B×K."""
        z = outputs if outputs.dtype == torch.float64 else outputs.float()
        mean, std = self._like(z)
        return z * std + mean

    def statistics(self) -> RegressionStatistics:
        """A fresh, empty count."""
        return RegressionStatistics(self.classes, self.values)

    def answer(self, decoded: Tensor) -> list[dict[str, Any]]:
        """Numbers B×K → `value`, or `values` by column; `label` says the same for people.

        Raises:
            NonFiniteLossError: a number is NaN or infinite.
        """
        answers: list[dict[str, Any]] = []
        for row in refuse_nonfinite(decoded).tolist():
            single = len(row) == 1
            named = dict(zip(self.classes, row, strict=True))
            given = {"value": row[0]} if single else {"values": named}
            answers.append({"label": self._words(row), **given, "probability": None, "top": []})
        return answers

    def truth(self, targets: Tensor) -> list[str]:
        """Numbers B×K, or class indices B that stand for numbers, in the words of `answer`."""
        if targets.dim() == 1:
            return [self._words([self.values[index]]) for index in targets.tolist()]
        return [self._words(row) for row in targets.tolist()]

    def _words(self, row: list[float]) -> str:
        """`3.5`, or `width=3.5, height=2` where there are several columns."""
        if len(row) == 1:
            return f"{row[0]:.6g}"
        return ", ".join(f"{name}={one:.6g}" for name, one in zip(self.classes, row, strict=True))


def _numbers(names: Sequence[str]) -> list[float]:
    """Class names as numbers.

    Raises:
        ConfigError: a name is no number.
    """
    values = []
    for name in names:
        try:
            value = float(name)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(
                f"task regress needs numbers, but class {name!r} is none",
                "--task classify fits, and so does --task auto",
            )
        values.append(value)
    return values


def _units(targets: NDArray[Any]) -> dict[str, list[float]]:
    """Mean and standard deviation of each column; a column that does not vary has 1 for the latter.

    Raises:
        DataError: a number is NaN or infinite.
    """
    numbers = targets.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("expected finite numbers as targets, got NaN or infinity")
    std = numbers.std(axis=0)
    std[np.ptp(numbers, axis=0) == 0] = 1.0
    return {"mean": numbers.mean(axis=0).tolist(), "std": std.tolist()}
