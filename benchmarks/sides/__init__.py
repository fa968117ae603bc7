"""The sides of a comparison, one module each, run as `python -m sides.NAME ORDER ANSWER`.

Each reads an order (JSON), trains whenever it is its turn, and writes an answer (JSON): pictures a
second in every turn, what it did, and the versions that did it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from figures import FIGURES, RUN, Figure

SETTLE = 1.2
"""Seconds at the beginning of a turn that are not counted: two looks of `neocog.waiting`."""

__all__ = ["Order", "Turns", "answer", "read_order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one side is to do in one round."""

    figure: str
    """Name of the figure."""
    data: str
    """The .npz with the pictures."""
    folder: str
    """Place for files, empty."""
    images: int
    """Pictures an epoch: whole batches."""
    batch: int
    """Pictures a step."""
    seconds: float
    """How long a turn is, at least: so many seconds, and an epoch."""
    threads: int
    """Processors that every side gets."""
    compile: str
    """auto, on or off: whether torch.compile may be used, by the bare loop and by ours."""
    quick: bool
    """Only see whether it works."""
    facts: dict[str, Any]
    """What `nets.facts` says of the net."""
    options: dict[str, Any]
    """The side's own."""

    @property
    def net(self) -> Figure:
        """The figure, at this order's batch."""
        return dataclasses.replace(FIGURES[self.figure], batch=self.batch, images=self.images)

    @property
    def epochs(self) -> int:
        """Epochs of the run that a side is at the beginning of; it is stopped before."""
        return 2 if self.quick else max(2, RUN // self.images)


class Turns:
    """The side's end of the conversation with `contest.Contender`, and its book of what was when.

    The first epoch is not counted: libraries set up memory, JAX compiles. After it the side waits
    for its first turn. Nor is the beginning of a turn: our side sleeps soon while it waits where
    others are busy, and sees only after a moment that they no longer are. From here on standard
    output belongs to the conversation, and what libraries print goes where errors go.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.settle = 0.0 if order.quick else SETTLE
        self.counted: list[tuple[int, int]] = []
        """Of each turn, how many epochs were done before the first that counts, and after the
        last."""
        self.waited: dict[int, float] = {}
        """Epochs that were done → seconds that the others then had."""
        self.began = 0.0
        self.first: int | None = None
        self.mouth = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def over(self, seconds: list[float], **about: Any) -> bool:
        """To be asked after each epoch. At the end of a turn, waits for the next.

        Args:
            seconds: of all epochs so far.
            **about: what others are told.

        Returns:
            Whether all is measured.
        """
        done = len(seconds)
        if self.waited:
            if self.first is None and time.perf_counter() - self.began >= self.settle:
                self.first = done
                return False
            if self.first is None or sum(seconds[self.first :]) < self.order.seconds:
                return False
            self.counted.append((self.first, done))
        elif not done:
            return False
        ended = time.perf_counter()
        print("turn", json.dumps(about), file=self.mouth, flush=True)
        word = sys.stdin.readline().strip()
        self.began = time.perf_counter()
        self.waited[done] = self.began - ended
        self.first = None if self.settle else done
        return word != "go"

    def rates(self, seconds: list[float]) -> list[float]:
        """Pictures a second in each turn, from the seconds of all epochs."""
        return [
            self.order.images * (last - first) / sum(seconds[first:last])
            for first, last in self.counted
        ]


def read_order() -> Order:
    """The order that the first argument names."""
    return Order(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def answer(rates: list[float], packages: tuple[str, ...] = (), **about: Any) -> None:
    """Write the answer to where the second argument says.

    Args:
        rates: pictures a second in each turn.
        packages: whose versions matter beside torch and NumPy.
        **about: what there is to know of how it was done.
    """
    versions = {name: metadata.version(name) for name in ("torch", "numpy", *packages)}
    value = {"rates": rates, "about": about, "versions": versions}
    Path(sys.argv[2]).write_text(json.dumps(value), encoding="utf-8")
