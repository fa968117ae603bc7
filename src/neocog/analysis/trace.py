"""Run a network once on tensors without memory, and keep what ran. Floor 1, room analysis.

Imports floor 0 and torch.

The module that is given is not run and not changed: a copy is, whose weights are stand-ins on the
meta device. Copying costs no memory, however large the network is.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

from neocog.analysis.graph import Call, Graph
from neocog.analysis.recorder import Recorder, TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Given",
    "Running",
    "TraceError",
    "empty_copy",
    "explained",
    "owners",
    "stand_ins",
    "tensors_in",
    "trace",
]

Given = Tensor | tuple[int, ...]
"""An input: its shape with the batch, B×C×H×W, which gets the type of the weights; or a tensor, for
its shape and type."""


def trace(module: nn.Module, *inputs: Given) -> Graph:
    """The operations that a network runs in use, from the inputs to the outputs.

    Args:
        module: any network; it comes back untouched (weights, buffers, training flags, hooks).
        inputs: what its forward takes, as shapes or tensors, the batch first.

    Raises:
        TraceError: the network's path depends on numbers, it holds an operation of which nobody
            knows the shape, or it does not take such inputs; with module path and source line.

    >>> graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (1, 3, 16, 16))
    >>> [node.op for node in graph.nodes], graph.values[graph.outputs[0]].shape
    (['convolution', 'relu'], (1, 8, 14, 14))
    """
    twin = empty_copy(module).eval()
    running = Running(twin)
    recorder = Recorder(running.now)
    running.value_of = recorder.of
    given = stand_ins(inputs, twin)
    names: dict[str, int] = {}
    for position, tensor in enumerate(given):
        recorder.add(tensor, "input", str(position))
    for name, parameter in twin.named_parameters():
        names[name] = recorder.add(parameter, "parameter", name)
    for name, buffer in twin.named_buffers():
        recorder.add(buffer, "buffer", name)
    with running, recorder, torch.no_grad(), explained(running):
        answer = twin(*given)
    return Graph(
        nodes=tuple(recorder.nodes),
        values=tuple(recorder.values),
        calls=tuple(running.calls),
        inputs=tuple(range(len(given))),
        outputs=tuple(recorder.of(one) for one in tensors_in(answer)),
        parameters={name: tuple(twin.get_parameter(name).shape) for name in names},
        owners=owners(twin),
        buffers={
            name: buffer.numel() * buffer.element_size() for name, buffer in twin.named_buffers()
        },
    )


def empty_copy(module: nn.Module) -> nn.Module:
    """A copy whose parameters and floating-point buffers lie on the meta device.

    Buffers of whole numbers are copied: they are index tables, and cheap. Tensors that modules keep
    beside their parameters (the weight that weight_norm computes) become stand-ins, too.

    Raises:
        TraceError: it holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise TraceError(
                f"{path or 'the network'} is a program of torch.jit: its layers cannot be watched",
                "plan the module that it was made from",
                path=path,
            )
        for value in [*vars(part).values(), *part._parameters.values(), *part._buffers.values()]:
            for tensor in tensors_in(value):
                if id(tensor) not in memo and _is_learnt(tensor):
                    memo[id(tensor)] = _stand_in(tensor)
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise TraceError(
            f"{type(module).__name__} cannot be copied: {error}",
            "a network is planned on a copy of it; keep open files, locks and results out of it",
        ) from error


def _is_learnt(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or tensor.is_floating_point() or not tensor.is_leaf


def _stand_in(tensor: Tensor) -> Tensor:
    """The same tensor without memory."""
    if is_lazy(tensor):
        raise TraceError(
            "a lazy module has no weights yet", "run the network once on real data, then plan it"
        )
    with torch.no_grad():
        empty = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def stand_ins(inputs: Sequence[Given], module: nn.Module) -> list[Tensor]:
    """Tensors without memory in place of the inputs; shapes get the type of the weights."""
    kinds = (one.dtype for one in module.parameters() if one.is_floating_point())
    kind = next(kinds, torch.float32)
    return [
        torch.empty_like(one, device="meta")
        if isinstance(one, Tensor)
        else torch.empty(one, dtype=kind, device="meta")
        for one in inputs
    ]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in whatever a forward returns: tuples, lists, dictionaries, objects with fields.

    >>> [t.shape for t in tensors_in({"a": torch.zeros(1), "b": [torch.zeros(2)]})]
    [torch.Size([1]), torch.Size([2])]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from tensors_in(getattr(value, name))


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Module)


def _is_leaf(module: nn.Module) -> bool:
    """Whether people see it as one layer: without children, or torch.nn's own (attention, LSTM)."""
    if all(name == "parametrizations" for name, _ in module.named_children()):
        return True
    ours = type(module).__module__
    return (
        ours.startswith("torch.nn.modules.")
        and type(module) not in _CONTAINERS
        and not (ours.endswith((".container", ".transformer")))
    )


def owners(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Parameter → all module paths that hold it; a shared one has several."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for path, part in module.named_modules(remove_duplicate=False):
        for parameter in part._parameters.values():
            if parameter is not None:
                found[names[id(parameter)]].append(path)
    return {name: tuple(paths) for name, paths in found.items()}


class Running:
    """Which module is running; a context that puts hooks on a network of its own and takes them
    off again."""

    def __init__(self, module: nn.Module) -> None:
        self.calls: list[Call] = []
        self._stack: list[int] = []
        self._times: dict[int, int] = {}
        self._paths: dict[int, str] = {}
        for path, part in module.named_modules():
            self._paths.setdefault(id(part), path)
        self._module = module
        self.value_of: Callable[[Tensor], int] | None = None
        self._handles: list[Any] = []

    def now(self) -> tuple[int, str]:
        """Index and path of the innermost running call; (0, "") outside."""
        if not self._stack:
            return 0, ""
        return self._stack[-1], self.calls[self._stack[-1]].path

    def __enter__(self) -> Running:
        """Start to watch."""
        for part in self._module.modules():
            # `prepend`: the module's own hooks (weight norm) run as part of it.
            self._handles += [
                part.register_forward_pre_hook(self._start, prepend=True),
                part.register_forward_hook(self._end),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _values(self, given: Any) -> tuple[int, ...]:
        return tuple(self.value_of(one) for one in tensors_in(given)) if self.value_of else ()

    def _start(self, module: nn.Module, given: Any) -> None:
        repeat = self._times.get(id(module), 0)
        self._times[id(module)] = repeat + 1
        parent = self._stack[-1] if self._stack else -1
        inside = parent >= 0 and self.calls[parent].leaf
        self.calls.append(
            Call(
                index=len(self.calls),
                path=self._paths[id(module)],
                type=type_before_parametrizations(module).__name__,
                parent=parent,
                repeat=repeat,
                # What a layer calls is a part of it.
                leaf=inside or _is_leaf(module),
                extra=_words(module),
                inputs=self._values(given),
            )
        )
        self._stack.append(len(self.calls) - 1)

    def _end(self, module: nn.Module, given: Any, answer: Any) -> None:
        index = self._stack.pop()
        self.calls[index] = replace(self.calls[index], outputs=self._values(answer))


def _words(module: nn.Module) -> str:
    """What a module says about itself, if that is possible and short."""
    try:
        return module.extra_repr()[:200]
    except Exception:  # noqa: BLE001 — foreign code, for decoration only
        return ""


@contextlib.contextmanager
def explained(running: Running) -> Iterator[None]:
    """Whatever the network raises says where it was raised."""
    try:
        yield
    except TraceError:
        raise
    except Exception as error:
        _, path = running.now()
        source = _raised_at(error)
        where = f"{path or 'the network'} at {source}" if source else path or "the network"
        text = " ".join(str(error).split())[:300]
        raise TraceError(
            f"{where} does not run: {type(error).__name__}: {text}",
            "check the size and the number of inputs (--input CxHxW)",
            path=path,
            source=source,
        ) from error


def _raised_at(error: BaseException) -> str:
    """The innermost line of the traceback outside PyTorch."""
    import traceback
    from pathlib import Path

    own = str(Path(__file__).parent)
    root = str(Path(torch.__file__).parent)
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith((own, root)):
            found = f"{Path(frame.filename).name}:{frame.lineno}"
    return found
