"""How tests break a file, and what they expect of a refusal."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from faults.mutate import mutated
from neocog.data.sources import read, signature
from neocog.errors import DataError

__all__ = ["FUZZ", "mutated", "refused"]

FUZZ = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def refused(path, *words):
    """Refused in words that name all of these; the signature is indifferent."""
    with pytest.raises(DataError) as caught:
        read(str(path))
    for word in words:
        assert str(word) in str(caught.value)
    assert len(signature(str(path))) == 64
