"""OpenVINO's files from strangers, looked at before the library sees them. Floor 3, room runtime.

Imports floor 0, its own room, weights and defusedxml. A model is two files of one name: `.xml` with
the layers (https://docs.openvino.ai, "Operation Sets in OpenVINO"), `.bin` with the numbers of its
constants. The library gets both as bytes and never learns where they lie.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from neocog.errors import RunError
from neocog.runtime.foreign import MOST, REMEDY, read_file
from neocog.runtime.label import NAME
from neocog.text import printable
from neocog.weights import open_regular
from neocog.weights.pickled import identify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["LONGEST", "check_ir", "read_ir", "read_ir_text"]

LONGEST = 32 * 2**20
"""Bytes of an `.xml`: a large network has two million."""
DEEPEST = 16
"""Elements within elements."""
MOST_ELEMENTS = 2**20
_INSIDE = {
    "": {"net"},
    "net": {"layers", "edges", "rt_info"},
    "layers": {"layer"},
    "layer": {"data", "input", "output", "rt_info"},
    "input": {"port"},
    "output": {"port"},
    "port": {"dim", "rt_info"},
    "edges": {"edge"},
}
"""Element → those that it may hold. Left out, and so refused: loops and branches, which hold
networks of their own. What `rt_info` holds are remarks."""
_HEAD = re.compile(rb'\s*(<\?xml version="1\.0"( encoding="(utf|UTF)-8")?\s*\?>\s*)?<net[\s>]')
_OPSET = re.compile(r"opset[0-9]{1,2}")
_BITS = {
    **dict.fromkeys(("f64", "i64", "u64"), 64),
    **dict.fromkeys(("f32", "i32", "u32"), 32),
    **dict.fromkeys(("f16", "bf16", "i16", "u16"), 16),
    **dict.fromkeys(("i8", "u8", "boolean"), 8),
}
"""Types of constants; the bits of one number."""


def read_ir(path: Path) -> tuple[bytes, bytes]:
    """The bytes of an `.xml` and of the `.bin` beside it.

    Nobody named the second, so it must be there itself: a link could lead anywhere.

    Raises:
        RunError: one of them is missing, unreadable, no regular file, or too large.
    """
    return read_file(path, LONGEST), read_file(_beside(path), MOST)


def read_ir_text(path: Path) -> tuple[bytes, int]:
    """The bytes of an `.xml`, and how many the `.bin` beside it has.

    Raises:
        RunError: see `read_ir`.
    """
    with open_regular(_beside(path)) as (_, size):
        return read_file(path, LONGEST), size


def _beside(path: Path) -> Path:
    """The `.bin` of an `.xml`.

    Raises:
        RunError: it is a symbolic link.
    """
    beside = path.with_suffix(".bin")
    if beside.is_symlink():
        where = printable(str(beside))
        raise RunError(f"{where} is a symbolic link, expected a file", "copy the file there")
    return beside


def check_ir(text: bytes, numbers: int, where: str) -> dict[str, str]:
    """That these are the bytes of an OpenVINO model which stands for itself: its constants lie in
    the bytes that come with it, and its layers are OpenVINO's own.

    Args:
        text: all of the `.xml`.
        numbers: bytes of the `.bin`.
        where: its name, for errors.

    Returns:
        The text `neocog` of its `rt_info`, by that name, where there is one.

    Raises:
        RunError: it is something else, is damaged, or holds what is never opened; with the reason.
    """
    where = printable(where)
    other = identify(text[:4096])
    if other is not None:
        raise RunError(f"{where}: expected an OpenVINO model, found {other.words}", REMEDY)
    # Two parsers must see the same: nothing is left that only one of them would read or skip.
    if not _HEAD.match(text) or b"<!" in text or text.count(b"<?") > text[:1].count(b"<"):
        raise _refused(where, "expected plain XML in UTF-8 that begins with <net>")
    reader = _Reader(numbers)
    try:
        text.decode("utf-8")
        parser = DefusedXMLParser(target=reader, encoding="utf-8", forbid_dtd=True)
        parser.feed(text)
        parser.close()
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise _refused(where, printable(str(error))[:200]) from error
    return reader.found


def _refused(where: str, why: str) -> RunError:
    return RunError(f"{where} is not opened: {why}", REMEDY)


class _Reader:
    """Sees every element once, and keeps none: memory does not grow with the file."""

    def __init__(self, numbers: int) -> None:
        self.numbers = numbers
        self.path: list[str] = []
        self.seen = 0
        self.layer = ""
        self.found: dict[str, str] = {}

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins.

        Raises:
            ValueError: it is none that a network needs.
        """
        self.seen += 1
        if len(self.path) >= DEEPEST or self.seen > MOST_ELEMENTS:
            raise ValueError(f"more than {DEEPEST} elements deep, or {MOST_ELEMENTS:,} in all")
        if "rt_info" in self.path:
            self._remark(tag, attributes)
        elif tag not in _INSIDE.get(self.path[-1] if self.path else "", set()):
            raise ValueError(f"the element {tag[:80]} in {'/'.join(self.path) or 'the file'}")
        elif tag == "layer":
            self.layer, version = attributes.get("type", ""), attributes.get("version", "")
            if not _OPSET.fullmatch(version):
                raise ValueError(f"the layer {self.layer[:80]} of {version[:80]!r}, not of opsetN")
        elif tag == "data":
            self._data(attributes)
        self.path.append(tag)

    def end(self, tag: str) -> None:
        """It ends."""
        self.path.pop()

    def data(self, text: str) -> None:
        """Text between elements: only the sides of shapes have any."""

    def close(self) -> None:
        """The file ends."""

    def _remark(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Of the model's own remarks one is ours; OpenVINO keeps those of an ONNX file deeper."""
        if tag == NAME and self.path == ["net", "rt_info"]:
            if NAME in self.found:
                raise ValueError(f"{NAME} occurs twice in rt_info")
            self.found[NAME] = attributes.get("value", "")

    def _data(self, attributes: Mapping[str, str]) -> None:
        """Settings of a layer: none is a path, and constants lie within the numbers."""
        for name, value in attributes.items():
            if "/" in value or "\\" in value:
                raise ValueError(f"{name[:80]} of a {self.layer[:80]} layer holds a path")
        if self.layer != "Const":
            return
        bits = _BITS.get(attributes.get("element_type", ""), 0)
        if not bits:
            raise ValueError(f"a constant of type {attributes.get('element_type', '')[:80]!r}")
        shape = [_whole(side) for side in attributes.get("shape", "").split(",") if side.strip()]
        begin, size = (_whole(attributes.get(name, "")) for name in ("offset", "size"))
        if size * 8 != math.prod(shape) * bits or begin + size > self.numbers:
            raise ValueError(
                f"a constant of {size:,} bytes from byte {begin:,}, of shape {shape!r:.80}, in "
                f"{self.numbers:,} bytes of numbers"
            )


def _whole(text: str) -> int:
    """A whole number of at most 18 digits."""
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", text, re.ASCII):
        raise ValueError(f"expected a whole number, found {text[:80]!r}")
    return int(text)
