"""Sections about what the network answers: scores, confidence, mistakes. Room report; floor 4."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from neocog import html, plots
from neocog.html import words
from neocog.measures import is_share
from neocog.metrics import wilson
from neocog.records import Interval
from neocog.report.nouns import SPLITS, finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.report.nouns import Finished, Mistake

OF_EACH = 3
"""Pictures of one confusion."""
_SMALL = 112
"""Longest side of such a picture."""
SHOWN = {
    "signal": " Signals are drawn as waves, from their least value to their greatest.",
    "volume": " Of each volume the middle slice along its first axis is shown.",
}
"""What is seen of samples that are no pictures."""


def scores(run: Finished) -> html.Section | None:
    """Every metric of both parts side by side."""
    parts = [part for part in ("val", "test") if part in run.scores]
    names = list(dict.fromkeys(name for part in parts for name in run.scores[part].metrics))
    if not names:
        return None
    rows: list[tuple[html.Cell | str, ...]] = []
    for name in names:
        cells = (metric_cell(name, run.scores[part].metrics.get(name)) for part in parts)
        rows.append((run.called(name), *cells))
    table = html.Table(
        caption="With 95\u00a0% intervals",
        columns=("Score", *(f"{SPLITS[part]} part" for part in parts)),
        rows=tuple(rows),
        numeric=tuple(range(1, len(parts) + 1)),
    )
    return html.Section(title="Scores", lead=run.kind.scores, blocks=(table,))


def metric_cell(name: str, one: Interval | None) -> html.Cell:
    """A metric with its interval; – where it was not measured."""
    if one is None or not math.isfinite(one.value):
        return html.Cell(text="–")
    if is_share(name):
        value, low, high = words.percent_range(one)
    else:
        value, low, high = (words.number(number) for number in (one.value, one.low, one.high))
    return html.Cell(text=value, detail=f"{low} to {high}", order=one.value)


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
    lead = f"{lead} {_temperature(run)}".strip()
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


def _temperature(run: Finished) -> str:
    """What the outputs were divided by, and what that is worth."""
    told = run.temperature
    if told is None:
        return ""
    if told["value"] == 1:
        return f"No temperature was fitted: {told['reason']}."
    before, after = (words.percent(told["ece"][when]) for when in ("before", "after"))
    text = (
        f"Outputs were divided by {words.number(told['value'])}, a temperature fitted to the "
        f"validation part (Guo et al. 2017), which takes the error from {before} to {after} on "
        f"{run.noun}s that it was not fitted to."
    )
    if told["reason"]:
        text += f" {told['reason'][:1].upper()}{told['reason'][1:]}: do not rely on it."
    if run.part == "val":
        text += " The diagram shows the part that it was fitted to."
    return text


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
    """The mistakes with the largest loss, as pictures, and some of each frequent confusion."""
    top = [one for one in run.mistakes if not one.sample]
    if not run.mistakes:
        return None
    known = any(one.confidence is not None for one in top)
    lead = "Truth → answer, with the probability of both; " if known else "Truth → answer, "
    lead += run.kind.mistakes + SHOWN.get(run.noun, "")
    groups = confused(run)
    anchors = {id(group[0]): confused_anchor(at) for at, group in enumerate(groups.values())}
    apart = any(one.sample for one in run.mistakes)
    marked = {} if apart else anchors
    items = [_pictured(one, anchor=marked.get(id(one), "")) for one in top]
    blocks = [html.Pictures(items=tuple(items))]
    if apart:
        items = [
            _pictured(one, longest=_SMALL, anchor=anchors.get(id(one), ""))
            for group in groups.values()
            for one in group
        ]
        caption = "Some of each confusion, the commonest first; the tables above lead here."
        blocks.append(html.Pictures(items=tuple(items), caption=caption))
    return html.Section(title="Worst mistakes", lead=lead, blocks=tuple(blocks))


def _pictured(one: Mistake, *, longest: int = 224, anchor: str = "") -> html.Picture:
    """A mistake as a picture with both answers."""
    sure = "" if one.confidence is None else f"{words.percent(one.confidence)}\u00a0sure"
    truth = "" if one.probability is None else f"truth\u00a0{words.percent(one.probability)}"
    return html.Picture(
        image=html.data_uri(one.picture, longest=longest),
        alt=f"{one.name}: {one.truth} taken for {one.answer}",
        title=one.truth,
        contrast=one.answer,
        detail=", ".join(text for text in (sure, truth) if text),
        source=one.name,
        crisp=max(one.picture.shape[:2]) <= 64,
        anchor=anchor,
    )


def confused(run: Finished) -> dict[tuple[str, str], list[Mistake]]:
    """Truth and answer → some mistakes of that confusion, worst first; the commonest come first.

    Empty where truths are no classes, or nobody looked for mistakes of each confusion.
    """
    scores = run.scores[run.part] if run.part else None
    names = [row.name for row in scores.classes] if scores else []
    if scores is None or not names or len(names) != len(scores.confusion):
        return {}
    of: dict[tuple[str, str], list[Mistake]] = {}
    for one in run.mistakes:
        of.setdefault((one.truth, one.answer), []).append(one)
    pairs = [(names[i], names[j]) for i, j, _ in plots.confused_pairs(scores.confusion)]
    return {pair: of[pair][:OF_EACH] for pair in pairs if pair in of}


def confused_anchor(place: int) -> str:
    """The anchor of the first picture of a confusion, from its place in `confused`."""
    return f"confusion-{place + 1}"
