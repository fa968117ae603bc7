"""Receptive fields: what every element of every tensor sees of the input. Floor 1, room analysis.

Imports floor 0, NumPy and this room. Each operation says how it carries what its inputs see on to
its output (`_RULES`, in `sliding`, `joining` and `writing`). One that has no rule, or that is asked
for something that its rule does not cover, is answered by an upper bound (everything that its
inputs see), and says so: `Field.exact`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from neocog.analysis import joining, sliding, writing
from neocog.analysis.case import Case
from neocog.analysis.layout import Atom, State
from neocog.analysis.span import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from neocog.analysis.graph import Graph, Node, Value

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
        axes = range(len(self.sizes))
        if state is None or not axes or not all(axis in state.spans for axis in axes):
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
        """Whether every element sees the whole picture; without a picture, none does."""
        state = self._states.get(value)
        if state is None or not self.sizes:
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

    def element(self, value: int, index: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
        """First and last input position, along each axis, that one element really sees.

        Args:
            value: the tensor.
            index: of the element, along all axes of the tensor.

        Returns:
            As `unit`.
        """
        state = self._states.get(value)
        if state is None:
            return None
        position = [0] * len(self.sizes)
        for rest, dim in zip(index, state.dims, strict=True):
            for atom in reversed(dim):
                rest, digit = divmod(rest, atom.size)
                if atom.axis >= 0:
                    position[atom.axis] += digit * atom.weight
        return self.unit(value, position)

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
        layout[dim] = (Atom(given.shape[dim], axis, 1),)
    states[given.index] = State(dims=tuple(layout), spans=spans)
    for node in graph.nodes:
        known = {index: one for index in node.inputs if (one := states.get(index)) is not None}
        if not known:
            continue
        for index, state in zip(node.outputs, _outputs(graph, node, known), strict=False):
            shape = graph.values[index].shape
            if state is not None and state.shape != shape:
                state = replace(state.lost(), dims=State.plain(shape), guessed=True)
            states[index] = state
    return Fields(graph, states, tuple(given.shape[dim] for dim in axes))


def _picture_axes(value: Value) -> tuple[int, ...]:
    """Axes of the tensor that are axes of the picture: all behind batch and channels.

    Whole numbers B×L (words) have one.
    """
    if len(value.shape) == 2 and "int" in value.dtype:
        return (1,)
    return tuple(range(2, len(value.shape)))


_UNLESS_WRITTEN = frozenset({"zero_", "fill_", "normal_", "uniform_", "random_", "exponential_"})
"""What a tensor held before is forgotten."""


def _is_new(node: Node) -> bool:
    """Whether an operation looks at the shape of its inputs only."""
    return node.op in _UNLESS_WRITTEN or node.op.startswith("new_") or node.op.endswith("_like")


def _outputs(graph: Graph, node: Node, known: Mapping[int, State]) -> Iterator[State | None]:
    """What each output sees."""
    if _is_new(node):
        return
    case = Case(graph, node, known)
    if node.op in _SPLITS:
        yield from sliding.pieces(case)
        return
    rule = _RULES.get(node.op) or _RULES.get(node.op.rstrip("_"))
    if rule is None and node.pointwise:
        rule = joining.pointwise
    answer = rule(case) if rule is not None and node.outputs else None
    if answer is None:
        answer = _bound(case)
    for index in node.outputs:
        shape = graph.values[index].shape
        if shape == case.out:
            yield answer
        else:
            yield replace(answer.lost(), dims=State.plain(shape))


def _bound(case: Case) -> State:
    """Everything that any input sees, for every element."""
    answer = State(dims=State.plain(case.out), guessed=True)
    for state in case.every:
        lost = state.lost()
        for axis, hull in lost.seen.items():
            answer = answer.also(axis, hull)
        answer = replace(answer, misaligned=answer.misaligned or state.misaligned)
    return answer


_SPLITS = frozenset(
    {"split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "unsafe_chunk"}
)

_RULES: dict[str, Callable[[Case], State | None]] = {
    "convolution": sliding.convolution,
    **{f"max_pool{d}d_with_indices": sliding.pool(d) for d in (2, 3)},
    **{f"{kind}_pool{d}d": sliding.pool(d) for kind in ("max", "avg") for d in (1, 2, 3)},
    **{f"_adaptive_avg_pool{d}d": sliding.adaptive(d) for d in (2, 3)},
    **{f"adaptive_avg_pool{d}d": sliding.adaptive(d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": sliding.adaptive(d) for d in (1, 2, 3)},
    **{f"upsample_nearest{d}d": sliding.upsample("nearest") for d in (1, 2, 3)},
    **{f"_upsample_nearest_exact{d}d": sliding.upsample("nearest-exact") for d in (1, 2, 3)},
    **{f"upsample_{kind}": sliding.upsample("linear") for kind in ("linear1d", "bilinear2d")},
    "upsample_trilinear3d": sliding.upsample("linear"),
    "upsample_bicubic2d": sliding.upsample("cubic"),
    "constant_pad_nd": sliding.pad("constant"),
    **{f"reflection_pad{d}d": sliding.pad("reflect") for d in (1, 2, 3)},
    **{f"replication_pad{d}d": sliding.pad("replicate") for d in (1, 2, 3)},
    "im2col": sliding.unfold,
    "slice": sliding.strided,
    "select": sliding.select,
    "roll": sliding.roll,
    "flip": sliding.flip,
    "max_unpool2d": sliding.unpool,
    "pixel_shuffle": sliding.shuffle(down=False),
    "pixel_unshuffle": sliding.shuffle(down=True),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std"), joining.reduce),
    **dict.fromkeys(("argmax", "prod", "logsumexp", "linalg_vector_norm", "norm"), joining.reduce),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), joining.softmax),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
        joining.batch_norm,
    ),
    "native_layer_norm": joining.coupled(joining.norm_dims),
    "_fused_rms_norm": joining.coupled(joining.norm_dims),
    "native_group_norm": joining.coupled(lambda _, rank: range(1, rank)),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), joining.view),
    **dict.fromkeys(("permute", "transpose", "t", "swapaxes"), joining.permute),
    "expand": joining.expand,
    "unsqueeze": joining.unsqueeze,
    "squeeze": joining.squeeze,
    "cat": joining.cat,
    "stack": joining.stack,
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), joining.matmul),
    "linear": joining.linear,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_fused_attention_overrideable",
            "scaled_dot_product_attention",
        ),
        joining.attention,
    ),
    "embedding": joining.embedding,
    "written": writing.written,
    "copy_": writing.copied,
    **dict.fromkeys(
        ("clone", "detach", "alias", "contiguous", "_to_copy", "native_dropout", "lift_fresh"),
        joining.first,
    ),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), joining.first),
    **dict.fromkeys(("prelu", "_prelu_kernel", "where", "masked_fill"), joining.pointwise),
}
