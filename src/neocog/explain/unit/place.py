"""One number of a recorded pass, and ways to read what is around it. Floor 1, explain.

Imports NumPy, torch and this room. It is what the rules (`products`, `windows`, `norms`, `moves`,
`slopes`) are given, and `Worked` is what they answer with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from neocog.analysis.graph import Ref
from neocog.explain.unit.terms import Terms, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.analysis.graph import Node
    from neocog.explain.recording import Recording

    Flat = NDArray[np.int64]
    Numbers = NDArray[np.float64]

__all__ = ["Place", "Worked", "constant", "flat"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Worked:
    """How a number came about; what the fields mean, `terms.Step` says."""

    words: str
    formula: str
    terms: tuple[Terms, ...]
    numbers: tuple[tuple[str, float], ...] = ()
    onward: Unit | None = None
    kind: Literal["sum", "formula", "gradient"] = "sum"
    total: float | None = None
    """None: the sum of the terms."""


class Place:
    """One element of what a node made."""

    def __init__(self, recording: Recording, node: Node, unit: Unit) -> None:
        self.recording = recording
        self.node = node
        self.unit = unit
        self.index = unit.index
        self.slot = node.outputs.index(unit.value)
        """Which of the node's outputs it lies in."""
        self.value = float(recording.tensors[unit.value][unit.index])
        self.op = node.op.rstrip("_")

    def given(self, position: int, otherwise: Any = None) -> Any:
        """A positional argument that is no tensor."""
        return self.node.args[position] if position < len(self.node.args) else otherwise

    def source(self, position: int) -> int:
        """The value that an argument refers to; −1 where it is no tensor."""
        argument = self.given(position)
        return argument.value if isinstance(argument, Ref) else -1

    def shape(self, value: int) -> tuple[int, ...]:
        """Of a value."""
        return self.recording.graph.values[value].shape

    def tensor(self, value: int) -> Tensor:
        """A value's numbers."""
        return self.recording.tensors[value]

    def read(self, value: int, places: Flat) -> Numbers:
        """Some of a value's numbers, 0 where the place is −1.

        Args:
            value: the tensor.
            places: S, in row-major order.
        """
        inside = places >= 0
        where = np.unravel_index(np.where(inside, places, 0).ravel(), self.shape(value))
        index = tuple(torch.from_numpy(np.ascontiguousarray(one)) for one in where)
        found = self.tensor(value)[index].double().numpy().reshape(places.shape)
        return np.where(inside, found, 0.0)

    def terms(
        self,
        label: str,
        value: int,
        places: Flat,
        factors: Numbers | float = 1.0,
        *,
        by: int = -1,
        by_places: Flat | None = None,
    ) -> Terms:
        """What was read × what it is multiplied by.

        Args:
            label: what to call them.
            value: the tensor that was read.
            places: S, where.
            factors: S, where they were worked out.
            by: the tensor of the factors, where they were read.
            by_places: S, where.
        """
        if by >= 0 and by_places is not None:
            factors = self.read(by, by_places)
        return Terms(
            label=label,
            read=self.read(value, places),
            factors=np.broadcast_to(np.asarray(factors, np.float64), places.shape),
            source=value,
            shape=self.shape(value),
            places=places,
            other=by,
            other_shape=self.shape(by) if by >= 0 else (),
            other_places=by_places,
        )

    def one(self, label: str, value: int, index: Sequence[int], factor: float = 1.0) -> Terms:
        """A single term, read at an index."""
        place = np.array([flat(self.shape(value), index)], np.int64)
        return self.terms(label, value, place, factor)

    def number(self, value: int, index: Sequence[int]) -> float:
        """One number of a tensor."""
        return float(self.tensor(value)[tuple(index)])


def flat(shape: Sequence[int], index: Sequence[int]) -> int:
    """An index as one number, row-major."""
    return int(np.ravel_multi_index(tuple(index), tuple(shape))) if len(shape) else 0


def constant(label: str, number: float) -> Terms:
    """A term that is no tensor's."""
    return Terms(label=label, read=np.array([float(number)]), factors=np.ones(1))
