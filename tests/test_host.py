"""The collector of cyclic garbage visits what is old once, and the caller has it back as it was."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from neocog.host import collected_once

if TYPE_CHECKING:
    from collections.abc import Iterator


class Knot:
    """A cycle: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    assert not gc.get_freeze_count()
    before = list(gc.callbacks)
    yield
    assert gc.callbacks == before
    gc.unfreeze()


def test_what_is_older_than_the_first_collection_is_visited_no_more() -> None:
    old = Knot()
    seen = weakref.ref(old)
    with collected_once():
        gc.collect(1)
        assert not gc.get_freeze_count()  # that was no full one
        gc.collect()
        kept = gc.get_freeze_count()
        assert kept > 10_000  # the interpreter, pytest, torch
        assert len(gc.get_objects()) < kept
        del old
        gc.collect()
        assert seen() is not None  # set aside, until the block is over
    assert not gc.get_freeze_count()
    gc.collect()
    assert seen() is None


def test_garbage_that_is_new_goes_as_always() -> None:
    with collected_once():
        gc.collect()
        young = weakref.ref(Knot())
        gc.collect()
        assert young() is None


def test_garbage_from_before_goes_with_the_first_collection() -> None:
    old = weakref.ref(Knot())
    with collected_once():
        gc.collect()
        assert old() is None


def test_a_program_that_sets_objects_aside_itself_is_left_alone() -> None:
    gc.freeze()
    with collected_once():
        young = Knot()
        gc.collect()
        assert any(one is young for one in gc.get_objects())
    assert gc.get_freeze_count()


def test_an_error_gives_the_collector_back() -> None:
    def fail() -> None:
        gc.collect()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), collected_once():
        fail()
    assert not gc.get_freeze_count()
