"""How well outlines agree: boundary pixels of two label maps, matched. Floor 1, room metrics.

Imports floor 0, NumPy and torch. All is whole numbers, so every device finds the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog.records import VOID

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["boundary_counts", "boundary_f"]

_BITS = 31
"""Classes whose boundaries are carried side by side in one int32, the sign left out."""


def boundary_counts(truth: Tensor, answers: Tensor, size: int) -> Tensor:
    """Boundary pixels of each class and those among them that meet their like: B×K×4.

    A pixel is on the boundary when one of its four neighbours inside the picture has another class.
    The frame of the picture is no boundary. Void is none either: neither a void pixel nor a void
    neighbour counts, and the answer is void wherever the truth is. A boundary pixel is met when the
    other map has a boundary pixel of the same class nearer than 0.75 % of the picture's diagonal
    (Euclidean, between centres).

    Args:
        truth: class indices, B×H×W, uint8; `VOID` where there is no label.
        answers: class indices in the same form.
        size: K classes.

    Returns:
        int64: boundary pixels of the truth, those of them that are met, boundary pixels of the
        answer, those of them that are met.
    """
    blank = truth == VOID
    edges = _edges(truth), _edges(answers.masked_fill(blank, VOID))
    met = [torch.zeros_like(blank) for _ in edges]
    reach = _reach(*truth.shape[-2:])
    for first in range(0, size, _BITS):
        places = [edge.to(torch.int32) - first for edge in edges]
        inside = [(place >= 0) & (place < _BITS) for place in places]
        shifts = [place.clamp(0, _BITS - 1) for place in places]
        bits = [flag.to(torch.int32) << shift for flag, shift in zip(inside, shifts, strict=True)]
        for own, other in ((0, 1), (1, 0)):
            near = _dilated(bits[other], reach) >> shifts[own]
            met[own] |= inside[own] & ((near & 1) == 1)
    counts = [_count(edge, hit, size) for edge, hit in zip(edges, met, strict=True)]
    return torch.cat(counts, dim=2)


def boundary_f(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The boundary F-score of each picture, N; NaN for a picture without a boundary.

    Per class F1 = 2PR / (P + R), with P the share of the answer's boundary pixels that are met and
    R that of the truth's; 0 where only one of the two has a boundary. It is averaged over the
    classes that have a boundary in the truth or in the answer (Csurka, Larlus and Perronnin 2013,
    "What is a good evaluation measure for semantic segmentation?", BMVC).

    Args:
        counts: N×K×4, as `boundary_counts` gives them.

    >>> # Class 0: R = 3/4, P = 1/2; class 1 was answered only; class 2 has no boundary.
    >>> counts = np.array([[[4, 3, 10, 5], [0, 0, 7, 0], [0, 0, 0, 0]]], float)
    >>> [round(float(one), 6) for one in boundary_f(counts)]  # (0.6 + 0) / 2
    [0.3]
    """
    true, found, answered, right = np.moveaxis(counts, -1, 0)
    # 2PR / (P + R), multiplied by |truth| · |answer|, so that nothing is divided by 0.
    bottom = right * true + found * answered
    f1 = 2 * found * right / np.where(bottom > 0, bottom, 1)
    present = (true + answered) > 0
    total = present.sum(axis=-1)
    result: NDArray[np.float64] = np.full(total.shape, np.nan)
    np.divide((f1 * present).sum(axis=-1), total, out=result, where=total > 0)
    return result


def _edges(labels: Tensor) -> Tensor:
    """The labels at boundary pixels, `VOID` elsewhere."""
    edge = torch.zeros_like(labels, dtype=torch.bool)
    known = labels != VOID
    for axis in (1, 2):
        after, before = slice(1, None), slice(None, -1)
        lower, upper = ((slice(None),) * axis + (part,) for part in (after, before))
        differ = (labels[lower] != labels[upper]) & known[lower] & known[upper]
        edge[lower] |= differ
        edge[upper] |= differ
    return labels.masked_fill(~edge, VOID)


def _reach(height: int, width: int) -> list[int]:
    """How far to the side a disc reaches, at 0, 1, 2, … rows from its centre.

    Of whole numbers dx² + dy² below (0.0075 · diagonal)² = 9 (H² + W²) / 160000.

    >>> _reach(360, 480)  # 4.5 pixels
    [4, 4, 4, 3, 2]
    >>> _reach(240, 320)  # 3 pixels, themselves too far
    [2, 2, 2]
    """
    largest = (9 * (height * height + width * width) - 1) // 160_000
    return [math.isqrt(largest - row * row) for row in range(math.isqrt(largest) + 1)]


def _dilated(bits: Tensor, reach: list[int]) -> Tensor:
    """Each pixel's bits spread over a disc: a union of runs, each moved up and down.

    Runs grow by one pixel to each side a step, so the work grows with the radius, not its square.
    """
    result, run = torch.zeros_like(bits), bits.clone()
    for side in range(reach[0] + 1):
        if side:
            run[:, :, side:] |= bits[:, :, :-side]
            run[:, :, :-side] |= bits[:, :, side:]
        for row, wide in enumerate(reach):
            if wide != side:
                continue
            if row:
                result[:, row:] |= run[:, :-row]
                result[:, :-row] |= run[:, row:]
            else:
                result |= run
    return result


def _count(edges: Tensor, met: Tensor, size: int) -> Tensor:
    """Boundary pixels of each class, and those that are met: B×K×2."""
    rows = torch.arange(len(edges), device=edges.device)[:, None, None] * (VOID + 1)
    index = (rows + edges) * 2 + met
    found = torch.bincount(index.flatten(), minlength=len(edges) * (VOID + 1) * 2)
    missed, hit = found.view(len(edges), VOID + 1, 2)[:, :size].unbind(dim=2)
    return torch.stack((missed + hit, hit), dim=2)
