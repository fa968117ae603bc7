"""Sums of products written out: convolution and matrix products. Floor 1, explain.

Imports NumPy and this room. Where a kernel reads is worked out from its geometry (Dumoulin and
Visin 2016, arXiv 1603.07285), not asked of PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.explain.unit.place import Worked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neocog.explain.unit.place import Place
    from neocog.explain.unit.terms import Terms

    Flat = NDArray[np.int64]

__all__ = ["convolution", "full", "gathered", "matrix_product", "matrix_product_plus"]


def full(numbers: int | Sequence[int], count: int) -> list[int]:
    """A number for each axis."""
    given = [numbers] if isinstance(numbers, int) else list(numbers)
    return given * count if len(given) == 1 else given


def convolution(at: Place) -> Worked | None:
    """y[o, p] = Σ_c Σ_k x[c, p · stride − padding + k · dilation] · w[o, c, k] + b[o].

    A transposed one reads where an input's kernel covers p: at q with q · stride − padding +
    k · dilation = p.
    """
    source, kernel, bias = (at.source(position) for position in range(3))
    shape, weights = at.shape(source), at.shape(kernel)
    axes = len(shape) - 2
    stride, padding, dilation = (full(at.given(position), axes) for position in (3, 4, 5))
    transposed, groups = bool(at.given(6)), int(at.given(8))
    batch, channel, position = at.index[0], at.index[1], at.index[2:]
    sizes = weights[2:]
    rows = []
    for axis in range(axes):
        offsets = np.arange(sizes[axis]) * dilation[axis]
        if transposed:
            found, rest = np.divmod(position[axis] + padding[axis] - offsets, stride[axis])
            found = np.where(rest == 0, found, -1)
        else:
            found = position[axis] * stride[axis] - padding[axis] + offsets
        rows.append(np.where((found >= 0) & (found < shape[2 + axis]), found, -1))
    if transposed:
        count, outputs = weights[0] // groups, weights[1]
        first = channel // outputs * count
        kernels = (first + np.arange(count), np.array([channel % outputs]))
    else:
        count = weights[1]
        first = channel // (weights[0] // groups) * count
        kernels = (np.array([channel]), np.arange(count))
    grid = (count, *sizes)
    places = gathered(shape, [np.array([batch]), first + np.arange(count), *rows])
    by_places = gathered(weights, [*kernels, *(np.arange(size) for size in sizes)])
    products = at.terms(
        "input × kernel",
        source,
        places.reshape(grid),
        by=kernel,
        by_places=by_places.reshape(grid),
    )
    terms = (products, *_bias(at, bias, (channel,)))
    return Worked(
        words=_words(sizes, stride, padding, dilation, groups, transposed),
        formula="Σ x · w + b" if bias >= 0 else "Σ x · w",
        terms=terms,
    )


def gathered(shape: Sequence[int], rows: Sequence[Flat]) -> Flat:
    """Row-major places of every combination of positions; −1 where one of them is −1."""
    grids = np.meshgrid(*rows, indexing="ij")
    outside = np.logical_or.reduce([one < 0 for one in grids])
    inside = tuple(np.where(outside, 0, one) for one in grids)
    found: Flat = np.where(outside, -1, np.ravel_multi_index(inside, tuple(shape)))
    return found


def _words(
    sizes: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed: bool,
) -> str:
    def text(numbers: Sequence[int]) -> str:
        return str(numbers[0]) if len(set(numbers)) == 1 else "×".join(map(str, numbers))

    kind = "transposed convolution" if transposed else "convolution"
    parts = [f"{kind} {'×'.join(map(str, sizes))}"]
    parts += [f"stride {text(stride)}"] if set(stride) != {1} else []
    parts += [f"padding {text(padding)}"] if set(padding) != {0} else []
    parts += [f"dilation {text(dilation)}"] if set(dilation) != {1} else []
    parts += [f"{groups} groups"] if groups != 1 else []
    return ", ".join(parts)


def _bias(at: Place, value: int, index: Sequence[int], factor: float = 1.0) -> list[Terms]:
    return [at.one("bias", value, index, factor)] if value >= 0 else []


def matrix_product(at: Place) -> Worked | None:
    """y[i, j] = Σ_k a[i, k] · b[k, j], of matrices or of batches of them."""
    return _product(at, at.source(0), at.source(1))


def matrix_product_plus(at: Place) -> Worked | None:
    """y[i, j] = β · c[i, j] + α · Σ_k a[i, k] · b[k, j]; c is spread over what it lacks."""
    first = at.source(0)
    beta, alpha = (float(at.node.kwargs.get(name, 1)) for name in ("beta", "alpha"))
    shape = at.shape(first)
    index = at.index[len(at.index) - len(shape) :]
    spread = [0 if size == 1 else one for one, size in zip(index, shape, strict=True)]
    worked = _product(at, at.source(1), at.source(2))
    if worked is None or alpha != 1:
        return None
    return Worked(
        words=worked.words,
        formula="Σ x · w + b",
        terms=(*worked.terms, *_bias(at, first, spread, beta)),
    )


def _product(at: Place, left: int, right: int) -> Worked | None:
    shapes = at.shape(left), at.shape(right)
    if min(map(len, shapes)) < 2 or len(shapes[0]) != len(shapes[1]):
        return None
    *batch, row, column = at.index
    count = np.arange(shapes[0][-1])
    lead: list[Any] = [np.array([one]) for one in batch]
    learnt = at.recording.graph.values[right].kind != "result" or _is_view_of_weights(at, right)
    terms = at.terms(
        "input × weight" if learnt else "left × right",
        left,
        gathered(shapes[0], [*lead, np.array([row]), count]).ravel(),
        by=right,
        by_places=gathered(shapes[1], [*lead, count, np.array([column])]).ravel(),
    )
    return Worked(
        words=f"{'linear' if learnt else 'matrix product'}, {len(count)} terms",
        formula="Σ x · w" if learnt else "Σ a · b",
        terms=(terms,),
    )


def _is_view_of_weights(at: Place, value: int) -> bool:
    values = at.recording.graph.values
    storage = values[value].storage
    return any(one.kind == "parameter" and one.storage == storage for one in values)
