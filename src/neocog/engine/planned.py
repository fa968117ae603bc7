"""An optimiser over tensors without memory that does what it would do on a device. Floor 2.

Room engine; imports torch and this room. On a processor and on a GPU most rules run as one fused
kernel, which torch refuses to set up for the meta device although it can run there. So it is set up
as a loop over tensors and switched over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from neocog.engine import optim

if TYPE_CHECKING:
    from torch import nn

    from neocog.config import OptimRecipe

__all__ = ["Planned"]


class Planned:
    """The optimiser of a recipe over a network on the meta device.

    Args:
        model: its parameters lie on the meta device.
        recipe: the rule.
        device: `cpu`, `cuda`, …: where it would run.
    """

    def __init__(self, model: nn.Module, recipe: OptimRecipe, device: str) -> None:
        self._optimizers = optim.build(model, recipe)
        fused = optim.FUSED.get(device, frozenset())
        self._switched = [one for one in self._optimizers.parts if _rule_of(one) in fused]
        for one in self._switched:
            # Torch asks for a real device only as long as this is not set (SGD, Adagrad), or as a
            # parameter has no state yet (Adam): see `step`.
            one._need_device_dtype_check_for_fused = False  # type: ignore[attr-defined]
            for group in one.param_groups:
                group["fused"], group["foreach"] = True, False

    def step(self) -> None:
        """One update."""
        for one in self._switched:
            if isinstance(one, torch.optim.Adam):
                _begin(one)
        self._optimizers.step()


def _rule_of(optimizer: torch.optim.Optimizer) -> str:
    """The recipe's name of a torch optimiser; empty for one that has no fused kernel."""
    if isinstance(optimizer, torch.optim.SGD):
        group = optimizer.param_groups[0]
        return "nesterov" if group["nesterov"] else "momentum" if group["momentum"] else "sgd"
    names = {torch.optim.Adagrad: "adagrad", torch.optim.Adam: "adam", torch.optim.AdamW: "adamw"}
    return names.get(type(optimizer), "")


def _begin(optimizer: torch.optim.Adam) -> None:
    """The state that Adam begins with: the count of steps and both running means."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not optimizer.state[parameter]:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
