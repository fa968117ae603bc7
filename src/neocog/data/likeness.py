"""How alike two pictures are, whatever was done to one of them. Floor 1, room data; NumPy, torch.

A copy that was saved again, resized, cut, moved, mirrored, brightened, recoloured or overlaid with
noise still has the shapes of its original, a little elsewhere. So pictures are compared as grey
thumbnails, from which mean and contrast are taken away, at the place where they fit best.

`Coarse` describes each thumbnail by some thirty numbers, made so that a matrix product
compares many thousands of pictures with each other. For the few pairs that are worth it, `glance`
lays one thumbnail over the other at many sizes and places, and `look` does so closely.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.data.images import Images

__all__ = ["PROMISING", "SIDE", "Coarse", "Glance", "blank", "glance", "look", "thumbnails"]

SIDE = 32
"""Pixels of a thumbnail's side."""
OFFSETS = (-0.07, 0.0, 0.07)
"""Where the window of the coarse description lies, along each axis, as shares of the side; what was
moved by up to a tenth is less than half a step away from one of them."""
_WINDOW, _GRID, _WAVES = 0.8, 8, 6
"""The window's side as a share, samples along it, and the greatest sum of two frequencies."""
_LEVEL = 0.8
"""How far frequencies are brought to the same size: 0 not at all, 1 wholly. Pictures differ most in
their lowest frequencies, in which all skies are alike."""
_LUMA = (0.299, 0.587, 0.114)
_SIZES = range(13, 20)
"""Sides of a thumbnail at half the size, of which the usual one is 16: a fifth less or more."""
PROMISING = 0.88
"""Correlation at half the size below which no closer look is worth its time."""
_SLOW = 2
"""Half periods, down and across together, of the waves that are shading."""
_BLUR = 0.7
"""Standard deviation in pixels of the blur before a close look, which evens out noise."""
_NOTHING = 1.0
"""Standard deviation, in grey levels of 255, below which there is nothing to compare."""
_TOGETHER = 256
"""Pairs that are laid over each other at once: some 100 MB."""
_READ = 1 << 24
"""Pixels that are read at once."""


def thumbnails(images: Images) -> Tensor:
    """All pictures, grey and small, whatever their shape: N×SIDE×SIDE, uint8.

    Args:
        images: N pictures with 1 or 3 channels.
    """
    found = torch.empty(len(images), SIDE, SIDE, dtype=torch.uint8)
    # Pictures of one size together, so that they are read and scaled in one go.
    order = torch.argsort(images.sizes[:, 0] * (1 << 32) + images.sizes[:, 1], stable=True)
    luma = torch.tensor(_LUMA if images.channels == 3 else (1.0,)).view(1, -1, 1, 1)
    for ids, size in images.runs(order, 1024, _READ):
        grey = (images.gather(ids, size).float() * luma).sum(1, keepdim=True)
        small = functional.interpolate(
            grey, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
        )
        found[ids] = small[:, 0].round_().clamp_(0, 255).to(torch.uint8)
    return found


def blank(thumbs: Tensor) -> Tensor:
    """Which of N thumbnails show nothing but one grey: they have no shapes to compare."""
    pixels = thumbs.flatten(1).float()
    spread = (pixels - pixels.mean(1, keepdim=True)).square().mean(1).sqrt()
    return spread < 2 * _NOTHING


@functools.cache
def _waves() -> tuple[Tensor, Tensor]:
    """The coarse description as a matrix, and its waves that change sign in a mirror.

    Returns:
        9×K×SIDE²: for each place of the window, blur, sampling and the cosine transform without
        its constant; and K, bool.
    """
    space = _WINDOW / _GRID
    sigma = 0.6 * space * SIDE
    reach = math.ceil(3 * sigma)
    taps = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    one = torch.eye(SIDE * SIDE).view(-1, 1, SIDE, SIDE)
    blurred = functional.pad(one, (reach,) * 4, mode="replicate")
    blurred = functional.conv2d(
        functional.conv2d(blurred, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1)
    )
    places = (torch.arange(_GRID) + 0.5) * space + (1 - _WINDOW) / 2
    number = torch.arange(_GRID)
    cosines = torch.cos(torch.pi * (number[None] + 0.5) * number[:, None] / _GRID)
    cosines *= math.sqrt(2 / _GRID)
    cosines[0] /= math.sqrt(2)
    both = number[:, None] + number[None]
    chosen = (both > 0) & (both <= _WAVES)
    rows = []
    for down in OFFSETS:
        for right in OFFSETS:
            y, x = torch.meshgrid(2 * (places + down) - 1, 2 * (places + right) - 1, indexing="ij")
            grid = torch.stack((x, y), -1)[None].expand(len(blurred), -1, -1, -1)
            window = functional.grid_sample(
                blurred, grid, padding_mode="border", align_corners=False
            )
            rows.append((cosines @ window[:, 0] @ cosines.T)[:, chosen].T)
    odd = (number % 2 == 1).expand(_GRID, _GRID)[chosen]
    return torch.stack(rows), odd


class Coarse:
    """Descriptions of thumbnails whose products say how alike they are, about.

    Args:
        thumbs: N×SIDE×SIDE, uint8: those whose usual spread sets the scale of each number.
    """

    def __init__(self, thumbs: Tensor) -> None:
        matrix, self._odd = _waves()
        middle = thumbs[:: max(1, len(thumbs) // 4096)].flatten(1).float() @ matrix[4].T
        spread = middle.std(0).clamp_min(1e-3) if len(middle) > 1 else torch.ones(len(self._odd))
        self._matrix = matrix / spread[:, None] ** _LEVEL

    def middle(self, thumbs: Tensor) -> Tensor:
        """Of the window in the middle: N×K, of norm 1; 0 for pictures of one colour."""
        return functional.normalize(thumbs.flatten(1).float() @ self._matrix[4].T, dim=1)

    def moved(self, thumbs: Tensor) -> Tensor:
        """Of all windows, as they are and mirrored: 18×N×K."""
        flat = thumbs.flatten(1).float()
        found = functional.normalize(torch.einsum("np,vkp->vnk", flat, self._matrix), dim=2)
        return torch.cat((found, torch.where(self._odd, -found, found)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """Where P pairs fit best at half the size."""

    best: Tensor
    """P, −1…1: correlation of the grey values there."""
    mirrored: Tensor
    """P, bool."""
    side: Tensor
    """P; pixels that the first picture was scaled to, of `SIDE` / 2."""
    place: Tensor
    """P×2; top and left of the window of the first that the middle of the second lies on."""


@torch.no_grad()
def glance(
    thumbs: Tensor, first: Tensor, second: Tensor, tell: Callable[[int], None] | None = None
) -> Glance:
    """Lay the middle of the second picture of each pair over the first, at every size and place.

    Sizes differ by up to a fifth, and all is tried as it is and mirrored.

    Args:
        thumbs: N×SIDE×SIDE, uint8.
        first: P, int64, ids.
        second: P, int64, ids.
        tell: told how many more pairs are done.
    """
    found: list[tuple[Tensor, ...]] = [
        (torch.empty(0), *(torch.empty(0, dtype=torch.long),) * 2, torch.empty(0, 2).long())
    ]
    for start in range(0, len(first), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        found.append(_glance(thumbs[first[some]].float(), thumbs[second[some]].float()))
        if tell:
            tell(len(first[some]))
    best, mirrored, side, place = (torch.cat(one) for one in zip(*found, strict=True))
    return Glance(best=best, mirrored=mirrored.bool(), side=side, place=place)


def _glance(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Likeness, mirrored, size and place of some pairs, as in `Glance`."""
    one, two = _scaled(one, SIDE // 2), _scaled(two, SIDE // 2)
    best = torch.full((len(one),), -1.0)
    mirrored, size = (torch.zeros(len(one), dtype=torch.long) for _ in range(2))
    place = torch.zeros(len(one), 2, dtype=torch.long)
    middle = 3 * SIDE // 8
    level = _shading(middle, 0)
    templates = torch.stack([_template(other, middle, level) for other in (two, two.flip(2))], 1)
    for side in _SIZES:
        found, where = _correlations(_scaled(one, side), templates, middle, level)
        found, turned = found.max(1)
        where = where.gather(1, turned[:, None])[:, 0]
        better = found > best
        across = side - middle + 1
        best[better], mirrored[better], size[better] = found[better], turned[better], side
        place[better] = torch.stack((where // across, where % across), 1)[better]
    return best, mirrored, size, place


@torch.no_grad()
def look(
    thumbs: Tensor,
    first: Tensor,
    second: Tensor,
    seen: Glance,
    tell: Callable[[int], None] | None = None,
    *,
    stripes: bool = True,
) -> Tensor:
    """Likeness of pairs about where they fit: correlation without shading, P, −1…1.

    What is as smooth as the slowest waves says nothing: all skies and all seas have it.

    Args:
        thumbs: N×SIDE×SIDE, uint8.
        first: P, int64, ids.
        second: P, int64, ids.
        seen: of these pairs.
        tell: told how many more pairs are done.
        stripes: whether what is the same all along a row or a column counts, as a horizon is.
    """
    found = torch.empty(len(first))
    for half in _SIZES:
        rows = (seen.side == half).nonzero()[:, 0]
        for some in torch.split(rows, _TOGETHER):
            one, two = thumbs[first[some]].float(), thumbs[second[some]].float()
            two = torch.where(seen.mirrored[some][:, None, None], two.flip(2), two)
            found[some] = _look(one, two, half, seen.place[some], stripes)
            if tell:
                tell(len(some))
    return found


def _look(one: Tensor, two: Tensor, half: int, place: Tensor, stripes: bool) -> Tensor:
    """Likeness of some pairs that are turned alike, at three sizes about one and places about
    one."""
    one, two = _smooth(one), _smooth(two)
    side = 3 * SIDE // 4
    shading = _shading(side, _SLOW, stripes)
    template = _template(two, side, shading)[:, None]
    best = torch.full((len(one),), -1.0)
    for size in (2 * half - 1, 2 * half, 2 * half + 1):
        width = min(size, side + 4)
        corner = (2 * place - 2).clamp(0, size - width)
        down, right = (corner[:, axis, None] + torch.arange(width) for axis in (0, 1))
        scaled = _scaled(one, size)
        around = scaled[torch.arange(len(one))[:, None, None], down[:, :, None], right[:, None]]
        found, _ = _correlations(around, template, side, shading)
        best = torch.maximum(best, found[:, 0])
    return best


@functools.cache
def _shading(side: int, most: int, stripes: bool = True) -> Tensor:
    """Orthonormal waves that are taken away: W×side², those of which the numbers of half periods
    down and across sum up to `most` at most; the constant alone for 0. Without stripes, also all
    that do not change down or do not change across."""
    place, number = (torch.arange(side) + 0.5) / side, torch.arange(side)
    waves = torch.cos(torch.pi * number[:, None] * place) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    down, across = number[:, None], number[None]
    chosen = down + across <= most
    if not stripes:
        chosen |= torch.minimum(down, across) == 0
    rows, columns = chosen.nonzero(as_tuple=True)
    return (waves[rows][:, :, None] * waves[columns][:, None, :]).flatten(1)


def _template(pictures: Tensor, side: int, shading: Tensor) -> Tensor:
    """The middle of each picture, P×side², without shading and of norm 1."""
    edge = (pictures.shape[-1] - side) // 2
    cut = pictures[:, edge : edge + side, edge : edge + side].flatten(1)
    cut = cut - (cut @ shading.T) @ shading
    norm = torch.linalg.vector_norm(cut, dim=1, keepdim=True).clamp_min(_NOTHING * side)
    middle: Tensor = cut / norm
    return middle


def _correlations(
    pictures: Tensor, templates: Tensor, side: int, shading: Tensor
) -> tuple[Tensor, Tensor]:
    """The greatest correlation of each template with a window of its picture, and which.

    Args:
        pictures: P×n×n.
        templates: P×T×side², as `_template` makes them.
        side: of the windows.
        shading: of `_shading`, which is taken away from each window.

    Returns:
        P×T, and P×T: the window's number, row by row.
    """
    windows = functional.unfold(pictures[:, None], side)
    taken = (shading @ windows).square_().sum(1)
    found = torch.bmm(templates, windows)
    power = windows.square_().sum(1) - taken
    found /= power.clamp_min((_NOTHING * side) ** 2).sqrt_()[:, None]
    best = found.max(2)
    return best.values, best.indices


def _smooth(pictures: Tensor) -> Tensor:
    """Blurred by `_BLUR` pixels: noise and blocks of JPEG weigh less."""
    reach = math.ceil(3 * _BLUR)
    taps = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * _BLUR**2))
    taps /= taps.sum()
    padded = functional.pad(pictures[:, None], (reach,) * 4, mode="replicate")
    return functional.conv2d(
        functional.conv2d(padded, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1)
    )[:, 0]


def _scaled(pictures: Tensor, side: int) -> Tensor:
    if pictures.shape[-1] == side:
        return pictures
    return functional.interpolate(
        pictures[:, None], (side, side), mode="bilinear", antialias=True, align_corners=False
    )[:, 0]
