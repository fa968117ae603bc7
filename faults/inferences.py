"""Inference requests that are almost in order: valid bodies, and what is left of them.

    taken = Taken.of(json.load(answer_of("/v2/models/NAME")))
    for name, body, length in mutations(seed, taken, count=100): ...

The one mechanism of `faults.requests`, which sends them to a running server, and of the tests of
what reads them. Everything is decided by the seed. Standard library only.
"""

from __future__ import annotations

import json
import math
import random
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faults.mutate import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Taken", "changed", "mutations", "valid"]

NUMBERS = (
    *("0", "-0", "1", "-1", "255", "256", "1.5", "1e2", "-1e-400", "1e39", "1e308", "1e999"),
    *("NaN", "-Infinity", "00", "+1", "0x1", "1_0", "true", "null", '"1"', "[]", "{}", "[[1]]"),
    *(str(2**31), str(2**63), str(2**64), str(10**400), "9" * 5000, "1." + "0" * 5000),
)
"""What stands where a number stood."""
TYPES = ("UINT8", "INT16", "FP16", "FP32", "FP64", "BF16", "BOOL", "BYTES", "uint8", "")
WORDS = (
    *('"data"', '"shape"', '"datatype"', '"name"', '"inputs"', '"outputs"', '"parameters"'),
    *('"binary_data_size"', '"binary_data"', '"binary_data_output"', '"classification"', '"id"'),
    *('"shared_memory_region"', '"sequence_id"', '"\\ud800"', '"\\u0000"', '""', "true", "null"),
)
"""What stands where a text stood."""


CODES = {"UINT8": "B", "INT16": "h", "FP32": "f"}
"""The protocol's types → `struct`'s."""
RANGES = {"UINT8": (0, 255), "INT16": (-(2**15), 2**15 - 1)}
MOST_SIDE = 6
"""Of a sample whose sides are free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a model takes, and what it can be asked for, by its metadata."""

    input: str
    """Name."""
    datatypes: tuple[str, ...]
    """That samples may have; metadata name one."""
    channels: int
    """Of a sample."""
    size: tuple[int, ...]
    """Sides of a sample; -1: any."""
    outputs: tuple[str, ...]
    """Names."""
    classified: bool
    """Whether classes of a sample can be asked for."""

    @staticmethod
    def of(metadata: Mapping[str, Any]) -> Taken:
        """By the document at `/v2/models/NAME`."""
        (given,) = metadata["inputs"]
        outputs = metadata["outputs"]
        (_, channels, *size) = given["shape"]
        return Taken(
            input=given["name"],
            datatypes=(given["datatype"],),
            channels=channels,
            size=tuple(size),
            outputs=tuple(one["name"] for one in outputs),
            classified=outputs[0]["name"] == "probabilities" and len(outputs[0]["shape"]) == 2,
        )


def _numbers(datatype: str, count: int, chance: random.Random) -> list[Any]:
    """Values that the type holds."""
    if datatype == "FP32":
        drawn = [chance.gauss(0, 1) for _ in range(count)]
        return list(struct.unpack(f"<{count}f", struct.pack(f"<{count}f", *drawn)))
    low, high = RANGES[datatype]
    return [chance.randint(low, high) for _ in range(count)]


def _rows(values: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """Flat values nested as a shape says."""
    if len(shape) == 1:
        return list(values)
    step = len(values) // shape[0]
    return [_rows(values[at : at + step], shape[1:]) for at in range(0, len(values), step)]


def valid(taken: Taken, chance: random.Random) -> tuple[bytes, int | None]:
    """A request that is in order: body, and bytes of its JSON where binary data follow."""
    datatype = chance.choice(taken.datatypes)
    sides = [chance.randint(1, MOST_SIDE) if side == -1 else side for side in taken.size]
    shape = [chance.randint(1, 3), taken.channels, *sides]
    values = _numbers(datatype, math.prod(shape), chance)
    given: dict[str, Any] = {"name": taken.input, "shape": shape, "datatype": datatype}
    request: dict[str, Any] = {"inputs": [given]}
    if chance.random() < 0.5:
        request["id"] = chance.choice(("", "42", "größer 猫", 'a"b\\c'))
    if chance.random() < 0.5:
        request["parameters"] = {"binary_data_output": chance.random() < 0.5, "priority": 1}
    if chance.random() < 0.5:
        listed = chance.sample(taken.outputs, chance.randint(1, len(taken.outputs)))
        request["outputs"] = [{"name": name, "parameters": {}} for name in listed]
        for one in request["outputs"]:
            if taken.classified and chance.random() < 0.5:
                one["parameters"]["classification"] = chance.randint(1, 3)
            if chance.random() < 0.5:
                one["parameters"]["binary_data"] = chance.random() < 0.5
    raw = b""
    how = chance.choice(("flat", "nested", "binary"))
    if how == "binary":
        raw = struct.pack(f"<{len(values)}{CODES[datatype]}", *values)
        given["parameters"] = {"binary_data_size": len(raw)}
    else:
        given["data"] = values if how == "flat" else _rows(values, shape)
    text = json.dumps(request, ensure_ascii=chance.random() < 0.5).encode()
    return text + raw, len(text) if raw else None


def mutations(seed: int, taken: Taken, count: int) -> Iterator[tuple[str, bytes, int | None]]:
    """Bodies that were in order before something was done to them.

    Args:
        seed: decides all.
        taken: by the model that they are for.
        count: of them.

    Yields:
        What was done, the body, and what the header field says of the length of its JSON: None
        where it is not sent.
    """
    for index in range(count):
        chance = random.Random(f"{seed} {index}")
        body, length = valid(taken, chance)
        yield changed(body, length, chance)


def changed(
    body: bytes, length: int | None, chance: random.Random
) -> tuple[str, bytes, int | None]:
    """One to three things done to a request: their names, the body, and what is said of the length
    of its JSON."""
    names = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        name, body, length = _changed(body, length, chance)
        names.append(name)
    return "+".join(names), body, length


def _changed(
    body: bytes, length: int | None, chance: random.Random
) -> tuple[str, bytes, int | None]:
    """One thing done to a request."""
    kind = chance.choice(
        ("bytes", "bits", "cut", "slice", "length", "number", "text", "nest", "type", "repeat")
    )
    end = len(body) if length is None else max(0, min(length, len(body)))
    text, raw = body[:end], body[end:]
    if kind == "length":
        return kind, body, _length(body, length, chance)
    if kind == "cut":
        return kind, body[: chance.randrange(len(body) + 1)], length
    if kind == "bytes":
        text = mutated(text, chance.randrange(2**32))
    elif kind == "bits":
        text = _flipped(text, chance)
    elif kind == "slice":
        at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        text = text[:to] + text[at:to] * chance.choice((1, 1, 2, 20)) + text[to:]
    elif kind == "number":
        text = _replaced(text, rb"-?\d+(\.\d+)?(e-?\d+)?", chance.choice(NUMBERS), chance)
    elif kind == "text":
        text = _replaced(text, rb'"[^"]*"', chance.choice(WORDS), chance)
    elif kind == "type":
        text = _replaced(text, rb'"[A-Z0-9]+"', f'"{chance.choice(TYPES)}"', chance)
    elif kind == "nest":
        text = _nested(text, chance)
    else:  # bytes behind the JSON that are too many, too few, or no numbers
        raw = chance.choice((raw * 2, raw[:-1], raw + b"\0", b"\xff" * len(raw), b"\0\0\xc0\x7f"))
    # The field goes on to say the truth most of the time, so that what follows it is looked at.
    told = None if length is None else len(text) if chance.random() < 0.8 else length
    return kind, text + raw, told


def _length(body: bytes, length: int | None, chance: random.Random) -> int | None:
    """Another length of the JSON than the right one."""
    right = len(body) if length is None else length
    near = right + chance.randint(-3, 3)
    return chance.choice((None, 0, 1, near, near, len(body), len(body) + 1, 2**31, 2**63, -1))


def _flipped(text: bytes, chance: random.Random) -> bytes:
    changed = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _replaced(text: bytes, pattern: bytes, word: str, chance: random.Random) -> bytes:
    """One match becomes the word."""
    places = list(re.finditer(pattern, text))
    if not places:
        return text
    place = chance.choice(places)
    return text[: place.start()] + word.encode() + text[place.end() :]


def _nested(text: bytes, chance: random.Random) -> bytes:
    """Brackets where a value begins, closed behind it or not."""
    places = [place.start() for place in re.finditer(rb"[\[{\d\"]", text)]
    if not places:
        return text
    at, deep = chance.choice(places), chance.choice((1, 2, 31, 40, 1000, 100_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b""), (b"[[],", b"]")))
    return text[:at] + opening * deep + text[at : at + 1] + closing * deep + text[at + 1 :]
