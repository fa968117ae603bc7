"""Attention as a device would run it, for tensors without memory. Floor 1, room analysis.

On the meta device `scaled_dot_product_attention` falls apart into products that hold all L×L
scores; on a processor or a graphics card one operation mostly does it all, and keeps none of them.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["attend", "attend_native", "is_native", "multi_head"]

_FLASH = 1
"""What PyTorch calls the operation that keeps no scores."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    device: str,
) -> Tensor:
    """`scaled_dot_product_attention` by the operation that the device would run.

    Args:
        query: B×heads×L×E.
        key: B×heads×S×E.
        value: B×heads×S×E.
        attn_mask: what every position may see; L×S, with or without further axes before them.
        dropout_p: share of the scores that is dropped.
        is_causal: positions see none after them.
        scale: of the scores; None: 1 / √E.
        enable_gqa: several heads of the query share one of the keys.
        device: `cpu`, `cuda`, ...
    """
    ops = torch.ops.aten
    given = (query, key, value)
    plain = all(one.dim() == 4 for one in given) and not enable_gqa
    if plain and device == "cpu" and _flash_on_processor(given, attn_mask, dropout_p, is_causal):
        mask = _added(attn_mask, query.dtype)
        found = ops._scaled_dot_product_flash_attention_for_cpu(
            *given, dropout_p, is_causal, attn_mask=mask, scale=scale
        )
        return cast("Tensor", found[0])
    if plain and device == "cuda" and attn_mask is None and _suits_flash_on_card(given):
        found = ops._scaled_dot_product_flash_attention(
            *given, dropout_p, is_causal, False, scale=scale
        )
        return cast("Tensor", found[0])
    return F.scaled_dot_product_attention(
        *given, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def is_native(query: Tensor, key: Tensor, value: Tensor, heads: int) -> bool:
    """Whether `nn.MultiheadAttention` runs as one operation of its own, for lack of a gradient.

    It does so where a layer that is given the batch first attends to its own input; it then hands
    on a transposed view of that, L×B×E.
    """
    own = query is key and key is value and query.dim() == 3
    return not torch.is_grad_enabled() and own and heads % 2 == 0 and _is_turned(query)


def _is_turned(tensor: Tensor) -> bool:
    return tensor.transpose(0, 1).is_contiguous() and not tensor.is_contiguous()


def attend_native(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What that operation holds: all scores, B×heads×L×L, once."""
    scores = query @ key.transpose(-2, -1)
    torch.softmax(scores, -1, out=scores)
    return scores @ value


def _flash_on_processor(
    given: tuple[Tensor, ...], mask: Tensor | None, dropout: float, causal: bool
) -> bool:
    """PyTorch's own choice, asked with one sample of the same layout, which no one fills."""
    with _disable_current_modes():
        query, key, value = (_one_sample(one) for one in given)
        seen = None if mask is None else _one_sample(mask)
        choice = torch._fused_sdp_choice(query, key, value, seen, dropout, causal)
    return bool(choice == _FLASH)


def _one_sample(tensor: Tensor) -> Tensor:
    shape = (1, *tensor.shape[1:]) if tensor.dim() == 4 else tuple(tensor.shape)
    empty = torch.empty_strided(shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    wanted = tensor.requires_grad and tensor.is_floating_point()
    return empty.requires_grad_(wanted)


def _added(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask of yes and no as what is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    shut = torch.full((), float("-inf"), dtype=dtype, device=mask.device)
    return torch.where(mask, torch.zeros((), dtype=dtype, device=mask.device), shut)


def _suits_flash_on_card(given: tuple[Tensor, ...]) -> bool:
    """Two bytes a number, heads of one width of at most 256."""
    width = given[0].shape[-1]
    return width <= 256 and all(
        one.dtype in (torch.float16, torch.bfloat16) and one.shape[-1] == width for one in given
    )


def _open(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which lets a `TorchFunctionMode` see what it calls instead of being asked
    for as a whole."""
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function} is not written in Python")
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    twin = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


multi_head: Callable[..., Any] = _open(F.multi_head_attention_forward)
"""`F.multi_head_attention_forward`, such that its products and its attention can be seen."""
