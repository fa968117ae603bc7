"""Good files made bad: the one mutator of the tests and of `faults.fuzz`. Standard library only."""

from __future__ import annotations

import random
import re
import struct
import zlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["checksummed_png", "checksummed_tar", "mutated"]

ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
NUMBERS: tuple[int, ...] = (
    0,
    1,
    -1,
    2,
    7,
    8,
    16,
    64,
    100,
    127,
    128,
    255,
    256,
    4096,
    32767,
    32768,
    65535,
    65536,
)
NUMBERS += (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
"""Where counts, lengths and offsets overflow, wrap or run out of memory."""
WORDS: tuple[bytes, ...] = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-1",
    b"null",
    b"true",
    b"\0",
    b"\xff\xfe",
    b"\xc3\x28",
)
WORDS += (
    b"../",
    b"/etc/passwd",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"9" * 5000,
    b'"',
    b",",
    b"\n",
    b"'",
)
"""What upsets readers of text."""
HEAD = 512
"""Bytes at the start where most fields of most formats lie."""


def mutated(content: bytes, seed: int | str, others: Sequence[bytes] = ()) -> bytes:
    """The content with a few things changed: bits, bytes, numbers, words, or parts of it.

    Args:
        content: a good file.
        seed: decides all.
        others: files whose ends may be put to its beginning.
    """
    chance = random.Random(seed)
    data = bytearray(content)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 4, 6))):
        _change(data, chance)
    if others and chance.random() < 0.1:
        other = chance.choice(others)
        data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]
    if chance.random() < 0.2:
        del data[chance.randrange(len(data) + 1) :]
    if chance.random() < 0.1:
        data += chance.randbytes(chance.randint(1, 5000))
    return bytes(data)


def _change(data: bytearray, chance: random.Random) -> None:
    """One change in place."""
    if not data:
        return
    at = chance.randrange(len(data) if chance.random() < 0.5 else min(HEAD, len(data)))
    length = chance.choice((1, 2, 4, 8, chance.randint(1, 64)))
    kind = chance.randrange(9)
    if kind == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        data[at] = chance.choice((0, 1, 34, 44, 255, chance.randrange(256)))
    elif kind == 2:
        filler = chance.choice((b"\0", b"\xff", b" ", chance.randbytes(1)))
        data[at : at + length] = filler * len(data[at : at + length])
    elif kind == 3:  # an interesting number where one may lie
        data[at : at + length] = _number(chance.choice(NUMBERS), length, chance)
    elif kind == 4:  # a length that is off by a little, or doubled
        size = chance.choice((1, 2, 4))
        order = chance.choice(ORDERS)
        old = int.from_bytes(data[at : at + size], order)
        new = chance.choice((old + 1, old - 1, 2 * old, old + chance.randint(-64, 64)))
        data[at : at + size] = (new % 256**size).to_bytes(size, order)
    elif kind == 5:
        del data[at : at + length]
    elif kind == 6:
        data[at:at] = data[at : at + length] * chance.choice((1, 1, 2, 100))
    elif kind == 7:
        data[at:at] = chance.choice((chance.randbytes(length), chance.choice(WORDS)))
    else:  # a number that is written out
        found = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[: 1 << 16])))
        if found:
            place = chance.choice(found)
            word = chance.choice((str(chance.choice(NUMBERS)).encode(), *WORDS[:5]))
            data[place.start() : place.end()] = word


def _number(value: int, length: int, chance: random.Random) -> bytes:
    size = min(length, 8)
    unsigned: int = value % 256**size
    return unsigned.to_bytes(size, chance.choice(ORDERS))


def checksummed_png(data: bytes) -> bytes:
    """The chunks of a PNG with the checksums that they should have, so that a decoder reads on."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, at)
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def checksummed_tar(data: bytes) -> bytes:
    """A tar whose first headers have the checksums that they should have."""
    fixed = bytearray(data)
    for at in range(0, min(len(fixed) - 511, 16 * 512), 512):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + 512])
    return bytes(fixed)
