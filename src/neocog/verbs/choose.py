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
from neocog.engine.budget import LOOKS, affords
from neocog.engine.growth import Growth
from neocog.errors import ConfigError
from neocog.geometry import size_text
from neocog.models import catalog
from neocog.verbs.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from neocog.config import Recipe
    from neocog.data.dataset import Dataset
    from neocog.engine.job import Choice
    from neocog.ladder import Rung
    from neocog.records import InputSpec
    from neocog.verbs.console import Console

__all__ = ["choose"]

SHARE = 0.04
"""Share of the time that measuring the candidates may take."""
AFTER = 4.0
"""Seconds after training, about."""
LOOK = 1 / 3
"""A look at a picture against a training step on it in fp32: forward alone."""
FALLBACK = "cnn"
"""Where no time is given, or no candidate takes these pictures."""
FOR_PIXELS, TINY = ("unet_backbone", "unet"), 64
"""Where each pixel is answered for: the second for crops with a side below `TINY`. At 256×256 the
first takes a ninth of the other's multiply-accumulates."""


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
    """The recipe with what suits its network, which is chosen where it is `auto`, and the data at
    its size.

    Args:
        recipe: as written.
        data: opened by it.
        told: settings that somebody named (`optim.lr`); they stay, whatever suits the network. With
            `data.size`, no other resolution is considered.
        device: where training happens.
        choice: the plain loop.
        ends: when the run must be over, by `time.monotonic`. None: there is no hurry, and the
            network is the default one.
        console: says what was chosen.
    """
    if recipe.model != "auto":
        return usual.under(recipe, recipe.model, told, data.kind), data
    found: list[_Candidate] = []
    # The ladder was measured on pictures, of which each has one answer.
    if ends is not None and len(data.size) == 2 and not data.whole:
        spec = dataset.spec(data)
        stop = time.monotonic() + SHARE * (ends - time.monotonic())
        for rung in ladder.rungs():
            if found and time.monotonic() > stop:
                break  # those that follow are dearer
            if any(f"model_args.{name}" in told for name in rung.args):
                continue  # its curve is of other arguments
            candidate = _measure(rung, recipe, data, spec, told, device, choice, ends)
            if candidate is not None:
                found.append(candidate)
    if not found:
        model = FOR_PIXELS[min(data.size) < TINY] if data.whole else FALLBACK
        return usual.under(recipe, model, told, data.kind), data
    rung, _ = ladder.best([(one.rung, one.pictures) for one in found])
    chosen = next(one for one in found if one.rung is rung)
    if chosen.recipe.data.size != recipe.data.size:
        data = dataset.load(chosen.recipe.data, seed=data.seed, progress=console.progress)
        console.done()
    words = [rung.model, *(f"{name}={value}" for name, value in rung.args.items())]
    passes = chosen.pictures / max(1, len(data.splits["train"]))
    console.say(
        f"model: {' '.join(words)} at {size_text(data.size)}, "
        f"the most promising of {len(found)} measured; "
        f"about {passes:.1f} passes fit into the time left"
    )
    return chosen.recipe, data


def _measure(
    rung: Rung,
    recipe: Recipe,
    data: Dataset,
    spec: InputSpec,
    told: Collection[str],
    device: torch.device,
    choice: Choice,
    ends: float,
) -> _Candidate | None:
    """How many pictures a rung can see; None where it does not take these pictures."""
    recipe = usual.under(recipe, rung.model, told, data.kind)
    recipe = dataclasses.replace(recipe, model_args={**recipe.model_args, **rung.args})
    before = ends - time.monotonic() - AFTER
    area, size = 1.0, data.size
    if rung.shrink != 1:
        if "data.size" in told or recipe.data.size is not None:
            return None
        size = (round(rung.shrink * size[0]), round(rung.shrink * size[1]))
        area = (size[0] * size[1]) / (data.size[0] * data.size[1])
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, size=size))
        before -= data.seconds  # every picture has to be read again
    resolved = recipes.resolve(dataclasses.replace(recipe, data=data.recipe), data)
    try:
        task = tasks.for_data(data, resolved)
        catalog.build(
            rung.model,
            channels=data.channels,
            size=size,
            outputs=task.outputs,
            args=resolved.model_args,
        )
        job = prepare(resolved, data, task, device, choice, None, ends, spec=spec).job
        step, plain = tuner.seconds_per_picture(job)
    except (ConfigError, RuntimeError):  # it does not take them, or they do not fit
        return None
    # Convolutions cost by the pixel; the small maps at the end, which do not, cost little.
    step, look = area * step, area * plain * LOOK
    step *= Growth(job.recipe.schedule, size).work(1.0)
    held = sum(len(ids) for part, ids in data.splits.items() if part != "train")
    look *= held
    many = "engine.views" in told or affords(job.input.views, look, before)
    seconds = before - look * (LOOKS[job.input.views] if many else 1)
    return _Candidate(rung=rung, recipe=recipe, data=data, pictures=max(0.0, seconds / step))
