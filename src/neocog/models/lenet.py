"""LeNet-5, the first network that read cheques. Floor 2, room models.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", in
the reading that has become usual: C3 sees all maps of S2, pooling has no weights of its own, and
the output is linear where the paper had radial basis functions.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from neocog.errors import ConfigError, near
from neocog.models.blocks import (
    Activation,
    activation_layer,
    check_at_least,
    check_size,
    initialise,
)
from neocog.records import FeatureInfo

__all__ = ["LeNet5", "lenet5"]

_SMALLEST = 28
_PUBLISHED = 32
_BEFORE_C5 = 5
"""Side of the maps that C5 takes; its 5×5 kernels turn each into one number."""


class LeNet5(nn.Module):
    """C1 6@5×5, S2, C3 16@5×5, S4, C5 120@5×5, F6 84, outputs.

    Convolutions are not padded, so a level is smaller than size / stride: 28×28 and 10×10 at
    32×32. Levels are taken before pooling.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        outputs: int,
        activation: Activation,
        pool: type[nn.MaxPool2d] | type[nn.AvgPool2d],
    ) -> None:
        super().__init__()
        self.features = (
            FeatureInfo(channels=6, stride=1, name="act1"),
            FeatureInfo(channels=16, stride=2, name="act3"),
        )
        # 28 pixels are padded to the 32 of the paper, axis by axis; from 32 on nothing is padded.
        padding = (2 if size[0] < _PUBLISHED else 0, 2 if size[1] < _PUBLISHED else 0)
        sides = [
            ((side + 2 * pad - 4) // 2 - 4) // 2 for side, pad in zip(size, padding, strict=True)
        ]
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=padding)
        self.act1 = activation_layer(activation)
        self.pool2 = pool(2)
        self.conv3 = nn.Conv2d(6, 16, 5)
        self.act3 = activation_layer(activation)
        self.head = nn.Sequential(OrderedDict[str, nn.Module](pool4=pool(2)))
        if any(side != _BEFORE_C5 for side in sides):
            self.head.add_module("fit", nn.AdaptiveAvgPool2d(_BEFORE_C5))
        self.head.add_module("conv5", nn.Conv2d(16, 120, _BEFORE_C5))
        self.head.add_module("act5", activation_layer(activation))
        self.head.add_module("flatten", nn.Flatten())
        self.head.add_module("linear6", nn.Linear(120, 84))
        self.head.add_module("act6", activation_layer(activation))
        self.head.add_module("output", nn.Linear(84, outputs))
        initialise(self, activation)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → B×6×28×28 and B×16×10×10 (at 32×32)."""
        first = self.act1(self.conv1(x))
        second = self.act3(self.conv3(self.pool2(first)))
        return first, second

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs."""
        answer: Tensor = self.head(self.forward_features(x)[-1])
        return answer


def lenet5(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    activation: Activation = "tanh",
    pool: Literal["avg", "max"] = "avg",
) -> nn.Module:
    """LeNet-5 for pictures from 28×28 on.

    Sides of 28 to 31 pixels are padded by two on either hand; larger pictures than the published
    32×32 are averaged down to 5×5 before C5.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        outputs: width of the last layer.
        activation: after C1, C3, C5 and F6; the paper's is tanh.
        pool: S2 and S4; the paper's is avg.

    Raises:
        ConfigError: a side below 28 pixels, or a value out of range.

    >>> net = lenet5(channels=1, size=(32, 32), outputs=10)
    >>> sum(p.numel() for p in net.parameters())
    61706
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_size(
        "lenet5", size, _SMALLEST, "scale them up: --set data.size=32,32 — or take --model cnn"
    )
    pools: dict[str, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = {
        "avg": nn.AvgPool2d,
        "max": nn.MaxPool2d,
    }
    if pool not in pools:
        raise ConfigError(f"no pooling is called {pool!r}", near(pool, pools))
    return LeNet5(channels, size, outputs, activation, pools[pool])
