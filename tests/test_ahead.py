"""Work ahead: the same items in the same order, never too far ahead, and an end in every case."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neocog.data.ahead import ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def workers() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("neocog-ahead")}


def soon(reached: Callable[[], bool]) -> bool:
    """Whether it comes true within ten seconds."""
    ends = time.monotonic() + 10
    while not reached() and time.monotonic() < ends:
        time.sleep(0.001)
    return reached()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.integers()), st.integers(1, 5))
def test_nothing_is_changed_lost_or_moved(items: list[int | None], depth: int) -> None:
    assert list(ahead(iter(items), depth)) == items
    assert not workers()


def test_work_goes_on_while_the_caller_works_but_not_too_far() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    depth = 3
    stream = ahead(source(), depth)
    assert taken == []
    for item in stream:
        # The caller is busy here; the thread fills up what it may, and then waits.
        full = min(20, item + 1 + depth)
        assert soon(lambda full=full: len(taken) == full)
        time.sleep(0.005)
        assert len(taken) == full
    assert not workers()


def test_the_caller_never_takes_from_the_source_itself() -> None:
    def source() -> Iterator[int]:
        for _ in range(5):
            yield threading.get_ident()

    seen = set(ahead(source(), 2))
    assert len(seen) == 1
    assert threading.get_ident() not in seen


@pytest.mark.parametrize("good", [0, 1, 5])
def test_an_error_comes_after_the_items_before_it(good: int) -> None:
    def source() -> Iterator[int]:
        yield from range(good)
        raise KeyError("torn")

    stream = ahead(source(), 2)
    assert [next(stream) for _ in range(good)] == list(range(good))
    with pytest.raises(KeyError, match="torn"):
        next(stream)
    assert list(stream) == []
    assert not workers()


def endless(closed: list[bool]) -> Iterator[int]:
    try:
        while True:
            yield 1
    finally:
        closed.append(True)


def test_closing_ends_the_thread_and_the_source() -> None:
    closed: list[bool] = []
    stream = ahead(endless(closed), 2)
    next(stream)
    assert len(workers()) == 1
    stream.close()  # type: ignore[attr-defined]
    assert not workers()
    assert closed == [True]


def test_letting_go_ends_the_thread() -> None:
    closed: list[bool] = []
    for _ in ahead(endless(closed), 2):
        break
    assert not workers()
    assert closed == [True]
    ahead(endless(closed), 2)  # never begun
    assert not workers()


def test_an_error_of_the_caller_ends_the_thread() -> None:
    def work() -> None:
        for _ in ahead(endless([]), 2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    # pytest holds the traceback, whose frame holds the iterator, until the block above is left.
    assert soon(lambda: not workers())


def test_a_depth_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ahead(iter("a"), 0)
