"""Which sections a finished run deserves, and what they say. Floor 4; imports html, plots, metrics.

The page says one number first, with its interval and what it was measured on, then why one may
trust it or not. A section without content is left out; where something that a reader would look
for is missing, the page says so and why. Every number shown is one that was handed in, or a plain
sum of such numbers.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from neocog import html
from neocog.report import answers as told
from neocog.report import classes, embedded, head, history, insides, masks, origins
from neocog.report import properties as looks
from neocog.report.nouns import Finished, Mistake, Segmented

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neocog.explain.look.sheets import Tiles
    from neocog.metrics.properties import Property
    from neocog.planning.nouns import Network
    from neocog.records import DataCount, Event, Fault, Scores
    from neocog.report.embedded import Points

__all__ = ["Finished", "Mistake", "Segmented", "build", "write"]


def write(
    path: Path,
    *,
    manifest: Mapping[str, Any],
    events: Sequence[Event],
    scores: Mapping[str, Scores],
    mistakes: Sequence[Mistake] = (),
    sheet: NDArray[np.uint8] | None,
    faults: Sequence[Fault],
    counts: DataCount,
    notes: Sequence[str],
    answers: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    network: Network | None = None,
    plan: Mapping[str, Any] | None = None,
    began: Sequence[str] = (),
    segmented: Sequence[Segmented] = (),
    properties: Sequence[Property] = (),
    temperature: Mapping[str, Any] | None = None,
    points: Points | None = None,
    kernels: tuple[Tiles, str] | None = None,
    clicked: tuple[str, html.Tracer] | None = None,
) -> Path:
    """Write the report of a run as one file.

    Args:
        path: the file.
        manifest: the run's manifest as a dict, with `model` (name, args, parameters) and `task`.
        events: the run's events, oldest first.
        scores: `val` and `test`, as far as there are such parts.
        mistakes: worst first.
        sheet: originals in the first row, then what the network saw in the first epochs.
        faults: what is wrong with the data.
        counts: found, used and skipped over all parts.
        notes: what is done to a training picture, in words.
        answers: regression: truths and answers of the part with the headline, by column.
        network: what was trained, layer by layer; None where it could not be traced.
        plan: what training was said to take, and what it took, as `evaluation.json` has it.
        began: sentences on what the network began with, where its weights came from elsewhere.
        segmented: pictures whose every pixel was answered; those with the lowest Jaccard are shown.
        properties: accuracy by what pictures look like.
        temperature: what outputs are divided by, as `evaluation.json` has it.
        points: pictures as points, by what the network makes of them last.
        kernels: those of the first layer, and its name.
        clicked: a picture's name, and its activations to click through.

    Raises:
        RunError: the file cannot be written.
    """
    # A resumed run tells its last epochs again: the later telling counts.
    epochs = {e.values["epoch"]: e.values for e in events if e.kind == "epoch"}
    run = Finished(
        manifest=manifest,
        epochs=[epochs[number] for number in sorted(epochs)],
        events=events,
        scores=scores,
        mistakes=mistakes,
        sheet=sheet,
        faults=faults,
        counts=counts,
        notes=notes,
        answers=answers or {},
        network=network,
        plan=plan,
        began=began,
        segmented=segmented,
        properties=properties,
        temperature=temperature,
        points=points,
        kernels=kernels,
        clicked=clicked,
    )
    return html.write(build(run), path)


_SECTIONS = (
    told.scores,
    history.learning,
    classes.classes,
    classes.confusion,
    told.numbers,
    told.confidence,
    looks.section,
    told.worst,
    masks.worst,
    embedded.points,
    insides.network,
    embedded.kernels,
    embedded.clicked,
    origins.began,
    origins.seen,
    origins.data,
    origins.again,
)
"""In the order of the page; each gives None where it has nothing to say."""


def build(run: Finished) -> html.Page:
    """The page about a run."""
    source = PurePath(str(run.data.get("source", "data"))).name or "data"
    version = str((run.manifest.get("versions") or {}).get("neocog", ""))
    maker = f"neocog {version}".strip()
    return html.Page(
        kind="training report",
        title=f"{'A network in a line' if run.line else run.model} on {source}",
        subtitle=head.subtitle(run),
        headline=head.headline(run),
        facts=head.facts(run),
        notes=head.warnings(run),
        sections=tuple(section for make in _SECTIONS if (section := make(run)) is not None),
        footer=f"Made by {maker}. This file needs nothing else and opens offline.",
    )
