"""What a convolution holds on a processor while it runs, and how it lays out its answer. Floor 1.

Room analysis; imports torch and this room. The rules were read off PyTorch's record of allocations,
for some 40 convolutions and 9 transposed ones, of one to three axes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from neocog.analysis.works import Shape, Work

__all__ = ["as_laid_out", "is_guessed", "workspace"]

_BLOCK = 16
"""Channels that oneDNN takes together."""


def as_laid_out(answer: Tensor, given: Sequence[Tensor]) -> Tensor:
    """What a convolution made, channels last if pictures or kernels are: so it does on a processor,
    but not on the meta device."""
    last = torch.channels_last if answer.dim() == 4 else torch.channels_last_3d
    if answer.dim() not in (4, 5) or not any(
        one.is_contiguous(memory_format=last) and not one.is_contiguous() for one in given
    ):
        return answer
    return answer.contiguous(memory_format=last)


def workspace(item: Work) -> int:
    """Bytes that a convolution holds on a processor beside its inputs and outputs.

    oneDNN computes on blocks of 16 channels (of 8 on processors without AVX-512, where this is too
    much for layers of few channels). Pictures that lie channels first are laid out anew on the way
    in and on the way out; those that lie channels last are taken as they are, and only the kernels
    are laid out anew (twice in the backward pass: as read, and as accumulated in float32). It has
    no float64, and is not asked for small work: there, the windows of all pictures are copied out
    side by side.
    """
    if item.op not in ("convolution", "convolution_backward"):
        return 0
    back = item.op == "convolution_backward"
    source: Shape = item.args[back]
    weight: Shape = item.args[1 + back]
    other: Shape = item.args[0] if back else item.outputs[0]
    if not _by_onednn(item, source, weight):
        return 0 if is_guessed(item) else _columns(item, source, weight, other)
    if _is_last(source):
        return (1 + back) * weight.bytes
    strided = any(one > 1 for one in item.args[3 + back])
    if item.args[6 + back]:
        return _transposed(source, weight, other, back, strided)
    if back:
        return _backward(source, weight, other, strided, bool(item.args[10][0]))
    read = 0 if _is_few(source, weight) else _padded(source)
    made = _padded(other)
    return max(read + weight.bytes + made - other.bytes, made)


def _by_onednn(item: Work, source: Shape, weight: Shape) -> bool:
    """PyTorch's choice: not in float64, not for kernels of one pixel on one thread and less than 16
    pictures, and not for one small picture."""
    if source.dtype != "float32":
        return source.dtype != "float64"
    back = item.op == "convolution_backward"
    stride, dilation, groups = item.args[3 + back], item.args[5 + back], item.args[8 + back]
    window, batch = weight.shape[2:], source.shape[0]
    stepping = any(one > 1 for one in (*stride, *dilation))
    pays = stepping or batch >= 16 or math.prod(window) > 1 or torch.get_num_threads() > 1
    wide = len(window) > 1 and min(window[-2:]) > 3
    return pays and (groups > 1 or wide or batch > 1 or math.prod(source.shape) > 20_480)


def _backward(source: Shape, weight: Shape, grad: Shape, strided: bool, wanted: bool) -> int:
    """Channels first: the gradient of the input, if it is wanted, then that of the kernels."""
    given = _padded(grad)
    read = _padded(source)
    if _is_few(source, weight):
        read = 0 if source.shape[1] <= 3 else _padded(source, _BLOCK // 2)
    most = given + read
    if wanted:
        made = _padded(source)
        most = max(most, given + made - source.bytes, 2 * made * strided)
    return most + weight.bytes


def _is_few(source: Shape, weight: Shape) -> bool:
    """Pictures of less than a block of channels have kernels of their own and stay as they are, but
    for kernels of one pixel."""
    return source.shape[1] < _BLOCK and math.prod(weight.shape[2:]) > 1


def is_guessed(item: Work) -> bool:
    """A convolution that holds what no rule here tells: in float64, unless plain and of 2 axes."""
    if item.op not in ("convolution", "convolution_backward"):
        return False
    back = item.op == "convolution_backward"
    dilation, is_transposed, groups = item.args[5 + back], item.args[6 + back], item.args[8 + back]
    plain = not is_transposed and groups == 1 and all(one == 1 for one in dilation)
    source: Shape = item.args[back]
    return source.dtype == "float64" and not (plain and len(source.shape) == 4)


def _transposed(source: Shape, weight: Shape, other: Shape, back: bool, strided: bool) -> int:
    """Channels first. With steps of two and more the answer is laid out anew twice; where every
    channel is on its own (depthwise), one of the two is enough."""
    alone = weight.shape[1] == 1 and weight.shape[0] > 1
    if back:
        grad = other.bytes if other.shape[1] > 3 else 0
        return grad + (0 if alone else _padded(source))
    answers = 2 if strided and not alone else 1
    return max(_padded(source) + weight.bytes, answers * other.bytes)


def _columns(item: Work, source: Shape, weight: Shape, other: Shape) -> int:
    """The windows of all pictures, in × kernel values for every position of the answer; kernels of
    one pixel that neither step nor pad need none. Small transposed ones are left out."""
    back = item.op == "convolution_backward"
    stride, padding = item.args[3 + back], item.args[4 + back]
    window = math.prod(weight.shape[2:])
    if window == 1 and all(one == 1 for one in stride) and not any(padding):
        return 0
    if item.args[6 + back]:
        return 0
    positions = other.shape[0] * math.prod(other.shape[2:])
    number = weight.bytes // max(math.prod(weight.shape), 1)
    return number * positions * source.shape[1] * window


def _is_last(one: Shape) -> bool:
    return len(one.strides) > 2 and one.strides[1] == 1 and one.shape[1] > 1


def _padded(one: Shape, block: int = _BLOCK) -> int:
    """Bytes in whole blocks of channels."""
    channels = one.shape[1]
    return one.bytes * -(-channels // block) * block // max(channels, 1)
