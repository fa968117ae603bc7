"""What PyTorch decides by the device of its tensors, for tensors without memory. Floor 1.

Room analysis; imports torch and this room. Casts and attention are chosen by the tensors' device,
and there is no such choice for the meta device. So it is made where a forward calls a function: by
autocast, matrix products and convolutions take the lower precision, some losses take float32,
everything else what it is given; and attention is the operation that the device has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from neocog.analysis.attention import attend, attend_native, is_native, multi_head

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


_RECURRENT: Mapping[str, str] = {
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn_tanh": "RNN",
    "rnn_relu": "RNN",
}
"""Functions that fall apart into single steps of time on the meta device, but run as one operation,
with a memory of its own, elsewhere."""


class Autocast(TorchFunctionMode):
    """A context in which functions cast what they are given, and attention is the device's own.

    Args:
        dtype: the lower precision; None casts nothing.
        device: where the forward would run.
    """

    def __init__(self, dtype: torch.dtype | None, device: str) -> None:
        super().__init__()
        self._dtype = dtype
        self._device = device
        self._native = False
        self.rough: set[str] = set()
        """Layers that ran another way than they would on the device."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Cast, then call."""
        kwargs = dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            outer = self._native
            plain = self._dtype is None and len(args) > 4
            self._native = plain and is_native(args[0], args[1], args[2], args[4])
            try:
                with self:
                    return multi_head(*args, **kwargs)
            finally:
                self._native = outer
        recurrent = _RECURRENT.get(getattr(func, "__name__", ""))
        if recurrent:
            self.rough.add(recurrent)
        wanted = None
        if self._dtype is not None:
            if func in _LOWER:
                wanted = self._dtype
            elif func in _FULL:
                wanted = torch.float32
        if wanted is not None:
            args = tuple(_cast(one, wanted) for one in args)
            kwargs = {key: _cast(one, wanted) for key, one in kwargs.items()}
        if func is F.scaled_dot_product_attention:
            if self._native:
                return attend_native(args[0], args[1], args[2])
            return attend(*args, **kwargs, device=self._device)
        return func(*args, **kwargs)


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
