"""What is done to pictures to see whether an answer holds still. Floor 1, explain.

Imports floor 0, NumPy, Pillow and torch. Pictures are uint8 B×C×H×W before and after, as a
predictor takes them; what comes in from outside is the mirror image of what is inside, without
repeating the edge. One change of one picture depends on the picture, the level, its id and the
seed, never on the rest of the batch. Signals and volumes are refused.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from neocog import chance
from neocog.errors import ConfigError, near
from neocog.geometry import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

__all__ = ["CHANGES", "WAYS", "Change", "changed", "check", "farthest", "shifted"]

_NUMBERS = 1 << 20
"""Pixels for which noise is drawn at a time: its 64-bit draws are held for no more."""
_WAYS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Down and right, of the eight ways in which a picture is shifted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that may happen to a picture, and how much of it is tried."""

    levels: tuple[float, ...]
    """Rising, `none` among them."""
    none: float
    """The level that leaves the picture as it is, bit for bit."""
    unit: str
    """Of the levels."""
    words: str
    """What is done, for people."""
    drawn: bool
    """Whether pictures of other ids are changed in another way: `WAYS` ids in a row show all."""
    make: Callable[[Tensor, float, Tensor, int], Tensor]
    """Pictures, level, their ids and a seed → pictures."""
    allowed: tuple[float, float]
    """Lowest and highest level."""


WAYS = len(_WAYS)
"""Ids in a row that are shifted in as many ways: all of them."""


def changed(
    pictures: Tensor, name: str, level: float, *, ids: Tensor | None = None, seed: int = 0
) -> Tensor:
    """Pictures after one change.

    Args:
        pictures: B×C×H×W uint8.
        name: of `CHANGES`.
        level: how much, in the change's unit; not only those of its table.
        ids: B int64, non-negative, what shifts and noise are drawn by; 0 … B − 1 by default.
        seed: of what is drawn.

    Returns:
        B×C×H×W uint8 of their own memory, on the pictures' device.

    Raises:
        ConfigError: no such change, a level outside of its range, or no pictures.
    """
    if name not in CHANGES:
        raise ConfigError(f"no change is called {name!r}", near(name, CHANGES))
    change = CHANGES[name]
    low, high = change.allowed
    if not low <= level <= high:
        raise ConfigError(
            f"expected a {name} of {low:g} to {high:g} {change.unit}, found {level:g}",
            f"usual levels: {', '.join(f'{one:g}' for one in change.levels)}",
        )
    check(pictures)
    if ids is None:
        ids = torch.arange(len(pictures), device=pictures.device)
    if ids.shape != (len(pictures),):
        raise ConfigError(f"expected {len(pictures)} ids, found {tuple(ids.shape)}")
    if level == change.none or not len(pictures):
        return pictures.clone()
    return change.make(pictures, level, ids.to(pictures.device, torch.int64), seed)


def check(pictures: Tensor) -> None:
    """Refuse what is no batch of pictures.

    Raises:
        ConfigError: another type or number of axes.
    """
    if pictures.dtype != torch.uint8 or pictures.dim() != 4:
        kinds = {3: " (signals)", 5: " (volumes)"}
        raise ConfigError(
            f"expected pictures B×C×H×W of uint8, found {size_text(pictures.shape)}"
            f"{kinds.get(pictures.dim(), '')} of {str(pictures.dtype).removeprefix('torch.')}",
            "shifts, turns and JPEG are changes of pictures; signals and volumes have none of them",
        )


def farthest(size: tuple[int, int]) -> int:
    """The furthest shift that is tried: 8 pixels, but at most a third of the shorter side, since
    what has left the picture cannot be named.

    >>> farthest((32, 32)), farthest((28, 28)), farthest((8, 8))
    (8, 8, 2)
    """
    return max(1, min(8, (min(size) - 1) // 3))


# -- where pixels come from -----------------------------------------------------------------------


def shifted(pictures: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each picture moved by its own whole numbers of pixels.

    Args:
        pictures: B×C×H×W of any type.
        down: B int64.
        right: B int64.
    """
    device = pictures.device
    batch, channels, height, width = pictures.shape
    rows = _inside(torch.arange(height, device=device) - down[:, None], height)
    columns = _inside(torch.arange(width, device=device) - right[:, None], width)
    return pictures[
        torch.arange(batch, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def _inside(position: Tensor, side: int) -> Tensor:
    """Positions brought inside 0 … side − 1 by mirrors that stand on the outermost pixels."""
    last = side - 1
    if not last:
        return torch.zeros_like(position)
    return last - (position.remainder(2 * last) - last).abs()


def _shift(pictures: Tensor, level: float, ids: Tensor, seed: int) -> Tensor:
    """Ids in a row take the eight ways in turn; where a row begins is drawn, so that classes that
    follow each other in steps of eight do not all go one way."""
    begin = chance.draw(chance.key(seed, "change", "shift"), ids // WAYS)
    ways = torch.tensor(_WAYS, device=ids.device)[(begin + ids) % WAYS] * round(level)
    return shifted(pictures, ways[:, 0], ways[:, 1])


def _resampled(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bilinear: every picture at the same places.

    Products and sums are operations of their own: one that does both may round otherwise at the
    end of a batch than in its middle.

    Args:
        pictures: B×C×H×W float32.
        rows: H×W float64, where each pixel of the result comes from.
        columns: likewise.
    """
    height, width = pictures.shape[-2:]
    top, left = rows.floor(), columns.floor()
    flat = pictures.flatten(2)
    total = torch.zeros_like(flat)
    for below, down in ((0, 1 - (rows - top)), (1, rows - top)):
        for beside, right in ((0, 1 - (columns - left)), (1, columns - left)):
            row, column = _inside(top + below, height), _inside(left + beside, width)
            index = (row * width + column).long().flatten().to(flat.device)
            weight = (down * right).float().flatten().to(flat.device)
            total += flat.index_select(2, index).mul_(weight)
    return total.view_as(pictures)


def _places(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of all pixels, seen from the centre: H×W float64."""
    down, right = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in size)
    return down[:, None].expand(size), right[None, :].expand(size)


def _turn(pictures: Tensor, level: float, _: Tensor, __: int) -> Tensor:
    height, width = pictures.shape[-2:]
    down, right = _places((height, width))
    cos, sin = math.cos(math.radians(level)), math.sin(math.radians(level))
    rows = cos * down + sin * right + (height - 1) / 2
    columns = cos * right - sin * down + (width - 1) / 2
    return _rounded(_resampled(pictures.float(), rows, columns))


def _scale(pictures: Tensor, level: float, _: Tensor, __: int) -> Tensor:
    """What shrinks is blurred before, by (1/level − 1)/2 pixels: else its details would turn into
    other ones."""
    height, width = pictures.shape[-2:]
    down, right = _places((height, width))
    pixels = pictures.float()
    if level < 1:
        pixels = _blurred(pixels, (1 / level - 1) / 2)
    rows, columns = down / level + (height - 1) / 2, right / level + (width - 1) / 2
    return _rounded(_resampled(pixels, rows, columns))


# -- what pixels are worth ------------------------------------------------------------------------


def _rounded(pixels: Tensor) -> Tensor:
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def _brighten(pictures: Tensor, level: float, _: Tensor, __: int) -> Tensor:
    return _rounded(pictures.float() * level)


def _blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian, separable, cut off at four standard deviations; B×C×H×W float32."""
    radius = int(4 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (steps / sigma) ** 2)
    taps /= taps.sum()
    for axis in (2, 3):
        side = pixels.shape[axis]
        places = torch.arange(side, device=pixels.device)
        total = torch.zeros_like(pixels)
        for step, tap in zip(steps.tolist(), taps.tolist(), strict=True):
            total += pixels.index_select(axis, _inside(places + step, side)).mul_(tap)
        pixels = total
    return pixels


def _blur(pictures: Tensor, level: float, _: Tensor, __: int) -> Tensor:
    return _rounded(_blurred(pictures.float(), level))


def _noise(pictures: Tensor, level: float, ids: Tensor, seed: int) -> Tensor:
    """Independent for each pixel and channel, from (seed, id, pixel), the same pattern at every
    level: 2¹⁶ equally likely values of the normal distribution, out to 4.3 standard deviations."""
    device = pictures.device
    count = pictures[0].numel()
    middle = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
    normal = (torch.special.ndtri(middle) * level).float().to(device)
    pixels = chance.draw(
        chance.key(seed, "change", "noise", "pixel"), torch.arange(count, device=device)
    )
    samples = chance.draw(chance.key(seed, "change", "noise", "sample"), ids)
    parts = []
    few = max(1, _NUMBERS // count)
    for some, whose in zip(torch.split(pictures, few), torch.split(samples, few), strict=True):
        bits = chance.mix(whose[:, None] ^ pixels[None])
        parts.append(_rounded(some.float() + normal[bits >> 16].view(some.shape)))
    return torch.cat(parts)


def _jpeg(pictures: Tensor, level: float, _: Tensor, __: int) -> Tensor:
    """Written and read as Pillow does by default (colour at half the size); pictures of other than
    one or three channels channel by channel."""
    batch, channels, height, width = pictures.shape
    together = 3 if channels == 3 else 1
    planes = pictures.cpu().reshape(-1, together, height, width).permute(0, 2, 3, 1).numpy()
    result = np.empty_like(planes)
    for plane, read in zip(planes, result, strict=True):
        file = io.BytesIO()
        pixels = np.ascontiguousarray(plane if together == 3 else plane[:, :, 0])
        Image.fromarray(pixels).save(file, "JPEG", quality=round(level))
        with Image.open(file, formats=("JPEG",)) as picture:
            read[:] = np.asarray(picture).reshape(read.shape)
    back = torch.from_numpy(result).permute(0, 3, 1, 2).reshape(batch, channels, height, width)
    return back.contiguous().to(pictures.device)


CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "shift": Change(
            levels=tuple(range(9)),
            none=0,
            unit="pixels",
            words="moved along, across or both, one of eight ways for each picture",
            drawn=True,
            make=_shift,
            allowed=(0, 65535),
        ),
        "rotation": Change(
            levels=(-45, -30, -20, -10, 0, 10, 20, 30, 45),
            none=0,
            unit="degrees",
            words="turned anticlockwise about the centre",
            drawn=False,
            make=_turn,
            allowed=(-360, 360),
        ),
        "scale": Change(
            levels=(0.5, 0.63, 0.8, 1, 1.25, 1.6, 2),
            none=1,
            unit="×",
            words="made smaller or larger about the centre",
            drawn=False,
            make=_scale,
            allowed=(0.05, 20),
        ),
        "brightness": Change(
            levels=(0.25, 0.5, 0.75, 1, 1.33, 2, 3),
            none=1,
            unit="×",
            words="every value multiplied",
            drawn=False,
            make=_brighten,
            allowed=(0, 255),
        ),
        "blur": Change(
            levels=(0, 0.5, 1, 1.5, 2, 3),
            none=0,
            unit="pixels",
            words="blurred by a Gaussian of this standard deviation",
            drawn=False,
            make=_blur,
            allowed=(0, 50),
        ),
        "noise": Change(
            levels=(0, 5, 10, 20, 40, 80),
            none=0,
            unit="of 255",
            words="Gaussian noise of this standard deviation added to each value",
            drawn=True,
            make=_noise,
            allowed=(0, 255),
        ),
        "jpeg": Change(
            levels=(5, 10, 20, 40, 60, 80, 100),
            none=100,
            unit="quality",
            words="written as JPEG of this quality and read again; at 100 not written at all",
            drawn=False,
            make=_jpeg,
            allowed=(1, 100),
        ),
    }
)
"""Name → what is done, at which levels."""
