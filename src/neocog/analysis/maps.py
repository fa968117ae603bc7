"""Layers that answer with a map, and where height and width lie in it. Floor 1, room analysis.

Imports floor 0 and this room. A map is found by what ran, never by class name: an answer of four
axes, two of which have as many positions as the receptive fields know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Call, Graph

__all__ = ["last_map", "map_axes", "named_map", "run_name"]


def run_name(call: Call) -> str:
    """`path` of a module's first run, `path#2` of its second."""
    return f"{call.path}#{call.repeat + 1}" if call.repeat else call.path


def named_map(graph: Graph, known: Fields, layer: str) -> tuple[Call, tuple[int, int]]:
    """The run of a module by its name, and where height and width lie in its answer.

    Raises:
        ConfigError: no such layer, or its answer is no map.
    """
    names = {run_name(call): call for call in graph.calls}
    if layer not in names:
        raise ConfigError(f"no module is called {layer!r}", near(layer, filter(None, names)))
    axes = map_axes(graph, known, names[layer])
    if axes is None:
        raise ConfigError(
            f"{layer} does not answer with a map of several channels, height and width",
            "take a module before the picture is averaged or flattened",
        )
    return names[layer], axes


def last_map(
    graph: Graph, known: Fields, *, inner: bool = False
) -> tuple[Call, tuple[int, int]] | None:
    """The run of a module that made the last map of a network; None where it makes none.

    Args:
        graph: what ran.
        known: the fields of `graph`.
        inner: leave out the answer of the network itself, and maps of a single position.
    """
    maps = []
    for call in graph.calls:
        axes = map_axes(graph, known, call)
        if axes is None:
            continue
        shape = graph.values[call.outputs[0]].shape
        single = shape[axes[0]] * shape[axes[1]] == 1
        if not inner or not (single or call.outputs[0] in graph.outputs):
            maps.append((call, axes))
    # A container answers with what its last part answers: its name is the shorter one.
    return max(maps, key=lambda one: (one[0].outputs[0], -len(one[0].path)), default=None)


def map_axes(graph: Graph, known: Fields, call: Call) -> tuple[int, int] | None:
    """Height and width of an answer B×C×H×W or B×H×W×C; None where it is no map."""
    if not call.outputs or call.outputs[0] in graph.inputs:
        return None
    value = call.outputs[0]
    shape = graph.values[value].shape
    if len(shape) != 4 or known.of(value) is None:
        return None
    for rows, columns in ((2, 3), (1, 2)):
        counts = (shape[rows], shape[columns])
        if _positions_are(known, value, counts):
            return rows, columns
    return None


def _positions_are(known: Fields, value: int, counts: tuple[int, int]) -> bool:
    """Whether a tensor has just so many positions along height and width."""
    rows, columns = counts

    def exists(row: int, column: int) -> bool:
        try:
            return known.unit(value, (row, column)) is not None
        except IndexError:
            return False

    return (
        exists(rows // 2, columns // 2)
        and exists(rows - 1, columns // 2)
        and exists(rows // 2, columns - 1)
        and not exists(rows, columns // 2)
        and not exists(rows // 2, columns)
    )
