"""A node of a graph with what its inputs see: what rules read. Floor 1, room analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog.analysis.graph import Ref

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.analysis.graph import Graph, Node
    from neocog.analysis.layout import State

__all__ = ["Case", "as_list"]


class Case:
    """A node with what its inputs see, for a rule to read."""

    __slots__ = ("_states", "graph", "node")

    def __init__(self, graph: Graph, node: Node, states: Mapping[int, State]) -> None:
        self.graph, self.node, self._states = graph, node, states

    def state(self, argument: Any) -> State | None:
        """What a tensor argument sees; None where it does not depend on the input."""
        return self._states.get(argument.value) if isinstance(argument, Ref) else None

    def shape(self, argument: Ref) -> tuple[int, ...]:
        """A tensor argument's shape."""
        return self.graph.values[argument.value].shape

    @property
    def out(self) -> tuple[int, ...]:
        """The first output's shape."""
        return self.graph.values[self.node.outputs[0]].shape

    def arg(self, position: int, name: str = "", default: Any = None) -> Any:
        """An argument, however it was given."""
        if position < len(self.node.args):
            return self.node.args[position]
        return self.node.kwargs.get(name, default)

    @property
    def every(self) -> list[State]:
        """What the inputs see that depend on the picture."""
        return [self._states[index] for index in self.node.inputs if index in self._states]


def as_list(value: Any, count: int) -> list[int]:
    """A size for each axis: one number stands for all."""
    found = [value] if isinstance(value, int) else list(value or [])
    return found * count if len(found) == 1 else found
