"""Which network makes the most of a given time. Floor 4; standard library only.

`ladder.json` is a table of candidate networks and resolutions with what to expect of each: the
share of wrong answers after training on so many pictures, measured (`benchmarks/ladder.py` makes
it again). How many pictures a second a candidate learns from is measured on the machine at hand;
together they say which candidate will be best when the time is up. The order of the candidates at
a number of pictures seen is what carries over to other data, not the errors themselves.
"""

from __future__ import annotations

import bisect
import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Rung", "best", "rungs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A candidate and what it has done."""

    model: str
    """Name in the catalogue."""
    args: Mapping[str, Any]
    """Arguments of its factory."""
    shrink: float
    """Side of its pictures as a share of the data's."""
    curve: tuple[tuple[float, float], ...]
    """(pictures seen in training, share of wrong answers) of whole runs of rising length."""

    def expected(self, pictures: float) -> float:
        """The share of wrong answers to expect after `pictures`.

        Lines in the logarithm of both; beyond the ends as between the last two points, but never
        better than twice as good as the longest run.

        >>> rung = Rung(model="m", args={}, shrink=1.0, curve=((100.0, 0.4), (400.0, 0.1)))
        >>> [round(rung.expected(seen), 3) for seen in (100, 200, 400, 800, 1e9)]
        [0.4, 0.2, 0.1, 0.05, 0.05]
        >>> rung.expected(0)
        1.0
        """
        if pictures <= 0:
            return 1.0
        seen = [point[0] for point in self.curve]
        right = min(max(bisect.bisect(seen, pictures), 1), len(seen) - 1)
        (x0, y0), (x1, y1) = self.curve[right - 1], self.curve[right]
        slope = math.log(y1 / y0) / math.log(x1 / x0)
        error = math.exp(math.log(y0) + slope * math.log(pictures / x0))
        return min(1.0, max(error, self.curve[-1][1] / 2))


def rungs() -> tuple[Rung, ...]:
    """All candidates, the cheapest first."""
    text = resources.files("neocog").joinpath("ladder.json").read_text(encoding="utf-8")
    return tuple(
        Rung(
            model=one["model"],
            args=one["args"],
            shrink=one["shrink"],
            curve=tuple((float(seen), float(error)) for seen, error in one["curve"]),
        )
        for one in json.loads(text)["rungs"]
    )


def best(candidates: Sequence[tuple[Rung, float]]) -> tuple[Rung, float]:
    """The candidate with the smallest expected error, and that error.

    Args:
        candidates: each with the pictures that it can see in its time; at least one.

    >>> small = Rung(model="small", args={}, shrink=1.0, curve=((100.0, 0.4), (400.0, 0.3)))
    >>> large = Rung(model="large", args={}, shrink=1.0, curve=((100.0, 0.5), (400.0, 0.1)))
    >>> best([(small, 400.0), (large, 100.0)])[0].model
    'small'
    >>> best([(small, 4000.0), (large, 1000.0)])[0].model
    'large'
    """
    rated = [(rung, rung.expected(pictures)) for rung, pictures in candidates]
    return min(rated, key=lambda one: one[1])
