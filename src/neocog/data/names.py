"""Names as people write them: escaping, comparing, matching. Floor 1, room data; imports floor 0.

Classes are names, not positions. Every reader that finds class names passes them through here, so
that a folder, a table and an array refuse the same things in the same words.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from neocog.errors import DataError, near
from neocog.records import Fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = ["SPLITS", "fold", "match_classes", "refuse_lookalikes", "too_few"]

SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation"), "val")
"""What people call the parts, in lower case, and what we call them."""


def fold(name: str) -> str:
    """Equal for names that differ only by case or Unicode form.

    >>> fold("CAFÉ") == fold("cafe\N{COMBINING ACUTE ACCENT}")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def refuse_lookalikes(names: Iterable[str], where: str) -> None:
    """Refuse names that differ only by case or Unicode form: some systems cannot tell them apart.

    Raises:
        DataError: naming both, in ASCII escapes so that the difference shows.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(fold(name), name)
        if other != name:
            raise DataError(
                f"{where}: the class names {other!a} and {name!a} differ only by case "
                "or Unicode form",
                "rename one of them, or put their samples into one class",
            )


def too_few(known: Sequence[str], where: str, least: int = 2) -> DataError:
    """The error for fewer classes than are needed.

    >>> print(too_few(["cat"], "photos"))
    photos: expected at least two classes, found only 'cat'
      hint: a classifier learns differences: add another class
    """
    found = f"only {known[0]!r}" if known else "none"
    if least < 2:
        return DataError(
            f"{where}: expected at least one class, found {found}", "give the samples labels"
        )
    return DataError(
        f"{where}: expected at least two classes, found {found}",
        "a classifier learns differences: add another class",
    )


def match_classes(
    found: Mapping[str, Collection[str]], where: str, format: str, *, least: int = 2
) -> tuple[set[str], list[Fault]]:
    """Match class names across splits by name; a difference is refused, never guessed.

    Args:
        found: split name (`` for "the source does not say") → class names that have samples.
        where: the data set, for messages.
        format: the reader, for faults.
        least: classes that there must be: 2 to learn from, 1 for a part that is only scored or
            whose targets are labels (yes or no is a difference), 0 where all labels may be absent.

    Returns:
        The class names, and a fault for each class that a validation or test part lacks.

    Raises:
        DataError: fewer classes than `least`, names that only look different, or a class in the
            validation or test part that the training part does not have.
    """
    teachers = [split for split in ("train", "") if split in found]
    known = set().union(*(found[split] for split in teachers or found))
    refuse_lookalikes(sorted(set().union(*found.values())), where)
    if len(known) < least:
        raise too_few(sorted(known), where, least)
    faults = []
    for split in ("val", "test"):
        if split not in found or not teachers:
            continue
        if unknown := sorted(set(found[split]) - known):
            raise DataError(
                f"{where}: the {split} part has the class {unknown[0]!r}, "
                "which the training part does not have",
                near(unknown[0], known)
                if len(known) <= 20
                else "classes are matched by name: rename it, or add it to the training part",
            )
        faults += [
            Fault(
                path=split,
                format=format,
                code="missing-class",
                reason=f"the {split} part has no sample of the class {name!r}",
                policy="accept",
            )
            for name in sorted(known - set(found[split]))
        ]
    return known, faults
