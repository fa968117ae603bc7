"""Whether a network fits the size of its pictures. Floor 1, room analysis.

Floor 0, NumPy and this room. Every function takes a `Subject` and gives its remarks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neocog.analysis.formulas import axis_names, listed, windows
from neocog.analysis.remark import Remark, Subject, times
from neocog.analysis.taps import windowed
from neocog.geometry import noun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from neocog.analysis.field import Field
    from neocog.analysis.formulas import Window
    from neocog.analysis.graph import Node

__all__ = ["padded", "short_sighted", "steep", "unread"]

SMALL = 64
"""Pixels along an axis up to which a stem is expected to spare the picture."""
STEEP = 4
"""What a stem divides by that is made for large pictures: the stride-2 convolution and the pooling
of AlexNet, GoogLeNet, ResNet and DenseNet, the stride-4 convolution of ConvNeXt."""

_STATISTICS = ("norm", "var", "std")
_POOLED = frozenset({"mean", "sum", "amax", "amin", "max", "min", "logsumexp", "nansum"})
_PRODUCTS = ("bmm", "baddbmm", "mm")


# -- what is read ---------------------------------------------------------------------------------


def unread(subject: Subject) -> Iterator[Remark]:
    """Rows and columns of a map that no window of any layer behind it reads."""
    for value, readers in subject.readers.items():
        found = [(node, _windows(subject, node)) for node in readers]
        read = [(node, one) for node, one in found if one and not one[0].transposed]
        # Whatever reads without windows (an addition, a flatten) reads everything.
        if len(read) != len(readers) or not read or not subject.fields.reached(value):
            continue
        node, first = read[0]
        if len({len(one) for _, one in read}) > 1 or node.index not in subject.alive:
            continue
        missed = [
            np.logical_and.reduce([_missed(one[axis]) for _, one in read])
            for axis in range(len(first))
        ]
        if any(axis.any() for axis in missed):
            yield _unread(subject, node, first, missed)


def _windows(subject: Subject, node: Node) -> tuple[Window, ...] | None:
    """How an operation reads each axis; pooling of sound runs on pictures of height 1."""
    found = windows(subject.graph, node)
    axes = len(subject.fields.sizes)
    return found[-axes:] if found and axes else found


def _missed(window: Window) -> NDArray[np.bool_]:
    """For each position of an axis whether no window reads it."""
    found = windowed(
        window.size, window.out, window.kernel, window.stride, window.padding, window.dilation
    )
    return ~np.isin(np.arange(window.size), found.clipped)


def _unread(
    subject: Subject, node: Node, found: Sequence[Window], missed: Sequence[NDArray[np.bool_]]
) -> Remark:
    names = {"height": "rows", "width": "columns", "depth": "planes", "length": "positions"}
    counts: dict[tuple[int, int], list[str]] = {}
    for name, axis in zip(axis_names(len(found)), missed, strict=True):
        if axis.any():
            counts.setdefault((int(axis.sum()), len(axis)), []).append(names[name])
    parts = [
        f"{lost} of {size} {listed(axes)} {'is' if lost == 1 else 'are'} never read"
        for (lost, size), axes in counts.items()
    ]
    at_the_end = all(bool(axis[int(axis.argmax()) :].all()) for axis in missed if axis.any())
    remedy = "a kernel at least as large as the stride, and no common factor of stride and dilation"
    if at_the_end:
        needed = max(_short(window) for window in found)
        sizes = times(window.size + _short(window) for window in found)
        remedy = (
            f"pad by {-(-needed // 2)}, let pooling round up (ceil_mode=True), or choose a picture"
            f" whose map here is {sizes}"
        )
    return Remark(
        code="unread",
        layer=subject.place(node),
        sentence=f"{subject.called(node, _window_text(found))}: {', '.join(parts)}",
        remedy=remedy,
    )


def _short(window: Window) -> int:
    """Positions that lack for one more window."""
    reach = window.dilation * (window.kernel - 1) + 1
    rest = (window.size + 2 * window.padding - reach) % window.stride
    return (window.stride - rest) % window.stride


def _window_text(found: Sequence[Window]) -> str:
    """`3×3/2`: kernel and stride."""
    kernel, stride = times(one.kernel for one in found), {one.stride for one in found}
    if stride == {1}:
        return kernel
    return f"{kernel}/{times(one.stride for one in found) if len(stride) > 1 else stride.pop()}"


def padded(subject: Subject) -> Iterator[Remark]:
    """Convolutions on maps smaller than half their kernel: most of what they read is padding."""
    found = [
        (node, one)
        for node in subject.graph.nodes
        if node.op == "convolution"
        and node.index in subject.alive
        and subject.fields.reached(node.outputs[0])
        and (one := _windows(subject, node)) is not None
        and not one[0].transposed
        and any(_is_lost(axis) for axis in one)
    ]
    if not found:
        return
    node, first = found[0]
    inside = math.prod(_inside(axis) for axis in first)
    total = math.prod(axis.out * axis.kernel for axis in first)
    taps = math.prod(axis.kernel for axis in first)
    gone = (total - inside) * taps / total
    share = f"{gone:.3g} of {taps}" if gone == round(gone) else f"on average {gone:.1f} of {taps}"
    dilation = f", dilation {first[0].dilation}" if first[0].dilation > 1 else ""
    more = subject.others([one for one, _ in found])
    yield Remark(
        code="padded",
        layer=subject.place(node),
        sentence=f"{subject.called(node, _window_text(first) + dilation)} runs on a map of"
        f" {times(axis.size for axis in first)}: {share} positions of its kernel lie in the"
        f" padding{more}",
        remedy="larger pictures, fewer strides before it, or a smaller kernel",
    )


def _is_lost(window: Window) -> bool:
    """Whether the kernel is more than twice as long as the map, and padding makes up for it."""
    reach = window.dilation * (window.kernel - 1) + 1
    return window.padding > 0 and window.kernel > 1 and 2 * window.size < reach


def _inside(window: Window) -> int:
    """Taps along an axis, over all windows, that read the map itself."""
    found = windowed(
        window.size, window.out, window.kernel, window.stride, window.padding, window.dilation
    )
    return int((found.clipped >= 0).sum())


# -- what is seen ---------------------------------------------------------------------------------


def short_sighted(subject: Subject, objects: Sequence[int] = ()) -> Iterator[Remark]:
    """The receptive field is smaller than the picture, or than the objects in it.

    Nothing is said where the network weighs all positions against each other: by linear layers on
    flattened maps, attention, or gates (squeeze-excitation). A norm's statistics are none of these.
    """
    sizes = subject.fields.sizes
    windows = [node for node in subject.graph.nodes if node.op == "convolution"]
    if not sizes or len(windows) < 2:  # a layer by itself is meant to see a window
        return
    mixers, ends = _mixing(subject)
    if mixers:
        return
    averaged = [end for end in ends if end.op in _POOLED or "pool" in end.op]
    if len(averaged) < len(ends):
        return
    given: list[tuple[int, Node | None]]
    given = [(index, end) for end in averaged for index in end.inputs]
    given += [(index, None) for index in subject.graph.outputs]
    known = [(field, end) for index, end in given if (field := subject.fields.of(index))]
    if not known:
        return
    field, end = max(known, key=lambda one: math.prod(axis.size for axis in one[0]))
    seen = [axis.size for axis in field]
    wanted = tuple(objects) or sizes
    if all(one >= need for one, need in zip(seen, wanted, strict=True)):
        return
    yield _short_sighted(subject, field, end, tuple(objects))


def _short_sighted(
    subject: Subject, field: Sequence[Field], end: Node | None, objects: tuple[int, ...]
) -> Remark:
    own, picture = times(axis.size for axis in field), times(subject.fields.sizes)
    unit = "pixels" if len(field) == 2 else "positions"
    sample = noun(subject.fields.sizes)
    whole = f"an object of {times(objects)}" if objects else f"the whole {sample}"
    deepen = "deepen it, use stride, pooling or dilation early, or add global context"
    if end is None:
        sentence = f"an output sees {own} of {picture} {unit}: none is decided from {whole}"
        remedy = f"{deepen} (squeeze-excitation, a pooled branch), if that context matters"
    else:
        name = subject.place(end)
        sentence = (
            f"the receptive field is {own} of {picture} {unit} before {name} averages over the"
            f" {sample}: nothing in the network sees {whole}, it counts parts"
        )
        remedy = f"{deepen}; where parts tell enough, as for textures, it may stay"
    return Remark(
        code="short-sighted",
        layer="" if end is None else subject.place(end),
        sentence=sentence,
        remedy=remedy,
    )


def _mixing(subject: Subject) -> tuple[bool, list[Node]]:
    """Whether positions learn of the whole picture; and the operations that end all positions."""
    fields, ends = subject.fields, []
    pooled: set[int] = set()  # values that came of something that mixed all positions
    for node in subject.graph.nodes:
        if node.index not in subject.alive or any(word in node.op for word in _STATISTICS):
            pooled.update(node.outputs if pooled & set(node.inputs) else ())
            continue
        placed = [index for index in node.inputs if fields.of(index) is not None]
        after = [index for index in node.outputs if fields.of(index) is not None]
        pairs = node.op in _PRODUCTS and len(placed) > 1
        attention = "scaled_dot_product" in node.op or pairs
        if (pooled & set(node.inputs) or attention) and after:
            return True, []
        if placed and not after:
            ends.append(node)
        if pooled & set(node.inputs) or (placed and not after):
            pooled.update(node.outputs)
    return False, ends


def steep(subject: Subject) -> Iterator[Remark]:
    """A stem for large pictures on small ones: the second convolution reads a quarter of it."""
    sizes = subject.fields.sizes
    if not sizes or max(sizes) > SMALL:
        return
    convolutions = [
        node
        for node in subject.graph.nodes
        if node.op == "convolution" and subject.fields.of(node.inputs[0]) is not None
    ]
    if len(convolutions) < 2:
        return
    first, second = convolutions[:2]
    before = subject.fields.of(second.inputs[0])
    if before is None or min(axis.jump for axis in before) < STEEP:
        return
    reads = subject.shape(second.args[0])[2:]
    jumps = [str(axis.jump) for axis in before]
    by = jumps[0] if len(set(jumps)) == 1 else "×".join(jumps)
    yield Remark(
        code="steep-stem",
        layer=subject.place(first),
        sentence=f"the stem divides {times(sizes)} by {by} before the first block:"
        f" {subject.place(second)} reads {times(reads)} positions",
        remedy=f"a first convolution of {times([3] * len(sizes))} with stride 1 and no"
        f" pooling behind it keeps {times(sizes)}; or enlarge the pictures",
    )
