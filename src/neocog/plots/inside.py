"""What is inside a network, as tiles: kernels, feature maps, exciting patches. Room plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog.plots.style import INK, MUTED, blank, diverging, label, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["TileRow", "tiles"]

_WIDTH = 860
_GAP = 5
_NAME = 26
"""Room above a row for its name."""
_WORD = 13
"""Room below a tile for its caption."""
_BESIDE = 132
"""Room for a name beside its row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRow:
    """Tiles that belong together; they take as many lines as they need."""

    name: str
    """The layer, the kernel, the channel."""
    tiles: Sequence[NDArray[np.uint8]]
    """h×w or h×w×3 each; they may differ in shape."""
    detail: str = ""
    """Behind the name, smaller."""
    captions: Sequence[str] = ()
    """Below the tiles; none, or one for each."""
    signed: bool = False
    """Whether a grey value of 128 stands for 0: below it is blue, above it orange."""


def tiles(
    rows: Sequence[TileRow],
    *,
    title: str,
    remark: str = "",
    side: float = 52,
    beside: bool = False,
    columns: int = 0,
) -> Figure:
    """Rows of tiles, each of one size on the page, small ones as squares of colour.

    Args:
        rows: from the top.
        title: of the figure.
        remark: below the title: what the colours mean.
        side: the longer side of a tile, in the figure.
        beside: names stand left of their rows, not above them: for rows of one line.
        columns: tiles in a line; 0: as many as fit.

    Raises:
        ValueError: nothing to show, or captions that are not one for each tile.
    """
    if not rows or not all(len(row.tiles) for row in rows):
        raise ValueError("expected rows of at least one tile")
    if any(row.captions and len(row.captions) != len(row.tiles) for row in rows):
        raise ValueError("expected a caption for each tile of a row, or none")
    left = _BESIDE if beside else 0
    most = columns or max(1, int((_WIDTH - left + _GAP) // (side + _GAP)))
    longest = min(most, max(len(row.tiles) for row in rows))
    wide = max(left + longest * (side + _GAP) - _GAP, 320)
    top = 22.0 + (18 if remark else 0)
    heights = [_height(row, side, most, beside) for row in rows]
    with styled():
        figure = blank(wide + 4, top + sum(heights) + 4)
        board = _Board(figure, (wide + 4, top + sum(heights) + 4))
        board.text(title, 0, 8, size=12, weight="bold", color=INK, width=int(wide / 7))
        if remark:
            board.text(remark, 0, 27, size=9.5, color=MUTED, width=int(wide / 5))
        for row, height in zip(rows, heights, strict=True):
            board.row(row, (left, top), side, most, beside)
            top += height
    return figure


def _line(row: TileRow, side: float) -> float:
    """Height of one line of tiles: wide tiles are low."""
    tall: float = max(min(1.0, tile.shape[0] / tile.shape[1]) for tile in row.tiles)
    return side * tall + (_WORD if row.captions else 0) + _GAP


def _height(row: TileRow, side: float, most: int, beside: bool) -> float:
    lines = -(-len(row.tiles) // most)
    return (4 if beside else _NAME) + lines * _line(row, side) + (0 if beside else 6)


class _Board:
    """A figure to put things on, in its units from the top left."""

    def __init__(self, figure: Figure, size: tuple[float, float]) -> None:
        figure.set_layout_engine("none")
        figure.suppressComposite = True  # each tile keeps its own few pixels
        self._axes: Axes = figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(-2, size[0] - 2), ylim=(size[1], 0))
        self._axes.set_axis_off()

    def text(self, text: str, x: float, y: float, *, width: int, **look: Any) -> None:
        """One line, centred at a height."""
        look = {"ha": "left", "va": "center", **look}
        self._axes.text(x, y, label(text, width), **look)

    def row(
        self, row: TileRow, corner: tuple[float, float], side: float, most: int, beside: bool
    ) -> None:
        """A row with its name."""
        left, top = corner
        if beside:
            self.text(row.name, 0, top + side / 2 - 6, size=11, color=INK, width=18)
            self.text(row.detail, 0, top + side / 2 + 9, size=9.5, color=MUTED, width=24)
        else:
            self.text(row.name, 0, top + 14, size=11, color=INK, width=60)
            self._detail(row, top + 14)
            top += _NAME
        line = _line(row, side)
        room = line - _GAP - (_WORD if row.captions else 0)
        # One scale for a row: what was cut off at the edge of a picture looks smaller.
        high, wide = (max(tile.shape[axis] for tile in row.tiles) for axis in (0, 1))
        scale = min(side / wide, room / high)
        for at, tile in enumerate(row.tiles):
            x, y = left + at % most * (side + _GAP), top + at // most * line
            middle = (x + side / 2, y + room / 2)
            self._tile(tile, middle, scale, row.signed)
            if row.captions:
                look: dict[str, Any] = {"ha": "center", "size": 8.5, "color": MUTED}
                width = max(4, int(side / 4.6))
                self.text(row.captions[at], x + side / 2, y + room + 7, width=width, **look)

    def _detail(self, row: TileRow, y: float) -> None:
        """Behind the name, however wide that is."""
        self._axes.annotate(
            row.detail,
            (1, 0.5),
            (8, 0),
            xycoords=self._axes.texts[-1],
            textcoords="offset points",
            ha="left",
            va="center",
            size=9.5,
            color=MUTED,
        )

    def _tile(
        self,
        pixels: NDArray[np.uint8],
        middle: tuple[float, float],
        scale: float,
        signed: bool,
    ) -> None:
        """A picture around a place."""
        high, wide = pixels.shape[:2]
        x, y = middle[0] - wide * scale / 2, middle[1] - high * scale / 2
        flat = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
        self._axes.imshow(
            flat,
            extent=(x, x + wide * scale, y + high * scale, y),
            interpolation="none" if scale >= 1 else "auto",
            cmap=diverging() if signed else "gray",
            vmin=1 if signed else 0,  # so that 128 is the very middle
            vmax=255,
            aspect="auto",
        )
