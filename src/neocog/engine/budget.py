"""A training that ends when it was said to. Floor 2, room engine; imports floor 0.

The time of a run is training, then looking at the held-back parts, then writing. What comes after
training is estimated from what the same things took so far and kept back; the rest belongs to
training, and its share that is gone takes the place of step / total in the schedule. So the rate
reaches its end when the time does, also on a machine that slows down on the way: the steps become
fewer, the shape of the schedule stays.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from typing import TYPE_CHECKING

from neocog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.records import Views

__all__ = ["LOOKS", "Budget", "affords"]

LOOKS = {"one": 1, "mirror": 2, "shift": 3, "mirror+shift": 6}
"""Network calls for each picture, by `InputSpec.views`."""

FURTHER = 0.25
"""Share of a run's time that answers from further views may take: from there on steps are worth
more. In two minutes on two cores `speednet` at its full width answered for CIFAR-10's held-back
tenth for 52 s after 60 s of training."""
WRITE = 3.5
"""Seconds for the bundle, the report and the end of the program: on two cores 1.6 to 2.4 for what
is written, the rest for what is around it."""
AGAIN = 1.1
"""What a look after training may take of one before: few were timed, and machines waver."""
MARGIN = 0.01
"""Share of the time left that is kept back, for what nobody foresees: half a second in a minute."""
RECENT, WHILE = 5, 0.01
"""How long a step takes now is the median of so many stretches, each of this share of the whole
time, or of one step that is longer. It follows a machine that became slower after three of them;
what gets in the way for a moment does not move it: a training that ends too early cannot go on."""
PAUSE = 0.01
"""Share of the time that lies between two validations, at least: a tiny set has a thousand passes a
minute, and they are not a thousand news."""


def affords(views: Views, look: float, left: float) -> bool:
    """Whether a run may answer from all these views of a picture.

    Args:
        views: of the network's input.
        look: seconds of one look at all that is held back.
        left: seconds of the run, training among them.

    >>> affords("shift", 10.0, 90.0), affords("mirror+shift", 10.0, 90.0)
    (True, False)
    """
    return (LOOKS[views] - 1) * look <= FURTHER * left


class Budget:
    """How much of the training time is gone, and whether another step fits.

    Args:
        ends: when all must be over, by `clock`.
        minutes: that the whole run was given; reading and measuring came out of them.
        during: pictures of one validation while training.
        after: pictures to look at after training, each as often as it will be looked at.
        spent: seconds of training in earlier processes.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        ends: float,
        *,
        minutes: float = 0.0,
        during: int,
        after: int,
        spent: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ends, self.minutes = ends, minutes
        self.during, self.after = during, after
        self.clock = clock
        self.began = clock() - spent
        self._whole = max(0.0, ends - self.began)
        self._margin = MARGIN * max(0.0, ends - clock())
        self._paused = clock()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._steps, self._spent = 0, 0.0
        self._size: tuple[int, ...] = ()
        self._at_look = 0.0
        self._look = 0.0
        self._save = 0.0
        self._share = 0.0
        self._over = False

    @property
    def used(self) -> float:
        """Seconds of the run's time that are gone, those of earlier processes included."""
        return round(60 * self.minutes - (self.ends - self.clock()), 3)

    def opening(self) -> dict[str, float]:
        """What the first event tells of the time: what is `used` of it.

        Raises:
            ConfigError: nothing is left before the first step; with what the time went into.
        """
        if not self.minutes:  # its end is known, but not what it was given
            return {}
        gone = self.used
        if self.left > 0:
            return {"used": gone}
        raise ConfigError(
            f"of {self.minutes:g} minutes nothing is left for training: {gone:.1f} s went into "
            f"reading and measuring, {self.reserve:.1f} s are needed to evaluate and write",
            f"give at least --minutes {math.ceil(10 * (gone + self.reserve) / 60 + 1) / 10:g}",
        )

    def stepped(self, seconds: float, size: tuple[int, ...] = ()) -> None:
        """A step took so long, on pictures of this size: steps on others tell nothing of it."""
        if size != self._size:
            self._recent.clear()
            self._steps, self._spent, self._at_look = 0, 0.0, 0.0
            self._size = size
        self._steps, self._spent = self._steps + 1, self._spent + seconds
        if self._spent < WHILE * self._whole:
            return
        self._recent.append(self._spent / self._steps)
        self._steps, self._spent = 0, 0.0
        if len(self._recent) == RECENT and not self._at_look:
            self._at_look = self._step  # the first look was before the first step

    def looked(self, pictures: int, seconds: float) -> None:
        """Looking at so many pictures took so long."""
        if pictures:
            self._look, self._at_look = seconds / pictures, self._step
            self._paused = self.clock()

    def saved(self, seconds: float) -> None:
        """A checkpoint took so long."""
        self._save = seconds

    @property
    def _step(self) -> float:
        """Seconds of a step now; 0 before the first."""
        if self._recent:
            return statistics.median(self._recent)
        return self._spent / self._steps if self._steps else 0.0

    @property
    def _slower(self) -> float:
        """How many times as long as at the last look things take now."""
        return max(1.0, self._step / self._at_look) if self._at_look else 1.0

    @property
    def reserve(self) -> float:
        """Seconds that are kept back for what follows training: the last validation, its
        checkpoint, every part once more through the saved bundle, and the report.

        Where steps have become slower since the last look at pictures, so has looking.
        """
        looks = AGAIN * (self.during + self.after) * self._look
        return self._margin + self._slower * (looks + 2 * self._save + WRITE)

    @property
    def left(self) -> float:
        """Seconds of training left."""
        return self.ends - self.reserve - self.clock()

    def share(self) -> float:
        """The share of the training time that is gone, in [0, 1]; it never falls."""
        gone = self.clock() - self.began
        now = gone / (gone + self.left) if self.left > 0 else 1.0
        self._share = min(1.0, max(self._share, now))
        return self._share

    def over(self, pending: int = 0) -> bool:
        """Whether the next step would end too late, by more than half of itself; once it would,
        training is over, whatever later estimates say.

        Args:
            pending: steps that the device was told to do and has not done yet.
        """
        self._over = self._over or self.left < (pending + 0.5) * self._step
        return self._over

    def pause(self) -> bool:
        """Whether to validate after this pass: the last validation was a while ago, and what is
        left is longer than this one takes. Else training goes on: the last part of the time is
        worth more than a look shortly before the last one."""
        look = self._slower * self.during * self._look
        return self.clock() - self._paused >= PAUSE * self._whole and self.left > look + self._step
