"""Networks to ask why: each does something that explainers have stumbled over."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CATALOGUE", "NETS", "built", "lived_in", "pictures", "quietly"]


def pictures(count: int = 2, size: tuple[int, int, int] = (3, 16, 16), seed: int = 0) -> Tensor:
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed))


def quietly(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Captum warns of its own hooks, and of what it does to its inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(*args, **kwargs)


def lived_in(net: nn.Module, seed: int = 0) -> nn.Module:
    """Norms and biases as after some training: without them a fresh network has no offsets, and its
    answer is nearly proportional to the picture."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.3, generator=chance)
                part.running_var.uniform_(0.5, 1.5, generator=chance)
                part.weight.uniform_(0.7, 1.3, generator=chance)
            bias = getattr(part, "bias", None)
            if isinstance(bias, Tensor):
                bias.normal_(0, 0.1, generator=chance)
    return net.eval()


def in_place(net: nn.Module) -> nn.Module:
    for part in net.modules():
        if hasattr(part, "inplace"):
            part.inplace = True
    return net


class Twice(nn.Module):
    """One convolution and one ReLU run twice each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.again(self.first(x)))
        x = self.relu(self.again(x))
        answer: Tensor = self.out(x.mean((2, 3)))
        return answer


class Functional(nn.Module):
    """Activations that are no modules, and a shift of the input in place."""

    def __init__(self, relu: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2)
        self.second = nn.Conv2d(6, 8, 3)
        self.out = nn.Linear(8, 5)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.1
        x = self.relu(self.first(x))
        x = F.max_pool2d(self.relu(self.second(x)), 2)
        answer: Tensor = self.out(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return answer


class Dense(nn.Module):
    """DenseNet's joining, with activations in place: what was joined is written over."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6 + 4 * i) for i in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3)])
        self.last = nn.BatchNorm2d(18)
        self.out = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            found.append(conv(F.relu(norm(torch.cat(found, 1)), inplace=True)))
        x = F.relu_(self.last(torch.cat(found, 1)))
        answer: Tensor = self.out(x.mean((2, 3)))
        return answer


class Weighed(nn.Module):
    """Normed weights, a frozen layer, a hook that is part of the network, a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
        self.second = nn.Conv2d(6, 6, 3).requires_grad_(False)
        self.second.register_forward_hook(lambda _, __, answer: 2 * answer)
        self.out = nn.Linear(6, 5)
        self.register_buffer("runs", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        answer: Tensor = self.out(self.second(self.first(x).relu_()).clamp(min=0).mean((2, 3)))
        return answer


def plain() -> nn.Module:
    """Every ReLU a module of its own: what Captum expects."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "in place": lambda: in_place(plain()),
    "twice": Twice,
    "functional": Functional,
    "dense": Dense,
    "weighed": Weighed,
}

CATALOGUE: dict[str, dict[str, Any]] = {
    "cnn": {"width": 8},
    "lenet5": {},
    "resnet18": {"stem": "large"},
    "densenet121": {"stem": "large"},
    "mobilenet_v2": {"width": 0.35, "stem": "large"},
    "efficientnet_b0": {"stem": "large"},
}


def built(name: str, size: tuple[int, int] = (32, 32)) -> nn.Module:
    """One of `NETS`, or of the catalogue, whose activations then work in place; five answers."""
    torch.manual_seed(0)
    if name in NETS:
        return lived_in(NETS[name]())
    net = catalog.build(name, channels=3, size=size, outputs=5, args=CATALOGUE[name])
    return in_place(lived_in(net))
