"""What the pixels of a picture had to do with an answer. Floor 1, explain; imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Attribution"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attribution:
    """Numbers for pixels: how much they had to do with one number of the answer."""

    method: str
    """Its name in `explain.why.methods.METHODS`."""
    values: Tensor
    """B×C×H×W, or B×1×H×W where a method does not tell the channels apart."""
    answer: Tensor
    """B numbers: what is explained."""
    layer: str = ""
    """The layer whose map was weighed; empty where a method needs none."""
    difference: Tensor | None = None
    """B numbers: the answer minus that for the baseline, what the values should sum to."""
    gap: Tensor | None = None
    """B numbers: the sum of the values minus `difference`; None where a method has no such sum."""
    steps: Tensor | None = None
    """B whole numbers: gradients that were taken for each picture."""
    note: str = ""
    """What one has to know to read the values; empty where there is nothing."""

    @property
    def gap_share(self) -> Tensor | None:
        """|gap| / |difference|, B numbers; 0 where both are 0."""
        if self.gap is None or self.difference is None:
            return None
        share = self.gap.abs() / self.difference.abs()
        return torch.where(self.gap == 0, torch.zeros_like(share), share)
