"""What the layers of a network answer to one picture, as maps. Floor 1, explain; imports floor 0,
NumPy, torch and `analysis`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from neocog import chance
from neocog.analysis.trace import trace
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError
from neocog.explain.capture import capture
from neocog.explain.layers import layer_of, layers_of
from neocog.explain.look.sheets import Tiles, columns_for, levels, strongest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neocog.explain.layers import Layer
    from neocog.explain.look.sheets import Scale

__all__ = ["FeatureMaps", "feature_maps", "map_tiles"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureMaps:
    """What a layer answered to a picture."""

    layer: str
    """Name of the layer's run; empty: the network itself."""
    values: NDArray[np.float32]
    """C×h×w."""


def feature_maps(
    module: nn.Module, picture: Tensor, layers: Sequence[str] = ()
) -> tuple[FeatureMaps, ...]:
    """The maps of layers for one picture.

    The network runs once, as in use, on a copy. Held: the maps that are returned, 4 bytes a value.

    Args:
        module: a network of pictures.
        picture: C×H×W, as the network takes it.
        layers: names of layers that answer with a map, `path#2` for the second run. None: all
            layers that do; a container and a layer that passes its input on are left out.

    Raises:
        TraceError: the network does not take the picture.
        ConfigError: no such layer, or no maps.
        NeocogError: a layer answers NaN or infinity.
    """
    if picture.dim() != 3:
        raise ConfigError(f"expected one picture C×H×W, found {tuple(picture.shape)}")
    twin = copied(module)
    device, dtype = place(twin)
    graph = trace(twin, torch.empty(1, *picture.shape, dtype=dtype, device="meta"))
    known = layers_of(graph)
    wanted = [layer_of(known, name, map=True) for name in layers] or _distinct(known)
    if not wanted:
        raise ConfigError(
            "no module of the network answers with a map", "maps are those of convolutional layers"
        )
    with own_chance(device, chance.key(0, "feature maps")), torch.no_grad():
        x = picture.detach()[None].to(device, dtype)
        answers = capture(twin, x, (one.name for one in wanted)).layers
    return tuple(
        FeatureMaps(
            layer=one.name,
            values=one.channels_first(answers[one.name])[0].float().cpu().numpy().copy(),
        )
        for one in wanted
    )


def _distinct(known: dict[str, Layer]) -> list[Layer]:
    """Layers with a map of their own: of those that answer the same, the leaf."""
    own = [one for one in known.values() if one.axes is not None and not one.passes]
    # What no leaf answers (a sum at the end of a block, a functional ReLU) its block does: the
    # innermost one, which started last.
    merged = {one.value: one for one in sorted(own, key=lambda one: one.leaf)}
    return [merged[value] for value in sorted(merged)]


def map_tiles(
    values: NDArray[np.floating],
    *,
    most: int = 64,
    order: Literal["number", "strength"] = "strength",
    each: bool = True,
) -> Tiles:
    """Maps as grey tiles; around a middle grey where the layer has negative values.

    Args:
        values: C×h×w.
        most: channels; of more, those with the largest root mean square are shown.
        order: the strongest first, or as they are numbered.
        each: whether each map has a scale of its own; otherwise the layer has one, and weak
            channels look weak.

    Raises:
        ValueError: no C×h×w of at least one channel, or a value that is not finite.
    """
    if values.ndim != 3 or not values.size or most < 1:
        raise ValueError(f"expected maps C×h×w and at least one tile, found {values.shape}, {most}")
    numbers = strongest(values, most, by_strength=order == "strength")
    scale: Scale = "signed" if values.min() < 0 else "positive"
    return Tiles(
        pixels=levels(values[numbers], scale, each=each),
        numbers=tuple(int(one) for one in numbers),
        columns=columns_for(len(numbers), values.shape[1] / values.shape[2]),
        scale=scale,
        each=each,
    )
