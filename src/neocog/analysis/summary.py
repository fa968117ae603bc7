"""A network layer by layer: what people read in a table. Floor 1, room analysis.

Standard library and this room. A layer is one run of a module without children, or an operation
that a forward calls by itself (an addition, a concatenation). Views cost nothing and are folded.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.analysis import work
from neocog.analysis.graph import Ref

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from neocog.analysis.field import Field, Fields
    from neocog.analysis.graph import Call, Graph, Node, Value

__all__ = ["Layer", "Unknown", "layers", "node_macs", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A line of the table."""

    name: str
    """Module path; a run after the first has `#2`; an operation stands behind its module: a sum in
    `layer1.0` is `layer1.0.add`. Unique."""
    kind: str
    """The module's class, or the operation: `Conv2d`, `add`, `cat`."""
    path: str
    """The module's path."""
    repeat: int
    """0 for the first run of the module."""
    source: str
    """`file.py:37`, where it was called; empty where the network is all PyTorch's."""
    extra: str
    """The module's own words: `64, 64, kernel_size=(3, 3)`."""
    nodes: tuple[int, ...]
    """Its operations in the graph."""
    inputs: tuple[int, ...]
    """Values that come in from outside of it, without parameters."""
    output: int
    """The value that comes out; of several the first."""
    shape: tuple[int, ...]
    """Of the output, the batch first."""
    parameters: int
    """Numbers to learn that no line before has counted."""
    shared: int
    """Numbers to learn that a line before has counted."""
    macs: int
    """Multiply-accumulates of the forward pass, for the batch that was traced."""
    read: int
    """Bytes read: inputs and parameters, each once for each operation."""
    written: int
    """Bytes written."""
    field: tuple[Field, ...] | None
    """Receptive field for each axis of the picture; None where there are no positions."""
    everything: bool
    """Every element sees the whole picture."""
    seen: tuple[tuple[int, int], ...] | None
    """First and last position that all elements together see, along each axis of the picture."""
    before: tuple[str, ...]
    """Names of the layers whose answers it reads; an empty name is the network's input."""

    @property
    def intensity(self) -> float:
        """Multiply-accumulates per byte moved."""
        return self.macs / max(1, self.read + self.written)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """An operation whose cost is not known."""

    op: str
    """Its name."""
    path: str
    """The module that ran."""
    source: str
    """The line."""


def node_macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of one operation of a graph."""
    return work.macs(
        node.op,
        [_value(graph, argument) for argument in node.args],
        [graph.values[index] for index in node.outputs],
    )


def _value(graph: Graph, argument: Any) -> Any:
    return graph.values[argument.value] if isinstance(argument, Ref) else argument


def unknown(graph: Graph) -> tuple[Unknown, ...]:
    """Every operation whose cost is not known, once for each line that calls it."""
    found = {
        (node.op, graph.calls[node.call].path, node.source): None
        for node in graph.nodes
        if not node.view and not work.is_known(node.op, node.pointwise)
    }
    return tuple(Unknown(op=op, path=path, source=source) for op, path, source in found)


def layers(graph: Graph, fields: Fields) -> tuple[Layer, ...]:
    """The lines of the table, in the order of running."""
    groups = _groups(graph)
    found: list[Layer] = []
    made_by: dict[int, str] = dict.fromkeys(graph.inputs, "")
    counted: set[str] = set()
    taken: dict[str, int] = defaultdict(int)
    live = _live(graph)
    for call, nodes in groups:
        layer = _layer(graph, fields, call, nodes, live, counted, made_by, taken)
        if layer is None:
            _pass_on(nodes, made_by)
            continue
        found.append(layer)
        for node in nodes:
            for index in node.outputs:
                made_by[index] = layer.name
    return tuple(found)


def _pass_on(nodes: Sequence[Node], made_by: dict[int, str]) -> None:
    """Views and constants have no line: what they return is their input's."""
    for node in nodes:
        origin = next((made_by[index] for index in node.inputs if index in made_by), None)
        if origin is not None:
            for index in node.outputs:
                made_by[index] = origin


def _groups(graph: Graph) -> list[tuple[Call | None, list[Node]]]:
    """Operations by the layer that they belong to: a leaf call, or None for one by itself."""
    groups: list[tuple[Call | None, list[Node]]] = []
    open_calls: dict[int, list[Node]] = {}
    live = _live(graph)
    # What is computed from weights alone belongs to the first layer that reads it.
    waiting: dict[int, list[Node]] = {}
    for node in graph.nodes:
        call = _outermost_leaf(graph, node.call)
        before: dict[int, Node] = {}
        for index in node.inputs:
            before.update((one.index, one) for one in waiting.pop(index, ()))
        nodes = [*before.values(), node]
        if call is None and live.isdisjoint(node.outputs):
            waiting.update((index, nodes) for index in node.outputs)
            continue
        if call is None:
            groups.append((None, nodes))
            continue
        if call.index not in open_calls:
            open_calls[call.index] = []
            groups.append((call, open_calls[call.index]))
        open_calls[call.index] += nodes
    return groups


def _live(graph: Graph) -> set[int]:
    """Values that depend on any of the inputs."""
    found = set(graph.inputs)
    for node in graph.nodes:
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def _outermost_leaf(graph: Graph, index: int) -> Call | None:
    """The layer that a call is part of."""
    found = None
    while index >= 0 and index < len(graph.calls):
        call = graph.calls[index]
        if call.leaf:
            found = call
        index = call.parent
    return found


def _layer(
    graph: Graph,
    fields: Fields,
    call: Call | None,
    nodes: Sequence[Node],
    live: set[int],
    counted: set[str],
    made_by: Mapping[int, str],
    taken: dict[str, int],
) -> Layer | None:
    """A line, or None where there is nothing to tell."""
    working = [node for node in nodes if not node.view and node.inputs]
    reached = [node for node in nodes if not live.isdisjoint(node.outputs)]
    if not reached:
        return None
    if not working and (call is None or not _reshapes(graph, call)):
        return None
    own = graph.calls[nodes[0].call] if call is None else call
    output = _output(graph, call, reached)
    inside = {index for node in nodes for index in node.outputs}
    outside = [index for node in nodes for index in node.inputs if index not in inside]
    learnt = [graph.values[index].name for index in outside if _is(graph, index, "parameter")]
    sizes = {name: math.prod(graph.parameters[name]) for name in learnt if name in graph.parameters}
    new = {name for name in sizes if name not in counted}
    counted |= new
    inputs = tuple(
        dict.fromkeys(index for index in outside if graph.values[index].kind in ("result", "input"))
    )
    value = graph.values[output]
    moved = [_moved(graph, node) for node in working]
    name = own.path if call is not None else _joined(own.path, working[0].op.strip("_"))
    name = name or own.type
    taken[name] += 1
    return Layer(
        name=name if taken[name] == 1 else f"{name}#{taken[name]}",
        kind=call.type if call is not None else working[0].op.strip("_"),
        path=own.path,
        repeat=own.repeat,
        source=next((node.source for node in nodes if node.source), ""),
        extra=own.extra if call is not None else "",
        nodes=tuple(node.index for node in nodes),
        inputs=inputs,
        output=output,
        shape=value.shape,
        parameters=sum(sizes[one] for one in new),
        shared=sum(sizes[one] for one in sizes if one not in new),
        macs=sum(node_macs(graph, node) for node in nodes),
        read=sum(one[0] for one in moved),
        written=sum(one[1] for one in moved),
        field=fields.of(output),
        everything=fields.sees_everything(output),
        seen=fields.unit(output),
        before=tuple(dict.fromkeys(made_by[index] for index in inputs if index in made_by)),
    )


def _joined(path: str, op: str) -> str:
    return f"{path}.{op}" if path else op


def _is(graph: Graph, index: int, kind: str) -> bool:
    return graph.values[index].kind == kind


def _reshapes(graph: Graph, call: Call) -> bool:
    """Whether a module that moves nothing at least changes the shape, as Flatten does."""
    if not call.inputs or not call.outputs:
        return False
    return graph.values[call.inputs[0]].shape != graph.values[call.outputs[0]].shape


def _output(graph: Graph, call: Call | None, nodes: Sequence[Node]) -> int:
    """The first thing that a layer returns."""
    last = nodes[-1]
    made = {index for node in nodes for index in node.outputs}
    if call is not None:
        returned = [index for index in call.outputs if index in made]
        if returned:
            return returned[0]
    return last.outputs[0]


def _moved(graph: Graph, node: Node) -> tuple[int, int]:
    """Bytes that an operation reads and writes."""
    values: Sequence[Value] = graph.values
    read = sum(values[index].bytes for index in dict.fromkeys(node.inputs))
    return read, sum(values[index].bytes for index in node.outputs)
