"""The nets in PyTorch: two of their own, the others from neocog's catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from figures import CLASSES
from torch import nn

if TYPE_CHECKING:
    from figures import Figure

__all__ = ["OWN", "build", "facts"]

OWN = ("twoconv", "loop")
"""Figures whose net is not in the catalogue; neocog is handed the module."""


def build(figure: Figure) -> nn.Module:
    """The figure's net with fresh weights; the same ones each time."""
    torch.manual_seed(0)
    if figure.name == "twoconv":
        return _two_conv(figure)
    if figure.name == "loop":
        return nn.Sequential(nn.Flatten(), nn.Linear(figure.channels * figure.size**2, CLASSES))
    from neocog.models import catalog

    size = (figure.size, figure.size)
    return catalog.build(figure.name, channels=figure.channels, size=size, outputs=CLASSES, args={})


def _two_conv(figure: Figure) -> nn.Module:
    """conv 3×3 32 → relu → pool → conv 3×3 64 → relu → pool → linear."""
    return nn.Sequential(
        nn.Conv2d(figure.channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (figure.size // 4) ** 2, CLASSES),
    )


def facts(figure: Figure) -> dict[str, Any]:
    """What another library's copy of the net is built from and checked against."""
    network = build(figure)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "widths": [level.channels for level in getattr(network, "features", ())],
    }
