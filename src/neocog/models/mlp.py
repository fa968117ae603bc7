"""The multilayer perceptron: what a network can do without convolution. Floor 2, room models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from neocog.errors import ConfigError, near
from neocog.models.blocks import (
    Activation,
    Dims,
    Init,
    activation_layer,
    check_at_least,
    check_share,
    initialise,
    ranked,
)
from neocog.records import FeatureInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MLP", "mlp"]


class MLP(nn.Module):
    """Flatten, then (linear → norm → activation → dropout) · depth, then linear.

    It sees the picture as one point and has no pyramid: its only level is B×width×1×1 (×1 for
    signals, ×1×1×1 for volumes), with the longer side of the picture as stride.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(self, body: nn.Sequential, channels: int, stride: int, outputs: int) -> None:
        super().__init__()
        self.features = (FeatureInfo(channels=channels, stride=stride, name="body"),)
        self.body = body
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(channels, outputs))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → one level, B×width×1×1."""
        return (self.body(x),)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs."""
        answer: Tensor = self.head(self.forward_features(x)[-1])
        return answer


def mlp(
    *,
    channels: int,
    size: tuple[int, ...],
    outputs: int,
    dims: Dims | None = None,
    width: int = 256,
    depth: int = 2,
    activation: Activation = "relu",
    dropout: float = 0.0,
    norm: Literal["batch", "layer", "none"] = "none",
    init: Init = "he",
) -> nn.Module:
    """A multilayer perceptron.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels; the length of signals; depth, height and width of volumes.
        outputs: width of the last layer.
        dims: sides of a sample; None: as many as `size` has.
        width: units of each hidden layer.
        depth: hidden layers; 0 is multinomial logistic regression.
        activation: after each hidden layer.
        dropout: share of hidden units silenced in training.
        norm: before each activation; layer: arXiv 1607.06450.
        init: first weights of the hidden layers: he, glorot, orthogonal or identity, as
            `blocks.initialise` describes them.

    Raises:
        ConfigError: a value out of range.

    >>> net = mlp(channels=1, size=(28, 28), outputs=10, width=1000, depth=1)
    >>> sum(p.numel() for p in net.body.parameters())
    785000
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width)
    check_at_least(0, depth=depth)
    check_share(dropout=dropout)
    sides = ranked(size, dims).dims
    inputs = channels * math.prod(size)
    check_at_least(1, pixels=inputs)

    def hidden(index: int) -> Iterator[tuple[str, nn.Module]]:
        before = width if index > 1 else inputs
        yield f"linear{index}", nn.Linear(before, width, bias=norm == "none")
        if norm == "batch":
            yield f"norm{index}", nn.BatchNorm1d(width)
        elif norm == "layer":
            yield f"norm{index}", nn.LayerNorm(width)
        elif norm != "none":
            raise ConfigError(f"no norm is called {norm!r}", near(norm, ("batch", "layer", "none")))
        yield f"act{index}", activation_layer(activation)
        if dropout:
            yield f"drop{index}", nn.Dropout(dropout)

    body = nn.Sequential()
    body.add_module("flatten", nn.Flatten())
    for index in range(1, depth + 1):
        for name, layer in hidden(index):
            body.add_module(name, layer)
    level = width if depth else inputs
    body.add_module("level", nn.Unflatten(1, (level, *(1,) * sides)))
    initialise(body, activation, init)
    return MLP(body, level, max(size), outputs)
