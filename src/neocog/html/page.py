"""A whole page: sections of blocks under a headline. Room html; floor 1."""

from __future__ import annotations

from dataclasses import dataclass

from neocog.html.blocks import (
    Code,
    Facts,
    Figure,
    Key,
    Lines,
    Note,
    Pictures,
    Strips,
    Table,
)
from neocog.html.scatter import Scatter
from neocog.html.tracer import Tracer

__all__ = ["Block", "Headline", "Page", "Section"]

Block = Figure | Table | Pictures | Strips | Key | Facts | Lines | Code | Note | Tracer | Scatter
"""Whatever stands in a section. `render` says what a further one brings along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, what it says in one paragraph, and what shows it."""

    title: str
    """The heading."""
    lead: str = ""
    """The finding in words, before the blocks."""
    blocks: tuple[Block, ...] = ()
    """In reading order; small figures stand side by side."""
    inner: bool = False
    """A part of the section before it: its heading is a smaller one, and not in the contents."""


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
