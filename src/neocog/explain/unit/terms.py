"""One number of a network, and the numbers that it is made of. Floor 1, explain; imports NumPy.

A *unit* is one element of a tensor; a *step* is the operation that computed it, written out as
terms: what was read × its factor. Terms are float64; the value is what the network computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    Flat = NDArray[np.int64]
    Numbers = NDArray[np.float64]

__all__ = ["TOLERANCE", "Step", "Term", "Terms", "Unit"]

TOLERANCE = 1e-5
"""A step agrees when its sum is this close to the value, times max(1, Σ |terms|): the sum of n
numbers in single precision is off by up to n · 6e-8 of it (Higham 2002, section 4.2)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One element of a tensor."""

    value: int
    """The tensor: a value of the graph."""
    index: tuple[int, ...]
    """Along all its axes, the batch first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One product."""

    part: int
    """The group of terms that it belongs to: a place in `Step.terms`."""
    at: tuple[int, ...]
    """Its place in the group: channel, row and column of the kernel."""
    read: float
    """What was read."""
    factor: float
    """What it was multiplied by."""
    source: Unit | None
    """Where it was read; None for padding, and for numbers that are no tensor's."""
    other: Unit | None
    """Where the factor was read; None where it was worked out."""

    @property
    def product(self) -> float:
        """What it adds."""
        return self.read * self.factor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """Terms of one kind, in an array of any shape S."""

    label: str
    """`input × kernel`, `bias`."""
    read: Numbers
    """S: what was read; 0 in padding."""
    factors: Numbers
    """S: what it is multiplied by."""
    source: int = -1
    """The value that was read; −1: no tensor."""
    shape: tuple[int, ...] = ()
    """Of that value."""
    places: Flat | None = None
    """S: where in that value, in row-major order; −1 in padding."""
    other: int = -1
    """The value of the factors; −1: they were worked out."""
    other_shape: tuple[int, ...] = ()
    """Of that value."""
    other_places: Flat | None = None
    """S: where in that value."""

    @property
    def products(self) -> Numbers:
        """S: what each adds."""
        found: Numbers = self.read * self.factors
        return found

    def term(self, part: int, at: Sequence[int]) -> Term:
        """One of them."""
        place = tuple(int(one) for one in at)
        return Term(
            part=part,
            at=place,
            read=float(self.read[place]),
            factor=float(self.factors[place]),
            source=_unit(self.source, self.shape, self.places, place),
            other=_unit(self.other, self.other_shape, self.other_places, place),
        )


def _unit(
    value: int, shape: tuple[int, ...], places: Flat | None, at: tuple[int, ...]
) -> Unit | None:
    if value < 0 or places is None or places[at] < 0:
        return None
    return Unit(value, tuple(int(one) for one in np.unravel_index(int(places[at]), shape)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """How one number came about."""

    unit: Unit
    """The number."""
    node: int
    """The operation: a node of the graph."""
    op: str
    """Its name in PyTorch's operator library."""
    layer: str
    """The run of a module that it belongs to: `layer1.0.conv1`, `relu#2`."""
    words: str
    """The operation in words: `convolution 3×3, stride 2`."""
    formula: str
    """How the terms make the value: `Σ x · w + b`."""
    value: float
    """What the network computed."""
    total: float
    """The same in float64: the sum of the terms, or the formula's."""
    kind: Literal["sum", "formula", "gradient"]
    """`sum`: the terms add up to the value. `formula`: the value is worked out from what the terms
    read, whose factors are its slopes. `gradient`: nobody has written this operation out; the
    factors are its slopes, and the last term is what is left."""
    terms: tuple[Terms, ...]
    """Groups of terms."""
    numbers: tuple[tuple[str, float], ...]
    """Numbers on the way: mean and variance, the sum below a fraction."""
    onward: Unit | None
    """The one number that it came from, where there is only one; the chain goes on with it."""

    @property
    def gap(self) -> float:
        """How far the sum is from the value."""
        if np.isfinite(self.value) and np.isfinite(self.total):
            return abs(self.total - self.value)
        return 0.0 if np.array_equal(self.total, self.value, equal_nan=True) else float("inf")

    @property
    def scale(self) -> float:
        """Σ |terms|, at least 1."""
        whole = sum(float(np.abs(one.products).sum()) for one in self.terms)
        return max(1.0, whole) if np.isfinite(whole) else 1.0

    @property
    def agrees(self) -> bool:
        """Whether the arithmetic gives what the network computed."""
        return self.gap <= TOLERANCE * self.scale

    def strongest(self, count: int = 1, among: Collection[int] | None = None) -> list[Term]:
        """The terms that were read somewhere and add most, in absolute size, the first first.

        Args:
            count: how many at most.
            among: the groups to take them from; None: all.
        """
        sizes, parts, places = [], [], []
        for part, one in enumerate(self.terms):
            if one.places is not None and (among is None or part in among):
                size = np.where(one.places >= 0, np.nan_to_num(np.abs(one.products)), -1.0).ravel()
                sizes.append(size)
                parts.append(np.full(size.size, part))
                places.append(np.arange(size.size))
        if not sizes:
            return []
        flat, part_of, place_of = (np.concatenate(one) for one in (sizes, parts, places))
        order = np.argsort(-flat, kind="stable")[:count]
        order = order[flat[order] >= 0]
        return [
            self.terms[part].term(part, np.unravel_index(place, self.terms[part].read.shape))
            for part, place in zip(part_of[order].tolist(), place_of[order].tolist(), strict=True)
        ]
