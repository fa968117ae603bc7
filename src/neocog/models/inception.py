"""Inception-v3: branches of different reach side by side. Floor 2, room models.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, arXiv 1512.00567. Parameter names and shapes are
those of the widely published weights (Conv2d_1a_3x3.conv, Mixed_5b.branch5x5_1.bn, …, fc). Those
were trained on pictures with mean 0.5 and standard deviation 0.5 in every channel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
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

__all__ = ["AuxiliaryHead", "InceptionV3", "Mixed", "inception_v3"]

_SMALLEST = 75
"""Pixels that leave one position after the published stem."""
_SMALLEST_SMALL = 7
_AUXILIARY_SIDE = 17
"""Side of the auxiliary head's input at the published 299×299 pixels."""


class _Conv(NamedTuple):
    """One convolution of a branch; those of stride 1 keep the size, the others are not padded."""

    channels: int
    height: int
    width: int
    stride: int = 1


class _Fork(NamedTuple):
    """1×3 and 3×1 side by side at the end of a branch."""

    channels: int


_Branches = dict[str, tuple[_Conv | _Fork, ...]]


class Mixed(nn.Module):
    """Branches side by side, their channels one after the other; a pooled one comes last.

    Args:
        before: channels that come in.
        branches: convolutions of each branch. A branch of several is published as `NAME_1`,
            `NAME_2`, …; the two ends of a fork as `NAME_2a` and `NAME_2b`.
        pooled: channels of the 1×1 convolution after the 3×3 mean at stride 1. None: the 3×3
            maximum at stride 2, which halves the picture as the other branches then do.
    """

    def __init__(self, before: int, branches: _Branches, pooled: int | None) -> None:
        super().__init__()
        self.after = 0
        self.steps: list[list[tuple[str, ...]]] = []
        for name, convs in branches.items():
            width = before
            steps: list[tuple[str, ...]] = []
            for number, conv in enumerate(convs, start=1):
                numbered = f"{name}_{number}" if len(convs) > 1 else name
                width, step = self._add(numbered, width, conv)
                steps.append(step)
            self.steps.append(steps)
            self.after += width
        self.pool = nn.MaxPool2d(3, 2) if pooled is None else nn.AvgPool2d(3, 1, padding=1)
        self.branch_pool = None if pooled is None else ConvNormReLU(before, pooled, (1, 1))
        self.after += before if pooled is None else pooled

    def _add(self, name: str, before: int, conv: _Conv | _Fork) -> tuple[int, tuple[str, ...]]:
        """Registers a step of a branch; its channels, and the names of its modules."""
        if isinstance(conv, _Fork):
            for letter, kernel in (("a", (1, 3)), ("b", (3, 1))):
                self.add_module(name + letter, ConvNormReLU(before, conv.channels, kernel))
            return 2 * conv.channels, (f"{name}a", f"{name}b")
        kernel = (conv.height, conv.width)
        padded = conv.stride == 1
        self.add_module(
            name, ConvNormReLU(before, conv.channels, kernel, conv.stride, padded=padded)
        )
        return conv.channels, (name,)

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×after×H×W, or ⌊(H − 1)/2⌋×⌊(W − 1)/2⌋ with maximum pooling."""
        ends = []
        for steps in self.steps:
            y = x
            for step in steps:
                parts = [self.get_submodule(name)(y) for name in step]
                y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            ends.append(y)
        pooled = self.pool(x)
        ends.append(pooled if self.branch_pool is None else self.branch_pool(pooled))
        return torch.cat(ends, 1)


def _mixed_5(before: int, pooled: int) -> Mixed:
    """Figure 5 of the paper: 5×5 and two 3×3."""
    return Mixed(
        before,
        {
            "branch1x1": (_Conv(64, 1, 1),),
            "branch5x5": (_Conv(48, 1, 1), _Conv(64, 5, 5)),
            "branch3x3dbl": (_Conv(64, 1, 1), _Conv(96, 3, 3), _Conv(96, 3, 3)),
        },
        pooled,
    )


def _mixed_6a(before: int) -> Mixed:
    """From stride 8 to 16: Figure 10."""
    return Mixed(
        before,
        {
            "branch3x3": (_Conv(384, 3, 3, 2),),
            "branch3x3dbl": (_Conv(64, 1, 1), _Conv(96, 3, 3), _Conv(96, 3, 3, 2)),
        },
        None,
    )


def _mixed_6(before: int, inner: int) -> Mixed:
    """Figure 6: 7×7 as 1×7 and 7×1."""
    return Mixed(
        before,
        {
            "branch1x1": (_Conv(192, 1, 1),),
            "branch7x7": (_Conv(inner, 1, 1), _Conv(inner, 1, 7), _Conv(192, 7, 1)),
            "branch7x7dbl": (
                _Conv(inner, 1, 1),
                _Conv(inner, 7, 1),
                _Conv(inner, 1, 7),
                _Conv(inner, 7, 1),
                _Conv(192, 1, 7),
            ),
        },
        192,
    )


def _mixed_7a(before: int) -> Mixed:
    """From stride 16 to 32."""
    return Mixed(
        before,
        {
            "branch3x3": (_Conv(192, 1, 1), _Conv(320, 3, 3, 2)),
            "branch7x7x3": (
                _Conv(192, 1, 1),
                _Conv(192, 1, 7),
                _Conv(192, 7, 1),
                _Conv(192, 3, 3, 2),
            ),
        },
        None,
    )


def _mixed_7(before: int) -> Mixed:
    """Figure 7: 1×3 and 3×1 side by side."""
    return Mixed(
        before,
        {
            "branch1x1": (_Conv(320, 1, 1),),
            "branch3x3": (_Conv(384, 1, 1), _Fork(384)),
            "branch3x3dbl": (_Conv(448, 1, 1), _Conv(384, 3, 3), _Fork(384)),
        },
        192,
    )


class AuxiliaryHead(nn.Module):
    """A second classifier halfway, which helps training and is not used afterwards.

    Args:
        before: channels that come in.
        outputs: width of the last layer.
    """

    def __init__(self, before: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = ConvNormReLU(before, 128, (1, 1))
        self.conv1 = ConvNormReLU(128, 768, (5, 5), padded=False)
        self.fc = nn.Linear(768, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×outputs. The published pooling leaves 5×5 positions of 17×17; of fewer,
        means over equal shares are taken, since the 5×5 convolution is not padded."""
        if min(x.shape[-2:]) < _AUXILIARY_SIDE:
            x = F.adaptive_avg_pool2d(x, 5)
        else:
            x = F.avg_pool2d(x, 5, 3)
        x = self.conv1(self.conv0(x))
        answer: Tensor = self.fc(x.mean((2, 3)))
        return answer


class InceptionV3(nn.Module):
    """A stem of plain convolutions, eleven mixed blocks at three resolutions, mean, linear.

    Nothing is padded where the resolution changes, so a level is smaller than size / stride.
    Levels: the ends of the three resolutions, at strides 1, 2, 4 behind the small stem and 8, 16,
    32 behind the large; before them two of the large stem, at 2 and 4.

    Args:
        channels: of the picture.
        outputs: width of the last layer.
        small: which stem.
        dropout: share of the last layer's inputs silenced in training.
        auxiliary: whether there is a second head.
    """

    features: tuple[FeatureInfo, ...]
    auxiliary_weight = 0.3
    """Of the second head's loss in the sum."""

    def __init__(
        self, channels: int, outputs: int, *, small: bool, dropout: float, auxiliary: bool
    ) -> None:
        super().__init__()
        scale = 1 if small else 8
        stem = (
            FeatureInfo(channels=64, stride=2, name="Conv2d_2b_3x3"),
            FeatureInfo(channels=192, stride=4, name="Conv2d_4a_3x3"),
        )
        self.features = (
            *(() if small else stem),
            FeatureInfo(channels=288, stride=scale, name="Mixed_5d"),
            FeatureInfo(channels=768, stride=2 * scale, name="Mixed_6e"),
            FeatureInfo(channels=2048, stride=4 * scale, name="Mixed_7c"),
        )
        three = (3, 3)
        first = 1 if small else 2
        self.Conv2d_1a_3x3 = ConvNormReLU(channels, 32, three, first, padded=small)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, three, padded=small)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, three)
        self.maxpool1 = nn.Identity() if small else nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, three, padded=small)
        self.maxpool2 = nn.Identity() if small else nn.MaxPool2d(3, 2)
        self.Mixed_5b = _mixed_5(192, 32)
        self.Mixed_5c = _mixed_5(self.Mixed_5b.after, 64)
        self.Mixed_5d = _mixed_5(self.Mixed_5c.after, 64)
        self.Mixed_6a = _mixed_6a(self.Mixed_5d.after)
        self.Mixed_6b = _mixed_6(self.Mixed_6a.after, 128)
        self.Mixed_6c = _mixed_6(self.Mixed_6b.after, 160)
        self.Mixed_6d = _mixed_6(self.Mixed_6c.after, 160)
        self.Mixed_6e = _mixed_6(self.Mixed_6d.after, 192)
        self.AuxLogits = AuxiliaryHead(self.Mixed_6e.after, outputs) if auxiliary else None
        self.Mixed_7a = _mixed_7a(self.Mixed_6e.after)
        self.Mixed_7b = _mixed_7(self.Mixed_7a.after)
        self.Mixed_7c = _mixed_7(self.Mixed_7b.after)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.Mixed_7c.after, outputs)
        initialise(self, "relu")

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        first = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        second = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(first)))
        fifth = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(second))))
        sixth = self.Mixed_6a(fifth)
        for block in (self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e):
            sixth = block(sixth)
        seventh = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(sixth)))
        return (first, second, fifth, sixth, seventh)[-len(self.features) :]

    def forward_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the outputs and, where there is a second head, its outputs; B×outputs each."""
        levels = self.forward_features(x)
        main = self._answer(levels[-1])
        return (main,) if self.AuxLogits is None else (main, self.AuxLogits(levels[-2]))

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs."""
        return self._answer(self.forward_features(x)[-1])

    def _answer(self, level: Tensor) -> Tensor:
        """The last level → B×outputs."""
        answer: Tensor = self.fc(self.dropout(self.flatten(self.avgpool(level))))
        return answer


def inception_v3(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    stem: Stem = "auto",
    dropout: float = 0.5,
    auxiliary: bool = True,
) -> nn.Module:
    """Inception-v3: 27,161,264 parameters at 3 channels and 1000 outputs, of which the auxiliary
    head has 3,326,696; 5.713 GMAC at 299×299.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels; 299×299 was published.
        outputs: width of the last layer.
        stem: small keeps the resolution, large divides it by 8; auto is small below the 75 pixels
            of the shorter side that the large one takes. The weights are of one shape, so
            published ones load into both.
        dropout: share of the last layer's inputs silenced in training.
        auxiliary: whether there is a second head, of which training makes use.

    Raises:
        ConfigError: pictures too small for the stem, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_share(dropout=dropout)
    small = takes_small_stem(stem, size, up_to=_SMALLEST - 1)
    name = f"inception_v3 with the {'small' if small else 'large'} stem"
    check_size(name, size, _SMALLEST_SMALL if small else _SMALLEST)
    return InceptionV3(channels, outputs, small=small, dropout=dropout, auxiliary=auxiliary)
