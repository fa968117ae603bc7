"""Watches operations below autograd and writes them down. Floor 1, room analysis; imports torch.

Everything of the network's lives on the meta device: tensors with shapes and no memory. What does
not depend on the input or the weights (index tables, masks that a forward makes) stays real, and is
computed, until it meets the network's tensors; then a stand-in on the meta device takes its place.

What runs, and which tensors are the network's, a recorder of real numbers decides for itself
(`explain/recording.py`): `is_ours`, `run`, `add`, `rewritten`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neocog.analysis import shortcut
from neocog.analysis.graph import Node, Ref, Value, refs
from neocog.errors import NeocogError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from torch import Tensor

__all__ = ["Recorder", "TraceError", "line"]

_TORCH = str(Path(torch.__file__).parent)
_HERE = tuple(str(Path(__file__).parents[1] / room) for room in ("analysis", "explain"))
"""Rooms whose own lines are not the network's."""

_ASKS_FOR_VALUES = frozenset(
    {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2"}
    | {"unique_dim", "unique_consecutive", "nonzero_static", "allclose", "bincount"}
)
"""Operations whose answer, or whose answer's shape, depends on numbers that a trace has not."""


_POINTWISE = frozenset(
    {
        "hardswish",
        "floor_divide",
        "log_sigmoid_forward",
        "prelu",
        "_prelu_kernel",
        "masked_fill",
        "bernoulli",
    }
    | {"where", "gelu", "mish", "threshold", "abs", "native_dropout", "special_i0"}
)
"""Operations, or their in-place forms, that PyTorch forgot to mark as pointwise."""


class TraceError(NeocogError):
    """A network that cannot be understood without numbers, or that does not take its input.

    `path` is the module that was running, `source` the line, `op` the operation where it was one.
    """

    def __init__(
        self, message: str, hint: str = "", *, path: str = "", source: str = "", op: str = ""
    ) -> None:
        super().__init__(message, hint)
        self.path = path
        self.source = source
        self.op = op


def line() -> str:
    """`file.py:37`: the innermost running line outside PyTorch and these rooms, empty where the
    network is all PyTorch's."""
    # Frames are walked, not `inspect.stack`: that reads source files, for every operation.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_HERE):
            return ""
        if not name.startswith((_TORCH, "<")):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Recorder(TorchDispatchMode):
    """Records every operation that touches the network's tensors.

    Args:
        running: asks which module call is running: index into the calls, and its path.
        sources: whether to note source lines; they cost some microseconds an operation.
    """

    def __init__(self, running: Callable[[], tuple[int, str]], *, sources: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.values: list[Value] = []
        self._running = running
        self._sources = sources
        # Tensors are kept alive: they have no memory, and a freed one's id would come again.
        self._alive: list[Any] = []
        self._value_of: dict[int, int] = {}
        self._storage_of: dict[int, int] = {}
        # Storage → the values that were written into it, in order.
        self._written: dict[int, list[int]] = {}
        # Tensor → how many of these it has taken in.
        self._read_at: dict[int, int] = {}
        self._twins: dict[int, Tensor] = {}
        self._infected: set[int] = set()
        self._stand_ins: dict[int, Tensor] = {}

    # -- values ---------------------------------------------------------------------------------

    def add(self, tensor: Tensor, kind: Any, name: str = "") -> int:
        """Write a tensor down as a value and return its index."""
        storage = self._key(tensor)
        value = Value(
            index=len(self.values),
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            itemsize=tensor.element_size(),
            strides=tuple(tensor.stride()) if tensor.layout == torch.strided else (),
            offset=int(tensor.storage_offset()) if tensor.layout == torch.strided else 0,
            storage=storage,
            kind=kind,
            name=name,
        )
        self.values.append(value)
        self._value_of[id(tensor)] = value.index
        self._read_at[id(tensor)] = len(self._written.get(storage, ()))
        self._alive.append(tensor)
        return value.index

    def of(self, tensor: Tensor) -> int:
        """The value that a tensor is now; one that nobody has seen is a constant."""
        index = self._value_of.get(id(tensor))
        if index is None:
            index = self.add(tensor, "constant")
            self._read_at[id(tensor)] = 0
        writes = self._written.get(self.values[index].storage, [])
        for written in writes[self._read_at[id(tensor)] :]:
            index = self.rewritten(tensor, index, written)
        return index

    def rewritten(self, tensor: Tensor, old: int, written: int) -> int:
        """A view was written through; what else looks at the storage has changed."""
        new = self.add(tensor, "result")
        call, _ = self._running()
        self.nodes.append(
            Node(
                index=len(self.nodes),
                op="written",
                overload="default",
                args=(Ref(old), Ref(written)),
                kwargs={},
                inputs=(old, written),
                outputs=(new,),
                call=call,
                source="",
                view=True,
                pointwise=False,
            )
        )
        return new

    # -- real tensors among the network's ---------------------------------------------------------

    def _stand_in(self, tensor: Tensor) -> Tensor:
        """A tensor on the meta device that takes a real one's place, views included."""
        if id(tensor) in self._stand_ins:
            return self._stand_ins[id(tensor)]
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._twins:
            count = storage.nbytes() // max(1, tensor.element_size())
            self._twins[key] = torch.empty(count, dtype=tensor.dtype, device="meta")
        twin = self._twins[key]
        if twin.dtype != tensor.dtype:
            stand_in = torch.empty_like(tensor, device="meta")
        else:
            stand_in = torch.as_strided(
                twin, tensor.shape, tensor.stride(), tensor.storage_offset()
            )
        self._stand_ins[id(tensor)] = stand_in
        self._alive.append(tensor)
        return stand_in

    def is_ours(self, tensor: Tensor) -> bool:
        """Whether it is the network's, or real with something of the network's written to it."""
        return tensor.device.type == "meta" or tensor.untyped_storage()._cdata in self._infected

    # -- dispatch ---------------------------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and write it down, if it is the network's."""
        kwargs = dict(kwargs or {})
        tensors = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
        about_meta = any(self.is_ours(one) for one in tensors)
        if not about_meta:
            made_on = kwargs.get("device")
            if tensors or made_on is None or torch.device(made_on).type != "meta":
                return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if about_meta and (name in _ASKS_FOR_VALUES or _picks(name, tensors)):
            raise self._needs_values(name)
        if about_meta:
            for target in self._targets(func, args, kwargs):
                if target.device.type != "meta":
                    self._infected.add(target.untyped_storage()._cdata)
            args = _replaced(args, self._as_meta)
            kwargs = {key: _replaced(value, self._as_meta) for key, value in kwargs.items()}
            if "device" in kwargs and kwargs["device"] is not None:
                kwargs["device"] = torch.device("meta")
        return self.write_down(func, name, args, kwargs)

    def _as_meta(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.device.type == "meta" else self._stand_in(tensor)

    def run(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], written: set[int]
    ) -> Any:
        """What an operation answers; `written`: numbers of the storages that it writes to."""
        return shortcut.run(func, args, kwargs)

    def write_down(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operation, and note what was read, written and made."""
        as_ref = self._ref
        noted = _replaced(args, as_ref)
        noted_kwargs = {key: _replaced(value, as_ref) for key, value in kwargs.items()}
        inputs = (*refs(noted), *refs(tuple(noted_kwargs.values())))
        written = self._targets(func, args, kwargs)
        changed = {self._key(one) for one in written}
        sources = [one.untyped_storage()._cdata for one in _tensors(args)]
        try:
            answer = self.run(func, args, kwargs, changed)
        except NotImplementedError as error:
            raise self._not_understood(name) from error
        made = list(_tensors((answer,)))
        view = (
            not written
            and bool(made)
            and all(one.untyped_storage()._cdata in sources for one in made)
        )
        outputs = [self.add(one, "result") for one in made]
        if written and not outputs:
            made, outputs = written, [self.add(one, "result") for one in written]
        for one, index in zip(made, outputs, strict=True):
            if any(one is tensor for tensor in written):
                self._note_write(one, index)
        call, _ = self._running()
        self.nodes.append(
            Node(
                index=len(self.nodes),
                op=name,
                overload=func._overloadname,
                args=noted,
                kwargs=noted_kwargs,
                inputs=inputs,
                outputs=tuple(outputs),
                call=call,
                source=line() if self._sources else "",
                view=view,
                pointwise=torch.Tag.pointwise in func.tags or name.rstrip("_") in _POINTWISE,
                writes=tuple(index for index in inputs if self.values[index].storage in changed),
            )
        )
        return answer

    def _ref(self, tensor: Tensor) -> Ref:
        return Ref(self.of(tensor))

    def _key(self, tensor: Tensor) -> int:
        """Number of the tensor's storage, which is kept alive: `set_` would free it."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storage_of:
            self._storage_of[storage._cdata] = len(self._storage_of)
            self._alive.append(storage)
        return self._storage_of[storage._cdata]

    def _targets(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors that an operation changes in place."""
        schema = func._schema
        if not schema.is_mutable:
            return []
        found: list[Tensor] = []
        for position, argument in enumerate(schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            found += list(_tensors((given,)))
        return found

    def _note_write(self, tensor: Tensor, value: int) -> None:
        """The tensor is `value` now; others that look at its storage learn of it when read."""
        writes = self._written.setdefault(self.values[value].storage, [])
        writes.append(value)
        self._read_at[id(tensor)] = len(writes)

    # -- errors -----------------------------------------------------------------------------------

    def _needs_values(self, op: str) -> TraceError:
        _, path = self._running()
        source = line()
        return TraceError(
            f"{path or 'the network'} asks for the numbers in a tensor ({op}) at {source}, which"
            " are not known before it runs",
            "decide from shapes, or compute with torch.where; a part without such decisions can be"
            " planned by itself",
            path=path,
            source=source,
            op=op,
        )

    def _not_understood(self, op: str) -> TraceError:
        _, path = self._running()
        source = line()
        return TraceError(
            f"{path or 'the network'} uses the operation {op} at {source}, of which PyTorch does"
            " not say what shape it makes",
            "an operation of your own needs torch.library.register_fake",
            path=path,
            source=source,
            op=op,
        )


def _picks(op: str, tensors: Sequence[Tensor]) -> bool:
    """Whether elements are picked by a mask: how many, only their values tell."""
    return op == "index" and any(one.dtype in (torch.bool, torch.uint8) for one in tensors[1:])


def _tensors(argument: Any) -> list[Any]:
    """The tensors in an argument, in order."""
    found: list[Any] = []
    for one in argument:
        if isinstance(one, torch.Tensor):
            found.append(one)
        elif isinstance(one, list | tuple):
            found += _tensors(one)
    return found


def _replaced(argument: Any, by: Callable[[Tensor], Any]) -> Any:
    """An argument with its tensors replaced; lists become tuples where they are written down."""
    if isinstance(argument, torch.Tensor):
        return by(argument)
    if isinstance(argument, list):
        return [_replaced(one, by) for one in argument]
    if isinstance(argument, tuple):
        return tuple(_replaced(one, by) for one in argument)
    return argument
