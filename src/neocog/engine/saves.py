"""When and where a training is saved, and what happens when it cannot be. Floor 2, room engine.

Imports checkpoint and floor 0. A full disk is no reason to lose a night of training: a checkpoint
that cannot be written is an event, and is tried again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from neocog.engine import checkpoint
from neocog.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from neocog.records import TrainState

__all__ = ["Saves"]

RETRY = 60.0
"""Seconds until what failed is tried again, at most."""
SHARE = 0.1
"""Share of a run's time between two checkpoints, at most, where the time is given."""
BEST = "best-weights"
"""Name of the copy that early stopping goes back to."""


class Saves:
    """The checkpoints of one training.

    Args:
        folder: where they go.
        every: seconds between two of them, at most; 0: only when asked.
        world: stands in each beside the state.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: float,
        world: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        self.folder, self.every, self.world, self.clock = folder, every, world, clock
        self._last = clock()
        self._wait = every
        self._best: dict[str, Tensor] | None = None
        self.written = 0
        self.error = ""
        """What went wrong with the last one; empty where nothing did."""

    def due(self) -> bool:
        """Whether the last one was so long ago that losing what followed would hurt."""
        return self._wait > 0 and self.clock() - self._last >= self._wait

    def state(self, state: TrainState, *, name: str | None, events: int) -> bool:
        """Write a checkpoint; of those that resuming needs the last two stay.

        Args:
            state: all of it.
            name: of a copy; None: what resuming looks for.
            events: how many events belong to it.

        Returns:
            Whether it was written. If not, `error` says why.
        """
        if name is None and self._best is not None and not self.weights(self._best, name=BEST):
            return False  # the state remembers a best epoch whose weights nobody could bring back
        meta = {"events": events, "world": dict(self.world)}
        if not self.attempt(lambda: checkpoint.save(self.folder, state, name=name, meta=meta)):
            return False
        if name is None:
            self._last = self.clock()
            self.written += 1
            with contextlib.suppress(OSError):  # an old one too many does no harm
                checkpoint.prune(self.folder, keep=2)
        return True

    def weights(self, weights: Mapping[str, Tensor], *, name: str) -> bool:
        """Write the weights alone, as a plain safetensors file."""
        path = self.folder / f"{name}.safetensors"
        done = self.attempt(lambda: checkpoint.save_weights(path, weights))
        if name == BEST:
            # A file that is not there must not bring the best of an earlier epoch back.
            self._best = None if done else {k: v.detach().clone() for k, v in weights.items()}
        return done

    def best(self) -> Mapping[str, Tensor] | None:
        """The last weights that were saved as the best; None, and `error`, where they are gone."""
        if self._best is not None:
            return self._best
        try:
            return checkpoint.load_weights(self.folder / f"{BEST}.safetensors")
        except RunError as error:
            self.error = error.message
            return None

    def attempt(self, write: Callable[[], object]) -> bool:
        """Do it; where the disk refuses, remember why and try again before long."""
        try:
            write()
        except (RunError, OSError) as error:
            self.error = error.message if isinstance(error, RunError) else str(error)
            self._last, self._wait = self.clock(), min(self.every or RETRY, RETRY)
            return False
        self.error, self._wait = "", self.every
        return True
