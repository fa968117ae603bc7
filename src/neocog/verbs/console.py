"""What a person sees while something runs: a bar on a terminal, plain lines elsewhere.

Floor 5, room verbs; imports floor 0 and rich. Everything goes to standard error, so that standard
output stays free for results. Telling somebody never ends a training: a console that cannot be
written to, for its pipe is closed, its terminal gone or the disk behind it full, falls silent.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from neocog.measures import is_share

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TextIO

    from neocog.records import Event

__all__ = ["Console", "Expected", "clock", "epoch_line"]

_TOLD = {"val_jaccard", "val_accuracy", "val_mean_average_precision", "val_mae", "val_r2"}
"""Scores that the line about an epoch has room for; where none is among them, the first."""
EVERY = 0.1
"""Seconds between two texts beside the bar."""


def clock(seconds: float) -> str:
    """Seconds for people.

    >>> clock(9.4), clock(75), clock(4000)
    ('0:09', '1:15', '1:06:40')
    """
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def epoch_line(values: Any, epochs: int | None, left: float) -> str:
    """One line about one epoch; of how many, where that is known.

    >>> epoch_line({"epoch": 3, "loss": 0.25, "val_loss": 0.3, "val_accuracy": 0.9,
    ...             "images_per_second": 1234.5}, 10, 75)
    'epoch  3/10  loss 0.2500  val_loss 0.3000  val_accuracy 90.0 %  1,234 images/s  1:15 left'
    """
    number = f"{values['epoch']:{len(str(epochs))}d}/{epochs}" if epochs else values["epoch"]
    shown = [f"epoch {number}", f"loss {values['loss']:.4f}"]
    scores = [name for name in values if name.startswith("val_") and name != "val_loss"]
    told = [name for name in scores if name in _TOLD] or scores[:1]
    for name in (*(["val_loss"] if "val_loss" in values else ()), *told):
        value = values[name]
        shown.append(f"{name} {100 * value:.1f} %" if is_share(name) else f"{name} {value:.4f}")
    shown.append(f"{values['images_per_second']:,.0f} images/s")
    shown.append(f"{clock(left)} left")
    return "  ".join(shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How long a training is."""

    steps: int
    """In an epoch."""
    epochs: int = 0
    """Passes; 0: as many as the time allows."""
    first: int = 0
    """Steps done when this process began."""
    ends: float = 0.0
    """Without epochs: when all is over, by `time.monotonic`."""
    work: Callable[[float], float] = float
    """Share of the steps → what they cost, in any unit."""

    def left(self, done: int, spent: float) -> float:
        """Seconds left, after so many steps in so many seconds."""
        if not self.epochs:
            return max(0.0, self.ends - time.monotonic())
        total = self.steps * self.epochs
        if self.first + done >= total:
            return 0.0
        begun, now, all_ = (
            self.work(step / total) for step in (self.first, self.first + max(1, done), total)
        )
        return spent / (now - begun) * (all_ - now)


class _Stream:
    """A text stream that falls silent, for good, once it cannot be written to.

    It stands below rich, so that the thread that draws bars is guarded too, and rich never comes
    to end the process over a closed pipe.

    Args:
        below: where everything goes; None where the process has no standard error.
    """

    def __init__(self, below: TextIO | None) -> None:
        self._below = below
        self.silent = below is None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return self._below is not None and self._below.isatty()

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Push out what was written, or do nothing."""
        self._try("flush")

    def _try(self, name: str, *values: str) -> None:
        if self.silent:
            return
        try:
            getattr(self._below, name)(*values)
        except (OSError, ValueError):  # ValueError: somebody has closed it
            self.silent = True


class Console:
    """A listener of events, and a place for progress of scan and pack.

    Use as a context manager, so that the bar is taken away whatever happens.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._stream = _Stream(sys.stderr)
        self.rich = RichConsole(file=cast("IO[str]", self._stream), highlight=False, soft_wrap=True)
        self.terminal = self.rich.is_terminal and not quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._length = Expected(epochs=1, steps=1)
        self._began = 0.0
        self._shown = -math.inf

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.done()

    def say(self, text: str) -> None:
        """One line for people."""
        if not self.quiet:
            self.rich.print(text, markup=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a long step has come; plain lines say only when it ends."""
        if self.quiet or total <= 0:
            return
        if self.terminal:
            if what != self._what:
                self.done()
                self._what = what
            self._advance(what, done, total, f"{done:,} of {total:,}")
        elif done == total and total >= 1000:
            self.say(f"{what}: {total:,} done")

    def _advance(self, what: str, done: int, total: int, text: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[text]}"),
                console=self.rich,
                transient=True,
                refresh_per_second=5,
            )
            self._bar.start()
        if self._task is None:
            self._task = self._bar.add_task(what, total=total, text=text)
        self._bar.update(self._task, description=what, completed=done, total=total, text=text)

    def done(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task, self._what = None, None, ""

    def expect(self, length: Expected) -> None:
        """Say how long a training is, and at which step it begins."""
        self._length = length

    def __call__(self, event: Event) -> None:
        """Show one event of a training."""
        length = self._length
        if event.kind == "start" or not self._began:
            self._began = event.time or 1e-9
        if event.kind == "step":
            # The bar is drawn five times a second; a text for each step of a small network took
            # 1 % of it.
            if not self.terminal or 0 <= event.time - self._shown < EVERY:
                return
            self._shown = event.time
            spent = event.time - self._began
            done = event.step - length.first
            rate = done / spent if spent > 0 else 0.0
            left = length.left(done, spent)
            number = (event.step - 1) // length.steps + 1
            total = f"/{length.steps * length.epochs:,}" if length.epochs else ""
            text = (
                f"step {event.step:,}{total}  loss {event.values['loss']:.4f}  "
                f"{rate:,.1f} steps/s  {clock(left)} left"
            )
            what = f"epoch {min(number, length.epochs)}/{length.epochs}"
            # In thousandths of the time, which is all that is known of a run without epochs.
            share = round(1000 * spent / (spent + left)) if spent + left else 0
            self._advance(what if length.epochs else f"epoch {number}", share, 1000, text)
        elif event.kind == "epoch":
            left = length.left(event.step - length.first, event.time - self._began)
            self.say(epoch_line(event.values, length.epochs, left))
        elif event.kind == "rate":
            self.say(f"rate lowered to {event.values['lr']:.3g}")
        elif event.kind == "save-failed":
            self.say(f"warning: {event.values['error']}; training goes on and will try again")
        elif event.kind == "end":
            self.done()
            if event.values["reason"] not in ("all epochs done", "the time is up"):
                self.say(f"stopped: {event.values['reason']}")
        self._stream.flush()
