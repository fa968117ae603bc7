"""EfficientNet: one small network and a rule by which it grows. Floor 2, room models.

Tan and Le 2019, arXiv 1905.11946. B0 was found by search; B1 to B7 are deeper and wider by the
factors of the table below. Blocks are those of MobileNetV2 (arXiv 1801.04381) with squeeze and
excitation (arXiv 1709.01507) and stochastic depth (arXiv 1603.09382). Parameter names and shapes in
state dicts are those of the widely published weights (features.1.0.block.0.0, …, classifier.1).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from neocog.models.blocks import (
    ConvNormActivation,
    Stem,
    StochasticDepth,
    check_at_least,
    check_share,
    check_size,
    initialise_by_fan_out,
    keep_resolution,
    round_channels,
    takes_small_stem,
)
from neocog.models.recompute import Recomputed
from neocog.models.trunk import TrunkNet
from neocog.records import FeatureInfo

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MBConv",
    "SqueezeExcitation",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
]


class _Stage(NamedTuple):
    """A row of Table 1 of the paper."""

    expand: int
    kernel: int
    stride: int
    channels: int
    depth: int


_STEM = 32
_STAGES = (
    _Stage(expand=1, kernel=3, stride=1, channels=16, depth=1),
    _Stage(expand=6, kernel=3, stride=2, channels=24, depth=2),
    _Stage(expand=6, kernel=5, stride=2, channels=40, depth=2),
    _Stage(expand=6, kernel=3, stride=2, channels=80, depth=3),
    _Stage(expand=6, kernel=5, stride=1, channels=112, depth=3),
    _Stage(expand=6, kernel=5, stride=2, channels=192, depth=4),
    _Stage(expand=6, kernel=3, stride=1, channels=320, depth=1),
)
_LAST_EXPAND = 4
"""Channels of the last 1×1 convolution / channels of the last stage."""


class SqueezeExcitation(nn.Module):
    """Each channel times a number in (0, 1) that the means of all channels decide.

    Hu, Shen, Albanie, Sun, Wu 2017, arXiv 1709.01507; SiLU instead of ReLU, as in EfficientNet.

    Args:
        channels: in and out.
        squeezed: of the hidden layer.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.SiLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.scale_activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×H×W."""
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        answer: Tensor = self.scale_activation(scale) * x
        return answer


class MBConv(nn.Module):
    """Widen 1×1, filter each channel, weigh the channels, narrow 1×1; the input is added where the
    shape stays.

    Args:
        before: channels that come in; a quarter of them is the width of the squeeze.
        after: channels that go out.
        kernel: side of the depthwise kernels.
        stride: of the depthwise convolution.
        expand: width inside / `before`; with 1, nothing is widened.
        drop_path: share of the samples for which the branch is left out in training.
        norm: makes the norms.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        stride: int,
        *,
        expand: int,
        drop_path: float,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        inner = before * expand
        conv = partial(ConvNormActivation, norm=norm, activation=nn.SiLU)
        widen = [conv(before, inner, 1)] if expand > 1 else []
        self.block = nn.Sequential(
            *widen,
            conv(inner, inner, kernel, stride, groups=inner),
            SqueezeExcitation(inner, max(1, before // 4)),
            conv(inner, after, 1, activation=None),
        )
        adds = stride == 1 and before == after
        self.stochastic_depth = StochasticDepth(drop_path) if adds else None

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×after×⌈H/stride⌉×⌈W/stride⌉."""
        y: Tensor = self.block(x)
        return y if self.stochastic_depth is None else x + self.stochastic_depth(y)


def _trunk(
    channels: int,
    stages: tuple[_Stage, ...],
    *,
    stem: int,
    small: bool,
    drop_path: float,
    norm: Callable[[int], nn.Module],
    row: type[nn.Sequential],
) -> tuple[nn.Sequential, list[FeatureInfo]]:
    """The stem, the stages and the last convolution, and what each of them is.

    Stochastic depth grows linearly from 0 at the first block. The small stem keeps the resolution
    where the stem and the first stage of stride 2 would halve it; the weights are of one shape.
    `row` puts the blocks of a stage one after the other.
    """
    conv = partial(ConvNormActivation, norm=norm, activation=nn.SiLU)
    scale, *strides = keep_resolution((2, *(stage.stride for stage in stages)), 2 * small)
    trunk: list[nn.Module] = [conv(channels, stem, 3, scale)]
    layers = [FeatureInfo(channels=stem, stride=scale, name="0")]
    before = stem
    blocks, count = 0, sum(stage.depth for stage in stages)
    for stage, stride in zip(stages, strides, strict=True):
        parts = []
        for index in range(stage.depth):
            parts.append(
                MBConv(
                    before,
                    stage.channels,
                    stage.kernel,
                    1 if index else stride,
                    expand=stage.expand,
                    drop_path=drop_path * blocks / count,
                    norm=norm,
                )
            )
            before = stage.channels
            blocks += 1
        scale *= stride
        layers.append(FeatureInfo(channels=before, stride=scale, name=str(len(trunk))))
        trunk.append(row(*parts))
    last = before * _LAST_EXPAND
    layers.append(FeatureInfo(channels=last, stride=scale, name=str(len(trunk))))
    return nn.Sequential(*trunk, conv(before, last, 1)), layers


def _factory(
    name: str,
    *,
    width: float,
    depth: float,
    published_dropout: float,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> Callable[..., nn.Module]:
    """The factory of one size: `width` and `depth` multiply the channels and blocks of B0."""
    stages = tuple(
        stage._replace(
            channels=round_channels(stage.channels * width), depth=math.ceil(stage.depth * depth)
        )
        for stage in _STAGES
    )

    def efficientnet(
        *,
        channels: int,
        size: tuple[int, int],
        outputs: int,
        stem: Stem = "auto",
        dropout: float = published_dropout,
        drop_path: float = 0.2,
        checkpoint_blocks: bool = False,
    ) -> nn.Module:
        """EfficientNet. Levels: the last layer of each resolution.

        Args:
            channels: 1 for grey, 3 for RGB.
            size: height and width in pixels.
            outputs: width of the last layer.
            stem: small keeps the resolution of the picture through the first two stages, large
                divides it by 4; auto is small up to 64 pixels of the shorter side. The weights
                are of one shape, so published ones load into both.
            dropout: share of the classifier's inputs silenced in training.
            drop_path: stochastic depth: share of the samples for which a branch is left out in
                training, linearly from 0 in the first block to this behind the last.
            checkpoint_blocks: keep only what comes into each block for the backward pass, and
                compute the rest again there: far less memory, some third more time.

        Raises:
            ConfigError: pictures too small for the stem, or a value out of range.
        """
        check_at_least(1, channels=channels, outputs=outputs)
        check_share(dropout=dropout, drop_path=drop_path)
        small = takes_small_stem(stem, size)
        check_size(
            f"{name} with the {'small' if small else 'large'} stem", size, 8 if small else 32
        )
        trunk, layers = _trunk(
            channels,
            stages,
            stem=round_channels(_STEM * width),
            small=small,
            drop_path=drop_path,
            norm=norm,
            row=Recomputed if checkpoint_blocks else nn.Sequential,
        )
        linear = nn.Linear(layers[-1].channels, outputs)
        network = TrunkNet(trunk, layers, nn.Sequential(nn.Dropout(dropout), linear))
        initialise_by_fan_out(network)
        return network

    efficientnet.__name__ = efficientnet.__qualname__ = name
    return efficientnet


# The three largest were trained with these settings of batch norm.
_slow_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)

efficientnet_b0 = _factory("efficientnet_b0", width=1.0, depth=1.0, published_dropout=0.2)
"""5,288,548 parameters at 3 channels and 1000 outputs; 0.386 GMAC at 224×224."""
efficientnet_b1 = _factory("efficientnet_b1", width=1.0, depth=1.1, published_dropout=0.2)
"""7,794,184 parameters; 0.570 GMAC."""
efficientnet_b2 = _factory("efficientnet_b2", width=1.1, depth=1.2, published_dropout=0.3)
"""9,109,994 parameters; 0.659 GMAC."""
efficientnet_b3 = _factory("efficientnet_b3", width=1.2, depth=1.4, published_dropout=0.3)
"""12,233,232 parameters; 0.963 GMAC."""
efficientnet_b4 = _factory("efficientnet_b4", width=1.4, depth=1.8, published_dropout=0.4)
"""19,341,616 parameters; 1.504 GMAC."""
efficientnet_b5 = _factory(
    "efficientnet_b5", width=1.6, depth=2.2, published_dropout=0.4, norm=_slow_norm
)
"""30,389,784 parameters; 2.356 GMAC."""
efficientnet_b6 = _factory(
    "efficientnet_b6", width=1.8, depth=2.6, published_dropout=0.5, norm=_slow_norm
)
"""43,040,704 parameters; 3.360 GMAC."""
efficientnet_b7 = _factory(
    "efficientnet_b7", width=2.0, depth=3.1, published_dropout=0.5, norm=_slow_norm
)
"""66,347,960 parameters; 5.170 GMAC."""
