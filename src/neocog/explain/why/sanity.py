"""Does a method look at the weights? Maps of a network that is scrambled from the top down.

Floor 1, explain; imports floor 0, NumPy, torch, and `analysis`.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog import chance
from neocog.analysis.twin import copied
from neocog.errors import ConfigError
from neocog.explain.why.probe import parts, probing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neocog.explain.why.probe import Probe
    from neocog.explain.why.target import Target

    Maps = Callable[[nn.Module, Tensor, Target], Tensor]

__all__ = ["SAME", "Sanity", "randomised_weights", "rank_correlation"]

SAME = 0.9
"""Rank correlation above which two maps count as the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanity:
    """How a method's map changes while a network is scrambled from the top down."""

    layers: tuple[str, ...]
    """The last layer that was scrambled at each step; those above it were, too."""
    similarity: tuple[float, ...]
    """Rank correlation of |map| with that of the whole network, mean over pictures, −1 … 1."""

    @property
    def sensitive(self) -> bool:
        """Whether the map of the wholly scrambled network is another one."""
        return self.similarity[-1] < SAME


def randomised_weights(
    module: nn.Module,
    x: Tensor,
    target: Target,
    method: Maps,
    *,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Sanity:
    """Scramble one layer after the other, the last first, and compare the maps.

    Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim 2018, "Sanity checks for saliency maps", arXiv
    1810.03292: a map that stays the same does not explain what the network learnt. The weights of a
    layer are shuffled, so that their distribution stays; what its norm learnt is, too.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        method: from a network, pictures and a target to maps B×…; for example
            `lambda *asked: explain_answer(*asked, "grad_cam").values`.
        steps: how many maps to take, of as many layers each as nearly can be; one for each layer if
            left out.
        seed: of the shuffles.
        progress: told how many maps are taken.

    Raises:
        ConfigError: no layer has weights that differ.
    """
    with probing(module, x, target, seed) as probe:
        twin, layers = copied(module), _from_the_top(probe)
    if not layers or (steps is not None and steps < 1):
        raise ConfigError(
            f"expected layers with weights and at least one step, found {len(layers)} layers",
            "a network without weights cannot be scrambled",
        )
    size = math.ceil(len(layers) / (steps or len(layers)))
    groups = [layers[part] for part in parts(len(layers), size)]
    whole = method(twin, x, target)
    similarity = []
    for done, group in enumerate(groups, start=1):
        for name in (name for _, names in group for name in names):
            _shuffle(twin, name, seed)
        similarity.append(_similarity(whole, method(twin, x, target)))
        if progress is not None:
            progress(done, len(groups))
    return Sanity(layers=tuple(group[-1][0] for group in groups), similarity=tuple(similarity))


# -- the network ----------------------------------------------------------------------------------


def _from_the_top(probe: Probe) -> list[tuple[str, tuple[str, ...]]]:
    """Layers and the names of their weights, the last that ran first.

    A module whose weights are used without running it counts as run with the one around it.
    """
    order: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        for path, part in probe.twin.named_modules():

            def note(*_: object, path: str = path) -> None:
                order.pop(path, None)
                order[path] = 0  # dictionaries keep the order: the last run counts

            stack.callback(part.register_forward_hook(note).remove)
        probe.answer(probe.x[:1], slice(0, 1))
    places = {path: place for place, path in enumerate(order)}
    layers: dict[str, list[str]] = {}
    for name, parameter in probe.twin.named_parameters():
        if float(parameter.min()) < float(parameter.max()):
            layers.setdefault(name.rpartition(".")[0], []).append(name)
    found = sorted(layers, key=lambda path: _place(path, places), reverse=True)
    return [(path, tuple(layers[path])) for path in found]


def _place(path: str, places: dict[str, int]) -> int:
    """When a module, or the nearest around it that ran, ended."""
    while path and path not in places:
        path = path.rpartition(".")[0]
    return places[path]


def _shuffle(twin: nn.Module, name: str, seed: int) -> None:
    """Give the numbers of a tensor other places, decided by its name."""
    parameter = twin.get_parameter(name)
    ids = np.arange(parameter.numel(), dtype=np.int64)
    order = np.argsort(chance.draw(chance.key(seed, "shuffle weights", name), ids), kind="stable")
    with torch.no_grad():
        flat = parameter.flatten()[torch.from_numpy(order).to(parameter.device)]
        parameter.copy_(flat.reshape(parameter.shape))


# -- likeness -------------------------------------------------------------------------------------


def _similarity(first: Tensor, second: Tensor) -> float:
    """Mean over pictures of the rank correlation of two maps' absolute values."""
    pairs = zip(first.detach().cpu().abs(), second.detach().cpu().abs(), strict=True)
    return float(np.mean([rank_correlation(a.numpy(), b.numpy()) for a, b in pairs]))


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's ρ: the correlation of ranks, of which equal numbers share their mean.

    Two constants are alike (1), a constant is like nothing else (0).

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0]))
    1.0
    """
    one, other = (_ranks(values.ravel()) for values in (first, second))
    one, other = one - one.mean(), other - other.mean()
    scale = math.sqrt(float(one @ one) * float(other @ other))
    if scale == 0:
        return float(not one.any() and not other.any())
    return float(one @ other) / scale


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[index]
