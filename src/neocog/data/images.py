"""Packed pictures, and batches of windows out of them. Floor 1, room data; NumPy and torch.

Pictures lie one after the other in one flat run of bytes, H×W×C each, all of one size or each of
its own. A window of h×w pixels is h runs of w·C bytes; `gather` computes where every run begins and
copies them in one call, without a step of Python per picture. Signals (L×C) and volumes (D×H×W×C)
lie the same way, in a type of `records.FULL_SCALE`; they share one size and are gathered whole.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neocog.geometry import noun, size_text
from neocog.records import FULL_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Images"]


class Images:
    """N pictures, uint8, with 1 or 3 channels; or signals or volumes.

    Args:
        flat: all bytes, one picture after the other; may be memory-mapped (copy on write).
        sizes: N×2, int64: height and width of each; N×1 for signals, N×3 for volumes.
        channels: 1 or 3; any number for signals and volumes.

    Raises:
        ValueError: the sizes do not account for the bytes, or those of signals or volumes differ.
    """

    def __init__(self, flat: NDArray[Any], sizes: NDArray[np.int64], channels: int) -> None:
        lengths = sizes.prod(axis=1) * channels
        total = int(lengths.sum())
        kinds = ("uint8",) if sizes.shape[1] == 2 else FULL_SCALE
        if flat.ndim != 1 or flat.dtype.name not in kinds or len(flat) != total:
            raise ValueError(f"expected {total} bytes for these sizes, found {flat.shape}")
        self._flat = np.asarray(flat)  # a plain view, also of a memory map
        self._starts = np.cumsum(lengths) - lengths
        self._heights = np.ascontiguousarray(sizes[:, 0])
        self._widths = np.ascontiguousarray(sizes[:, -1])
        self.channels = channels
        """1 or 3; any number for signals and volumes."""
        self.uniform = bool(len(sizes) > 0 and (sizes == sizes[0]).all())
        """Whether all pictures share one size."""
        if sizes.shape[1] != 2 and not self.uniform:
            raise ValueError("expected signals or volumes of one size")
        self._size = tuple(sizes[0].tolist()) if self.uniform else ()
        self.full = FULL_SCALE[flat.dtype.name]
        """The number that is 1."""
        self.nbytes = flat.nbytes
        """Bytes of all pictures."""
        self.sizes = torch.from_numpy(np.ascontiguousarray(sizes))
        """N×2, int64: height and width of each picture; N×1 for signals, N×3 for volumes."""
        self._stack = None
        if self.uniform:
            shape = (len(sizes), int(lengths[0]))
            self._stack = torch.from_numpy(np.asarray(flat).reshape(shape))

    @classmethod
    def of(cls, pictures: NDArray[Any]) -> Images:
        """From an array N×H×W×C, N×L×C or N×D×H×W×C; not copied where it is contiguous.

        >>> Images.of(np.zeros((5, 8, 6, 3), np.uint8)).gather(torch.tensor([4, 0]), (8, 6)).shape
        torch.Size([2, 3, 8, 6])
        """
        count, *size, channels = pictures.shape
        sizes = np.tile(np.array(size, np.int64), (count, 1))
        return cls(np.ascontiguousarray(pictures).reshape(-1), sizes, channels)

    def __len__(self) -> int:
        return len(self._starts)

    def __repr__(self) -> str:
        if self.uniform:
            shape = f"{size_text(self._size)}×{self.channels}"
        else:
            shape = f"sizes differ, {self.channels} channel(s)"
        return f"<Images: {len(self):,}, {shape}>"

    def picture(self, index: int) -> NDArray[Any]:
        """One picture as it is stored: H×W×C, uint8, a copy; or one signal or volume."""
        start, size = int(self._starts[index]), self.sizes[index].tolist()
        shape = (*size, self.channels)
        return np.array(self._flat[start : start + int(np.prod(shape))]).reshape(shape)

    def whole(self, size: tuple[int, ...]) -> bool:
        """Whether every picture has just this height and width, and so no window but itself."""
        return self.uniform and self._size == size

    def runs(self, ids: Tensor, most: int, pixels: int) -> list[tuple[Tensor, tuple[int, ...]]]:
        """The ids in order, cut into runs of pictures of one size, and the size of each run.

        Args:
            ids: N, int64, on the host.
            most: pictures in a run, at most.
            pixels: H·W over a run, at most, but for a run of one picture.
        """
        rows = ids.numpy()
        heights, widths = self._heights[rows], self._widths[rows]
        other = (np.diff(heights) != 0) | (np.diff(widths) != 0)
        edges = [0, *(np.flatnonzero(other) + 1).tolist(), len(rows)]
        found: list[tuple[Tensor, tuple[int, ...]]] = []
        for first, end in itertools.pairwise(edges):
            if first == end:
                continue
            size = (int(heights[first]), int(widths[first]))
            step = max(1, min(most, pixels // max(1, math.prod(size))))
            found += [(ids[at : min(at + step, end)], size) for at in range(first, end, step)]
        return found

    def ready(self, ids: Tensor, size: tuple[int, ...]) -> Tensor:
        """Ids for the windows of `size` to come, on the device of the pixels; here as they are.

        Args:
            ids: N, int64, on the host.
            size: height and width of the windows.
        """
        return ids

    def gather(
        self,
        ids: Tensor,
        size: tuple[int, ...],
        tops: Tensor | None = None,
        lefts: Tensor | None = None,
    ) -> Tensor:
        """A window of each of some pictures, or all of some signals or volumes.

        Args:
            ids: B, int64; may repeat.
            size: height and width of the windows; the whole size of signals and volumes.
            tops: B, int64, first row of each window; None: centred, as `layers.Fit` does.
            lefts: B, int64, first column of each window; None: centred.

        Returns:
            B×C×h×w, uint8, in channels-last memory. Signals B×C×L and volumes B×C×D×H×W are
            contiguous, in the type that they are stored in.

        Raises:
            IndexError: an id outside 0…N−1.
            ValueError: a window that leaves its picture.
        """
        rows, top, left = self._windows_inside(ids, size, tops, lefts)
        if self._stack is not None and self.whole(size):
            taken = self._stack.index_select(0, ids)
        else:
            taken = torch.from_numpy(self._windows(rows, top, left, size))
        return self._batch(taken, len(rows), size)

    def _batch(self, taken: Tensor, count: int, size: tuple[int, ...]) -> Tensor:
        """What was taken, samples with the channels last, as `gather` returns it."""
        batch = taken.view(count, *size, self.channels).movedim(-1, 1)
        return batch if len(size) == 2 else batch.contiguous()

    def _windows_inside(
        self, ids: Tensor, size: tuple[int, ...], tops: Tensor | None, lefts: Tensor | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Id, first row and first column of each window, B each; the errors are `gather`'s."""
        rows = ids.numpy()
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"expected ids in 0…{len(self) - 1}, got {rows.min()}…{rows.max()}")
        if self.sizes.shape[1] != 2:
            if not self.whole(size):
                have = size_text(self._size)
                raise ValueError(f"expected {noun(self._size)}s of {have}, got {size_text(size)}")
            return rows, np.zeros_like(rows), np.zeros_like(rows)
        height, width = size
        heights, widths = self._heights[rows], self._widths[rows]
        top = (heights - height) // 2 if tops is None else tops.numpy()
        left = (widths - width) // 2 if lefts is None else lefts.numpy()
        inside = (top >= 0) & (left >= 0) & (top + height <= heights) & (left + width <= widths)
        if not inside.all():
            bad = int(np.argmin(inside))
            raise ValueError(
                f"expected a window inside picture {rows[bad]} of {heights[bad]}×{widths[bad]}, "
                f"got {height}×{width} from row {top[bad]}, column {left[bad]}"
            )
        return rows, top, left

    def _windows(
        self,
        rows: NDArray[np.int64],
        top: NDArray[np.int64],
        left: NDArray[np.int64],
        size: tuple[int, ...],
    ) -> NDArray[np.uint8]:
        """(B·h)×(w·C) bytes: every row of every window is one run of the flat bytes."""
        height, run, widths = size[0], size[1] * self.channels, self._widths[rows]
        first = self._starts[rows] + (top * widths + left) * self.channels
        starts = first[:, None] + np.arange(height) * (widths * self.channels)[:, None]
        # A view whose row i is the run that begins at byte i: overlapping, never written to. NumPy
        # copies each run with one memcpy; torch's index_select takes eight times as long on it.
        runs = np.lib.stride_tricks.as_strided(
            self._flat, (max(0, len(self._flat) - run + 1), run), (1, 1), writeable=False
        )
        return np.asarray(runs[starts.reshape(-1)])
