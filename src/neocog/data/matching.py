"""Targets of a pack for a network that exists: classes are names, not positions.

Floor 1, room data; imports floor 0, this room and NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.data.merge import match_columns, refuse_unknown
from neocog.records import VOID

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neocog.data.store import Pack

__all__ = ["match", "renumbered"]


def match(packed: Pack, classes: tuple[str, ...] | None) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Targets in the order of `classes`, matched by name; and the names.

    Args:
        packed: the pack.
        classes: of a network that exists; None: the pack's own.

    Raises:
        DataError: a class that the network does not know, or other columns.
    """
    own = tuple(packed.meta["classes"])
    if classes is None or classes == own:
        return packed.targets, own
    if packed.meta["target"] == "numbers":
        order = match_columns(own, classes, "this data")
        return np.ascontiguousarray(packed.targets[:, order]), classes
    place = {name: index for index, name in enumerate(classes)}
    if packed.meta["target"] == "class":
        refuse_unknown([own[row] for row in set(packed.targets.tolist())], classes, "this data")
        table = np.array([place.get(name, -1) for name in own], np.int64)
        return table[packed.targets], classes
    present = np.flatnonzero(packed.targets.max(axis=0, initial=0) > 0)
    refuse_unknown([own[row] for row in present], classes, "this data")
    # Labels, or of masks the pixels of each class: a column a class either way.
    labels = np.zeros((len(packed.targets), len(classes)), np.float32)
    for row, name in enumerate(own):
        if name in place:
            labels[:, place[name]] = packed.targets[:, row]
    return labels, classes


def renumbered(packed: Pack, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """The masks of a pack, numbered as `classes` are."""
    assert packed.masks is not None
    own = tuple(packed.meta["classes"])
    if own == classes:
        return packed.masks
    table = np.full(256, VOID, np.uint8)
    for number, name in enumerate(own):
        if name in classes:
            table[number] = classes.index(name)
    return table[packed.masks]
