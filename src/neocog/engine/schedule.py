"""How the rate moves between the first step and the last. Floor 2, room engine; imports floor 0.

The rate is a pure function of the step. There is nothing to save, nothing to restore, and a
resumed run cannot be off by one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neocog.config import ScheduleRecipe

__all__ = ["factor", "lowered", "timed"]


def factor(recipe: ScheduleRecipe, step: int, total: int, per_epoch: int) -> float:
    """What the peak rate is multiplied with at one step.

    Every shape but `constant` and `step` runs over x = step / total and would reach `end` at
    x = 1, when all is done: a rate of zero moves nothing, so no step is spent on it.

    - `constant`: 1.
    - `step`: γ^⌊epoch / every⌋, epochs counted from the start of the run, warm-up included.
    - `cosine`: from 1 to `end` along half a cosine (arXiv 1608.03983, without restarts).
    - `linear`: from 1 to `end` along a line.
    - `onecycle`: from `start` to 1 at x = `rise`, then to `end`, half a cosine each way
      (Smith & Topin, arXiv 1708.07120).

    A warm-up of W = round(warmup · total) steps comes in front: rates rise in equal parts to the
    shape's first value, and the shape has the other total − W steps.

    Args:
        recipe: the shape.
        step: optimiser steps done before this one, from 0; steps past the end keep the last rate.
        total: optimiser steps of the whole run.
        per_epoch: optimiser steps of one epoch.

    Raises:
        ValueError: a negative step, or a total or epoch without steps.

    >>> from neocog.config import ScheduleRecipe
    >>> cosine = ScheduleRecipe(name="cosine")
    >>> [round(factor(cosine, step, 4, 2), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    >>> warm = ScheduleRecipe(name="constant", warmup=0.5)
    >>> [factor(warm, step, 6, 2) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    if step < 0 or total < 1 or per_epoch < 1:
        raise ValueError(
            f"expected step ≥ 0, total ≥ 1, per_epoch ≥ 1, got {step}, {total}, {per_epoch}"
        )
    warm = round(recipe.warmup * total)
    if step < warm:
        return _shape(recipe, 0.0, 0) * (step + 1) / (warm + 1)
    # A run that is all warm-up has nothing left for the shape; it stays where the rise led.
    x = min((step - warm) / (total - warm), 1.0) if total > warm else 0.0
    return _shape(recipe, x, step // per_epoch)


def timed(recipe: ScheduleRecipe, share: float, epoch: int) -> float:
    """`factor` of a run that is as long as its time, not as its steps.

    Args:
        recipe: the shape.
        share: of the training time that is gone, in [0, 1].
        epoch: epochs done.

    >>> from neocog.config import ScheduleRecipe
    >>> warm = ScheduleRecipe(name="linear", warmup=0.2)
    >>> [round(timed(warm, share, 0), 3) for share in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if share < recipe.warmup:
        return _shape(recipe, 0.0, 0) * share / recipe.warmup
    x = (share - recipe.warmup) / (1 - recipe.warmup) if recipe.warmup < 1 else 0.0
    return _shape(recipe, min(x, 1.0), epoch)


def _shape(recipe: ScheduleRecipe, x: float, epoch: int) -> float:
    """The shape alone, at x in [0, 1] of its own steps."""
    match recipe.name:
        case "constant":
            return 1.0
        case "step":
            return recipe.gamma ** (epoch // recipe.every)
        case "cosine":
            return _half_cosine(1.0, recipe.end, x)
        case "linear":
            return 1.0 + (recipe.end - 1.0) * x
        case "onecycle":
            if x < recipe.rise:
                return _half_cosine(recipe.start, 1.0, x / recipe.rise)
            if recipe.rise == 1:
                return 1.0
            return _half_cosine(1.0, recipe.end, (x - recipe.rise) / (1 - recipe.rise))


def _half_cosine(first: float, last: float, x: float) -> float:
    """From `first` at x = 0 to `last` at x = 1, level at both ends."""
    return last + (first - last) * (1 + math.cos(math.pi * x)) / 2


def lowered(rate: float, scale: float, floor: float) -> float:
    """A scheduled rate after drops by `scale` in all, which stop at `floor`.

    A schedule may go below the floor on its own; a drop never takes it there.

    >>> lowered(0.1, 0.5, 0.01), lowered(0.1, 0.01, 0.02), lowered(0.001, 0.5, 0.01)
    (0.05, 0.02, 0.001)
    """
    return max(rate * scale, min(rate, floor))
