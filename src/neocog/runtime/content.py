"""An exported file, read and checked: what every library is handed. Floor 3, room runtime.

Imports floor 0 and its own room.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.runtime.foreign import check_onnx, onnx_metadata, read_file
from neocog.runtime.foreign_ir import check_ir, read_ir, read_ir_text
from neocog.runtime.label import NAME, Label
from neocog.text import printable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Content", "onnx_content", "read_content", "read_label"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All of it, in memory."""

    where: str
    """The file's name, for messages; printable."""
    name: str
    """The same without its folder; empty where there is no file."""
    model: bytes
    """Of the ONNX file, or of the `.xml`."""
    numbers: bytes | None
    """Of the `.bin`; None for an ONNX file, which has its numbers inside."""
    label: Label
    """What it says of itself."""
    digest: str
    """SHA-256 of the bytes, in hexadecimal."""


def onnx_content(data: bytes, where: str = "the ONNX model", name: str = "") -> Content:
    """The bytes of an ONNX file.

    Args:
        data: all of them.
        where: the file's name, for messages.
        name: the same without its folder.

    Raises:
        RunError: see `check_onnx` and `Label.of`.
    """
    label = Label.of(check_onnx(data, where).get(NAME), where)
    digest = hashlib.sha256(data).hexdigest()
    return Content(where=where, name=name, model=data, numbers=None, label=label, digest=digest)


def read_content(path: Path) -> Content:
    """An `.xml` with the `.bin` beside it, or else an ONNX file.

    Raises:
        RunError: see `read_file`, `read_ir`, `check_onnx`, `check_ir` and `Label.of`.
    """
    where, name = printable(str(path)), printable(path.name)
    if path.suffix.lower() != ".xml":
        return onnx_content(read_file(path), where, name)
    model, numbers = read_ir(path)
    label = Label.of(check_ir(model, len(numbers), where).get(NAME), where)
    digest = hashlib.sha256(model)
    digest.update(numbers)
    return Content(
        where=where,
        name=name,
        model=model,
        numbers=numbers,
        label=label,
        digest=digest.hexdigest(),
    )


def read_label(path: Path) -> Label:
    """What a file says of itself, without its numbers; nothing else in it was checked.

    Raises:
        RunError: it is missing, damaged, or says nothing.
    """
    where = printable(str(path))
    if path.suffix.lower() != ".xml":
        return Label.of(onnx_metadata(path).get(NAME), where)
    model, size = read_ir_text(path)
    return Label.of(check_ir(model, size, where).get(NAME), where)
