"""Integrated gradients: shares of an answer that sum to it. Floor 1, explain.

Imports floor 0, NumPy, torch, and `analysis`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog.analysis.remark import times
from neocog.errors import ConfigError, NeocogError
from neocog.explain.why.attribution import Attribution
from neocog.explain.why.probe import Probe, fitting, parts, probing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neocog.explain.why.target import Target

__all__ = ["LIMIT", "STEPS", "TOLERANCE", "integrated_gradients"]

TOLERANCE = 0.01
"""Of the difference of the answers, what integrated gradients may leave unexplained."""

STEPS = 16
"""Gradients on one piece of the way."""

LIMIT = 1024
"""Most gradients for one picture."""


def integrated_gradients(
    module: nn.Module,
    x: Tensor,
    target: Target,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = STEPS,
    limit: int = LIMIT,
    tolerance: float = TOLERANCE,
    batch: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """The gradient along the straight way from a baseline to the picture, times the way.

    Sundararajan, Taly, Yan 2017, "Axiomatic attribution for deep networks", arXiv 1703.01365. The
    values sum to the difference of the two answers. The integral is taken by Gauss's rule with
    `steps` nodes. What the sum must be is known for any piece of the way, so the piece with the
    largest error is halved, until the errors of all pieces together are within the tolerance, by
    more than luck. Held at a time: `batch` pictures with their activations, and limit / steps
    pictures without.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        baseline: where the way begins: a number for all pixels, or a tensor that broadcasts to `x`.
            0 is the mean picture after the usual normalisation.
        steps: gradients on one piece.
        limit: most gradients for one picture; `limit=steps` takes the way as one piece.
        tolerance: share of the difference of the answers.
        batch: gradients in a pass.
        seed: of what the network draws, if it does.
        progress: told how many gradients are taken, and the most that there can be.
    """
    if steps < 1 or limit < steps or not tolerance >= 0:
        raise ConfigError(
            f"expected 1 ≤ steps ≤ limit and a tolerance ≥ 0, found {steps}, {limit}, {tolerance}"
        )
    values, numbers, taken = [], [], []
    with probing(module, x, target, seed) as probe:
        starts = _baseline(probe.x, baseline)
        for row, start in enumerate(starts):
            way = _Way(probe=probe, row=row, start=start, steps=steps, batch=fitting(x, batch))

            def tell(done: int, row: int = row) -> None:
                if progress is not None:
                    progress(row * limit + done, len(starts) * limit)

            pieces, count = _pieces(way, limit, tolerance, tell)
            tell(limit)
            step = (probe.x[row] - start).cpu().double()
            found = torch.stack([piece.integral for piece in pieces]).sum(0) * step
            values.append(found)
            first, last = way.answer(0.0), way.answer(1.0)
            numbers.append((last, last - first, float(found.sum()) - (last - first)))
            taken.append(count)
    answer, difference, gap = torch.tensor(numbers, dtype=torch.float64).unbind(1)
    note = "the values do not sum to the answer's change, within {:.3g} of it, after {} gradients"
    short = bool((gap.abs() > tolerance * difference.abs()).any())
    return Attribution(
        method="integrated_gradients",
        values=torch.stack(values).to(probe.x.dtype),
        answer=answer,
        difference=difference,
        gap=gap,
        steps=torch.tensor(taken),
        note=note.format(tolerance, max(taken)) if short else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Piece:
    """Of the way from the baseline, at 0, to the picture, at 1."""

    low: float
    high: float
    first: float
    """The answer at `low`."""
    last: float
    """The answer at `high`."""
    integral: Tensor
    """C×H×W, of the gradient over the piece, double precision, on the CPU."""
    error: float
    """What the values of the piece sum to, minus the change of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Way:
    """From a baseline to one picture of a probe."""

    probe: Probe
    row: int
    start: Tensor
    """The baseline, C×H×W."""
    steps: int
    batch: int

    @property
    def whole(self) -> Tensor:
        """The picture minus the baseline."""
        return self.probe.x[self.row] - self.start

    def answer(self, at: float) -> float:
        """The number that is explained, `at` of the way."""
        picture = self.start + at * self.whole if at < 1 else self.probe.x[self.row]
        return float(self.probe.answer(picture[None], self.probe.rows(self.row, 1))[0])

    def piece(self, low: float, high: float, first: float, last: float) -> _Piece:
        """The integral from `low` to `high`, between which the answer goes from first to last."""
        nodes, weights = _gauss(self.steps)
        at = torch.from_numpy(low + (high - low) * nodes).to(self.start)
        share = torch.from_numpy((high - low) * weights)
        integral = torch.zeros(self.start.shape, dtype=torch.float64)
        for part in parts(self.steps, self.batch):
            pictures = self.start + at[part, None, None, None] * self.whole
            rows = self.probe.rows(self.row, len(pictures))
            gradients = self.probe.gradient(pictures, rows)[0].cpu().double()
            integral += torch.einsum("n,nchw->chw", share[part], gradients)
        total = float((integral * self.whole.cpu().double()).sum())
        return _Piece(
            low=low,
            high=high,
            first=first,
            last=last,
            integral=integral,
            error=total - (last - first),
        )


def _pieces(
    way: _Way, limit: int, tolerance: float, tell: Callable[[int], None]
) -> tuple[list[_Piece], int]:
    """Pieces that make up the way, and how many gradients were taken."""
    first, last = way.answer(0.0), way.answer(1.0)
    if not np.isfinite([first, last]).all():
        raise NeocogError(
            f"the answer is {first} for the baseline and {last} for the picture",
            "take a baseline for which the network gives a finite answer, such as 0",
        )
    pieces, count = [way.piece(0.0, 1.0, first, last)], way.steps
    allowed = tolerance * abs(last - first)
    tell(count)
    # One piece may be right by luck, and knows no other error to tell; two hardly are.
    while count + 2 * way.steps <= limit and (len(pieces) < 2 or _left(pieces) > allowed):
        worst = pieces.pop(int(np.argmax([abs(piece.error) for piece in pieces])))
        middle = (worst.low + worst.high) / 2
        between = way.answer(middle)
        pieces.append(way.piece(worst.low, middle, worst.first, between))
        pieces.append(way.piece(middle, worst.high, between, worst.last))
        count += 2 * way.steps
        tell(count)
    return pieces, count


def _left(pieces: list[_Piece]) -> float:
    """How far the values may be from their sum: what they are, or would be by chance.

    Errors of pieces can cancel. It is luck if their sum is less than the root of their squares,
    which is what errors of independent signs come to.
    """
    errors = [piece.error for piece in pieces]
    return max(abs(math.fsum(errors)), math.hypot(*errors))


@lru_cache(maxsize=16)
def _gauss(steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of the Gauss-Legendre rule on 0 … 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + nodes) / 2, weights / 2


def _baseline(x: Tensor, baseline: Tensor | float) -> Tensor:
    """B×C×H×W."""
    given = torch.as_tensor(baseline, dtype=x.dtype, device=x.device)
    try:
        return given.detach().expand_as(x)
    except RuntimeError:
        raise ConfigError(
            f"expected a baseline that broadcasts to {times(x.shape)}, found {times(given.shape)}",
            "give a number, or a picture of the same size",
        ) from None
