"""A data set that lives where the arithmetic is. Floor 1, room data; imports this room and torch.

Bytes that are on the accelerator already need not be copied in every epoch, and a batch of them is
a few operations that the host only has to queue: it never waits for an answer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, final

import torch

from neocog.data.images import Images

if TYPE_CHECKING:
    from torch import Tensor

    from neocog.data.dataset import Dataset

__all__ = ["ResidentImages", "resident", "send"]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; the host does not wait for a copy to a CUDA device."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # Only from pinned memory is a copy asynchronous.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@final
class ResidentImages(Images):
    """Pictures whose bytes are on a device, and whose windows are gathered there.

    Args:
        images: on the host; shares its memory for `picture`.
        device: where the bytes are copied to, once.
    """

    def __init__(self, images: Images, device: torch.device) -> None:
        super().__init__(images._flat, images.sizes.numpy(), images.channels)
        self._bytes = torch.from_numpy(self._flat).to(device)
        self._offsets = torch.from_numpy(self._starts).to(device)
        self.sizes = self.sizes.to(device)

    def ready(self, ids: Tensor, size: tuple[int, ...]) -> Tensor:
        """Check ids on the host, for centred windows of `size`, and copy them to the pixels.

        Raises:
            IndexError: an id outside 0…N−1.
            ValueError: a picture smaller than `size`.
        """
        self._windows_inside(ids, size, None, None)
        return send(ids, self.sizes.device)

    def gather(
        self,
        ids: Tensor,
        size: tuple[int, ...],
        tops: Tensor | None = None,
        lefts: Tensor | None = None,
    ) -> Tensor:
        """A window of each of some pictures, byte for byte as `Images.gather` gives it.

        Ids on the host are checked and copied. Ids on the device cannot be read without waiting
        for it: they are to come from `ready`, and tops and lefts from `Augment.windows`, which
        leaves no picture that has room for a centred window.

        Args:
            ids: B, int64; may repeat.
            size: height and width of the windows.
            tops: B, int64, where the ids are: first row of each window; None: centred.
            lefts: B, int64, where the ids are: first column of each window; None: centred.

        Returns:
            B×C×h×w, uint8, in channels-last memory, on the device; signals and volumes as
            `Images.gather` gives them.

        Raises:
            IndexError: an id on the host outside 0…N−1.
            ValueError: ids on the host, and a window that leaves its picture.
        """
        device = self.sizes.device
        if ids.device.type == "cpu":
            self._windows_inside(ids, size, tops, lefts)
            ids = send(ids, device)
            tops = None if tops is None else send(tops, device)
            lefts = None if lefts is None else send(lefts, device)
        if self.whole(size):
            stack = self._bytes.view(len(self), math.prod(size) * self.channels)
            taken = stack.index_select(0, ids)
        else:
            height, width = size
            heights, widths = self.sizes.index_select(0, ids).unbind(1)
            top = (heights - height) // 2 if tops is None else tops
            left = (widths - width) // 2 if lefts is None else lefts
            first = self._offsets.index_select(0, ids) + (top * widths + left) * self.channels
            down = torch.arange(height, device=device) * (widths * self.channels)[:, None]
            # Row i is the run of bytes that begins at byte i: overlapping, never written to.
            run = width * self.channels
            runs = self._bytes.as_strided((max(0, len(self._bytes) - run + 1), run), (1, 1))
            taken = runs.index_select(0, (first[:, None] + down).view(-1))
        return self._batch(taken, len(ids), size)


def resident(data: Dataset, device: torch.device, *, share: float = 0.5) -> Dataset:
    """The data set on a CUDA device where it fits there, else as it is.

    Pixels, masks, targets and weights move; ids of the splits stay on the host. Batches of the
    result are those of `data`, bit for bit.

    Args:
        data: on the host; it stays as it is.
        device: where the batches will go.
        share: how much of the memory that is free on the device it may take.
    """
    if device.type != "cuda":
        return data
    needed = data.images.nbytes + data.targets.nbytes + data.weights.nbytes
    needed += 0 if data.masks is None else data.masks.nbytes
    free, _ = torch.cuda.mem_get_info(device)
    return _moved(data, device) if needed <= share * free else data


def _moved(data: Dataset, device: torch.device) -> Dataset:
    """The data set on a device, whichever and whether or not it fits."""
    return replace(
        data,
        images=ResidentImages(data.images, device),
        masks=None if data.masks is None else ResidentImages(data.masks, device),
        targets=data.targets.to(device),
        weights=data.weights.to(device),
    )
