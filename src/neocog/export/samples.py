"""Which real samples a file is compared on, and in what batches and sizes. Floor 4, room export.

Imports data, engine, floor 0, NumPy and Pillow.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from neocog.data.batches import fetch
from neocog.engine.evaluate import together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.records import Batch, InputSpec

__all__ = ["LARGE", "WHOLE_SIDES", "Samples", "batches", "beside", "large", "of_part", "spread"]

BATCHES = (1, 3, 8)
"""Numbers of samples at once that are tried beside."""
SCALES = ((0.6, 0.6), (1.7, 1.2), (0.8, 1.9))
"""Heights and widths of other sizes that are tried, in those of a sample."""
SIDES, WHOLE_SIDES = (5, 1024), (32, 1024)
"""Pixels a side that are tried, at least and at most; where each pixel is answered for."""
LARGE, NARROW = 1100, 256
"""Height of a picture that the run answers for in pieces, and its width at most."""
TOGETHER, PIXELS = 64, 1 << 22
"""Samples that are looked at together, and pixels of them, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What is compared on."""

    data: Dataset
    """Where they are."""
    ids: torch.Tensor
    """Which of them, int64, rising."""
    part: str
    """`val`, `test`, `train` or `all`."""


def spread(ids: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of them, evenly.

    >>> spread(torch.arange(10), 4)
    tensor([0, 2, 5, 7])
    """
    count = min(most, len(ids))
    return ids[torch.arange(count) * len(ids) // max(1, count)]


def of_part(data: Dataset, parts: Sequence[str], most: int) -> Samples:
    """Samples of the first of these parts that exists, spread evenly over it; else of all."""
    part = next((one for one in parts if one in data.splits and len(data.splits[one])), "all")
    ids = data.splits[part] if part != "all" else torch.arange(len(data))
    return Samples(data=data, ids=spread(ids, most), part=part)


def batches(samples: Samples, most: int = TOGETHER) -> Iterator[Batch]:
    """All of them as they are packed, in order; pictures of one size together.

    Args:
        samples: pictures, signals or volumes.
        most: at once.
    """
    data, images = samples.data, samples.data.images
    most = min(most, together(data))
    if len(data.size) == 2:
        runs = images.runs(samples.ids, most, PIXELS)
    else:
        most = max(1, min(most, PIXELS // math.prod(data.size)))
        starts = range(0, len(samples.ids), most)
        runs = [(samples.ids[at : at + most], data.size) for at in starts]
    for ids, size in runs:
        yield fetch(data, images.ready(ids, size), size=size)


def beside(samples: Samples, spec: InputSpec) -> Iterator[tuple[NDArray[Any], list[str]]]:
    """A few of them in other batches and, of pictures, in other sizes: B×C×h×w, and their names."""
    few = samples.ids[: max(BATCHES)].tolist()
    names = [str(samples.data.names[one]) for one in few]
    stored = [samples.data.images.picture(one) for one in few]
    if len(spec.size) != 2:
        for most in BATCHES:
            yield _stacked(stored[:most]), names[:most]
        return
    height, width = stored[0].shape[:2]
    scaled = [(round(height * down), round(width * right)) for down, right in SCALES]
    low, high = WHOLE_SIDES if spec.whole else SIDES
    sizes = [(min(max(h, low), high), min(max(w, low), high)) for h, w in scaled]
    sizes.append((spec.size[0], spec.size[1]))
    for size, most in zip(sizes, itertools.cycle(BATCHES), strict=False):
        taken = [_scaled(one, size) for one in stored[:most]]
        yield _stacked(taken), [f"{name} at {size[0]}×{size[1]}" for name in names[:most]]


def large(samples: Samples, spec: InputSpec) -> NDArray[np.uint8]:
    """The first picture, so high that the run answers for it in pieces: 1×C×h×w."""
    width = min(max(spec.size[1], WHOLE_SIDES[0]), NARROW)
    return _stacked([_scaled(samples.data.images.picture(int(samples.ids[0])), (LARGE, width))])


def _stacked(samples: list[NDArray[Any]]) -> NDArray[Any]:
    """Samples with their channels last, as a batch."""
    return np.ascontiguousarray(np.moveaxis(np.stack(samples), -1, 1))


def _scaled(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A picture H×W×C in another size, by Pillow."""
    flat = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    found = np.asarray(Image.fromarray(flat).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return found.reshape(*size, pixels.shape[-1])
