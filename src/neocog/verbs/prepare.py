"""From a resolved recipe to a job that is ready to train. Floor 5, room verbs.

Everything that a mistake can be found in before anything is written: network, augmentation,
statistics of the data, and the arithmetic that is fastest here.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from neocog import chance, recipes
from neocog.data import dataset
from neocog.data.augment import Augment
from neocog.data.batches import batches_per_epoch
from neocog.engine import features, tuner
from neocog.engine.evaluate import evaluating
from neocog.engine.growth import STAGES, Growth
from neocog.engine.heads import Heads
from neocog.engine.job import Choice, Job, set_learning
from neocog.errors import ConfigError
from neocog.geometry import LAYOUTS, noun, size_text
from neocog.host import BUSY
from neocog.layers import Normalize
from neocog.models import catalog
from neocog.records import ModelSpec
from neocog.usual import usual
from neocog.verbs.transfer import begin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neocog.config import Recipe
    from neocog.data.dataset import Dataset
    from neocog.engine.task import Task
    from neocog.records import InputSpec
    from neocog.verbs.console import Console
    from neocog.verbs.transfer import Begun, Origin

__all__ = ["UNNAMED", "Prepared", "prepare", "tune"]

CALIBRATE_ON = 2_000_000
"""Pixels that a network's `calibrate` sees, about."""
LEAST = 64
"""Pictures that it sees, at least."""
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
        module: the network, of which a copy is taken; None: the recipe's.
        ends: when the run must be over.
        spec: what `dataset.spec` says of the data, where that is known already.
        origin: the weights that the network begins with; None: fresh ones. The pictures are
            normalised as for the network that learnt them, where that is known.

    Raises:
        ConfigError: the network does not take these pictures, or gives something else; or cannot
            train on batches of one, which the run has; or a layout that only pictures have.
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
            model = ModelSpec(name=recipe.model, args=recipe.model_args)
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
    _probe(network, spec, task, device)
    if spec.whole:  # it learns from crops of one size, and answers for pictures of any
        odd = (spec.size[0] + 3, spec.size[1] + 5)
        _probe(network, dataclasses.replace(spec, size=odd), task, device)
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
    _try_alone(job, model)
    return Prepared(job=job, model=model, begun=begun)


def _sample(data: Dataset, spec: InputSpec) -> torch.Tensor:
    """Training pictures, normalised, spread evenly over the part, for networks that begin from the
    statistics of their data."""
    ids = data.splits["train"]
    most = max(LEAST, CALIBRATE_ON // math.prod(data.size))
    chosen = ids[:: max(1, -(-len(ids) // most))]
    pictures = data.images.gather(chosen, data.size)
    normalised: torch.Tensor = Normalize(spec.mean, spec.std, len(spec.size))(pictures)
    return normalised


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


def _probe(network: nn.Module, spec: InputSpec, task: Task, device: torch.device) -> None:
    """Two black pictures through the network, before anything is written.

    Raises:
        ConfigError: it takes or gives something else than this data needs.
    """
    shape = (2, spec.channels, *spec.size)
    try:
        with torch.no_grad(), evaluating(network):
            found = network(torch.zeros(shape, device=device))
    except (RuntimeError, TypeError, ValueError) as error:
        kinds = {parameter.dtype for parameter in network.parameters()} - {torch.float32}
        raise ConfigError(
            f"the network does not take float32 {noun(spec.size)}s {shape}: {error}",
            "its weights are not float32: module.float()"
            if kinds
            else f"it is called with B×{LAYOUTS[len(spec.size)]}"
            + (" of any height and width" if spec.whole else ""),
        ) from error
    wanted = (2, *task.shape(spec.size))
    if not isinstance(found, torch.Tensor):
        raise ConfigError(
            f"the network gives a {type(found).__name__}, expected one tensor {wanted}",
            "wrap it in a module that returns the outputs alone",
        )
    if tuple(found.shape) != wanted:
        raise ConfigError(
            f"the network gives {tuple(found.shape)} for two {noun(spec.size)}s, this task needs "
            f"{wanted}",
            _ending(found.dim(), task, spec),
        )


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
            _probe(network, dataclasses.replace(spec, size=smaller[stage][1]), task, device)
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


def _ending(axes: int, task: Task, spec: InputSpec) -> str:
    """How a network has to end whose answer has another shape.

    Args:
        axes: of its answer, the batch among them.
        task: what is wanted.
        spec: the input.
    """
    if len(task.shape(spec.size)) > 1:
        return "each pixel is answered for by " + ", ".join(catalog.names(gives="map"))
    if axes == 2 + len(spec.size):
        each = "pixel" if len(spec.size) == 2 else "place"
        return (
            f"it answers for each {each}; end it with pooling over the {noun(spec.size)}: "
            "gap; linear"
        )
    return f"its last layer must have {task.outputs} outputs"


def _try_alone(job: Job, model: ModelSpec) -> None:
    """A black picture through a copy of the network as it trains, where batches of the run hold one
    alone: batch norm takes no variance of one number. Statistics and chance stay as they are.

    Raises:
        ConfigError: the network cannot train on it.
    """
    count, batch = len(job.data.splits["train"]), job.recipe.engine.batch
    # Batches of an epoch differ by at most one in size.
    if not count or not batch or count // batches_per_epoch(count, batch) > 1:
        return
    twin = copy.deepcopy(job.network)
    set_learning(twin, dataclasses.replace(job, network=twin).still_parts())
    devices = [job.device] if job.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            _, size = Growth(job.recipe.schedule, job.input.size).stages[0]
            Heads(twin).outputs(torch.zeros(1, job.input.channels, *size, device=job.device))
    except ValueError as error:
        found = re.search(r"more than 1 value per channel.*\[([\d, ]+)\]", str(error))
        if found is None:
            raise
        given = [int(one) for one in found[1].split(",")]
        name = noun(job.input.size)
        raise ConfigError(
            f"this run has batches of one {name} ({count:,} to train on, engine.batch={batch}), "
            f"and a norm of the network is given {size_text(given)} then: one number, which has "
            "no variance",
            "; or ".join(_ways_out(job, model, count, batch, maps=len(given) > 2)),
        ) from error


def _ways_out(job: Job, model: ModelSpec, count: int, batch: int, *, maps: bool) -> Iterator[str]:
    """What gives batch norm more numbers, or does without it.

    Args:
        job: what cannot train.
        model: its network.
        count: of the training part.
        batch: samples a batch, at most.
        maps: whether it is given maps, which larger pictures make larger.
    """
    more = range(batch + 1, count + 1)
    fits = next((one for one in more if count // batches_per_epoch(count, one) > 1), None)
    yield f"larger batches: --batch {fits}" if fits else "more to train on"
    if maps and len(job.input.size) == 2:
        double = ",".join(str(2 * side) for side in job.input.size)
        yield f"larger {'crops' if job.data.whole else 'pictures'}: --set data.size={double}"
    if catalog.is_line(model.name):
        yield "gn instead of bn in the line"
    elif model.name in catalog.CATALOG:
        known = {one.name: one.kind.split("|") for one in catalog.describe(model.name)}
        norms = [one for one in ("group", "layer") if one in known.get("norm", ())]
        if norms and "backbone" not in known:  # whose norms are its own
            yield f"another norm: --set model_args.norm={norms[0]}"
