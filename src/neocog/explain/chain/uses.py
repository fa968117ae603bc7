"""The last link of the chain: δ of a layer times what it was given, one term for each place where
a weight is used. Floor 1, explain; imports torch and `analysis`.

    ∂L/∂w[k,c,i,j] = Σ_{b,y,x} δ[b,k,y,x] · input[b, c, s·y + d·i − p, s·x + d·j − p]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from neocog.analysis.graph import Ref

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from neocog.analysis.graph import Node
    from neocog.explain.chain.routes import Names, Routes
    from neocog.explain.recording import Recording

__all__ = ["Place", "Use", "uses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One product of the sum: a place where the weight is used."""

    position: tuple[int, ...]
    """In the layer's answer, without the channel: picture, row, column."""
    read: tuple[int, ...]
    """Position in what the layer was given, channel included; outside of it lies the padding."""
    delta: float
    """∂L/∂ of the answer there."""
    given: float
    """What the weight was multiplied with."""

    @property
    def product(self) -> float:
        """What it adds to the gradient."""
        return self.delta * self.given


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One run of a layer that reads the weight."""

    layer: str
    """Its name; `conv#2` for the second run."""
    formula: str
    """The sum in symbols."""
    terms: tuple[Place, ...]
    """The strongest, by size."""
    count: int
    """How many terms there are."""
    nonzero: int
    """How many of them are not zero for this picture."""
    total: float
    """Their sum: what comes through this use."""


@dataclass(frozen=True, slots=True)
class _Sum:
    """A use before its strongest terms are picked."""

    formula: str
    deltas: Tensor
    """δ by position."""
    given: Tensor
    """What each is multiplied with."""
    first: tuple[int, ...] = ()
    """Channel that is read; empty for a bias."""
    origin: tuple[int, ...] = ()
    """Where the window of position 0 reads."""
    stride: tuple[int, ...] = ()


def uses(
    recording: Recording,
    routes: Routes,
    names: Names,
    deltas: Mapping[int, Tensor],
    index: Sequence[int],
    *,
    top: int = 10,
) -> tuple[Use, ...]:
    """The sums of which one weight's gradient consists, one for each run of its layer.

    Args:
        recording: the run.
        routes: the paths, from the weight to the loss.
        names: what operations are called.
        deltas: value → ∂L/∂value.
        index: of the weight's element.
        top: how many terms are kept.

    Returns:
        Uses in convolutions (not transposed), matrix products and batch norms; others have no such
        sum here.
    """
    found = []
    looks = {routes.start}
    for at in routes.nodes:
        node = recording.graph.nodes[at]
        if node.op == "t" and node.inputs[0] in looks:
            looks.update(node.outputs)
            continue
        delta = deltas.get(node.outputs[0])
        if delta is None or looks.isdisjoint(node.inputs):
            continue
        roles = [
            position
            for position, one in enumerate(node.args)
            if isinstance(one, Ref) and one.value in looks
        ]
        for role in roles:
            one = _sum(recording, node, role, delta, tuple(index))
            if one is not None:
                found.append(_use(names.of(at), one, top))
    return tuple(found)


def _sum(
    recording: Recording, node: Node, role: int, delta: Tensor, index: tuple[int, ...]
) -> _Sum | None:
    """The sum of one operation that reads the weight as one of its arguments."""
    if node.op == "convolution" and role in (1, 2):
        return _convolved(recording, node, role, delta, index)
    if node.op == "addmm" and role == 0 and len(index) == 1:
        return _bias(delta, index[0])
    if (node.op, role) in (("addmm", 2), ("mm", 1)):
        unit, read = index
        given = recording.tensors[node.inputs[role - 1]]
        text = "Σ_b δ[b,k] · input[b,i]"
        return _Sum(text, delta[:, unit], given[:, read], (read,))
    if node.op == "native_batch_norm" and role == 2:
        return _bias(delta, index[0])
    if node.op == "native_batch_norm" and role == 1 and not node.args[5]:
        return _normed(recording, node, delta, index[0])
    return None


def _bias(delta: Tensor, unit: int) -> _Sum:
    own = delta[:, unit]
    places = ",y,x" if delta.dim() == 4 else ",…" if delta.dim() > 2 else ""
    return _Sum(f"Σ_b{places} δ[b,k{places}]", own, torch.ones_like(own))


def _normed(recording: Recording, node: Node, delta: Tensor, unit: int) -> _Sum:
    """Of a scale: the normed input."""
    x, mean, variance = (recording.tensors[node.inputs[at]] for at in (0, 3, 4))
    normed = (x[:, unit] - mean[unit]) * (variance[unit] + node.args[7]).rsqrt()
    places = ",y,x" if delta.dim() == 4 else ",…" if delta.dim() > 2 else ""
    text = f"Σ_b{places} δ[b,c{places}] · (input[b,c{places}] − μ[c]) / √(σ²[c] + ε)"
    axes = delta.dim() - 2
    return _Sum(text, delta[:, unit], normed, (unit,), (0,) * axes, (1,) * axes)


def _convolved(
    recording: Recording, node: Node, role: int, delta: Tensor, index: tuple[int, ...]
) -> _Sum | None:
    if role == 2:
        return _bias(delta, index[0])
    if node.args[6]:
        return None
    unit, channel, *tap = index
    x, weight = (recording.tensors[one] for one in node.inputs[:2])
    stride, padding, dilation = (
        tuple(one) * (1 if len(one) == len(tap) else len(tap)) for one in node.args[3:6]
    )
    # Groups lie side by side: unit k of group g reads the channels of group g.
    group = unit // (weight.shape[0] // node.args[8])
    channel += group * weight.shape[1]
    padded = F.pad(x[:, channel], [side for one in reversed(padding) for side in (one, one)])
    starts = [t * d for t, d in zip(tap, dilation, strict=True)]
    counts = delta.shape[2:]
    where = tuple(
        slice(first, first + s * (n - 1) + 1, s)
        for first, s, n in zip(starts, stride, counts, strict=True)
    )
    origin = tuple(first - p for first, p in zip(starts, padding, strict=True))
    letters = "yx" if len(tap) == 2 else "p" if len(tap) == 1 else "zyx"
    taps = "ij" if len(tap) == 2 else "i" if len(tap) == 1 else "hij"
    places = ",".join(letters[: len(tap)])
    reads = ", ".join(
        _reads(letter, step, s, d, p)
        for letter, step, s, d, p in zip(
            letters[: len(tap)], taps[: len(tap)], stride, dilation, padding, strict=True
        )
    )
    text = f"Σ_b,{places} δ[b,k,{places}] · input[b, c, {reads}]"
    return _Sum(text, delta[:, unit], padded[(slice(None), *where)], (channel,), origin, stride)


def _reads(letter: str, step: str, stride: int, dilation: int, padding: int) -> str:
    """`2·y + i − 1`."""
    own = f"{stride}·{letter}" if stride > 1 else letter
    far = f"{dilation}·{step}" if dilation > 1 else step
    return f"{own} + {far}" + (f" − {padding}" if padding else "")


def _use(layer: str, one: _Sum, top: int) -> Use:
    """The strongest terms of a sum."""
    products = (one.deltas * one.given).flatten()
    order = products.abs().topk(min(top, len(products))).indices.tolist()
    shape = one.deltas.shape
    terms = []
    for flat in order:
        position = tuple(int(at) for at in torch.unravel_index(torch.tensor(flat), shape))
        steps = zip(position[1:], one.origin, one.stride, strict=False)
        read = (*one.first, *(s * at + first for at, first, s in steps))
        terms.append(
            Place(
                position=position,
                read=read,
                delta=float(one.deltas[position]),
                given=float(one.given[position]),
            )
        )
    return Use(
        layer=layer,
        formula=one.formula,
        terms=tuple(terms),
        count=len(products),
        nonzero=int(products.count_nonzero()),
        total=float(products.sum()),
    )
