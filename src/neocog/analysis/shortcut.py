"""Answers on the meta device that PyTorch takes long to find. Floor 1, room analysis; needs torch.

On tensors without memory PyTorch works batch norm out in a dozen small operations of Python, some
milliseconds each time; in deep networks that is most of a trace. What comes out is plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["run"]


def run(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives, for tensors on the meta device."""
    rule = _RULES.get(func)
    return func(*args, **kwargs) if rule is None else rule(*args, **kwargs)


def _batch_norm(
    source: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised input, and what the backward pass wants: mean and 1/σ of each channel, which
    only training has."""
    count = source.shape[1] if training else 0
    kind = torch.float32 if source.dtype in (torch.bfloat16, torch.float16) else source.dtype
    return (
        torch.empty_like(source),
        torch.empty(count, dtype=kind, device="meta"),
        torch.empty(count, dtype=kind, device="meta"),
    )


def _batch_norm_backward(
    grad: Tensor,
    source: Tensor,
    weight: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    saved_mean: Tensor | None,
    saved_var: Tensor | None,
    training: bool,
    eps: float,
    mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the input, the scale and the shift, as far as they are wanted."""
    kind = source.dtype if weight is None else weight.dtype

    def vector() -> Tensor:
        return torch.empty(source.shape[1], dtype=kind, device="meta")

    return (
        torch.empty_like(source) if mask[0] else None,
        vector() if mask[1] else None,
        vector() if mask[2] else None,
    )


_RULES: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.native_batch_norm.default: _batch_norm,
    torch.ops.aten.native_batch_norm_backward.default: _batch_norm_backward,
}
