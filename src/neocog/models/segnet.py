"""SegNet: there and back with few weights. Floor 2, room models.

Badrinarayanan, Kendall, Cipolla 2015, arXiv 1511.00561: the convolutions of VGG-16, and their
mirror image behind poolings that are undone by remembered positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from neocog.models.blocks import Norm, check_at_least, check_size, initialise, norm_layer
from neocog.models.pixelwise import levels_of
from neocog.models.unpooling import SMALLEST, UnpoolingDecoder
from neocog.models.vgg import VGG16Trunk

if TYPE_CHECKING:
    from neocog.records import FeatureInfo

__all__ = ["SegNet", "segnet"]


class SegNet(nn.Module):
    """VGG-16's thirteen convolutions, twelve on the way back, and a thirteenth for the classes.

    Levels: the stages of VGG-16, before pooling.

    Args:
        channels: 1 for grey, 3 for RGB.
        outputs: maps that go out.
        width: channels of the first stage.
        norm: after each convolution but the last.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(self, channels: int, outputs: int, *, width: int, norm: Norm) -> None:
        super().__init__()
        self.backbone = VGG16Trunk(channels, norm=norm, width=width)
        self.features = levels_of(self.backbone)
        self.decoder = UnpoolingDecoder(self.backbone.widths, (1, 2, 3, 3, 3), norm)
        self.score = nn.Conv2d(width, outputs, 3, padding=1)
        initialise(self, "relu")
        self.decoder.initialise()

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        return self.backbone.forward_features(x)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs×H×W."""
        levels, pooled, places = self.backbone(x)
        answer: Tensor = self.score(self.decoder(pooled[-1], levels, places))
        return answer


def segnet(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    width: int = 64,
    norm: Norm = "batch",
) -> nn.Module:
    """SegNet: 29,451,413 parameters at 3 channels and 21 outputs.

    Halvings round up, so that pictures of any size come back as large as they were.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels of training crops; it answers for pictures of any size.
        outputs: maps that go out, one a class.
        width: channels of the first stage; the third and coarser have four and eight times as many.
            With 64, the trunk takes over weights of vgg16_bn, or of vgg16 without norm.
        norm: after each convolution.

    Raises:
        ConfigError: pictures too small, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width)
    norm_layer(norm, 1)
    check_size("segnet", size, SMALLEST)
    return SegNet(channels, outputs, width=width, norm=norm)
