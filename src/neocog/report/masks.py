"""The section that shows pictures whose every pixel was answered. Room report; floor 4."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neocog import html, plots
from neocog.html import words
from neocog.records import VOID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neocog.report.nouns import Finished, Segmented

SHOWN = 12
"""Pictures in the section."""
LONGEST = 480
"""Pixels of the longer side of each; larger ones are shrunk."""
NAMED = 3
"""Classes and confusions that are told of each."""


def colours_of(run: Finished) -> tuple[str, ...]:
    """`#rrggbb` of each class where masks were answered, else nothing."""
    if run.kind.unit != "pixel":
        return ()
    return tuple(_hex(colour) for colour in plots.palette(len(_names(run))).tolist())


def worst(run: Finished) -> html.Section | None:
    """Picture, truth, answer and mistakes side by side, the lowest Jaccard first."""
    # A picture without any label has no Jaccard, and tells nothing.
    known = [one for one in run.segmented if math.isfinite(one.jaccard)]
    if not known:
        return None
    names = _names(run)
    shown = sorted(known, key=lambda one: one.jaccard)[:SHOWN]
    strips = tuple(_strip(one, names) for one in shown)
    lead = (
        "The lowest Jaccard first, each of one picture alone, over the classes that occur in it. "
        "Beside a picture stand its truth, the answer, and the mistakes: wrong pixels in red. "
        "Above them, truth → answer, as a share of the picture's labelled pixels. Look for wrong "
        "labels too: this is where they hide."
    )
    return html.Section(
        title=f"Worst {run.noun}s",
        lead=lead,
        blocks=(_key(shown, names), html.Strips(items=strips)),
    )


def _names(run: Finished) -> list[str]:
    rows = run.scores[run.part].classes if run.part else ()
    return [row.name for row in rows] or [str(name) for name in run.data.get("classes") or ()]


def _hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _key(shown: Sequence[Segmented], names: Sequence[str]) -> html.Key:
    """The colours that are seen."""
    values = [np.unique(mask) for one in shown for mask in (one.truth, one.answer)]
    seen = np.unique(np.concatenate(values)).tolist()
    colours = plots.palette(len(names)).tolist()
    items = [(_hex(colours[k]), names[k]) for k in seen if k != VOID]
    if VOID in seen:
        items.append((_hex(plots.VOID_COLOUR), "void: no label, striped among the mistakes"))
    return html.Key(items=(*items, (_hex(plots.WRONG_COLOUR), "wrong")))


def _strip(one: Segmented, names: Sequence[str]) -> html.Strip:
    colours = plots.palette(len(names))
    labelled = one.truth != VOID
    count = max(1, int(labelled.sum()))
    wrong = labelled & (one.truth != one.answer)
    share = int(wrong.sum()) / count
    pairs, times = np.unique(
        np.stack([one.truth[wrong], one.answer[wrong]]), axis=1, return_counts=True
    )
    most = np.argsort(-times, kind="stable")[:NAMED]
    confused = [
        f"{names[pairs[0, at]]} → {names[pairs[1, at]]} {words.percent(times[at] / count)}"
        for at in most
    ]
    said = f"{words.percent(share)} of labelled pixels are wrong"
    return html.Strip(
        title=one.name,
        detail=f"Jaccard {words.percent(one.jaccard)}; {said}",
        remark=", ".join(confused),
        images=(
            html.data_uri(one.picture, longest=LONGEST),
            html.png_uri(plots.index_png(_sampled(one.truth), colours)),
            html.png_uri(plots.index_png(_sampled(one.answer), colours)),
            html.data_uri(plots.mistaken(one.picture, one.truth, one.answer), longest=LONGEST),
        ),
        captions=("picture", "truth", "answer", "mistakes"),
        alts=(
            f"Picture {one.name}.",
            f"Truth: {_shares(one.truth, names)}.",
            f"Answer: {_shares(one.answer, names)}.",
            f"Mistakes: {said}.",
        ),
        crisp=max(one.truth.shape) <= 64,
    )


def _shares(mask: NDArray[np.uint8], names: Sequence[str]) -> str:
    """What a mask shows, most of it first, in words."""
    classes, times = np.unique(mask, return_counts=True)
    order = np.argsort(-times, kind="stable")
    told = [
        f"{'void' if classes[at] == VOID else names[classes[at]]} "
        f"{words.percent(times[at] / mask.size)}"
        for at in order[: 2 * NAMED]
    ]
    return ", ".join(told) + (", …" if len(order) > len(told) else "")


def _sampled(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask of `LONGEST` pixels at most: of classes there is no mean, so pixels are left out."""
    longest = max(mask.shape)
    if longest <= LONGEST:
        return mask
    rows, columns = (
        ((np.arange(size) + 0.5) * side / size).astype(np.intp)
        for side in mask.shape
        for size in (max(1, round(side * LONGEST / longest)),)
    )
    return mask[np.ix_(rows, columns)]
