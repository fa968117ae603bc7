"""What comes out of one layer. Floor 2, room models; imports floor 0 only.

A shape is that of one sample without the batch: C×H×W for a picture with two axes, C×L with one,
C×D×H×W with three, and one number where the layer before left a row of numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog.geometry import noun
from neocog.models.notation.grammar import wrong
from neocog.models.notation.words import ACTIVATIONS, Padding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neocog.errors import ConfigError
    from neocog.models.notation.grammar import Layer
    from neocog.models.notation.words import Bound

__all__ = ["Atom", "Shape", "atoms", "shown"]

Shape = tuple[int, ...]

_MOST_NUMBERS = 10**9
"""In what one layer makes of one sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Atom:
    """One module of torch; most layers are one, some are two."""

    word: str
    """A word of the notation, or `pad`."""
    values: Mapping[str, Any]
    """What it is made with; every number that the axes have is one an axis."""
    before: Shape
    """Of what comes in."""
    after: Shape
    """Of what goes out."""
    parameters: int = 0
    """Numbers that it learns."""


def atoms(text: str, layer: Layer, bound: Bound, before: Shape) -> tuple[Atom, ...]:
    """What a layer is made of, with the shapes between.

    Args:
        text: the line, for errors.
        layer: the layer.
        bound: its values.
        before: the shape that comes in.

    Raises:
        ConfigError: it cannot take this shape; with the place, the sizes and the remedy.
    """
    case = _Case(text=text, layer=layer, bound=bound, before=before)
    word = layer.word.text
    made = _activation(case) if word in ACTIVATIONS else _LAYERS[word](case)
    for atom in made:
        if math.prod(atom.after) > _MOST_NUMBERS:
            raise case.wrong(
                f"{shown(atom.after)} would come out of {shown(before)}: "
                f"{math.prod(atom.after):,} numbers a sample, at most {_MOST_NUMBERS:,} are taken",
                "make it smaller",
            )
    return made


def shown(shape: Shape) -> str:
    """A shape for people.

    >>> shown((64, 7, 7)), shown((10,)), shown((1,))
    ('64×7×7', '10 numbers', '1 number')
    """
    if len(shape) > 1:
        return "×".join(map(str, shape))
    return f"{shape[0]:,} number{'' if shape[0] == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A layer, its values and what comes in."""

    text: str
    layer: Layer
    bound: Bound
    before: Shape

    @property
    def word(self) -> str:
        return self.layer.word.text

    @property
    def channels(self) -> int:
        return self.before[0]

    @property
    def sides(self) -> Shape:
        return self.before[1:]

    def wrong(self, message: str, hint: str, at: str = "") -> ConfigError:
        """An error about this layer, or about one of its values where it was written."""
        place = self.bound.places.get(at, self.layer.place)
        return wrong(self.text, place, message, hint)

    def picture(self) -> None:
        """The layer needs a picture."""
        if not self.sides:
            raise self.wrong(
                f"{self.word} takes a picture, and {shown(self.before)} are left here",
                "it stands before gap, gmp, flatten and linear; adaptive 1 pools and leaves a "
                "picture",
            )

    def axes(self, name: str) -> tuple[int, ...]:
        """A value as one number an axis."""
        return self.spread(name, self.bound.axes(name))

    def spread(self, name: str, value: tuple[int, ...]) -> tuple[int, ...]:
        """One number for all axes, or one an axis."""
        rank = len(self.sides)
        if len(value) == 1:
            return value * rank
        if len(value) != rank:
            raise self.wrong(
                f"{name} {_by(value)} is for {len(value)} axes, and the {noun(self.sides)} here, "
                f"{shown(self.before)}, has {rank}",
                f"write one number, or {rank}",
                name,
            )
        return value

    def atom(
        self,
        after: Shape,
        *,
        before: Shape | None = None,
        word: str = "",
        parameters: int = 0,
        values: Mapping[str, Any] | None = None,
    ) -> Atom:
        """One module; by default of the layer's own word and values, on what comes in."""
        return Atom(
            word=word or self.word,
            values=self.bound.values if values is None else values,
            before=self.before if before is None else before,
            after=after,
            parameters=parameters,
        )


def _by(numbers: tuple[int, ...]) -> str:
    return "×".join(map(str, numbers))


def _written(numbers: tuple[int, ...]) -> str:
    """One number an axis as the notation has it: 3, or 3x5."""
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))


def _reach(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """What a dilated kernel spans."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def _same(reach: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Before and after each axis, so that stride 1 keeps the size; the odd one comes after."""
    return tuple(((side - 1) // 2, side // 2) for side in reach)


def _conv(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    kernel, stride, dilation = (case.axes(name) for name in ("kernel", "stride", "dilation"))
    reach = _reach(kernel, dilation)
    wanted = case.bound.padding()
    if wanted.amount is None:
        around = _same(reach)
    else:
        around = tuple((one, one) for one in case.spread("pad", wanted.amount))
    _check_mode(case, wanted.mode, around)
    padded = tuple(n + sum(pair) for n, pair in zip(case.sides, around, strict=True))
    _check_fits(case, reach, padded, around)
    sides = tuple((n - r) // s + 1 for n, r, s in zip(padded, reach, stride, strict=True))
    out = case.bound.count("out")
    groups = _conv_groups(case, out)
    values = {
        **case.bound.values,
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
    }
    weights = out * (case.channels // groups) * math.prod(kernel)
    learnt = weights + out * bool(case.bound.values["bias"])
    if all(low == high for low, high in around):
        values["pad"] = Padding(tuple(low for low, _ in around), wanted.mode)
        return (case.atom((out, *sides), parameters=learnt, values=values),)
    # A convolution of torch pads alike on either hand.
    values["pad"] = Padding((0,) * len(sides))
    between = (case.channels, *padded)
    # Pads are listed from the last axis to the first.
    flat = tuple(one for pair in reversed(around) for one in pair)
    return (
        case.atom(between, word="pad", values={"around": flat, "mode": wanted.mode}),
        case.atom((out, *sides), before=between, parameters=learnt, values=values),
    )


def _check_mode(case: _Case, mode: str, around: tuple[tuple[int, int], ...]) -> None:
    """Reflections and repetitions come out of the picture, which must be as large."""
    spare = {"reflect": 1, "circular": 0}.get(mode)
    if spare is None:
        return
    for side, pair in zip(case.sides, around, strict=True):
        if max(pair) > side - spare:
            raise case.wrong(
                f"{mode} needs at least {max(pair) + spare} along each axis to pad by {max(pair)}; "
                f"the {noun(case.sides)} is {_by(case.sides)} here",
                f"replicate and zeros always can: pad={max(pair)}:replicate",
                "pad",
            )


def _check_fits(
    case: _Case,
    reach: tuple[int, ...],
    padded: tuple[int, ...],
    around: tuple[tuple[int, int], ...],
) -> None:
    """The window is no larger than the picture with what is around it."""
    if all(r <= n for r, n in zip(reach, padded, strict=True)):
        return
    kernel = case.bound.axes("kernel")
    written = _by(case.spread("kernel", kernel))
    dilated = "" if reach == case.spread("kernel", kernel) else f", dilated to {_by(reach)},"
    more = f", {_by(padded)} with its padding" if any(map(sum, around)) else ""
    raise case.wrong(
        f"the kernel of {written}{dilated} is larger than the {noun(case.sides)}, "
        f"which is {_by(case.sides)} here{more}",
        "pad=same keeps the size; or pool less before"
        if case.word == "conv"
        else "pool less before, or keep the size in the convolutions: pad=same",
        "kernel",
    )


def _conv_groups(case: _Case, out: int) -> int:
    """Groups that divide the channels on both sides."""
    wanted = case.bound.values["groups"]
    if wanted == "depthwise":
        if out % case.channels:
            raise case.wrong(
                f"groups=depthwise makes a multiple of the {case.channels} channels that come in, "
                f"got {out}",
                f"for example {case.word} {case.channels} …, and then conv {out} 1",
                "out",
            )
        return case.channels
    assert isinstance(wanted, int)
    if case.channels % wanted or out % wanted:
        common = math.gcd(case.channels, out)
        raise case.wrong(
            f"groups={wanted} does not divide the channels: {case.channels} come in, {out} go out",
            f"make both multiples of {wanted}; these divide them as they are: {_divisors(common)}",
            "groups",
        )
    return wanted


def _divisors(number: int) -> str:
    """The first few numbers that divide it."""
    found = [one for one in range(1, min(number, 1024) + 1) if number % one == 0]
    return ", ".join(map(str, found[:8])) + (", …" if len(found) > 8 else "")


def _convt(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    kernel, stride, dilation = (case.axes(name) for name in ("kernel", "stride", "dilation"))
    extra = case.axes("output_padding")
    reach = _reach(kernel, dilation)
    wanted = case.bound.padding()
    if wanted.mode != "zeros":
        raise case.wrong("convt pads with zeros only", "leave the mode out", "pad")
    if wanted.amount is None:
        if "output_padding" in case.bound.places:
            raise case.wrong(
                "pad=same decides output_padding", "leave one of the two out", "output_padding"
            )
        spare = [r - s for r, s in zip(reach, stride, strict=True)]
        pad = tuple(max(0, (one + 1) // 2) for one in spare)
        extra = tuple(2 * p - one for p, one in zip(pad, spare, strict=True))
    else:
        pad = case.spread("pad", wanted.amount)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise case.wrong(
            f"output_padding is below stride or dilation, got {_by(extra)} "
            f"with stride {_by(stride)}",
            "an even kernel cannot keep the size at stride 1; take an odd one"
            if wanted.amount is None
            else "for example stride=2 output_padding=1",
            "pad" if wanted.amount is None else "output_padding",
        )
    sides = tuple(
        (n - 1) * s - 2 * p + r + e
        for n, s, p, r, e in zip(case.sides, stride, pad, reach, extra, strict=True)
    )
    if min(sides) < 1:
        raise case.wrong(
            f"pad {_by(pad)} leaves nothing of the {noun(case.sides)}, {_by(case.sides)} here",
            "pad less",
            "pad",
        )
    out = case.bound.count("out")
    groups = _conv_groups(case, out)
    values = {
        **case.bound.values,
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "pad": Padding(pad),
        "output_padding": extra,
    }
    weights = case.channels * (out // groups) * math.prod(kernel)
    learnt = weights + out * bool(case.bound.values["bias"])
    return (case.atom((out, *sides), parameters=learnt, values=values),)


def _pool(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    kernel = case.axes("kernel")
    stride = kernel if case.bound.values["stride"] is None else case.axes("stride")
    ones = (1,) * len(kernel)
    dilation = case.axes("dilation") if "dilation" in case.bound.values else ones
    reach = _reach(kernel, dilation)
    wanted = case.bound.padding()
    if wanted.mode != "zeros":
        raise case.wrong(
            f"{case.word} knows no {wanted.mode}",
            "leave the mode out: max never takes the padding, and avg counts zeros",
            "pad",
        )
    if wanted.amount is None:
        around = _same(reach)
        if any(low != high for low, high in around):
            raise case.wrong(
                f"same is not even on both sides of a kernel of {_by(kernel)}",
                f"{case.word} {_written(kernel)} ceil keeps the last rows, or take an odd kernel",
                "pad",
            )
        pad = tuple(low for low, _ in around)
    else:
        pad = case.spread("pad", wanted.amount)
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
        raise case.wrong(
            f"{case.word} pads by at most half its kernel, got {_by(pad)} for {_by(kernel)}",
            f"pad={_written(tuple(k // 2 for k in kernel))} at most",
            "pad",
        )
    padded = tuple(n + 2 * p for n, p in zip(case.sides, pad, strict=True))
    _check_fits(case, reach, padded, tuple((p, p) for p in pad))
    sides = tuple(
        _windows(n, r, s, p, bool(case.bound.values["ceil"]))
        for n, r, s, p in zip(case.sides, reach, stride, pad, strict=True)
    )
    values = {**case.bound.values, "kernel": kernel, "stride": stride, "pad": Padding(pad)}
    if "dilation" in values:
        values["dilation"] = dilation
    return (case.atom((case.channels, *sides), values=values),)


def _windows(side: int, reach: int, stride: int, pad: int, ceil: bool) -> int:
    """Windows along an axis; with `ceil` a last one may reach beyond, if it begins inside."""
    spare = side + 2 * pad - reach
    if not ceil:
        return spare // stride + 1
    count = -(-spare // stride) + 1
    return count - ((count - 1) * stride >= side + pad)


def _global(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    one = (case.channels,) + (1,) * len(case.sides)
    return (
        case.atom(one),
        case.atom((case.channels,), before=one, word="flatten", values={}),
    )


def _adaptive(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    size = case.axes("size")
    return (case.atom((case.channels, *size), values={**case.bound.values, "size": size}),)


def _up(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    times = case.axes("n")
    sides = tuple(n * side for n, side in zip(times, case.sides, strict=True))
    return (case.atom((case.channels, *sides), values={**case.bound.values, "n": times}),)


def _linear(case: _Case) -> tuple[Atom, ...]:
    made = _flatten(case) if case.sides else ()
    row = math.prod(case.before)
    out = case.bound.count("out")
    learnt = out * row + out * bool(case.bound.values["bias"])
    return (*made, case.atom((out,), before=(row,), parameters=learnt))


def _flatten(case: _Case) -> tuple[Atom, ...]:
    return (case.atom((math.prod(case.before),), word="flatten", values={}),)


def _activation(case: _Case) -> tuple[Atom, ...]:
    learnt = 0
    if case.word == "prelu":
        learnt = case.channels if case.bound.values["channels"] else 1
    return (case.atom(case.before, parameters=learnt),)


def _plain(case: _Case) -> tuple[Atom, ...]:
    return (case.atom(case.before),)


def _whole_channels(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    return (case.atom(case.before),)


def _norm(case: _Case) -> tuple[Atom, ...]:
    """Batch norm averages over the batch; layer, group and instance norm within the sample."""
    groups = 1
    if case.word == "gn":
        groups = case.bound.count("groups")
        if case.channels % groups:
            raise case.wrong(
                f"{groups} groups do not divide the {case.channels} channels here",
                f"for example {_divisors(case.channels)}",
                "groups",
            )
    elif case.word == "in":
        case.picture()
        groups = case.channels
    if case.word != "bn" and math.prod(case.before) == groups:
        raise case.wrong(
            f"{case.word} would norm single numbers, since {shown(case.before)} come in: all 0",
            "norm larger groups, or before the pooling",
        )
    learnt = 2 * case.channels if case.bound.values["affine"] else 0
    if case.word == "ln" and not case.sides:
        learnt = 2 * case.before[0] if case.bound.values["affine"] else 0
    return (case.atom(case.before, parameters=learnt),)


def _squeeze(case: _Case) -> tuple[Atom, ...]:
    case.picture()
    narrow = max(1, case.channels // case.bound.count("r"))
    learnt = 2 * case.channels * narrow + case.channels + narrow
    return (case.atom(case.before, parameters=learnt, values={"narrow": narrow}),)


def _shuffle(case: _Case) -> tuple[Atom, ...]:
    groups = case.bound.count("groups")
    if case.channels % groups:
        raise case.wrong(
            f"{groups} groups do not divide the {case.channels} channels here",
            f"for example {_divisors(case.channels)}",
            "groups",
        )
    return (case.atom(case.before),)


_LAYERS: dict[str, Callable[[_Case], tuple[Atom, ...]]] = {
    "conv": _conv,
    "convt": _convt,
    **dict.fromkeys(("pool", "maxpool", "avgpool"), _pool),
    **dict.fromkeys(("gap", "gmp"), _global),
    "adaptive": _adaptive,
    "up": _up,
    "linear": _linear,
    "flatten": _flatten,
    **dict.fromkeys(("identity", "dropout"), _plain),
    **dict.fromkeys(("dropout2d", "lrn"), _whole_channels),
    **dict.fromkeys(("bn", "gn", "ln", "in"), _norm),
    "se": _squeeze,
    "shuffle": _shuffle,
}
