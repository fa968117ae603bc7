"""The same picture in two parts: a score that it flatters. Floor 1, room data; imports floor 0.

The scan compares the bytes of the files, a data set its packed pixels, which are also equal where
one picture was saved twice over in different files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.records import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["TWIN", "twins"]

TWIN = "duplicate"
"""The code of these remarks."""


def twins(
    prints: NDArray[np.uint64],
    parts: Mapping[str, NDArray[np.int64]],
    names: Sequence[str],
    format: str,
) -> tuple[dict[str, int], tuple[Fault, ...]]:
    """Samples of a later part that also occur in an earlier one.

    Args:
        prints: N; equal for equal pictures.
        parts: name → the rows that belong to it, in order.
        names: N; what the samples are called.
        format: the reader, for the remarks.

    Returns:
        `train/val` → how many samples of val also occur in train, of pairs that have any; and one
        remark a pair, with an example.
    """
    found: dict[str, int] = {}
    faults: list[Fault] = []
    order = list(parts)
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            hits = np.isin(prints[parts[second]], prints[parts[first]])
            if not hits.any():
                continue
            row = int(parts[second][np.argmax(hits)])
            twin = int(parts[first][np.argmax(prints[parts[first]] == prints[row])])
            number = found[f"{first}/{second}"] = int(hits.sum())
            reason = f"{number} samples of {second} are also in {first}; this one is {names[twin]}"
            faults.append(
                Fault(path=names[row], format=format, code=TWIN, reason=reason, policy="accept")
            )
    return found, tuple(faults)
