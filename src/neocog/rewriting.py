"""The same function with less work, for training. Floor 1; imports torch.

A ReLU before a max pooling runs behind it: max(ReLU(a), ReLU(b)) = ReLU(max(a, b)), and what one
window of the pooling hands back goes to the same pixel either way, or nowhere. So outputs and
gradients are the same to the last bit (but for the sign of a zero), while the ReLU, there and back,
sees a quarter of the numbers behind a 2×2 pooling, and on a processor it takes as long as these
come from memory: two convolutions, 32 and 64 kernels on 32×32 pixels, 512 a batch, train 1.13 times
as fast in bf16 and 1.18 times in fp32; `cnn` 1.02 to 1.04 times. Max pooling of 2×2 windows, and a
ReLU with it, goes by `pooling.py` where that is faster.

A convolution whose kernel covers all of its input is a product of two matrices: C5 of LeNet-5, the
1×1 convolutions that squeeze and excite (arXiv 1709.01507). Computed as one, it is the same but for
the order of the sums, and 1.1 to 4 times as fast on a processor, there and back. On maps up to 4×4,
the gradients of kernels of many channels go by `smallmaps.py`.

Before and after, a network is as it is written, and so plans, graphs and files show it.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn

from neocog import smallmaps
from neocog.pooling import max_pool_2x2, suits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["InOrder", "rewrite", "rewritten"]

_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_ADAPTIVE_POOLS = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_MAKERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
)
"""Layers whose answer is a tensor of its own, which their way back does not need."""
_SIDE_BY_SIDE = [(2, 2), (2, 2), (0, 0), (1, 1)]
"""Kernel, stride, padding and dilation of 2×2 windows that neither overlap nor leave gaps."""


class InOrder(nn.Module):
    """A network that runs some of its modules one after the other, and nothing else."""

    def in_order(self) -> Iterable[nn.Module]:
        """These modules, first to last."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×outputs."""
        for layer in self.in_order():
            x = layer(x)
        return x


@contextlib.contextmanager
def rewritten(network: nn.Module) -> Iterator[None]:
    """Within the block the network's convolutions, poolings and rows of layers, `nn.Sequential` and
    `InOrder`, run as told above; afterwards as they did.

    Layers that have hooks, also such as are put on meanwhile, keep their place. Hooks for all
    modules at once do not see the ReLUs that moved, nor the poolings that do their work.

    Args:
        network: changed in place; its state dict is not.
    """
    parts = rewrite(network)
    try:
        yield
    finally:
        for part, forward in parts:
            if vars(part).get("forward") is forward:  # nobody has put another in its place
                del vars(part)["forward"]


def rewrite(network: nn.Module) -> list[tuple[nn.Module, Callable[..., Tensor]]]:
    """Have the network's convolutions, poolings and rows run as told above, for good: for a copy of
    one's own.

    Returns:
        The parts that have a `forward` of their own now, and these.
    """
    parts = list(network.modules())
    if any(isinstance(part, nn.DataParallel) for part in parts):
        return []  # its replicas would call what is bound to the weights of the first device
    changed: list[tuple[nn.Module, Callable[..., Tensor]]] = []
    for part in parts:
        forward = _forward(part)
        if forward is not None and "forward" not in vars(part):
            # Not a method of the class: two networks of one class can be in different hands.
            vars(part)["forward"] = partial(forward, part)
            changed.append((part, vars(part)["forward"]))
    return changed


def _forward(part: nn.Module) -> Callable[..., Tensor] | None:
    """What takes the place of the part's `forward`; a class with one of its own keeps it."""
    if isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
        return _run
    if isinstance(part, InOrder) and type(part).forward is InOrder.forward:
        return _run
    return _FORWARDS.get(type(part))


def _convolve(conv: nn.Conv2d, input: Tensor) -> Tensor:
    """The `forward` of a convolution, which may have got another class or padding meanwhile."""
    # Not one of a class made from it either: parametrizations count how often they are asked.
    usual = type(conv) is nn.Conv2d and conv.groups == 1 and conv.dilation == (1, 1)
    if not usual or input.dim() != 4 or input.device.type != "cpu":
        return type(conv).forward(conv, input)
    padding: Any = (0, 0) if conv.padding == "valid" else conv.padding
    if padding == (0, 0) and input.shape[2:] == conv.kernel_size:
        return _multiply(conv, input)
    even = conv.stride == (1, 1) and conv.padding_mode == "zeros"
    told = isinstance(padding, tuple) and len(padding) == 2
    if even and told and smallmaps.suits(input, conv.weight):
        return smallmaps.conv2d(input, conv.weight, conv.bias, padding)
    return type(conv).forward(conv, input)


def _multiply(conv: nn.Conv2d, input: Tensor) -> Tensor:
    """A convolution whose kernel covers all of its input, as a product of two matrices."""
    if input.is_contiguous():
        return F.linear(input.flatten(1), conv.weight.flatten(1), conv.bias)[:, :, None, None]
    # Taken for channels last, where no picture is copied; the kernels are small.
    x, weight = input.permute(0, 2, 3, 1), conv.weight.permute(0, 2, 3, 1)
    answer = F.linear(x.flatten(1), weight.flatten(1), conv.bias)
    return answer[:, None, None, :].permute(0, 3, 1, 2)  # channels last, too


def _pool(pool: nn.MaxPool2d, input: Tensor) -> Any:
    """The `forward` of a max pooling."""
    return max_pool_2x2(input) if _halves(pool, input) else type(pool).forward(pool, input)


def _halves(pool: nn.MaxPool2d, input: Tensor) -> bool:
    """Whether it is one that `pooling.py` can do, and faster; it may have got another class or
    window meanwhile."""
    given = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    return (
        type(pool).forward is nn.MaxPool2d.forward
        and [one if isinstance(one, tuple) else (one, one) for one in given] == _SIDE_BY_SIDE
        and not pool.return_indices
        and suits(input)
        and not (pool.ceil_mode and any(side % 2 for side in input.shape[2:]))
    )


def _run(part: nn.Sequential | InOrder, input: Tensor) -> Tensor:
    """The `forward` of a row. It looks at its layers anew in each call: they, and who watches
    them, may change meanwhile."""
    forward: Callable[..., Tensor] = type(part).forward
    if forward not in (nn.Sequential.forward, InOrder.forward):
        return forward(part, input)
    x, waiting, before = input, None, None
    for layer in _layers(part):
        if waiting is not None and _takes_any_order(layer) and _is_unwatched(layer):
            if isinstance(layer, nn.MaxPool2d) and _halves(layer, x):
                x = max_pool_2x2(x, relu=True)
            else:
                # A ReLU would keep its answer, which then nobody could work on in place, as on
                # that of a pooling; this one keeps what it is given.
                x = F.threshold(layer(x), 0, 0)
            waiting, before = None, layer
            continue
        if waiting is not None:
            x, waiting = waiting(x), None
        if _can_wait(layer, before):
            waiting = layer
        else:
            x = layer(x)
        before = layer
    return x if waiting is None else waiting(x)


def _layers(part: nn.Sequential | InOrder) -> Iterator[nn.Module]:
    """The layers of a row, and of the rows in it."""
    row: Iterable[nn.Module] = part if isinstance(part, nn.Sequential) else part.in_order()
    for layer in row:
        own = vars(layer).get("forward")
        if own is not None and _is_ours(own) and own.func is _run and _is_unwatched(layer):
            yield from _layers(layer)  # type: ignore[arg-type]
        else:
            yield layer


def _can_wait(layer: nn.Module, before: nn.Module | None) -> bool:
    """Whether it is a ReLU of which nobody notices when it runs. One in place changes what it is
    given: that must have been made for it alone."""
    if type(layer) is not nn.ReLU or not _is_unwatched(layer):
        return False
    alone = before is not None and type(before) in _MAKERS and _is_unwatched(before)
    return alone or not layer.inplace


def _takes_any_order(layer: nn.Module) -> bool:
    """Whether it picks the greatest of each window, of which none is empty: a stretched window may
    hold padding alone, −∞, which a ReLU behind it would make 0."""
    if type(layer) in _ADAPTIVE_POOLS:
        return not layer.return_indices
    if type(layer) not in _POOLS:
        return False
    return not layer.return_indices and layer.dilation in (1, (1,), (1, 1), (1, 1, 1))


def _is_unwatched(layer: nn.Module) -> bool:
    """Whether it has neither hooks nor a `forward` that somebody gave it."""
    own = vars(layer).get("forward")
    return (own is None or _is_ours(own)) and not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def _is_ours(forward: Any) -> TypeGuard[partial[Tensor]]:
    return isinstance(forward, partial) and forward.func in (_run, *_FORWARDS.values())


_FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Conv2d: _convolve,
    nn.MaxPool2d: _pool,
}
"""What takes the place of a layer's `forward`."""
