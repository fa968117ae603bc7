"""A long drawing set in columns, as a newspaper sets its text. Floor 1, room html.

Standard library and this room. A cut is made only where one single line passes from rank to rank;
that line then goes round: down, along the gutter, and in again at the top of the next column.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.html.layered import Edge, Item, Layout, Point

__all__ = ["TURN", "wrapped"]

TURN = 18.0
"""Room above and below the columns for the lines that go round."""
_GUTTER = 56.0
_TALL = 1.25
"""Height to width that is looked for."""
_ENOUGH = 1100.0
"""What is no higher needs no second column."""


def wrapped(layout: Layout, items: Sequence[Item], edges: Sequence[Edge]) -> Layout:
    """The same layout in so many columns that it is about as wide as a sheet of paper.

    Args:
        layout: what `arrange` made of items and edges.
        items: the same.
        edges: the same.
    """
    if layout.height <= _ENOUGH:
        return layout
    cuts = _cuts(layout, edges)
    extents = _extents(layout, items, edges)
    best, badness = [0], math.inf
    for share in range(1, 65):
        starts = _filled(layout, cuts, layout.height * share / 64)
        columns = _columns(layout, starts, extents)
        width = sum(right - left for left, right, _ in columns) + _GUTTER * (len(columns) - 1)
        height = max(tall for *_, tall in columns)
        if any(tall < 0.5 * height for *_, tall in columns[:-1]):
            continue
        used = sum((right - left) * tall for left, right, tall in columns) / (width * height)
        found = abs(math.log(height / width / _TALL)) + 3 * (1 - used)
        if found < badness:
            best, badness = starts, found
    return _moved(layout, edges, best, _columns(layout, best, extents))


def _cuts(layout: Layout, edges: Sequence[Edge]) -> list[int]:
    """Ranks before which one may cut."""
    passing: list[set[Point]] = [set() for _ in layout.bands]
    for edge, route in zip(edges, layout.routes, strict=True):
        first = layout.rank[edge.source]
        for step in range(1, len(route) // 2):
            passing[first + step].add(route[2 * step - 1])
    return [rank for rank, found in enumerate(passing) if len(found) == 1]


def _extents(
    layout: Layout, items: Sequence[Item], edges: Sequence[Edge]
) -> list[tuple[float, float]]:
    """The outermost left and right of each rank."""
    found = [(math.inf, -math.inf)] * len(layout.bands)
    for item, x, rank in zip(items, layout.x, layout.rank, strict=True):
        low, high = found[rank]
        found[rank] = (min(low, x - item.left), max(high, x + item.right))
    for edge, route in zip(edges, layout.routes, strict=True):
        for at, (x, _) in enumerate(route):
            rank = layout.rank[edge.source] + at // 2
            found[rank] = (min(found[rank][0], x), max(found[rank][1], x))
    return found


def _filled(layout: Layout, cuts: Sequence[int], height: float) -> list[int]:
    """The first rank of each column, where every column is filled up to a height."""
    starts = [0]
    top = 0.0
    for at, cut in enumerate(cuts):
        following = cuts[at + 1] if at + 1 < len(cuts) else len(layout.bands)
        if layout.bands[following - 1][1] - top > height and cut > starts[-1]:
            starts.append(cut)
            top = layout.bands[cut][0]
    return starts


def _columns(
    layout: Layout, starts: Sequence[int], extents: Sequence[tuple[float, float]]
) -> list[tuple[float, float, float]]:
    """Left, right and height of each column."""
    ends = [*starts[1:], len(layout.bands)]
    return [
        (
            min(low for low, _ in extents[start:end]),
            max(high for _, high in extents[start:end]),
            layout.bands[end - 1][1] - layout.bands[start][0],
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def _moved(
    layout: Layout,
    edges: Sequence[Edge],
    starts: Sequence[int],
    columns: Sequence[tuple[float, float, float]],
) -> Layout:
    """Everything in its column."""
    height = max(tall for *_, tall in columns)
    of_rank, shifts, left = [], [], 0.0
    for number, (low, high, _) in enumerate(columns):
        end = starts[number + 1] if number + 1 < len(starts) else len(layout.bands)
        of_rank += [number] * (end - starts[number])
        shifts.append((left - low, -layout.bands[starts[number]][0]))
        left += high - low + _GUTTER
    routes = []
    for edge, route in zip(edges, layout.routes, strict=True):
        points: list[Point] = []
        for at, (x, y) in enumerate(route):
            column = of_rank[layout.rank[edge.source] + at // 2]
            before = of_rank[layout.rank[edge.source] + max(0, at - 1) // 2]
            there = (x + shifts[column][0], y + shifts[column][1])
            if column != before:
                gutter = shifts[column][0] + columns[column][0] - _GUTTER / 2
                low = columns[before][2] + TURN
                points += [(points[-1][0], low), (gutter, low), (gutter, -TURN), (there[0], -TURN)]
            points.append(there)
        routes.append(tuple(points))
    return replace(
        layout,
        x=tuple(
            x + shifts[of_rank[rank]][0] for x, rank in zip(layout.x, layout.rank, strict=True)
        ),
        top=tuple(
            y + shifts[of_rank[rank]][1] for y, rank in zip(layout.top, layout.rank, strict=True)
        ),
        bands=tuple(
            (top + shifts[of_rank[rank]][1], bottom + shifts[of_rank[rank]][1])
            for rank, (top, bottom) in enumerate(layout.bands)
        ),
        routes=tuple(routes),
        left=0.0,
        right=left - _GUTTER,
        height=height,
    )
