"""What `torch.autocast` does on a processor, for tensors without memory. Floor 1, room analysis.

Autocast is switched by the tensors' device, and there is none for the meta device. So the casts are
made where a forward calls a function: matrix products and convolutions take the lower precision,
some losses take float32, everything else what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Autocast"]

_LOWER: frozenset[Any] = frozenset(
    {
        *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d),
        *(F.conv_transpose3d, F.linear, F.scaled_dot_product_attention, torch.conv1d, torch.conv2d),
        *(torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.addbmm),
        *(torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.__rmatmul__, torch.Tensor.mm),
        *(torch.Tensor.bmm, torch.Tensor.addmm, torch.Tensor.baddbmm, torch.einsum),
    }
)
"""The operations that PyTorch's own list runs in the lower precision on a processor."""

_FULL: frozenset[Any] = frozenset(
    {F.avg_pool3d, F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.mse_loss}
    | {F.nll_loss, F.kl_div, F.smooth_l1_loss, F.l1_loss, F.grid_sample, torch.prod, torch.cdist}
)
"""Those that it runs in float32."""


class Autocast(TorchFunctionMode):
    """A context in which functions cast what they are given.

    Args:
        dtype: the lower precision; None casts nothing.
    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Cast, then call."""
        kwargs = dict(kwargs or {})
        wanted = None
        if self._dtype is not None:
            if func in _LOWER:
                wanted = self._dtype
            elif func in _FULL:
                wanted = torch.float32
        if wanted is None:
            return func(*args, **kwargs)
        args = tuple(_cast(one, wanted) for one in args)
        return func(*args, **{key: _cast(one, wanted) for key, one in kwargs.items()})


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        lower = value.is_floating_point() and value.dtype in (
            torch.float32,
            torch.bfloat16,
            torch.float16,
        )
        return value.to(dtype) if lower else value
    if isinstance(value, list | tuple):
        return type(value)(_cast(one, dtype) for one in value)
    return value
