"""Score a trained network as it was saved, and make its confidence honest. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog import tasks
from neocog.engine.evaluate import Evaluation
from neocog.engine.kept import Kept
from neocog.verbs.calibrate import calibrated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.engine.job import Job
    from neocog.metrics.temperature import Temperature
    from neocog.records import Scores, TaskSpec
    from neocog.run import Run

__all__ = ["Scored", "scored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a finished network comes to."""

    parts: Mapping[str, tuple[Scores, Evaluation]]
    """`val` and `test`, as far as they exist."""
    kept: Mapping[str, Kept]
    """What it gave for each sample of a part; empty for parts that would take too much memory."""
    temperature: Temperature | None
    """What its outputs are divided by; None where nothing was fitted."""


def scored(run: Run, job: Job) -> tuple[Run, Scored]:
    """Scores of the held-back parts, each looked at once.

    The temperature is fitted to the validation part and written into the bundle; the scores are
    those of the bundle with it, as `neocog eval` finds them again.

    Args:
        run: with its bundle saved.
        job: what was trained on what.

    Returns:
        The run, opened again where its bundle has changed, and what was found.

    Raises:
        RunError: the bundle cannot be written.
    """
    found: dict[str, tuple[Scores, Evaluation]] = {}
    kept: dict[str, Kept] = {}
    fitted: Temperature | None = None
    for part in ("val", "test"):
        if part not in job.data.splits:
            continue
        each = None if job.data.whole else Kept()
        found[part] = run.score(job.data, part, job.device, each)
        if each is None or not each.complete:
            continue
        kept[part] = each
        if part == "val" and job.recipe.engine.temperature == "fit":
            bundle, fitted = calibrated(run.bundle, each)
            if bundle.task != run.bundle.task:
                bundle.describe(run.path / "bundle")
                run = run.again()
                found[part] = _counted(bundle.task, each, *found[part])
    return run, Scored(parts=found, kept=kept, temperature=fitted)


def _counted(
    spec: TaskSpec, kept: Kept, scores: Scores, result: Evaluation
) -> tuple[Scores, Evaluation]:
    """The same outputs, counted for a task with another temperature."""
    statistics = kept.count(tasks.build(spec))
    again = dataclasses.replace(statistics.scores(), data=scores.data)
    return again, Evaluation(statistics=statistics, losses=result.losses)
