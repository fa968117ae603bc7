"""The classic convolutional network, with its parts as arguments. Floor 2, room models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch import nn

from neocog.errors import ConfigError, near
from neocog.models.blocks import (
    Activation,
    Dims,
    Init,
    Norm,
    Ranked,
    activation_layer,
    check_at_least,
    check_share,
    check_size,
    initialise,
    norm_layer,
    ranked,
)
from neocog.records import FeatureInfo
from neocog.rewriting import InOrder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

__all__ = ["CNN", "cnn", "fitting_depth"]

_POOLS = ("max", "avg")


class CNN(InOrder):
    """((conv → norm → activation) · convs → pool) · depth, then linear.

    Levels are taken before pooling, so a decoder finds the full resolution and an explainer the
    finest map that the answer depends on: strides 1, 2, 4, … Each stage but the first therefore
    begins with the pool of the one before, and the head with the last.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(self, stages: list[nn.Sequential], widths: list[int], head: nn.Module) -> None:
        super().__init__()
        self.features = tuple(
            FeatureInfo(channels=width, stride=2**index, name=f"stages.{index}")
            for index, width in enumerate(widths)
        )
        self.stages = nn.ModuleList(stages)
        self.head = head

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → one level a stage, B×(width·2ᵏ)×(H/2ᵏ)×(W/2ᵏ); signals and volumes alike."""
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return tuple(levels)

    def in_order(self) -> Iterable[nn.Module]:
        """The stages, then the head."""
        return *self.stages, self.head


def fitting_depth(size: tuple[int, ...]) -> int:
    """How often a picture of this size is halved when nobody says.

    As often as leaves 3×3 pixels, five times at most; the first three halvings may go down to 2×2.
    Large pictures need the depth: with three stages an answer would be put together from patches
    of 36×36 pixels.

    >>> [fitting_depth((side, side)) for side in (4, 8, 16, 28, 32, 48, 64, 96, 128, 224)]
    [1, 2, 3, 3, 3, 4, 4, 5, 5, 5]
    """
    side = min(size)
    to_two = side.bit_length() - 2
    to_three = (side // 3).bit_length() - 1
    return max(1, min(3, to_two), min(5, to_three))


def cnn(
    *,
    channels: int,
    size: tuple[int, ...],
    outputs: int,
    dims: Dims | None = None,
    width: int = 32,
    depth: int | None = None,
    convs: int = 2,
    activation: Activation = "relu",
    norm: Norm = "batch",
    dropout: float = 0.0,
    kernel: int = 3,
    pool: Literal["max", "avg"] = "max",
    head: Literal["flatten", "gap"] = "flatten",
    init: Init = "he",
) -> nn.Module:
    """The classic convolutional network.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels; the length of signals; depth, height and width of volumes.
        outputs: width of the last layer.
        dims: sides of a sample; None: as many as `size` has.
        width: channels of the first stage; each further stage has twice as many.
        depth: stages, each of which halves the picture. None: `fitting_depth`.
        convs: convolutions a stage.
        activation: after each convolution.
        norm: between convolution and activation; convolutions have a bias only without it.
        dropout: share of the linear layer's inputs silenced in training.
        kernel: side of the kernels, odd.
        pool: how a stage is halved.
        head: flatten sees where things are; gap averages over the picture first
            (arXiv 1312.4400), with fewer weights and any size of picture.
        init: first weights of the convolutions: he, glorot, orthogonal or identity, as
            `blocks.initialise` describes them.

    Raises:
        ConfigError: a value out of range, or more stages than the picture can be halved.

    >>> net = cnn(channels=3, size=(32, 32), outputs=10)
    >>> [(level.channels, level.stride) for level in net.features]
    [(32, 1), (64, 2), (128, 4)]
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width, convs=convs, kernel=kernel)
    check_share(dropout=dropout)
    layers = ranked(size, dims)
    depth = fitting_depth(size) if depth is None else depth
    check_at_least(1, depth=depth)
    fits = min(size).bit_length() - 1
    smaller = f"fewer stages: --set model_args.depth={fits}" if fits > 0 else ""
    check_size(f"cnn with {depth} stage(s)", size, 2**depth, smaller)
    if kernel % 2 == 0:
        raise ConfigError(f"kernel is odd, got {kernel}", f"--set model_args.kernel={kernel + 1}")
    if pool not in _POOLS:
        raise ConfigError(f"no pooling is called {pool!r}", near(pool, _POOLS))
    if head not in ("flatten", "gap"):
        raise ConfigError(f"no head is called {head!r}", near(head, ("flatten", "gap")))

    widths = [width * 2**index for index in range(depth)]
    stages = []
    before = channels
    for index, after in enumerate(widths):
        stage = _stage(layers, before, after, convs, kernel, activation, norm, init)
        halved = [getattr(layers, pool)(2)] if index else []
        stages.append(nn.Sequential(*halved, *stage))
        before = after
    pixels = 1 if head == "gap" else math.prod(side >> depth for side in size)
    last = _head(layers, before, pixels, outputs, pool, head, dropout)
    return CNN(stages, widths, last)


def _stage(
    layers: Ranked,
    before: int,
    after: int,
    convs: int,
    kernel: int,
    activation: Activation,
    norm: Norm,
    init: Init,
) -> list[nn.Module]:
    """(conv → norm → activation) · convs, at one resolution."""
    stage: list[nn.Module] = []
    for _ in range(convs):
        conv = layers.conv(before, after, kernel, padding=kernel // 2, bias=norm == "none")
        initialise(conv, activation, init)
        stage.append(conv)
        normed = norm_layer(norm, after, layers)
        if normed is not None:
            stage.append(normed)
        stage.append(activation_layer(activation))
        before = after
    return stage


def _head(
    layers: Ranked,
    channels: int,
    pixels: int,
    outputs: int,
    pool: str,
    head: str,
    dropout: float,
) -> nn.Sequential:
    """The last pool, then linear over the pixels that are left."""
    last = nn.Sequential()
    last.add_module("pool", getattr(layers, pool)(2))
    if head == "gap":
        last.add_module("mean", layers.mean(1))
    last.add_module("flatten", nn.Flatten())
    if dropout:
        last.add_module("drop", nn.Dropout(dropout))
    last.add_module("linear", nn.Linear(channels * pixels, outputs))
    return last
