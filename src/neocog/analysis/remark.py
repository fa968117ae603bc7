"""What a remark about a network is, and what finding one needs to know. Floor 1, room analysis.

Standard library and this room.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from neocog.analysis.formulas import listed
from neocog.analysis.graph import Ref

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Graph, Node
    from neocog.analysis.summary import Layer

__all__ = ["Remark", "Subject", "times"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something about a network that its owner would want to know."""

    code: str
    """Which kind of remark; one of `advice.CODES`."""
    layer: str
    """Name of the layer, or the module whose parameters it is about; empty: the whole network."""
    sentence: str
    """What there is, with its numbers, for people."""
    remedy: str
    """What to do about it."""


def times(sizes: Iterable[int]) -> str:
    """`224×224`."""
    return "×".join(str(size) for size in sizes)


class Subject:
    """A network under examination: its graph, what leads where, and the names for it."""

    def __init__(self, graph: Graph, fields: Fields, layers: Sequence[Layer]) -> None:
        self.graph, self.fields, self.layers = graph, fields, layers
        self.layer_of = {index: layer for layer in layers for index in layer.nodes}
        """Node → its layer."""

    @cached_property
    def producers(self) -> Mapping[int, int]:
        """Value → the node that made it."""
        return self.graph.producers()

    @cached_property
    def readers(self) -> Mapping[int, tuple[Node, ...]]:
        """Value → the nodes that read it."""
        found: dict[int, list[Node]] = {}
        for node in self.graph.nodes:
            for index in dict.fromkeys(node.inputs):
                found.setdefault(index, []).append(node)
        return {index: tuple(nodes) for index, nodes in found.items()}

    @cached_property
    def alive(self) -> frozenset[int]:
        """Nodes that an output depends on."""
        found: set[int] = set()
        open_values = list(self.graph.outputs)
        while open_values:
            at = self.producers.get(open_values.pop())
            if at is not None and at not in found:
                found.add(at)
                open_values += self.graph.nodes[at].inputs
        return frozenset(found)

    def shape(self, argument: Any) -> tuple[int, ...]:
        """Of a tensor argument; empty for anything else."""
        return self.graph.values[argument.value].shape if isinstance(argument, Ref) else ()

    def place(self, node: Node) -> str:
        """The name of the layer that an operation belongs to, or its module's path."""
        layer = self.layer_of.get(node.index)
        path = self.graph.calls[node.call].path if self.graph.calls else ""
        return layer.name if layer is not None else path or node.op

    def called(self, node: Node, words: str = "") -> str:
        """`pool1 (MaxPool2d, 3×3/2)`."""
        layer = self.layer_of.get(node.index)
        about = [layer.kind if layer is not None else node.op, *([words] if words else [])]
        return f"{self.place(node)} ({', '.join(about)})"

    def others(self, nodes: Sequence[Node]) -> str:
        """`; the same in layer4.1.conv1 and 3 more`: the nodes after the first, by layer."""
        names = list(dict.fromkeys(self.place(node) for node in nodes))[1:]
        if not names:
            return ""
        shown = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
        return f"; the same in {listed(shown)}"
