"""Begin a training or go on with one. Floor 5, room verbs.

The flow: recipe → data → resolved recipe → run folder with its manifest; `finish` does the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from neocog import machine, recipes, tasks, weights
from neocog.config import DataRecipe, Recipe
from neocog.data import dataset
from neocog.engine import callbacks as engine_callbacks
from neocog.engine import checkpoint
from neocog.engine.stopping import Signals
from neocog.errors import ConfigError, NeocogError, RunError
from neocog.files import clear_leftovers, write_json
from neocog.lock import locked
from neocog.models import catalog
from neocog.records import Manifest
from neocog.run import Run, open_run
from neocog.settings import to_dict
from neocog.verbs import transfer, world
from neocog.verbs.announce import announce
from neocog.verbs.choose import choose
from neocog.verbs.console import Console
from neocog.verbs.finish import START, STORY, bundle_of, finish, shortened, story
from neocog.verbs.prepare import UNNAMED, Prepared, afford, arithmetic, prepare, tune
from neocog.waiting import attentive

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from neocog.data.dataset import Dataset
    from neocog.engine.callbacks import Callback
    from neocog.records import Event

__all__ = ["fit", "resume", "train"]


def fit(
    model: str | nn.Module | None = None,
    data: str | os.PathLike[str] | Dataset | None = None,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> Run:
    """Train a network on pictures and return the run.

    Args:
        model: a name that `neocog models` lists, `package.module:factory`, or any `nn.Module` that
            takes B×C×H×W float32 and gives B×K. A module comes back as it was, but for
            lazy layers, which find their sizes: a copy is trained. None: the recipe's.
        data: what `neocog.load` returned, or its source. None: the recipe's.
        recipe: everything else; by default everything is decided from the data.
        out: folder of the run; by default a new one below `runs/`.
        callbacks: called with each event and a control: `def mine(event, control)`.
        quiet: say nothing.

    Raises:
        NeocogError: with what was expected, what was found and what to do.
    """
    recipe = recipe or Recipe()
    if isinstance(model, str):
        recipe = dataclasses.replace(recipe, model=model)
    elif model is not None:
        recipe = dataclasses.replace(recipe, model=UNNAMED, model_args={})
    opened = None
    if isinstance(data, dataset.Dataset):
        if recipe.data not in (DataRecipe(), data.recipe):
            raise ConfigError(
                "the recipe's data section and the data set that was handed over differ",
                "set it in neocog.load, or hand the source over instead of the data set",
            )
        opened, recipe = data, dataclasses.replace(recipe, data=data.recipe)
    elif isinstance(data, str | os.PathLike):
        section = dataclasses.replace(recipe.data, source=os.fspath(data))
        recipe = dataclasses.replace(recipe, data=section)
    elif data is not None:
        raise ConfigError(f"data is a source or what neocog.load returned, got {data!r}")
    module = model if isinstance(model, nn.Module) else None
    began = time.monotonic()
    with Console(quiet=quiet) as console:
        return train(
            recipe,
            out=Path(out) if out else None,
            argv=("neocog.fit",),
            began=began,
            data=opened,
            module=module,
            callbacks=callbacks,
            console=console,
        )


def train(
    recipe: Recipe,
    *,
    out: Path | None,
    argv: Sequence[str],
    console: Console,
    began: float | None = None,
    told: Collection[str] = (),
    data: Dataset | None = None,
    module: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train by a recipe into a new run folder.

    Args:
        recipe: all that decides the run.
        out: its folder; None: a new one below `runs/`.
        argv: the command, for the manifest.
        console: says what happens.
        began: when the run began, by `time.monotonic`, for a recipe with `minutes`. None: now.
        told: settings that somebody named, by their dotted path: they stay where the network is
            `auto` and brings settings of its own.
        data: the data set, where it is open already; None: the recipe's source.
        module: the network; None: the recipe's.
        callbacks: called with each event and a control.

    Raises:
        RunError: the folder holds a run already.
        NeocogError: anything that the data, the model or the recipe gets wrong, before a run folder
            is made.
    """
    for callback in callbacks:
        engine_callbacks.check(callback)
    if recipe.model == UNNAMED and module is None:
        raise ConfigError(
            "this recipe is of a run whose network was handed over in Python",
            "hand it over again: neocog.fit(module, data, recipe)",
        )
    if out is not None:
        _refuse_old(out)
    with Signals() as signals, attentive(torch.get_num_threads()):
        prepared = _decide(recipe, data, module, told, began, console)
        job = prepared.job
        manifest = _manifest(job.recipe, job.data, job.device, argv)
        with _claimed(out, job.recipe) as folder:
            if prepared.begun.carried:
                bundle_of(prepared, job.network.state_dict(), manifest).save(folder / START)
                write_json(folder / START / STORY, story(prepared))
            write_json(folder / "manifest.json", dataclasses.asdict(manifest))
            announce(prepared, console)
            short = shortened(job, console)
            try:
                return finish(
                    prepared, short, folder, manifest, console, signals, callbacks=callbacks
                )
            except NeocogError:
                # A metric that does not exist, a first step that blows up: there is nothing to
                # resume, and the next try may want the same folder.
                made = (folder / "bundle" / "bundle.json").exists()
                if not made and checkpoint.load_latest(folder / "checkpoints") is None:
                    _forget(folder)
                raise


def _decide(
    recipe: Recipe,
    data: Dataset | None,
    module: nn.Module | None,
    told: Collection[str],
    began: float | None,
    console: Console,
) -> Prepared:
    """Open the data, choose the network and decide all that the recipe left open."""
    device = machine.device_named(recipe.engine.device)
    choice = arithmetic(recipe.engine, device, console)
    ends = _ends(recipe, time.monotonic() if began is None else began)
    origin = transfer.origin(recipe.transfer.source)
    if module is None:
        recipe = transfer.follow(recipe, origin, told)
    if data is None:
        data = dataset.load(recipe.data, seed=recipe.seed, progress=console.progress)
        console.done()
    else:
        told = {*told, "data.size"}  # what was handed over stays as it is
    recipe, data = choose(
        recipe,
        data,
        told=told,
        device=device,
        choice=choice,
        ends=ends,
        console=console,
    )
    recipe = recipes.resolve(recipe, data)
    task = tasks.for_data(data, recipe)
    prepared = prepare(recipe, data, task, device, choice, module, ends, origin=origin)
    return afford(tune(prepared, console), told, console)


def resume(
    path: str | Path,
    *,
    model: str | nn.Module = "",
    anyway: bool = False,
    callbacks: Sequence[Callback] = (),
    console: Console | None = None,
    began: float | None = None,
) -> Run:
    """Go on with a run from its last checkpoint; a finished run is returned as it is.

    Args:
        path: the run folder.
        model: for a network from outside the catalogue: names its factory again, because nothing
            foreign runs unasked; or the module that was handed over, of which a copy is trained.
        anyway: go on although the data, its classes or the settings are not what they were.
        callbacks: those that `fit` was given, again.
        console: says what happens.
        began: when going on began, by `time.monotonic`; None: now. A run with `minutes` has what
            its earlier processes left of them.

    Raises:
        RunError: no run there, another process works on it, what it depends on has changed, or
            all of its checkpoints are damaged.
        ConfigError: the network is foreign and was not named.
    """
    began = time.monotonic() if began is None else began
    console = console or Console()
    path = Path(path)
    run = open_run(path, model=model)
    if run.finished:
        # A kill may have come between the last file and the end of the lock.
        with contextlib.suppress(RunError), locked(path):
            _clear_all(path)
        console.say(f"{path} is finished; nothing to resume")
        return run
    _refuse_foreign(run, model)
    with Signals() as signals, locked(path), attentive(torch.get_num_threads()):
        _clear_all(path)
        recipe, manifest = run.recipe, run.manifest
        device = machine.device_named(recipe.engine.device)
        data = run.data(changed=True)  # whether it has changed is asked below, with all else
        task = tasks.for_data(data, recipe)
        used = 0.0 if recipe.engine.minutes is None else _used(run.events)
        module = None if isinstance(model, str) else model
        prepared = prepare(
            *(recipe, data, task, device, arithmetic(recipe.engine, device, console), module),
            _ends(recipe, began - used),
            origin=transfer.origin(str(path / START)) if recipe.transfer.source else None,
        )
        short = shortened(prepared.job, console)
        found = checkpoint.load_latest(path / "checkpoints")
        if found and not found.warnings:
            # A kill may have come between the last save and the end of those before it.
            checkpoint.prune(path / "checkpoints")
        before = {"data": manifest.data["fingerprint"], "classes": manifest.data["classes"]}
        before |= found.meta.get("world", {}) if found else {}
        now = world.describe(prepared.job, callbacks)
        world.check(before, now, run=str(path), anyway=anyway, console=console)
        if found:
            for warning in found.warnings:
                console.say(f"warning: {warning}; going on from the one before")
            network = (short.job if short else prepared.job).network.state_dict()
            shapes = {name: (tuple(one.shape), one.dtype) for name, one in network.items()}
            weights.check(f"the weights of {found.path.name}", found.state.model, shapes)
        console.say(f"{path}: going on after step {found.state.step if found else 0}")
        return finish(
            prepared, short, path, manifest, console, signals, callbacks=callbacks, found=found
        )


def _clear_all(run: Path) -> None:
    """Take away what a killed process had half written."""
    for folder in (run, run / "bundle", run / "checkpoints", run / START):
        clear_leftovers(folder)


def _refuse_foreign(run: Run, model: str | nn.Module) -> None:
    """Nothing foreign runs unasked.

    Raises:
        ConfigError: the network is not ours, and was not named or handed over.
    """
    name = run.recipe.model
    if not isinstance(model, str) or catalog.is_own(name) or name == model:
        return
    raise ConfigError(
        f"the network of this run is {name}, which is not one of neocog's own",
        "hand the module over: neocog.resume(run, model=module)"
        if name == UNNAMED
        else f"if you trust that code, say so: neocog resume {run.path} --model {name}",
    )


def _ends(recipe: Recipe, began: float) -> float | None:
    """When a run that began then must be over; None where it has epochs instead."""
    minutes = recipe.engine.minutes
    return None if minutes is None else began + 60 * minutes


def _used(events: Sequence[Event]) -> float:
    """Seconds of its minutes that a run has used: what its last beginning says, and since then."""
    for event in reversed(events):
        if "used" in event.values:
            used: float = event.values["used"] + events[-1].time - event.time
            return used
    return 0.0


def _manifest(recipe: Recipe, data: Dataset, device: torch.device, argv: Sequence[str]) -> Manifest:
    """What decides this run."""
    count = data.counts["all"]
    return Manifest(
        config=to_dict(recipe),
        seed=recipe.seed,
        versions=machine.versions(),
        argv=tuple(argv),
        device=machine.describe(device),
        data={
            "source": recipe.data.source,
            "fingerprint": data.fingerprint,
            "kind": data.kind,
            "size": list(data.size),
            "channels": data.channels,
            "classes": list(data.classes),
            "splits": {name: len(ids) for name, ids in data.splits.items()},
            "class_counts": {
                name: data.class_counts(ids)
                for name, ids in data.splits.items()
                if data.kind in ("class", "mask")
            },
            "duplicates": dict(data.duplicates),
            "found": count.found,
            "used": count.used,
            "skipped": count.skipped,
        },
    )


def _refuse_old(folder: Path) -> None:
    """A folder that holds a run is never trained into.

    Raises:
        RunError: with the way to go on.
    """
    if (folder / "manifest.json").exists():
        raise RunError(
            f"{folder} holds a run already",
            f"go on with it: neocog resume {folder}; or choose another folder with --out",
        )


def _forget(folder: Path) -> None:
    """Take away a run that never got to a checkpoint."""
    for name in ("manifest.json", "events.jsonl"):
        (folder / name).unlink(missing_ok=True)
    for name in ("tensorboard", START):
        shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or not empty
        (folder / "checkpoints").rmdir()


@contextlib.contextmanager
def _claimed(out: Path | None, recipe: Recipe) -> Iterator[Path]:
    """The folder of a new run, which nobody else writes to.

    Raises:
        RunError: it holds a run already, is in use, or cannot be made.
    """
    try:
        folder = out or _next_folder(recipe)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot make {error.filename}: {error.strerror}", "choose another folder with --out"
        ) from error
    try:
        with locked(folder):
            _refuse_old(folder)
            clear_leftovers(folder)
            yield folder
    finally:
        with contextlib.suppress(OSError):  # it holds something, as it should
            folder.rmdir()


def _next_folder(recipe: Recipe) -> Path:
    """`runs/digits-cnn-1`, the first number that is free; made, so that it is nobody else's."""
    source = Path(recipe.data.source).name.split(".")[0] or "data"
    model = "line" if catalog.is_line(recipe.model) else recipe.model.rsplit(":", 1)[-1]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{source}-{model}").strip("-")
    Path("runs").mkdir(exist_ok=True)
    for number in itertools.count(1):
        folder = Path("runs") / f"{stem}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")
