"""Does accuracy depend on how a picture is: dark, pale, blurred, small? Floor 1, room metrics.

Imports floor 0 and NumPy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.metrics.intervals import CELLS, generator, wilson
from neocog.metrics.paired import holm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from neocog.records import Interval

    Floats = NDArray[np.float64]

__all__ = ["BINS", "ENDS", "Bin", "Property", "by_property", "looks", "shapes"]

BINS = 5
"""Groups of about equal size that the samples are sorted into."""
LEAST = 10
"""Samples in a group, at least: fewer groups where there are few samples."""
DRAWS = 9999
"""Shuffles of right and wrong among the groups."""
ENDS = {
    "brightness": ("dark", "bright"),
    "contrast": ("pale", "rich in contrast"),
    "sharpness": ("blurred", "sharp"),
    "pixels": ("small", "large"),
    "aspect": ("tall", "wide"),
    "bytes": ("of small files", "of large files"),
}
"""What pictures with little and with much of a property are."""
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Samples with about as much of a property."""

    low: float
    """The least value among them."""
    high: float
    """The largest value among them."""
    right: Interval
    """The share that is answered rightly, with Wilson's interval; n counts samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """Accuracy by one property."""

    name: str
    """`brightness`, …"""
    bins: tuple[Bin, ...]
    """From little of it to much."""
    p: float
    """How often shuffling right and wrong among all samples parts the groups as far as they are."""
    adjusted: float
    """The same, raised for the number of properties that were looked at (Holm)."""

    @property
    def lowest(self) -> int:
        """The place of the bin with the lowest accuracy, the first of equals."""
        return min(range(len(self.bins)), key=lambda i: self.bins[i].right.value)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def by_property(values: Mapping[str, ArrayLike], right: ArrayLike) -> list[Property]:
    """Accuracy by each of some properties, those first that chance explains least.

    Samples are sorted into at most five groups by quantiles; equal values stay together, and a
    property that all samples share, or all but a few, is left out. Whether the groups differ by
    more than chance is told by Pearson's χ² of groups × right and wrong, against shuffles with the
    same margins: exact up to the number of shuffles, however few mistakes there are. A search
    through several properties finds something by luck, so p-values are raised by Holm's method;
    even then a property may only stand for something else, such as the class that is dark.

    Args:
        values: property → N numbers; NaN where it is not known.
        right: N flags.

    Raises:
        ValueError: lengths differ.
    """
    flags = np.asarray(right, np.bool_)
    found = []
    for name, given in values.items():
        numbers = np.asarray(given, np.float64)
        if numbers.shape != flags.shape or flags.ndim != 1:
            raise ValueError(
                f"expected {name} of as many samples as answers, found {numbers.shape} and "
                f"{flags.shape}"
            )
        known = np.isfinite(numbers)
        groups = _groups(numbers[known])
        if len(groups) > 1:
            found.append((name, numbers[known], flags[known], groups))
    chances = [_chance(name, flags, groups) for name, _, flags, groups in found]
    properties = [
        Property(
            name=name,
            bins=tuple(_bin(numbers[group], flags[group]) for group in groups),
            p=p,
            adjusted=adjusted,
        )
        for (name, numbers, flags, groups), p, adjusted in zip(
            found, chances, holm(chances), strict=True
        )
    ]
    return sorted(properties, key=lambda one: one.p)


def _groups(numbers: Floats) -> list[NDArray[np.int64]]:
    """Places of the samples of each group, from little to much."""
    order = np.argsort(numbers, kind="stable")
    count = min(BINS, len(order) // LEAST)
    if count < 2:
        return []
    ordered = numbers[order]
    # An edge within a run of equal values moves to where the run begins.
    edges = {int(np.searchsorted(ordered, ordered[i * len(order) // count])) for i in range(count)}
    cuts = [0]
    for edge in sorted(edges | {0}):
        if edge - cuts[-1] >= LEAST and len(order) - edge >= LEAST:
            cuts.append(edge)
    return [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]


def _bin(numbers: Floats, flags: NDArray[np.bool_]) -> Bin:
    return Bin(
        low=float(numbers.min()),
        high=float(numbers.max()),
        right=wilson(int(flags.sum()), len(flags)),
    )


def _chance(name: str, flags: NDArray[np.bool_], groups: list[NDArray[np.int64]]) -> float:
    """p of the χ² statistic, by shuffles; the seen one counts as one of them."""
    sizes = np.array([len(group) for group in groups])
    wrong = np.array([int((~flags[group]).sum()) for group in groups])
    total = int(wrong.sum())
    if total in (0, int(sizes.sum())):
        return 1.0
    drawn = generator(f"property {name}").multivariate_hypergeometric(
        sizes, total, size=DRAWS, method="marginals"
    )
    expected = sizes * (total / sizes.sum())
    # With fixed margins χ² is this times a constant.
    spread, seen = ((np.square(one - expected) / sizes).sum(axis=-1) for one in (drawn, wrong))
    return float(1 + (spread >= seen * (1 - 1e-12)).sum()) / (DRAWS + 1)


def looks(pictures: NDArray[np.uint8]) -> dict[str, Floats]:
    """What pictures look like, B numbers each.

    Of their luma (Rec. 601: 0.299 R + 0.587 G + 0.114 B) in 0…1: `brightness` is the mean,
    `contrast` the standard deviation, `sharpness` the variance of the Laplacian (0 1 0; 1 −4 1;
    0 1 0) inside the picture (Pech-Pacheco et al. 2000), NaN below 3×3 pixels. Sharpness depends on
    the size of a picture: compare pictures of one size.

    Args:
        pictures: B×H×W×C, C 1 or 3, uint8.

    Raises:
        ValueError: other shapes or types.
    """
    if pictures.dtype != "uint8" or pictures.ndim != 4 or pictures.shape[3] not in (1, 3):
        raise ValueError(f"expected B×H×W×C uint8, found {pictures.shape} {pictures.dtype}")
    count, height, width, channels = pictures.shape
    rows = [np.empty(count) for _ in range(3)]
    step = max(1, CELLS // (4 * max(1, height * width * channels)))
    for first in range(0, count, step):
        some = slice(first, first + step)
        luma = pictures[some] @ _LUMA / 255 if channels == 3 else pictures[some, :, :, 0] / 255
        rows[0][some], rows[1][some] = luma.mean(axis=(1, 2)), luma.std(axis=(1, 2))
        if min(height, width) < 3:
            rows[2][some] = np.nan
            continue
        around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
        rows[2][some] = (around - 4 * luma[:, 1:-1, 1:-1]).var(axis=(1, 2))
    return dict(zip(("brightness", "contrast", "sharpness"), rows, strict=True))


def shapes(sizes: NDArray[np.int64]) -> dict[str, Floats]:
    """`pixels` (height · width) and `aspect` (width / height) of pictures of these sizes, N each.

    Args:
        sizes: N×2, height and width.

    >>> {name: one.tolist() for name, one in shapes(np.array([[10, 20]])).items()}
    {'pixels': [200.0], 'aspect': [2.0]}
    """
    height, width = np.asarray(sizes, np.float64).T
    return {"pixels": height * width, "aspect": width / height}
