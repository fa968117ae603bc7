"""The chain rule of one operation of a recorded run. Floor 1, explain; imports torch.

δ is the derivative of the loss with respect to a value, of the value's shape. `pulled_back` takes δ
from what an operation made to what it read: Jᵀδ. The common operations are written out below from
the recorded numbers; any other is asked from autograd, that operation alone. `pushed_on` goes the
other way: what a small change of what was read makes of the answer, J·t.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from neocog.analysis.graph import Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from neocog.analysis.graph import Node
    from neocog.explain.recording import Recording

__all__ = ["WRITTEN_OUT", "by_autograd", "mixed", "pulled_back", "pushed_on"]

Parts = list[tuple[Ref, "Tensor"]]
"""What each argument gets."""


def pulled_back(
    recording: Recording,
    node: Node,
    gradients: Mapping[int, Tensor],
    wanted: Collection[int],
) -> dict[int, Tensor]:
    """What an operation's answers hand on to the values that it read.

    Args:
        recording: the run.
        node: the operation.
        gradients: value → δ, for some of its outputs.
        wanted: values that it read.

    Returns:
        Value → its part of δ; one that the answer does not depend on smoothly is not there.
    """
    rule = WRITTEN_OUT.get(node.op.rstrip("_"))
    if rule is not None and node.outputs[0] in gradients and len(gradients) == 1:
        parts = rule(_Local(recording, node, gradients[node.outputs[0]], wanted))
        if parts is not None:
            found: dict[int, Tensor] = {}
            for ref, part in parts:
                if ref.value in wanted:
                    found[ref.value] = found[ref.value] + part if ref.value in found else part
            return found
    return by_autograd(recording, node, gradients, wanted)


def by_autograd(
    recording: Recording,
    node: Node,
    gradients: Mapping[int, Tensor],
    wanted: Collection[int],
) -> dict[int, Tensor]:
    """The same for any operation: autograd on it alone."""
    leaves = {
        value: recording.tensors[value].detach().requires_grad_(True)
        for value in dict.fromkeys(node.inputs)
        if value in wanted
    }
    with torch.enable_grad():
        made = dict(zip(node.outputs, recording.replay(node, leaves), strict=True))
        live = [value for value in gradients if made[value].requires_grad]
        if not live or not leaves:
            return {}
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            [made[value] for value in live],
            list(leaves.values()),
            [gradients[value] for value in live],
            allow_unused=True,
        )
    return {value: one for value, one in zip(leaves, found, strict=True) if one is not None}


def pushed_on(
    recording: Recording, node: Node, tangents: Mapping[int, Tensor]
) -> dict[int, Tensor]:
    """What changes of what an operation read make of its answers: J·t.

    Args:
        recording: the run.
        node: the operation.
        tangents: value → change, for some of its inputs.

    Raises:
        NotImplementedError: PyTorch cannot derive this operation's derivative.
    """
    leaves = {value: recording.tensors[value].detach().requires_grad_(True) for value in tangents}
    with torch.enable_grad():
        made = zip(node.outputs, recording.replay(node, leaves), strict=True)
        live = {value: one for value, one in made if one.requires_grad}
        if not live:
            return {}
        # ⟨Jᵀδ, t⟩ is linear in δ, and J·t is its slope; `torch.func.jvp` would do without δ, but
        # it knows fewer operations.
        deltas = [torch.zeros_like(one, requires_grad=True) for one in live.values()]
        total = _along(list(live.values()), deltas, leaves, tangents)
        found = _derived(node, total, deltas)
    return {value: one for value, one in zip(live, found, strict=True) if one is not None}


def _along(
    answers: Sequence[Tensor],
    deltas: Sequence[Tensor],
    leaves: Mapping[int, Tensor],
    tangents: Mapping[int, Tensor],
) -> Tensor:
    """⟨Jᵀδ, t⟩, to be derived once more."""
    first = torch.autograd.grad(
        answers,
        [leaves[value] for value in tangents],
        deltas,
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    pairs = zip(first, tangents.values(), strict=True)
    return torch.stack([(one * tangent).sum() for one, tangent in pairs]).sum()


def _derived(node: Node, total: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    if not total.requires_grad:
        return (None,) * len(leaves)
    try:
        return torch.autograd.grad(total, leaves, allow_unused=True)
    except RuntimeError as error:
        name = node.op.strip("_")
        raise NotImplementedError(f"PyTorch cannot derive {name} twice") from error


def mixed(
    recording: Recording,
    node: Node,
    tangents: Mapping[int, Tensor],
    gradients: Mapping[int, Tensor],
) -> dict[int, Tensor]:
    """∂⟨δ, J·t⟩/∂v for every value v that an operation read, δ and t held fixed.

    Non-zero elements are those that stand as factors in the operation's link of the chain: the
    weights of a convolution where both a change arrives and δ is not zero.

    Raises:
        NotImplementedError: PyTorch cannot derive this operation twice.
    """
    tensors, values = recording.tensors, recording.graph.values
    # Not buffers and constants: statistics and class weights have no derivative.
    leaves = {
        value: tensors[value].detach().requires_grad_(True)
        for value in dict.fromkeys(node.inputs)
        if tensors[value].is_floating_point() and values[value].kind not in ("buffer", "constant")
    }
    with torch.enable_grad():
        made = zip(node.outputs, recording.replay(node, leaves), strict=True)
        live = [(one, gradients[at]) for at, one in made if at in gradients and one.requires_grad]
        if not live:
            return {}
        answers, deltas = zip(*live, strict=True)
        # ⟨δ, J·t⟩ = ⟨Jᵀδ, t⟩
        found = _derived(node, _along(answers, deltas, leaves, tangents), list(leaves.values()))
    return {value: one for value, one in zip(leaves, found, strict=True) if one is not None}


# -- the common operations ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Local:
    """One operation with its numbers and the δ of its first answer."""

    recording: Recording
    node: Node
    delta: Tensor
    wanted: Collection[int]

    def arg(self, position: int, name: str = "", default: Any = None) -> Any:
        """An argument: the tensor's numbers, or the setting."""
        args = self.node.args
        given = args[position] if position < len(args) else self.node.kwargs.get(name, default)
        return self.recording.tensors[given.value] if isinstance(given, Ref) else given

    def out(self, position: int = 0) -> Tensor:
        """The numbers of an answer."""
        return self.recording.tensors[self.node.outputs[position]]

    def wants(self, position: int) -> bool:
        """Whether an argument is a value that is asked for."""
        args = self.node.args
        one = args[position] if position < len(args) else None
        return isinstance(one, Ref) and one.value in self.wanted

    def parts(self, *found: Callable[[], Tensor] | None) -> Parts:
        """For each argument by position what it gets, worked out only where it is asked for; cut
        down to its shape where it was broadcast."""
        return [
            (self.node.args[at], _narrowed(one(), self.arg(at)))
            for at, one in enumerate(found)
            if one is not None and self.wants(at)
        ]


def _narrowed(delta: Tensor, like: Tensor) -> Tensor:
    """Summed over the axes along which an argument was broadcast."""
    return delta.sum_to_size(like.shape).to(like.dtype)


def _taps(
    local: _Local, kernel: Sequence[int], settings: Sequence[Sequence[int]]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Tap of the kernel → the padded positions that it meets, one for each output position."""
    stride, dilation = settings
    counts = local.delta.shape[-len(kernel) :]
    for tap in itertools.product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        yield (
            tap,
            tuple(
                slice(first, first + s * (n - 1) + 1, s)
                for first, s, n in zip(starts, stride, counts, strict=True)
            ),
        )


def _at(places: Iterable[slice | int]) -> Any:
    """An index along the last axes."""
    return (..., *places)


def _spread(given: Any, count: int) -> list[int]:
    """A setting for each axis."""
    found = list(given) if isinstance(given, list | tuple) else [given]
    return found * count if len(found) == 1 else found


def _padding(padding: Sequence[int]) -> list[int]:
    """As `pad` takes it: both sides of the last axis first."""
    return [side for one in reversed(padding) for side in (one, one)]


def _unpadded(padded: Tensor, padding: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The part that is not padding."""
    axes = zip(padding, shape[-len(padding) :], strict=True)
    return padded[_at(slice(p, p + n) for p, n in axes)]


def _convolution(local: _Local) -> Parts | None:
    """y[k, p] = b[k] + Σ_{c,i} w[k, c, i]·x[c, s·p + d·i − padding], tap i by tap.

    ∂L/∂w[k, c, i] = Σ_p δ[k, p]·x[c, s·p + d·i − padding]; x gets w[k, c, i]·δ[k, p] where it was
    met. Groups lie side by side.
    """
    x, weight, transposed, groups = (local.arg(at) for at in (0, 1, 6, 8))
    if transposed:
        return None
    kernel = weight.shape[2:]
    stride, padding, dilation = (_spread(local.arg(at), len(kernel)) for at in (3, 4, 5))
    whole = F.pad(x, _padding(padding))
    padded = whole.reshape(len(x), groups, -1, *whole.shape[2:])
    delta = local.delta.reshape(len(x), groups, len(weight) // groups, -1)
    taps = weight.reshape(groups, -1, *weight.shape[1:])
    to_weight, to_padded = torch.zeros_like(taps), torch.zeros_like(padded)
    for tap, where in _taps(local, kernel, (stride, dilation)):
        window = padded[_at(where)]
        if local.wants(1):
            to_weight[_at(tap)] = torch.einsum("bgkp,bgcp->gkc", delta, window.flatten(3))
        if local.wants(0):
            got = torch.einsum("gkc,bgkp->bgcp", taps[_at(tap)], delta)
            to_padded[_at(where)] += got.reshape(window.shape)
    axes = [0, *range(2, local.delta.dim())]
    return local.parts(
        lambda: _unpadded(to_padded.flatten(1, 2), padding, x.shape),
        lambda: to_weight.flatten(0, 1),
        lambda: local.delta.sum(axes),
    )


def _addmm(local: _Local) -> Parts:
    """beta·b + alpha·A B."""
    beta, alpha = (local.node.kwargs.get(name, 1) for name in ("beta", "alpha"))
    delta, a, b = local.delta, local.arg(1), local.arg(2)
    return local.parts(
        lambda: beta * delta, lambda: alpha * delta @ b.T, lambda: alpha * a.T @ delta
    )


def _product(local: _Local) -> Parts:
    """A B, one matrix or many."""
    delta, a, b = local.delta, local.arg(0), local.arg(1)
    return local.parts(lambda: delta @ b.mT, lambda: a.mT @ delta)


def _add(local: _Local) -> Parts:
    alpha = local.node.kwargs.get("alpha", 1)
    return local.parts(lambda: local.delta, lambda: alpha * local.delta)


def _sub(local: _Local) -> Parts:
    alpha = local.node.kwargs.get("alpha", 1)
    return local.parts(lambda: local.delta, lambda: -alpha * local.delta)


def _mul(local: _Local) -> Parts:
    a, b = local.arg(0), local.arg(1)
    return local.parts(lambda: local.delta * b, lambda: local.delta * a)


def _div(local: _Local) -> Parts | None:
    if local.node.kwargs.get("rounding_mode") is not None:
        return None
    a, b = local.arg(0), local.arg(1)
    return local.parts(lambda: local.delta / b, lambda: -local.delta * a / (b * b))


def _relu(local: _Local) -> Parts:
    return local.parts(lambda: local.delta * (local.out() > 0))


def _leaky_relu(local: _Local) -> Parts:
    slope = local.arg(1, "negative_slope", 0.01)
    return local.parts(lambda: torch.where(local.arg(0) > 0, local.delta, slope * local.delta))


def _sigmoid(local: _Local) -> Parts:
    return local.parts(lambda: local.delta * local.out() * (1 - local.out()))


def _tanh(local: _Local) -> Parts:
    return local.parts(lambda: local.delta * (1 - local.out() ** 2))


def _batch_norm(local: _Local) -> Parts | None:
    """In use: y = γ·(x − μ)/√(σ² + ε) + β with the running μ and σ²."""
    x, gamma, mean, variance, training = (local.arg(at) for at in (0, 1, 3, 4, 5))
    if training:
        return None
    shape = [1, -1, *[1] * (x.dim() - 2)]
    scale = (variance + local.arg(7)).rsqrt().reshape(shape)
    delta, axes = local.delta, [0, *range(2, x.dim())]
    return local.parts(
        lambda: delta * scale * (1 if gamma is None else gamma.reshape(shape)),
        lambda: (delta * (x - mean.reshape(shape)) * scale).sum(axes),
        lambda: delta.sum(axes),
    )


def _max_pool(local: _Local) -> Parts:
    """Each δ goes to the element that won."""
    x, winners = local.arg(0), local.out(1)
    zeros = torch.zeros_like(x).flatten(-2)
    return local.parts(
        lambda: zeros.scatter_add(-1, winners.flatten(-2), local.delta.flatten(-2)).reshape(x.shape)
    )


def _avg_pool(local: _Local) -> Parts | None:
    """Each δ in equal parts to its window."""
    x, kernel = local.arg(0), _spread(local.arg(1), 2)
    stride = _spread(local.arg(2, "stride") or kernel, 2)
    padding = _spread(local.arg(3, "padding", 0), 2)
    ceil, inclusive = local.arg(4, "ceil_mode", False), local.arg(5, "count_include_pad", True)
    if ceil or (any(padding) and not inclusive) or local.arg(6, "divisor_override") is not None:
        return None
    padded = F.pad(torch.zeros_like(x), _padding(padding))
    for _, where in _taps(local, kernel, (stride, [1, 1])):
        padded[_at(where)] += local.delta / math.prod(kernel)
    return local.parts(lambda: _unpadded(padded, padding, x.shape))


def _mean(local: _Local) -> Parts:
    x, dims = local.arg(0), local.arg(1, "dim")
    axes = sorted({dim % x.dim() for dim in dims or range(x.dim())}) if x.dim() else []
    delta, keep = local.delta, local.arg(2, "keepdim", False)
    count = math.prod(x.shape[axis] for axis in axes)
    for axis in axes if not keep else ():
        delta = delta.unsqueeze(axis)
    return local.parts(lambda: delta.expand(x.shape) / count)


def _log_softmax(local: _Local) -> Parts:
    """δ − p·Σδ."""
    dim, out = local.arg(1), local.out()
    return local.parts(lambda: local.delta - out.exp() * local.delta.sum(dim, keepdim=True))


def _softmax(local: _Local) -> Parts:
    """p·(δ − Σ p·δ)."""
    dim, p = local.arg(1), local.out()
    return local.parts(lambda: p * (local.delta - (p * local.delta).sum(dim, keepdim=True)))


def _nll_loss(local: _Local) -> Parts | None:
    """−w[y]·log p[y], averaged, added up or one for each row of N×K."""
    log_p, target, weight, reduction, ignored = (local.arg(at) for at in range(5))
    if log_p.dim() != 2:
        return None
    kept = target != ignored
    rows = torch.where(kept, target, 0)
    share = kept.to(log_p.dtype) * (1 if weight is None else weight[rows])
    scale = -local.delta * share / (local.out(1) if reduction == 1 else 1)
    return local.parts(
        lambda: torch.zeros_like(log_p).scatter(1, rows[:, None], scale[:, None]),
    )


def _mse_loss(local: _Local) -> Parts:
    a, b, reduction = local.arg(0), local.arg(1), local.arg(2, "reduction", 1)
    twice = 2 * (a - b) * local.delta / (a.numel() if reduction == 1 else 1)
    return local.parts(lambda: twice, lambda: -twice)


def _view(local: _Local) -> Parts:
    return local.parts(lambda: local.delta.reshape(local.arg(0).shape))


def _t(local: _Local) -> Parts:
    return local.parts(lambda: local.delta.t())


def _cat(local: _Local) -> Parts | None:
    """Each piece its own stretch."""
    refs, dim = local.node.args[0], local.arg(1, "dim", 0)
    tensors = [local.recording.tensors[ref.value] for ref in refs]
    if any(one.dim() != local.delta.dim() for one in tensors):  # an empty one may be in front
        return None
    pieces = torch.split(local.delta, [one.shape[dim] for one in tensors], dim)
    return list(zip(refs, pieces, strict=True))


def _copy(local: _Local) -> Parts:
    """What was there is forgotten."""
    return local.parts(None, lambda: local.delta)


WRITTEN_OUT: dict[str, Callable[[_Local], Parts | None]] = {
    "convolution": _convolution,
    "addmm": _addmm,
    "mm": _product,
    "bmm": _product,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "native_batch_norm": _batch_norm,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _avg_pool,
    "mean": _mean,
    "_log_softmax": _log_softmax,
    "_softmax": _softmax,
    "nll_loss_forward": _nll_loss,
    "mse_loss": _mse_loss,
    "view": _view,
    "_unsafe_view": _view,
    "t": _t,
    "cat": _cat,
    "copy": _copy,
}
"""Operation, or its in-place form, → its rule; a rule answers None for a case that it leaves to
autograd."""
