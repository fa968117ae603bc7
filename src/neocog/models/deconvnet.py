"""DeconvNet: a classifier and its mirror image. Floor 2, room models.

Noh, Hong, Han 2015, arXiv 1505.04366: VGG-16 down to one vector for 224×224 pixels, and back up by
unpooling to remembered positions and transposed convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.models.blocks import Norm, check_at_least, check_size, initialise, norm_layer
from neocog.models.pixelwise import cut, initialise_transposed, levels_of
from neocog.models.unpooling import SMALLEST, UnpoolingDecoder
from neocog.models.vgg import VGG16Trunk

if TYPE_CHECKING:
    from neocog.records import FeatureInfo

__all__ = ["DeconvNet", "deconvnet"]

_WINDOW = 7
"""Side of the maps that the layer that was linear takes, and that its mirror image gives."""


class DeconvNet(nn.Module):
    """VGG-16 with its linear layers as convolutions, and all of it mirrored.

    The 7×7 convolution is not padded, and its mirror image undoes what it loses; maps smaller than
    7×7 are padded with zeros between the two.

    Levels: the stages of VGG-16, before pooling.

    Args:
        channels: 1 for grey, 3 for RGB.
        outputs: maps that go out.
        width: channels of the first stage.
        hidden: width of the two layers that were linear.
        norm: after each convolution but the last.
    """

    features: tuple[FeatureInfo, ...]
    former: ClassVar = {"classifier.0": "fc6.0", "classifier.3": "fc7.0"}
    """Linear layers of VGG-16 → the convolutions that they are here."""

    def __init__(self, channels: int, outputs: int, *, width: int, hidden: int, norm: Norm) -> None:
        super().__init__()
        self.backbone = VGG16Trunk(channels, norm=norm, width=width)
        self.features = levels_of(self.backbone)
        widths = self.backbone.widths
        self.fc6 = _layer(nn.Conv2d, widths[-1], hidden, _WINDOW, norm)
        self.fc7 = _layer(nn.Conv2d, hidden, hidden, 1, norm)
        self.defc6 = _layer(nn.ConvTranspose2d, hidden, widths[-1], _WINDOW, norm)
        self.decoder = UnpoolingDecoder(widths, (2, 2, 3, 3, 3), norm, nn.ConvTranspose2d)
        self.score = nn.Conv2d(width, outputs, 1)
        initialise(self, "relu")
        initialise_transposed(self.defc6, rectified=True)
        self.decoder.initialise()

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        return self.backbone.forward_features(x)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs×H×W."""
        levels, pooled, places = self.backbone(x)
        coarsest = pooled[-1]
        x = self.defc6(self.fc7(self.fc6(_at_least(coarsest, _WINDOW))))
        x = cut(x, coarsest.shape[-2], coarsest.shape[-1])
        answer: Tensor = self.score(self.decoder(x, levels, places))
        return answer


def _layer(
    kind: type[nn.Conv2d | nn.ConvTranspose2d], before: int, after: int, kernel: int, norm: Norm
) -> nn.Sequential:
    """Convolution without padding, norm, ReLU."""
    normed = norm_layer(norm, after)
    middle = [] if normed is None else [normed]
    return nn.Sequential(kind(before, after, kernel, bias=norm == "none"), *middle, nn.ReLU())


@torch.fx.wrap
def _at_least(x: Tensor, side: int) -> Tensor:
    """B×C×H×W with zeros to the right and below, where it is smaller than `side`."""
    if torch.compiler.is_exporting():  # sizes are symbols, which must not be compared
        down, right = (torch.sym_max(0, side - x.shape[axis]) for axis in (-2, -1))  # type: ignore[no-untyped-call]
        return F.pad(x, (0, right, 0, down))
    missing = max(0, side - x.shape[-2]), max(0, side - x.shape[-1])
    return F.pad(x, (0, missing[1], 0, missing[0])) if any(missing) else x


def deconvnet(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    width: int = 64,
    hidden: int = 4096,
    norm: Norm = "batch",
) -> nn.Module:
    """DeconvNet: 251,793,173 parameters at 3 channels and 21 outputs.

    Halvings round up, so that pictures of any size come back as large as they were.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels of training crops; it answers for pictures of any size.
        outputs: maps that go out, one a class.
        width: channels of the first stage; the third and coarser have four and eight times as many.
            With 64, the trunk takes over weights of vgg16_bn, or of vgg16 without norm.
        hidden: width of the two layers that were linear.
        norm: after each convolution.

    Raises:
        ConfigError: pictures too small, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width, hidden=hidden)
    norm_layer(norm, 1)
    check_size("deconvnet", size, SMALLEST)
    return DeconvNet(channels, outputs, width=width, hidden=hidden, norm=norm)
