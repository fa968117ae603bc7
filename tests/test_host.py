"""The collector of cyclic garbage visits what is old once, freed memory is used again, and the
caller has both back as they were; a program knows when it began."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from neocog import host
from neocog.host import collected_once

if TYPE_CHECKING:
    from collections.abc import Iterator


ALONE = {**os.environ, "PYTHONPATH": str(Path(host.__file__).parents[1])}
"""Surroundings of a program that finds this neocog."""


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


def test_a_program_knows_when_it_began() -> None:
    """Waiting before the import is not the program's, and neither is what a shell did before it
    turned into the program."""
    began = time.monotonic()
    found = subprocess.run(
        [
            "bash",
            "-c",
            f"sleep 0.7; exec {sys.executable} -c 'from neocog import host; print(host.born())'",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=ALONE,
    )
    ended = time.monotonic()
    assert began + 0.65 <= float(found.stdout) <= ended


OVERLAPPING = """
import resource, torch
from neocog.host import memory_kept

def faults(maps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(maps):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(20)
told = [faults(20)]
first, second = memory_kept(), memory_kept()
first.__enter__()
faults(20)
told.append(faults(20))
second.__enter__()
first.__exit__(None, None, None)
told.append(faults(20))
second.__exit__(None, None, None)
print(*told, faults(1))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_memory_is_kept_inside_and_given_back_outside() -> None:
    """Page faults of maps of 64 MB: a process of its own, where nothing else allocates. Blocks may
    overlap, as those of two threads do.

    What glibc does with a large free block after that depends on where it lies, so only the first
    map after the blocks counts: the system must bring in each of its pages anew.
    """
    found = subprocess.run(
        [sys.executable, "-c", OVERLAPPING], capture_output=True, text=True, check=True, env=ALONE
    )
    plain, alone, shared, after = (int(one) for one in found.stdout.split())
    assert max(alone, shared) < plain / 10
    assert after > 0.9 * plain / 20
