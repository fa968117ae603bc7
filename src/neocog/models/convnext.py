"""ConvNeXt: a residual network with what vision transformers taught. Floor 2, room models.

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, arXiv 2201.03545. Parameter names and shapes in
state dicts are those of the widely published weights (features.1.0.block.0, …, classifier.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.models.blocks import (
    Stem,
    StochasticDepth,
    check_at_least,
    check_share,
    check_size,
    takes_small_stem,
)
from neocog.models.trunk import TrunkNet
from neocog.records import FeatureInfo

__all__ = ["ConvNeXtBlock", "LayerNorm2d", "convnext_tiny"]

_EPS = 1e-6
_LAYER_SCALE = 1e-6
_EXPAND = 4
_WIDTHS = (96, 192, 384, 768)
_DEPTHS = (3, 3, 9, 3)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm (arXiv 1607.06450) over the channels of each position. B×C×H×W → B×C×H×W."""

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×H×W."""
        last = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return last.permute(0, 3, 1, 2)


class _Permute(nn.Module):
    """Axes in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class ConvNeXtBlock(nn.Module):
    """x + γ · (7×7 a channel → layer norm → ·4 wide → GELU → narrow).

    γ is one number a channel (layer scale, arXiv 2103.17239), 1e-6 at first: a block begins as the
    identity, nearly.

    Args:
        width: channels in and out.
        drop_path: share of the samples for which the branch is left out in training.
    """

    def __init__(self, width: int, drop_path: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            _Permute(0, 2, 3, 1),
            nn.LayerNorm(width, eps=_EPS),
            nn.Linear(width, _EXPAND * width),
            nn.GELU(),
            nn.Linear(_EXPAND * width, width),
            _Permute(0, 3, 1, 2),
        )
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), _LAYER_SCALE))
        self.stochastic_depth = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """B×width×H×W → B×width×H×W."""
        y: Tensor = self.stochastic_depth(self.layer_scale * self.block(x))
        return x + y


def convnext_tiny(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    stem: Stem = "auto",
    drop_path: float = 0.1,
) -> nn.Module:
    """ConvNeXt-tiny: 28,589,128 parameters at 3 channels and 1000 outputs with the large stem;
    4.456 GMAC at 224×224.

    Levels: the four stages, at strides 1, 2, 4, 8 behind the small stem and 4, 8, 16, 32 behind the
    large.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        outputs: width of the last layer.
        stem: small keeps the resolution (3×3, stride 1), large divides it by 4 (4×4, stride 4);
            auto is small up to 64 pixels of the shorter side.
        drop_path: stochastic depth: share of the samples for which the last block's branch is left
            out in training; earlier blocks have less, linearly from 0.

    Raises:
        ConfigError: pictures too small for the stem, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_share(drop_path=drop_path)
    small = takes_small_stem(stem, size)
    check_size(
        f"convnext_tiny with the {'small' if small else 'large'} stem", size, 8 if small else 32
    )
    first = (
        nn.Conv2d(channels, _WIDTHS[0], 3, padding=1)
        if small
        else nn.Conv2d(channels, _WIDTHS[0], 4, stride=4)
    )
    trunk: list[nn.Module] = [nn.Sequential(first, LayerNorm2d(_WIDTHS[0], eps=_EPS))]
    layers: list[FeatureInfo] = []
    before, scale = _WIDTHS[0], 1 if small else 4
    shares = [drop_path * index / (sum(_DEPTHS) - 1) for index in range(sum(_DEPTHS))]
    for width, depth in zip(_WIDTHS, _DEPTHS, strict=True):
        if layers:
            halve = nn.Conv2d(before, width, 2, stride=2)
            trunk.append(nn.Sequential(LayerNorm2d(before, eps=_EPS), halve))
            scale *= 2
        layers.append(FeatureInfo(channels=width, stride=scale, name=str(len(trunk))))
        trunk.append(nn.Sequential(*(ConvNeXtBlock(width, shares.pop(0)) for _ in range(depth))))
        before = width
    classifier = nn.Sequential(
        LayerNorm2d(before, eps=_EPS), nn.Flatten(), nn.Linear(before, outputs)
    )
    network = TrunkNet(nn.Sequential(*trunk), layers, classifier, flat=False)
    _initialise(network)
    return network


def _initialise(network: nn.Module) -> None:
    """Normal with 0.02, cut off at ±2, and no bias, as published."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
