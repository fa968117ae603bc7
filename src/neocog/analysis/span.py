"""Which input positions each position of an axis sees. Floor 1, room analysis; NumPy only.

Two answers are carried side by side. The *clipped* one holds, for every position, the first and the
last input position that it really sees: padding is nothing, and what lies outside does not count.
The *ideal* one is that of the literature, on an endless picture: one interval, repeated at a fixed
jump (Araujo, Norris, Sim 2019, "Computing receptive fields of convolutional neural networks",
equations 1 to 3). Behind up-sampling the interval depends on the phase of the position; then the
ideal answer is one interval for each phase, and they repeat after a period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Positions = NDArray[np.int64]

__all__ = ["Ideal", "Span", "Taps"]

NOTHING = (1 << 40, -(1 << 40))
"""First and last of a position that sees nothing: neutral for minimum and maximum."""


@dataclass(frozen=True, slots=True)
class Ideal:
    """Intervals on an endless axis: q · period + p sees advance · q + [low[p], high[p]]."""

    period: int
    advance: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def jump(self) -> Fraction:
        """Input positions per position."""
        return Fraction(self.advance, self.period)

    @property
    def size(self) -> int:
        """The widest interval of any phase: the receptive field."""
        return max(high - low + 1 for low, high in zip(self.low, self.high, strict=True))

    @property
    def offset(self) -> Fraction:
        """Centre of what position 0 sees, averaged over the phases where there are several."""
        centres = [
            Fraction(low + high, 2) - self.jump * phase
            for phase, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        ]
        return sum(centres, Fraction(0)) / self.period

    def at(self, positions: Positions) -> tuple[Positions, Positions]:
        """First and last input position of any positions, also negative ones."""
        rounds, phases = np.divmod(positions, self.period)
        low, high = np.asarray(self.low), np.asarray(self.high)
        return low[phases] + self.advance * rounds, high[phases] + self.advance * rounds


@dataclass(frozen=True, slots=True)
class Taps:
    """Which positions of its input each position of an operation's output reads."""

    clipped: Positions
    """positions × taps; −1 reads nothing."""
    period: int
    """Outputs after which the pattern repeats, on an endless axis."""
    moves: int
    """Inputs by which it has then moved on."""
    ideal: tuple[tuple[int, ...], ...]
    """For each phase, the input positions it reads, unclipped; none of them empty."""


@dataclass(frozen=True, slots=True)
class Span:
    """What the positions of one axis see of one axis of the input."""

    low: Positions
    """The first that each sees, clipped."""
    high: Positions
    """The last that each sees, clipped; below `low` where it sees nothing."""
    ideal: Ideal | None
    """None where positions do not repeat."""

    @staticmethod
    def of(size: int) -> Span:
        """The input itself: position i sees i."""
        own = np.arange(size)
        return Span(own, own, Ideal(1, 1, (0,), (0,)))

    def __len__(self) -> int:
        return len(self.low)

    @property
    def hull(self) -> tuple[int, int]:
        """What all positions together see."""
        return int(self.low.min()), int(self.high.max())

    @property
    def blind(self) -> bool:
        """Whether some position sees nothing."""
        return bool((self.low > self.high).any())

    def within(self, other: Span) -> bool:
        """Whether every position sees at most what it sees in another span."""
        fits = (self.low >= other.low) & (self.high <= other.high)
        return bool((fits | (self.low > self.high)).all())

    def through(self, taps: Taps) -> Span:
        """What an operation's output sees that reads this axis."""
        padded_low = np.append(self.low, NOTHING[0])
        padded_high = np.append(self.high, NOTHING[1])
        low = padded_low[taps.clipped].min(axis=1)
        high = padded_high[taps.clipped].max(axis=1)
        return Span(low, high, self._ideal_through(taps))

    def _ideal_through(self, taps: Taps) -> Ideal | None:
        if self.ideal is None or not taps.ideal:
            return None
        # The pattern of taps and the phases of this axis come round together after `rounds`.
        rounds = self.ideal.period // math.gcd(self.ideal.period, taps.moves) if taps.moves else 1
        low, high = [], []
        for turn in range(rounds):
            for phase in taps.ideal:
                first, last = self.ideal.at(np.asarray(phase) + turn * taps.moves)
                low.append(int(first.min()))
                high.append(int(last.max()))
        advance = self.ideal.jump * taps.moves * rounds
        return _reduced(taps.period * rounds, int(advance), low, high)

    def grouped(self, size: int, weight: int) -> Span:
        """Each position sees what all see that differ from it in one digit of the position.

        Args:
            size: values of that digit.
            weight: positions by which one step of it moves.
        """

        def over(values: Positions, hull: np.ufunc) -> Positions:
            shaped = values.reshape(-1, size, weight)
            joined = hull.reduce(shaped, axis=1, keepdims=True)
            return np.broadcast_to(joined, shaped.shape).reshape(-1)

        ideal = None
        if self.ideal is not None and weight == 1 and size < len(self):
            taps = tuple(tuple(range(size)) for _ in range(size))
            ideal = Span(self.low, self.high, self.ideal)._ideal_through(
                Taps(np.empty((0, 1), np.int64), size, size, taps)
            )
        return Span(over(self.low, np.minimum), over(self.high, np.maximum), ideal)

    def taken(self, positions: Positions, ideal: Ideal | None = None) -> Span:
        """Some positions, in another order or several times."""
        return Span(self.low[positions], self.high[positions], ideal)

    def joined(self, other: Span) -> tuple[Span, bool]:
        """What both see together, and whether they are aligned: one jump for both."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        if self.ideal is None or other.ideal is None:
            return Span(low, high, None), True
        if self.ideal.jump != other.ideal.jump:
            return Span(low, high, None), False
        period = math.lcm(self.ideal.period, other.ideal.period)
        phases = np.arange(period)
        first, last = self.ideal.at(phases), other.ideal.at(phases)
        ideal = _reduced(
            period,
            int(self.ideal.jump * period),
            np.minimum(first[0], last[0]).tolist(),
            np.maximum(first[1], last[1]).tolist(),
        )
        return Span(low, high, ideal), True


def _reduced(period: int, advance: int, low: Sequence[int], high: Sequence[int]) -> Ideal:
    """The same with the shortest period."""
    for shorter in range(1, period):
        if period % shorter or (advance * shorter) % period:
            continue
        step = advance * shorter // period
        if all(
            values[i] == values[i % shorter] + step * (i // shorter)
            for values in (low, high)
            for i in range(period)
        ):
            return Ideal(shorter, step, tuple(low[:shorter]), tuple(high[:shorter]))
    return Ideal(period, advance, tuple(low), tuple(high))
