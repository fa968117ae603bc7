"""U-Net: down, up, and at each level what was seen on the way down. Floor 2, room models.

Ronneberger, Fischer, Brox 2015, arXiv 1505.04597: `unet` is its wiring, `unet_backbone` has a
network of the catalogue on the way down.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.errors import ConfigError, near
from neocog.models.blocks import (
    Norm,
    Stem,
    check_at_least,
    check_share,
    check_size,
    initialise,
    norm_layer,
)
from neocog.models.pixelwise import cut, encoder, initialise_transposed, levels_of, row
from neocog.records import FeatureInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["UNet", "UNetBackbone", "unet", "unet_backbone", "valid_side"]

Padding = Literal["same", "valid"]

_LEAST = 16
"""Channels below which a block on the way up does not go."""


def valid_side(side: int, depth: int) -> tuple[int, int]:
    """Pixels along an axis that come in and go out where convolutions are not padded and every
    halving is even; the fewest that answer for `side` of them.

    >>> valid_side(388, 4), valid_side(389, 4)
    ((572, 388), (588, 404))
    """
    whole = 2**depth
    lost = 4 * (whole - 1)
    # Of the coarsest map, what its two convolutions leave.
    left = max(1, -(-(side + lost) // whole))
    return whole * (left + 4) + lost, whole * left - lost


class UNet(nn.Module):
    """Two convolutions a level, max pooling down, 2×2 transposed convolutions up.

    Padded, an odd side is halved to the upper whole number, and what comes back up is cut to the
    level that it meets. Not padded, the picture is continued by its mirror image as far as the
    convolutions eat, each level is cut to what comes up, and the answer to the picture: the
    overlap-tile strategy of the paper, where the whole picture is one tile.

    Levels: before each pooling, and the coarsest. Not padded, they are those of the continued
    picture.

    Args:
        channels: 1 for grey, 3 for RGB.
        outputs: maps that go out.
        widths: channels of each level, finest first.
        padding: of the convolutions.
        norm: after each 3×3 convolution.
        dropout: share of the coarsest values silenced in training.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: Sequence[int],
        *,
        padding: Padding,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        self.valid = padding == "valid"
        self.features = tuple(
            FeatureInfo(channels=width, stride=2**index, name=f"backbone.{index}")
            for index, width in enumerate(widths)
        )
        pairs = pairwise((channels, *widths))
        self.backbone = nn.ModuleList(nn.Sequential(*self._two(*pair, norm)) for pair in pairs)
        upward = list(pairwise(reversed(widths)))
        self.pool = nn.ModuleList(nn.MaxPool2d(2, ceil_mode=not self.valid) for _ in upward)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(nn.ConvTranspose2d(*pair, 2, stride=2) for pair in upward)
        self.decoder = nn.ModuleList(nn.Sequential(*self._two(*pair, norm)) for pair in upward)
        self.score = nn.Conv2d(widths[0], outputs, 1)

    def _two(self, before: int, after: int, norm: Norm) -> Iterator[nn.Module]:
        """The two convolutions of a level."""
        for channels in (before, after):
            yield from row(channels, after, norm, padding=0 if self.valid else 1)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        if self.valid:
            x = _continued(x, len(self.up))
        levels: list[Tensor] = []
        for index, level in enumerate(self.backbone):
            x = level(self.pool[index - 1](x) if index else x)
            levels.append(x)
        return tuple(levels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs×H×W."""
        height, width = x.shape[-2], x.shape[-1]
        *levels, x = self.forward_features(x)
        x = self.dropout(x)
        for up, convolve, skip in zip(self.up, self.decoder, reversed(levels), strict=True):
            x = up(x)
            if self.valid:
                skip = _centre(skip, x.shape[-2], x.shape[-1])
            else:
                x = cut(x, skip.shape[-2], skip.shape[-1])
            x = convolve(torch.cat((skip, x), 1))
        x = self.score(x)
        return cut(x, height, width) if self.valid else x


def _centre(x: Tensor, height: int, width: int) -> Tensor:
    """The middle of B×C×H×W: B×C×height×width."""
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


@torch.fx.wrap
def _continued(x: Tensor, depth: int) -> Tensor:
    """A picture with its mirror images around it, as unpadded convolutions want it.

    Mirrored as often as it takes, without repeating the edge; a side of one pixel has nothing to
    mirror, and is repeated.
    """
    margins = []
    for side in (x.shape[-2], x.shape[-1]):
        given, answered = valid_side(side, depth)
        before = (given - answered) // 2
        margins.append((before, given - side - before))
    (top, bottom), (left, right) = margins
    while top or bottom or left or right:
        height, width = x.shape[-2], x.shape[-1]
        tall, wide = max(1, height - 1), max(1, width - 1)
        now = (min(left, wide), min(right, wide), min(top, tall), min(bottom, tall))
        x = F.pad(x, now, mode="reflect" if min(height, width) > 1 else "replicate")
        left, right, top, bottom = left - now[0], right - now[1], top - now[2], bottom - now[3]
    return x


def unet(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    width: int = 64,
    depth: int = 4,
    padding: Padding = "same",
    norm: Norm = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """The U-Net of 2015: 31,030,658 parameters at 1 channel and 2 outputs without norm.

    The paper had no norm, which was new then: a U-Net learns faster with it, and from fewer lucky
    first weights. It had no padding either: `padding=valid norm=none dropout=0.5` is as published.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels of training crops; it answers for pictures of any size.
        outputs: maps that go out, one a class.
        width: channels of the finest level; each coarser has twice as many.
        depth: halvings.
        padding: same: zeros at the border of every map; valid: none, but mirror images around
            the picture, which costs 184 pixels of either side at depth 4.
        norm: after each 3×3 convolution; with none, they have a bias.
        dropout: share of the coarsest level's values silenced in training.

    Raises:
        ConfigError: pictures too small for the depth, or a value out of range.

    >>> net = unet(channels=1, size=(32, 32), outputs=2, width=4, depth=2)
    >>> [(level.channels, level.stride) for level in net.features]
    [(4, 1), (8, 2), (16, 4)]
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width, depth=depth)
    check_share(dropout=dropout)
    if padding not in ("same", "valid"):
        raise ConfigError(f"no padding is called {padding!r}", near(padding, ("same", "valid")))
    norm_layer(norm, 1)
    fits = min(size).bit_length() - 1
    smaller = f"fewer halvings: --set model_args.depth={fits}" if fits > 0 else ""
    check_size(f"unet with {depth} halvings", size, 2**depth, smaller)
    widths = [width * 2**index for index in range(depth + 1)]
    network = UNet(channels, outputs, widths, padding=padding, norm=norm, dropout=dropout)
    initialise(network, "relu")
    initialise_transposed(network, rectified=False)
    return network


class UNetBackbone(nn.Module):
    """A network's levels, and the way back up: scaled to the next finer level (nearest), joined
    with it, two convolutions; beyond the finest level, twice as large each time until every pixel
    has its own.

    Args:
        backbone: B×C×H×W → levels, by `forward_features`.
        outputs: maps that go out.
        width: channels of the coarsest block; each finer one has half as many, but `_LEAST`.
        norm: after each convolution on the way up.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(self, backbone: Any, outputs: int, *, width: int, norm: Norm) -> None:
        super().__init__()
        self.features = levels_of(backbone)
        self.backbone = backbone
        *skips, before = [level.channels for level in self.features]
        finer = math.ceil(math.log2(self.features[0].stride))
        self.strides = tuple(2**index for index in reversed(range(finer)))
        blocks = []
        for index, skip in enumerate((*reversed(skips), *(0 for _ in self.strides))):
            after = max(min(width, _LEAST), width >> index)
            blocks.append(nn.Sequential(*row(before + skip, after, norm), *row(after, after, norm)))
            before = after
        self.decoder = nn.ModuleList(blocks)
        self.score = nn.Conv2d(before, outputs, 3, padding=1)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        levels: tuple[Tensor, ...] = self.backbone.forward_features(x)
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs×H×W."""
        height, width = x.shape[-2], x.shape[-1]
        levels = self.forward_features(x)
        x, skips = levels[-1], levels[-2::-1]
        for block, skip in zip(self.decoder, skips, strict=False):
            x = F.interpolate(x, size=(skip.shape[-2], skip.shape[-1]), mode="nearest")
            x = block(torch.cat((x, skip), 1))
        for block, stride in zip(self.decoder[len(skips) :], self.strides, strict=True):
            finer = (-(-height // stride), -(-width // stride))
            x = block(F.interpolate(x, size=finer, mode="nearest"))
        return _filling(self.score(x), height, width)


@torch.fx.wrap
def _filling(x: Tensor, height: int, width: int) -> Tensor:
    """Scaled to this size, where it has another: the finest level of a network without padding is
    smaller than the picture."""
    same = not torch.compiler.is_exporting() and x.shape[-2] == height and x.shape[-1] == width
    if same:  # an exported program is for every size, and scales by 1
        return x
    return F.interpolate(x, size=(height, width), mode="nearest")


def unet_backbone(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    backbone: str = "resnet18",
    width: int = 256,
    stem: Stem = "auto",
    norm: Norm = "batch",
) -> nn.Module:
    """A U-Net whose way down is a network of the catalogue, as in segmentation_models.pytorch:
    24,436,369 parameters with a ResNet-34 at 3 channels and 1 output.

    The backbone's tensors are called `backbone.…` and begin with weights of such a classifier where
    they are given (`--from`).

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels of training crops; it answers for pictures of any size.
        outputs: maps that go out, one a class.
        backbone: any network of the catalogue that is convolutional.
        width: channels of the coarsest block on the way up; each finer one has half as many, but
            16 at least.
        stem: of the backbone: large is published, small keeps the resolution. auto is large
            wherever the crops are large enough for it, as their size does not say how large the
            things in them are, and published weights want it.
        norm: after each convolution on the way up.

    Raises:
        ConfigError: no such backbone, pictures too small for it, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width)
    norm_layer(norm, 1)
    sees = encoder(backbone, channels=channels, size=size, stem=stem)
    network = UNetBackbone(sees, outputs, width=width, norm=norm)
    initialise(network.decoder, "relu")
    initialise(network.score, "relu")
    return network
