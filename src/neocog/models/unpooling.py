"""The way back up by remembered positions, which SegNet and DeconvNet share. Floor 2, room models.

Imports torch and this room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neocog.models.blocks import initialise
from neocog.models.pixelwise import initialise_transposed, row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.models.blocks import Norm

__all__ = ["SMALLEST", "UnpoolingDecoder"]

SMALLEST = 16
"""Pixels that leave more than one position to the last convolutions of five stages."""


class UnpoolingDecoder(nn.Module):
    """The mirror image of an encoder: at each stage every value returns to where the maximum stood,
    zeros elsewhere (Zeiler, Taylor, Fergus 2011), and 3×3 convolutions make a dense map of it.

    Args:
        widths: channels of the encoder's stages, finest first; a stage ends with those of the next
            finer one, the finest with its own.
        depths: convolutions of each stage, finest first.
        norm: after each convolution.
        kind: of convolution.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        norm: Norm,
        kind: type[nn.Conv2d | nn.ConvTranspose2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        stages = []
        for width, finer, depth in zip(widths, (widths[0], *widths), depths, strict=False):
            layers: list[nn.Module] = []
            for index in range(depth):
                after = width if index < depth - 1 else finer
                layers += row(width, after, norm, kind=kind)
            stages.append(nn.Sequential(*layers))
        self.unpool = nn.ModuleList(nn.MaxUnpool2d(2) for _ in stages)
        self.stages = nn.ModuleList(reversed(stages))

    def initialise(self) -> None:
        """First weights as `blocks.initialise` and `initialise_transposed` draw them, and twice as
        large behind an unpooling, where three of four inputs are zero."""
        initialise(self, "relu")
        initialise_transposed(self, rectified=True)
        for stage in self.stages:
            first = next(stage.children())
            assert isinstance(first, nn.Conv2d | nn.ConvTranspose2d)
            with torch.no_grad():
                first.weight.mul_(2)

    def forward(self, x: Tensor, levels: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
        """The coarsest maps → B×widths[0]×H×W.

        Args:
            x: B×widths[-1]×H'×W'.
            levels: of the encoder before pooling, finest first: their sizes come back.
            places: of the maxima in them.
        """
        finer = zip(reversed(levels), reversed(places), strict=True)
        for unpool, stage, (level, place) in zip(self.unpool, self.stages, finer, strict=True):
            x = stage(unpool(x, place, (level.shape[-2], level.shape[-1])))
        return x
