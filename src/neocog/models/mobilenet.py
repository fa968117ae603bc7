"""MobileNetV2, made to run on a telephone. Floor 2, room models.

Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv 1801.04381. Parameter names and shapes in state
dicts are those of the widely published weights (features.1.conv.0.0, …, classifier.1).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from neocog.errors import ConfigError
from neocog.models.blocks import (
    ConvNormActivation,
    Stem,
    check_at_least,
    check_share,
    check_size,
    initialise_by_fan_out,
    keep_resolution,
    round_channels,
    takes_small_stem,
)
from neocog.models.trunk import TrunkNet
from neocog.records import FeatureInfo

__all__ = ["InvertedResidual", "mobilenet_v2"]

_STEM = 32
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and stride of each stage: Table 2 of the paper."""
_LAST = 1280

_conv = partial(ConvNormActivation, activation=nn.ReLU6)


class InvertedResidual(nn.Module):
    """Widen 1×1, filter each channel 3×3, narrow 1×1 without activation; the input is added where
    the shape stays.

    Args:
        before: channels that come in.
        after: channels that go out.
        stride: of the depthwise convolution.
        expand: width inside / `before`; with 1, nothing is widened.
    """

    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = before * expand
        widen = [_conv(before, inner, 1)] if expand > 1 else []
        self.adds = stride == 1 and before == after
        self.conv = nn.Sequential(
            *widen,
            _conv(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×after×⌈H/stride⌉×⌈W/stride⌉."""
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


def mobilenet_v2(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    width: float = 1.0,
    stem: Stem = "auto",
    dropout: float = 0.2,
) -> nn.Module:
    """MobileNetV2: 3,504,872 parameters at 3 channels and 1000 outputs; 0.301 GMAC at 224×224.

    Levels: the last layer of each resolution.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        outputs: width of the last layer.
        width: multiplies the channels of all layers; the last convolution's are multiplied by 1
            at least.
        stem: small keeps the resolution of the picture through the first two stages, large
            divides it by 4; auto is small up to 64 pixels of the shorter side. The weights are of
            one shape, so published ones load into both.
        dropout: share of the classifier's inputs silenced in training.

    Raises:
        ConfigError: pictures too small for the stem, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_share(dropout=dropout)
    if width <= 0:
        raise ConfigError(f"width is above 0, got {width}")
    small = takes_small_stem(stem, size)
    check_size(
        f"mobilenet_v2 with the {'small' if small else 'large'} stem", size, 8 if small else 32
    )
    scale, *strides = keep_resolution((2, *(stage[-1] for stage in _STAGES)), 2 * small)
    before = round_channels(_STEM * width)
    trunk: list[nn.Module] = [_conv(channels, before, 3, scale)]
    layers = [FeatureInfo(channels=before, stride=scale, name="0")]
    for (expand, published, depth, _), stride in zip(_STAGES, strides, strict=True):
        after = round_channels(published * width)
        scale *= stride
        for index in range(depth):
            trunk.append(InvertedResidual(before, after, 1 if index else stride, expand))
            before = after
        layers.append(FeatureInfo(channels=after, stride=scale, name=str(len(trunk) - 1)))
    last = round_channels(_LAST * max(1.0, width))
    layers.append(FeatureInfo(channels=last, stride=scale, name=str(len(trunk))))
    trunk.append(_conv(before, last, 1))
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, outputs))
    network = TrunkNet(nn.Sequential(*trunk), layers, classifier)
    initialise_by_fan_out(network)
    return network
