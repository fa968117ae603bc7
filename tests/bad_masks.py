"""Rows of the battery in `test_bad_inputs`: masks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bad_sets import FLAT, Case, draw, encoded, write
from neocog.records import VOID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

GOOD = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3


def pairs(root: Path) -> Path:
    """Eight pictures and masks of three classes."""
    for place in range(8):
        write(encoded(draw(place)), root / "train" / f"{place}.png")
        write(encoded(np.roll(GOOD, place)), root / "trainannot" / f"{place}.png")
    write(b"sky\nroad\ncar\n", root / "classes.txt")
    return root


def masks(root: Path) -> Path:
    """The same in an .npz."""
    root.mkdir(parents=True)
    np.savez(root / "set.npz", **arrays())
    return root / "set.npz"


def arrays(*more: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    y = [*(np.roll(GOOD, place) for place in range(8)), *more]
    names = {"classes": np.array(["sky", "road", "car"])}
    return {"x": np.stack([draw(place) for place in range(len(y))]), "y": np.stack(y)} | names


def beside(content: bytes, path: Path) -> None:
    """One more pair, whose mask is this."""
    write(encoded(FLAT), path.parents[1] / "train" / "bad.png")
    write(content, path)


def more(mask: NDArray[np.uint8], path: Path) -> None:
    """One more row."""
    np.savez(path, **arrays(mask))


def row(item: str, plant: Callable[[Path], None], *expected: str, **rest: object) -> Case:
    start = {
        "item": f"Masks: {item}",
        "good": pairs,
        "name": "trainannot/bad.png",
        "reported": "train/bad.png",
    }
    return Case(**{**start, "plant": plant, "expected": expected, **rest})  # type: ignore[arg-type]


IN_ARRAY = {"good": masks, "name": "set.npz", "reported": "x[8]"}
MASKS = (
    row("size differs from the image", partial(beside, encoded(GOOD[:7])), "mask-size"),
    row(
        "no pair",
        partial(write, encoded(FLAT)),
        "no-mask",
        variant="no mask",
        name="train/bad.png",
    ),
    row(
        "no pair",
        partial(write, encoded(GOOD)),
        "no-picture",
        variant="no picture",
        reported="trainannot/bad.png",
    ),
    row("class out of range", partial(beside, encoded(GOOD + 1)), "class-range"),
    row(
        "class out of range",
        partial(more, GOOD + 1),
        "class-range",
        variant="of an array",
        **IN_ARRAY,
    ),
    row("RGB mask without a palette", partial(beside, encoded(FLAT)), "mask-colors"),
    row(
        "JPEG masks",
        partial(beside, encoded(GOOD, "JPEG")),
        "JPEG",
        name="trainannot/bad.jpg",
        reported="trainannot/bad.jpg",
    ),
    row(
        "a mask that is all unlabelled",
        partial(beside, encoded(np.full_like(GOOD, VOID))),
        "all-unlabelled",
    ),
    row(
        "a mask that is all unlabelled",
        partial(more, np.full_like(GOOD, VOID)),
        "all-unlabelled",
        variant="of an array",
        **IN_ARRAY,
    ),
)
