"""Which samples are held back for validation. Floor 1, room data; imports floor 0 and NumPy.

The choice is a function of the seed and of the samples' ids alone. `dataset.load` passes ids made
from the content, so that neither file names nor the order of a listing matter, and a file that is
added leaves nearly all others where they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.chance import draw, key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["allocate", "held_back"]


def allocate(counts: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """How many samples of each class are held back, by the method of the largest remainder.

    The total is `share` of all samples, rounded half up, at least 1; a class never gives its last
    sample away, and the total is smaller only where that forces it.

    Args:
        counts: K; samples of each class.
        share: in [0, 1).

    >>> allocate(np.array([50, 30, 20, 1]), 0.1)
    array([5, 3, 2, 0])
    """
    counts = np.asarray(counts, np.int64)
    total = int(counts.sum())
    room = np.maximum(counts - 1, 0)
    if share <= 0:
        return np.zeros(len(counts), np.int64)
    wanted = min(max(1, int(np.floor(share * total + 0.5))), int(room.sum()))
    quota = share * counts
    taken: NDArray[np.int64] = np.minimum(np.floor(quota).astype(np.int64), room)
    # Largest remainder first; a stable sort settles ties by the order of the classes.
    for index in np.argsort(-(quota - np.floor(quota)), kind="stable"):
        if taken.sum() >= wanted:
            break
        taken[index] += taken[index] < room[index]
    # Only where classes ran out of room: the rest goes to the class with the largest share left.
    while taken.sum() < wanted:
        taken[np.argmax(np.where(taken < room, (counts - taken) / np.maximum(counts, 1), -1))] += 1
    while taken.sum() > wanted:
        taken[np.argmax(np.where(taken > 0, taken - quota, -np.inf))] -= 1
    return taken


def held_back(
    ids: NDArray[np.int64],
    share: float,
    *,
    seed: int,
    classes: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Which samples go to the validation part.

    Args:
        ids: N; what identifies a sample, in [0, 2³²). Equal ids stay together as far as counts
            allow, so ids from the content keep copies of a picture on one side.
        share: part of the samples that is held back, in [0, 1).
        seed: the run's seed.
        classes: N; class of each sample, to hold back the same share of each. None: plain.

    Returns:
        N, bool.
    """
    ids = np.asarray(ids, np.int64)
    groups = np.zeros(len(ids), np.int64) if classes is None else np.asarray(classes, np.int64)
    counts = np.bincount(groups) if len(groups) else np.zeros(0, np.int64)
    taken = allocate(counts, share)
    draws = draw(key(seed, "split"), ids)
    # By class, then by chance; position in the class decides.
    order = np.lexsort((ids, draws, groups))
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(ids)) - starts[groups[order]]
    chosen = np.zeros(len(ids), np.bool_)
    chosen[order] = rank < taken[groups[order]]
    return chosen
