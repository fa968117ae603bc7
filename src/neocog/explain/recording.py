"""One pass of a network with the numbers kept: every operation, what it read and what it made.
Floor 1, explain; imports torch and `analysis`.

    recording = record(module, x)            # x: 1×C×H×W, 1×C×L or 1×C×D×H×W
    recording.graph                          # analysis.graph.Graph of this very run
    recording.tensors[value]                 # the numbers of graph.values[value], as they were then
    recording.layers()["layer1.0.relu#2"]    # the Call (its inputs and outputs are value indices)
    recording.parameters(node)               # {"fc.weight": value, …} that a node reads itself
    recording.replay(node)                   # run a node again: one tensor for each of node.outputs
    recording.replay(node, {value: tensor})  # … with other numbers for some of its inputs

`replay` obeys the caller's grad mode: override an input by a leaf that asks for a gradient, and the
outputs are differentiable in it. It never writes into what is recorded or handed over: an in-place
operation writes into a copy, and the outputs are what it leaves. Node "written" (a view was written
through) has no PyTorch operation; it is replayed as well.

Values are those of `analysis.graph`: a tensor at one moment. Writing into a tensor makes a new
value, and the numbers of the old one are copied first. Parameters and buffers are values of kind
"parameter" and "buffer" with their names; look them up with `recording.named`.

Operations lie below autograd (`convolution`, `native_batch_norm`, `addmm`), and are those of
`analysis.trace.trace`, but attention is always taken apart into products and softmax, and what is
made from neither input nor weights (index tables, empty reserves) stands as constants. The network
runs in use (evaluation mode) on a copy on the CPU; the one that was given is not touched.

Held: the copy's weights, and every result of the pass once (twice where it was written over), about
4 bytes times the activations of one picture: 160 MB for ResNet-50 at 224×224.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _disable_current_modes

from neocog import chance
from neocog.analysis.graph import Graph, Ref
from neocog.analysis.recorder import Recorder
from neocog.analysis.trace import Running, explained, owners, tensors_in
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from neocog.analysis.graph import Call, Node, Value

__all__ = ["Recording", "record"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """A network as it ran once, with its numbers."""

    graph: Graph
    """What ran."""
    tensors: tuple[Tensor, ...]
    """Value → its numbers when it was made. Not to be written to."""
    functions: tuple[Any, ...]
    """Node → the operation of PyTorch (`torch.ops.aten.relu.default`); None for "written"."""
    named: Mapping[str, int]
    """Name of a parameter or buffer → its value."""

    @property
    def input(self) -> Tensor:
        """The picture, 1×C×H×W."""
        return self.tensors[self.graph.inputs[0]]

    @property
    def output(self) -> Tensor:
        """The first tensor that the network answered."""
        return self.tensors[self.graph.outputs[0]]

    def layers(self) -> dict[str, Call]:
        """Name → run of a module, in the order of starting: `conv1`, `relu`, `relu#2`; empty: the
        network itself."""
        return {
            f"{call.path}#{call.repeat + 1}" if call.repeat else call.path: call
            for call in self.graph.calls
        }

    def layer(self, name: str) -> Call:
        """The run of a module.

        Raises:
            ConfigError: nothing of that name ran.
        """
        layers = self.layers()
        if name not in layers:
            raise ConfigError(f"no layer called {name!r} ran", near(name, filter(None, layers)))
        return layers[name]

    def parameters(self, node: Node) -> dict[str, int]:
        """The parameters that a node reads itself: name → value."""
        values = self.graph.values
        return {
            values[value].name: value for value in node.inputs if values[value].kind == "parameter"
        }

    def replay(
        self, node: Node, overrides: Mapping[int, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Run a node again on what it read.

        Args:
            node: of this graph; one that draws random numbers draws others.
            overrides: value → numbers to take in its place.

        Returns:
            One tensor for each of `node.outputs`.
        """
        given = overrides or {}

        def resolved(argument: Any) -> Any:
            if isinstance(argument, Ref):
                tensor = given.get(argument.value, self.tensors[argument.value])
                return tensor.clone() if argument.value in node.writes else tensor
            if isinstance(argument, list | tuple):
                return type(argument)(resolved(one) for one in argument)
            return argument

        function = self.functions[node.index]
        if function is None:
            old, new = resolved(node.args)
            return (_overlaid(self.graph, node, old, new),)
        args = resolved(node.args)
        kwargs = {name: resolved(one) for name, one in node.kwargs.items()}
        found = list(tensors_in(function(*args, **kwargs)))
        if node.writes and not found:  # it answers nothing: what it wrote to is the answer
            found = _written(function, args, kwargs)
        return tuple(found)


def record(module: nn.Module, *inputs: Tensor) -> Recording:
    """Run a network once and keep all numbers.

    Args:
        module: any network; a copy of it runs.
        inputs: what its forward takes, as it takes it; the picture first, 1×C×H×W.

    Raises:
        TraceError: the network does not take such inputs; with module path and source line.
        NeocogError: it holds something that cannot be copied.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    >>> recording = record(net, torch.ones(1, 1, 5, 5))
    >>> [node.op for node in recording.graph.nodes]
    ['convolution', 'relu_']
    >>> before, after = (recording.tensors[node.outputs[0]] for node in recording.graph.nodes)
    >>> bool((before.relu() == after).all())
    True
    """
    twin = copied(module).cpu()
    _, dtype = place(twin)
    given = [
        one.detach().to("cpu", dtype if one.is_floating_point() else None, copy=True)
        for one in inputs
    ]
    running = Running(twin)
    keeper = _Keeper(running.now)
    running.value_of = keeper.of
    named: dict[str, int] = {}
    for position, tensor in enumerate(given):
        keeper.take(tensor, "input", str(position))
    for name, parameter in twin.named_parameters():
        named[name] = keeper.take(parameter, "parameter", name)
    for name, buffer in twin.named_buffers():
        named[name] = keeper.take(buffer, "buffer", name)
    chances = own_chance(torch.device("cpu"), chance.key(0, "record"))
    with chances, _taken_apart(), torch.no_grad(), running, keeper, explained(running):
        answer = twin(*given)
    graph = Graph(
        nodes=tuple(keeper.nodes),
        values=tuple(keeper.values),
        calls=tuple(running.calls),
        inputs=tuple(range(len(given))),
        outputs=tuple(keeper.of(one) for one in tensors_in(answer)),
        parameters={name: tuple(one.shape) for name, one in twin.named_parameters()},
        owners=owners(twin),
        buffers={name: one.numel() * one.element_size() for name, one in twin.named_buffers()},
    )
    return Recording(
        graph=graph,
        tensors=tuple(keeper.tensors),
        functions=tuple(keeper.functions),
        named=named,
    )


@contextlib.contextmanager
def _taken_apart() -> Iterator[None]:
    """Attention as its products, not as one operation nobody can look into."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Keeper(Recorder):  # type: ignore[no-untyped-call]
    """A recorder of real tensors: the network's are the inputs, the weights, and what came of them.

    Numbers are kept by reference until something writes over them: then they are copied first.
    """

    def __init__(self, running: Any) -> None:
        super().__init__(running)
        self.tensors: list[Tensor] = []
        self.functions: list[Any] = []
        # Addresses of the storages that are the network's; the recorder keeps them alive.
        self._ours: set[int] = set()
        # Storage → the values whose numbers are not copied.
        self._looking: dict[int, list[int]] = {}
        # Tensor → how often it had been written to when it was looked at last.
        self._versions: dict[int, int] = {}

    def take(self, tensor: Tensor, kind: Any, name: str) -> int:
        """Write down something of the network's own."""
        index = self.add(tensor, kind, name)
        # Buffers of whole numbers are index tables: what is worked out from them alone is constant.
        if kind != "buffer" or tensor.is_floating_point():
            self._ours.add(tensor.untyped_storage()._cdata)
        return index

    def add(self, tensor: Tensor, kind: Any, name: str = "") -> int:
        """Write a tensor down as a value, with its numbers."""
        index = super().add(tensor, kind, name)
        with _disable_current_modes():
            # What is not the network's is written over unseen.
            self.tensors.append(tensor.detach().clone() if kind == "constant" else tensor.detach())
        self._versions[id(tensor)] = tensor._version
        self._looking.setdefault(self.values[index].storage, []).append(index)
        if kind == "result":
            self._ours.add(tensor.untyped_storage()._cdata)
        return index

    def of(self, tensor: Tensor) -> int:
        """The value that a tensor is now."""
        index = self._value_of.get(id(tensor))
        # A constant that the forward has changed meanwhile is another one.
        old = self._versions.get(id(tensor)) != tensor._version and not self.is_ours(tensor)
        if index is not None and old:
            del self._value_of[id(tensor)]
        return super().of(tensor)

    def is_ours(self, tensor: Tensor) -> bool:
        """Whether it is the network's, or shares memory with what is."""
        return tensor.untyped_storage()._cdata in self._ours

    def run(self, func: Any, args: Any, kwargs: Mapping[str, Any], written: set[int]) -> Any:
        """Run it; what it will write over is copied before."""
        for storage in written:
            for index in self._looking.pop(storage, ()):
                self.tensors[index] = self.tensors[index].clone()
        return func(*args, **kwargs)

    def rewritten(self, tensor: Tensor, old: int, written: int) -> int:
        """What a view shows after another one was written through."""
        new = super().rewritten(tensor, old, written)
        self.functions.append(None)
        with _disable_current_modes():
            self.tensors[new] = _laid_over(
                self.values[new],
                (self.values[old], self.tensors[old]),
                (self.values[written], self.tensors[written]),
            )
        # Its numbers are a copy already.
        self._looking[self.values[new].storage].remove(new)
        return new

    def write_down(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation and note it."""
        answer = super().write_down(func, name, args, kwargs)
        self.functions.append(func)
        return answer

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and write it down, if it is the network's."""
        given = dict(kwargs or {})
        if not any(self.is_ours(one) for one in tensors_in((args, tuple(given.values())))):
            return func(*args, **given)
        return self.write_down(func, func._schema.name.removeprefix("aten::"), args, given)


def _laid_over(value: Value, old: tuple[Value, Tensor], new: tuple[Value, Tensor]) -> Tensor:
    """What a view shows of a storage that held `old`, after `new` was written into it."""
    parts = (old, new)
    count = max(_end(one) for one, _ in ((value, None), *parts))
    flat = old[1].new_zeros(count)
    for part, tensor in parts:
        flat.as_strided(part.shape, part.strides, part.offset).copy_(tensor)
    return flat.as_strided(value.shape, value.strides, value.offset).clone()


def _end(value: Value) -> int:
    """Elements of its storage up to its last one."""
    if not value.elements:
        return value.offset
    steps = ((size - 1) * stride for size, stride in zip(value.shape, value.strides, strict=True))
    return value.offset + sum(steps) + 1


def _overlaid(graph: Graph, node: Node, old: Tensor, new: Tensor) -> Tensor:
    """Node "written" again."""
    before, after = (graph.values[index] for index in node.inputs)
    return _laid_over(graph.values[node.outputs[0]], (before, old), (after, new))


def _written(function: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The arguments that an operation changes."""
    found: list[Tensor] = []
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            one = args[position] if position < len(args) else kwargs.get(argument.name)
            found += tensors_in(one)
    return found
