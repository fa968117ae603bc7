"""A picture that can be climbed on, and what is done to it on the way. Floor 1, explain; imports
floor 0, NumPy, torch and `analysis`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from neocog import chance
from neocog.analysis.normal import normal
from neocog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Canvas", "moved", "variation"]

_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Root of the covariance of colours in ImageNet: from decorrelated ones to red, green, blue (Olah,
Mordvintsev and Schubert 2017, their library lucid)."""
_FAINT = 0.01
"""Deviation of the noise that the climb begins with, of pixels 0 … 1 (or of the network's own)."""


class Canvas:
    """A picture by its pixels or its frequencies, within what a picture can hold.

    Args:
        size: C×H×W.
        mean: of pixels 0 … 1 that the network's input is normalised with; None: no bounds are
            known, and the picture has none.
        std: their deviation.
        fourier: by frequencies.
        seed: of the faint noise that it begins with.
        device: where it is computed.

    Raises:
        ConfigError: mean and deviation that are not one for each channel.
    """

    def __init__(
        self,
        size: Sequence[int],
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        *,
        fourier: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        channels, self._high, self._wide = size
        self._norm: tuple[Tensor, Tensor] | None = None
        if mean is not None and std is not None:
            if not len(mean) == len(std) == channels or not all(one > 0 for one in std):
                raise ConfigError(
                    f"expected a mean and a deviation above 0 for each of {channels} channels, "
                    f"found {tuple(mean)} and {tuple(std)}"
                )
            both = (torch.tensor(one, dtype=torch.float32, device=device) for one in (mean, std))
            first, second = (one.view(-1, 1, 1) for one in both)
            self._norm = (first, second)
        elif (mean is None) != (std is None):
            raise ConfigError("expected both the mean and the deviation of pixels, found one")
        noise = torch.from_numpy(normal((1, *size), chance.key(seed, "canvas"))).to(device)
        self._fourier = fourier
        # A sigmoid is a quarter as steep as what goes in.
        faint = _FAINT * (4 if fourier and self._norm else 1)
        if fourier:
            down = torch.fft.fftfreq(self._high, device=device)[:, None]
            across = torch.fft.rfftfreq(self._wide, device=device)
            self._frequency = torch.sqrt(down**2 + across**2)
            # A picture's amplitudes fall as one over the frequency; the mean counts as the lowest.
            energy = 1 / self._frequency.clamp(min=1 / max(self._high, self._wide))
            self._energy = energy / energy.square().mean().sqrt()
            self._colours = torch.eye(channels, device=device)
            if channels == 3:
                self._colours = torch.tensor(_COLOURS, device=device)
                self._colours /= self._colours.norm(dim=0).max()
            start = torch.view_as_real(torch.fft.rfft2(faint * noise, norm="ortho"))
        else:
            start = faint * noise
            start = start + 0.5 if self._norm else start
        self.parameters = [start.contiguous().requires_grad_(True)]

    def picture(self) -> Tensor:
        """1×C×H×W as the network takes it, differentiable in the parameters."""
        (held,) = self.parameters
        if self._fourier:
            waves = torch.view_as_complex(held) * self._energy
            held = torch.fft.irfft2(waves, s=(self._high, self._wide), norm="ortho")
            held = torch.einsum("ij,bjhw->bihw", self._colours, held)
            held = held.sigmoid() if self._norm else held
        return self._normalised(held)

    def _normalised(self, share: Tensor) -> Tensor:
        if self._norm is None:
            return share
        mean, std = self._norm
        return (share - mean) / std

    @torch.no_grad()
    def kept_valid(self) -> None:
        """Pixels that a step took out of 0 … 1 go back to the edge; frequencies cannot leave it."""
        if self._norm is not None and not self._fourier:
            self.parameters[0].clamp_(0, 1)

    @torch.no_grad()
    def blur(self, sigma: float) -> None:
        """Convolve with a Gaussian of this deviation in pixels, around the edges of the picture."""
        (held,) = self.parameters
        if self._fourier:
            held *= torch.exp(-2 * (math.pi * sigma * self._frequency) ** 2)[..., None]
            return
        down = torch.fft.fftfreq(self._high, device=held.device)[:, None]
        across = torch.fft.rfftfreq(self._wide, device=held.device)
        passed = torch.exp(-2 * (math.pi * sigma) ** 2 * (down**2 + across**2))
        held.copy_(torch.fft.irfft2(torch.fft.rfft2(held) * passed, s=held.shape[2:]))

    @torch.no_grad()
    def finished(self) -> tuple[Tensor, NDArray[np.uint8] | None]:
        """The picture 1×C×H×W, and its pixels H×W×C where they are known: then it is the network's
        view of just these whole grey values."""
        picture = self.picture()
        if self._norm is None:
            return picture, None
        mean, std = self._norm
        grey = ((picture * std + mean) * 255).round().clamp(0, 255)
        pixels: NDArray[np.uint8] = grey[0].permute(1, 2, 0).to(torch.uint8).cpu().numpy()
        return self._normalised(grey / 255), pixels


def variation(picture: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, down and across, of B×C×H×W (Rudin, Osher and Fatemi
    1992, in its anisotropic form).

    >>> float(variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])))
    1.0
    """
    down = (picture[:, :, 1:] - picture[:, :, :-1]).abs()
    across = (picture[:, :, :, 1:] - picture[:, :, :, :-1]).abs()
    return sum((one.mean() for one in (down, across) if one.numel()), picture.new_zeros(()))


def moved(picture: Tensor, *, shift: tuple[float, float], zoom: float, turn: float) -> Tensor:
    """B×C×H×W resampled once; what comes in from outside is the mirror image.

    Args:
        picture: B×C×H×W.
        shift: down and to the right, as shares of the sides.
        zoom: 2: twice as large.
        turn: degrees, clockwise.
    """
    high, wide = picture.shape[2:]
    cos, sin = (f(math.radians(turn)) / zoom for f in (math.cos, math.sin))
    # Where each pixel comes from, in units of half a side: a turn mixes the two axes' units.
    matrix = [
        [cos, sin * high / wide, 0.0],
        [-sin * wide / high, cos, 0.0],
    ]
    for row in matrix:
        row[2] = -(row[0] * 2 * shift[1] + row[1] * 2 * shift[0])
    theta = torch.tensor([matrix], dtype=picture.dtype, device=picture.device)
    grid = F.affine_grid(
        theta.expand(len(picture), -1, -1), list(picture.shape), align_corners=False
    )
    return F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)
