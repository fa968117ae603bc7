"""What several architectures are made of: activations, norms, first weights, and checks of sizes.

Floor 2, room models; imports floor 0 and torch.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from neocog.errors import ConfigError, near

__all__ = [
    "Activation",
    "Norm",
    "activation_layer",
    "check_at_least",
    "check_share",
    "check_size",
    "initialise",
    "norm_layer",
]

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
"""leaky_relu has slope 0.01, elu α = 1, gelu the exact error function."""

Norm = Literal["batch", "group", "none"]
"""batch: arXiv 1502.03167; group: arXiv 1803.08494, for batches too small to average over."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation_layer(name: Activation) -> nn.Module:
    """A fresh activation, never in place: a hook or a feature level may hold its input.

    Raises:
        ConfigError: no such activation.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(f"no activation is called {name!r}", near(name, _ACTIVATIONS))
    return _ACTIVATIONS[name]()


def norm_layer(name: Norm, channels: int) -> nn.Module | None:
    """A fresh norm over B×C×H×W, or None.

    Batch norm follows PyTorch: training normalises by the batch mean and the biased batch
    variance, and keeps running = 0.9 · running + 0.1 · batch, there with the unbiased variance.
    (Other libraries write the momentum the other way round.) In use, the running averages stand in.
    Group norm takes as many equal groups as it can, 32 at most, of four channels at least: with one
    channel a group it would be instance norm, which forgets how strongly a feature answered.

    Raises:
        ConfigError: no such norm.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        most = max(1, min(32, channels // 4))
        groups = max(count for count in range(1, most + 1) if channels % count == 0)
        return nn.GroupNorm(groups, channels)
    if name == "none":
        return None
    raise ConfigError(f"no norm is called {name!r}", near(name, ("batch", "group", "none")))


def initialise(module: nn.Module, activation: Activation) -> None:
    """First weights of every convolution and matrix in `module`, such that the scale of the signal
    survives the activation: normal with variance gain² / fan-in, biases zero.

    He et al. 2015, arXiv 1502.01852: gain² is 2 for rectifiers. tanh has 25/9, the sigmoid 1; the
    smooth rectifiers (gelu, silu, elu) take the rectifier's.

    Args:
        module: changed in place; whoever builds it owns it.
        activation: what follows the layers.
    """
    known = {"tanh": "tanh", "sigmoid": "sigmoid", "leaky_relu": "leaky_relu"}
    slope = 0.01 if activation == "leaky_relu" else None
    gain = nn.init.calculate_gain(known.get(activation, "relu"), slope)  # type: ignore[arg-type]
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            nn.init.normal_(part.weight, std=gain / math.sqrt(fan_in))
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def check_at_least(low: int, **values: int) -> None:
    """Each value is at least `low`.

    Raises:
        ConfigError: one is not; the message names it.

    >>> check_at_least(1, width=0)
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: width is at least 1, got 0
    """
    for name, value in values.items():
        if value < low:
            raise ConfigError(f"{name} is at least {low}, got {value}")


def check_share(**values: float) -> None:
    """Each value lies in [0, 1).

    Raises:
        ConfigError: one does not; the message names it.
    """
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ConfigError(f"{name} lies in [0, 1), got {value}")


def check_size(model: str, size: tuple[int, int], smallest: int, hint: str = "") -> None:
    """Both sides are at least `smallest` pixels.

    Raises:
        ConfigError: one is not; the message names the smallest size that works.

    >>> check_size("lenet5", (8, 8), 28)
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: lenet5 takes pictures from 28×28 pixels on, got 8×8
      hint: scale them up: --set data.size=28,28
    """
    if min(size) < smallest:
        raise ConfigError(
            f"{model} takes pictures from {smallest}×{smallest} pixels on, got {size[0]}×{size[1]}",
            hint or f"scale them up: --set data.size={smallest},{smallest}",
        )
