"""A `Page` of plain nouns becomes one self-contained HTML file. Floor 1, room html; no torch.

May import floor 0, jinja2, NumPy and Pillow. Everything is inlined: the style, the small script,
pictures as data URIs, plots as SVG. The page opens offline, reads well without its script, follows
the reader's light or dark setting, prints, and fits a telephone.

Names of classes and files are hostile input. Three walls stand against them: jinja2 escapes every
value, characters that cannot be seen are spelled out (`printable`), and the page's own content
security policy allows no script but ours, by its hash, and no address at all.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from neocog.files import write_atomic
from neocog.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from jinja2 import Template
    from numpy.typing import NDArray

__all__ = [
    "Block",
    "Cell",
    "Code",
    "Facts",
    "Figure",
    "Headline",
    "Key",
    "Lines",
    "Note",
    "Page",
    "Picture",
    "Pictures",
    "Section",
    "Strip",
    "Strips",
    "Table",
    "data_uri",
    "png_uri",
    "render",
    "write",
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
        _check_image(self.image)


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

    def __post_init__(self) -> None:
        _check_colour(self.colour)


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

    def __post_init__(self) -> None:
        _check_image(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """A grid of pictures."""

    tag: ClassVar[str] = "pictures"
    items: tuple[Picture, ...]
    """In reading order."""


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
            _check_image(image)


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
            _check_colour(colour)


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


Block = Figure | Table | Pictures | Strips | Key | Facts | Lines | Code | Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, what it says in one paragraph, and what shows it."""

    title: str
    """The heading."""
    lead: str = ""
    """The finding in words, before the blocks."""
    blocks: tuple[Block, ...] = ()
    """In reading order; small figures stand side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The one number that a reader came for."""

    number: str
    """As it is written large: `98.3 %`."""
    words: str
    """What it is, of what, with its interval."""
    ruler: tuple[float, float, float] | None = None
    """Low, value and high as shares of 1: drawn on a line from 0 to 1."""
    mark: tuple[float, str] | None = None
    """A share to compare with, and its name: drawn on the same line."""

    def __post_init__(self) -> None:
        shares = (*(self.ruler or ()), *((self.mark[0],) if self.mark else ()))
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"a ruler shows shares of 1, found {shares}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One file to show to each other."""

    title: str
    """The heading and the name of the browser's tab."""
    subtitle: str = ""
    """One sentence below it."""
    kind: str = "report"
    """What sort of page this is, set small above the title."""
    headline: Headline | None = None
    """The number, where there is one."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values worth seeing at once."""
    notes: tuple[Note, ...] = ()
    """Remarks above all sections."""
    sections: tuple[Section, ...] = ()
    """In reading order; more than two get a table of contents."""
    footer: str = ""
    """A last line: who made the page."""


def data_uri(pixels: NDArray[np.uint8], *, longest: int = 320) -> str:
    """A picture as a data URI.

    Small pictures stay exact (PNG); larger ones are shrunk and become JPEG where that is smaller.

    Args:
        pixels: H×W, H×W×1 or H×W×3, uint8.
        longest: longest side in pixels; a larger picture is shrunk to it.

    Raises:
        ValueError: other shapes or types.
    """
    from PIL import Image

    if pixels.dtype != "uint8" or pixels.ndim not in (2, 3) or pixels.size == 0:
        raise ValueError(f"expected H×W×C uint8, found {pixels.shape} {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, found {pixels.shape[2]}")
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)

    def encoded(name: str, **settings: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, name, **settings)
        return buffer.getvalue()

    if max(picture.size) > 64:
        jpeg = encoded("jpeg", quality=88, subsampling=0)
        # A photograph is no smaller as a PNG, and to make it as small as it gets takes a hundred
        # times as long as the JPEG; a quick one tells.
        if len(encoded("png", compress_level=1)) > 2 * len(jpeg):
            return _uri("jpeg", jpeg)
        return min(_uri("jpeg", jpeg), _uri("png", encoded("png", optimize=True)), key=len)
    return _uri("png", encoded("png", optimize=True))


def png_uri(data: bytes) -> str:
    """A PNG as a data URI, byte for byte: for masks, which no shrinking may blur.

    Raises:
        ValueError: no PNG.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"expected the bytes of a PNG, found {data[:8]!r}")
    return _uri("png", data)


def _uri(name: str, data: bytes) -> str:
    return f"data:image/{name};base64,{base64.b64encode(data).decode()}"


def _check_colour(colour: str) -> None:
    """A colour or none: it goes into a style, where other text could do more than colour.

    Raises:
        ValueError: anything but `#rrggbb`.
    """
    if colour and not re.fullmatch(r"#[0-9a-f]{6}", colour):
        raise ValueError(f"expected a colour as #rrggbb, found {colour!r}")


def _check_image(image: str) -> None:
    """A data URI of a picture, or nothing.

    Raises:
        ValueError: anything else, an address above all.
    """
    if image and not re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+\Z", image):
        raise ValueError("expected a data URI from data_uri, found another address")


def _anchors(titles: tuple[str, ...]) -> list[str]:
    """One unique fragment name for each title."""
    anchors: list[str] = []
    for title in titles:
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        # The prefix keeps titles apart from the template's own names.
        anchor = base = f"s-{slug}"
        count = 2
        while anchor in anchors:
            anchor, count = f"{base}-{count}", count + 1
        anchors.append(anchor)
    return anchors


def _finalize(value: Any) -> Any:
    """Every value that the template prints goes through here before it is escaped."""
    return printable(value, lines=True) if type(value) is str else value


@functools.cache
def _template() -> Template:
    """The compiled template, with style and script as trusted text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    folder = resources.files(__name__)
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("neocog", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        style=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )
    return environment.get_template("page.html.j2")


def render(page: Page) -> str:
    """The whole file. Equal pages give equal text.

    >>> "&lt;b&gt;" in render(Page(title="<b>"))
    True
    """
    anchors = _anchors(tuple(section.title for section in page.sections))
    return _template().render(page=page, anchors=anchors)


def write(page: Page, path: Path) -> Path:
    """Render into `path`, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    write_atomic(path, render(page))
    return path
