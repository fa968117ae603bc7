"""The page about two runs side by side. Floor 4; imports html, plots, metrics.

Which of the two is better, whether that is more than chance, where they differ, and what each of
them costs. Every number shown was handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog import html, plots
from neocog.html import words
from neocog.measures import called, is_share
from neocog.plots import trust
from neocog.records import Interval
from neocog.report.answers import SHOWN as FACES
from neocog.report.answers import metric_cell
from neocog.report.comparison import chance, decided, points, verdict
from neocog.report.kinds import kind_of
from neocog.report.nouns import finite

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.report.comparison import Clash, Compared, Side

__all__ = ["build", "write"]

MOST = 30
"""Classes that are drawn; with more, those that differ most."""


def write(found: Compared, path: Path) -> Path:
    """Write the page as one file.

    Raises:
        RunError: the file cannot be written.
    """
    return html.write(build(found), path)


def build(found: Compared) -> html.Page:
    """The page about two runs."""
    makers = (_test, _scores, _curves, _classes, _clashes, _settings)
    same = found.a.model == found.b.model
    title = f"{found.a.model}, twice," if same else f"{found.a.model} and {found.b.model}"
    return html.Page(
        kind="comparison",
        title=f"{title} on {found.source}",
        subtitle=f"Two networks, the same {found.samples}.",
        headline=_headline(found),
        facts=tuple((side.letter, _side_text(side)) for side in (found.a, found.b)),
        notes=tuple(html.Note(text=text, kind="warning") for text in found.notes),
        sections=tuple(section for make in makers if (section := make(found)) is not None),
        footer="Made by neocog. This file needs nothing else and opens offline.",
    )


def _headline(found: Compared) -> html.Headline | None:
    """How far the better one is ahead."""
    one = found.seeds.difference if found.seeds else None
    if one is None and found.paired is not None:
        one = found.paired.difference
    if one is None or not (found.paired or is_share(found.leading)):
        return None
    what = called(found.leading) if found.seeds else "accuracy"
    sides = (found.a, found.b) if one.value < 0 else (found.b, found.a)
    ends = sorted((one.low, one.high), key=abs) if one.low * one.high > 0 else (one.low, one.high)
    low, high = (points(end if one.low * one.high <= 0 else abs(end)) for end in ends)
    who = f"by which {sides[0].name}, is ahead of {sides[1].name}," if one.value else "between them"
    runs = f"over {one.n} runs " if found.seeds else ""
    interval = f"95\u00a0% interval {low.lstrip('+')} to {high.lstrip('+')}"
    return html.Headline(
        number=points(abs(one.value)).lstrip("+"),
        words=f"points of {what} {who} {runs}on the same {found.samples}; {interval}: "
        f"{decided(one)}",
    )


def _side_text(side: Side) -> str:
    """Network and runs."""
    first = side.runs[0]
    more = f" and {words.count(len(side.runs) - 1, 'run')} more" if len(side.runs) > 1 else ""
    return f"{side.model}: {first}{more}"


def _columns(found: Compared, first: str) -> tuple[str, ...]:
    return (first, found.a.name, found.b.name)


def _scores(found: Compared) -> html.Section:
    """Every metric and every cost, side by side."""
    sides = (found.a, found.b)
    names = list(dict.fromkeys(name for side in sides for name in side.scores[0].metrics))
    rename = kind_of(found.task).called
    rows: list[tuple[html.Cell | str, ...]] = [
        (
            rename.get(name) or called(name),
            *(metric_cell(name, side.scores[0].metrics.get(name)) for side in sides),
        )
        for name in names
    ]
    if all("ece" in side.scores[0].calibration for side in sides):
        errors = (Interval(**side.scores[0].calibration["ece"]) for side in sides)
        cells = (metric_cell("accuracy", one) for one in errors)
        rows.append(("expected calibration error", *cells))
    costs: tuple[tuple[html.Cell | str, ...], ...] = tuple(
        (title, *(_cost(side.costs.get(name), name) for side in sides))
        for name, title in _COSTS.items()
        if any(finite(side.costs.get(name)) is not None for side in sides)
    )
    first = " Scores are those of the first run of each." if found.many else ""
    return html.Section(
        title="Scores and costs",
        lead="Each score has its own 95\u00a0% interval. That two of them overlap does not mean "
        f"that the networks are equally good.{first}",
        blocks=(
            html.Table(
                caption=f"On {found.samples}",
                columns=_columns(found, "Score"),
                rows=tuple(rows),
                numeric=(1, 2),
            ),
            html.Table(
                caption="What they cost",
                columns=_columns(found, "Cost"),
                rows=costs,
                numeric=(1, 2),
            ),
        ),
    )


_COSTS = {
    "parameters": "parameters",
    "macs": "multiply-accumulates an answer",
    "epochs": "epochs",
    "seconds": "training time",
    "images_per_second": "samples a second in training",
}


def _cost(value: float | None, name: str) -> html.Cell:
    number = finite(value)
    if number is None:
        return html.Cell(text="–")
    shown = {"parameters": words.size, "macs": words.size, "seconds": words.duration}
    return html.Cell(text=shown.get(name, words.number)(number), order=number)


def _test(found: Compared) -> html.Section | None:
    """Whether the difference is more than chance."""
    sentences = verdict(found)
    if not sentences:
        return None
    lead, *rest = sentences
    if found.seeds is not None:
        score = words.percent if is_share(found.leading) else words.number
        rest += [
            f"{letter}, run by run: {', '.join(score(value) for value in values)}."
            for letter, values in (("A", found.seeds.a), ("B", found.seeds.b))
        ]
    blocks: list[html.Block] = [html.Lines(items=tuple(rest))] if rest else []
    if found.paired is not None:
        one = found.paired
        rows = (
            ("A right", f"{one.both:,}", f"{one.only_a:,}"),
            ("A wrong", f"{one.only_b:,}", f"{one.neither:,}"),
        )
        blocks.append(
            html.Table(
                caption="Who is right; the two numbers off the diagonal are what counts",
                columns=(f"{found.noun}s".capitalize(), "B right", "B wrong"),
                rows=rows,
                numeric=(1, 2),
            )
        )
    return html.Section(title="Is it more than chance", lead=lead, blocks=tuple(blocks))


def _curves(found: Compared) -> html.Section | None:
    """Learning curves of both in one figure."""
    leading = [f"val_{name}" for name in kind_of(found.task).leading]
    keys = ["val_loss", *leading[:1]]
    if not any(_line(found.a, key, 0) for key in keys):
        keys = ["loss"]
    figures = []
    for key in keys:
        lines = [
            line
            for side in (found.a, found.b)
            for number in range(len(side.epochs))
            if (line := _line(side, key, number)) is not None
        ]
        if len([line for line in lines if line.role != "faint"]) < 2:
            continue
        name = called(key.removeprefix("val_"))
        name = name[:1].upper() + name[1:]
        share = is_share(key.removeprefix("val_"))
        values = [value for line in lines for value in line.y]
        log = not share and min(values) > 0 and max(values) > 50 * min(values)
        held = "on held-out" if key.startswith("val_") else "on training"
        figures.append(
            html.Figure(
                svg=plots.svg(plots.curves(lines, title=name, percent=share, log=log)),
                alt=f"{name} {held} {found.noun}s over epochs, of A and of B.",
                caption=f"{name} {held} {found.noun}s"
                + ("; grey: runs with other seeds." if found.many else "."),
            )
        )
    if not figures:
        return None
    return html.Section(title="How they learned", blocks=tuple(figures))


def _line(side: Side, key: str, number: int) -> plots.Line | None:
    """One value of one run over epochs, as far as it is a number."""
    rows = [
        (float(row["epoch"]), value)
        for row in side.epochs[number]
        if (value := finite(row.get(key))) is not None
    ]
    if not rows:
        return None
    role: Any = "faint" if number else {"A": "main", "B": "second"}[side.letter]
    return plots.Line(
        name=side.name[:24], x=[x for x, _ in rows], y=[y for _, y in rows], role=role
    )


def _classes(found: Compared) -> html.Section | None:
    """How each class fares with both."""
    if not found.gaps:
        return None
    drawn = sorted(found.gaps[:MOST], key=lambda gap: gap.difference.value)
    some = "" if len(drawn) == len(found.gaps) else f", the {MOST} that differ most"
    figure = html.Figure(
        svg=plots.svg(
            trust.versus(
                [trust.Versus(name=gap.name, a=gap.a.value, b=gap.b.value) for gap in drawn],
                names=(found.a.name, found.b.name),
                title=f"Recall of each class{some}",
            )
        ),
        alt="Recall of each class with A and with B; the table has the numbers.",
        caption="The share of each class that was found: blue disc A, orange ring B.",
    )
    rows = tuple(
        (
            gap.name,
            metric_cell("recall", gap.a),
            metric_cell("recall", gap.b),
            html.Cell(
                text=points(gap.difference.value),
                detail=f"{points(gap.difference.low)} to {points(gap.difference.high)}",
                order=gap.difference.value,
            ),
            html.Cell(text=chance(gap.p).removeprefix("p = ").removeprefix("p "), order=gap.p),
            html.Cell(text=f"{gap.a.n:,}", order=gap.a.n),
        )
        for gap in found.gaps
    )
    table = html.Table(
        caption="Recall in each class; B − A in points, with 95\u00a0% intervals",
        columns=("Class", "A", "B", "B − A", "p", f"{found.noun}s".capitalize()),
        rows=rows,
        numeric=(1, 2, 3, 4, 5),
        folded=len(rows) > MOST,
    )
    sure = [gap.name for gap in found.gaps if gap.p < 0.05]
    count = words.count(len(found.gaps), "class", "classes")
    lead = f"p is McNemar's, raised for having looked at {count} (Holm). "
    lead += (
        f"More than chance: {words.listing(sure[:8])}."
        if sure
        else "In no class alone is the difference more than chance."
    )
    return html.Section(title="Class by class", lead=lead, blocks=(figure, table))


def _clashes(found: Compared) -> html.Section | None:
    """Pictures on which only one is right."""
    if found.paired is None:
        return None
    blocks: list[html.Block] = []
    for letter, other, place, clashes, total in (
        ("B", "A", 0, found.better_b, found.paired.only_b),
        ("A", "B", 1, found.better_a, found.paired.only_a),
    ):
        if not clashes:
            continue
        some = "" if len(clashes) == total else f" Shown are {len(clashes)}."
        blocks.append(
            html.Lines(
                items=(
                    f"{letter} is right, {other} is wrong: {words.count(total, found.noun)}."
                    f" Truth → the answer of {other}.{some}",
                )
            )
        )
        blocks.append(html.Pictures(items=tuple(_picture(clash, place) for clash in clashes)))
    if not blocks:
        return None
    return html.Section(
        title="Where they disagree",
        lead=f"Those first on which the mistaken one is surest.{FACES.get(found.noun, '')}",
        blocks=tuple(blocks),
    )


def _picture(clash: Clash, wrong: int) -> html.Picture:
    """A sample, and how sure both are; `wrong` is the place of the one that is mistaken."""
    letters = "AB"
    right = 1 - wrong
    return html.Picture(
        image=html.data_uri(clash.picture, longest=224),
        alt=f"{clash.name}: {clash.truth}, taken for {clash.answers[wrong]} by {letters[wrong]}",
        title=clash.truth,
        contrast=clash.answers[wrong] or "nothing",
        detail=f"{letters[wrong]}\u00a0{words.percent(clash.sure[wrong])}\u00a0sure, "
        f"{letters[right]}\u00a0{words.percent(clash.sure[right])}",
        source=clash.name,
        crisp=max(clash.picture.shape[:2]) <= 64,
    )


def _settings(found: Compared) -> html.Section:
    """What was set differently."""
    runs = tuple(
        (f"{side.letter}, run {number}" if len(side.runs) > 1 else side.letter, run)
        for side in (found.a, found.b)
        for number, run in enumerate(side.runs, start=1)
    )
    blocks: list[html.Block] = []
    if found.settings:
        blocks.append(
            html.Table(
                caption="Settings that differ", columns=("Setting", "A", "B"), rows=found.settings
            )
        )
    blocks.append(html.Facts(items=runs))
    lead = (
        f"{words.count(len(found.settings), 'setting')} "
        f"{'differs' if len(found.settings) == 1 else 'differ'}."
        if found.settings
        else "No setting differs."
    )
    return html.Section(title="What was set differently", lead=lead, blocks=tuple(blocks))
