"""Many files decoded at once, by small helper programs. Floor 1, room data; imports floor 0.

Why not `multiprocessing`: its spawned children import the caller's `__main__` again, so that a
script without a guard starts itself over and a notebook may hang. A helper here is a fresh
interpreter that runs `main` of this file, takes one chunk of paths as JSON on its standard input
and answers with JSON and raw pixels on its standard output. No pickle, no torch; it starts in a
tenth of a second. A helper that dies is noticed at once: its chunk is tried again file by file, and
the file that kills a helper twice over is reported as a fault like any other.
"""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from neocog.data.decode import picture
from neocog.data.files import Limits, Remark, Undecodable, read_file
from neocog.errors import NeocogError
from neocog.host import cores
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

__all__ = ["Look", "Order", "cores", "look", "look_at_all", "main"]

CHUNK = 64
"""Files a message: large enough to hide the cost of a message, small enough to share work out."""
ALONE_FILES = 200
ALONE_BYTES = 8 * 2**20
"""Up to so many files of so many bytes together, helpers would cost more than they save."""
_HEAD = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is wanted of each file."""

    cover: tuple[int, int] | None = None
    """Scale to `covering_size` of this; None: the pictures' own sizes."""
    whole: int = 0
    """Pictures with both sides up to this are not scaled."""
    pixels: bool = True
    """False: check only, send no pixels."""
    minimum_side: int = 1
    """Pictures with a shorter side are a fault."""


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


def look(path: str, root: str | None, order: Order) -> Look:
    """Read, hash and decode one file; whatever is wrong with it comes back as a remark."""
    limits = Limits(minimum_side=order.minimum_side)
    try:
        data = read_file(path, root=None if root is None else Path(root), limits=limits)
        found = picture(data, name=path, cover=order.cover, whole=order.whole, limits=limits)
    except Undecodable as error:
        return Look(b"", (0, 0), (0, 0), 0, (error.remark,))
    return Look(
        hashlib.sha256(data).digest(),
        found.stored,
        found.size,
        found.channels,
        found.remarks,
        found.pixels if order.pixels else b"",
    )


def look_at_all(
    files: Sequence[tuple[str, str | None]], order: Order, *, workers: int | None = None
) -> Generator[Look]:
    """One `Look` for each (path, root), in order.

    Args:
        files: paths, each with the folder it must not leave.
        order: what is wanted.
        workers: helper programs; None: as many as cores, or none for a small set; 0: none.

    Raises:
        NeocogError: helpers cannot be started.
    """
    if workers is None:
        workers = 0 if _is_little(files) else min(cores(), 32)
    if workers < 1 or not sys.executable:
        yield from (look(path, root, order) for path, root in files)
        return
    size = max(1, min(CHUNK, len(files) // (4 * workers)))
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with _Crew(min(workers, max(1, len(chunks))), order) as crew:
        yield from crew.run(chunks)


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

    def run(self, chunks: Sequence[Sequence[tuple[str, str | None]]]) -> Iterator[Look]:
        """All looks in order; only a few chunks ahead, so that memory stays bounded."""
        ahead: deque[Any] = deque()
        waiting = iter(chunks)
        for chunk in waiting:
            ahead.append(self.threads.submit(self._ask, chunk))
            if len(ahead) > 3 * self.count:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()

    def _ask(self, chunk: Sequence[tuple[str, str | None]]) -> list[Look]:
        """One chunk, by this thread's helper; after a death file by file, to find the culprit."""
        try:
            return self._helper().ask(chunk)
        except _DiedError:
            self.local.helper = None
        looks = []
        for file in chunk:
            if self.closed:
                break
            try:
                looks += self._helper().ask([file])
            except _DiedError as error:
                self.local.helper = None
                reason = f"the decoder died of this file ({error})"
                looks.append(_unusable(Remark("file", "decoder-died", reason, "skip")))
        return looks

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
        setting = json.dumps([order.cover, order.whole, order.pixels, order.minimum_side])
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

    def ask(self, files: Sequence[tuple[str, str | None]]) -> list[Look]:
        """The looks of some files."""
        try:
            _send(self.stdin, json.dumps(files).encode(), [])
            head, body = _receive(self.stdout)
        except (OSError, ValueError, EOFError) as error:
            code = self.process.wait()
            raise _DiedError(f"exit code {code}") from error
        looks, at = [], 0
        for digest, stored, size, channels, remarks, length in json.loads(head):
            looks.append(
                Look(
                    bytes.fromhex(digest),
                    (stored[0], stored[1]),
                    (size[0], size[1]),
                    channels,
                    tuple(Remark(*one) for one in remarks),
                    body[at : at + length],
                )
            )
            at += length
        return looks

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


def _unusable(remark: Remark) -> Look:
    return Look(b"", (0, 0), (0, 0), 0, (remark,))


def _send(stream: IO[bytes], head: bytes, parts: Sequence[bytes]) -> None:
    stream.write(_HEAD.pack(len(head), sum(map(len, parts))) + head)
    stream.writelines(parts)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[bytes, bytes]:
    def exactly(count: int) -> bytes:
        data = stream.read(count)
        if len(data) != count:
            raise EOFError
        return data

    head, body = _HEAD.unpack(exactly(_HEAD.size))
    return exactly(head), exactly(body)


def main(setting: str) -> None:
    """The helper program: answer chunks until the input ends."""
    # Ctrl-C reaches the whole group; the caller ends its helpers in its own good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cover, whole, pixels, minimum_side = json.loads(setting)
    order = Order(
        cover=None if cover is None else (cover[0], cover[1]),
        whole=whole,
        pixels=pixels,
        minimum_side=minimum_side,
    )
    # Only we may write to the pipe: a decoder's own chatter goes where errors go.
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stdout.write(b".")
    stdout.flush()
    while True:
        try:
            request, _ = _receive(stdin)
        except EOFError:
            return
        looks = [look(path, root, order) for path, root in json.loads(request)]
        answer = [
            (
                one.digest.hex(),
                one.stored,
                one.size,
                one.channels,
                [(r.format, r.code, r.reason, r.policy, r.offset) for r in one.remarks],
                len(one.pixels),
            )
            for one in looks
        ]
        _send(stdout, json.dumps(answer).encode(), [one.pixels for one in looks])
