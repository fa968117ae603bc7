"""Gather what the report of a run shows: its worst mistakes and what the network saw.

Floor 5, room verbs; imports report and everything below.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from typing import TYPE_CHECKING, Any

from neocog import report
from neocog.analysis.trace import TraceError
from neocog.data import augment
from neocog.errors import NeocogError
from neocog.planning.make import describe, remarked
from neocog.verbs import masks, mistakes
from neocog.verbs.look import Look
from neocog.verbs.properties import by_looks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from neocog.data.dataset import Dataset
    from neocog.engine.evaluate import Evaluation
    from neocog.engine.job import Job
    from neocog.engine.kept import Kept
    from neocog.planning import Network
    from neocog.records import Scores
    from neocog.run import Run
    from neocog.verbs.scoring import Scored

__all__ = ["write"]

FEWEST, POINTS = 30, 400
"""Pictures of the embedding: fewer say nothing, more make the report late."""
NUMBERS = 600_000
"""Bytes of activations and weights to click through."""
SECONDS = 3.0
"""What they may take, about; as long again goes to laying them out, and to all else."""


def write(
    run: Run,
    job: Job,
    found: Scored,
    plan: Mapping[str, Any] | None = None,
    began: Sequence[str] = (),
) -> Path:
    """Write `report.html` of a run.

    Args:
        run: the run, with its bundle saved.
        job: what was trained on what.
        found: scores, losses and outputs by part.
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
    part = next((name for name in ("test", "val") if name in found.parts), None)
    shown = {}
    if part:
        make = _SHOWN.get(bundle.task.name, _usual)
        shown = make(run, data, part, *found.parts[part], found.kept.get(part))
        shown |= _looked(run, job, part, found)
    return report.write(
        run.path / "report.html",
        manifest=manifest,
        events=run.events,
        scores={name: scores for name, (scores, _) in found.parts.items()},
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
        temperature=found.temperature.to_dict() if found.temperature else None,
        **shown,
    )


def _looked(run: Run, job: Job, part: str, found: Scored) -> dict[str, Any]:
    """Where pictures lie, what the first layer looks for, and which pictures are got wrong."""
    shown: dict[str, Any] = {}
    kept = found.kept.get(part)
    if run.bundle.task.name == "classify" and kept is not None:
        right = (kept.outputs.max(dim=1).indices == kept.targets).numpy()
        shown["properties"] = by_looks(job.data, job.data.splits[part], right)
    # A run that has a time to keep gets no more than it has left.
    spare = job.ends is None or time.monotonic() + 3 * SECONDS < job.ends
    if len(run.bundle.input.size) == 2 and spare:
        look = Look(run, job.data, job.device)
        most = int(min(POINTS, SECONDS / look.pace))
        parts: dict[str, Callable[[], Any]] = {
            "kernels": look.kernels,
            "clicked": functools.partial(look.clicked, NUMBERS),
            "points": functools.partial(look.points, most),
        }
        if most < FEWEST:
            del parts["points"]
        for name, make in parts.items():
            # What another task, or a network of another kind, has not is left out.
            with contextlib.suppress(NeocogError):
                shown[name] = make()
    return shown


def _network(job: Job, name: str) -> Network | None:
    """What was trained, layer by layer; None where it cannot be told without running it."""
    try:
        found = describe(job.network, (job.input.channels, *job.input.size), name)
    except TraceError:
        return None
    return remarked(found, None)


def _usual(
    run: Run, data: Dataset, part: str, scores: Scores, result: Evaluation, kept: Kept | None
) -> dict[str, Any]:
    """What a report shows of a task that has one answer a sample: its mistakes."""
    return {"mistakes": mistakes.worst(run, data, part, scores, result.losses, kept)}


def _numbers(
    run: Run, data: Dataset, part: str, scores: Scores, result: Evaluation, kept: Kept | None
) -> dict[str, Any]:
    """What a report shows of regression: also truths beside answers."""
    pairs = result.statistics.pairs()  # type: ignore[attr-defined]
    return _usual(run, data, part, scores, result, kept) | {"answers": pairs}


def _masks(
    run: Run, data: Dataset, part: str, scores: Scores, result: Evaluation, kept: Kept | None
) -> dict[str, Any]:
    """What a report shows where each pixel is answered."""
    return masks.shown(run, data, part, result)


_SHOWN = {"regress": _numbers, "segment": _masks}
"""Task → what of its answers `report.write` is handed; others have the usual."""
