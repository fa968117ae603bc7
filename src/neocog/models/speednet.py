"""A small residual-free network for small pictures that learns in few epochs. Floor 2, room models.

The idea is that of the small-image speed records (Page 2018; Jordan 2024, arXiv 2404.00498): a
first layer of 2×2 kernels that whitens the patches of the data and is never trained, then three
stages of wide 3×3 convolutions that begin as the identity, batch norms without scale, GELU, and a
head whose outputs are scaled down. All is sized from the picture; nothing knows a data set.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.errors import ConfigError
from neocog.models.blocks import check_at_least, check_size
from neocog.records import FeatureInfo

__all__ = ["SpeedNet", "speednet"]

SMALLEST = 8
"""Pixels: below, three poolings leave nothing."""
HEAD = 3
"""Side of the last map, about; its maximum per channel is what the head sees."""


class _Stage(nn.Module):
    """conv → pool → norm → GELU → conv → norm → GELU; halves the resolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = _norm(after)
        self.act1 = nn.GELU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = _norm(after)
        self.act2 = nn.GELU()
        for conv in (self.conv1, self.conv2):
            _begin_as_identity(conv)

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×after×⌊H/2⌋×⌊W/2⌋."""
        x = self.act1(self.norm1(self.pool(self.conv1(x))))
        answer: Tensor = self.act2(self.norm2(self.conv2(x)))
        return answer


def _norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm whose scale stays 1: the next layer has a scale of its own.

    A momentum of 0.4 makes the running statistics those of the last few steps, which suits runs of
    a few hundred steps.
    """
    norm = nn.BatchNorm2d(channels, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


@torch.no_grad()
def _begin_as_identity(conv: nn.Conv2d) -> None:
    """The first `in` kernels pass their channel through, the others keep their random start."""
    passed = min(conv.in_channels, conv.out_channels)
    nn.init.dirac_(conv.weight[:passed])


class SpeedNet(nn.Module):
    """See the module; built by `speednet`."""

    def __init__(self, channels: int, widths: tuple[int, ...], outputs: int, last: int) -> None:
        super().__init__()
        patch = 4 * channels
        # Nothing of it is trained: the gradient need not come back to the full resolution.
        self.whiten = nn.Conv2d(channels, 2 * patch, 2, bias=False)
        self.whiten.weight.requires_grad_(False)
        _fixed_whitening(self.whiten)
        self.act = nn.GELU()
        befores = (2 * patch, *widths[:-1])
        self.stages = nn.ModuleList(
            _Stage(before, after) for before, after in zip(befores, widths, strict=True)
        )
        self.pool = nn.AdaptiveMaxPool2d(last)
        self.fc = nn.Linear(widths[-1] * last * last, outputs, bias=False)
        # Weights of size 1, so that a rate means the same for the head as for vectors, and small
        # outputs at the start: a large first loss would be spent on unlearning the head's noise.
        nn.init.normal_(self.fc.weight)
        self.scale = 1.0 / self.fc.in_features
        self.features: tuple[FeatureInfo, ...] = tuple(
            FeatureInfo(channels=width, stride=2 ** (index + 1), name=f"stages.{index}")
            for index, width in enumerate(widths)
        )

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set the first layer from normalised training pictures, B×C×H×W; call it once, before
        training.

        The kernels are the eigenvectors of the covariance of all 2×2 patches, divided by the
        square root of their eigenvalues (PCA whitening), each with both signs, so that what GELU
        cuts from one the other keeps.
        """
        patches = F.unfold(images.float(), 2).transpose(1, 2).reshape(-1, 4 * images.shape[1])
        patches = patches.double()
        covariance = patches.T @ patches / len(patches)
        values, vectors = torch.linalg.eigh(covariance)
        # A patch direction that never varies has eigenvalue 0; the floor keeps it from exploding.
        floor = 5e-4 * max(1.0, float(values.max()))
        kernels = vectors.T.reshape(-1, images.shape[1], 2, 2) / torch.sqrt(
            values.clamp(min=0) + floor
        ).view(-1, 1, 1, 1)
        self.whiten.weight.copy_(torch.cat([kernels, -kernels]))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the output of each stage, finest first."""
        x = self.act(self.whiten(x))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return tuple(levels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs."""
        x = self.pool(self.forward_features(x)[-1])
        # Scaled on the way in, which is the same: so the last layer is what gives the answer.
        answer: Tensor = self.fc(x.flatten(1) * self.scale)
        return answer


@torch.no_grad()
def _fixed_whitening(conv: nn.Conv2d) -> None:
    """First kernels when no data was shown: sums and differences of the four pixels, both signs.

    The 2×2 Hadamard basis on each channel: orthogonal, and near the eigenvectors of natural
    patches, of which the mean is the first and the differences follow.
    """
    basis = torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
    channels = conv.in_channels
    kernels = torch.zeros(4 * channels, channels, 2, 2)
    for channel in range(channels):
        kernels[4 * channel : 4 * channel + 4, channel] = basis.view(4, 2, 2)
    conv.weight.copy_(torch.cat([kernels, -kernels]))


def speednet(
    *, channels: int, size: tuple[int, int], outputs: int, width: int = 64, depth: int | None = None
) -> SpeedNet:
    """Build a `SpeedNet`.

    Args:
        channels: of the pictures.
        size: height and width in pixels, at least 8.
        outputs: width of the head.
        width: channels of the first stage; the later ones have four times as many.
        depth: stages. None: as many as bring the shorter side to 3 or so, three where they fit.

    Raises:
        ConfigError: pictures too small, or a width or depth below 1.
    """
    check_at_least(1, channels=channels, outputs=outputs, width=width)
    check_size("speednet", size, SMALLEST)
    side = min(size) - 1  # the 2×2 kernels are not padded
    most = int(math.log2(side))
    # 31 → 15 → 7 → 3: each halving drops an odd pixel.
    until_head = next(count for count in range(most + 1) if side >> count <= HEAD)
    stages = min(most, max(3, until_head)) if depth is None else depth
    check_at_least(1, depth=stages)
    if stages > most:
        raise ConfigError(
            f"speednet halves {side} pixels {stages} times, which leaves nothing",
            f"--set model_args.depth={most}, or leave it out",
        )
    widths = tuple(width if index == 0 else 4 * width for index in range(stages))
    return SpeedNet(channels, widths, outputs, last=1)
