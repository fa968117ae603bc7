"""A signal as a wish to stop. Floor 2, room engine; standard library only.

Between two steps all that changes is at rest and can be saved; in the middle of one it cannot. So
while a training runs, a signal only leaves a note, which the loop reads between steps and between
the batches of a validation. Before and after training nothing is at risk, and a signal ends the
program where it stands. A step that takes longer than `GRACE` is given up, and with it what was
done since the last checkpoint, which is whole whatever happens.

SIGTERM comes from a scheduler, which kills what does not end; SIGINT (Ctrl-C) from somebody at a
terminal or a notebook, who can wait or ask again, and whose notebook must live on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["GRACE", "Signals", "Stopped"]

GRACE = 8.0
"""Seconds from the signal until the program ends without having saved. Who sent it may kill the
program after 10."""


class Stopped(KeyboardInterrupt):
    """The run was asked to stop. No `Exception`, so that nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code by which shells and schedulers know a signal: 128 + its number."""
        return 128 + self.number


class Signals:
    """SIGTERM and SIGINT, the first heeded when it fits, the second at once.

    The second SIGTERM ends the program on the spot, which is safe, since files are whole or absent;
    the second SIGINT is an ordinary `KeyboardInterrupt`.

    Use as a context manager in the main thread; elsewhere it does nothing, and `check` never
    raises.
    """

    def __init__(self) -> None:
        self._number = 0
        self._patient = False
        self._timer: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # A program that was started to ignore a signal, as by nohup, goes on ignoring it.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._timer:
            self._timer.cancel()

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Inside, a signal waits for the next `check`."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def check(self) -> None:
        """Go on, unless a signal has come.

        Raises:
            Stopped: one has.
        """
        if self._number:
            raise Stopped(self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGTERM and self._number == number:
            os._exit(128 + number)
        if self._number:
            raise KeyboardInterrupt
        self._number = number
        if number == signal.SIGTERM:
            self._timer = threading.Timer(GRACE, os._exit, [128 + number])
            self._timer.daemon = True
            self._timer.start()
        if not self._patient:
            raise Stopped(number)
