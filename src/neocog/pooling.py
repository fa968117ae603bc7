"""Max pooling of 2×2 windows side by side, for training in bfloat16. Floor 1; imports torch.

PyTorch looks at one number after the other and notes a 64-bit place for each window. Here the
greater of two neighbours in a row is taken, then the greater of two rows, by operations on whole
vectors; a gradient finds its way by whether the second of the two was taken. Outputs and gradients
are the same to the last bit, of equal numbers the first one counts; only where +0 and −0 are the
greatest, or NaN, another one of the window may get the gradient. In channels last it takes half the
time, there and back (512 maps of 32 channels and 32×32 pixels on two cores: 17 → 9 ms), and holds
less than half of the memory; in fp32 it would be no faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["max_pool_2x2", "suits"]

_WORTH = 1 << 21
"""Numbers from which on it is faster: of few the calls take longer than the work."""
_BLOCK = 1 << 21
"""Bytes of the map that are worked on at a time, so that what is made between stays in the
processor's cache: all at once takes twice as long."""


def suits(input: Tensor) -> bool:
    """Whether `max_pool_2x2` can take it, and is faster than `F.max_pool2d`."""
    return (
        not torch.compiler.is_compiling()  # which finds a better way itself
        and not torch._C._are_functorch_transforms_active()
        and input.dtype == torch.bfloat16
        and input.device.type == "cpu"
        and input.dim() == 4
        and input.numel() >= _WORTH
        and min(input.shape[1:]) > 1  # with one channel, every map looks like channels last
        and input.is_contiguous(memory_format=torch.channels_last)
    )


def max_pool_2x2(input: Tensor, *, relu: bool = False) -> Tensor:
    """`F.max_pool2d(input, 2)`, B×C×H×W → B×C×⌊H/2⌋×⌊W/2⌋, of what `suits`.

    Args:
        input: in channels last, as the answer is.
        relu: also set what is below 0 to 0.
    """
    if torch.is_grad_enabled() and input.requires_grad:
        return _applied(_Pool, input, relu)
    return _pooled(input, relu)


def _pooled(
    input: Tensor,
    relu: bool,
    right: Tensor | None = None,
    lower: Tensor | None = None,
    positive: Tensor | None = None,
) -> Tensor:
    """The greatest of each window.

    What else is given is filled with 1 and 0, as wide as the numbers whose bits it is to be
    multiplied by:

    Args:
        input: B×C×H×W.
        relu: see `max_pool_2x2`.
        right: B×2h×w×C, whether the right one of two neighbours is greater.
        lower: B×h×w×C, whether the lower one of two such is.
        positive: B×h×w×C, whether the answer is above 0.
    """
    size, channels, height, width = input.shape
    h, w = height // 2, width // 2
    pixels = _last(input)[:, : 2 * h, : 2 * w]
    block = _block(pixels)
    rows = pixels.new_empty(min(block, size), 2 * h, w, channels)
    # Not a view: those that a function made cannot be worked on in place, by a ReLU for instance.
    answer = _empty(size, channels, h, w)
    answers = _last(answer)
    for start in range(0, size, block):
        here = slice(start, start + block)
        part = pixels[here]
        left = part[:, :, ::2]
        of_rows = torch.maximum(left, part[:, :, 1::2], out=rows[: len(part)])
        upper = of_rows[:, ::2]
        greatest = torch.maximum(upper, of_rows[:, 1::2], out=answers[here])
        # By their bits: what differs from the greater of the two was not taken.
        if right is not None:
            torch.ne(_bits(left), _bits(of_rows), out=right[here])
        if lower is not None:
            torch.ne(_bits(upper), _bits(greatest), out=lower[here])
        if relu:
            torch.threshold_(greatest, 0, 0)  # −0 becomes 0, which a ReLU may leave
        if positive is not None:
            torch.ne(_bits(greatest), 0, out=positive[here])
    return answer


def _spread(
    grad: Tensor, size: torch.Size, right: Tensor, lower: Tensor, positive: Tensor | None
) -> Tensor:
    """Each number to its place in its window, if the answer there was above 0; 0 to the others:
    B×C×h×w → B×C×H×W."""
    h, w, channels = lower.shape[1:]
    grads = _bits(_last(grad.contiguous(memory_format=torch.channels_last)))
    spread = _empty(*size)
    spread[:, :, 2 * h :] = 0
    spread[:, :, :, 2 * w :] = 0
    within = _bits(_last(spread))[:, : 2 * h, : 2 * w]
    block = _block(within)
    rows = within.new_empty(min(block, len(within)), 2 * h, w, channels)
    for start in range(0, len(within), block):
        here = slice(start, start + block)
        given = grads[here]
        of_rows = rows[: len(given)]
        # Bits times 1 or 0, not numbers: infinity times 0 is NaN.
        if positive is not None:
            given = torch.mul(given, positive[here])
        below = torch.mul(given, lower[here], out=of_rows[:, 1::2])
        torch.sub(given, below, out=of_rows[:, ::2])
        beside = torch.mul(of_rows, right[here], out=within[here, :, 1::2])
        torch.sub(of_rows, beside, out=within[here, :, ::2])
    return spread


def _gather(map_: Tensor, right: Tensor, lower: Tensor, positive: Tensor | None) -> Tensor:
    """Of each window the number at its place: B×C×H×W → B×C×h×w; `_spread`, transposed."""
    h, w = lower.shape[1:3]
    pixels = _last(map_)[:, : 2 * h, : 2 * w]
    taken = torch.where(right.bool(), pixels[:, :, 1::2], pixels[:, :, ::2])
    taken = torch.where(lower.bool(), taken[:, 1::2], taken[:, ::2])
    if positive is not None:
        taken = taken.where(positive.bool(), 0)
    return taken.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _empty(*size: int) -> Tensor:
    """B×C×H×W in channels last."""
    form = torch.channels_last
    return torch.empty(size, dtype=torch.bfloat16, device="cpu", memory_format=form)


def _last(map_: Tensor) -> Tensor:
    """B×C×H×W, seen as B×H×W×C."""
    return map_.permute(0, 2, 3, 1)


def _bits(numbers: Tensor) -> Tensor:
    return numbers.view(torch.int16)


def _block(pixels: Tensor) -> int:
    """Pictures of B×H×W×C that are worked on at a time."""
    return max(1, _BLOCK // (pixels[0].numel() * pixels.element_size()))


def _applied(function: type[torch.autograd.Function], *given: Any) -> Tensor:
    answer: Tensor = function.apply(*given)  # type: ignore[no-untyped-call]
    return answer


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, relu: bool) -> Tensor:
        size, channels, height, width = input.shape
        right, lower = (
            torch.empty(size, rows, width // 2, channels, dtype=torch.int16, device="cpu")
            for rows in (height // 2 * 2, height // 2)
        )
        # Not the answer, which may be worked on in place, like that of every pooling.
        positive = torch.empty_like(lower) if relu else None
        answer = _pooled(input, relu, right, lower, positive)
        ctx.size = input.shape
        ctx.save_for_backward(right, lower, positive)
        return answer

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _applied(_Spread, grad, ctx.size, *ctx.saved_tensors), None


class _Spread(torch.autograd.Function):
    """The way back, which can be differentiated again: it and `_Gather` are linear."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, size: torch.Size, *taken: Tensor | None) -> Tensor:
        ctx.save_for_backward(*taken)
        right, lower, positive = taken
        assert right is not None
        assert lower is not None
        return _spread(grad, size, right, lower, positive)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _applied(_Gather, grad, *ctx.saved_tensors), None, None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, map_: Tensor, right: Tensor, lower: Tensor, positive: Tensor | None
    ) -> Tensor:
        ctx.size = map_.shape
        ctx.save_for_backward(right, lower, positive)
        return _gather(map_, right, lower, positive)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _applied(_Spread, grad, ctx.size, *ctx.saved_tensors), None, None, None
