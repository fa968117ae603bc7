"""Figures from plain numbers. Floor 1, room plots; no torch. May import NumPy and matplotlib.

Each function returns a `matplotlib.figure.Figure` made through the object interface: no pyplot, no
backend, no global state. matplotlib itself is imported on first use. The style lives in a context
of its own, so neither the reader's matplotlibrc nor the caller's settings change a figure, and a
figure does not change them. One unit of length is one pixel of the page; type is 11 units high.
Those of `masks` return pixels, or write them: masks are pictures already.

`svg` turns a figure into an element for a page: text stays text, and every colour of the palette
becomes a CSS variable (`--ink`, `--accent`, …) with the light value as fallback, so that one
drawing serves light and dark. Equal figures give equal bytes.

The two hues are a blue and an orange that stay apart for colour-blind readers and in grey; shape,
place or a label always says the same thing as the colour.
"""

from __future__ import annotations

from neocog.plots.classes import Whisker, balance, confused_pairs, confusion, pairs, whiskers
from neocog.plots.curves import Line, curves
from neocog.plots.embedding import embedding
from neocog.plots.field import effective
from neocog.plots.filters import Filtered, filters
from neocog.plots.inside import TileRow, tiles
from neocog.plots.masks import (
    VOID_COLOUR,
    WRONG_COLOUR,
    index_png,
    mistaken,
    overlay,
    palette,
    write_mask,
    write_overlay,
)
from neocog.plots.sheets import contact_sheet
from neocog.plots.style import svg
from neocog.plots.trust import Bin, reliability, residuals, scatter

__all__ = [
    "VOID_COLOUR",
    "WRONG_COLOUR",
    "Bin",
    "Filtered",
    "Line",
    "TileRow",
    "Whisker",
    "balance",
    "confused_pairs",
    "confusion",
    "contact_sheet",
    "curves",
    "effective",
    "embedding",
    "filters",
    "index_png",
    "mistaken",
    "overlay",
    "pairs",
    "palette",
    "reliability",
    "residuals",
    "scatter",
    "svg",
    "tiles",
    "whiskers",
    "write_mask",
    "write_overlay",
]
