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
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from neocog import chance
from neocog.data import color, draws, mixing, warp
from neocog.data.batches import fetch
from neocog.data.faces import faces
from neocog.errors import ConfigError
from neocog.geometry import LAYOUTS, noun, size_text
from neocog.records import FULL_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.config import AugmentRecipe
    from neocog.data.dataset import Dataset
    from neocog.data.samples import TargetKind
    from neocog.records import Batch

    Draw = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]

__all__ = ["Augment", "contact_sheet", "explain", "reach", "resolve", "tiles"]

_AXES = ("deep", "down", "right")
"""What a shift is called, by the axis that it goes along, for the draw."""
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
    size: tuple[int, ...],
    classes: Sequence[str],
    kind: TargetKind,
    uniform: bool,
) -> dict[str, _Choice]:
    """What is chosen for each field of the recipe that may be None."""
    if len(size) != 2:
        return _other_rules(size)
    small = max(size) <= SMALL
    if kind == "numbers":
        flip = _Choice(0.0, "a mirrored picture may stand for another number")
    elif kind == "mask":
        flip = _Choice(0.5, "the mask is mirrored too")
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


def _other_rules(size: tuple[int, ...]) -> dict[str, _Choice]:
    """What is chosen for signals and volumes."""
    whole = "nothing is known of what they show"
    off = _Choice(0.0, f"only pictures are, not {noun(size)}s")
    return {
        "flip": _Choice(0.0, f"a mirrored {noun(size)} may be another thing"),
        "shift": _Choice(0.0, whole),
        "padding": _Choice("zero", whole),
        "rotate": off,
        "scale": off,
    }


def _refuse_for_pictures_only(recipe: AugmentRecipe, size: tuple[int, ...]) -> None:
    """Raises a ConfigError that names a setting that signals or volumes do not take."""
    only = ["rotate", "scale", "color", "contrast", "brightness", "blur", "noise", "cutout"]
    only += ["cutmix", *(["flip_vertical"] if len(size) == 1 else [])]
    for name in only:
        if getattr(recipe, name):
            raise ConfigError(
                f"augment.{name} is for pictures, and these are {noun(size)}s "
                f"({LAYOUTS[len(size)]})",
                f"leave it out; {noun(size)}s take augment.flip, shift, padding and mixup",
            )


def resolve(
    recipe: AugmentRecipe,
    *,
    channels: int,
    size: tuple[int, ...],
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
    - scale 0.2 above 64 pixels; no rotation;
    - nothing for signals and volumes.

    Args:
        recipe: as the user left it.
        channels: 1 or 3; any number for signals and volumes.
        size: height and width of the network's input; the size of signals or volumes.
        classes: class, label or column names.
        kind: what the targets are.
        uniform: whether all pictures are stored in one size.

    Raises:
        ConfigError: signals or volumes, and a setting that is for pictures; masks, and one that is
            for labels of whole pictures.

    >>> from neocog.config import AugmentRecipe
    >>> digits = dict(channels=1, size=(8, 8), classes="0123456789", kind="class", uniform=True)
    >>> found = resolve(AugmentRecipe(), **digits)
    >>> found.flip, found.shift, found.padding, found.rotate, found.scale
    (0.0, 0.125, 'zero', 0.0, 0.0)
    """
    if len(size) != 2:
        _refuse_for_pictures_only(recipe, size)
    if kind == "mask" and (recipe.mixup or recipe.cutmix):
        name = "mixup" if recipe.mixup else "cutmix"
        raise ConfigError(
            f"augment.{name} mixes one label a picture, and these have masks", "leave it out"
        )
    rules = _rules(channels=channels, size=size, classes=classes, kind=kind, uniform=uniform)
    found = {name: rule.value for name, rule in rules.items() if getattr(recipe, name) is None}
    return replace(recipe, **found)  # type: ignore[arg-type]


def explain(
    recipe: AugmentRecipe,
    *,
    channels: int,
    size: tuple[int, ...],
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
        way = "left to right" if len(size) == 2 else "along the last axis"
        lines.append(f"flipped {way} with probability {recipe.flip:g}: {why('flip')}")
    else:
        lines.append(f"not flipped: {why('flip')}; --set augment.flip=0.5 turns it on")
    if recipe.flip_vertical:
        way = "top to bottom" if len(size) == 2 else "along the last axis but one"
        lines.append(f"flipped {way} with probability {recipe.flip_vertical:g}")
    far = reach(recipe, size)
    if any(far):
        lines.append(f"shifted by up to {_far(far)}, {recipe.padding} padding: {why('shift')}")
    else:
        lines.append(f"not shifted: {why('shift')}")
    if kind == "numbers" and (any(far) or recipe.scale):
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


def _far(far: tuple[int, ...]) -> str:
    """The largest shifts in words."""
    if len(far) != 2:
        return f"{size_text(far)} either way"
    down, right = far
    return f"{down} {'pixel' if down == 1 else 'pixels'} down or up and {right} across"


def reach(recipe: AugmentRecipe, size: tuple[int, ...]) -> tuple[int, ...]:
    """The largest shift along each axis in pixels; some of the picture always stays."""
    share = recipe.shift or 0.0
    return tuple(min(round(share * side), side - 1) for side in size)


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
            Signals and volumes keep their type, but for mixup, which makes it float32 in units of
            their full scale. With mixup or cutmix the targets are B×K float32 and the weights
            mixed, as `mixing.mix_pairs` says.
        """
        return self.mix(self.each(batch, epoch), epoch)

    def each(self, batch: Batch, epoch: int) -> Batch:
        """What happens to each picture by itself, whatever others are in its batch. A mask goes
        where its picture goes; what is uncovered has no label, unless the border is repeated."""
        recipe = self.recipe
        images, targets = self._move(batch.images, batch.ids, epoch), batch.targets
        if self.kind == "mask":
            # One more, modulo 256: what has no label is 0, as is what comes in from outside.
            moved = self._move((targets + 1).unsqueeze(1), batch.ids, epoch, "nearest")
            targets = moved.squeeze(1).to(torch.uint8) - 1
        images = self._recolor(images, batch.ids, epoch)
        if recipe.cutout:
            # Filled on the device: a copy of numbers from the host would wait for it.
            fill = torch.stack([torch.full((), x, device=images.device) for x in self.mean]) * 255
            key = chance.key(self.seed, epoch, "cutout")
            images = mixing.cutout(images.float(), batch.ids, key, recipe.cutout, fill)
        return replace(batch, images=images, targets=targets)

    def mix(self, batch: Batch, epoch: int) -> Batch:
        """What pictures of one batch do to each other."""
        recipe = self.recipe
        if not (recipe.mixup or recipe.cutmix):
            return batch
        images = batch.images.float()
        if images.dim() != 4:  # floats of signals and volumes are in units of their full scale
            images = images / FULL_SCALE[str(batch.images.dtype).removeprefix("torch.")]
        return mixing.mix_pairs(
            replace(batch, images=images),
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            classes=self.classes,
            key=chance.key(self.seed, epoch, "mix"),
        )

    def windows(
        self, sizes: Tensor, size: tuple[int, ...], ids: Tensor, epoch: int
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

    def _move(
        self,
        images: Tensor,
        ids: Tensor,
        epoch: int,
        mode: Literal["bilinear", "nearest"] = "bilinear",
    ) -> Tensor:
        """Flip, shift, turn and zoom, by index where that will do, else in one resampling."""
        recipe = self.recipe
        size = tuple(images.shape[2:])
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
        shifts = [
            draws.integers(chance.key(self.seed, epoch, name), ids, 2 * most + 1) - most
            for name, most in zip(_AXES[-len(far) :], far, strict=True)
        ]
        padding = recipe.padding or "zero"
        if len(size) != 2:
            return warp.shift_flip_axes(images, shifts, **flips, padding=padding, reach=far)
        down, right = shifts
        if not recipe.rotate and not recipe.scale:
            whole = (far[0], far[1])
            return warp.shift_flip(images, down, right, **flips, padding=padding, reach=whole)
        rotate, scale = recipe.rotate or 0.0, recipe.scale or 0.0
        matrices = warp.affine(
            (size[0], size[1]),
            degrees=self._between(ids, epoch, "rotate", -rotate, rotate),
            zoom=(1 + scale) ** self._between(ids, epoch, "scale", -1, 1),
            down=down,
            right=right,
            **flips,
        )
        return warp.warp(images.float(), matrices, padding, mode)

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
    data: Dataset,
    augment: Augment,
    *,
    epoch: int = 0,
    rows: int = 4,
    columns: int = 8,
    draw: Draw | None = None,
) -> list[list[NDArray[np.uint8]]]:
    """What the network sees: originals in the first row, then one row for each epoch.

    Args:
        data: its training part is shown, samples spread evenly over it.
        augment: what to show.
        epoch: the first epoch shown.
        rows: rows in all, the originals included.
        columns: samples; fewer where the training part has fewer.
        draw: lays a mask over its picture; None: masks are not shown.

    Returns:
        rows × columns pictures, H×W×C: of signals and volumes their `faces`.
    """
    part = data.splits["train"]
    columns = min(columns, len(part))
    places = torch.arange(columns) * len(part) // max(1, columns)
    ids = part[places]
    shown = []
    for row in range(rows):
        now = epoch + row - 1
        moved = row and not data.images.whole(data.size)
        tops, lefts = (
            augment.windows(data.images.sizes[ids], data.size, ids, now) if moved else (None, None)
        )
        batch = fetch(data, ids, tops, lefts)
        batch = augment(batch, now) if row else batch
        images = batch.images
        if images.dim() != 4:
            shown.append(faces(images.numpy()))
            continue
        pixels = images.float().round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        tile = list(pixels.numpy())
        if draw is not None and data.whole:
            tile = [draw(*one) for one in zip(tile, batch.targets.numpy(), strict=True)]
        shown.append(tile)
    return shown


def contact_sheet(
    data: Dataset,
    augment: Augment,
    *,
    epoch: int = 0,
    rows: int = 4,
    columns: int = 8,
    draw: Draw | None = None,
) -> NDArray[np.uint8]:
    """The `tiles` as one picture, H×W×3, for the report.

    Small pictures are enlarged by whole factors, pixels kept square, to at least 64 pixels a side;
    a white line of 2 pixels runs between tiles.
    """
    shown = tiles(data, augment, epoch=epoch, rows=rows, columns=columns, draw=draw)
    line, least = 2, 64
    height, width = shown[0][0].shape[:2]
    factor = max(1, -(-least // min(height, width)))
    step = (height * factor + line, width * factor + line)
    sheet = np.full((len(shown) * step[0] - line, len(shown[0]) * step[1] - line, 3), 255, np.uint8)
    for i, row in enumerate(shown):
        for j, tile in enumerate(row):
            large = tile.repeat(factor, axis=0).repeat(factor, axis=1)
            top, left = i * step[0], j * step[1]
            sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    return sheet
