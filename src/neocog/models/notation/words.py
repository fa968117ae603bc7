"""The words of the notation and the values that each takes. Floor 2, room models; imports errors
and the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.errors import near
from neocog.models.notation.grammar import cut, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neocog.errors import ConfigError
    from neocog.models.notation.grammar import Layer, Place, Value

__all__ = ["ACTIVATIONS", "WORDS", "Bound", "Padding", "Parameter", "Setting", "Word", "bind"]

MODES = ("zeros", "reflect", "replicate", "circular")
"""What stands outside the picture."""


@dataclass(frozen=True, slots=True)
class Padding:
    """What is put around a picture."""

    amount: tuple[int, ...] | None
    """On either hand of each axis, or one number for all; None: as `same` wants it, half of
    dilation · (kernel − 1) on either hand, so that ⌈n / stride⌉ steps come out."""
    mode: str = "zeros"
    """One of `MODES`."""


Setting = bool | int | float | str | tuple[int, ...] | Padding | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value of a layer."""

    name: str
    """As it is written before `=`."""
    kind: str
    """What it takes: a key of `_KINDS`, or texts joined by `|`."""
    default: Setting = None
    """Its value when nobody sets it; None: another rule decides."""
    needed: bool = False
    """Whether it must be set."""
    named: bool = False
    """Whether it is set by its name only."""


@dataclass(frozen=True, slots=True)
class Word:
    """One layer of the notation."""

    summary: str
    """What it does, for people."""
    parameters: tuple[Parameter, ...] = ()
    """In the order in which values without a name are taken."""
    activation: bool = False
    """Whether it answers each number by itself."""

    def usage(self, word: str) -> str:
        """How it is written.

        >>> WORDS["avgpool"].usage("avgpool")
        'avgpool KERNEL [stride=KERNEL] [pad=0] [ceil=no]'
        """
        parts = [
            parameter.name.upper()
            if parameter.needed
            else f"[{parameter.name}={_written(parameter)}]"
            for parameter in self.parameters
        ]
        return " ".join([word, *parts])


@dataclass(frozen=True, slots=True)
class Bound:
    """The values of one layer, checked one by one; `places` knows those that were written."""

    values: Mapping[str, Setting]
    """By name; all of them."""
    places: Mapping[str, Place]
    """By name; those that were written."""

    def count(self, name: str) -> int:
        """A whole number."""
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def axes(self, name: str) -> tuple[int, ...]:
        """One number, or one an axis."""
        value = self.values[name]
        assert isinstance(value, tuple)
        return value

    def padding(self) -> Padding:
        """What is put around the picture."""
        value = self.values["pad"]
        assert isinstance(value, Padding)
        return value


def bind(text: str, layer: Layer) -> Bound:
    """The values of a layer.

    Args:
        text: the line that it stands in, for errors.
        layer: as it was read.

    Raises:
        ConfigError: an unknown word or name, a value of the wrong kind, too many or too few; with
            the place and the remedy.
    """
    word = WORDS.get(layer.word.text)
    if word is None:
        raise wrong(
            text,
            layer.word.place,
            f"no layer is called {cut(layer.word.text)!r}",
            _meant(layer.word.text),
        )
    known = {parameter.name: parameter for parameter in word.parameters}
    values: dict[str, Setting] = {name: one.default for name, one in known.items()}
    places: dict[str, Place] = {}
    usage = word.usage(layer.word.text)
    free = iter([parameter for parameter in word.parameters if not parameter.named])
    for value in layer.values:
        flag = known.get(value.text)
        if flag is not None and flag.kind == "yes|no":
            values[flag.name], places[flag.name] = True, value.place
            continue
        parameter = next(free, None)
        if parameter is None or not _is_next(layer, parameter, value):
            raise _out_of_place(text, layer, word, parameter, value)
        values[parameter.name] = _read(text, parameter, value, usage)
        places[parameter.name] = value.place
    for name, value in layer.named:
        if name.text not in known:
            raise wrong(
                text,
                name.place,
                f"{layer.word.text} has no value called {cut(name.text)!r}",
                near(name.text, known) if known else f"{layer.word.text} takes no values",
            )
        if name.text in places:
            raise wrong(text, name.place, f"{name.text} is set twice", "leave one of the two out")
        values[name.text] = _read(text, known[name.text], value, usage)
        places[name.text] = value.place
    for parameter in word.parameters:
        if parameter.needed and parameter.name not in places:
            raise wrong(
                text,
                layer.place,
                f"{layer.word.text} needs {parameter.name.upper()}, {_KINDS[parameter.kind][1]}",
                f"it is written {usage}",
            )
    return Bound(values=values, places=places)


def _is_next(layer: Layer, parameter: Parameter, value: Value) -> bool:
    """Whether a value without a name stands before named ones and is no forgotten layer: `tanh` is
    a value of gelu and a layer elsewhere."""
    if layer.named and value.place.start > layer.named[0][0].place.start:
        return False
    lower = value.text.lower()
    return lower not in WORDS or lower in parameter.kind.split("|")


def _out_of_place(
    text: str, layer: Layer, word: Word, parameter: Parameter | None, value: Value
) -> ConfigError:
    """An error about a value without a name that cannot stand where it does.

    Args:
        text: the line.
        layer: that it stands in.
        word: what the layer is.
        parameter: that it would be a value of; None: it is one too many.
        value: as written.
    """
    name, found = layer.word.text, cut(value.text)
    by_name = any(one.named for one in word.parameters)
    if value.text.lower() in WORDS:
        message = f"{found} is a layer, and here it stands among the values of {name}"
        hint = f"a ; is missing before {found}"
    elif parameter is not None:
        message = f"{found!r} stands behind a named value, and which one is meant is open"
        hint = "values without a name come first, or write NAME="
    elif by_name:
        before = [one.text for one in layer.values if one.place.start < value.place.start]
        written = " ".join([name, *before])
        message = f"{name} knows its channels; what else it takes is set by name"
        hint = f"write {written}, or {written} eps=1e-3"
    else:
        message = f"{name} takes {_number(len(word.parameters))}, and this is one more"
        hint = f"layers are separated by ;, and it is written {word.usage(name)}"
    return wrong(text, value.place, message, hint)


def _read(text: str, parameter: Parameter, value: Value, usage: str) -> Setting:
    """One value of the right kind."""
    if parameter.kind not in _KINDS:
        options = parameter.kind.split("|")
        if value.text in options:
            return value.text
        expected, hint = f"one of {', '.join(options)}", near(value.text, options)
    else:
        read, expected = _KINDS[parameter.kind]
        try:
            return read(value.text)
        except ValueError:
            hint = f"it is written {usage}"
    raise wrong(
        text,
        value.place,
        f"{parameter.name} is {expected}, got {cut(value.text)!r}",
        hint,
    )


def _meant(word: str) -> str:
    """What somebody may have meant by a word that there is not."""
    elsewhere = _ELSEWHERE.get(word.lower())
    if elsewhere:
        return elsewhere
    lower = word.lower()
    return f"write {lower}" if lower in WORDS else near(lower, [*WORDS, "res", "cat", "add"])


def _number(count: int) -> str:
    return {0: "no values", 1: "one value"}.get(count, f"{count} values at most")


def _written(parameter: Parameter) -> str:
    """A default as it is written."""
    default = parameter.default
    if "|" in parameter.kind and not isinstance(default, bool):
        return parameter.kind
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, Padding):
        return "0"
    if isinstance(default, tuple):
        return "x".join(map(str, default))
    if default is not None:
        return f"{default:g}" if isinstance(default, float) else str(default)
    return "KERNEL" if parameter.name == "stride" else "OUTPUTS"


def _whole(text: str) -> int:
    """A whole number of at least 1."""
    number = _natural(text)
    if number == 0:
        raise ValueError(text)
    return number


def _natural(text: str) -> int:
    """A whole number of at least 0, below 10⁹."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(text)
    return int(text)


def _sides(text: str, number: Callable[[str], int] = _whole) -> tuple[int, ...]:
    """`3`, `3x5` or `3x5x7`."""
    parts = text.replace("×", "x").split("x", 3)
    if len(parts) > 3:
        raise ValueError(text)
    return tuple(map(number, parts))


def _offsets(text: str) -> tuple[int, ...]:
    return _sides(text, _natural)


def _padding(text: str) -> Padding:
    """`1`, `2x1`, `same`, `valid`, each with a mode or without."""
    amount, _, mode = text.partition(":")
    mode = mode or "zeros"
    if mode not in MODES:
        raise ValueError(text)
    if amount in ("same", "valid"):
        return Padding(None if amount == "same" else (0,), mode)
    return Padding(_offsets(amount), mode)


def _flag(text: str) -> bool:
    if text not in ("yes", "no", "true", "false"):
        raise ValueError(text)
    return text in ("yes", "true")


def _real(text: str) -> float:
    number = float(text) if len(text) < 40 and text.isascii() else float("nan")
    if not abs(number) < 1e30:
        raise ValueError(text)
    return number


def _positive(text: str) -> float:
    number = _real(text)
    if number <= 0:
        raise ValueError(text)
    return number


def _share(text: str) -> float:
    number = _real(text)
    if not 0 <= number < 1:
        raise ValueError(text)
    return number


def _groups(text: str) -> int | str:
    return text if text == "depthwise" else _whole(text)


_KINDS: dict[str, tuple[Callable[[str], Setting], str]] = {
    "count": (_whole, "a whole number from 1 on"),
    "sides": (_sides, "a whole number from 1 on, or one an axis such as 3x5"),
    "offsets": (_offsets, "a whole number, or one an axis such as 1x0"),
    "padding": (
        _padding,
        f"a number, one an axis such as 2x1, same or valid, and may end in :{'|:'.join(MODES)}",
    ),
    "yes|no": (_flag, "yes or no"),
    "number": (_real, "a number"),
    "positive": (_positive, "a number above 0"),
    "share": (_share, "a number in [0, 1)"),
    "groups": (_groups, "a whole number from 1 on, or depthwise"),
}

_NONE = Padding((0,))
_OUT = Parameter("out", "count", needed=True)
_KERNEL = Parameter("kernel", "sides", needed=True)
_STRIDE = Parameter("stride", "sides", (1,))
_DILATION = Parameter("dilation", "sides", (1,))
_PAD = Parameter("pad", "padding", _NONE)
_GROUPS = Parameter("groups", "groups", 1)
_BIAS = Parameter("bias", "yes|no", True)
_CEIL = Parameter("ceil", "yes|no", False)
_POOL_STRIDE = Parameter("stride", "sides")
_EPS = Parameter("eps", "positive", 1e-5, named=True)
_AFFINE = Parameter("affine", "yes|no", True, named=True)
_MAXPOOL = (_KERNEL, _POOL_STRIDE, _PAD, _DILATION, _CEIL)


def _activation(summary: str, *parameters: Parameter) -> Word:
    return Word(summary, parameters, activation=True)


ACTIVATIONS: dict[str, Word] = {
    "relu": _activation("max(x, 0)"),
    "leaky_relu": _activation("x, below 0 slope · x", Parameter("slope", "number", 0.01)),
    "prelu": _activation(
        "leaky_relu whose slope is learnt: one, or each channel's own",
        Parameter("channels", "yes|no", False),
        Parameter("slope", "number", 0.25),
    ),
    "relu6": _activation("min(max(x, 0), 6)"),
    "elu": _activation("x, below 0 alpha · (eˣ − 1)", Parameter("alpha", "positive", 1.0)),
    "celu": _activation(
        "x, below 0 alpha · (e^(x / alpha) − 1)", Parameter("alpha", "positive", 1.0)
    ),
    "selu": _activation("elu, scaled so that mean 0 and variance 1 keep themselves"),
    "gelu": _activation(
        "x · Φ(x), or its formula with tanh", Parameter("approximate", "none|tanh", "none")
    ),
    "silu": _activation("x · sigmoid(x)"),
    "swish": _activation("silu by its other name"),
    "mish": _activation("x · tanh(softplus(x))"),
    "tanh": _activation("hyperbolic tangent"),
    "sigmoid": _activation("1 / (1 + e⁻ˣ)"),
    "softplus": _activation("log(1 + e^(beta · x)) / beta", Parameter("beta", "positive", 1.0)),
    "softsign": _activation("x / (1 + |x|)"),
    "hardtanh": _activation("x, at most 1, at least −1"),
    "hardsigmoid": _activation("x / 6 + 1/2, at most 1, at least 0"),
    "hardswish": _activation("x · hardsigmoid(x)"),
}
"""Words that answer each number by itself."""

WORDS: dict[str, Word] = {
    "conv": Word(
        "convolution; pad=same keeps the size (⌈n / stride⌉), without pad the edges are lost; "
        "groups=depthwise: kernels a channel",
        (_OUT, _KERNEL, _STRIDE, _PAD, _DILATION, _GROUPS, _BIAS),
    ),
    "convt": Word(
        "transposed convolution; pad=same: n · stride",
        (
            *(_OUT, _KERNEL, _STRIDE, _PAD, Parameter("output_padding", "offsets", (0,))),
            *(_GROUPS, _BIAS, _DILATION),
        ),
    ),
    "pool": Word("maxpool by its short name", _MAXPOOL),
    "maxpool": Word("the largest number of each window", _MAXPOOL),
    "avgpool": Word(
        "the mean of each window, zeros around the picture included",
        (_KERNEL, _POOL_STRIDE, _PAD, _CEIL),
    ),
    "gap": Word("global average pooling: the mean of each channel"),
    "gmp": Word("global max pooling: the largest number of each channel"),
    "adaptive": Word(
        "pooling to a size",
        (Parameter("size", "sides", needed=True), Parameter("mode", "avg|max", "avg")),
    ),
    "up": Word(
        "N times as large",
        (Parameter("n", "sides", needed=True), Parameter("mode", "nearest|bilinear", "nearest")),
    ),
    "linear": Word(
        "every output sees every number (flattens by itself); at the end OUT is known",
        (Parameter("out", "count"), _BIAS),
    ),
    "flatten": Word("a picture as a row of numbers"),
    "identity": Word("nothing: a branch that is left as it is"),
    "dropout": Word("in training, a share p of the numbers is 0", (Parameter("p", "share", 0.5),)),
    "dropout2d": Word(
        "in training, a share p of the channels is 0", (Parameter("p", "share", 0.5),)
    ),
    "bn": Word("batch norm", (_EPS, Parameter("momentum", "share", 0.1, named=True), _AFFINE)),
    "gn": Word("group norm", (Parameter("groups", "count", needed=True), _EPS, _AFFINE)),
    "ln": Word("layer norm over all channels and places of a sample", (_EPS, _AFFINE)),
    "in": Word("instance norm", (_EPS, Parameter("affine", "yes|no", False, named=True))),
    "lrn": Word(
        "local response norm across SIZE channels",
        (
            *(Parameter("size", "count", 5), Parameter("alpha", "positive", 1e-4)),
            *(Parameter("beta", "positive", 0.75), Parameter("k", "positive", 1.0)),
        ),
    ),
    "se": Word(
        "squeeze and excitation: channels weigh one another, through a layer r times as narrow",
        (Parameter("r", "count", 16),),
    ),
    "shuffle": Word(
        "the channels of groups, taken in turns", (Parameter("groups", "count", needed=True),)
    ),
    **ACTIVATIONS,
}
"""Every layer of the notation."""

_CONV, _SAME = "write conv OUT KERNEL: the input decides how many axes", "did you mean {}?"
_ELSEWHERE = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _CONV),
    **dict.fromkeys(("dense", "fc", "fully_connected"), _SAME.format("'linear'")),
    **dict.fromkeys(("batchnorm", "batch_norm", "batchnorm2d", "norm"), _SAME.format("'bn'")),
    **dict.fromkeys(("groupnorm", "group_norm"), _SAME.format("'gn'")),
    **dict.fromkeys(("layernorm", "layer_norm"), _SAME.format("'ln'")),
    **dict.fromkeys(("instancenorm", "instance_norm"), _SAME.format("'in'")),
    **dict.fromkeys(("maxpool2d", "max_pool", "pooling"), _SAME.format("'pool'")),
    **dict.fromkeys(("avgpool2d", "avg_pool"), _SAME.format("'avgpool'")),
    **dict.fromkeys(("globalavgpool", "global_avg_pool"), _SAME.format("'gap'")),
    **dict.fromkeys(("deconv", "upconv"), _SAME.format("'convt'")),
    **dict.fromkeys(("residual", "shortcut"), "write res( … ), or res( … | shortcut )"),
    **dict.fromkeys(("concat", "concatenate"), "write cat( … | … )"),
    **dict.fromkeys(
        ("softmax", "log_softmax", "logsoftmax"),
        "leave it out: the loss has it, and so have answers",
    ),
}
"""Words of other places, and what is written here."""
