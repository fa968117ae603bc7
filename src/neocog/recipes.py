"""Whole configurations. Floor 4; imports data, models, tasks and floor 0.

`resolve` decides everything that a recipe leaves open, from the data alone, so that the manifest
holds numbers and the run can be done again.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neocog.data import augment
from neocog.errors import ConfigError
from neocog.geometry import noun
from neocog.models import catalog

if TYPE_CHECKING:
    from neocog.config import AugmentRecipe, EngineRecipe, OptimRecipe, Recipe
    from neocog.data.dataset import Dataset
    from neocog.records import Views

__all__ = ["batch_for", "epochs_for", "resolve", "views_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """What a default run is made of."""

    batch: int
    """Pictures a step, at most."""
    epochs: int
    """Passes, at least."""
    steps: int
    """Steps below which a run is too short."""


USUAL = _Pace(batch=128, epochs=10, steps=1000)
FAST = _Pace(batch=512, epochs=8, steps=700)
"""With normalised matrices under Muon, which learn from fewer and larger steps: some 360,000
pictures at least; the CIFAR-10 record takes 400,000 (Jordan 2024)."""


def batch_for(samples: int, most: int = USUAL.batch) -> int:
    """Pictures a step: a power of two that gives some 50 steps an epoch, at least 16.

    >>> batch_for(300), batch_for(1600), batch_for(50_000), batch_for(50_000, 512)
    (16, 32, 128, 512)
    """
    return min(most, max(16, 1 << round(math.log2(max(1, samples / 50)))))


def rate_for(batch: int) -> float:
    """Peak rate of normalised matrices under Muon: 0.12 at 512 pictures a step, by the square root.

    The direction of a step is as noisy as one over the root of its batch, and so is what may be
    spent on it; 0.24 at 2,000 pictures is the rate of the CIFAR-10 record (Jordan 2024).

    >>> rate_for(512), rate_for(2048), rate_for(32)
    (0.12, 0.24, 0.03)
    """
    return round(0.12 * math.sqrt(batch / 512), 4)


def epochs_for(
    samples: int, batch: int, least: int = USUAL.epochs, steps: int = USUAL.steps
) -> int:
    """Passes: `least`, and more for small sets, until so many steps are done, at most 100.

    >>> epochs_for(50_000, 128), epochs_for(1600, 32), epochs_for(100, 16)
    (10, 20, 100)
    """
    each = max(1, math.ceil(samples / batch))
    return min(100, max(least, math.ceil(steps / each)))


def _pace(recipe: Recipe, samples: int) -> tuple[EngineRecipe, OptimRecipe]:
    """Batch, epochs and the rate that goes with the batch."""
    engine, optim = recipe.engine, recipe.optim
    fast = optim.name == "muon" and optim.normalize
    pace = FAST if fast else USUAL
    batch = engine.batch or batch_for(samples, pace.batch)
    whole = batch * engine.accumulate
    epochs = engine.epochs
    if epochs is None and engine.minutes is None:
        epochs = epochs_for(samples, whole, pace.epochs, pace.steps)
    if fast and optim.lr is None:
        optim = dataclasses.replace(optim, lr=rate_for(min(whole, max(1, samples))))
    return dataclasses.replace(engine, batch=batch, epochs=epochs), optim


def resolve(recipe: Recipe, data: Dataset) -> Recipe:
    """The recipe with everything decided that depends on the data.

    Args:
        recipe: as written; comes back unchanged.
        data: the data set that it will be used on.
    """
    engine, optim = _pace(recipe, len(data.splits["train"]))
    return dataclasses.replace(
        recipe,
        transfer=dataclasses.replace(recipe.transfer, source=_absolute(recipe.transfer.source)),
        model_args=catalog.complete(recipe.model, recipe.model_args),
        engine=engine,
        optim=optim,
        data=dataclasses.replace(
            recipe.data,
            source=_absolute(recipe.data.source),
            val=_absolute(recipe.data.val) if isinstance(recipe.data.val, str) else recipe.data.val,
            test=_absolute(recipe.data.test),
            seed=data.seed,
            size=data.size,
            channels=data.channels,
        ),
        augment=augment.resolve(
            _asked(recipe, data),
            channels=data.channels,
            size=data.size,
            classes=data.classes,
            kind=data.kind,
            uniform=data.images.uniform,
        ),
    )


def _asked(recipe: Recipe, data: Dataset) -> AugmentRecipe:
    """What training pictures go through; where all but the last layer is frozen and nobody asks for
    more, nothing: what the frozen part answers then has to be computed once only. Where each pixel
    is answered for, a whole way up may learn beside the last layer, and sees crops anyway."""
    if recipe.transfer.freeze != "all" or data.whole:
        return recipe.augment
    asked = recipe.augment
    return dataclasses.replace(
        asked,
        flip=asked.flip or 0.0,
        shift=asked.shift or 0.0,
        rotate=asked.rotate or 0.0,
        scale=asked.scale or 0.0,
    )


def views_for(recipe: Recipe) -> Views:
    """What the trained network looks at to answer: only what it was trained to bear.

    Digits are not mirrored because training does not flip them. A target that measures a place
    bears the shift, because the two moved pictures lie symmetrically about the picture.

    Args:
        recipe: resolved.

    Raises:
        ConfigError: many views of signals or volumes.

    >>> from neocog.config import AugmentRecipe, DataRecipe, EngineRecipe, Recipe
    >>> def views(flip, shift, side):
    ...     return views_for(
    ...         Recipe(
    ...             engine=EngineRecipe(views="many"),
    ...             augment=AugmentRecipe(flip=flip, shift=shift),
    ...             data=DataRecipe(size=(side, side)),
    ...         )
    ...     )
    >>> views(0.0, 0.125, 8), views(0.5, 0.125, 32), views(0.5, 0.0, 32), views(0.0, 0.06, 8)
    ('shift', 'mirror+shift', 'mirror', 'one')
    """
    if recipe.engine.views == "one":
        return "one"
    if len(recipe.data.size or (1, 1)) != 2:
        raise ConfigError(
            f"engine.views=many is for pictures, and these are {noun(recipe.data.size or ())}s",
            "leave it out: each is looked at once",
        )
    # A share of a tiny picture may be no pixel at all.
    shifts = any(augment.reach(recipe.augment, recipe.data.size or (1, 1)))
    if recipe.augment.flip:
        return "mirror+shift" if shifts else "mirror"
    return "shift" if shifts else "one"


def _absolute(source: str) -> str:
    """A path that still means the same from another folder; a name stays a name."""
    return str(Path(source).absolute()) if source and Path(source).exists() else source
