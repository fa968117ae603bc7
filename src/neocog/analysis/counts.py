"""Parameters, multiply-accumulates and bytes with their numbers. Floor 1, room analysis.

Standard library and this room. What is written out is worked out, too, and compared with the
layer's own count; where they differ, the count stands without a formula.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neocog.analysis.formulas import listed
from neocog.analysis.graph import Ref
from neocog.analysis.summary import node_macs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.analysis.graph import Graph, Node
    from neocog.analysis.summary import Layer

__all__ = ["learnt", "moved", "multiplied"]

_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")


def _product(factors: Sequence[int]) -> str:
    return "·".join(str(factor) for factor in factors)


def _parameters(graph: Graph, layer: Layer) -> dict[str, tuple[int, ...]]:
    """Name → shape of what a layer reads and training changes."""
    values = [graph.values[index] for at in layer.nodes for index in graph.nodes[at].inputs]
    return {
        value.name: graph.parameters[value.name]
        for value in values
        if value.kind == "parameter" and value.name in graph.parameters
    }


# -- parameters -----------------------------------------------------------------------------------


def learnt(graph: Graph, layers: Sequence[Layer], layer: Layer) -> list[str]:
    """How many numbers a layer learns, and which of them others use, too."""
    own = _parameters(graph, layer)
    if not own:
        return []
    total = sum(math.prod(shape) for shape in own.values())
    lines = _by_formula(graph, layer, own, total) or _by_shape(own, total)
    return [*lines, *_shared(graph, layers, layer, own)]


def _by_formula(
    graph: Graph, layer: Layer, own: dict[str, tuple[int, ...]], total: int
) -> list[str]:
    """The formula of a convolution, a linear layer or a batch norm."""
    working = [graph.nodes[at] for at in layer.nodes if not graph.nodes[at].view]
    convolutions = [node for node in working if node.op == "convolution"]
    products = [node for node in working if node.op in ("mm", "addmm", "linear")]
    shapes = list(own.values())
    if len(convolutions) == 1 and not products:
        return _of_convolution(graph, convolutions[0], total)
    weight = max(shapes, key=len)
    if len(products) == 1 and not convolutions and len(weight) == 2 and len(shapes) <= 2:
        out, source = weight
        bias = int(len(shapes) == 2)
        if out * (source + bias) == total:
            return [f"out·(in + bias) = {out}·({source} + {bias}) = {total:,}"]
    if any(node.op in _NORMS for node in working) and shapes[1:] == shapes[:1]:
        return _of_batch_norm(graph, layer, shapes[0], total)
    return []


def _of_convolution(graph: Graph, node: Node, total: int) -> list[str]:
    weight = graph.values[node.args[1].value].shape
    groups, bias = node.args[8], int(isinstance(node.args[2], Ref))
    kernel = _product(weight[2:])
    if node.args[6]:
        source, out = weight[0], weight[1] * groups
        if math.prod(weight) + bias * out != total:
            return []
        return [
            "in·out/groups·kernel + bias·out",
            f"{source}·{out}/{groups}·{kernel} + {bias}·{out} = {total:,}",
        ]
    out, source = weight[0], weight[1] * groups
    if math.prod(weight) + bias * out != total:
        return []
    return [
        "out·(in/groups·kernel + bias)",
        f"{out}·({source}/{groups}·{kernel} + {bias}) = {total:,}",
    ]


def _of_batch_norm(graph: Graph, layer: Layer, shape: tuple[int, ...], total: int) -> list[str]:
    channels = math.prod(shape)
    if 2 * channels != total:
        return []
    lines = [f"2·channels, a scale and a shift each: 2·{channels} = {total:,}"]
    buffers = [
        graph.values[index]
        for at in layer.nodes
        for index in graph.nodes[at].inputs
        if graph.values[index].kind == "buffer"
    ]
    if len(buffers) == 2:
        more = sum(value.elements for value in buffers)
        lines.append(f"its running means and variances, {more:,} more numbers, are not learnt")
    return lines


def _by_shape(own: dict[str, tuple[int, ...]], total: int) -> list[str]:
    """Every parameter with its shape."""
    short = {name.rpartition(".")[2]: shape for name, shape in own.items()}
    named = short if len(short) == len(own) else own
    width = max(len(name) for name in [*named, *(["together"] if len(named) > 1 else [])])
    lines = [
        f"{name:<{width}}  {_product(shape)} = {math.prod(shape):,}"
        if len(shape) > 1
        else f"{name:<{width}}  {math.prod(shape):,}"
        for name, shape in named.items()
    ]
    return [*lines, f"{'together':<{width}}  {total:,}"] if len(lines) > 1 else lines


def _shared(
    graph: Graph, layers: Sequence[Layer], layer: Layer, own: dict[str, tuple[int, ...]]
) -> list[str]:
    """Which layers use the same parameters, and at which of them they are counted."""
    users: dict[str, list[str]] = {name: [] for name in own}
    for one in layers:
        for name in _parameters(graph, one):
            if name in users:
                users[name].append(one.name)
    lines: dict[tuple[str, ...], list[str]] = {}
    for name, names in users.items():
        if len(names) > 1:
            lines.setdefault(tuple(names), []).append(name)
    found = []
    for layers_of, parameters in lines.items():
        where = "here" if layers_of[0] == layer.name else f"at {layers_of[0]}"
        others = listed([one for one in layers_of if one != layer.name])
        found.append(f"{listed(parameters)}: shared with {others}; counted once, {where}")
    if layer.shared:
        found.append(f"new at this layer: {layer.parameters:,}")
    return found


# -- work -----------------------------------------------------------------------------------------


def multiplied(graph: Graph, layer: Layer) -> list[str]:
    """The multiply-accumulates of each operation that has some."""
    times: dict[tuple[str, str, int], int] = {}
    for at in layer.nodes:
        node = graph.nodes[at]
        if macs := node_macs(graph, node):
            general, filled, result = _factors(graph, node)
            key = (general, filled, macs) if result == macs else ("", node.op, macs)
            times[key] = times.get(key, 0) + 1
    lines: list[str] = []
    for (general, filled, macs), count in times.items():
        lines += [general] if general and general not in lines else []
        lines.append(f"{filled} = {macs:,}" + (f", {count} times" if count > 1 else ""))
    if sum(times.values()) > 1:
        lines.append(f"together {layer.macs:,}")
    return lines


def _factors(graph: Graph, node: Node) -> tuple[str, str, int]:
    """The formula, the formula with its numbers, and what that comes to."""
    shapes = [graph.values[one.value].shape for one in node.args if isinstance(one, Ref)]
    out = graph.values[node.outputs[0]].shape
    if node.op == "convolution":
        weight, groups = shapes[1], node.args[8]
        if node.args[6]:
            batch, channels, *size = shapes[0]
            general = "batch·in·size before·out/groups·kernel"
        else:
            batch, channels, *size = out
            general = "batch·out·size·in/groups·kernel"
        meets = f"{weight[1] * groups}/{groups}·{_product(weight[2:])}"
        text = f"{_product([batch, channels, *size])}·{meets}"
        return general, text, batch * channels * math.prod(size) * math.prod(weight[1:])
    if node.op in ("mm", "bmm", "addmm", "baddbmm", "linear"):
        inner = shapes[1 if node.op.startswith(("addmm", "baddbmm")) else 0][-1]
        general = "rows·out·in" if node.op in ("mm", "addmm", "linear") else "batch·rows·columns·in"
        return general, _product([*out, inner]), math.prod(out) * inner
    if "scaled_dot_product" in node.op:
        (*lead, queries, width), keys, values = shapes[0], shapes[1][-2], shapes[2][-1]
        text = f"{_product([*lead, queries, keys])}·({width} + {values})"
        general = "batch·heads·queries·keys·(width of the keys + width of the values)"
        return general, text, math.prod([*lead, queries, keys]) * (width + values)
    return "", node.op, -1


# -- bytes ----------------------------------------------------------------------------------------


def moved(graph: Graph, layer: Layer) -> list[str]:
    """Bytes read and written, and the multiply-accumulates for each of them."""
    if not layer.read + layer.written:
        return ["none: the same numbers are only looked at in another shape"]
    lines = [
        f"read     {_terms(graph, layer)}{layer.read:,}",
        f"written  {layer.written:,}",
    ]
    if layer.macs:
        total = layer.read + layer.written
        lines.append(
            f"{layer.macs:,} multiply-accumulates / {total:,} bytes = {layer.intensity:.3g} a byte"
        )
    else:
        lines.append("no multiply-accumulates: what it costs is to move these bytes")
    return lines


def _terms(graph: Graph, layer: Layer) -> str:
    """`input 200,704 + weight 4,718,592 = `, for a layer of one operation that reads several."""
    working = [graph.nodes[at] for at in layer.nodes if not graph.nodes[at].view]
    working = [node for node in working if node.inputs]
    if len(working) != 1:
        return ""
    origins = {
        out: graph.nodes[at].inputs[0]
        for at in layer.nodes
        if graph.nodes[at].view and len(graph.nodes[at].inputs) == 1
        for out in graph.nodes[at].outputs
    }
    terms: dict[bool, list[str]] = {False: [], True: []}
    total = 0
    for index in dict.fromkeys(working[0].inputs):
        origin = index
        while origin in origins:
            origin = origins[origin]
        value = graph.values[origin]
        learnt = value.kind in ("parameter", "buffer")
        name = value.name.rpartition(".")[2] if learnt else "input"
        terms[learnt].append(f"{name} {graph.values[index].bytes:,}")
        total += graph.values[index].bytes
    both = [*terms[False], *terms[True]]
    if total != layer.read or len(both) < 2:
        return ""
    return f"{' + '.join(both)} = "
