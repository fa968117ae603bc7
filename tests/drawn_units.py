"""Random units of random layers of networks of the catalogue, traced and compared with the network.

What the network computes is read by hooks on the network itself, not on the copy that is recorded.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neocog import chance
from neocog.analysis.normal import normal
from neocog.analysis.trace import tensors_in
from neocog.explain.recording import record
from neocog.explain.unit.trace import Arithmetic
from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neocog.explain.unit.trace import UnitTrace

SIDES = {
    **dict.fromkeys(("lenet5", "cnn", "speednet", "highway", "convnext_tiny", "mlp"), 32),
    **dict.fromkeys(("unet", "unet_backbone", "segnet", "deconvnet"), 33),
    "densenet121": 40,
    "inception_v3": 96,
    **dict.fromkeys(("fcn8s", "fcn16s", "fcn32s"), 49),
}
"""Small sizes; 64 where nothing is said."""


@dataclass(slots=True)
class Tally:
    """What came of many draws."""

    draws: int = 0
    agree: int = 0
    steps: int = 0
    """On the traces and on their paths to the pixels."""
    pixels: int = 0
    """Paths that end at a pixel."""
    largest: float = 0.0
    """Gap of a step, as a share of max(1, Σ |terms|)."""
    largest_at: str = ""
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def shape(name: str) -> tuple[int, int, int, int]:
    side = SIDES.get(name, 64)
    return 1, 1 if name == "lenet5" else 3, side, side


def network(name: str, *, seed: int = 0, **args: Any) -> nn.Module:
    """A network whose norms have statistics and scales of their own."""
    _, channels, *size = shape(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(chance.key(seed, name))
        net = catalog.build(name, channels=channels, size=tuple(size), outputs=10, args=args)
    for path, part in net.named_modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            count = part.num_features
            for number, tensor in enumerate((part.running_mean, part.weight, part.bias)):
                if tensor is not None:
                    drawn = normal((count,), chance.key(seed, name, path, number))
                    tensor.data += 0.2 * torch.from_numpy(drawn)
            assert part.running_var is not None
            drawn = normal((count,), chance.key(seed, name, path, 3))
            part.running_var.data *= torch.from_numpy(drawn * 0.3).exp()
    return net.eval()


def picture(name: str, seed: int) -> Tensor:
    return torch.from_numpy(normal(shape(name), chance.key(seed, name, "picture")))


def said(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each run of each module answers, by hooks on the network itself."""
    found: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()
    handles = []
    for path, part in net.named_modules():

        def keep(_: nn.Module, __: Any, answer: Any, path: str = path) -> None:
            counts[path] += 1
            name = path if counts[path] == 1 else f"{path}#{counts[path]}"
            one = next(tensors_in(answer), None)
            if one is not None:
                found[name] = one.detach().clone()

        handles.append(part.register_forward_hook(keep))
    with torch.no_grad():
        net(x.clone())
    for handle in handles:
        handle.remove()
    return found


def drawn(net: nn.Module, x: Tensor, count: int, key: int) -> Iterator[tuple[UnitTrace, float]]:
    """Traces of random units, and what the network says they are."""
    answers = said(net, x)
    names = [name for name, one in answers.items() if one.dim() >= 2]
    arithmetic = Arithmetic(record(net, x))
    for number in range(count):
        name = names[chance.draw(key, number, 0) % len(names)]
        answer = answers[name]
        place = chance.draw(key, number, 1) % math.prod(answer.shape[1:])
        index = [int(one) for one in torch.unravel_index(torch.tensor(place), answer.shape[1:])]
        trace = arithmetic.unit(name, index[0], index[1:])
        yield trace, float(answer[(0, *index)])


def tally(net: nn.Module, x: Tensor, count: int, key: int, into: Tally, name: str = "") -> None:
    """Add to a tally: the value, every step of the trace, and every step on to the pixels."""
    for trace, value in drawn(net, x, count, key):
        into.draws += 1
        path = trace.path_to_pixels()
        into.pixels += path[-1].is_pixel
        where = f"{name} {trace.layer!r} {trace.unit.index}"
        # PyTorch takes attention by a fused kernel, which rounds otherwise.
        fine = abs(trace.value - value) <= 1e-6 * max(1.0, abs(value))
        if not fine:
            into.wrong.append(f"{where}: traced {trace.value}, computed {value}")
        for step in (step for one in path for step in one.steps):
            into.steps += 1
            into.kinds[f"{step.kind} {step.op}"] += 1
            share = step.gap / step.scale
            if share > into.largest:
                into.largest, into.largest_at = share, f"{where}: {step.layer} {step.op}"
            if not step.agrees:
                fine = False
                into.wrong.append(f"{where}: {step.layer} {step.op} {step.total} ≠ {step.value}")
        into.agree += fine
