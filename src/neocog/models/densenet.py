"""DenseNet: every layer sees what all layers before it found. Floor 2, room models.

Huang, Liu, van der Maaten, Weinberger 2016, arXiv 1608.06993, in the form BC: bottlenecks, and
transitions that halve the channels. Parameter names and shapes in state dicts are those of the
widely published weights (features.denseblock1.denselayer1.norm1, …, classifier).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from neocog.models.blocks import (
    Stem,
    check_at_least,
    check_share,
    check_size,
    initialise,
    takes_small_stem,
)
from neocog.models.recompute import recomputed
from neocog.models.trunk import TrunkNet, rename_keys
from neocog.records import FeatureInfo

__all__ = ["DenseBlock", "DenseLayer", "densenet121"]

_GROWTH = 32
"""Channels that each layer adds, k in the paper."""
_BOTTLENECK = 4
"""Channels of the bottleneck / growth."""
_FIRST = 64
_DEPTHS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """norm → relu → 1×1 → norm → relu → 3×3: `_GROWTH` new channels.

    Args:
        before: channels that come in.
        dropout: share of the new channels' values silenced in training.
    """

    def __init__(self, before: int, dropout: float) -> None:
        super().__init__()
        inner = _BOTTLENECK * _GROWTH
        self.norm1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, _GROWTH, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.register_load_state_dict_pre_hook(_without_points)  # type: ignore[no-untyped-call]

    def forward(self, *found: Tensor) -> Tensor:
        """What was found so far, B×before×H×W together → B×32×H×W."""
        y = self.conv1(self.relu1(self.norm1(torch.cat(found, 1))))
        new: Tensor = self.dropout(self.conv2(self.relu2(self.norm2(y))))
        return new


def _without_points(_module: nn.Module, state: dict[str, Any], prefix: str, *_rest: object) -> None:
    """The published file is older than the published code: it says `norm.1` for `norm1`."""
    for kind in ("norm", "conv"):
        for number in (1, 2):
            rename_keys(state, f"{prefix}{kind}.{number}.", f"{prefix}{kind}{number}.")


class DenseBlock(nn.Module):
    """Layers of which each sees the input and all that the layers before it added.

    Args:
        before: channels that come in.
        depth: number of layers.
        dropout: as in `DenseLayer`.
        again: compute what is inside the layers again for the backward pass, instead of keeping it.
    """

    def __init__(self, before: int, depth: int, dropout: float, again: bool = False) -> None:
        super().__init__()
        self._again = again
        for index in range(depth):
            self.add_module(f"denselayer{index + 1}", DenseLayer(before + index * _GROWTH, dropout))

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×(before + 32·depth)×H×W."""
        found = [x]
        for layer in self.children():
            found.append(recomputed(layer, *found) if self._again else layer(*found))
        return torch.cat(found, 1)


def densenet121(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    stem: Stem = "auto",
    dropout: float = 0.0,
    checkpoint_blocks: bool = False,
) -> nn.Module:
    """DenseNet-121: 7,978,856 parameters at 3 channels and 1000 outputs with the large stem;
    2.834 GMAC at 224×224.

    Levels: the dense blocks, the last with its norm and activation; before them the large stem.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        outputs: width of the last layer.
        stem: small keeps the resolution (3×3, stride 1), large divides it by 4 (7×7, stride 2, then
            max pooling); auto is small up to 64 pixels of the shorter side.
        dropout: share of each layer's values silenced in training.
        checkpoint_blocks: keep less for the backward pass, and compute it again there: a
            seventh more work (arXiv 1604.06174, 1707.06990).

    Raises:
        ConfigError: pictures too small for the stem, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_share(dropout=dropout)
    small = takes_small_stem(stem, size)
    check_size(
        f"densenet121 with the {'small' if small else 'large'} stem", size, 8 if small else 32
    )
    kernel, scale = (3, 1) if small else (7, 2)
    trunk = OrderedDict[str, nn.Module](
        conv0=nn.Conv2d(channels, _FIRST, kernel, scale, kernel // 2, bias=False),
        norm0=nn.BatchNorm2d(_FIRST),
        relu0=nn.ReLU(),
    )
    layers = [FeatureInfo(channels=_FIRST, stride=scale, name="relu0")]
    if not small:
        trunk["pool0"] = nn.MaxPool2d(3, 2, padding=1)
        scale *= 2
    width = _FIRST
    for number, depth in enumerate(_DEPTHS, start=1):
        if number > 1:
            trunk[f"transition{number - 1}"] = _transition(width)
            width //= 2
            scale *= 2
        trunk[f"denseblock{number}"] = DenseBlock(width, depth, dropout, checkpoint_blocks)
        width += depth * _GROWTH
        layers.append(FeatureInfo(channels=width, stride=scale, name=f"denseblock{number}"))
    trunk["norm5"] = nn.BatchNorm2d(width)
    trunk["relu5"] = nn.ReLU()
    layers.append(FeatureInfo(channels=width, stride=scale, name="relu5"))
    network = TrunkNet(nn.Sequential(trunk), layers, nn.Linear(width, outputs))
    initialise(network, "relu")
    return network


def _transition(width: int) -> nn.Sequential:
    """Half the channels at half the resolution. B×width×H×W → B×(width/2)×⌊H/2⌋×⌊W/2⌋."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
            conv=nn.Conv2d(width, width // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )
