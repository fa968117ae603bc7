"""Training pictures that grow: progressive resizing. Floor 2, room engine; imports floor 0.

Coarse things are learnt first, and small pictures show them as well as large ones at a fraction of
the arithmetic (Karras et al. 2018, arXiv 1710.10196; Tan and Le 2021, arXiv 2104.00298). The size
is a function of the share of the training that is done, like the rate; there is nothing to save.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.layers import scaling

if TYPE_CHECKING:
    from torch import Tensor

    from neocog.config import ScheduleRecipe

__all__ = ["Growth", "shrunk"]

STAGES = 2
"""Sizes before the whole one: for each, a compiler or a library's search for kernels takes time."""
LEAST = 16
"""Pixels a side below which nothing shrinks: networks halve their maps some times."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How large the training pictures are when."""

    recipe: ScheduleRecipe
    """Its `grow` and `grown`."""
    whole: tuple[int, ...]
    """Size of the network's input."""

    @property
    def stages(self) -> tuple[tuple[float, tuple[int, ...]], ...]:
        """(share of the training at which it ends, size) of each stage, the whole one last.

        >>> from neocog.config import ScheduleRecipe
        >>> Growth(ScheduleRecipe(grow=0.5, grown=0.6), (32, 48)).stages[:2]
        ((0.3, (16, 24)), (0.6, (24, 36)))
        >>> Growth(ScheduleRecipe(), (32, 32)).stages
        ((1.0, (32, 32)),)
        """
        return _stages(self.recipe.grow, self.recipe.grown, self.whole)

    def size(self, share: float) -> tuple[int, ...]:
        """Of the pictures of a step before which this share of the training was done."""
        return next((size for end, size in self.stages if share < end), self.whole)

    def work(self, share: float) -> float:
        """What the steps up to this share of them cost, in units of a training on whole pictures.

        >>> from neocog.config import ScheduleRecipe
        >>> growth = Growth(ScheduleRecipe(grow=0.5, grown=0.5), (32, 32))
        >>> [round(growth.work(share), 3) for share in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 0.062, 0.203, 0.703]
        """
        done, begin = 0.0, 0.0
        for end, size in self.stages:
            spent = max(0.0, min(share, end) - begin)
            done += spent * math.prod(size) / math.prod(self.whole)
            begin = end
        return done

    def share(self, spent: float) -> float:
        """The share of the steps that fit into this share of the time: the inverse of `work`.

        >>> from neocog.config import ScheduleRecipe
        >>> growth = Growth(ScheduleRecipe(grow=0.5, grown=0.5), (32, 32))
        >>> growth.share(growth.work(0.3) / growth.work(1.0)), growth.share(1.0)
        (0.3, 1.0)
        """
        left, begin = spent * self.work(1.0), 0.0
        for end, size in self.stages:
            area = math.prod(size) / math.prod(self.whole)
            if left <= (end - begin) * area:
                return round(begin + left / area, 9)
            left -= (end - begin) * area
            begin = end
        return 1.0


@functools.lru_cache(maxsize=64)
def _stages(
    grow: float, grown: float, whole: tuple[int, ...]
) -> tuple[tuple[float, tuple[int, ...]], ...]:
    """`Growth.stages`; cached, because each step asks for it."""
    smaller = []
    for stage in range(STAGES if grown else 0):
        share = grow + (1 - grow) * stage / STAGES
        size = tuple(max(min(side, LEAST), round(share * side)) for side in whole)
        if size != whole:
            smaller.append((grown * ((stage + 1) / STAGES), size))
    return (*smaller, (1.0, whole))


def shrunk(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Scaled down, bilinear and antialiased; those of the size pass untouched.

    Args:
        images: B×C×H×W, float; signals and volumes, which never grow, pass untouched too.
        size: height and width, at most those of the pictures.
    """
    if tuple(images.shape[2:]) == size:
        return images
    height, width = images.shape[2:]
    down = scaling(height, size[0], size[0], like=images)
    right = scaling(width, size[1], size[1], like=images)
    return down @ images @ right.T
