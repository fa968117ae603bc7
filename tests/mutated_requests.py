"""Inference requests that are almost in order: valid bodies, and what is left of them.

    for name, body, length in mutations(seed, spec, count=100): ...

Everything is decided by the seed. Standard library and NumPy only.
"""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from faults.mutate import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neocog.serve.protocol import Spec

__all__ = ["mutations", "valid"]

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


def valid(spec: Spec, chance: random.Random) -> tuple[bytes, int | None]:
    """A request that is in order: body, and bytes of its JSON where binary data follow."""
    dtype = chance.choice(spec.dtypes)
    sides = [chance.randint(1, 6) if side is None else side for side in spec.size]
    shape = [chance.randint(1, min(3, spec.batch)), spec.channels, *sides]
    draw = np.random.default_rng(chance.randrange(2**32))
    if dtype == "float32":
        samples = draw.standard_normal(shape, dtype=np.float32)
    else:
        bounds = np.iinfo(dtype)
        samples = draw.integers(bounds.min, bounds.max, shape, dtype=dtype, endpoint=True)
    names = {"uint8": "UINT8", "int16": "INT16", "float32": "FP32"}
    given: dict[str, Any] = {"name": spec.input, "shape": shape, "datatype": names[dtype]}
    request: dict[str, Any] = {"inputs": [given]}
    if chance.random() < 0.5:
        request["id"] = chance.choice(("", "42", "größer 猫", 'a"b\\c'))
    if chance.random() < 0.5:
        request["parameters"] = {"binary_data_output": chance.random() < 0.5, "priority": 1}
    if chance.random() < 0.5:
        listed = chance.sample(spec.outputs, chance.randint(1, len(spec.outputs)))
        request["outputs"] = [{"name": one.name, "parameters": {}} for one in listed]
        for one in request["outputs"]:
            if spec.classes and not spec.whole and chance.random() < 0.5:
                one["parameters"]["classification"] = chance.randint(1, 3)
            if chance.random() < 0.5:
                one["parameters"]["binary_data"] = chance.random() < 0.5
    raw = b""
    how = chance.choice(("flat", "nested", "binary"))
    if how == "binary":
        raw = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
        given["parameters"] = {"binary_data_size": len(raw)}
    else:
        given["data"] = (samples.reshape(-1) if how == "flat" else samples).tolist()
    text = json.dumps(request, ensure_ascii=chance.random() < 0.5).encode()
    return text + raw, len(text) if raw else None


def mutations(seed: int, spec: Spec, count: int) -> Iterator[tuple[str, bytes, int | None]]:
    """Bodies that were in order before something was done to them.

    Args:
        seed: decides all.
        spec: of the model that they are for.
        count: of them.

    Yields:
        What was done, the body, and what the header field says of the length of its JSON: None
        where it is not sent.
    """
    for index in range(count):
        chance = random.Random(f"{seed} {index}")
        body, length = valid(spec, chance)
        names = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            name, body, length = _changed(body, length, chance)
            names.append(name)
        yield "+".join(names), body, length


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
