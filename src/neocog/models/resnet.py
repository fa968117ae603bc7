"""Residual networks. Floor 2, room models.

He, Zhang, Ren, Sun 2015, arXiv 1512.03385. Parameter names and shapes are those of the widely
published weights (conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, …, fc), so that those load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from neocog.models.blocks import Stem, check_at_least, check_size, takes_small_stem
from neocog.records import FeatureInfo

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]

_WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input is added: relu(x + F(x)).

    Where the stride or the width changes, a 1×1 convolution brings x to the shape of F(x)
    (option B of the paper).
    """

    expansion: ClassVar[int] = 1
    """Output channels / width."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        self.downsample = _shortcut(before, after, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm before the sum."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×width×(H/stride)×(W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        answer: Tensor = self.relu2(y + shortcut)
        return answer


class Bottleneck(nn.Module):
    """A 1×1 convolution narrows, a 3×3 filters, a 1×1 widens; the input is added: relu(x + F(x)).

    The 3×3 has the stride, as in the published weights ("version 1.5"); in the paper the first 1×1
    has it, which skips three quarters of the picture.
    """

    expansion: ClassVar[int] = 4
    """Output channels / width."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu3 = nn.ReLU()
        self.downsample = _shortcut(before, after, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm before the sum."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×4·width×(H/stride)×(W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        answer: Tensor = self.relu3(y + shortcut)
        return answer


_Block = type[BasicBlock] | type[Bottleneck]


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential | None:
    """The 1×1 projection around a block, or None where shapes agree."""
    if stride == 1 and before == after:
        return None
    return nn.Sequential(
        nn.Conv2d(before, after, 1, stride, bias=False),
        nn.BatchNorm2d(after),
    )


def _stage(block: _Block, depth: int, before: int, width: int, stride: int) -> nn.Sequential:
    """`depth` blocks, of which the first changes resolution and width."""
    first = block(before, width, stride)
    return nn.Sequential(
        first, *(block(width * block.expansion, width, 1) for _ in range(depth - 1))
    )


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, the mean over the picture, and a linear layer.

    Levels: the stages, at strides 1, 2, 4, 8 behind the small stem (3×3, stride 1) and 4, 8, 16, 32
    behind the large (7×7, stride 2, then max pooling); the large stem itself is a level of
    stride 2 before them.

    Args:
        block: the kind of residual block.
        depths: blocks in each stage.
        channels: of the picture.
        outputs: width of the last layer.
        small: which stem.
        zero_init: start every block as the identity.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(
        self,
        block: _Block,
        depths: tuple[int, int, int, int],
        *,
        channels: int,
        outputs: int,
        small: bool,
        zero_init: bool,
    ) -> None:
        super().__init__()
        first = _WIDTHS[0]
        stem = FeatureInfo(channels=first, stride=2, name="relu")
        stages = tuple(
            FeatureInfo(
                channels=width * block.expansion,
                stride=(1 if small else 4) * 2**index,
                name=f"layer{index + 1}",
            )
            for index, width in enumerate(_WIDTHS)
        )
        self.features = stages if small else (stem, *stages)
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(channels, first, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(block, depths[0], first, _WIDTHS[0], 1)
        self.layer2 = _stage(block, depths[1], _WIDTHS[0] * block.expansion, _WIDTHS[1], 2)
        self.layer3 = _stage(block, depths[2], _WIDTHS[1] * block.expansion, _WIDTHS[2], 2)
        self.layer4 = _stage(block, depths[3], _WIDTHS[2] * block.expansion, _WIDTHS[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(_WIDTHS[3] * block.expansion, outputs)
        self._initialise(zero_init)

    def _initialise(self, zero_init: bool) -> None:
        """He's normal by fan-out (arXiv 1502.01852). With `zero_init` the last γ of every block is
        0: at first a block is the identity (Goyal et al. 2017, arXiv 1706.02677)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init and isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        stem = self.relu(self.bn1(self.conv1(x)))
        x = self.maxpool(stem)
        levels = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            levels.append(x)
        return (stem, *levels)[-len(self.features) :]

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs."""
        answer: Tensor = self.fc(self.flatten(self.avgpool(self.forward_features(x)[-1])))
        return answer


def _factory(
    name: str, block: _Block, depths: tuple[int, int, int, int]
) -> Callable[..., nn.Module]:
    """The factory of one depth."""

    def resnet(
        *,
        channels: int,
        size: tuple[int, int],
        outputs: int,
        stem: Stem = "auto",
        zero_init: bool = False,
    ) -> nn.Module:
        """A residual network.

        Args:
            channels: 1 for grey, 3 for RGB.
            size: height and width in pixels.
            outputs: width of the last layer.
            stem: small keeps the resolution (3×3, stride 1), large divides it by 4 (7×7, stride 2,
                then max pooling); auto is small up to 64 pixels of the shorter side.
            zero_init: start every block as the identity.

        Raises:
            ConfigError: pictures too small for the stem, or a value out of range.
        """
        check_at_least(1, channels=channels, outputs=outputs)
        small = takes_small_stem(stem, size)
        # Below one pixel of the coarsest map, the last stages would see padding only.
        check_size(
            f"{name} with the {'small' if small else 'large'} stem", size, 8 if small else 32
        )
        return ResNet(
            block, depths, channels=channels, outputs=outputs, small=small, zero_init=zero_init
        )

    resnet.__name__ = resnet.__qualname__ = name
    return resnet


resnet18 = _factory("resnet18", BasicBlock, (2, 2, 2, 2))
"""11,689,512 parameters at 3 channels and 1000 outputs with the large stem; 1.814 GMAC at
224×224."""
resnet34 = _factory("resnet34", BasicBlock, (3, 4, 6, 3))
"""21,797,672 parameters; 3.664 GMAC."""
resnet50 = _factory("resnet50", Bottleneck, (3, 4, 6, 3))
"""25,557,032 parameters; 4.089 GMAC."""
resnet101 = _factory("resnet101", Bottleneck, (3, 4, 23, 3))
"""44,549,160 parameters; 7.801 GMAC."""
resnet152 = _factory("resnet152", Bottleneck, (3, 8, 36, 3))
"""60,192,808 parameters; 11.514 GMAC."""
