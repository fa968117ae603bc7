"""What a network does with a black picture or two, before anything is written. Floor 5, room verbs.

A network of one's own may take or give anything: what would end a training in its first step, or
after an hour where it first meets a picture that comes alone, is found out here.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from neocog.data.batches import batches_per_epoch
from neocog.engine.evaluate import evaluating
from neocog.engine.growth import Growth
from neocog.engine.heads import Heads
from neocog.engine.job import Learning
from neocog.errors import ConfigError
from neocog.geometry import LAYOUTS, noun, size_text
from neocog.layers import materialize
from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from neocog.config import Recipe
    from neocog.engine.job import Job
    from neocog.engine.task import Task
    from neocog.records import InputSpec, ModelSpec

__all__ = ["answers", "completed", "needs_contiguous", "trains"]

_ALONE = "x.squeeze() also removes a batch of one: say which axis, or write x.flatten(1)"
"""What is mostly wrong where two samples are answered for and one is not."""


@contextlib.contextmanager
def _told(spec: InputSpec, count: int) -> Iterator[None]:
    """What a network that is given some black samples raises, as a `ConfigError`."""
    shape = (count, spec.channels, *spec.size)
    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        hint = f"it is called with B×{LAYOUTS[len(spec.size)]}" + (
            " of any height and width" if spec.whole else ""
        )
        raise ConfigError(
            f"the network does not take float32 {noun(spec.size)}s {shape}: {error}",
            _ALONE if count == 1 else hint,
        ) from error


def completed(network: nn.Module, spec: InputSpec) -> None:
    """Let lazy layers find their sizes, in place.

    Raises:
        ConfigError: it does not take these pictures, or its weights are not float32.
    """
    kinds = {one.dtype for one in network.parameters() if one.is_floating_point()}
    if kinds - {torch.float32}:
        names = ", ".join(sorted(str(one).removeprefix("torch.") for one in kinds))
        raise ConfigError(
            f"the network's weights are {names}, expected float32 alone",
            "module.float(); --precision bf16 trains in half precision all the same",
        )
    with _told(spec, 2):
        materialize(network, spec)


def answers(
    network: nn.Module, spec: InputSpec, task: Task, device: torch.device, *, count: int = 2
) -> None:
    """Asked for one or two black pictures, it gives what the task needs.

    Raises:
        ConfigError: it takes or gives something else than this data needs.
    """
    shape = (count, spec.channels, *spec.size)
    with _told(spec, count), torch.no_grad(), evaluating(network):
        found = network(torch.zeros(shape, device=device))
    wanted = (count, *task.shape(spec.size))
    few = f"one {noun(spec.size)}" if count == 1 else f"two {noun(spec.size)}s"
    if not isinstance(found, torch.Tensor):
        raise ConfigError(
            f"the network gives a {type(found).__name__}, expected one tensor {wanted}",
            "wrap it in a module that returns the outputs alone",
        )
    if tuple(found.shape) != wanted:
        raise ConfigError(
            f"the network gives {tuple(found.shape)} for {few}, this task needs {wanted}",
            _ALONE if count == 1 else _ending(found.dim(), task, spec),
        )


def needs_contiguous(
    network: nn.Module, spec: InputSpec, device: torch.device, recipe: Recipe
) -> bool:
    """Whether the network takes no pictures with the channels last in memory, or no window of a
    larger one. Convolutions hand the order on, and `view`, which cannot copy, then fails.

    Args:
        network: takes such pictures with the channels first.
        spec: the input.
        device: of the network.
        recipe: of the run; whoever trains a network of the catalogue knows that it takes any.

    Raises:
        ConfigError: that order is just what the recipe asks for.
    """
    if len(spec.size) != 2 or catalog.is_own(recipe.model):
        return False
    black = torch.zeros((2, *spec.size, spec.channels), device=device).movedim(-1, 1)
    window = F.pad(black, (1, 1, 1, 1))[..., 2:, 2:]
    twin = copy.deepcopy(network)  # statistics move while it trains
    if device.type != "cpu":
        twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            with evaluating(twin):
                twin(black)
                twin(window)
            Heads(twin.train()).outputs(black)
    except RuntimeError as error:
        if recipe.engine.layout == "channels_last":
            raise ConfigError(
                f"the network does not take pictures in channels_last memory: {error}",
                "leave engine.layout out, or write x.flatten(1) instead of x.view(x.shape[0], -1)",
            ) from error
        return True
    return False


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


def trains(job: Job, model: ModelSpec) -> None:
    """Black pictures through a copy of the network as it trains, of one that is not ours, or where
    batches of the run hold one alone: batch norm takes no variance of one number. Statistics and
    chance stay as they are.

    Raises:
        ConfigError: the network cannot train on it.
    """
    count, batch = len(job.data.splits["train"]), job.recipe.engine.batch
    # Batches of an epoch differ by at most one in size.
    if not count or not batch:
        return
    alone = count // batches_per_epoch(count, batch) <= 1
    if not alone and catalog.is_own(model.name):
        return
    twin = copy.deepcopy(job.network)
    Learning(dataclasses.replace(job, network=twin)).keep()
    devices = [job.device] if job.device.type == "cuda" else []
    _, size = Growth(job.recipe.schedule, job.input.size).stages[0]
    black = torch.zeros(1 if alone else 2, job.input.channels, *size, device=job.device)
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            Heads(twin).outputs(black)
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        found = re.search(r"more than 1 value per channel.*\[([\d, ]+)\]", str(error))
        if found is None:
            raise ConfigError(
                f"the network fails while it trains, on float32 {noun(job.input.size)}s "
                f"{tuple(black.shape)}: {error}",
                "it is called with the same input in both modes",
            ) from error
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
