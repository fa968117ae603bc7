"""The effective receptive field: how much each pixel really counts. Floor 1, room analysis.

Imports floor 0, NumPy, torch and this room. The theoretical field says which pixels can count; most
of them hardly do: the gradient of the centre unit at the input falls off like a Gaussian, whose
width grows with the root of the depth where the field grows with the depth itself (Luo, Li,
Urtasun, Zemel 2016, "Understanding the effective receptive field in deep convolutional neural
networks", arXiv 1701.04128).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from neocog import chance
from neocog.analysis.field import fields
from neocog.analysis.maps import last_map, named_map, run_name
from neocog.analysis.normal import normal
from neocog.analysis.remark import times
from neocog.analysis.trace import tensors_in, trace
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError, NeocogError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from neocog.analysis.field import Field, Fields
    from neocog.analysis.graph import Call, Graph

__all__ = ["SHARE", "EffectiveField", "effective_field"]

SHARE = 0.95
"""Of the gradient, what the effective square holds: about two standard deviations each way."""

Box = tuple[tuple[int, int], tuple[int, int]]
"""First and last row, first and last column."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EffectiveField:
    """What the centre unit of a layer sees, weighed."""

    layer: str
    """Name of the module; a run after the first has `#2`; empty: the network itself."""
    unit: tuple[int, int]
    """Row and column of the unit in the layer's answer."""
    weights: NDArray[np.float64]
    """H×W, the mean absolute gradient of each pixel, over channels; the sum is 1."""
    centre: tuple[float, float]
    """The pixel that the unit's field is centred at; halves lie between two pixels."""
    size: tuple[int, int]
    """The theoretical receptive field on an endless picture: height and width."""
    box: Box
    """The theoretical field on this picture: what lies in the padding does not count."""
    square: Box
    """The smallest centred square that holds 95 % of the weights, cut off at the picture's edge."""
    side: int
    """Of that square, the padding included."""
    samples: int
    """Pictures that were averaged over."""


def effective_field(
    module: nn.Module,
    size: Sequence[int],
    layer: str = "",
    *,
    samples: int = 8,
    seed: int = 0,
    pictures: Tensor | None = None,
) -> EffectiveField:
    """Mean over pictures of |∂ Σ_c y[c, centre] / ∂x|, summed over the input's channels.

    The network runs as in use, on a copy: weights, training flags, hooks, gradients and the state
    of the random generators stay as they were.

    Args:
        module: a network of pictures B×C×H×W.
        size: C×H×W.
        layer: path of a module that answers with a map: `layer3.0`; of a module that runs several
            times, `path#2` is the second run. Empty: the last map of the network.
        samples: how many random pictures, of independent standard normal pixels.
        seed: of the pictures.
        pictures: B×C×H×W, to take in their place; prepared as the network wants them.

    Raises:
        TraceError: the network does not run at this size.
        ConfigError: no such layer, or its answer is no map; pictures of another size.
        NeocogError: the gradient is zero or not finite everywhere.
    """
    if len(size) != 3 or samples < 1:
        raise ConfigError(
            f"expected a size C×H×W and at least one sample, found {times(size)} and {samples}",
            "the effective field is that of networks of pictures",
        )
    if pictures is not None and (tuple(pictures.shape[1:]) != tuple(size) or not len(pictures)):
        raise ConfigError(
            f"expected pictures B×{times(size)}, found {times(pictures.shape)}",
            "resize them, or give their size",
        )
    twin = copied(module)
    device, dtype = place(twin)
    graph = trace(twin, torch.empty(1, *size, dtype=dtype, device="meta"))
    known = fields(graph)
    call, axes = _chosen(graph, known, layer)
    value = call.outputs[0]
    shape = graph.values[value].shape
    unit = (shape[axes[0]] // 2, shape[axes[1]] // 2)
    index: list[Any] = [slice(None)] * 4
    index[axes[0]], index[axes[1]] = unit
    given = (
        _noise(samples, size, seed)
        if pictures is None
        else (pictures[at : at + 1] for at in range(len(pictures)))
    )
    total, count = np.zeros(tuple(size[1:])), 0
    with own_chance(device, chance.key(seed, "effective field")):
        for picture in given:
            total += _gradient(twin, picture.to(device, dtype), call, tuple(index))
            count += 1
    found, box = known.of(value), known.unit(value, unit)
    if found is None or box is None or not np.isfinite(total).all() or not total.sum():
        raise NeocogError(
            f"the gradient of {run_name(call) or 'the network'} at its input is zero or not finite",
            "take a layer further in front, or weights that let signals through",
        )
    weights = total / total.sum()
    rows, columns = (
        _centre(axis, at, hull, count)
        for axis, at, hull, count in zip(found, unit, box, size[1:], strict=True)
    )
    side, square = _held(weights, (rows, columns))
    return EffectiveField(
        layer=run_name(call),
        unit=unit,
        weights=weights,
        centre=(rows, columns),
        size=(found[0].size, found[1].size),
        box=(box[0], box[1]),
        square=square,
        side=side,
        samples=count,
    )


# -- the layer ------------------------------------------------------------------------------------


def _chosen(graph: Graph, known: Fields, layer: str) -> tuple[Call, tuple[int, int]]:
    """The run of a module, and where height and width lie in its answer."""
    found = named_map(graph, known, layer) if layer else last_map(graph, known)
    if found is None:
        raise ConfigError(
            "no module of the network answers with a map",
            "the effective field is that of a convolutional layer",
        )
    return found


# -- the gradient ---------------------------------------------------------------------------------


def _noise(samples: int, size: Sequence[int], seed: int) -> Iterator[Tensor]:
    """Pictures of independent standard normal pixels, 1×C×H×W."""
    for sample in range(samples):
        key = chance.key(seed, "effective field", sample)
        yield torch.from_numpy(normal((1, *size), key))


def _gradient(
    twin: nn.Module, picture: Tensor, call: Call, index: tuple[Any, ...]
) -> NDArray[np.float64]:
    """|∂ Σ_c y[c, centre] / ∂x| of one picture, H×W."""
    answers: list[Tensor] = []
    runs = itertools.count()

    def keep(_: nn.Module, __: Any, answer: Any) -> None:
        if next(runs) == call.repeat:
            # A clone: the network may go on and write into it.
            answers.append(next(tensors_in(answer)).clone())

    x = picture.detach().clone().requires_grad_(True)
    handle = twin.get_submodule(call.path).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            twin(x.clone())  # the network may write into what it is given
            # Plus nothing, for an answer that does not depend on the picture.
            y = answers[0][index].sum() + 0 * x.sum()
            (found,) = torch.autograd.grad(y, x)
    finally:
        handle.remove()
    total: NDArray[np.float64] = found[0].double().abs().sum(0).cpu().numpy()
    return total


# -- the square -----------------------------------------------------------------------------------


def _centre(field: Field, position: int, hull: tuple[int, int], count: int) -> float:
    """Where a unit's field is centred along an axis."""
    low, high = hull
    if low > 0 and high < count - 1:
        return (low + high) / 2
    # Cut off by the edge: the regular grid, which behind up-sampling is a mean over the phases.
    return float(field.offset + field.jump * position)


def _held(weights: NDArray[np.float64], centre: tuple[float, float]) -> tuple[int, Box]:
    """Side and place of the smallest centred square that holds 95 % of the weights."""
    middle = [round(2 * at) / 2 for at in centre]
    rows, columns = (
        np.abs(np.arange(count) - at) for count, at in zip(weights.shape, middle, strict=True)
    )
    reach = np.maximum(rows[:, None], columns[None, :])
    radii = np.unique(reach)
    shares = np.cumsum([weights[reach == radius].sum() for radius in radii])
    radius = float(radii[int(np.argmax(shares >= SHARE - 1e-12))])
    held = [np.flatnonzero(one <= radius) for one in (rows, columns)]
    square = tuple((int(one[0]), int(one[-1])) for one in held)
    return int(2 * radius) + 1, (square[0], square[1])
