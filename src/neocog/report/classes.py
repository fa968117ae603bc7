"""Sections about classes: how each fares, and which is taken for which. Room report; floor 4."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neocog import html, plots
from neocog.html import words
from neocog.plots.classes import MANY
from neocog.report.answers import confused, confused_anchor, metric_cell
from neocog.report.masks import colours_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.records import ClassRow, Interval
    from neocog.report.nouns import Finished

SHOWN = 30
"""Classes drawn as dots; with more, the lowest."""
SHOWN_PAIRS = 100
"""Confusions in the table."""


def classes(run: Finished) -> html.Section | None:
    """The shares of each class that the task is told in: recall, precision and F1 unless its kind
    says otherwise."""
    rows = run.scores[run.part].classes if run.part else ()
    if not rows:
        return None
    field, measure = run.kind.columns[0]
    what = (run.kind.classes or ("class",))[0]
    blocks: list[html.Block] = []
    known = [(row, one) for row in rows if (one := _of(row, field)) is not None]
    if known:
        blocks.append(_drawn(run, known, measure, what))
    count = f"{run.unit}s".capitalize() if run.kind.unit else "n"
    blocks.append(
        html.Table(
            caption=f"Every {what}, with 95\u00a0% intervals"
            + (f", and its share of the {run.unit}s with a label" if run.kind.unit else ""),
            columns=(what.capitalize(), *(title for _, title in run.kind.columns), count),
            rows=_table(run),
            numeric=tuple(range(1, len(run.kind.columns) + 2)),
            folded=len(rows) > SHOWN,
        )
    )
    lead = _lead(run, [(row.name, one) for row, one in known], len(rows) - len(known))
    return html.Section(title=f"How each {what} fares", lead=lead, blocks=tuple(blocks))


def _of(row: ClassRow, field: str) -> Interval | None:
    found: Interval | None = getattr(row, field)
    return found


def _drawn(
    run: Finished, known: list[tuple[ClassRow, Interval]], measure: str, what: str
) -> html.Figure:
    """The first measure of each class as a dot with its interval, the lowest first."""
    lowest = sorted(known, key=lambda pair: pair[1].value)[:SHOWN]
    mean = math.fsum(one.value for _, one in known) / len(known)
    total = sum(row.n for row in run.scores[run.part].classes)
    dots = []
    for row, one in lowest:
        note = f"{round(one.value * one.n):,} of {one.n:,}"
        if run.kind.unit:
            note = f"{words.percent(row.n / total)} of {run.unit}s" if total else ""
        dots.append(
            plots.Whisker(name=row.name, value=one.value, low=one.low, high=one.high, note=note)
        )
    title = measure if len(lowest) == len(known) else f"{measure}, {len(lowest)} lowest"
    return html.Figure(
        svg=plots.svg(plots.whiskers(dots, title=title, line=(mean, "mean"))),
        alt=f"{measure} of each {what} with its interval, lowest first; the table has the numbers.",
        caption=f"{run.kind.drawn.replace('{class}', what)}, with 95\u00a0% intervals.",
    )


def _table(run: Finished) -> tuple[tuple[html.Cell, ...], ...]:
    """A row for each class: its measures, and how much of it there is."""
    found = run.scores[run.part].classes
    colours = colours_of(run)
    total = sum(row.n for row in found)
    links: dict[str, str] = {}
    for at, (truth, _) in enumerate(confused(run)):
        links.setdefault(truth, confused_anchor(at))  # a class's commonest confusion
    rows = []
    for place, row in enumerate(found):
        count = f"{row.n:,}"
        if run.kind.unit and total:
            count = words.percent(row.n / total)
        rows.append(
            (
                html.Cell(
                    text=row.name,
                    colour=colours[place] if colours else "",
                    link=links.get(row.name, ""),
                ),
                *(_share_cell(_of(row, field)) for field, _ in run.kind.columns),
                html.Cell(text=count, order=row.n),
            )
        )
    return tuple(rows)


def _share_cell(one: Interval | None) -> html.Cell:
    """A share with its interval; – where it is undefined, which sorts below everything."""
    return metric_cell("recall", one) if one is not None else html.Cell(text="–", order=-1.0)


def _lead(run: Finished, known: list[tuple[str, Interval]], absent: int) -> str:
    """Which class fares worst, and which cannot be judged."""
    one, many = run.kind.classes or ("class", "classes")
    title = run.kind.columns[0][1]
    measure = title if run.kind.unit else title.lower()
    sentences = []
    if known and min(found.value for _, found in known) < 1:
        name, found = min(known, key=lambda pair: pair[1].value)
        of = "" if run.kind.unit else f" of {words.count(found.n, run.noun)}"
        sentences.append(f"Lowest {measure}: {name}, {words.percent(found.value)}{of}.")
    elif known:
        sentences.append(f"Every {run.unit} of every {one} was found.")
    if absent:
        sentences.append(
            f"{words.count(absent, one, many)} had no {run.unit} in this part, so {measure} is "
            "undefined (–)."
        )
    return " ".join(sentences)


def confusion(run: Finished) -> html.Section | None:
    """Which class is taken for which."""
    counts = run.scores[run.part].confusion if run.part else ()
    if not counts:
        return None
    names = [row.name for row in run.scores[run.part].classes]
    if len(names) != len(counts):
        names = [str(name) for name in run.data.get("classes") or range(len(counts))]
    shares = bool(run.kind.unit)
    found = plots.confused_pairs(counts, shares=shares)
    blocks: list[html.Block] = [
        html.Figure(
            svg=plots.svg(plots.confusion(counts, names, shares=shares)),
            alt=f"Confusion matrix of {len(names)} classes.",
            caption=_legend(run, len(names)),
        )
    ]
    if len(names) > MANY and found:
        caption = f"Truth → answer, and how many of all {run.unit}s of the true class."
        if shares:
            caption = f"Truth → answer, and the share of the {run.unit}s of the true class."
        blocks.append(
            html.Figure(
                svg=plots.svg(plots.pairs(counts, names, shares=shares)),
                alt="The most frequent confusions as bars, also in the table.",
                caption=caption,
            )
        )
    lead = "Nothing was mistaken for anything else."
    if found:
        true, answer, number = found[0]
        of = f"{number:,} of {words.count(sum(counts[true]), run.unit)}"
        if shares:
            of = f"{words.percent(number / sum(counts[true]))} of its {run.unit}s"
        lead = f"Most often {names[true]} is taken for {names[answer]}: {of}."
        blocks.append(_confusions(run, counts, names, found))
    return html.Section(title="What is taken for what", lead=lead, blocks=tuple(blocks))


def _legend(run: Finished, classes: int) -> str:
    """How to read the matrix."""
    text = "Rows: the truth; columns: the answer. "
    if run.kind.unit and classes <= MANY:
        text += f"Each number is the share of the row's {run.unit}s, in %. "
    text += (
        "Blue on the diagonal: the share of the row that is right. Orange: mistakes, shaded by the "
        "root of their share so that rare ones are seen."
    )
    return text + (" Classes are numbered in the order of the data." if classes > 40 else "")


def _confusions(
    run: Finished,
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    found: list[tuple[int, int, int]],
) -> html.Table:
    """The confusions as a table, in the order in which they were found."""
    sized = words.size if run.kind.unit else "{:,}".format
    links = {pair: confused_anchor(at) for at, pair in enumerate(confused(run))}
    rows = tuple(
        (
            html.Cell(text=names[true], link=links.get((names[true], names[answer]), "")),
            names[answer],
            html.Cell(text=sized(count), order=count),
            html.Cell(
                text=words.percent(count / sum(counts[true])), order=count / sum(counts[true])
            ),
        )
        for true, answer, count in found[:SHOWN_PAIRS]
    )
    some = len(found) > SHOWN_PAIRS
    return html.Table(
        caption=f"The {SHOWN_PAIRS} commonest confusions" if some else "Every confusion",
        columns=("Truth", "Answer", f"{run.unit}s".capitalize(), "Of the class"),
        rows=rows,
        numeric=(2, 3),
        folded=True,
    )
