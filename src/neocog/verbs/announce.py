"""What a training says about itself before it begins. Floor 5, room verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neocog.engine.growth import Growth
from neocog.engine.job import length
from neocog.geometry import noun, size_text
from neocog.verbs.transfer import told

if TYPE_CHECKING:
    from neocog.config import Recipe
    from neocog.verbs.console import Console
    from neocog.verbs.prepare import Prepared

__all__ = ["announce"]


def announce(prepared: Prepared, console: Console) -> None:
    """What will be trained on what, in a few lines."""
    job = prepared.job
    data, recipe = job.data, job.recipe
    count = data.counts["all"]
    parts = ", ".join(f"{name} {len(ids):,}" for name, ids in data.splits.items())
    console.say(
        f"{Path(data.source).name}: found {count.found:,}, used {count.used:,}, "
        f"skipped {count.skipped:,} · {parts} · {size_text(data.size)}×{data.channels}"
        + (f" · {len(data.classes)} classes" if data.kind == "class" else "")
    )
    for pair, number in data.duplicates.items():
        if number:
            console.say(f"note: {number:,} {noun(data.size)}s of {pair} are the same")
    for line in told(prepared.begun.summary(job.network, recipe.transfer.source)):
        console.say(line)
    parameters = sum(p.numel() for p in job.network.parameters())
    size = length(recipe, len(data.splits["train"]))
    console.say(
        f"{prepared.model.name}: {parameters:,} parameters · {recipe.optim.name}, "
        f"{recipe.schedule.name} · {_how_long(recipe)}, steps in each epoch: {size.steps}, "
        f"{noun(data.size)}s in each: {size.batch} · {job.device}, {job.choice.precision}"
    )
    *growing, (_, whole) = Growth(recipe.schedule, job.input.size).stages
    if growing:
        sizes = dict.fromkeys(size_text(one) for _, one in growing)
        console.say(
            f"training pictures grow: {', '.join(sizes)}; {size_text(whole)} for the last "
            f"{1 - growing[-1][0]:.0%} and for all scores"
        )


def _how_long(recipe: Recipe) -> str:
    """Epochs or minutes, in words."""
    engine = recipe.engine
    return f"epochs: {engine.epochs}" if engine.minutes is None else f"{engine.minutes:g} minutes"
