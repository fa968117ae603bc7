"""A recorded pass as a block of a page in which every number can be clicked. Floor 5, room verbs.

Imports explain (the numbers), html (the block) and below. An operation that the page cannot compute
is there with its numbers and with what it reads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog import html
from neocog.analysis.field import fields
from neocog.analysis.graph import Ref
from neocog.errors import ConfigError
from neocog.explain.look.maps import feature_maps
from neocog.explain.recording import record
from neocog.explain.unit.telling import told
from neocog.explain.unit.trace import trace_unit
from neocog.html.tracer import FUNCTIONS, check_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Node
    from neocog.explain.recording import Recording
    from neocog.explain.unit.trace import UnitTrace

    Array = NDArray[np.float32]

__all__ = ["clickable", "traced"]

Shape = tuple[int, ...]


def clickable(
    network: nn.Module,
    x: Tensor,
    pixels: NDArray[np.uint8],
    *,
    name: str,
    labels: Sequence[str],
    budget: int,
) -> html.Tracer:
    """The block for one picture; it begins with the strongest number of the first layer's map.

    Args:
        network: of pictures; it is not changed.
        x: 1×C×H×W, as the network takes it.
        pixels: H×W×C, the same as it is looked at.
        name: what the picture is called.
        labels: names of the answer's channels.
        budget: bytes of numbers.

    Raises:
        TraceError: the network does not take the picture.
        NeocogError: it has no maps, or answers with NaN.
    """
    first = feature_maps(network, x[0])[0]
    channel, row, column = np.unravel_index(int(first.values.argmax()), first.values.shape)
    recording = record(network, x)
    return traced(
        recording,
        picture=html.data_uri(pixels),
        alt=f"{name}, as the network saw it",
        budget=budget,
        labels=labels,
        start=trace_unit(recording, first.layer, int(channel), (int(row), int(column))),
    )


def traced(
    recording: Recording,
    *,
    picture: str,
    alt: str,
    budget: int,
    channels: Sequence[str] = (),
    labels: Sequence[str] = (),
    start: UnitTrace | None = None,
) -> html.Tracer:
    """Every operation between picture and answer, with as many numbers as there is room for.

    Args:
        recording: a pass of a network of pictures 1×C×H×W, or signals 1×C×L, which lie as 1×L.
        picture: a data URI of what the network saw.
        alt: what it shows.
        budget: bytes of numbers; of small networks that is all of them.
        channels: names of the picture's channels.
        labels: names of the answer's.
        start: the number that is shown first, and in words where scripts do not run.

    Raises:
        ConfigError: volumes, several pictures at once, or an answer that is not computed from it.
    """
    shape = tuple(recording.input.shape)
    if len(shape) not in (2, 3, 4) or shape[0] != 1:
        raise ConfigError(
            f"expected one picture 1×C×H×W, found {'×'.join(map(str, shape))}",
            "volumes are traced on the terminal",
        )
    build = _Builder(recording)
    places = build.all()
    last = places.get(recording.graph.outputs[0], -1)
    if last < 0:
        raise ConfigError(
            "expected an answer computed from the picture, found none", "there is nothing to trace"
        )
    layers = build.layers[: last + 1]
    named = tuple(labels) if len(labels) == layers[-1].shape[0] else ()
    first = None
    if start is not None and places.get(start.unit.value, last + 1) <= last:
        at = places[start.unit.value]
        flat = np.ravel_multi_index(start.unit.index, build.shape(start.unit.value))
        if at >= 0:
            c, y, x = (int(one) for one in np.unravel_index(int(flat), layers[at].shape))
            first = (at, c, y, x)
    return html.Tracer(
        picture=picture,
        alt=alt,
        values=build.array(recording.graph.inputs[0]),
        layers=html.fitted(layers, budget),
        channels=tuple(channels),
        labels=named,
        start=first,
        text=told(start) if start is not None else "",
    )


def _solid(shape: Shape) -> tuple[int, int, int]:
    """A shape as C×H×W, its numbers in the same order; the batch of one is left out."""
    inner = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    if len(inner) <= 1:
        return (math.prod(inner), 1, 1)
    if len(inner) == 2:
        return (inner[0], 1, inner[1])
    return (inner[0], math.prod(inner[1:-1]), inner[-1])


_SAME_ORDER = frozenset(
    {"view", "_unsafe_view", "unsqueeze", "squeeze", "alias", "detach", "clone", "contiguous"}
)
"""Operations that keep the numbers in their order."""

_FUNCTIONS = frozenset(FUNCTIONS) - {"leaky_relu", "elu", "celu", "selu", "softplus"}
"""Functions that have the page's name in PyTorch too, and no setting."""


class _Builder:
    """Layers of the page from the nodes of a graph."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.graph = recording.graph
        self.layers: list[html.TracedLayer] = []
        # Value → its layer; −1 is the picture.
        self.places: dict[int, int] = {self.graph.inputs[0]: -1}
        self._fields: Fields = fields(self.graph)
        self._names = {call.index: name for name, call in recording.layers().items()}

    def all(self) -> dict[int, int]:
        """Build all of them: value → layer."""
        made = [node for node in self.graph.nodes if self._is_shown(node)]
        counts = {call: sum(node.call == call for node in made) for call in self._names}
        for node in made:
            for value in node.outputs if node.view else node.outputs[:1]:
                name = self._names[node.call]
                if counts[node.call] > 1 or not name:
                    name = f"{name} {node.op}".strip()
                layer = self._layer(node, value, name)
                self.places[value] = len(self.layers)
                self.layers.append(layer)
        return self.places

    def _is_shown(self, node: Node) -> bool:
        """Whether it makes numbers that depend on the picture."""
        return bool(node.outputs) and all(
            self._fields.reached(value)
            and "float" in self.graph.values[value].dtype
            and self.graph.values[value].elements
            for value in node.outputs[:1]
        )

    def shape(self, value: int) -> Shape:
        """Of a value."""
        return self.graph.values[value].shape

    def array(self, value: int) -> Array:
        """A value's numbers, C×H×W."""
        found = self.recording.tensors[value].reshape(_solid(self.shape(value)))
        return found.float().contiguous().numpy()

    def weights(self, value: int) -> Array | None:
        """A weight's numbers, as they are; None where there is none."""
        if value < 0:
            return None
        return self.recording.tensors[value].float().contiguous().numpy()

    def source(self, node: Node, position: int) -> int:
        """The value of an argument; −1 where it is no tensor."""
        argument = node.args[position] if position < len(node.args) else None
        return argument.value if isinstance(argument, Ref) else -1

    def _layer(self, node: Node, value: int, name: str) -> html.TracedLayer:
        read = [one for one in node.inputs if one in self.places]
        common: dict[str, Any] = {
            "name": name,
            "shape": _solid(self.shape(value)),
            "values": self.array(value),
            "inputs": tuple(self.places[one] for one in read),
            "field": self._field(value),
        }
        rule = _RULES.get(node.op.rstrip("_"), _by_kind)
        for said in (rule(self, node, read), {"kind": "other"}):
            if said is not None:
                try:
                    layer = html.TracedLayer(**common, **said)
                    check_shapes(layer, [self._solid_of(one) for one in read])
                except ValueError:  # a case that the page does not know, such as another axis
                    continue
                return layer
        raise AssertionError(name)

    def _solid_of(self, value: int) -> Shape:
        return _solid(self.shape(value))

    def _field(self, value: int) -> html.TracedField | None:
        """What its units see; the whole picture for those that see everything."""
        sizes = self._fields.sizes
        if len(sizes) != 2:
            return None
        if self._fields.sees_everything(value):
            return html.TracedField(first=(0, 0), jump=(0, 0), size=(sizes[0], sizes[1]))
        found = self._fields.of(value)
        shape = self.shape(value)
        if found is None or len(shape) != 4 or shape[0] != 1:
            return None
        ends = [(shape[2] - 1, 0), (0, shape[3] - 1)]
        try:  # rows and columns lie where a map has them
            for end in ends:
                if self._fields.element(value, (0, 0, *end)) != self._fields.unit(value, end):
                    return None
        except IndexError:
            return None
        rows, columns = found
        return html.TracedField(
            first=(
                float(rows.offset) - (rows.size - 1) / 2,
                float(columns.offset) - (columns.size - 1) / 2,
            ),
            jump=(float(rows.jump), float(columns.jump)),
            size=(rows.size, columns.size),
        )


def _pair(numbers: Any, usual: int) -> tuple[int, int]:
    """A setting for rows and columns; of signals there is one, for columns."""
    given = [numbers] if isinstance(numbers, int) else list(numbers)
    if not given:
        return usual, usual
    if len(given) == 1:
        return (given[0], given[0]) if isinstance(numbers, int) else (usual, given[0])
    return given[0], given[1]


def _given(node: Node, position: int, otherwise: Any) -> Any:
    return node.args[position] if position < len(node.args) else otherwise


Said = dict[str, Any]


def _convolution(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    weights = build.weights(build.source(node, 1))
    if weights is None or build.source(node, 1) in build.places or weights.ndim > 4:
        return None
    if weights.ndim == 3:
        weights = weights[:, :, None]
    return {
        "kind": "transposed" if _given(node, 6, False) else "convolution",
        "kernel": (weights.shape[2], weights.shape[3]),
        "stride": _pair(node.args[3], 1),
        "padding": _pair(node.args[4], 0),
        "dilation": _pair(node.args[5], 1),
        "groups": node.args[8],
        "weights": weights,
        "bias": build.weights(build.source(node, 2)),
    }


def _linear(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    first = 1 if node.op == "addmm" else 0
    left, right = build.source(node, first), build.source(node, first + 1)
    plain = all(node.kwargs.get(name, 1) == 1 for name in ("alpha", "beta"))
    if left not in build.places or right in build.places or not plain:
        return None
    weights = build.weights(right)
    if weights is None or build.shape(left)[0] != 1:
        return None
    bias = build.weights(build.source(node, 0)) if node.op == "addmm" else None
    return {"kind": "linear", "weights": np.ascontiguousarray(weights.T), "bias": bias}


def _batch_norm(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    def of(value: int) -> Array | None:
        found = build.weights(value)
        return None if found is None else found.reshape(-1, 1, 1)

    if node.args[5]:
        numbers = build.array(build.source(node, 0)).astype(np.float64)
        mean, var = numbers.mean((1, 2), keepdims=True), numbers.var((1, 2), keepdims=True)
    else:
        learnt = of(build.source(node, 3)), of(build.source(node, 4))
        if learnt[0] is None or learnt[1] is None:
            return None
        mean, var = learnt[0].astype(np.float64), learnt[1].astype(np.float64)
    return _normed(mean, var + float(node.args[7]), *(of(build.source(node, at)) for at in (1, 2)))


def _normed(
    mean: NDArray[np.float64], var: NDArray[np.float64], scale: Array | None, shift: Array | None
) -> Said:
    return {
        "kind": "norm",
        "mean": mean.astype(np.float32),
        "deviation": np.sqrt(var).astype(np.float32),
        "scale": scale,
        "shift": shift,
    }


def _layer_norm(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    source = build.source(node, 0)
    numbers = build.recording.tensors[source].double().numpy()
    axes = tuple(range(numbers.ndim - len(node.args[1]), numbers.ndim))
    mean, var = numbers.mean(axes, keepdims=True), numbers.var(axes, keepdims=True)

    def of(value: int) -> Array | None:
        found = build.weights(value)
        if found is None:
            return None
        return found.reshape(_solid((1,) * (numbers.ndim - found.ndim) + found.shape))

    solid = _solid(mean.shape)
    epsilon = float(node.args[4])
    affine = (of(build.source(node, at)) for at in (2, 3))
    return _normed(mean.reshape(solid), var.reshape(solid) + epsilon, *affine)


def _group_norm(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    numbers = build.array(build.source(node, 0)).astype(np.float64)
    groups, epsilon = int(node.args[6]), float(node.args[7])
    whole = numbers.reshape(groups, -1)
    each = len(numbers) // groups
    mean, var = (
        np.repeat(one, each).reshape(-1, 1, 1) for one in (whole.mean(1), whole.var(1) + epsilon)
    )
    affine = (build.weights(build.source(node, at)) for at in (1, 2))
    return _normed(mean, var, *(None if one is None else one.reshape(-1, 1, 1) for one in affine))


def _pool(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    most = node.op.startswith("max")
    kernel = _pair(node.args[1], 1)
    said: Said = {
        "kind": "max_pool" if most else "avg_pool",
        "kernel": kernel,
        "stride": _pair(_given(node, 2, ()) or list(kernel), 1),
        "padding": _pair(_given(node, 3, 0), 0),
    }
    if most:
        return said | {"dilation": _pair(_given(node, 4, 1), 1)}
    if _given(node, 6, None) is not None:
        return None
    return said | {"count_padding": bool(_given(node, 5, True))}


def _adaptive(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    return {"kind": "max_pool" if "max" in node.op else "avg_pool", "adaptive": True}


def _mean(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    """A mean over all positions is a pool with one window."""
    shape = build.shape(read[0])
    axes = sorted(axis % len(shape) for axis in _given(node, 1, None) or ())
    whole = len(shape) == 4 and shape[0] == 1 and axes == [2, 3]
    return {"kind": "avg_pool", "adaptive": True} if whole else None


def _join(kind: str) -> Callable[[_Builder, Node, Sequence[int]], Said | None]:
    def rule(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
        both = len(read) == 2 and build.source(node, 1) >= 0
        if both and float(node.kwargs.get("alpha", 1)) == 1:
            return {"kind": kind}
        return _by_kind(build, node, read)

    return rule


def _concat(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    first = build.shape(node.outputs[0])
    axis = int(_given(node, 1, 0)) % len(first)
    if axis != 1 or first[0] != 1 or len(read) != len(node.inputs):
        return None
    return {"kind": "concat"}


def _softmax(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    shape = build.shape(read[0])
    along = int(node.args[1]) % len(shape)
    return {"kind": "softmax"} if shape[0] == 1 and along == 1 else None


def _function(node: Node) -> tuple[str, float | None]:
    """The page's name of a function of one number, and its setting."""
    op = node.op.rstrip("_")
    if op == "gelu" and node.kwargs.get("approximate", "none") == "tanh":
        return "gelu_tanh", None
    if op == "hardtanh" and tuple(node.args[1:3]) == (0, 6):
        return "relu6", None
    if op == "pow" and node.args[1] == 2:
        return "square", None
    if op == "leaky_relu":
        return op, float(_given(node, 1, 0.01))
    if op == "elu" and all(one == 1 for one in node.args[2:]):
        return op, float(_given(node, 1, 1))
    if op == "softplus":
        return op, float(_given(node, 1, 1))
    # What the page does not know by this name, it shows as before and after.
    return (op if op in _FUNCTIONS else f"{op}()"), None


def _by_kind(build: _Builder, node: Node, read: Sequence[int]) -> Said | None:
    """What is told from the kind of operation alone."""
    op = node.op.rstrip("_")
    whole = op == "slice" and build.shape(read[0]) == build.shape(node.outputs[0])
    if whole or (op in _SAME_ORDER and len(node.outputs) == 1):
        return {"kind": "reshape"}
    if not node.pointwise or len(read) != 1:
        return None
    if op == "_prelu_kernel":
        slope = build.recording.tensors[build.source(node, 1)].float().contiguous().numpy()
        return {"kind": "pointwise", "function": "leaky_relu", "slope": slope.ravel()}
    name, setting = _function(node)
    slopes = None if setting is None else np.array([setting], np.float32)
    return {"kind": "pointwise", "function": name, "slope": slopes}


_RULES: Mapping[str, Callable[[_Builder, Node, Sequence[int]], Said | None]] = {
    "convolution": _convolution,
    "addmm": _linear,
    "mm": _linear,
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "max_pool2d_with_indices": _pool,
    "avg_pool2d": _pool,
    "_adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "mean": _mean,
    "add": _join("add"),
    "mul": _join("multiply"),
    "cat": _concat,
    "_softmax": _softmax,
}
