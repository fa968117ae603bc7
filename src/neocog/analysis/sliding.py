"""What operations see that read along an axis: windows, padding, scaling, cutting. Floor 1.

Room analysis; imports NumPy and this room. Each rule says what the first output of a node sees, or
None where it does not cover what it is asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from neocog.analysis import taps
from neocog.analysis.case import Case, as_list
from neocog.analysis.layout import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def convolution(case: Case) -> State | None:
    """Windows, or their transposition; all channels are one."""
    args = case.node.args
    state, weight = case.state(args[0]), args[1]
    if state is None or case.state(weight) is not None:
        return None
    kernel = case.shape(weight)[2:]
    count = len(kernel)
    stride, padding, dilation = (as_list(one, count) for one in args[3:6])
    state = state.mixed([1])
    channels = State.plain([case.out[1]])
    state = state.with_dims((state.dims[0], *channels, *state.dims[2:]))
    for at in range(count):
        size, out = case.shape(args[0])[2 + at], case.out[2 + at]
        if args[6]:
            found = taps.transposed(size, out, kernel[at], stride[at], padding[at], dilation[at])
        else:
            found = taps.windowed(size, out, kernel[at], stride[at], padding[at], dilation[at])
        state = state.through(2 + at, found, out)
    return state


def pool(dims: int) -> Callable[[Case], State | None]:
    """Windows of pooling."""

    def rule(case: Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        kernel = as_list(case.arg(1), dims)
        stride = as_list(case.arg(2, "stride", []), dims) or kernel
        padding = as_list(case.arg(3, "padding", 0), dims)
        dilation = [1] * dims
        if case.node.op.startswith("max"):
            dilation = as_list(case.arg(4, "dilation", 1), dims)
        rank = len(case.out)
        for at in range(dims):
            dim = rank - dims + at
            size, out = state.shape[dim], case.out[dim]
            if out == 1 and kernel[at] >= size and not padding[at]:
                state = one_left(state.mixed([dim]), dim)
                continue
            window = (kernel[at], stride[at], padding[at], dilation[at])
            state = state.through(dim, taps.windowed(size, out, *window), out)
        return state

    return rule


def one_left(state: State, dim: int) -> State:
    """An axis that was mixed keeps one position."""
    return state.with_dims((*state.dims[:dim], (), *state.dims[dim + 1 :]))


def adaptive(dims: int) -> Callable[[Case], State | None]:
    """Pooling to a given size."""

    def rule(case: Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        for dim in range(len(case.out) - dims, len(case.out)):
            size, out = state.shape[dim], case.out[dim]
            if out == 1:
                state = one_left(state.mixed([dim]), dim)
            else:
                state = state.through(dim, taps.adaptive(size, out), out)
        return state

    return rule


def upsample(mode: str) -> Callable[[Case], State | None]:
    """Interpolation."""

    def rule(case: Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        align = mode in ("linear", "cubic") and bool(case.arg(2))
        for dim in range(2, len(case.out)):
            found = taps.scaled(state.shape[dim], case.out[dim], mode, align)
            state = state.through(dim, found, case.out[dim])
        return state

    return rule


def pad(mode: str) -> Callable[[Case], State | None]:
    """Padding with a constant, by reflection, by the edge."""

    def rule(case: Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        sides = case.node.args[1]
        for pair in range(len(sides) // 2):
            dim = len(case.out) - 1 - pair
            left, right = sides[2 * pair], sides[2 * pair + 1]
            if not left and not right:
                continue
            size, out = state.shape[dim], case.out[dim]
            found = (
                taps.shifted(size, out, left)
                if mode == "constant"
                else taps.mirrored(size, out, left, mode)
            )
            state = state.through(dim, found, out)
        return state

    return rule


def strided(case: Case) -> State | None:
    """Every so many positions of an axis."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    dim = case.arg(1, "dim", 0) % len(state.dims)
    size, out = state.shape[dim], case.out[dim]
    start = case.arg(2, "start") or 0
    step = case.arg(4, "step", 1)
    start = min(max(start + size if start < 0 else start, 0), size)
    if start == 0 and step == 1 and out == size:
        return state
    return state.through(dim, taps.windowed(size, out, 1, step, -start), out)


def select(case: Case) -> State | None:
    """One position of an axis."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    dim = case.node.args[1] % len(state.dims)
    size = state.shape[dim]
    state = state.through(dim, taps.windowed(size, 1, 1, 1, -(case.node.args[2] % size)), 1)
    return state.without(dim)


def pieces(case: Case) -> Iterator[State | None]:
    """Each of the outputs that an axis was cut into."""
    state = case.state(case.node.args[0])
    dim = case.arg(2 if case.node.op != "unbind" else 1, "dim", 0)
    start = 0
    for index in case.node.outputs:
        if state is None:
            yield None
            continue
        at = dim % len(state.dims)
        out = 1 if case.node.op == "unbind" else case.graph.values[index].shape[at]
        piece = state.through(at, taps.windowed(state.shape[at], out, 1, 1, -start), out)
        start += out
        yield piece.without(at) if case.node.op == "unbind" else piece


def roll(case: Case) -> State | None:
    """Positions move on; what leaves comes in at the other end."""
    state = case.state(case.node.args[0])
    if state is None or not case.arg(2, "dims"):
        return None
    for shift, dim in zip(as_list(case.arg(1), 1), as_list(case.arg(2), 1), strict=True):
        dim %= len(state.dims)
        state = state.single(dim)
        size = state.shape[dim]
        for axis in state.axes_in(dim):
            span = state.spans[axis]
            turned = span.taken((np.arange(size) - shift) % size, span.ideal)
            state = replace(state, spans={**state.spans, axis: turned})
    return state


def unpool(case: Case) -> State | None:
    """Each pooled value returns to its place: an output position may come from any window of the
    pooling that covers it. Where the places come from, only the pooling's own windows are known."""
    state = case.state(case.node.args[0])
    places = case.node.args[1]
    maker = next((one for one in case.graph.nodes if places.value in one.outputs), None)
    if state is None or maker is None or not maker.op.startswith("max_pool"):
        return None
    pooled = Case(case.graph, maker, {})
    kernel = as_list(pooled.arg(1), 2)
    stride = as_list(pooled.arg(2, "stride", []), 2) or kernel
    padding = as_list(pooled.arg(3, "padding", 0), 2)
    dilation = as_list(pooled.arg(4, "dilation", 1), 2)
    for at, dim in enumerate(range(len(case.out) - 2, len(case.out))):
        window = (kernel[at], stride[at], padding[at], dilation[at])
        found = taps.transposed(state.shape[dim], case.out[dim], *window)
        state = state.through(dim, found, case.out[dim])
    return state


def shuffle(down: bool) -> Callable[[Case], State | None]:
    """Pixel shuffle B×(C·r²)×H×W → B×C×(H·r)×(W·r), and back."""

    def rule(case: Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        factor = case.node.args[1]
        *batch, channels, height, width = state.shape
        lead = len(batch)
        if down:
            cut = (*batch, channels, height // factor, factor, width // factor, factor)
            order = (*range(lead), lead, lead + 2, lead + 4, lead + 1, lead + 3)
        else:
            cut = (*batch, channels // factor**2, factor, factor, height, width)
            order = (*range(lead), lead, lead + 3, lead + 1, lead + 4, lead + 2)
        state = state.reshaped(cut)
        return state.with_dims([state.dims[dim] for dim in order]).reshaped(case.out)

    return rule


def flip(case: Case) -> State | None:
    """An axis the other way round."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    for dim in as_list(case.arg(1), 1):
        state = state.single(dim % len(state.dims))
        for axis in state.axes_in(dim % len(state.dims)):
            span = state.spans[axis]
            turned = span.taken(np.arange(len(span))[::-1])
            state = replace(state, spans={**state.spans, axis: turned})
    return state


def unfold(case: Case) -> State | None:
    """Windows as columns: B×C×H×W → B×(C·kh·kw)×(windows)."""
    state = case.state(case.node.args[0])
    if state is None or len(state.dims) != 4:
        return None
    kernel, dilation, padding, stride = (as_list(one, 2) for one in case.node.args[1:5])
    state = state.mixed([1])
    counts = []
    for at in range(2):
        size = state.shape[2 + at]
        reach = dilation[at] * (kernel[at] - 1) + 1
        out = (size + 2 * padding[at] - reach) // stride[at] + 1
        window = taps.windowed(size, out, kernel[at], stride[at], padding[at], dilation[at])
        state = state.through(2 + at, window, out)
        counts.append(out)
    state = state.with_dims((state.dims[0], *State.plain([case.out[1]]), *state.dims[2:]))
    return state.reshaped(case.out)
