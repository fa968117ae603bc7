"""Whether accuracy depends on how a picture is, gathered for a report. Floor 5, room verbs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neocog.metrics.properties import by_property, looks, shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.data.dataset import Dataset
    from neocog.metrics.properties import Property

__all__ = ["by_looks", "measured"]

PIXELS = 1 << 24
"""Pixels that are looked at together."""


def measured(data: Dataset, ids: Tensor) -> dict[str, NDArray[np.float64]]:
    """Properties of some pictures, N numbers each; nothing for signals, volumes and masks.

    Looks are those of what the network sees. Sizes are those of the packed pictures: larger files
    were shrunk to what the network needs, so that only what is smaller tells.

    Args:
        data: where the pictures are.
        ids: N, int64.
    """
    if len(data.size) != 2 or data.whole or data.channels not in (1, 3) or not len(ids):
        return {}
    step = max(1, PIXELS // math.prod(data.size))
    found: dict[str, list[NDArray[np.float64]]] = {}
    for first in range(0, len(ids), step):
        images = data.images.gather(ids[first : first + step], data.size)
        for name, one in looks(images.permute(0, 2, 3, 1).numpy()).items():
            found.setdefault(name, []).append(one)
    sizes = data.images.sizes[ids].numpy()
    return {name: np.concatenate(parts) for name, parts in found.items()} | shapes(sizes)


def by_looks(data: Dataset, ids: Tensor, right: NDArray[np.bool_]) -> list[Property]:
    """Accuracy by what pictures look like; empty where they are no pictures.

    Args:
        data: where the pictures are.
        ids: N, int64.
        right: which of them are answered rightly, N flags.
    """
    values = measured(data, ids)
    return by_property(values, right) if values else []
