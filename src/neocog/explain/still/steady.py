"""Whether answers hold still when pictures are changed a little. Floor 1, explain.

Imports floor 0, NumPy, torch and this room. `answer` is whatever turns raw pictures into
probabilities, as `Bundle.predictor()` does: uint8 B×C×H×W → B×K. Counts are added over batches;
one batch and one changed copy of it are held at a time. What is drawn comes from the position of a
picture in the stream, so neither the size of batches nor their number changes a result.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog import chance
from neocog.errors import ConfigError, DataError, near
from neocog.explain.still.changes import CHANGES, WAYS, changed, check, farthest, shifted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Answer = Callable[[Tensor], Tensor]
    Progress = Callable[[int, int], None]

__all__ = [
    "Curve",
    "Level",
    "Steadiness",
    "passes",
    "picture_curves",
    "steadiness",
    "usual_changes",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Answers for pictures that were changed so much."""

    level: float
    """In the change's unit."""
    n: int
    """Pictures."""
    agree: int
    """How many are answered as they are unchanged."""
    right: int | None
    """How many are answered rightly; None where the truth was not given."""
    confidence_sum: float
    """Of the probability of what is answered."""
    truth_sum: float | None
    """Of the probability of the true class."""

    @property
    def agreement(self) -> float:
        """The share that is answered as without the change."""
        return self.agree / self.n

    @property
    def accuracy(self) -> float | None:
        """The share that is answered rightly."""
        return None if self.right is None else self.right / self.n

    @property
    def confidence(self) -> float:
        """The mean probability of what is answered."""
        return self.confidence_sum / self.n

    @property
    def truth(self) -> float | None:
        """The mean probability of the true class."""
        return None if self.truth_sum is None else self.truth_sum / self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """How much answers depend on what should not matter."""

    n: int
    """Pictures."""
    changes: Mapping[str, tuple[Level, ...]]
    """Name of a change → its levels in order, the one that changes nothing among them."""
    reach: int
    """Pixels: the furthest of the random shifts, each way along each axis."""
    consistent: int
    """Pictures that are answered alike at two such shifts."""

    @property
    def consistency(self) -> float:
        """The probability that answers at two random shifts agree, of these pictures (R. Zhang
        2019, "Making convolutional networks shift-invariant again", arXiv 1904.11486)."""
        return self.consistent / self.n


def usual_changes(size: tuple[int, int]) -> dict[str, tuple[float, ...]]:
    """Name → levels, all of `CHANGES`; shifts no further than `changes.farthest`.

    Args:
        size: height and width of the pictures.
    """
    usual = {name: change.levels for name, change in CHANGES.items()}
    usual["shift"] = tuple(level for level in usual["shift"] if level <= farthest(size))
    return usual


def passes(size: tuple[int, int]) -> int:
    """How often `steadiness` asks about each picture of this size, with the usual changes.

    >>> passes((32, 32)) > len(CHANGES)
    True
    """
    return _passes(_levels(usual_changes(size)))


def steadiness(
    answer: Answer,
    batches: Iterable[Tensor],
    changes: Mapping[str, Sequence[float]] | None = None,
    truth: Sequence[int] | Tensor | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Steadiness:
    """Answer pictures again and again, changed at every level of every change.

    Args:
        answer: uint8 B×C×H×W → probabilities B×K, each row with the sum 1.
        batches: pictures, B×C×H×W uint8, in the order of `truth`; batches may differ in size.
        changes: name → levels, `usual_changes` of the first batch by default. The level that
            changes nothing is added where it is missing.
        truth: the true class of each picture.
        seed: of ways, noise and random shifts.
        progress: gets how many changed batches were answered, and how many there are to answer; 0
            where `batches` has no length.

    Raises:
        ConfigError: an unknown change, or batches that are no pictures.
        DataError: answers that are no probabilities of classes, no pictures, or another number of
            true classes than of pictures.
    """
    known = None if truth is None else torch.as_tensor(truth, dtype=torch.int64).cpu()
    kept = _Kept(answer, known, seed)
    levels = None if changes is None else _levels(changes)
    count, done = operator.length_hint(batches), 0
    for batch in batches:
        check(batch)
        if not len(batch):
            continue
        if levels is None:
            levels = _levels(usual_changes((batch.shape[2], batch.shape[3])))
        for _ in kept.answered(batch, levels):
            done += 1
            if progress:
                progress(done, count * _passes(levels))
    if levels is None or not kept.n:
        raise DataError("no pictures to change", "give at least one")
    if known is not None and len(known) != kept.n:
        raise DataError(f"{len(known)} true classes were given for {kept.n} pictures")
    return kept.counted(levels)


def _levels(changes: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Rising, each once, with the one that changes nothing."""
    for name in changes:
        if name not in CHANGES:
            raise ConfigError(f"no change is called {name!r}", near(name, CHANGES))
    return {
        name: tuple(sorted({*(float(level) for level in levels), float(CHANGES[name].none)}))
        for name, levels in changes.items()
    }


def _passes(levels: Mapping[str, Sequence[float]]) -> int:
    """How often a batch is answered: unchanged, changed, and at two random shifts."""
    return 3 + sum(len(of) - 1 for of in levels.values())


class _Kept:
    """The sums so far.

    Args:
        answer: pictures → probabilities.
        truth: of all pictures that will come.
        seed: of what is drawn.
    """

    def __init__(self, answer: Answer, truth: Tensor | None, seed: int) -> None:
        self.answer, self.truth, self.seed = answer, truth, seed
        self.n = self.consistent = 0
        self.reach = 0
        # Agreement, right answers, confidence, probability of the truth.
        self.sums: dict[tuple[str, float], NDArray[np.float64]] = {}

    def answered(self, batch: Tensor, levels: Mapping[str, Sequence[float]]) -> Iterable[None]:
        """Count one batch; it yields after every pass."""
        ids = torch.arange(self.n, self.n + len(batch), device=batch.device)
        truth = None if self.truth is None else self.truth[self.n : self.n + len(batch)]
        self.reach = self.reach or farthest((batch.shape[2], batch.shape[3]))
        still = _probabilities(self.answer, batch)
        if truth is not None:
            _check_truth(truth, still)
        yield
        for name, of in levels.items():
            for level in of:
                if level == CHANGES[name].none:
                    found = still
                else:
                    moved = changed(batch, name, level, ids=ids, seed=self.seed)
                    found = _probabilities(self.answer, moved)
                    yield
                sums = self.sums.setdefault((name, level), np.zeros(4))
                sums += _sums(found, still, truth)
        pair = []
        for which in (0, 1):
            moved = _at_random(batch, ids, self.reach, chance.key(self.seed, "steady", which))
            pair.append(_probabilities(self.answer, moved).argmax(1))
            yield
        self.consistent += int((pair[0] == pair[1]).sum())
        self.n += len(batch)

    def counted(self, levels: Mapping[str, Sequence[float]]) -> Steadiness:
        """What the sums say."""
        told = self.truth is not None
        changes = {
            name: tuple(self._level(name, level, told) for level in of)
            for name, of in levels.items()
        }
        return Steadiness(n=self.n, changes=changes, reach=self.reach, consistent=self.consistent)

    def _level(self, name: str, level: float, told: bool) -> Level:
        agree, right, confidence, truth = self.sums[name, level].tolist()
        return Level(
            level=level,
            n=self.n,
            agree=int(agree),
            right=int(right) if told else None,
            confidence_sum=confidence,
            truth_sum=truth if told else None,
        )


def _sums(found: Tensor, still: Tensor, truth: Tensor | None) -> NDArray[np.float64]:
    top, said = found.max(1)
    agree, right, sure = (said == still.argmax(1)).sum(), 0.0, 0.0
    if truth is not None:
        right = float((said == truth).sum())
        sure = float(found.gather(1, truth[:, None]).sum())
    return np.array([float(agree), right, float(top.sum()), sure])


def _at_random(batch: Tensor, ids: Tensor, reach: int, key: int) -> Tensor:
    """Each picture shifted by −reach … reach pixels, evenly and apart for both axes."""
    down, right = (((chance.draw(key, ids, at) * (2 * reach + 1)) >> 32) - reach for at in (0, 1))
    return shifted(batch, down, right)


def _probabilities(answer: Answer, pictures: Tensor) -> Tensor:
    """B×K float64 on the CPU, checked."""
    with torch.no_grad():
        found = answer(pictures).detach().double().cpu()
    if found.dim() != 2 or len(found) != len(pictures) or found.shape[1] < 2:
        dense = found.dim() > 2
        raise DataError(
            f"expected probabilities B×K of classes, found {tuple(found.shape)} for "
            f"{len(pictures)} pictures",
            "an answer for every pixel moves along with its picture: whether it holds still "
            "is another question"
            if dense
            else "steadiness is that of networks that choose one of several classes",
        )
    if not (bool((found >= 0).all()) and bool(((found.sum(1) - 1).abs() < 1e-2).all())):
        raise DataError(
            "expected probabilities of classes with the sum 1, found other numbers",
            "steadiness is that of networks that choose one of several classes",
        )
    return found


def _check_truth(truth: Tensor, found: Tensor) -> None:
    if len(truth) != len(found):
        raise DataError("fewer true classes than pictures were given", "give one for each")
    low, high = int(truth.min()), int(truth.max())
    if low < 0 or high >= found.shape[1]:
        raise DataError(
            f"expected classes 0 … {found.shape[1] - 1}, found {low} … {high}",
            "classes are counted in the order of the answer's columns",
        )


# -- one picture ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The probability of one class while one picture is changed."""

    levels: tuple[float, ...]
    """Rising."""
    mean: tuple[float, ...]
    """Probability at each level; of what is drawn, the mean over `WAYS` draws."""
    low: tuple[float, ...]
    """The lowest of them; the mean itself where nothing is drawn."""
    high: tuple[float, ...]
    """The highest of them."""
    said: tuple[int, ...]
    """What is answered at each level: the class with the highest mean."""


def picture_curves(
    answer: Answer,
    picture: Tensor,
    changes: Mapping[str, Sequence[float]] | None = None,
    *,
    kind: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Curve]:
    """How the probability of a class follows each change of one picture.

    A shift is tried in all eight ways, and noise is drawn as often.

    Args:
        answer: uint8 B×C×H×W → probabilities B×K, each row with the sum 1.
        picture: C×H×W uint8.
        changes: name → levels, `usual_changes` by default; the level that changes nothing is added.
        kind: the class; by default what the unchanged picture is answered with.
        seed: of the noise.
        progress: gets how many levels were answered, of how many.

    Raises:
        ConfigError: an unknown change or class, or no picture.
        DataError: answers that are no probabilities of classes.
    """
    batch = picture[None]
    check(batch)
    still = _probabilities(answer, batch)
    levels = _levels(
        usual_changes((batch.shape[2], batch.shape[3])) if changes is None else changes
    )
    chosen = int(still.argmax()) if kind is None else kind
    if not 0 <= chosen < still.shape[1]:
        raise ConfigError(f"expected a class 0 … {still.shape[1] - 1}, found {chosen}")
    total, done = sum(map(len, levels.values())), 0
    curves: dict[str, Curve] = {}
    for name, of in levels.items():
        rows = []
        for level in of:
            often = WAYS if CHANGES[name].drawn and level != CHANGES[name].none else 1
            many = changed(batch.expand(often, -1, -1, -1), name, level, seed=seed)
            found = _probabilities(answer, many)
            one = found[:, chosen]
            mean = found.mean(0)
            rows.append((float(mean[chosen]), float(one.min()), float(one.max()), mean.argmax()))
            done += 1
            if progress:
                progress(done, total)
        mean_, low, high, said = zip(*rows, strict=True)
        curves[name] = Curve(
            levels=of, mean=mean_, low=low, high=high, said=tuple(int(one) for one in said)
        )
    return curves
