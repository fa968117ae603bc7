"""Which layers of a network answer with something to look at. Floor 1, explain; imports floor 0,
torch and `analysis`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.analysis.field import fields
from neocog.analysis.maps import map_axes, run_name
from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Graph

__all__ = ["Layer", "layer_of", "layers_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A run of a module that answers with a map, or with one number a channel."""

    name: str
    """`layer3.0`; a run after the first has `#2`; empty: the network itself."""
    value: int
    """Its answer in the graph."""
    size: tuple[int, ...]
    """C×h×w, or C."""
    axes: tuple[int, int] | None
    """Where height and width lie in the answer; None where it has none."""
    leaf: bool
    """A layer of its own, not a container of others."""
    passes: bool
    """It answers with what it was given, as dropout in use does."""

    def channels_first(self, answer: Tensor) -> Tensor:
        """The layer's answer as B×C×h×w, or B×C."""
        return answer.movedim(-1, 1) if self.axes == (1, 2) else answer


def layers_of(graph: Graph, known: Fields | None = None) -> dict[str, Layer]:
    """Name → every layer that answers with a map or with one number a channel, as they started.

    Args:
        graph: of a network of pictures, one input B×C×H×W.
        known: its fields, where they are at hand.
    """
    known = known or fields(graph)
    found = {}
    for call in graph.calls:
        if not call.outputs or call.outputs[0] in graph.inputs:
            continue
        value = call.outputs[0]
        shape = graph.values[value].shape
        axes = map_axes(graph, known, call)
        if axes is not None:
            size = shape[1:] if axes == (2, 3) else (shape[3], shape[1], shape[2])
        elif len(shape) == 2 and known.reached(value):
            size = shape[1:]
        else:
            continue
        name = run_name(call)
        found[name] = Layer(
            name=name,
            value=value,
            size=size,
            axes=axes,
            leaf=call.leaf,
            passes=value in call.inputs,
        )
    return found


def layer_of(layers: Mapping[str, Layer], name: str, *, map: bool = False) -> Layer:
    """One of them.

    Args:
        layers: of `layers_of`.
        name: of the layer.
        map: whether it must answer with a map.

    Raises:
        ConfigError: no such layer, or no map.
    """
    fitting = [one for one, layer in layers.items() if layer.axes is not None or not map]
    if name in fitting:
        return layers[name]
    wanted = "map of several channels, height and width" if map else "map or a row of channels"
    raise ConfigError(
        f"no layer called {name!r} answers with a {wanted}", near(name, filter(None, fitting))
    )
