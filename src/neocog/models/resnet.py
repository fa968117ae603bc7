"""Residual networks. Floor 2, room models.

He, Zhang, Ren, Sun 2015, arXiv 1512.03385. Parameter names and shapes are those of the widely
published weights (conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, …, fc), so that those load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from neocog.models.blocks import (
    RANKED,
    Dims,
    Ranked,
    Stem,
    check_at_least,
    check_size,
    ranked,
    takes_small_stem,
)
from neocog.models.recompute import Recomputed
from neocog.records import FeatureInfo
from neocog.rewriting import InOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
_Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input is added: relu(x + F(x)).

    Where the stride or the width changes, a 1×1 convolution brings x to the shape of F(x)
    (option B of the paper).
    """

    expansion: ClassVar[int] = 1
    """Output channels / width."""

    def __init__(self, before: int, width: int, stride: int, layers: Ranked = RANKED[2]) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = layers.conv(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = layers.norm(width)
        self.relu1 = nn.ReLU()
        self.conv2 = layers.conv(width, after, 3, padding=1, bias=False)
        self.bn2 = layers.norm(after)
        self.relu2 = nn.ReLU()
        self.downsample = _shortcut(before, after, stride, layers)

    @property
    def last_norm(self) -> _Norm:
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

    def __init__(self, before: int, width: int, stride: int, layers: Ranked = RANKED[2]) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = layers.conv(before, width, 1, bias=False)
        self.bn1 = layers.norm(width)
        self.relu1 = nn.ReLU()
        self.conv2 = layers.conv(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = layers.norm(width)
        self.relu2 = nn.ReLU()
        self.conv3 = layers.conv(width, after, 1, bias=False)
        self.bn3 = layers.norm(after)
        self.relu3 = nn.ReLU()
        self.downsample = _shortcut(before, after, stride, layers)

    @property
    def last_norm(self) -> _Norm:
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


def _shortcut(before: int, after: int, stride: int, layers: Ranked) -> nn.Sequential | None:
    """The 1×1 projection around a block, or None where shapes agree."""
    if stride == 1 and before == after:
        return None
    return nn.Sequential(
        layers.conv(before, after, 1, stride, bias=False),
        layers.norm(after),
    )


def _blocks(
    block: _Block, depth: int, before: int, width: int, stride: int, layers: Ranked
) -> list[nn.Module]:
    """`depth` blocks, of which the first changes resolution and width."""
    first = block(before, width, stride, layers)
    return [first, *(block(width * block.expansion, width, 1, layers) for _ in range(depth - 1))]


class ResNet(InOrder):
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
        layers: of the rank of the samples.
        row: puts the blocks of a stage one after the other.
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
        layers: Ranked = RANKED[2],
        row: type[nn.Sequential] = nn.Sequential,
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
        self.conv1 = layers.conv(channels, first, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = layers.norm(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small else layers.max(3, 2, padding=1)
        wide = [width * block.expansion for width in _WIDTHS]
        self.layer1 = row(*_blocks(block, depths[0], first, _WIDTHS[0], 1, layers))
        self.layer2 = row(*_blocks(block, depths[1], wide[0], _WIDTHS[1], 2, layers))
        self.layer3 = row(*_blocks(block, depths[2], wide[1], _WIDTHS[2], 2, layers))
        self.layer4 = row(*_blocks(block, depths[3], wide[2], _WIDTHS[3], 2, layers))
        self.avgpool = layers.mean(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(_WIDTHS[3] * block.expansion, outputs)
        self._initialise(zero_init)

    def _initialise(self, zero_init: bool) -> None:
        """He's normal by fan-out (arXiv 1502.01852). With `zero_init` the last γ of every block is
        0: at first a block is the identity (Goyal et al. 2017, arXiv 1706.02677)."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
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

    def in_order(self) -> Iterable[nn.Module]:
        """The stem, the stages, the mean over the picture, the linear layer."""
        stem = self.conv1, self.bn1, self.relu, self.maxpool
        stages = self.layer1, self.layer2, self.layer3, self.layer4
        return *stem, *stages, self.avgpool, self.flatten, self.fc


def _factory(
    name: str, block: _Block, depths: tuple[int, int, int, int]
) -> Callable[..., nn.Module]:
    """The factory of one depth."""

    def resnet(
        *,
        channels: int,
        size: tuple[int, ...],
        outputs: int,
        dims: Dims | None = None,
        stem: Stem = "auto",
        zero_init: bool = False,
        checkpoint_blocks: bool = False,
    ) -> nn.Module:
        """A residual network.

        Args:
            channels: 1 for grey, 3 for RGB.
            size: height and width in pixels; the length of signals; depth, height and width of
                volumes.
            outputs: width of the last layer.
            dims: sides of a sample; None: as many as `size` has.
            stem: small keeps the resolution (3×3, stride 1), large divides it by 4 (7×7, stride 2,
                then max pooling); auto is small up to 64 pixels of the shorter side.
            zero_init: start every block as the identity.
            checkpoint_blocks: keep only what comes into each block for the backward pass, and
                compute the rest again there: far less memory, some third more time.

        Raises:
            ConfigError: pictures too small for the stem, or a value out of range.
        """
        check_at_least(1, channels=channels, outputs=outputs)
        layers = ranked(size, dims)
        small = takes_small_stem(stem, size)
        # Below one pixel of the coarsest map, the last stages would see padding only.
        check_size(
            f"{name} with the {'small' if small else 'large'} stem", size, 8 if small else 32
        )
        return ResNet(
            block,
            depths,
            channels=channels,
            outputs=outputs,
            small=small,
            zero_init=zero_init,
            layers=layers,
            row=Recomputed if checkpoint_blocks else nn.Sequential,
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
