"""From a job to a finished run: train, save the bundle, score it as saved, write the report.

Floor 5, room verbs.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from neocog.bundle import Bundle
from neocog.engine import callbacks as engine_callbacks
from neocog.engine import features, loop
from neocog.engine.growth import Growth
from neocog.engine.job import length
from neocog.errors import RunError
from neocog.files import read_json, write_json
from neocog.geometry import noun
from neocog.models import catalog
from neocog.records import scores_to_dict
from neocog.run import EventLog, Run, headline
from neocog.verbs import page, transfer, world
from neocog.verbs.calibrate import told
from neocog.verbs.console import Console, Expected
from neocog.verbs.forecast import Forecast, forecast
from neocog.verbs.scoring import scored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from neocog.engine import checkpoint
    from neocog.engine.callbacks import Callback
    from neocog.engine.job import Job, Outcome
    from neocog.engine.stopping import Signals
    from neocog.records import Manifest
    from neocog.verbs.prepare import Prepared

__all__ = ["START", "STORY", "bundle_of", "finish", "shortened", "story"]

START = "start"
"""Folder in a run: the bundle that it began with, where its weights came from elsewhere. What they
came from may be gone when the run goes on."""
STORY = "transfer.json"
"""File in it: what came along, what is fresh, what is frozen."""


def finish(
    prepared: Prepared,
    short: features.Short | None,
    folder: Path,
    manifest: Manifest,
    console: Console,
    signals: Signals,
    *,
    callbacks: Sequence[Callback] = (),
    found: checkpoint.Loaded | None = None,
) -> Run:
    """Train from a checkpoint or from nothing, save the bundle, evaluate it as saved, write the
    report.

    Raises:
        RunError: something could not be written; what could be is there.
    """
    job, recipe = prepared.job, prepared.job.recipe
    size = length(recipe, len(job.data.splits["train"]))
    log = EventLog(folder / "events.jsonl", keep=found.meta["events"] if found else 0)
    console.expect(
        Expected(
            steps=size.steps,
            epochs=recipe.engine.epochs or 0,
            first=found.state.step if found else 0,
            ends=job.ends or 0.0,
            work=Growth(recipe.schedule, job.input.size).work,
        )
    )
    built_in = engine_callbacks.from_recipe(recipe, folder)
    trained = short.job if short else job
    expected = forecast(trained)
    expected.say_before(console)
    try:
        with expected.watching():
            outcome = loop.train(
                trained,
                folder=folder / "checkpoints",
                callbacks=[*built_in, *callbacks],
                listeners=[log, console],
                resume=found.state if found else None,
                history=Run(folder).events,
                world=world.describe(job, callbacks),
                signals=signals,
            )
        log.close()
        console.done()
        if short:
            outcome = short.joined(outcome)
        bundle_of(prepared, outcome.weights, manifest).save(folder / "bundle")
        # A network from outside the catalogue is at hand here, and only here.
        foreign = "" if catalog.is_own(prepared.model.name) else job.network
        run = Run(folder, model=foreign)
        expected.say_after(run.events, console)
        run = _evaluate(run, prepared, short, outcome, expected, console)
    except KeyboardInterrupt:
        console.done()
        console.say(f"to go on: neocog resume {folder}")
        raise
    finally:
        log.close()
        console.done()
    if outcome.unsaved:
        raise RunError(
            f"{folder} is trained and evaluated, but no checkpoint of it could be written: "
            f"{outcome.unsaved}",
            "its bundle is there and can be used; a crash would have lost all",
        )
    return run


def shortened(job: Job, console: Console) -> features.Short | None:
    """The training of the last layer alone, where only that learns."""
    if not features.suits(job):
        if job.recipe.transfer.freeze == "all" and features.obstacle(job):
            console.say(f"note: features are not computed once, since {features.obstacle(job)}")
        return None
    short = features.shortened(job, functools.partial(console.progress, "features"))
    console.done()
    if short:
        console.say(
            f"features: {short.job.data.channels} numbers of each {noun(job.data.size)}, computed "
            f"once in {short.seconds:.1f} s; {short.path} learns from them"
            + (f" at a rate of {lr:g}" if (lr := short.job.recipe.optim.lr) is not None else "")
        )
    return short


def story(prepared: Prepared) -> dict[str, Any] | None:
    """What the network began with, as far as this process knows."""
    job = prepared.job
    return prepared.begun.summary(job.network, job.recipe.transfer.source)


def _first_story(prepared: Prepared, run: Path) -> dict[str, Any] | None:
    """What the network began with, as it was told at first: for a process that goes on, all weights
    come from what the run itself kept."""
    if prepared.begun.carried is None:
        return story(prepared)
    found: dict[str, Any] = read_json(run / START / STORY)
    return found


def bundle_of(prepared: Prepared, tensors: Mapping[str, Tensor], manifest: Manifest) -> Bundle:
    """The network of a run with weights."""
    job = prepared.job
    return Bundle(
        model=prepared.model,
        weights={name: one.detach().cpu().contiguous() for name, one in tensors.items()},
        input=job.input,
        task=job.task.spec,
        classes=job.task.classes,
        manifest=manifest,
    )


def _evaluate(
    run: Run,
    prepared: Prepared,
    short: features.Short | None,
    outcome: Outcome,
    expected: Forecast,
    console: Console,
) -> Run:
    """Score the bundle as saved, write `evaluation.json` and `report.html`.

    Returns:
        The run with the bundle as it is now: with a temperature, where one was fitted.
    """
    job = prepared.job
    epochs = [event.values for event in run.events if event.kind == "epoch"]
    seconds = sum(values["seconds"] for values in epochs)
    images = sum(values["seconds"] * values["images_per_second"] for values in epochs)
    run, found = scored(run, job)
    parts = list(found.parts)
    scores: dict[str, Any] = {part: scores_to_dict(found.parts[part][0]) for part in parts}
    summary = {
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1) if seconds else 0.0,
        "reason": outcome.reason,
        "engine": dataclasses.asdict(job.choice),
        "data": dataclasses.asdict(job.data.counts["all"]),
        "val": scores.get("val"),
        "test": scores.get("test"),
        "temperature": found.temperature.to_dict() if found.temperature else None,
        "plan": expected.told(run.events),
        "transfer": _first_story(prepared, run.path),
        "features_seconds": round(short.seconds, 3) if short else None,
    }
    page.write(run, job, found, summary["plan"], transfer.told(summary["transfer"]))
    write_json(run.path / "evaluation.json", summary)
    for part in parts:
        console.say(f"{part}: {headline(found.parts[part][0])}")
    if found.temperature:
        console.say(told(found.temperature))
    if not parts:
        console.say("nothing was held back, so there is no score: use --val or --test")
    console.say(f"report: {run.path / 'report.html'}")
    return run
