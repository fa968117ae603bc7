"""Network → plan. Floor 4, room planning; imports analysis, engine and machine."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neocog import machine
from neocog.analysis import field as receptive
from neocog.analysis import step as steps
from neocog.analysis import summary
from neocog.analysis.advice import advice
from neocog.analysis.trace import TraceError, trace
from neocog.config import OptimRecipe
from neocog.engine.planned import Planned
from neocog.errors import ConfigError
from neocog.planning.nouns import Costs, How, Network, Range
from neocog.planning.times import Times
from neocog.settings import from_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from neocog.analysis.step import Step
    from neocog.analysis.summary import Layer

__all__ = ["answering", "costs", "describe", "remarked"]

_PEAK = (0.90, 1.12)
"""Low and high end of a predicted peak over its value. Of 30 pairs of network and batch on a
processor 28 measured peaks lay within (benchmarks/plans.py); the others, a tiny network and one of
depthwise kernels in bf16, needed up to a third more."""
_ROUGH_MEMORY, _ROUGH_TIME = 2.0, 4.0
"""How much wider ranges are where a step is rough (`analysis.step.Step`)."""
_SPARE = 0.9
"""Share of the free memory that a run may take: the rest is for the program and its data."""


def describe(module: nn.Module, sample: Sequence[int] | Tensor, name: str = "") -> Network:
    """What a network is: its layers, their sizes, parameters, work and receptive fields.

    Args:
        module: any network; it comes back untouched.
        sample: shape of one sample without the batch (C×H×W), or a tensor that is one.
        name: for people; by default the class.

    Raises:
        TraceError: see `analysis.trace`.
    """
    _check(sample)
    try:
        graph = trace(module, _batched(sample, 1))
    except TraceError as error:
        raise _explained(error, module, sample) from error
    fields = receptive.fields(graph)
    layers = summary.layers(graph, fields)
    return Network(
        name=name or type(module).__name__,
        input=tuple(int(size) for size in _shape(sample)),
        graph=graph,
        fields=fields,
        layers=layers,
        unknown=summary.unknown(graph),
        remarks=(),
    )


def remarked(network: Network, costs: Costs | None) -> Network:
    """With what its owner would want to know.

    Args:
        network: what it is.
        costs: knows what training reads that use does not, such as auxiliary heads.
    """
    trained = costs.trained if costs else ()
    found = advice(network.graph, network.fields, network.layers, trained=trained)
    return replace(network, remarks=found)


def _check(sample: Sequence[int] | Tensor) -> None:
    """A sample is a shape or a tensor.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(sample, torch.Tensor):
        return
    whole = isinstance(sample, tuple | list | torch.Size) and all(
        isinstance(size, int) and size > 0 for size in sample
    )
    if not whole:
        raise ConfigError(
            f"expected the shape of one sample, whole numbers of at least 1, found {sample!r}",
            "for example (3, 224, 224)",
        )


def _explained(error: TraceError, module: nn.Module, sample: Sequence[int] | Tensor) -> TraceError:
    """The error with the hint that fits: channels, a batch that was given, or several inputs."""
    shape = _shape(sample)
    first = next((part for part in module.modules() if isinstance(part, _FIRST)), None)
    takes = inspect.signature(module.forward).parameters.values()
    needed = [
        one for one in takes if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) > 1:
        hint = f"its forward takes {len(needed)} inputs; wrap it in a module that makes them of one"
    elif first is not None and len(shape) == first.weight.dim():
        hint = "a sample has no batch: leave the first size out"
    elif (
        first is not None and len(shape) == first.weight.dim() - 1 and shape[0] != first.in_channels
    ):
        hint = f"it reads {first.in_channels} channels, the sample has {shape[0]}"
    else:
        return error
    return TraceError(error.message, hint, path=error.path, source=error.source, op=error.op)


_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _shape(sample: Sequence[int] | Tensor) -> Sequence[int]:
    return sample.shape if isinstance(sample, torch.Tensor) else sample


def _batched(sample: Sequence[int] | Tensor, count: int) -> Any:
    """The sample so many times: a shape, or a tensor on the meta device."""
    shape = (count, *_shape(sample))
    if isinstance(sample, torch.Tensor):
        return torch.empty(shape, dtype=sample.dtype, device="meta")
    return shape


def costs(
    module: nn.Module,
    sample: Sequence[int] | Tensor,
    layers: Sequence[Layer],
    how: How,
    *,
    loss: Callable[[Any], Tensor] = steps.usual_loss,
    rule: OptimRecipe | None = None,
    time: bool = True,
    measure: bool = False,
    largest: bool = True,
) -> Costs:
    """What training and using a network takes.

    Args:
        module: any network; it comes back untouched.
        sample: as for `describe`.
        layers: of `describe`, to which memory and work are assigned.
        how: batch, precision, layout, device, rule.
        loss: what its forward returns → a scalar.
        rule: the optimiser with all its settings; None: the usual ones of `how.optimizer`.
        time: say how long, too. That needs a profile of this machine, which takes some seconds to
            measure, once.
        measure: time every distinct operation of this network.
        largest: find the largest batch that fits.

    Raises:
        TraceError: see `analysis.trace`; or it cannot be trained.
    """
    recipe = rule or from_dict(OptimRecipe, {"name": how.optimizer}, "optim")
    kind = torch.device(how.device).type
    settings: Any = {
        "precision": how.precision,
        "channels_last": how.channels_last,
        "device": kind,
    }

    step = steps.measure_step(
        module,
        _batched(sample, how.batch),
        loss=loss,
        optimizer=lambda network: Planned(network, recipe, kind),
        **settings,
    )
    use = steps.measure_use(module, _batched(sample, 1), **settings)
    free = machine.free_bytes(torch.device(how.device))
    twice = 0
    if free is not None and largest:
        twice = steps.measure_passes(module, _batched(sample, 2 * how.batch), loss=loss, **settings)
    timing = Times(how, step, use, measure=measure) if time or measure else None
    rough = tuple(sorted({*step.rough, *use.rough}))
    room = None if free is None else free * _SPARE / (_PEAK[1] * (_ROUGH_MEMORY if rough else 1))
    found = Costs(
        how=how,
        peak=_range(step.peak),
        use_peak=_range(use.peak),
        seconds=timing.step if timing else None,
        use_seconds=timing.use if timing else None,
        trained=step.trained,
        macs=step.total_macs,
        weights=step.weights,
        gradients=step.gradients,
        state=step.state,
        activations=sum(step.activations.values()),
        kept=_assigned(layers, step.activations),
        macs_back=_assigned(layers, {path: back for path, (_, back) in step.macs.items()}),
        bounds=timing.bounds(layers, step) if timing else (),
        free=free,
        largest_batch=_largest(step, twice, room) if room is not None and largest else None,
        rough=rough,
        busy=timing.busy if timing else 0.0,
        timed="" if timing is None else "measured" if measure else "profile",
    )
    return _widened(found) if rough else found


def _widened(found: Costs) -> Costs:
    return replace(
        found,
        peak=found.peak.wider(_ROUGH_MEMORY),
        use_peak=found.use_peak.wider(_ROUGH_MEMORY),
        seconds=found.seconds and found.seconds.wider(_ROUGH_TIME),
        use_seconds=found.use_seconds and found.use_seconds.wider(_ROUGH_TIME),
    )


def answering(module: nn.Module, sample: Sequence[int], batch: int, how: How) -> Range:
    """Bytes of tensors at the worst moment of answering so many samples at once, in fp32.

    Args:
        module: any network; it comes back untouched.
        sample: shape of one.
        batch: how many.
        how: layout and device.

    Raises:
        TraceError: see `analysis.trace`.
    """
    kind = torch.device(how.device).type
    last = how.channels_last
    use = steps.measure_use(module, _batched(sample, batch), channels_last=last, device=kind)
    return _range(use.peak)


def _range(value: int) -> Range:
    return Range(value=value, low=_PEAK[0] * value, high=_PEAK[1] * value)


def _largest(step: Step, twice: int, room: float) -> int:
    """The largest batch that fits: the peak grows by the same for every sample, since what does not
    (weights, gradients, state) is there for any batch.

    Args:
        step: of one batch.
        twice: `passes` of a batch that is twice as large.
        room: bytes that a step may take.
    """
    slope = (twice - step.passes) / step.batch
    if slope <= 0:
        return step.batch
    fixed = step.passes - slope * step.batch + step.state
    return max(0, math.floor((room - fixed) / slope))


def _assigned(layers: Sequence[Layer], by_path: Mapping[str, int]) -> tuple[int, ...]:
    """Numbers that are known by module path, given to the layers of the table.

    What several layers of one module share goes to the first of them, so that the column adds up.
    """
    places: dict[str, int] = {}
    for at, layer in enumerate(layers):
        places.setdefault(layer.path, at)
    given: dict[int, int] = defaultdict(int)
    for path, number in by_path.items():
        while path not in places and path:
            path = path.rpartition(".")[0]
        if layers:
            given[places.get(path, 0)] += number
    return tuple(given[at] for at in range(len(layers)))
