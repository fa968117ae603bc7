"""What a plan holds. Floor 4, room planning; standard library, types of analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from neocog.analysis.advice import Remark
    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Graph
    from neocog.analysis.summary import Layer, Unknown

__all__ = ["Costs", "How", "Network", "Range"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A prediction with its error bar. How often the truth lies between low and high is measured:
    `benchmarks/README.md`, "Plans"."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Range:
        """So many of it."""
        return Range(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def plus(self, more: float) -> Range:
        """It and something that is known."""
        return Range(value=self.value + more, low=self.low + more, high=self.high + more)

    def wider(self, factor: float) -> Range:
        """So many times less certain, either way."""
        return Range(value=self.value, low=self.low / factor, high=self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a network would run."""

    batch: int = 32
    """Samples of a training step."""
    precision: str = "fp32"
    """`fp32`, `bf16` or `fp16`, as autocast does it."""
    channels_last: bool = False
    """Whether pictures and kernels lie so in memory."""
    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:1`, `mps`."""
    optimizer: str = "momentum"
    """A rule of `optim.name`."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch is at least 1, got {self.batch}")
        known = ("fp32", "bf16", "fp16")
        if self.precision not in known:
            raise ConfigError(f"no precision {self.precision!r}", near(self.precision, known))


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a network is, for one sample."""

    name: str
    """For people."""
    input: tuple[int, ...]
    """The sample's shape: C×H×W."""
    graph: Graph
    """What ran."""
    fields: Fields
    """What every tensor sees of the input."""
    layers: tuple[Layer, ...]
    """In the order of running."""
    unknown: tuple[Unknown, ...]
    """Operations whose cost is not known: their work is in no sum."""
    remarks: tuple[Remark, ...]
    """What its owner would want to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What running it takes."""

    how: How
    """Batch, precision, layout, device, rule."""
    peak: Range
    """Bytes of tensors, at the worst moment of a training step."""
    use_peak: Range
    """Bytes of tensors, at the worst moment of an answer to one sample."""
    seconds: Range | None
    """Of a training step; None where it was not asked for."""
    use_seconds: Range | None
    """Of an answer to one sample."""
    trained: tuple[str, ...]
    """Names of the parameters that a step changes."""
    macs: int
    """Multiply-accumulates of a training step."""
    weights: int
    """Bytes of parameters and buffers."""
    gradients: int
    """Bytes of the gradients."""
    state: int
    """Bytes that the optimiser keeps from step to step."""
    activations: int
    """Bytes that the forward pass of a step keeps for the backward pass."""
    kept: tuple[int, ...]
    """The same for each layer."""
    macs_back: tuple[int, ...]
    """Multiply-accumulates of each layer's gradients, for the batch."""
    bounds: tuple[str, ...]
    """What decides each layer's time: `arithmetic`, `bandwidth` or `overhead`; empty without."""
    free: int | None
    """Bytes of memory that are free now; None where the system does not say."""
    largest_batch: int | None
    """The largest batch whose step fits into them."""
    rough: tuple[str, ...]
    """What makes these numbers less certain than their ranges usually are, which are wider for it:
    see `analysis.step.Step`; mostly empty."""
    busy: float
    """Processors that other programs kept busy while this machine was measured; 0 without times."""
    timed: str
    """`profile`: from what this machine does with typical operations; `measured`: each operation of
    this network was timed; empty: no times."""
