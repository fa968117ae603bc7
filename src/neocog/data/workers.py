"""Many files decoded at once, by small helper programs. Floor 1, room data; imports floor 0.

Why not `multiprocessing`: its spawned children import the caller's `__main__` again, so that a
script without a guard starts itself over and a notebook may hang. A helper here is a fresh
interpreter that runs `main` of this file, takes one chunk of paths as JSON on its standard input
and answers with a table of fixed rows, remarks as JSON and raw pixels on its standard output. No
pickle, no torch, no NumPy; it starts in a tenth of a second. A helper that dies is noticed at once:
its chunk is tried again file by file, and the file that kills a helper twice over is reported as a
fault like any other.
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
import subprocess
import sys
import tempfile
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from neocog.data.decode import picture
from neocog.data.files import Limits, Remark, Undecodable, read_file
from neocog.errors import NeocogError
from neocog.host import cores
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

__all__ = [
    "ROW",
    "Batch",
    "Look",
    "Order",
    "cores",
    "look_at_all",
    "look_in_batches",
    "main",
    "pixel_print",
]

CHUNK = 64
"""Files a message: large enough to hide the cost of a message, small enough to share work out."""
ALONE_FILES = 200
ALONE_BYTES = 8 * 2**20
"""Up to so many files of so many bytes together, helpers would cost more than they save."""
ROW = struct.Struct("<32s6qQ")
"""What a batch says of one file: SHA-256 of its bytes, stored height and width, height and width of
the pixels, channels, bytes of pixels that follow, print of the pixels. All 0: unusable."""
_NOTHING = bytes(ROW.size)
_HEAD = struct.Struct("<QQQ")


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


def pixel_print(size: tuple[int, int], pixels: bytes) -> int:
    """64 bits that are equal for equal pictures, and in practice only for them.

    Args:
        size: height and width of the picture.
        pixels: H×W×C, uint8.
    """
    state = hashlib.blake2b(b"%d %d" % size, digest_size=8)
    state.update(pixels)
    return int.from_bytes(state.digest(), "little")


def look_at_all(
    files: Sequence[tuple[str, str | None]], order: Order, *, workers: int | None = None
) -> Generator[Look]:
    """One `Look` for each (path, root), in order; arguments and errors as `look_in_batches`."""
    with contextlib.closing(look_in_batches(files, order, workers=workers)) as batches:
        for batch in batches:
            yield from batch.looks()


def look_in_batches(
    files: Sequence[tuple[str, str | None]], order: Order, *, workers: int | None = None
) -> Generator[Batch]:
    """Read, hash and decode files; whatever is wrong with one comes back as a remark.

    Args:
        files: paths, each with the folder it must not leave.
        order: what is wanted.
        workers: helper programs; None: as many as cores, or none for a small set; 0: none.

    Yields:
        Batches of any length, which cover the files in order.

    Raises:
        NeocogError: helpers cannot be started.
    """
    if workers is None:
        workers = 0 if _is_little(files) else min(cores(), 32)
    if workers < 1 or not sys.executable:
        yield from (_look([file], order) for file in files)  # one picture in memory at a time
        return
    size = max(1, min(CHUNK, len(files) // (4 * workers)))
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with _Crew(min(workers, max(1, len(chunks))), order) as crew:
        yield from crew.run(chunks)


def _look(files: Sequence[tuple[str, str | None]], order: Order) -> Batch:
    """The batch of these files, made in this process."""
    table, pixels = bytearray(), bytearray()  # one run each: the pictures' own memory is used again
    remarks: list[tuple[int, Remark]] = []
    cover, whole, limits = order.cover, order.whole, order.limits
    for place, (path, root) in enumerate(files):
        try:
            data = read_file(path, root=root, limits=limits)
            found = picture(data, name=path, cover=cover, whole=whole, limits=limits)
        except Undecodable as error:
            remarks.append((place, error.remark))
            table += _NOTHING
            continue
        kept = found.pixels if order.pixels else b""
        table += ROW.pack(
            hashlib.sha256(data).digest(),
            *found.stored,
            *found.size,
            found.channels,
            len(kept),
            pixel_print(found.size, kept) if kept else 0,
        )
        pixels += kept
        if found.remarks:
            remarks += [(place, remark) for remark in found.remarks]
    return Batch(bytes(table), tuple(remarks), pixels)


def _is_little(files: Sequence[tuple[str, str | None]]) -> bool:
    if len(files) > ALONE_FILES:
        return False
    total = 0
    for path, _ in files:
        with contextlib.suppress(OSError):
            total += os.lstat(path).st_size
    return total <= ALONE_BYTES


class _Crew:
    """Helpers, each owned by one thread that waits for it."""

    def __init__(self, count: int, order: Order) -> None:
        self.order = order
        self.count = count
        self.local = threading.local()
        self.helpers: list[_Helper] = []
        self.lock = threading.Lock()
        self.closed = False
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="neocog-look")

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            self.closed = True
            for helper in self.helpers:
                helper.close()
        self.threads.shutdown(wait=True)

    def run(self, chunks: Sequence[Sequence[tuple[str, str | None]]]) -> Iterator[Batch]:
        """All batches in order; only a few chunks ahead, so that memory stays bounded."""
        ahead: deque[Any] = deque()
        waiting = iter(chunks)
        for chunk in waiting:
            ahead.append(self.threads.submit(self._ask, chunk))
            if len(ahead) > 3 * self.count:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()

    def _ask(self, chunk: Sequence[tuple[str, str | None]]) -> list[Batch]:
        """One chunk, by this thread's helper; after a death file by file, to find the culprit."""
        try:
            return [self._helper().ask(chunk)]
        except _DiedError:
            self.local.helper = None
        batches = []
        for file in chunk:
            if self.closed:
                break
            try:
                batches.append(self._helper().ask([file]))
            except _DiedError as error:
                self.local.helper = None
                reason = f"the decoder died of this file ({error})"
                remark = Remark("file", "decoder-died", reason, "skip")
                batches.append(Batch(_NOTHING, ((0, remark),), b""))
        return batches

    def _helper(self) -> _Helper:
        helper: _Helper | None = getattr(self.local, "helper", None)
        if helper is None:
            helper = self.local.helper = _Helper(self.order)
            with self.lock:
                self.helpers.append(helper)
                if self.closed:  # the crew ended while this helper was starting
                    helper.close()
        return helper


class _DiedError(Exception):
    """A helper ended while it was wanted."""


class _Helper:
    """One helper program."""

    def __init__(self, order: Order) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        # The child gets this process's own search path: it finds what this one found.
        program = (
            "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
            "from neocog.data.workers import main; main(sys.argv[2])"
        )
        setting = json.dumps(
            [order.cover, order.whole, order.pixels, dataclasses.asdict(order.limits)]
        )
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, json.dumps([str(p) for p in sys.path]), setting],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
            )
        except OSError as error:
            self.errors.close()
            raise _no_start(str(error)) from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout
        try:
            ready = self.stdout.read(1) == b"."
        except (OSError, ValueError):
            ready = False
        if not ready:
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read()[-2000:].decode(errors="replace")
            self.close()
            raise _no_start(said)

    def ask(self, files: Sequence[tuple[str, str | None]]) -> Batch:
        """The batch of some files."""
        try:
            _send(self.stdin, json.dumps(files).encode())
            table, said, pixels = _receive(self.stdout)
        except (OSError, ValueError, EOFError) as error:
            code = self.process.wait()
            raise _DiedError(f"exit code {code}") from error
        remarks = tuple((place, Remark(*facts)) for place, *facts in json.loads(said))
        return Batch(table, remarks, pixels)

    def close(self) -> None:
        """End the program, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.stdin, self.stdout, self.errors):
            with contextlib.suppress(OSError):
                stream.close()


def _no_start(said: str) -> NeocogError:
    return NeocogError(
        f"a helper program that decodes pictures did not start: {printable(said)}",
        "scan with workers=0 to decode in this process",
    )


def _send(
    stream: IO[bytes], first: bytes, second: bytes = b"", third: bytes | bytearray = b""
) -> None:
    stream.write(_HEAD.pack(len(first), len(second), len(third)) + first + second)
    stream.write(third)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[bytes, bytes, bytes]:
    def exactly(count: int) -> bytes:
        data = stream.read(count)
        if len(data) != count:
            raise EOFError
        return data

    first, second, third = _HEAD.unpack(exactly(_HEAD.size))
    return exactly(first), exactly(second), exactly(third)


def main(setting: str) -> None:
    """The helper program: answer chunks until the input ends."""
    # Ctrl-C reaches the whole group; the caller ends its helpers in its own good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cover, whole, pixels, limits = json.loads(setting)
    order = Order(
        cover=None if cover is None else (cover[0], cover[1]),
        whole=whole,
        pixels=pixels,
        limits=Limits(**limits),
    )
    # Only we may write to the pipe: a decoder's own chatter goes where errors go.
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    gc.freeze()  # what was imported stays: no collection need ever look at it again
    stdout.write(b".")
    stdout.flush()
    while True:
        try:
            request, _, _ = _receive(stdin)
        except EOFError:
            return
        batch = _look(json.loads(request), order)
        said = [(place, *dataclasses.astuple(remark)) for place, remark in batch.remarks]
        _send(stdout, batch.table, json.dumps(said).encode(), batch.pixels)
