"""A network as one drawing: boxes and lines become SVG. Floor 1, room html; no torch.

Imports floor 0 and this room. Who makes the boxes decides what a box stands for; here they get
places (`layered`, `columns`) and marks (`ink`). The drawing is one self-contained `<svg>` element:
no script, no style sheet, no ids, and no address but the name of the format. Its colours are the
page's CSS variables, with a light look to fall back upon, on a ground of its own. Names are
hostile input: unseen characters are spelled out, and all text is escaped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from neocog.html import ink
from neocog.html.columns import TURN, wrapped
from neocog.html.layered import Edge, Item, arrange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.html.layered import Layout, Point

__all__ = ["Box", "Family", "Frame", "draw"]

Family = Literal[
    "input", "convolution", "pointwise", "pooling", "linear", "attention", "other", "join"
]
"""What a box is coloured by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands round boxes that belong together."""

    title: str
    """`layer3.1 … layer3.5`."""
    times: int = 1
    """How many equal ones it stands for."""
    detail: str = ""
    """What is said behind the title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box, or a small circle where branches join."""

    name: str
    """Unique."""
    before: tuple[str, ...] = ()
    """Names of the boxes that it reads, all of them earlier."""
    members: tuple[str, ...] = ()
    """The layers that it stands for, repetitions included."""
    family: Family = "other"
    """What it is coloured by."""
    kind: str = ""
    """What it does, as its main line: `Conv2d 3×3/2`. Of a join its sign: `+`, `×`, `cat`, or any
    other word."""
    above: str = ""
    """What happens before that, within the box."""
    below: str = ""
    """What happens after it, within the box: `BatchNorm · ReLU`."""
    size: str = ""
    """Of its output: `64 × 112 × 112`."""
    weight: str = ""
    """Its parameters in short."""
    channels: int = 1
    """Of its output; the box is as wide as their logarithm."""
    field: tuple[float, ...] = ()
    """The share of the picture's side that one value sees; of repeated boxes the first's and the
    last's. More than 1 is possible. Empty: it has no positions."""
    sees: str = ""
    """The receptive field in words: `43`."""
    everything: bool = False
    """Each value sees the whole picture, if only by a gate."""
    times: int = 1
    """How many equal ones in a row it stands for."""
    frames: tuple[Frame, ...] = ()
    """The frames that it stands in, the outer first. Boxes of one frame stand together."""


@dataclass(slots=True)
class _Part:
    """Boxes with places, seen from an axis; y from the top."""

    left: float = 0.0
    right: float = 0.0
    height: float = 0.0
    spots: dict[int, Point] = field(default_factory=dict)
    """Axis and top of each box."""
    frames: list[tuple[Frame, float, float, float, float, float]] = field(default_factory=list)
    """Frame, x, y, width, height, and where its title may stand."""
    routes: dict[tuple[int, int], list[Point]] = field(default_factory=dict)
    """The part of each line within."""
    entries: dict[int, float] = field(default_factory=dict)
    """Where the lines of boxes outside come in."""
    exits: dict[int, float] = field(default_factory=dict)
    """Where the lines of boxes inside go out."""


_EDGE = 14.0
_STRIP = 24.0
_CARD = 4.0


def draw(boxes: Sequence[Box], *, title: str = "", subtitle: str = "") -> str:
    """The drawing as one `<svg>` element. Equal boxes give equal text.

    Args:
        boxes: in an order in which each comes after all that it reads.
        title: set above.
        subtitle: a line below the title.

    Raises:
        ValueError: names that are not unique, a box that reads a later or unknown one, or a frame
            whose boxes do not stand together.

    >>> text = draw([Box(name="a"), Box(name="<b>", before=("a",), kind="<script>")])
    >>> text.startswith("<svg "), "<script" in text
    (True, False)
    """
    index = {box.name: at for at, box in enumerate(boxes)}
    if len(index) != len(boxes):
        raise ValueError("expected boxes with different names, found one name twice")
    edges = []
    for at, box in enumerate(boxes):
        for name in box.before:
            if index.get(name, at) >= at:
                raise ValueError(
                    f"{box.name!r} reads {name!r}, expected the name of a box before it"
                )
            edges.append((index[name], at))
    edges = list(dict.fromkeys(edges))
    part = _level(boxes, list(range(len(boxes))), edges, 0)
    families = list(dict.fromkeys(box.family for box in boxes))
    width = max(680.0, part.left + part.right + 64)
    head, bottom = ink.header(title, subtitle, families, width)
    start = (width + part.left - part.right) / 2
    down = bottom + 2 * TURN
    body = [
        ink.frame(frame, x + start, y + down, wide, high, free + start)
        for frame, x, y, wide, high, free in part.frames
    ]
    body += [
        ink.line([(x + start, y + down) for x, y in part.routes[edge]], edge) for edge in edges
    ]
    ends = {tuple(part.routes[edge][-1]): None for edge in edges}
    body += [ink.arrow(x + start, y + down) for x, y in ends]
    for at, box in enumerate(boxes):
        x, y = part.spots[at]
        body.append(ink.box(box, at, x + start, y + down, *_extent(box)))
    return ink.sheet(width, down + part.height + 2 * TURN + 8, title, [*head, *body])


def _extent(box: Box) -> tuple[float, float, float]:
    """How far a box reaches left and right of its axis, and its height."""
    if box.family == "join":
        sign = ink.sign_width(box.kind) / 2
        label = max(ink.width_of(box.size, 9.5), ink.width_of(box.below, 9.5))
        return sign, sign + (label + 7 if label else 0), 2 * ink.RADIUS
    half = (140 + 15 * math.log2(1 + max(1, box.channels))) / 2
    height = 40 + 13 * (bool(box.above) + bool(box.below))
    cards = _CARD * min(2, box.times - 1)
    return half, half + cards, height + cards


def _level(
    boxes: Sequence[Box], inside: Sequence[int], edges: Sequence[tuple[int, int]], depth: int
) -> _Part:
    """Places for the boxes of one frame, or of the whole drawing.

    Args:
        boxes: all of them.
        inside: those that stand in the frame.
        edges: all lines that begin or end in it.
        depth: how many frames are round it.
    """
    own = set(inside)
    entries = list(dict.fromkeys(source for source, _ in edges if source not in own))
    exits = list(dict.fromkeys(source for source, target in edges if target not in own))
    units = _units(boxes, inside, depth)
    parts = [_unit(boxes, unit, edges, depth) for unit in units]
    gate = Item(left=0.0, right=0.0, height=0.0)
    items = [gate for _ in entries]
    items += [Item(left=one.left, right=one.right, height=one.height) for one in parts]
    items += [Item(left=0.0, right=0.0, height=0.0, last=True) for _ in exits]
    of_box = {at: number for number, unit in enumerate(units) for at in unit}
    lines: dict[tuple[int, int], Edge] = {}
    for source, target in edges:
        first, second = of_box.get(source), of_box.get(target)
        if first is not None and first == second:
            continue
        lines[source, target] = Edge(
            source=entries.index(source) if first is None else len(entries) + first,
            target=len(entries) + (len(parts) + exits.index(source) if second is None else second),
            leave=0.0 if first is None else parts[first].exits[source],
            arrive=0.0 if second is None else parts[second].entries[source],
        )
    distinct = list(dict.fromkeys(lines.values()))
    # In and out stand above one another, so that frame follows on frame in a straight line.
    plumb = [(0, len(items) - 1)] if entries and exits else []
    layout = arrange(items, distinct, plumb)
    if depth == 0:
        layout = wrapped(layout, items, distinct)
    routes = dict(zip(distinct, layout.routes, strict=True))
    axis = layout.x[0] if layout.x else 0.0
    whole = _gathered(parts, layout, len(entries), axis)
    for edge in edges:
        points: list[Point] = []
        first, second = of_box.get(edge[0]), of_box.get(edge[1])
        if first is not None and edge in parts[first].routes:
            points += _shifted(parts[first].routes[edge], layout, len(entries) + first, axis)
        if edge in lines:
            points += [(x - axis, y) for x, y in routes[lines[edge]]]
        if second is not None and second != first and edge in parts[second].routes:
            points += _shifted(parts[second].routes[edge], layout, len(entries) + second, axis)
        whole.routes[edge] = points
    whole.entries = {source: layout.x[at] - axis for at, source in enumerate(entries)}
    past = len(entries) + len(parts)
    whole.exits = {source: layout.x[past + at] - axis for at, source in enumerate(exits)}
    return whole


def _units(boxes: Sequence[Box], inside: Sequence[int], depth: int) -> list[list[int]]:
    """Boxes by themselves, and those that share a frame together."""
    units: list[list[int]] = []
    seen: set[Frame] = set()
    last: Frame | None = None
    for at in inside:
        frame = boxes[at].frames[depth] if len(boxes[at].frames) > depth else None
        if frame is not None and frame == last:
            units[-1].append(at)
        else:
            if frame in seen:
                raise ValueError(f"expected the boxes of frame {frame!r} together")
            units.append([at])
        last = frame
        if frame is not None:
            seen.add(frame)
    return units


def _unit(
    boxes: Sequence[Box], unit: Sequence[int], edges: Sequence[tuple[int, int]], depth: int
) -> _Part:
    """A box by itself, or a frame with what stands in it."""
    first = boxes[unit[0]]
    own = set(unit)
    touching = [edge for edge in edges if edge[0] in own or edge[1] in own]
    if len(first.frames) <= depth:
        left, right, height = _extent(first)
        part = _Part(left=left, right=right, height=height, spots={unit[0]: (0.0, 0.0)})
        part.entries = dict.fromkeys((source for source, _ in touching), 0.0)
        part.exits = {unit[0]: 0.0}
        return part
    frame = first.frames[depth]
    part = _level(boxes, unit, touching, depth + 1)
    cards = _CARD * min(2, frame.times - 1)
    title = ink.title_width(frame)
    # The title stands at the side of the line that comes in, where there is more room.
    enters = [*part.entries.values()] or [0.0]
    lefts, rights = min(enters) + part.left, part.right - max(enters)
    left, right = part.left, part.right
    if max(lefts, rights) + _EDGE < title:
        right += title - _EDGE - rights
        rights = part.right = right - max(enters)
    free = -left - _EDGE if lefts > rights or lefts + _EDGE >= title else max(enters)
    high = part.height + _STRIP + (0 if part.exits else _EDGE)
    part.spots = {at: (x, y + _STRIP) for at, (x, y) in part.spots.items()}
    part.frames = [
        (frame, -left - _EDGE, 0.0, left + right + 2 * _EDGE, high, free),
        *((one, x, y + _STRIP, wide, tall, at) for one, x, y, wide, tall, at in part.frames),
    ]
    for (source, target), points in part.routes.items():
        moved = [(x, y + _STRIP) for x, y in points]
        before = [] if source in own else [(moved[0][0], 0.0)]
        after = [] if target in own else [(moved[-1][0], high + cards)]
        part.routes[source, target] = [*before, *moved, *after]
    part.left, part.right = left + _EDGE, right + _EDGE + cards
    part.height = high + cards
    return part


def _gathered(parts: Sequence[_Part], layout: Layout, first: int, axis: float) -> _Part:
    """What stands in the parts, each moved to its place."""
    whole = _Part(left=axis - layout.left, right=layout.right - axis, height=layout.height)
    for number, part in enumerate(parts):
        dx, dy = layout.x[first + number] - axis, layout.top[first + number]
        whole.spots.update({at: (x + dx, y + dy) for at, (x, y) in part.spots.items()})
        whole.frames += [
            (frame, x + dx, y + dy, wide, high, free + dx)
            for frame, x, y, wide, high, free in part.frames
        ]
    return whole


def _shifted(points: Sequence[Point], layout: Layout, item: int, axis: float) -> list[Point]:
    """Points of an item's inside where the item stands."""
    return [(x + layout.x[item] - axis, y + layout.top[item]) for x, y in points]
