"""Masks as pictures: colours of classes, overlays, mistakes, index PNGs. Room plots; floor 1.

NumPy and Pillow; no matplotlib, no torch. A mask is H×W, uint8: the class of each pixel, or
`records.VOID` where it has no label. Class k has the same colour in every picture, whatever the
number of classes.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

import numpy as np

from neocog.files import write_atomic
from neocog.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "VOID_COLOUR",
    "WRONG_COLOUR",
    "index_png",
    "mistaken",
    "overlay",
    "palette",
    "write_mask",
    "write_overlay",
]

VOID_COLOUR = (128, 128, 128)
"""Of pixels without a label: a grey, which no class has."""
WRONG_COLOUR = (232, 53, 14)
"""Of pixels that were answered wrongly: a red that stands out from grey in every kind of eye."""
_TAKEN = ((0, 0, 0), (255, 255, 255), VOID_COLOUR, WRONG_COLOUR)
"""What the colours of classes keep away from."""
_DOZEN = 12
"""So many colours stay apart for colour-blind readers; no more than that can."""
_BLIND, _BLIND_LATER = 1.4, 2.5
"""What a distance between two colours counts to a colour-blind reader, where 1 is what it counts to
others: of the first dozen, and of those after it."""
_LIGHT, _VIVID = (0.4, 0.92), (0.08, 0.19)
"""Bounds of lightness and chroma in OKLab: seen on dark and on light, and not glaring."""
_CONES = np.array(
    [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
)
"""Linear RGB → responses of the long, middle and short cones (Viénot, Brettel and Mollon 1999)."""


def palette(k: int) -> NDArray[np.uint8]:
    """Colours of `k` classes, k×3: the first k of one list.

    Each colour is the one that lies furthest from all before it and from black, white, the grey of
    void and the red of mistakes. Distances are those of OKLab (Ottosson 2020), where equal ones
    look about equal, and the least of three counts: as it is seen, and as it is seen without the
    long or the middle cones (Viénot, Brettel and Mollon 1999, Color Research and Application 24).

    Raises:
        ValueError: fewer than 0 or more than 255.

    >>> palette(2).tolist() == palette(255)[:2].tolist()
    True
    """
    if not 0 <= k <= VOID:
        raise ValueError(f"expected 0 to {VOID} classes, found {k}")
    return _spread()[:k].copy()


@functools.cache
def _spread() -> NDArray[np.uint8]:
    """All 255 colours, by farthest-point search on a grid of 16 levels a channel."""
    levels = np.arange(0, 256, 17)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(_linear(grid))
    vivid = np.hypot(lab[:, 1], lab[:, 2])
    kept = (lab[:, 0] > _LIGHT[0]) & (lab[:, 0] < _LIGHT[1])
    grid = grid[kept & (vivid > _VIVID[0]) & (vivid < _VIVID[1])]
    seen, apart = _views(grid), _views(np.array(_TAKEN))
    # By candidate: to the nearest colour that is taken, as all see it and as the blind do.
    near = np.full((2, len(grid)), np.inf)
    for place in range(len(apart[0])):
        near = np.minimum(near, _distances(seen, [view[place] for view in apart]))
    chosen = []
    for number in range(VOID):
        blind = _BLIND if number < _DOZEN else _BLIND_LATER
        best = int(np.minimum(near[0], blind * near[1]).argmax())
        chosen.append(best)
        near = np.minimum(near, _distances(seen, [view[best] for view in seen]))
    colours = grid[chosen].astype(np.uint8)
    colours.flags.writeable = False
    return colours


def _linear(colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """sRGB of 0…255 → linear RGB of 0…1 (IEC 61966-2-1)."""
    share = colours / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _oklab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear RGB → OKLab, N×3."""
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    opponents = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(linear @ cones.T) @ opponents.T
    return lab


def _views(colours: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """OKLab of what is seen with all cones, without the long and without the middle ones."""
    linear = _linear(colours)
    return [_oklab(linear)] + [_oklab(np.clip(linear @ _without(cone).T, 0, 1)) for cone in (0, 1)]


def _without(cone: int) -> NDArray[np.float64]:
    """Linear RGB → what looks the same without this kind of cone, 3×3.

    Its response is put together from the other two such that white and blue stay what they are.
    """
    others = [one for one in range(3) if one != cone]
    white, blue = _CONES.sum(axis=1), _CONES[:, 2]
    ends = np.stack([white, blue])
    lacking = np.eye(3)
    lacking[cone] = 0
    lacking[cone, others] = np.linalg.solve(ends[:, others], ends[:, cone])
    seen: NDArray[np.float64] = np.linalg.inv(_CONES) @ lacking @ _CONES
    return seen


def _distances(
    seen: list[NDArray[np.float64]], one: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """From every candidate to one colour, 2×N: as all see it, and the least that the blind see."""
    full, *blind = (
        np.linalg.norm(view - place, axis=1) for view, place in zip(seen, one, strict=True)
    )
    return np.stack([full, np.min(blind, axis=0)])


def overlay(
    picture: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    colours: NDArray[np.uint8],
    strength: float = 0.5,
) -> NDArray[np.uint8]:
    """A picture with the colours of a mask laid over it, H×W×3.

    Where two classes meet, each has a rim of one pixel in its colour, half way from `strength` to
    opaque. Void is left as it is.

    Args:
        picture: H×W×C, C 1 or 3.
        mask: H×W.
        colours: K×3, of classes 0 … K−1.
        strength: 0: the picture alone; 1: the colours alone.

    Raises:
        ValueError: other shapes, a class without a colour, or a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"expected a strength in [0, 1], found {strength}")
    _check(picture, mask)
    table = _table(mask, colours)
    # In 256ths, so that a large picture costs two bytes a value.
    plain, strong = round(256 * strength), round(128 * (1 + strength)) if strength else 0
    share = np.where(_rims(mask), np.uint16(strong), np.uint16(plain))
    share[mask == VOID] = 0
    return _blend(_coloured(picture), table[mask], share)


def mistaken(
    picture: NDArray[np.uint8], truth: NDArray[np.uint8], answer: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Where an answer is wrong, H×W×3: red on the picture in pale grey, void in stripes.

    Args:
        picture: H×W×C, C 1 or 3.
        truth: H×W.
        answer: H×W; what it says where the truth is void does not count.

    Raises:
        ValueError: other shapes.
    """
    _check(picture, truth)
    _check(picture, answer)
    void = truth == VOID
    grey = _coloured(picture) @ np.array([0.299, 0.587, 0.114])
    # Half the contrast, in the light half of the greys: what is red is what is seen.
    pale = np.repeat((112 + 0.5 * grey).astype(np.uint8)[..., None], 3, axis=2)
    wrong = np.where(truth != answer, np.uint16(216), np.uint16(0))
    shown = _blend(pale, np.broadcast_to(np.array(WRONG_COLOUR, np.uint8), pale.shape), wrong)
    high, wide = truth.shape
    period = max(4, round(max(high, wide) / 60))
    stripe = (np.arange(high)[:, None] + np.arange(wide)) % period < period / 2
    shown[void] = np.where(stripe[void], 96, 160).astype(np.uint8)[:, None]
    return shown


def index_png(mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """A mask as a PNG whose pixels are class indices and whose palette gives them colours.

    Args:
        mask: H×W.
        colours: K×3, of classes 0 … K−1; void is grey.

    Raises:
        ValueError: another shape, or a class without a colour.
    """
    from PIL import Image

    if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
        raise ValueError(f"expected a mask of H×W uint8, found {mask.shape} {mask.dtype}")
    picture = Image.fromarray(mask)
    # All 256 entries: Pillow stores four bits a pixel where the palette is short, and void is 255.
    picture.putpalette(_table(mask, colours).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def write_mask(path: Path, mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Path:
    """Write `index_png` as one whole file; read back, its pixels are the mask.

    Raises:
        RunError: the file cannot be written.
        ValueError: another shape, or a class without a colour.
    """
    write_atomic(path, index_png(mask, colours))
    return path


def write_overlay(
    path: Path,
    picture: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    colours: NDArray[np.uint8],
    strength: float = 0.5,
) -> Path:
    """Write `overlay` as one whole PNG.

    Raises:
        RunError: the file cannot be written.
        ValueError: what `overlay` refuses.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(overlay(picture, mask, colours, strength)).save(buffer, "png")
    write_atomic(path, buffer.getvalue())
    return path


def _check(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(
            f"expected a picture of H×W×1 or H×W×3 uint8, found {picture.shape} {picture.dtype}"
        )
    if mask.dtype != np.uint8 or mask.shape != picture.shape[:2]:
        raise ValueError(
            f"expected a mask of {picture.shape[0]}×{picture.shape[1]} uint8, as the picture, "
            f"found {mask.shape} {mask.dtype}"
        )


def _table(mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A colour for each value that a mask can hold, 256×3."""
    if colours.ndim != 2 or colours.shape[1] != 3 or len(colours) > VOID:
        raise ValueError(f"expected colours of K×3 with at most 255 rows, found {colours.shape}")
    named = mask[mask != VOID]
    if named.size and int(named.max()) >= len(colours):
        raise ValueError(f"expected classes below {len(colours)}, found {int(named.max())}")
    table = np.full((VOID + 1, 3), VOID_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return table


def _rims(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels beside one of another class, above, below, left or right."""
    rims = np.zeros(mask.shape, dtype=bool)
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    rims[:, 1:] |= across
    rims[:, :-1] |= across
    rims[1:] |= down
    rims[:-1] |= down
    return rims


def _coloured(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _blend(
    below: NDArray[np.uint8], above: NDArray[np.uint8], share: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Two H×W×3 pictures mixed; `share` is H×W, that of the upper one in 256ths."""
    over = share[..., None]
    mixed = below.astype(np.uint16) * (256 - over) + above.astype(np.uint16) * over
    # The most is 255 · 256 + 128, which uint16 just holds.
    return ((mixed + 128) >> 8).astype(np.uint8)
