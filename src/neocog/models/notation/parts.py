"""What the notation needs and torch.nn lacks: blocks with branches, squeeze and excitation, channel
shuffle. Floor 2, room models; imports torch only.

All take any number of axes behind the channels, written B×C×… here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Add", "Concatenate", "Residual", "Shuffle", "SqueezeExcitation"]


class Residual(nn.Module):
    """body(x) + shortcut(x); nothing comes after the sum (He et al. 2016, arXiv 1603.05027).

    Args:
        body: B×C×… → B×C'×….
        shortcut: B×C×… → B×C'×…; the identity where nothing changes.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """B×C×… → B×C'×…."""
        answer: Tensor = self.body(x) + self.shortcut(x)
        return answer


class Concatenate(nn.Module):
    """Branches side by side, their channels one after the other (arXiv 1409.4842).

    Args:
        branches: B×C×… → B×Cᵢ×… each.
    """

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        for number, branch in enumerate(branches, start=1):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×… → B×ΣCᵢ×…."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Add(nn.Module):
    """Branches side by side, added.

    Args:
        branches: B×C×… → B×C'×… each.
    """

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        for number, branch in enumerate(branches, start=1):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×… → B×C'×…."""
        first, *rest = self.children()
        total: Tensor = first(x)
        for branch in rest:
            total = total + branch(x)
        return total


class SqueezeExcitation(nn.Module):
    """Each channel times a number in (0, 1) that the means of all channels decide.

    Hu, Shen, Albanie, Sun, Wu 2017, arXiv 1709.01507.

    Args:
        channels: in and out.
        narrow: of the hidden layer.
        axes: behind the channels.
    """

    def __init__(self, channels: int, narrow: int, axes: int) -> None:
        super().__init__()
        self.shape = (channels,) + (1,) * axes
        self.squeeze = nn.Linear(channels, narrow)
        self.relu = nn.ReLU()
        self.excite = nn.Linear(narrow, channels)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """B×C×… → B×C×…."""
        means = x.flatten(2).mean(2)
        scale: Tensor = self.sigmoid(self.excite(self.relu(self.squeeze(means))))
        return x * torch.unflatten(scale, 1, self.shape)


class Shuffle(nn.Module):
    """Channels of groups taken in turns: the first of each, the second of each, …

    Zhang, Zhou, Lin, Sun 2017, arXiv 1707.01083: what grouped convolutions keep apart meets.

    Args:
        groups: that divide the channels.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """B×C×… → B×C×…."""
        return torch.unflatten(x, 1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        """The groups, when a network is shown."""
        return f"groups={self.groups}"
