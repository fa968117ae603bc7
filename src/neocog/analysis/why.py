"""One layer's arithmetic, written out as on a blackboard. Floor 1, room analysis.

Standard library, floor 0 and this room. Every number comes from the graph; a formula that does not
give what was recorded is left out.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from neocog.analysis import counts, formulas, reach
from neocog.errors import ConfigError, near
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Graph
    from neocog.analysis.summary import Layer

__all__ = ["why"]

WIDTH = 98
"""Columns of the text."""


def why(graph: Graph, fields: Fields, layers: Sequence[Layer], name: str) -> str:
    """Why a layer has the size, the parameters, the work and the field that it has.

    Args:
        graph: the network.
        fields: what its tensors see.
        layers: its lines, of which `name` is one.
        name: of the layer: `layer4.0.conv1`.

    Returns:
        Plain text; a part that does not apply (no parameters, no formula) is not there.

    Raises:
        ConfigError: no layer has that name.
    """
    layer = next((one for one in layers if one.name == name), None)
    if layer is None:
        raise ConfigError(f"no layer is called {printable(name)!r}", _hint(graph, layers, name))
    parts = {
        "Size": _size(graph, layer),
        "Parameters": counts.learnt(graph, layers, layer),
        "Multiply-accumulates": counts.multiplied(graph, layer),
        "Receptive field": reach.grown(graph, fields, layers, layer),
        "What one unit sees of the input (first … last)": reach.seen(graph, fields, layer),
        "Bytes": counts.moved(graph, layer),
    }
    lines = _head(graph, layer)
    for title, part in parts.items():
        if part:
            lines += ["", title, *_indented(part)]
    return "\n".join(lines) + "\n"


def _hint(graph: Graph, layers: Sequence[Layer], name: str) -> str:
    """Names to take instead."""
    names = [one.name for one in layers]
    inside = [one for one in names if one.startswith(f"{name}.")]
    if inside:
        hint = f"{name!r} is made of {formulas.listed(inside)}"
    elif any(call.path == name and call.leaf for call in graph.calls):
        hint = f"{name!r} only hands on what it is given: there is nothing to work out"
    else:
        hint = near(name, names)
    return textwrap.shorten(printable(hint), 300, placeholder=" …")


def _indented(lines: Sequence[str]) -> list[str]:
    """Two columns in; what is too wide goes on in the next line."""
    found: list[str] = []
    for line in lines:
        if len(line) + 2 <= WIDTH:
            found.append(f"  {line}".rstrip())
        else:
            found += textwrap.wrap(
                line,
                WIDTH,
                initial_indent="  ",
                subsequent_indent=" " * (len(line) - len(line.lstrip()) + 4),
                break_on_hyphens=False,
            )
    return found


def _head(graph: Graph, layer: Layer) -> list[str]:
    """What it is, where it is, what it reads."""
    words = printable(" ".join(layer.extra.split()))
    title = f"{layer.name}: {layer.kind}" + (f"({words})" if words else "")
    place = [f"run {layer.repeat + 1} of {layer.path}"] if layer.repeat else []
    place += [f"at {layer.source}"] if layer.source else []
    sources = [name or "the input" for name in layer.before]
    place += [f"reads {formulas.listed(sources)}"] if sources else []
    value = graph.values[layer.output]
    given = [formulas.shape_text(graph.values[one].shape) for one in layer.inputs]
    before = f"{formulas.listed(given)} → " if given else ""
    shape = f"{before}{formulas.shape_text(layer.shape)}, {value.dtype}"
    return [
        *textwrap.wrap(printable(title), WIDTH, subsequent_indent="    "),
        *_indented([", ".join(place), shape] if place else [shape]),
    ]


def _size(graph: Graph, layer: Layer) -> list[str]:
    """The size formulas of its operations; of a layer that only reshapes, the products."""
    nodes = [graph.nodes[at] for at in layer.nodes]
    if all(node.view for node in nodes):
        return _reshaped(graph, layer)
    lines: list[str] = []
    for node in nodes:
        found = formulas.sizes(graph, node, max(0, len(layer.shape) - 2))
        lines += [line for line in found if line not in lines]
    return lines


def _reshaped(graph: Graph, layer: Layer) -> list[str]:
    """The same numbers in another shape: `512·7·7 = 25088`."""
    before, after = graph.values[layer.inputs[0]].shape, layer.shape
    if math.prod(before) != math.prod(after):
        return []
    if before[:1] == after[:1]:  # the batch stays
        before, after = before[1:], after[1:]
    return [" = ".join("·".join(map(str, shape)) or "1" for shape in (before, after))]
