"""What a report is about. Room report; floor 4."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog.geometry import noun
from neocog.measures import called
from neocog.models import catalog
from neocog.report.kinds import Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neocog import html
    from neocog.explain.look.sheets import Tiles
    from neocog.metrics.properties import Property
    from neocog.planning.nouns import Network
    from neocog.records import DataCount, Event, Fault, Scores
    from neocog.report.embedded import Points

PARTS = {"test": "test", "val": "held-out"}
"""How the pictures of a part are called."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""How the parts themselves are called."""


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
    sample: bool = False
    """Shown as a sample of its confusion only: its loss is not among the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """One picture whose every pixel was answered."""

    picture: NDArray[np.uint8]
    """H×W×C, C 1 or 3."""
    truth: NDArray[np.uint8]
    """H×W, the class of each pixel, or `records.VOID`."""
    answer: NDArray[np.uint8]
    """H×W, the class that was answered for each pixel."""
    name: str
    """Where it comes from: its path, or `test[17]`."""
    jaccard: float
    """Mean Jaccard of this picture alone, over the classes that occur in it."""

    def __post_init__(self) -> None:
        shapes = self.picture.shape[:2], self.truth.shape, self.answer.shape
        if len(set(shapes)) > 1:
            raise ValueError(f"expected picture, truth and answer of one size, found {shapes}")


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
    segmented: Sequence[Segmented] = ()
    properties: Sequence[Property] = ()
    temperature: Mapping[str, Any] | None = None
    points: Points | None = None
    kernels: tuple[Tiles, str] | None = None
    clicked: tuple[str, html.Tracer] | None = None

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
        """The task's name."""
        return str((self.manifest.get("task") or {}).get("name", ""))

    @property
    def kind(self) -> Kind:
        """How to tell of the task."""
        return kind_of(self.task)

    @property
    def unit(self) -> str:
        """What rows of classes and confusions count."""
        return self.kind.unit or self.noun

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
        word = self.kind.called.get(name) or called(name)
        return word + (" (mean of the columns)" if mean else "")


def total(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The sum over epochs of one value, as far as it is a number."""
    return math.fsum(value for row in rows if (value := finite(row.get(name))) is not None)


def finite(value: Any) -> float | None:
    """A number, or None for anything else: events may hold NaN, None or text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
