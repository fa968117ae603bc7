"""The page that explains answers, picture by picture. Room report; floor 4.

Takes plain nouns: numbers, pixels and finished figures, wherever they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neocog import __version__, html
from neocog.html import words
from neocog.plots.whymaps import AGAINST, FOR, enlarged, hidden, why_overlay

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Explained", "Hiding", "Scrambled", "Sheet", "Whole", "WhyMap", "page"]

_LARGEST = 320
"""Longest side of a picture in pixels."""
_SURE_GAP = 0.01
"""A sum that is off by less than this share is said to add up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WhyMap:
    """What each pixel had to do with the answer, by one method."""

    name: str
    """Of the method."""
    description: str
    """What it measures, in a sentence."""
    values: NDArray[np.floating]
    """h×w or C×h×w; above 0 for the answer, below against."""
    gap: float | None = None
    """What the sum of the values misses of what they should sum to, as a share of that; None where
    the method promises no sum."""
    note: str = ""
    """What one has to know to read it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hiding:
    """A part of the picture that decides its answer."""

    mask: NDArray[np.bool_]
    """H×W, True where the picture was hidden."""
    answer: str
    """What is answered then."""
    probability: float | None = None
    """Of that answer."""
    words: str = ""
    """What was asked for, in a sentence; empty: the least that must be hidden."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """Feature maps as one picture."""

    pixels: NDArray[np.uint8]
    """H×W or H×W×C."""
    alt: str
    """What it shows."""
    caption: str
    """What to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrambled:
    """How a method's map changes while weights are scrambled from the last layer on."""

    method: str
    """Its name."""
    layers: tuple[str, ...]
    """The last layer that was scrambled at each step."""
    similarity: tuple[float, ...]
    """Rank correlation with the map of the whole network, at each step."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explained:
    """One picture and everything that is known about its answer; what is empty is left out."""

    name: str
    """Where it comes from."""
    picture: NDArray[np.uint8]
    """H×W×C, C 1 or 3, as the network saw it."""
    answers: tuple[tuple[str, float], ...]
    """Labels and probabilities, the most probable first."""
    truth: str | None = None
    """Its class, where that is known."""
    target: str = ""
    """What the maps explain; empty: the first answer."""
    maps: tuple[WhyMap, ...] = ()
    """In reading order."""
    hiding: tuple[Hiding, ...] = ()
    """What must be hidden, or seen."""
    curves: tuple[html.Figure, ...] = ()
    """What becomes of the answer while the picture is changed."""
    features: tuple[Sheet, ...] = ()
    """What layers answered."""
    tracer: html.Tracer | None = None
    """Its activations, to be clicked."""
    remarks: tuple[str, ...] = ()
    """What could not be done, and why."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """What is said of the network itself."""

    name: str
    """For people."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values worth seeing at once."""
    scrambled: tuple[Scrambled, ...] = ()
    """Whether the maps depend on what it has learnt."""
    remarks: tuple[str, ...] = ()
    """What could not be done, and why."""


def page(pictures: Sequence[Explained], whole: Whole) -> html.Page:
    """The page.

    Args:
        pictures: at least one.
        whole: the network that answered.

    Raises:
        ValueError: no picture, or one without an answer.
    """
    if not pictures or not all(one.answers for one in pictures):
        raise ValueError("expected pictures with answers, found none")
    first, alone = pictures[0], len(pictures) == 1
    sections = []
    for one in pictures:
        head, *others = [part for make in _OF_ONE if (part := make(one))]
        if not alone:
            head = replace(head, title=f"{one.name}: {one.answers[0][0]}")
        sections += [head, *(replace(part, inner=not alone) for part in others)]
    if checked := _sane(whole):
        sections.append(checked)
    names = words.count(len(pictures), "picture")
    return html.Page(
        kind="explanation",
        title=f"Why {first.answers[0][0]}?" if alone else f"Why these answers? {names}",
        subtitle=f"{first.name if alone else names}, answered by {whole.name}.",
        headline=_headline(first) if alone else None,
        facts=whole.facts,
        notes=tuple(html.Note(text=text) for text in whole.remarks),
        sections=tuple(sections),
        footer=f"Made by neocog {__version__}. This file needs nothing else and opens offline.",
    )


def _headline(one: Explained) -> html.Headline:
    label, share = one.answers[0]
    said = f"sure that it is {label}"
    if one.truth is not None:
        said += ", and right" if one.truth == label else f", but it is {one.truth}"
    return html.Headline(number=words.percent(share), words=f"{said}.")


def _answer(one: Explained) -> html.Section:
    """The picture, and what was answered."""
    label, share = one.answers[0]
    lead = f"{label}, with a probability of {words.percent(share)}."
    if one.truth is not None and one.truth != label:
        known = dict(one.answers).get(one.truth)
        lead += f" The truth is {one.truth}"
        lead += f", to which it gives {words.percent(known)}." if known is not None else "."
    rows = tuple(
        (
            html.Cell(text=name, detail="the truth" if name == one.truth else ""),
            html.Cell(text=words.percent(chance), order=chance),
        )
        for name, chance in one.answers
    )
    table = html.Table(
        caption="The most probable answers",
        columns=("Answer", "Probability"),
        rows=rows,
        numeric=(1,),
    )
    size = "×".join(str(side) for side in one.picture.shape[:2])
    shown = _figure(one.picture, f"{one.name}, {size} pixels", f"As the network saw it, {size}.")
    notes = tuple(html.Note(text=text) for text in one.remarks)
    return html.Section(title="The answer", lead=lead, blocks=(shown, table, *notes))


def _figure(pixels: NDArray[np.uint8], alt: str, caption: str) -> html.Figure:
    """A picture large enough to be looked at."""
    tiny = max(pixels.shape[:2]) <= 64
    image = html.data_uri(enlarged(pixels), longest=_LARGEST)
    return html.Figure(image=image, alt=alt, caption=caption, crisp=tiny)


def _why(one: Explained) -> html.Section | None:
    """What counted, by each method."""
    if not one.maps:
        return None
    target = one.target or one.answers[0][0]
    figures = []
    for made in one.maps:
        parts = [f"{made.name}: {made.description}", _sum(made.gap), made.note]
        figures.append(
            _figure(
                why_overlay(one.picture, made.values),
                f"{one.name} in grey, coloured where {made.name} finds what counted for {target}",
                " ".join(part if part.endswith(".") else f"{part}." for part in parts if part),
            )
        )
    items = [(_hex(FOR), f"speaks for {target}")]
    if any(made.values.min() < 0 for made in one.maps):
        items.append((_hex(AGAINST), "speaks against it"))
    lead = f"What each pixel had to do with {target}. The stronger the colour, the more it counted."
    lead += " Methods ask different questions: trust what several of them agree on."
    own = target == one.answers[0][0]
    return html.Section(
        title="Why this answer" if own else f"What speaks for {target}",
        lead=lead,
        blocks=(html.Key(items=tuple(items)), *figures),
    )


def _sum(gap: float | None) -> str:
    """Whether a map adds up to what it should."""
    if gap is None:
        return ""
    size = words.percent(abs(gap), 2)
    if abs(gap) < _SURE_GAP:
        return f"Adds up to the change of the answer, within {size}."
    return f"Misses the change of the answer by {size}: read it with care."


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _hiding(one: Explained) -> html.Section | None:
    """What must be hidden for the answer to change."""
    if not one.hiding:
        return None
    figures = []
    for made in one.hiding:
        share = words.percent(float(made.mask.mean()))
        sure = f" ({words.percent(made.probability)})" if made.probability is not None else ""
        asked = made.words or "The least that must be hidden for another answer"
        figures.append(
            _figure(
                hidden(enlarged(one.picture), enlarged(made.mask)),
                f"{one.name} with {share} of it hidden under stripes",
                f"{asked}: {share} hidden, and the answer is {made.answer}{sure}.",
            )
        )
    return html.Section(title="What decides it", blocks=tuple(figures))


def _steady(one: Explained) -> html.Section | None:
    """What becomes of the answer while the picture is changed."""
    if not one.curves:
        return None
    lead = f"The probability of {one.target or one.answers[0][0]} while the picture is changed."
    return html.Section(title="Does it hold still", lead=lead, blocks=one.curves)


def _features(one: Explained) -> html.Section | None:
    """What layers answered, as sheets."""
    if not one.features:
        return None
    return html.Section(
        title="What the layers see", blocks=tuple(_sheet(made) for made in one.features)
    )


def _sheet(made: Sheet) -> html.Figure:
    tiny = max(made.pixels.shape[:2]) <= 240
    pixels = enlarged(made.pixels, 480)
    image = html.data_uri(pixels, longest=960)
    return html.Figure(image=image, alt=made.alt, caption=made.caption, crisp=tiny)


def _traced(one: Explained) -> html.Section | None:
    """Any activation and its arithmetic."""
    if one.tracer is None:
        return None
    lead = "Every number that the network computed for this picture, and the sum that made it: "
    lead += "choose one, and go from number to number down to the pixels."
    return html.Section(title="From a number to the pixels", lead=lead, blocks=(one.tracer,))


_OF_ONE = (_answer, _why, _hiding, _steady, _features, _traced)
"""Sections about a picture, in the order of the page."""


def _sane(whole: Whole) -> html.Section | None:
    """Whether maps change when what the network has learnt is destroyed."""
    if not whole.scrambled:
        return None
    layers = list(dict.fromkeys(name for one in whole.scrambled for name in one.layers))
    known = [dict(zip(one.layers, one.similarity, strict=True)) for one in whole.scrambled]
    rows: list[tuple[html.Cell | str, ...]] = []
    for at, layer in enumerate(layers):
        cells = (of.get(layer) for of in known)
        shown = (
            html.Cell(text="–" if one is None else words.number(one, 2), order=one) for one in cells
        )
        rows.append((html.Cell(text=layer, order=at), *shown))
    table = html.Table(
        caption="Rank correlation of each map with that of the trained network",
        columns=("Scrambled down to", *(one.method for one in whole.scrambled)),
        rows=tuple(rows),
        numeric=tuple(range(1, len(whole.scrambled) + 1)),
    )
    lead = "Weights are scrambled layer by layer, the last one first. A map that hardly changes "
    lead += "(1: not at all) shows the picture rather than what was learnt (Adebayo et al. 2018)."
    return html.Section(title="Can the maps be trusted", lead=lead, blocks=(table,))
