"""Gather what the report of a run shows: its worst mistakes and what the network saw.

Floor 5, room verbs; imports report and everything below.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from neocog import report, tasks
from neocog.analysis.trace import TraceError
from neocog.data import augment
from neocog.data.faces import faces
from neocog.planning.make import describe, remarked
from neocog.verbs import masks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from neocog.data.dataset import Dataset
    from neocog.engine.evaluate import Evaluation
    from neocog.engine.job import Job
    from neocog.planning import Network
    from neocog.records import Scores
    from neocog.run import Run

__all__ = ["write"]

SHOWN = 24
"""Mistakes in the report."""


def write(
    run: Run,
    job: Job,
    found: Mapping[str, tuple[Scores, Evaluation]],
    plan: Mapping[str, Any] | None = None,
    began: Sequence[str] = (),
) -> Path:
    """Write `report.html` of a run.

    Args:
        run: the run, with its bundle saved.
        job: what was trained on what.
        found: scores and losses by part.
        plan: what it was said to take, and what it took.
        began: sentences on what its network began with.
    """
    data = job.data
    manifest = dataclasses.asdict(run.manifest)
    bundle = run.bundle
    manifest["model"] = {
        "name": bundle.model.name,
        "args": dict(bundle.model.args),
        "parameters": sum(p.numel() for p in job.network.parameters()),
    }
    manifest["task"] = {"name": bundle.task.name, "args": dict(bundle.task.args)}
    part = next((name for name in ("test", "val") if name in found), None)
    shown = _SHOWN.get(bundle.task.name, _usual)(run, data, part, found[part][1]) if part else {}
    return report.write(
        run.path / "report.html",
        manifest=manifest,
        events=run.events,
        scores={name: scores for name, (scores, _) in found.items()},
        sheet=augment.contact_sheet(data, job.augment, draw=masks.drawing(len(data.classes))),
        faults=data.faults,
        counts=data.counts["all"],
        notes=augment.explain(
            job.recipe.augment,
            channels=data.channels,
            size=data.size,
            classes=data.classes,
            kind=data.kind,
            uniform=data.images.uniform,
        ),
        network=_network(job, bundle.model.name),
        plan=plan,
        began=began,
        **shown,
    )


def _network(job: Job, name: str) -> Network | None:
    """What was trained, layer by layer; None where it cannot be told without running it."""
    try:
        found = describe(job.network, (job.input.channels, *job.input.size), name)
    except TraceError:
        return None
    return remarked(found, None)


def _usual(run: Run, data: Dataset, part: str, result: Evaluation) -> dict[str, Any]:
    """What a report shows of a task that has one answer a sample: its worst mistakes."""
    return {"mistakes": _mistakes(run, data, part, result)}


def _numbers(run: Run, data: Dataset, part: str, result: Evaluation) -> dict[str, Any]:
    """What a report shows of regression: also truths beside answers."""
    return _usual(run, data, part, result) | {"answers": result.statistics.pairs()}  # type: ignore[attr-defined]


_SHOWN = {"regress": _numbers, "segment": masks.shown}
"""Task → what of its answers `report.write` is handed; others have the usual."""


def _mistakes(run: Run, data: Dataset, part: str, result: Evaluation) -> list[report.Mistake]:
    """The samples with the largest loss that were answered wrongly, worst first."""
    task = tasks.build(run.bundle.task)
    # Far more than are shown: a large loss with a right answer is no mistake.
    worst = data.splits[part][result.losses.argsort(descending=True, stable=True)[: 8 * SHOWN]]
    images, targets = data.images.gather(worst, data.size), data.targets[worst]
    with torch.no_grad():
        decoded = run.predictor()(images)
    shown = faces(images.numpy()) if images.dim() != 4 else list(images.permute(0, 2, 3, 1).numpy())
    found = []
    for row, (answer, truth) in enumerate(
        zip(task.answer(decoded), task.truth(targets), strict=True)
    ):
        if answer["label"] == truth:
            continue
        found.append(
            report.Mistake(
                picture=shown[row],
                name=data.names[int(worst[row])],
                truth=truth,
                answer=answer["label"],
                confidence=answer["probability"],
                probability=float(decoded[row, targets[row]])
                if task.spec.name == "classify"
                else None,
            )
        )
    return found[:SHOWN]
