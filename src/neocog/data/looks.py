"""What is in files: the helper program that `workers` starts. Floor 1, room data.

Imports floor 0 and this room only, no NumPy and no torch, and not `workers`: a program that starts
for each set of pictures, and for a single one, starts with as little as it can.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from neocog.data.decode import picture
from neocog.data.files import Limits, Remark, Undecodable, read_file
from neocog.data.masks import Values, mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Files = Sequence[tuple[str, str | None]]
    """Paths, each with the folder it must not leave."""

__all__ = [
    "NOTHING",
    "ROW",
    "TICKS",
    "Batch",
    "Look",
    "Order",
    "looks",
    "main",
    "pixel_print",
    "receive",
    "send",
]

ROW = struct.Struct("<32s6qQ")
"""What a batch says of one file: SHA-256 of its bytes, stored height and width, height and width of
the pixels, channels, bytes of pixels that follow, print of the pixels. All 0: unusable."""
NOTHING = bytes(ROW.size)
"""The row of an unusable file."""
TICKS = 25
"""A helper that works gives so many signs of life within its caller's patience."""
_HEAD = struct.Struct("<QQQ")
_WORKING_COPIES = 8
"""Address space for decoding, in units of `Limits.decoded_bytes`: 2 for all that `decode` holds at
once, as it reckons beforehand, and as much again where it reckons wrong; 2 for a file that is read
in pieces; 1 for the pixels of a batch, and 1 for those of the picture that joins them."""
_RESERVE = 64 * 2**20
"""Bytes of address space for all else that a helper may come to need."""
_ERROR_BYTES = 2**16
"""What a helper may write to a file: its complaints, and no more."""
_OPEN_FILES = 64
"""What a helper may hold open: its pipes, one picture, and what Python opens meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is wanted of each file."""

    cover: tuple[int, int] | None = None
    """Scale to `covering_size` of this; None: the pictures' own sizes."""
    whole: int = 0
    """Pictures with both sides up to this are not scaled."""
    pixels: bool = True
    """False: check only, send no pixels."""
    limits: Limits = field(default_factory=Limits)
    """What a picture may cost."""
    mask: Values | None = None
    """The files are masks, which may hold these numbers, and are never scaled."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was found in some files."""

    table: bytes
    """A `ROW` for each file."""
    remarks: tuple[tuple[int, Remark], ...]
    """(place of the file in the batch, what is odd about it), by place."""
    pixels: bytes | bytearray
    """H×W×C uint8 of each usable file, one after the other."""

    def __len__(self) -> int:
        return len(self.table) // ROW.size

    def looks(self) -> Iterator[Look]:
        """The files one by one."""
        at, pixels = 0, memoryview(self.pixels)
        for place, row in enumerate(ROW.iter_unpack(self.table)):
            digest, height, width, tall, wide, channels, length, _ = row
            yield Look(
                digest if channels else b"",
                (height, width),
                (tall, wide),
                channels,
                tuple(remark for other, remark in self.remarks if other == place),
                bytes(pixels[at : at + length]),
            )
            at += length


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one file. Sizes are 0 and digest and pixels empty where it is unusable."""

    digest: bytes
    """SHA-256 of the file's bytes."""
    stored: tuple[int, int]
    """Height and width in the file, upright."""
    size: tuple[int, int]
    """Height and width of `pixels`."""
    channels: int
    """1 or 3."""
    remarks: tuple[Remark, ...]
    """What is odd; unusable where one of them does not say `accept`."""
    pixels: bytes = b""
    """H×W×C, uint8."""

    @property
    def usable(self) -> bool:
        """Whether the sample can be used."""
        return bool(self.digest)

    def array(self) -> NDArray[np.uint8]:
        """H×W×C, uint8, writable: the pixels, where they were wanted."""
        import numpy as np  # only here: no helper needs it

        return np.frombuffer(bytearray(self.pixels), np.uint8).reshape(*self.size, self.channels)


def pixel_print(size: tuple[int, ...], pixels: bytes) -> int:
    """64 bits that are equal for equal pictures, and in practice only for them.

    Args:
        size: height and width of the picture; sides of a signal or volume.
        pixels: H×W×C, uint8; the bytes of a signal or volume.
    """
    state = hashlib.blake2b(" ".join(map(str, size)).encode(), digest_size=8)
    state.update(pixels)
    return int.from_bytes(state.digest(), "little")


def looks(files: Iterable[tuple[str, str | None]], order: Order) -> Iterator[Batch]:
    """The batches of these files, made in this process; one ends where its pixels are many."""
    table, pixels = bytearray(), bytearray()  # one run each: the pictures' own memory is used again
    remarks: list[tuple[int, Remark]] = []
    cover, whole, limits = order.cover, order.whole, order.limits
    for path, root in files:
        if len(pixels) >= limits.decoded_bytes:
            yield Batch(bytes(table), tuple(remarks), pixels)
            table, pixels, remarks = bytearray(), bytearray(), []
        place, at = len(table) // ROW.size, len(pixels)
        try:
            data = read_file(path, root=root, limits=limits)
            if order.mask is None:
                found = picture(data, name=path, cover=cover, whole=whole, limits=limits)
            else:
                found = mask(data, name=path, values=order.mask, limits=limits)
            kept = found.pixels if order.pixels else b""
            row = ROW.pack(
                hashlib.sha256(data).digest(),
                *found.stored,
                *found.size,
                found.channels,
                len(kept),
                pixel_print(found.size, kept) if kept else 0,
            )
            pixels += kept
            table += row
            remarks += [(place, remark) for remark in found.remarks]
        except Undecodable as error:
            remarks.append((place, error.remark))
            table += NOTHING
        except MemoryError:
            del table[place * ROW.size :], pixels[at:]
            reason = "decoding it takes more memory than it may"
            remarks.append((place, Remark("file", "out-of-memory", reason, "skip")))
            table += NOTHING
    yield Batch(bytes(table), tuple(remarks), pixels)


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


def main(setting: str) -> None:
    """The helper program: answer chunks until the input ends.

    Args:
        setting: as JSON, the fields of the order and the seconds of the caller's patience.
    """
    # Ctrl-C reaches the whole group; the caller ends its helpers in its own good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cover, whole, pixels, limits, values, patience = json.loads(setting)
    order = Order(
        cover=None if cover is None else (cover[0], cover[1]),
        whole=whole,
        pixels=pixels,
        limits=Limits(**limits),
        mask=None if values is None else Values(**values),
    )
    # Only we may write to the pipe: a decoder's own chatter goes where errors go.
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    gc.freeze()  # what was imported stays: no collection need ever look at it again
    _limit(order.limits)
    stdout.write(b".")
    stdout.flush()
    while True:
        _end_after(0)
        try:
            request, _, _ = receive(stdin)
        except EOFError:
            return
        for batch in looks(_signed(json.loads(request), stdout, patience), order):
            said = [(place, *dataclasses.astuple(remark)) for place, remark in batch.remarks]
            send(stdout, batch.table, json.dumps(said).encode(), batch.pixels)


def _signed(
    files: Iterable[tuple[str, str | None]], stdout: IO[bytes], patience: float
) -> Iterator[tuple[str, str | None]]:
    """The files one by one, with an empty message as a sign of life where a tick has passed."""
    tick = patience / TICKS
    _end_after(2 * patience)
    due = time.monotonic() + tick
    for file in files:
        now = time.monotonic()
        if now >= due:
            send(stdout, b"")
            _end_after(2 * patience)
            due = now + tick
        yield file


def _end_after(seconds: float) -> None:
    """Let the system end this program then; 0: never.

    A program that hangs is ended by its caller long before, unless the caller was killed itself.
    """
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(limits: Limits) -> None:
    """Bind this program to what decoding may cost, as far as the system can."""
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
        budget = _WORKING_COPIES * limits.decoded_bytes + _RESERVE
        wishes[resource.RLIMIT_AS] = pages * resource.getpagesize() + budget
    for what, wish in wishes.items():
        _, most = resource.getrlimit(what)
        least = wish if most == resource.RLIM_INFINITY else min(wish, most)
        with contextlib.suppress(OSError, ValueError):  # a system that knows the name only
            resource.setrlimit(what, (least, least))
