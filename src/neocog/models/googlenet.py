"""GoogLeNet: kernels of several sizes side by side. Floor 2, room models.

Szegedy et al. 2014, arXiv 1409.4842, with batch norm. Parameter names and shapes are those of the
widely published weights (conv1.conv, inception3a.branch1.conv, aux1.fc1, …, fc), with their two
departures from the paper: the branch of 5×5 kernels has 3×3 kernels, and poolings round up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from neocog.models.blocks import (
    ConvNormReLU,
    Stem,
    check_at_least,
    check_share,
    check_size,
    initialise,
    takes_small_stem,
)
from neocog.records import FeatureInfo

__all__ = ["AuxiliaryHead", "GoogLeNet", "Inception", "Widths", "googlenet"]


class Widths(NamedTuple):
    """A row of Table 1 of the paper."""

    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pooled: int


_STEM = (64, 64, 192)
_3A, _3B = Widths(64, 96, 128, 16, 32, 32), Widths(128, 128, 192, 32, 96, 64)
_4A, _4B = Widths(192, 96, 208, 16, 48, 64), Widths(160, 112, 224, 24, 64, 64)
_4C, _4D = Widths(128, 128, 256, 24, 64, 64), Widths(112, 144, 288, 32, 64, 64)
_4E, _5A = Widths(256, 160, 320, 32, 128, 128), Widths(256, 160, 320, 32, 128, 128)
_5B = Widths(384, 192, 384, 48, 128, 128)
_AUXILIARY_SIDE = 4
"""Side of the maps that an auxiliary head takes."""


def _conv(before: int, after: int, side: int = 1, stride: int = 1) -> ConvNormReLU:
    """A square convolution, norm, ReLU."""
    return ConvNormReLU(before, after, (side, side), stride)


class Inception(nn.Module):
    """Four branches, their channels one after the other: 1×1; 1×1 then 3×3; 1×1 then 3×3 (5×5 in
    the paper); 3×3 maximum then 1×1.

    Args:
        before: channels that come in.
        widths: of the convolutions.
    """

    def __init__(self, before: int, widths: Widths) -> None:
        super().__init__()
        self.after = widths.one + widths.three + widths.five + widths.pooled
        self.branch1 = _conv(before, widths.one)
        self.branch2 = nn.Sequential(
            _conv(before, widths.reduce_three), _conv(widths.reduce_three, widths.three, 3)
        )
        self.branch3 = nn.Sequential(
            _conv(before, widths.reduce_five), _conv(widths.reduce_five, widths.five, 3)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), _conv(before, widths.pooled)
        )

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×after×H×W."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryHead(nn.Module):
    """A classifier halfway, which helps training and is not used afterwards.

    Args:
        before: channels that come in.
        outputs: width of the last layer.
        dropout: share of the last layer's inputs silenced in training.
    """

    def __init__(self, before: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(_AUXILIARY_SIDE)
        self.conv = _conv(before, 128)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(128 * _AUXILIARY_SIDE**2, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×outputs."""
        x = self.relu(self.fc1(self.flatten(self.conv(self.avgpool(x)))))
        answer: Tensor = self.fc2(self.dropout(x))
        return answer


class GoogLeNet(nn.Module):
    """A stem of three convolutions, nine Inception modules at three resolutions, mean, linear.

    Levels: the last layer of each resolution, at strides 1, 2, 4, 8 behind the small stem, and at
    2, 4, 8, 16, 32 behind the large.

    Args:
        channels: of the picture.
        outputs: width of the last layer.
        small: which stem.
        dropout: share of the last layer's inputs silenced in training.
        auxiliary: whether there are two more heads.
        auxiliary_dropout: share of their last layers' inputs silenced in training.
    """

    features: tuple[FeatureInfo, ...]
    auxiliary_weight = 0.3
    """Of each further head's loss in the sum (section 5 of the paper)."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        small: bool,
        dropout: float,
        auxiliary: bool,
        auxiliary_dropout: float,
    ) -> None:
        super().__init__()
        first, second, third = _STEM
        side, scale = (3, 1) if small else (7, 2)
        self.conv1 = _conv(channels, first, side, scale)
        self.maxpool1 = nn.Identity() if small else nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = _conv(first, second)
        self.conv3 = _conv(second, third, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(third, _3A)
        self.inception3b = Inception(self.inception3a.after, _3B)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(self.inception3b.after, _4A)
        self.inception4b = Inception(self.inception4a.after, _4B)
        self.inception4c = Inception(self.inception4b.after, _4C)
        self.inception4d = Inception(self.inception4c.after, _4D)
        self.inception4e = Inception(self.inception4d.after, _4E)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = Inception(self.inception4e.after, _5A)
        self.inception5b = Inception(self.inception5a.after, _5B)
        early, late = self.inception4a.after, self.inception4d.after
        self.aux1 = AuxiliaryHead(early, outputs, auxiliary_dropout) if auxiliary else None
        self.aux2 = AuxiliaryHead(late, outputs, auxiliary_dropout) if auxiliary else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.inception5b.after, outputs)
        scale = 1 if small else 4  # of the third convolution
        levels = (
            FeatureInfo(channels=third, stride=scale, name="conv3"),
            FeatureInfo(channels=self.inception3b.after, stride=2 * scale, name="inception3b"),
            FeatureInfo(channels=self.inception4e.after, stride=4 * scale, name="inception4e"),
            FeatureInfo(channels=self.inception5b.after, stride=8 * scale, name="inception5b"),
        )
        self.features = (
            levels if small else (FeatureInfo(channels=first, stride=2, name="conv1"), *levels)
        )
        initialise(self, "relu")

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        levels, _ = self._levels(x)
        return levels

    def forward_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the outputs and, where there are further heads, those of the first and the
        second; B×outputs each. For training: the further heads are worth `auxiliary_weight`."""
        levels, halfway = self._levels(x)
        main = self._answer(levels[-1])
        if self.aux1 is None or self.aux2 is None:
            return (main,)
        return main, self.aux1(halfway[0]), self.aux2(halfway[1])

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs."""
        return self._answer(self.forward_features(x)[-1])

    def _levels(self, x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
        """The levels, and what the auxiliary heads take."""
        first = self.conv1(x)
        second = self.conv3(self.conv2(self.maxpool1(first)))
        third = self.inception3b(self.inception3a(self.maxpool2(second)))
        early = self.inception4a(self.maxpool3(third))
        late = self.inception4d(self.inception4c(self.inception4b(early)))
        fourth = self.inception4e(late)
        fifth = self.inception5b(self.inception5a(self.maxpool4(fourth)))
        return (first, second, third, fourth, fifth)[-len(self.features) :], (early, late)

    def _answer(self, level: Tensor) -> Tensor:
        """The last level → B×outputs."""
        answer: Tensor = self.fc(self.dropout(self.flatten(self.avgpool(level))))
        return answer


def googlenet(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    stem: Stem = "auto",
    dropout: float = 0.2,
    auxiliary: bool = True,
    auxiliary_dropout: float = 0.7,
) -> nn.Module:
    """GoogLeNet: 13,004,888 parameters at 3 channels and 1000 outputs with the large stem, of which
    the auxiliary heads have 6,379,984; 1.498 GMAC at 224×224.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        outputs: width of the last layer.
        stem: small keeps the resolution up to the third convolution (3×3, stride 1, no pooling),
            large divides it by 4 (7×7, stride 2, then max pooling); auto is small up to 64 pixels
            of the shorter side.
        dropout: share of the last layer's inputs silenced in training.
        auxiliary: whether there are two more heads halfway, as published. They take no part in
            `forward`; they learn from a training that asks for `forward_auxiliary`.
        auxiliary_dropout: share of their last layers' inputs silenced in training.

    Raises:
        ConfigError: pictures too small for the stem, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_share(dropout=dropout, auxiliary_dropout=auxiliary_dropout)
    small = takes_small_stem(stem, size)
    # Below one pixel of the coarsest map, the last modules would see padding only.
    check_size(f"googlenet with the {'small' if small else 'large'} stem", size, 8 if small else 32)
    return GoogLeNet(
        channels,
        outputs,
        small=small,
        dropout=dropout,
        auxiliary=auxiliary,
        auxiliary_dropout=auxiliary_dropout,
    )
