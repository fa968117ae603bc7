"""Chance: equal on every kind of integer, and as even and independent as hashes must be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neocog import chance

words = st.integers(0, chance.MASK)
UNLIKELY = 1e-4
"""The draws are fixed, so a test that passes once passes always; this is how odd they may be."""


def reference_mix(x: int) -> int:
    """The same function in real 32-bit arithmetic, which wraps around by itself."""
    word = np.array([x], dtype=np.uint32)
    word ^= word >> np.uint32(16)
    word *= np.uint32(0x21F0AAAD)
    word ^= word >> np.uint32(15)
    word *= np.uint32(0xD35A2D97)
    word ^= word >> np.uint32(15)
    return int(word[0])


def unmix(y: int) -> int:
    """The inverse of `mix`: each step undone, the last one first."""

    def unshift(value: int, by: int) -> int:
        result = value
        for _ in range(32 // by + 1):
            result = value ^ (result >> by)
        return result

    y = unshift(y, 15)
    y = y * pow(0xD35A2D97, -1, 2**32) % 2**32
    y = unshift(y, 15)
    y = y * pow(0x21F0AAAD, -1, 2**32) % 2**32
    return unshift(y, 16)


@settings(deadline=None)
@given(words)
def test_mix_is_the_32_bit_hash_and_a_bijection(x: int) -> None:
    assert chance.mix(x) == reference_mix(x)
    assert unmix(chance.mix(x)) == x


@pytest.mark.parametrize("spread", [1, 2**16, 0x9E3779B9])
def test_every_input_bit_flips_every_output_bit_half_the_time(spread: int) -> None:
    inputs = (np.arange(20_000, dtype=np.int64) * spread) & chance.MASK
    outputs = chance.mix(inputs)
    for bit in range(32):
        changed = chance.mix(inputs ^ (1 << bit)) ^ outputs
        rates = [np.mean((changed >> other) & 1) for other in range(32)]
        assert np.abs(np.array(rates) - 0.5).max() < 0.025


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=40), words, st.integers(0, 50))
def test_draw_is_equal_for_int_numpy_and_torch(ids: list[int], key: int, counter: int) -> None:
    plain = [chance.draw(key, i, counter) for i in ids]
    numpy = chance.draw(key, np.array(ids, dtype=np.int64), counter)
    tensor = chance.draw(key, torch.tensor(ids), counter)
    assert numpy.dtype == np.int64
    assert tensor.dtype == torch.int64
    assert plain == numpy.tolist() == tensor.tolist()
    assert all(0 <= value <= chance.MASK for value in plain)


@settings(deadline=None)
@given(words, st.integers(0, 50))
def test_one_key_never_gives_two_ids_the_same_number(key: int, counter: int) -> None:
    drawn = chance.draw(key, torch.arange(5000), counter)
    assert len(drawn.unique()) == 5000


@pytest.mark.parametrize("shift", [0, 12, 24], ids=["low bits", "middle bits", "high bits"])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_draws_are_even(shift: int, epoch: int) -> None:
    drawn = chance.draw(chance.key(0, epoch, "flip"), np.arange(50_000, dtype=np.int64))
    counts = np.bincount((drawn >> shift) & 0xFF, minlength=256)
    assert UNLIKELY < stats.chisquare(counts).pvalue < 1 - UNLIKELY


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, 0, "flip", 0, 0), (0, 1, "flip", 0, 0)),
        ((0, 0, "flip", 0, 0), (1, 0, "flip", 0, 0)),
        ((0, 0, "down", 0, 0), (0, 0, "right", 0, 0)),
        ((0, 0, "flip", 0, 0), (0, 0, "flip", 1, 0)),
        ((0, 0, "flip", 0, 0), (0, 0, "flip", 0, 1)),
    ],
    ids=["epochs", "seeds", "purposes", "counters", "neighbours"],
)
def test_draws_for_different_things_are_independent(
    first: tuple[int, int, str, int, int], second: tuple[int, int, str, int, int]
) -> None:
    table = np.zeros((16, 16))
    columns = []
    for seed, epoch, purpose, counter, offset in (first, second):
        ids = np.arange(100_000, dtype=np.int64) + offset
        columns.append(chance.draw(chance.key(seed, epoch, purpose), ids, counter) >> 28)
    np.add.at(table, tuple(columns), 1)
    assert UNLIKELY < stats.chisquare(table.ravel()).pvalue < 1 - UNLIKELY


def test_keys_tell_their_parts_apart() -> None:
    parts: list[tuple[int | str, ...]] = [
        *((seed, epoch) for seed in range(40) for epoch in range(40)),
        *((seed, epoch, name) for seed in range(9) for epoch in range(9) for name in ("a", "b")),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("1",),
        (1,),
        (1 + 2**40,),
        (-1,),
        (),
        ("é",),
        ("e",),
    ]
    keys = [chance.key(*one) for one in parts]
    # Among 1,800 keys of 32 bits a collision by chance has probability 4·10⁻⁴.
    assert len(set(keys)) == len(parts)
    orders = itertools.permutations([0, 1, "flip"])
    assert len({chance.key(*one) for one in orders}) == 6
    assert all(0 <= key <= chance.MASK for key in keys)


def test_keys_never_change() -> None:
    """Runs are repeated from their manifest: these numbers are part of the format."""
    assert chance.key(0, 0, "order") == 1951828061
    drawn = [chance.draw(1951828061, i) for i in range(3)]
    assert drawn == [3550700700, 244789117, 1623976204]
