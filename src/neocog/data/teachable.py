"""Whether anything can be learnt from a data set, and what cannot. Floor 1, room data.

Readers refuse a single class too, and sooner; but a pack that was made for an evaluation, where a
single class is fine, is found in the cache without any reader. Imports floor 0, this room, NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neocog.data.names import too_few
from neocog.errors import DataError
from neocog.records import Fault
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neocog.data.store import Pack

__all__ = ["refuse_unteachable", "unseen"]


def refuse_unteachable(packed: Pack, splits: Mapping[str, NDArray[np.int64]], source: str) -> None:
    """Refuse a training part that nothing can be learnt from, and held parts that nothing can be
    scored on.

    Args:
        packed: all samples.
        splits: part → its samples, none of them empty.
        source: for messages.

    Raises:
        DataError: a single class, weights that are all 0, or a part whose masks have no label.
    """
    where, kind = printable(source), packed.meta["target"]
    train = splits.get("train")
    if kind == "class":
        found = np.unique(packed.targets if train is None else packed.targets[train])
        if len(found) < 2:
            raise too_few([packed.meta["classes"][row] for row in found], where)
    if kind == "mask":
        _refuse_empty_masks(packed, splits, where)
    if train is not None and not packed.weights[train].any():
        raise DataError(
            f"{where}: expected a weight above 0 in the training part, found 0 for all of its "
            f"{len(train):,} samples",
            "a weight says how much a sample counts; without weights each counts 1",
        )


def _refuse_empty_masks(packed: Pack, splits: Mapping[str, NDArray[np.int64]], where: str) -> None:
    """Raises a DataError where masks show too little."""
    for part, ids in splits.items():
        shown = packed.targets[ids].any(axis=0)
        if part != "train" and not shown.any():
            raise DataError(
                f"{where}: expected labelled pixels in the {part} part, found none",
                "255 has no label, nor has what data.ignore names; leave that part out",
            )
        if part == "train" and shown.sum() < 2:
            names = [packed.meta["classes"][k] for k in np.flatnonzero(shown)]
            raise DataError(
                f"{where}: expected at least two classes in the masks of the training part, found "
                + (f"only {names[0]!r}" if names else "none"),
                "255 has no label: in masks of 0 and 255, save the 255 as 1",
            )


def unseen(packed: Pack, splits: Mapping[str, NDArray[np.int64]]) -> tuple[Fault, ...]:
    """Of masks a remark for each class that a part does not show; empty for other targets.

    One that no training mask shows cannot be learnt, and one that no held one shows has no score.
    """
    if packed.meta["target"] != "mask":
        return ()
    return tuple(
        Fault(
            path=part,
            format=packed.meta["kind"],
            code="missing-class",
            reason=f"no mask of the {part} part shows the class {name!r}",
            policy="accept",
        )
        for part, ids in splits.items()
        for k, name in enumerate(packed.meta["classes"])
        if not packed.targets[ids, k].any()
    )
