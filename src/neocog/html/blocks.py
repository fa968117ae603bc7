"""The blocks that a page is made of: plain nouns, checked when they are made. Room html; floor 1.

Standard library and this room. Blocks with a script of their own have files of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from neocog.html.pictures import check_anchor, check_colour, check_image

__all__ = [
    "Cell",
    "Code",
    "Facts",
    "Figure",
    "Key",
    "Lines",
    "Note",
    "Picture",
    "Pictures",
    "Strip",
    "Strips",
    "Table",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing or a picture with a caption. Exactly one of `svg` and `image` is set."""

    tag: ClassVar[str] = "figure"
    alt: str
    """What the figure shows, for those who cannot see it."""
    caption: str = ""
    """What to look at; shown below."""
    svg: str = ""
    """An `<svg>` element as `neocog.plots.svg` makes it. It is trusted: never build it from text
    that came from outside without escaping."""
    image: str = ""
    """A data URI from `data_uri`."""
    rows: tuple[str, ...] = ()
    """Names of equally high rows of `image`, written beside them."""
    crisp: bool = False
    """Enlarge a tiny `image` to squares of colour instead of a blur."""

    def __post_init__(self) -> None:
        if bool(self.svg) == bool(self.image):
            raise ValueError("a figure has either svg or image, expected exactly one")
        if self.svg and (not self.svg.startswith("<svg") or "<script" in self.svg.lower()):
            raise ValueError("expected an <svg> element without scripts, as plots.svg makes it")
        check_image(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A table's cell that says more than a word."""

    text: str
    """The cell."""
    detail: str = ""
    """Smaller text after it, such as an interval."""
    order: float | None = None
    """What the column sorts by; None: the text."""
    colour: str = ""
    """`#rrggbb` of a patch before the text: the class in a mask."""
    link: str = ""
    """Anchor of a picture on the same page that the text leads to."""

    def __post_init__(self) -> None:
        check_colour(self.colour)
        check_anchor(self.link)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under named columns; the first column names its row."""

    tag: ClassVar[str] = "table"
    caption: str
    """What the table holds."""
    columns: tuple[str, ...]
    """Column names."""
    rows: tuple[tuple[Cell | str, ...], ...]
    """Each as long as `columns`."""
    numeric: tuple[int, ...] = ()
    """Positions of columns that hold numbers: set to the right, digits under digits."""
    folded: bool = False
    """Closed until the reader opens it: for long tables."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"expected rows of {len(self.columns)} cells, found {len(row)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture of a grid."""

    image: str
    """A data URI from `data_uri`."""
    alt: str
    """What it shows."""
    title: str
    """First line below it."""
    contrast: str = ""
    """Set against the title after an arrow: the wrong answer after the truth."""
    detail: str = ""
    """Second line."""
    source: str = ""
    """Third line, small: where it comes from."""
    crisp: bool = False
    """Enlarge tiny pictures to squares of colour instead of a blur."""
    anchor: str = ""
    """What a `Cell.link` calls it; once on a page."""

    def __post_init__(self) -> None:
        check_image(self.image)
        check_anchor(self.anchor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """A grid of pictures."""

    tag: ClassVar[str] = "pictures"
    items: tuple[Picture, ...]
    """In reading order."""
    caption: str = ""
    """What they are; set above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Pictures that belong together, side by side; two a row on a telephone."""

    title: str
    """What they are of."""
    detail: str = ""
    """Found in them, set beside the title."""
    remark: str = ""
    """A second line."""
    images: tuple[str, ...]
    """Data URIs from `data_uri` or `png_uri`, of pictures of one shape."""
    captions: tuple[str, ...]
    """What each picture is, in a word or two."""
    alts: tuple[str, ...]
    """What each picture shows."""
    crisp: bool = False
    """Enlarge tiny pictures to squares of colour instead of a blur."""

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.captions) == len(self.alts):
            raise ValueError("expected a caption and an alt for each picture of a strip")
        for image in self.images:
            check_image(image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strips:
    """Strips, one below the other."""

    tag: ClassVar[str] = "strips"
    items: tuple[Strip, ...]
    """In reading order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What colours stand for."""

    tag: ClassVar[str] = "key"
    items: tuple[tuple[str, str], ...]
    """`#rrggbb` and its meaning."""

    def __post_init__(self) -> None:
        for colour, _ in self.items:
            check_colour(colour)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and values."""

    tag: ClassVar[str] = "facts"
    items: tuple[tuple[str, str], ...]
    """In reading order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Short sentences, one below the other."""

    tag: ClassVar[str] = "lines"
    items: tuple[str, ...]
    """In reading order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text to copy, letter by letter."""

    tag: ClassVar[str] = "code"
    text: str
    """Lines as they are."""
    caption: str = ""
    """What it is; the label of the fold where it is folded."""
    folded: bool = False
    """Closed until the reader opens it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A remark that must not be missed, or something that is missing and why."""

    tag: ClassVar[str] = "note"
    text: str
    """One or two sentences."""
    kind: Literal["note", "warning"] = "note"
    """`warning` where a reader could draw a wrong conclusion."""
