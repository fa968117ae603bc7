"""The ways to say why a network answers what it answers, by name. Floor 1, explain.

Imports floor 0, torch, and `analysis`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from neocog.errors import ConfigError, near
from neocog.explain.why.cam import grad_cam, grad_cam_pp
from neocog.explain.why.gradients import guided_backprop, input_gradient, smooth_gradient
from neocog.explain.why.integrated import integrated_gradients
from neocog.explain.why.occlusion import occlusion

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from neocog.explain.why.attribution import Attribution
    from neocog.explain.why.target import Target

__all__ = ["METHODS", "Method", "explain_answer"]


class Run(Protocol):
    """A method with its usual settings."""

    def __call__(
        self,
        module: nn.Module,
        x: Tensor,
        target: Target,
        *,
        layer: str,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> Attribution:
        """Values for the pixels of x, B×C×H×W."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to explain an answer."""

    title: str
    """As people call it."""
    run: Run
    """The method with its usual settings."""
    description: str
    """One sentence for people."""
    layer: bool = False
    """Whether it explains by the map of a layer."""
    complete: bool = False
    """Whether its values sum to the change of the answer."""


METHODS: dict[str, Method] = {
    "input_gradient": Method(
        title="Input gradient",
        run=lambda module, x, target, *, layer, seed, progress: input_gradient(
            module, x, target, seed=seed
        ),
        description="How the answer changes with each pixel: the gradient at the picture.",
    ),
    "smooth_gradient": Method(
        title="SmoothGrad",
        run=lambda module, x, target, *, layer, seed, progress: smooth_gradient(
            module, x, target, seed=seed, progress=progress
        ),
        description="The mean gradient over noisy copies of the picture.",
    ),
    "integrated_gradients": Method(
        title="Integrated gradients",
        run=lambda module, x, target, *, layer, seed, progress: integrated_gradients(
            module, x, target, seed=seed, progress=progress
        ),
        description="Shares of pixels that sum to the answer minus that for the mean picture.",
        complete=True,
    ),
    "guided_backprop": Method(
        title="Guided backprop",
        run=lambda module, x, target, *, layer, seed, progress: guided_backprop(
            module, x, target, seed=seed
        ),
        description="The gradient, of which every ReLU passes on only what is above zero.",
    ),
    "grad_cam": Method(
        title="Grad-CAM",
        run=lambda module, x, target, *, layer, seed, progress: grad_cam(
            module, x, target, layer, seed=seed
        ),
        description="Where a layer's channels speak for the answer, weighed by mean gradients.",
        layer=True,
    ),
    "grad_cam_pp": Method(
        title="Grad-CAM++",
        run=lambda module, x, target, *, layer, seed, progress: grad_cam_pp(
            module, x, target, layer, seed=seed
        ),
        description="Channels weighed position by position, for several objects of a class.",
        layer=True,
    ),
    "occlusion": Method(
        title="Occlusion",
        run=lambda module, x, target, *, layer, seed, progress: occlusion(
            module, x, target, seed=seed, progress=progress
        ),
        description="What the answer loses when a square of the picture is hidden.",
    ),
}
"""By the names that `--method` takes."""


def explain_answer(
    module: nn.Module,
    x: Tensor,
    target: Target,
    method: str = "integrated_gradients",
    *,
    layer: str = "",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """What the pixels had to do with one number of the answer, by a method's name.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        method: of `METHODS`.
        layer: of methods that weigh a layer's map; empty: the last map.
        seed: of what is drawn.
        progress: told how much is done, of methods that take many passes.

    Raises:
        ConfigError: no such method, or a layer for one that needs none; and what the method raises.
    """
    known = METHODS.get(method)
    if known is None:
        raise ConfigError(f"no method is called {method!r}", near(method, METHODS))
    if layer and not known.layer:
        takes = ", ".join(name for name, one in METHODS.items() if one.layer)
        raise ConfigError(f"{method} takes no layer, found {layer!r}", f"these do: {takes}")
    return known.run(module, x, target, layer=layer, seed=seed, progress=progress)
