"""The running average of the weights. Floor 2, room engine; imports floor 0 and
torch.

An exponential moving average of all that a state dict holds: weights and batch norm's running
statistics are averaged (the statistics belong to the weights they were measured under), counters
are copied. What is averaged is what is evaluated and kept.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neocog.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

__all__ = ["Average", "decay_at"]


def decay_at(decay: float, step: int) -> float:
    """The decay in force at one step: min(decay, (1 + step) / (10 + step)).

    Early on the average must forget its random start fast; from about step 9 / (1 − decay) on it
    is the decay that was asked for.

    >>> decay_at(0.999, 0), decay_at(0.999, 90), decay_at(0.999, 100_000)
    (0.1, 0.91, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))


class Average:
    """average ← d · average + (1 − d) · live, with d from `decay_at`.

    Args:
        model: what is averaged; the average begins as a copy of it, in its memory layout.
        decay: in [0, 1).

    Raises:
        ValueError: a decay outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"expected a decay in [0, 1), got {decay}")
        self.decay = decay
        # bfloat16 has 8 bits: a thousandth of a weight would vanish in each sum.
        self._average = {
            name: value.detach().to(_precision(value), copy=True)
            for name, value in model.state_dict().items()
        }

    @property
    def state(self) -> dict[str, Tensor]:
        """The average as a state dict, live; half precision is averaged and kept in float32."""
        return dict(self._average)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the live weights.

        Args:
            model: the network that was given at the start.
            step: optimiser steps done.
        """
        averages: list[Tensor] = []
        live: list[Tensor] = []
        for name, value in model.state_dict().items():
            average = self._average[name]
            if average.is_floating_point() or average.is_complex():
                averages.append(average)
                live.append(value.to(average.dtype))
            else:
                average.copy_(value)
        if averages:
            torch._foreach_lerp_(averages, live, 1 - decay_at(self.decay, step))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a saved average; its tensors are copied, the memory layout stays.

        Raises:
            RunError: names or shapes that are not the model's.
        """
        if state.keys() != self._average.keys():
            odd = sorted(state.keys() ^ self._average.keys())[0]
            raise RunError(f"the saved average is of another network: {odd!r} is in one only")
        for name, average in self._average.items():
            if state[name].shape != average.shape:
                raise RunError(
                    f"{name} of the saved average has shape {tuple(state[name].shape)}, "
                    f"the network has {tuple(average.shape)}"
                )
            average.copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block `model` holds the average; afterwards its own weights, bit for bit."""
        live = model.state_dict()
        kept = {name: value.clone() for name, value in live.items()}
        try:
            _copy(live, self._average)
            yield
        finally:
            _copy(live, kept)


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    for name, value in into.items():
        value.copy_(source[name])


def _precision(value: Tensor) -> torch.dtype:
    """The data type to average in."""
    return torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else value.dtype
