"""The paths from one value of a recorded run to another: how many, and which. Floor 1, explain.

Standard library, torch and `analysis`. A path is a row of values, each worked out from the one
before by an operation through which a derivative can pass; a value that an operation reads twice
(x·x) is one edge of a path. Paths are counted by dynamic programming, exactly: 2⁵⁰ is no trouble.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from neocog.analysis.graph import Graph, Node
    from neocog.explain.recording import Recording

__all__ = ["Edge", "Join", "Names", "Routes", "routes"]

_FLAT = frozenset(
    {"detach", "zero", "fill", "sign", "sgn", "round", "floor", "ceil", "trunc", "heaviside"}
    | {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"}
    | {"new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "bernoulli"}
    | {"uniform", "normal", "exponential", "floor_divide"}
)
"""Operations, or their in-place forms, whose answer does not change with what they read, or in
jumps."""


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """One operation of a path: it leads from a value to another."""

    node: int
    """The operation, an index into `Graph.nodes`."""
    source: int
    """The value read."""
    target: int
    """The value made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """An operation where paths meet."""

    node: int
    """The operation."""
    branches: Mapping[int, int]
    """Value read → how many paths come through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """All paths from a value to another."""

    start: int
    """The value where they start."""
    end: int
    """The value where they end."""
    edges: tuple[Edge, ...]
    """Every edge that lies on a path, in the order of running."""
    before: Mapping[int, int]
    """Value on a path → paths from the start to it."""
    after: Mapping[int, int]
    """Value on a path → paths from it to the end."""

    @property
    def count(self) -> int:
        """How many paths."""
        return self.after.get(self.start, 0)

    @property
    def nodes(self) -> tuple[int, ...]:
        """The operations on the paths, in the order of running."""
        return tuple(dict.fromkeys(edge.node for edge in self.edges))

    def through(self, edge: Edge) -> int:
        """How many paths take an edge."""
        return self.before[edge.source] * self.after[edge.target]

    def joins(self) -> tuple[Join, ...]:
        """The operations where paths meet, in the order of running."""
        found: dict[int, Counter[int]] = {}
        for edge in self.edges:
            found.setdefault(edge.node, Counter())[edge.source] += self.through(edge)
        return tuple(
            Join(node=node, branches=dict(counts))
            for node, counts in found.items()
            if len(counts) > 1
        )

    def lengths(self, weighing: Collection[int]) -> dict[int, int]:
        """How many of the given operations a path passes → how many paths pass so many.

        In a residual network the counts are those of a binomial distribution (Veit, Wilber,
        Belongie 2016, arXiv 1605.06431).
        """
        tallies: dict[int, Counter[int]] = {self.start: Counter({0: 1})}
        for edge in self.edges:
            longer = int(edge.node in weighing)
            tally = tallies.setdefault(edge.target, Counter())
            for length, paths in tallies[edge.source].items():
                tally[length + longer] += paths
        return dict(sorted(tallies[self.end].items())) if self.count else {}


def routes(
    recording: Recording, start: int, end: int, silent: Collection[Edge] = frozenset()
) -> Routes:
    """The paths between two values.

    Args:
        recording: the run.
        start: value, read.
        end: value, worked out.
        silent: edges through which no derivative passes, found out by asking.
    """
    edges = [
        edge for node in recording.graph.nodes for edge in _edges(recording, node)
        if edge not in silent
    ]  # fmt: skip
    before: Counter[int] = Counter({start: 1})
    for edge in edges:
        if edge.source in before:
            before[edge.target] += before[edge.source]
    after: Counter[int] = Counter({end: 1})
    for edge in reversed(edges):
        if edge.target in after:
            after[edge.source] += after[edge.target]
    on = before.keys() & after.keys()
    return Routes(
        start=start,
        end=end,
        edges=tuple(one for one in edges if one.source in on and one.target in on),
        before={value: before[value] for value in sorted(on)},
        after={value: after[value] for value in sorted(on)},
    )


def _edges(recording: Recording, node: Node) -> Iterator[Edge]:
    """The edges that an operation makes possible."""
    name = node.op.rstrip("_")
    if name in _FLAT:
        return
    sources = [one for one in dict.fromkeys(node.inputs) if _smooth(recording, one)]
    if name == "copy":
        sources = sources[1:] if len(node.inputs) > 1 else []
    elif node.op == "written":
        sources = [one for one in sources if _shows(recording, node, one)]
    for target in node.outputs:
        if _smooth(recording, target):
            for source in sources:
                yield Edge(node.index, source, target)


def _smooth(recording: Recording, value: int) -> bool:
    return recording.tensors[value].is_floating_point()


def _shows(recording: Recording, node: Node, source: int) -> bool:
    """Whether anything of a tensor is left after another was laid over it."""
    marks = {
        one: torch.full_like(recording.tensors[one], float(one == source)) for one in node.inputs
    }
    return bool(recording.replay(node, marks)[0].any())


class Names:
    """What operations are called: the layer that they belong to, `relu#2` for its second run; an
    operation by itself stands behind its module: `layer1.0.add`.

    Args:
        graph: of a run of a module that has the network as `network` and works out the loss itself.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._of: dict[int, str] = {}
        taken: Counter[str] = Counter()
        for node in graph.nodes:
            call = self._layer(node.call)
            if call is not None:
                repeat = graph.calls[call].repeat
                name = self.own(graph.calls[call].path)
                self._of[node.index] = f"{name}#{repeat + 1}" if repeat else name
                continue
            path = graph.calls[node.call].path
            base = self.own(path) if path else "loss"
            op = node.op.strip("_")
            name = f"{base}.{op}" if base else op
            taken[name] += 0 if node.view else 1
            self._of[node.index] = f"{name}#{taken[name]}" if taken[name] > 1 else name

    @staticmethod
    def own(path: str) -> str:
        """A name as the network's owner knows it."""
        return "" if path == "network" else path.removeprefix("network.")

    def _layer(self, index: int) -> int | None:
        """The outermost layer of its own that a call is part of."""
        found = None
        while index >= 0:
            call = self._graph.calls[index]
            if call.leaf and call.path:
                found = index
            index = call.parent
        return found

    def of(self, node: int) -> str:
        """The name of an operation."""
        return self._of[node] or self._graph.nodes[node].op.strip("_")

    def value(self, value: int) -> str:
        """The name of a value: what made it; a parameter's or buffer's own; `input`."""
        one = self._graph.values[value]
        if one.kind in ("parameter", "buffer"):
            return self.own(one.name)
        if one.kind == "input":
            return "input"
        made = next((n for n in self._graph.nodes if value in n.outputs), None)
        return self.of(made.index) if made is not None else "constant"

    def path(self, edges: Collection[Edge], start: int) -> tuple[str, ...]:
        """A path in words: the weight, then the layers, operations of one layer once; views of no
        layer are left out."""
        found = [self.value(start)]
        for edge in edges:
            node = self._graph.nodes[edge.node]
            name = self.of(edge.node)
            hidden = node.view and self._layer(node.call) is None
            if name != found[-1] and not hidden:
                found.append(name)
        return tuple(found)
