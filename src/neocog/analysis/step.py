"""A training step on tensors without memory: its work, and what it would hold. Floor 1.

Room analysis; imports floor 0, torch and this room. Forward, backward and optimiser really run, on
the meta device. A storage counts from the operation that makes it until its last tensor is gone, as
an allocator would count it; so the peak needs no theory of what autograd keeps.
"""

from __future__ import annotations

import bisect
import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neocog.analysis import work
from neocog.analysis.autocast import Autocast
from neocog.analysis.trace import Running, empty_copy, explained, stand_ins, tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from neocog.analysis.trace import Given

__all__ = ["Phase", "Shape", "Step", "Work", "measure_step", "usual_loss"]

Phase = Literal["forward", "backward", "optimizer"]

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision → what autocast lowers to."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step does and holds, for one batch."""

    batch: int
    """Samples of the batch."""
    work: Mapping[tuple[Phase, Work], int]
    """How often each distinct operation runs in each phase."""
    macs: Mapping[str, tuple[int, int]]
    """Module path → multiply-accumulates forward and backward."""
    activations: Mapping[str, int]
    """Module path → bytes that its forward made and the backward pass needs."""
    weights: int
    """Bytes of parameters and buffers."""
    inputs: int
    """Bytes of the batch."""
    gradients: int
    """Bytes of the gradients."""
    state: int
    """Bytes that the optimiser keeps from step to step."""
    kept: int
    """Bytes that live when the forward pass is over, beside weights, state and the batch."""
    peak: int
    """Most bytes at any moment of a step that is not the first, all of the above included."""
    peak_phase: Phase
    """When."""
    forward_peak: int
    """Most bytes at any moment of a forward pass in use: no gradients, no state."""

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of the whole step."""
        return sum(one.macs * count for (_, one), count in self.work.items())


Loss = "Callable[[Any], Tensor]"


def usual_loss(answer: Any) -> Tensor:
    """Cross-entropy for B×K and B×K×…; the mean square for everything else, all outputs added."""
    total: Tensor | None = None
    for one in tensors_in(answer):
        if not one.is_floating_point() or not one.requires_grad:
            continue
        if one.dim() >= 2 and one.shape[1] > 1:
            rest = (one.shape[0], *one.shape[2:])
            target = torch.zeros(rest, dtype=torch.long, device=one.device)
            loss = F.cross_entropy(one, target)
        else:
            loss = one.square().mean()
        total = loss if total is None else total + loss
    if total is None:
        raise ValueError("nothing in the answer depends on anything that can be learnt")
    return total


def usual_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False)


def measure_step(
    module: nn.Module,
    *inputs: Given,
    loss: Callable[[Any], Tensor] = usual_loss,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = usual_optimizer,
    precision: str = "fp32",
    channels_last: bool = False,
) -> Step:
    """Work and memory of a training step.

    Args:
        module: any network; it comes back untouched.
        inputs: what its forward takes, as shapes or tensors, the batch first.
        loss: what its forward returns → a scalar.
        optimizer: makes the optimiser of the parameters that it is given.
        precision: `fp32`, `bf16` or `fp16`, as autocast does it.
        channels_last: lay out pictures and kernels so.

    Raises:
        TraceError: as `trace` does.
    """
    twin = empty_copy(module).train()
    given = stand_ins(inputs)
    if channels_last:
        twin = _to_channels_last(twin)
        given = [_last(one) for one in given]
    running = Running(twin)
    meter = _Meter(running.now)
    weights = [*twin.parameters(), *twin.buffers()]
    for tensor in (*weights, *given):
        meter.hold(tensor)
    started = meter.total
    learnt = [one for one in twin.parameters() if one.requires_grad]
    rule = optimizer(learnt) if learnt else None
    with running, meter, explained(running):
        with Autocast(DTYPES[precision]):
            answer = twin(*given)
        value = loss(answer)
        del answer
        meter.forward_over()
        if value.requires_grad:
            meter.phase = "backward"
            value.backward()  # type: ignore[no-untyped-call]
        meter.phase = "optimizer"
        del value
        before = meter.total
        if rule is not None:
            rule.step()
    state = meter.total - before
    gradients = sum(_bytes(one.grad) for one in learnt if one.grad is not None)
    peaks = {phase: peak for phase, peak in meter.peaks.items()}
    # The first step makes the state; from the second on it lies there all the time.
    for phase in ("forward", "backward"):
        peaks[phase] += state
    phase = max(peaks, key=lambda one: peaks[one])
    return Step(
        batch=int(given[0].shape[0]) if given and given[0].dim() else 1,
        work=dict(meter.work),
        macs=meter.macs_by_path(),
        activations=dict(meter.kept_by_path),
        weights=sum(_bytes(one) for one in {id(one): one for one in weights}.values()),
        inputs=sum(_bytes(one) for one in given),
        gradients=gradients,
        state=state,
        kept=meter.kept - started,
        peak=peaks[phase],
        peak_phase=phase,
        forward_peak=_peak_in_use(twin, given, precision, running),
    )


def _peak_in_use(
    twin: nn.Module, given: Sequence[Tensor], precision: str, running: Running
) -> int:
    """Most bytes of a forward pass without gradients."""
    twin.eval().zero_grad(set_to_none=True)
    meter = _Meter(running.now)
    for tensor in (*twin.parameters(), *twin.buffers(), *given):
        meter.hold(tensor)
    with meter, torch.no_grad(), explained(running), Autocast(DTYPES[precision]):
        twin(*given)
    return meter.peaks["forward"]


def _to_channels_last(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.data = _last(parameter.data)
    return module


def _last(tensor: Tensor) -> Tensor:
    if tensor.dim() == 4:
        return tensor.to(memory_format=torch.channels_last)
    if tensor.dim() == 5:
        return tensor.to(memory_format=torch.channels_last_3d)
    return tensor


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Meter(TorchDispatchMode):
    """Counts operations and the storages that live."""

    def __init__(self, running: Callable[[], tuple[int, str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.phase: Phase = "forward"
        self.peaks: dict[Phase, int] = dict.fromkeys(("forward", "backward", "optimizer"), 0)
        self.work: Counter[tuple[Phase, Work]] = Counter()
        self.kept = 0
        self.kept_by_path: Counter[str] = Counter()
        self._running = running
        self._live: dict[int, tuple[int, str]] = {}
        self._watches: dict[int, Any] = {}
        # Where autograd's count of nodes stood at each operation of the forward pass.
        self._numbers: list[int] = []
        self._paths: list[str] = []
        self._macs: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def hold(self, tensor: Tensor, path: str = "") -> None:
        """A storage is there from now on."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        size = storage.nbytes()
        self._live[key] = (size, path)
        self.total += size
        # The watch fires when the last tensor on the storage is gone.
        self._watches[key] = weakref.ref(storage, lambda _: self._gone(key))
        self.peaks[self.phase] = max(self.peaks[self.phase], self.total)

    def _gone(self, key: int) -> None:
        self.total -= self._live.pop(key)[0]
        self._watches.pop(key, None)

    def forward_over(self) -> None:
        """Note what is kept for the backward pass."""
        self.kept = self.total
        for size, path in self._live.values():
            self.kept_by_path[path] += size
        self.kept_by_path.pop("", None)

    def macs_by_path(self) -> dict[str, tuple[int, int]]:
        """Multiply-accumulates of each module, forward and backward."""
        return {path: (both[0], both[1]) for path, both in self._macs.items()}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        noted = tuple(_noted(one) for one in args)
        sources = {one.untyped_storage()._cdata for one in tensors_in(args)}
        answer = func(*args, **kwargs)
        made = list(tensors_in(answer))
        schema = func._schema
        view = (
            bool(made)
            and not schema.is_mutable
            and all(one.untyped_storage()._cdata in sources for one in made)
        )
        path = self._where()
        for one in made:
            if one.device.type == "meta":
                self.hold(one, path if self.phase == "forward" else "")
        item = Work(
            schema.name.removeprefix("aten::"),
            func._overloadname,
            noted,
            tuple((key, _noted(value)) for key, value in kwargs.items()),
            tuple(_shape(one) for one in made),
            view,
        )
        self.work[self.phase, item] += 1
        macs = item.macs
        if macs:
            self._macs[path][self.phase != "forward"] += macs
        return answer

    def _where(self) -> str:
        """The module that an operation belongs to, also that of a gradient."""
        if self.phase == "forward":
            _, path = self._running()
            self._numbers.append(torch._C._autograd._get_sequence_nr())  # type: ignore[attr-defined]
            self._paths.append(path)
            return path
        if self.phase == "backward":
            node = torch._C._current_autograd_node()
            if node is not None:
                # The node was numbered before its operation ran: the first operation that saw a
                # higher count is its own.
                found = bisect.bisect_right(self._numbers, node._sequence_nr())
                if found < len(self._paths):
                    return self._paths[found]
        return ""


def _shape(tensor: Tensor) -> Shape:
    return Shape(
        tuple(tensor.shape),
        tuple(tensor.stride()),
        str(tensor.dtype).removeprefix("torch."),
        _bytes(tensor),
    )


def _noted(argument: Any) -> Any:
    """An argument as it can be compared: tensors as shapes, lists as tuples."""
    if isinstance(argument, Tensor):
        return _shape(argument)
    if isinstance(argument, list | tuple):
        return tuple(_noted(one) for one in argument)
    return argument


def _shapes(argument: Any) -> Iterable[Shape]:
    for one in argument:
        if isinstance(one, Shape):
            yield one
        elif isinstance(one, tuple):
            yield from _shapes(one)
