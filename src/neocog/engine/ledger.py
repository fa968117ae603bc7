"""Losses on their way back from the device. Floor 2, room engine; imports torch and floor 0.

To read a loss is to wait until the accelerator has done all that it was told, and then it idles
while the host tells it more. So the host goes on, and reads each loss when it has arrived, some
steps later. On the processor nothing is on its way, and a loss is there at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from neocog.engine.step import Stepped

__all__ = ["Entry", "Ledger", "at_once"]

MOST = 16
"""Steps that may be on their way; the host waits for the oldest, so that it does not run ahead of
the clock and the memory."""


def at_once(device: torch.device) -> bool:
    """Whether a number on this device can be read without waiting for other work."""
    return device.type == "cpu"


class Arrival(Protocol):
    """Says when a copy has arrived; `torch.cuda.Event` is one."""

    def query(self) -> bool:
        """Whether it has."""

    def synchronize(self) -> None:
        """Wait until it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a step left behind."""

    step: int
    """Optimiser steps done, this one included."""
    lr: float
    """Its rate."""
    stepped: Stepped
    """Its loss, and what it was made of, for naming samples."""
    value: Tensor
    """The loss on the host, once it has arrived."""
    arrival: Arrival | None
    """None: it is there."""


class Ledger:
    """Losses in the order of their steps, each given out once, when it is there."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        """Steps whose loss is not there yet, or was not given out."""
        return len(self._entries)

    def put(self, step: int, lr: float, stepped: Stepped) -> None:
        """Take in a step; its loss starts on its way to the host."""
        value, arrival = _send(stepped.loss)
        self._entries.append(Entry(step=step, lr=lr, stepped=stepped, value=value, arrival=arrival))

    def settled(self, *, wait: bool) -> Iterator[Entry]:
        """The entries that are there, the oldest first.

        Args:
            wait: until all are there.
        """
        while self._entries:
            arrival = self._entries[0].arrival
            if arrival is not None and not arrival.query():
                if not wait and len(self._entries) <= MOST:
                    return
                arrival.synchronize()
            yield self._entries.popleft()


def _send(loss: Tensor) -> tuple[Tensor, Arrival | None]:
    """Start the copy of a scalar to the host."""
    if loss.device.type != "cuda":
        return loss, None
    value = torch.empty((), dtype=loss.dtype, pin_memory=True)
    value.copy_(loss, non_blocking=True)
    arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrival.record(torch.cuda.current_stream(loss.device))
    return value, arrival
