"""AlexNet, with which deep convolutional networks began to win. Floor 2, room models.

Krizhevsky, Sutskever, Hinton 2012, in the one-tower variant of Krizhevsky 2014, arXiv 1404.5997.
Parameter names and shapes in state dicts are those of the widely published weights (features.0, …,
classifier.6).
"""

from __future__ import annotations

from torch import nn

from neocog.models.blocks import (
    Stem,
    check_at_least,
    check_share,
    check_size,
    initialise,
    takes_small_stem,
)
from neocog.models.trunk import TrunkNet
from neocog.records import FeatureInfo

__all__ = ["alexnet"]

_WIDTHS = (64, 192, 384, 256, 256)
_GRID = 6
"""Side of the maps that the published classifier takes."""
_POOL, _POOL_STRIDE = 3, 2
_SMALLEST = 63
"""Pixels that leave one position after three poolings, behind the published stem."""
_SMALLEST_SMALL = 15


def alexnet(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    stem: Stem = "auto",
    hidden: int = 4096,
    dropout: float = 0.5,
) -> nn.Module:
    """AlexNet: 61,100,840 parameters at 3 channels and 1000 outputs with the large stem; 0.714 GMAC
    at 224×224.

    Pooling is not padded, so a level is smaller than size / stride. Levels are taken before
    pooling: after the first, the second and the last convolution.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        outputs: width of the last layer.
        stem: large is the published 11×11, stride 4, with a classifier that takes 6×6 maps of any
            picture; small is 5×5, stride 1, with a classifier that takes the maps as they are, but
            no more than 6×6. auto is small up to 64 pixels of the shorter side.
        hidden: width of the two hidden linear layers.
        dropout: share of the hidden layers' inputs silenced in training.

    Raises:
        ConfigError: pictures too small for the stem, or a value out of range.
    """
    check_at_least(1, channels=channels, outputs=outputs, hidden=hidden)
    check_share(dropout=dropout)
    small = takes_small_stem(stem, size)
    check_size(
        f"alexnet with the {'small' if small else 'large'} stem",
        size,
        _SMALLEST_SMALL if small else _SMALLEST,
    )
    grid = (_small_grid(size[0]), _small_grid(size[1])) if small else (_GRID, _GRID)
    first, second, third, fourth, fifth = _WIDTHS
    scale = 1 if small else 4
    kernel, padding = (5, 2) if small else (11, 2)
    trunk = nn.Sequential(
        nn.Conv2d(channels, first, kernel, scale, padding),
        nn.ReLU(),
        nn.MaxPool2d(_POOL, _POOL_STRIDE),
        nn.Conv2d(first, second, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(_POOL, _POOL_STRIDE),
        nn.Conv2d(second, third, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(third, fourth, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(fourth, fifth, 3, padding=1),
        nn.ReLU(),
    )
    levels = (
        FeatureInfo(channels=first, stride=scale, name="1"),
        FeatureInfo(channels=second, stride=2 * scale, name="4"),
        FeatureInfo(channels=fifth, stride=4 * scale, name="11"),
    )
    pool = nn.Sequential(nn.MaxPool2d(_POOL, _POOL_STRIDE), nn.AdaptiveAvgPool2d(grid))
    classifier = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(fifth * grid[0] * grid[1], hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
    network = TrunkNet(trunk, levels, classifier, pool=pool)
    initialise(network, "relu")
    return network


def _small_grid(side: int) -> int:
    """Positions along an axis that the classifier takes behind the small stem.

    >>> [_small_grid(side) for side in (15, 28, 32, 64)]
    [1, 2, 3, 6]
    """
    for _ in range(3):
        side = (side - _POOL) // _POOL_STRIDE + 1
    return min(_GRID, side)
