"""The header of a safetensors file, read without trust. Floor 1, room weights; standard library
and floor 0.

The format (https://github.com/huggingface/safetensors, "Format"): 8 bytes with the length of the
header, little-endian; the header, a JSON object that begins with `{`, in which each tensor has
`dtype`, `shape` and `data_offsets`, and `__metadata__`, if there, is text by name; then the bytes
of the tensors, one after the other, without gap, overlap or rest.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from neocog.errors import RunError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    *("DTYPES", "HEAD", "LONGEST", "OURS", "Entry", "Header"),
    *("open_regular", "parse_json", "read_header"),
]

HEAD = 4096
"""Bytes that tell what a file is."""
LONGEST = 4 * 2**20
"""Bytes of a header: some 40,000 tensors. The library takes 100 MB, which as Python objects would
need more memory than most computers have to spare."""
OURS = 64 * 2**20
"""The same for files that neocog wrote, and the most that it writes: some 600,000 tensors."""
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "C64": ("complex64", 8),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""PyTorch's name and the bytes of one number. Floats of eight bits and less are not among them: no
network here is stored in them."""

_FIELDS = {"dtype", "shape", "data_offsets"}
_MOST = 2**63 - 1
_REMEDY = "copy or download it again; it is damaged, or no safetensors file"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor."""

    dtype: str
    """A key of `DTYPES`."""
    shape: tuple[int, ...]
    """Its sides."""
    begin: int
    """Its first byte, counted from the end of the header."""
    end: int
    """The byte after its last."""


@dataclass(frozen=True, slots=True)
class Header:
    """All of a header."""

    entries: Mapping[str, Entry]
    """By name, in the order of the header."""
    metadata: Mapping[str, str]
    """Texts by name."""


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file, open for reading bytes, and its size; never waits for a pipe.

    Raises:
        RunError: missing, no regular file, unreadable, or a failure while it is being read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    where = printable(str(path))
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise _unreadable(where, error) from error
    try:
        with open(handle, "rb") as file:  # noqa: PTH123 - a handle, not a path
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RunError(f"{where}: expected a file, found a folder or a special file")
            yield file, status.st_size
    except OSError as error:
        raise _unreadable(where, error) from error


def _unreadable(where: str, error: Exception) -> RunError:
    reason = getattr(error, "strerror", None) or error
    return RunError(f"cannot read {where}: {reason}", "check that the file exists and may be read")


def parse_json(data: bytes) -> Any:
    """JSON as the standard has it: UTF-8, no name twice in an object, no NaN or infinity.

    Raises:
        ValueError: anything else, with the reason.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parse_json(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    ValueError: the name 'a' occurs twice
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"the name {printable(twice)[:80]!r} occurs twice")
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def read_header(file: BinaryIO, size: int, where: str, longest: int = LONGEST) -> Header:
    """The header of a safetensors file, and nothing of what follows it.

    Args:
        file: the file, open; it is read from its start.
        size: bytes of the file.
        where: its name for errors.
        longest: bytes of the header at most.

    Raises:
        RunError: naming the field, what was expected and what was found.
    """
    file.seek(0)
    field = file.read(8)
    if len(field) < 8:
        raise _wrong(where, "8 bytes with the length of the header", f"{len(field)} bytes")
    length = int.from_bytes(field, "little")
    if length > min(longest, size - 8):
        raise _wrong(
            where,
            f"a header of at most {min(longest, size - 8):,} bytes in a file of {size:,}",
            f"the header length {length:,}",
        )
    text = file.read(length)
    if text[:1] != b"{":
        raise _wrong(where, "a header that begins with {", repr(text[:8]))
    try:
        header = parse_json(text)
    except ValueError as error:
        raise _wrong(where, "a header in JSON", printable(str(error))) from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _wrong(where, "__metadata__ as texts by name", _short(metadata))
    try:
        "".join([*header, *metadata, *metadata.values()]).encode()
    except UnicodeEncodeError as error:
        raise _wrong(where, "names in Unicode", "half of a surrogate pair") from error
    entries = {name: _entry(value, f"{where}: {printable(name)}") for name, value in header.items()}
    _check_ranges(entries, size - 8 - length, where)
    return Header(entries, metadata)


def _entry(value: Any, where: str) -> Entry:
    """One tensor of the header; its range has the length that type and shape need."""
    if not isinstance(value, dict) or set(value) != _FIELDS:
        fields = ", ".join(sorted(_FIELDS))
        raise _wrong(where, f"exactly the fields {fields}", _short(value))
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _wrong(where, f"a dtype of {', '.join(DTYPES)}", _short(dtype))
    if not _is_whole(shape):
        raise _wrong(where, "a shape of whole numbers", _short(shape))
    if not _is_whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _wrong(where, "data_offsets with begin and end", _short(offsets))
    if math.prod(filter(None, shape)) > _MOST:
        raise _wrong(where, f"at most {_MOST} numbers", f"the shape {_short(shape)}")
    needed, given = math.prod(shape) * DTYPES[dtype][1], offsets[1] - offsets[0]
    if needed != given:
        raise _wrong(
            where,
            f"{needed:,} bytes for {dtype} of shape {_short(shape)}",
            f"data_offsets of {given:,} bytes",
        )
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _is_whole(values: Any) -> bool:
    """Whether it is a list of integers from 0 to 2⁶³ − 1; `true` is none."""
    return isinstance(values, list) and all(type(n) is int and 0 <= n <= _MOST for n in values)


def _check_ranges(entries: Mapping[str, Entry], size: int, where: str) -> None:
    """The ranges follow one another and cover the rest of the file."""
    place, before = 0, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != place:
            what = "an overlap" if entry.begin < place else "a gap"
            raise _wrong(
                where,
                f"{printable(name)} to begin at byte {place:,}, where {before} ends",
                f"{what}: it begins at {entry.begin:,}",
            )
        place, before = entry.end, printable(name)
    if place != size:
        what = "trailing bytes" if place < size else "a file that is cut short"
        raise _wrong(where, f"{place:,} bytes of tensors", f"{what}: {size:,} bytes")


def _short(value: Any) -> str:
    return printable(f"{value!r:.80}")


def _wrong(where: str, expected: str, found: str) -> RunError:
    return RunError(f"{where} is damaged: expected {expected}, found {found}", _REMEDY)
