"""Whole configurations. Floor 4; imports data, tasks and floor 0.

`resolve` decides everything that a recipe leaves open, from the data alone, so that the manifest
holds numbers and the run can be done again.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from neocog.data import augment

if TYPE_CHECKING:
    from neocog.config import EngineRecipe, Recipe
    from neocog.data.dataset import Dataset

__all__ = ["batch_for", "epochs_for", "resolve"]

STEPS = 1000
"""Steps below which a default run is too short to learn from noise."""


def batch_for(samples: int) -> int:
    """Pictures a step: a power of two that gives some 50 steps an epoch, 16 to 128.

    >>> batch_for(300), batch_for(1600), batch_for(50_000)
    (16, 32, 128)
    """
    return min(128, max(16, 1 << round(math.log2(max(1, samples / 50)))))


def epochs_for(samples: int, batch: int) -> int:
    """Passes: 10, and more for small sets, until `STEPS` steps are done, at most 100.

    >>> epochs_for(50_000, 128), epochs_for(1600, 32), epochs_for(100, 16)
    (10, 20, 100)
    """
    steps = max(1, math.ceil(samples / batch))
    return min(100, max(10, math.ceil(STEPS / steps)))


def _engine(recipe: EngineRecipe, samples: int) -> EngineRecipe:
    """Epochs and batch as numbers."""
    batch = recipe.batch or batch_for(samples)
    epochs = recipe.epochs or epochs_for(samples, batch * recipe.accumulate)
    return dataclasses.replace(recipe, batch=batch, epochs=epochs)


def resolve(recipe: Recipe, data: Dataset) -> Recipe:
    """The recipe with everything decided that depends on the data.

    Args:
        recipe: as written; comes back unchanged.
        data: the data set that it will be used on.
    """
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            recipe.data,
            source=_absolute(recipe.data.source),
            val=_absolute(recipe.data.val) if isinstance(recipe.data.val, str) else recipe.data.val,
            test=_absolute(recipe.data.test),
            seed=data.seed,
            size=data.size,
            channels=3 if data.channels == 3 else 1,
        ),
        augment=augment.resolve(
            recipe.augment,
            channels=data.channels,
            size=data.size,
            classes=data.classes,
            kind=data.kind,
            uniform=data.images.uniform,
        ),
        engine=_engine(recipe.engine, len(data.splits["train"])),
    )


def _absolute(source: str) -> str:
    """A path that still means the same from another folder; a name stays a name."""
    return str(Path(source).absolute()) if source and Path(source).exists() else source
