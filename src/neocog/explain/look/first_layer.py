"""The kernels that read the picture itself, as pictures. Floor 1, explain; imports floor 0, NumPy,
torch and `analysis`.

Kernels of the first layer live in the space of pixels, so they can be looked at: edges and blobs of
colour in a network that has learnt (Krizhevsky, Sutskever and Hinton 2012, figure 3), noise in one
that has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from neocog.errors import ConfigError
from neocog.explain.look.sheets import Tiles, columns_for, levels, strongest
from neocog.explain.recording import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from neocog.analysis.graph import Graph, Node
    from neocog.explain.look.sheets import Scale

__all__ = ["Kernels", "first_kernels", "kernel_tiles"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernels:
    """The weights of the first convolution, as it used them."""

    layer: str
    """Path of the module that ran it."""
    values: NDArray[np.float32]
    """K×C×h×w; of a grouped convolution, C is what one group reads."""
    stride: tuple[int, int]
    """Pixels from one position to the next, down and across."""


def first_kernels(module: nn.Module, size: Sequence[int]) -> Kernels:
    """The kernels of the first convolution that reads the picture.

    It is found in the graph of what ran: whatever its class, and also where the weights are
    computed (weight norm, standardised weights) or a normalisation comes before.

    Args:
        module: a network of pictures.
        size: C×H×W.

    Raises:
        TraceError: the network does not run at this size.
        ConfigError: no picture, or no convolution reads it.
    """
    if len(size) != 3:
        raise ConfigError(
            f"expected pictures C×H×W, found {len(size)} axes", "kernels are shown as pictures"
        )
    recording = record(module, torch.zeros(1, *size))
    node = _first(recording.graph)
    if node is None:
        raise ConfigError(
            "no convolution reads the picture before other weights do",
            "networks that begin otherwise have no first kernels to show",
        )
    weight = recording.tensors[node.inputs[1]]
    down, across = (list(node.args[3]) * 2)[:2]
    return Kernels(
        layer=recording.graph.calls[node.call].path,
        values=weight.float().numpy().copy(),
        stride=(down, across),
    )


def _first(graph: Graph) -> Node | None:
    """The first convolution on the picture, or on what was made of it without a weight that mixes
    pixels or channels."""
    pure = {graph.inputs[0]}
    for node in graph.nodes:
        reads = [value for value in node.inputs if value in pure]
        if not reads:
            continue
        if node.op == "convolution" and node.inputs[0] in pure and not node.args[6]:
            if len(graph.values[node.inputs[1]].shape) == 4:
                return node
            continue
        # Scales and shifts of channels (a normalisation) leave a picture a picture.
        others = (graph.values[value] for value in node.inputs if value not in pure)
        if all(sum(side > 1 for side in one.shape) <= 1 for one in others):
            pure.update(node.outputs)
    return None


def kernel_tiles(
    kernels: NDArray[np.floating],
    *,
    scale: Scale = "signed",
    order: Literal["number", "strength"] = "number",
    most: int = 256,
) -> Tiles:
    """Kernels as tiles: of three channels in colour, of one in grey, of others a row of C grey
    tiles for each kernel. A kernel has one scale for all its channels.

    Args:
        kernels: K×C×h×w.
        scale: how numbers become grey values.
        order: as they are numbered, or the largest root mean square first.
        most: tiles; of more, the strongest kernels are shown, at least one.

    Raises:
        ValueError: another shape, or weights that are not finite.
    """
    if kernels.ndim != 4 or not kernels.size:
        raise ValueError(f"expected kernels K×C×h×w, found {kernels.shape}")
    channels = kernels.shape[1]
    row = 1 if channels in (1, 3) else channels
    numbers = strongest(kernels, max(1, most // row), by_strength=order == "strength")
    shown = levels(kernels[numbers], scale)
    flat = (-1, *kernels.shape[2:])
    pixels = shown.transpose(0, 2, 3, 1) if channels == 3 else shown.reshape(flat)
    return Tiles(
        pixels=np.ascontiguousarray(pixels),
        numbers=tuple(int(one) for one in np.repeat(numbers, row)),
        columns=columns_for(len(numbers)) if row == 1 else row,
        scale=scale,
        each=True,
    )
