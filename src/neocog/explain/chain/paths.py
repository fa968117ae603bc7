"""From a weight to the loss: the paths, and the gradient assembled along them. Floor 1, explain.

Imports torch and `analysis`. The network runs once in double precision with every number kept; then
the chain rule goes back through what ran, operation by operation: δ = ∂L/∂value at every value on a
path, and at their end the weight's gradient, which must be autograd's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.analysis.trace import tensors_in
from neocog.analysis.twin import copied
from neocog.errors import ConfigError, near
from neocog.explain.chain.dependence import answered, factors, gates, through_values
from neocog.explain.chain.local import pulled_back, pushed_on
from neocog.explain.chain.routes import Names, routes
from neocog.explain.chain.uses import uses
from neocog.explain.recording import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from neocog.explain.chain.dependence import Factor, Gate
    from neocog.explain.chain.routes import Edge, Routes
    from neocog.explain.chain.uses import Use
    from neocog.explain.recording import Recording

__all__ = ["Branch", "Dependence", "Loss", "Path", "WeightPaths", "weight_paths"]

Loss = int | Callable[[Any], Tensor]
"""A class, meaning the cross-entropy to it; or a function of what the network answers, to one
number (`nn.MSELoss` with a target bound to it, say)."""

_NETWORK = "network."

_STAGES = 5
"""Autograd's answer, the run, back along the paths, forwards along them, and twice."""


def _silent(_done: int, _total: int) -> None:
    """Nobody asked how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way from the weight to the loss."""

    layers: tuple[str, ...]
    """In words: the weight, then the layers."""
    part: float
    """The product of the derivatives along it: what it adds to the gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One way into an operation where paths meet."""

    join: str
    """The operation: `layer1.0.add`."""
    source: str
    """What it reads: `layer1.0.bn2`, or the shortcut's source."""
    count: int
    """How many paths come in here."""
    part: float | None
    """What all of them add to the gradient; None where that cannot be worked out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dependence:
    """What a parameter, or the input, has to do with the derivative."""

    name: str
    """Its name; `input`."""
    numbers: Tensor
    """What it is; float64."""
    factor: Tensor | None
    """Its elements that stand as factors in the chain for this picture; None: not worked out."""
    influence: Tensor | None
    """Its elements with which the derivative changes at all, around this picture: the factors, and
    those that change them (∂²L/∂w∂v ≠ 0); None: not worked out."""
    part: float
    """Of the gradient, what passes through its factors."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightPaths:
    """The paths from one weight to the loss, and what they come to."""

    weight: str
    """The parameter's name."""
    index: tuple[int, ...]
    """Of the element that parts and dependences are about."""
    value: float
    """The element."""
    loss: float
    """The loss."""
    count: int
    """How many paths lead from the weight to the loss through the operations that ran."""
    lengths: Mapping[int, int]
    """Layers with weights on a path (convolutions, products; norms do not count) → how many paths
    have so many."""
    paths: tuple[Path, ...]
    """Each of them, the strongest first; none where they are more than the limit."""
    branches: tuple[Branch, ...]
    """Where paths meet, in the order of running."""
    gradient: Tensor
    """∂L/∂ of the whole parameter, assembled operation by operation; float64."""
    autograd: Tensor
    """The same from `torch.autograd`."""
    uses: tuple[Use, ...]
    """The last link written out, for each run of the layer that reads the weight."""
    gates: tuple[Gate, ...]
    """Activations and maxima on the paths; none where the changes cannot be followed."""
    factors: tuple[Factor, ...]
    """What the paths are multiplied with, of weights and activations; likewise."""
    dependences: tuple[Dependence, ...]
    """Every parameter of the network, and the input."""
    unknown: str
    """Why changes cannot be followed forwards, where PyTorch cannot; empty: they can."""
    recording: Recording
    """The run, network and loss."""
    routes: Routes
    """The paths in the recorded graph."""
    deltas: Mapping[int, Tensor]
    """Value on a path → ∂L/∂value."""
    tangents: Mapping[int, Tensor]
    """Value on a path → ∂value/∂ of the weight's element."""

    @property
    def derivative(self) -> float:
        """∂L/∂ of the element."""
        return float(self.gradient[self.index])

    @property
    def difference(self) -> float:
        """The largest difference to autograd's gradient, in shares of its largest element."""
        scale = float(self.autograd.abs().max()) or 1.0
        return float((self.gradient - self.autograd).abs().max()) / scale

    @property
    def names(self) -> Names:
        """What operations and values are called."""
        return Names(self.recording.graph)


class _Objective(nn.Module):
    """A network and the loss of its answer, as one module: so that both are recorded."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.loss = partial(_cross_entropy, loss) if isinstance(loss, int) else loss

    def forward(self, x: Tensor) -> Tensor:
        found: Any = self.loss(self.network(x))
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(
                f"expected a loss of one number, found {shape}",
                "average over what it gives, or name a class: its cross-entropy is taken",
            )
        return found


def _cross_entropy(label: int, answer: Any) -> Tensor:
    """Of the first tensor of an answer, B×K or B×K×…, to one class."""
    logits = next(tensors_in(answer), None)
    kinds = logits.shape[1] if logits is not None and logits.dim() > 1 else 0
    if logits is None or not 0 <= label < kinds:
        shape = "×".join(map(str, logits.shape)) if logits is not None else "no tensor"
        raise ConfigError(
            f"expected a class below {kinds} of an answer B×K, found class {label} and {shape}",
            "name one of the network's classes, or hand over a function from the answer to a loss",
        )
    target = torch.full((len(logits), *logits.shape[2:]), label, device=logits.device)
    return F.cross_entropy(logits, target)


def weight_paths(
    module: nn.Module,
    x: Tensor,
    loss: Loss,
    weight: str,
    index: Sequence[int] | None = None,
    *,
    limit: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> WeightPaths:
    """Follow a weight to the loss and assemble its gradient along the way.

    The network runs as in use, on a copy in double precision: weights, buffers, training flags,
    hooks and gradients of the given one stay as they were. Held are all activations of the run,
    and twice those on the paths: some 500 MB for ResNet-50 at 224×224.

    Args:
        module: any network.
        x: what it takes, the batch first; prepared as it wants it.
        loss: a class index, for cross-entropy; or a function from the answer to one number.
        weight: name of a parameter: `conv1.weight`.
        index: of one of its elements: k, c, i, j of a convolution. None: the one with the largest
            derivative.
        limit: up to how many paths are listed one by one.
        progress: told how many of the parts are done, and of how many.

    Raises:
        ConfigError: no such parameter or element; the loss is not one number.
        TraceError: the network does not take such an input.
        NeocogError: the network cannot be copied.

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Sigmoid())
    >>> x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0]])
    >>> found = weight_paths(net, x, lambda out: ((out - y) ** 2).sum(), "0.weight", (0, 1))
    >>> found.count, found.difference < 1e-12
    (1, True)
    """
    with _double():
        return _followed(module, x, loss, weight, index, limit, progress or _silent)


@contextlib.contextmanager
def _double() -> Iterator[None]:
    """What a forward makes without saying of which type (`torch.zeros(…)`) is double, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _followed(
    module: nn.Module,
    x: Tensor,
    loss: Loss,
    weight: str,
    index: Sequence[int] | None,
    limit: int,
    report: Callable[[int, int], None],
) -> WeightPaths:
    """As `weight_paths`."""
    objective = copied(_Objective(module, loss)).cpu().double()
    name = _parameter(objective, weight)
    given = x.detach().cpu()
    given = given.double() if given.is_floating_point() else given
    reference = _by_autograd(objective, given, name)
    report(1, _STAGES)
    recording = record(objective, given)
    report(2, _STAGES)
    start, end = recording.named[name], recording.graph.outputs[0]
    found, deltas = _swept(recording, start, end)
    gradient = deltas.get(start, torch.zeros_like(reference))
    place = _element(weight, gradient, index)
    names = Names(recording.graph)
    report(3, _STAGES)
    tangents, passed, multiplied, unknown = _forwards(recording, found, names, deltas, place)
    report(4, _STAGES)
    second = through_values(objective, given, name, place)
    listed = tuple(_each(recording, found, names, place)) if found.count <= limit else ()
    report(_STAGES, _STAGES)
    return WeightPaths(
        weight=weight,
        index=place,
        value=float(recording.tensors[start][place]),
        loss=float(recording.output),
        count=found.count,
        lengths=found.lengths(_weighing(recording)),
        paths=listed,
        branches=tuple(_branches(recording, found, names, deltas, tangents)),
        gradient=gradient,
        autograd=reference,
        uses=uses(recording, found, names, deltas, place),
        gates=passed,
        factors=multiplied,
        dependences=tuple(_dependences(recording, multiplied, second, unknown)),
        unknown=unknown,
        recording=recording,
        routes=found,
        deltas=deltas,
        tangents=tangents,
    )


# -- what was asked for ---------------------------------------------------------------------------


def _parameter(objective: nn.Module, weight: str) -> str:
    """The name under which a parameter is recorded: of a shared one the first."""
    first = {id(one): name for name, one in objective.named_parameters()}
    known = {
        name.removeprefix(_NETWORK): first[id(one)]
        for name, one in objective.named_parameters(remove_duplicate=False)
    }
    if weight not in known:
        raise ConfigError(f"no parameter is called {weight!r}", near(weight, known))
    return known[weight]


def _element(weight: str, gradient: Tensor, index: Sequence[int] | None) -> tuple[int, ...]:
    """The index of an element, checked; the strongest where none is named."""
    shape = gradient.shape
    if index is None:
        flat = gradient.abs().argmax()
        return tuple(int(at) for at in torch.unravel_index(flat, shape))
    fits = len(index) == len(shape) and all(
        0 <= at < size for at, size in zip(index, shape, strict=True)
    )
    if not fits:
        raise ConfigError(
            f"expected an element of {weight}, {'×'.join(map(str, shape))}, found"
            f" [{', '.join(map(str, index))}]",
            "count from 0 along every axis",
        )
    return tuple(index)


def _by_autograd(objective: nn.Module, x: Tensor, name: str) -> Tensor:
    """∂L/∂parameter as PyTorch works it out."""
    parameter = objective.get_parameter(name)
    parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            loss = answered(objective, x)
            if not loss.requires_grad:
                return torch.zeros_like(parameter)
            (found,) = torch.autograd.grad(
                loss.sum(), parameter, allow_unused=True, materialize_grads=True
            )
    finally:
        parameter.requires_grad_(False)
    gradient: Tensor = found.detach()
    return gradient


# -- along the paths ------------------------------------------------------------------------------


def _swept(recording: Recording, start: int, end: int) -> tuple[Routes, dict[int, Tensor]]:
    """Back from the loss: δ at every value on a path, and the paths that carry one."""
    coarse = routes(recording, start, end)
    wanted: dict[int, list[Edge]] = {}
    for edge in coarse.edges:
        wanted.setdefault(edge.node, []).append(edge)
    deltas = {end: torch.ones_like(recording.tensors[end])} if coarse.count else {}
    silent: set[Edge] = set()
    for at in reversed(coarse.nodes):
        node = recording.graph.nodes[at]
        here = {edge.target: deltas[edge.target] for edge in wanted[at] if edge.target in deltas}
        sources = {edge.source for edge in wanted[at]}
        parts = pulled_back(recording, node, here, sources) if here else {}
        silent.update(edge for edge in wanted[at] if edge.source not in parts)
        for value, part in parts.items():
            deltas[value] = deltas[value] + part if value in deltas else part
    return (routes(recording, start, end, silent) if silent else coarse), deltas


def _forwards(
    recording: Recording,
    found: Routes,
    names: Names,
    deltas: Mapping[int, Tensor],
    place: tuple[int, ...],
) -> tuple[dict[int, Tensor], tuple[Gate, ...], tuple[Factor, ...], str]:
    """The element's influence on all values, what lets it through and what it is multiplied with;
    or why that cannot be worked out."""
    tangents: dict[int, Tensor] = {}
    try:
        tangents = _pushed(recording, found, place)
        passed = gates(recording, found, names, tangents, deltas)
        return tangents, passed, factors(recording, found, names, tangents, deltas), ""
    except NotImplementedError as error:
        return tangents, (), (), str(error)


def _pushed(recording: Recording, found: Routes, place: tuple[int, ...]) -> dict[int, Tensor]:
    """Forwards from the weight's element: its influence on every value on a path."""
    unit = torch.zeros_like(recording.tensors[found.start])
    unit[place] = 1.0
    tangents = {found.start: unit}
    sources: dict[int, set[int]] = {}
    for edge in found.edges:
        sources.setdefault(edge.node, set()).add(edge.source)
    for at in found.nodes:
        node = recording.graph.nodes[at]
        moving = {one: tangents[one] for one in sources[at] if one in tangents}
        made = pushed_on(recording, node, moving)
        tangents.update((one, made[one]) for one in made if one in found.after)
    return tangents


def _each(
    recording: Recording, found: Routes, names: Names, place: tuple[int, ...]
) -> Iterator[Path]:
    """Every path with the product of its derivatives, the strongest first."""
    nodes = recording.graph.nodes
    arriving: dict[int, list[Edge]] = {}
    for edge in found.edges:
        arriving.setdefault(edge.target, []).append(edge)
    listed: list[Path] = []
    seed = torch.ones_like(recording.tensors[found.end])
    ways: list[tuple[tuple[Edge, ...], Tensor]] = [((), seed)] if found.count else []
    while ways:
        way, delta = ways.pop()
        at = way[0].source if way else found.end
        if at == found.start:
            layers = names.path(way, found.start)
            listed.append(Path(layers=layers, part=float(delta[place])))
        for edge in arriving.get(at, ()):
            parts = pulled_back(recording, nodes[edge.node], {at: delta}, {edge.source})
            part = parts.get(edge.source, torch.zeros_like(recording.tensors[edge.source]))
            ways.append(((edge, *way), part))
    yield from sorted(listed, key=lambda one: -abs(one.part))


def _branches(
    recording: Recording,
    found: Routes,
    names: Names,
    deltas: Mapping[int, Tensor],
    tangents: Mapping[int, Tensor],
) -> Iterator[Branch]:
    """The ways into every operation where paths meet, with what comes through each."""
    made = {edge.node: set[int]() for edge in found.edges}
    for edge in found.edges:
        made[edge.node].add(edge.target)
    for join in found.joins():
        node = recording.graph.nodes[join.node]
        here = {value: deltas[value] for value in made[join.node]}
        parts = pulled_back(recording, node, here, set(join.branches))
        for value, count in join.branches.items():
            known = value in tangents and value in parts
            part = float((parts[value] * tangents[value]).sum()) if known else None
            yield Branch(
                join=names.of(join.node), source=names.value(value), count=count, part=part
            )


def _weighing(recording: Recording) -> set[int]:
    """Convolutions, products and the like: operations that read a parameter of two axes or more,
    or what is worked out from parameters alone. Norms and shifts do not count as layers."""
    graph = recording.graph
    learnt = {value.index for value in graph.values if value.kind == "parameter"}
    live = set(graph.inputs)
    found = set()
    for node in graph.nodes:
        if not live.isdisjoint(node.inputs):
            live.update(node.outputs)
            if any(one in learnt and len(graph.values[one].shape) > 1 for one in node.inputs):
                found.add(node.index)
        elif not learnt.isdisjoint(node.inputs):
            learnt.update(node.outputs)
    return found


def _dependences(
    recording: Recording,
    multiplied: Sequence[Factor],
    second: Mapping[str, Tensor] | None,
    unknown: str,
) -> Iterator[Dependence]:
    """Parameter by parameter, and the input: what counts, and what does not."""
    graph = recording.graph
    owned = {name: recording.named[name] for name in graph.parameters}
    known = {one.name: one for one in multiplied if one.kind in ("parameter", "input")}
    for name, value in [*owned.items(), ("input", graph.inputs[0])]:
        tensor = recording.tensors[value]
        own = name.removeprefix(_NETWORK)
        factor = known.get(own)
        nothing = torch.zeros(tensor.shape, dtype=torch.bool)
        stands = factor.coefficients != 0 if factor else nothing
        yield Dependence(
            name=own,
            numbers=tensor,
            factor=None if unknown else stands,
            influence=None if second is None else second.get(name, nothing) != 0,
            part=factor.part if factor else 0.0,
        )
