"""What operations see that join, rearrange or reduce: sums, products, reshapes, writes. Floor 1.

Room analysis; imports NumPy and this room. Each rule says what the first output of a node sees, or
None where it does not cover what it is asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from neocog.analysis import taps
from neocog.analysis.case import Case, as_list
from neocog.analysis.graph import Ref, refs
from neocog.analysis.layout import State, aligned
from neocog.analysis.sliding import one_left

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def pointwise(case: Case) -> State:
    """Every element sees what the operands see at its place."""
    if len(case.every) == 1 and case.every[0].shape == case.out:
        return case.every[0]
    return aligned(case.every, case.out)


def first(case: Case) -> State | None:
    """The first tensor's positions, the others only add what they see."""
    return case.state(case.node.args[0])


def reduce(case: Case) -> State | None:
    """Sums, means, maxima over some axes."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    rank = len(state.dims)
    # Norms have their order before the axes.
    given = case.arg(2 if "norm" in case.node.op else 1, "dim")
    chosen = range(rank) if given in (None, [], ()) else as_list(given, 1)
    dims = sorted({dim % rank for dim in chosen}) if rank else []
    state = state.mixed(dims)
    for dim in reversed(dims):
        state = one_left(state, dim) if len(case.out) == rank else state.without(dim)
    return state


def coupled(dim_of: Callable[[Case, int], Sequence[int]]) -> Callable[[Case], State | None]:
    """Elements stay where they are and depend on all others along some axes."""

    def rule(case: Case) -> State | None:
        state = case.state(case.node.args[0])
        return None if state is None else state.coupled(dim_of(case, len(state.dims)))

    return rule


def softmax(case: Case) -> State | None:
    """Every element depends on all others along the axis."""
    state = case.state(case.node.args[0])
    return None if state is None else state.mixed([case.node.args[1] % len(state.dims)])


def batch_norm(case: Case) -> State | None:
    """In use a scale for each channel. Where it takes the statistics of its input (instance norm),
    everything depends on everything."""
    state = case.state(case.node.args[0])
    training = case.arg(3 if case.node.overload == "no_stats" else 5)
    if state is None or not training:
        return state
    return state.coupled([dim for dim in range(len(state.dims)) if dim != 1])


def view(case: Case) -> State | None:
    """The same elements under another shape."""
    state = case.state(case.node.args[0])
    return None if state is None else state.reshaped(case.out)


def permute(case: Case) -> State | None:
    """Axes in another order."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    rank = len(state.dims)
    if case.node.op == "permute":
        order = [dim % rank for dim in case.node.args[1]]
    else:
        order = list(range(rank))
        if case.node.op in ("t", "numpy_T"):
            first, second = (0, 1) if rank == 2 else (0, 0)
        else:
            first, second = (one % rank for one in case.node.args[1:3])
        order[first], order[second] = order[second], order[first]
    return state.with_dims([state.dims[dim] for dim in order])


def expand(case: Case) -> State | None:
    """Axes of one position repeated."""
    state = case.state(case.node.args[0])
    return None if state is None else aligned([state], case.out)


def unsqueeze(case: Case) -> State | None:
    """A new axis of one position."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    dim = case.node.args[1] % (len(state.dims) + 1)
    return state.with_dims((*state.dims[:dim], (), *state.dims[dim:]))


def squeeze(case: Case) -> State | None:
    """Axes of one position go."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    rank = len(state.dims)
    chosen = case.arg(1, "dim")
    dims = range(rank) if chosen is None else [dim % rank for dim in as_list(chosen, 1)]
    kept = [dim for dim, size in enumerate(state.shape) if not (size == 1 and dim in dims)]
    return state.with_dims([state.dims[dim] for dim in kept])


def cat(case: Case) -> State | None:
    """Channels side by side see what all see; along an axis of the picture, each its own."""
    pieces = list(refs((case.node.args[0],)))
    shapes = [case.graph.values[index].shape for index in pieces]
    kept = [index for index, shape in zip(pieces, shapes, strict=True) if shape != (0,)]
    dim = case.arg(1, "dim", 0) % len(case.out)
    known = [state for index in kept if (state := case.state(Ref(index))) is not None]
    if any(state.axes_in(dim) for state in known):
        return cat_along(case, kept, dim)
    wide = [replace(one, dims=(*one.dims[:dim], (), *one.dims[dim + 1 :])) for one in known]
    joined = aligned(wide, (*case.out[:dim], 1, *case.out[dim + 1 :]))
    size = State.plain([case.out[dim]])
    return joined.with_dims((*joined.dims[:dim], *size, *joined.dims[dim + 1 :]))


def cat_along(case: Case, pieces: Sequence[int], dim: int) -> State | None:
    """Pieces joined along an axis of the picture: each is padded to the whole and laid over."""
    laid, start = [], 0
    for index in pieces:
        size = case.graph.values[index].shape[dim]
        state = case.state(Ref(index))
        if state is not None:
            laid.append(state.through(dim, taps.shifted(size, case.out[dim], start), case.out[dim]))
        start += size
    return replace(aligned(laid, case.out), misaligned=any(one.misaligned for one in laid))


def stack(case: Case) -> State | None:
    """A new axis, along which the pieces lie."""
    dim = case.arg(1, "dim", 0) % len(case.out)
    known = [one for index in refs((case.node.args[0],)) if (one := case.state(Ref(index)))]
    joined = aligned(known, (*case.out[:dim], *case.out[dim + 1 :]))
    return joined.with_dims((*joined.dims[:dim], *State.plain([case.out[dim]]), *joined.dims[dim:]))


def matmul(case: Case) -> State | None:
    """Matrix products B×I×K · B×K×J: rows see what their row saw, columns what their column did."""
    added = case.node.op in ("addmm", "baddbmm")
    left, right = case.node.args[added : 2 + added]
    first, second = case.state(left), case.state(right)
    rank = len(case.out)
    parts = []
    if first is not None:
        first = first.mixed([rank - 1])
        columns = State.plain([case.out[-1]])
        parts.append(first.with_dims((*first.dims[:-1], *columns)))
    if second is not None:
        second = second.mixed([rank - 2])
        if parts:
            for axis in second.axes_in(rank - 1):
                if parts[0].atoms(axis):
                    second = second.mixed_atoms([rank - 1], axis)
        rows = State.plain([case.out[-2]])
        parts.append(second.with_dims((*second.dims[: rank - 2], *rows, second.dims[-1])))
    if added and (extra := case.state(case.node.args[0])):
        parts.append(extra)
    return aligned(parts, case.out) if parts else None


def linear(case: Case) -> State | None:
    """Every output sees all of the last axis."""
    state = case.state(case.node.args[0])
    if state is None or case.state(case.node.args[1]) is not None:
        return None
    state = state.mixed([len(state.dims) - 1])
    return state.with_dims((*state.dims[:-1], *State.plain([case.out[-1]])))


def attention(case: Case) -> State | None:
    """softmax(Q Kᵀ) V, B×heads×L×E: every query sees all keys and values."""
    query, *rest = (case.state(argument) for argument in case.node.args[:3])
    parts = []
    if query is not None:
        mixed = query.mixed([3])
        parts.append(mixed.with_dims((*mixed.dims[:-1], *State.plain([case.out[-1]]))))
    for state in rest:
        if state is not None:
            mixed = state.mixed([2, 3])
            parts.append(mixed.with_dims((*mixed.dims[:2], *State.plain(case.out[2:]))))
    return aligned(parts, case.out) if parts else None


def embedding(case: Case) -> State | None:
    """A vector for each word."""
    state = case.state(case.node.args[1])
    if state is None:
        return None
    return state.with_dims((*state.dims, *State.plain([case.out[-1]])))


def norm_dims(case: Case, rank: int) -> Sequence[int]:
    """The last axes, as many as the norm's shape has."""
    return range(rank - len(case.node.args[1]), rank)
