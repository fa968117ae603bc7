"""Files that are whole or absent. Floor 0: standard library only.

There is one way to write a file that matters, `write_atomic`, and it calls the system through
`os` alone: open, write, fsync, close, replace. So a test can make any of these calls fail, and kill
the process before or after each.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any, TypeAlias

from neocog.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["clear_leftovers", "read_json", "write_atomic", "write_json"]

Content: TypeAlias = "bytes | str | Iterable[bytes | bytearray | memoryview]"

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_MOST = 1 << 30
"""Bytes of one write: Linux writes no more than 2 GiB at once."""
_OURS = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.tmp")
"""Names of temporary files: the process and a random number. In containers processes have the same
numbers again and again."""
_UNABLE = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.EPERM}
"""What file systems say that cannot flush a folder, or not let us open it; disks that fail say
something else."""


def write_atomic(path: Path, content: Content, *, size: int | None = None) -> None:
    """Write a file so that a crash leaves either the old one or the new one, never a part.

    Temporary file in the same folder → write → fsync → rename → fsync of the folder.

    Args:
        path: its folder is made where it is missing.
        content: all of it, or its pieces in order, each a run of bytes.
        size: bytes in all, where the content comes in pieces: for the error.

    Raises:
        RunError: no space, no permission and the like, naming the path and the bytes needed. What
            was there before is still there, and nothing else is.
    """
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        content, size = (content,), len(content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, _CREATE, 0o666)
        made = True
        try:
            for piece in content:
                _write(handle, memoryview(piece).cast("B"))
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)  # noqa: PTH105 - all calls through os
        made = False
        sync_folder(path.parent)
    except OSError as error:
        needs = "" if size is None else f", which needs {size:,} bytes{_free(path.parent)}"
        raise RunError(
            f"cannot write {path}{needs}: {error.strerror or error}",
            "make room, mend the permissions or choose another folder with --out",
        ) from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - all calls through os


def _write(handle: int, data: memoryview) -> None:
    """All of it: the system may take less at once."""
    while data:
        data = data[os.write(handle, data[:_MOST]) :]


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder last through a power cut, where the file system can.

    Raises:
        OSError: the disk fails.
    """
    if os.name != "posix":
        return  # only POSIX can open a folder
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise


def clear_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left half-written, in this folder alone.

    Only for a folder that nobody else writes to now.
    """
    for path in folder.glob(".*.tmp"):
        if _OURS.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _free(folder: Path) -> str:
    """How much room there is, for an error; empty where that cannot be said."""
    try:
        return f" ({shutil.disk_usage(folder).free:,} are free)"
    except OSError:
        return ""


def write_json(path: Path, value: Any) -> None:
    """JSON, indented, as one whole file.

    Raises:
        RunError: the file cannot be written.
        ValueError: NaN or infinity, which JSON does not know.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        RunError: missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}", "expected JSON") from error
