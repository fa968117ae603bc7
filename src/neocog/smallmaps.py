"""Convolutions of many channels on small maps, for training on a processor. Floor 1; imports torch.

On a map of 4×4 pixels many of a kernel's numbers lie over the border, and the gradient of each is a
product of two matrices: of the pixels that it sees, and of those that it answers. These products
leave out the border, and are fast where channels are many. With 512 of them, 128 maps and two
cores, the gradient of a 3×3 kernel takes 20 ms instead of 31 on 4×4 pixels, 3.5 instead of 19 on
2×2, 0.4 instead of 9 on one (bf16; in fp32 48, 8 and 1 ms instead of 58, 27 and 9).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv2d", "suits"]

_SIDE = 4
"""Pixels of the largest map that counts as small: on 5×5, PyTorch's own way is as fast."""
_WIDE = 1 << 16
"""Pairs of channels from which on products of matrices are faster, for 4 maps as for 128."""
_KINDS = (torch.float32, torch.float64, torch.bfloat16)

_convolution_backward = torch.ops.aten.convolution_backward


def suits(input: Tensor, weight: Tensor) -> bool:
    """Whether `conv2d` is faster than `F.conv2d`: input B×C×H×W, weight O×C×k×l."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and torch.is_grad_enabled()
        and weight.requires_grad
        and input.dtype in _KINDS
        and weight.dtype in _KINDS
        and torch.get_autocast_dtype("cpu") in _KINDS
        and input.device.type == "cpu"
        and input.dim() == 4
        and 0 < max(input.shape[2:]) <= _SIDE
        and weight.shape[0] * weight.shape[1] >= _WIDE
    )


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """`F.conv2d(input, weight, bias, padding=padding)`; gradients differ in the order of sums.

    What autocast makes of the weights is not kept for a second convolution with the same ones.

    Args:
        input: B×C×H×W.
        weight: O×C×k×l.
        bias: O.
        padding: rows and columns of zeros on each side.
    """
    given = (input, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        # Within the function it would be too late: gradients are of what goes into it.
        kind = torch.get_autocast_dtype("cpu")
        given = tuple(None if one is None else _cast(one, kind) for one in given)  # type: ignore[assignment]
    answer: Tensor = _Convolution.apply(*given, padding)  # type: ignore[no-untyped-call]
    return answer


def _cast(numbers: Tensor, kind: torch.dtype) -> Tensor:
    """As autocast has it, which leaves float64 and whole numbers alone."""
    fit = numbers.is_floating_point() and numbers.dtype != torch.float64
    return numbers.to(kind) if fit else numbers


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.padding = padding
        return F.conv2d(input, weight, bias, padding=padding)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
        # The way back may have to be differentiated: PyTorch's own can be.
        own = of_weight and not torch.is_grad_enabled()
        wanted = [of_input, of_weight and not own, False]
        found = [None, None]
        if any(wanted):
            found = _convolution_backward(
                grad,
                input,
                weight,
                bias_sizes=None,
                stride=[1, 1],
                padding=ctx.padding,
                dilation=[1, 1],
                transposed=False,
                output_padding=[0, 0],
                groups=1,
                output_mask=wanted,
            )
        kernels = _kernels(input, weight, grad, ctx.padding) if own else found[1]
        return found[0], kernels, grad.sum((0, 2, 3)) if of_bias else None, None


def _kernels(input: Tensor, weight: Tensor, grad: Tensor, padding: tuple[int, int]) -> Tensor:
    """The gradient of the kernels, O×C×k×l, number by number."""
    pixels, grads = input.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    outputs, channels, *kernel = weight.shape
    found = weight.new_empty(*kernel, outputs, channels)
    for row in range(kernel[0]):
        seen, answered = _overlap(row - padding[0], pixels.shape[1], grads.shape[1])
        lines, given = pixels[:, seen], grads[:, answered]
        for column in range(kernel[1]):
            seen, answered = _overlap(column - padding[1], pixels.shape[2], grads.shape[2])
            torch.mm(
                given[:, :, answered].reshape(-1, outputs).T,
                lines[:, :, seen].reshape(-1, channels),
                out=found[row, column],
            )
    return torch.empty_like(weight).copy_(found.permute(2, 3, 0, 1))


def _overlap(shift: int, size: int, answers: int) -> tuple[slice, slice]:
    """Of the positions p + shift that lie within a size: these, and their p below `answers`.

    >>> _overlap(-1, 4, 4), _overlap(2, 2, 2)
    ((slice(0, 3, None), slice(1, 4, None)), (slice(2, 2, None), slice(0, 0, None)))
    """
    first, end = max(0, -shift), min(answers, size - shift)
    end = max(first, end)
    return slice(first + shift, end + shift), slice(first, end)
