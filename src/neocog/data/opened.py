"""Opening files that others made. Floor 1, room data; standard library and floor 0.

A data set may hold a FIFO that never answers, a device, or a file that nobody may read. Readers
open files only through here, so that none of them can hang and every failure names the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from neocog.errors import DataError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_hidden", "open_regular", "sha256_of", "visible"]


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """The regular file, open for reading bytes.

    Raises:
        DataError: missing, no regular file, unreadable, or a failure while it is being read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(
                f"{printable(str(path))}: expected a regular file, found a folder or a special "
                "file",
                "name a file",
            )
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(
            f"cannot read {printable(str(path))}: {error.strerror or error}",
            "check that the file exists, is whole and may be read",
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file, as hex digits.

    Raises:
        DataError: the file cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def is_hidden(name: str) -> bool:
    """Names that no reader looks at: dot files, and what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, by name.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"cannot list the folder {printable(str(folder))}: {error.strerror or error}",
            "check that it exists and may be read",
        ) from error
