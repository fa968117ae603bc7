"""What a report is about, and what its scores are called. Room report; floor 4."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog.geometry import noun
from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neocog.planning.nouns import Network
    from neocog.records import DataCount, Event, Fault, Scores

PARTS = {"test": "test", "val": "held-out"}
"""How the pictures of a part are called."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""How the parts themselves are called."""
METRICS = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_average_precision": "mean average precision",
    "subset_accuracy": "all labels right",
    "hamming_loss": "wrong labels (Hamming)",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "loss": "loss",
}
_SHARES = {"accuracy", "top5", "f1", "precision", "recall", "hamming"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One picture that was answered wrongly."""

    picture: NDArray[np.uint8]
    """H×W×C, C 1 or 3; what is shown of a signal or volume."""
    name: str
    """Where it comes from: its path, or `test[17]`."""
    truth: str
    """The true class, the true labels, or the true number in words."""
    answer: str
    """What was answered instead."""
    confidence: float | None = None
    """Probability of the answer; None where the task gives none."""
    probability: float | None = None
    """Probability of the truth; None where the task gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Everything about a run that is over; the arguments of `neocog.report.write`."""

    manifest: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    events: Sequence[Event]
    scores: Mapping[str, Scores]
    mistakes: Sequence[Mistake]
    sheet: NDArray[np.uint8] | None
    faults: Sequence[Fault]
    counts: DataCount
    notes: Sequence[str]
    answers: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    network: Network | None = None
    plan: Mapping[str, Any] | None = None
    began: Sequence[str] = ()

    @property
    def part(self) -> str:
        """The part that the headline is measured on: test, else val, else none."""
        return next((part for part in ("test", "val") if part in self.scores), "")

    @property
    def data(self) -> Mapping[str, Any]:
        """The manifest's facts about the data."""
        found: Mapping[str, Any] = self.manifest.get("data") or {}
        return found

    @property
    def noun(self) -> str:
        """What a sample is called: `picture`, `signal` or `volume`."""
        return noun(self.data.get("size") or (0, 0))

    @property
    def task(self) -> str:
        """`classify`, `multilabel` or `regress`."""
        return str((self.manifest.get("task") or {}).get("name", ""))

    @property
    def model(self) -> str:
        """The network's name; one that is written in a line has none."""
        return "in a line" if self.line else self._name

    @property
    def line(self) -> str:
        """The line that a network is written in; empty for others."""
        return " ".join(self._name.split()) if catalog.is_line(self._name) else ""

    @property
    def _name(self) -> str:
        return str((self.manifest.get("model") or {}).get("name", "a network"))

    def called(self, name: str) -> str:
        """A metric's name in words; R² says so where it is a mean over several columns."""
        measured = self.scores[self.part].metrics if self.part else ()
        mean = name == "r2" and any(one.startswith("r2:") for one in measured)
        return called(name, self.task) + (" (mean of the columns)" if mean else "")


def total(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The sum over epochs of one value, as far as it is a number."""
    return math.fsum(value for row in rows if (value := finite(row.get(name))) is not None)


def finite(value: Any) -> float | None:
    """A number, or None for anything else: events may hold NaN, None or text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def is_share(name: str) -> bool:
    """Whether a metric of this name is a share of 1; `mae:column` is what `mae` is."""
    return bool(_SHARES & set(name.partition(":")[0].split("_")))


def called(name: str, task: str = "classify") -> str:
    """A metric's name in words.

    >>> called("macro_f1"), called("mae:age"), called("accuracy", "multilabel")
    ('macro F1', 'mean absolute error, age', 'all labels right')
    """
    if name == "accuracy" and task == "multilabel":
        return "all labels right"
    base, _, column = name.partition(":")
    word = METRICS.get(base, base.replace("_", " "))
    return f"{word}, {column}" if column else word
