"""Files that are whole or absent. Floor 0: standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from neocog.errors import RunError

__all__ = ["read_json", "write_atomic", "write_json"]


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a crash leaves either the old one or the new one, never a part.

    Temporary file in the same folder → write → fsync → rename → fsync of the folder.

    Raises:
        RunError: no space, no permission and the like, naming the path and the bytes needed.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; these are ordinary results.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path} ({len(data):,} bytes): {error.strerror}",
            "free some space or choose another folder with --out",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError):  # Windows cannot open folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}", "expected JSON") from error
