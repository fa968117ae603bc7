"""The sides of a comparison, one module each, run as `python -m sides.NAME ORDER ANSWER`.

Each reads an order (JSON), trains until it has measured enough, and writes an answer (JSON):
pictures a second in every counted epoch, what it did, and the versions that did it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from figures import FIGURES, RUN, Figure

__all__ = ["Order", "answer", "read_order"]


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
    """How long to measure, at least: so many seconds, and one epoch after the first."""
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
        """Epochs of the run that a side is at the beginning of; it stops when it has enough."""
        return 2 if self.quick else max(2, RUN // self.images)

    def enough(self, seconds: list[float]) -> bool:
        """Whether the epochs so far will do, from the seconds of all; the first is not counted."""
        return len(seconds) >= 2 and sum(seconds[1:]) >= self.seconds

    def rates(self, seconds: list[float]) -> list[float]:
        """Pictures a second of each epoch but the first, from the seconds of all."""
        return [self.images / one for one in seconds[1:]]


def read_order() -> Order:
    """The order that the first argument names."""
    return Order(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def answer(rates: list[float], packages: tuple[str, ...] = (), **about: Any) -> None:
    """Write the answer to where the second argument says.

    Args:
        rates: pictures a second of each counted epoch.
        packages: whose versions matter beside torch and NumPy.
        **about: what there is to know of how it was done.
    """
    versions = {name: metadata.version(name) for name in ("torch", "numpy", *packages)}
    value = {"rates": rates, "about": about, "versions": versions}
    Path(sys.argv[2]).write_text(json.dumps(value), encoding="utf-8")
