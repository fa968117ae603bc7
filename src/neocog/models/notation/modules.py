"""One atom → one module of torch. Floor 2, room models.

Activations are never in place: a hook or a level may hold what they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from neocog.models.notation.parts import Shuffle, SqueezeExcitation

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.models.notation.shapes import Atom

__all__ = ["module_of"]

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVT = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAXPOOL = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVGPOOL = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_TO_MAX = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_TO_AVG = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_PADS: dict[str, tuple[type[nn.Module], ...]] = {
    "zeros": (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
}
_BETWEEN = ("linear", "bilinear", "trilinear")
"""What torch calls interpolation along one, two and three axes."""


def module_of(atom: Atom) -> nn.Module:
    """The module of an atom, with torch's first weights."""
    return _MAKERS[atom.word](atom, atom.values)


def _of(kinds: tuple[Any, ...], atom: Atom) -> Any:
    """The class for the axes of what comes in; a row of numbers counts as one axis."""
    return kinds[max(0, len(atom.before) - 2)]


def _conv(atom: Atom, values: Any) -> nn.Module:
    module: nn.Module = _of(_CONV, atom)(
        atom.before[0],
        values["out"],
        values["kernel"],
        stride=values["stride"],
        padding=values["pad"].amount,
        dilation=values["dilation"],
        groups=values["groups"],
        bias=values["bias"],
        padding_mode=values["pad"].mode,
    )
    return module


def _convt(atom: Atom, values: Any) -> nn.Module:
    module: nn.Module = _of(_CONVT, atom)(
        atom.before[0],
        values["out"],
        values["kernel"],
        stride=values["stride"],
        padding=values["pad"].amount,
        output_padding=values["output_padding"],
        dilation=values["dilation"],
        groups=values["groups"],
        bias=values["bias"],
    )
    return module


def _pad(atom: Atom, values: Any) -> nn.Module:
    module: nn.Module = _of(_PADS[values["mode"]], atom)(values["around"])
    return module


def _maxpool(atom: Atom, values: Any) -> nn.Module:
    module: nn.Module = _of(_MAXPOOL, atom)(
        values["kernel"],
        stride=values["stride"],
        padding=values["pad"].amount,
        dilation=values["dilation"],
        ceil_mode=values["ceil"],
    )
    return module


def _avgpool(atom: Atom, values: Any) -> nn.Module:
    module: nn.Module = _of(_AVGPOOL, atom)(
        values["kernel"],
        stride=values["stride"],
        padding=values["pad"].amount,
        ceil_mode=values["ceil"],
    )
    return module


def _adaptive(atom: Atom, values: Any) -> nn.Module:
    kinds = _TO_AVG if values["mode"] == "avg" else _TO_MAX
    module: nn.Module = _of(kinds, atom)(values["size"])
    return module


def _up(atom: Atom, values: Any) -> nn.Module:
    mode = "nearest" if values["mode"] == "nearest" else _of(_BETWEEN, atom)
    return nn.Upsample(scale_factor=tuple(map(float, values["n"])), mode=mode)


def _bn(atom: Atom, values: Any) -> nn.Module:
    module: nn.Module = _of(_BATCH, atom)(atom.before[0], **values)
    return module


def _ln(atom: Atom, values: Any) -> nn.Module:
    """Over a picture, group norm with one group (Wu and He 2018, arXiv 1803.08494)."""
    channels, eps, affine = atom.before[0], values["eps"], values["affine"]
    if len(atom.before) > 1:
        return nn.GroupNorm(1, channels, eps=eps, affine=affine)
    return nn.LayerNorm(channels, eps=eps, elementwise_affine=affine)


_MAKERS: dict[str, Callable[[Atom, Any], nn.Module]] = {
    "conv": _conv,
    "convt": _convt,
    "pad": _pad,
    "pool": _maxpool,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "gap": lambda atom, _: _of(_TO_AVG, atom)(1),
    "gmp": lambda atom, _: _of(_TO_MAX, atom)(1),
    "adaptive": _adaptive,
    "up": _up,
    "linear": lambda atom, values: nn.Linear(atom.before[0], values["out"], bias=values["bias"]),
    "flatten": lambda _, __: nn.Flatten(),
    "identity": lambda _, __: nn.Identity(),
    "dropout": lambda _, values: nn.Dropout(values["p"]),
    "dropout2d": lambda atom, values: _of(_CHANNELS, atom)(values["p"]),
    "bn": _bn,
    "gn": lambda atom, values: nn.GroupNorm(
        values["groups"], atom.before[0], eps=values["eps"], affine=values["affine"]
    ),
    "ln": _ln,
    "in": lambda atom, values: _of(_INSTANCE, atom)(atom.before[0], **values),
    "lrn": lambda _, values: nn.LocalResponseNorm(
        values["size"], alpha=values["alpha"], beta=values["beta"], k=values["k"]
    ),
    "se": lambda atom, values: SqueezeExcitation(
        atom.before[0], values["narrow"], len(atom.before) - 1
    ),
    "shuffle": lambda _, values: Shuffle(values["groups"]),
    "relu": lambda _, __: nn.ReLU(),
    "leaky_relu": lambda _, values: nn.LeakyReLU(values["slope"]),
    "prelu": lambda atom, values: nn.PReLU(
        atom.before[0] if values["channels"] else 1, init=values["slope"]
    ),
    "relu6": lambda _, __: nn.ReLU6(),
    "elu": lambda _, values: nn.ELU(values["alpha"]),
    "celu": lambda _, values: nn.CELU(values["alpha"]),
    "selu": lambda _, __: nn.SELU(),
    "gelu": lambda _, values: nn.GELU(values["approximate"]),
    "silu": lambda _, __: nn.SiLU(),
    "swish": lambda _, __: nn.SiLU(),
    "mish": lambda _, __: nn.Mish(),
    "tanh": lambda _, __: nn.Tanh(),
    "sigmoid": lambda _, __: nn.Sigmoid(),
    "softplus": lambda _, values: nn.Softplus(values["beta"]),
    "softsign": lambda _, __: nn.Softsign(),
    "hardtanh": lambda _, __: nn.Hardtanh(),
    "hardsigmoid": lambda _, __: nn.Hardsigmoid(),
    "hardswish": lambda _, __: nn.Hardswish(),
}
"""Word of an atom → what makes its module, from the atom and its values."""
