"""The mistakes that a report shows. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neocog import plots, report, tasks
from neocog.data.faces import faces
from neocog.report.answers import OF_EACH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from neocog.data.dataset import Dataset
    from neocog.engine.kept import Kept
    from neocog.layers import Predictor
    from neocog.records import Scores
    from neocog.run import Run

__all__ = ["worst"]

SHOWN = 24
"""Mistakes in the report."""
PAIRS = 20
"""Commonest confusions of which the report has pictures; as many again are the commonest of a
class."""
LOOKED = 512
"""Samples that are looked through to find such pictures."""
_TOGETHER = 96
"""Samples that are looked at at once; answered once more only where no answers were kept, because
from many views that takes seconds."""


def worst(
    run: Run, data: Dataset, part: str, scores: Scores, losses: Tensor, kept: Kept | None
) -> list[report.Mistake]:
    """The samples with the largest loss that were answered wrongly, worst first; then some of each
    of the commonest confusions that are not among them.

    Args:
        run: with its bundle.
        data: with that part.
        part: that was scored.
        scores: of that part.
        losses: of its samples, in order.
        kept: what the network gave for them, in order; None: it is asked again.
    """
    scored = _Part(run, data, data.splits[part], None if kept is None else kept.outputs)
    order = losses.argsort(descending=True, stable=True)
    # Far more than are shown: a large loss with a right answer is no mistake.
    wrong = scored.wrong(order[: 8 * SHOWN])
    top = wrong[:SHOWN]
    missing = _missing(scores, top)
    if not missing:
        return top
    spare = _taken(missing, wrong[SHOWN:])
    # What is still missing has a smaller loss: look at a few more of each class that it is of.
    later = order[8 * SHOWN :]
    truths, names = data.targets[scored.ids[later]], [row.name for row in scores.classes]
    each = max(OF_EACH, LOOKED // max(1, len(missing)))
    rows = [
        (truths == names.index(truth)).nonzero()[:, 0][:each]
        for truth in dict.fromkeys(truth for truth, _ in missing)
    ]
    if rows:
        more = later[torch.cat(rows).sort().values[:LOOKED]]
        spare += _taken(missing, scored.wrong(more))
    return [*top, *(dataclasses.replace(one, sample=True) for one in spare)]


def _missing(scores: Scores, top: Sequence[report.Mistake]) -> Counter[tuple[str, str]]:
    """Truth and answer of the commonest confusions → how many pictures are wanted beside `top`."""
    names = [row.name for row in scores.classes]
    if not names or len(names) != len(scores.confusion):
        return Counter()
    pairs = plots.confused_pairs(scores.confusion)
    # Beside the commonest of all, the commonest of each class, which its row leads to.
    first = {true: (true, answer, count) for true, answer, count in reversed(pairs)}
    kept = dict.fromkeys([*pairs[:PAIRS], *list(first.values())[::-1]])
    shown = Counter((one.truth, one.answer) for one in top)
    wanted: Counter[tuple[str, str]] = Counter()
    for true, answer, count in list(kept)[: 2 * PAIRS]:
        pair = names[true], names[answer]
        wanted[pair] = min(count, OF_EACH) - shown[pair]
    return +wanted


def _taken(
    missing: Counter[tuple[str, str]], found: Sequence[report.Mistake]
) -> list[report.Mistake]:
    """Those that are wanted, which are then no longer."""
    taken = []
    for one in found:
        if missing[one.truth, one.answer] > 0:
            missing[one.truth, one.answer] -= 1
            taken.append(one)
    missing += Counter()  # what is 0 is no longer named
    return taken


@dataclass(frozen=True)
class _Part:
    """A part that was scored."""

    run: Run
    data: Dataset
    ids: Tensor
    """N."""
    outputs: Tensor | None
    """N×K, not decoded."""

    @functools.cached_property
    def predictor(self) -> Predictor:
        """For a part of which no outputs were kept."""
        return self.run.predictor()

    def wrong(self, rows: Tensor) -> list[report.Mistake]:
        """Those of these samples of the part that are answered wrongly, in their order."""
        data, outputs = self.data, self.outputs
        task = tasks.build(self.run.bundle.task)
        found = []
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            ids = self.ids[some]
            images, targets = data.images.gather(ids, data.size), data.targets[ids]
            with torch.no_grad():
                decoded = self.predictor(images) if outputs is None else task.decode(outputs[some])
            answers = task.answer(decoded)
            wrong = [
                at for at, truth in enumerate(task.truth(targets)) if answers[at]["label"] != truth
            ]
            seen = (
                faces(images.numpy()) if images.dim() != 4 else images.permute(0, 2, 3, 1).numpy()
            )
            for at in wrong:
                found.append(
                    report.Mistake(
                        picture=seen[at].copy(),  # not the whole batch
                        name=data.names[int(ids[at])],
                        truth=task.truth(targets[at : at + 1])[0],
                        answer=answers[at]["label"],
                        confidence=answers[at]["probability"],
                        probability=float(decoded[at, targets[at]])
                        if task.spec.name == "classify"
                        else None,
                    )
                )
        return found
