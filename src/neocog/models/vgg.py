"""VGG: nothing but 3×3 convolutions, stacked. Floor 2, room models.

Simonyan and Zisserman 2014, arXiv 1409.1556: configurations A, B, D and E. Parameter names and
shapes in state dicts are those of the widely published weights (features.0, …, classifier.6).
`VGG16Trunk` is what the networks for masks of 2014 and 2015 begin with.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from neocog.errors import ConfigError, near
from neocog.models.blocks import (
    Norm,
    check_at_least,
    check_share,
    check_size,
    initialise,
    norm_layer,
    takes_small_stem,
)
from neocog.models.trunk import TrunkNet, publish_trunk_as_features
from neocog.records import FeatureInfo

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VGG16Trunk", "vgg11", "vgg13", "vgg16", "vgg16_bn", "vgg19"]

_WIDTHS = (64, 128, 256, 512, 512)
_VGG16 = (2, 2, 3, 3, 3)
_GRID = 7
"""Side of the maps that the published classifier takes."""
_SMALLEST = 32
"""Pixels that leave one position after five halvings."""
_SMALLEST_SMALL = 16
"""Where halvings are rounded up, pixels that leave one position to the last convolutions."""

_Depths = tuple[int, int, int, int, int]


def _trunk(
    channels: int,
    depths: _Depths,
    norm: Norm,
    *,
    pool: Callable[[], nn.Module],
    widths: tuple[int, ...] = _WIDTHS,
) -> tuple[nn.Sequential, list[FeatureInfo]]:
    """The five stages up to the last pooling, and the last layer of each."""
    layers: list[nn.Module] = []
    levels = []
    before = channels
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if index:
            layers.append(pool())
        for _ in range(depth):
            # The published convolutions have a bias with batch norm, too.
            layers.append(nn.Conv2d(before, width, 3, padding=1))
            normed = norm_layer(norm, width)
            if normed is not None:
                layers.append(normed)
            layers.append(nn.ReLU())
            before = width
        levels.append(FeatureInfo(channels=width, stride=2**index, name=str(len(layers) - 1)))
    return nn.Sequential(*layers), levels


class VGG16Trunk(nn.Module):
    """The thirteen convolutions of VGG-16 and the five poolings behind their stages, for networks
    that answer with maps.

    Halvings round up, so that a picture of any size can be followed back; and they remember where
    each maximum stood. Levels are taken before pooling: the last layer of each stage. Names in
    state dicts are those of the published weights.

    Args:
        channels: 1 for grey, 3 for RGB.
        norm: after each convolution.
        width: channels of the first stage; 64 is published.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(self, channels: int, *, norm: Norm, width: int = _WIDTHS[0]) -> None:
        super().__init__()
        self.widths = tuple(width * wide // _WIDTHS[0] for wide in _WIDTHS)
        pool = partial(nn.MaxPool2d, 2, ceil_mode=True, return_indices=True)
        self.trunk, levels = _trunk(channels, _VGG16, norm, pool=pool, widths=self.widths)
        self.features = tuple(
            dataclasses.replace(level, name=f"trunk.{level.name}") for level in levels
        )
        self.pool = pool()
        publish_trunk_as_features(self)

    def forward(
        self, x: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """B×C×H×W → of each stage its level B×C'×H'×W', the same pooled, B×C'×⌈H'/2⌉×⌈W'/2⌉, and
        the places of the maxima in the level, as `nn.MaxPool2d` counts them."""
        levels, pooled, places = [], [], []
        for layer in (*self.trunk, self.pool):
            if isinstance(layer, nn.MaxPool2d):
                levels.append(x)
                x, place = layer(x)
                pooled.append(x)
                places.append(place)
            else:
                x = layer(x)
        return tuple(levels), tuple(pooled), tuple(places)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        levels, _, _ = self(x)
        return tuple(levels)


def _factory(name: str, depths: _Depths, published_norm: Norm = "none") -> Callable[..., nn.Module]:
    """The factory of one configuration: convolutions in each stage."""

    def vgg(
        *,
        channels: int,
        size: tuple[int, int],
        outputs: int,
        norm: Norm = published_norm,
        head: Literal["auto", "small", "large"] = "auto",
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> nn.Module:
        """VGG. Levels are taken before pooling: the last layer of each stage.

        Args:
            channels: 1 for grey, 3 for RGB.
            size: height and width in pixels.
            outputs: width of the last layer.
            norm: after each convolution.
            head: large is published: a classifier that takes 7×7 maps of any picture. small takes
                the maps as they are, but no more than 7×7, and halvings round up, so that 28 pixels
                leave something. auto is small up to 64 pixels of the shorter side.
            hidden: width of the two hidden linear layers.
            dropout: share of the hidden layers' outputs silenced in training.

        Raises:
            ConfigError: pictures too small for the head, or a value out of range.
        """
        check_at_least(1, channels=channels, outputs=outputs, hidden=hidden)
        check_share(dropout=dropout)
        if head not in ("auto", "small", "large"):
            raise ConfigError(f"no head is called {head!r}", near(head, ("auto", "small", "large")))
        small = takes_small_stem(head, size)
        check_size(
            f"{name} with the {'small' if small else 'large'} head",
            size,
            _SMALLEST_SMALL if small else _SMALLEST,
        )
        grid = (_small_grid(size[0]), _small_grid(size[1])) if small else (_GRID, _GRID)
        halve = partial(nn.MaxPool2d, 2, ceil_mode=small)
        trunk, levels = _trunk(channels, depths, norm, pool=halve)
        pool = nn.Sequential(halve(), nn.AdaptiveAvgPool2d(grid))
        classifier = nn.Sequential(
            nn.Linear(_WIDTHS[-1] * grid[0] * grid[1], hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs),
        )
        network = TrunkNet(trunk, levels, classifier, pool=pool)
        initialise(network, "relu")
        return network

    vgg.__name__ = vgg.__qualname__ = name
    return vgg


def _small_grid(side: int) -> int:
    """Positions along an axis that the small classifier takes: five halvings, rounded up.

    >>> [_small_grid(side) for side in (16, 28, 32, 48, 64, 300)]
    [1, 1, 1, 2, 2, 7]
    """
    return min(_GRID, -(-side // 32))


vgg11 = _factory("vgg11", (1, 1, 2, 2, 2))
"""A: 132,863,336 parameters at 3 channels and 1000 outputs with the large head; 7.609 GMAC at
224×224."""
vgg13 = _factory("vgg13", (2, 2, 2, 2, 2))
"""B: 133,047,848 parameters; 11.308 GMAC."""
vgg16 = _factory("vgg16", _VGG16)
"""D: 138,357,544 parameters; 15.470 GMAC."""
vgg16_bn = _factory("vgg16_bn", _VGG16, "batch")
"""D with batch norm: 138,365,992 parameters; 15.470 GMAC."""
vgg19 = _factory("vgg19", (2, 2, 4, 4, 4))
"""E: 143,667,240 parameters; 19.632 GMAC."""
