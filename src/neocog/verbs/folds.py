"""What networks say of samples that they never saw: k networks, each trained without one fold.

Floor 5, room verbs. The networks are small ones that learn fast, for the question is not how good a
score can get but which labels stand out.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog import chance, machine, recipes, tasks, usual
from neocog.data.batches import eval_batches
from neocog.engine import loop
from neocog.engine.budget import WRITE
from neocog.engine.evaluate import evaluating, together
from neocog.engine.job import length, plain
from neocog.layers import Predictor
from neocog.verbs.prepare import prepare, tune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neocog.config import Recipe
    from neocog.data.dataset import Dataset
    from neocog.engine.job import Job
    from neocog.records import Event
    from neocog.verbs.console import Console

__all__ = ["Answers", "answers", "fitting", "folds_of"]

LEAST_SIDE = 24
"""Pixels that `speednet`, which halves its maps thrice, is of use for."""
WORTH_TUNING = 5000
"""Pictures from which on it pays to find out which arithmetic is fastest."""
SHARE = 0.9
"""Share of the first network's time that training may take; the rest is for answering. Later ones
go by how long that took."""
REST = 0.01
"""Share of the time left that is kept for the page, with at least a second."""
LEAST = 2.0
"""Seconds that a network trains at least, reading and measuring included, though the time is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Out-of-sample probabilities."""

    ids: NDArray[np.int64]
    """M; samples that were answered for."""
    probabilities: NDArray[np.float64]
    """M×K; of the network that did not see the sample, or the mean over all where none did."""
    folds: int
    """Networks that were trained."""
    model: str
    """Name of the network."""


def fitting(recipe: Recipe, data: Dataset) -> Recipe:
    """The recipe with a small fast network that suits these pictures, where it says `auto`.

    Args:
        recipe: as written.
        data: what will be learnt from.
    """
    name = recipe.model
    if name == "auto":
        fast = len(data.size) == 2 and min(data.size) >= LEAST_SIDE
        name = "speednet" if fast else "cnn"
        if fast and "width" not in recipe.model_args:
            recipe = dataclasses.replace(recipe, model_args={**recipe.model_args, "width": 16})
    return usual.under(recipe, name, (), data.kind)


def folds_of(
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    clusters: Sequence[Sequence[int]],
    folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """The fold of each sample: of each class the same share in every fold, copies together.

    Args:
        ids: M, what the samples are called.
        labels: M, class indices.
        clusters: ids that stay in one fold.
        folds: how many there are.
        seed: decides.
    """
    draws = chance.draw(chance.key(seed, "folds"), ids)
    order = np.lexsort((ids, draws, labels))
    found = np.empty(len(ids), np.int64)
    found[order] = np.arange(len(ids)) % folds
    row = {int(one): place for place, one in enumerate(ids)}
    for cluster in clusters:
        rows = [row[one] for one in cluster if one in row]
        found[rows] = found[rows[0]] if rows else 0
    return found


def answers(
    recipe: Recipe,
    data: Dataset,
    *,
    parts: NDArray[np.int64],
    ids: NDArray[np.int64],
    extra: NDArray[np.int64],
    ends: float | None,
    console: Console,
) -> Answers:
    """Train a network without each fold and let it answer for the fold.

    Args:
        recipe: the network and its settings; of its own `minutes` nothing is taken.
        data: the data set, of classes.
        parts: M; fold of each sample, 0…F−1.
        ids: M, int64; samples to learn from and to answer for.
        extra: samples that none learns from; all networks answer for them.
        ends: when all must be over, by `time.monotonic`; None: the recipe's epochs decide.
        console: shows how far it is.
    """
    recipe = fitting(recipe, data)
    folds = int(parts.max()) + 1
    classes = len(data.classes)
    found = np.zeros((len(ids) + len(extra), classes))
    device = machine.device_named(recipe.engine.device)
    choice = plain(recipe.engine, device)
    beyond: float | None = None
    for fold in range(folds):
        held = parts == fold
        mine = dataclasses.replace(data, splits={"train": torch.from_numpy(ids[~held])})
        until = None
        engine = recipe.engine
        if ends is not None:
            now = time.monotonic()
            trained = now + _training(ends - now, folds - fold, beyond)
            until = trained + WRITE  # which the engine keeps back, and nothing is written here
            minutes = max(0.01, (until - now) / 60)
            engine = dataclasses.replace(engine, minutes=minutes, epochs=None)
        resolved = recipes.resolve(dataclasses.replace(recipe, engine=engine), mine)
        task = tasks.for_data(mine, resolved)
        prepared = prepare(resolved, mine, task, device, choice, None, until)
        if fold == 0 and len(ids) >= WORTH_TUNING:
            prepared = tune(prepared, console)
            choice = prepared.job.choice
            decided = dataclasses.replace(recipe.engine, layout=choice.layout)
            recipe = dataclasses.replace(recipe, engine=decided)
        _train(prepared.job, f"fold {fold + 1} of {folds}", console)
        rows = np.concatenate((np.flatnonzero(held), len(ids) + np.arange(len(extra))))
        asked = np.concatenate((ids[held], extra))
        share = np.where(rows < len(ids), 1.0, 1.0 / folds)[:, None]
        found[rows] += share * _ask(prepared.job, data, asked)
        if until is not None:
            over = time.monotonic() - (until - WRITE)
            beyond = over if beyond is None else max(beyond, over)
    console.done()
    return Answers(
        ids=np.concatenate((ids, extra)), probabilities=found, folds=folds, model=recipe.model
    )


def _training(left: float, networks: int, beyond: float | None) -> float:
    """Seconds that the next network may train.

    Args:
        left: seconds until all must be over.
        networks: how many are still to be trained.
        beyond: how much later than its training was to end one was done, at most, or earlier,
            below 0. None: not known yet.

    >>> round(_training(1000.0, 5, None), 1), _training(200.0, 1, 8.0), _training(1.0, 1, 8.0)
    (178.2, 190.0, 2.0)
    """
    each = (left - max(1.0, REST * left)) / networks
    return max(LEAST, SHARE * each if beyond is None else each - beyond)


def _train(job: Job, what: str, console: Console) -> None:
    """Train a network in place, with no run to keep."""
    steps = length(job.recipe, len(job.data.splits["train"])).total
    began = time.monotonic()

    def listen(event: Event) -> None:
        if event.kind != "step":
            return
        if steps is not None:
            console.progress(what, event.step, steps)
        elif job.ends is not None:
            gone = time.monotonic() - began
            whole = max(1e-9, job.ends - began)
            console.progress(what, min(1000, round(1000 * gone / whole)), 1000)

    with tempfile.TemporaryDirectory() as folder:
        outcome = loop.train(job, folder=Path(folder), listeners=[listen])
    device: Any = job.device
    job.network.load_state_dict({name: one.to(device) for name, one in outcome.weights.items()})


@torch.no_grad()
def _ask(job: Job, data: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities of some samples, M×K."""
    predictor = Predictor(job.network, job.input, job.task.decode).to(job.device)
    found = [np.zeros((0, len(data.classes)))]
    with evaluating(predictor):
        for one in eval_batches(
            data, torch.from_numpy(ids), batch=together(data), device=job.device
        ):
            found.append(predictor(one.images).double().cpu().numpy())
    return np.concatenate(found)
