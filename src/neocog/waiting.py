"""How threads wait for one another. Floor 0: standard library only.

PyTorch shares each operation out among threads of GNU OpenMP, which at its end wait for the last of
them. Waiting in a loop is quick: a sleeping thread takes longer to wake than many an operation of a
small network takes. But where another program holds a processor, the threads that wait in loops
hold the others, and the one that all wait for cannot go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import TYPE_CHECKING

from neocog.host import Watch, cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["attentive", "wait_patiently"]

SPIN = "1000"
"""Turns in the loop before a thread sleeps, for whoever shares the machine with a server's clients
or with decoders. The library's own 300,000 are some milliseconds."""
FIRST, EVERY = 0.2, 0.5
"""Seconds until the first look at what others do, and between two."""
BUSY, QUIET = 0.15, 0.08
"""Processors that others keep busy: above the one, threads soon sleep; below the other, they wait
in loops again. The system counts in hundredths of a second, so less is noise."""

MOST = 33
"""Threads of a crowd, at most: larger machines are left to wait as they do by default."""
GROUPS, OWN_GROUP = "/sys/fs/cgroup", "/proc/self/cgroup"
"""Where the limits of control groups stand, and which ones are this program's."""


def wait_patiently() -> None:
    """Let threads soon sleep while they wait; call it before torch is imported.

    What the user has set (`OMP_WAIT_POLICY`, `GOMP_SPINCOUNT`) stays.
    """
    if not _is_told():
        os.environ["GOMP_SPINCOUNT"] = SPIN


def _is_told() -> bool:
    """Whether the environment says how threads wait."""
    return "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ


@contextlib.contextmanager
def attentive(
    threads: int, others: Callable[[], Callable[[], float | None]] | None = None
) -> Iterator[None]:
    """Within the block, threads wait in loops while the machine is theirs, and soon sleep where
    other programs want it.

    Measured with `lenet5` in steps of 128 digits on 2 cores: 8.2 ms a step on a quiet machine, 10.5
    where threads always sleep soon; beside a busy program 27 ms, 36 where they never do.

    Nothing happens with one thread, where the environment says how to wait, and with another
    library than GNU OpenMP.

    Args:
        threads: that the work inside is shared out among.
        others: begins to watch, and gives what says how many processors others kept busy since;
            None: `host.Watch`.
    """
    library = None if threads < 2 or _is_told() else _library()
    if library is None:
        yield
        return
    over = threading.Event()
    watch = others or (lambda: Watch().others)
    thread = threading.Thread(
        target=_attend, args=(library, over, watch), name="neocog-attentive", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _attend(
    library: ctypes.CDLL, over: threading.Event, watch: Callable[[], Callable[[], float | None]]
) -> None:
    """Look again and again, until it is over."""
    with contextlib.ExitStack() as crowd:
        crowded, seen, wait = False, watch(), FIRST
        while not over.wait(wait):
            busy, seen, wait = seen(), watch(), EVERY
            if busy is None:  # the system does not say
                return
            if busy > BUSY and not crowded and _room(cores() + 1):
                try:
                    crowd.enter_context(_crowd(library))
                except RuntimeError:  # no thread can begin
                    return
                crowded = True
            elif busy < QUIET and crowded:
                crowd.close()
                crowded = False


@contextlib.contextmanager
def _crowd(library: ctypes.CDLL) -> Iterator[None]:
    """More threads than processors, all but those at work asleep: the library, which knows its own
    number, then lets a thread wait for 100 turns only ("throttled", in its `config/linux/wait.h`).

    They are a team of a thread of their own, whose end is theirs.
    """
    leave, ready = threading.Event(), threading.Event()

    def gather() -> None:
        # Any function without arguments will do: that each of them runs it is all.
        try:
            work = ctypes.cast(library.omp_get_num_threads, ctypes.c_void_p)
            library.GOMP_parallel(work, None, ctypes.c_uint(cores() + 1), ctypes.c_uint(0))
        finally:
            ready.set()
        leave.wait()

    thread = threading.Thread(target=gather, name="neocog-crowd", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def _room(count: int) -> bool:
    """Whether so many more threads may begin, with some to spare: where one may not, the library
    ends the program."""
    if count > MOST:
        return False
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        if most != resource.RLIM_INFINITY and most < 100 * count:  # how many run, it does not say
            return False
        with open(OWN_GROUP, encoding="utf-8") as file:  # noqa: PTH123
            places = [line.rstrip("\n").split(":", 2)[1:] for line in file]
        return all(_fits(f"{GROUPS}/{kind}".rstrip("/") + path, count) for kind, path in places)
    except (ImportError, OSError, ValueError):  # no such limits
        return True


def _fits(folder: str, count: int) -> bool:
    """Whether a control group, and all above it, let so many begin."""
    while len(folder) >= len(GROUPS):
        try:
            with open(f"{folder}/pids.max", encoding="ascii") as file:  # noqa: PTH123
                most = file.read().strip()
            with open(f"{folder}/pids.current", encoding="ascii") as file:  # noqa: PTH123
                if most != "max" and int(most) - int(file.read()) < 4 * count:
                    return False
        except (OSError, ValueError):  # it has none
            pass
        folder = folder.rpartition("/")[0]
    return True


def _library() -> ctypes.CDLL | None:
    """The GNU OpenMP that PyTorch brought; None where it is another one, or not there yet."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            paths = {line.split(maxsplit=5)[-1].strip() for line in file if "libgomp" in line}
        # Others, as scikit-learn, bring one of their own, which shares nothing with it.
        path = next((one for one in sorted(paths) if f"{os.sep}torch{os.sep}" in one), None)
        library = None if path is None else ctypes.CDLL(path)
        return library if library and library.GOMP_parallel else None
    except (OSError, AttributeError):
        return None
