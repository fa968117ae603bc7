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

from neocog.analysis import shortcut
from neocog.analysis.autocast import Autocast
from neocog.analysis.trace import Running, TraceError, empty_copy, explained, stand_ins, tensors_in
from neocog.analysis.works import Work, noted, size_of
from neocog.analysis.workspace import as_laid_out, is_guessed, workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from neocog.analysis.trace import Given

__all__ = [
    "Phase",
    "Step",
    "Use",
    "measure_passes",
    "measure_step",
    "measure_use",
    "usual_loss",
    "usual_optimizer",
]

Phase = Literal["forward", "backward", "optimizer"]

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision → what autocast lowers to."""


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
    rough: tuple[str, ...]
    """What makes work, memory and time uncertain by a factor of some two (time: four): `LSTM`,
    `GRU`, `RNN` (one fused operation on the device, single steps here), `float64 convolution` (of
    which it is not known what it holds), operations that are not PyTorch's; mostly empty."""

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
    rough: tuple[str, ...]
    """As in `Step`."""


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
        with Autocast(DTYPES[precision], device) as chosen:
            answer = forward(*given)
        with meter.outside():
            value = loss(answer)
        del answer
        meter.forward_over()
        meter.phase = "backward"
        # What a checkpoint computes again is cast as in the forward pass. Not `value.backward`: a
        # function of a tensor runs outside the mode that it meets.
        edge, one = torch.autograd.graph.get_gradient_edge(value), torch.ones_like(value)
        with chosen:
            torch.autograd.backward(edge, one)
        meter.phase = "optimizer"
        del value, edge, one
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
        weights=sum(size_of(one) for one in weights),
        inputs=sum(size_of(one) for one in given),
        gradients=sum(size_of(one.grad) for one in learnt if one.grad is not None),
        state=made + later,
        kept=meter.kept - started - made,
        peak=peaks[highest],
        peak_phase=highest,
        passes=max(meter.peaks["forward"], meter.peaks["backward"]),
        rough=_rough(chosen, meter),
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
    chosen = Autocast(DTYPES[precision], device)
    with running, meter, torch.no_grad(), explained(running), chosen:
        twin(*given)
    return Use(
        batch=int(given[0].shape[0]) if given and given[0].dim() else 1,
        work=dict(meter.work),
        peak=meter.peaks["forward"],
        rough=_rough(chosen, meter),
    )


def _rough(chosen: Autocast, meter: _Meter) -> tuple[str, ...]:
    """What makes a prediction rough, in alphabetical order."""
    names = set(chosen.rough)
    if meter.on_processor and any(is_guessed(one) for _, one in meter.work):
        names.add("float64 convolution")
    names.update(one.op for _, one in meter.work if "::" in one.op)
    return tuple(sorted(names))


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


class _Meter(TorchDispatchMode):
    """Counts operations and the storages that live."""

    def __init__(self, running: Callable[[], tuple[int, str]], device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_processor = device == "cpu"
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
        arguments = tuple(noted(one) for one in args)
        sources = {one.untyped_storage()._cdata for one in tensors_in(args)}
        schema = func._schema
        # The fused rules of optimisers write in place and return nothing; on the meta device there
        # is nothing to write, and not all of them can be called there.
        silent = schema.name.startswith("aten::_fused_") and not schema.returns
        answer: Any = None if silent else shortcut.run(func, args, kwargs)
        if self.on_processor and schema.name == "aten::convolution":
            answer = as_laid_out(answer, args[:2])
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
            arguments,
            tuple((key, noted(value)) for key, value in kwargs.items()),
            tuple(noted(one) for one in made),
            view,
        )
        if self._aside or schema.name.startswith("profiler::"):
            return answer
        self.work[self.phase, item] += 1
        if self.on_processor:
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
