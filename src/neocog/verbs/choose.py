"""The network that will be best when the time is up. Floor 5, room verbs.

Each candidate of the ladder takes a few training steps on the pictures at hand; its rate and its
measured learning curve say how far it will get.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog import ladder, recipes, tasks, usual
from neocog.data import dataset
from neocog.engine import tuner
from neocog.engine.budget import LOOKS
from neocog.errors import ConfigError
from neocog.verbs.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from neocog.config import Recipe
    from neocog.data.dataset import Dataset
    from neocog.engine.job import Choice
    from neocog.ladder import Rung
    from neocog.verbs.console import Console

__all__ = ["choose"]

SHARE = 0.04
"""Share of the time that measuring the candidates may take."""
AFTER = 4.0
"""Seconds after training, about."""
LOOK = 1 / 3
"""A look at a picture against a training step on it: forward alone."""
FALLBACK = "cnn"
"""Where no time is given, or no candidate takes these pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A rung on this data."""

    rung: Rung
    recipe: Recipe
    data: Dataset
    pictures: float
    """That it can see in its time."""


def choose(
    recipe: Recipe,
    data: Dataset,
    *,
    told: Collection[str],
    device: torch.device,
    choice: Choice,
    ends: float | None,
    console: Console,
) -> tuple[Recipe, Dataset]:
    """A recipe whose network is `auto` with one that has a name, and the data at its size.

    Args:
        recipe: as written.
        data: opened by it.
        told: settings that somebody named (`optim.lr`); they stay, whatever suits the network.
        device: where training happens.
        choice: the plain loop.
        ends: when the run must be over, by `time.monotonic`. None: there is no hurry, and the
            network is the default one.
        console: says what was chosen.
    """
    if recipe.model != "auto":
        return recipe, data
    found: list[_Candidate] = []
    if ends is not None:
        stop = time.monotonic() + SHARE * (ends - time.monotonic())
        for rung in ladder.rungs():
            if found and time.monotonic() > stop:
                break  # those that follow are dearer
            candidate = _measure(rung, recipe, data, told, device, choice, ends)
            if candidate is not None:
                found.append(candidate)
    if not found:
        return usual.under(recipe, FALLBACK, told), data
    rung, _ = ladder.best([(one.rung, one.pictures) for one in found])
    chosen = next(one for one in found if one.rung is rung)
    if chosen.recipe.data.size != recipe.data.size:
        data = dataset.load(chosen.recipe.data, seed=recipe.seed, progress=console.progress)
        console.done()
    words = [rung.model, *(f"{name}={value}" for name, value in rung.args.items())]
    passes = chosen.pictures / max(1, len(data.splits["train"]))
    console.say(
        f"model: {' '.join(words)} at {data.size[0]}×{data.size[1]}, "
        f"the most promising of {len(found)} measured; "
        f"about {passes:.1f} passes fit into the time left"
    )
    return chosen.recipe, data


def _measure(
    rung: Rung,
    recipe: Recipe,
    data: Dataset,
    told: Collection[str],
    device: torch.device,
    choice: Choice,
    ends: float,
) -> _Candidate | None:
    """How many pictures a rung can see; None where it does not take these pictures."""
    recipe = usual.under(recipe, rung.model, told)
    recipe = dataclasses.replace(recipe, model_args={**rung.args, **recipe.model_args})
    before = ends - time.monotonic() - AFTER
    area = 1.0
    if rung.shrink != 1:
        if "data.size" in told or recipe.data.size is not None:
            return None
        height, width = (round(rung.shrink * side) for side in data.size)
        area = (height * width) / (data.size[0] * data.size[1])
        resized = dataclasses.replace(recipe.data, size=(height, width))
        recipe = dataclasses.replace(recipe, data=resized)
        before -= data.seconds  # every picture has to be read again
    resolved = recipes.resolve(dataclasses.replace(recipe, data=data.recipe), data)
    try:
        task = tasks.for_data(data, resolved)
        job = prepare(resolved, data, task, device, choice, None, ends).job
    except ConfigError:
        return None
    # Convolutions cost by the pixel; the small maps at the end, which do not, cost little.
    each = area * tuner.seconds_per_picture(job)
    held = sum(len(ids) for part, ids in data.splits.items() if part != "train")
    seconds = before - LOOK * each * LOOKS[job.input.views] * held
    return _Candidate(rung=rung, recipe=recipe, data=data, pictures=max(0.0, seconds / each))
