"""What an operation costs: multiply-accumulates and bytes. Floor 1, room analysis.

Standard library and this room. A multiply-accumulate (MAC) is one multiplication and one addition
in a convolution or a matrix product: the number that papers print. Everything else (norms,
activations, pooling) has none by that convention; its cost is the bytes that it moves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Shaped", "is_known", "macs"]


class Shaped(Protocol):
    """Anything with a shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""


def macs(op: str, args: Sequence[Any], out: Sequence[Shaped]) -> int:
    """Multiply-accumulates of one operation.

    Args:
        op: its name, without namespace and overload.
        args: its positional arguments; what stands for a tensor has a `shape`.
        out: its outputs.
    """
    rule = _RULES.get(op)
    return rule(args, out) if rule is not None else 0


def is_known(op: str, pointwise: bool) -> bool:
    """Whether the cost of an operation is known. One that is not is named, never taken for free."""
    name = op.rstrip("_")
    return pointwise or name in _RULES or name in _QUIET or name.startswith(_QUIET_FAMILIES)


def _size(one: Shaped) -> int:
    return int(math.prod(one.shape))


def _convolution(args: Sequence[Any], out: Sequence[Shaped]) -> int:
    """out · (in / groups) · kernel; transposed: in · (out / groups) · kernel. The weight of both is
    laid out such that all but its first axis is what one element of the first factor meets."""
    source, weight, is_transposed = args[0], args[1], args[6]
    return _size(source if is_transposed else out[0]) * int(math.prod(weight.shape[1:]))


def _convolution_backward(args: Sequence[Any], out: Sequence[Shaped]) -> int:
    """The forward's work once for the gradient of the input, and once for that of the weight."""
    grad, source, weight, is_transposed, mask = args[0], args[1], args[2], args[7], args[10]
    once = _size(source if is_transposed else grad) * int(math.prod(weight.shape[1:]))
    return once * (bool(mask[0]) + bool(mask[1]))


def _product(first: int) -> Callable[[Sequence[Any], Sequence[Shaped]], int]:
    """Matrix product: answer · inner size."""

    def rule(args: Sequence[Any], out: Sequence[Shaped]) -> int:
        return _size(out[0]) * int(args[first].shape[-1])

    return rule


def _added_batches(args: Sequence[Any], out: Sequence[Shaped]) -> int:
    """Σ over the batch of B×I×K · B×K×J."""
    return _size(args[1]) * int(args[2].shape[-1])


def _attention(args: Sequence[Any], out: Sequence[Shaped]) -> int:
    """Q Kᵀ and the product with V, for B×heads×L×E."""
    query, key, value = args[:3]
    pairs = int(math.prod(query.shape[:-1])) * int(key.shape[-2])
    return pairs * (int(query.shape[-1]) + int(value.shape[-1]))


def _attention_backward(args: Sequence[Any], out: Sequence[Shaped]) -> int:
    """The scores again, and two products for each of the forward's two."""
    query, key, value = args[1:4]
    pairs = int(math.prod(query.shape[:-1])) * int(key.shape[-2])
    return pairs * (3 * int(query.shape[-1]) + 2 * int(value.shape[-1]))


def _distances(args: Sequence[Any], out: Sequence[Shaped]) -> int:
    return _size(out[0]) * int(args[0].shape[-1])


def _bilinear(args: Sequence[Any], out: Sequence[Shaped]) -> int:
    """x₁ᵀ A x₂ for every output: the matrix with one vector, then the other."""
    weight = args[2] if len(args[2].shape) == 3 else args[1]
    *_, first, second = weight.shape
    return _size(out[0]) * (int(first) + 1) * int(second)


_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "scaled_dot_product_attention",
)

_RULES: Mapping[str, Callable[[Sequence[Any], Sequence[Shaped]], int]] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "convolution_backward": _convolution_backward,
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "linear"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "_addmm_activation"), _product(1)),
    "addbmm": _added_batches,
    "addr": lambda args, out: _size(out[0]),
    **dict.fromkeys(_ATTENTION, _attention),
    **{f"{name}_backward": _attention_backward for name in _ATTENTION},
    **dict.fromkeys(("_cdist_forward", "cdist"), _distances),
    **dict.fromkeys(("_trilinear", "bilinear"), _bilinear),
}

_QUIET_FAMILIES = (
    *("upsample_", "_upsample_", "reflection_pad", "replication_pad", "avg_pool", "max_pool"),
    *("_adaptive_avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "fractional_max_pool"),
    *("max_unpool", "_native_batch_norm_legit", "_batch_norm_", "native_batch_norm", "_foreach_"),
    *("native_layer_norm", "native_group_norm", "_fused_rms_norm", "embedding", "scatter", "empty"),
    *("grid_sampler", "rand", "new_", "_fused_", "_thnn_fused", "nll_loss", "index_", "slice_"),
    *("select_", "diagonal", "segment_reduce", "_nested_", "unfold"),
)
"""Beginnings of names: all their dimensions, and their backward passes."""

_QUIET = frozenset(
    [
        # whole-axis sums, orders and norms
        *("sum", "mean", "amax", "amin", "aminmax", "max", "min", "argmax", "argmin", "any", "all"),
        *("prod", "var", "std", "var_mean", "std_mean", "cumsum", "cumprod", "cummax", "cummin"),
        *("logcumsumexp", "logsumexp", "norm", "linalg_vector_norm", "renorm", "median"),
        *("nanmedian", "mode", "sort", "argsort", "topk", "kthvalue", "histc", "bucketize"),
        *("searchsorted", "count_nonzero", "trace", "linalg_cross", "dist"),
        *("_softmax", "_log_softmax", "_safe_softmax", "_softmax_backward_data"),
        *("_log_softmax_backward_data", "glu", "prelu", "_prelu_kernel", "rrelu_with_noise"),
        *("_local_response_norm", "lstm_cell", "_weight_norm_interface", "native_norm"),
        # moves and copies
        *("clone", "copy", "_to_copy", "cat", "stack", "index", "gather", "take", "where", "roll"),
        *("flip", "rot90", "repeat", "repeat_interleave", "tile", "tril", "triu", "masked_fill"),
        *(
            "masked_scatter",
            "constant_pad_nd",
            "im2col",
            "col2im",
            "pixel_shuffle",
            "_unsafe_index",
        ),
        *("pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "contiguous", "put"),
        *("affine_grid_generator", "as_strided_copy", "combinations", "block_diag", "one_hot"),
        *("native_dropout", "native_dropout_backward", "bernoulli", "dropout", "alpha_dropout"),
        *("_embedding_bag", "_embedding_bag_forward_only", "expand_copy", "permute_copy"),
        *("complex", "polar", "view_as_real", "view_as_complex", "real", "imag", "_conj", "angle"),
        # made from nothing
        *("zeros", "ones", "full", "arange", "linspace", "logspace", "eye", "scalar_tensor"),
        *("zeros_like", "ones_like", "full_like", "fill", "zero", "normal", "uniform", "set"),
        *("tril_indices", "triu_indices", "exponential", "_efficientzerotensor", "resize"),
        *("lift_fresh", "lift_fresh_copy", "lift", "_pin_memory", "multinomial", "_assert_async"),
        # views
        *(
            "view",
            "_unsafe_view",
            "reshape",
            "_reshape_alias",
            "permute",
            "transpose",
            "t",
            "alias",
        ),
        *("expand", "unsqueeze", "squeeze", "slice", "select", "detach", "as_strided", "unbind"),
        *("split", "split_with_sizes", "unsafe_split", "chunk", "unsafe_chunk", "movedim"),
        *("unflatten", "flatten", "swapaxes", "written", "narrow", "mT", "mH", "numpy_T", "ravel"),
    ]
)
"""Operations without multiply-accumulates."""
