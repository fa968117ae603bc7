"""Blanked squares and mixed pairs. Floor 1, room data; imports floor 0, `draws` and torch.

Images are float32 B×C×H×W; signals and volumes can be mixed, not cut. Everything comes from hashes
of sample ids; the one thing that also depends on the rest of the batch is who a sample's partner
is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from neocog import chance
from neocog.data import draws

if TYPE_CHECKING:
    from torch import Tensor

    from neocog.records import Batch

__all__ = ["cutout", "mix_pairs", "partners"]


def _box(
    size: tuple[int, int], centre: tuple[Tensor, Tensor], sides: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Boxes of `sides` pixels about `centre`, cut off at the border.

    Returns:
        A mask B×1×H×W and the share of the picture that it covers, B float32.
    """
    inside = []
    for side, middle, length in zip(size, centre, sides, strict=True):
        first = middle - length // 2
        place = torch.arange(side, device=middle.device)[None]
        inside.append((place >= first[:, None]) & (place < (first + length)[:, None]))
    rows, columns = inside
    share = rows.sum(1) * columns.sum(1) / float(size[0] * size[1])
    return (rows[:, :, None] & columns[:, None, :])[:, None], share


def _centres(key: int, ids: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A pixel of the picture for each id, all equally likely."""
    return (
        draws.integers(chance.key(key, "row"), ids, size[0]),
        draws.integers(chance.key(key, "column"), ids, size[1]),
    )


def cutout(images: Tensor, ids: Tensor, key: int, share: float, fill: Tensor) -> Tensor:
    """Blank a square of each picture (arXiv 1708.04552); it may hang over the border.

    Args:
        images: B×C×H×W float32.
        ids: B, int64.
        key: what the draw is for.
        share: side of the square as a share of the shorter side; at least one pixel.
        fill: C, float32, in 0…255 units.
    """
    size = (images.shape[-2], images.shape[-1])
    side = torch.full_like(ids, max(1, round(share * min(size))))
    mask, _ = _box(size, _centres(key, ids, size), (side, side))
    return torch.where(mask, fill[None, :, None, None], images)


def partners(ids: Tensor, key: int) -> Tensor:
    """For each row the row of its partner: the next one in the order of the ids' hashes, cyclic.

    Who is whose partner depends on the set of ids in the batch, not on their order; in a batch of
    two or more nobody is their own. B int64 → B int64.
    """
    ranked = torch.argsort(chance.draw(key, ids), stable=True)
    result = torch.empty_like(ranked)
    result[ranked] = ranked.roll(-1)
    return result


def mix_pairs(batch: Batch, *, mixup: float, cutmix: float, classes: int, key: int) -> Batch:
    """Mix each sample with its partner, by mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899).

    With both on, each sample takes one of them by a hash of its id, with equal probability. A
    sample receives from its partner and gives to another, so the pairs form one cycle.

    The targets are mixed so that the loss is the sum that the two samples deserve: with shares
    a = λ·w and b = (1 − λ)·w′ of the sample weights the target is (a·t + b·t′) / (a + b), and the
    weight is a + b. For equal weights that is λ·t + (1 − λ)·t′.

    Args:
        batch: float32 images; class indices, labels or numbers.
        mixup: α of its Beta distribution; 0 turns it off.
        cutmix: α of its Beta distribution; 0 turns it off.
        classes: K; class indices become B×K shares.
        key: what the draw is for.

    Returns:
        The batch with new images, targets (B×K float32) and weights.
    """
    ids, images = batch.ids, batch.images
    partner = partners(ids, chance.key(key, "partner"))
    # index_select gives contiguous memory: taken from B×H×W×C, the result stays channels_last.
    other = images.movedim(1, -1).index_select(0, partner).movedim(-1, 1)
    keep = torch.ones_like(batch.weights)
    if mixup > 0 and cutmix > 0:
        pasted = draws.between(chance.key(key, "choice"), ids, 0, 1) < 0.5
    else:
        pasted = torch.full_like(batch.valid, cutmix > 0)
    if mixup > 0:
        drawn = draws.beta(chance.key(key, "mixup"), ids, mixup)
        keep = torch.where(pasted, keep, drawn)
        images = torch.lerp(other, images, keep.view(-1, *(1,) * (images.dim() - 1)))
    if cutmix > 0:
        size = (images.shape[-2], images.shape[-1])
        side = (1 - draws.beta(chance.key(key, "cutmix"), ids, cutmix)).sqrt()
        centre = _centres(chance.key(key, "place"), ids, size)
        mask, share = _box(size, centre, ((side * size[0]).long(), (side * size[1]).long()))
        images = torch.where(mask & pasted[:, None, None, None], other, images)
        keep = torch.where(pasted, 1 - share, keep)
    targets = batch.targets
    if targets.dim() == 1:
        targets = F.one_hot(targets, classes)
    targets = targets.to(torch.float32)
    mine = keep * batch.weights
    theirs = (1 - keep) * batch.weights.index_select(0, partner)
    total = mine + theirs
    # Two samples of weight 0 still need a target that is finite.
    lead = torch.where(total > 0, mine / total.clamp(min=1e-30), keep)[:, None]
    mixed = lead * targets + (1 - lead) * targets.index_select(0, partner)
    return replace(batch, images=images, targets=mixed, weights=total)
