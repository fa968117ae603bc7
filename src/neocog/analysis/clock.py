"""Times single operations of a step by running them for real. Floor 1, room analysis.

Imports floor 0, torch and this room. An operation is rebuilt from the shapes, strides and types of
its arguments, which is all that its cost depends on, as far as networks for pictures go. What
cannot be rebuilt is left to an estimate: timing never fails.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neocog.analysis.works import Shape
from neocog.chance import MASK, mix
from neocog.host import memory_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from neocog.analysis.works import Work

__all__ = ["FOOTPRINT", "FREE", "Replay", "quiet", "replay", "seconds"]

FOOTPRINT = 32 << 20
"""Bytes of inputs that a measurement goes round through: about a cache of the last level."""
BUDGET = 0.03
"""Seconds for one operation; each runs at least twice, whatever that takes."""
GAP = 20e-6
"""Seconds between two operations: what the framework takes in a step. Threads that have waited that
long may sleep, and waking them is part of the cost of the next operation."""
_COPIES = 12
"""Most copies of the inputs."""
_POOL = 65_521
"""How many different numbers fill the inputs; a prime, so that rows differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What running the operations of a step one by one found."""

    seconds: Mapping[Work, float]
    """Mean for each operation that could be run."""
    failed: Mapping[str, str]
    """Name of an operation that could not be run → why."""


def replay(
    works: Iterable[Work],
    device: torch.device,
    *,
    budget: float = BUDGET,
    footprint: int = FOOTPRINT,
) -> Replay:
    """Time every distinct operation but views, which move nothing.

    Args:
        works: operations, for example of `Step.work`; each is timed once.
        device: where.
        budget: seconds for one operation.
        footprint: bytes that lie between two uses of a tensor: the peak of the step, if that is
            less than a cache holds.
    """
    found: dict[Work, float] = {}
    failed: dict[str, str] = {}
    with quiet(device):
        for work in dict.fromkeys(works):
            if work.view or work.op in FREE or "::" in work.op:
                continue
            try:
                found[work] = _timed(work, device, budget, min(footprint, FOOTPRINT))
            except Exception as error:  # noqa: BLE001 - whatever it is: it wants values, or is not there
                failed[work.op] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Replay(seconds=found, failed=failed)


def seconds(
    work: Work, device: torch.device, *, budget: float = BUDGET, footprint: int = FOOTPRINT
) -> float | None:
    """Mean time of one operation; None where it cannot be rebuilt. See `replay`."""
    return replay([work], device, budget=budget, footprint=footprint).seconds.get(work)


FREE = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
"""Operations that only ask for memory, which others' times include."""


@contextlib.contextmanager
def quiet(device: torch.device) -> Iterator[None]:
    """No gradients, memory kept as in training, and torch's generator as it was afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad(), memory_kept():
        yield


def _timed(work: Work, device: torch.device, budget: float, footprint: int) -> float:
    """Median of the runs, each on inputs that were last touched some megabytes ago.

    The answers of a round are kept until it is over: in a step, too, an answer goes where nothing
    has been for a while. The first round is not counted: libraries prepare kernels for a shape.
    """
    call = _operation(work)
    size = work.bytes
    first = _arguments(work, device)
    spent = _clocked(call, [first], device)[0]
    again = _clocked(call, [first], device)[0]
    copies = min(_COPIES, 1 + footprint // max(size, 1), 1 + int(budget / max(again, 1e-6)))
    if copies < 3:
        return statistics.median([spent, again, *_clocked(call, [first], device)])
    sets = [first, *(_arguments(work, device) for _ in range(copies - 1))]
    _clocked(call, sets, device)
    return _typical(_clocked(call, sets, device))


def _typical(times: list[float]) -> float:
    """The mean, where no run counts for more than three usual ones.

    A step is a sum of many operations, so that means add up to it and medians do not; but a single
    run that was interrupted must not count for all operations of its kind.
    """
    most = 3 * statistics.median(times)
    return statistics.mean(min(one, most) for one in times)


_Arguments = tuple[list[Any], dict[str, Any]]


def _clocked(call: Callable[..., Any], sets: list[_Arguments], device: torch.device) -> list[float]:
    """Seconds of a call with each set of arguments."""
    answers = []
    if device.type == "cuda":
        event: Any = torch.cuda.Event
        marks = [event(enable_timing=True) for _ in range(len(sets) + 1)]
        marks[0].record()
        for (args, kwargs), mark in zip(sets, marks[1:], strict=True):
            answers.append(call(*args, **kwargs))
            mark.record()
        torch.cuda.synchronize(device)
        return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]
    times = []
    for args, kwargs in sets:
        rested = time.perf_counter() + GAP
        while time.perf_counter() < rested:
            pass
        began = time.perf_counter()
        answer = call(*args, **kwargs)
        times.append(time.perf_counter() - began)
        answers.append(answer)
    return times


def _operation(work: Work) -> Callable[..., Any]:
    packet = getattr(torch.ops.aten, work.op)
    found: Callable[..., Any] = getattr(packet, work.overload or "default")
    return found


def _arguments(work: Work, device: torch.device) -> _Arguments:
    """New tensors in place of the shapes."""
    args = [_real(one, device) for one in work.args]
    return args, {key: _real(value, device) for key, value in work.kwargs}


def _real(value: Any, device: torch.device) -> Any:
    if isinstance(value, Shape):
        return _filled(value, device)
    if isinstance(value, tuple):
        return [_real(one, device) for one in value]
    return device if isinstance(value, torch.device) else value


def _filled(shape: Shape, device: torch.device) -> Tensor:
    """A tensor of that layout; small normal numbers, or zeros if it holds whole numbers."""
    dtype = getattr(torch, shape.dtype)
    if 0 in shape.shape:
        return torch.empty(shape.shape, dtype=dtype, device=device)
    extent = 1 + sum(
        (size - 1) * stride for size, stride in zip(shape.shape, shape.strides, strict=True)
    )
    flat = torch.zeros(extent, dtype=dtype, device=device)
    if dtype.is_floating_point:
        numbers = _numbers(min(extent, _POOL)).to(device, dtype)
        rows = extent // len(numbers)
        flat[: rows * len(numbers)].view(rows, -1).copy_(numbers.expand(rows, -1))
        flat[rows * len(numbers) :] = numbers[: extent - rows * len(numbers)]
    return flat.as_strided(shape.shape, shape.strides)


def _numbers(count: int) -> Tensor:
    """Normal numbers of deviation 0.1, in no order: pooling takes several times as long where the
    processor cannot guess which number is the largest."""
    shares: Tensor = mix(torch.arange(1, count + 1)).double().add_(0.5).div_(MASK + 1)
    return shares.mul_(2).sub_(1).erfinv_().mul_(0.1 * math.sqrt(2)).float()
