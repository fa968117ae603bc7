"""What torch.nn lacks. Floor 1; imports floor 0 and torch.

`Predictor` is the one way from pixels to an answer: evaluation, prediction, explanation, export
and serving all call it, so that none of them can preprocess differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.geometry import MARGIN, covering_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.records import InputSpec

__all__ = ["MARGIN", "Fit", "Normalize", "Predictor", "covering_size"]


class Fit(nn.Module):
    """Scale (bilinear, antialiased) and crop in the centre, to the network's input size.

    Pictures of the right size pass untouched. B×C×h×w uint8 → B×C×H×W uint8.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """B×C×h×w uint8 → B×C×H×W uint8."""
        current = (int(images.shape[-2]), int(images.shape[-1]))
        if current == self.size:
            return images
        cover = covering_size(current, self.size)
        if cover != current:
            scaled = F.interpolate(
                images.float(), size=cover, mode="bilinear", antialias=True, align_corners=False
            )
            images = scaled.round_().clamp_(0, 255).to(torch.uint8)
        top = (cover[0] - self.size[0]) // 2
        left = (cover[1] - self.size[1]) // 2
        return images[..., top : top + self.size[0], left : left + self.size[1]]


class Normalize(nn.Module):
    """(x / 255 − mean) / std per channel; uint8 or float in 0…255 units → float32.

    Args:
        mean: per channel, in units of 0…1.
        std: per channel, in units of 0…1.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        shape = (1, len(mean), 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape) * 255, persistent=False)
        self.register_buffer("scale", 1 / (torch.tensor(std).view(shape) * 255), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """B×C×H×W → B×C×H×W float32."""
        return (images.float() - self.mean) * self.scale


class Predictor(nn.Module):
    """From raw pictures to answers: fit, normalise, network, decode; always fp32, always eval.

    Args:
        network: B×C×H×W float32 → outputs. Put into evaluation mode by whoever owns it.
        input: size and normalisation.
        decode: outputs → probabilities or numbers, from the task.
    """

    def __init__(
        self, network: nn.Module, input: InputSpec, decode: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.input = input
        self.fit = Fit(input.size)
        self.normalize = Normalize(input.mean, input.std)
        self.network = network
        self.decode = decode

    def outputs(self, images: Tensor) -> Tensor:
        """B×C×h×w uint8 → what the network gives, before it is decoded (B×K).

        Raises:
            ValueError: not uint8, not four axes, or another number of channels.
        """
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(
                f"expected uint8 B×C×H×W, got {images.dtype} with shape {tuple(images.shape)}"
            )
        if images.shape[1] != self.input.channels:
            raise ValueError(
                f"the network takes {self.input.channels} channel(s), got {images.shape[1]}"
            )
        result: Tensor = self.network(self.normalize(self.fit(images)))
        return result

    def forward(self, images: Tensor) -> Tensor:
        """B×C×h×w uint8 → B×K probabilities, or numbers in the target's units."""
        return self.decode(self.outputs(images))
