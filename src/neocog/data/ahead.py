"""Work done before it is asked for. Floor 1, room data; standard library only."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ahead"]

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items in the same order, taken from `items` by one thread while the caller works.

    At most `depth` items are taken beyond the one that the caller has. An error of `items` comes
    out in its place, after the items before it. When the caller stops early, the thread finishes
    the item that it is at, takes no other, and ends before this generator is closed.

    Args:
        items: only the thread takes from it.
        depth: at least 1.

    Raises:
        ValueError: `depth` is not positive.

    >>> list(ahead(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    if depth < 1:
        raise ValueError(f"expected a depth of at least 1, got {depth}")
    return _ahead(items, depth)


def _ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    def take() -> tuple[T] | None:
        for item in items:
            return (item,)
        return None

    # One worker: items are taken one at a time, in the order in which they were asked for.
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="neocog-ahead")
    try:
        waiting = deque(pool.submit(take) for _ in range(depth))
        while (taken := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(take))
            yield taken[0]
    finally:
        pool.shutdown(cancel_futures=True)
