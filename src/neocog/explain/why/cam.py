"""Where in a layer's map the answer comes from: Grad-CAM and Grad-CAM++. Floor 1, explain.

Imports floor 0, torch, and `analysis`, whose graph says which layers answer with maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from neocog.analysis.field import fields
from neocog.analysis.maps import last_map, named_map, run_name
from neocog.analysis.trace import TraceError, trace
from neocog.errors import ConfigError
from neocog.explain.why.attribution import Attribution
from neocog.explain.why.probe import fitting, parts, probing, slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from neocog.explain.why.target import Target

__all__ = ["grad_cam", "grad_cam_pp"]


def grad_cam(
    module: nn.Module,
    x: Tensor,
    target: Target,
    layer: str = "",
    *,
    resize: bool = True,
    batch: int | None = None,
    seed: int = 0,
) -> Attribution:
    """ReLU(Σ_c w_c A_c): the channels of a map, each weighed by its mean gradient.

    Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017, "Grad-CAM: visual explanations from deep
    networks via gradient-based localization", arXiv 1610.02391.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes it.
        target: which number of the answer.
        layer: path of a module that answers with a map; `path#2` is its second run. Empty: the last
            map of more than one position, other than the answer itself.
        resize: bilinearly to the picture's size, B×1×H×W; otherwise as large as the map.
        batch: pictures in a pass.
        seed: of what the network draws, if it does.

    Raises:
        ConfigError: no such layer, or its answer is no map; no map at all.
        TraceError: no layer was named, and the network cannot be traced.
    """
    return _cam("grad_cam", _mean_gradient, module, x, target, layer, resize, batch, seed)


def grad_cam_pp(
    module: nn.Module,
    x: Tensor,
    target: Target,
    layer: str = "",
    *,
    resize: bool = True,
    batch: int | None = None,
    seed: int = 0,
) -> Attribution:
    """Grad-CAM whose channels are weighed position by position, for several objects of a class.

    Chattopadhay, Sarkar, Howlader, Balasubramanian 2018, "Grad-CAM++: generalized gradient-based
    visual explanations for deep convolutional networks", arXiv 1710.11063: with g = ∂y/∂A,
    w_c = Σ_ij α ReLU(g) and α = g² / (2g² + g³ Σ_ab A_ab). The paper explains exp(y), whose common
    factor exp(y) is left out: a number for the whole picture, and soon too large.

    Arguments and errors are those of `grad_cam`.
    """
    return _cam("grad_cam_pp", _plus_plus, module, x, target, layer, resize, batch, seed)


def _mean_gradient(_: Tensor, slope: Tensor) -> Tensor:
    return slope.mean((2, 3), keepdim=True)


def _plus_plus(answer: Tensor, slope: Tensor) -> Tensor:
    # g / (2 + g Σ A) is g³ / (2g² + g³ Σ A), and does not underflow where g is small.
    below = 2 + slope * answer.sum((2, 3), keepdim=True)
    alpha = torch.where((slope == 0) | (below == 0), torch.zeros_like(slope), 1 / below)
    return (alpha * slope.relu()).sum((2, 3), keepdim=True)


def _cam(
    method: str,
    weigh: Callable[[Tensor, Tensor], Tensor],
    module: nn.Module,
    x: Tensor,
    target: Target,
    layer: str,
    resize: bool,
    batch: int | None,
    seed: int,
) -> Attribution:
    values, answers = [], []
    with probing(module, x, target, seed) as probe:
        place = _place(probe.twin, probe.x, layer)
        for part in parts(len(x), fitting(x, batch)):
            given = probe.x[part].clone().requires_grad_(True)
            numbers, captured = probe.run(given, part, (place.layer,))
            said = captured.layers[place.layer]
            if said.dim() != 4:
                raise ConfigError(
                    f"{place.layer} answers with {said.dim()} axes, expected a map B×C×h×w",
                    "take a module before the picture is averaged or flattened",
                )
            (slope,) = slopes(numbers, [said])
            said, slope = (one.detach().movedim(place.channels, 1) for one in (said, slope))
            found = (weigh(said, slope) * said).sum(1, keepdim=True).relu()
            if resize:
                found = F.interpolate(found, x.shape[2:], mode="bilinear", align_corners=False)
            values.append(found.cpu())
            answers.append(numbers.detach().cpu().double())
    return Attribution(
        method=method, values=torch.cat(values), answer=torch.cat(answers), layer=place.layer
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A layer whose map is weighed."""

    layer: str
    """Its name, with its run."""
    channels: int
    """The axis of the channels in its answer."""


def _place(twin: nn.Module, x: Tensor, layer: str) -> _Place:
    """The layer that is meant, and how its map lies."""
    try:
        graph = trace(twin, x[:1])
    except TraceError:
        if not layer:
            raise
        # What cannot be traced can still be run: its maps lie as those of PyTorch do.
        return _Place(layer=layer, channels=1)
    known = fields(graph)
    found = named_map(graph, known, layer) if layer else last_map(graph, known, inner=True)
    if found is None:
        raise ConfigError(
            "no module of the network answers with a map of more than one position",
            "Grad-CAM is for networks with convolutions; take another method",
        )
    call, (rows, _) = found
    return _Place(layer=run_name(call), channels=1 if rows == 2 else 3)
