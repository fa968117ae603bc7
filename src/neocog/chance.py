"""Chance is a function: every random number comes from what it is for, not from a state.

Floor 0: standard library only. The functions below use nothing but `* ^ >> & +`, so that the same
lines serve Python integers, NumPy int64 arrays and torch int64 tensors, on any device, with equal
results. Sample order comes from (seed, epoch), augmentation from (seed, epoch, sample id), dropout
from (seed, step). Nothing is stored, so nothing can be lost: a resumed run draws the same numbers
as one that was never stopped, and the number of workers cannot matter.
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["MASK", "draw", "key", "mix"]

MASK = 0xFFFFFFFF
"""All draws are integers in [0, 2³²)."""


def mix(x: Any) -> Any:
    """A bijection of 32-bit integers in which every input bit flips every output bit half the time.

    `lowbias32` of Chris Wellons' hash prospector with the constants of its best-known improvement
    (bias 0.107). 64-bit overflow does no harm: only the low 32 bits of each product are kept, and
    those are the same whether or not the product wrapped around.

    Args:
        x: an int, or an int64 array or tensor, of values in [0, 2³²).

    >>> mix(1) == mix(1), 0 <= mix(12345) < 2**32
    (True, True)
    """
    x = x ^ (x >> 16)
    x = (x * 0x21F0AAAD) & MASK
    x = x ^ (x >> 15)
    x = (x * 0xD35A2D97) & MASK
    return x ^ (x >> 15)


@functools.lru_cache(maxsize=4096)
def key(*parts: int | str) -> int:
    """One 32-bit key from what a draw is for, for example `key(seed, epoch, "flip")`.

    Integers may be of any size; strings are hashed by their UTF-8 bytes (FNV-1a), not by Python's
    salted `hash`. The order of the parts matters. Most keys are wanted for every batch of an epoch,
    so the last ones are remembered.

    >>> key(0, 1, "flip") != key(1, 0, "flip") != key(0, 1, "shift")
    True
    """
    state = 0x9E3779B9
    for part in parts:
        if isinstance(part, str):
            value = 0x811C9DC5
            for byte in part.encode():
                value = ((value ^ byte) * 0x01000193) & MASK
            words = [value, len(part) & MASK, 1]
        else:
            words = [part & MASK, (part >> 32) & MASK, 2]
        for word in words:
            state = mix((state * 31 + word + 0x9E3779B9) & MASK)
    return state


def draw(key: int, ids: Any, counter: int = 0) -> Any:
    """One 32-bit integer for each id, from (key, id, counter).

    Args:
        key: what the draw is for, from `key`.
        ids: an int, or an int64 array or tensor of non-negative ids below 2³².
        counter: tells several draws for the same purpose apart.

    Returns:
        Integers in [0, 2³²), of the type and shape of `ids`.
    """
    salt = mix((key + counter * 0x9E3779B9) & MASK)
    return mix(mix((ids ^ salt) & MASK) ^ mix((salt + 0x85EBCA6B) & MASK))
