"""Count answers over a part of the data. Floor 2, room engine; imports layers, data and floor 0."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neocog.data.batches import WHOLE, eval_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from neocog.data.dataset import Dataset
    from neocog.engine.task import Statistics, Task
    from neocog.layers import Predictor
    from neocog.records import Batch

__all__ = [
    "Evaluation",
    "eval_batch",
    "evaluate",
    "evaluating",
    "look_seconds",
    "together",
    "widest",
]

EVAL_BATCH = 256
"""One size for every evaluation: sums of floats depend on how rows are grouped, and a score that
is repeated must be the same to the last bit."""
PRACTICE = 3
"""Looks at one batch that tell how long one takes."""
_WHOLE = 16
"""Pictures that are looked at together where each is answered for pixel by pixel, at most."""
_PLACES = 1 << 24
"""Places of signals and volumes that are looked at together: those of 256 pictures of 256×256."""


def eval_batch(size: Sequence[int]) -> int:
    """Samples of this size that are looked at together; fewer where they are long or deep.

    >>> eval_batch((224, 224)), eval_batch((16000,)), eval_batch((128, 128, 128))
    (256, 256, 8)
    """
    if len(size) == 2:
        return EVAL_BATCH
    return max(1, min(EVAL_BATCH, _PLACES // math.prod(size)))


def together(data: Dataset) -> int:
    """Samples of a data set that are looked at together, at most."""
    return _WHOLE if data.whole else eval_batch(data.size)


def widest(data: Dataset) -> tuple[int, tuple[int, ...]]:
    """The evaluated batch that holds most pixels: how many samples, and their size.

    >>> from neocog.data import dataset
    >>> from neocog.config import DataRecipe
    >>> widest(dataset.load(DataRecipe(source="digits")))
    (256, (8, 8))
    """
    if not data.whole:
        return together(data), data.size
    ids = torch.cat(
        [ids for part, ids in data.splits.items() if part != "train"] or [torch.arange(1)]
    )
    runs = data.images.runs(ids, together(data), WHOLE)
    return max(
        ((len(some), size) for some, size in runs), key=lambda one: one[0] * math.prod(one[1])
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one pass over a part of the data found."""

    statistics: Statistics
    """The task's count; `statistics.scores()` is the result."""
    losses: Tensor
    """Loss of each sample, float32, in the order of the ids."""


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own training flag back afterwards."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, flag in flags:
            part.training = flag


@torch.no_grad()
def evaluate(
    predictor: Predictor,
    task: Task,
    data: Dataset,
    ids: Tensor,
    *,
    device: torch.device,
    batch: int | None = None,
    between: Callable[[], None] | None = None,
    each: Callable[[Batch, Tensor], None] | None = None,
) -> Evaluation:
    """Answer for the samples `ids`, each once, in fp32, and count.

    Args:
        predictor: pixels → answers; comes back with its training flags as they were.
        task: says what an answer is worth.
        data: where the pictures are.
        ids: sample ids, int64.
        device: where the predictor is.
        batch: samples at once, at most. None: `together`.
        between: called after each batch; may raise to leave.
        each: handed every batch with the outputs for it, not decoded: `kept.Kept` keeps them.
    """
    statistics = task.statistics()
    losses: list[Tensor] = []
    with evaluating(predictor):
        most = together(data) if batch is None else batch
        for one in eval_batches(data, ids, batch=most, device=device):
            outputs = predictor.outputs(one.images)
            loss = task.loss(outputs, one)
            statistics.update(predictor.decode(outputs), loss, one)
            losses.append(loss[one.valid])
            if each:
                each(one, outputs)
            if between:
                between()
    joined = torch.cat(losses).float().cpu() if losses else torch.empty(0)
    return Evaluation(statistics=statistics, losses=joined)


def look_seconds(
    predictor: Predictor, task: Task, data: Dataset, ids: Tensor, *, device: torch.device
) -> float:
    """Seconds that a look at one sample takes. The first looks also set up memory and kernels, so
    the shortest of a few counts.

    Args:
        predictor: as for `evaluate`.
        task: as for `evaluate`.
        data: where the pictures are.
        ids: some sample ids, of which one batch is looked at; at least one.
        device: where the predictor is.
    """
    few, times = ids[: together(data)], []
    for _ in range(PRACTICE):
        began = time.monotonic()
        evaluate(predictor, task, data, few, device=device)
        times.append(time.monotonic() - began)
    return min(times) / len(few)
