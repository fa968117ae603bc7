"""The console tells what happens, and never ends a training over it."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neocog.records import Event
from neocog.verbs.console import Console, Expected

VALUES = {"epoch": 1, "loss": 0.5, "images_per_second": 10.0}


class Dead(io.StringIO):
    """A stream that takes so many writes and then none."""

    def __init__(self, error: Exception, *, terminal: bool, good: int = 0, flush: bool = False):
        super().__init__()
        self.error, self.terminal, self.good, self.only_flush = error, terminal, good, flush
        self.failed = 0

    def isatty(self) -> bool:
        return self.terminal

    def _fail(self) -> None:
        self.good -= 1
        if self.good < 0:
            self.failed += 1
            raise self.error

    def write(self, text: str) -> int:
        if not self.only_flush:
            self._fail()
        return super().write(text)

    def flush(self) -> None:
        self._fail()


def told(console: Console) -> None:
    """A short training, and progress around it."""
    with console:
        console.say("begins")
        for done in (0, 500, 1000):
            console.progress("scan", done, 1000)
        console.expect(Expected(steps=2, epochs=1))
        for step in (1, 2):
            console(Event(step=step, kind="step", values={"loss": 0.5}, time=float(step)))
        console(Event(step=2, kind="epoch", values=VALUES, time=2.0))
        console(Event(step=2, kind="end", values={"reason": "asked to"}, time=2.0))


@pytest.mark.parametrize("good", [0, 1, 2, 5])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ValueError("I/O operation on closed file"),
    ],
    ids=["full", "gone", "pipe", "closed"],
)
def test_a_dead_stream_makes_it_silent_for_good(
    error: Exception, terminal: bool, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for flush in (False, True):
        stream = Dead(error, terminal=terminal, good=good, flush=flush)
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console()
        assert console.terminal == terminal
        told(console)
        assert stream.failed == 1
        assert sys.stderr is stream


def test_without_a_standard_error_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    told(Console())


def test_a_good_stream_gets_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    told(Console())
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["begins", "scan:", "epoch", "stopped:"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_behind_a_full_disk_the_program_ends_well() -> None:
    program = (
        "import sys, json; sys.path[:] = json.loads(sys.argv[1])\n"
        "from neocog.verbs.console import Console\n"
        "console = Console()\nconsole.say('x')\nconsole.say('y')\nprint('went on')"
    )
    arguments: list[Any] = [sys.executable, "-c", program, json.dumps(sys.path)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            arguments, stdout=subprocess.PIPE, stderr=full, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_the_text_beside_the_bar_is_made_some_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(sys, "stderr", Dead(OSError(), terminal=True, good=10**9))
    with Console() as console:
        monkeypatch.setattr(console, "_advance", lambda *values: texts.append(values[-1]))
        console.expect(Expected(steps=1000, epochs=1))
        for step in range(1, 1001):
            console(Event(step=step, kind="step", values={"loss": 0.5}, time=step / 1000))
    assert texts[0].startswith("step 1/1,000")
    assert 9 <= len(texts) <= 11
