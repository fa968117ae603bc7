"""What the derivative of one weight depends on: the factors of its chain, the gates on the way, and
what those are worked out from. Floor 1, explain; imports torch and `analysis`.

Two questions are kept apart. A *factor* stands in the product that the chain rule makes: a weight
further on through which a change passes, an activation that another one is multiplied with. With δ
behind and the arriving change t held fixed, the link's part ⟨δ, J·t⟩ is linear in each of its
weights, and their coefficients tell which elements count for this picture: those of a unit whose
gate is closed do not. *Through its value* the derivative depends on whatever changes it at all, for
instance because it changes the answer that the loss compares: ∂²L/∂w∂v is not zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from neocog import chance
from neocog.analysis.twin import own_chance
from neocog.explain.chain.local import mixed, pulled_back

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from neocog.explain.chain.routes import Names, Routes
    from neocog.explain.recording import Recording

__all__ = ["Factor", "Gate", "answered", "factors", "gates", "through_values"]

_MOVES = frozenset({"add", "sub", "mul", "div", "clone", "copy", "_to_copy", "neg", "rsub"})
"""Pointwise operations that are no activation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """An activation or a maximum on the paths."""

    layer: str
    """Its name."""
    op: str
    """The operation: `relu`."""
    reached: int
    """Elements before it at which a change of the weight arrives."""
    passed: int
    """Elements behind it at which it still does: the others are closed for this picture."""
    carried: int
    """Those of them on which the loss depends, too."""
    closed: Tensor | None
    """Elements that are reached and closed, of the shape of its input; None for a maximum over
    windows, whose input has other elements than its answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factor:
    """A tensor that stands as a factor in the chain of one weight."""

    name: str
    """The parameter's, or what made the activation; `input`."""
    kind: str
    """`parameter`, `input` or `result`."""
    coefficients: Tensor
    """What each element is multiplied with, of the tensor's shape: zero where it does not count."""
    part: float
    """Σ element × coefficient: for the weights of a layer, what of the gradient passes through
    them; the whole of it where all paths do."""

    @property
    def count(self) -> int:
        """Elements that count."""
        return int(self.coefficients.count_nonzero())


def gates(
    recording: Recording,
    routes: Routes,
    names: Names,
    tangents: Mapping[int, Tensor],
    deltas: Mapping[int, Tensor],
) -> tuple[Gate, ...]:
    """The network's activations and maxima on the paths, and how much of a change they let through.

    Args:
        recording: the run.
        routes: the paths.
        names: what operations are called.
        tangents: value → its change when the weight's element changes.
        deltas: value → ∂L/∂value.
    """
    found = []
    on_path = {(edge.node, edge.source) for edge in routes.edges}
    for at in routes.nodes:
        node = recording.graph.nodes[at]
        if recording.graph.calls[node.call].path.partition(".")[0] in ("", "loss"):
            continue
        sources = [one for one in dict.fromkeys(node.inputs) if (at, one) in on_path]
        shapes = node.pointwise and node.op.rstrip("_") not in _MOVES
        if len(sources) != 1 or not (shapes or node.op.startswith("max_pool")):
            continue
        before, after = tangents.get(sources[0]), tangents.get(node.outputs[0])
        if before is None or after is None:
            continue
        same = before.shape == after.shape and shapes
        found.append(
            Gate(
                layer=names.of(at),
                op=node.op.strip("_"),
                reached=int(before.count_nonzero()),
                passed=int(after.count_nonzero()),
                carried=int((after * deltas[node.outputs[0]]).count_nonzero()),
                closed=(before != 0) & (after == 0) if same else None,
            )
        )
    return tuple(found)


def factors(
    recording: Recording,
    routes: Routes,
    names: Names,
    tangents: Mapping[int, Tensor],
    deltas: Mapping[int, Tensor],
) -> tuple[Factor, ...]:
    """The weights and activations by which the paths are multiplied, in the order of running.

    Args:
        recording: the run.
        routes: the paths.
        names: what operations are called.
        tangents: value → its change when the weight's element changes.
        deltas: value → ∂L/∂value.

    Raises:
        NotImplementedError: PyTorch cannot derive an operation on the way twice.
    """
    totals: dict[int, Tensor] = {}
    sources: dict[int, set[int]] = {}
    for edge in routes.edges:
        sources.setdefault(edge.node, set()).add(edge.source)
    for at in routes.nodes:
        node = recording.graph.nodes[at]
        moving = {one: tangents[one] for one in sources[at] if one in tangents}
        if moving:
            _add(totals, mixed(recording, node, moving, deltas))
    _back_to_weights(recording, totals)
    values = recording.graph.values
    return tuple(
        Factor(
            name=names.value(value),
            kind=values[value].kind,
            coefficients=one,
            part=float((one * recording.tensors[value]).sum()),
        )
        for value, one in sorted(totals.items(), key=lambda item: item[0])
        if bool(one.any())
    )


def _add(totals: dict[int, Tensor], more: Mapping[int, Tensor]) -> None:
    for value, one in more.items():
        totals[value] = totals[value] + one if value in totals else one


def _back_to_weights(recording: Recording, totals: dict[int, Tensor]) -> None:
    """What is worked out from weights alone (their transpose, a normed weight) hands on to them."""
    graph = recording.graph
    live = set(graph.inputs)
    for node in graph.nodes:
        if not live.isdisjoint(node.inputs):
            live.update(node.outputs)
    for node in reversed(graph.nodes):
        given = {one: totals[one] for one in node.outputs if one in totals and one not in live}
        wanted = [one for one in node.inputs if recording.tensors[one].is_floating_point()]
        if given and wanted:
            _add(totals, pulled_back(recording, node, given, wanted))
        for one in given:
            del totals[one]


def answered(module: nn.Module, x: Tensor) -> Tensor:
    """A loss as `record` works it out: drawing the same numbers, attention taken apart."""
    own = own_chance(torch.device("cpu"), chance.key(0, "record"))
    with own, sdpa_kernel(SDPBackend.MATH):
        loss: Tensor = module(x.clone())  # the network may write into what it is given
    return loss


def through_values(
    module: nn.Module, x: Tensor, weight: str, index: Sequence[int]
) -> dict[str, Tensor] | None:
    """∂²L/∂w∂v for every parameter v, and for the input: autograd, applied twice.

    Args:
        module: a copy that answers with the loss.
        x: what it takes.
        weight: name of the parameter.
        index: of its element.

    Returns:
        Name → tensor of the parameter's shape, `input` for the input; zero elements have no
        influence on the derivative around this picture. None where an operation cannot be derived
        twice.
    """
    parameters = dict(module.named_parameters())
    given = x.detach().clone().requires_grad_(x.is_floating_point())
    leaves = {**parameters, "input": given} if given.requires_grad else dict(parameters)
    before = {name: one.requires_grad for name, one in parameters.items()}
    module.requires_grad_(True)
    try:
        with torch.enable_grad():
            loss = answered(module, given)
            first = torch.autograd.grad(
                loss.sum(),
                parameters[weight],
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            one = first[0][tuple(index)]
            if not one.requires_grad:
                return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
            found = torch.autograd.grad(
                one, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
    except (RuntimeError, NotImplementedError):
        return None
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(before[name])
    return {name: part.detach() for name, part in zip(leaves, found, strict=True)}
