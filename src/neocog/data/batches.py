"""From a `Dataset` to batches, in an order that is a function. Floor 1, room data.

Imports floor 0, this room and torch. The order of an epoch is a hash of (seed, epoch, id); nothing
is remembered between batches, so an epoch can be taken up at any one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from neocog import chance
from neocog.records import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from neocog.data.augment import Augment
    from neocog.data.dataset import Dataset

__all__ = ["batches_per_epoch", "eval_batches", "order", "train_batches"]


def order(ids: Tensor, *, seed: int, epoch: int) -> Tensor:
    """The ids in the order of one epoch: sorted by hash, whatever order they came in.

    For one key `chance.draw` is a bijection of 32-bit numbers, so no two ids tie.

    Args:
        ids: N, int64.
        seed: the run's seed.
        epoch: each epoch has its own order.

    >>> order(torch.arange(6), seed=0, epoch=0).sort().values.tolist()
    [0, 1, 2, 3, 4, 5]
    """
    return ids[torch.argsort(chance.draw(chance.key(seed, epoch, "order"), ids), stable=True)]


def batches_per_epoch(n: int, batch: int) -> int:
    """The fewest batches that hold n samples: n / batch, rounded up.

    >>> batches_per_epoch(1000, 128), batches_per_epoch(100, 128), batches_per_epoch(0, 128)
    (8, 1, 0)
    """
    return -(-n // batch)


def _fetch(
    data: Dataset,
    ids: Tensor,
    device: torch.device,
    tops: Tensor | None = None,
    lefts: Tensor | None = None,
) -> Batch:
    """The samples `ids` on `device`: the only place where pixels change machines.

    A set that fits on an accelerator could live there: its `images.gather` would answer there, and
    nothing else here would change.
    """
    images = data.images.gather(ids, data.size, tops, lefts)
    pinned = device.type == "cuda" and images.device.type == "cpu"

    def move(tensor: Tensor) -> Tensor:
        # Pinned memory lets the copy run beside the arithmetic of the step before.
        return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)

    return Batch(
        images=move(images),
        targets=move(data.targets[ids]),
        weights=move(data.weights[ids]),
        valid=torch.ones(len(ids), dtype=torch.bool, device=device),
        ids=move(ids),
    )


def train_batches(
    data: Dataset,
    *,
    batch: int,
    seed: int,
    epoch: int,
    augment: Augment | None,
    start: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[Batch]:
    """One epoch of the training part, shuffled and augmented.

    Every sample is shown once. The order is cut into as few batches as will do, of sizes that
    differ by at most one: 60 samples at batch 32 are two batches of 30, and no step is a small
    one. Pictures are augmented on the device, after the copy of their bytes.

    Args:
        data: its `train` split is used.
        batch: images a batch, at most.
        seed: the run's seed.
        epoch: decides order and augmentation.
        augment: None takes centred windows and changes nothing.
        start: first batch wanted; the batches before it are not touched.
        device: where the batches go.

    Raises:
        ValueError: `batch` is not positive, or `start` lies outside the epoch.
    """
    ids = data.splits["train"]
    count = batches_per_epoch(len(ids), max(1, batch))
    if batch < 1:
        raise ValueError(f"expected batches of at least 1 image, got {batch}")
    if not 0 <= start <= count:
        raise ValueError(f"expected a start in 0…{count}, the batches of this epoch, got {start}")
    return _train_batches(
        data, order(ids, seed=seed, epoch=epoch), batch, epoch, augment, start, torch.device(device)
    )


def _train_batches(
    data: Dataset,
    ids: Tensor,
    batch: int,
    epoch: int,
    augment: Augment | None,
    start: int,
    device: torch.device,
) -> Iterator[Batch]:
    n, count = len(ids), batches_per_epoch(len(ids), batch)
    for index in range(start, count):
        mine = ids[index * n // count : (index + 1) * n // count]
        if augment is None:
            yield _fetch(data, mine, device)
        else:
            tops, lefts = augment.windows(data.images.sizes[mine], data.size, mine, epoch)
            yield augment(_fetch(data, mine, device, tops, lefts), epoch)


def eval_batches(
    data: Dataset,
    ids: Tensor,
    *,
    batch: int,
    pad: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[Batch]:
    """The samples `ids` in order, centred, untouched; what does not fill a last batch is a smaller
    one.

    Args:
        data: where the samples are.
        ids: N, int64.
        batch: images at once.
        pad: fill the last batch up with repeats of the last id, marked `valid=False`, so that all
            batches have one shape.
        device: where the batches go.

    Raises:
        ValueError: `batch` is not positive.
    """
    if batch < 1:
        raise ValueError(f"expected batches of at least 1 image, got {batch}")
    return _eval_batches(data, ids, batch, pad, torch.device(device))


def _eval_batches(
    data: Dataset, ids: Tensor, batch: int, pad: bool, device: torch.device
) -> Iterator[Batch]:
    for first in range(0, len(ids), batch):
        mine = ids[first : first + batch]
        missing = batch - len(mine)
        if not missing or not pad:
            yield _fetch(data, mine, device)
            continue
        filled = _fetch(data, torch.cat([mine, mine[-1:].expand(missing)]), device)
        filled.valid[batch - missing :] = False
        yield filled
