"""Small pictures and masks that say the same, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from neocog.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = ("sky", "road", "car")


def drawn(seed: int, size: tuple[int, int] = (40, 48), top: int = 3) -> NDArray[np.uint8]:
    """A mask of rectangles."""
    chance = np.random.default_rng(seed)
    found = np.zeros(size, np.uint8)
    for _ in range(6):
        first, left = chance.integers(0, size[0] - 8), chance.integers(0, size[1] - 8)
        found[first : first + 12, left : left + 16] = chance.integers(0, top)
    found[-2:] = VOID
    return found


def picture_of(numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture whose colours say what the mask says, so that one can be checked by the other."""
    red = numbers.astype(np.int64) * 40 % 256
    places = np.indices(numbers.shape)
    return np.stack([red, places[0] * 3 % 256, places[1] * 3 % 256], 2).astype(np.uint8)


def folder(root: Path, parts: dict[str, int], *, names: bool = True) -> Path:
    """train/ and trainannot/ and so on, with so many pairs each."""
    for number, (part, count) in enumerate(parts.items()):
        for index in range(count):
            numbers = drawn(100 * number + index)
            for place, pixels in ((part, picture_of(numbers)), (f"{part}annot", numbers)):
                path = root / place / f"{index:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    if names:
        (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root
