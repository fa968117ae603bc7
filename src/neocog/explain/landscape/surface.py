"""The loss around a network's weights: on a plane through them, and along a line between two sets.

Floor 1, explain; imports floor 0, `analysis`, NumPy, torch and this room. Every value is the loss
of a copy of the network whose weights were moved; copies are in evaluation mode, and statistics of
batch normalisation stay those of the network (Li et al. 2018, arXiv 1712.09913, section 4). One
copy of the weights is held for each thread, beside two directions.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog import chance
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError
from neocog.explain.landscape.plane import Direction, filter_directions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    Floats = NDArray[np.float64]
    Progress = Callable[[int, int], None]

__all__ = ["SIDES", "Loss", "Profile", "Samples", "Surface", "affordable", "profile", "surface"]

Loss = Callable[["nn.Module"], float]
"""A network → its loss on pictures that are always the same. It is called from several threads,
each with a network of its own, and changes none of them."""
SIDES = (5, 41)
"""Fewest and most points along an axis; the number is odd, so that the centre is among them."""
_FAIR, _FEWEST = 25, 64
"""Points along an axis below which fewer samples are taken instead, and the fewest of those."""
_SPARE = 0.8
"""The share of the time that is planned for: machines have other things to do."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """The mean loss over a fixed set of samples, of which fewer can be taken if time is short."""

    inputs: Tensor
    """N×…, as the network takes them."""
    targets: Tensor
    """N×…"""
    criterion: Callable[[Tensor, Tensor], Tensor]
    """Output and targets of a batch → the mean of their losses."""
    batch: int = 64
    """How many at a time."""

    def __call__(self, module: nn.Module) -> float:
        """The mean over all samples."""
        total = 0.0
        for x, y in zip(
            torch.split(self.inputs, self.batch),
            torch.split(self.targets, self.batch),
            strict=True,
        ):
            with torch.no_grad():  # a network may write into what it is given
                total += float(self.criterion(module(x.clone()), y)) * len(x)
        return total / len(self.inputs)

    def some(self, count: int) -> Samples:
        """So many of them, evenly from all: they may be in the order of classes."""
        n = len(self.inputs)
        kept = torch.arange(min(count, n)) * n // max(1, min(count, n))
        return replace(
            self,
            inputs=self.inputs[kept.to(self.inputs.device)],
            targets=self.targets[kept.to(self.targets.device)],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """The loss on a plane through the weights."""

    x: Floats
    """n places along the first direction, in its lengths."""
    y: Floats
    """n places along the second."""
    loss: Floats
    """n×n: a row for each y, a column for each x; may be infinite or NaN."""
    centre: float
    """The loss of the network itself."""
    samples: int | None
    """How many samples it is the mean of; None where `loss` was any function."""
    threads: int
    """How many worked at once."""
    seconds: float
    """How long it took."""

    @property
    def lowest(self) -> tuple[float, float, float]:
        """x, y and loss of the lowest point of the grid.

        Raises:
            ValueError: no value is finite.
        """
        row, column = np.unravel_index(
            int(np.nanargmin(np.where(np.isfinite(self.loss), self.loss, np.nan))), self.loss.shape
        )
        return float(self.x[column]), float(self.y[row]), float(self.loss[row, column])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """The loss on the straight line between two sets of weights."""

    at: Floats
    """Places, from 0 at the first set to 1 at the second."""
    loss: Floats
    """As many losses; may be infinite or NaN."""

    @property
    def barrier(self) -> float:
        """How far the line rises above the straight line between the losses at its ends; 0 where it
        does not (Frankle, Dziugaite, Roy, Carbin 2020, arXiv 1912.05671)."""
        chord = self.loss[0] + self.at * (self.loss[-1] - self.loss[0])
        return float(np.max(self.loss - chord))


def affordable(
    seconds: float, each: float, samples: int | None, *, sides: tuple[int, int] = SIDES
) -> tuple[int, int | None]:
    """How many points along an axis, and how many samples, a time is enough for.

    As many points as all samples allow; fewer samples where those would be less than 25.

    Args:
        seconds: to be used.
        each: seconds for one evaluation with all samples, with all threads at work.
        samples: how many there are; None where there is no choice.
        sides: fewest and most points.

    >>> affordable(60, 0.1, 1000), affordable(60, 0.01, 1000), affordable(60, 1, 1000)
    ((25, 768), (41, 1000), (25, 76))
    """
    fewest, most = sides

    def side(cost: float) -> int:
        root = math.isqrt(max(0, int(_SPARE * seconds / max(cost, 1e-9) + 1e-6)))
        return min(max(root - 1 + root % 2, fewest), most)

    found = side(each)
    if samples is None or found >= _FAIR or samples <= _FEWEST:
        return found, samples
    kept = int(_SPARE * seconds / (_FAIR**2 * each) * samples)
    kept = min(samples, max(kept, _FEWEST))
    return side(each * kept / samples), kept


def surface(
    module: nn.Module,
    loss: Loss,
    *,
    directions: tuple[Direction, Direction] | None = None,
    span: tuple[tuple[float, float], tuple[float, float]] = ((-1, 1), (-1, 1)),
    seconds: float = 30,
    side: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Surface:
    """The loss on a grid of the plane that two directions span through a network's weights.

    The network, the caller's chance and torch's number of threads are as before afterwards. Each
    evaluation has one thread, so the number of threads changes no value.

    Args:
        module: any network.
        loss: its loss, `Samples` or any function; of `Samples` fewer are taken if time is short.
        directions: `filter_directions` of `seed` by default.
        span: lowest and highest x, lowest and highest y.
        seconds: about how long it may take; a first evaluation tells what is possible.
        side: points along an axis, odd; by default as many of 5 … 41 as there is time for.
        threads: how many evaluations at a time, torch's number by default; one on a GPU, and for
            networks that draw even in use.
        seed: of directions and of what such a network draws.
        progress: gets how many points are done, of how many.

    Raises:
        ConfigError: a side that is even or below 3, a span without width, or directions that are
            not of this network.
        NeocogError: the network cannot be copied.
    """
    if side is not None and (side < 3 or side % 2 == 0):
        raise ConfigError(f"expected an odd number of points from 3 on, found {side}")
    if not all(low < high for low, high in span):
        raise ConfigError(f"expected two spans (low, high), found {span}")
    begin = time.perf_counter()
    chosen = directions or filter_directions(module, seed=seed)
    _check(module, chosen)
    # A few samples tell how long all of them would take.
    probe = loss.some(_FEWEST) if isinstance(loss, Samples) else loss
    with _Crew(module, probe, threads, seed) as crew:
        n, samples = side, len(loss.inputs) if isinstance(loss, Samples) else None
        if n is None:
            few = len(probe.inputs) if isinstance(probe, Samples) else 1
            n, samples = affordable(seconds, crew.each() * (samples or few) / few, samples)
        crew.loss = loss.some(samples) if isinstance(loss, Samples) and samples else loss
        x, y = (np.linspace(low, high, n) for low, high in span)
        moves = [_Move(crew.centre, chosen, (float(a), float(b))) for b in y for a in x]
        # The centre first: it is a point of the grid only where the span is symmetric.
        centre, *found = crew.losses([_Move(crew.centre, chosen, (0.0, 0.0)), *moves], progress)
    return Surface(
        x=x,
        y=y,
        loss=np.array(found).reshape(n, n),
        centre=centre,
        samples=samples,
        threads=crew.threads,
        seconds=time.perf_counter() - begin,
    )


def profile(
    module: nn.Module,
    loss: Loss,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    *,
    points: int = 25,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Profile:
    """The loss between two sets of weights, moved along a straight line (Goodfellow, Vinyals, Saxe
    2015, "Qualitatively characterizing neural network optimization problems", arXiv 1412.6544).

    Statistics of batch normalisation are mixed like weights. Between networks that were trained
    apart this is harsher than statistics counted anew (Jordan et al. 2023, arXiv 2211.08403).

    Args:
        module: the network whose weights these are; it is not changed.
        loss: as for `surface`.
        start: name → tensor, as of `state_dict`.
        end: likewise.
        points: along the line, both ends among them.
        threads: as for `surface`.
        progress: gets how many points are done, of how many.

    Raises:
        ConfigError: fewer than two points, or weights of another network.
    """
    if points < 2:
        raise ConfigError(f"expected at least two points, found {points}")
    at = np.linspace(0, 1, points)
    with _Crew(module, loss, threads, 0) as crew:
        for name, tensor in crew.state.items():
            for given in (start, end):
                if name not in given or given[name].shape != tensor.shape:
                    raise ConfigError(
                        f"expected {tuple(tensor.shape)} for {name}, found other weights",
                        "both sets must be of this network",
                    )
        found = crew.losses([_Between(start, end, float(share)) for share in at], progress)
    return Profile(at=at, loss=np.array(found))


def _check(module: nn.Module, directions: tuple[Direction, Direction]) -> None:
    shapes = {name: weight.shape for name, weight in module.named_parameters()}
    for direction in directions:
        for name, step in direction.items():
            if shapes.get(name) != step.shape:
                raise ConfigError(
                    f"the network has no parameter {name} of shape {tuple(step.shape)}",
                    "directions are those of one network",
                )


# -- copies at work -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """Weights put to a place on the plane."""

    centre: Mapping[str, Tensor]
    directions: tuple[Direction, Direction]
    place: tuple[float, float]

    def __call__(self, twin: nn.Module) -> None:
        for name, weight in twin.named_parameters():
            steps = [one.get(name) for one in self.directions]
            if steps == [None, None]:
                continue
            weight.copy_(self.centre[name])
            for step, far in zip(steps, self.place, strict=True):
                if step is not None:
                    weight.add_(step.to(weight), alpha=far)


@dataclass(frozen=True, slots=True, eq=False)
class _Between:
    """Weights and buffers put to a place on the line between two sets."""

    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    share: float

    def __call__(self, twin: nn.Module) -> None:
        for name, tensor in twin.state_dict().items():
            one, other = self.start[name].to(tensor), self.end[name].to(tensor)
            # Exact at both ends; counts cannot be mixed.
            mixed = tensor.is_floating_point() and self.share < 1
            tensor.copy_(one * (1 - self.share) + other * self.share if mixed else other)


class _Crew:
    """Copies of a network, one for each thread, that are moved and asked for their loss.

    Args:
        module: the network.
        loss: of a copy.
        threads: how many at a time.
        seed: of what a network draws that draws in use.
    """

    def __init__(self, module: nn.Module, loss: Loss, threads: int | None, seed: int) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"expected at least one thread, found {threads}")
        twin = copied(module)
        self.loss = loss
        self.centre = {name: weight.clone() for name, weight in twin.named_parameters()}
        self.state = twin.state_dict()
        self.device, _ = place(twin)
        self.key = chance.key(seed, "surface", "loss")
        self.before = torch.get_num_threads()
        self.draws = self._draws(twin)
        # Generators are shared by all threads, and a GPU has one queue.
        alone = self.draws or self.device.type != "cpu"
        self.threads = 1 if alone else (threads or self.before)
        self.twins: queue.SimpleQueue[nn.Module] = queue.SimpleQueue()
        self.twins.put(twin)
        for _ in range(self.threads - 1):
            self.twins.put(copied(module))

    def __enter__(self) -> _Crew:
        single = self.device.type == "cpu"
        # A thread's own number; that of threads to come is put back in the end.
        self.pool = ThreadPoolExecutor(self.threads, initializer=_single if single else None)
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.before)

    def each(self) -> float:
        """Seconds for one evaluation with all threads at work; the first round warms up."""
        found = math.inf
        for _ in range(2):
            begin = time.perf_counter()
            self.losses([_still] * self.threads, None)
            found = min(found, (time.perf_counter() - begin) / self.threads)
        return found

    def losses(
        self, moves: Sequence[Callable[[nn.Module], None]], progress: Progress | None
    ) -> list[float]:
        """The loss after each move, in their order."""
        found = []
        for done, value in enumerate(self.pool.map(self._loss, moves), start=1):
            found.append(value)
            if progress:
                progress(done, len(moves))
        return found

    def _loss(self, move: Callable[[nn.Module], None]) -> float:
        twin = self.twins.get()
        try:
            with torch.no_grad():
                move(twin)
                if not self.draws and self.device.type == "cpu":
                    return float(self.loss(twin))
                with own_chance(self.device, self.key):
                    return float(self.loss(twin))
        finally:
            self.twins.put(twin)

    def _draws(self, twin: nn.Module) -> bool:
        """Whether a network draws random numbers even in use."""
        with torch.no_grad(), own_chance(self.device, self.key):
            before = torch.default_generator.get_state()
            self.loss(twin)
            return not torch.equal(before, torch.default_generator.get_state())


def _single() -> None:
    torch.set_num_threads(1)


def _still(_: nn.Module) -> None:
    """No move."""
