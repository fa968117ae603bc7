"""From a `Dataset` to batches, in an order that is a function. Floor 1, room data.

Imports floor 0, this room and torch. The order of an epoch is a hash of (seed, epoch, id); nothing
is remembered between batches, so an epoch can be taken up at any one of them.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neocog import chance
from neocog.data.ahead import ahead
from neocog.data.resident import send
from neocog.records import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neocog.data.augment import Augment
    from neocog.data.dataset import Dataset

__all__ = ["batches_per_epoch", "eval_batches", "fetch", "order", "train_batches"]

AHEAD = 2
"""Batches that are prepared beyond the one that a step on an accelerator has."""
WHOLE = 1 << 19
"""Pixels of pictures that are looked at together where each is answered for pixel by pixel: maps of
64 channels of them take 128 MB."""
TOGETHER = 1 << 20
"""Bytes of pixels that are gathered and augmented at once, where batches are smaller. Some thirty
operations are called for it, which for 128 MNIST pictures take longer to call than to do: 0.53 ms
beside a `lenet5` step of 5.6 ms, and 0.27 ms with ten batches at a time."""


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


def fetch(
    data: Dataset,
    ids: Tensor,
    tops: Tensor | None = None,
    lefts: Tensor | None = None,
    size: tuple[int, ...] | None = None,
) -> Batch:
    """Some samples, where the data lives.

    Args:
        data: where the samples are.
        ids: B, int64; of `Images.ready`.
        tops: first row of each window, B; None: centred.
        lefts: first column of each window, B; None: centred.
        size: of the windows, out of pictures and masks alike; None: the data's own.
    """
    size = data.size if size is None else size
    masks = data.masks
    return Batch(
        images=data.images.gather(ids, size, tops, lefts),
        targets=data.targets[ids]
        if masks is None
        else masks.gather(ids, size, tops, lefts).squeeze(1),
        weights=data.weights[ids],
        valid=torch.ones(len(ids), dtype=torch.bool, device=ids.device),
        ids=ids,
    )


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with every tensor changed."""
    return Batch(**{field.name: change(getattr(batch, field.name)) for field in fields(batch)})


def _deliver(batches: Iterator[Batch], data: Dataset, device: torch.device) -> Iterator[Batch]:
    """The batches on `device`: the only place where pixels change machines.

    What goes to an accelerator is gathered by a thread while the step before runs. Its copy is
    queued here, in the caller's stream, and not hidden behind the step: 3000 pictures of 224×224
    are 0.45 GB as uint8, 2 % of what the bus carries in the second that they train.

    On a processor that thread gains nothing: the step has all cores already. On two cores a step
    of 512 CIFAR pictures, 5 ms of it to gather and augment them, took 78 ms with `lenet5` and
    31 ms with `mlp` without the thread, 79 ms and 33 ms with it.
    """
    if device.type in ("cpu", data.targets.device.type):
        for one in batches:
            yield _each(one, lambda tensor: tensor.to(device))
        return
    if device.type == "cuda":
        batches = (_each(one, Tensor.pin_memory) for one in batches)
    for one in ahead(batches, AHEAD):
        yield _each(one, lambda tensor: send(tensor, device))


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
    ids = order(data.images.ready(ids, data.size), seed=seed, epoch=epoch)
    return _train_batches(data, ids, batch, epoch, augment, start, torch.device(device))


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
    ends = [i * n // max(1, count) for i in range(count + 1)]
    # Always the same batches together, wherever the epoch is taken up: the last bit of a colour may
    # depend on the place of a number in its row.
    group = max(1, TOGETHER // (batch * data.images.channels * math.prod(data.size)))
    groups = [range(i, min(i + group, count)) for i in range(start - start % group, count, group)]
    parts = (ids[ends[some[0]] : ends[some[-1] + 1]] for some in groups)
    fetched = (fetch(data, mine, *_windows(data, mine, augment, epoch)) for mine in parts)
    for some, many in zip(groups, _deliver(fetched, data, device), strict=True):
        many = many if augment is None else augment.each(many, epoch)
        cut = _cut(many, [ends[i + 1] - ends[i] for i in some])
        for one in cut[max(start - some[0], 0) :]:
            yield one if augment is None else augment.mix(one, epoch)


def _cut(batch: Batch, sizes: list[int]) -> list[Batch]:
    """Batches of these sizes, one after the other; views."""
    names = [field.name for field in fields(batch)]
    columns = [getattr(batch, name).split(sizes) for name in names]
    return [Batch(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _windows(
    data: Dataset, ids: Tensor, augment: Augment | None, epoch: int
) -> tuple[Tensor | None, Tensor | None]:
    """Top and left of each window; None where it is the centred one."""
    if augment is None or data.images.whole(data.size):
        return None, None
    return augment.windows(data.images.sizes[ids], data.size, ids, epoch)


def eval_batches(
    data: Dataset,
    ids: Tensor,
    *,
    batch: int,
    pad: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[Batch]:
    """The samples `ids` in order, centred, untouched; what does not fill a last batch is a smaller
    one. Pictures that are answered for whole come as they are, each batch of one size.

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
    if data.whole:
        runs = data.images.runs(ids, batch, WHOLE)
        fetched = (fetch(data, data.images.ready(some, size), size=size) for some, size in runs)
    else:
        ids = data.images.ready(ids, data.size)
        fetched = (_padded(data, ids[i : i + batch], batch, pad) for i in range(0, len(ids), batch))
    return _deliver(fetched, data, torch.device(device))


def _padded(data: Dataset, ids: Tensor, batch: int, pad: bool) -> Batch:
    """The samples `ids`, filled up to a whole batch where that is wanted."""
    if not pad or len(ids) == batch:
        return fetch(data, ids)
    filled = fetch(data, torch.cat([ids, ids[-1:].expand(batch - len(ids))]))
    return replace(filled, valid=torch.arange(batch, device=ids.device) < len(ids))
