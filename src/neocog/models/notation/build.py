"""Sizes → module. Floor 2, room models."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.models.blocks import check_at_least
from neocog.models.notation.grammar import parse, wrong
from neocog.models.notation.modules import module_of
from neocog.models.notation.parts import Add, Concatenate, Residual, SqueezeExcitation
from neocog.models.notation.sizes import sizes
from neocog.models.notation.words import ACTIVATIONS
from neocog.records import FeatureInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from neocog.models.notation.shapes import Atom
    from neocog.models.notation.sizes import Stage, Strides

__all__ = ["LineNet", "line_net"]

_PICTURE = "picture"
"""Names the layer that hands on the input, where a network has no other level."""
_TAKEN = {"features", "map", "training", _PICTURE}
"""Names that only an object of `LineNet` has."""


class LineNet(nn.Module):
    """Layers one after the other, under their names.

    Levels are taken where the next layer is coarser, as far as there are pictures of more than one
    step; where there are none, the only level is the input itself.

    One that answers for every place does so for inputs of any size: one that its layers do not
    bring back to the same size grows behind its end, by its border repeated, and so much of the
    answer is left out.

    Args:
        layers: by name, in order.
        features: levels, finest first; each is what the layer of that name makes.
        map: of one that answers for every place: sizes n, n + s, n + 2s … of the input that its
            layers bring back, as (n, s) for each axis; empty: it answers once.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        features: tuple[FeatureInfo, ...],
        map: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.features = features
        self.map = tuple(map)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×… → the levels that `features` declares, finest first."""
        wanted = {level.name for level in self.features}
        levels: list[Tensor] = []
        for name, layer in self.named_children():
            x = layer(x)
            if name in wanted:
                levels.append(x)
            if len(levels) == len(wanted):
                break
        return tuple(levels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×… → B×outputs, or B×outputs×… of one that answers for every place."""
        given = x
        if self.map:
            x = _grown(x, self.map)
        for layer in self.children():
            x = layer(x)
        return _cut(x, given) if self.map else x


@torch.fx.wrap
def _grown(x: Tensor, map: Sequence[tuple[int, int]]) -> Tensor:
    """B×C×…, its border repeated behind each axis up to the next size that `map` has."""
    more = [(n - side) % s for side, (n, s) in zip(x.shape[2:], map, strict=True)]
    if not any(more):
        return x
    return F.pad(x, [one for side in reversed(more) for one in (0, side)], mode="replicate")


@torch.fx.wrap
def _cut(x: Tensor, given: Tensor) -> Tensor:
    """B×K×…, as large as what was given from its first place on."""
    for axis, side in enumerate(given.shape[2:], start=2):
        x = x.narrow(axis, 0, side) if x.shape[axis] > side else x
    return x


def line_net(text: str, *, channels: int, size: tuple[int, ...], outputs: int) -> LineNet:
    """The network that a line describes, with fresh weights from torch's generator.

    Convolutions and matrices begin normal with variance gain² / fan-in, such that the activation
    that follows next in the line keeps the scale of the signal (He et al. 2015, arXiv 1502.01852);
    biases are 0. Where none follows, the last activation of the line decides.

    Args:
        text: the line.
        channels: of the input.
        size: of the input along each of its one to three axes.
        outputs: numbers that come out, once or for every place, as the line says.

    Raises:
        ConfigError: a mistake in the line, with its place, the sizes there and the remedy.

    >>> net = line_net(
    ...     "conv 6 5; tanh; avgpool 2; conv 16 5; tanh; avgpool 2;"
    ...     "linear 120; tanh; linear 84; tanh; linear",
    ...     channels=1, size=(32, 32), outputs=10,
    ... )
    >>> sum(p.numel() for p in net.parameters())
    61706
    >>> [(level.name, level.stride) for level in net.features]
    [('tanh1', 1), ('tanh2', 2), ('avgpool2', 4)]
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_at_least(1, **{f"side {number}": side for number, side in enumerate(size, start=1)})
    found = sizes(parse(text), channels=channels, size=size, outputs=outputs)
    features = _levels(found.stages)
    layers = _modules(text, found.stages)
    if not features:
        features = (FeatureInfo(channels=channels, stride=1, name=_PICTURE),)
        layers = {_PICTURE: nn.Identity(), **layers}
    _initialise(found.stages, layers, _last_gain(found.stages))
    return LineNet(layers, features, _brought_back(found.stages, size) if found.map else ())


def _brought_back(stages: Sequence[Stage], size: tuple[int, ...]) -> list[tuple[int, int]]:
    """What `LineNet` takes as its map. A layer of stride p/q of the input makes one place more of p
    places more; where every layer makes whole ones more, nothing else about the sizes changes."""
    return [
        (side, math.lcm(*(one[axis].numerator for one in _strides(stages))))
        for axis, side in enumerate(size)
    ]


def _strides(stages: Sequence[Stage]) -> Iterator[Strides]:
    """Of every layer, blocks included, that makes a picture."""
    for stage in stages:
        if stage.strides:
            yield stage.strides
        for branch in stage.branches:
            yield from _strides(branch)


def _levels(stages: Sequence[Stage]) -> tuple[FeatureInfo, ...]:
    """The last picture of each stride, as far as each is coarser than the one before."""
    found: list[FeatureInfo] = []
    for stage in reversed(stages):
        # A row of numbers, a picture of one step, or one with something around it.
        if math.prod(stage.after[1:]) == 1 or (stage.atom and stage.atom.word == "pad"):
            continue
        stride = max(1, int(min(stage.strides)))
        if not found or stride < found[-1].stride:
            found.append(FeatureInfo(channels=stage.after[0], stride=stride, name=stage.name))
    return tuple(reversed(found))


def _modules(text: str, stages: Sequence[Stage]) -> dict[str, nn.Module]:
    """Modules by name, without first weights."""
    made: dict[str, nn.Module] = {}
    for stage in stages:
        if hasattr(LineNet, stage.name) or stage.name in _TAKEN:
            raise wrong(
                text,
                stage.place,
                f"a module of torch has a {stage.name} already, so no layer can be called that",
                f"for example {stage.name}_1",
            )
        made[stage.name] = module_of(stage.atom) if stage.atom else _block(text, stage)
    return made


def _block(text: str, stage: Stage) -> nn.Module:
    branches = [nn.Sequential(OrderedDict(_modules(text, branch))) for branch in stage.branches]
    if stage.kind == "cat":
        return Concatenate(branches)
    if stage.kind == "add":
        return Add(branches)
    if stage.kind == "res":
        return Residual(branches[0], branches[1] if len(branches) > 1 else nn.Identity())
    return branches[0]


def _initialise(stages: Sequence[Stage], modules: Mapping[str, nn.Module], gain: float) -> float:
    """First weights, from the back to the front.

    Args:
        stages: whose weights are drawn.
        modules: of the stages, by name.
        gain: of the activation that follows.

    Returns:
        The gain of the first activation in it, or what was given.
    """
    for stage in reversed(stages):
        module = modules[stage.name]
        if stage.atom is None:
            parts = [
                part
                for part in ([module] if stage.kind == "block" else module.children())
                if isinstance(part, nn.Sequential)
            ]
            inner = [
                _initialise(branch, dict(part.named_children()), gain)
                for branch, part in zip(stage.branches, parts, strict=True)
            ]
            gain = inner[0]
        elif stage.atom.word in ACTIVATIONS:
            gain = _gain(stage.atom)
        elif isinstance(module, SqueezeExcitation):
            _draw(module.squeeze, math.sqrt(2), module.squeeze.in_features)
            _draw(module.excite, 1.0, module.excite.in_features)
        elif stage.atom.word == "linear":
            _draw(module, gain, stage.atom.before[0])
        elif stage.atom.word in ("conv", "convt"):
            _draw(module, gain, _fan_in(stage.atom))
    return gain


def _draw(module: nn.Module, gain: float, fan_in: float) -> None:
    """Weights normal with variance gain² / fan-in, biases zero."""
    assert isinstance(module.weight, Tensor)
    nn.init.normal_(module.weight, std=gain / math.sqrt(fan_in))
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


def _fan_in(atom: Atom) -> float:
    """Numbers that one output of a convolution sees; a transposed one spreads over its strides."""
    kernel, stride = math.prod(atom.values["kernel"]), math.prod(atom.values["stride"])
    seen: float = atom.before[0] // atom.values["groups"] * kernel
    return max(1.0, seen / stride) if atom.word == "convt" else seen


def _last_gain(stages: Sequence[Stage]) -> float:
    """The gain of the last activation anywhere in the line; the rectifier's where there is none."""
    found = [gain for gain in map(_last, reversed(stages)) if gain is not None]
    return found[0] if found else math.sqrt(2)


def _last(stage: Stage) -> float | None:
    if stage.atom:
        return _gain(stage.atom) if stage.atom.word in ACTIVATIONS else None
    inside = [_last(one) for branch in reversed(stage.branches) for one in reversed(branch)]
    return next((gain for gain in inside if gain is not None), None)


def _gain(atom: Atom) -> float:
    """What the layer before this activation is scaled by, as torch's calculate_gain says."""
    if atom.word in ("leaky_relu", "prelu"):
        return math.sqrt(2 / (1 + atom.values["slope"] ** 2))
    if atom.word in ("tanh", "hardtanh", "softsign"):
        return 5 / 3
    return 1.0 if atom.word in ("sigmoid", "hardsigmoid", "selu") else math.sqrt(2)
