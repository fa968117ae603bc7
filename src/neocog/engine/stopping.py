"""A signal as a wish to stop. Floor 2, room engine; standard library only.

Between two steps all that changes is at rest and can be saved; in the middle of one it cannot. So
while a training runs, a signal only leaves a note, which the loop reads between steps and between
the batches of a validation. Before and after training nothing is at risk, and a signal ends the
program where it stands. A step that takes longer than `GRACE` is given up, and with it what was
done since the last checkpoint, which is whole whatever happens.

SIGTERM comes from a scheduler, which kills what does not end, SIGHUP from a connection that broke;
SIGINT (Ctrl-C) comes from somebody at a terminal or a notebook, who can wait or ask again, and
whose notebook must live on.

Python runs its handlers between two instructions of its own, and the backward pass of a large
network is one instruction of many seconds. So the clock of `GRACE` is not kept by the handler but
by a thread, which the system itself tells of each signal, through a socket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["GRACE", "Signals", "Stopped"]

GRACE = 8.0
"""Seconds from the signal until the program ends without having saved. Who sent it may kill the
program after 10."""


FINAL = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals after which the program is expected to be gone soon."""


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
    """SIGTERM, SIGHUP and SIGINT, the first heeded when it fits, the second at once.

    The second SIGTERM or SIGHUP ends the program on the spot, which is safe, since files are whole
    or absent; the second SIGINT is an ordinary `KeyboardInterrupt`.

    Use as a context manager in the main thread; elsewhere it does nothing, and `check` never
    raises.
    """

    def __init__(self) -> None:
        self._number = 0
        self._patient = False
        self._before: dict[int, Any] = {}
        self._ear: socket.socket | None = None
        self._mouth: socket.socket | None = None
        self._heard = -1
        self._left = threading.Event()

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (*FINAL, signal.SIGINT):
            # A program that was started to ignore a signal, as by nohup, goes on ignoring it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._heard = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="neocog-signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._mouth is None:
            return
        signal.set_wakeup_fd(self._heard)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._mouth.close()  # the thread hears the end and goes
        self._thread.join()

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
        if self._number and number not in FINAL:
            raise KeyboardInterrupt
        self._number = number
        if not self._patient:
            raise Stopped(number)

    def _watch(self) -> None:
        """Give the program its time, and no more."""
        assert self._ear is not None
        with self._ear:
            heard: list[int] = []
            while byte := self._ear.recv(1):
                if byte[0] not in FINAL or byte[0] not in self._before:
                    continue
                heard.append(byte[0])
                if len(heard) > 1:
                    os._exit(128 + heard[0])
                threading.Thread(target=self._count_down, args=heard, daemon=True).start()

    def _count_down(self, number: int) -> None:
        if not self._left.wait(GRACE):
            os._exit(128 + number)
