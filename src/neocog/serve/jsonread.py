"""JSON of strangers → plain values and arrays. Room serve; floor 4; imports NumPy and limits.

Nothing is given to the parser before its brackets are counted, and no array is walked number by
number in Python: five million of them are read in a second.
"""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.serve.limits import RequestError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["fields", "numbers", "parsed", "refused", "shown", "text", "typed"]

MOST_OBJECTS = 64
"""Objects in one request; one that is in order has some eight."""
MOST_ARRAYS = 2**18
"""Arrays in one request. Each costs the parser forty times its length in memory, and time; what has
more rows than this is sent flat."""
MOST_TEXTS = 4096
"""Texts in one request, names of fields among them; one that is in order has some thirty."""
_MARKS = b'"[]{}'
_OTHERS = bytes(set(range(256)) - set(_MARKS))
_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1
_WORDS: dict[type, str] = {bool: "true or false", int: "a whole number", str: "text"}
_CODES = {"uint8": "B", "int16": "h"}
"""Types of `array`, which refuses what does not fit."""


def refused(text: str) -> RequestError:
    """Status 400, with this text."""
    return RequestError(400, text)


def shown(value: Any) -> str:
    """A value of JSON, short enough for a message.

    >>> shown(True), shown([1, 2]), shown({}), shown("a\\0b"), shown(1.5)
    ('true', 'an array of 2', 'an object', "'a\\\\x00b'", '1.5')
    """
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, str):
        return f"'{printable(value[:40])}{'…' if len(value) > 40 else ''}'"
    words = json.dumps(value)
    return words if len(words) <= 40 else f"{words[:40]}…"


def _marks(body: bytes) -> NDArray[np.uint8]:
    """The brackets of a JSON text that stand outside its texts, and the quotes, in order.

    Of what is no JSON they are those up to its first fault at least; no parser reads on.
    """
    if b"\\" in body:
        # Pairs first: what is left of a run of backslashes tells whether a quote behind it counts.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(body.translate(None, _OTHERS), dtype=np.uint8)
    quotes = marks == ord('"')
    found: NDArray[np.uint8] = marks[~np.logical_xor.accumulate(quotes) | quotes]
    return found


def _refuse_excess(body: bytes, depth: int) -> None:
    """Stop at what is small as JSON and large, or deep, as Python's values."""
    marks = _marks(body)
    deepest = int(_STEPS[marks].cumsum(dtype=np.int32).max(initial=0))
    if deepest > depth:
        raise refused(f"expected JSON of at most {depth} brackets in each other, found {deepest}")
    for mark, share, most, noun in (
        ("{", 1, MOST_OBJECTS, "objects"),
        ("[", 1, MOST_ARRAYS, "arrays, rather than flat data,"),
        ('"', 2, MOST_TEXTS, "texts"),
    ):
        found = int(np.count_nonzero(marks == ord(mark))) // share
        if found > most:
            raise refused(f"expected at most {most} {noun} in a request, found {found}")


def parsed(body: bytes, depth: int) -> Any:
    """A JSON text as Python's values.

    Args:
        body: UTF-8.
        depth: brackets within brackets, at most.

    Raises:
        RequestError: 400; no JSON, too deep, a name twice in one object, or a number that no
            machine has.

    >>> parsed(b'{"a": [1, 2.5, "x"]}', 2)
    {'a': [1, 2.5, 'x']}
    """
    _refuse_excess(body, depth)
    try:
        words = str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise refused(f"expected JSON in UTF-8, found other bytes at {error.start}") from None
    try:
        return json.loads(words, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        found = f"{error.msg} at character {error.pos}"
    except RecursionError:
        found = "too many brackets"
    except ValueError:  # Python reads no whole number of more than some thousand digits
        found = "a number of too many digits"
    raise refused(f"expected JSON, found: {found}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise refused(f"expected each name once in an object, found {shown(name)} {times} times")
    return found


def _no_constant(word: str) -> Any:
    raise refused(f"expected JSON, which has finite numbers only, found {word}")


def fields(value: Any, where: str, needed: Sequence[str], allowed: Sequence[str]) -> dict[str, Any]:
    """An object that has these fields and no others.

    Args:
        value: parsed.
        where: what it is, for messages.
        needed: names that must be there.
        allowed: names that may be there as well.

    Raises:
        RequestError: 400.
    """
    if not isinstance(value, dict):
        raise refused(f"{where}: expected an object, found {shown(value)}")
    missing = [name for name in needed if name not in value]
    if missing:
        raise refused(f"{where}: expected the field {missing[0]!r}, found none")
    for name in value:
        if name not in needed and name not in allowed:
            known = ", ".join([*needed, *allowed])
            raise refused(f"{where}: expected the fields {known}, found {shown(name)}")
    return value


def text(value: Any, where: str, most: int) -> str:
    """Text of at most so many characters, which UTF-8 can write.

    Raises:
        RequestError: 400.
    """
    if not isinstance(value, str):
        raise refused(f"{where}: expected text, found {shown(value)}")
    if len(value) > most:
        raise refused(f"{where}: expected at most {most} characters, found {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused(f"{where}: expected text, found half a surrogate pair") from None
    return value


def typed(value: Any, kind: type, where: str) -> Any:
    """A value of exactly this type: `true` is no number.

    Raises:
        RequestError: 400.
    """
    if type(value) is not kind:
        raise refused(f"{where}: expected {_WORDS[kind]}, found {shown(value)}")
    return value


def numbers(data: Any, shape: Sequence[int], dtype: str, where: str) -> NDArray[Any]:
    """Numbers of JSON as an array, every one of them checked.

    Args:
        data: nested as `shape` says, or flat in row-major order.
        shape: positive.
        dtype: `uint8`, `int16` or `float32`.
        where: whose they are, for messages.

    Returns:
        An array of that shape and type, writable.

    Raises:
        RequestError: 400; another length or nesting, something that is no number, a fraction among
            whole numbers, or a number that the type does not hold.

    >>> numbers([[1, 2], [3, 4]], (2, 2), "uint8", "x").tolist()
    [[1, 2], [3, 4]]
    """
    flat = _flattened(data, shape, where)
    kinds = set(map(type, flat))
    if not kinds <= {int, float}:
        at, wrong = next((i, x) for i, x in enumerate(flat) if type(x) not in (int, float))
        raise refused(f"{where}: expected numbers, found {shown(wrong)} at {at}")
    if dtype == "float32":
        return _floats(flat, where).reshape(shape)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    try:
        if float in kinds:
            return _whole(flat, dtype, where).reshape(shape)
        return np.frombuffer(array(_CODES[dtype], flat), dtype=dtype).reshape(shape)
    except OverflowError:
        at, wrong = next((i, x) for i, x in enumerate(flat) if not low <= x <= high)
        raise refused(f"{where}: expected {low} to {high}, found {shown(wrong)} at {at}") from None


def _flattened(data: Any, shape: Sequence[int], where: str) -> list[Any]:
    """What is in nested or flat lists, in row-major order; its length is that of the shape."""
    if not isinstance(data, list):
        raise refused(f"{where}: expected an array, found {shown(data)}")
    level: list[Any] = data
    nested = bool(level) and type(level[0]) is list
    if not nested and len(level) != math.prod(shape):
        raise refused(f"{where}: expected {math.prod(shape)} numbers, found {len(level)}")
    if not nested:
        return level
    if len(level) != shape[0]:
        raise refused(f"{where}: expected {shape[0]} arrays, found {len(level)}")
    for axis, side in enumerate(shape[1:], start=1):
        if set(map(type, level)) != {list}:
            wrong = next(x for x in level if type(x) is not list)
            raise refused(f"{where}: expected arrays {axis} deep, found {shown(wrong)}")
        if set(map(len, level)) != {side}:
            wrong = next(x for x in level if len(x) != side)
            raise refused(
                f"{where}: expected arrays of {side} at depth {axis}, found {shown(wrong)}"
            )
        level = list(itertools.chain.from_iterable(level))
    return level


def _whole(flat: list[Any], dtype: str, where: str) -> NDArray[Any]:
    """Whole numbers of which some are written with a point or an exponent: 1.0, 1e2.

    Raises:
        OverflowError: one that the type does not hold.
    """
    exact = np.array(flat, dtype=np.float64)
    parts = np.flatnonzero(exact != np.trunc(exact))
    if parts.size:
        at = int(parts[0])
        raise refused(f"{where}: expected whole numbers, found {shown(flat[at])} at {at}")
    if exact.min() < np.iinfo(dtype).min or exact.max() > np.iinfo(dtype).max:
        raise OverflowError
    return exact.astype(dtype)


def _floats(flat: list[Any], where: str) -> NDArray[np.float32]:
    """Numbers as float32, all finite."""
    try:
        exact = np.array(flat, dtype=np.float64)
    except OverflowError:  # a whole number beyond the largest double
        raise refused(f"{where}: expected numbers of FP32, found one that is too large") from None
    with np.errstate(over="ignore"):
        held = exact.astype(np.float32)
    if not np.isfinite(held).all():
        at = int(np.argmin(np.isfinite(held)))
        raise refused(f"{where}: expected numbers of FP32, found {shown(flat[at])} at {at}")
    return held
