"""The derivative of a weight as a formula, with the numbers of the given picture below it. Floor 1,
explain; imports torch and `analysis`.

For chains: networks in which one path leads from the weight to the loss, through linear layers,
convolutions, activations, norms in use, pooling and a softmax with cross-entropy or a squared
error. Perceptrons get one line and the terms that it consists of; convolutions the recursion of δ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neocog.analysis.graph import Ref
from neocog.explain.chain.local import pulled_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from neocog.analysis.graph import Node
    from neocog.explain.chain.paths import WeightPaths

__all__ = ["Formula", "formula"]

_LETTERS = "mnopqrstuvw"

_ACTIVATIONS = {
    "relu": "1[{z} > 0]",
    "sigmoid": "σ({z})·(1 − σ({z}))",
    "tanh": "(1 − tanh²({z}))",
}
"""Derivatives that have a short form; others are written f′(z)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A derivative written out."""

    lines: tuple[str, ...]
    """The formula; numbers stand below their factors."""
    legend: tuple[str, ...]
    """What the letters stand for."""
    terms: tuple[tuple[str, float], ...]
    """The products that it consists of, each with its value; none where they are too many."""


@dataclass(frozen=True, slots=True)
class _Link:
    """One operation of the chain, from what it reads to what it makes."""

    kind: str
    """`linear`, `conv`, `pointwise`, `norm`, `max`, `mean`, `reshape`, `entropy` or `squares`."""
    node: Node
    before: int
    """Value read."""
    after: int
    """Value made."""
    layer: str
    number: int
    """Of z: how many layers with weights of the chain there are up to here."""
    reads: str = ""
    """What it reads, as a letter: `z1` of a layer, `n1` of a norm, `a1` of an activation."""


def formula(found: WeightPaths, *, terms: int = 64) -> Formula | None:
    """The derivative of the weight's element in symbols and numbers.

    Args:
        found: of `weight_paths`, for one picture.
        terms: up to how many products are written one by one.

    Returns:
        None where it is too long to write out: several paths, several pictures, or an operation
        that is none of those above.
    """
    chain = _chain(found)
    if chain is None or found.count != 1:
        return None
    first, *rest = chain
    tensors = found.recording.tensors
    if any(tensors[link.after].shape[:1] != (1,) for link in chain if link.kind in _LAYERS):
        return None
    flat = all(tensors[link.after].dim() == 2 for link in chain if link.kind in _LAYERS)
    if flat and first.kind == "linear" and all(link.kind not in ("max", "mean") for link in rest):
        return _perceptron(found, first, rest, terms)
    return _recursion(found, first, rest)


_MADE = {"linear": "z", "conv": "z", "norm": "n", "pointwise": "a", "max": "a", "mean": "a"}
"""The letter of what a link makes."""

_LAYERS = ("linear", "conv", "norm", "pointwise")


# -- the chain ------------------------------------------------------------------------------------


def _chain(found: WeightPaths) -> list[_Link] | None:
    """The operations from the layer with the weight to the loss."""
    names, graph = found.names, found.recording.graph
    links: list[_Link] = []
    number, reads = 0, ""
    looks = {found.routes.start}
    for edge in found.routes.edges:
        node = graph.nodes[edge.node]
        if edge.source in looks and node.op == "t":
            looks.add(edge.target)
            continue
        kind = _kind(found, node, edge.source) if links else _first(node, looks, found.routes.start)
        if kind is None:
            return None
        number += kind in ("linear", "conv")
        name = names.of(edge.node)
        links.append(_Link(kind, node, edge.source, edge.target, name, number, reads))
        reads = f"{_MADE[kind]}{number}" if kind in _MADE else reads
    return _ended(found, links)


def _ended(found: WeightPaths, links: list[_Link]) -> list[_Link] | None:
    """The same where the loss is one that is known: log-softmax and its mean are one link."""
    kinds = [link.kind for link in links]
    if kinds[-2:] == ["logs", "entropy"]:
        last = links[-1]
        target = found.recording.tensors[last.node.inputs[1]]
        if last.node.args[2] is not None or target.numel() != 1:
            return None
        joined = _Link("entropy", last.node, links[-2].before, last.after, "loss", links[-2].number)
        return [*links[:-2], joined] if "logs" not in kinds[:-2] else None
    ends = kinds[-1:] == ["squares"] and "squares" not in kinds[:-1]
    return links if ends and not {"logs", "entropy"} & set(kinds) else None


def _first(node: Node, looks: set[int], start: int) -> str | None:
    """The same of the operation that reads the weight itself; x Wᵀ, not x W."""
    reads = [arg.value if isinstance(arg, Ref) else -1 for arg in node.args]
    if node.op == "convolution" and start in reads[1:3] and _plain(node):
        return "conv"
    if node.op == "addmm" and (reads[0] == start or reads[2] in looks - {start}):
        return "linear"
    return "linear" if node.op == "mm" and reads[1] in looks - {start} else None


def _plain(node: Node) -> bool:
    """Whether a convolution is one of pictures, not transposed and not grouped."""
    return not node.args[6] and node.args[8] == 1 and len(node.args[3]) == 2


def _kind(found: WeightPaths, node: Node, source: int) -> str | None:
    """What sort of link an operation is; None: not one that is written out here."""
    op = node.op.rstrip("_")
    values = found.recording.graph.values
    reads = [arg.value for arg in node.args if isinstance(arg, Ref)]
    alike = {"_log_softmax": "logs", "nll_loss_forward": "entropy", "mse_loss": "squares"}
    if op == "convolution":
        return "conv" if _plain(node) and source == reads[0] else None
    if op in ("addmm", "mm"):
        return "linear" if source == reads[op == "addmm"] else None
    if op == "native_batch_norm":
        return "norm" if source == reads[0] and not node.args[5] else None
    if op in ("view", "_unsafe_view", "squeeze", "unsqueeze"):
        return "reshape"
    if op == "max_pool2d_with_indices":
        return "max"
    if op == "mean" and values[node.inputs[0]].shape[:2] == values[node.outputs[0]].shape[:2]:
        return "mean"
    if op in alike:
        return alike[op]
    moves = op in ("add", "sub", "mul", "div", "clone", "copy")
    return "pointwise" if node.pointwise and len(reads) == 1 and not moves else None


# -- perceptrons ----------------------------------------------------------------------------------


def _slope(found: WeightPaths, link: _Link) -> Tensor:
    """The derivative of a pointwise operation or a norm, element by element."""
    ones = {link.after: torch.ones_like(found.recording.tensors[link.after])}
    return pulled_back(found.recording, link.node, ones, {link.before})[link.before]


def _matrix(found: WeightPaths, link: _Link) -> tuple[str, Tensor]:
    """Name and numbers of a linear layer's weights, K×N."""
    turned = link.node.args[2 if link.node.op == "addmm" else 1].value
    made = found.recording.graph.producers().get(turned)
    own = found.recording.graph.nodes[made].inputs[0] if made is not None else turned
    tensor = found.recording.tensors[turned].t()
    learnt = found.recording.graph.values[own].kind == "parameter"
    return found.names.value(own) if learnt else f"{link.layer} weight", tensor


def _symbol(link: _Link, index: object) -> str:
    """The slope of an activation or norm at an element."""
    if link.kind == "norm":
        return f"γ{link.number}[{index}]/√(σ²{link.number}[{index}] + ε)"
    form = _ACTIVATIONS.get(link.node.op.rstrip("_"), f"{link.node.op.strip('_')}′({{z}})")
    return form.format(z=f"{link.reads}[{index}]")


def _error(found: WeightPaths, link: _Link, index: object) -> str:
    """The derivative of the loss with respect to what it is given."""
    if link.kind == "entropy":
        return f"(p[{index}] − y[{index}])"
    shape = found.recording.tensors[link.before].shape
    mean = len(link.node.args) < 3 or link.node.args[2] == 1
    count = math.prod(shape) if mean else 1
    factor = "2" if count == 1 else f"2/{count}"
    return f"{factor}·(ŷ[{index}] − y[{index}])"


def _perceptron(
    found: WeightPaths, first: _Link, rest: Sequence[_Link], limit: int
) -> Formula | None:
    """One line, factor by factor; behind the first layer with several units a sum."""
    index = found.index[0]
    text, value = _start(found, first)
    factors: list[tuple[str, str]] = [(text, _number(value))] if text else []
    for at, link in enumerate(rest):
        delta = found.deltas[link.before]
        if link.kind == "linear":
            name, matrix = _matrix(found, link)
            if matrix.shape[0] > 1:
                text = _summed(found, rest[at:], index)
                factors.append((text, _number(float(delta.flatten()[index]))))
                break
            factors.append((f"{name}[0,{index}]", _number(float(matrix[0, index]))))
            index = 0
        elif link.kind in ("entropy", "squares"):
            text = _error(found, link, index)
            factors.append((text, _number(float(delta.flatten()[index]))))
        elif link.kind != "reshape":
            slope = float(_slope(found, link).flatten()[index])
            factors.append((_symbol(link, index), _number(slope)))
    head = f"∂L/∂{found.weight}[{','.join(map(str, found.index))}]"
    lines = _below(head, _number(found.derivative), factors)
    terms = _terms(found, [first, *rest], limit)
    return Formula(lines=lines, legend=_legend(found, first, rest), terms=terms)


def _summed(found: WeightPaths, links: Sequence[_Link], index: object) -> str:
    """What follows as nested sums: `Σ_m fc2.weight[m,2] · (p[m] − y[m])`."""
    parts: list[str] = []
    letters = iter(_LETTERS)
    for link in links:
        if link.kind == "linear":
            letter = next(letters, "…")
            name, _ = _matrix(found, link)
            parts.append(f"Σ_{letter} {name}[{letter},{index}]")
            index = letter
        elif link.kind in ("entropy", "squares"):
            parts.append(_error(found, link, index))
        elif link.kind != "reshape":
            parts.append(_symbol(link, index))
    return " · ".join(parts)


def _terms(found: WeightPaths, links: Sequence[_Link], limit: int) -> tuple[tuple[str, float], ...]:
    """Every product of the sum: one for each way through the units."""
    widths = [
        found.recording.tensors[link.after].shape[1] for link in links[1:] if link.kind == "linear"
    ]
    if math.prod(widths) > limit:
        return ()
    ways: list[tuple[str, float, int]] = [(*_start(found, links[0]), found.index[0])]
    for link in links[1:]:
        if link.kind == "linear":
            name, matrix = _matrix(found, link)
            ways = [
                (f"{text} · {name}[{to},{at}]", value * float(matrix[to, at]), to)
                for text, value, at in ways
                for to in range(matrix.shape[0])
            ]
        elif link.kind in ("entropy", "squares"):
            ends = found.deltas[link.before].flatten()
            ways = [
                (f"{text} · {_error(found, link, at)}", value * float(ends[at]), at)
                for text, value, at in ways
            ]
        elif link.kind != "reshape":
            slope = _slope(found, link).flatten()
            ways = [
                (f"{text} · {_symbol(link, at)}", value * float(slope[at]), at)
                for text, value, at in ways
            ]
    return tuple((text.removeprefix(" · "), value) for text, value, _ in ways)


def _start(found: WeightPaths, first: _Link) -> tuple[str, float]:
    """What the weight is multiplied with: an element of the input; nothing for a bias."""
    if len(found.index) == 1:
        return "", 1.0
    read = found.index[1]
    given = found.recording.tensors[first.node.inputs[1 if first.node.op == "addmm" else 0]]
    return f"{'x' if _reads_input(found, first) else 'a'}[{read}]", float(given[0, read])


def _reads_input(found: WeightPaths, link: _Link) -> bool:
    """Whether a layer reads the network's input, at most reshaped."""
    graph = found.recording.graph
    producers = graph.producers()
    at = link.node.inputs[1 if link.node.op == "addmm" else 0]
    while at in producers and graph.nodes[producers[at]].view:
        at = graph.nodes[producers[at]].inputs[0]
    return at in graph.inputs


def _legend(found: WeightPaths, first: _Link, rest: Sequence[_Link]) -> tuple[str, ...]:
    """What the letters stand for, in this network."""
    read = "the input as a row" if _reads_input(found, first) else f"what {first.layer} is given"
    lines = [f"{'x' if _reads_input(found, first) else 'a'}: {read}"]
    lines = lines if len(found.index) > 1 else []
    return (*lines, *_made(first, rest))


def _made(first: _Link, rest: Sequence[_Link]) -> list[str]:
    """The letters of what layers and norms answer, and those of the loss."""
    lines = [
        f"z{link.number}: what {link.layer} answers"
        for link in (first, *rest)
        if link.kind in ("linear", "conv")
    ]
    if any(link.kind == "norm" for link in rest):
        lines.append("n: z behind its norm, of scale γ, running variance σ² and constant ε")
    if rest and rest[-1].kind == "entropy":
        lines.append("p: softmax of the answer; y: 1 for the true class, 0 for the others")
    if rest and rest[-1].kind == "squares":
        lines.append("ŷ: the answer; y: what it should be")
    return lines


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _below(head: str, value: str, factors: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Factors in one line, their numbers centred below; too wide a line goes on in the next."""
    lines: list[str] = []
    top, low = f"{head} = ", f"{value:>{len(head)}} = "
    for at, (text, number) in enumerate(factors):
        width = max(len(text), len(number))
        joint = " · " if at else ""
        if len(top) + len(joint) + width > 96 and at:
            lines += [top.rstrip(), low.rstrip()]
            top, low = " " * 4 + "· ", " " * 4 + "· "
            joint = ""
        top += f"{joint}{text:^{width}}"
        low += f"{joint}{number:^{width}}"
    return (*lines, top.rstrip(), low.rstrip())


# -- convolutions ---------------------------------------------------------------------------------


def _recursion(found: WeightPaths, first: _Link, rest: Sequence[_Link]) -> Formula | None:
    """The sum over positions, and δ layer by layer down to the loss."""
    if not found.uses:
        return None
    index = ",".join(map(str, found.index))
    head = f"∂L/∂{found.weight}[{index}]"
    sum_of = found.uses[0].formula.replace("[b, ", "[").replace("[b,", "[").replace("Σ_b,", "Σ_")
    sum_of = sum_of.removeprefix("Σ_b ").replace("δ[", "δ1[")
    lines = [
        f"{head} = {sum_of}",
        f"{_number(found.derivative):>{len(head)}}",
        f"{'':4}δ1 = ∂L/∂z1: {_spread(found.deltas[first.after])}",
    ]
    for number, link in enumerate(rest, start=1):
        now, then = f"δ{number}", f"δ{number + 1}"
        lines.append(_relation(found, link, now, then))
        if link.kind not in ("entropy", "squares"):
            lines.append(f"{'':4}{then}: {_spread(found.deltas[link.after])}")
    letters = ", ".join("kcij"[: len(found.index)] if len(found.index) != 2 else "ki")
    places = ", ".join(map(str, found.index))
    given = "the network's" if _reads_input(found, first) else f"what {first.layer} is given"
    own = [f"{letters} = {places}; input: {given}"] if len(found.index) > 1 else [f"k = {places}"]
    return Formula(lines=tuple(lines), legend=(*own, *_made(first, rest)), terms=())


def _spread(delta: Tensor) -> str:
    """How much of a δ there is."""
    count = int(delta.count_nonzero())
    return f"{count} of {delta.numel()} not zero, largest {_number(float(delta.abs().max()))}"


def _relation(found: WeightPaths, link: _Link, now: str, then: str) -> str:
    """One line of the recursion: δ before an operation, from δ behind it."""
    if link.kind == "linear":
        name, _ = _matrix(found, link)
        return f"{now}[n] = Σ_m {name}[m,n] · {then}[m]"
    if link.kind == "conv":
        name = found.names.value(link.node.inputs[1])
        stride, padding, dilation = (tuple(link.node.args[at]) for at in (3, 4, 5))
        rows = _met("y", "i", stride[0], padding[0], dilation[0])
        columns = _met("x", "j", stride[-1], padding[-1], dilation[-1])
        whole = ", where these are whole" if max(stride) > 1 else ""
        return f"{now}[n,y,x] = Σ_m,i,j {name}[m,n,i,j] · {then}[m, {rows}, {columns}]{whole}"
    if link.kind == "max":
        return f"{now}[n,y,x] = Σ {then}[n] of the windows whose largest it is  ({link.layer})"
    if link.kind == "mean":
        sizes = [found.recording.tensors[one].numel() for one in (link.before, link.after)]
        return f"{now}[n,y,x] = {then}[n] / {sizes[0] // sizes[1]}  ({link.layer}, a mean)"
    if link.kind in ("entropy", "squares"):
        return f"{now}[m] = {_error(found, link, 'm')}: {_spread(found.deltas[link.before])}"
    if link.kind == "reshape":
        shape = found.recording.tensors[link.before].shape
        if len(shape) != 4:
            return f"{now} = {then} in another shape"
        flat = f"(n·{shape[2]} + y)·{shape[3]} + x" if math.prod(shape[2:]) > 1 else "n"
        return f"{now}[n,y,x] = {then}[{flat}]"
    place = "n,y,x" if found.recording.tensors[link.before].dim() == 4 else "n"
    slope = _symbol(link, "n" if link.kind == "norm" else place)
    return f"{now}[{place}] = {slope} · {then}[{place}]  ({link.layer})"


def _met(letter: str, tap: str, stride: int, padding: int, dilation: int) -> str:
    """`(y + 1 − i)/2`: the position whose window meets this one with a tap."""
    own = f"{letter} + {padding}" if padding else letter
    far = f"{dilation}·{tap}" if dilation > 1 else tap
    return f"({own} − {far})/{stride}" if stride > 1 else f"{own} − {far}"
