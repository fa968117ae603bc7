"""Folders of class folders, flat or under train/, val/ and test/. Floor 1, room data.

Imports floor 0 and this room. Names only: no picture is opened here, so that fifty thousand files
are listed in a fraction of a second. What a file really is comes out when it is scanned.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from neocog.data.names import SPLITS, match_classes, refuse_lookalikes
from neocog.data.opened import visible
from neocog.data.samples import Part, Source
from neocog.errors import DataError
from neocog.records import Fault
from neocog.text import printable

__all__ = ["is_picture", "read_folder", "split_folders"]

_SUFFIXES = frozenset(
    ("jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "pgm", "ppm", "pnm")
)


def is_picture(name: str) -> bool:
    """By its ending; what it holds is for the scan to say.

    >>> is_picture("a.JPEG"), is_picture("a.txt"), is_picture("jpg")
    (True, False, False)
    """
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and suffix.lower() in _SUFFIXES


@dataclass(slots=True)
class _Listing:
    """What a walk has found so far."""

    root: Path
    faults: list[Fault] = field(default_factory=list)
    skipped: int = 0

    def stray(self, name: str, what: str) -> None:
        """Remark on an entry that is no sample."""
        self.faults.append(
            Fault(
                path=printable(name),
                format="folder",
                code="stray-file",
                reason=f"expected {what}; it is ignored",
                policy="accept",
            )
        )

    def linked(self, name: str) -> None:
        """Leave out a symbolic link to a folder: it may leave the root, or lead back into it."""
        self.skipped += 1
        self.faults.append(
            Fault(
                path=printable(name),
                format="folder",
                code="linked-folder",
                reason="expected a folder, found a symbolic link to one, which is not followed",
                policy="skip",
            )
        )


def read_folder(root: Path, *, few: bool = False) -> Source:
    """A data set of one folder for each class, the pictures anywhere below it.

    Args:
        root: the folder that holds the class folders.
        few: it is only scored: one class is enough, and an empty class folder is only remarked on.

    Files are ordered by class and name. Where there is a folder `train` that holds folders,
    `train`, `val` (`valid`, `validation`) and `test` are splits, whatever their case; else every
    folder is a class. Hidden entries are ignored; stray files and classes that a validation or test
    part lacks are reported; symbolic links to folders are skipped and reported.

    Raises:
        DataError: no class folders, names that differ only by case or Unicode form, a class that
            the training part lacks; and, unless `few`, an empty class or a single one.
    """
    listing = _Listing(root)
    splits = split_folders(root)
    if splits:
        inner = {entry.name for entry in splits.values()}
        for entry in visible(root):
            if entry.name not in inner:
                listing.stray(entry.name, "only train, val and test folders here")
        found = {
            split: _classes(listing, Path(entry), f"{entry.name}/")
            for split, entry in splits.items()
        }
    else:
        found = {"": _classes(listing, root, "")}
    return _source(listing, found, few)


def split_folders(root: Path) -> dict[str, os.DirEntry[str]]:
    """`train`, `val` and `test` → their folders; empty where the folders are classes.

    Raises:
        DataError: two folders for one split, `val` and `test` without `train`, or splits that hold
            no class folders.
    """
    folders = [e for e in visible(root) if _is_folder(e)]
    splits: dict[str, os.DirEntry[str]] = {}
    bare: set[str] = set()
    for entry in folders:
        split = SPLITS.get(entry.name.lower())
        if split is None:
            continue
        if not any(_is_folder(e) for e in visible(Path(entry))):
            bare.add(split)
            continue
        if split in splits:
            raise DataError(
                f"{printable(str(root))}: expected one folder for the {split} part, found "
                f"{splits[split].name} and {entry.name}",
                "merge them or rename one",
            )
        splits[split] = entry
    if "train" in splits:
        return {s: splits[s] for s in ("train", "val", "test") if s in splits}
    if "train" in bare and len(bare) > 1:
        raise DataError(
            f"{printable(str(root))}: expected class folders inside train, found none, yet there "
            f"is {' and '.join(sorted(bare - {'train'}))} too",
            "put the pictures of each class into a folder of its own: train/CLASS/…",
        )
    if splits and len(splits) == len(folders):
        names = " and ".join(e.name for e in splits.values())
        raise DataError(
            f"{printable(str(root))}: expected a folder train beside {names}, found none",
            f"to use one part alone name it: {printable(next(iter(splits.values())).path)}",
        )
    return {}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_linked_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _classes(listing: _Listing, folder: Path, prefix: str) -> dict[str, list[str]]:
    """Class name → its pictures below the root, both by name."""
    classes: dict[str, list[str]] = {}
    loose = 0
    for entry in visible(folder):
        name = prefix + entry.name
        if _is_folder(entry):
            classes[printable(entry.name)] = _pictures(listing, folder / entry.name, name)
        elif _is_linked_folder(entry):
            listing.linked(name)
        else:
            loose += is_picture(entry.name)
            listing.stray(name, "only class folders here")
    if not classes:
        raise DataError(
            f"{printable(str(folder))}: expected one folder for each class, found "
            + (f"{loose:,} pictures and no folder" if loose else "no folder"),
            "make one folder for each class and put its pictures there",
        )
    return classes


def _pictures(listing: _Listing, folder: Path, name: str) -> list[str]:
    """All pictures at any depth, by name. Links to folders are reported, never followed."""
    pictures: list[str] = []
    todo = [(folder, name)]
    while todo:
        inside, prefix = todo.pop()
        for entry in visible(inside):
            path = f"{prefix}/{entry.name}"
            if is_picture(entry.name):
                pictures.append(path)
            elif _is_folder(entry):
                todo.append((inside / entry.name, path))
            elif _is_linked_folder(entry):
                listing.linked(path)
            else:
                listing.stray(path, "a picture")
    pictures.sort()
    return pictures


def _empty(name: str) -> Fault:
    return Fault(
        path=name,
        format="folder",
        code="empty-class",
        reason="expected pictures in the class folder, found none; the class has no sample here",
        policy="accept",
    )


def _source(listing: _Listing, found: dict[str, dict[str, list[str]]], few: bool) -> Source:
    root = listing.root
    where = printable(str(root))
    for split, classes in found.items():
        refuse_lookalikes(classes, where)
        empty = [name for name, pictures in classes.items() if not pictures]
        if not empty or split not in ("", "train"):
            continue
        if not few or len(empty) == len(classes):
            which = "any" if few else "every"
            raise DataError(
                f"{where}: expected pictures in {which} class folder, found none in {empty[0]!r}",
                "remove the folder or put pictures (.jpg, .png, …) into it",
            )
        listing.faults += [_empty(name) for name in empty]
    # Once with all folders: an empty one may still be a class that the training part lacks. Then
    # with those that hold pictures: an empty one is a missing class.
    least = 1 if few else 2
    match_classes(found, where, "folder", least=least)
    used = {split: {n for n, p in classes.items() if p} for split, classes in found.items()}
    known, faults = match_classes(used, where, "folder", least=least)
    parts = []
    for split, classes in found.items():
        raw = [path for pictures in classes.values() for path in pictures]
        if not raw:
            continue
        above = os.path.join(root, "")  # noqa: PTH118 - once, in front of each
        parts.append(
            Part(
                names=tuple(map(printable, raw)),
                splits=(split,) * len(raw),
                targets=tuple(n for n, pictures in classes.items() for _ in pictures),
                files=tuple([above + path for path in raw]),
                root=root,
            )
        )
    return Source(
        kind="folder",
        target="class",
        classes=tuple(sorted(known)),
        parts=tuple(parts),
        faults=(*listing.faults, *faults),
        skipped=listing.skipped,
    )
