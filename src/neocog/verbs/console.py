"""What a person sees while something runs: a bar on a terminal, plain lines elsewhere.

Floor 5, room verbs; imports floor 0 and rich. Everything goes to standard error, so that standard
output stays free for results.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from types import TracebackType

    from neocog.records import Event

__all__ = ["Console", "clock", "epoch_line"]


def clock(seconds: float) -> str:
    """Seconds for people.

    >>> clock(9.4), clock(75), clock(4000)
    ('0:09', '1:15', '1:06:40')
    """
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def epoch_line(values: Any, epochs: int, left: float) -> str:
    """One line about one epoch.

    >>> epoch_line({"epoch": 3, "loss": 0.25, "val_loss": 0.3, "val_accuracy": 0.9,
    ...             "images_per_second": 1234.5}, 10, 75)
    'epoch  3/10  loss 0.2500  val_loss 0.3000  val_accuracy 90.0 %  1,234 images/s  1:15 left'
    """
    shown = [f"epoch {values['epoch']:{len(str(epochs))}d}/{epochs}", f"loss {values['loss']:.4f}"]
    for name in ("val_loss", "val_accuracy", "val_mean_average_precision", "val_mae", "val_r2"):
        if name in values:
            value = values[name]
            share = name in ("val_accuracy", "val_mean_average_precision")
            shown.append(f"{name} {100 * value:.1f} %" if share else f"{name} {value:.4f}")
    shown.append(f"{values['images_per_second']:,.0f} images/s")
    shown.append(f"{clock(left)} left")
    return "  ".join(shown)


class Console:
    """A listener of events, and a place for progress of scan and pack.

    Use as a context manager, so that the bar is taken away whatever happens.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.rich = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self.terminal = self.rich.is_terminal and not quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._epochs = self._steps = self._per_epoch = 0
        self._began = 0.0
        self._first = 0

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

    def expect(self, epochs: int, total: int, first: int = 0) -> None:
        """Say how long a training is, and at which step it begins."""
        self._epochs, self._steps, self._first = epochs, total, first
        self._per_epoch = max(1, total // epochs)

    def __call__(self, event: Event) -> None:
        """Show one event of a training."""
        if event.kind == "start" or not self._began:
            self._began = event.time or 1e-9
        if event.kind == "step" and self.terminal:
            spent = event.time - self._began
            rate = (event.step - self._first) / spent if spent > 0 else 0.0
            rest = clock((self._steps - event.step) / rate) if rate else "?"
            epoch = min(self._epochs, (event.step - 1) // self._per_epoch + 1)
            text = (
                f"step {event.step:,}/{self._steps:,}  loss {event.values['loss']:.4f}  "
                f"{rate:,.1f} steps/s  {rest} left"
            )
            self._advance(f"epoch {epoch}/{self._epochs}", event.step, self._steps, text)
        elif event.kind == "epoch":
            steps = max(1, event.step - self._first)
            left = (event.time - self._began) / steps * (self._steps - event.step)
            self.say(epoch_line(event.values, self._epochs, left))
        elif event.kind == "rate":
            self.say(f"rate lowered to {event.values['lr']:.3g}")
        elif event.kind == "end":
            self.done()
            if event.values["reason"] != "all epochs done":
                self.say(f"stopped: {event.values['reason']}")
        sys.stderr.flush()
