"""A picture beside what kernels make of it, each kernel written below. Room plots; floor 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.plots.style import FAINT, INK, MUTED, blank, diverging, label, plain, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["Filtered", "filters"]

_MOST_COLUMNS = 4
_SIDES = (210, 320)
"""Width of a picture in the figure: of a small one, of a photograph. A tall picture is narrower, so
that its height is at most half as much again."""
_GAP = 22
_TITLE = 24
_SCALE = 34
"""Room between a picture and its matrix: the scale of its colours."""
_LINE = 17
"""Height of a row of numbers."""
_WRITTEN = 7
"""Sides of a matrix up to which its numbers are written out; beyond, it is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """What one kernel made of a picture."""

    name: str
    """The kernel's."""
    values: NDArray[np.floating] | NDArray[np.uint8]
    """Signed: H×W. Else H×W or H×W×3, uint8."""
    signed: bool
    """Whether the values are shown around 0: negative ones in blue, positive ones in orange."""
    rows: Sequence[Sequence[str]]
    """The kernel's numbers, as they are written."""
    divisor: int = 1
    """Divides all of them."""
    remark: str = ""
    """Written below the picture; where it is signed, beside the scale."""


def filters(original: NDArray[np.uint8], answers: Sequence[Filtered], *, remark: str) -> Figure:
    """The original, then one picture a kernel, at most four in a row.

    Args:
        original: H×W or H×W×3.
        answers: what kernels made of it.
        remark: written below the original.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("expected at least one answer")
    tall = original.shape[0] / original.shape[1]
    room = _SIDES[max(original.shape[:2]) > _SIDES[0]]
    wide = room if tall <= 1.5 else room * 1.5 / tall
    high = wide * tall
    cells = len(answers) + 1
    columns = -(-cells // -(-cells // _MOST_COLUMNS))  # of equally many rows, the most even ones
    rows = [(None, *answers)[at : at + columns] for at in range(0, cells, columns)]
    heights = [_TITLE + high + _SCALE + _lines(row) * _LINE + _GAP for row in rows]
    with styled():
        figure = blank(columns * (room + _GAP) + _GAP, sum(heights) + _GAP / 2)
        figure.set_layout_engine("none")
        top = _GAP / 2
        for row, height in zip(rows, heights, strict=True):
            for column, one in enumerate(row):
                left = _GAP + column * (room + _GAP)
                cell = _Cell(figure, (left, top), (wide, high), room)
                if one is not None:
                    cell.answer(one)
                else:
                    cell.title("original")
                    cell.picture(original)
                    cell.remark(remark)
            top += height
    return figure


def _lines(row: Sequence[Filtered | None]) -> int:
    """Rows of the tallest matrix among these."""
    return max(0 if one is None else min(len(one.rows), _WRITTEN) for one in row)


class _Cell:
    """One picture with what is written above and below it; places in units from the top left."""

    def __init__(
        self,
        figure: Figure,
        corner: tuple[float, float],
        size: tuple[float, float],
        room: float,
    ) -> None:
        self._figure = figure
        self._room = room
        self._left, self._top = corner
        self._wide, self._high = size
        self._below = self._top + _TITLE + self._high

    def _axes(self, left: float, top: float, wide: float, high: float) -> Axes:
        """Axes without ticks and lines, in units of the figure."""
        across, down = self._figure.get_size_inches() * 72
        axes = self._figure.add_axes(
            (left / across, 1 - (top + high) / down, wide / across, high / down)
        )
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
        return axes

    def _text(self, text: str, left: float, top: float, align: str = "left", **look: Any) -> None:
        across, down = self._figure.get_size_inches() * 72
        self._figure.text(left / across, 1 - top / down, text, ha=align, va="center", **look)

    def answer(self, one: Filtered) -> None:
        """Name, picture, scale and matrix of one kernel."""
        self.title(one.name)
        if one.signed:
            bound = _bound(one.values)
            self.picture(one.values, bound)
            self._scale(bound, one.remark)
        else:
            self.picture(one.values)
            self.remark(one.remark)
        if max(len(one.rows), len(one.rows[0])) <= _WRITTEN:
            self._matrix(one)
        else:
            self._drawn(one)

    def title(self, text: str) -> None:
        """Bold, above the picture."""
        self._text(label(text, 26), self._left, self._top + 11, size=12, weight="bold", color=INK)

    def remark(self, text: str) -> None:
        """Small, below the picture."""
        self._text(text, self._left, self._below + 13, size=9.5, color=MUTED)

    def picture(self, values: NDArray[np.generic], bound: float | None = None) -> None:
        """Pixels as squares where they are few; `bound` makes it a map around 0."""
        axes = self._axes(self._left, self._top + _TITLE, self._wide, self._high)
        axes.set_frame_on(True)
        for spine in axes.spines.values():
            spine.set(visible=True, color=FAINT, linewidth=0.8)
        few = values.shape[1] < self._wide
        least, most = (0.0, 255.0) if bound is None else (-bound, bound)
        axes.imshow(
            values,
            interpolation="none" if few else "auto",
            # Where many pixels become one, the mean of their values is shown: the mean of blue
            # and orange would be a grey that stands for no value at all.
            interpolation_stage="data",
            cmap="gray" if bound is None else diverging(),
            vmin=least,
            vmax=most,
            aspect="auto",
        )

    def _scale(self, bound: float, remark: str) -> None:
        """A strip from −bound to bound."""
        wide, top = 96, self._below + 8
        axes = self._axes(self._left, top, wide, 6)
        axes.imshow(np.linspace(-1, 1, 192)[None], cmap=diverging(), aspect="auto")
        small = {"size": 9.5, "color": MUTED}
        for share, align, value in ((0, "left", -bound), (0.5, "center", 0.0), (1, "right", bound)):
            self._text(
                plain(float(f"{value:.2g}")), self._left + share * wide, top + 14, align, **small
            )
        self._text(remark, self._left + self._room, top + 3, "right", **small)

    def _matrix(self, one: Filtered) -> None:
        """The kernel's numbers between brackets, its divisor before them."""
        high = len(one.rows) * _LINE
        before = f"1/{one.divisor} ·" if one.divisor != 1 else ""
        indent = 5.6 * len(before) + 4 if before else 0.0
        longest = max(len(text) for row in one.rows for text in row)
        step = min(8.0 + 6.6 * longest, (self._room - indent - 14) / len(one.rows[0]))
        size = min(10.5, 1.45 * step / max(longest, 1))
        wide, top, left = step * len(one.rows[0]) + 8, self._below + _SCALE, self._left + indent
        if before:
            self._text(before, self._left, top + high / 2, size=10.5, color=MUTED)
        for row, texts in enumerate(one.rows):
            for column, text in enumerate(texts):
                where = (left + 4 + step * (column + 0.5), top + _LINE * (row + 0.5))
                shown = text.replace("-", "−")
                color = MUTED if float(text.split("/")[0]) == 0 else INK
                self._text(shown, *where, "center", size=size, color=color)
        axes = self._axes(left, top, wide, high)
        axes.set(xlim=(0, wide), ylim=(high, 0))
        for edge, inner in ((0.5, 4), (wide - 0.5, wide - 4)):
            axes.plot((inner, edge, edge, inner), (0.5, 0.5, high - 0.5, high - 0.5), color=MUTED)
            axes.lines[-1].set(linewidth=1.0, solid_capstyle="butt", clip_on=False)

    def _drawn(self, one: Filtered) -> None:
        """A large kernel as a picture of its own."""
        weights = np.array([[_number(text) for text in row] for row in one.rows]) / one.divisor
        side = _WRITTEN * _LINE
        tall = weights.shape[0] / weights.shape[1]
        high, wide = (side, side / tall) if tall >= 1 else (side * tall, side)
        bound = float(abs(weights).max()) or 1.0
        axes = self._axes(self._left, self._below + _SCALE, wide, high)
        axes.imshow(
            weights, cmap=diverging(), vmin=-bound, vmax=bound, interpolation="none", aspect="auto"
        )
        text = f"{plain(float(f'{weights.min():.2g}'))}\nto {plain(float(f'{weights.max():.2g}'))}"
        self._text(
            text, self._left + wide + 8, self._below + _SCALE + high / 2, size=9.5, color=MUTED
        )


def _number(text: str) -> float:
    """What a written number is.

    >>> _number("-0.5"), _number("1/4")
    (-0.5, 0.25)
    """
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def _bound(values: NDArray[np.generic]) -> float:
    """How far the scale of a signed map goes to either side.

    The hundredth part of the pixels with the strongest answers may lie beyond: one glint would
    leave the rest of a photograph pale.
    """
    return float(np.quantile(np.abs(values), 0.99)) or float(np.abs(values).max()) or 1.0
