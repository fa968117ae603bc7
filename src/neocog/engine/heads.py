"""The heads that a training step asks: the main one and, where a network has them, auxiliary ones.
Floor 2, room engine; imports floor 0.

An auxiliary head is a classifier halfway, whose loss carries a gradient past the deeper layers. It
serves training alone: evaluation and whoever uses the network call its plain `forward`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neocog.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from neocog.engine.task import Task
    from neocog.records import Batch

__all__ = ["Heads"]


class Heads:
    """All heads of a network, and what they cost together: L = L_main + w · Σ L_auxiliary (Szegedy
    et al. 2014, arXiv 1409.4842, section 5).

    A network declares them with `forward_auxiliary(x)`, the main outputs and then those of each
    auxiliary head that is on, and w with `auxiliary_weight`. Any other has its `forward` alone.

    Args:
        network: asked as it is at each call, in the mode and layout that it has then.
        compiled: ask what `torch.compile` makes of it.
        growing: pictures come in a few heights and widths, one after the other. Each has a compiled
            graph of its own; by default the second would get one for any, which is slower.

    Raises:
        ConfigError: auxiliary heads without a weight that is a number, 0 or more.
    """

    def __init__(
        self, network: nn.Module, *, compiled: bool = False, growing: bool = False
    ) -> None:
        auxiliary = getattr(network, "forward_auxiliary", None)
        self._one = auxiliary is None
        forward = network if auxiliary is None else auxiliary
        self._forward: Any = torch.compile(forward) if compiled else forward
        self._static = compiled and growing
        self._weight = 0.0 if auxiliary is None else _weight(network)

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the main outputs, then those of each auxiliary head; B×outputs each.

        Raises:
            ConfigError: no tensor, but several or something else.
        """
        if self._static:
            torch._dynamo.mark_static(images, [2, 3])
        found = self._forward(images)
        if not self._one:
            return tuple(found)
        if not isinstance(found, Tensor):
            raise ConfigError(
                f"the network gives a {type(found).__name__} while it trains, expected one tensor",
                "switch its auxiliary outputs off (aux_logits=False in torchvision), or give them "
                "with `forward_auxiliary`",
            )
        return (found,)

    def losses(
        self, task: Task, outputs: tuple[Tensor, ...], batch: Batch, *, training: bool = False
    ) -> Tensor:
        """Loss of each sample over all heads, B, before weighting the samples; in float32.

        Args:
            task: what one head's outputs are worth.
            outputs: of `outputs`.
            batch: the batch that was answered.
            training: as `Task.loss` takes it.
        """
        main, *others = (task.loss(one.float(), batch, training=training) for one in outputs)
        for one in others:
            main = main + self._weight * one
        return main


def _weight(network: nn.Module) -> float:
    """What the loss of each auxiliary head counts in the sum."""
    found = getattr(network, "auxiliary_weight", None)
    if isinstance(found, int | float) and 0 <= found < math.inf:
        return float(found)
    raise ConfigError(
        f"{type(network).__name__} has `forward_auxiliary`, so its `auxiliary_weight` must be a "
        f"number, 0 or more; got {found!r}",
        "set `auxiliary_weight` on the class (0.3 is usual), or rename the method",
    )
