"""The patches of the data that excite a channel most. Floor 1, explain; imports floor 0, NumPy,
torch and `analysis`.

What a unit looks for shows in what it answers to most (Zeiler and Fergus 2014, "Visualizing and
understanding convolutional networks"; Girshick et al. 2014, section 3.1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neocog import chance
from neocog.analysis.field import fields
from neocog.analysis.trace import trace
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError, DataError, NeocogError
from neocog.explain.capture import capture
from neocog.explain.layers import layer_of, layers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from neocog.analysis.field import Fields
    from neocog.explain.layers import Layer

__all__ = ["Exciting", "exciting"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exciting:
    """For each channel of a layer the pictures that excite it most, the strongest first.

    C×n: n is what was asked for, or the number of pictures where there are fewer.
    """

    layer: str
    """Name of the layer's run."""
    ids: NDArray[np.int64]
    """C×n, of the pictures; no picture twice in a channel."""
    values: NDArray[np.float32]
    """C×n, the largest answer that the picture got anywhere."""
    positions: NDArray[np.int64]
    """C×n×2, row and column of that answer in the map; −1 where the layer has no positions."""
    boxes: NDArray[np.int64]
    """C×n×4: the first and last row, the first and last column of the picture that this answer
    sees. What lies in the padding is cut off; −1 where it sees nothing."""


def exciting(
    module: nn.Module,
    batches: Iterable[tuple[Sequence[int] | Tensor, Tensor]],
    layers: Sequence[str],
    *,
    top: int = 9,
    pictures: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Exciting, ...]:
    """Show a network pictures, and keep for each channel those it answers to most.

    Of a map, the largest answer of a picture counts; of equal ones the first, by rows. Of equal
    pictures the one that came first. Held: the layers' answers to one batch, and `top` entries for
    each channel.

    Args:
        module: a network of pictures; a copy of it runs, as in use.
        batches: ids of pictures and the pictures, B×C×H×W as the network takes them, all of one
            size. A picture that comes again does not count again.
        layers: names of layers that answer with a map or with one number a channel.
        top: pictures for each channel.
        pictures: how many there will be, told to `progress`.
        progress: told how many pictures of how many are done.

    Raises:
        TraceError: the network does not take the pictures.
        ConfigError: no such layer, or none that answers so.
        DataError: no pictures, of different sizes, or ids that are not one for each.
        NeocogError: a layer answers NaN.
    """
    if top < 1 or not layers:
        raise ConfigError(f"expected layers and at least one picture each, found {top}")
    twin = copied(module)
    device, dtype = place(twin)
    ahead = iter(batches)
    first = next(ahead, None)
    if first is None or not len(first[1]):
        raise DataError("expected pictures to look for patches in, found none")
    size = tuple(first[1].shape[1:])
    graph = trace(twin, torch.empty(1, *size, dtype=dtype, device="meta"))
    known = fields(graph)
    wanted = [layer_of(layers_of(graph, known), name) for name in dict.fromkeys(layers)]
    best = {one.name: _Best(one.size[0], top) for one in wanted}
    done = 0
    with own_chance(device, chance.key(0, "exciting")), torch.no_grad():
        for ids, x in _checked(itertools.chain([first], ahead), size):
            answers = capture(twin, x.to(device, dtype), best).layers
            for one in wanted:
                flat = one.channels_first(answers[one.name]).float().cpu()
                best[one.name].take(one.name, ids, flat.reshape(*flat.shape[:2], -1))
            done += len(ids)
            if progress:
                progress(done, pictures or done)
    return tuple(_placed(one, best[one.name], known) for one in wanted)


def _checked(
    batches: Iterable[tuple[Sequence[int] | Tensor, Tensor]], size: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches in which no picture comes twice."""
    for given, x in batches:
        ids = torch.as_tensor(given, dtype=torch.int64).cpu()
        if ids.shape != (len(x),):
            raise DataError(f"expected {len(x)} ids for as many pictures, found {len(ids)}")
        if tuple(x.shape[1:]) != size:
            raise DataError(
                f"expected pictures of {size}, as the first, found {tuple(x.shape[1:])}",
                "bring them to one size",
            )
        places = {int(one): at for at, one in reversed(list(enumerate(ids)))}
        if len(places) < len(ids):
            kept = torch.tensor(sorted(places.values()))
            ids, x = ids[kept], x[kept]
        if len(ids):
            yield ids, x


class _Best:
    """The best pictures of each channel so far."""

    def __init__(self, channels: int, top: int) -> None:
        self.top = top
        self.values = torch.full((channels, 0), -torch.inf)
        self.ids = torch.zeros((channels, 0), dtype=torch.int64)
        self.places = torch.zeros((channels, 0), dtype=torch.int64)

    def take(self, name: str, ids: Tensor, answers: Tensor) -> None:
        """Look at a batch: B ids, answers B×C×positions."""
        values, places = (one.T for one in answers.max(2))
        if values.isnan().any():
            raise NeocogError(
                f"{name or 'the network'} answers NaN",
                "a network that diverged has no pictures it likes",
            )
        # The best of the batch alone first: no other can be among the best of all.
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.top]
        values = torch.cat([self.values, values.gather(1, order)], 1)
        places = torch.cat([self.places, places.gather(1, order)], 1)
        known = torch.cat([self.ids, ids[order]], 1)
        count = known.shape[1]
        earlier = torch.ones(count, count, dtype=torch.bool).tril(-1)
        again = ((known[:, :, None] == known[:, None, :]) & earlier).any(2)
        # A picture that comes again goes behind all others, also behind one of minus infinity.
        order = values.argsort(dim=1, descending=True, stable=True)
        order = order.gather(1, again.gather(1, order).to(torch.int8).argsort(dim=1, stable=True))
        # Each channel has seen the same pictures, so all keep equally many.
        order = order[:, : min(self.top, count - int(again.sum(1).max()))]
        self.values, self.ids, self.places = (
            one.gather(1, order) for one in (values, known, places)
        )


def _placed(layer: Layer, best: _Best, known: Fields) -> Exciting:
    """With positions in the map and boxes on the picture."""
    wide = layer.size[2] if layer.axes else 1
    boxes: dict[int, tuple[int, ...]] = {}
    for at in np.unique(best.places.numpy()).tolist():
        position = divmod(at, wide) if layer.axes else ()
        found = known.unit(layer.value, position)
        boxes[at] = (-1,) * 4 if found is None else (*found[0], *found[1])
    places = best.places.numpy()
    rows, columns = np.divmod(places, wide) if layer.axes else (places * 0 - 1, places * 0 - 1)
    return Exciting(
        layer=layer.name,
        ids=best.ids.numpy(),
        values=best.values.numpy(),
        positions=np.stack([rows, columns], -1),
        boxes=np.array([[boxes[at] for at in row] for row in places.tolist()]).reshape(
            *places.shape, 4
        ),
    )
