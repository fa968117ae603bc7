"""Many files decoded at once, by small helper programs. Floor 1, room data; imports floor 0.

A decoder is a large piece of C that meets bytes from strangers: it may crash, hang or want all
memory. So files are decoded in helpers alone, one of them even for a single picture: it costs a
tenth of a second. Who asks for `workers=0` does without, and a crash takes the caller along.

Why not `multiprocessing`: its spawned children import the caller's `__main__` again, so that a
script without a guard starts itself over and a notebook may hang. A helper here is a fresh
interpreter that runs `looks.main`, takes one chunk of paths as JSON on its standard input
and answers with a table of fixed rows, remarks as JSON and raw pixels on its standard output. No
pickle, no torch, no NumPy.

What can go wrong with a helper, and what becomes of it:

- It dies: noticed at once, by the end of its output.
- It hangs, is stopped, or waits for a disk that never answers: a helper that is at work says so
  every second, and one that says nothing for `PATIENCE` seconds is killed.
- It wants more memory than decoding may cost: the system refuses, and the file is a fault. The
  helper lives on. (Only where the system says how much memory a process holds: Linux.)

A helper that is lost is replaced. What it had answered stands, the rest of its chunk is tried again
file by file, and the file that takes a helper along once more is reported as a fault like any
other. Each file is answered exactly once, in order, whatever happens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, cast

from neocog.data.files import Remark
from neocog.data.looks import NOTHING, TICKS, Batch, Look, Order, looks, receive, send
from neocog.errors import NeocogError
from neocog.host import cores
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from neocog.data.looks import Files

__all__ = ["PATIENCE", "look_at_all", "look_in_batches"]

CHUNK = 128
"""Files a message: large enough to hide the cost of a message, small enough to share work out."""
FEW_FILES = 200
FEW_BYTES = 8 * 2**20
"""Up to so many files of so many bytes together, a second helper would cost more than it saves."""
PATIENCE = 25.0
"""Seconds without a sign after which a helper is given up. A sign comes every second, unless one
file takes longer: the largest picture that `Limits` admits takes some two."""
PIPE = 2**19
"""Bytes that a helper can answer before anybody reads, where the system lets us decide: a chunk of
small pictures."""
LAST_WAIT = 1.0
"""Seconds that a helper is given to end. One that does not answer to being killed either, because
the system waits for a disk on its behalf, is left to itself."""
STARTS = 3
"""How often a helper is started before that is given up."""


def look_at_all(
    files: Files, order: Order, *, workers: int | None = None, patience: float = PATIENCE
) -> Generator[Look]:
    """One `Look` for each (path, root), in order; arguments and errors as `look_in_batches`."""
    found = look_in_batches(files, order, workers=workers, patience=patience)
    with contextlib.closing(found) as batches:
        for batch in batches:
            yield from batch.looks()


def look_in_batches(
    files: Files, order: Order, *, workers: int | None = None, patience: float = PATIENCE
) -> Generator[Batch]:
    """Read, hash and decode files; whatever is wrong with one comes back as a remark.

    Args:
        files: paths, each with the folder it must not leave.
        order: what is wanted.
        workers: helper programs; None: as many as cores, or one for a small set; 0: none, so that
            a decoder that crashes takes this process along.
        patience: seconds without a sign of a helper after which it is replaced.

    Yields:
        Batches of any length, which cover the files in order.

    Raises:
        NeocogError: helpers cannot be started.
    """
    if not files:
        return
    if workers is None:
        workers = 1 if _is_little(files) else min(cores(), 32)
    if workers < 1 or not sys.executable:
        for file in files:
            yield from looks([file], order)  # one picture in memory at a time
        return
    size = max(1, min(CHUNK, len(files) // (4 * workers)))
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with _Crew(min(workers, len(chunks)), order, patience) as crew:
        yield from crew.run(chunks)


def _is_little(files: Files) -> bool:
    if len(files) > FEW_FILES:
        return False
    total = 0
    for path, _ in files:
        with contextlib.suppress(OSError):
            total += os.lstat(path).st_size
    return total <= FEW_BYTES


class _Crew:
    """Helpers, each owned by one thread that waits for it, and one thread that watches them all."""

    def __init__(self, count: int, order: Order, patience: float) -> None:
        self.order = order
        self.count = count
        self.patience = patience
        self.local = threading.local()
        self.helpers: list[_Helper] = []
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="neocog-look")
        self.watch = threading.Thread(target=self._watch, name="neocog-watch", daemon=True)

    def __enter__(self) -> _Crew:
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            self.closed.set()
            for helper in self.helpers:
                helper.kill()  # all of them before any is waited for
            for helper in self.helpers:
                helper.close()
        self.threads.shutdown(wait=True)
        self.watch.join()

    def run(self, chunks: Sequence[Files]) -> Iterator[Batch]:
        """All batches in order; only a few chunks ahead, so that memory stays bounded."""
        ahead: deque[Any] = deque()
        waiting = iter(chunks)
        for chunk in waiting:
            ahead.append(self.threads.submit(self._ask, chunk))
            if len(ahead) > 3 * self.count:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()

    def _watch(self) -> None:
        """Count the ticks in which a helper that is wanted said nothing; end those that hang.

        The ticks are this thread's own: while the whole program is stopped, or starved by others,
        its helpers are too, and nobody may be blamed for the time.
        """
        while not self.closed.wait(self.patience / TICKS):
            with self.lock:
                helpers = list(self.helpers)
            for helper in helpers:
                if helper.quiet_for() >= TICKS:
                    helper.give_up()

    def _ask(self, chunk: Files) -> list[Batch]:
        """One chunk, by this thread's helper; after a loss file by file, to find the culprit."""
        batches: list[Batch] = []
        try:
            batches.extend(self._helper().ask(chunk))
        except _LostError:
            self._replace()
        for file in chunk[sum(len(batch) for batch in batches) :]:
            if self.closed.is_set():
                break
            try:
                batches.extend(self._helper().ask([file]))
            except _LostError as error:
                self._replace()
                batches.append(Batch(NOTHING, ((0, error.remark),), b""))
        return batches

    def _helper(self) -> _Helper:
        """This thread's helper.

        Raises:
            NeocogError: it cannot be started.
        """
        helper: _Helper | None = getattr(self.local, "helper", None)
        for left in reversed(range(STARTS)):
            if helper is not None:
                break
            helper = _Helper(self.order, self.patience)
            with self.lock:
                self.helpers.append(helper)  # from now on watched, and closed with the crew
                if self.closed.is_set():
                    helper.close()
            try:
                helper.greet()
            except NeocogError:
                self._replace(helper)
                if not left or self.closed.is_set():
                    raise
                helper = None
        self.local.helper = helper
        assert helper is not None
        return helper

    def _replace(self, lost: _Helper | None = None) -> None:
        """Part with a helper; the next question starts another."""
        lost = lost or self.local.helper
        self.local.helper = None
        with self.lock:
            self.helpers.remove(lost)
        lost.close()


class _LostError(Exception):
    """A helper ended, or was ended, while it was wanted."""

    def __init__(self, remark: Remark) -> None:
        super().__init__(remark.reason)
        self.remark = remark


class _Helper:
    """One helper program."""

    def __init__(self, order: Order, patience: float) -> None:
        self.patience = patience
        self.wanted = True
        self.signs = 0  # only its owner writes this, only the watch the next two
        self.seen = (False, 0)
        self.quiet = 0
        self.hung = False
        self.killed = False
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        # The child gets this process's own search path: it finds what this one found.
        program = (
            "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
            "from neocog.data.looks import main; main(sys.argv[2])"
        )
        setting = json.dumps(
            [
                *(order.cover, order.whole, order.pixels),
                dataclasses.asdict(order.limits),
                None if order.mask is None else dataclasses.asdict(order.mask),
                patience,
            ]
        )
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, json.dumps([str(p) for p in sys.path]), setting],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                bufsize=0,
            )
        except OSError as error:
            self.errors.close()
            raise _no_start(str(error)) from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = io.BufferedWriter(cast("io.RawIOBase", self.process.stdin))
        self.stdout: IO[bytes] = self.process.stdout
        _widen(self.stdout)

    def greet(self) -> None:
        """Wait until it is ready.

        Raises:
            NeocogError: it ends instead, or says nothing.
        """
        try:
            self._await()
            ready = self.stdout.read(1) == b"."
        except (OSError, ValueError, EOFError):
            ready = False
        if not ready:
            self._end()
            said = "it says nothing"
            if not self.hung:
                self.errors.seek(0)
                said = self.errors.read()[-2000:].decode(errors="replace")
            raise _no_start(said)
        self.wanted = False

    def ask(self, files: Files) -> Iterator[Batch]:
        """The batches of some files, as they come.

        Raises:
            _LostError: the helper ended before it had answered for all of them.
        """
        left = len(files)
        self.wanted = True
        try:
            send(self.stdin, json.dumps(files).encode())
            while left:
                self._await()
                table, said, pixels = receive(self.stdout)
                self.signs += 1
                if table:
                    remarks = tuple((place, Remark(*facts)) for place, *facts in json.loads(said))
                    batch = Batch(table, remarks, pixels)
                    left -= len(batch)
                    yield batch
        except (OSError, ValueError, EOFError) as error:
            raise _LostError(self._loss()) from error
        self.wanted = False

    def _await(self) -> None:
        """Return when it says something or ends.

        A killed program keeps its end of the pipe open while the system waits for a disk on its
        behalf: reading would then never return.

        Raises:
            EOFError: it was killed, and says nothing.
        """
        if not hasattr(select, "poll"):  # Windows, which closes the pipe
            return
        poll = select.poll()
        poll.register(self.stdout, select.POLLIN)
        while not poll.poll(1000 * LAST_WAIT):
            if self.killed:
                raise EOFError

    def quiet_for(self) -> int:
        """One more tick has passed: how many without a sign, 0 where none is due."""
        state = (self.wanted, self.signs)
        self.quiet = self.quiet + 1 if state == self.seen and self.wanted else 0
        self.seen = state
        return self.quiet

    def give_up(self) -> None:
        """End a program that hangs; its owner notices."""
        self.hung = True
        self.kill()

    def kill(self) -> None:
        """End it, without waiting until it has ended."""
        self.killed = True
        self.process.kill()

    def _loss(self) -> Remark:
        """Why it is lost, as a remark on the file it was lost over."""
        code = self._end()
        if self.hung:
            reason = f"the decoder hung on this file: no sign of it for {self.patience:g} s"
            return Remark("file", "decoder-hung", reason, "skip")
        reason = f"the decoder died of this file (exit code {code})"
        return Remark("file", "decoder-died", reason, "skip")

    def _end(self) -> int | None:
        """The exit code, once its output has ended; None: not even killing ends it."""
        for _ in range(2):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(LAST_WAIT)
            self.kill()
        return None

    def close(self) -> None:
        """End the program, whatever it is doing; one that cannot be ended is left to itself."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_WAIT)
        for stream in (self.stdin, self.stdout, self.errors):
            with contextlib.suppress(OSError):
                stream.close()


def _widen(pipe: IO[bytes]) -> None:
    """Let more fit into a pipe, so that a helper need not wait for its reader; only on Linux."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)


def _no_start(said: str) -> NeocogError:
    return NeocogError(
        f"a helper program that decodes pictures did not start: {printable(said)}",
        "scan with workers=0 to decode in this process",
    )
