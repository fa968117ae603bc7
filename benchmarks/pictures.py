"""The pictures that all sides train on, and how the peers augment them. No torch at import.

Augmentation is the same everywhere: mirror half of the pictures where the figure says so, shift
each by −s…s pixels along both axes independently with black coming in, then normalise by the mean
and standard deviation of the training part. Done per sample (`one`, the tutorial loop and
Lightning) and per batch (`many`, Keras). Our side does it by its own code, the bare loop once
before it starts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from figures import CLASSES

if TYPE_CHECKING:
    from pathlib import Path

    from figures import Figure
    from numpy.typing import NDArray

__all__ = ["Pictures", "UnfitError", "make", "open_pictures", "take"]

HELD = 128
"""Pictures of the validation part that our side is given; the others have none."""


class UnfitError(Exception):
    """A data set is not what the figure needs; says why."""


def make(path: Path, figure: Figure, images: int) -> None:
    """Write synthetic pictures that can be learnt: a pattern for each class, under noise."""
    chance = np.random.default_rng(0)
    shape = (figure.size, figure.size, figure.channels)
    coarse = chance.integers(32, 224, (CLASSES, 4, 4, figure.channels))
    patterns = np.stack([np.resize(np.repeat(one, 8, 0).repeat(8, 1), shape) for one in coarse])
    arrays = {}
    for part, count in (("train", images), ("val", HELD)):
        y = np.arange(count) % CLASSES
        noise = chance.integers(-32, 32, (count, *shape), dtype=np.int16)
        arrays[f"x_{part}"] = np.clip(patterns[y] + noise, 0, 255).astype(np.uint8)
        arrays[f"y_{part}"] = y
    np.savez(path, **arrays)


def take(path: Path, figure: Figure, images: int, source: str) -> int:
    """Write pictures of a real data set, whatever `neocog train` could read; how many training
    pictures they are: whole batches, at most `images`.

    Raises:
        UnfitError: other sizes, channels, targets, or too few pictures.
    """
    import torch

    import neocog

    data = neocog.load(source, val=0.1)
    wanted = ((figure.size, figure.size), figure.channels)
    if (data.size, data.channels) != wanted:
        raise UnfitError(f"{figure.name} needs {wanted}, {source} has {data.size, data.channels}")
    if len(data.classes) > CLASSES or data.kind != "class":
        raise UnfitError(f"at most {CLASSES} classes are compared, {source} has another kind")
    count = min(images, len(data.splits["train"]) // figure.batch * figure.batch)
    if not count:
        raise UnfitError(f"{source} does not fill one batch of {figure.batch}")
    arrays: dict[str, Any] = {}
    for part, most in (("train", count), ("val", HELD)):
        ids = data.splits[part]
        generator = torch.Generator().manual_seed(0)
        ids = ids[torch.randperm(len(ids), generator=generator)[:most]]
        pixels = data.images.gather(ids, data.size)
        arrays[f"x_{part}"] = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
        arrays[f"y_{part}"] = data.targets[ids].numpy()
    np.savez(path, **arrays)
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The training part in memory."""

    images: NDArray[np.uint8]
    """N×C×H×W, or N×H×W×C for Keras."""
    labels: NDArray[np.int64]
    """N."""
    mean: NDArray[np.float32]
    """Per channel, shaped to be subtracted, in units of 0…1."""
    std: NDArray[np.float32]
    """Likewise."""
    flip: bool
    """See `Figure`."""
    shift: int
    """See `Figure`."""

    def one(self, index: int) -> tuple[NDArray[np.float32], int]:
        """Sample `index`, C×H×W, as a transform per sample does it."""
        picture = self.images[index]
        if self.flip and random.random() < 0.5:
            picture = picture[:, :, ::-1]
        channels, height, width = picture.shape
        far = self.shift
        padded = np.zeros((channels, height + 2 * far, width + 2 * far), np.uint8)
        padded[:, far : far + height, far : far + width] = picture
        top, left = random.randint(0, 2 * far), random.randint(0, 2 * far)
        moved = padded[:, top : top + height, left : left + width].astype(np.float32)
        return (moved / np.float32(255) - self.mean) / self.std, int(self.labels[index])

    def many(
        self, ids: NDArray[np.int64], chance: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Samples `ids`, B×H×W×C, in a few operations for the whole batch."""
        pictures = self.images[ids]
        count, height, width, _ = pictures.shape
        if self.flip:
            mirrored = chance.random(count) < 0.5
            pictures[mirrored] = pictures[mirrored, :, ::-1]
        far = self.shift
        padded = np.pad(pictures, ((0, 0), (far, far), (far, far), (0, 0)))
        rows = chance.integers(0, 2 * far + 1, (count, 1)) + np.arange(height)
        columns = chance.integers(0, 2 * far + 1, (count, 1)) + np.arange(width)
        each = np.arange(count)[:, None, None]
        moved = padded[each, rows[:, :, None], columns[:, None, :]].astype(np.float32)
        return (moved / np.float32(255) - self.mean) / self.std, self.labels[ids]


def open_pictures(path: str, figure: Figure, *, channels_last: bool = False) -> Pictures:
    """The training part of a file that `make` or `take` wrote."""
    with np.load(path) as file:
        images, labels = file["x_train"], file["y_train"].astype(np.int64)
    mean = (images.mean((0, 1, 2), dtype=np.float64) / 255).astype(np.float32)
    std = (images.std((0, 1, 2), dtype=np.float64) / 255).astype(np.float32)
    if not channels_last:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        mean, std = mean[:, None, None], std[:, None, None]
    return Pictures(
        images=images, labels=labels, mean=mean, std=std, flip=figure.flip, shift=figure.shift
    )
