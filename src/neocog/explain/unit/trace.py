"""Trace one activation: the arithmetic of one number, back to the pixels. Floor 1, explain.

Imports NumPy, torch, `analysis` and this room. The numbers are those of one recorded pass
(`recording`); a step adds up in float64 what the operation read, and says how far that is from
what the network computed. An operation that no rule writes out is taken apart by its gradient, and
says so; it is never left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from neocog.analysis.field import fields
from neocog.errors import ConfigError
from neocog.explain.recording import Recording, record
from neocog.explain.unit import moves, norms, products, slopes, windows
from neocog.explain.unit.place import Place
from neocog.explain.unit.terms import Step, Term, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Node
    from neocog.explain.unit.place import Worked

    Rule = Callable[[Place], Worked | None]

__all__ = ["Arithmetic", "UnitTrace", "trace_unit"]

Box = tuple[tuple[int, int], ...]
"""First and last position along each axis of the picture."""


def trace_unit(
    network: nn.Module | Recording,
    layer: str,
    channel: int,
    position: Sequence[int] = (),
    *,
    x: Tensor | None = None,
) -> UnitTrace:
    """How one activation came about.

    Args:
        network: any network, which is not changed; or a pass of it that was recorded before.
        layer: the run of a module: `layer1.0.conv1`, `relu#2` for the second run; empty: the
            network itself. Of what it answers the first tensor is meant.
        channel: along axis 1 of that.
        position: along the axes behind: row and column; empty for B×K.
        x: the picture, 1×C×H×W, as the network takes it; for a recording left out.

    Raises:
        ConfigError: no such layer, or no such unit in it; a network without a picture.
        TraceError: the network does not take such a picture.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 2, bias=False), torch.nn.ReLU())
    >>> _ = torch.nn.init.constant_(net[0].weight, 0.5)
    >>> found = trace_unit(net, "1", 0, (0, 1), x=torch.arange(9.0).reshape(1, 1, 3, 3))
    >>> found.value, found.field, [step.op for step in found.steps]
    (6.0, ((0, 1), (1, 2)), ['relu', 'convolution'])
    >>> found.steps[1].terms[0].products.tolist()
    [[[0.5, 1.0], [2.0, 2.5]]]
    """
    if isinstance(network, Recording):
        return Arithmetic(network).unit(layer, channel, position)
    if x is None:
        raise ConfigError("expected a picture to trace, found none", "give x, 1×C×H×W")
    return Arithmetic(record(network, x)).unit(layer, channel, position)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitTrace:
    """The steps behind one number, up to the first that joins several."""

    arithmetic: Arithmetic
    """The pass that it is of."""
    unit: Unit
    """The number."""
    layer: str
    """The layer whose answer it lies in: the innermost that returned it, or made it."""
    value: float
    """What the network computed."""
    field: Box | None
    """Its receptive field on this picture, padding left out; None: it sees nothing."""
    steps: tuple[Step, ...]
    """Back from the unit: activation, norm, convolution. Empty for a pixel."""

    @property
    def is_pixel(self) -> bool:
        """Whether it is a number of the picture."""
        return self.arithmetic.recording.graph.values[self.unit.value].kind == "input"

    @property
    def agrees(self) -> bool:
        """Whether every step gives what the network computed."""
        return all(step.agrees for step in self.steps)

    @property
    def patch(self) -> NDArray[np.float64] | None:
        """The receptive field cut out of the picture: C×h×w."""
        if self.field is None:
            return None
        picture = self.arithmetic.recording.input[self.unit.index[0]]
        axes = len(self.field)
        cut = tuple(slice(low, high + 1) for low, high in self.field)
        lead = (slice(None),) * (picture.dim() - axes)
        found: NDArray[np.float64] = picture[lead + cut].double().numpy()
        return found

    def strongest(self, count: int = 1) -> list[Term]:
        """Of the last step, the terms that add most and that depend on the picture."""
        if not self.steps:
            return []
        last, reached = self.steps[-1], self.arithmetic.reached
        among = {
            part
            for part, one in enumerate(last.terms)
            if reached(one.source) or (one.other_places is not None and reached(one.other))
        }
        return last.strongest(count, among)

    def follow(self, term: Term, *, other: bool = False) -> UnitTrace:
        """Trace what a term was read from.

        Args:
            term: of one of the steps.
            other: its factor in place of what was read: the gate of a product.

        Raises:
            ConfigError: it was read from padding or a weight: there is nothing behind it.
        """
        unit = term.other if other else self.arithmetic.behind(term)
        if unit is None or not self.arithmetic.reached(unit.value):
            raise ConfigError(
                "expected a term that depends on the picture, found padding or a constant",
                "follow one of `strongest`",
            )
        return self.arithmetic.of(unit)

    def path_to_pixels(self) -> tuple[UnitTrace, ...]:
        """This trace, that of its strongest term, and so on until a pixel; shorter where nothing
        is added any more that depends on the picture."""
        found = [self]
        while not found[-1].is_pixel:
            terms = found[-1].strongest()
            if not terms:
                break
            found.append(found[-1].follow(terms[0]))
        return tuple(found)


class Arithmetic:
    """A recorded pass, and the arithmetic behind each of its numbers."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._producers = recording.graph.producers()

    @cached_property
    def fields(self) -> Fields:
        """What every value sees of the picture."""
        return fields(self.recording.graph)

    @cached_property
    def _names(self) -> dict[int, str]:
        """Call → name of the layer."""
        return {call.index: name for name, call in self.recording.layers().items()}

    def unit(self, layer: str, channel: int, position: Sequence[int] = ()) -> UnitTrace:
        """How one activation came about; as `trace_unit`."""
        call = self.recording.layer(layer)
        if not call.outputs:
            raise ConfigError(f"{layer or 'the network'} answers without a tensor", "name another")
        value = call.outputs[0]
        shape = self.recording.graph.values[value].shape
        index = (0, channel, *position)
        fits = len(index) == len(shape) and all(
            0 <= one < size for one, size in zip(index, shape, strict=True)
        )
        if not fits:
            text = "×".join(map(str, shape[1:]))
            raise ConfigError(
                f"expected a channel and a position within {text}, the answer of"
                f" {layer or 'the network'}, found {channel} and {tuple(position)}",
                "both count from 0",
            )
        return self.of(Unit(value, index), layer=layer)

    def reached(self, value: int) -> bool:
        """Whether a value depends on the picture."""
        return self.fields.reached(value)

    def behind(self, term: Term) -> Unit | None:
        """What to follow of a term: what was read, or, where that is a weight, the factor."""
        for unit in (term.source, term.other):
            if unit is not None and self.reached(unit.value):
                return unit
        return None

    def of(self, unit: Unit, *, layer: str | None = None) -> UnitTrace:
        """How any number came about."""
        steps: list[Step] = []
        at: Unit | None = unit
        while at is not None and at.value in self._producers and self.reached(at.value):
            steps.append(self.step(at))
            at = steps[-1].onward
        return UnitTrace(
            arithmetic=self,
            unit=unit,
            layer=self.layer_of(unit.value) if layer is None else layer,
            value=float(self.recording.tensors[unit.value][unit.index]),
            field=self.fields.element(unit.value, unit.index),
            steps=tuple(steps),
        )

    def layer_of(self, value: int) -> str:
        """Name of the layer that made a value; of the picture, `the picture`."""
        if value not in self._producers:
            return "the picture"
        return self._names[self.recording.graph.nodes[self._producers[value]].call]

    def step(self, unit: Unit) -> Step:
        """The operation that computed a number, written out."""
        node = self.recording.graph.nodes[self._producers[unit.value]]
        place = Place(self.recording, node, unit)
        rule = _rule(node)
        worked = rule(place) if rule is not None else None
        if worked is None:
            worked = slopes.by_gradient(place)
        whole = sum(float(one.products.sum()) for one in worked.terms)
        return Step(
            unit=place.unit,
            node=place.node.index,
            op=place.node.op,
            layer=self._names[place.node.call],
            words=worked.words,
            formula=worked.formula,
            value=place.value,
            total=whole if worked.total is None else worked.total,
            kind=worked.kind,
            terms=worked.terms,
            numbers=worked.numbers,
            onward=worked.onward,
        )


def _rule(node: Node) -> Rule | None:
    """How an operation is written out."""
    op = node.op.rstrip("_")
    rule = _RULES.get(node.op) or _RULES.get(op)
    if rule is not None:
        return rule
    if op in moves.MOVES or node.op in moves.MOVES or node.view:
        return moves.moved
    return slopes.place_by_place if node.pointwise else None


_BATCH_NORM = norms.batch_norm(training=5, eps=7)

_RULES: Mapping[str, Rule] = {
    "convolution": products.convolution,
    "mm": products.matrix_product,
    "bmm": products.matrix_product,
    "addmm": products.matrix_product_plus,
    "baddbmm": products.matrix_product_plus,
    "native_batch_norm": _BATCH_NORM,
    "_native_batch_norm_legit": _BATCH_NORM,
    "_native_batch_norm_legit_no_training": norms.batch_norm(training=None, eps=6),
    "native_layer_norm": norms.layer_norm,
    "native_group_norm": norms.group_norm,
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), norms.softmax),
    **{f"max_pool{d}d": windows.most_pool(d) for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": windows.most_pool(d) for d in (2, 3)},
    **{f"avg_pool{d}d": windows.mean_pool(d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": windows.adaptive_most(d) for d in (1, 2, 3)},
    **{f"_adaptive_avg_pool{d}d": windows.adaptive_mean(d) for d in (2, 3)},
    **{f"adaptive_avg_pool{d}d": windows.adaptive_mean(d) for d in (1, 2, 3)},
    **dict.fromkeys(("mean", "sum"), windows.reduced),
    "add": slopes.total,
    "sub": slopes.difference(turned=False),
    "rsub": slopes.difference(turned=True),
    "mul": slopes.product,
    "div": slopes.quotient,
    "_to_copy": slopes.same,
}
