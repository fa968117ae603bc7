"""An operation with its arguments, as two runs of it can be compared. Floor 1, room analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from neocog.analysis import work

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Shape", "Work", "noted", "size_of"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Stands for a tensor among the arguments of an operation."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Work:
    """An operation with its arguments: what two runs of it have in common if they cost the same."""

    op: str
    """Its name, without namespace `aten`."""
    overload: str
    """Of several of one name."""
    args: tuple[Any, ...]
    """Positional arguments; tensors are `Shape`s."""
    kwargs: tuple[tuple[str, Any], ...]
    """Keyword arguments."""
    outputs: tuple[Shape, ...]
    """What it made."""
    view: bool
    """It moves no bytes."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return work.macs(self.op, self.args, self.outputs)

    @property
    def inputs(self) -> tuple[Shape, ...]:
        """Tensors among the arguments."""
        return tuple(_shapes(self.args))

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        if self.view:
            return 0
        return sum(one.bytes for one in self.inputs) + sum(one.bytes for one in self.outputs)


def size_of(tensor: Tensor) -> int:
    """Bytes of its elements."""
    return tensor.numel() * tensor.element_size()


def noted(argument: Any) -> Any:
    """An argument as it can be compared: tensors as shapes, lists as tuples."""
    if isinstance(argument, Tensor):
        return Shape(
            tuple(argument.shape),
            tuple(argument.stride()),
            str(argument.dtype).removeprefix("torch."),
            size_of(argument),
        )
    if isinstance(argument, list | tuple):
        return tuple(noted(one) for one in argument)
    return argument


def _shapes(argument: Any) -> Iterable[Shape]:
    for one in argument:
        if isinstance(one, Shape):
            yield one
        elif isinstance(one, tuple):
            yield from _shapes(one)
