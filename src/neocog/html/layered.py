"""Where the boxes of a directed acyclic graph go, rank below rank. Floor 1, room html.

Standard library only. The method is that of Sugiyama, Tagawa and Toda (1981): longest paths give
the ranks, edges over several ranks get a stand-in in each, barycentres order the ranks, and the
places within a rank are the least squares that keep the order (pool adjacent violators).

A line crosses the height of a rank only straight down and at a place of its own, and turns only in
the gap between two ranks: so it never runs through a box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Edge", "Item", "Layout", "Point", "arrange"]

Point = tuple[float, float]
"""x to the right, y downward."""
_Link = tuple[int, float, float, float]
"""Another one, where the line meets it, where it meets this one, and how strongly it pulls."""

_APART = 26.0
_APART_LINES = 15.0
_SWEEPS = 10
_STEPS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something with a place; its lines come in at the top and leave at the bottom."""

    left: float
    """How far it reaches to the left of its axis."""
    right: float
    """How far it reaches to the right of its axis."""
    height: float
    """From top to bottom."""
    last: bool = False
    """Set below everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A line from an item to a later one."""

    source: int
    """Its index."""
    target: int
    """Its index; greater than the source's."""
    leave: float = 0.0
    """Where it leaves, right of the source's axis."""
    arrive: float = 0.0
    """Where it arrives, right of the target's axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where everything is. Both axes begin anywhere; y at 0."""

    x: tuple[float, ...]
    """Axes of the items."""
    top: tuple[float, ...]
    """Their upper ends."""
    rank: tuple[int, ...]
    """The rank of each."""
    bands: tuple[tuple[float, float], ...]
    """Top and bottom of each rank."""
    routes: tuple[tuple[Point, ...], ...]
    """For each edge its points: between two of them the line is straight, or an S with upright
    ends."""
    left: float
    """The outermost on the left."""
    right: float
    """The outermost on the right."""
    height: float
    """Of the whole."""


@dataclass(slots=True)
class _Net:
    """Items and stand-ins, and the links between neighbouring ranks."""

    left: list[float]
    right: list[float]
    rank: list[int]
    real: int
    """How many of them are items; the others stand in for lines."""
    up: list[list[_Link]] = field(default_factory=list)
    """For each the ones above: index, offset there, offset here, weight."""
    down: list[list[_Link]] = field(default_factory=list)
    """The same for the ones below."""
    chains: list[list[int]] = field(default_factory=list)
    """For each edge its stand-ins."""

    def add(self, left: float, right: float, rank: int) -> int:
        self.left.append(left)
        self.right.append(right)
        self.rank.append(rank)
        self.up.append([])
        self.down.append([])
        return len(self.rank) - 1

    def link(self, above: int, leave: float, below: int, arrive: float) -> None:
        standing_in = (above >= self.real) + (below >= self.real)
        weight = (10.0, 0.002, 0.1)[standing_in]
        entry = (below, arrive, leave, weight)
        if entry not in self.down[above]:
            self.down[above].append(entry)
            self.up[below].append((above, leave, arrive, weight))


@dataclass(frozen=True, slots=True)
class _Pulls:
    """What draws each sideways."""

    up: list[list[_Link]]
    """To the ones above."""
    down: list[list[_Link]]
    """To the ones below."""


def arrange(
    items: Sequence[Item], edges: Sequence[Edge], plumb: Sequence[tuple[int, int]] = ()
) -> Layout:
    """Places for a graph.

    Args:
        items: in an order in which every edge runs forward.
        edges: any number of them between the same two items.
        plumb: pairs that should stand one above the other.

    Raises:
        ValueError: an edge runs backward.

    >>> box = Item(left=20, right=20, height=10)
    >>> found = arrange([box, box, box], [Edge(source=0, target=1), Edge(source=0, target=2)])
    >>> found.rank, found.x[0] == (found.x[1] + found.x[2]) / 2
    ((0, 1, 1), True)
    """
    ranks = _ranks(items, edges)
    net = _net(items, edges, ranks)
    rows = _ordered(net, max(ranks, default=-1) + 1)
    pulls = _Pulls([list(one) for one in net.up], [list(one) for one in net.down])
    for above, below in plumb:
        pulls.up[below].append((above, 0.0, 0.0, 1000.0))
        pulls.down[above].append((below, 0.0, 0.0, 1000.0))
    x = _placed(net, pulls, rows)
    tops, bottoms = _heights(items, net, rows, x)
    top = [
        tops[net.rank[i]] + (bottoms[net.rank[i]] - tops[net.rank[i]] - item.height) / 2
        for i, item in enumerate(items)
    ]
    routes = []
    for edge, chain in zip(edges, net.chains, strict=True):
        source, target = edge.source, edge.target
        start = x[source] + edge.leave
        points = [(start, top[source] + items[source].height), (start, bottoms[net.rank[source]])]
        for stand_in in chain:
            rank = net.rank[stand_in]
            points += [(x[stand_in], tops[rank]), (x[stand_in], bottoms[rank])]
        end = x[target] + edge.arrive
        points += [(end, tops[net.rank[target]]), (end, top[target])]
        routes.append(tuple(points))
    return Layout(
        x=tuple(x[: len(items)]),
        top=tuple(top),
        rank=tuple(net.rank[: len(items)]),
        bands=tuple(zip(tops, bottoms, strict=True)),
        routes=tuple(routes),
        left=min((at - net.left[i] for i, at in enumerate(x)), default=0.0),
        right=max((at + net.right[i] for i, at in enumerate(x)), default=0.0),
        height=bottoms[-1] if bottoms else 0.0,
    )


def _ranks(items: Sequence[Item], edges: Sequence[Edge]) -> list[int]:
    """The longest way to each; what is only read far below moves down to it."""
    before: list[list[int]] = [[] for _ in items]
    after: list[list[int]] = [[] for _ in items]
    for edge in edges:
        if edge.source >= edge.target:
            raise ValueError(f"expected edges that run forward, found {edge}")
        before[edge.target].append(edge.source)
        after[edge.source].append(edge.target)
    ranks = [0] * len(items)
    for i in range(len(items)):
        ranks[i] = max((ranks[one] + 1 for one in before[i]), default=0)
    # A start without anything above, as a learnt constant, stands right above its reader. The
    # first item stays where it is.
    for i in range(len(items) - 1, 0, -1):
        if not before[i] and after[i] and items[i].height:
            ranks[i] = min(ranks[one] for one in after[i]) - 1
    deepest = max((ranks[i] for i, item in enumerate(items) if not item.last), default=-1)
    return [deepest + 1 if item.last else ranks[i] for i, item in enumerate(items)]


def _net(items: Sequence[Item], edges: Sequence[Edge], ranks: Sequence[int]) -> _Net:
    """Edges cut into links; those that leave one place share their stand-ins as far as they go."""
    net = _Net([], [], [], len(items))
    for item, rank in zip(items, ranks, strict=True):
        net.add(item.left, item.right, rank)
    shared: dict[tuple[int, float, int], int] = {}
    for edge in edges:
        above, leave = edge.source, edge.leave
        chain = []
        for rank in range(ranks[edge.source] + 1, ranks[edge.target]):
            key = (edge.source, edge.leave, rank)
            if key not in shared:
                shared[key] = net.add(0.0, 0.0, rank)
            net.link(above, leave, shared[key], 0.0)
            above, leave = shared[key], 0.0
            chain.append(above)
        net.link(above, leave, edge.target, edge.arrive)
        net.chains.append(chain)
    return net


def _ordered(net: _Net, count: int) -> list[list[int]]:
    """Each rank from left to right, with few crossings: the best of some sweeps."""
    rows: list[list[int]] = [[] for _ in range(count)]
    for i in _depth_first(net):
        rows[net.rank[i]].append(i)
    best, fewest = [list(row) for row in rows], _crossings(net, rows)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        place = {i: float(at) for row in rows for at, i in enumerate(row)}
        downward = sweep % 2 == 0
        for row in rows if downward else reversed(rows):
            links = net.up if downward else net.down
            key = {i: _barycentre(net, links[i], place, place[i]) for i in row}
            row.sort(key=lambda i, key=key: key[i])  # type: ignore[misc]
            place.update((i, float(at)) for at, i in enumerate(row))
        crossings = _crossings(net, rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _depth_first(net: _Net) -> list[int]:
    """Everything in the order of walking down: whole branches side by side."""
    seen: dict[int, None] = {}
    for root in range(len(net.rank)):
        stack = [root] if not net.up[root] else []
        while stack:
            i = stack.pop()
            if i not in seen:
                seen[i] = None
                # Boxes first, lines that pass after: the spine stays left, what skips goes round.
                below = sorted(net.down[i], key=lambda link: (link[0] >= net.real, link[0]))
                stack.extend(one for one, *_ in reversed(below))
    return list(seen)


def _barycentre(
    net: _Net,
    links: Sequence[_Link],
    place: dict[int, float],
    own: float,
) -> float:
    """The mean place of the neighbours, lines at the wide ones told apart by where they leave."""
    if not links:
        return own
    return sum(
        place[i] + offset / (1 + net.left[i] + net.right[i]) for i, offset, *_ in links
    ) / len(links)


def _crossings(net: _Net, rows: Sequence[Sequence[int]]) -> int:
    """How many links cross: inversions, counted with a tree of sums (Barth and others, 2002)."""
    total = 0
    for row in rows[1:]:
        above: list[tuple[int, float]] = []
        for i in row:
            above.extend(sorted((one, offset) for one, offset, *_ in net.up[i]))
        ends = {i for i, _ in above}
        if len(above) < 2 or len(ends) < 2:
            continue
        upper = {i: at for at, i in enumerate(rows[net.rank[row[0]] - 1])}
        places = [upper[i] for i, _ in above]
        tree = [0] * (len(upper) + 1)
        for seen, place in enumerate(places):
            at, before = place + 1, 0
            while at > 0:
                before += tree[at]
                at -= at & -at
            total += seen - before
            at = place + 1
            while at < len(tree):
                tree[at] += 1
                at += at & -at
    return total


def _placed(net: _Net, pulls: _Pulls, rows: Sequence[Sequence[int]]) -> list[float]:
    """x of everything: pulled toward its neighbours, never nearer than the order allows.

    Passes down and up in turn carry a place along a whole chain at once; the last goes down.
    """
    x = [0.0] * len(net.rank)
    both = [[*up, *down] for up, down in zip(pulls.up, pulls.down, strict=True)]
    for row in rows:
        _spread(net, both, row, [0.0] * len(row), x)
    for step in range(_STEPS):
        downward = step % 2 == 0
        one_way = pulls.up if downward else pulls.down
        for row in rows if downward else reversed(rows):
            wanted = []
            for i in row:
                links = one_way[i] if one_way[i] else both[i]
                weight = sum(link[3] for link in links)
                total = sum((x[one] + there - here) * w for one, there, here, w in links)
                wanted.append(total / weight if links else x[i])
            _spread(net, both, row, wanted, x)
    return [round(at, 2) for at in x]


def _spread(
    net: _Net,
    links: Sequence[Sequence[_Link]],
    row: Sequence[int],
    wanted: Sequence[float],
    x: list[float],
) -> None:
    """The places of one rank next to the wanted ones in least squares, in order and apart."""
    shift, shifts = 0.0, []
    for at, i in enumerate(row):
        if at:
            last = row[at - 1]
            lines = i >= net.real and last >= net.real
            shift += net.right[last] + net.left[i] + (_APART_LINES if lines else _APART)
        shifts.append(shift)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, count
    for at, i in enumerate(row):
        mean, weight, count = wanted[at] - shifts[at], sum(one[3] for one in links[i]) or 1.0, 1
        while blocks and blocks[-1][0] > mean:
            other, heavy, many = blocks.pop()
            mean = (other * heavy + mean * weight) / (heavy + weight)
            weight, count = weight + heavy, count + many
        blocks.append((mean, weight, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for i, mean, shift in zip(row, means, shifts, strict=True):
        x[i] = mean + shift


def _heights(
    items: Sequence[Item], net: _Net, rows: Sequence[Sequence[int]], x: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Top and bottom of each rank; the wider the lines swing between two, the farther apart."""
    tops: list[float] = []
    bottoms: list[float] = []
    y = 0.0
    for rank, row in enumerate(rows):
        if rank:
            swing = max(
                (
                    abs(x[one] + there - x[i] - here)
                    for i in row
                    for one, there, here, _ in net.up[i]
                ),
                default=0.0,
            )
            y += min(64.0, 20.0 + 0.11 * swing)
        tops.append(y)
        y += max((items[i].height for i in row if i < net.real), default=0.0)
        bottoms.append(y)
    return tops, bottoms
