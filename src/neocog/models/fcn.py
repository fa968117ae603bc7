"""FCN: a classifier slid over the picture, its answers scaled up. Floor 2, room models.

Long, Shelhamer, Darrell 2014, arXiv 1411.4038. The linear layers of VGG-16 are convolutions here,
so that it answers at every position; what it answers is scaled up by transposed convolutions, and
corrected by what finer stages see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from neocog.models.blocks import Norm, check_at_least, check_share, check_size, initialise
from neocog.models.pixelwise import cut, levels_of
from neocog.models.vgg import VGG16Trunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.records import FeatureInfo

__all__ = ["FCN", "bilinear", "bilinear_upsampling", "fcn8s", "fcn16s", "fcn32s"]

_SMALLEST = 16
"""Pixels that leave one position after five halvings, rounded up, and more than one to the last
convolutions."""


def bilinear(factor: int) -> Tensor:
    """The kernel by which a transposed convolution of this stride interpolates linearly along both
    axes: 2·factor × 2·factor.

    >>> bilinear(2)[0].tolist()
    [0.0625, 0.1875, 0.1875, 0.0625]
    """
    line = 1 - (torch.arange(2 * factor) - factor + 0.5).abs() / factor
    return line[:, None] * line[None, :]


def bilinear_upsampling(maps: int, factor: int) -> nn.ConvTranspose2d:
    """B×maps×H×W → B×maps×(factor·H)×(factor·W): at first bilinear interpolation, each map by
    itself; the border fades towards 0 over half a step.

    Args:
        maps: that come in and go out.
        factor: even.
    """
    layer = nn.ConvTranspose2d(maps, maps, 2 * factor, factor, factor // 2, bias=False)
    with torch.no_grad():
        nn.init.zeros_(layer.weight)
        if not layer.weight.is_meta:
            layer.weight[range(maps), range(maps)] = bilinear(factor)
    return layer


class FCN(nn.Module):
    """VGG-16 without its last linear layer, scores of several stages, and the way back up.

    The paper pads the picture by 100 pixels, so that any size has an answer, and cuts the answer
    out. Here halvings round up and the 7×7 convolution is padded by 3, with the same effect at less
    cost: position j of a map of stride s stands for pixels s·j to s·j + s − 1, and cutting the
    lower right off what was scaled up keeps it so.

    Levels: the stages of VGG-16, before pooling.

    Args:
        channels: 1 for grey, 3 for RGB.
        outputs: maps that go out.
        stride: of the finest scores: 32, 16 or 8.
        width: channels of the first stage.
        batch_norm: after each convolution of the trunk.
        hidden: width of the two layers that were linear.
        dropout: share of their outputs silenced in training.
    """

    features: tuple[FeatureInfo, ...]
    former: ClassVar = {"classifier.0": "fc6", "classifier.3": "fc7"}
    """Linear layers of VGG-16 → the convolutions that they are here."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        stride: int,
        width: int,
        batch_norm: bool,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        norm: Norm = "batch" if batch_norm else "none"
        self.backbone = VGG16Trunk(channels, norm=norm, width=width)
        self.features = levels_of(self.backbone)
        widths = self.backbone.widths
        self.fc6 = nn.Conv2d(widths[-1], hidden, 7, padding=3)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(dropout)
        # Coarse to fine: the last stage's scores, then what each finer stage adds to them.
        finer = {32: (), 16: (widths[3],), 8: (widths[3], widths[2])}[stride]
        self.doublings = nn.ModuleList(bilinear_upsampling(outputs, 2) for _ in finer)
        self.upsampling = bilinear_upsampling(outputs, stride)
        self.upsampling.weight.requires_grad_(False)
        skips = [nn.Conv2d(width, outputs, 1) for width in finer]
        self.skips = nn.ModuleList(skips)
        self.score = nn.Conv2d(hidden, outputs, 1)
        initialise(self, "relu")
        for skip in skips:
            nn.init.zeros_(skip.weight)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        return self.backbone.forward_features(x)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs×H×W."""
        height, width = x.shape[-2], x.shape[-1]
        _, pooled, _ = self.backbone(x)
        x = self.drop6(self.relu6(self.fc6(pooled[4])))
        x = self.score(self.drop7(self.relu7(self.fc7(x))))
        for double, skip, finer in zip(self.doublings, self.skips, pooled[3:1:-1], strict=False):
            x = cut(double(x), finer.shape[-2], finer.shape[-1]) + skip(finer)
        return cut(self.upsampling(x), height, width)


def _factory(name: str, stride: int) -> Callable[..., nn.Module]:
    """The factory for one stride of the finest scores."""

    def fcn(
        *,
        channels: int,
        size: tuple[int, int],
        outputs: int,
        width: int = 64,
        batch_norm: bool = True,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> nn.Module:
        """A fully convolutional network on VGG-16.

        The last scaling stays bilinear, as in the paper: its kernels are not learnt. The scores of
        finer stages begin at zero, so that the network begins as the coarser one.

        Args:
            channels: 1 for grey, 3 for RGB.
            size: height and width in pixels of training crops; it answers for pictures of any size.
            outputs: maps that go out, one a class.
            width: channels of the first stage; the third and coarser have four and eight times as
                many.
            batch_norm: after each convolution of the trunk. The paper had none, but began with
                weights of a classifier; from nothing, it learns with it only. With a width
                of 64, the trunk takes over weights of vgg16_bn with it, and of vgg16 without.
            hidden: width of the two layers that were linear.
            dropout: share of their outputs silenced in training.

        Raises:
            ConfigError: pictures too small, or a value out of range.
        """
        check_at_least(1, channels=channels, outputs=outputs, width=width, hidden=hidden)
        check_share(dropout=dropout)
        check_size(name, size, _SMALLEST)
        return FCN(
            channels,
            outputs,
            stride=stride,
            width=width,
            batch_norm=batch_norm,
            hidden=hidden,
            dropout=dropout,
        )

    fcn.__name__ = fcn.__qualname__ = name
    return fcn


fcn32s = _factory("fcn32s", 32)
"""136,152,917 parameters at 3 channels and 21 outputs without batch norm."""
fcn16s = _factory("fcn16s", 16)
"""With scores of the fourth stage: 134,815,994 parameters."""
fcn8s = _factory("fcn8s", 8)
"""And of the third: 134,489,759 parameters at 3 channels and 21 outputs without batch norm."""
