"""A program that answers questions on its pipes: the helper's own end. Floor 1, room data.

Imports the standard library only: a helper starts with as little as it can. `helpers` is the other
end. A message has three parts; a question is one, an answer one or several, and an empty one is a
sign of life.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import struct
import sys
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Part = bytes | bytearray
    Answer = Callable[[bytes, bytes, Callable[[], None]], Iterable[tuple[bytes, bytes, Part]]]
    """First and third part of a question, what to call for a sign of life → messages."""

__all__ = ["TICKS", "answer_all", "receive", "send"]

TICKS = 25
"""A helper that works gives so many signs of life within its caller's patience."""
_HEAD = struct.Struct("<QQQ")
_ERROR_BYTES = 2**16
"""What a helper may write to a file: its complaints, and no more."""
_OPEN_FILES = 64
"""What a helper may hold open: its pipes, one picture, and what Python opens meanwhile."""


def send(
    stream: IO[bytes], first: bytes, second: bytes = b"", third: bytes | bytearray = b""
) -> None:
    """Write a message of three parts."""
    stream.write(_HEAD.pack(len(first), len(second), len(third)) + first + second)
    stream.write(third)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes, bytes]:
    """The three parts of the next message.

    Raises:
        EOFError: the other side ended.
    """

    def exactly(count: int) -> bytes:
        parts = [stream.read(count)]
        while (count := count - len(parts[-1])) > 0:  # an unbuffered stream gives what is there
            if not parts[-1]:
                raise EOFError
            parts.append(stream.read(count))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    first, second, third = _HEAD.unpack(exactly(_HEAD.size))
    return exactly(first), exactly(second), exactly(third)


def answer_all(answer: Answer, *, memory: int, patience: float) -> None:
    """Answer questions until the input ends.

    Args:
        answer: what to do. It is to ask for a sign of life as often as it can.
        memory: bytes of address space beyond those in use now, where the system can tell.
        patience: seconds of the caller's patience.
    """
    # Ctrl-C and a service manager's SIGTERM reach the whole group; the caller ends its helpers in
    # its own good order, and its end is the end of the input.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    # Only we may write to the pipe: a decoder's own chatter goes where errors go.
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    gc.freeze()  # what was imported stays: no collection need ever look at it again
    _limit(memory)
    stdout.write(b".")
    stdout.flush()
    with contextlib.suppress(EOFError):
        while True:
            _answer(answer, stdin, stdout, patience)


def _answer(answer: Answer, stdin: IO[bytes], stdout: IO[bytes], patience: float) -> None:
    """One question. Nothing of it is held while the next is awaited."""
    _end_after(0)
    first, _, third = receive(stdin)
    tick = patience / TICKS
    _end_after(2 * patience)
    due = time.monotonic() + tick

    def sign() -> None:
        """Send an empty message where a tick has passed."""
        nonlocal due
        now = time.monotonic()
        if now >= due:
            send(stdout, b"")
            _end_after(2 * patience)
            due = now + tick

    for message in answer(first, third, sign):
        send(stdout, *message)


def _end_after(seconds: float) -> None:
    """Let the system end this program then; 0: never.

    A program that hangs is ended by its caller long before, unless the caller was killed itself.
    """
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(memory: int) -> None:
    """Bind this program to what its work may cost, as far as the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wishes = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: _ERROR_BYTES,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
    }
    with contextlib.suppress(OSError, ValueError):  # only Linux says what is in use already
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib takes 3 ms to import
            pages = int(file.read().split()[0])
        wishes[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for what, wish in wishes.items():
        _, most = resource.getrlimit(what)
        least = wish if most == resource.RLIM_INFINITY else min(wish, most)
        with contextlib.suppress(OSError, ValueError):  # a system that knows the name only
            resource.setrlimit(what, (least, least))
