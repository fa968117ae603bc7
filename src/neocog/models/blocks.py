"""What several architectures are made of: activations, norms, first weights, and checks of sizes.

Floor 2, room models; imports floor 0 and torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Activation",
    "ConvNormActivation",
    "ConvNormReLU",
    "Norm",
    "Stem",
    "StochasticDepth",
    "activation_layer",
    "check_at_least",
    "check_share",
    "check_size",
    "initialise",
    "initialise_by_fan_out",
    "keep_resolution",
    "norm_layer",
    "round_channels",
    "takes_small_stem",
]

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
"""leaky_relu has slope 0.01, elu α = 1, gelu the exact error function."""

Norm = Literal["batch", "group", "none"]
"""batch: arXiv 1502.03167; group: arXiv 1803.08494, for batches too small to average over."""

Stem = Literal["auto", "small", "large"]
"""What a picture meets first. large: as published, for pictures of some 224 pixels; small:
keeps the resolution that the published stem would throw away; auto: by the size of the picture."""

_SMALL_STEM_UP_TO = 64
"""Pixels of the shorter side up to which the stem keeps the resolution. At 64×64 a small stem costs
about what a large one costs at 224×224; a large one would leave 2×2 maps."""

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


class ConvNormActivation(nn.Sequential):
    """Convolution, norm and activation, under the names 0, 1 and 2 of the published weights.

    The convolution has no bias, since the norm has one, and is padded so that stride 1 keeps the
    size. B×before×H×W → B×after×⌈H/stride⌉×⌈W/stride⌉, for odd kernels.

    Args:
        before: channels that come in.
        after: channels that go out.
        kernel: side of the kernel, odd.
        stride: step of the convolution.
        groups: `before` for one kernel a channel (depthwise).
        norm: makes the norm from the number of channels.
        activation: makes the activation; None for a linear layer.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        layers = [
            nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
            norm(after),
        ]
        super().__init__(*layers, *([] if activation is None else [activation()]))


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU, under the names that the Inception networks
    published: conv and bn.

    Args:
        before: channels that come in.
        after: channels that go out.
        kernel: height and width.
        stride: step of the convolution.
        padded: whether stride 1 keeps the size.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: tuple[int, int],
        stride: int = 1,
        *,
        padded: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """B×before×H×W → B×after×H'×W'."""
        answer: Tensor = self.relu(self.bn(self.conv(x)))
        return answer


class StochasticDepth(nn.Module):
    """Leaves out the branch of a shortcut for some samples, in training only.

    Each sample's branch is 0 with probability `share`, else divided by 1 − `share`, so that the
    mean stays (Huang et al. 2016, arXiv 1603.09382). Draws as dropout does: from torch's generator,
    which the training loop seeds at every step.

    Args:
        share: of the samples whose branch is left out, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×H×W."""
        if not self.training or self.share == 0:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, 1, 1), self.share)

    def extra_repr(self) -> str:
        """The share, when a network is shown."""
        return f"{self.share:.3g}"


def round_channels(channels: float, step: int = 8) -> int:
    """The nearest multiple of `step`, but never less than nine tenths of `channels`.

    The rule by which the MobileNets (arXiv 1801.04381) and their kin scale their widths.

    >>> round_channels(32 * 1.1), round_channels(40 * 1.4), round_channels(11)
    (32, 56, 16)
    """
    nearest = max(step, int(channels + step / 2) // step * step)
    return nearest if nearest >= 0.9 * channels else nearest + step


def takes_small_stem(stem: Stem, size: tuple[int, int], up_to: int = _SMALL_STEM_UP_TO) -> bool:
    """Whether the stem is the small one.

    Args:
        stem: what the user says.
        size: height and width in pixels.
        up_to: pixels of the shorter side up to which auto is small.

    Raises:
        ConfigError: no such stem.

    >>> takes_small_stem("auto", (64, 200)), takes_small_stem("large", (32, 32))
    (True, False)
    """
    if stem not in ("auto", "small", "large"):
        raise ConfigError(f"no stem is called {stem!r}", near(stem, ("auto", "small", "large")))
    return stem == "small" or (stem == "auto" and min(size) <= up_to)


def keep_resolution(strides: Sequence[int], halvings: int) -> list[int]:
    """The strides of a network from front to back, without the first so many of its halvings.

    >>> keep_resolution((2, 1, 2, 2), 2)
    [1, 1, 1, 2]
    """
    kept = list(strides)
    for index in [index for index, stride in enumerate(kept) if stride == 2][:halvings]:
        kept[index] = 1
    return kept


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


def initialise_by_fan_out(module: nn.Module) -> None:
    """First weights for networks whose convolutions are followed by batch norm: normal with
    variance 2 / fan-out, so that the scale of the gradient survives a rectifier (He et al. 2015,
    arXiv 1502.01852); matrices normal with 0.01, as their class scores begin near 0; biases zero.

    A depthwise kernel's fan-out is its own area, since it answers into one channel only.

    Args:
        module: changed in place; whoever builds it owns it.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.weight.numel() / part.in_channels
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
        else:
            continue
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
