"""What changes while training: all of it, and nothing else. Floor 2, room engine.

Imports its own room and floor 0. A checkpoint holds exactly this, as a `TrainState`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.engine.control import recall, remember
from neocog.records import TrainState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from neocog.engine import optim
    from neocog.engine.averaging import Average
    from neocog.engine.control import Callback

__all__ = ["Live"]


@dataclass(slots=True, kw_only=True)
class Live:
    """The state of one training, and the objects that carry it."""

    network: nn.Module
    """Trained in place."""
    optimizers: optim.Optimizers
    """Over its parameters."""
    average: Average | None
    """Of its weights; None: averaging is off."""
    scaler: torch.amp.GradScaler
    """Of the loss, for fp16."""
    callbacks: Sequence[Callback]
    """Those that remember something are saved too."""
    step: int = 0
    """Optimiser steps done."""
    scale: float = 1.0
    """What callbacks have made of the rate, as a factor."""
    floor: float = 0.0
    """The rate that they do not go below."""
    reason: str = ""
    """Why a callback stopped the run; empty while none has."""
    restore: bool = False
    """Whether the run ends with its best weights."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """What would be kept if the run ended now: the average, where there is one."""
        return self.average.state if self.average else self.network.state_dict()

    def state(self) -> TrainState:
        """Everything as one record."""
        return TrainState(
            step=self.step,
            model=self.network.state_dict(),
            optimizer=self.optimizers.state_dict(),
            schedule={
                "scale": self.scale,
                "floor": self.floor,
                "reason": self.reason,
                "restore": self.restore,
                "scaler": self.scaler.state_dict(),
                "callbacks": remember(self.callbacks),
            },
            ema=self.average.state if self.average else {},
        )

    def load(self, state: TrainState) -> None:
        """Take everything from a record."""
        self.network.load_state_dict(dict(state.model))
        self.optimizers.load_state_dict(state.optimizer)
        if self.average:
            self.average.load(state.ema)
        memory = state.schedule
        self.step = state.step
        self.scale, self.floor = memory["scale"], memory["floor"]
        self.reason, self.restore = memory["reason"], memory["restore"]
        self.scaler.load_state_dict(memory["scaler"])
        recall(self.callbacks, memory["callbacks"])
