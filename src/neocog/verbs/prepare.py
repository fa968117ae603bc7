"""From a resolved recipe to a job that is ready to train. Floor 5, room verbs.

Everything that a mistake can be found in before anything is written: network, augmentation,
statistics of the data, and the arithmetic that is fastest here.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from neocog import chance, recipes
from neocog.data import dataset
from neocog.data.augment import Augment
from neocog.engine import features, tuner
from neocog.engine.budget import LOOKS, affords
from neocog.engine.evaluate import look_seconds
from neocog.engine.growth import STAGES, Growth
from neocog.engine.job import Choice, Job, plain
from neocog.errors import ConfigError
from neocog.geometry import noun, size_text
from neocog.host import BUSY, memory_kept
from neocog.layers import Normalize, Predictor
from neocog.machine import multiplies_bf16
from neocog.models import catalog
from neocog.records import ModelSpec
from neocog.usual import usual
from neocog.verbs import probes
from neocog.verbs.console import clock
from neocog.verbs.transfer import begin

if TYPE_CHECKING:
    from collections.abc import Collection

    from neocog.config import EngineRecipe, Recipe
    from neocog.data.dataset import Dataset
    from neocog.engine.task import Task
    from neocog.records import InputSpec
    from neocog.verbs.console import Console
    from neocog.verbs.transfer import Begun, Origin

__all__ = ["UNNAMED", "Prepared", "afford", "arithmetic", "prepare", "tune"]

CALIBRATE_ON = 2_000_000
"""Pixels that a network's `calibrate` sees, about."""
LEAST = 64
"""Pictures that it sees, at least."""
FEW = 64
"""Pictures that tell how long a look at one takes."""
UNNAMED = "(unnamed)"
"""Stands for the name of a network that was handed over as an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job and how to build its network again."""

    job: Job
    model: ModelSpec
    begun: Begun
    """What its network begins with."""


def prepare(
    recipe: Recipe,
    data: Dataset,
    task: Task,
    device: torch.device,
    choice: Choice,
    module: nn.Module | None,
    ends: float | None,
    *,
    spec: InputSpec | None = None,
    origin: Origin | None = None,
) -> Prepared:
    """Network, augmentation and statistics: everything that a mistake can be found in early.

    Args:
        recipe: resolved.
        data: the data set.
        task: what its targets are.
        device: where the network goes.
        choice: how the arithmetic is done.
        module: the network, of which a copy is taken, after its lazy layers found their sizes;
            None: the recipe's.
        ends: when the run must be over.
        spec: what `dataset.spec` says of the data, where that is known already.
        origin: the weights that the network begins with; None: fresh ones. The pictures are
            normalised as for the network that learnt them, where that is known.

    Raises:
        ConfigError: the network does not take these pictures, or gives something else; or cannot
            train on batches of one, which the run has; or a layout that only pictures have, or
            that it cannot take.
    """
    spec = dataset.spec(data) if spec is None else spec
    spec = dataclasses.replace(spec, views=recipes.views_for(recipe))
    if choice.layout == "channels_last" and len(spec.size) != 2:
        raise ConfigError(
            f"engine.layout=channels_last is for pictures, and these are {noun(spec.size)}s",
            "leave it out",
        )
    if origin and origin.input and origin.input.channels == spec.channels:
        spec = dataclasses.replace(spec, mean=origin.input.mean, std=origin.input.std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chance.key(recipe.seed, "weights"))
        if module is not None:
            probes.completed(module, spec)  # lazy layers cannot be copied
            network = copy.deepcopy(module)
            model = ModelSpec(name=UNNAMED, args={"class": type(module).__qualname__})
        else:
            network = catalog.build(
                recipe.model,
                channels=spec.channels,
                size=spec.size,
                outputs=task.outputs,
                args=recipe.model_args,
            )
            probes.completed(network, spec)
            model = ModelSpec(name=recipe.model, args=recipe.model_args)
    # Kernels that lie otherwise would have all layers behind them do so, too.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    augment = Augment(
        recipe.augment,
        seed=recipe.seed,
        classes=len(data.classes),
        kind=data.kind,
        mean=spec.mean,
    )
    calibrate = getattr(network, "calibrate", None)
    if callable(calibrate):
        calibrate(_sample(data, spec))
    sample = (spec.channels, *spec.size)
    begun = begin(network, recipe.transfer, origin, task.classes, sample)
    network = network.to(device)
    probes.answers(network, spec, task, device)
    probes.answers(network, spec, task, device, count=1)
    if spec.whole:  # it learns from crops of one size, and answers for pictures of any
        odd = (spec.size[0] + 3, spec.size[1] + 5)
        probes.answers(network, dataclasses.replace(spec, size=odd), task, device)
    contiguous = probes.needs_contiguous(network, spec, device, recipe)
    spec = dataclasses.replace(spec, contiguous=contiguous)
    if recipe.engine.layout == "auto" and len(spec.size) == 2 and not spec.contiguous:
        # Where nothing is measured, pictures stay as the data set has them.
        choice = dataclasses.replace(choice, layout="channels_last")
    recipe = _growing(network, spec, task, device, recipe)
    job = Job(
        network=network,
        task=task,
        data=data,
        input=spec,
        recipe=recipe,
        augment=augment,
        device=device,
        choice=choice,
        rates=begun.rates,
        still=begun.frozen.still,
        carried=begun.carried is not None,
        ends=ends,
    )
    probes.trains(job, model)
    return Prepared(job=job, model=model, begun=begun)


def _sample(data: Dataset, spec: InputSpec) -> torch.Tensor:
    """Training pictures, normalised, spread evenly over the part, for networks that begin from the
    statistics of their data."""
    ids = data.splits["train"]
    most = max(LEAST, CALIBRATE_ON // math.prod(data.size))
    chosen = ids[:: max(1, -(-len(ids) // most))]
    pictures = data.images.gather(chosen, data.size)
    normalised: torch.Tensor = Normalize.of(spec)(pictures)
    return normalised


def arithmetic(engine: EngineRecipe, device: torch.device, console: Console) -> Choice:
    """What to begin with: as the recipe has it, and what it leaves open as everybody does.

    Raises:
        ConfigError: the device does not train in that.
    """
    choice = plain(engine, device)
    if choice.precision == "bf16" and not multiplies_bf16(device):
        console.say(
            "warning: this processor has no instructions for bfloat16; training in it can take a "
            "hundred times as long as in fp32, which is taken where --precision is left out"
        )
    return choice


def tune(prepared: Prepared, console: Console) -> Prepared:
    """The job with its arithmetic decided, in the recipe too, so that a resumed or repeated run
    computes alike."""
    job = prepared.job
    short = features.suits(job)  # one layer, whose steps are over before anything is measured
    found = None if short else tuner.tune(job)
    choice = features.quick(job) if found is None else found.choice
    if found is not None and found.trials:
        how = f"{choice.precision}, {choice.layout}, " + ("compiled, " if choice.compile else "")
        when = "measured earlier" if found.remembered else f"measured in {found.seconds:.1f} s"
        if found.busy >= BUSY:
            when += f" while {found.busy:.1f} cores were busy otherwise"
        console.say(
            f"engine: {how}threads: {choice.threads}; {found.gain:.1f} × the plain loop, {when}"
        )
    engine = dataclasses.replace(
        job.recipe.engine,
        precision=choice.precision,
        layout=choice.layout,
        compile="on" if choice.compile else "off",
        threads=choice.threads,
    )
    recipe = dataclasses.replace(job.recipe, engine=engine)
    return dataclasses.replace(prepared, job=dataclasses.replace(job, recipe=recipe, choice=choice))


def afford(prepared: Prepared, told: Collection[str], console: Console) -> Prepared:
    """The job that answers from one view of a picture, where its time is given and the usual many
    would take too much of it (`budget.affords`); as it was where they do not, or were told.
    """
    job = prepared.job
    views = job.input.views
    held = [ids for part, ids in job.data.splits.items() if part in ("val", "test") and len(ids)]
    if job.ends is None or views == "one" or "engine.views" in told or not held:
        return prepared
    ids = torch.cat(held)
    once = dataclasses.replace(job.input, views="one")
    predictor = Predictor(job.network, once, job.task.decode).to(job.device)
    with memory_kept():
        one = look_seconds(predictor, job.task, job.data, ids[:FEW], device=job.device)
    look, left = one * len(ids), job.ends - time.monotonic()
    if affords(views, look, left):
        return prepared
    console.say(
        f"views: one of each held-back picture; {LOOKS[views]}, as is usual for "
        f"{job.recipe.model}, would take {clock(LOOKS[views] * look)} of the {clock(left)} left"
    )
    engine = dataclasses.replace(job.recipe.engine, views="one")
    recipe = dataclasses.replace(job.recipe, engine=engine)
    return dataclasses.replace(prepared, job=dataclasses.replace(job, recipe=recipe, input=once))


def _growing(
    network: nn.Module, spec: InputSpec, task: Task, device: torch.device, recipe: Recipe
) -> Recipe:
    """The recipe, with pictures that grow from the smallest size of its stages that the network
    takes: one that halves its maps many times may want more than 16 pixels.

    Raises:
        ConfigError: it takes no smaller pictures, and growing is not just what is usual for it; or
            nothing of this kind can grow.
    """
    grow = recipe.schedule.grow
    *smaller, _ = Growth(recipe.schedule, spec.size).stages
    if grow == 1 or not smaller:
        return recipe
    off = "leave it out, or --set schedule.grow=1"
    if len(spec.size) != 2 or spec.whole:
        kind = "pictures with masks" if spec.whole else f"{noun(spec.size)}s"
        raise ConfigError(
            f"schedule.grow={grow} is for pictures with one answer each, and these are {kind}", off
        )
    found: float = 1.0
    reason: Exception | None = None
    for stage in reversed(range(len(smaller))):  # it must take all that follow, too
        try:
            probes.answers(network, dataclasses.replace(spec, size=smaller[stage][1]), task, device)
        except (ConfigError, AssertionError, LookupError, NotImplementedError) as error:
            reason = error
            break
        found = grow + (1 - grow) * stage / STAGES
    if found == 1 and grow != usual(recipe.model).get("schedule", {}).get("grow"):
        raise ConfigError(
            f"the network takes pictures of {size_text(spec.size)}, but none of "
            f"{size_text(smaller[0][1])} to {size_text(smaller[-1][1])}, as which "
            f"schedule.grow={grow} begins",
            off,
        ) from reason
    return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, grow=found))
