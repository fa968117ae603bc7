"""The picture that excites an output, a channel or a unit most. Floor 1, explain; imports floor 0,
NumPy, torch and `analysis`.

Gradient ascent on the picture (Erhan, Bengio, Courville and Vincent 2009). Without more it ends in
a hum of high frequencies, so the picture is held back: by a penalty on its size (Simonyan, Vedaldi
and Zisserman 2014), on its total variation (Mahendran and Vedaldi 2015), by blurring now and then
(Yosinski et al. 2015), by moving it about before every look (Mordvintsev, Olah and Tyka 2015), and
by climbing in decorrelated frequencies and colours (Olah, Mordvintsev and Schubert 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neocog import chance
from neocog.analysis.trace import trace
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError, NeocogError
from neocog.explain.capture import capture
from neocog.explain.layers import layer_of, layers_of
from neocog.explain.look.canvas import Canvas, moved, variation
from neocog.explain.why.target import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neocog.explain.layers import Layer
    from neocog.explain.why.target import Target

__all__ = ["Dream", "Restraint", "dream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restraint:
    """What holds a picture back from becoming noise; 0 turns each of them off.

    Weights are relative to what is climbed: with 1, what is punished weighs as much as the answer
    at every step.
    """

    decay: float = 0.0
    """Of the mean square of the pixels, as the network takes them: extreme pixels."""
    variation: float = 0.1
    """Of the mean absolute difference of neighbouring pixels."""
    blur: float = 0.0
    """Standard deviation in pixels of a Gaussian that the picture is blurred with."""
    blur_every: int = 8
    """Steps from one blurring to the next; the last eighth of the steps has none."""
    jitter: float = 1 / 16
    """Of the picture's side: the most that it is moved by before a look."""
    zoom: float = 0.1
    """The most that it is made larger or smaller by: 0.1 is 10 %."""
    turn: float = 5.0
    """The most that it is turned by, in degrees."""
    fourier: bool = True
    """Climb in frequencies of equal energy and, of three channels, in decorrelated colours;
    otherwise pixel by pixel."""

    def __post_init__(self) -> None:
        numbers = (self.decay, self.variation, self.blur, self.jitter, self.zoom, self.turn)
        if not all(0 <= one < math.inf for one in numbers) or self.blur_every < 1 or self.zoom >= 1:
            raise ConfigError(
                f"expected numbers of 0 or more, a zoom below 1 and a blur every step or more "
                f"rarely, found {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dream:
    """A picture that was made to excite."""

    picture: Tensor
    """C×H×W, as the network takes it."""
    pixels: NDArray[np.uint8] | None
    """H×W×C, as it is looked at; None where mean and deviation of the pixels are not known."""
    course: tuple[float, ...]
    """What was climbed, at each step, for the picture as it was moved at that step."""
    before: float
    """For the noise that the climb began with, not moved."""
    value: float
    """For the picture, rounded to whole grey values where those are known, not moved."""


def dream(
    module: nn.Module,
    size: Sequence[int],
    target: Target,
    *,
    layer: str = "",
    unit: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    steps: int = 256,
    rate: float = 0.05,
    restraint: Restraint | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Dream:
    """Climb from grey noise to a picture that excites.

    The network runs as in use, on a copy of it. Held: what one pass keeps for its gradient.

    Args:
        module: a network of pictures.
        size: C×H×W.
        target: of `explain.why.target`. Without a layer: an output of the network, before any
            softmax if it has one outside. With one: the number of a channel, whose mean over all
            positions is climbed, or a function of the layer's answer to one number a picture.
        layer: name of a layer that answers with a map or with one number a channel.
        unit: row and column of the one position that counts, of a layer with a map.
        mean: of pixels 0 … 1, each channel, that the network's input is normalised with. Given with
            `std`, the picture stays one: within 0 … 1 before it is normalised.
        std: their deviation.
        steps: of the climb.
        rate: of Adam.
        restraint: what holds the picture back.
        seed: of the noise and of the moves.
        progress: told how many steps of how many are done.

    Raises:
        TraceError: the network does not run at this size.
        ConfigError: no such layer, channel, unit or output; arguments that cannot be.
        NeocogError: what is climbed is not finite, or the picture has no say in it.
    """
    if len(size) != 3 or steps < 1 or not rate > 0:
        raise ConfigError(
            f"expected a size C×H×W, steps and a rate, found {tuple(size)}, {steps}, {rate}"
        )
    held = restraint or Restraint()
    twin = copied(module)
    device, dtype = place(twin)
    goal = _Goal(twin, size, target, layer, unit)
    canvas = Canvas(size, mean, std, fourier=held.fourier, seed=seed, device=device)
    adam = torch.optim.Adam(canvas.parameters, lr=rate)
    course: list[float] = []
    with own_chance(device, chance.key(seed, "dream")), torch.enable_grad():
        before = goal.value(canvas.picture().detach().to(dtype))
        for step in range(steps):
            adam.zero_grad()
            picture = canvas.picture()
            reached = goal.of(_seen(picture, held, seed, step).to(dtype))
            _check(reached, step)
            torch.autograd.backward(_cost(picture, reached.detach(), held) - reached)
            adam.step()
            canvas.kept_valid()
            if held.blur and (step + 1) % held.blur_every == 0 and step < steps - steps // 8:
                canvas.blur(held.blur)
            course.append(float(reached.detach()))
            if progress:
                progress(step + 1, steps)
        picture, pixels = canvas.finished()
        value = goal.value(picture.to(dtype))
    return Dream(
        picture=picture[0].cpu(), pixels=pixels, course=tuple(course), before=before, value=value
    )


def _seen(picture: Tensor, held: Restraint, seed: int, step: int) -> Tensor:
    """The picture as it is moved for one look."""
    if not (held.jitter or held.zoom or held.turn):
        return picture
    key = chance.key(seed, "dream", step)
    down, right, larger, turned = (
        2 * (chance.draw(key, 0, at) + 0.5) / 2**32 - 1 for at in range(4)
    )
    return moved(
        picture,
        shift=(held.jitter * down, held.jitter * right),
        zoom=1 + held.zoom * larger,
        turn=held.turn * turned,
    )


def _cost(picture: Tensor, reached: Tensor, held: Restraint) -> Tensor:
    """What the picture is punished with: relative to what is reached, so that it counts as much at
    any height of the climb."""
    cost = held.variation * variation(picture) + held.decay * picture.square().mean()
    return reached.abs().clamp(min=1e-3) * cost


def _check(reached: Tensor, step: int) -> None:
    """It can be climbed."""
    if not bool(reached.isfinite()):
        raise NeocogError(
            f"what is climbed is no longer finite at step {step + 1}", "take a lower rate"
        )
    if not reached.requires_grad:
        raise NeocogError(
            "the picture has no say in what is climbed", "name another layer or output"
        )


class _Goal:
    """What is climbed."""

    def __init__(
        self,
        twin: nn.Module,
        size: Sequence[int],
        target: Target,
        layer: str,
        unit: tuple[int, int] | None,
    ) -> None:
        self._twin, self._target, self._unit = twin, target, unit
        self._layer: Layer | None = None
        if layer:
            _, dtype = place(twin)
            graph = trace(twin, torch.empty(1, *size, dtype=dtype, device="meta"))
            self._layer = layer_of(layers_of(graph), layer, map=unit is not None)
        elif unit is not None:
            raise ConfigError("expected the layer that the unit is of", "name it")
        if unit is not None and self._layer is not None:
            high, wide = self._layer.size[1:]
            if not (0 <= unit[0] < high and 0 <= unit[1] < wide):
                raise ConfigError(f"expected a unit within {high}×{wide}, found {unit}")

    def of(self, x: Tensor) -> Tensor:
        """B×C×H×W → one number."""
        if self._layer is None:
            return chosen(capture(self._twin, x, ()).output, self._target).sum()
        answer = capture(self._twin, x, (self._layer.name,)).layers[self._layer.name]
        answer = self._layer.channels_first(answer)
        if callable(self._target):
            return chosen(answer, self._target).sum()
        if self._unit is not None:
            answer = answer[:, :, self._unit[0], self._unit[1]]
        # Of a channel the mean over positions, where an output has their sum.
        positions = math.prod(answer.shape[2:])
        return chosen(answer, self._target).sum() / positions

    def value(self, x: Tensor) -> float:
        """The same without a gradient."""
        with torch.no_grad():
            return float(self.of(x))
