"""Which pixels an answer is sensitive to: gradients, plain, averaged, guided. Floor 1, explain.

Imports floor 0, NumPy, torch, and `analysis`. Passes hold at most `batch` pictures with their
activations at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog import chance
from neocog.analysis.normal import normal
from neocog.errors import ConfigError
from neocog.explain.why.attribution import Attribution
from neocog.explain.why.probe import fitting, parts, probing, slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn
    from torch.autograd.graph import Node

    from neocog.explain.why.target import Target

__all__ = [
    "guided_backprop",
    "input_gradient",
    "smooth_gradient",
]


def input_gradient(
    module: nn.Module, x: Tensor, target: Target, *, batch: int | None = None, seed: int = 0
) -> Attribution:
    """The gradient of the answer at the picture, ∂y/∂x, with its sign.

    Simonyan, Vedaldi, Zisserman 2014, "Deep inside convolutional networks", arXiv 1312.6034; what
    they show as saliency is its absolute value.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        batch: pictures in a pass.
        seed: of what the network draws, if it does.
    """
    with probing(module, x, target, seed) as probe:
        found = [probe.gradient(probe.x[part], part) for part in parts(len(x), fitting(x, batch))]
        return Attribution(
            method="input_gradient",
            values=torch.cat([one for one, _ in found]).cpu(),
            answer=torch.cat([numbers for _, numbers in found]).cpu().double(),
        )


def smooth_gradient(
    module: nn.Module,
    x: Tensor,
    target: Target,
    *,
    noise: float = 0.15,
    samples: int = 32,
    batch: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """The mean gradient over noisy copies of the picture.

    Smilkov, Thorat, Kim, Viégas, Wattenberg 2017, "SmoothGrad: removing noise by adding noise",
    arXiv 1706.03825.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        noise: standard deviation, as a share of the picture's max − min; the paper advises 10–20 %.
        samples: noisy copies of each picture.
        batch: copies in a pass.
        seed: of the noise.
        progress: told how many passes are done.
    """
    if noise < 0 or samples < 1:
        raise ConfigError(f"expected noise ≥ 0 and samples ≥ 1, found {noise} and {samples}")
    with probing(module, x, target, seed) as probe:
        total = torch.zeros_like(probe.x)
        answers = []
        for row, picture in enumerate(probe.x):
            answers.append(probe.answer(picture[None], probe.rows(row, 1)))
            spread = noise * float(picture.max() - picture.min())
            for part in parts(samples, fitting(x, batch)):
                keys = [
                    chance.key(seed, "smooth gradient", row, sample)
                    for sample in range(part.start, part.stop)
                ]
                drawn = torch.from_numpy(np.stack([normal(picture.shape, key) for key in keys]))
                noisy = picture + spread * drawn.to(picture)
                total[row] += probe.gradient(noisy, probe.rows(row, len(noisy)))[0].sum(0)
                if progress is not None:
                    progress(row * samples + part.stop, len(probe.x) * samples)
        return Attribution(
            method="smooth_gradient", values=(total / samples).cpu(), answer=torch.cat(answers)
        )


def guided_backprop(
    module: nn.Module, x: Tensor, target: Target, *, batch: int | None = None, seed: int = 0
) -> Attribution:
    """The gradient at the picture, of which every ReLU lets only the positive part through.

    Springenberg, Dosovitskiy, Brox, Riedmiller 2015, "Striving for simplicity: the all
    convolutional net", arXiv 1412.6806. A ReLU is what runs as one, whatever it is called and
    whoever calls it: in place, of torch.nn or as a function, ReLU6, a clamp at zero. The pictures
    are sharp, but hardly depend on the weights of the upper layers (`explain.sanity` shows it).

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        batch: pictures in a pass.
        seed: of what the network draws, if it does.
    """
    values, answers, guided = [], [], 0
    with probing(module, x, target, seed) as probe:
        for part in parts(len(x), fitting(x, batch)):
            given = probe.x[part].clone().requires_grad_(True)
            numbers, _ = probe.run(given, part)
            if numbers.grad_fn is not None:
                guided += _guide(numbers.grad_fn)
            values.append(slopes(numbers, [given])[0].cpu())
            answers.append(numbers.detach().cpu().double())
    return Attribution(
        method="guided_backprop",
        values=torch.cat(values),
        answer=torch.cat(answers),
        note="" if guided else "no ReLU ran: this is the plain gradient",
    )


_CUTS = {
    "ReluBackward0": None,
    "HardtanhBackward0": "_saved_min_val",
    "ClampBackward1": "_saved_min",
    "ClampMinBackward0": "_saved_min",
    "ThresholdBackward0": "_saved_threshold",
}
"""What autograd calls the operations that can be a ReLU, and where each keeps what it cuts at."""


def _guide(last: Node) -> int:
    """Let only positive gradients out of every ReLU behind a number; how many there are.

    The graph of the pass knows them all: it is made by the operations that ran.
    """
    seen, waiting, found = {last}, [last], 0
    while waiting:
        node = waiting.pop()
        if node.name() in _CUTS:
            place = _CUTS[node.name()]
            if place is None or getattr(node, place) == 0:
                node.register_hook(_positive)
                found += 1
        before = {one for one, _ in node.next_functions if one is not None} - seen
        seen |= before
        waiting += before
    return found


def _positive(
    inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Of the gradients that a node passes on, what is above zero."""
    return tuple(None if one is None else one.clamp(min=0) for one in inputs)
