"""The page about a data set: copies, doubtful labels, classes. Room report; floor 4."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from neocog import __version__, html
from neocog.html import words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Audited", "Double", "Doubt", "Face", "build", "doubles", "doubts", "write"]


TRUSTED = 0.9
"""Share of the labels that networks agree with, from which on they may count wrong ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A sample as it is shown."""

    picture: NDArray[np.uint8]
    """H×W×C, C 1 or 3."""
    name: str
    """Where it comes from."""
    part: str
    """`train`, `val` or `test`."""
    label: str
    """Its class; empty where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A label that is probably wrong."""

    face: Face
    """The sample."""
    suggested: str
    """What networks say instead."""
    score: float
    """How unlikely the label is, 0…1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Double:
    """Two samples that show one picture."""

    faces: tuple[Face, Face]
    """The samples."""
    likeness: float
    """1 for equal pixels."""
    exact: bool
    """Whether they are equal."""
    certain: bool
    """Whether two labels of them cannot both be right."""
    mirrored: bool
    """Whether one is the other's mirror image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """All that the page is about."""

    json: Mapping[str, Any]
    """What `audit` tells."""
    suspects: tuple[Doubt, ...]
    """The most suspicious first."""
    pairs: tuple[Double, ...]
    """Those with two labels first, then those across parts."""


def write(path: Path, found: Audited) -> Path:
    """Write the page as one file.

    Raises:
        RunError: the file cannot be written.
    """
    return html.write(build(found), path)


def build(found: Audited) -> html.Page:
    """The page about a data set."""
    told = found.json
    source = PurePath(str(told["source"])).name or "data"
    double = told["duplicates"]
    leaks = sum(double["across"].values())
    facts = [
        ("Pictures", f"{told['n']:,}"),
        *((part.capitalize(), f"{n:,}") for part, n in told["splits"].items()),
        ("Exact copies", f"{double['exact']:,}"),
        ("Near copies", f"{double['near']:,}"),
        ("Leaks across parts", f"{leaks:,}"),
    ]
    sections = (
        doubts(found.suspects, told),
        doubles(found.pairs, told),
        _classes(told),
        _how(told),
    )
    return html.Page(
        kind="data check",
        title=f"Is {source} what it says?",
        subtitle=_subtitle(told),
        headline=_headline(told),
        facts=tuple(facts),
        notes=tuple(html.Note(text=_sentence(one), kind="warning") for one in told["remarks"]),
        sections=tuple(section for section in sections if section is not None),
        footer=f"Made by neocog {__version__}. This file needs nothing else and opens offline.",
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _subtitle(told: Mapping[str, Any]) -> str:
    classes = len(told["classes"])
    return f"{words.count(told['n'], 'picture')}" + (f" of {classes} classes" if classes else "")


def _headline(told: Mapping[str, Any]) -> html.Headline | None:
    """How many labels are wrong at most; where networks are too weak to tell, how many labels they
    agree with; where none were judged, how many copies cross parts."""
    errors = told["estimated_errors"]
    if errors is None:
        leaks = sum(told["duplicates"]["across"].values())
        return html.Headline(number=f"{leaks:,}", words="pictures have a copy in another part")
    agreed = words.percent(told["agreement"])
    judges = f"{told['folds']} networks, each asked only about pictures that it had not seen"
    if told["agreement"] < TRUSTED:
        return html.Headline(
            number=agreed,
            words=f"of the labels are what {judges}, would say. They are wrong too often "
            "themselves to count wrong labels: among the first doubtful ones below are some",
        )
    return html.Headline(
        number=f"≤\u00a0{errors:,}",
        words=f"labels are wrong, if they are wrong by chance, say {judges}. They agree with "
        f"{agreed} of all labels",
    )


def doubts(suspects: tuple[Doubt, ...], told: Mapping[str, Any]) -> html.Section | None:
    """Pictures whose label is probably wrong.

    Args:
        suspects: the most suspicious first.
        told: with `estimated_errors`.
    """
    if not suspects:
        return None
    items = tuple(
        html.Picture(
            image=html.data_uri(one.face.picture, longest=224),
            alt=f"{one.face.name}: labelled {one.face.label}, looks like {one.suggested}",
            title=one.face.label,
            contrast=one.suggested,
            detail=f"{one.face.part}, label\u00a0{words.percent(1 - one.score)}",
            source=one.face.name,
            crisp=max(one.face.picture.shape[:2]) <= 64,
        )
        for one in suspects
    )
    return html.Section(
        title="Doubtful labels",
        lead="Label → what networks say that had not seen the picture, and how likely they find "
        "the label, the least likely first. Among them are right labels of odd pictures: look "
        "before you change one.",
        blocks=(html.Pictures(items=items),),
    )


def doubles(pairs: tuple[Double, ...], told: Mapping[str, Any]) -> html.Section | None:
    """Pictures that are there twice.

    Args:
        pairs: in the order to be shown in.
        told: with `duplicates`.
    """
    if not pairs:
        return None
    double = told["duplicates"]
    number = double["exact"] + double["near"]
    lead = f"{words.count(number, 'pair')}; a copy in another part is a leak: its score flatters."
    if len(pairs) < number:
        lead += f" {len(pairs)} are shown, those with two labels first, then those across parts."
    return html.Section(
        title="Copies", lead=lead, blocks=(html.Strips(items=tuple(map(_strip, pairs))),)
    )


_CERTAIN = "The same picture with two labels: one is wrong."
_ALIKE = "Much alike, with two labels: if it is the same picture, one is wrong."


def _strip(pair: Double) -> html.Strip:
    one, two = pair.faces
    labels = one.label if one.label == two.label else f"{one.label} and {two.label}"
    kind = "equal pixels" if pair.exact else f"likeness {pair.likeness:.3f}"
    parts = f"in {one.part} alone" if one.part == two.part else f"{one.part} and {two.part}"
    return html.Strip(
        title=labels or parts,
        detail=", ".join([kind, parts, *(["mirrored"] if pair.mirrored else [])]),
        remark="" if one.label == two.label else _CERTAIN if pair.certain else _ALIKE,
        images=tuple(html.data_uri(face.picture, longest=224) for face in pair.faces),
        captions=tuple(f"{face.part}: {face.name}" for face in pair.faces),
        alts=tuple(f"{face.name}, labelled {face.label}" for face in pair.faces),
        crisp=max(one.picture.shape[:2]) <= 64,
    )


def _classes(told: Mapping[str, Any]) -> html.Section | None:
    """Samples of each class in each part, and how often networks agree with the labels."""
    if not told["classes"]:
        return None
    parts = list(told["splits"])
    judged = [part for part in parts if part in told["classes"][0]["agreement"]]
    rows = tuple(
        (
            one["name"],
            *(html.Cell(text=f"{one['n'][part]:,}", order=one["n"][part]) for part in parts),
            *(_share(one["agreement"][part]) for part in judged),
        )
        for one in told["classes"]
    )
    table = html.Table(
        caption="Pictures of each class, and how many of their labels networks agree with",
        columns=("Class", *parts, *(f"{part}: agreed" for part in judged)),
        rows=rows,
        numeric=tuple(range(1, 1 + len(parts) + len(judged))),
    )
    return html.Section(title="Classes", blocks=(table,))


def _share(value: float | None) -> html.Cell:
    return (
        html.Cell(text="–") if value is None else html.Cell(text=words.percent(value), order=value)
    )


def _how(told: Mapping[str, Any]) -> html.Section:
    """How it was found."""
    lines = [
        "Copies: grey thumbnails, without mean, contrast and slow shading, laid over each other "
        "where they fit best, also mirrored; likeness is their correlation, and "
        f"{told['duplicates']['threshold']:.3f} was asked for, from how alike pictures of this set "
        "are that are no copies; less of a pair that stands out from all else like it.",
    ]
    if told["folds"]:
        lines.append(
            f"Labels: {told['folds']} networks ({told['model']}), each trained without one fold, "
            "copies kept in one fold; ranked by how unlikely the label is. How many are wrong "
            "at most: wrong labels drawn by chance are as likely to the networks as classes that a "
            "picture is not of, and labels so unlikely are no fewer (Blanchard et al. 2010)."
        )
    lines.append(f"It took {told['seconds']:.0f} s.")
    return html.Section(title="How this was found", blocks=(html.Lines(items=tuple(lines)),))
