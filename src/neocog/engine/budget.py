"""A training that ends when it was said to. Floor 2, room engine; standard library only.

The time of a run is training, then looking at the held-back parts, then writing. What comes after
training is estimated from what the same things took so far and kept back; the rest belongs to
training, and its share that is gone takes the place of step / total in the schedule. So the rate
reaches its end when the time does, also on a machine that slows down on the way: the steps become
fewer, the shape of the schedule stays.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOOKS", "Budget"]

LOOKS = {"one": 1, "mirror": 2, "shift": 3, "mirror+shift": 6}
"""Network calls for each picture, by `InputSpec.views`."""

WRITE = 2.5
"""Seconds for the bundle, the report and the end of the program; measured 1.6 to 2.4 on two cores
with other work on them."""
MARGIN = 0.01
"""Share of the time left that is kept back, for what nobody foresees: half a second in a minute."""
MEMORY = 0.8
"""Weight of the past in the running mean of a step's seconds: some five steps."""


class Budget:
    """How much of the training time is gone, and whether another step fits.

    Args:
        ends: when all must be over, by `clock`.
        during: pictures of one validation while training.
        after: pictures to look at after training, each as often as it will be looked at.
        spent: seconds of training in earlier processes.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        ends: float,
        *,
        during: int,
        after: int,
        spent: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ends = ends
        self.during, self.after = during, after
        self.clock = clock
        self.began = clock() - spent
        self._margin = MARGIN * max(0.0, ends - clock())
        self._step = 0.0
        self._at_look = 0.0
        self._look = 0.0
        self._save = 0.0
        self._share = 0.0
        self._over = False

    def stepped(self, seconds: float) -> None:
        """A step took so long."""
        self._step = MEMORY * self._step + (1 - MEMORY) * seconds if self._step else seconds

    def looked(self, pictures: int, seconds: float) -> None:
        """Looking at so many pictures took so long."""
        if pictures:
            self._look, self._at_look = seconds / pictures, self._step

    def saved(self, seconds: float) -> None:
        """A checkpoint took so long."""
        self._save = seconds

    @property
    def reserve(self) -> float:
        """Seconds that are kept back for what follows training: the last validation, its
        checkpoint, every part once more through the saved bundle, and the report.

        Where steps have become slower since the last look at pictures, so has looking.
        """
        slower = max(1.0, self._step / self._at_look) if self._at_look else 1.0
        looks = (self.during + self.after) * self._look
        return self._margin + slower * (looks + 2 * self._save + WRITE)

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

    def over(self) -> bool:
        """Whether the next step would end too late, by more than half of itself; once it would,
        training is over, whatever later estimates say."""
        self._over = self._over or self.left < self._step / 2
        return self._over

    def nearly_over(self) -> bool:
        """Whether what is left after an epoch is less than its validation takes: then the epoch
        was the last, rather than a few steps that need a validation of their own."""
        return self.left < 2 * self._step + self.during * self._look
