"""How a report tells of each task: the one place to enter a new one. Room report; floor 4.

A task that is not entered has a whole page all the same: its metrics by name, its classes with
recall, precision and F1, its confusions and its mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Kind", "kind_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a report needs to know of a task."""

    title: str = ""
    """What it is called, with `{noun}` for image, signal or volume; empty: its own name."""
    leading: tuple[str, ...] = ()
    """The headline is the first of these metrics that was measured, and the learning curve that of
    the first that was measured each epoch; the first metric of all where none was."""
    called: Mapping[str, str] = field(default_factory=dict)
    """Metrics that have another name here than elsewhere."""
    classes: tuple[str, str] | None = ("class", "classes")
    """What the data's names stand for, one and many; None where they are columns of numbers."""
    unit: str = ""
    """What rows of classes and confusions count; empty: samples. Of anything else there are so many
    that shares are told instead of counts."""
    baseline: bool = False
    """Whether always naming the commonest class is an answer to compare the headline with."""
    columns: tuple[tuple[str, str], ...] = (
        ("recall", "Recall"),
        ("precision", "Precision"),
        ("f1", "F1"),
    )
    """Fields of `ClassRow` and what they are called; the first is drawn."""
    drawn: str = "The share of each {class} that was found"
    """What the drawn one is."""
    size: str = "{noun}s"
    """What the network's input size is that of."""
    scores: str = ""
    """What must be known to read the scores."""
    mistakes: str = "largest loss first. Look for wrong labels: this is where they hide."
    """How the worst mistakes are sorted, and what to look for."""


_KINDS = {
    "classify": Kind(
        title="{noun} classification",
        leading=("accuracy",),
        baseline=True,
    ),
    "multilabel": Kind(
        title="multi-label classification",
        leading=("mean_average_precision", "macro_f1", "micro_f1", "accuracy"),
        called={"accuracy": "all labels right"},
        classes=("label", "labels"),
    ),
    "regress": Kind(
        title="regression",
        leading=("mae", "rmse", "r2"),
        classes=None,
        mistakes="furthest off first.",
    ),
    "segment": Kind(
        title="semantic segmentation",
        leading=("jaccard", "accuracy"),
        called={"accuracy": "pixel accuracy"},
        unit="pixel",
        columns=(
            ("jaccard", "Jaccard"),
            ("recall", "Recall"),
            ("precision", "Precision"),
            ("f1", "Dice"),
        ),
        drawn="Pixels that truth and answer both give to the {class}, of those that either does",
        size="training crops",
        scores="Jaccard is the overlap of truth and answer over their union, for each class over "
        "all pictures; its mean is taken over the classes that occur. Boundary F compares their "
        "outlines, picture by picture. Void pixels, which have no label, are never scored. "
        "Intervals come from drawing whole pictures again.",
    ),
}


def kind_of(task: str) -> Kind:
    """How to tell of a task; of one that is not entered, in general words.

    >>> kind_of("segment").leading[0], kind_of("a new one").leading
    ('jaccard', ())
    """
    return _KINDS.get(task, Kind())
