"""Names as people write them: escaping, comparing, matching. Floor 1, room data; imports floor 0.

Classes are names, not positions. Every reader that finds class names passes them through here, so
that a folder, a table and an array refuse the same things in the same words.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from neocog.errors import DataError, near
from neocog.records import Fault
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["SPLITS", "fold", "match_classes", "refuse_lookalikes"]

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


def match_classes(
    found: Mapping[str, Collection[str]], where: str, format: str
) -> tuple[set[str], list[Fault]]:
    """Match class names across splits by name; a difference is refused, never guessed.

    Args:
        found: split name (`` for "the source does not say") → class names that have samples.
        where: the data set, for messages.
        format: the reader, for faults.

    Returns:
        The class names, and a fault for each class that a validation or test part lacks.

    Raises:
        DataError: fewer than two classes, names that only look different, or a class in the
            validation or test part that the training part does not have.
    """
    teachers = [split for split in ("train", "") if split in found]
    known = set().union(*(found[split] for split in teachers or found))
    refuse_lookalikes(sorted(set().union(*found.values())), where)
    if len(known) < 2:
        raise DataError(
            f"{where}: expected at least two classes, found "
            + (f"only {printable(next(iter(known)))!r}" if known else "none"),
            "a classifier learns differences: add another class",
        )
    faults = []
    for split in ("val", "test"):
        if split not in found or not teachers:
            continue
        if unknown := sorted(set(found[split]) - known):
            raise DataError(
                f"{where}: the {split} part has the class {unknown[0]!r}, "
                "which the training part does not have",
                near(unknown[0], known) if len(known) <= 20 else "",
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
