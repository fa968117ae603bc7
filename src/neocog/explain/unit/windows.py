"""Windows written out: maxima and means. Floor 1, explain; imports NumPy and this room."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neocog.explain.unit.place import Worked, flat
from neocog.explain.unit.products import full, gathered
from neocog.explain.unit.terms import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from neocog.explain.unit.place import Place

    Flat = NDArray[np.int64]

__all__ = ["adaptive_mean", "adaptive_most", "mean_pool", "most_pool", "reduced"]


def most_pool(axes: int) -> Callable[[Place], Worked | None]:
    """The largest of a window; padding never wins."""

    def rule(at: Place) -> Worked | None:
        if at.slot:
            return None
        shape = at.shape(at.source(0))
        kernel = full(at.given(1), axes)
        stride = full(at.given(2) or kernel, axes)
        padding, dilation = full(at.given(3, 0), axes), full(at.given(4, 1), axes)
        rows = []
        for axis in range(axes):
            first = at.index[axis - axes] * stride[axis] - padding[axis]
            found = first + np.arange(kernel[axis]) * dilation[axis]
            rows.append(np.where((found >= 0) & (found < shape[axis - axes]), found, -1))
        return _most(at, rows, "max pooling")

    return rule


def adaptive_most(axes: int) -> Callable[[Place], Worked | None]:
    """The largest of a window whose size follows from the answer's."""

    def rule(at: Place) -> Worked | None:
        return None if at.slot else _most(at, _adaptive(at, axes), "adaptive max pooling")

    return rule


def _adaptive(at: Place, axes: int) -> list[Flat]:
    """Rows from ⌊p · n / m⌋ to ⌈(p + 1) · n / m⌉ − 1, of n rows for m answers."""
    shape, out = at.shape(at.source(0)), at.shape(at.unit.value)
    return [
        np.arange(
            at.index[axis] * shape[axis] // out[axis],
            math.ceil((at.index[axis] + 1) * shape[axis] / out[axis]),
        )
        for axis in range(-axes, 0)
    ]


def _window(at: Place, rows: Sequence[Flat]) -> Flat:
    """Row-major places of a window in the unit's own plane; −1 in padding."""
    shape = at.shape(at.source(0))
    plane = math.prod(shape[len(shape) - len(rows) :])
    first = flat(shape[: len(shape) - len(rows)], at.index[: len(at.index) - len(rows)]) * plane
    places = np.zeros((1,) * len(rows), np.int64)
    outside = np.zeros((1,) * len(rows), bool)
    for axis, row in enumerate(rows):
        step = math.prod(shape[len(shape) - len(rows) + axis + 1 :])
        line = row.reshape([-1 if one == axis else 1 for one in range(len(rows))])
        outside = outside | (line < 0)
        places = places + line * step
    return np.where(outside, -1, first + places)


def _most(at: Place, rows: Sequence[Flat], words: str) -> Worked | None:
    source = at.source(0)
    places = _window(at, rows)
    numbers = np.where(places >= 0, at.read(source, places), -np.inf)
    if np.isnan(numbers).any():
        return None
    best = np.unravel_index(int(numbers.argmax()), numbers.shape)
    factors = np.zeros(numbers.shape)
    factors[best] = 1.0
    winner = np.unravel_index(int(places[best]), at.shape(source))
    return Worked(
        words=f"{words} {'×'.join(str(len(row)) for row in rows)}",
        formula="max of the window",
        terms=(at.terms("window", source, places, factors),),
        onward=Unit(source, tuple(int(one) for one in winner)),
    )


def mean_pool(axes: int) -> Callable[[Place], Worked | None]:
    """The mean of a window. By default zeros of the padding are counted."""

    def rule(at: Place) -> Worked | None:
        shape = at.shape(at.source(0))
        kernel = full(at.given(1), axes)
        stride = full(at.given(2) or kernel, axes)
        padding = full(at.given(3, 0), axes)
        counted, fixed = bool(at.given(5, True)), at.given(6)
        rows, sides = [], []
        for axis in range(axes):
            size = shape[axis - axes]
            first = at.index[axis - axes] * stride[axis] - padding[axis]
            # The last window of `ceil_mode` may hang over the padding: that is never counted.
            sides.append(min(first + kernel[axis], size + padding[axis]) - first)
            found = np.arange(first, first + kernel[axis])
            rows.append(found[(found >= 0) & (found < size)])
        inside = math.prod(len(row) for row in rows)
        count = fixed or (math.prod(sides) if counted else inside)
        return _mean(at, rows, int(count), "average pooling")

    return rule


def adaptive_mean(axes: int) -> Callable[[Place], Worked | None]:
    """The mean of a window whose size follows from the answer's."""

    def rule(at: Place) -> Worked | None:
        rows = _adaptive(at, axes)
        return _mean(at, rows, math.prod(len(row) for row in rows), "adaptive average pooling")

    return rule


def _mean(at: Place, rows: Sequence[Flat], count: int, words: str) -> Worked:
    terms = at.terms(f"input × 1/{count}", at.source(0), _window(at, rows), 1 / count)
    return Worked(
        words=f"{words} {'×'.join(str(len(row)) for row in rows)}",
        formula=f"Σ x · 1/{count}",
        terms=(terms,),
    )


def reduced(at: Place) -> Worked | None:
    """Mean or sum along some axes."""
    source = at.source(0)
    shape = at.shape(source)
    given = at.given(1)
    named = list(range(len(shape))) if not given else full(given, 1)
    axes = sorted(axis % max(1, len(shape)) for axis in named)
    if len(at.index) == len(shape):
        kept = at.index
    else:
        rest = iter(at.index)
        kept = tuple(0 if axis in axes else next(rest) for axis in range(len(shape)))
    rows = [
        np.arange(size) if axis in axes else np.array([kept[axis]])
        for axis, size in enumerate(shape)
    ]
    places = gathered(shape, rows).reshape([shape[axis] for axis in axes])
    count = places.size if at.op == "mean" else 1
    label = f"input × 1/{count}" if at.op == "mean" else "input"
    return Worked(
        words=f"{at.op} of {places.size}",
        formula=f"Σ x · 1/{count}" if at.op == "mean" else "Σ x",
        terms=(at.terms(label, source, places, 1 / count),),
    )
