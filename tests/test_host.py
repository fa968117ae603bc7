"""The collector of cyclic garbage visits what is old once, freed memory is used again, and the
caller has both back as they were."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
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


OVERLAPPING = """
import resource, torch
from neocog.host import memory_kept

def faults():
    "Pages that the system cleared for large tensors, each freed before the next."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

told = [faults()]
first, second = memory_kept(), memory_kept()
first.__enter__()
faults()  # the first tensor needs its memory
told.append(faults())
second.__enter__()
first.__exit__(None, None, None)
told.append(faults())
second.__exit__(None, None, None)
told.append(faults())
print(*told)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_used_again_until_the_last_block_is_left() -> None:
    """Blocks may overlap, as those of two threads do."""
    answer = subprocess.run(
        [sys.executable, "-c", OVERLAPPING], capture_output=True, text=True, check=True
    )
    before, alone, shared, after = map(int, answer.stdout.split())
    half = before / 16  # of the pages of one tensor
    assert max(alone, shared) < half
    assert after > half  # what was left was given back
