"""How fast this machine computes, and from that how long a step takes. Floor 1, room analysis.

Imports floor 0, torch and this room. The profile is measured in a few seconds, by running the
operations of small networks one by one: how many multiply-accumulates a second convolutions and
matrix products reach at several widths, how many bytes a second everything else reaches at several
sizes, and what an operation costs that does next to nothing.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from neocog.analysis import clock
from neocog.analysis.step import DTYPES, measure_step, usual_loss, usual_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from neocog.analysis.step import Phase, Step, Use
    from neocog.analysis.works import Shape, Work

__all__ = ["Bound", "Estimate", "Profile", "bound", "estimate", "measure_profile", "predicted"]

Bound = Literal["arithmetic", "bandwidth", "overhead"]

Curve = tuple[tuple[float, float], ...]
"""Points (size, rate), the sizes rising; rates between two are interpolated in logarithms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one machine does, for one precision and layout."""

    device: str
    """`cpu`, `cuda`, ..."""
    threads: int
    """Threads of one operation."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    channels_last: bool
    """Layout of pictures and kernels."""
    arithmetic: Mapping[str, Curve]
    """Kind of operation → (channels it mixes, multiply-accumulates a second)."""
    bandwidth: Mapping[str, Curve]
    """Name of an operation → (bytes it moves, bytes a second); `` is all others."""
    call: float
    """Seconds of an operation that does next to nothing."""
    framework: Mapping[str, float]
    """Phase → seconds for each operation beside the operation itself: modules, autograd, loops."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Profile:
        """What `to_dict` made, also after a way through JSON.

        Raises:
            ValueError: a curve has no points or they do not rise, a phase is missing, or a number
                is none that a measurement can give.
            KeyError, TypeError: it is no profile at all.
        """
        curves = {
            name: {kind: tuple((a, b) for a, b in curve) for kind, curve in kept[name].items()}
            for name in ("arithmetic", "bandwidth")
        }
        found = cls(**{**kept, **curves})
        found._check()
        return found

    def _check(self) -> None:
        all_curves = [*self.arithmetic.values(), *self.bandwidth.values()]
        numbers = [number for curve in all_curves for point in curve for number in point]
        if not self.arithmetic or "" not in self.bandwidth or not all(all_curves):
            raise ValueError(
                "a profile has curves of arithmetic and bandwidth, none without points"
            )
        if not all(_is_positive(one) for one in (*numbers, self.call)):
            raise ValueError("the rates of a profile, their sizes and its call are positive")
        if any(a[0] >= b[0] for one in all_curves for a, b in itertools.pairwise(one)):
            raise ValueError("the sizes of a profile's curves rise")
        if set(self.framework) != set(_PHASES) or not all(
            one == 0 or _is_positive(one) for one in self.framework.values()
        ):
            raise ValueError(f"a profile's framework has a time for each of {', '.join(_PHASES)}")


def _is_positive(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number) and number > 0


_PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds, and the range in which nine of ten measured steps should lie."""

    value: float
    """Seconds of a training step."""
    low: float
    """Rarely less."""
    high: float
    """Rarely more."""
    forward: float
    """Its forward pass alone."""
    estimated: float
    """Share of the time that comes from the profile, not from timing the operation itself."""


REPLAYED = (0.8, 1.5)
"""Factors from an estimate by replay to the ends of its range. On a quiet machine all 30 pairs of
`benchmarks/plans.py` took 0.85 to 1.28 times the estimate in one round and 28 of 30 took 0.8 to 1.5
times in another; where others kept a quarter of a core of two busy, 27 of 30 did. A step is
disturbed more often than a single operation, so the range reaches further up."""
PROFILED = (0.44, 2.3)
"""The same where the profile stands in: in three rounds 29, 29 and 30 of 30 lay inside. The range
is wide because the rate of a kind of operation differs from network to network by as much."""


def estimate(
    step: Step | Use, profile: Profile, measured: Mapping[Work, float] | None = None
) -> Estimate:
    """How long a step takes.

    Every operation takes `call + max(macs / rate, bytes / bandwidth)` of the profile, or what was
    measured of it, and the framework's share; a step is their sum. Operations that are not
    PyTorch's own count by the bytes that they move, since nothing else is known of them.

    Args:
        step: what it does; or an answer, which is a forward pass only.
        profile: the machine, for the same precision and layout.
        measured: seconds of operations, from `clock.replay`.
    """
    measured = measured or {}
    phases: dict[Phase, float] = dict.fromkeys(_PHASES, 0.0)
    guessed = 0.0
    for (phase, work), count in step.work.items():
        if not _counts(work):
            continue
        known = measured.get(work)
        own = predicted(work, profile) if known is None else known
        phases[phase] += count * (own + profile.framework[phase])
        guessed += count * own * (known is None)
    value = sum(phases.values())
    share = guessed / value if value else 1.0
    low, high = (share * a + (1 - share) * b for a, b in zip(PROFILED, REPLAYED, strict=True))
    return Estimate(
        value=value,
        low=value * low,
        high=value * high,
        forward=phases["forward"],
        estimated=share,
    )


def predicted(work: Work, profile: Profile) -> float:
    """Seconds of one operation after the profile, without the framework's share."""
    if not _counts(work):
        return 0.0
    return profile.call + max(_terms(work, profile))


def bound(work: Work, profile: Profile) -> Bound:
    """What an operation waits for."""
    arithmetic, moved = _terms(work, profile) if _counts(work) else (0.0, 0.0)
    if profile.call >= max(arithmetic, moved):
        return "overhead"
    return "arithmetic" if arithmetic >= moved else "bandwidth"


def _counts(work: Work) -> bool:
    return not (work.view or work.op in clock.FREE or work.op.startswith("profiler::"))


def _terms(work: Work, profile: Profile) -> tuple[float, float]:
    """Seconds of arithmetic, seconds of moving bytes."""
    curves = profile.bandwidth
    curve = curves.get(work.op) or curves[""]
    moved = work.bytes / _at(curve, work.bytes)
    if not work.macs:
        return 0.0, moved
    kind, channels = _kind(work)
    found = profile.arithmetic.get(kind) or profile.arithmetic[_near(kind, profile)]
    # Bytes of these go by the fastest of all other operations: reading and writing alone.
    fastest = max(_at(one, work.bytes) for one in curves.values())
    return work.macs / _at(found, channels), work.bytes / fastest


def _near(kind: str, profile: Profile) -> str:
    """The measured kind that stands for one that was not: without its steps, else any in the same
    direction."""
    plain = kind.replace("strided ", "")
    last = kind.rpartition(" ")[2]
    known = [one for one in profile.arithmetic if one.rpartition(" ")[2] == last]
    return plain if plain in profile.arithmetic else (known or list(profile.arithmetic))[0]


def _kind(work: Work) -> tuple[str, float]:
    """What an operation's rate depends on: its kind, and the channels that it mixes."""
    if not work.op.startswith(("convolution", "_convolution")):
        inner = [one.shape[-1] for one in work.inputs if len(one.shape) > 1]
        return "products", float(inner[0] if inner else 1)
    is_back = "backward" in work.op
    weight: Shape = work.args[2 if is_back else 1]
    groups = int(work.args[9 if is_back else 8])
    direction = "backward" if is_back else "forward"
    window = math.prod(weight.shape[2:])
    # Steps of 2 have kernels of their own, or none: depthwise ones may be a hundred times slower.
    if any(one > 1 for one in work.args[4 if is_back else 3]):
        direction = f"strided {direction}"
    if groups > 1 and weight.shape[1] == 1:
        return f"depthwise {direction}", float(window)
    kind = "pointwise" if window == 1 else "spatial"
    return f"{kind} {direction}", math.sqrt(weight.shape[1] * weight.shape[0] / groups)


def _at(curve: Curve, size: float) -> float:
    """A curve's rate at a size; flat beyond its ends."""
    place = bisect.bisect([one for one, _ in curve], size)
    if place in (0, len(curve)):
        return curve[min(place, len(curve) - 1)][1]
    (left, low), (right, high) = curve[place - 1], curve[place]
    share = math.log(size / left) / math.log(right / left)
    return float(low * (high / low) ** share)


def measure_profile(
    device: torch.device,
    *,
    precision: str = "fp32",
    channels_last: bool = False,
    batch: int | None = None,
) -> Profile:
    """Measure this machine, in a few seconds.

    Args:
        device: which of its devices.
        precision: `fp32`, `bf16` or `fp16`.
        channels_last: layout of pictures and kernels.
        batch: pictures in a measurement; by default 16 on a processor and 256 elsewhere.
    """
    devices = [device] if device.type == "cuda" else []
    # Layers draw their weights: the caller's generator must not notice.
    with torch.random.fork_rng(devices):
        return _measured(device, precision, channels_last, batch)


def _measured(
    device: torch.device, precision: str, channels_last: bool, batch: int | None
) -> Profile:
    call, framework = _overheads(device, precision, channels_last)
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    moves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    others: list[tuple[float, float]] = []
    seen: set[Work] = set()
    for net, shape in _probes(batch or (16 if device.type == "cpu" else 256)):
        step = measure_step(
            net, shape, precision=precision, channels_last=channels_last, device=device.type
        )
        new = dict.fromkeys(
            work for _, work in step.work if work not in seen and (work.macs or work.bytes > _SMALL)
        )
        seen.update(new)
        found = clock.replay(new, device, budget=_BUDGET, footprint=_FOOTPRINT)
        for work, spent in found.seconds.items():
            net_of_call = max(spent - call, spent / 10)
            if work.macs:
                kind, channels = _kind(work)
                points[kind].append((channels, work.macs / net_of_call))
            else:
                moves[work.op].append((work.bytes, work.bytes / net_of_call))
                others.append((work.bytes, work.bytes / net_of_call))
    return Profile(
        device=device.type,
        threads=torch.get_num_threads(),
        precision=precision,
        channels_last=channels_last,
        arithmetic={kind: _curve(found) for kind, found in points.items()},
        bandwidth={"": _curve(others), **{op: _curve(found) for op, found in moves.items()}},
        call=call,
        framework=framework,
    )


_SMALL = 1 << 14
"""Bytes below which an operation's time is its call."""


def _curve(points: list[tuple[float, float]]) -> Curve:
    """The median rate in each doubling of the size."""
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for size, rate in points:
        bins[round(math.log2(size))].append((size, rate))
    return tuple(
        (statistics.median(a for a, _ in found), statistics.median(b for _, b in found))
        for _, found in sorted(bins.items())
    )


_BUDGET = 0.006
"""Seconds for one operation of the profile."""
_FOOTPRINT = 8 << 20
"""Bytes that the profile goes round through for one operation; filling more takes too long."""


def _probes(batch: int) -> Iterator[tuple[nn.Module, tuple[int, ...]]]:
    """Small networks that hold what networks for pictures hold, and the shape of their input.

    The first layers are there so that what comes after them learns the gradient of its input, too.
    """
    for kernel in (3, 1):
        for width, side in ((3, 32), (16, 16), (64, 16), (256, 8)):
            after = 32 if width == 3 else width
            convolution = nn.Conv2d(width, after, kernel, padding=kernel // 2, bias=False)
            yield nn.Sequential(nn.Conv2d(width, width, 1), convolution), (batch, width, side, side)
        strided = nn.Conv2d(64, 128, kernel, 2, padding=kernel // 2, bias=False)
        yield nn.Sequential(nn.Conv2d(64, 64, 1), strided), (batch, 64, 16, 16)
    for kernel, stride in ((3, 1), (3, 2), (7, 1)):
        depthwise = nn.Conv2d(64, 64, kernel, stride, kernel // 2, groups=64, bias=False)
        yield nn.Sequential(nn.Conv2d(64, 64, 1), depthwise), (batch, 64, 16, 16)
    for width in (64, 512, 2048):
        yield nn.Sequential(nn.Linear(width, width), nn.Linear(width, 64)), (batch * 2, width)
    for width, side in ((16, 8), (32, 16), (32, 56)):
        yield _moves(width), (batch, width, side, side)


def _moves(width: int) -> nn.Module:
    """Everything that has no multiply-accumulates."""
    return nn.Sequential(
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.SiLU(),
        nn.GELU(),
        nn.Sigmoid(),
        _Joined(),
        nn.Hardtanh(),
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(2),
        nn.GroupNorm(1, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class _Joined(nn.Module):
    """Sum, product and concatenation with itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W to B×2C×H×W."""
        return torch.cat([x + x, x * x], 1)


def _overheads(
    device: torch.device, precision: str, channels_last: bool
) -> tuple[float, dict[str, float]]:
    """An operation that does next to nothing, and what the framework adds in each phase.

    A chain of layers on single pixels is run as training runs it, and its operations one by one;
    what is missing is the framework's.
    """
    layers = [[nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()] for _ in range(16)]
    chain = nn.Sequential(*(one for three in layers for one in three))
    step = measure_step(
        chain,
        (2, 4, 2, 2),
        precision=precision,
        channels_last=channels_last,
        device=device.type,
    )
    replayed = clock.replay((work for _, work in step.work), device, budget=_BUDGET).seconds
    real = _phases(chain, device, precision, channels_last)
    own: dict[Phase, float] = dict.fromkeys(_PHASES, 0.0)
    counts = dict.fromkeys(own, 0)
    for (phase, work), count in step.work.items():
        if _counts(work):
            own[phase] += count * replayed.get(work, 0.0)
            counts[phase] += count
    framework = {
        str(phase): max(0.0, (real[phase] - own[phase]) / max(1, counts[phase])) for phase in own
    }
    quick = [spent for work, spent in replayed.items() if not work.macs]
    return statistics.median(quick), framework


def _phases(
    net: nn.Module, device: torch.device, precision: str, channels_last: bool
) -> dict[Phase, float]:
    """Median seconds of each phase of real steps."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = torch.zeros(2, 4, 2, 2, device=device).contiguous(memory_format=layout)
    rule = usual_optimizer(net.parameters())
    lower = DTYPES[precision]
    times: list[list[float]] = []
    for _ in range(_STEPS):
        marks = [_now(device)]
        with torch.autocast(device.type, dtype=lower, enabled=lower is not None):
            answer = net(images)
        loss = usual_loss(answer)
        marks.append(_now(device))
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(_now(device))
        rule.step()
        rule.zero_grad(set_to_none=True)
        marks.append(_now(device))
        times.append([b - a for a, b in itertools.pairwise(marks)])
    medians = (statistics.median(one) for one in zip(*times[2:], strict=True))
    return dict(zip(_PHASES, medians, strict=True))


_STEPS = 14
"""Steps of the chain; the first two are not counted."""


def _now(device: torch.device) -> float:
    """The clock when the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
