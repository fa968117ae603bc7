"""What a tensor sees after something was written into it, or into a view of it. Floor 1.

Room analysis; imports NumPy and this room. Tensor and view look at one storage. Both are laid out
on the axes of the tensor that fills it, its root: along each of them a view has a start, a
step and a count, and what both cover can be told axis by axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neocog.analysis.layout import State, aligned
from neocog.analysis.span import Span, Taps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neocog.analysis.case import Case
    from neocog.analysis.graph import Graph, Value
    from neocog.analysis.span import Positions

__all__ = ["copied", "written"]


def copied(case: Case) -> State | None:
    """`copy_` forgets what the target saw."""
    source = case.state(case.node.args[1])
    return State(dims=State.plain(case.out)) if source is None else aligned([source], case.out)


def written(case: Case) -> State | None:
    """A tensor, read after something was written through another view of its storage."""
    old, new = case.node.args
    before, part = case.state(old), case.state(new)
    whole, box = case.graph.values[old.value], case.graph.values[new.value]
    root = _root(case.graph, whole)
    if root is None:
        return None
    target, source = _ranges(whole, root), _ranges(box, root)
    if target is None or source is None:
        return None
    reads = {dim: _reads(target[dim], source[dim]) for dim in target}
    nothing = State(dims=State.plain(case.out))
    if any((one < 0).all() for one in reads.values()):
        return before or nothing
    if part is None:
        full = all((one >= 0).all() for one in reads.values())
        return nothing if full or before is None else before
    laid = _laid(part, case.out, target, source, reads)
    return laid if before is None else _over(before, laid, target, reads)


@dataclass(frozen=True, slots=True)
class _Range:
    """A view along one axis of the root."""

    start: int
    step: int
    count: int
    dim: int
    """Axis of the view; −1: the view has one position here."""


def _root(graph: Graph, value: Value) -> Value | None:
    """The tensor that fills the storage without gaps."""
    best: Value | None = None
    for one in graph.values:
        if one.storage == value.storage and one.offset == 0 and one.strides and one.elements:
            last = sum((n - 1) * s for n, s in zip(one.shape, one.strides, strict=True))
            if last + 1 == one.elements and (best is None or one.elements > best.elements):
                best = one
    return best


def _ranges(view: Value, root: Value) -> dict[int, _Range] | None:
    """Start, step and count along each axis of the root; None where a view is not of that kind."""
    order = sorted(
        (dim for dim, size in enumerate(root.shape) if size > 1), key=lambda dim: -root.strides[dim]
    )
    found: dict[int, _Range] = {}
    rest = view.offset
    for dim in order:
        start, rest = divmod(rest, root.strides[dim])
        found[dim] = _Range(start, 1, 1, -1)
    # Axes of one position have any stride; they claim what the others leave.
    for axis in sorted(range(len(view.shape)), key=lambda axis: view.shape[axis] == 1):
        size, stride = view.shape[axis], view.strides[axis]
        owner = next((dim for dim in order if 0 < root.strides[dim] <= stride), None)
        taken = owner is None or found[owner].dim >= 0
        if owner is None or taken or stride % root.strides[owner]:
            if size > 1:
                return None
            continue
        step = stride // root.strides[owner]
        start = found[owner].start
        if start + step * (size - 1) >= root.shape[owner]:
            if size > 1:
                return None
            continue
        found[owner] = _Range(start, step, size, axis)
    return found


def _reads(target: _Range, source: _Range) -> Positions:
    """For each position of the target the one of the source at the same place; −1: none."""
    places = target.start + target.step * np.arange(target.count) - source.start
    index = places // source.step
    fits = (places % source.step == 0) & (index >= 0) & (index < source.count)
    return np.where(fits, index, -1)


def _laid(
    part: State,
    shape: tuple[int, ...],
    target: Mapping[int, _Range],
    source: Mapping[int, _Range],
    reads: Mapping[int, Positions],
) -> State:
    """What was written, in the axes of the tensor; nothing where it does not reach."""
    dims = list(State.plain(shape))
    moved = part
    for dim, one in source.items():
        if one.dim >= 0:
            taps = _taps(target[dim], one, reads[dim])
            moved = moved.through(one.dim, taps, target[dim].count)
    for dim, one in source.items():
        if one.dim >= 0 and target[dim].dim >= 0:
            dims[target[dim].dim] = moved.dims[one.dim]
    laid = moved.with_dims(dims)
    partial = any((one < 0).any() for one in reads.values())
    # What every element of the box sees, the rest of the tensor does not see.
    return replace(laid, guessed=laid.guessed or (partial and bool(laid.seen)))


def _taps(target: _Range, source: _Range, reads: Positions) -> Taps:
    if target.step % source.step or (target.start - source.start) % source.step:
        return Taps(reads[:, None], 1, 1, ())
    first = (target.start - source.start) // source.step
    return Taps(reads[:, None], 1, target.step // source.step, ((first,),))


def _over(
    before: State, laid: State, target: Mapping[int, _Range], reads: Mapping[int, Positions]
) -> State:
    """The tensor as it was, under what was written."""
    partial = [target[dim].dim for dim, one in reads.items() if (one < 0).any()]
    if not partial:
        return laid
    answer = aligned([before, laid], laid.shape)
    moving = [dim for dim in partial if laid.axes_in(dim) and before.axes_in(dim)]
    if len(moving) < len(partial):
        return answer  # some channels were written, others not: their sum sees both
    if len(moving) > 1:
        return replace(answer, guessed=True)
    (dim,) = moving
    (place,) = (one for one in target if target[one].dim == dim)
    return _replaced(answer, before.single(dim), laid.single(dim), dim, reads[place] >= 0)


def _replaced(
    answer: State, before: State, laid: State, dim: int, covered: NDArray[np.bool_]
) -> State:
    """Positions along one axis that were written over do not see what was there."""
    axes = answer.axes_in(dim)
    if axes != before.axes_in(dim) or axes != laid.axes_in(dim) or len(axes) != 1:
        return replace(answer, guessed=True)
    (axis,) = axes
    old, new = before.spans[axis], laid.spans[axis]
    share = float(covered.mean())
    span = Span(
        np.where(covered, new.low, old.low),
        np.where(covered, new.high, old.high),
        old.ideal if share < 0.5 else new.ideal if share > 0.5 else None,
    )
    same = all(
        other in laid.spans
        and np.array_equal(before.spans[other].low, laid.spans[other].low)
        and np.array_equal(before.spans[other].high, laid.spans[other].high)
        for other in before.spans
        if other != axis
    )
    spans = {**answer.spans, axis: span}
    return replace(answer, spans=spans, guessed=before.guessed or laid.guessed or not same)
