"""Size formulas with their numbers: why an output is as large as it is. Floor 1, room analysis.

Standard library and this room. Every formula is worked out and compared with the shape that was
recorded; one that does not give that shape is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog.analysis.graph import Ref, refs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from neocog.analysis.graph import Graph, Node

__all__ = ["Window", "axis_names", "listed", "shape_text", "sizes", "windows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How an operation reads one axis of a picture."""

    size: int
    """Positions that come in."""
    out: int
    """Positions that come out, as recorded."""
    kernel: int
    """Positions that one window covers, without the gaps of dilation."""
    stride: int = 1
    """Positions from one window to the next; of a transposed convolution, in the output."""
    padding: int = 0
    """On each side."""
    dilation: int = 1
    """Positions from one tap of the kernel to the next."""
    extra: int = 0
    """Output padding of a transposed convolution."""
    transposed: bool = False
    """A transposed convolution."""
    ceil: bool = False
    """Pooling that also takes a last window that is not full."""


GENERAL = "⌊(n + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1"
CEIL = "⌈(n + 2·padding − dilation·(kernel − 1) − 1) / stride⌉ + 1"
TRANSPOSED = (
    "(n − 1)·stride − 2·padding + dilation·(kernel − 1) + output padding + 1"  # also 1D and 3D
)


def axis_names(count: int) -> tuple[str, ...]:
    """What the axes of sound, pictures and volumes are called.

    >>> axis_names(2)
    ('height', 'width')
    """
    if count > 3:
        return tuple(f"axis {at}" for at in range(count))
    return ("length",) if count == 1 else ("depth", "height", "width")[-count:]


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def shape_text(shape: Iterable[int]) -> str:
    """`1×64×56×56`."""
    return "×".join(str(size) for size in shape) or "one number"


def windows(graph: Graph, node: Node) -> tuple[Window, ...] | None:
    """How a convolution or pooling reads each axis; None for what has no windows."""
    if node.op == "convolution":
        return _convolution(graph, node)
    if node.op.startswith(("max_pool", "avg_pool")):
        return _pooling(graph, node)
    if "adaptive" in node.op:
        return _even(graph, node)
    return None


def _argument(node: Node, position: int, name: str, default: Any) -> Any:
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name, default)


def _each(value: Any, count: int) -> list[Any]:
    """One number stands for all axes."""
    found = list(value) if isinstance(value, list | tuple) else [value]
    return found * count if len(found) == 1 else found


def _shape(graph: Graph, argument: Any) -> tuple[int, ...]:
    return graph.values[argument.value].shape if isinstance(argument, Ref) else ()


def _convolution(graph: Graph, node: Node) -> tuple[Window, ...]:
    kernel = _shape(graph, node.args[1])[2:]
    count = len(kernel)
    stride, padding, dilation, extra = (_each(node.args[at], count) for at in (3, 4, 5, 7))
    size = _shape(graph, node.args[0])[-count:]
    out = graph.values[node.outputs[0]].shape[-count:]
    return tuple(
        Window(
            size=size[at],
            out=out[at],
            kernel=kernel[at],
            stride=stride[at],
            padding=padding[at],
            dilation=dilation[at],
            extra=extra[at],
            transposed=bool(node.args[6]),
        )
        for at in range(count)
    )


def _pooling(graph: Graph, node: Node) -> tuple[Window, ...]:
    count = int(node.op[len("max_pool")])
    kernel = _each(_argument(node, 1, "kernel_size", 1), count)
    stride = _each(_argument(node, 2, "stride", None) or kernel, count)
    padding = _each(_argument(node, 3, "padding", 0), count)
    largest = node.op.startswith("max")
    dilation = _each(_argument(node, 4, "dilation", 1) if largest else 1, count)
    ceil = bool(_argument(node, 5 if largest else 4, "ceil_mode", False))
    size = _shape(graph, node.args[0])[-count:]
    out = graph.values[node.outputs[0]].shape[-count:]
    return tuple(
        Window(
            size=size[at],
            out=out[at],
            kernel=kernel[at],
            stride=stride[at],
            padding=padding[at],
            dilation=dilation[at],
            ceil=ceil,
        )
        for at in range(count)
    )


def _even(graph: Graph, node: Node) -> tuple[Window, ...] | None:
    """Adaptive pooling whose windows are all of one size and do not overlap."""
    count = len(_each(node.args[1], 1))
    before = _shape(graph, node.args[0])[-count:]
    after = graph.values[node.outputs[0]].shape[-count:]
    sides = list(zip(before, after, strict=True))
    if any(size % out for size, out in sides):
        return None
    return tuple(
        Window(size=size, out=out, kernel=size // out, stride=size // out) for size, out in sides
    )


# -- formulas -------------------------------------------------------------------------------------


def sizes(graph: Graph, node: Node, axes: int) -> list[str]:
    """The size formula of an operation and its numbers, one line for axes that are alike.

    Args:
        graph: where it ran.
        node: the operation.
        axes: of the picture that the layer returns; pooling of sound runs on pictures of height 1.

    Returns:
        No lines where the operation has no formula, or where it would not give what was recorded.
    """
    if "adaptive" in node.op:
        return _adaptive(graph, node, axes)
    found = windows(graph, node)
    if found is not None:
        return _windowed(found, axes)
    if "upsample" in node.op:
        return _scaled(graph, node, axes)
    if node.op == "constant_pad_nd" or node.op.startswith(("reflection_pad", "replication_pad")):
        return _padded(graph, node)
    rule = _OTHERS.get(node.op.rstrip("_"))
    return rule(graph, node) if rule is not None else []


def _windowed(found: Sequence[Window], axes: int) -> list[str]:
    spare = found[:-axes] if axes else ()
    if spare and all(one.size == one.out == one.kernel == 1 for one in spare):
        found = found[-axes:]
    lines = []
    for one in found:
        text, result = _transposed(one) if one.transposed else _filled(one)
        if result != one.out:
            return []
        lines.append(text)
    first = found[0]
    title = TRANSPOSED if first.transposed else CEIL if first.ceil else GENERAL
    dropped = [one for one in found if one.ceil and _last_is_dropped(one)]
    note = ["a last window that would begin in the padding is left out: − 1"] if dropped else []
    return [f"out = {title}", *_alike(lines), *note]


def _alike(lines: Sequence[str]) -> list[str]:
    """One line for axes with the same numbers, its axes in front."""
    names = axis_names(len(lines))
    same: dict[str, list[str]] = {}
    for name, text in zip(names, lines, strict=True):
        same.setdefault(text, []).append(name)
    heads = [listed(one) for one in same.values()]
    width = max(len(head) for head in heads)
    return [f"{head:<{width}}  {text}" for head, text in zip(heads, same, strict=True)]


def _filled(one: Window) -> tuple[str, int]:
    n, k, s, p, d = one.size, one.kernel, one.stride, one.padding, one.dilation
    top = n + 2 * p - d * (k - 1) - 1
    left, right = "⌈⌉" if one.ceil else "⌊⌋"
    inner = f"{left}({n} + 2·{p} − {d}·({k} − 1) − 1) / {s}{right} + 1"
    result = (-(-top // s) if one.ceil else top // s) + 1
    steps = f"{left}{top} / {s}{right} + 1"
    if one.ceil and _last_is_dropped(one):
        return f"{inner} − 1 = {steps} − 1 = {result - 1}", result - 1
    return f"{inner} = {steps} = {result}", result


def _last_is_dropped(one: Window) -> bool:
    """Whether ceil mode's last window would begin behind the picture, in the padding."""
    top = one.size + 2 * one.padding - one.dilation * (one.kernel - 1) - 1
    return -(-top // one.stride) * one.stride >= one.size + one.padding


def _transposed(one: Window) -> tuple[str, int]:
    n, k, s, p, d = one.size, one.kernel, one.stride, one.padding, one.dilation
    result = (n - 1) * s - 2 * p + d * (k - 1) + one.extra + 1
    return f"({n} − 1)·{s} − 2·{p} + {d}·({k} − 1) + {one.extra} + 1 = {result}", result


def _tails(graph: Graph, node: Node, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of the picture before and after."""
    count = axes or 1
    before, after = _shape(graph, node.args[0]), graph.values[node.outputs[0]].shape
    return before[-count:], after[-count:]


def _adaptive(graph: Graph, node: Node, axes: int) -> list[str]:
    before, after = _tails(graph, node, axes)
    asked = _each(node.args[1], len(after))[-len(after) :]
    if tuple(asked) != after:
        return []
    lines = []
    for n, out in zip(before, after, strict=True):
        if n % out == 0:
            lines.append(f"{out} as asked for; windows of {n} / {out} = {n // out}")
        else:
            lines.append(f"{out} as asked for; windows overlap, as {n} / {out} is no whole number")
    return ["window i runs from ⌊i·n / out⌋ to ⌈(i + 1)·n / out⌉ − 1", *_alike(lines)]


def _scaled(graph: Graph, node: Node, axes: int) -> list[str]:
    before, after = _tails(graph, node, axes)
    factors = [one for one in node.args[2:] if isinstance(one, float)]
    lines = []
    by_factor = len(factors) == len(after)
    for at, (n, out) in enumerate(zip(before, after, strict=True)):
        if by_factor and math.floor(n * factors[at]) == out:
            lines.append(f"⌊{n}·{factors[at]:g}⌋ = {out}")
        else:
            by_factor = False
            lines.append(f"from {n} to {out}, as asked for")
    return [*(["out = ⌊n·scale⌋"] if by_factor else []), *_alike(lines)]


def _padded(graph: Graph, node: Node) -> list[str]:
    sides = list(node.args[1])
    count = len(sides) // 2
    before, after = _tails(graph, node, count)
    if count > 3:
        return []
    lines = []
    for at, (n, out) in enumerate(zip(before, after, strict=True)):
        left, right = sides[2 * (count - 1 - at) : 2 * (count - at)]
        if n + left + right != out:
            return []
        lines.append(f"{n} + {left} + {right} = {out}".replace("+ -", "− "))
    return ["padded = n + padding before + padding behind", *_alike(lines)]


def _product(graph: Graph, node: Node) -> list[str]:
    first = 1 if node.op.startswith(("addmm", "baddbmm")) else 0
    left, right = (_shape(graph, node.args[at]) for at in (first, first + 1))
    if node.op == "linear":
        right = right[::-1]
    out = graph.values[node.outputs[0]].shape
    if left[-1:] != right[-2:-1] or (*left[:-1], right[-1]) != out:
        return []
    return [f"({shape_text(left)})·({shape_text(right)}) = {shape_text(out)}"]


def _cat(graph: Graph, node: Node) -> list[str]:
    parts = [graph.values[index].shape for index in refs((node.args[0],))]
    parts = [shape for shape in parts if shape != (0,)]
    out = graph.values[node.outputs[0]].shape
    dim = _argument(node, 1, "dim", 0) % len(out)
    if sum(shape[dim] for shape in parts) != out[dim]:
        return []
    name = {0: "batch", 1: "channels"}.get(dim) or axis_names(max(1, len(out) - 2))[min(dim - 2, 2)]
    return [f"{name}  {' + '.join(str(shape[dim]) for shape in parts)} = {out[dim]}"]


def _reduced(graph: Graph, node: Node) -> list[str]:
    """Means and sums over axes of a picture."""
    before = _shape(graph, node.args[0])
    given = _argument(node, 1, "dim", None)
    if given in (None, [], ()) or not before:
        return []
    dims = sorted(dim % len(before) for dim in _each(given, 1))
    count = math.prod(before[dim] for dim in dims)
    out = graph.values[node.outputs[0]].shape
    if count * math.prod(out) != math.prod(before):
        return []
    terms = "·".join(str(before[dim]) for dim in dims)
    numbers = f"{terms} = {count}" if len(dims) > 1 else terms
    return [f"{numbers} numbers become one: {shape_text(before)} → {shape_text(out)}"]


def _shuffled(graph: Graph, node: Node) -> list[str]:
    before, factor = _shape(graph, node.args[0]), node.args[1]
    channels, height, width = before[-3:]
    out = graph.values[node.outputs[0]].shape[-3:]
    if out != (channels // factor**2, height * factor, width * factor):
        return []
    return [
        f"channels  {channels} / {factor}² = {out[0]}",
        f"height    {height}·{factor} = {out[1]}",
        f"width     {width}·{factor} = {out[2]}",
    ]


_OTHERS = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "linear"), _product),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduced),
    "cat": _cat,
    "pixel_shuffle": _shuffled,
}
