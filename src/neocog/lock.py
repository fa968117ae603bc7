"""One process at a time in a folder. Floor 0: standard library only.

The lock belongs to an open file, so the system takes it back the moment its process ends, however
it ends: there is no stale lock to recover, only a stale file, which the next one takes over.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from neocog.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["locked"]

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path, name: str = NAME) -> Iterator[None]:
    """Hold the folder for this process.

    Args:
        folder: exists.
        name: of the file that is locked; another one holds something else in the folder.

    Raises:
        RunError: another process, or another thread of this one, holds it; or the folder cannot be
            written to.
    """
    path = folder / name
    try:
        handle = _take(path)
    except OSError as error:
        raise RunError(
            f"cannot lock {path}: {error.strerror}",
            "mend the permissions, or choose a folder whose file system has locks, with --out",
        ) from error
    if handle is None:
        raise RunError(
            f"{folder} is in use{_by(path)}",
            "wait for it, stop it, or choose another folder with --out",
        )
    try:
        yield
    finally:
        # Deleted while it is still held, so that nobody can hold a file that has no name.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _take(path: Path) -> int | None:
    """An open file that holds the lock; None where another has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            free = _lock(handle)
        except OSError:
            os.close(handle)
            raise
        if not free:
            os.close(handle)
            return None
        # The one before may have deleted the file between our opening and our locking it.
        if _same(handle, path):
            with contextlib.suppress(OSError):  # a full disk; the number is for people only
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
            return handle
        os.close(handle)


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))  # noqa: PTH116 - beside fstat
    except FileNotFoundError:
        return False


def _by(path: Path) -> str:
    """Whose number stands in the file, for the error."""
    try:
        return f" by process {int(path.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return ""


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        """Whether nobody else has it."""
        # A byte far behind the number, which stays readable.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        os.lseek(handle, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    def _lock(handle: int) -> bool:
        """Whether nobody else has it."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
