"""Pictures as points, which show themselves when they are pointed at. Room html; floor 1.

May import NumPy, Pillow and this room. All pictures of a block lie in one sheet, so that a thousand
of them are one data URI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from neocog.html.pictures import check_colour, check_image, data_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Scatter", "Sprite", "View", "sprite"]

_WIDE = 1000
"""Width of a drawing, in its own units."""
_EDGE = 24
"""Room around the outermost points."""
_LOW, _HIGH = 500, 1000
"""Bounds of its height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprite:
    """Many small pictures in one, in rows of squares."""

    image: str
    """A data URI from `data_uri`."""
    side: int
    """Of a square, in pixels."""
    columns: int
    """Squares in a row."""
    count: int
    """Pictures."""

    def __post_init__(self) -> None:
        check_image(self.image)
        if min(self.side, self.columns) < 1:
            raise ValueError(f"expected squares in rows, found {self.side}, {self.columns}")


def sprite(pictures: Sequence[NDArray[np.uint8]], *, side: int = 24) -> Sprite:
    """Pack pictures into one sheet: each in the middle of its square, shrunk where it is larger.

    Args:
        pictures: h×w, h×w×1 or h×w×3, uint8.
        side: of a square in pixels; less where all pictures are smaller.

    Raises:
        ValueError: no pictures, or other shapes and types.
    """
    from PIL import Image

    if not len(pictures):
        raise ValueError("expected pictures to pack, found none")
    side = min(side, max(max(one.shape[:2]) for one in pictures))
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * side, rows * side), (128, 128, 128))
    for at, pixels in enumerate(pictures):
        if pixels.dtype != np.uint8 or (pixels.ndim != 2 and pixels.shape[2:] not in ((1,), (3,))):
            raise ValueError(f"expected h×w×C uint8, found {pixels.shape} {pixels.dtype}")
        one = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
        if max(one.size) > side:
            one.thumbnail((side, side), Image.Resampling.LANCZOS)
        left, top = at % columns * side, at // columns * side
        sheet.paste(one, (left + (side - one.width) // 2, top + (side - one.height) // 2))
    grey = all(one.ndim == 2 or one.shape[2] == 1 for one in pictures)
    packed = np.asarray(sheet.convert("L") if grey else sheet)
    image = data_uri(packed, longest=max(packed.shape))
    return Sprite(image=image, side=side, columns=columns, count=len(pictures))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way to lay the points out."""

    name: str
    """Above the drawing."""
    places: tuple[tuple[float, float], ...]
    """x and y of each point, y upwards, one unit for both."""
    remark: str = ""
    """Below it: what lies along the axes, what distances mean."""
    alt: str
    """What it shows, for those who cannot see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Points coloured by class, in one or more views side by side. A point that is pointed at,
    touched or reached by the arrow keys shows its picture, and is marked in all views."""

    tag: ClassVar[str] = "scatter"
    views: tuple[View, ...]
    """In reading order, of the same points."""
    kinds: tuple[int, ...]
    """The class of each point."""
    classes: tuple[str, ...]
    """Names of the classes."""
    colours: tuple[str, ...]
    """`#rrggbb` of each class."""
    titles: tuple[str, ...]
    """What each picture is, in a few words."""
    sprite: Sprite
    """The pictures, in the order of the points."""
    marked: frozenset[int] = frozenset()
    """Points with a rim."""
    mark: str = ""
    """What a rim means."""

    def __post_init__(self) -> None:
        count = len(self.kinds)
        lengths = {len(self.titles), self.sprite.count, *(len(one.places) for one in self.views)}
        if lengths != {count} or not count or not self.views:
            raise ValueError(
                f"expected a place in each view, a title and a picture for each of {count} points, "
                f"found {sorted(lengths)}"
            )
        if len(self.classes) != len(self.colours) or not set(self.kinds) <= set(
            range(len(self.classes))
        ):
            raise ValueError("expected a name and a colour for each class of a point")
        if not all(math.isfinite(one) for v in self.views for place in v.places for one in place):
            raise ValueError("expected finite places")
        if self.marked and not (self.mark and self.marked <= set(range(count))):
            raise ValueError("expected rims around points of the drawing, and what they mean")
        for colour in self.colours:
            check_colour(colour)

    @property
    def radius(self) -> int:
        """Of a point: the fewer, the larger."""
        return round(min(11, max(5, 220 / math.sqrt(len(self.kinds)))))

    @property
    def key(self) -> tuple[tuple[int, str, str, int], ...]:
        """Number, colour and name of each class that has points, and how many it has."""
        counts = [0] * len(self.classes)
        for kind in self.kinds:
            counts[kind] += 1
        parts = enumerate(zip(self.colours, self.classes, counts, strict=True))
        return tuple((at, *part) for at, part in parts if part[2])

    def drawn(self, view: View) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Height of a view's drawing, and where each point lies in it."""
        xs, ys = zip(*view.places, strict=True)
        across, up = max(xs) - min(xs), max(ys) - min(ys)
        inner = _WIDE - 2 * _EDGE
        high = min(_HIGH, max(_LOW, round(inner * up / across) + 2 * _EDGE if across else _HIGH))
        scale = min(
            inner / across if across else math.inf, (high - 2 * _EDGE) / up if up else math.inf
        )
        scale = scale if math.isfinite(scale) else 0.0
        middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)

        def points() -> Iterator[tuple[int, int]]:
            for x, y in view.places:
                yield (
                    round(_WIDE / 2 + (x - middle[0]) * scale),
                    round(high / 2 - (y - middle[1]) * scale),
                )

        return high, tuple(points())
