"""LeNet-5, the first network that read cheques. Floor 2, room models.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", in
two wirings: the one that has become usual, where C3 sees all maps of S2 and pooling has no weights
of its own; and that of the paper, with its table of connections, sub-sampling that learns, and its
scaled tanh. In both the output is linear where the paper had radial basis functions.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.errors import ConfigError, near
from neocog.models.blocks import (
    Activation,
    activation_layer,
    check_at_least,
    check_size,
    initialise,
)
from neocog.records import FeatureInfo
from neocog.rewriting import InOrder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["TABLE", "LeNet5", "ScaledTanh", "SubSampling", "TableConv2d", "lenet5"]

_SMALLEST = 28
_PUBLISHED = 32
_BEFORE_C5 = 5
"""Side of the maps that C5 takes; its 5×5 kernels turn each into one number."""

TABLE: tuple[tuple[int, ...], ...] = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
"""Which maps of S2 each map of C3 sees: Table I of the paper."""


class TableConv2d(nn.Module):
    """A convolution whose maps see only some of the maps below; no weight for the others exists.

    Maps with equally many inputs are one grouped convolution.

    Args:
        table: for each map that goes out, the maps that come in. Maps with equally many inputs lie
            side by side.
        kernel: side of the kernels.
    """

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel: int) -> None:
        super().__init__()
        runs = [list(run) for _, run in itertools.groupby(table, key=len)]
        self._runs = [[one for inputs in run for one in inputs] for run in runs]
        self._names = [f"weight{number}" for number in range(1, len(runs) + 1)]
        self._widths = [len(run) for run in runs]
        self._size = f"{sum(map(len, table))} connections, kernel_size={kernel}"
        for name, run in zip(self._names, runs, strict=True):
            weight = nn.Parameter(torch.empty(len(run), len(run[0]), kernel, kernel))
            self.register_parameter(name, weight)
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def weights(self) -> list[nn.Parameter]:
        """One tensor for each number of inputs: maps × inputs × kernel × kernel."""
        return [getattr(self, name) for name in self._names]

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×maps×(H − kernel + 1)×(W − kernel + 1)."""
        maps, biases = torch.split(x, 1, 1), torch.split(self.bias, self._widths)
        parts = []
        for run, (inputs, weight) in enumerate(zip(self._runs, self.weights(), strict=True)):
            seen = torch.cat([maps[one] for one in inputs], 1)
            parts.append(F.conv2d(seen, weight, biases[run], groups=self._widths[run]))
        return torch.cat(parts, 1)

    def extra_repr(self) -> str:
        """Its size, when a network is shown."""
        return self._size


class SubSampling(nn.Module):
    """The sum of each 2×2 times a coefficient, plus a bias: two numbers to learn for each map.

    It begins as the mean.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((maps, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×⌊H/2⌋×⌊W/2⌋."""
        total = F.avg_pool2d(x, 2, divisor_override=1)
        return total * self.coefficient + self.bias


class ScaledTanh(nn.Module):
    """1.7159 · tanh(2x/3): it maps ±1 to ±1, where its curvature is largest (Appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class LeNet5(InOrder):
    """C1 6@5×5, S2, C3 16@5×5, S4, C5 120@5×5, F6 84, outputs.

    Convolutions are not padded, so a level is smaller than size / stride: 28×28 and 10×10 at
    32×32. Levels are taken before pooling.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        outputs: int,
        activation: Activation,
        pool: type[nn.MaxPool2d] | type[nn.AvgPool2d] | None,
        table: tuple[tuple[int, ...], ...] | None,
    ) -> None:
        super().__init__()
        self.features = (
            FeatureInfo(channels=6, stride=1, name="act1"),
            FeatureInfo(channels=16, stride=2, name="act3"),
        )

        def squash() -> nn.Module:
            return ScaledTanh() if table and activation == "tanh" else activation_layer(activation)

        def halve(maps: int) -> nn.Module:
            if pool is not None:
                return pool(2)
            return nn.Sequential(OrderedDict(sum=SubSampling(maps), act=squash()))

        # 28 pixels are padded to the 32 of the paper, axis by axis; from 32 on nothing is padded.
        padding = (2 if size[0] < _PUBLISHED else 0, 2 if size[1] < _PUBLISHED else 0)
        sides = [
            ((side + 2 * pad - 4) // 2 - 4) // 2 for side, pad in zip(size, padding, strict=True)
        ]
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=padding)
        self.act1 = squash()
        self.pool2 = halve(6)
        self.conv3 = TableConv2d(table, 5) if table else nn.Conv2d(6, 16, 5)
        self.act3 = squash()
        self.head = nn.Sequential(OrderedDict[str, nn.Module](pool4=halve(16)))
        if any(side != _BEFORE_C5 for side in sides):
            self.head.add_module("fit", nn.AdaptiveAvgPool2d(_BEFORE_C5))
        self.head.add_module("conv5", nn.Conv2d(16, 120, _BEFORE_C5))
        self.head.add_module("act5", squash())
        self.head.add_module("flatten", nn.Flatten())
        self.head.add_module("linear6", nn.Linear(120, 84))
        self.head.add_module("act6", squash())
        self.head.add_module("output", nn.Linear(84, outputs))
        if table:
            _initialise_as_published(self)
        else:
            initialise(self, activation)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → B×6×28×28 and B×16×10×10 (at 32×32)."""
        first = self.act1(self.conv1(x))
        second = self.act3(self.conv3(self.pool2(first)))
        return first, second

    def in_order(self) -> Iterable[nn.Module]:
        """Both convolutions with what follows them, then the head."""
        return self.conv1, self.act1, self.pool2, self.conv3, self.act3, self.head


def _initialise_as_published(net: nn.Module) -> None:
    """Uniform within ±2.4 / fan-in, as the paper has it; biases zero."""
    for part in net.modules():
        if isinstance(part, TableConv2d):
            weights: Sequence[Tensor] = part.weights()
        elif isinstance(part, nn.Conv2d | nn.Linear):
            weights = [part.weight]
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        else:
            continue
        for weight in weights:
            bound = 2.4 / math.prod(weight.shape[1:])
            nn.init.uniform_(weight, -bound, bound)


def lenet5(
    *,
    channels: int,
    size: tuple[int, int],
    outputs: int,
    activation: Activation = "tanh",
    pool: Literal["avg", "max"] = "avg",
    wiring: Literal["full", 1998] = "full",
) -> nn.Module:
    """LeNet-5 for pictures from 28×28 on.

    Sides of 28 to 31 pixels are padded by two on either hand; larger pictures than the published
    32×32 are averaged down to 5×5 before C5.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels.
        outputs: width of the last layer.
        activation: after C1, C3, C5 and F6; the paper's is tanh.
        pool: S2 and S4; the paper's is avg.
        wiring: full: C3 sees all maps of S2. 1998: as in the paper: C3 sees those of its Table I,
            S2 and S4 learn a coefficient and a bias for each map and are followed by an activation
            of their own, and tanh is 1.7159·tanh(2x/3): 60,000 parameters before the output, which
            is linear here too.

    Raises:
        ConfigError: a side below 28 pixels, or a value out of range.

    >>> net = lenet5(channels=1, size=(32, 32), outputs=10)
    >>> sum(p.numel() for p in net.parameters())
    61706
    >>> net = lenet5(channels=1, size=(32, 32), outputs=10, wiring=1998)
    >>> sum(p.numel() for name, p in net.named_parameters() if "output" not in name)
    60000
    """
    check_at_least(1, channels=channels, outputs=outputs)
    check_size(
        "lenet5", size, _SMALLEST, "scale them up: --set data.size=32,32 — or take --model cnn"
    )
    pools: dict[str, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = {
        "avg": nn.AvgPool2d,
        "max": nn.MaxPool2d,
    }
    if pool not in pools:
        raise ConfigError(f"no pooling is called {pool!r}", near(pool, pools))
    if wiring not in ("full", 1998):
        raise ConfigError(f"no wiring is called {wiring!r}", 'wiring="full" or wiring=1998')
    if wiring == "full":
        return LeNet5(channels, size, outputs, activation, pools[pool], None)
    if pool != "avg":
        raise ConfigError(
            "the wiring of 1998 takes means with weights of their own, pool='max' is none of them",
            "leave pool out, or take wiring=full",
        )
    return LeNet5(channels, size, outputs, activation, None, TABLE)
