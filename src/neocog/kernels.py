"""Kernels with names or of one's own: what a convolution can do before anything is learnt.

Floor 1; imports floor 0 and torch. All are meant for cross-correlation,
`y[i,j] = Σ_uv x[i+u, j+v] · w[u,v]`, which is what `torch.nn.functional.conv2d` computes. Rows run
downwards, columns to the right.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ALIASES", "KERNELS", "Kernel", "Padding", "correlate", "kernel", "named_kernel"]

Padding = Literal["zeros", "reflect", "replicate", "circular", "valid"]
"""What is assumed around a picture: nothing, its mirror image (without the edge twice), its edge,
its opposite side; valid: nothing is, and the answer is smaller."""

_Rows = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]

KERNELS: dict[str, tuple[_Rows, int]] = {
    "identity": (((0, 0, 0), (0, 1, 0), (0, 0, 0)), 1),
    "mean": (((1, 1, 1), (1, 1, 1), (1, 1, 1)), 9),
    "gaussian": (((1, 2, 1), (2, 4, 2), (1, 2, 1)), 16),
    "sharpen": (((0, -1, 0), (-1, 5, -1), (0, -1, 0)), 1),
    "outline": (((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)), 1),
    "sobel-right": (((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), 1),
    "sobel-left": (((1, 0, -1), (2, 0, -2), (1, 0, -1)), 1),
    "sobel-down": (((-1, -2, -1), (0, 0, 0), (1, 2, 1)), 1),
    "sobel-up": (((1, 2, 1), (0, 0, 0), (-1, -2, -1)), 1),
    "shift-right": (((0, 0, 0), (1, 0, 0), (0, 0, 0)), 1),
    "shift-left": (((0, 0, 0), (0, 0, 1), (0, 0, 0)), 1),
    "shift-down": (((0, 1, 0), (0, 0, 0), (0, 0, 0)), 1),
    "shift-up": (((0, 0, 0), (0, 0, 0), (0, 1, 0)), 1),
    "edge-vertical": (((0, 0, 0), (-1, 0, 1), (0, 0, 0)), 1),
    "edge-horizontal": (((0, -1, 0), (0, 0, 0), (0, 1, 0)), 1),
}
"""Integer rows and the number that divides them. A Sobel kernel answers positively where the
picture gets brighter in its direction; a shift moves the picture by one pixel; an edge kernel is
the plain difference of the two neighbours across the edge."""

ALIASES: dict[str, str] = {
    "sobel-top": "sobel-up",
    "sobel-bottom": "sobel-down",
    "mean-blur": "mean",
    "gaussian-blur": "gaussian",
    "vertical-edge": "edge-vertical",
    "horizontal-edge": "edge-horizontal",
}
"""Other names by which some of them go."""

_MOST_SIDE = 31
_MOST_WEIGHT = 1e6
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?)(?:/(\d+\.?\d*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A matrix of weights, with the words in which it was given."""

    name: str
    """Its name; of a matrix, its size."""
    rows: tuple[tuple[str, ...], ...]
    """The numbers as they are written."""
    divisor: int = 1
    """Divides all of them."""

    @property
    def weight(self) -> Tensor:
        """Height × width, float32."""
        values = [[_value(text) for text in row] for row in self.rows]
        return torch.tensor(values, dtype=torch.float32) / self.divisor


def named_kernel(name: str) -> Tensor:
    """A kernel by name, 3×3 float32.

    Raises:
        ConfigError: no such name (with the near one).

    >>> named_kernel("sharpen").tolist()
    [[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]]
    """
    return _named(name).weight


def kernel(text: str) -> Kernel:
    """A kernel by its name, or a matrix: numbers apart by blanks, rows apart by semicolons.

    Sides go up to 31, odd or even; a number may be a fraction.

    Raises:
        ConfigError: no such name (with the near one), rows of different lengths, or what is no
            number; the message names the place.

    >>> kernel("0 -1 0; -1 5 -1; 0 -1 0").weight.equal(kernel("sharpen").weight)
    True
    >>> kernel("1/2, 1/2").weight.tolist()
    [[0.5, 0.5]]
    """
    plain = text.replace("−", "-").strip()
    if not re.search(r"[\d;]", plain):
        return _named(re.sub(r"\s+", "-", plain.lower()))
    lines = [line for line in re.split(r"[;\n]", plain) if line.strip()]
    rows = tuple(tuple(re.split(r"[\s,]+", line.strip().strip(","))) for line in lines)
    example = 'for example --kernel "0 -1 0; -1 5 -1; 0 -1 0"'
    for number, row in enumerate(rows, start=1):
        for entry in row:
            _value(entry, f"row {number} of the kernel")
        if len(row) != len(rows[0]):
            raise ConfigError(
                f"row {number} of the kernel has {len(row)} number(s), row 1 has {len(rows[0])}",
                f"rows are equally long; {example}",
            )
    if not rows:
        raise ConfigError("the kernel has no rows", example)
    if max(len(rows), len(rows[0])) > _MOST_SIDE:
        raise ConfigError(
            f"expected a kernel of at most {_MOST_SIDE}×{_MOST_SIDE}, "
            f"got {len(rows)}×{len(rows[0])}",
            "scale the picture down and take a smaller one",
        )
    return Kernel(name=f"{len(rows)}×{len(rows[0])}", rows=rows)


def _named(name: str) -> Kernel:
    known = ALIASES.get(name, name)
    if known not in KERNELS:
        raise ConfigError(f"no kernel is called {name!r}", near(name, [*KERNELS, *ALIASES]))
    rows, divisor = KERNELS[known]
    return Kernel(
        name=name, rows=tuple(tuple(str(value) for value in row) for row in rows), divisor=divisor
    )


def _value(text: str, place: str = "the kernel") -> float:
    """A number or a fraction."""
    found = _NUMBER.fullmatch(text)
    below = float(found[2] or 1) if found else 0.0
    if not found or below == 0:
        raise ConfigError(f"{place}: {text!r} is no number", "write 2, -0.5 or 1/9")
    value = float(found[1]) / below
    if not math.isfinite(value) or abs(value) > _MOST_WEIGHT:
        raise ConfigError(
            f"{place}: {text} is out of range, expected at most {_MOST_WEIGHT:g}",
            "the same kernel with smaller numbers shows as much",
        )
    return value


def correlate(images: Tensor, weight: Tensor, *, pad: Padding = "zeros", stride: int = 1) -> Tensor:
    """Each channel of the pictures by itself through one kernel, as a convolution layer computes.

    Padding keeps the size at stride 1. Of a kernel's side of even length, the weight before the
    middle lies on the pixel: one more pixel is added behind than before, as `nn.Conv2d` does.

    Args:
        images: B×C×H×W.
        weight: kh×kw.
        pad: what is assumed around the pictures.
        stride: pixels from one answer to the next.

    Returns:
        B×C×⌈H/stride⌉×⌈W/stride⌉; for valid of H − kh + 1 and W − kw + 1.

    Raises:
        ConfigError: the kernel reaches further than this padding has pixels.

    >>> correlate(torch.arange(4.0).view(1, 1, 1, 4), torch.tensor([[-1.0, 0, 1]]), pad="circular")
    tensor([[[[-2.,  2.,  2., -2.]]]])
    """
    high, wide = (int(side) for side in weight.shape)
    _check_reach((int(images.shape[-2]), int(images.shape[-1])), (high, wide), pad)
    if pad != "valid":
        before = ((wide - 1) // 2, wide // 2, (high - 1) // 2, high // 2)
        images = F.pad(images, before, mode="constant" if pad == "zeros" else pad)
    channels = int(images.shape[1])
    weights = weight.to(images.dtype).expand(channels, 1, high, wide)
    return F.conv2d(images, weights, stride=stride, groups=channels)


def _check_reach(size: tuple[int, int], kernel: tuple[int, int], pad: Padding) -> None:
    """Whether a picture has the pixels that its padding repeats."""
    lost = {"valid": 0, "reflect": 1, "circular": 0}
    if pad not in lost:
        return
    for side, reach in zip(size, kernel, strict=True):
        needed = reach if pad == "valid" else reach // 2 + lost[pad]
        if side < needed:
            raise ConfigError(
                f"a kernel of {kernel[0]}×{kernel[1]} with padding {pad!r} needs sides of at least "
                f"{needed} pixels, the picture has {size[0]}×{size[1]}",
                "--pad zeros or --pad replicate takes pictures of any size",
            )
