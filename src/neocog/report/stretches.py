"""Equal stretches that follow one another in a graph. Floor 4, room report; standard library.

Structure decides, not names: two stretches are equal where the same things happen in the same
order and each reads what stands as far before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["Stretch", "stretches"]

_LONGEST = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A run of equal stretches."""

    start: int
    """Where the first begins."""
    period: int
    """How long each is."""
    times: int
    """How many there are."""

    @property
    def end(self) -> int:
        """One past the last."""
        return self.start + self.period * self.times


def stretches(
    kinds: Sequence[Hashable], before: Sequence[Sequence[int]], paths: Sequence[str]
) -> tuple[Stretch, ...]:
    """Runs that save at least two places, from left to right.

    Of a run only the last stretch is read from behind it.

    Args:
        kinds: what happens at each place.
        before: the places that each reads, all of them earlier; −1 is the input.
        paths: module paths; where a run may begin at several places, it begins with a module.

    >>> stretches("abcbcbcd", [[at - 1] for at in range(8)], [""] * 8)
    (Stretch(start=1, period=2, times=3),)
    """
    numbers: dict[Hashable, int] = {}
    tokens = [
        numbers.setdefault((kind, tuple(at - one for one in read)), len(numbers))
        for at, (kind, read) in enumerate(zip(kinds, before, strict=True))
    ]
    last_read = [-1] * len(tokens)
    readers: list[list[int]] = [[] for _ in tokens]
    for at, read in enumerate(before):
        for one in read:
            if one >= 0:
                last_read[one] = max(last_read[one], at)
                readers[one].append(at)
    found: list[Stretch] = []
    at = 0
    while at < len(tokens):
        best = _best(tokens, readers, at)
        if best is None:
            at += 1
            continue
        # The same run may be cut one or more places later: take the cut that modules suggest.
        others = [_best(tokens, readers, at + shift) for shift in range(1, best.period)]
        equal = [
            one for one in others if one and (one.period, one.times) == (best.period, best.times)
        ]
        best = max([best, *equal], key=lambda one: (_together(paths, one), -one.start))
        found.append(best)
        at = best.end
    return tuple(found)


def _best(tokens: Sequence[int], readers: Sequence[Sequence[int]], start: int) -> Stretch | None:
    """The run at a place that saves most; of equals the one of the shortest stretches."""
    best: Stretch | None = None
    for period in range(1, min(_LONGEST, (len(tokens) - start) // 2) + 1):
        if tokens[start] != tokens[start + period]:
            continue
        equal = 0
        while (
            start + period + equal < len(tokens)
            and tokens[start + equal] == tokens[start + period + equal]
        ):
            equal += 1
        times = _valid(readers, start, period, 1 + equal // period)
        saved = period * (times - 1)
        if saved >= 2 and (best is None or saved > best.period * (best.times - 1)):
            best = Stretch(start=start, period=period, times=times)
    return best


def _valid(readers: Sequence[Sequence[int]], start: int, period: int, times: int) -> int:
    """How many of the stretches may be one, so that what is read from behind is in the last."""
    while times > 1:
        end = start + period * times
        early = [at for at in range(start, end - period) if any(one >= end for one in readers[at])]
        if not early:
            return times
        times = (early[0] - start) // period + 1
    return times


def _together(paths: Sequence[str], stretch: Stretch) -> int:
    """How many stretches lie each in a module of its own; of equals, how deep they lie."""
    modules = [
        common(paths[at : at + stretch.period])
        for at in range(stretch.start, stretch.end, stretch.period)
    ]
    return 100 * len(set(modules)) + sum(len(one) for one in modules) // len(modules)


def common(paths: Sequence[str]) -> str:
    """The innermost module that holds all of them.

    >>> common(["layer1.0.conv1", "layer1.0"]), common(["a.b", "c"])
    ('layer1.0', '')
    """
    parts = [path.split(".") for path in paths]
    depth = 0
    shortest = min(len(one) for one in parts)
    while depth < shortest and len({one[depth] for one in parts}) == 1:
        depth += 1
    return ".".join(parts[0][:depth])
