"""Knowledge carried over from one network to another, and how much of it may change. Floor 2.

Room models; imports floor 0, layers, torch and this room. All of it works on any `nn.Module`.
Weights are matched by name and shape; the rows of output layers by the names of the classes, never
by their positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neocog.errors import ConfigError
from neocog.layers import output_layer
from neocog.models.outputs import TRANSPOSED, output_layers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["Carried", "Frozen", "Stage", "carry", "freeze", "output_layers", "rates", "stages"]

MOST = 5
"""Stages before the last of a network that does not declare any. Each learns at a share of the rate
of the next; with one for every layer of a deep network the first would stand still."""
ENOUGH = 0.5
"""Share of a network's numbers, but for its output layer, that must be found among the weights;
less is another architecture, of which a few layers happen to have the same names."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INSIDE = "backbone"
"""What networks call the child that a classifier can lend its weights to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a network, all of it at one depth."""

    name: str
    """The module that ends it; `output` for the last, which holds the output layer."""
    parameters: tuple[str, ...]
    """Names."""
    modules: tuple[str, ...]
    """Paths of the modules that hold them or are left out, like norms, by no one else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a network takes over."""

    tensors: Mapping[str, Tensor]
    """Its whole state dict to be: what was carried, and its own where nothing was."""
    taken: tuple[str, ...]
    """Names whose tensors came along as they were."""
    adapted: tuple[str, ...]
    """Sentences on what was changed to fit, such as kernels for another number of channels."""
    classes: tuple[str, ...]
    """Classes whose row of the output layer came along."""
    fresh: Mapping[str, str]
    """Name → why it begins anew, whole or in part."""
    left: tuple[str, ...]
    """Names that the network has no use for."""
    fingerprint: str
    """SHA-256 of the tensors that it was offered, with their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What will not change."""

    stages: tuple[str, ...]
    """Names of the stages, or `all but …` and the paths of the output layer and what is fresh."""
    parameters: tuple[str, ...]
    """Names of the parameters, of norms that are kept too."""
    still: tuple[str, ...]
    """Paths of the modules that stay in evaluation mode."""


def stages(network: nn.Module, outputs: Sequence[str] = ()) -> tuple[Stage, ...]:
    """The parts of a network from the picture on, each with parameters; the last holds its output
    layers, and auxiliary heads whole.

    A network that declares `features` has its levels as stages, and what comes behind them as the
    last. Any other has its children, or those of its only child, in at most `MOST` groups.

    Args:
        network: stays as it is.
        outputs: of `output_layers`; by default the order of registration decides.
    """
    outputs = outputs or (output_layer(network),)
    heads = (outputs[0], *(path.partition(".")[0] for path in outputs[1:]))
    ends = _ends(network, outputs[0])
    places = {name: at for at, (name, _) in enumerate(network.named_modules())}
    found: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for _, name in ends}
    found[_OUTPUT] = ([], [])
    for path, part in network.named_modules():
        name = next((name for end, name in ends if places[path] <= end), _OUTPUT)
        if _within(path, heads):
            name = _OUTPUT
        owned = found[name]
        own = [f"{path}.{one}" if path else one for one, _ in part.named_parameters(recurse=False)]
        owned[0].extend(own)
        if not any(True for _ in part.children()):
            owned[1].append(path)
    return tuple(
        Stage(name=name, parameters=tuple(parameters), modules=tuple(modules))
        for name, (parameters, modules) in found.items()
        if parameters
    )


_OUTPUT = "output"


def _ends(network: nn.Module, output: str) -> list[tuple[int, str]]:
    """Where each stage but the last ends, in the order of `named_modules`, and its name."""
    paths = [name for name, _ in network.named_modules()]
    declared = [level.name for level in getattr(network, "features", ())]
    if not declared:
        names = [name for name in _children(network) if not _within(output, [name])]
        groups = min(MOST, len(names))
        declared = [names[(at + 1) * len(names) // groups - 1] for at in range(groups)]
    return [
        (max(at for at, path in enumerate(paths) if _within(path, [name])), name)
        for name in declared
        if name in paths
    ]


def _children(network: nn.Module) -> list[str]:
    """Paths of its children with parameters, or of those of its only such child."""
    inner, prefix = network, ""
    while True:
        parts = [
            (name, part)
            for name, part in inner.named_children()
            if any(True for _ in part.parameters())
        ]
        if len(parts) != 1 or not any(True for _ in parts[0][1].children()):
            return [f"{prefix}{name}" for name, _ in parts]
        inner, prefix = parts[0][1], f"{prefix}{parts[0][0]}."


def freeze(
    network: nn.Module,
    how: int | Literal["all"],
    *,
    norms: Literal["learn", "keep"] = "learn",
    outputs: Sequence[str] = (),
    fresh: Collection[str] = (),
) -> Frozen:
    """Keep stages as they are: their parameters ask for no gradient.

    What is fresh beside weights that were carried over always learns, its norms' statistics too.

    Args:
        network: changed in place; whoever built it owns it.
        how: so many stages from the picture on; all: everything but the output layer and what is
            fresh. Auxiliary heads stay then as well: they have nobody to teach.
        norms: keep: also the statistics, scales and shifts of every batch norm.
        outputs: as for `stages`.
        fresh: of `Carried`; empty where nothing was carried over.

    Raises:
        ConfigError: more stages than there are.
    """
    parts = stages(network, outputs)
    if isinstance(how, int) and how >= max(1, len(parts)):
        names = ", ".join(one.name for one in parts[:-1])
        raise ConfigError(
            f"cannot freeze {how} stages: this network has {len(parts) - 1} before its last "
            f"layers: {names}",
            f"--freeze {len(parts) - 1}, or --freeze all for everything but the output layer "
            "and what is fresh",
        )
    state = network.state_dict(keep_vars=True)
    # Published weights may lack counters of batches, which are no numbers that chance drew.
    new = {id(one) for name, one in state.items() if name in fresh and one.is_floating_point()}
    if how == "all":
        for path in outputs[1:] if hasattr(network, "forward_auxiliary") else ():
            new -= _held(network.get_submodule(path.partition(".")[0]))
        kept, frozen, still = _all_but(
            network, outputs[0] if outputs else output_layer(network), new
        )
    else:
        old = [
            one
            for one in parts[:how]
            if any(id(network.get_parameter(name)) not in new for name in one.parameters)
        ]
        kept = [one.name for one in old]
        frozen = [name for one in old for name in one.parameters]
        still = {name for one in old for name in one.modules}
    if norms == "keep":
        for name, part in network.named_modules():
            if isinstance(part, _BatchNorm):
                still.add(name)
                frozen += [f"{name}.{one}" for one, _ in part.named_parameters(recurse=False)]
    frozen = [one for one in dict.fromkeys(frozen) if id(network.get_parameter(one)) not in new]
    still = {path for path in still if not _held(network.get_submodule(path)) & new}
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    return Frozen(stages=tuple(kept), parameters=tuple(frozen), still=tuple(sorted(still)))


def _held(part: nn.Module) -> set[int]:
    """Ids of the parameters and buffers of real numbers in it."""
    return {id(one) for one in (*part.parameters(), *part.buffers()) if one.is_floating_point()}


def _all_but(network: nn.Module, path: str, new: set[int]) -> tuple[list[str], list[str], set[str]]:
    """What `Frozen` holds where all but the output layer and what is new is to stay.

    Args:
        network: stays as it is.
        path: of the output layer.
        new: ids of parameters and buffers.
    """
    output = _held(network.get_submodule(path))
    learns: list[str] = []
    for name, part in network.named_modules():
        held = _held(part)
        if held and held <= new - output and not _within(name, learns):
            learns.append(name)
    learns += [
        name
        for name, one in network.named_parameters()
        if id(one) in new - output and not _within(name, learns)
    ]
    still = {
        name
        for name, _ in network.named_modules()
        if name != path and not _within(path, [name]) and not _within(name, learns)
    }
    frozen = [name for name, one in network.named_parameters() if id(one) not in output]
    return [f"all but {', '.join([path, *learns])}"] if path else [], frozen, still - {""}


def _within(name: str, paths: Iterable[str]) -> bool:
    """Whether something in a network is one of these or in one of them."""
    return any(f"{name}.".startswith(f"{path}.") for path in paths)


def rates(network: nn.Module, decay: float, outputs: Sequence[str] = ()) -> dict[str, float]:
    """Factor of each parameter's learning rate: 1 in the last stage, `decay` in the one before it,
    and so on (Howard and Ruder 2018, arXiv 1801.06146).

    Args:
        network: stays as it is.
        decay: in (0, 1]; 1 gives an empty table.
        outputs: as for `stages`.
    """
    if decay == 1:
        return {}
    parts = stages(network, outputs)
    return {
        name: decay ** (len(parts) - 1 - at)
        for at, stage in enumerate(parts)
        for name in stage.parameters
    }


def carry(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Carried:
    """What a network takes over from weights: all that has its name and shape.

    The rows of the output layer go by the names of the classes; a file that names none gives no
    rows. The first convolution fits itself to another number of channels c: for one it is the sum
    over the channels (so a grey picture is answered as the same picture in colour), for more its
    channels are repeated in turn and scaled by old / c, which keeps the size of the answers.
    A matrix that became a convolution keeps its numbers.

    A classifier's weights find their place in a child called `backbone`. What they are called
    elsewhere in the network it may declare in `former`: path in the classifier → path here.

    Args:
        network: stays as it is.
        tensors: a state dict; what all names begin with (`module.`, `model.`) is left out if that
            makes more of them match.
        source: for messages.
        before: names of the classes that the weights were trained on, in the order of the rows.
        after: those of the network.
        outputs: as for `stages`.

    Raises:
        ConfigError: most of the network is not among them.
    """
    state = network.state_dict()
    tensors, names, inside = _matched(tensors, network, state)
    heads = _head_names(network, outputs or (output_layer(network),), state)
    output, first = {name for owned, _ in heads for name in owned}, _first_kernel(network, state)
    found: dict[str, Tensor] = {}
    taken, adapted = [], []
    fresh: dict[str, str] = {}
    rows: tuple[str, ...] = ()
    for owned, both in heads:
        head = _rows(owned, state, tensors, before, after, both=both)
        found |= head.tensors
        rows = rows or head.classes
        fresh |= dict.fromkeys(owned, head.why) if head.why else {}
    for name, mine in state.items():
        theirs = tensors.get(name)
        if name in output:
            continue
        if theirs is None:
            fresh[name] = f"not in {source}"
        elif theirs.shape == mine.shape:
            found[name] = theirs.to(mine.dtype)
            taken.append(name)
        elif (
            name == first
            and theirs.shape[0] == mine.shape[0]
            and theirs.shape[2:] == mine.shape[2:]
        ):
            found[name] = _channels(theirs, mine.shape[1]).to(mine.dtype)
            adapted.append(
                f"{name}: kernels for {theirs.shape[1]} channels became kernels for {mine.shape[1]}"
            )
        elif theirs.dim() == 2 and mine.dim() > 2 and mine.flatten(1).shape == theirs.shape:
            found[name] = theirs.reshape(mine.shape).to(mine.dtype)
            adapted.append(f"{name}: a matrix of {_shape(theirs)} became kernels of {_shape(mine)}")
        else:
            fresh[name] = f"{_shape(theirs)} there, {_shape(mine)} here"
    share = {name: one for name, one in state.items() if name.startswith(inside)}
    _refuse_other(share, tensors, {*found} - output, output, source)
    return Carried(
        tensors={name: found.get(name, mine) for name, mine in state.items()},
        taken=tuple(taken),
        adapted=tuple(adapted),
        classes=rows,
        fresh=fresh,
        left=tuple(names[name] for name in tensors if name not in state),
        fingerprint=_fingerprint({names[name]: one for name, one in tensors.items()}),
    )


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, one in sorted(tensors.items()):
        plain = one.detach().cpu().contiguous()
        found.update(f"{name} {one.dtype} {tuple(one.shape)} ".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _refuse_other(
    state: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    found: set[str],
    output: set[str],
    source: str,
) -> None:
    """Weights of another architecture.

    Raises:
        ConfigError: with the first names of both.
    """
    inner = {name: one.numel() for name, one in state.items() if name not in output}
    whole = sum(inner.values())
    share = sum(inner[name] for name in found if name in inner) / whole if whole else 1.0
    if share >= ENOUGH:
        return
    missed = next((name for name in inner if name not in found), "")
    theirs = (
        f"is {_shape(tensors[missed])} there"
        if missed in tensors
        else f"is not among {_some(tensors)}"
    )
    raise ConfigError(
        f"{source} holds {share:.0%} of this network: {missed} ({_shape(state[missed])}) {theirs}",
        "give the --model that these weights belong to, with its model_args and data.size",
    )


def _some(names: Mapping[str, Tensor]) -> str:
    first = list(names)[:3]
    return ", ".join(first) + (", …" if len(names) > len(first) else "") if first else "no tensors"


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "one number"


_Placed = tuple[Mapping[str, Tensor], Mapping[str, str], str]
"""Tensors by the names that they have in a network; each of these → that in the file; and what the
names of those begin with that they can be expected to fill."""


def _matched(
    tensors: Mapping[str, Tensor], network: nn.Module, state: Mapping[str, Tensor]
) -> _Placed:
    """The reading of the names that makes most of them known: with or without what all begin with,
    as the network's own or as a classifier's for its child `_INSIDE`."""
    former: Mapping[str, str] = getattr(network, "former", {})
    readings: list[_Placed] = []
    while True:
        readings.append((tensors, {name: name for name in tensors}, ""))
        readings.append(_inside(tensors, former))
        if not all("." in name for name in tensors) or _heads(tensors) != 1:
            break
        tensors = {name.partition(".")[2]: one for name, one in tensors.items()}
    return max(readings, key=lambda reading: sum(name in state for name in reading[0]))


def _inside(tensors: Mapping[str, Tensor], former: Mapping[str, str]) -> _Placed:
    """A classifier's tensors where `_INSIDE` has them, or where `former` says."""
    names = {}
    for name in tensors:
        path, _, own = name.rpartition(".")
        names[f"{former[path]}.{own}" if path in former else f"{_INSIDE}.{name}"] = name
    return {name: tensors[old] for name, old in names.items()}, names, f"{_INSIDE}."


def _heads(names: Iterable[str]) -> int:
    return len({name.partition(".")[0] for name in names})


def _key(state: Mapping[str, Tensor], parameter: Tensor) -> str:
    """What a parameter is called in the state dict, where some families rename."""
    return next(
        (
            name
            for name, one in state.items()
            if one.data_ptr() == parameter.data_ptr() and one.shape == parameter.shape
        ),
        "",
    )


def _head_names(
    network: nn.Module, outputs: Sequence[str], state: Mapping[str, Tensor]
) -> list[tuple[list[str], bool]]:
    """Weight and bias of each output layer, by their names in the state dict, and whether it takes
    maps of the classes in, too."""
    return [
        ([_key(state, one) for one in part.parameters(recurse=False)], isinstance(part, TRANSPOSED))
        for part in map(network.get_submodule, outputs)
    ]


def _first_kernel(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    kernel = next((one.weight for one in network.modules() if isinstance(one, _CONVOLUTIONS)), None)
    return "" if kernel is None else _key(state, kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What an output layer takes over."""

    tensors: dict[str, Tensor]
    """Weight and bias; empty: nothing."""
    classes: tuple[str, ...]
    """Whose rows came along."""
    why: str
    """Of what is fresh; empty: nothing is."""


def _rows(
    names: Sequence[str],
    state: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    before: Sequence[str],
    after: Sequence[str],
    *,
    both: bool,
) -> _Head:
    """An output layer with the rows of the classes that both know; weight and bias together, or
    neither. With `both`, the second axis of a weight goes by the classes, too."""
    if not before:
        return _Head(tensors={}, classes=(), why="the classes of its rows are not known")
    for name in names:
        mine, theirs = state[name], tensors.get(name)
        if theirs is None:
            return _Head(tensors={}, classes=(), why=f"no {name} there")
        by = min(mine.dim(), 2) if both else 1
        named = (len(before),) * by + (len(after),) * by
        if mine.shape[by:] != theirs.shape[by:] or theirs.shape[:by] + mine.shape[:by] != named:
            why = f"{_shape(theirs)} there, {_shape(mine)} here"
            return _Head(tensors={}, classes=(), why=why)
    places = {name: row for row, name in enumerate(before)}
    known = [row for row, label in enumerate(after) if label in places]
    theirs_of = [places[after[row]] for row in known]
    found = {name: state[name].clone() for name in names}
    for name, mine in found.items():
        if both and mine.dim() > 1:
            for row, old in zip(known, theirs_of, strict=True):
                mine[row, known] = tensors[name][old, theirs_of].to(mine.dtype)
        else:
            mine[known] = tensors[name][theirs_of].to(mine.dtype)
    new = len(after) - len(known)
    why = f"{new} of {len(after)} classes are new" if new else ""
    return _Head(tensors=found, classes=tuple(after[row] for row in known), why=why)


def _channels(kernel: Tensor, count: int) -> Tensor:
    """out×old×… → out×count×…; the rule stands at `carry`."""
    if count == 1:
        return kernel.sum(1, keepdim=True)
    old = kernel.shape[1]
    turns = -(-count // old)
    repeats = (1, turns, *[1] * (kernel.dim() - 2))
    return kernel.repeat(repeats)[:, :count] * (old / count)
