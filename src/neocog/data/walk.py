"""The pictures below a folder, one after the other. Floor 1, room data.

A folder of a million pictures is walked with the names of a part of them in memory, in an order
that depends on the names alone, so that whoever stopped half-way finds the same place again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from neocog.data.folder import is_picture
from neocog.errors import DataError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["count_below", "pictures_below"]

NAMES = 1 << 17
"""Names of one folder that are held at a time: some 15 MB. A folder that has more is listed again
for each further part; for a million pictures, eight times, which takes some seconds."""


def pictures_below(folder: str) -> Iterator[str]:
    """Paths of the picture files in a folder and in those below it, by their names.

    The order is that of the parts of the paths, compared as texts: `a/x.png` comes before `a.png`.
    Hidden ones count; links to folders are not followed. A file that comes or goes meanwhile may be
    met or not, every other one is met once.

    Args:
        folder: its path, which the paths begin with.

    Raises:
        DataError: a folder cannot be listed.
    """
    last = ""
    while True:
        names, more = _part(folder, last)
        for name, inner in names:
            path = os.path.join(folder, name)  # noqa: PTH118 - once a file, and hot
            if inner:
                yield from pictures_below(path)
            else:
                yield path
        if not more:
            return
        last = names[-1][0]


def count_below(folder: str) -> int:
    """How many pictures `pictures_below` meets; no name is held.

    Raises:
        DataError: a folder cannot be listed.
    """
    count, inner = 0, []
    for name, is_folder in _entries(folder):
        if is_folder:
            inner.append(name)
        else:
            count += 1
    return count + sum(count_below(os.path.join(folder, name)) for name in inner)  # noqa: PTH118


def _part(folder: str, last: str) -> tuple[list[tuple[str, bool]], bool]:
    """The first `NAMES` entries after a name, sorted, each with whether it is a folder; and whether
    there may be more."""
    kept: list[tuple[str, bool]] = []
    bound, more = "", False
    for name, inner in _entries(folder):
        if name <= last or (bound and name > bound):
            continue
        kept.append((name, inner))
        if len(kept) == 2 * NAMES:
            kept.sort()
            del kept[NAMES:]
            bound, more = kept[-1][0], True
    kept.sort()
    if len(kept) > NAMES:
        del kept[NAMES:]
        more = True
    return kept, more


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """Folders, and files that are called like pictures, in the order of the file system."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name, True
                elif is_picture(entry.name):
                    yield entry.name, False
    except OSError as error:
        raise DataError(
            f"cannot list the folder {printable(folder)}: {error.strerror or error}",
            "check that it exists and may be read",
        ) from error
