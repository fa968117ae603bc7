"""The formulas of the field in NumPy, written from their definitions with plain loops.

Nothing here imports torch or the package: these are what both are judged against. Slow on purpose.
Arrays are B×C×H×W, float64.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Pair = tuple[int, int]

PADDINGS = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def output_size(n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """⌊(n + 2·padding − dilation·(kernel−1) − 1)/stride⌋ + 1."""
    return math.floor((n + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1


def parameters(
    out: int, into: int, kernel: Pair = (1, 1), groups: int = 1, bias: bool = True
) -> int:
    """out·(in/groups·kh·kw + bias)."""
    return out * (into // groups * kernel[0] * kernel[1] + bias)


def pad(x: Array, padding: Pair, mode: str = "zeros") -> Array:
    widths = ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2)
    return np.pad(x, widths, mode=PADDINGS[mode])  # type: ignore[call-overload,no-any-return]


def correlate(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    mode: str = "zeros",
) -> Array:
    """y[i,j] = Σ_uv x[i+u, j+v]·w[u,v] over the group's input channels, plus one bias a kernel."""
    out, per_group, kh, kw = weight.shape
    heights = output_size(x.shape[2], kh, stride[0], padding[0], dilation[0])
    widths = output_size(x.shape[3], kw, stride[1], padding[1], dilation[1])
    x = pad(x, padding, mode)
    y = np.zeros((x.shape[0], out, heights, widths))
    for b, o, i, j in np.ndindex(*y.shape):
        first = o // (out // groups) * per_group
        for c, u, v in itertools.product(range(per_group), range(kh), range(kw)):
            row, column = i * stride[0] + u * dilation[0], j * stride[1] + v * dilation[1]
            y[b, o, i, j] += x[b, first + c, row, column] * weight[o, c, u, v]
        if bias is not None:
            y[b, o, i, j] += bias[o]
    return y


def pool(x: Array, kernel: Pair, stride: Pair, kind: str) -> Array:
    """Maximum or mean over windows; no padding, whole windows only."""
    heights = output_size(x.shape[2], kernel[0], stride[0])
    widths = output_size(x.shape[3], kernel[1], stride[1])
    y = np.empty((*x.shape[:2], heights, widths))
    for b, c, i, j in np.ndindex(*y.shape):
        top, left = i * stride[0], j * stride[1]
        window = x[b, c, top : top + kernel[0], left : left + kernel[1]]
        y[b, c, i, j] = window.max() if kind == "max" else window.mean()
    return y


def max_pool_gradient(x: Array, side: int, upstream: Array) -> Array:
    """Each window's gradient goes to the place of its maximum, nothing to the others."""
    gradient = np.zeros_like(x)
    for b, c, i, j in np.ndindex(*upstream.shape):
        window = x[b, c, i * side : (i + 1) * side, j * side : (j + 1) * side]
        u, v = np.unravel_index(window.argmax(), window.shape)
        gradient[b, c, i * side + u, j * side + v] += upstream[b, c, i, j]
    return gradient


def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running: tuple[Array, Array],
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, tuple[Array, Array]]:
    """Answer and new running (mean, variance).

    Training: batch mean and biased variance normalise; running = (1−m)·running + m·batch, there
    with the unbiased variance. In use: the running ones normalise and stay.
    """
    mean, variance = running
    if training:
        n = x.size // x.shape[1]
        mean = x.sum((0, 2, 3)) / n
        squares = ((x - mean.reshape(1, -1, 1, 1)) ** 2).sum((0, 2, 3))
        variance = squares / n
        running = (
            (1 - momentum) * running[0] + momentum * mean,
            (1 - momentum) * running[1] + momentum * squares / (n - 1),
        )
    shape = (1, -1, 1, 1)
    hat = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + eps)
    return gamma.reshape(shape) * hat + beta.reshape(shape), running


def group_norm(x: Array, groups: int, eps: float = 1e-5) -> Array:
    """Each sample's groups of channels to mean 0 and variance 1."""
    y = np.empty_like(x)
    size = x.shape[1] // groups
    for b, g in np.ndindex(x.shape[0], groups):
        part = x[b, g * size : (g + 1) * size]
        y[b, g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + eps)
    return y


def dropout(x: Array, kept: NDArray[np.bool_], p: float) -> Array:
    """Inverted: what is kept is divided by the probability of keeping."""
    return x * kept / (1 - p)
