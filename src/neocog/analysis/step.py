"""A training step on tensors without memory: its work, and what it would hold. Floor 1.

Room analysis; imports floor 0, torch and this room. Forward, backward and optimiser really run, on
the meta device. A storage counts from the operation that makes it until its last tensor is gone, as
an allocator would count it; so the peak needs no theory of what autograd keeps.
"""

from __future__ import annotations

import bisect
import contextlib
import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neocog.analysis import shortcut, work
from neocog.analysis.autocast import Autocast
from neocog.analysis.trace import Running, TraceError, empty_copy, explained, stand_ins, tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from neocog.analysis.trace import Given

__all__ = [
    "Phase",
    "Shape",
    "Step",
    "Use",
    "Work",
    "measure_passes",
    "measure_step",
    "measure_use",
    "usual_loss",
    "usual_optimizer",
    "workspace",
]

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
    trained: tuple[str, ...]
    """Names of the parameters that have a gradient."""
    heaviest: Mapping[str, Work]
    """Module path → the operation of its forward that computes or moves most."""
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
    passes: int
    """Most bytes of the forward and the backward pass alone, where the optimiser has no state."""

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of the whole step."""
        return sum(one.macs * count for (_, one), count in self.work.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one answer takes, for one batch."""

    batch: int
    """Samples of the batch."""
    work: Mapping[tuple[Phase, Work], int]
    """How often each distinct operation runs; the phase is always `forward`."""
    peak: int
    """Most bytes at any moment, weights and batch included."""


class Steps(Protocol):
    """An optimiser, or several that step together."""

    def step(self) -> Any:
        """Change the parameters by their gradients."""


def usual_loss(answer: Any) -> Tensor:
    """Cross-entropy for B×K and B×K×…; the mean square for everything else, all outputs added.

    Raises:
        TraceError: nothing in the answer depends on anything that can be learnt.
    """
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
        raise TraceError("nothing in the answer depends on anything that can be learnt")
    return total


def _usual(module: nn.Module) -> Steps:
    return usual_optimizer(one for one in module.parameters() if one.requires_grad)


def usual_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False)


def measure_step(
    module: nn.Module,
    *inputs: Given,
    loss: Callable[[Any], Tensor] = usual_loss,
    optimizer: Callable[[nn.Module], Steps] | None = None,
    precision: str = "fp32",
    channels_last: bool = False,
    device: str = "cpu",
) -> Step:
    """Work and memory of a training step.

    A network with auxiliary heads (`forward_auxiliary`) trains all of them.

    Args:
        module: any network; it comes back untouched.
        inputs: what its forward takes, as shapes or tensors, the batch first.
        loss: what its forward returns → a scalar.
        optimizer: makes the optimiser of a network; None: `usual_optimizer`.
        precision: `fp32`, `bf16` or `fp16`, as autocast does it.
        channels_last: lay out pictures and kernels so.
        device: where it would run: on a processor, convolutions need room to lay out their tensors.

    Raises:
        TraceError: as `trace` does; or nothing in its answer depends on anything that can be
            learnt.
    """
    twin, given = _ready(module, inputs, channels_last)
    running = Running(twin)
    meter = _Meter(running.now, device)
    weights = {id(one): one for one in (*twin.parameters(), *twin.buffers())}.values()
    for tensor in (*weights, *given):
        meter.hold(tensor)
    started = meter.total
    learnt = [one for one in twin.parameters() if one.requires_grad]
    forward = getattr(twin, "forward_auxiliary", twin)
    with running, meter, explained(running):
        with meter.aside():
            rule = (optimizer or _usual)(twin) if learnt else None
        made = meter.total - started
        with Autocast(DTYPES[precision]):
            answer = forward(*given)
        with meter.outside():
            value = loss(answer)
        del answer
        meter.forward_over()
        meter.phase = "backward"
        value.backward()  # type: ignore[no-untyped-call]
        meter.phase = "optimizer"
        del value
        before = meter.total
        if rule is not None:
            with meter.aside():
                rule.step()
        later = meter.total - before
        if rule is not None:
            rule.step()
    # The first step makes the state; from the second on it lies there all the time.
    peaks = {
        phase: peak + (0 if phase == "optimizer" else later) for phase, peak in meter.peaks.items()
    }
    highest: Phase = max(peaks, key=lambda one: peaks[one])
    return Step(
        batch=int(given[0].shape[0]) if given and given[0].dim() else 1,
        work=dict(meter.work),
        macs=meter.macs_by_path(),
        trained=tuple(name for name, one in twin.named_parameters() if one.grad is not None),
        heaviest=meter.heaviest,
        activations=dict(meter.kept_by_path),
        weights=sum(_bytes(one) for one in weights),
        inputs=sum(_bytes(one) for one in given),
        gradients=sum(_bytes(one.grad) for one in learnt if one.grad is not None),
        state=made + later,
        kept=meter.kept - started - made,
        peak=peaks[highest],
        peak_phase=highest,
        passes=max(meter.peaks["forward"], meter.peaks["backward"]),
    )


def measure_passes(
    module: nn.Module,
    *inputs: Given,
    loss: Callable[[Any], Tensor] = usual_loss,
    precision: str = "fp32",
    channels_last: bool = False,
    device: str = "cpu",
) -> int:
    """`Step.passes`, without the optimiser: a third of the work of `measure_step`."""
    step = measure_step(
        module,
        *inputs,
        loss=loss,
        optimizer=lambda _: _Still(),
        precision=precision,
        channels_last=channels_last,
        device=device,
    )
    return step.passes


class _Still:
    """A rule that changes nothing."""

    def step(self) -> None:
        """Do nothing."""


def measure_use(
    module: nn.Module,
    *inputs: Given,
    precision: str = "fp32",
    channels_last: bool = False,
    device: str = "cpu",
) -> Use:
    """Work and memory of an answer: a forward pass in evaluation mode, without gradients.

    Args and errors are those of `measure_step`.
    """
    twin, given = _ready(module, inputs, channels_last)
    running = Running(twin.eval())
    meter = _Meter(running.now, device)
    for tensor in (*twin.parameters(), *twin.buffers(), *given):
        meter.hold(tensor)
    with running, meter, torch.no_grad(), explained(running), Autocast(DTYPES[precision]):
        twin(*given)
    return Use(
        batch=int(given[0].shape[0]) if given and given[0].dim() else 1,
        work=dict(meter.work),
        peak=meter.peaks["forward"],
    )


def _ready(
    module: nn.Module, inputs: Sequence[Given], channels_last: bool
) -> tuple[nn.Module, list[Tensor]]:
    """A copy in training mode and its inputs, laid out."""
    twin = empty_copy(module).train()
    given = stand_ins(inputs, twin)
    if not channels_last:
        return twin, given
    for parameter in twin.parameters():
        parameter.data = _last(parameter.data)
    return twin, [_last(one) for one in given]


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

    def __init__(self, running: Callable[[], tuple[int, str]], device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on_processor = device == "cpu"
        self.total = 0
        self.phase: Phase = "forward"
        self.peaks: dict[Phase, int] = dict.fromkeys(("forward", "backward", "optimizer"), 0)
        self.work: Counter[tuple[Phase, Work]] = Counter()
        self.kept = 0
        self.kept_by_path: Counter[str] = Counter()
        self.heaviest: dict[str, Work] = {}
        self._aside = False
        self._inside = True
        self._running = running
        self._live: dict[int, tuple[int, str | None]] = {}
        self._watches: dict[int, Any] = {}
        # Where autograd's count of nodes stood at each operation of the forward pass.
        self._numbers: list[int] = []
        self._paths: list[str] = []
        self._macs: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def hold(self, tensor: Tensor, path: str | None = None) -> None:
        """A storage is there from now on; `path` is the module whose forward made it."""
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

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What is done once only counts for memory, not for the work of a step."""
        self._aside = True
        yield
        self._aside = False

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """What is made here belongs to no layer: the loss."""
        self._inside = False
        yield
        self._inside = True

    def forward_over(self) -> None:
        """Note what is kept for the backward pass."""
        self.kept = self.total
        for size, path in self._live.values():
            if path is not None:
                self.kept_by_path[path] += size

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
        schema = func._schema
        # The fused rules of optimisers write in place and return nothing; on the meta device there
        # is nothing to write, and not all of them can be called there.
        silent = schema.name.startswith("aten::_fused_") and not schema.returns
        answer: Any = None if silent else shortcut.run(func, args, kwargs)
        if self._on_processor and schema.name == "aten::convolution":
            answer = _as_laid_out(answer, args[:2])
        made = list(tensors_in(answer))
        view = (
            bool(made)
            and not schema.is_mutable
            and all(one.untyped_storage()._cdata in sources for one in made)
        )
        path = self._where()
        for one in made:
            if one.device.type == "meta":
                self.hold(one, path if self._inside and self.phase == "forward" else None)
        item = Work(
            schema.name.removeprefix("aten::"),
            func._overloadname,
            noted,
            tuple((key, _noted(value)) for key, value in kwargs.items()),
            tuple(_shape(one) for one in made),
            view,
        )
        if self._aside or schema.name.startswith("profiler::"):
            return answer
        self.work[self.phase, item] += 1
        if self._on_processor:
            busy = self.total + workspace(item)
            self.peaks[self.phase] = max(self.peaks[self.phase], busy)
        macs = item.macs
        if self.phase == "forward":
            self._weigh(path, item, macs)
        if macs:
            self._macs[path][self.phase != "forward"] += macs
        return answer

    def _weigh(self, path: str, item: Work, macs: int) -> None:
        """Keep a module's heaviest operation."""
        known = self.heaviest.get(path)
        if known is None or (known.macs, known.bytes) < (macs, item.bytes):
            self.heaviest[path] = item

    def _where(self) -> str:
        """The module that an operation belongs to, also that of a gradient."""
        if self.phase == "forward":
            _, path = self._running()
            self._numbers.append(torch._C._autograd._get_sequence_nr())
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


def _as_laid_out(answer: Tensor, given: Sequence[Tensor]) -> Tensor:
    """What a convolution made, channels last if pictures or kernels are: so it does on a processor,
    but not on the meta device."""
    last = torch.channels_last if answer.dim() == 4 else torch.channels_last_3d
    if answer.dim() not in (4, 5) or not any(
        one.is_contiguous(memory_format=last) and not one.is_contiguous() for one in given
    ):
        return answer
    return answer.contiguous(memory_format=last)


def workspace(item: Work) -> int:
    """Bytes that a convolution holds on a processor beside its inputs and outputs.

    oneDNN computes on blocks of 16 channels. Pictures that lie channels first are laid out anew on
    the way in and on the way out; those that lie channels last are taken as they are, and only the
    kernels are laid out anew (twice in the backward pass: as read, and as accumulated in float32).
    The rules were read off PyTorch's record of allocations, for 28 convolutions.
    """
    if item.op == "convolution":
        source: Shape = item.args[0]
        weight: Shape = item.args[1]
        if _is_last(source):
            return weight.bytes
        return weight.bytes + max(_blocked(source), item.outputs[0].bytes)
    if item.op == "convolution_backward":
        grad: Shape = item.args[0]
        source, weight = item.args[1], item.args[2]
        if _is_last(source):
            return 2 * weight.bytes
        strided = any(one > 1 for one in item.args[4])
        return weight.bytes + max(_blocked(source) + grad.bytes, 2 * source.bytes * strided)
    return 0


def _is_last(one: Shape) -> bool:
    return len(one.strides) > 2 and one.strides[1] == 1 and one.shape[1] > 1


def _blocked(source: Shape) -> int:
    """Pictures of up to three channels have a kernel of their own and stay as they are."""
    return source.bytes if source.shape[1] > 3 else 0


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
