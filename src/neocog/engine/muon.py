"""Muon for matrices, in the precision that the machine is fast in. Floor 2, room engine.

Imports torch. The rule is torch.optim.Muon's, and so are the numbers where bfloat16 is native. That
one always computes in bfloat16, which a processor without it emulates: there the five products of
one 256×2304 matrix take 1.6 s instead of 0.1 to 0.4, longer than the training step around them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from neocog.machine import multiplies_bf16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

__all__ = ["Muon", "orthogonal", "working_type"]

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration (Jordan et al. 2024): steepest at zero, so that small singular
values grow fast; the result's lie between 0.7 and 1.2 rather than at 1."""
STEPS = 5
TINY = 1e-7


def working_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies it natively, else float32."""
    return torch.bfloat16 if multiplies_bf16(device) else torch.float32


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """U·Vᵀ of the matrix's singular value decomposition, roughly, by Newton-Schulz iteration.

    Args:
        matrix: R×C.
        dtype: what to compute in.

    Returns:
        R×C, of that type.

    >>> found = orthogonal(torch.diag(torch.tensor([4.0, 0.5])), torch.float32)
    >>> bool((found.diagonal() > 0.65).all() and (found.diagonal() < 1.25).all())
    True
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(dtype)
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=TINY)  # singular values at most 1
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024; arXiv 2502.16982), with Nesterov's look-ahead.

    Args:
        params: matrices, R×C, or groups of them.
        lr: rate.
        momentum: decay of the running direction.
        weight_decay: decoupled.
        scale: of a step. `original`: √max(1, R/C); `match_rms_adamw`: 0.2·√max(R, C).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        scale: Literal["original", "match_rms_adamw"],
    ) -> None:
        self.scale = scale
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        if closure is not None:
            raise ValueError("a closure is of no use here")
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                running = state["momentum_buffer"]
                running.lerp_(weight.grad, 1 - momentum)
                ahead = weight.grad.lerp(running, momentum)
                update = orthogonal(ahead, working_type(weight.device))
                weight.mul_(1 - lr * group["weight_decay"])
                weight.add_(update, alpha=-lr * self._factor(*weight.shape))

    def _factor(self, rows: int, columns: int) -> float:
        """What the rate is multiplied with for one shape."""
        if self.scale == "original":
            return math.sqrt(max(1.0, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))
