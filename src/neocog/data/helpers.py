"""Helper programs: started, asked, watched, ended and replaced. Floor 1; imports floor 0.

`workers` says what for, and what can go wrong; `messages` is the end that a helper itself runs.
"""

from __future__ import annotations

import contextlib
import io
import json
import select
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeVar, cast

from neocog.data.messages import TICKS, receive, send
from neocog.errors import NeocogError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Future

__all__ = ["Crew", "Helper", "LostError", "Program"]

T = TypeVar("T")

PIPE = 2**19
"""Bytes that a helper can answer before anybody reads, where the system lets us decide: a chunk of
small pictures."""
LAST_WAIT = 1.0
"""Seconds that a helper is given to end. One that does not answer to being killed either, because
the system waits for a disk on its behalf, is left to itself."""
STARTS = 3
"""How often a helper is started before that is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a helper runs."""

    module: str
    """Its `main` is called."""
    setting: str
    """With this."""
    about: str
    """What one question is about, in a word: `file`."""
    deed: str
    """What it does, for messages: `decodes pictures`."""
    remedy: str
    """What can be done where it does not start."""


class LostError(Exception):
    """A helper ended, or was ended, while it was wanted.

    Args:
        reason: what follows on the helper's name: `died of …`.
        hung: it was ended because it gave no sign.
    """

    def __init__(self, reason: str, *, hung: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hung = hung


class Crew:
    """Helpers, each owned by one thread that waits for it, and one thread that watches them all.

    A helper starts when its thread first needs it, and stays until the crew is closed.

    Args:
        count: of threads, and of helpers at most.
        program: what they run.
        patience: seconds without a sign after which a helper that is wanted is given up.
    """

    def __init__(self, count: int, program: Program, patience: float) -> None:
        self.count = count
        self.program = program
        self.patience = patience
        self.closed = threading.Event()
        self._local = threading.local()
        self._helpers: list[Helper] = []
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="neocog-look")
        self._watcher = threading.Thread(target=self._watch, name="neocog-watch", daemon=True)
        self._watcher.start()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all helpers, whatever they are doing, and all threads. What nobody has begun is
        cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self.closed.set()
            for helper in self._helpers:
                helper.kill()  # all of them before any is waited for
            for helper in self._helpers:
                helper.close()
        self._threads.shutdown(wait=True)
        self._watcher.join()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have the next thread that is free do some work, which may ask for `helper`.

        Raises:
            RuntimeError: the crew is closed.
        """
        return self._threads.submit(work)

    def _watch(self) -> None:
        """Count the ticks in which a helper that is wanted said nothing; end those that hang.

        The ticks are this thread's own: while the whole program is stopped, or starved by others,
        its helpers are too, and nobody may be blamed for the time.
        """
        while not self.closed.wait(self.patience / TICKS):
            with self._lock:
                helpers = list(self._helpers)
            for helper in helpers:
                if helper.quiet_for() >= TICKS:
                    helper.give_up()

    def helper(self) -> Helper:
        """This thread's helper, ready for a question.

        Raises:
            NeocogError: it cannot be started.
        """
        helper: Helper | None = getattr(self._local, "helper", None)
        # One that ended while nobody asked is nobody's fault; one that was left in the middle of
        # an answer would go on with it.
        if helper is not None and (helper.wanted or helper.ended()):
            self.replace()
            helper = None
        for left in reversed(range(STARTS)):
            if helper is not None:
                break
            helper = Helper(self.program, self.patience)
            with self._lock:
                self._helpers.append(helper)  # from now on watched, and closed with the crew
                if self.closed.is_set():
                    helper.close()
            try:
                helper.greet()
            except NeocogError:
                self.replace(helper)
                if not left or self.closed.is_set():
                    raise
                helper = None
        self._local.helper = helper
        assert helper is not None
        return helper

    def replace(self, lost: Helper | None = None) -> None:
        """Part with this thread's helper; the next question starts another."""
        lost = lost or self._local.helper
        self._local.helper = None
        with self._lock:
            self._helpers.remove(lost)
        lost.close()


class Helper:
    """One helper program. Its owner is one thread; another may watch and end it."""

    def __init__(self, program: Program, patience: float) -> None:
        self.program = program
        self.patience = patience
        self.wanted = True
        self.signs = 0  # only its owner writes this, only the watch the next two
        self.seen = (False, 0)
        self.quiet = 0
        self.hung = False
        self.killed = False
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        # The child gets this process's own search path: it finds what this one found.
        start = (
            "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
            f"from {program.module} import main; main(sys.argv[2])"
        )
        path = json.dumps([str(place) for place in sys.path])
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", start, path, program.setting],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                bufsize=0,
            )
        except OSError as error:
            self.errors.close()
            raise self._no_start(str(error)) from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = io.BufferedWriter(cast("io.RawIOBase", self.process.stdin))
        # With a buffer of one byte it reads what is asked for and no more, so that waiting for what
        # the pipe holds stays honest, and a large part at one go, without holding up other threads.
        self.stdout: IO[bytes] = io.BufferedReader(cast("io.RawIOBase", self.process.stdout), 1)
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
            raise self._no_start(said)
        self.wanted = False

    @contextlib.contextmanager
    def asked(
        self, first: bytes, third: bytes = b""
    ) -> Generator[Iterator[tuple[bytes, bytes, bytes]]]:
        """A question; while the context lasts, the messages of the answer as they come.

        Raises:
            LostError: the helper ended before the context did, or says what nobody understands.
        """
        self.wanted = True
        try:
            send(self.stdin, first, b"", third)
            yield self._messages()
        except (OSError, ValueError, EOFError) as error:
            raise LostError(self._loss(), hung=self.hung) from error
        self.wanted = False

    def _messages(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """What it says, without mere signs of life."""
        while True:
            self._await()
            message = receive(self.stdout)
            self.signs += 1
            if any(message):
                yield message

    def ended(self) -> bool:
        """Whether the program has ended."""
        return self.process.poll() is not None

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

    def _loss(self) -> str:
        """Why it is lost."""
        code = self._end()
        if self.hung:
            return f"hung on this {self.program.about}: no sign of it for {self.patience:g} s"
        return f"died of this {self.program.about} (exit code {code})"

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

    def _no_start(self, said: str) -> NeocogError:
        return NeocogError(
            f"a helper program that {self.program.deed} did not start: {printable(said)}",
            self.program.remedy,
        )


def _widen(pipe: IO[bytes]) -> None:
    """Let more fit into a pipe, so that a helper need not wait for its reader; only on Linux."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
