"""Where pixels come from: mirror, shift, turn, zoom. Floor 1, room data; imports torch.

Two ways to the same geometry. `shift_flip` moves whole pixels by index and keeps uint8; `warp`
resamples once, whatever was composed into its matrices. Both fold coordinates that leave the
picture in the same way, and both take and give channels_last memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Padding", "affine", "shift_flip", "shift_flip_axes", "warp"]

Padding = Literal["zero", "reflect", "replicate"]
"""What lies outside a picture: zeros, its mirror image without repeating the edge, or the edge."""

RUNS = ("cpu", "cuda")
"""Devices on which views may overlap; others may copy each of them."""


def _fold(position: Tensor, side: int, padding: Padding) -> Tensor:
    """Positions outside 0 … side − 1 brought inside as `padding` says; zeros are left to others."""
    if padding == "zero":
        return position
    if padding == "replicate" or side == 1:
        return position.clamp(0, side - 1)
    last = side - 1
    return last - (position.remainder(2 * last) - last).abs()


def shift_flip(
    images: Tensor,
    down: Tensor,
    right: Tensor,
    *,
    flip: Tensor | None = None,
    flip_vertical: Tensor | None = None,
    padding: Padding = "zero",
    reach: tuple[int, int],
) -> Tensor:
    """Mirror each picture, then move it by whole pixels; equal to `F.pad` and slicing.

    Args:
        images: B×C×H×W, any dtype; channels_last is the fast memory order.
        down: B, int64: pixels by which the picture moves down.
        right: B, int64: pixels by which it moves right.
        flip: B, bool: mirror left to right.
        flip_vertical: B, bool: mirror top to bottom.
        padding: what comes in from outside.
        reach: bounds of |down| and |right|.

    Returns:
        B×C×H×W of the same dtype, channels_last.
    """
    batch, channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device)[None] - down[:, None]
    rows = _fold(rows, height, padding)
    if flip_vertical is not None:
        rows = torch.where(flip_vertical[:, None], height - 1 - rows, rows)
    pixels = images.permute(0, 2, 3, 1)
    if device.type in RUNS:
        numbers = torch.arange(batch, device=device)
        if flip is not None:
            # Mirroring all pictures takes less than looking up the pixels of some.
            pixels, numbers = torch.cat([pixels, pixels.flip(2)]), numbers + batch * flip
        return _shift_lines(pixels, numbers, rows, right, padding, reach).permute(0, 3, 1, 2)
    columns = torch.arange(width, device=device)[None] - right[:, None]
    columns = _fold(columns, width, padding)
    if flip is not None:
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
    if padding == "zero" and any(reach):
        # A real border of zeros is cheaper than a mask over the result.
        pixels = F.pad(pixels, (0, 0, reach[1], reach[1], reach[0], reach[0]))
        rows, columns = rows + reach[0], columns + reach[1]
    stride = pixels.shape[2]
    rows += torch.arange(batch, device=device)[:, None] * pixels.shape[1]
    index = (rows * stride)[:, :, None] + columns[:, None, :]
    # Grey pictures as one row of bytes: rows of a single byte each take five times as long.
    flat = pixels.reshape(-1) if channels == 1 else pixels.reshape(-1, channels)
    flat = flat.index_select(0, index.view(-1))
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _shift_lines(
    pixels: Tensor,
    numbers: Tensor,
    rows: Tensor,
    right: Tensor,
    padding: Padding,
    reach: tuple[int, int],
) -> Tensor:
    """A row of a picture that moves right is still a run of the row with its border: as many copies
    of a row's bytes, in a fifth of the time that it takes to look pixels up.

    Args:
        pixels: N×H×W×C.
        numbers: B, int64: which pictures.
        rows: B×H, int64: of the picture; with zeros as padding, those outside are none.
        right: B, int64.
        padding: what comes in from outside.
        reach: bounds of the rows outside, and of |right|.

    Returns:
        B×H×W×C.
    """
    _, height, width, channels = pixels.shape
    down, far = reach
    if padding == "zero":
        pixels = F.pad(pixels, (0, 0, far, far, down, down))
        rows = rows + down
    elif far:
        columns = _fold(torch.arange(-far, width + far, device=pixels.device), width, padding)
        # Only the borders pixel by pixel.
        borders = [pixels.index_select(2, one) for one in (columns[:far], columns[-far:])]
        pixels = torch.cat([borders[0], pixels, borders[1]], dim=2)
    flat = pixels.reshape(-1)
    rows = rows + numbers[:, None] * pixels.shape[1]
    starts = (rows * pixels.shape[2] + far - right[:, None]) * channels
    length = width * channels
    # All runs of that length, one at each byte; they overlap, and nothing is copied but those asked
    # for.
    runs = flat.as_strided((max(0, len(flat) - length + 1), length), (1, 1))
    return runs.index_select(0, starts.view(-1)).view(len(numbers), height, width, channels)


def shift_flip_axes(
    samples: Tensor,
    shifts: Sequence[Tensor],
    *,
    flip: Tensor | None = None,
    flip_vertical: Tensor | None = None,
    padding: Padding = "zero",
    reach: tuple[int, ...],
) -> Tensor:
    """`shift_flip` for signals and volumes: what works on two axes works on them in turn.

    Args:
        samples: B×C×L or B×C×D×H×W, any dtype.
        shifts: B int64 for each axis behind the channels, towards its end.
        flip: B, bool: mirror the last axis.
        flip_vertical: B, bool: mirror the axis before it.
        padding: what comes in from outside.
        reach: bounds of |shift|, for each axis.

    Returns:
        The shape and dtype of `samples`, contiguous.
    """
    batch, channels, *size = samples.shape
    still = torch.zeros_like(shifts[-1])
    high = math.prod(size[:-1])
    # The two last axes; a signal is a picture of one row, a volume many pictures that move alike.
    flat = samples.reshape(batch, -1, size[-2] if len(size) > 1 else 1, size[-1])
    flat = shift_flip(
        flat,
        shifts[-2] if len(size) > 1 else still,
        shifts[-1],
        flip=flip,
        flip_vertical=flip_vertical,
        padding=padding,
        reach=(reach[-2] if len(size) > 1 else 0, reach[-1]),
    )
    if len(size) == 3 and reach[0]:
        flat = flat.reshape(batch, channels, size[0], high // size[0] * size[-1])
        flat = shift_flip(flat, shifts[0], still, padding=padding, reach=(reach[0], 0))
    return flat.reshape(samples.shape).contiguous()


def affine(
    size: tuple[int, int],
    *,
    degrees: Tensor,
    zoom: Tensor,
    down: Tensor,
    right: Tensor,
    flip: Tensor | None = None,
    flip_vertical: Tensor | None = None,
) -> Tensor:
    """Matrices of: mirror, turn anticlockwise and zoom about the centre, then shift.

    Args:
        size: height and width in pixels.
        degrees: B, float32.
        zoom: B, float32: 2 makes things twice as large.
        down: B, pixels.
        right: B, pixels.
        flip: B, bool: left to right; None: nowhere.
        flip_vertical: B, bool: top to bottom; None: nowhere.

    Returns:
        B×2×3 float32: the (x, y) in the source of each (x, y, 1) in the result; pixel centres lie
        at whole numbers.
    """
    centre_y, centre_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    radians = torch.deg2rad(degrees)
    cos, sin = torch.cos(radians) / zoom, torch.sin(radians) / zoom
    sign_x, sign_y = (
        1.0 if one is None else 1 - 2 * one.to(torch.float32) for one in (flip, flip_vertical)
    )
    # With y pointing down, the source of an anticlockwise turn is (x cos − y sin, x sin + y cos).
    matrix = torch.stack(
        [
            torch.stack([cos * sign_x, -sin * sign_x], 1),
            torch.stack([sin * sign_y, cos * sign_y], 1),
        ],
        dim=1,
    )
    # Multiplied out, so that identity parameters give whole numbers without rounding.
    moved = torch.stack([centre_x + right, centre_y + down], 1).to(torch.float32)
    turned = (matrix * moved[:, None, :]).sum(2)
    offset = torch.stack([centre_x - turned[:, 0], centre_y - turned[:, 1]], 1)
    return torch.cat([matrix, offset[:, :, None]], dim=2)


def _power_of_two(side: int) -> int:
    return 1 << (side - 1).bit_length()


def warp(
    images: Tensor,
    matrices: Tensor,
    padding: Padding = "zero",
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Tensor:
    """Resample each picture once.

    `grid_sample` takes coordinates scaled to −1 … 1, and for most sizes that scaling rounds: an
    identity would blur by 10⁻⁵. Sides are therefore padded up to a power of two, for which it is
    exact; positions outside are folded here, in pixels, and the rest meets zeros.

    Args:
        images: B×C×H×W float.
        matrices: B×2×3 from `affine`.
        padding: what lies outside.
        mode: `nearest` for numbers that must not be mixed, as those of masks.

    Returns:
        B×C×H×W float, channels_last. Whole-number positions come out bit for bit.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device, dtype=torch.float32)[None, None, :]
    y = torch.arange(height, device=images.device, dtype=torch.float32)[None, :, None]
    full = (_power_of_two(height), _power_of_two(width))
    grid = images.new_empty(images.shape[0], height, width, 2, dtype=torch.float32)
    for axis, (side, whole) in enumerate(((width, full[1]), (height, full[0]))):
        a, b, c = (matrices[:, axis, i, None, None] for i in range(3))
        place = _fold((b * y + c) + a * x, side, padding)
        grid[..., axis] = place.mul(2).add_(1).mul_(1 / whole).sub_(1)
    if full != (height, width):
        images = F.pad(images, (0, full[1] - width, 0, full[0] - height))
    result = F.grid_sample(
        images.contiguous(), grid, mode=mode, padding_mode="zeros", align_corners=False
    )
    return result.contiguous(memory_format=torch.channels_last)
