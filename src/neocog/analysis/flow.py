"""What leads nowhere in a network, or carries weight in vain. Floor 1, room analysis.

Standard library and this room. Every function takes a `Subject` and gives its remarks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neocog.analysis.formulas import listed
from neocog.analysis.graph import Ref
from neocog.analysis.remark import Remark, Subject, times

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from neocog.analysis.graph import Node
    from neocog.analysis.summary import Layer

__all__ = ["dead_ends", "heavy", "idle", "misaligned", "useless_bias"]

WORTH = 100_000
"""Parameters below which a linear layer behind a pooled picture is not worth a word."""

_LINEAR = ("addmm", "mm", "linear")


# -- dead ends ------------------------------------------------------------------------------------


def dead_ends(subject: Subject) -> Iterator[Remark]:
    """Layers whose answers reach no output, one remark for those that hang together."""
    dead = [one for one in subject.layers if not subject.alive & set(one.nodes)]
    for branch in _branches(dead):
        ends = [one for one in branch if not any(one.name in other.before for other in branch)]
        names = listed([one.name for one in ends[:3]])
        parameters = sum(one.parameters for one in branch)
        macs = sum(one.macs for one in branch)
        count = f"{len(branch)} layers" if len(branch) > 1 else "the layer"
        work = f"{parameters:,} parameters and {macs:,} multiply-accumulates"
        yield Remark(
            code="dead-end",
            layer=ends[-1].name,
            sentence=f"what {names} {'answer' if len(ends) > 1 else 'answers'} reaches no output:"
            f" {count} with {work} in vain",
            remedy="join it to the rest, or leave it out",
        )


def _branches(dead: Sequence[Layer]) -> list[list[Layer]]:
    """Dead layers that read from one another, in the order of running."""
    branches: list[list[Layer]] = []
    for layer in dead:
        near = [one for one in branches if any(other.name in layer.before for other in one)]
        branches = [one for one in branches if not any(one is other for other in near)]
        branches.append([*(other for one in near for other in one), layer])
    return branches


def idle(subject: Subject, trained: Collection[str] = ()) -> Iterator[Remark]:
    """Parameters that nothing reads, one remark for each part of the network that is idle."""
    values = subject.graph.values
    read = {values[index].name for index in subject.readers if values[index].kind == "parameter"}
    names = [one for one in subject.graph.parameters if one not in read and one not in trained]
    for part, inside in _parts(names, [*read, *trained]).items():
        count = sum(math.prod(subject.graph.parameters[one]) for one in inside)
        short = listed([one.removeprefix(f"{part}.") for one in inside])
        what = short if len(inside) <= 3 else f"{len(inside)} parameters"
        of = f" of {part}" if part and part != short else ""
        yield Remark(
            code="idle",
            layer=part,
            sentence=f"{what}{of} ({count:,} {'number' if count == 1 else 'numbers'}) take no part"
            " in the answer: no operation reads them",
            remedy="use them in forward or leave them out; heads for training alone may stay",
        )


def _parts(names: Iterable[str], others: Sequence[str]) -> dict[str, list[str]]:
    """Names by the largest module all of whose parameters are among them."""
    busy = {""}
    for name in others:
        parts = name.split(".")
        busy |= {".".join(parts[:count]) for count in range(1, len(parts))}
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        modules = [".".join(parts[:count]) for count in range(1, len(parts))]
        # A parameter of a module that is otherwise in use stands for itself.
        part = next((one for one in modules if one not in busy), name)
        found.setdefault(part, []).append(name)
    return found


# -- weight in vain -------------------------------------------------------------------------------


def heavy(subject: Subject) -> Iterator[Remark]:
    """A linear layer with more parameters than all the rest of a convolutional network."""
    total = subject.graph.parameter_count
    if not any(node.op == "convolution" for node in subject.graph.nodes):
        return
    for layer in subject.layers:
        working = [subject.graph.nodes[at] for at in layer.nodes]
        products = [node for node in working if node.op in _LINEAR]
        if 2 * layer.parameters <= total or len(products) != 1 or not layer.inputs:
            continue
        rest = total - layer.parameters
        sentence = (
            f"{layer.name} ({layer.kind}) has {layer.parameters:,} parameters, all the rest"
            f" {rest:,}"
        )
        flat = _flattened(subject, layer)
        if flat is not None:
            name, shape = flat
            yield Remark(
                code="heavy-linear",
                layer=layer.name,
                sentence=f"{sentence}: {name} makes {times(shape[1:])} ="
                f" {math.prod(shape[1:]):,} inputs of the map",
                remedy=f"global average pooling in place of {name} leaves {shape[1]:,} inputs",
            )
        elif layer.parameters > WORTH:
            yield Remark(
                code="heavy-linear",
                layer=layer.name,
                sentence=f"{sentence}: {times(layer.shape[1:])} outputs of"
                f" {subject.graph.values[layer.inputs[0]].shape[-1]:,} inputs",
                remedy="a narrower layer before it, or fewer outputs",
            )


def _flattened(subject: Subject, layer: Layer) -> tuple[str, tuple[int, ...]] | None:
    """Where a map with several positions became one row for a linear layer: name and shape."""
    value = layer.inputs[0]
    width = subject.graph.values[value].shape[-1]
    # What answers for every position (the linear layers of a transformer) has flattened none.
    if subject.fields.of(layer.output) is not None:
        return None
    while value in subject.producers:
        node = subject.graph.nodes[subject.producers[value]]
        tensors = [index for index in node.inputs if subject.fields.reached(index)]
        if len(tensors) != 1 or not (node.view or node.pointwise or "dropout" in node.op):
            return None
        before = subject.graph.values[tensors[0]].shape
        after = subject.graph.values[value].shape
        spread = math.prod(before[2:]) > 1 and math.prod(before[1:]) == width
        if len(before) > len(after) and spread:
            own = subject.layer_of.get(node.index)
            at = f"the flattening at {node.source}" if node.source else "the flattening"
            return (own.name if own is not None else at), before
        value = tensors[0]
    return None


def useless_bias(subject: Subject) -> Iterator[Remark]:
    """A bias that batch norm takes away again with the mean (Ioffe, Szegedy 2015, section 3.2)."""
    found = [node for node in subject.graph.nodes if _has_useless_bias(subject, node)]
    layers = {layer.name: layer for node in found if (layer := subject.layer_of.get(node.index))}
    if not layers:
        return
    count = sum(math.prod(subject.shape(_bias(node))) for node in found)
    first, more = found[0], subject.others(found)
    yield Remark(
        code="useless-bias",
        layer=subject.place(first),
        sentence=f"{subject.called(first)} adds a bias, and the batch norm behind it takes it away"
        f" with the mean{more}: {count:,} parameters in vain",
        remedy="bias=False",
    )


def _bias(node: Node) -> Ref | None:
    """The bias of a convolution or linear layer."""
    at = {"convolution": 2, "addmm": 0, "linear": 2}.get(node.op)
    given = node.args[at] if at is not None and at < len(node.args) else None
    return given if isinstance(given, Ref) else None


def _has_useless_bias(subject: Subject, node: Node) -> bool:
    bias = _bias(node)
    if bias is None or subject.graph.values[bias.value].kind != "parameter":
        return False
    readers = subject.readers.get(node.outputs[0], ())
    return (
        bool(readers)
        and node.outputs[0] not in subject.graph.outputs
        and all("batch_norm" in one.op for one in readers)
    )


# -- branches -------------------------------------------------------------------------------------


def misaligned(subject: Subject) -> Iterator[Remark]:
    """Branches with different jumps that are joined: one position means two places."""
    for node in subject.graph.nodes:
        if not node.outputs or node.index not in subject.alive:
            continue
        after = subject.fields.of(node.outputs[0])
        known = {index: field for index in node.inputs if (field := subject.fields.of(index))}
        if after is None or after[0].aligned or not all(one[0].aligned for one in known.values()):
            continue
        jumps = list(
            dict.fromkeys(
                _by([f"{float(axis.jump):.4g}" for axis in one]) for one in known.values()
            )
        )
        sizes = times(subject.graph.values[node.outputs[0]].shape[2:])
        yield Remark(
            code="misaligned",
            layer=subject.place(node),
            sentence=f"{subject.called(node)} joins branches with {listed(jumps)} pixels from one"
            f" position to the next, both on {sizes} positions: they drift apart",
            remedy="give all branches the same strides, kernels and paddings; scale by a whole"
            " factor and crop or pad, rather than resize to a size",
        )


def _by(jumps: Sequence[str]) -> str:
    return jumps[0] if len(set(jumps)) == 1 else "×".join(jumps)
