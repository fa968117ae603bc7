"""Operations that only move numbers: views, joins, cuts, fillings. Floor 1, explain.

Imports NumPy, torch and this room. Where a number came from is found by running the operation on
numbered places in its stead: that holds for every operation that moves numbers, and for no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog.explain.unit.place import Worked, constant
from neocog.explain.unit.terms import Unit

if TYPE_CHECKING:
    from neocog.explain.unit.place import Place

__all__ = ["MOVES", "moved"]

MOVES = frozenset(
    {"cat", "stack", "clone", "_unsafe_view", "contiguous", "repeat", "roll", "flip", "copy"}
    | {"constant_pad_nd", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col"}
    | {f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)}
    | {f"{kind}{d}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for d in (1, 2, 3)}
    | {"max_unpool2d", "max_unpool3d", "written", "index", "index_select", "gather", "take"}
    | {"slice_scatter", "select_scatter", "index_put", "rot90", "tril", "triu", "tile"}
    | {"_reshape_copy", "expand_copy", "view_copy", "permute_copy", "_unsafe_index"}
)
"""Operations, or their in-place forms, whose answer is made of numbers that they were given."""

_WORDS = {
    "cat": "joined along an axis",
    "stack": "joined along a new axis",
    "constant_pad_nd": "padding",
    "written": "a part was written to",
    "copy": "copied",
}


def moved(at: Place) -> Worked | None:
    """The one number that is handed on, or a number that the operation fills in."""
    values = at.recording.graph.values
    floating = [
        value
        for value in dict.fromkeys(at.node.inputs)
        if values[value].dtype.startswith(("float", "bfloat"))
    ]
    # Halves: a number that the operation itself fills in (0, −∞) is never taken for a place.
    numbered, first = {}, 1
    for value in floating:
        count = values[value].elements
        places = torch.arange(first, first + count, dtype=torch.float64) + 0.5
        numbered[value] = places.reshape(values[value].shape)
        first += count
    try:
        with torch.no_grad():
            found = at.recording.replay(at.node, numbered)[at.slot]
    except (RuntimeError, NotImplementedError):
        return None
    number = float(found[at.index])
    words = _WORDS.get(at.op, at.op.strip("_").replace("_", " "))
    words = "the same numbers in another shape" if at.node.view and at.op != "written" else words
    if not np.isfinite(number) or 2 * number % 2 != 1:
        return Worked(words=f"{words}: filled in", formula="", terms=(constant("fill", number),))
    place = int(number - 0.5)
    first = 1
    for value in floating:
        count = values[value].elements
        if place < first + count:
            index = np.unravel_index(place - first, values[value].shape) if count else ()
            where = tuple(int(one) for one in index)
            return Worked(
                words=words,
                formula="x",
                terms=(at.one("handed on", value, where),),
                onward=Unit(value, where),
            )
        first += count
    return None
