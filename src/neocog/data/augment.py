"""What a training picture goes through. Floor 1, room data; imports floor 0, this room and torch.

Three things live here: the rules that fill an `AugmentRecipe` from the data (`resolve`, and
`explain` in words), `Augment`, which applies a recipe to a batch, and `contact_sheet`, which shows
the result. Geometry is in `warp`, values in `color`, squares and pairs in `mixing`.

Every random number is a hash of (seed, epoch, purpose, sample id): a sample gets the same
treatment in an epoch whatever batch, order, process or device it comes in. Only the partner of
mixup and cutmix depends on the rest of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog import chance
from neocog.data import color, draws, mixing, warp
from neocog.errors import ConfigError
from neocog.records import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.config import AugmentRecipe
    from neocog.data.dataset import Dataset
    from neocog.data.samples import TargetKind

__all__ = ["Augment", "contact_sheet", "explain", "reach", "resolve", "tiles"]

SMALL = 64
"""Pictures up to this many pixels a side are thumbnails, larger ones photographs."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """One value that the rules chose, with the reason for people."""

    value: float | str
    reason: str


def _is_symbol(name: str) -> bool:
    """Is the class a digit, a letter or a number? Mirrored, it would be another one or none."""
    return len(name) == 1 or name.lstrip("+-").replace(".", "", 1).isdecimal()


def _rules(
    *,
    channels: int,
    size: tuple[int, int],
    classes: Sequence[str],
    kind: TargetKind,
    uniform: bool,
) -> dict[str, _Choice]:
    """What is chosen for each field of the recipe that may be None."""
    small = max(size) <= SMALL
    if kind == "numbers":
        flip = _Choice(0.0, "a mirrored picture may stand for another number")
    elif classes and all(_is_symbol(name) for name in classes):
        flip = _Choice(0.0, "class names are single characters or numbers")
    elif channels == 1 and small:
        flip = _Choice(0.0, "small grey pictures are often of signs")
    else:
        flip = _Choice(0.5, "a mirrored picture keeps its class")
    if small and uniform:
        shift = _Choice(0.125, "small pictures of one size")
    else:
        shift = _Choice(0.0, "the random crop of larger pictures moves them already")
    if channels == 1:
        padding = _Choice("zero", "grey pictures mostly have a black ground")
    else:
        padding = _Choice("reflect", "colour pictures rarely end in black")
    if small:
        scale = _Choice(0.0, "small pictures lose detail")
    else:
        scale = _Choice(0.2, "things in photographs come in many sizes")
    rotate = _Choice(0.0, "most things have an upright")
    return {"flip": flip, "shift": shift, "padding": padding, "rotate": rotate, "scale": scale}


def resolve(
    recipe: AugmentRecipe,
    *,
    channels: int,
    size: tuple[int, int],
    classes: Sequence[str],
    kind: TargetKind,
    uniform: bool,
) -> AugmentRecipe:
    """The recipe with every None replaced by what suits the data; what was set stays.

    - flip 0.5, but 0 for numbers as targets, for classes that are all single characters or
      numbers, and for grey pictures up to 64 pixels;
    - shift 0.125 of the side for pictures up to 64 pixels that are all of one size, else 0: those
      are cropped at random from the margin that they are stored with;
    - padding zero for grey, reflect for colour;
    - scale 0.2 above 64 pixels; no rotation.

    Args:
        recipe: as the user left it.
        channels: 1 or 3.
        size: height and width of the network's input.
        classes: class, label or column names.
        kind: what the targets are.
        uniform: whether all pictures are stored in one size.

    >>> from neocog.config import AugmentRecipe
    >>> digits = dict(channels=1, size=(8, 8), classes="0123456789", kind="class", uniform=True)
    >>> found = resolve(AugmentRecipe(), **digits)
    >>> found.flip, found.shift, found.padding, found.rotate, found.scale
    (0.0, 0.125, 'zero', 0.0, 0.0)
    """
    rules = _rules(channels=channels, size=size, classes=classes, kind=kind, uniform=uniform)
    found = {name: rule.value for name, rule in rules.items() if getattr(recipe, name) is None}
    return replace(recipe, **found)  # type: ignore[arg-type]


def explain(
    recipe: AugmentRecipe,
    *,
    channels: int,
    size: tuple[int, int],
    classes: Sequence[str],
    kind: TargetKind,
    uniform: bool,
) -> tuple[str, ...]:
    """A resolved recipe in words, one sentence for each thing that is done or left out by rule.

    Arguments as for `resolve`.

    >>> from neocog.config import AugmentRecipe
    >>> digits = dict(channels=1, size=(8, 8), classes="0123456789", kind="class", uniform=True)
    >>> for line in explain(resolve(AugmentRecipe(), **digits), **digits):
    ...     print(line)
    not flipped: class names are single characters or numbers; --set augment.flip=0.5 turns it on
    shifted by up to 1 pixel down or up and 1 across, zero padding: small pictures of one size
    """
    rules = _rules(channels=channels, size=size, classes=classes, kind=kind, uniform=uniform)

    def why(name: str) -> str:
        rule = rules[name]
        return rule.reason if getattr(recipe, name) == rule.value else "as set"

    lines = []
    if recipe.flip:
        lines.append(f"flipped left to right with probability {recipe.flip:g}: {why('flip')}")
    else:
        lines.append(f"not flipped: {why('flip')}; --set augment.flip=0.5 turns it on")
    if recipe.flip_vertical:
        lines.append(f"flipped top to bottom with probability {recipe.flip_vertical:g}")
    down, right = reach(recipe, size)
    if down or right:
        unit = "pixel" if down == 1 else "pixels"
        text = f"shifted by up to {down} {unit} down or up and {right} across, "
        lines.append(f"{text}{recipe.padding} padding: {why('shift')}")
    else:
        lines.append(f"not shifted: {why('shift')}")
    if kind == "numbers" and (down or right or recipe.scale):
        lines.append(
            "places and sizes change, the numbers stay; where they measure a place or a size: "
            "--set augment.shift=0 --set augment.scale=0"
        )
    if recipe.rotate:
        lines.append(f"turned by up to {recipe.rotate:g} degrees either way: as set")
    if recipe.scale:
        low, high = 1 / (1 + recipe.scale), 1 + recipe.scale
        lines.append(f"zoomed by {low:.2f} to {high:.2f}: {why('scale')}")
    for name in ("color", "contrast", "brightness", "blur", "noise", "cutout", "mixup", "cutmix"):
        value = getattr(recipe, name)
        if value and not (name == "color" and channels == 1):
            lines.append(f"{name} {value:g}: as set")
    return tuple(lines)


def reach(recipe: AugmentRecipe, size: tuple[int, int]) -> tuple[int, int]:
    """The largest shift down and across in pixels; some of the picture always stays."""
    share = recipe.shift or 0.0
    return min(round(share * size[0]), size[0] - 1), min(round(share * size[1]), size[1] - 1)


class Augment:
    """A resolved recipe as a function of (batch, epoch).

    Args:
        recipe: resolved.
        seed: the run's seed.
        classes: number of classes, labels or columns; class indices become shares of so many when
            pairs are mixed.
        kind: what the targets are.
        mean: per channel, in units of 0…1; cutout fills with it.

    Raises:
        ConfigError: the recipe still has a None.
    """

    def __init__(
        self,
        recipe: AugmentRecipe,
        *,
        seed: int,
        classes: int,
        kind: TargetKind,
        mean: tuple[float, ...],
    ) -> None:
        open_fields = [f.name for f in fields(recipe) if getattr(recipe, f.name) is None]
        if open_fields:
            raise ConfigError(
                f"augment.{open_fields[0]} is not decided yet", "pass the recipe through resolve()"
            )
        self.recipe = recipe
        self.seed = seed
        self.classes = classes
        self.kind: TargetKind = kind
        self.mean = mean

    def __repr__(self) -> str:
        active = [
            f"{f.name}={getattr(self.recipe, f.name)!r}"
            for f in fields(self.recipe)
            if getattr(self.recipe, f.name)
        ]
        return f"Augment({', '.join(active)}, seed={self.seed})"

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """Augment one batch: `each`, then `mix`. The argument stays as it is.

        Args:
            batch: uint8 images B×C×H×W, on any device.
            epoch: together with the seed and the ids it decides every number drawn.

        Returns:
            Images float32 in 0…255 units, channels_last; uint8 while only flips and shifts are on.
            With mixup or cutmix the targets are B×K float32 and the weights mixed, as
            `mixing.mix_pairs` says.
        """
        return self.mix(self.each(batch, epoch), epoch)

    def each(self, batch: Batch, epoch: int) -> Batch:
        """What happens to each picture by itself, whatever others are in its batch."""
        recipe = self.recipe
        images = self._move(batch.images, batch.ids, epoch)
        images = self._recolor(images, batch.ids, epoch)
        if recipe.cutout:
            # Filled on the device: a copy of numbers from the host would wait for it.
            fill = torch.stack([torch.full((), x, device=images.device) for x in self.mean]) * 255
            key = chance.key(self.seed, epoch, "cutout")
            images = mixing.cutout(images.float(), batch.ids, key, recipe.cutout, fill)
        return replace(batch, images=images)

    def mix(self, batch: Batch, epoch: int) -> Batch:
        """What pictures of one batch do to each other."""
        recipe = self.recipe
        if not (recipe.mixup or recipe.cutmix):
            return batch
        return mixing.mix_pairs(
            replace(batch, images=batch.images.float()),
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            classes=self.classes,
            key=chance.key(self.seed, epoch, "mix"),
        )

    def windows(
        self, sizes: Tensor, size: tuple[int, int], ids: Tensor, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Where to crop pictures that are stored larger than the network's input.

        Args:
            sizes: B×2, int64: stored height and width of each picture.
            size: height and width of the crop.
            ids: B, int64.
            epoch: as for a call.

        Returns:
            Top and left of each crop, B int64, every place that fits equally likely.
        """
        result = []
        for axis, name in enumerate(("top", "left")):
            room = (sizes[:, axis].to(torch.int64) - size[axis]).clamp(min=0)
            result.append(draws.integers(chance.key(self.seed, epoch, name), ids, room + 1))
        return result[0], result[1]

    def _between(self, ids: Tensor, epoch: int, name: str, low: float, high: float) -> Tensor:
        return draws.between(chance.key(self.seed, epoch, name), ids, low, high)

    def _move(self, images: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """Flip, shift, turn and zoom, by index where that will do, else in one resampling."""
        recipe = self.recipe
        size = (images.shape[-2], images.shape[-1])
        far = reach(recipe, size)
        if not (any(far) or recipe.flip or recipe.flip_vertical or recipe.rotate or recipe.scale):
            return images
        flips = {
            name: self._between(ids, epoch, name, 0, 1) < odds
            for name in ("flip", "flip_vertical")
            if (odds := getattr(recipe, name))
        }
        if recipe.alternate and recipe.flip:
            turns = draws.integers(chance.key(self.seed, "turns"), ids, torch.full_like(ids, 2))
            flips["flip"] = (turns + epoch) % 2 == 1
        down, right = (
            draws.integers(chance.key(self.seed, epoch, name), ids, 2 * most + 1) - most
            for name, most in zip(("down", "right"), far, strict=True)
        )
        padding = recipe.padding or "zero"
        if not recipe.rotate and not recipe.scale:
            return warp.shift_flip(images, down, right, **flips, padding=padding, reach=far)
        rotate, scale = recipe.rotate or 0.0, recipe.scale or 0.0
        matrices = warp.affine(
            size,
            degrees=self._between(ids, epoch, "rotate", -rotate, rotate),
            zoom=(1 + scale) ** self._between(ids, epoch, "scale", -1, 1),
            down=down,
            right=right,
            **flips,
        )
        return warp.warp(images.float(), matrices, padding)

    def _recolor(self, images: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """Blur, then contrast, brightness and colour, then noise; clamped to 0…255 at the end."""
        recipe = self.recipe
        channels = images.shape[1]
        recolored = recipe.contrast or recipe.brightness or (recipe.color and channels == 3)
        if recipe.blur:
            sigma = self._between(ids, epoch, "blur", 0, recipe.blur)
            images = color.blur(images.float(), sigma, recipe.blur)
        if recolored:
            factor = self._between(ids, epoch, "contrast", -recipe.contrast, recipe.contrast)
            light = self._between(ids, epoch, "brightness", -recipe.brightness, recipe.brightness)
            shift = light[:, None].expand(-1, channels)
            if recipe.color and channels == 3:
                tint = (
                    self._between(ids, epoch, name, -recipe.color, recipe.color)
                    for name in ("red", "green", "blue")
                )
                shift = shift + torch.stack(tuple(tint), dim=1)
            images = color.recolor(images.float(), (1 + factor).clamp(min=0), shift * 255)
        if recipe.noise:
            sigma = self._between(ids, epoch, "noise", 0, recipe.noise * 255)
            key = chance.key(self.seed, epoch, "pixels")
            images = color.add_noise(images.float(), sigma, key, ids)
        # Bilinear resampling and blurring stay in range by themselves, but for rounding.
        return images.clamp_(0, 255) if recolored or recipe.noise else images


def tiles(
    data: Dataset, augment: Augment, *, epoch: int = 0, rows: int = 4, columns: int = 8
) -> list[list[NDArray[np.uint8]]]:
    """What the network sees: originals in the first row, then one row for each epoch.

    Args:
        data: its training part is shown, samples spread evenly over it.
        augment: what to show.
        epoch: the first epoch shown.
        rows: rows in all, the originals included.
        columns: samples; fewer where the training part has fewer.

    Returns:
        rows × columns pictures, H×W×C.
    """
    part = data.splits["train"]
    columns = min(columns, len(part))
    places = torch.arange(columns) * len(part) // max(1, columns)
    ids = part[places]
    shown = []
    for row in range(rows):
        now = epoch + row - 1
        tops, lefts = (
            augment.windows(data.images.sizes[ids], data.size, ids, now) if row else (None, None)
        )
        batch = Batch(
            images=data.images.gather(ids, data.size, tops, lefts),
            targets=data.targets[ids],
            weights=data.weights[ids],
            valid=torch.ones(columns, dtype=torch.bool),
            ids=ids,
        )
        images = augment(batch, now).images if row else batch.images
        pixels = images.float().round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        shown.append(list(pixels.numpy()))
    return shown


def contact_sheet(
    data: Dataset, augment: Augment, *, epoch: int = 0, rows: int = 4, columns: int = 8
) -> NDArray[np.uint8]:
    """The `tiles` as one picture, H×W×3, for the report.

    Small pictures are enlarged by whole factors, pixels kept square, to at least 64 pixels a side;
    a white line of 2 pixels runs between tiles.
    """
    shown = tiles(data, augment, epoch=epoch, rows=rows, columns=columns)
    line, least = 2, 64
    height, width = data.size
    factor = max(1, -(-least // min(height, width)))
    step = (height * factor + line, width * factor + line)
    sheet = np.full((len(shown) * step[0] - line, len(shown[0]) * step[1] - line, 3), 255, np.uint8)
    for i, row in enumerate(shown):
        for j, tile in enumerate(row):
            large = tile.repeat(factor, axis=0).repeat(factor, axis=1)
            top, left = i * step[0], j * step[1]
            sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    return sheet
