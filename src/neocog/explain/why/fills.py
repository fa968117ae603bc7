"""What a part of a picture is replaced by when it is hidden. Floor 1, explain.

Imports floor 0, torch, and `analysis`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neocog.analysis.remark import times
from neocog.errors import ConfigError, near

__all__ = ["Fill", "blurred", "filling"]

Fill = float | Tensor | Literal["mean", "blur"]
"""A number for all pixels, a picture that broadcasts, each channel's mean over the picture, or the
picture itself without its details."""


def filling(x: Tensor, fill: Fill) -> Tensor:
    """What stands where pictures are hidden, B×C×H×W.

    Args:
        x: B×C×H×W.
        fill: what to take; "blur" is a Gaussian with a standard deviation of an eighth of the
            longer side.

    Raises:
        ConfigError: no such fill, or a picture of another size.
    """
    if isinstance(fill, str):
        if fill == "mean":
            return x.mean((2, 3), keepdim=True).expand_as(x)
        if fill == "blur":
            return blurred(x, max(x.shape[2:]) / 8)
        raise ConfigError(f"no fill is called {fill!r}", near(fill, ("mean", "blur")))
    given = torch.as_tensor(fill, dtype=x.dtype, device=x.device)
    try:
        return given.detach().expand_as(x)
    except RuntimeError:
        raise ConfigError(
            f"expected a fill that broadcasts to {times(x.shape)}, found {times(given.shape)}",
            "give a number, or a picture of the same size",
        ) from None


def blurred(x: Tensor, deviation: float) -> Tensor:
    """Pictures seen through a Gaussian, cut off at four deviations; past the edge the edge goes on.

    Args:
        x: B×C×H×W.
        deviation: standard deviation in pixels, above 0.
    """
    radius = math.ceil(4 * deviation)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2).to(x)
    line = line / line.sum()
    count = x.shape[1]
    high = line.reshape(1, 1, -1, 1).expand(count, -1, -1, -1)
    wide = line.reshape(1, 1, 1, -1).expand(count, -1, -1, -1)
    x = F.conv2d(F.pad(x, [0, 0, radius, radius], mode="replicate"), high, groups=count)
    return F.conv2d(F.pad(x, [radius, radius, 0, 0], mode="replicate"), wide, groups=count)
