"""Sections about what the network answers: scores, classes, mistakes. Room report; floor 4."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from neocog import html, plots
from neocog.html import words
from neocog.metrics import wilson
from neocog.records import Interval
from neocog.report.nouns import SPLITS, finite, is_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.report.nouns import Finished

SHOWN = {
    "signal": " Signals are drawn as waves, from their least value to their greatest.",
    "volume": " Of each volume the middle slice along its first axis is shown.",
}
"""What is seen of samples that are no pictures."""
SHOWN_CLASSES = 30
"""Classes drawn as dots; with more, the lowest."""


def scores(run: Finished) -> html.Section | None:
    """Every metric of both parts side by side."""
    parts = [part for part in ("val", "test") if part in run.scores]
    names = list(dict.fromkeys(name for part in parts for name in run.scores[part].metrics))
    if not names:
        return None
    rows: list[tuple[html.Cell | str, ...]] = []
    for name in names:
        cells = (_metric_cell(name, run.scores[part].metrics.get(name)) for part in parts)
        rows.append((run.called(name), *cells))
    table = html.Table(
        caption="With 95\u00a0% intervals",
        columns=("Score", *(f"{SPLITS[part]} part" for part in parts)),
        rows=tuple(rows),
        numeric=tuple(range(1, len(parts) + 1)),
    )
    return html.Section(title="Scores", blocks=(table,))


def _metric_cell(name: str, one: Interval | None) -> html.Cell:
    if one is None or not math.isfinite(one.value):
        return html.Cell(text="–")
    if is_share(name):
        value, low, high = words.percent_range(one)
    else:
        value, low, high = (words.number(number) for number in (one.value, one.low, one.high))
    return html.Cell(text=value, detail=f"{low} to {high}", order=one.value)


def classes(run: Finished) -> html.Section | None:
    """Precision, recall and F1 of each class."""
    rows = run.scores[run.part].classes if run.part else ()
    if not rows:
        return None
    what = "label" if run.task == "multilabel" else "class"
    blocks: list[html.Block] = []
    known = [(row, row.recall) for row in rows if row.recall is not None]
    if known:
        lowest = sorted(known, key=lambda pair: pair[1].value)[:SHOWN_CLASSES]
        mean = math.fsum(recall.value for _, recall in known) / len(known)
        dots = [
            plots.Whisker(
                name=row.name,
                value=recall.value,
                low=recall.low,
                high=recall.high,
                note=f"{round(recall.value * recall.n):,} of {recall.n:,}",
            )
            for row, recall in lowest
        ]
        title = "Recall" if len(lowest) == len(known) else f"Recall, {len(lowest)} lowest"
        blocks.append(
            html.Figure(
                svg=plots.svg(plots.whiskers(dots, title=title, line=(mean, "mean"))),
                alt=f"Recall of each {what} with its interval, lowest first; the table has the "
                "numbers.",
                caption=f"The share of each {what} that was found, with 95\u00a0% intervals.",
            )
        )
    blocks.append(
        html.Table(
            caption=f"Every {what}, with 95\u00a0% intervals",
            columns=(what.capitalize(), "Recall", "Precision", "F1", "n"),
            rows=tuple(
                (
                    row.name,
                    _share_cell(row.recall),
                    _share_cell(row.precision),
                    _share_cell(row.f1),
                    html.Cell(text=f"{row.n:,}", order=row.n),
                )
                for row in rows
            ),
            numeric=(1, 2, 3, 4),
            folded=len(rows) > SHOWN_CLASSES,
        )
    )
    lead = _classes_lead(run, what)
    return html.Section(title=f"How each {what} fares", lead=lead, blocks=tuple(blocks))


def _share_cell(one: Interval | None) -> html.Cell:
    """A share with its interval; – where it is undefined, which sorts below everything."""
    return _metric_cell("recall", one) if one is not None else html.Cell(text="–", order=-1.0)


def _classes_lead(run: Finished, what: str) -> str:
    rows = run.scores[run.part].classes
    pairs = [(row.name, row.recall) for row in rows if row.recall is not None]
    sentences = []
    if pairs and min(recall.value for _, recall in pairs) < 1:
        name, recall = min(pairs, key=lambda pair: pair[1].value)
        sentences.append(
            f"Lowest recall: {name}, {words.percent(recall.value)} of "
            f"{words.count(recall.n, run.noun)}."
        )
    elif pairs:
        sentences.append(f"Every {run.noun} of every {what} was found.")
    absent = sum(row.recall is None for row in rows)
    if absent:
        plural = "es" if what == "class" else "s"
        sentences.append(
            f"{words.count(absent, what, what + plural)} had no {run.noun} in this part, so recall "
            "is undefined (–)."
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
    found = plots.confused_pairs(counts)
    many = len(names) > 15
    legend = (
        "Rows: the truth; columns: the answer. Blue on the diagonal: the share of the row that is "
        "right. Orange: mistakes, shaded by the root of their share so that rare ones are seen."
    )
    if len(names) > 40:
        legend += " Classes are numbered in the order of the data."
    blocks: list[html.Block] = [
        html.Figure(
            svg=plots.svg(plots.confusion(counts, names)),
            alt=f"Confusion matrix of {len(names)} classes.",
            caption=legend,
        )
    ]
    if many and found:
        blocks.append(
            html.Figure(
                svg=plots.svg(plots.pairs(counts, names)),
                alt="The most frequent confusions as bars, also in the table.",
                caption=f"Truth → answer, and how many of all {run.noun}s of the true class.",
            )
        )
    if not found:
        lead = "Nothing was mistaken for anything else."
    else:
        true, answer, number = found[0]
        lead = (
            f"Most often {names[true]} is taken for {names[answer]}: {number:,} of "
            f"{words.count(sum(counts[true]), run.noun)}."
        )
        rows = tuple(
            (
                names[t],
                names[a],
                html.Cell(text=f"{c:,}", order=c),
                html.Cell(text=words.percent(c / sum(counts[t])), order=c / sum(counts[t])),
            )
            for t, a, c in found[:100]
        )
        blocks.append(
            html.Table(
                caption="Every confusion" if len(found) <= 100 else "The 100 commonest confusions",
                columns=("Truth", "Answer", f"{run.noun}s".capitalize(), "Of the class"),
                rows=rows,
                numeric=(2, 3),
                folded=True,
            )
        )
    return html.Section(title="What is taken for what", lead=lead, blocks=tuple(blocks))


def numbers(run: Finished) -> html.Section | None:
    """Regression: answers over truths and what is left."""
    if not run.answers:
        return None
    blocks: list[html.Block] = []
    for name, (truth, answer) in run.answers.items():
        pictures = words.count(len(truth), run.noun)
        blocks += [
            html.Figure(
                svg=plots.svg(plots.scatter(truth, answer, name=name)),
                alt=f"Answers over truths of {name} for {pictures}.",
                caption="On the dashed line, the answer is the truth.",
            ),
            html.Figure(
                svg=plots.svg(plots.residuals(truth, answer, name=name)),
                alt=f"Answer minus truth of {name} for {pictures}.",
                caption="A slope is a pull towards the middle; a funnel, noise that grows.",
            ),
        ]
    return html.Section(title="Answers and truths", blocks=tuple(blocks))


def confidence(run: Finished) -> html.Section | None:
    """Whether a probability of 90 % is right nine times in ten."""
    told = run.scores[run.part].calibration if run.part else {}
    bins = [one for row in told.get("bins") or () if (one := _bin(row)) is not None]
    error = _interval(told.get("ece"))
    if not bins and error is None:
        return None
    lead = ""
    if error is not None:
        value, low, high = words.percent_range(error)
        ends = f" (95\u00a0% interval {low} to {high})" if error.high > error.low else ""
        lead = f"Confidence and accuracy differ by {value} on average{ends}: the expected "
        lead += "calibration error."
    blocks: list[html.Block] = []
    if bins:
        drawn = html.Figure(
            svg=plots.svg(plots.reliability(bins)),
            alt="Accuracy over confidence in bins, with intervals; the diagonal is perfect.",
            caption="Each dot is the answers of about one confidence, with its 95\u00a0% "
            "interval. On the dashed line, an answer given with 90\u00a0% confidence is right "
            "nine times in ten.",
        )
        blocks += [drawn, _bin_table(bins)]
    return html.Section(title="How far to trust its confidence", lead=lead, blocks=tuple(blocks))


def _bin_table(bins: list[plots.Bin]) -> html.Table:
    """The reliability diagram in numbers."""
    rows = tuple(
        (
            html.Cell(
                text=f"{words.percent(one.edges[0])} to {words.percent(one.edges[1])}",
                order=one.edges[0],
            ),
            html.Cell(text=words.percent(one.confidence), order=one.confidence),
            html.Cell(
                text=words.percent(one.accuracy),
                detail=f"{words.percent(one.low)} to {words.percent(one.high)}",
                order=one.accuracy,
            ),
            html.Cell(text=f"{one.n:,}", order=one.n),
        )
        for one in bins
    )
    return html.Table(
        caption="The same in numbers",
        columns=("Confidence", "Mean", "Accuracy", "n"),
        rows=rows,
        numeric=(1, 2, 3),
        folded=True,
    )


def _interval(told: Any) -> Interval | None:
    """A number with its interval, however it was told: an Interval, its dict, or a bare number."""
    if isinstance(told, Interval):
        return told
    if isinstance(told, int | float):
        return Interval(value=float(told), low=float(told), high=float(told), n=0)
    if isinstance(told, dict) and finite(told.get("value")) is not None:
        value = float(told["value"])
        low, high = told.get("low", value), told.get("high", value)
        return Interval(value=value, low=low, high=high, n=int(told.get("n", 0)))
    return None


def _bin(row: Mapping[str, Any]) -> plots.Bin | None:
    """One bin for the diagram; None where it is empty."""
    n, accuracy, mean = row.get("n", 0), finite(row.get("accuracy")), finite(row.get("confidence"))
    if not n or accuracy is None or mean is None:
        return None
    share = wilson(min(row.get("hits", accuracy * n), n), n)
    return plots.Bin(
        confidence=mean,
        accuracy=accuracy,
        low=share.low,
        high=share.high,
        n=n,
        edges=(row["low"], row["high"]),
    )


def worst(run: Finished) -> html.Section | None:
    """The mistakes with the largest loss, as pictures."""
    if not run.mistakes:
        return None
    items = []
    for one in run.mistakes:
        sure = "" if one.confidence is None else f"{words.percent(one.confidence)}\u00a0sure"
        truth = "" if one.probability is None else f"truth\u00a0{words.percent(one.probability)}"
        items.append(
            html.Picture(
                image=html.data_uri(one.picture, longest=224),
                alt=f"{one.name}: {one.truth} taken for {one.answer}",
                title=one.truth,
                contrast=one.answer,
                detail=", ".join(text for text in (sure, truth) if text),
                source=one.name,
                crisp=max(one.picture.shape[:2]) <= 64,
            )
        )
    lead = "Truth → answer, furthest off first."
    if run.task != "regress":
        known = any(one.confidence is not None for one in run.mistakes)
        lead = "Truth → answer, with the probability of both; " if known else "Truth → answer; "
        lead += "largest loss first. Look for wrong labels: this is where they hide."
    lead += SHOWN.get(run.noun, "")
    return html.Section(
        title="Worst mistakes", lead=lead, blocks=(html.Pictures(items=tuple(items)),)
    )
