"""Model files from strangers, looked at before any library sees them. Floor 3, room runtime.

Standard library, floor 0 and weights. An ONNX file can name other files that hold its tensors,
operators that load what they name, and graphs within graphs; so all of it is walked here, in the
form that protobuf gives it (https://protobuf.dev/programming-guides/encoding), and whatever is not
needed for a network that neocog exported is refused. The walk needs no more memory than the file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neocog.errors import RunError
from neocog.text import printable
from neocog.weights import open_regular
from neocog.weights.pickled import identify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["MOST", "SCHEMA", "check_onnx", "onnx_metadata", "read_file"]

MOST = 2**31 - 1
"""Bytes of a file: protobuf reads no more."""
DEEPEST = 8
"""Graphs within graphs, as branches and loops have them."""
MOST_FIELDS = 2**20
"""Fields that are walked, at most: some seconds. A large network has 100,000."""
MOST_OUTSIDE = 2**26
"""Bytes of metadata that are read where nothing else is; each field beside the graph counts as
`_FIELD` of them."""
_FIELD = 2**14
_VARINTS = 20
"""Bytes of a field's number and length together, at most."""
QUANTISED = frozenset({b"QuantizeLinear", b"DequantizeLinear"})
"""What is taken of the domain `com.microsoft`, whose other operators may load files."""
REMEDY = "export it again with neocog export; only such files are opened"

MOST_NUMBERS = 2**29
"""Of a tensor that a file only describes: two gigabytes in fp32."""
_SIDES = {"TensorProto": 1, "SparseTensorProto": 3}
"""Message → its field with the sides of a tensor."""
_MAKERS = {b"ConstantOfShape": 0, b"Expand": 1, b"Tile": 1, b"Resize": 3}
"""Operators that make as many numbers as they are told → the input that tells them. Where it is
worked out while the network runs, nothing is known before."""
_INT64 = 7
_LONGEST = 64
"""Numbers of a shape."""

_KINDS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "ModelProto": {
        "int": (1, 5),
        "bytes": (2, 3, 4, 6),
        "GraphProto": (7,),
        "OperatorSetIdProto": (8,),
        "StringStringEntryProto": (14,),
    },
    "OperatorSetIdProto": {"bytes": (1,), "int": (2,)},
    "StringStringEntryProto": {"bytes": (1, 2)},
    "GraphProto": {
        "NodeProto": (1,),
        "bytes": (2, 10),
        "TensorProto": (5,),
        "ValueInfoProto": (11, 12, 13),
        "TensorAnnotation": (14,),
        "SparseTensorProto": (15,),
        "StringStringEntryProto": (16,),
    },
    "NodeProto": {
        "bytes": (1, 2, 3, 4, 6, 7, 8),
        "AttributeProto": (5,),
        "StringStringEntryProto": (9,),
    },
    "AttributeProto": {
        "bytes": (1, 4, 9, 13, 21),
        "float": (2,),
        "int": (3, 20),
        "floats": (7,),
        "ints": (8,),
        "TensorProto": (5, 10),
        "GraphProto": (6, 11),
        "TypeProto": (14, 15),
        "SparseTensorProto": (22, 23),
    },
    "TensorProto": {
        "ints": (1, 5, 7, 11),
        "int": (2, 14),
        "Segment": (3,),
        "floats": (4,),
        "doubles": (10,),
        "bytes": (6, 8, 9, 12),
        "StringStringEntryProto": (13, 16),
    },
    "Segment": {"int": (1, 2)},
    "SparseTensorProto": {"TensorProto": (1, 2), "ints": (3,)},
    "TensorAnnotation": {"bytes": (1,), "StringStringEntryProto": (2,)},
    "ValueInfoProto": {"bytes": (1, 3), "TypeProto": (2,), "StringStringEntryProto": (4,)},
    "TypeProto": {"Tensor": (1,), "bytes": (6,)},
    "Tensor": {"int": (1,), "TensorShapeProto": (2,)},
    "TensorShapeProto": {"Dimension": (1,)},
    "Dimension": {"int": (1,), "bytes": (2, 3)},
}
SCHEMA: Mapping[str, Mapping[int, str]] = {
    message: {number: kind for kind, numbers in kinds.items() for number in numbers}
    for message, kinds in _KINDS.items()
}
"""Message of onnx.proto → number of a field → what it is. Left out, and so refused: training
information and functions, which hold graphs of their own, the placing of nodes on devices, and
types of values other than tensors."""
_WIRES = {
    "int": {0},
    "ints": {0, 2},
    "float": {5},
    "floats": {2, 5},
    "doubles": {1, 2},
    "bytes": {2},
}
"""What a field is → how it may be written: lists of numbers one by one, or packed."""
_FIXED = {1: 8, 5: 4}


def read_file(path: Path, most: int = MOST) -> bytes:
    """The bytes of a regular file; never of a folder, a pipe or a device.

    Raises:
        RunError: missing, unreadable, no regular file, or larger than `most` bytes.
    """
    with open_regular(path) as (file, size):
        if size > most:
            raise RunError(
                f"{printable(str(path))}: expected at most {most:,} bytes, found {size:,}", REMEDY
            )
        data = file.read(most + 1)  # what grows meanwhile is cut
    if len(data) != size:
        raise RunError(f"{printable(str(path))} changed while it was read", "try again")
    return data


def onnx_metadata(path: Path) -> dict[str, str]:
    """The texts of a model's metadata by name; what else is in the file is passed over unread.

    Raises:
        RunError: missing, unreadable, no regular file, or damaged as far as it was read.
    """
    kept = bytearray()
    with open_regular(path) as (file, size):
        try:
            place, left = 0, MOST_OUTSIDE
            while place < size:
                file.seek(place)
                head = memoryview(file.read(_VARINTS))
                number, _, _, last = _field(head, 0, size - place)
                left -= _FIELD + (last if number == 14 else 0)
                if left < 0:
                    raise _RefusedError("more outside its graph than a network needs")
                if number == 14:
                    file.seek(place)
                    kept += file.read(last)
                place += last
            return _metadata(memoryview(kept))
        except (_DamagedError, _RefusedError) as error:
            where = printable(str(path))
            raise RunError(f"{where} is damaged, or no ONNX model: {error}", REMEDY) from error


def check_onnx(data: bytes, where: str) -> dict[str, str]:
    """That these are the bytes of an ONNX model which stands for itself: it names no other file,
    and no operator but the standard's.

    Args:
        data: all of the file.
        where: its name, for errors.

    Returns:
        The texts of its metadata by name.

    Raises:
        RunError: it is something else, is damaged, or holds what is never opened; with the reason.
    """
    where = printable(where)
    if len(data) > MOST:
        raise RunError(f"{where}: expected at most {MOST:,} bytes, found {len(data):,}", REMEDY)
    view = memoryview(data)
    try:
        _Walk(view).all()
        return _metadata(view)
    except (_DamagedError, _RefusedError) as error:
        other = identify(data[:4096])
        if other is not None:
            raise RunError(
                f"{where}: expected an ONNX model, found {other.words}", REMEDY
            ) from None
        kind = "is damaged, or no ONNX model" if type(error) is _DamagedError else "is not opened"
        raise RunError(f"{where} {kind}: {error}", REMEDY) from error


class _DamagedError(Exception):
    """No such message."""


class _RefusedError(Exception):
    """A message that holds what is never opened."""


class _Walk:
    """Every message of a model, each looked at once."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.left = MOST_FIELDS
        self.counts: dict[bytes, int] = {}  # name of a constant, and the product of its numbers
        self.told: list[tuple[bytes, bytes]] = []  # an operator, and the constant that tells it
        # Message, first byte, byte after the last, graphs around it.
        self.open: list[tuple[str, int, int, int]] = [("ModelProto", 0, len(data), 0)]

    def all(self) -> None:
        """Walk it; no recursion, whatever the depth.

        Raises:
            _DamagedError, _RefusedError: see `check_onnx`.
        """
        graphs = 0
        while self.open:
            message, begin, end, depth = self.open.pop()
            if message == "GraphProto":
                depth += 1
                graphs += depth == 1
                if depth > DEEPEST:
                    raise _RefusedError(f"graphs within graphs, more than {DEEPEST} deep")
            self._message(message, begin, end, depth)
        for operator, name in self.told:
            if (count := self.counts.get(name, 0)) > MOST_NUMBERS:
                raise _RefusedError(
                    f"{operator.decode()} makes {count:,} numbers; at most {MOST_NUMBERS:,} are"
                )
        if graphs != 1:
            raise _DamagedError(f"expected one graph, found {graphs}")

    def _message(self, message: str, begin: int, end: int, depth: int) -> None:
        schema, texts = SCHEMA[message], dict[int, list[bytes]]()
        sides, constants = list[int](), dict[bytes, int]()
        for number, wire, first, last in _fields(self.data, begin, end):
            self.left -= 1
            if self.left < 0:
                raise _RefusedError(f"more than {MOST_FIELDS:,} parts")
            kind = schema.get(number)
            if kind is None:
                raise _RefusedError(f"{message} has the field {number}, which is not taken")
            if wire not in _WIRES.get(kind, {2}):
                raise _DamagedError(f"field {number} of {message} is written as {wire}")
            if message == "TensorProto" and (
                number == 13 or (number == 14 and _varint(self.data, first, last)[0])
            ):
                raise _RefusedError("a tensor that lies in another file (external data)")
            if number == _SIDES.get(message):
                sides += _numbers(self.data, first, last)
            if message == "NodeProto" and number == 5:
                constants |= _constant(self.data, first, last)
            if message == "NodeProto" and number in (1, 2, 4, 7):
                texts.setdefault(number, []).append(bytes(self.data[first:last]))
            elif kind not in _WIRES:
                self.open.append((kind, first, last, depth))
        if len(sides) > _LONGEST or math.prod(sides) > MOST:
            raise _RefusedError(f"a tensor of more than {MOST:,} numbers")
        if message == "TensorProto":
            self._counted(_tensor(self.data, begin, end))
        _node(texts.get(4, []), texts.get(7, []))
        for operator in texts.get(4, []):
            if operator == b"Constant":
                for name in texts.get(2, []):
                    self._counted(dict.fromkeys([name], max(constants.values(), default=0)))
            place = _MAKERS.get(operator)
            if place is not None and len(inputs := texts.get(1, [])) > place:
                self.told.append((operator, inputs[place]))

    def _counted(self, constants: Mapping[bytes, int]) -> None:
        """Keep what was found; of one name the larger."""
        for name, count in constants.items():
            self.counts[name] = max(count, self.counts.get(name, 0))


def _constant(data: memoryview, begin: int, end: int) -> dict[bytes, int]:
    """What an attribute holds, as `_tensor` has it, by its name."""
    name, count = b"", 0
    for number, wire, first, last in _fields(data, begin, end):
        if number == 1:
            name = bytes(data[first:last])
        elif number == 5 and wire == 2:
            count = max(0, *_tensor(data, first, last).values())
        elif number == 8 and last - first <= 10 * _LONGEST:
            # One by one or packed: of a list one by one no product is known before its end.
            count = (count or 1) * math.prod(_numbers(data, first, last))
    return {name: count}


def _tensor(data: memoryview, begin: int, end: int) -> dict[bytes, int]:
    """The product of a tensor's numbers, where it is a short list of int64 as a shape is, by its
    name; 0 for any other."""
    name, kind, found = b"", 0, list[int]()
    for number, wire, first, last in _fields(data, begin, end):
        if number == 8:
            name = bytes(data[first:last])
        elif number == 2:
            kind = _varint(data, first, last)[0]
        elif number == 7 and last - first <= 10 * _LONGEST:
            found += _numbers(data, first, last)
        elif number == 9 and wire == 2 and last - first <= 8 * _LONGEST:
            raw = bytes(data[first:last])
            found += [int.from_bytes(raw[k : k + 8], "little") for k in range(0, len(raw), 8)]
    if kind != _INT64 or len(found) > _LONGEST:
        return {name: 0}
    # Below 0: a side that is taken from elsewhere.
    return {name: math.prod(1 if number >= 2**63 else number for number in found)}


def _numbers(data: memoryview, first: int, last: int) -> list[int]:
    """A field of whole numbers: one of them, or a packed list, of which no more are read than a
    shape may have."""
    found, place = list[int](), first
    while place < last and len(found) <= _LONGEST:
        number, place = _varint(data, place, last)
        found.append(number)
    return found


def _node(operators: list[bytes], domains: list[bytes]) -> None:
    """An operator that is taken; protobuf lets the last of several texts count, so all are."""
    for domain in domains:
        if domain in (b"", b"ai.onnx"):
            continue
        if domain == b"com.microsoft" and operators and QUANTISED.issuperset(operators):
            continue
        name, of = (
            printable(b", ".join(some)[:80].decode("utf-8", "replace"))
            for some in (operators, [domain])
        )
        raise _RefusedError(f"the operator {name} of {of}; only those of the standard are taken")


def _metadata(data: memoryview) -> dict[str, str]:
    """The texts of the model's metadata, each name once."""
    found: dict[str, str] = {}
    for number, _, begin, end in _fields(data, 0, len(data)):
        if number != 14:
            continue
        entry = {1: b"", 2: b""}
        for part, _, first, last in _fields(data, begin, end):
            entry[part] = bytes(data[first:last])
        try:
            key, value = (entry[part].decode("utf-8") for part in (1, 2))
        except UnicodeDecodeError:
            raise _DamagedError("metadata that is no UTF-8") from None
        if key in found:
            raise _DamagedError(f"the metadata {printable(key)[:80]} occurs twice")
        found[key] = value
    return found


def _fields(data: memoryview, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, first byte and byte after the last of each field of a message."""
    while place < end:
        found = _field(data, place, end)
        yield found
        place = found[3]


def _field(data: memoryview, place: int, end: int) -> tuple[int, int, int, int]:
    """The field that begins at a place; see `_fields`. Of a text or message only the head is
    looked at."""
    tag, place = _varint(data, place, end)
    number, wire = tag >> 3, tag & 7
    if tag >= 2**32 or not number:
        raise _DamagedError(f"the field number {number}")
    first = place
    if wire == 0:
        _, place = _varint(data, place, end)
    elif wire == 2:
        length, first = _varint(data, place, end)
        place = first + length
    elif wire in _FIXED:
        place += _FIXED[wire]
    else:
        raise _DamagedError(f"the wire type {wire}")
    if place > end:
        raise _DamagedError("it is cut short, or a length in it is wrong")
    return number, wire, first, place


def _varint(data: memoryview, place: int, end: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end or place >= len(data):
            raise _DamagedError("it is cut short")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise _DamagedError("a number of more than ten bytes")
