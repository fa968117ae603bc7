"""The head of a report: one number, the facts, and what could mislead. Room report; floor 4."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from neocog import html
from neocog.html import words
from neocog.measures import is_share
from neocog.report.nouns import PARTS, SPLITS, finite, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.records import Interval
    from neocog.report.nouns import Finished


def subtitle(run: Finished) -> str:
    """Task, size of the task and length of the training in one sentence."""
    task = run.kind.title or run.task or "a task"
    task = task.replace("{noun}", "image" if run.noun == "picture" else run.noun)
    text = task[:1].upper() + task[1:]
    classes = run.data.get("classes") or ()
    if classes and run.kind.classes:
        text += f", {words.count(len(classes), *run.kind.classes)}"
    if not run.epochs:
        return text + "; no epoch was finished."
    seconds = total(run.epochs, "seconds")
    text += f", trained for {words.count(len(run.epochs), 'epoch')}"
    return text + (f" in {words.duration(seconds)}." if seconds else ".")


def headline(run: Finished) -> html.Headline | None:
    """The number that the reader came for, with n and its interval in words."""
    if not run.part:
        return None
    metrics = run.scores[run.part].metrics
    name = next((n for n in (*run.kind.leading, *metrics) if n in metrics), "")
    if not name:
        return None
    one = metrics[name]
    pictures = f"{one.n:,} {PARTS[run.part]} {run.noun}{'' if one.n == 1 else 's'}"
    if not is_share(name):
        ends = f"95\u00a0% interval {words.number(one.low)} to {words.number(one.high)}"
        said = f"{run.called(name)} on {pictures}, {ends}"
        return html.Headline(number=words.number(one.value), words=said)
    value, low, high = words.percent_range(one)
    ends = f"95\u00a0% interval {low} to {high}"
    if name != "accuracy" or not run.kind.baseline:
        said = f"{run.called(name)} on {pictures}, {ends}"
        return html.Headline(number=value, words=said, ruler=_ruler(one))
    sizes = [row.n for row in run.scores[run.part].classes]
    mark = None
    if sum(sizes):
        share = max(sizes) / sum(sizes)
        mark = (share, f"{words.percent(share)}: always answering the commonest class")
    return html.Headline(number=value, words=f"of {pictures}, {ends}", ruler=_ruler(one), mark=mark)


def _ruler(one: Interval) -> tuple[float, float, float] | None:
    """What the ruler draws, where all of it lies between 0 and 1."""
    ends = (one.low, one.value, one.high)
    return ends if all(0 <= end <= 1 for end in ends) else None


def facts(run: Finished) -> tuple[tuple[str, str], ...]:
    """Names and values worth seeing at once."""
    model, device = run.manifest.get("model") or {}, run.manifest.get("device") or {}
    data = run.data
    found: list[tuple[str, str]] = []
    args = ", ".join(f"{name} {value}" for name, value in (model.get("args") or {}).items())
    found.append(("Network", f"{run.model} ({args})" if args else run.model))
    if model.get("parameters") is not None:
        found.append(("Parameters", words.size(model["parameters"])))
    if data.get("size"):
        channels = words.count(data.get("channels") or 1, "channel")
        if run.noun == "picture":
            channels = "grey" if data.get("channels") == 1 else "colour"
        sized = run.kind.size.replace("{noun}", run.noun).capitalize()
        found.append((sized, f"{' × '.join(map(str, data['size']))}, {channels}"))
    found += [
        (f"{SPLITS.get(name, name)} part".capitalize(), f"{number:,}")
        for name, number in (data.get("splits") or {}).items()
    ]
    seconds = total(run.epochs, "seconds")
    rates = [(finite(e.get("images_per_second")), finite(e.get("seconds"))) for e in run.epochs]
    images = math.fsum(rate * span for rate, span in rates if rate and span)
    if seconds and images:
        found.append(("Speed", f"{words.number(images / seconds)} {run.noun}s/s"))
    if device:
        name = str(device.get("name") or device.get("kind", ""))
        threads = device.get("threads")
        if device.get("kind") == "cpu" and threads:
            name += f", {words.count(int(threads), 'thread')}"
        found.append(("Machine", name))
    found.append(("Seed", str(run.manifest.get("seed", "–"))))
    return tuple(found)


def warnings(run: Finished) -> tuple[html.Note, ...]:
    """What could lead a reader to a wrong conclusion."""
    found: list[html.Note] = []
    if not run.part:
        found.append(
            _warn(
                "Nothing was held back from training, so there is no score. "
                "Train with --val 0.1 or --test SOURCE to get one."
            )
        )
    elif run.part == "val" and (chosen := _chosen_by_val(run.manifest.get("config") or {})):
        found.append(
            _warn(
                f"There is no test part. The number above comes from the validation part, which "
                f"also decided {words.listing(chosen)}, so it is a little too good. "
                f"--test SOURCE gives one that is not."
            )
        )
    elif run.part == "val":
        found.append(
            html.Note(
                text="There is no test part: the number above comes from the validation part, "
                "which this run did not train on."
            )
        )
    for pair, number in (run.data.get("duplicates") or {}).items():
        if number:
            first, _, second = pair.partition("/")
            part = SPLITS.get(second, second)
            found.append(
                _warn(
                    f"{words.count(number, run.noun)} of the {part} part also "
                    f"{'occurs' if number == 1 else 'occur'} in the "
                    f"{SPLITS.get(first, first)} part: the {part} score may be too good."
                )
            )
    counts = run.counts
    if counts.found != counts.used + counts.skipped:
        found.append(
            _warn(
                f"The count does not close: {counts.found:,} found, {counts.used:,} used, "
                f"{counts.skipped:,} skipped."
            )
        )
    return tuple(found)


def _warn(text: str) -> html.Note:
    return html.Note(text=text, kind="warning")


def _chosen_by_val(config: Mapping[str, Any]) -> list[str]:
    """What a recipe lets the validation part decide."""
    stop, plateau = config.get("stop") or {}, config.get("plateau") or {}
    chosen = []
    if stop.get("patience") is not None:
        chosen.append("when to stop")
        if stop.get("restore_best", True):
            chosen.append("which weights to keep")
    if plateau.get("patience") is not None:
        chosen.append("when to lower the learning rate")
    return chosen
