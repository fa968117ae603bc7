"""What happens to values, not places: blur, colour, noise.

Floor 1, room data; imports `draws` and torch.

All images are float32 B×C×H×W in 0…255 units, all strengths one number for each sample. Nothing is
clamped here: the caller does that once, at the end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from neocog.data import draws

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["add_noise", "blur", "recolor"]


def blur(images: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur, separable, with each picture's own width; the edge is repeated outwards.

    The kernel reaches 3·`largest` for every picture: it must not depend on who else is in the
    batch. σ = 0 is the identity, bit for bit.

    Args:
        images: B×C×H×W float32.
        sigma: B, float32, in pixels.
        largest: bound of σ.
    """
    radius = max(1, math.ceil(3 * largest))
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    taps = torch.exp(-0.5 * (steps / sigma.clamp(min=1e-3)[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)
    pixels = images.permute(0, 2, 3, 1)
    for axis in (1, 2):
        side = pixels.shape[axis]
        source = torch.arange(-radius, side + radius, device=images.device).clamp(0, side - 1)
        padded = pixels.index_select(axis, source)
        pixels = padded.narrow(axis, 0, side) * taps[:, 0, None, None, None]
        for k in range(1, 2 * radius + 1):
            pixels.addcmul_(padded.narrow(axis, k, side), taps[:, k, None, None, None])
    return pixels.permute(0, 3, 1, 2)


def recolor(images: Tensor, contrast: Tensor, shift: Tensor) -> Tensor:
    """x → mean + contrast · (x − mean) + shift, with the mean over the whole picture.

    Args:
        images: B×C×H×W float32.
        contrast: B, factors ≥ 0.
        shift: B×C, in 0…255 units.
    """
    mean = images.mean(dim=(1, 2, 3))
    offset = (mean * (1 - contrast))[:, None] + shift
    return torch.addcmul(offset[:, :, None, None], images, contrast[:, None, None, None])


def add_noise(images: Tensor, sigma: Tensor, key: int, ids: Tensor) -> Tensor:
    """Independent Gaussian noise for each pixel and channel, from (key, id, pixel).

    Args:
        images: B×C×H×W float32.
        sigma: B, in 0…255 units.
        key: what the draw is for.
        ids: B, int64.
    """
    batch, channels, height, width = images.shape
    values = draws.normals(key, ids, height * width * channels)
    noise = values.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return torch.addcmul(images, noise, sigma[:, None, None, None])
