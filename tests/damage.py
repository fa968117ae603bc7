"""How tests break a file, and what they expect of a refusal."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings

from neocog.data.sources import read, signature
from neocog.errors import DataError

FUZZ = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def mutated(content: bytes, seed: int) -> bytes:
    """The content with a few bytes changed, perhaps cut, perhaps lengthened."""
    chance = random.Random(seed)
    data = bytearray(content)
    for _ in range(chance.randint(0, 5)):
        data[chance.randrange(len(data))] = chance.choice(
            [0, 1, 34, 44, 255, chance.randrange(256)]
        )
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    if chance.random() < 0.2:
        data += chance.randbytes(chance.randint(1, 5000))
    return bytes(data)


def refused(path, *words):
    """Refused in words that name all of these; the signature is indifferent."""
    with pytest.raises(DataError) as caught:
        read(str(path))
    for word in words:
        assert str(word) in str(caught.value)
    assert len(signature(str(path))) == 64
