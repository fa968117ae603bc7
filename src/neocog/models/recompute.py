"""Less memory for more time: activations that are computed again instead of kept. Floor 2, room
models; imports torch only.

Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost", arXiv 1604.06174.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Recomputed", "recomputed"]


class Recomputed(nn.Sequential):
    """Blocks one after the other; of each, training keeps what comes in, and nothing inside.

    Names of parameters, answers and gradients are those of `nn.Sequential`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Sequential`."""
        for block in self:
            x = recomputed(block, x)
        return x


def recomputed(block: nn.Module, *inputs: Tensor) -> Tensor:
    """What `block` answers; where gradients are wanted, its backward pass computes it once more.

    Dropout draws the same numbers again, and batch norm moves its running averages once.

    Args:
        block: any module.
        inputs: what it takes; they are kept.
    """
    if not (block.training and torch.is_grad_enabled()):
        answer: Tensor = block(*inputs)
        return answer
    again: dict[str, Any] = {}
    if not torch.compiler.is_compiling():  # a compiled step moves the averages once by itself
        again["context_fn"] = lambda: (contextlib.nullcontext(), _averages_rest(block))
    second: Tensor = checkpoint(block, *inputs, use_reentrant=False, **again)
    return second


@contextlib.contextmanager
def _averages_rest(block: nn.Module) -> Iterator[None]:
    """Batch norms inside neither count nor move their running averages.

    They still get them: without, autograd would keep another number of tensors than the first time.
    """
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
