"""A block in which any activation of a network can be clicked to see its arithmetic. Room html.

Floor 1; may import floor 0, NumPy and this room. The network comes as plain arrays: what every
layer answered to one picture, and the weights that it answered with. The page adds the sums up
again in double precision and says by how much they miss what the network computed in single.

A unit has an address of its own on the page: `#trace=3:8,5,2` is layer 3 (from 0), channel 8,
row 5, column 2; `#trace=2/3:8,5,2` is the same in the page's second tracer.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from neocog.html.pictures import check_image
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from markupsafe import Markup
    from numpy.typing import NDArray

__all__ = ["FUNCTIONS", "Kind", "TracedField", "TracedLayer", "Tracer", "check_shapes", "fitted"]

Kind = Literal[
    "convolution",
    "transposed",
    "linear",
    "norm",
    "pointwise",
    "softmax",
    "max_pool",
    "avg_pool",
    "add",
    "multiply",
    "concat",
    "reshape",
    "other",
]
"""What a layer does. `transposed` is a transposed convolution; `softmax` goes over the channels;
`concat` joins channels; `reshape` keeps the order of the numbers; of `other` only the numbers are
shown."""

FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "softplus", "mish", "silu", "gelu"),
    *("gelu_tanh", "sigmoid", "hardsigmoid", "hardswish", "tanh", "exp", "abs", "square", "sqrt"),
    "identity",
)
"""Functions of one number that the page can compute itself."""

_DERIVED = ("reshape", "concat", "max_pool")
"""Kinds whose answer is made of numbers before it, bit by bit, so that it need not be stored."""
_EXACT = ("relu", "relu6", "identity", "abs")
"""Functions of which that is true as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedField:
    """What one unit sees of the picture, in pixels of the network's input: rows, then columns."""

    first: tuple[float, float]
    """Upper left corner of what unit (0, 0) sees; negative where that is padding."""
    jump: tuple[float, float]
    """Pixels between neighbours."""
    size: tuple[float, float]
    """Pixels that one unit sees."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TracedLayer:
    """One layer and what it answered. Numbers are float32; what a kind does not need is left out.

    Settings are pairs, rows first: the window of unit (y, x) begins at y × stride − padding.
    """

    name: str
    """As the network calls it."""
    kind: Kind
    """What it does."""
    shape: tuple[int, int, int]
    """C×H×W of its answer; a flat one is C×1×1."""
    values: NDArray[np.float32] | None
    """C×H×W. None: left out to save room; where that is exact, the page computes them itself."""
    inputs: tuple[int, ...]
    """Places of the layers that it reads, in the order in which it does; −1: the input."""
    kernel: tuple[int, int] = (1, 1)
    """Of convolutions and pools."""
    stride: tuple[int, int] = (1, 1)
    """Of convolutions and pools."""
    padding: tuple[int, int] = (0, 0)
    """Above and on the left."""
    padded_with: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    """What stands outside; pools ignore it."""
    dilation: tuple[int, int] = (1, 1)
    """Of convolutions and maximum pools."""
    groups: int = 1
    """Of convolutions."""
    adaptive: bool = False
    """A pool whose windows divide the map evenly; kernel, stride and padding do not count."""
    count_padding: bool = True
    """Whether an average also divides by what is padding."""
    weights: NDArray[np.float32] | None = None
    """Convolution: C×(input channels / groups)×kernel; transposed: input channels×(C / groups)×
    kernel; linear: C×(all numbers of the input); None: left out to save room."""
    bias: NDArray[np.float32] | None = None
    """C, or None where there is none."""
    mean: NDArray[np.float32] | None = None
    """Norms: what is subtracted; anything that broadcasts to C×H×W."""
    deviation: NDArray[np.float32] | None = None
    """Norms: what is divided by, √(variance + ε)."""
    scale: NDArray[np.float32] | None = None
    """Norms: γ; None: 1."""
    shift: NDArray[np.float32] | None = None
    """Norms: β; None: 0."""
    function: str = ""
    """Pointwise: one of `FUNCTIONS`; any other name is shown, and before and after with it."""
    slope: NDArray[np.float32] | None = None
    """`leaky_relu`: slope for negative numbers, one or C; `elu`, `celu`: α; `softplus`: β."""
    field: TracedField | None = None
    """What its units see; None: not known."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"expected one of {get_args(Kind)}, found {self.kind!r}")
        if min(self.shape) < 1:
            raise ValueError(f"{self.name}: expected C×H×W, found {self.shape}")
        if self.values is not None and self.values.shape != self.shape:
            raise ValueError(f"{self.name}: expected {self.shape}, found {self.values.shape}")
        if not self.inputs and self.kind != "other":
            raise ValueError(f"{self.name}: expected at least one input")
        if self.kind == "norm" and (self.mean is None) != (self.deviation is None):
            raise ValueError(f"{self.name}: expected mean and deviation, found one of them")
        for array in self._arrays().values():
            if array is not None and array.dtype != "float32":
                raise ValueError(f"{self.name}: expected float32, found {array.dtype}")

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return sum(array.nbytes for array in self._arrays().values() if array is not None)

    @property
    def derived(self) -> bool:
        """Whether the page gets the same numbers from the layers before, bit by bit."""
        exact = self.kind == "pointwise" and self.function in _EXACT
        return exact or self.kind in _DERIVED

    def _arrays(self) -> dict[str, NDArray[np.float32] | None]:
        names = ("values", "weights", "bias", "mean", "deviation", "scale", "shift", "slope")
        return {name: getattr(self, name) for name in names}

    def told(self) -> dict[str, Any]:
        """All of it for the page, numbers in base64."""
        names = ("kind", "shape", "inputs", "kernel", "stride", "padding", "dilation", "groups")
        said: dict[str, Any] = {"name": printable(self.name)}
        said |= {name: getattr(self, name) for name in names}
        said |= {"outside": self.padded_with, "adaptive": self.adaptive}
        said |= {"countPadding": self.count_padding, "function": printable(self.function)}
        said |= {name: _packed(array) for name, array in self._arrays().items()}
        if self.field is not None:
            said["field"] = [self.field.first, self.field.jump, self.field.size]
        return said


def _packed(array: NDArray[np.float32] | None) -> dict[str, Any] | None:
    """Shape and little-endian float32."""
    if array is None:
        return None
    data = base64.b64encode(array.astype("<f4").tobytes()).decode()
    return {"shape": array.shape, "data": data}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracer:
    """A network's answer to one picture, to be looked into."""

    tag: ClassVar[str] = "tracer"
    picture: str
    """A data URI from `data_uri`: what the network saw, in the form in which it saw it."""
    alt: str
    """What the picture shows."""
    values: NDArray[np.float32]
    """C×H×W: the picture's numbers as the first layer reads them."""
    layers: tuple[TracedLayer, ...]
    """In the order of running."""
    channels: tuple[str, ...] = ()
    """Names of the picture's channels."""
    labels: tuple[str, ...] = ()
    """Names of the last layer's channels: the classes."""
    start: tuple[int, int, int, int] | None = None
    """Layer, channel, row, column that is shown first; None: the last layer's largest."""
    text: str = ""
    """What stands here where scripts do not run, for example the sum of `start` in words."""

    def __post_init__(self) -> None:
        check_image(self.picture)
        if self.values.ndim != 3 or self.values.dtype != "float32":
            raise ValueError(f"expected C×H×W float32, found {self.values.shape}")
        if not self.layers:
            raise ValueError("expected at least one layer")
        for place, layer in enumerate(self.layers):
            if not all(-1 <= one < place for one in layer.inputs):
                raise ValueError(f"{layer.name}: expected inputs before {place}: {layer.inputs}")
            check_shapes(layer, [self._shape(one) for one in layer.inputs])
        if self.channels and len(self.channels) != len(self.values):
            raise ValueError(f"expected {len(self.values)} channels, found {len(self.channels)}")
        if self.labels and len(self.labels) != self.layers[-1].shape[0]:
            raise ValueError(
                f"expected {self.layers[-1].shape[0]} labels, found {len(self.labels)}"
            )
        if self.start is not None:
            at, *unit = self.start
            inside = 0 <= at < len(self.layers)
            sizes = self.layers[at].shape if inside else (0, 0, 0)
            if not all(0 <= one < size for one, size in zip(unit, sizes, strict=True)):
                raise ValueError(f"expected a unit to start with, found {self.start}")

    def _shape(self, place: int) -> tuple[int, ...]:
        return self.values.shape if place < 0 else self.layers[place].shape

    @property
    def data(self) -> Markup:
        """Everything as JSON, in ASCII and without a sign that means something in HTML."""
        from markupsafe import Markup

        told = {
            "input": _packed(self.values),
            "channels": [printable(name) for name in self.channels],
            "labels": [printable(name) for name in self.labels],
            "start": self.start,
            "layers": [layer.told() for layer in self.layers],
        }
        text = json.dumps(told, separators=(",", ":"))
        for sign in "<>&":
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        return Markup(text)


def check_shapes(layer: TracedLayer, shapes: Sequence[tuple[int, ...]]) -> None:
    """Shapes of a layer against those of what it reads.

    Raises:
        ValueError: they do not fit, with both.
    """
    channels = layer.shape[0]
    first = shapes[0] if shapes else (0, 0, 0)
    expected: tuple[int, ...] | None = None
    fits = True
    if layer.kind in ("convolution", "transposed"):
        ends = (channels, first[0]) if layer.kind == "convolution" else (first[0], channels)
        expected = (ends[0], ends[1] // layer.groups, *layer.kernel)
        fits = channels % layer.groups == 0 and first[0] % layer.groups == 0
    elif layer.kind == "linear":
        expected = (channels, math.prod(first))
        fits = layer.shape[1:] == (1, 1)
    elif layer.kind in ("norm", "pointwise", "softmax"):
        fits = first == layer.shape
    elif layer.kind in ("max_pool", "avg_pool"):
        fits = first[0] == channels
    elif layer.kind in ("add", "multiply"):
        fits = all(_broadcasts(shape, layer.shape) for shape in shapes)
    elif layer.kind == "concat":
        fits = sum(shape[0] for shape in shapes) == channels
    elif layer.kind == "reshape":
        fits = math.prod(first) == math.prod(layer.shape)
    if not fits:
        raise ValueError(f"{layer.name}: {layer.kind} makes {layer.shape} of {list(shapes)}")
    if layer.weights is not None and layer.weights.shape != expected:
        raise ValueError(f"{layer.name}: expected {expected}, found {layer.weights.shape}")
    if layer.bias is not None and layer.bias.shape != (channels,):
        raise ValueError(f"{layer.name}: expected {(channels,)}, found {layer.bias.shape}")
    for array in (layer.mean, layer.deviation, layer.scale, layer.shift):
        if array is not None and not _broadcasts(array.shape, layer.shape):
            raise ValueError(f"{layer.name}: expected what fits {layer.shape}: {array.shape}")


def _broadcasts(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether one array goes into the other, axis by axis."""
    return len(shape) == len(whole) and all(
        one in (1, size) for one, size in zip(shape, whole, strict=True)
    )


def fitted(layers: Sequence[TracedLayer], budget: int) -> tuple[TracedLayer, ...]:
    """The layers with so much left out that their numbers take no more than so many bytes.

    First goes what the page can compute without loss, then the largest kernels, and only then what
    large layers answered, which the page then says. In the file a byte takes 4/3 bytes.

    Args:
        layers: in the order of running.
        budget: bytes of numbers.
    """
    kept = [replace(layer, values=None) if layer.derived else layer for layer in layers]
    spent = sum(layer.size for layer in kept)

    def sizes(name: str) -> list[tuple[int, int]]:
        arrays = ((getattr(layer, name), at) for at, layer in enumerate(kept))
        return sorted(((one.nbytes, at) for one, at in arrays if one is not None), reverse=True)

    for size, at in sizes("weights"):
        if spent > budget:
            kept[at], spent = replace(kept[at], weights=None), spent - size
    for size, at in sizes("values"):
        if spent > budget:
            kept[at], spent = replace(kept[at], values=None), spent - size
    return tuple(kept)
