"""What networks that answer for every pixel share: encoders, the way back up. Floor 2, room models.

Imports floor 0, torch and this room. Such a network maps B×C×H×W → B×K×H×W for any H and W; its
encoder is called `backbone`, so that weights of a classifier find their place.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
import torch.fx
from torch import Tensor, nn

from neocog.errors import ConfigError, near
from neocog.models import catalog
from neocog.models.blocks import Norm, Stem, norm_layer, takes_small_stem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neocog.records import FeatureInfo

__all__ = ["cut", "encoder", "initialise_transposed", "levels_of", "row"]


def encoder(name: str, *, channels: int, size: tuple[int, int], stem: Stem) -> Any:
    """A network of the catalogue that is left with what its `forward_features` runs.

    Args:
        name: in the catalogue.
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        stem: as the network takes it, where it takes one. auto: the published one wherever the
            picture is large enough for it: the size is that of training crops, which does not say
            how large the things in them are.

    Raises:
        ConfigError: no such network, one that has no maps, or pictures too small for it.
    """
    makes = [one for one, entry in catalog.CATALOG.items() if entry.gives == "classes"]
    if name not in makes:
        raise ConfigError(f"no backbone is called {name!r}", near(name, makes))
    takes_small_stem(stem, size)  # says what is wrong with a stem, also where none is taken
    takes_stem = any(one.name == "stem" for one in catalog.describe(name))

    def build(which: Stem) -> Any:
        args: dict[str, Any] = {"stem": which} if takes_stem else {}
        return catalog.build(name, channels=channels, size=size, outputs=1, args=args)

    if stem == "auto" and takes_stem:
        try:
            network = build("large")
        except ConfigError:
            network = build("small")
    else:
        network = build(stem)
    finest = network.features[0]
    if finest.stride >= max(size):
        raise ConfigError(
            f"{name} has no maps to answer for pixels from",
            "take a convolutional network: --set model_args.backbone=resnet18",
        )
    _leave_features(network)
    return network


class _Features(nn.Module):
    """A network that answers with its levels."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels: tuple[Tensor, ...] = self.network.forward_features(x)
        return levels


def _leave_features(network: nn.Module) -> None:
    """Take away the children that `forward_features` does not use.

    Its steps are followed without a tensor, not even one without memory: for those PyTorch loads
    its compiler, which would hold up every prediction by a second.
    """
    graph = torch.fx.Tracer().trace(_Features(network.eval()))
    used = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    kept = {path.split(".")[1] for path in used}
    for child, _ in list(network.named_children()):
        if child not in kept:
            delattr(network, child)
    network.train()


def levels_of(backbone: Any, path: str = "backbone") -> tuple[FeatureInfo, ...]:
    """The levels of a child as those of the network that holds it.

    Args:
        backbone: declares `features`.
        path: what it is called there.
    """
    return tuple(
        dataclasses.replace(level, name=f"{path}.{level.name}") for level in backbone.features
    )


def row(
    before: int,
    after: int,
    norm: Norm,
    *,
    kind: type[nn.Conv2d | nn.ConvTranspose2d] = nn.Conv2d,
    padding: int = 1,
) -> Iterator[nn.Module]:
    """3×3 convolution of stride 1, with a bias where no norm has one; norm; ReLU.

    Args:
        before: channels that come in.
        after: channels that go out.
        norm: between the two.
        kind: of convolution.
        padding: 1 keeps the size.
    """
    yield kind(before, after, 3, padding=padding, bias=norm == "none")
    normed = norm_layer(norm, after)
    if normed is not None:
        yield normed
    yield nn.ReLU()


def cut(x: Tensor, height: int, width: int) -> Tensor:
    """The upper left of B×C×H×W: B×C×height×width."""
    if torch.compiler.is_exporting():
        # Where sizes are symbols, a slice asks whether it takes all, which would be decided once
        # and for all; what is picked by number has the size that was asked for.
        for axis, side in ((2, height), (3, width)):
            x = x.index_select(axis, torch.arange(side, device=x.device))
        return x
    return x[..., :height, :width]


def initialise_transposed(module: nn.Module, *, rectified: bool) -> None:
    """First weights of every transposed convolution in `module`: normal, such that the scale of
    the signal survives; biases zero. An output element meets in · (kernel / stride)² inputs.

    Args:
        module: changed in place; whoever builds it owns it.
        rectified: whether a rectifier follows, which halves the signal.
    """
    for part in module.modules():
        if isinstance(part, nn.ConvTranspose2d):
            fan_in = part.in_channels * math.prod(part.kernel_size) / math.prod(part.stride)
            nn.init.normal_(part.weight, std=math.sqrt((2 if rectified else 1) / fan_in))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
