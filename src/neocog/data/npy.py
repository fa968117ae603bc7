"""Arrays in an .npz, read without trust. Floor 1, room data; imports floor 0 and NumPy.

`numpy.load` believes the header of an array and allocates what it promises. Here the header is
compared with the size of its zip member first, and the types that would have to be unpickled are
refused by name. Format: numpy.lib.format, versions 1 to 3.
"""

from __future__ import annotations

import ast
import lzma
import math
import re
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from neocog.data.archive import allowance
from neocog.data.opened import open_regular
from neocog.errors import DataError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_npy", "read_npz"]

_MAGIC = b"\x93NUMPY"
_HEADER = 1 << 16
_CHUNK = 1 << 24
_LEAST = 32 << 20
"""Bytes that the smallest file may unpack to: they are held in memory."""
_DTYPE = re.compile(r"[<>|=]?[?a-zA-Z]\d{0,9}")
_REMEDY = "save it again with numpy.savez(path, x=…, y=…)"
_DAMAGE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(
    path: Path, wanted: Callable[[str], bool]
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays whose names are `wanted`, and the names of all others.

    Raises:
        DataError: no zip file, encrypted, a bomb, an array of objects, a header that promises more
            or less than the file holds, or damage.
    """
    where = printable(path.name)
    arrays: dict[str, NDArray[Any]] = {}
    others: list[str] = []
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                limit = allowance(path.stat().st_size, _LEAST)
                if sum(info.file_size for info in members) > limit:
                    raise DataError(
                        f"{where}: expected at most {limit:,} bytes from a file of this size, its "
                        "members promise more",
                        "do not trust this file, or save it without compression",
                    )
                for info in members:
                    name = info.filename.removesuffix(".npy")
                    if name == info.filename or not wanted(name):
                        others.append(printable(info.filename))
                        continue
                    if name in arrays:
                        raise DataError(f"{where}: the array {name!r} occurs twice", _REMEDY)
                    if info.flag_bits & 0x1:
                        raise DataError(f"{where}: the array {name!r} is encrypted", _REMEDY)
                    with archive.open(info) as member:
                        arrays[name] = _read(member, info.file_size, f"{where}: {printable(name)}")  # type: ignore[arg-type]
        except DataError:
            raise
        except (*_DAMAGE, ValueError) as error:
            raise DataError(
                f"{where}: expected a whole .npz file, found it damaged ({error})", _REMEDY
            ) from error
    return arrays, others


def read_npy(path: Path) -> NDArray[Any]:
    """The array of an .npy file.

    Raises:
        DataError: no such array, or a header that promises more or less than the file holds.
    """
    with open_regular(path) as file:
        return _read(file, path.stat().st_size, printable(path.name))


def _read(stream: BinaryIO, size: int, where: str) -> NDArray[Any]:
    """One array: header checked, then exactly as many bytes as it promises."""
    dtype, shape, fortran, start = _header(stream, where)
    count = math.prod(shape) * dtype.itemsize
    if start + count != size:
        raise DataError(
            f"{where}: the header promises {dtype} of shape {shape}, {count:,} bytes; the file "
            f"holds {size - start:,}",
            "the file is cut short or its header is damaged: save it again",
        )
    data = np.empty(count, np.uint8)
    view, got = data.data, 0
    while got < count:
        block = stream.read(min(_CHUNK, count - got))
        if not block:
            raise DataError(f"{where}: expected {count:,} bytes, found {got:,}", _REMEDY)
        view[got : got + len(block)] = block
        got += len(block)
    if stream.read(1):  # also makes zipfile compare its checksum
        raise DataError(f"{where}: more bytes than the header promises", _REMEDY)
    array = data.view(dtype) if dtype.itemsize else np.zeros(math.prod(shape), dtype)
    array = array.reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(stream: BinaryIO, where: str) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Type, shape, whether Fortran order, and where the data starts."""
    head = stream.read(8)
    if len(head) < 8 or head[:6] != _MAGIC or head[6] not in (1, 2, 3):
        raise DataError(
            f"{where}: expected a NumPy array, found {head.hex(' ') or 'nothing'}", _REMEDY
        )
    width = 2 if head[6] == 1 else 4
    field = stream.read(width)
    length = int.from_bytes(field, "little")
    if len(field) < width or length > _HEADER:
        raise DataError(
            f"{where}: field header length: expected at most {_HEADER}, found {length}", _REMEDY
        )
    text = stream.read(length)
    try:
        # A literal, by design of the format; literal_eval runs nothing.
        header = ast.literal_eval(text.decode("utf-8" if head[6] == 3 else "latin-1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise DataError(
            f"{where}: the header is damaged ({type(error).__name__})", _REMEDY
        ) from error
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(fortran, bool):
        raise DataError(
            f"{where}: field shape: expected whole numbers, found {shape!r:.80}", _REMEDY
        )
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr):
        raise DataError(
            f"{where}: field type: expected one number type, found {descr!r:.80}", _REMEDY
        )
    if "O" in descr:
        raise DataError(
            f"{where}: expected numbers or text, found an array of objects, which is never "
            "unpickled: pickles can run code",
            "convert it with .astype(str) or to one numeric type and save it again",
        )
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: field type: unknown type {descr!r}", _REMEDY) from error
    if dtype.kind not in "buifSU":
        raise DataError(f"{where}: field type: expected numbers or text, found {dtype}", _REMEDY)
    return dtype, shape, fortran, 8 + width + length
