"""What several architectures are made of: activations, norms, first weights, and checks of sizes.

Floor 2, room models; imports floor 0 and torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from neocog.errors import ConfigError, near
from neocog.geometry import LAYOUTS, noun, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "RANKED",
    "Activation",
    "ConvNormActivation",
    "ConvNormReLU",
    "Dims",
    "Init",
    "Norm",
    "Ranked",
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
    "ranked",
    "round_channels",
    "takes_small_stem",
]

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
"""leaky_relu has slope 0.01, elu α = 1, gelu the exact error function."""

Norm = Literal["batch", "group", "none"]
"""batch: arXiv 1502.03167; group: arXiv 1803.08494, for batches too small to average over."""

Init = Literal["he", "glorot", "orthogonal", "identity"]
"""How first weights are drawn; `initialise` says what each means and where it comes from."""

Stem = Literal["auto", "small", "large"]
"""What a picture meets first. large: as published, for pictures of some 224 pixels; small:
keeps the resolution that the published stem would throw away; auto: by the size of the picture."""

Dims = Literal[1, 2, 3]
"""Axes of a sample beside its channels: 1 for signals, 2 for pictures, 3 for volumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Layers of one rank."""

    dims: int
    """Axes behind the channels."""
    conv: type[nn.Conv1d | nn.Conv2d | nn.Conv3d]
    """Convolution."""
    norm: type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]
    """Batch norm."""
    max: type[nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d]
    """Pooling by the greatest value."""
    avg: type[nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d]
    """Pooling by the mean."""
    mean: type[nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d]
    """The mean over the sample, asked for as 1."""


RANKED = {
    1: Ranked(
        dims=1,
        conv=nn.Conv1d,
        norm=nn.BatchNorm1d,
        max=nn.MaxPool1d,
        avg=nn.AvgPool1d,
        mean=nn.AdaptiveAvgPool1d,
    ),
    2: Ranked(
        dims=2,
        conv=nn.Conv2d,
        norm=nn.BatchNorm2d,
        max=nn.MaxPool2d,
        avg=nn.AvgPool2d,
        mean=nn.AdaptiveAvgPool2d,
    ),
    3: Ranked(
        dims=3,
        conv=nn.Conv3d,
        norm=nn.BatchNorm3d,
        max=nn.MaxPool3d,
        avg=nn.AvgPool3d,
        mean=nn.AdaptiveAvgPool3d,
    ),
}
"""By the axes behind the channels."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

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


def ranked(size: Sequence[int], dims: int | None) -> Ranked:
    """The layers for samples of this size.

    Args:
        size: length, height and width, or depth, height and width.
        dims: what the user says that they are; None: what `size` says.

    Raises:
        ConfigError: the two differ, or there is no such rank.

    >>> ranked((16000,), None).conv.__name__, ranked((16, 64, 64), 3).norm.__name__
    ('Conv1d', 'BatchNorm3d')
    """
    if len(size) not in RANKED:
        raise ConfigError(f"expected a size of 1, 2 or 3 sides, got {tuple(size)}")
    if dims not in (None, len(size)):
        raise ConfigError(
            f"dims={dims} is asked of the network, and its input is a {noun(size)} of "
            f"{size_text(size)}, {LAYOUTS[len(size)]}: dims={len(size)}",
            "leave model_args.dims out: the data decides",
        )
    return RANKED[len(size)]


def activation_layer(name: Activation) -> nn.Module:
    """A fresh activation, never in place: a hook or a feature level may hold its input.

    Raises:
        ConfigError: no such activation.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(f"no activation is called {name!r}", near(name, _ACTIVATIONS))
    return _ACTIVATIONS[name]()


def norm_layer(name: Norm, channels: int, layers: Ranked = RANKED[2]) -> nn.Module | None:
    """A fresh norm over B×C×H×W, or B×C×… of other layers; or None.

    Batch norm follows PyTorch: training normalises by the batch mean and the biased batch
    variance, and keeps running = 0.9 · running + 0.1 · batch, there with the unbiased variance.
    (Other libraries write the momentum the other way round.) In use, the running averages stand in.
    Group norm takes as many equal groups as it can, 32 at most, of four channels at least: with one
    channel a group it would be instance norm, which forgets how strongly a feature answered.

    Raises:
        ConfigError: no such norm.
    """
    if name == "batch":
        return layers.norm(channels)
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


def takes_small_stem(stem: Stem, size: tuple[int, ...], up_to: int = _SMALL_STEM_UP_TO) -> bool:
    """Whether the stem is the small one.

    Args:
        stem: what the user says.
        size: height and width in pixels; or the length of a signal, the sides of a volume.
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


def initialise(module: nn.Module, activation: Activation, init: Init = "he") -> None:
    """First weights of every convolution and matrix in `module`; biases zero.

    - he: normal with variance gain² / fan-in, such that the scale of the signal survives the
      activation (He et al. 2015, arXiv 1502.01852). gain² is 2 for rectifiers; tanh has 25/9, the
      sigmoid 1; the smooth rectifiers (gelu, silu, elu) take the rectifier's.
    - glorot: uniform with variance 2 / (fan-in + fan-out), between what the signal and what the
      gradient would want (Glorot and Bengio 2010).
    - orthogonal: rows at right angles, or columns, times he's gain: no direction is stretched more
      than another (Saxe, McClelland, Ganguli 2013, arXiv 1312.6120).
    - identity: as he, but the first kernels of a convolution hand on a channel each (as in Jordan
      2024, arXiv 2404.00498), and square matrices all of what they get (Le, Jaitly, Hinton 2015,
      arXiv 1504.00941).

    Args:
        module: changed in place; whoever builds it owns it.
        activation: what follows the layers.
        init: which of these.

    Raises:
        ConfigError: no such rule.
    """
    if init not in get_args(Init):
        raise ConfigError(f"no init is called {init!r}", near(init, get_args(Init)))
    known = {"tanh": "tanh", "sigmoid": "sigmoid", "leaky_relu": "leaky_relu"}
    slope = 0.01 if activation == "leaky_relu" else None
    gain = nn.init.calculate_gain(known.get(activation, "relu"), slope)  # type: ignore[arg-type]
    for part in module.modules():
        if isinstance(part, (*_CONVOLUTIONS, nn.Linear)):
            _draw(part, init, gain)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _draw(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear, init: Init, gain: float) -> None:
    """The first weights of one layer."""
    weight = layer.weight
    if init == "glorot":
        nn.init.xavier_uniform_(weight)
        return
    if init == "orthogonal":
        nn.init.orthogonal_(weight, gain)
        return
    nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()))
    if init == "identity" and not isinstance(layer, nn.Linear):
        nn.init.dirac_(weight[: layer.in_channels], layer.groups)
    elif init == "identity" and weight.shape[0] == weight.shape[1]:
        nn.init.eye_(weight)


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


def check_size(model: str, size: tuple[int, ...], smallest: int, hint: str = "") -> None:
    """All sides are at least `smallest` pixels.

    Raises:
        ConfigError: one is not; the message names the smallest size that works.

    >>> check_size("lenet5", (8, 8), 28)
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: lenet5 takes pictures from 28×28 pixels on, got 8×8
      hint: scale them up: --set data.size=28,28
    """
    if min(size) >= smallest:
        return
    least = size_text((smallest,) * len(size))
    if len(size) != 2:
        raise ConfigError(
            f"{model} takes {noun(size)}s from {least} on, got {size_text(size)}",
            hint or "give larger ones, or a network that halves them less often",
        )
    raise ConfigError(
        f"{model} takes pictures from {least} pixels on, got {size_text(size)}",
        hint or f"scale them up: --set data.size={smallest},{smallest}",
    )
