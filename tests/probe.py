"""What a unit really sees: the support of the gradient at the input, by PyTorch's own autograd.

Weights become positive and equal, so nothing cancels; what could cancel, saturate or choose
(activations, norms, softmax, maxima) is replaced by something positive that depends on the same
elements: max pooling by a mean over the same window, a norm by the element plus the mean over
what it is normalised by. A convolution with equal weights is the same for all channels, so one
channel is computed and repeated: the largest network takes no weights and little time.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neocog.analysis import field as analysis
from neocog.analysis.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from neocog.analysis.layout import Atom

__all__ = ["Compared", "Seen", "Units", "compare", "place", "support", "units"]

Seen = tuple[tuple[int, int], ...] | None
"""First and last position along each axis of the picture; None where nothing is seen."""


def _scaled(x: Tensor) -> Tensor:
    """The same, at most 1: long products neither vanish nor explode."""
    return x / x.detach().abs().amax().clamp(min=1e-300)


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _increasing(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return _scaled(x)


def _over(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Each element with the mean along some axes."""
    return _scaled(x + x.mean(tuple(dims), keepdim=True)) if dims else x


def _convolution(dims: int, transposed: bool) -> Callable[..., Tensor]:
    kind = f"conv_transpose{dims}d" if transposed else f"conv{dims}d"
    names = ("stride", "padding", "dilation", "groups")
    if transposed:
        names = ("stride", "padding", "output_padding", "groups", "dilation")

    def run(x: Tensor, weight: Tensor, bias: Any = None, *rest: Any, **named: Any) -> Tensor:
        given = {**dict(zip(names, rest, strict=False)), **named}
        groups = given.pop("groups", 1)
        single = x.dim() == dims + 1
        x = x.unsqueeze(0) if single else x
        batch, channels = x.shape[:2]
        narrow = x.reshape(batch * groups, channels // groups, *x.shape[2:]).mean(1, keepdim=True)
        kernel = torch.ones(1, 1, *weight.shape[2:], dtype=x.dtype) / math.prod(weight.shape[2:])
        found = getattr(nn.functional, kind)(narrow, kernel, **given)
        wide = weight.shape[1] if transposed else weight.shape[0] // groups
        found = found.expand(batch * groups, wide, *found.shape[2:])
        found = found.reshape(batch, groups * wide, *found.shape[2:]).contiguous()
        return found[0] if single else found

    return run


def _linear(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    if weight.requires_grad:
        return _scaled(x @ weight.transpose(-1, -2))
    return x.mean(-1, keepdim=True).expand(*x.shape[:-1], weight.shape[0]).contiguous()


def _max_pool(dims: int) -> Callable[..., Any]:
    pool = getattr(nn.functional, f"max_pool{dims}d")
    convolve = getattr(nn.functional, f"conv{dims}d")

    def run(x: Tensor, *given: Any, **named: Any) -> Any:
        asked = named.pop("return_indices", False) or (len(given) > 5 and bool(given[5]))
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        named = {**dict(zip(names, given[:5], strict=False)), **named}
        answer, index = pool(x.detach(), **named, return_indices=True)
        each = {
            name: (value,) * dims if isinstance(value, int) else tuple(value)
            for name, value in named.items()
            if name != "ceil_mode" and value is not None and value != []
        }
        kernel = each["kernel_size"]
        stride, padding = each.get("stride", kernel), each.get("padding", (0,) * dims)
        dilation = each.get("dilation", (1,) * dims)
        sides: list[int] = []
        for axis in reversed(range(dims)):
            out, size = answer.shape[axis - dims], x.shape[axis - dims]
            last = (out - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
            sides += [padding[axis], last - padding[axis] - size]
        flat = x.reshape(-1, 1, *x.shape[-dims:])
        flat = nn.functional.pad(flat, sides)
        weight = torch.ones(1, 1, *kernel, dtype=x.dtype) / math.prod(kernel)
        mean = convolve(flat, weight, stride=stride, dilation=dilation).reshape(answer.shape)
        return (mean, index) if asked else mean

    return run


def _adaptive_max(dims: int) -> Callable[..., Any]:
    mean = getattr(nn.functional, f"adaptive_avg_pool{dims}d")

    def run(x: Tensor, size: Any, return_indices: bool = False) -> Any:
        answer = mean(x, size)
        return (answer, torch.zeros_like(answer, dtype=torch.int64)) if return_indices else answer

    return run


def _unpool(x: Tensor, indices: Tensor, *given: Any, **named: Any) -> Tensor:
    """Each value at every position of its window, not at the remembered one alone."""
    rows, columns = nn.functional.max_unpool2d(x.detach(), indices, *given, **named).shape[2:]
    names = ("kernel_size", "stride", "padding")
    named = {**dict(zip(names, given, strict=False)), **named}
    kernel = named["kernel_size"]
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    stride, padding = named.get("stride") or kernel, named.get("padding", 0)
    found = _convolution(2, True)(x, torch.empty(1, x.shape[1], *kernel), None, stride, padding)
    more = (0, max(0, columns - found.shape[3]), 0, max(0, rows - found.shape[2]))
    return nn.functional.pad(found, more)[..., :rows, :columns]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **named: Any) -> Tensor:
    if named.get("enable_gqa"):
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (one.repeat_interleave(repeats, -3) for one in (key, value))
    scores = _over(_scaled(query @ key.transpose(-1, -2)), [-1])
    return _scaled(scores @ value)


def _layer_norm(x: Tensor, shape: Sequence[int], *_: Any, **__: Any) -> Tensor:
    return _over(x, range(-len(shape), 0))


def _group_norm(x: Tensor, groups: int, *_: Any, **__: Any) -> Tensor:
    cut = x.reshape(x.shape[0], groups, -1)
    return _over(cut, [-1]).reshape(x.shape)


def _instance_norm(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return _over(x, range(2, x.dim()))


def _normalized(x: Tensor, p: float = 2.0, dim: int = 1, *_: Any, **__: Any) -> Tensor:
    return _over(x, [dim])


def _softmax(x: Tensor, dim: Any = None, *_: Any, **__: Any) -> Tensor:
    return _over(x, [dim if dim is not None else -1])


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    first, second = x.chunk(2, dim)
    return _scaled(first * second)


def _largest(x: Tensor, dim: Any = None, keepdim: bool = False, **named: Any) -> Any:
    if isinstance(dim, Tensor):
        return x + dim
    if dim is None and "axis" not in named:
        return x.mean()
    return torch.return_types.max(
        (mean := x.mean(named.get("axis", dim), keepdim), torch.zeros_like(mean, dtype=torch.int64))
    )


def _mean(x: Tensor, dim: Any = None, keepdim: bool = False, **named: Any) -> Tensor:
    dims = named.get("axis", dim)
    return x.mean() if dims is None else x.mean(dims, keepdim)


def _plus(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    return x + y


def _times(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    return _scaled(x * y) if isinstance(x * y, Tensor) and (x * y).numel() else x * y


def _product(x: Tensor, y: Tensor, *_: Any, **__: Any) -> Tensor:
    return _scaled(torch.matmul(x, y))


def _weighted(total: Any, x: Tensor, y: Tensor, *_: Any, **__: Any) -> Tensor:
    return _scaled(total + torch.matmul(x, y))


_INCREASING = (
    "relu relu6 leaky_relu elu selu celu silu gelu mish hardswish hardsigmoid hardtanh sigmoid"
    " logsigmoid tanh softplus prelu rrelu clamp clip clamp_min clamp_max exp sqrt rsqrt log pow"
    " square abs threshold tanhshrink softsign erf sin cos reciprocal expm1 log1p neg"
)
_REPLACED: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(_INCREASING.split(), _increasing),
    **dict.fromkeys(("dropout", "dropout2d", "alpha_dropout", "feature_dropout"), _same),
    **dict.fromkeys(("batch_norm", "local_response_norm"), _increasing),
    **{f"conv{d}d": _convolution(d, False) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _convolution(d, True) for d in (1, 2, 3)},
    **{f"max_pool{d}d": _max_pool(d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive_max(d) for d in (1, 2, 3)},
    "max_unpool2d": _unpool,
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "normalize": _normalized,
    "glu": _glu,
    **dict.fromkeys(("softmax", "log_softmax", "softmin"), _softmax),
    **dict.fromkeys(("max", "min"), _largest),
    **dict.fromkeys(("amax", "amin", "std", "var", "norm", "sum"), _mean),
    **dict.fromkeys(("sub", "subtract", "rsub", "__rsub__"), _plus),
    **dict.fromkeys(("div", "true_divide", "divide", "__truediv__", "mul", "multiply"), _times),
    **dict.fromkeys(("matmul", "bmm", "mm", "__matmul__"), _product),
    **dict.fromkeys(("addmm", "baddbmm"), _weighted),
}


class _Positive(TorchFunctionMode):
    """Replaces what could cancel, saturate or choose."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        name = name if name.startswith("__") else name.strip("_").removesuffix("_with_indices")
        by = _REPLACED.get(name)
        followed = any(isinstance(one, Tensor) and one.requires_grad for one in args)
        if by is None or not followed:
            return func(*args, **(kwargs or {}))
        named = dict(kwargs or {})
        named.pop("inplace", None)
        first = named.pop("input", None)
        return by(*args, **named) if first is None else by(first, *args, **named)


def _emptied(module: nn.Module) -> nn.Module:
    """A copy whose weights and statistics are ones that take no memory."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensor in [*part._parameters.values(), *part._buffers.values()]:
            if tensor is None or id(tensor) in memo:
                continue
            if tensor.is_floating_point():
                one = torch.ones((), dtype=torch.float64).expand(tensor.shape)
            elif tensor.device.type == "meta":
                one = torch.zeros(tensor.shape, dtype=tensor.dtype)
            else:
                one = tensor
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(one, requires_grad=False) if is_parameter else one
    return copy.deepcopy(module, memo).eval()


class Units:
    """What units of the tensors see that the modules of a network return."""

    def __init__(self, module: nn.Module, shape: Sequence[int]) -> None:
        self._input = torch.ones(tuple(shape), dtype=torch.float64, requires_grad=True)
        self._found: dict[tuple[str, int], Tensor] = {}
        times: dict[str, int] = defaultdict(int)
        twin = _emptied(module)

        def keep(path: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: Any, answer: Any) -> None:
                one = answer[0] if isinstance(answer, list | tuple) and answer else answer
                if isinstance(one, Tensor) and one.requires_grad:
                    # A clone: the network may go on and write into it.
                    self._found[path, times[path]] = one.clone()
                times[path] += 1

            return hook

        for path, part in twin.named_modules():
            part.register_forward_hook(keep(path))
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with _Positive():
                twin(self._input + 0)
        finally:
            torch.set_default_dtype(before)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._found

    def shape(self, key: tuple[str, int]) -> tuple[int, ...]:
        """Of what a module returned the n-th time."""
        return tuple(self._found[key].shape)

    def seen(self, key: tuple[str, int], index: Any) -> Seen:
        """First and last input position with a gradient, of the sum over some elements."""
        chosen = self._found[key][index].sum()
        (gradient,) = torch.autograd.grad(chosen, self._input, retain_graph=True, allow_unused=True)
        return None if gradient is None else support(gradient)


def support(gradient: Tensor) -> Seen:
    """First and last position that is not zero, along each axis behind batch and channels."""
    assert bool(torch.isfinite(gradient).all()), "the probe exploded"
    found = []
    for axis in range(2, gradient.dim()):
        others = [one for one in range(gradient.dim()) if one != axis]
        (hit,) = torch.nonzero((gradient != 0).any(dim=others), as_tuple=True)
        if not len(hit):
            return None
        found.append((int(hit[0]), int(hit[-1])))
    return tuple(found)


def units(sizes: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """A corner, an edge, the far corner and the centre."""
    yield from dict.fromkeys(
        (
            tuple(0 for _ in sizes),
            tuple(size // 2 if axis else 0 for axis, size in enumerate(sizes)),
            tuple(size - 1 for size in sizes),
            tuple(size // 2 for size in sizes),
        )
    )


def place(dims: Sequence[Sequence[Atom]], position: Sequence[int]) -> Any:
    """The elements of a tensor that lie at a position along the axes of the picture."""
    index = []
    for atoms in dims:
        rows = torch.zeros(1, dtype=torch.int64)
        for atom in atoms:
            steps = torch.arange(atom.size)
            if atom.axis >= 0:
                steps = steps[[position[atom.axis] // atom.weight % atom.size]]
            rows = (rows[:, None] * atom.size + steps[None, :]).reshape(-1)
        index.append(rows)
    return torch.meshgrid(*index, indexing="ij")


@dataclass(frozen=True, slots=True)
class Compared:
    """One unit: what the analysis says, and what the gradient says."""

    path: str
    position: tuple[int, ...]
    said: Seen
    found: Seen
    exact: bool

    @property
    def equal(self) -> bool:
        """Whether both agree."""
        return self.said == self.found

    @property
    def covers(self) -> bool:
        """Whether the analysis says at least what the gradient shows."""
        if self.found is None:
            return True
        return self.said is not None and all(
            low <= first and last <= high
            for (low, high), (first, last) in zip(self.said, self.found, strict=True)
        )


def compare(module: nn.Module, shape: Sequence[int], *, tensors: int = 3) -> list[Compared]:
    """Units of the last tensor with positions, and of some before: corners, an edge, the centre.

    Args:
        module: any network; it is not changed.
        shape: of the input, the batch first.
        tensors: at most so many, spread over the network.
    """
    graph = trace(module, tuple(shape))
    fields = analysis.fields(graph)
    real = Units(module, shape)
    calls = {
        (call.path, call.repeat): call.outputs[0]
        for call in graph.calls
        if call.outputs and (call.path, call.repeat) in real and fields.of(call.outputs[0])
    }
    keys = list(calls)
    chosen = keys[:: -max(1, len(keys) // tensors)][:tensors]
    answer = []
    for key in chosen:
        value = calls[key]
        state = fields._states[value]
        assert state is not None
        assert state.shape == real.shape(key)
        sizes = [len(state.spans[axis]) for axis in range(len(fields.sizes))]
        for position in units(sizes):
            answer.append(
                Compared(
                    path=f"{key[0]}#{key[1]}",
                    position=position,
                    said=fields.unit(value, position),
                    found=real.seen(key, place(state.dims, position)),
                    exact=not state.guessed,
                )
            )
    return answer
