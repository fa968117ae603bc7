"""Several sources become one. Floor 1, room data; imports floor 0 and NumPy.

`data.val` and `data.test` may name sources of their own. Classes are matched by name: one that the
other source lacks is fine, one that the training data does not have is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.data.samples import WORDS, Part, Source
from neocog.errors import DataError, near
from neocog.records import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Merged", "match_columns", "merge", "refuse_unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """One source made of up to three."""

    source: Source
    """All samples, each with its split."""
    skipped: Mapping[str, int]
    """Samples that the readers left out, by split; `` where the split is unknown."""
    notes: tuple[str, ...]
    """What people should know about the merging."""


def merge(main: Source, others: Mapping[str, Source]) -> Merged:
    """Lay the sources for `val` and `test` beside the main one.

    Another source gives its part of that name where it has one, else all of its samples. Samples of
    the main source in a split that another source provides are left out, with a note.

    Args:
        main: the training data.
        others: `val` and `test`, where they have sources of their own.

    Raises:
        DataError: another kind of target, or a class that the main source does not have.
    """
    own = {split or "train" for part in main.parts for split in part.splits}
    notes = []
    for name in own & set(others):
        count = sum(part.splits.count(name) for part in main.parts)
        notes.append(f"{count} samples of the source's own {name} part give way to data.{name}")
    parts = [_select(part, _own(part, others)) for part in main.parts]
    skipped = {"" if own - {"train"} else "train": main.skipped}
    faults = main.faults
    for name, other in others.items():
        _refuse_other_kind(main, other, name)
        has = any(split == name for part in other.parts for split in part.splits)
        chosen = [
            _select(part, [split == name or not has for split in part.splits])
            for part in other.parts
        ]
        if main.target == "mask":
            _refuse_other_classes(main, other, name)
        elif main.target == "numbers":
            order = match_columns(other.classes, main.classes, f"the {name} part")
            chosen = [replace(part, targets=_reorder(part.targets, order)) for part in chosen]
        else:
            used: list[Any] = [target for part in chosen for target in part.targets]
            names = used if main.target == "class" else [one for row in used for one in row]
            refuse_unknown(names, main.classes, f"the {name} part")
            faults += _missing(other, main.classes, set(names), name)
        parts += [replace(part, splits=(name,) * len(part.names)) for part in chosen]
        skipped[name] = skipped.get(name, 0) + other.skipped
        # What a reader misses by itself says nothing: the classes that count are the main ones.
        faults += tuple(fault for fault in other.faults if fault.code != "missing-class")
    merged = Source(
        kind=main.kind,
        target=main.target,
        classes=main.classes,
        parts=tuple(part for part in parts if part.names),
        faults=faults,
        skipped=sum(skipped.values()),
    )
    return Merged(source=merged, skipped=skipped, notes=tuple(notes))


def _missing(
    other: Source, classes: Sequence[str], found: set[str], name: str
) -> tuple[Fault, ...]:
    """A remark for each class that another source has no sample of."""
    return tuple(
        Fault(
            path=name,
            format=other.kind,
            code="missing-class",
            reason=f"the {name} part has no sample of the class {one!r}",
            policy="accept",
        )
        for one in classes
        if one not in found
    )


def _own(part: Part, others: Mapping[str, Source]) -> list[bool]:
    return [split not in others for split in part.splits]


def _select(part: Part, keep: Sequence[bool]) -> Part:
    """Some samples of a part; the part itself where that is all of them."""
    if all(keep):
        return part
    rows = [row for row, wanted in enumerate(keep) if wanted]
    targets: Any = tuple(part.targets[row] for row in rows)
    return Part(
        names=tuple(part.names[row] for row in rows),
        splits=tuple(part.splits[row] for row in rows),
        targets=targets,
        weights=None if part.weights is None else tuple(part.weights[row] for row in rows),
        files=None if part.files is None else tuple(part.files[row] for row in rows),
        pixels=None if part.pixels is None else part.pixels[np.array(rows, np.int64)],
        masks=_rows_of(part.masks, rows),
        root=part.root,
    )


def _rows_of(masks: Any, rows: Sequence[int]) -> Any:
    """Some masks of a part."""
    if isinstance(masks, tuple):
        return tuple(masks[row] for row in rows)
    return None if masks is None else masks[np.array(rows, np.int64)]


def _refuse_other_classes(main: Source, other: Source, name: str) -> None:
    """Raises a DataError where the numbers in masks may stand for other classes."""
    if other.classes != main.classes:
        here, there = (
            f"the classes {', '.join(one.classes)}" if one.classes else "no list of classes"
            for one in (main, other)
        )
        raise DataError(
            f"the {name} part: expected {here}; found {there}",
            "masks hold numbers: both sources need the same classes.txt",
        )


def _reorder(targets: Any, order: Sequence[int]) -> Any:
    return tuple(tuple(row[column] for column in order) for row in targets)


def _refuse_other_kind(main: Source, other: Source, name: str) -> None:
    if main.target != other.target:
        raise DataError(
            f"the {name} part: expected {WORDS[main.target]}, found {WORDS[other.target]}",
            f"data.{name} must name a source with the same kind of target as the training data",
        )


def match_columns(found: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """Where each wanted column stands among the found ones.

    Raises:
        DataError: other columns than wanted.
    """
    if sorted(found) != sorted(wanted):
        raise DataError(
            f"{where}: expected the columns {', '.join(wanted)}, found {', '.join(found)}",
            "columns are matched by name",
        )
    return [list(found).index(name) for name in wanted]


def refuse_unknown(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse class names that are not known.

    Raises:
        DataError: naming the first of them, with the nearest known name.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DataError(
            f"{where}: unknown class {unknown[0]!r}{more}; classes are matched by name",
            near(unknown[0], known),
        )
