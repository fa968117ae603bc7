"""Directions in the space of weights, and where checkpoints lie on the plane of two of them.

Floor 1, explain; imports floor 0, `analysis`, NumPy and torch. Two kinds of planes through a
network's weights (Li, Xu, Taylor, Studer, Goldstein 2018, "Visualizing the loss landscape of neural
nets", arXiv 1712.09913): random directions, each filter of them as long as the network's own, and
the two along which a training moved most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neocog import chance
from neocog.analysis.twin import copied
from neocog.errors import ConfigError, NeocogError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Direction", "Path", "filter_directions", "path_directions", "project"]

Direction = Mapping[str, Tensor]
"""Name of a parameter → a step of its shape; parameters that are not named stay where they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Checkpoints as seen on a plane through the network's weights, which lie at (0, 0)."""

    x: tuple[float, ...]
    """Along the first direction, in its lengths; the nearest point of the plane."""
    y: tuple[float, ...]
    """Along the second."""
    shares: tuple[float, ...]
    """Of each checkpoint's distance from the network, what lies in the plane: 1 is all; NaN for the
    network itself. Two random directions among many parameters hold next to nothing."""
    share: float
    """Of all distances together, as the root of the sum of their squares."""

    def span(self, margin: float = 0.2) -> tuple[tuple[float, float], tuple[float, float]]:
        """Lowest and highest x, lowest and highest y of what shows the whole path and the network.

        Both are equally wide if the path hardly leaves a line.
        """
        reaches = [(min(0.0, *of), max(0.0, *of)) for of in (self.x, self.y)]
        widest = max(high - low for low, high in reaches) or 1.0
        ends = []
        for low, high in reaches:
            wide = max(high - low, 0.3 * widest) * (1 + 2 * margin)
            ends.append(((low + high - wide) / 2, (low + high + wide) / 2))
        return ends[0], ends[1]


# -- random directions ----------------------------------------------------------------------------


def filter_directions(module: nn.Module, *, seed: int = 0) -> tuple[Direction, Direction]:
    """Two random directions, each filter scaled to the norm of the network's own (section 4).

    A filter is what makes one output of a weight with two axes or more. Biases, and scales and
    shifts of normalisations, stay as they are.

    Raises:
        NeocogError: the network has no such weights.
    """
    twin = copied(module)
    axes = _output_axes(twin)
    directions: list[dict[str, Tensor]] = [{}, {}]
    for which, direction in enumerate(directions):
        for name, weight in twin.named_parameters():
            if weight.dim() < 2 or not weight.is_floating_point():
                continue
            step = _normal(weight, chance.key(seed, "surface", which, name))
            axis, groups = axes.get(name, (0, 1))
            wanted, found = (_filter_norms(one, axis, groups) for one in (weight, step))
            direction[name] = step * (wanted / found)
    if not directions[0]:
        raise NeocogError(
            "the network has no weights with two axes or more",
            "filter-normalised directions are those of convolutions and linear layers",
        )
    return directions[0], directions[1]


def _normal(weight: Tensor, key: int) -> Tensor:
    """Independent standard normal numbers of a weight's shape (Box and Muller 1958)."""
    ids = np.arange(weight.numel(), dtype=np.int64)
    first, second = ((chance.draw(key, ids, at) + 0.5) / 2**32 for at in (0, 1))
    normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return torch.from_numpy(normal.reshape(weight.shape)).to(weight.device, weight.dtype)


def _output_axes(twin: nn.Module) -> dict[str, tuple[int, int]]:
    """Where the outputs of a weight lie if not on its first axis: transposed convolutions keep
    inputs × outputs of a group."""
    found = {}
    for path, part in twin.named_modules():
        if getattr(part, "transposed", False) and isinstance(getattr(part, "weight", None), Tensor):
            found[f"{path}.weight" if path else "weight"] = (1, int(getattr(part, "groups", 1)))
    return found


def _filter_norms(weight: Tensor, axis: int, groups: int) -> Tensor:
    """The norm of each filter, repeated to the weight's shape."""
    parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]) if axis else weight
    kept = {0, 2} if axis else {0}
    others = [one for one in range(parts.dim()) if one not in kept]
    norms: Tensor = torch.linalg.vector_norm(parts, dim=others, keepdim=True)
    return norms.expand_as(parts).reshape(weight.shape)


# -- the directions of a training -----------------------------------------------------------------


def path_directions(
    module: nn.Module, states: Sequence[Mapping[str, Tensor]], *, seed: int = 0
) -> tuple[Direction, Direction]:
    """The two directions that hold most of the way to some checkpoints (section 7), of length 1.

    They are the first two right singular vectors of the checkpoints' differences from the network:
    no other plane through it holds more of them. All parameters take part. Where the checkpoints
    lie on one line, the second direction is a random one, at right angles to it.

    Args:
        module: the network whose weights are the centre; usually the last of the training.
        states: name → tensor, as of `state_dict`; more than the parameters may be in them.
        seed: of the random direction.

    Raises:
        ConfigError: a checkpoint of another network, or none that differs from this one.
    """
    centre = _parameters(module)
    steps = [_difference(state, centre) for state in states]
    products = np.array([[_product(one, other) for other in steps] for one in steps])
    values, vectors = np.linalg.eigh(products) if steps else (np.zeros(0), np.zeros((0, 0)))
    if not steps or not values[-1] > 0:
        raise ConfigError(
            "expected checkpoints that differ from the network",
            "give some of earlier epochs",
        )
    first = _mixed(steps, vectors[:, -1] / math.sqrt(values[-1]))
    if len(steps) > 1 and values[-2] > 1e-10 * values[-1]:
        return first, _mixed(steps, vectors[:, -2] / math.sqrt(values[-2]))
    aside, _ = filter_directions(module, seed=seed)
    along = _product(aside, first)
    second = {
        name: aside[name].cpu() - along * step if name in aside else -along * step
        for name, step in first.items()
    }
    length = math.sqrt(_product(second, second))
    return first, {name: step / length for name, step in second.items()}


def project(
    module: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    directions: tuple[Direction, Direction],
) -> Path:
    """The nearest points of a plane to some checkpoints, by least squares.

    Args:
        module: the network whose weights are the centre of the plane.
        states: name → tensor, as of `state_dict`; one is looked at a time.
        directions: of `filter_directions` or `path_directions`.

    Raises:
        ConfigError: a checkpoint of another network, or directions that are one.
    """
    centre = _parameters(module)
    gram = np.array([[_product(one, other) for other in directions] for one in directions])
    if not np.linalg.matrix_rank(gram, tol=1e-9 * float(np.trace(gram))) == 2:
        raise ConfigError("expected two directions that span a plane", "take others")
    places, inside, lengths = [], [], []
    for state in states:
        step = _difference(state, centre)
        right = np.array([_product(one, step) for one in directions])
        place = np.linalg.solve(gram, right)
        places.append(place)
        inside.append(float(place @ right))
        lengths.append(_product(step, step))
    shares = tuple(_root_share(part, whole) for part, whole in zip(inside, lengths, strict=True))
    return Path(
        x=tuple(float(place[0]) for place in places),
        y=tuple(float(place[1]) for place in places),
        shares=shares,
        share=_root_share(sum(inside), sum(lengths)),
    )


def _root_share(part: float, whole: float) -> float:
    return math.sqrt(min(max(part / whole, 0.0), 1.0)) if whole > 0 else math.nan


def _parameters(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: weight.detach()
        for name, weight in module.named_parameters()
        if weight.is_floating_point()
    }


def _difference(state: Mapping[str, Tensor], centre: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's parameters minus those of the network, on the CPU."""
    steps = {}
    for name, weight in centre.items():
        found = state.get(name)
        if found is None or found.shape != weight.shape:
            what = "nothing" if found is None else f"{tuple(found.shape)}"
            raise ConfigError(
                f"expected {tuple(weight.shape)} for {name}, found {what} in a checkpoint",
                "checkpoints must be those of this network",
            )
        steps[name] = found.detach().cpu().float() - weight.cpu().float()
    return steps


def _product(one: Direction, other: Direction) -> float:
    """The scalar product of two directions, in double precision; what one lacks counts as 0."""
    return math.fsum(
        float(torch.dot(step.flatten().cpu().double(), other[name].flatten().cpu().double()))
        for name, step in one.items()
        if name in other
    )


def _mixed(steps: Sequence[Direction], weights: NDArray[np.float64]) -> Direction:
    """A sum of steps."""
    return {
        name: torch.stack(
            [float(weight) * step[name] for weight, step in zip(weights, steps, strict=True)]
        ).sum(0)
        for name in steps[0]
    }
