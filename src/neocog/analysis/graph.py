"""What ran: the operations of a network, and what flowed between them. Floor 1, room analysis.

A `Graph` is written once, by running the network (`trace`), and read by everything that wants to
know something about it: shapes, parameters, work, receptive fields, memory, time, drawings.
Standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Call", "Graph", "Node", "Ref", "Value", "refs"]


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a tensor among a node's arguments."""

    value: int
    """Index into `Graph.values`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor, at one moment: writing into it makes another value."""

    index: int
    """Its place in `Graph.values`."""
    shape: tuple[int, ...]
    """Its axes."""
    dtype: str
    """`float32`, `bfloat16`, `int64`, …"""
    itemsize: int
    """Bytes of one element."""
    strides: tuple[int, ...]
    """In elements."""
    offset: int
    """Of its first element in its storage, in elements."""
    storage: int
    """Values with one storage are views of one another."""
    kind: Literal["input", "parameter", "buffer", "constant", "result"]
    """Where it comes from."""
    name: str = ""
    """The parameter's or buffer's name, the first where it has several; the input's position."""

    @property
    def elements(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes up."""
        return self.elements * self.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation that ran."""

    index: int
    """Its place in `Graph.nodes`: the order of running."""
    op: str
    """Its name in PyTorch's operator library, without namespace `aten` and without overload:
    `convolution`, `add`, `max_pool2d_with_indices`."""
    overload: str
    """`default`, `Tensor`, `Scalar`, …"""
    args: tuple[Any, ...]
    """Positional arguments; tensors are `Ref`s."""
    kwargs: Mapping[str, Any]
    """Keyword arguments; tensors are `Ref`s."""
    inputs: tuple[int, ...]
    """Values read, in the order of the arguments."""
    outputs: tuple[int, ...]
    """Values made."""
    call: int
    """The module call that it belongs to: an index into `Graph.calls`."""
    source: str
    """`file.py:37`, the innermost line of code outside PyTorch."""
    view: bool
    """It only looks at its input in another way: no bytes move."""
    pointwise: bool
    """Every element of the answer depends on the elements at its own position."""
    writes: tuple[int, ...] = ()
    """Of the inputs, those that it changed in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One run of a module's forward."""

    index: int
    """Its place in `Graph.calls`; 0 is the whole network."""
    path: str
    """`layer1.0.conv1`; empty for the network itself. For shared modules the first name."""
    type: str
    """The class: `Conv2d`."""
    parent: int
    """The call that called; −1 for the network."""
    repeat: int
    """0 for the first run of this module, 1 for the second, …"""
    leaf: bool
    """A layer of its own: it has no children, or is one of torch.nn that people see as one."""
    extra: str
    """The layer's own words about itself: `3, 64, kernel_size=(7, 7), stride=(2, 2)`."""
    inputs: tuple[int, ...] = ()
    """Values that it was called with."""
    outputs: tuple[int, ...] = ()
    """Values that it returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A network as it ran once."""

    nodes: tuple[Node, ...]
    """In the order of running."""
    values: tuple[Value, ...]
    """All tensors."""
    calls: tuple[Call, ...]
    """All runs of modules, in the order of starting."""
    inputs: tuple[int, ...]
    """Values that were given."""
    outputs: tuple[int, ...]
    """Values that came out."""
    parameters: Mapping[str, tuple[int, ...]]
    """Shapes of the distinct parameters of the network, also of those that nothing used."""
    owners: Mapping[str, tuple[str, ...]]
    """Parameter → the paths of all modules that hold it."""
    buffers: Mapping[str, int]
    """Bytes of the distinct buffers."""

    @property
    def parameter_count(self) -> int:
        """Numbers to learn; shared ones once: `sum(p.numel() for p in module.parameters())`."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    def producers(self) -> dict[int, int]:
        """Value → the node that made it."""
        return {value: node.index for node in self.nodes for value in node.outputs}


def refs(argument: Any) -> Iterator[int]:
    """The values that an argument refers to.

    >>> list(refs([Ref(3), (None, Ref(5))]))
    [3, 5]
    """
    if isinstance(argument, Ref):
        yield argument.value
    elif isinstance(argument, tuple | list):
        for part in argument:
            yield from refs(part)
