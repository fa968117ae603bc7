"""What the operating system grants this process. Floor 0: standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AGAIN",
    "BUSY",
    "Watch",
    "believed",
    "born",
    "collected_once",
    "cores",
    "memory_held",
    "memory_kept",
]

_TRIM, _MMAP = -1, -3
"""`mallopt`: free memory at the top that goes back to the system; size from which a block is
mapped by itself, and unmapped as soon as it is freed."""
_LARGEST = 32 << 20
"""What glibc raises the size for mapping to by itself, in bytes; trimming to twice of it."""
_PROBE = 4 << 20
"""Bytes held for a moment to see whether the system notices; its counters lag by 64 pages a
processor."""

BUSY = 0.25
"""Processors that other programs keep busy, from which on a measurement of this machine says more
about them: with two cores, of which half of one was taken, operations of a few microseconds took
up to 16 ms, whenever a thread had to wait for its turn."""
AGAIN = 600.0
"""Seconds after which such a measurement is made again."""

_KEEPERS: list[object] = []
"""One for each block of `memory_kept` that is not over: the C library has one setting for all."""
_KEEPING = threading.RLock()
"""Taken again where the collector of garbage ends a block that was never left, while it is held."""

_BORN = time.monotonic() - time.process_time()


def cores() -> int:
    """Processors that this process may use: affinity counts, and hyper-threads do."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS and Windows have no affinity
        return os.cpu_count() or 1


def born() -> float:
    """When this program began, by `time.monotonic`, to some hundredths of a second.

    The operating system knows when the process began, but a shell that turns into the program has
    lived before it. What counts is the processor's time until this module was imported.
    """
    return _BORN


class Watch:
    """How much of the machine other programs take meanwhile."""

    def __init__(self) -> None:
        self._busy, self._own, self._began = _busy(), _own(), time.monotonic()

    def others(self) -> float | None:
        """Processors that others kept busy since the watch began, on average; the hypervisor's
        share counts. None where the system does not say. Helpers count once they have ended."""
        busy = _busy()
        if busy is None or self._busy is None:
            return None
        spent = max(1e-9, time.monotonic() - self._began)
        return round(max(0.0, busy - self._busy - (_own() - self._own)) / spent, 2)


def believed(busy: float, at: float) -> bool:
    """Whether a measurement that was kept still counts: nobody disturbed it, or it was just now.

    Args:
        busy: processors that others kept busy meanwhile.
        at: when it was made, by `time.time`.
    """
    # Which clock it is does not matter: one that was set back measures once more.
    return busy < BUSY or 0 <= time.time() - at < AGAIN


def _busy() -> float | None:
    """Processor seconds, since the start of the machine, of everything on those that are ours."""
    try:
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123
            rows = [line.split() for line in file if line.startswith("cpu")]
        # user, nice, system; not idle, not waiting for a disk; interrupts, and what others stole.
        ticks = [sum(map(int, row[1:4] + row[6:9])) for row in rows if row[0] in mine]
    except (AttributeError, OSError, ValueError):  # not Linux
        return None
    return float(sum(ticks)) / os.sysconf("SC_CLK_TCK") if ticks else None


def _own() -> float:
    """Processor seconds of this process and of those it started, once they have ended."""
    return sum(os.times()[:4])


@contextlib.contextmanager
def memory_held() -> Iterator[list[int]]:
    """Notes the most memory that this process holds within the block beyond what it held before.

    Gives a list that holds the bytes when the block is over; it stays empty where the system does
    not say (other systems than Linux, or one that does not let the mark be set back).
    """
    found: list[int] = []
    if not _mark_moves():
        yield found
        return
    try:
        before = _mark_set_back()
    except (OSError, ValueError):
        yield found
        return
    try:
        yield found
    finally:
        with contextlib.suppress(OSError, ValueError):
            found.append(max(0, _high_water() - before))


def _mark_moves() -> bool:
    """Whether the mark follows what is held: sandboxes accept that it be set back, and leave it."""
    try:
        before = _mark_set_back()
        with mmap.mmap(-1, _PROBE) as block:
            for page in range(0, _PROBE, mmap.PAGESIZE):
                block[page] = 1
        after = _high_water()
    except (OSError, ValueError):
        return False
    return after - before > _PROBE // 2


def _mark_set_back() -> int:
    """Sets the high-water mark back to what is held now (proc(5), clear_refs), and gives it."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("5")
    return _high_water()


def _high_water() -> int:
    """Bytes of memory that this process held at most."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    raise ValueError("no VmHWM")


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Within the block, memory that was freed is used again instead of going back to the system.

    The maps of one training step are as large as those of the step before. By default glibc gives
    each of them back and asks for it again, and the system clears every page anew: a seventh of
    the time of `speednet` at batch 512, which learns 1.2 times as fast inside this block. It may
    stand inside itself, as where a callback of a training asks the network, and in several threads:
    the last to leave gives the memory back. Where the C library is another one, nothing happens.
    """
    try:
        libc = ctypes.CDLL(None)
        tune, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError, TypeError):
        yield
        return
    me = object()
    with _KEEPING:
        _KEEPERS.append(me)
        tune(_MMAP, 1 << 30)
        tune(_TRIM, (1 << 31) - 1)
    try:
        yield
    finally:
        with _KEEPING:
            _KEEPERS.remove(me)
            if not _KEEPERS:
                tune(_MMAP, _LARGEST)
                tune(_TRIM, 2 * _LARGEST)
                trim(0)


@contextlib.contextmanager
def collected_once() -> Iterator[None]:
    """Within the block, the collector of cyclic garbage looks at each object once at most.

    Its full collections visit every object that there is, 300,000 once PyTorch is loaded, and take
    0.2 s on a slow processor: in a training of small steps 4 % of all time. What the first one
    leaves is set aside (`gc.freeze`), and later ones visit what is newer. A cycle among what was
    set aside stays until the block is over; whatever else is garbage goes as always. Where the
    program sets objects aside itself, nothing happens.
    """
    if gc.get_freeze_count():
        yield
        return
    waiting = True

    def freeze(phase: str, info: dict[str, int]) -> None:
        nonlocal waiting
        if waiting and phase == "stop" and info["generation"] == 2:
            waiting = False
            gc.freeze()

    gc.callbacks.append(freeze)
    try:
        yield
    finally:
        gc.callbacks.remove(freeze)
        gc.unfreeze()
