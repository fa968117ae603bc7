"""Receptive fields: what every element of every tensor sees of the input. Floor 1, room analysis.

Imports floor 0, NumPy and this room. Each operation says how it carries what its inputs see on to
its output (`_RULES`). One that has no rule, or that is asked for something that its rule does not
cover, is answered by an upper bound (everything that its inputs see), and says so: `Field.exact`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from neocog.analysis import taps
from neocog.analysis.graph import Graph, Node, Ref, refs
from neocog.analysis.layout import State, aligned
from neocog.analysis.span import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from neocog.analysis.graph import Value

__all__ = ["Field", "Fields", "fields"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The receptive field of a tensor along one axis of the input."""

    size: int
    """Input positions that one element sees, on an endless picture; on this picture where the
    sizes are such that positions do not repeat."""
    jump: Fraction
    """Input positions between neighbours."""
    offset: Fraction
    """Input position at the centre of what element 0 sees."""
    everything: bool
    """It sees the whole picture besides: attention, a gate, statistics over the picture."""
    aligned: bool
    """All branches that were joined on the way have one jump."""
    exact: bool
    """False: an upper bound."""


class Fields:
    """What the values of a graph see of its first input.

    Axes are those of the picture: 0 and 1 for height and width, three for volumes, one for sound.
    """

    def __init__(self, graph: Graph, states: Mapping[int, State | None], sizes: tuple[int, ...]):
        self._graph = graph
        self._states = states
        self.sizes = sizes
        """Sizes of the input's axes."""

    def of(self, value: int) -> tuple[Field, ...] | None:
        """For each axis of the picture; None where the tensor has no positions along them.

        None also stands for tensors that the input does not reach.
        """
        state = self._states.get(value)
        if state is None or not all(axis in state.spans for axis in range(len(self.sizes))):
            return None
        return tuple(self._field(state, axis) for axis in range(len(self.sizes)))

    def _field(self, state: State, axis: int) -> Field:
        span = state.spans[axis]
        seen = state.seen.get(axis)
        whole = seen is not None and seen[0] <= 0 and seen[1] >= self.sizes[axis] - 1
        if span.ideal is None:
            first = (int(span.low[0]) + int(span.high[0])) / 2
            last = (int(span.low[-1]) + int(span.high[-1])) / 2
            size = int((span.high - span.low + 1).max())
            jump = Fraction((last - first) / max(1, len(span) - 1)).limit_denominator(64)
            offset = Fraction(first).limit_denominator(64)
        else:
            size, jump, offset = span.ideal.size, span.ideal.jump, span.ideal.offset
        return Field(
            size=size,
            jump=jump,
            offset=offset,
            everything=whole,
            aligned=not state.misaligned,
            exact=not state.guessed,
        )

    def reached(self, value: int) -> bool:
        """Whether a tensor depends on the input."""
        return self._states.get(value) is not None

    def sees_everything(self, value: int) -> bool:
        """Whether every element sees the whole picture."""
        state = self._states.get(value)
        if state is None:
            return False
        hulls = [state.seen.get(axis, (1, 0)) for axis in range(len(self.sizes))]
        return all(
            low <= 0 and high >= size - 1
            for (low, high), size in zip(hulls, self.sizes, strict=True)
        )

    def unit(self, value: int, position: Sequence[int] = ()) -> tuple[tuple[int, int], ...] | None:
        """First and last input position, along each axis, that one element really sees.

        What lies in the padding does not count.

        Args:
            value: the tensor.
            position: of the element, along the axes of the picture; left out where it has none.

        Returns:
            One pair for each axis of the picture, None where the element sees nothing.
        """
        state = self._states.get(value)
        if state is None:
            return None
        found = []
        for axis in range(len(self.sizes)):
            low, high = state.seen.get(axis, (1 << 40, -1))
            if axis in state.spans and position:
                span = state.spans[axis]
                low = min(low, int(span.low[position[axis]]))
                high = max(high, int(span.high[position[axis]]))
            elif axis in state.spans:
                first, last = state.spans[axis].hull
                low, high = min(low, first), max(high, last)
            if low > high:
                return None
            found.append((low, high))
        return tuple(found)

    def whole(self) -> tuple[int, ...] | None:
        """The network's receptive field: the largest of any tensor that still has positions."""
        largest: tuple[int, ...] | None = None
        for value in self._states:
            found = self.of(value)
            if found is None:
                continue
            sizes = tuple(field.size for field in found)
            if largest is None or math.prod(sizes) > math.prod(largest):
                largest = sizes
        return largest


def fields(graph: Graph) -> Fields:
    """Follow every operation from the first input on."""
    given = graph.values[graph.inputs[0]]
    axes = _picture_axes(given)
    states: dict[int, State | None] = {}
    layout = list(State.plain(given.shape))
    spans = {}
    for axis, dim in enumerate(axes):
        spans[axis] = Span.of(given.shape[dim])
        layout[dim] = spans_atom(axis, given.shape[dim])
    states[given.index] = State(dims=tuple(layout), spans=spans)
    for node in graph.nodes:
        known = {index: states[index] for index in node.inputs if states.get(index) is not None}
        if not known:
            continue
        for index, state in zip(node.outputs, _outputs(graph, node, known), strict=False):
            shape = graph.values[index].shape
            if state is not None and state.shape != shape:
                state = replace(state.lost(), dims=State.plain(shape), guessed=True)
            states[index] = state
    return Fields(graph, states, tuple(given.shape[dim] for dim in axes))


def spans_atom(axis: int, size: int) -> Any:
    """The layout of a tensor's axis that is an axis of the picture."""
    from neocog.analysis.layout import Atom

    return (Atom(size, axis, 1),)


def _picture_axes(value: Value) -> tuple[int, ...]:
    """Axes of the tensor that are axes of the picture: all behind batch and channels.

    Whole numbers B×L (words) have one.
    """
    if len(value.shape) == 2 and "int" in value.dtype:
        return (1,)
    return tuple(range(2, len(value.shape)))


# -- rules ------------------------------------------------------------------------------------------


class _Case:
    """A node with what its inputs see, for a rule to read."""

    __slots__ = ("_states", "graph", "node")

    def __init__(self, graph: Graph, node: Node, states: Mapping[int, State]) -> None:
        self.graph, self.node, self._states = graph, node, states

    def state(self, argument: Any) -> State | None:
        """What a tensor argument sees; None where it does not depend on the input."""
        return self._states.get(argument.value) if isinstance(argument, Ref) else None

    def shape(self, argument: Ref) -> tuple[int, ...]:
        """A tensor argument's shape."""
        return self.graph.values[argument.value].shape

    @property
    def out(self) -> tuple[int, ...]:
        """The first output's shape."""
        return self.graph.values[self.node.outputs[0]].shape

    def arg(self, position: int, name: str = "", default: Any = None) -> Any:
        """An argument, however it was given."""
        if position < len(self.node.args):
            return self.node.args[position]
        return self.node.kwargs.get(name, default)

    @property
    def every(self) -> list[State]:
        """What the inputs see that depend on the picture."""
        return [self._states[index] for index in self.node.inputs if index in self._states]


Rule = "Callable[[_Case], State | None]"


def _outputs(graph: Graph, node: Node, known: Mapping[int, State]) -> Iterator[State | None]:
    """What each output sees."""
    case = _Case(graph, node, known)
    rule = _RULES.get(node.op) or _RULES.get(node.op.rstrip("_"))
    if rule is None and node.pointwise:
        rule = _pointwise
    first = rule(case) if rule is not None and node.outputs else None
    if first is None:
        first = _bound(case)
    if node.op in _SPLITS:
        yield from _pieces(case)
        return
    for index in node.outputs:
        shape = graph.values[index].shape
        if shape == case.out:
            yield first
        else:
            yield replace(first.lost(), dims=State.plain(shape))


def _bound(case: _Case) -> State:
    """Everything that any input sees, for every element."""
    answer = State(dims=State.plain(case.out), guessed=True)
    for state in case.every:
        lost = state.lost()
        for axis, hull in lost.seen.items():
            answer = answer.also(axis, hull)
        answer = replace(answer, misaligned=answer.misaligned or state.misaligned)
    return answer


def _pointwise(case: _Case) -> State:
    if len(case.every) == 1 and case.every[0].shape == case.out:
        return case.every[0]
    return aligned(case.every, case.out)


def _first(case: _Case) -> State | None:
    """The first tensor's positions, the others only add what they see."""
    return case.state(case.node.args[0])


def _list(value: Any, count: int) -> list[int]:
    """A size for each axis: one number stands for all."""
    found = [value] if isinstance(value, int) else list(value or [])
    return found * count if len(found) == 1 else found


def _convolution(case: _Case) -> State | None:
    args = case.node.args
    state, weight = case.state(args[0]), args[1]
    if state is None or case.state(weight) is not None:
        return None
    kernel = case.shape(weight)[2:]
    count = len(kernel)
    stride, padding, dilation = (_list(one, count) for one in args[3:6])
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


def _pool(dims: int) -> Callable[[_Case], State | None]:
    def rule(case: _Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        kernel = _list(case.arg(1), dims)
        stride = _list(case.arg(2, "stride", []), dims) or kernel
        padding = _list(case.arg(3, "padding", 0), dims)
        dilation = [1] * dims
        if case.node.op.startswith("max"):
            dilation = _list(case.arg(4, "dilation", 1), dims)
        rank = len(case.out)
        for at in range(dims):
            dim = rank - dims + at
            size, out = state.shape[dim], case.out[dim]
            if out == 1 and kernel[at] >= size and not padding[at]:
                state = _one_left(state.mixed([dim]), dim)
                continue
            window = (kernel[at], stride[at], padding[at], dilation[at])
            state = state.through(dim, taps.windowed(size, out, *window), out)
        return state

    return rule


def _one_left(state: State, dim: int) -> State:
    """An axis that was mixed keeps one position."""
    return state.with_dims((*state.dims[:dim], (), *state.dims[dim + 1 :]))


def _adaptive(dims: int) -> Callable[[_Case], State | None]:
    def rule(case: _Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        for dim in range(len(case.out) - dims, len(case.out)):
            size, out = state.shape[dim], case.out[dim]
            if out == 1:
                state = _one_left(state.mixed([dim]), dim)
            else:
                state = state.through(dim, taps.adaptive(size, out), out)
        return state

    return rule


def _upsample(mode: str, corners: bool) -> Callable[[_Case], State | None]:
    def rule(case: _Case) -> State | None:
        state = case.state(case.node.args[0])
        if state is None:
            return None
        align = bool(corners and case.arg(2))
        for dim in range(2, len(case.out)):
            found = taps.scaled(state.shape[dim], case.out[dim], mode, align)
            state = state.through(dim, found, case.out[dim])
        return state

    return rule


def _pad(mode: str) -> Callable[[_Case], State | None]:
    def rule(case: _Case) -> State | None:
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


def _reduce(case: _Case) -> State | None:
    """Sums, means, maxima over some axes."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    rank = len(state.dims)
    given = case.arg(1, "dim")
    chosen = range(rank) if given in (None, [], ()) else _list(given, 1)
    dims = sorted({dim % rank for dim in chosen}) if rank else []
    state = state.mixed(dims)
    for dim in reversed(dims):
        state = _one_left(state, dim) if len(case.out) == rank else state.without(dim)
    return state


def _coupled(dim_of: Callable[[_Case, int], Sequence[int]]) -> Callable[[_Case], State | None]:
    """Elements stay where they are and depend on all others along some axes."""

    def rule(case: _Case) -> State | None:
        state = case.state(case.node.args[0])
        return None if state is None else state.coupled(dim_of(case, len(state.dims)))

    return rule


def _softmax(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    return None if state is None else state.mixed([case.node.args[1] % len(state.dims)])


def _batch_norm(case: _Case) -> State | None:
    """In use a scale for each channel. Where it takes the statistics of its input (instance norm),
    everything depends on everything."""
    state = case.state(case.node.args[0])
    legit = "legit" in case.node.op
    training = True if "no_stats" in case.node.overload else case.arg(5 if not legit else 5)
    if legit and case.node.overload == "no_stats":
        training = case.arg(3)
    if state is None or not training:
        return state
    return state.coupled([dim for dim in range(len(state.dims)) if dim != 1])


def _view(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    return None if state is None else state.reshaped(case.out)


def _permute(case: _Case) -> State | None:
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


def _expand(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    return None if state is None else aligned([state], case.out)


def _unsqueeze(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    if state is None:
        return None
    dim = case.node.args[1] % (len(state.dims) + 1)
    return state.with_dims((*state.dims[:dim], (), *state.dims[dim:]))


def _squeeze(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    if state is None:
        return None
    rank = len(state.dims)
    chosen = case.arg(1, "dim")
    dims = range(rank) if chosen is None else [dim % rank for dim in _list(chosen, 1)]
    kept = [dim for dim, size in enumerate(state.shape) if not (size == 1 and dim in dims)]
    return state.with_dims([state.dims[dim] for dim in kept])


def _slice(case: _Case) -> State | None:
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


def _select(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    if state is None:
        return None
    dim = case.node.args[1] % len(state.dims)
    size = state.shape[dim]
    state = state.through(dim, taps.windowed(size, 1, 1, 1, -(case.node.args[2] % size)), 1)
    return state.without(dim)


_SPLITS = frozenset(
    {"split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "unsafe_chunk"}
)


def _pieces(case: _Case) -> Iterator[State | None]:
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


def _cat(case: _Case) -> State | None:
    pieces = list(refs((case.node.args[0],)))
    shapes = [case.graph.values[index].shape for index in pieces]
    kept = [index for index, shape in zip(pieces, shapes, strict=True) if shape != (0,)]
    dim = case.arg(1, "dim", 0) % len(case.out)
    known = [state for index in kept if (state := case.state(Ref(index))) is not None]
    if any(state.axes_in(dim) for state in known):
        return _cat_along(case, kept, dim)
    wide = [replace(one, dims=(*one.dims[:dim], (), *one.dims[dim + 1 :])) for one in known]
    joined = aligned(wide, (*case.out[:dim], 1, *case.out[dim + 1 :]))
    size = State.plain([case.out[dim]])
    return joined.with_dims((*joined.dims[:dim], *size, *joined.dims[dim + 1 :]))


def _cat_along(case: _Case, pieces: Sequence[int], dim: int) -> State | None:
    """Pieces joined along an axis of the picture: each is padded to the whole and laid over."""
    laid, start = [], 0
    for index in pieces:
        size = case.graph.values[index].shape[dim]
        state = case.state(Ref(index))
        if state is not None:
            laid.append(state.through(dim, taps.shifted(size, case.out[dim], start), case.out[dim]))
        start += size
    return replace(aligned(laid, case.out), misaligned=any(one.misaligned for one in laid))


def _stack(case: _Case) -> State | None:
    dim = case.arg(1, "dim", 0) % len(case.out)
    known = [one for index in refs((case.node.args[0],)) if (one := case.state(Ref(index)))]
    joined = aligned(known, (*case.out[:dim], *case.out[dim + 1 :]))
    return joined.with_dims((*joined.dims[:dim], *State.plain([case.out[dim]]), *joined.dims[dim:]))


def _matmul(case: _Case) -> State | None:
    """Matrix products B×I×K · B×K×J: rows see what their row saw, columns what their column did."""
    left, right = case.node.args[-2 - _bias(case)], case.node.args[-1 - _bias(case)]
    if case.node.op in ("addmm", "baddbmm", "addbmm"):
        left, right = case.node.args[1], case.node.args[2]
    elif case.node.op in ("mm", "bmm"):
        left, right = case.node.args[0], case.node.args[1]
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
    if case.node.op in ("addmm", "baddbmm") and (extra := case.state(case.node.args[0])):
        parts.append(extra)
    return aligned(parts, case.out) if parts else None


def _bias(case: _Case) -> int:
    return 0


def _linear(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    if state is None or case.state(case.node.args[1]) is not None:
        return None
    state = state.mixed([len(state.dims) - 1])
    return state.with_dims((*state.dims[:-1], *State.plain([case.out[-1]])))


def _attention(case: _Case) -> State | None:
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


def _embedding(case: _Case) -> State | None:
    state = case.state(case.node.args[1])
    if state is None:
        return None
    return state.with_dims((*state.dims, *State.plain([case.out[-1]])))


def _shuffle(down: bool) -> Callable[[_Case], State | None]:
    """Pixel shuffle B×(C·r²)×H×W → B×C×(H·r)×(W·r), and back."""

    def rule(case: _Case) -> State | None:
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


def _roll(case: _Case) -> State | None:
    state = case.state(case.node.args[0])
    if state is None or not case.arg(2, "dims"):
        return None
    for shift, dim in zip(_list(case.arg(1), 1), _list(case.arg(2), 1), strict=True):
        dim %= len(state.dims)
        state = state.single(dim)
        size = state.shape[dim]
        for axis in state.axes_in(dim):
            span = state.spans[axis]
            import numpy as np

            turned = span.taken((np.arange(size) - shift) % size, span.ideal)
            state = replace(state, spans={**state.spans, axis: turned})
    return state


def _unpool(case: _Case) -> State | None:
    """Each pooled value returns to its place: one output position may come from any input window
    that covers it; windows of the ratio of the sizes are assumed."""
    state = case.state(case.node.args[0])
    if state is None:
        return None
    for dim in range(len(case.out) - 2, len(case.out)):
        found = taps.scaled(state.shape[dim], case.out[dim], "nearest", align_corners=False)
        state = state.through(dim, found, case.out[dim])
    return state


def _written(case: _Case) -> State | None:
    """A tensor after something was written through a view of it: a box, where that can be seen."""
    old, new = case.node.args
    before, part = case.state(old), case.state(new)
    whole, box = case.graph.values[old.value], case.graph.values[new.value]
    if part is None:
        return before
    if whole.shape == box.shape and whole.offset == box.offset:
        return part if before is None else aligned([part], case.out)
    if len(whole.shape) != len(box.shape) or whole.strides != box.strides:
        return None
    rest = box.offset - whole.offset
    for dim, stride in enumerate(whole.strides):
        start, rest = divmod(rest, stride) if stride else (0, rest)
        size, out = box.shape[dim], whole.shape[dim]
        if start < 0 or start + size > out:
            return None
        if size != out:
            part = part.through(dim, taps.shifted(size, out, start), out)
    return aligned([part] if before is None else [before, part], case.out)


def _copy(case: _Case) -> State | None:
    """`copy_` forgets what the target saw."""
    source = case.state(case.node.args[1])
    return None if source is None else aligned([source], case.out)


def _norm_dims(case: _Case, rank: int) -> Sequence[int]:
    return range(rank - len(case.node.args[1]), rank)


_RULES: dict[str, Callable[[_Case], State | None]] = {
    "convolution": _convolution,
    **{f"max_pool{d}d_with_indices": _pool(d) for d in (2, 3)},
    **{f"{kind}_pool{d}d": _pool(d) for kind in ("max", "avg") for d in (1, 2, 3)},
    **{f"_adaptive_avg_pool{d}d": _adaptive(d) for d in (2, 3)},
    **{f"adaptive_avg_pool{d}d": _adaptive(d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive(d) for d in (1, 2, 3)},
    **{f"upsample_nearest{d}d": _upsample("nearest", False) for d in (1, 2, 3)},
    **{f"_upsample_nearest_exact{d}d": _upsample("nearest", False) for d in (1, 2, 3)},
    **{f"upsample_{kind}": _upsample("linear", True) for kind in ("linear1d", "bilinear2d")},
    "upsample_trilinear3d": _upsample("linear", True),
    "upsample_bicubic2d": _upsample("cubic", True),
    "constant_pad_nd": _pad("constant"),
    **{f"reflection_pad{d}d": _pad("reflect") for d in (1, 2, 3)},
    **{f"replication_pad{d}d": _pad("replicate") for d in (1, 2, 3)},
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std"), _reduce),
    **dict.fromkeys(("argmax", "prod", "logsumexp", "linalg_vector_norm", "norm"), _reduce),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
        _batch_norm,
    ),
    "native_layer_norm": _coupled(_norm_dims),
    "_fused_rms_norm": _coupled(_norm_dims),
    "native_group_norm": _coupled(lambda _, rank: range(1, rank)),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _view),
    **dict.fromkeys(("permute", "transpose", "t", "swapaxes"), _permute),
    "expand": _expand,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(_SPLITS, _first),
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _matmul),
    "linear": _linear,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_fused_attention_overrideable",
            "scaled_dot_product_attention",
        ),
        _attention,
    ),
    "embedding": _embedding,
    "pixel_shuffle": _shuffle(down=False),
    "pixel_unshuffle": _shuffle(down=True),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _first),
    "roll": _roll,
    "max_unpool2d": _unpool,
    "written": _written,
    "copy_": _copy,
    **dict.fromkeys(
        ("clone", "detach", "alias", "contiguous", "_to_copy", "native_dropout", "lift_fresh"),
        _first,
    ),
    **dict.fromkeys(("prelu", "_prelu_kernel", "where", "masked_fill"), _pointwise),
}
