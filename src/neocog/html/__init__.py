"""A `Page` of plain nouns becomes one self-contained HTML file. Floor 1, room html; no torch.

May import floor 0, jinja2, NumPy and Pillow. Everything is inlined: the style, the small script,
pictures as data URIs, plots as SVG. The page opens offline, reads well without its script, follows
the reader's light or dark setting, prints, and fits a telephone.

Names of classes and files are hostile input. Three walls stand against them: jinja2 escapes every
value, characters that cannot be seen are spelled out (`printable`), and the page's own content
security policy allows no script but ours, by its hash, and no address at all.
"""

from __future__ import annotations

from neocog.html.blocks import (
    Cell,
    Code,
    Facts,
    Figure,
    Key,
    Lines,
    Note,
    Picture,
    Pictures,
    Strip,
    Strips,
    Table,
)
from neocog.html.page import Block, Headline, Page, Section
from neocog.html.pictures import data_uri, png_uri
from neocog.html.rendering import render, write
from neocog.html.scatter import Scatter, Sprite, View, sprite
from neocog.html.tracer import TracedField, TracedLayer, Tracer, fitted

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
    "Scatter",
    "Section",
    "Sprite",
    "Strip",
    "Strips",
    "Table",
    "TracedField",
    "TracedLayer",
    "Tracer",
    "View",
    "data_uri",
    "fitted",
    "png_uri",
    "render",
    "sprite",
    "write",
]
