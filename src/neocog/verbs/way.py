"""The way that a network's weights went in a training. Floor 5, room verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from neocog import tasks
from neocog.bundle import Bundle
from neocog.engine import checkpoint
from neocog.engine.job import plain
from neocog.errors import NeocogError, RunError
from neocog.verbs.finish import START
from neocog.verbs.prepare import UNNAMED, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from neocog.data.dataset import Dataset
    from neocog.run import Run

__all__ = ["way"]


def way(run: Run, data: Dataset) -> list[Mapping[str, Tensor]]:
    """Weights from the first to the last that is kept, by optimiser steps.

    The first ones are made again, from the seed; between them and the last lies what the run's
    checkpoints hold, all epochs with `--set checkpoint.keep=all`. One that is damaged is left out.

    Args:
        run: a finished one.
        data: its data set, which first weights may depend on.
    """
    first = _first(run, data)
    found = [(-1, first)] if first is not None else []
    for path in sorted((run.path / "checkpoints").glob("*.safetensors")):
        step, state = _kept(path)
        if state:
            found.append((step, state))
    # A checkpoint and its copy under another name are one place.
    return [state for _, state in sorted(dict(found).items())]


def _first(run: Run, data: Dataset) -> Mapping[str, Tensor] | None:
    """What the training began with; None where that cannot be made again."""
    start = run.path / START
    if (start / "bundle.json").is_file():
        return Bundle.load(start).weights
    recipe = run.recipe
    if recipe.model == UNNAMED or ":" in recipe.model or recipe.transfer.source:
        return None
    device = torch.device("cpu")
    try:
        task = tasks.build(run.bundle.task)
        made = prepare(recipe, data, task, device, plain(recipe.engine, device), None, None)
    except NeocogError:
        return None
    return made.job.network.state_dict()


def _kept(path: Path) -> tuple[int, Mapping[str, Tensor]]:
    """Steps and weights of a checkpoint: the averaged ones where there are any."""
    try:
        state, _ = checkpoint.load(path)
    except RunError:
        return 0, {}
    return state.step, state.ema or state.model
