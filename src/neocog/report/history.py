"""The section about the training: curves over epochs. Room report; floor 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neocog import html, plots
from neocog.errors import ConfigError
from neocog.html import words
from neocog.measures import is_share
from neocog.metrics import direction
from neocog.report.nouns import finite

if TYPE_CHECKING:
    from neocog.report.nouns import Finished

POINTS = 400
"""Points of a curve over steps; more are thinned out evenly."""
_OTHERS = {"epoch", "loss", "val_loss", "lr", "seconds", "images_per_second"}
"""Values of an epoch that are not scores."""


def learning(run: Finished) -> html.Section | None:
    """Loss and score over epochs, with the learning rate below each."""
    train, held = _line(run, "loss", "training"), _line(run, "val_loss", "held out")
    if train is None and held is None:
        return None
    rate = _rate(run)
    lines = []
    if held:
        lines.append(held)
    if train:
        lines.append(
            plots.Line(name="training", x=train.x, y=train.y, role="second" if held else "main")
        )
    values = [value for line in lines for value in line.y]
    log = min(values) > 0 and max(values) > 50 * min(values)
    best = min(zip(held.y, held.x, strict=True)) if held and len(held.x) > 1 else None
    figures = [
        html.Figure(
            svg=plots.svg(
                plots.curves(
                    lines,
                    title="Loss",
                    log=log,
                    rate=rate,
                    best=(best[1], best[0]) if best else None,
                )
            ),
            alt=f"Loss over {words.count(len(run.epochs), 'epoch')}.",
            caption=f"The ring marks the lowest loss on held-out {run.noun}s." if best else "",
        )
    ]
    score = _score_name(run)
    if score and (line := _line(run, score, "held out")):
        figures.append(_score_figure(run, score, line, rate))
    return html.Section(title="How it learned", lead=_lead(run, score, held), blocks=tuple(figures))


def _score_figure(
    run: Finished, score: str, line: plots.Line, rate: plots.Line | None
) -> html.Figure:
    name = run.called(score.removeprefix("val_"))
    name = name[:1].upper() + name[1:]
    top = _best(score, line) if len(line.x) > 1 else None
    return html.Figure(
        svg=plots.svg(
            plots.curves(
                [line],
                title=name,
                percent=is_share(score.removeprefix("val_")),
                rate=rate,
                best=top,
            )
        ),
        alt=f"{name} on held-out {run.noun}s over {words.count(len(run.epochs), 'epoch')}.",
        caption="The ring marks the best epoch." if top else "",
    )


def _best(score: str, line: plots.Line) -> tuple[float, float]:
    """Epoch and value of the best epoch, the first of several."""
    try:
        sign = -1.0 if direction(score) == "min" else 1.0
    except ConfigError:  # a metric of the user's own; larger is better more often than not
        sign = 1.0
    return max(zip(line.x, line.y, strict=True), key=lambda pair: (sign * pair[1], -pair[0]))


def _line(run: Finished, key: str, name: str) -> plots.Line | None:
    """One value over epochs, as far as it is a number."""
    found = [
        (float(row["epoch"]), value)
        for row in run.epochs
        if (value := finite(row.get(key))) is not None
    ]
    return (
        plots.Line(name=name, x=[x for x, _ in found], y=[y for _, y in found]) if found else None
    )


def _rate(run: Finished) -> plots.Line | None:
    """The learning rate over epochs: from single steps where they were logged, else by epoch."""
    steps = [
        (event.step, rate)
        for event in run.events
        if event.kind == "step" and (rate := finite(event.values.get("lr"))) is not None
    ]
    ends = [event for event in run.events if event.kind == "epoch" and event.values.get("epoch")]
    if len(steps) > 1 and ends:
        # The last epoch of a run that ended by its time is a part of one.
        per_epoch = max(event.step / event.values["epoch"] for event in ends)
        last = dict(steps)  # a resumed run tells some steps twice
        ordered = sorted(last.items())[:: max(1, len(last) // POINTS)]
        x = [step / per_epoch for step, _ in ordered] if per_epoch else []
        if x:
            return plots.Line(name="learning rate", x=x, y=[rate for _, rate in ordered])
    line = _line(run, "lr", "learning rate")
    return line if line and len(line.x) > 1 else None


def _score_name(run: Finished) -> str:
    """The score that is drawn: what the task is judged by, else the first one logged."""
    names = list(dict.fromkeys(name for row in run.epochs for name in row))
    wanted = [f"val_{name}" for name in run.kind.leading]
    others = [name for name in names if name.startswith("val_") and name not in _OTHERS]
    return next((name for name in (*wanted, *others) if name in names), "")


def _lead(run: Finished, score: str, held: plots.Line | None) -> str:
    sentences = []
    if score and (line := _line(run, score, "")) and len(line.x) > 1:
        epoch, value = _best(score, line)
        share = is_share(score.removeprefix("val_"))
        shown = words.percent(value) if share else words.number(value)
        name = run.called(score.removeprefix("val_"))
        sentences.append(f"Best {name} on held-out {run.noun}s: {shown}, after epoch {epoch:.0f}.")
    if held is None:
        sentences.append("There is no validation part, so only the training loss is known.")
    reason = next((e.values["reason"] for e in reversed(run.events) if e.values.get("reason")), "")
    if reason:
        sentences.append(f"The run ended: {reason}.")
    elif not any(event.kind == "end" for event in run.events):
        sentences.append("The run has not ended yet.")
    return " ".join(sentences)
