"""Where pictures lie to a network, what its first layer looks for, its numbers to click through.

Room report; floor 4. Some of these sections the page about a network has, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from neocog import html, plots
from neocog.html import words
from neocog.html.scatter import Scatter, View, sprite
from neocog.plots.inside import TileRow, tiles
from neocog.plots.masks import palette

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neocog.explain.look.sheets import Tiles
    from neocog.report.nouns import Finished

__all__ = ["Points", "clicked", "kernels", "points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Pictures as points, by what the network makes of them last."""

    layer: str
    """The layer that reads it."""
    part: str
    """Part of the data that they are of."""
    principal: NDArray[np.floating]
    """N×2, along the first two principal components."""
    explained: tuple[float, float]
    """The shares of the variance along them."""
    neighbours: NDArray[np.floating] | None
    """N×2, t-SNE; None for too few points."""
    kinds: Sequence[int]
    """N, the class of each."""
    classes: Sequence[str]
    """Their names."""
    titles: Sequence[str]
    """N, what each is."""
    pictures: Sequence[NDArray[np.uint8]]
    """N, h×w×C."""
    wrong: frozenset[int]
    """Those that are answered wrongly."""


class _Shown(Protocol):
    """What a page has to show of them."""

    @property
    def points(self) -> Points | None:
        """The embedding."""

    @property
    def kernels(self) -> tuple[Tiles, str] | None:
        """Of the first layer, and its name."""


def points(run: _Shown) -> html.Section | None:
    """What lies together is the same to the network."""
    one = run.points
    if one is None:
        return None
    shares = tuple(words.percent(share) for share in one.explained)
    views = [
        View(
            name="principal components",
            places=_places(one.principal),
            remark=f"{shares[0]} of the variance lie across, {shares[1]} upwards. Distances mean "
            "what they are.",
            alt="The pictures along the two directions in which their features spread most.",
        )
    ]
    if one.neighbours is not None:
        views.insert(
            0,
            View(
                name="neighbours (t-SNE)",
                places=_places(one.neighbours),
                remark="Neighbours stay neighbours; how far groups lie apart, and how large they "
                "are, means nothing.",
                alt="The pictures such that those with like features lie together.",
            ),
        )
    lead = (
        f"Each point is a picture of the {one.part} part, placed by what goes into "
        f"{one.layer or 'the output layer'}: the answer is made of that and nothing else. Pictures "
        "that lie together are the same to the network; one amid another class is a hard one, or "
        "has a wrong label. Point at it, touch it, or go there with the arrow keys."
    )
    block = Scatter(
        views=tuple(views),
        kinds=tuple(one.kinds),
        classes=tuple(one.classes),
        colours=tuple("#{:02x}{:02x}{:02x}".format(*row) for row in palette(len(one.classes))),
        titles=tuple(one.titles),
        sprite=sprite(one.pictures, side=32),
        marked=one.wrong,
        mark="answered wrongly" if one.wrong else "",
    )
    return html.Section(title="Where pictures lie", lead=lead, blocks=(block,))


def _places(places: NDArray[np.floating]) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in places)


def kernels(run: _Shown) -> html.Section | None:
    """What the first layer looks for."""
    if run.kernels is None:
        return None
    one, layer = run.kernels
    row = TileRow(
        name=layer or "first layer",
        tiles=list(one.pixels),
        detail=words.count(len(one.pixels), "kernel"),
        signed=one.scale == "signed" and one.pixels.ndim == 3,
    )
    drawn = plots.svg(tiles([row], title="Kernels of the first layer", side=44))
    figure = html.Figure(
        svg=drawn,
        alt=f"The {len(one.pixels)} kernels of {layer}, each scaled for itself.",
        caption="Edges, bars and blobs of colour are what a trained first layer looks for; noise "
        "means that it has not learnt much. Each kernel has a scale of its own.",
    )
    return html.Section(title="What the first layer looks for", blocks=(figure,))


def clicked(run: Finished) -> html.Section | None:
    """Any activation of one picture, and its arithmetic."""
    if run.clicked is None:
        return None
    name, block = run.clicked
    lead = (
        f"Every number that the network computed for {name}, and the sum that made it: choose a "
        "layer, a channel and a place, and go from number to number down to the pixels. "
        "`neocog explain` shows it for any picture."
    )
    return html.Section(title="From a number to the pixels", lead=lead, blocks=(block,))
