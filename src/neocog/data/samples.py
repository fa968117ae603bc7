"""What a reader finds before any pixel is decoded. Floor 1, room data; imports floor 0 and NumPy.

A reader turns a path into a `Source`: parts that list samples in a fixed order (by name for files,
as stored for arrays). Scan and pack turn a `Source` into a `Dataset`. Readers know formats; they
know nothing of sizes, splits by chance, tensors or networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neocog.records import Fault

__all__ = ["WORDS", "MaskSpool", "Part", "Source", "TargetKind"]

TargetKind = Literal["class", "labels", "numbers", "mask"]
"""One class a sample, any number of labels a sample, one or more numbers a sample, or one class a
pixel."""
WORDS: dict[str, str] = {
    "class": "one class a sample",
    "labels": "any number of labels a sample",
    "numbers": "numbers",
    "mask": "masks, one class a pixel",
}
"""Kind of target → what it is, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Samples of one reader. Exactly one of `files` and `pixels` is set; all lists are as long."""

    names: tuple[str, ...]
    """What a sample is called in reports: its path below the root, or `train[17]`."""
    splits: tuple[str, ...]
    """`train`, `val` or `test`; `` where the source does not say."""
    targets: tuple[str, ...] | tuple[tuple[str, ...], ...] | tuple[tuple[float, ...], ...]
    """By the source's kind: a class name, label names, or numbers; of masks an empty text."""
    masks: tuple[str, ...] | NDArray[Any] | None = None
    """Where targets are masks: paths of their files beside `files`, or N×H×W whole numbers beside
    `pixels`."""
    weights: tuple[float, ...] | None = None
    """Sample weights; None: all 1."""
    files: tuple[str, ...] | None = None
    """Paths of encoded pictures; text, because fifty thousand `Path`s take half a second."""
    pixels: NDArray[Any] | None = None
    """N×H×W×C, uint8, C 1 or 3; signals N×L×C and volumes N×D×H×W×C of any number of channels, in a
    type of `records.FULL_SCALE`."""
    root: Path | None = None
    """Folder that `files` must not leave, not even by a symbolic link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data set as its readers found it."""

    kind: str
    """`folder`, `idx`, `cifar`, `npz`, `csv`, `digits`: for people."""
    target: TargetKind
    """What a sample's target is."""
    classes: tuple[str, ...]
    """Class or label names in order: by name for folders and tables, by index for arrays. For
    numbers the names of the columns. For masks by number; empty where only the masks tell how many
    there are."""
    parts: tuple[Part, ...]
    """One for each file or split that was read."""
    faults: tuple[Fault, ...] = field(default=())
    """What the reader already skipped or accepted with a remark. A refusal is a DataError."""
    skipped: int = 0
    """Samples that the reader itself left out (ragged rows and the like); each has a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSpool:
    """The masks of a source, read and checked. The arrays have one row for each sample that the
    source lists."""

    path: Path
    """H×W uint8 of each mask that can be used, one after the other; `VOID`: no label."""
    offsets: NDArray[np.int64]
    """N; byte where a sample's mask begins; −1: it has none."""
    digests: NDArray[np.uint8]
    """N×32; SHA-256 of what each was read from."""
    counts: NDArray[np.int32]
    """N×K; labelled pixels of each class."""
    classes: tuple[str, ...]
    """K names: the source's, or the numbers that were met."""
