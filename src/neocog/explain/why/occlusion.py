"""What the answer loses when a square of the picture is hidden. Floor 1, explain.

Imports floor 0, torch, and `analysis`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neocog.errors import ConfigError
from neocog.explain.why.attribution import Attribution
from neocog.explain.why.fills import filling
from neocog.explain.why.probe import fitting, parts, probing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from neocog.explain.why.fills import Fill
    from neocog.explain.why.target import Target

__all__ = ["Grid", "occlusion"]


def occlusion(
    module: nn.Module,
    x: Tensor,
    target: Target,
    *,
    side: int | None = None,
    stride: int | None = None,
    fill: Fill = 0.0,
    batch: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """How much the answer drops when a square is hidden: for each pixel the mean over its squares.

    Zeiler, Fergus 2014, "Visualizing and understanding convolutional networks", arXiv 1311.2901.
    Needs no gradient. Above zero the square spoke for the answer, below zero against it. Held at a
    time: `batch` pictures with their activations.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        side: of the squares, in pixels; an eighth of the shorter side if left out.
        stride: from square to square; half a side if left out. The last ones are cut off at the
            picture's edge.
        fill: what the squares are filled with; 0 is the mean colour after the usual normalisation.
        batch: squares in a pass.
        seed: of what the network draws, if it does.
        progress: told how many passes of a picture are done.

    Returns:
        B×1×H×W, in units of the answer.
    """
    values, answers = [], []
    with probing(module, x, target, seed) as probe:
        height, width = x.shape[2:]
        side = max(1, round(min(height, width) / 8)) if side is None else side
        grid = Grid.over((height, width), side, max(1, side // 2) if stride is None else stride)
        hidden = filling(probe.x, fill)
        for row, picture in enumerate(probe.x):
            answer = probe.answer(picture[None], probe.rows(row, 1))
            total = torch.zeros(height, width, dtype=torch.float64)
            for part in parts(grid.count, fitting(x, batch)):
                masks = grid.masks(part)
                given = torch.where(masks[:, None].to(picture.device), hidden[row], picture)
                drop = answer - probe.answer(given, probe.rows(row, len(given)))
                total += torch.einsum("n,nhw->hw", drop, masks.double())
                if progress is not None:
                    progress(row * grid.count + part.stop, len(probe.x) * grid.count)
            values.append((total / grid.covers())[None].to(probe.x.dtype))
            answers.append(answer)
    return Attribution(method="occlusion", values=torch.stack(values), answer=torch.cat(answers))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Squares that cover a picture, row by row; the last ones are cut off at its edge."""

    rows: Tensor
    """R×H of truth values: the pixels of each row of squares."""
    columns: Tensor
    """C×W of truth values: the pixels of each column of squares."""

    @classmethod
    def over(cls, size: Sequence[int], side: int, stride: int) -> Grid:
        """Squares on a picture H×W.

        Raises:
            ConfigError: a stride above the side would leave pixels out; a square is larger than
                the picture.
        """
        if not 1 <= stride <= side <= max(size):
            raise ConfigError(
                f"expected 1 ≤ stride ≤ side ≤ {max(size)}, found side {side} and stride {stride}",
                "squares touch or overlap, and are no larger than the picture",
            )
        bands = []
        for length in size:
            count = max(0, math.ceil((length - side) / stride)) + 1
            starts = torch.arange(count)[:, None] * stride
            at = torch.arange(length)
            bands.append((at >= starts) & (at < starts + side))
        return cls(rows=bands[0], columns=bands[1])

    @property
    def count(self) -> int:
        """How many squares."""
        return len(self.rows) * len(self.columns)

    def masks(self, part: slice) -> Tensor:
        """Some of the squares, N×H×W of truth values.

        >>> Grid.over((2, 4), 2, 2).masks(slice(1, 2)).int().tolist()
        [[[0, 0, 1, 1], [0, 0, 1, 1]]]
        """
        index = torch.arange(self.count)[part]
        row, column = index // len(self.columns), index % len(self.columns)
        return self.rows[row][:, :, None] & self.columns[column][:, None, :]

    def covers(self) -> Tensor:
        """How many squares each pixel lies in, H×W."""
        return torch.outer(self.rows.sum(0), self.columns.sum(0))
