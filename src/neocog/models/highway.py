"""Highway networks, the first that were trained with hundreds of layers. Floor 2, room models.

Srivastava, Greff, Schmidhuber 2015, arXiv 1505.00387, with convolutions as in arXiv 1507.06228:
gates learn how much of each value a layer changes and how much it hands on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from neocog.models.blocks import (
    Activation,
    activation_layer,
    check_at_least,
    check_share,
    check_size,
    initialise,
)
from neocog.models.cnn import fitting_depth
from neocog.records import FeatureInfo
from neocog.rewriting import InOrder

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Highway", "HighwayLayer", "highway"]


class HighwayLayer(nn.Module):
    """y = H(x)·T(x) + x·(1 − T(x)), where H is a convolution with activation and T, the transform
    gate, a convolution with sigmoid.

    Args:
        width: channels in and out.
        activation: of H.
        gate_bias: of T at first. Below zero, the layer begins by handing on its input.
    """

    def __init__(self, width: int, activation: Activation, gate_bias: float) -> None:
        super().__init__()
        self.transform = nn.Conv2d(width, width, 3, padding=1)
        self.activation = activation_layer(activation)
        self.gate = nn.Conv2d(width, width, 3, padding=1)
        self.sigmoid = nn.Sigmoid()
        initialise(self.transform, activation)
        initialise(self.gate, "sigmoid")
        nn.init.constant_(self.gate.bias, gate_bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """B×width×H×W → B×width×H×W."""
        gate = self.sigmoid(self.gate(x))
        answer: Tensor = self.activation(self.transform(x)) * gate + x * (1 - gate)
        return answer


class Highway(InOrder):
    """Stages of (plain convolution, activation, highway layers), pooled between; mean; linear.

    A highway layer keeps the number of channels, so a plain convolution changes it, as in the
    paper. Levels: the stages, taken before pooling, at strides 1, 2, 4, …

    Args:
        stages: each stage's layers, with the pool of the one before at its head.
        widths: channels of each stage.
        dropout: share of the last layer's inputs silenced in training.
        outputs: width of the last layer.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(
        self, stages: list[nn.Sequential], widths: list[int], dropout: float, outputs: int
    ) -> None:
        super().__init__()
        self.features = tuple(
            FeatureInfo(channels=width, stride=2**index, name=f"stages.{index}")
            for index, width in enumerate(widths)
        )
        self.stages = nn.ModuleList(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], outputs)
        initialise(self.fc, "sigmoid")

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → one level a stage, B×(width·2ᵏ)×⌊H/2ᵏ⌋×⌊W/2ᵏ⌋."""
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return tuple(levels)

    def in_order(self) -> Iterable[nn.Module]:
        """The stages, the mean over the picture, the linear layer."""
        return *self.stages, self.avgpool, self.flatten, self.dropout, self.fc


def highway(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    width: int = 32,
    depth: int = 3,
    activation: Activation = "relu",
    gate_bias: float = -2.0,
    dropout: float = 0.0,
) -> nn.Module:
    """A convolutional highway network, without any norm: the gates do its work.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels; a stage halves the picture as often as `cnn` would.
        outputs: width of the last layer.
        width: channels of the first stage; each further stage has twice as many.
        depth: highway layers a stage.
        activation: of the transform H.
        gate_bias: bias of the gates at first; the paper takes −1 to −10, lower for deeper networks.
        dropout: share of the last layer's inputs silenced in training.

    Raises:
        ConfigError: a value out of range, or a picture without pixels.

    >>> net = highway(channels=1, size=(28, 28), outputs=10, width=8)
    >>> [(level.channels, level.stride) for level in net.features]
    [(8, 1), (16, 2), (32, 4)]
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width, depth=depth)
    check_share(dropout=dropout)
    check_size("highway", size, 1)
    widths = [width * 2**index for index in range(fitting_depth(size))]
    stages = []
    before = channels
    for index, after in enumerate(widths):
        plain = nn.Conv2d(before, after, 3, padding=1)
        initialise(plain, activation)
        layers = (HighwayLayer(after, activation, gate_bias) for _ in range(depth))
        pool = [nn.MaxPool2d(2)] if index else []
        stages.append(nn.Sequential(*pool, plain, activation_layer(activation), *layers))
        before = after
    return Highway(stages, widths, dropout, outputs)
