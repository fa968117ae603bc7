"""Two runs, or two recipes over seeds, side by side on the same samples. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog import machine, tasks
from neocog.analysis.trace import TraceError
from neocog.data.faces import faces
from neocog.errors import DataError, RunError
from neocog.geometry import noun
from neocog.html import words
from neocog.measures import called, is_share
from neocog.metrics import paired as pairs
from neocog.metrics import wilson
from neocog.planning.make import describe
from neocog.records import scores_to_dict
from neocog.report import compared, comparison
from neocog.report.kinds import kind_of
from neocog.run import Run
from neocog.settings import to_dict
from neocog.verbs.result import Result
from neocog.verbs.sides import flat, grouped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.records import Batch, Interval, Scores
    from neocog.report.comparison import Clash, Compared, Gap, Side
    from neocog.verbs.console import Console

__all__ = ["compare"]

SHOWN = 24
"""Pictures on which only one is right, of each kind."""
RIGHT = ("classify", "multilabel")
"""Tasks whose answers are right or wrong."""


class _Answers:
    """What a run answers for each sample: label, probability and truth; `each` of an evaluation."""

    def __init__(self, task: tasks.AnyTask) -> None:
        self.task = task
        self.labels: list[str] = []
        self.sure: list[float] = []
        self.truth: list[str] = []

    def __call__(self, batch: Batch, outputs: torch.Tensor) -> None:
        """Keep the words of one batch; the outputs go."""
        found = self.task.answer(self.task.decode(outputs[batch.valid]).cpu())
        self.labels += [one["label"] for one in found]
        self.sure += [one["probability"] for one in found]
        self.truth += self.task.truth(batch.targets[batch.valid].cpu())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """One run and what it answers on the part."""

    run: Run
    data: Dataset
    part: str
    ids: torch.Tensor
    scores: Scores
    losses: NDArray[np.float64]
    labels: Sequence[str]
    sure: Sequence[float]
    truth: Sequence[str]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which answers are the truth, N."""
        return np.array([a == b for a, b in zip(self.labels, self.truth, strict=True)], np.bool_)


def compare(
    paths: Sequence[Path],
    source: str = "",
    *,
    device: str = "auto",
    model: str = "",
    out: Path | None = None,
    console: Console,
) -> Result:
    """Which of two runs is better, whether that is more than chance, and where they differ.

    More than two runs are taken for two recipes: runs whose settings differ in the seed alone stand
    on one side, the first of them on side A.

    Args:
        paths: run folders, two at least.
        source: other data that all are scored on. Empty: their own test part, else validation.
        device: where to compute.
        model: names the factory of a network from outside the catalogue.
        out: where to write the page; None: no page.
        console: told how far it is.

    Raises:
        ConfigError: fewer than two runs, or more than two recipes.
        RunError: a run is not finished, its data has changed, or the runs do different tasks.
        DataError: they do not have the same classes, or were not tested on the same samples.
    """
    runs = [_opened(path, model) for path in paths]
    sides = grouped(runs)
    _refuse_strangers(runs)
    where = machine.device_named(device)
    sets = [run.foreign(source, console.progress) if source else run.data() for run in runs]
    part = _part(sets, foreign=bool(source))
    answered: dict[int, _Answered] = {}
    for number, (run, data) in enumerate(zip(runs, sets, strict=True)):
        console.progress("answering", number, len(runs))
        answered[id(run)] = _answer(run, data, part, where)
    console.done()
    first, *others = answered.values()
    for other in others:
        _refuse_others(first, other)
    found = _compared(*([answered[id(run)] for run in side] for side in sides), part=part)
    page = str(compared.write(found, out)) if out else None
    return Result(json=_json(found, page), lines=_lines(found, page))


def _opened(path: Path, model: str) -> Run:
    """A finished run; `model` goes to the runs that it names."""
    run = Run(path)
    if model and run.bundle.model.name == model:
        run = Run(path, model=model)
    _ = run.summary  # raises where it is not finished
    return run


def _refuse_strangers(runs: Sequence[Run]) -> None:
    """Runs that have no answers in common are not compared."""
    first, *others = (run.bundle for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        if other.task.name != first.task.name:
            raise RunError(
                f"expected runs of one task, found {first.task.name} in {runs[0].path} and "
                f"{other.task.name} in {run.path}"
            )
        sides = ((first, runs[0], other), (other, run, first))
        alone = [
            f"{where.path} alone knows {', '.join(more[:5])}{', …' if len(more) > 5 else ''}"
            for one, where, rival in sides
            if (more := sorted(set(one.classes) - set(rival.classes)))
        ]
        if alone:
            raise DataError(
                f"expected runs with the same classes, but {'; '.join(alone)}",
                "train both on the same classes",
            )


def _part(sets: Sequence[Dataset], *, foreign: bool) -> str:
    """The part that all are scored on."""
    parts = [name for name in ("test", "val") if all(name in data.splits for data in sets)]
    if foreign:
        return parts[0] if parts else "all"
    if not parts:
        raise RunError(
            "the runs held no part of their data back that all of them have",
            "give data to compare them on: --on SOURCE",
        )
    return parts[0]


def _answer(run: Run, data: Dataset, part: str, device: torch.device) -> _Answered:
    """Score a run and keep its answers."""
    keeps = _Answers(tasks.build(run.bundle.task)) if run.bundle.task.name in RIGHT else None
    scores, result = run.score(data, part, device, keeps)
    return _Answered(
        run=run,
        data=data,
        part=part,
        ids=torch.arange(len(data)) if part == "all" else data.splits[part],
        scores=scores,
        losses=result.losses.double().numpy(),
        labels=keeps.labels if keeps else (),
        sure=keeps.sure if keeps else (),
        truth=keeps.truth if keeps else (),
    )


def _refuse_others(a: _Answered, b: _Answered) -> None:
    """The same samples with the same truths, in the same order, or nothing.

    Raises:
        DataError: they are not.
    """
    names = [[one.data.names[i] for i in one.ids.tolist()] for one in (a, b)]
    same = names[0] == names[1] and list(a.truth) == list(b.truth)
    if same and a.data.fingerprint != b.data.fingerprint:
        same = _pixels(a) == _pixels(b) if a.data.size == b.data.size else True
    if not same:
        common = len(set(names[0]) & set(names[1]))
        raise DataError(
            f"expected the same samples in the {a.part} part of both, but {a.run.path} has "
            f"{len(names[0]):,} and {b.run.path} {len(names[1]):,}, of which {common:,} have the "
            "same name; the rest, or what they show, differs",
            "compare them on data that none was trained on: --on SOURCE; or hold back the same "
            "samples whatever the seed: train with --set data.seed=0",
        )


def _pixels(one: _Answered) -> bytes:
    """A hash over the pictures of the part."""
    digest = hashlib.sha256()
    for i in one.ids.tolist():
        picture = one.data.images.picture(i)
        digest.update(repr(picture.shape).encode() + picture.tobytes())
    return digest.digest()


def _compared(a: Sequence[_Answered], b: Sequence[_Answered], *, part: str) -> Compared:
    """Everything that is told, as plain numbers."""
    first, second = a[0], b[0]
    task = first.run.bundle.task.name
    one = pairs.paired(first.right, second.right) if task in RIGHT else None
    loss = None
    if _losses_compare(first.run, second.run):
        loss = pairs.mean_difference(first.losses, second.losses)
    found = comparison.Compared(
        a=_side("A", a),
        b=_side("B", b),
        task=task,
        source=_source(first.data),
        part=part,
        n=len(first.ids),
        noun=noun(first.data.size),
        paired=one,
        loss=loss,
        seeds=None,
        gaps=_gaps(first, second) if task == "classify" else (),
        settings=_settings(first.run, second.run, seeds=len(a) + len(b) > 2),
        better_a=_clashes(first, second, a_right=True) if one else (),
        better_b=_clashes(first, second, a_right=False) if one else (),
        notes=_notes(a, b, part),
    )
    name = found.leading
    values = ([each.scores.metrics[name].value for each in side] for side in (a, b))
    return dataclasses.replace(found, seeds=pairs.over_seeds(*values))


def _source(data: Dataset) -> str:
    return data.source.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or data.source


def _losses_compare(a: Run, b: Run) -> bool:
    """Whether a loss of one means the same as a loss of the other."""
    if a.bundle.task.name != "regress":
        return True
    units = ("kind", "delta", "mean", "std")
    return all(a.bundle.task.args.get(one) == b.bundle.task.args.get(one) for one in units)


def _side(letter: str, answered: Sequence[_Answered]) -> Side:
    first = answered[0].run
    summary = first.summary
    rows = []
    for one in answered:
        epochs = {e.values["epoch"]: e.values for e in one.run.events if e.kind == "epoch"}
        rows.append([epochs[number] for number in sorted(epochs)])
    named = first.bundle.model.name
    return comparison.Side(
        letter=letter,
        model=" ".join(named.split()) if len(named) <= 40 else "a network in a line",
        runs=tuple(str(one.run.path) for one in answered),
        scores=tuple(one.scores for one in answered),
        epochs=tuple(rows),
        costs={
            **_network_costs(first),
            "epochs": summary["epochs"],
            "seconds": summary["seconds"],
            "images_per_second": summary["images_per_second"],
        },
    )


def _network_costs(run: Run) -> dict[str, float | None]:
    """Parameters and multiply-accumulates; None where they cannot be told."""
    predictor = run.predictor()
    shape = (predictor.input.channels, *predictor.input.size)
    macs: float | None = None
    try:
        network = describe(predictor.network, shape)
        macs = None if network.unknown else sum(layer.macs for layer in network.layers)
    except TraceError:
        pass
    parameters = sum(one.numel() for one in predictor.network.parameters())
    return {"parameters": parameters, "macs": macs}


def _gaps(a: _Answered, b: _Answered) -> tuple[Gap, ...]:
    """Recall of each class that has samples, largest difference first."""
    truth, right = np.array(a.truth), (a.right, b.right)
    found = []
    for name in a.run.bundle.classes:
        own = truth == name
        n = int(own.sum())
        if n:
            found.append((name, n, [flags[own] for flags in right]))
    tests = [pairs.paired(*flags) for _, _, flags in found]
    raised = pairs.holm([test.p for test in tests])
    gaps = [
        comparison.Gap(
            name=name,
            a=wilson(int(flags[0].sum()), n),
            b=wilson(int(flags[1].sum()), n),
            difference=test.difference,
            p=p,
        )
        for (name, n, flags), test, p in zip(found, tests, raised, strict=True)
    ]
    return tuple(sorted(gaps, key=lambda gap: -abs(gap.difference.value)))


def _clashes(a: _Answered, b: _Answered, *, a_right: bool) -> tuple[Clash, ...]:
    """Samples on which only one is right; those first on which the other is surest."""
    right, wrong = (a, b) if a_right else (b, a)
    rows = np.flatnonzero(right.right & ~wrong.right).tolist()
    rows = sorted(rows, key=lambda row: -wrong.sure[row])[:SHOWN]
    if not rows:
        return ()
    ids = a.ids[rows]
    images = a.data.images.gather(ids, a.data.size)
    shown = faces(images.numpy()) if images.dim() != 4 else list(images.permute(0, 2, 3, 1).numpy())
    return tuple(
        comparison.Clash(
            picture=picture,
            name=a.data.names[int(i)],
            truth=a.truth[row],
            answers=(a.labels[row], b.labels[row]),
            sure=(a.sure[row], b.sure[row]),
        )
        for picture, i, row in zip(shown, ids, rows, strict=True)
    )


def _settings(a: Run, b: Run, *, seeds: bool) -> tuple[tuple[str, str, str], ...]:
    """Settings of the first runs that differ; over seeds, the seed is not one of them."""
    one, two = (flat(to_dict(run.recipe)) for run in (a, b))
    return tuple(
        (name, str(one.get(name, "–")), str(two.get(name, "–")))
        for name in dict.fromkeys([*one, *two])
        if one.get(name) != two.get(name) and not (seeds and name == "seed")
    )


def _notes(a: Sequence[_Answered], b: Sequence[_Answered], part: str) -> tuple[str, ...]:
    """What could lead a reader to a wrong conclusion."""
    notes = []
    configs = [one.run.recipe for one in (*a, *b)]
    if part == "val" and any(
        recipe.stop.patience is not None or recipe.plateau.patience is not None
        for recipe in configs
    ):
        notes.append(
            "The validation part, on which they are compared, also decided when to stop or which "
            "weights to keep: a run that chose more often looks better than it is."
        )
    if (len(a) == 1) != (len(b) == 1):
        notes.append(
            "One side has a single run: how much it owes to its seed is not known, so only single "
            "networks are compared."
        )
    elif len(a) == len(b) == 1:
        notes.append(
            "One run of each: the test is about these two trained networks. Another seed gives "
            "another network; which recipe is better takes several seeds of each to tell."
        )
    for letter, side in (("A", a), ("B", b)):
        found = sorted({str(one.run.recipe.engine.precision) for one in side})
        if len(found) > 1:
            notes.append(f"The runs of {letter} were trained in {words.listing(found)}.")
    if any(one.data.fingerprint != a[0].data.fingerprint for one in (*a, *b)):
        notes.append("The runs were trained on different data; the samples compared are the same.")
    return tuple(notes)


def _json(found: Compared, page: str | None) -> dict[str, Any]:
    """What `compare --json` prints."""
    return {
        "part": found.part,
        "n": found.n,
        **{
            side.letter.lower(): {
                "runs": list(side.runs),
                "model": side.model,
                "costs": dict(side.costs),
                "scores": [scores_to_dict(one) for one in side.scores],
            }
            for side in (found.a, found.b)
        },
        "paired": found.paired.to_dict() if found.paired else None,
        "loss": dataclasses.asdict(found.loss) if found.loss else None,
        "seeds": found.seeds.to_dict() if found.seeds else None,
        "classes": [dataclasses.asdict(gap) for gap in found.gaps],
        "settings": {name: {"a": one, "b": two} for name, one, two in found.settings},
        "disagreements": [
            {"name": one.name, "truth": one.truth, "a": one.answers[0], "b": one.answers[1]}
            for one in (*found.better_b, *found.better_a)
        ],
        "notes": list(found.notes),
        "page": page,
    }


def _lines(found: Compared, page: str | None) -> list[str]:
    """The same for people."""
    sides = (found.a, found.b)
    lines = [f"{side.letter}: {side.model}, {', '.join(side.runs)}" for side in sides]
    lines += [f"on the same {found.samples}", ""]
    rename = kind_of(found.task).called
    names = [name for name in found.a.scores[0].metrics if name in found.b.scores[0].metrics]
    titles = [rename.get(name) or called(name) for name in names]
    cells = [[_cell(name, side.scores[0].metrics[name]) for side in sides] for name in names]
    titles.append("parameters")
    cells.append([words.size(side.costs["parameters"] or 0) for side in sides])
    titles.append("training")
    cells.append([words.duration(side.costs["seconds"] or 0.0) for side in sides])
    width = max(map(len, titles))
    wide = max(len(row[0]) for row in cells)
    lines.append(f"{'':{width}}  {'A':{wide}}  B")
    lines += [
        f"{title:{width}}  {a:{wide}}  {b}" for title, (a, b) in zip(titles, cells, strict=True)
    ]
    lines += ["", *comparison.verdict(found)]
    sure = [gap for gap in found.gaps if gap.p < 0.05]
    lines += [f"{gap.name}: {comparison.difference(gap.difference)}" for gap in sure]
    if found.settings:
        lines += ["", "settings that differ:"]
        lines += [f"  {name}: {one} | {two}" for name, one, two in found.settings]
    lines += ["", *(f"note: {note}" for note in found.notes)]
    if page:
        lines.append(f"page: {page}")
    return [line.replace("\u00a0", " ") for line in lines]


def _cell(name: str, one: Interval) -> str:
    """A metric with its interval."""
    if is_share(name):
        value, low, high = words.percent_range(one)
    else:
        value, low, high = (words.number(number) for number in (one.value, one.low, one.high))
    return f"{value} ({low} to {high})"
