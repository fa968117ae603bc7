"""The page about the inside of a trained network: what it looks for, and how far it holds. Floor 4,
room report; imports explain, html and plots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog import html, plots
from neocog.explain.still.changes import CHANGES
from neocog.html import words
from neocog.metrics import wilson
from neocog.plots.inside import TileRow, tiles
from neocog.plots.steady import Response, responses
from neocog.plots.surface import Track, landscape, relief
from neocog.report import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neocog.explain.landscape.surface import Surface
    from neocog.explain.look.sheets import Tiles
    from neocog.explain.still.steady import Steadiness
    from neocog.report.embedded import Points

__all__ = ["Dreamt", "Excited", "Landscape", "Within", "page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excited:
    """A channel, and what excites it most."""

    layer: str
    """Name of the layer's run."""
    channel: int
    """From 0."""
    patches: Sequence[NDArray[np.uint8]]
    """h×w×C, what the strongest answers see, the strongest first."""
    values: Sequence[float]
    """The answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dreamt:
    """A picture that was made for a class."""

    name: str
    """The class."""
    picture: NDArray[np.uint8]
    """H×W×C."""
    answer: str
    """What the network takes it for."""
    probability: float | None
    """Of that answer; None where the task gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """The loss on a plane through the weights."""

    title: str
    """What the plane is."""
    surface: Surface
    """The loss."""
    axes: tuple[str, str]
    """What lies along both directions."""
    track: Track | None = None
    """Where the training went, as far as it lies in the plane."""
    remark: str = ""
    """What is to be known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """What was found in a network."""

    title: str
    """Of the page."""
    subtitle: str
    """One sentence below it."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values worth seeing at once."""
    kernels: tuple[Tiles, str] | None = None
    """Of the first layer, and its name."""
    excited: Sequence[Excited] = ()
    """By layer, from the picture on."""
    dreams: Sequence[Dreamt] = ()
    """One for each class that was tried."""
    points: Points | None = None
    """The embedding."""
    steady: Steadiness | None = None
    """Answers to changed pictures."""
    landscapes: Sequence[Landscape] = ()
    """The loss around the weights."""
    missing: Sequence[str] = ()
    """What is not shown, and why."""
    version: str = ""
    """Of neocog."""


def page(found: Within) -> html.Page:
    """All of it as one page."""
    made = (embedded.points, embedded.kernels, _excited, _dreams, _steady, _landscapes)
    sections = [section for make in made if (section := make(found)) is not None]
    if found.missing:
        sections.append(
            html.Section(
                title="What is not shown", blocks=(html.Lines(items=tuple(found.missing)),)
            )
        )
    return html.Page(
        kind="inside a network",
        title=found.title,
        subtitle=found.subtitle,
        facts=found.facts,
        sections=tuple(sections),
        footer=f"Made by neocog {found.version}".strip()
        + ". This file needs nothing else and opens offline.",
    )


def _excited(found: Within) -> html.Section | None:
    """What channels answer to."""
    if not found.excited:
        return None
    blocks: list[html.Block] = []
    for layer in dict.fromkeys(one.layer for one in found.excited):
        rows = [
            TileRow(
                name=f"channel {one.channel}",
                detail=f"{words.number(max(one.values))} at most",
                tiles=one.patches,
            )
            for one in found.excited
            if one.layer == layer
        ]
        svg = plots.svg(tiles(rows, title=layer, side=64, beside=True))
        alt = f"Patches of pictures that excite {len(rows)} channels of {layer} most."
        blocks.append(html.Figure(svg=svg, alt=alt))
    lead = (
        "For some channels of some layers, from the picture on: the parts of pictures that they "
        "answer to most, each as large as the channel's receptive field. A row that shows one "
        "thing again and again is a channel that looks for it."
    )
    return html.Section(title="What excites its channels", lead=lead, blocks=tuple(blocks))


def _dreams(found: Within) -> html.Section | None:
    """What the network thinks classes look like."""
    if not found.dreams:
        return None
    items = []
    for one in found.dreams:
        sure = "" if one.probability is None else f"{words.percent(one.probability)}\u00a0sure"
        items.append(
            html.Picture(
                image=html.data_uri(one.picture, longest=192),
                alt=f"A picture made such that the network answers {one.name}.",
                title=one.name,
                contrast=one.answer if one.answer != one.name else "",
                detail=sure,
                crisp=max(one.picture.shape[:2]) <= 64,
            )
        )
    lead = (
        "From grey noise, a picture climbs towards the class, held back from becoming noise again "
        "by moving it about and by keeping neighbouring pixels alike. It shows what the network "
        "goes by, which need not be what people go by."
    )
    return html.Section(
        title="What it thinks a class looks like",
        lead=lead,
        blocks=(html.Pictures(items=tuple(items)),),
    )


def _steady(found: Within) -> html.Section | None:
    """Accuracy and confidence over changes."""
    one = found.steady
    if one is None:
        return None
    panels = list(_panels(one))
    told = panels[0].second != ()
    figure = html.Figure(
        svg=plots.svg(
            responses(
                panels,
                title=f"{'Accuracy' if told else 'Same answer'} while pictures change",
                value="accuracy" if told else "same answer",
            )
        ),
        alt="Accuracy and mean confidence over the amount of each change; the table has both.",
        caption="A confidence that stays high where accuracy falls is one not to trust there.",
    )
    share = wilson(one.consistent, one.n)
    value, low, high = words.percent_range(share)
    lead = (
        f"Shift consistency {value} (95\u00a0% interval {low} to {high}): how often the answers at "
        f"two random shifts of up to {words.count(one.reach, 'pixel')} agree, over {one.n:,} "
        "pictures (Zhang 2019)."
    )
    return html.Section(title="Does it hold still", lead=lead, blocks=(figure, _worst(one)))


def _panels(one: Steadiness) -> Iterator[Response]:
    """A small figure for each change."""
    for name, levels in one.changes.items():
        told = all(level.right is not None for level in levels)
        shares = [
            wilson(level.agree if level.right is None else level.right, level.n) for level in levels
        ]
        yield Response(
            name=name.replace("_", " "),
            unit=CHANGES[name].unit,
            levels=[level.level for level in levels],
            none=CHANGES[name].none,
            value=[share.value for share in shares],
            low=[share.low for share in shares],
            high=[share.high for share in shares],
            second=[level.confidence for level in levels] if told else (),
            log=name in ("scale", "brightness"),
        )


def _worst(one: Steadiness) -> html.Table:
    """Each change at its worst."""
    rows = []
    for name, levels in one.changes.items():
        low = min(levels, key=lambda level: level.agree)
        cells: list[html.Cell | str] = [
            name.replace("_", " "),
            f"{words.number(low.level)} {CHANGES[name].unit}".strip(),
            html.Cell(text=words.percent(low.agreement), order=low.agreement),
        ]
        right, sure = low.accuracy, low.confidence
        cells.append("–" if right is None else html.Cell(text=words.percent(right), order=right))
        cells.append(html.Cell(text=words.percent(sure), order=sure))
        rows.append(tuple(cells))
    return html.Table(
        caption="Where each change does most harm",
        columns=("Change", "At", "Same answer", "Accuracy", "Confidence"),
        rows=tuple(rows),
        numeric=(2, 3, 4),
    )


def _landscapes(found: Within) -> html.Section | None:
    """The loss around the weights."""
    if not found.landscapes:
        return None
    blocks: list[html.Block] = []
    for one in found.landscapes:
        made = one.surface
        at, track, title = made.centre, one.track, one.title
        flat = landscape(
            made.x, made.y, made.loss, centre=at, track=track, title=title, axes_names=one.axes
        )
        high = relief(made.x, made.y, made.loss, centre=at, track=track, title=title)
        alt = f"{one.title}: the loss is {words.number(made.centre)} in the middle."
        blocks += [
            html.Figure(svg=plots.svg(flat), alt=alt, caption=one.remark),
            html.Figure(svg=plots.svg(high), alt=f"{one.title}, as a relief."),
        ]
    samples = found.landscapes[0].surface.samples
    over = f" over {samples:,} pictures of the training part" if samples else ""
    lead = (
        f"The loss{over} where the weights are moved along two directions, the network in the "
        "middle. Random directions are made as long, filter by filter, as the network's own "
        "weights, so that the widths of two networks' valleys compare (Li et al. 2018)."
    )
    return html.Section(title="Where it sits", lead=lead, blocks=tuple(blocks))
