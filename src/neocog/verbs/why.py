"""Why a trained network answers one picture as it does. Floor 5, room verbs; imports explain.

What is explained is the number that the network gives for a class before it becomes a probability,
for the picture itself where several views are averaged; where each pixel is answered for, the mean
of that number over the pixels which are answered so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from neocog.errors import ConfigError, NeocogError, near
from neocog.explain.still.steady import picture_curves
from neocog.explain.why.hide import must_be_hidden, must_be_seen
from neocog.explain.why.methods import METHODS, explain_answer
from neocog.explain.why.sanity import randomised_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from neocog.explain.still.steady import Curve
    from neocog.explain.why.attribution import Attribution
    from neocog.explain.why.fills import Fill
    from neocog.explain.why.hide import Parts
    from neocog.explain.why.sanity import Sanity
    from neocog.layers import Predictor

__all__ = ["USUAL", "Reasons", "chosen_methods", "output_named", "reasons"]

USUAL = ("integrated_gradients", "grad_cam_pp", "smooth_gradient", "occlusion")
"""Methods that are shown unless others are asked for."""
_STEPS = 6
"""Maps of a network that is scrambled from the top down."""
_CHECKED = "grad_cam_pp", "input_gradient"
"""Methods that are checked so: they take one pass for each map."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reasons:
    """What was found about one answer."""

    target: int
    """The output that was explained."""
    maps: tuple[Attribution, ...]
    """In the order of the methods."""
    fill: Fill
    """What stands where a part is hidden."""
    hidden: Parts | None
    """What must be hidden for the answer to change."""
    seen: Parts | None
    """What must be seen for it to stay."""
    curves: Mapping[str, Curve]
    """The probability while the picture changes; empty where there is none."""
    sanity: Mapping[str, Sanity]
    """Method → how its map changes while the network is scrambled."""
    missing: tuple[str, ...]
    """What could not be found, and why."""


def chosen_methods(asked: Sequence[str]) -> tuple[str, ...]:
    """Names of methods, each once; the usual ones where none is asked for.

    Raises:
        ConfigError: no such method.
    """
    for name in asked:
        if name not in METHODS and name != "all":
            raise ConfigError(f"no method is called {name!r}", near(name, [*METHODS, "all"]))
    if "all" in asked:
        return tuple(METHODS)
    return tuple(dict.fromkeys(asked)) or USUAL


def output_named(label: str, classes: Sequence[str]) -> int:
    """The output of a class.

    Raises:
        ConfigError: no such class.
    """
    if label not in classes:
        raise ConfigError(f"the network knows no class {label!r}", near(label, classes))
    return list(classes).index(label)


def reasons(
    predictor: Predictor,
    sample: Tensor,
    *,
    target: int,
    methods: Sequence[str],
    layer: str = "",
    classes: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Reasons:
    """Explain one answer in every way that was asked for, and the ways beside.

    Args:
        predictor: of the run.
        sample: C×H×W uint8, as `Run.answers` gives it.
        target: the output to explain.
        methods: names of `METHODS`.
        layer: for methods that weigh a layer's map; empty: the last map.
        classes: whether the outputs are classes of which one is the answer.
        progress: told what is done, and how far it is.

    Raises:
        ConfigError: no such layer.
        NeocogError: a method cannot explain this network.
    """
    device = next((one.device for one in predictor.parameters()), sample.device)
    raw = sample[None].to(device)
    network = predictor.network
    x = predictor.normalize(predictor.fit(raw))
    wanted = target if not predictor.input.whole else _answered(target)

    def tell(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    missing: list[str] = []

    def tried(what: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except NeocogError as error:
            missing.append(f"{what}: {error.message}")
            return None

    maps = []
    for name in methods:
        where = layer if METHODS[name].layer else ""
        maps.append(explain_answer(network, x, wanted, name, layer=where, progress=tell(name)))
    fill: Fill = "blur"
    hidden = seen = None
    curves: Mapping[str, Curve] = {}
    if classes:
        guide = next((one.values for one in maps if one.method == "occlusion"), None)
        fill, hidden = tried("what must be hidden", lambda: _hidden(network, x, guide, tell)) or (
            "blur",
            None,
        )
        seen = tried(
            "what must be seen",
            lambda: must_be_seen(network, x, guide=guide, fill=fill, progress=tell("showing")),
        )
        curves = (
            tried(
                "changes",
                lambda: picture_curves(
                    _without_gradients(predictor), raw[0], kind=target, progress=tell("changes")
                ),
            )
            or {}
        )
    checked = {
        name: tried(f"scrambling under {name}", partial(_scrambled, network, x, name))
        for name in _CHECKED
        if name in methods
    }
    return Reasons(
        target=target,
        maps=tuple(maps),
        fill=fill,
        hidden=hidden,
        seen=seen,
        curves=curves,
        sanity={name: one for name, one in checked.items() if one is not None},
        missing=tuple(missing),
    )


def _hidden(
    network: nn.Module, x: Tensor, guide: Tensor | None, tell: Callable[[str], Any]
) -> tuple[Fill, Parts]:
    """What must be hidden, and what it is hidden with: a blur, or, where a picture that is blurred
    everywhere is still answered so, the mean colour."""
    parts = must_be_hidden(network, x, guide=guide, fill="blur", progress=tell("hiding"))
    if parts.found:
        return "blur", parts
    return "mean", must_be_hidden(network, x, guide=guide, fill="mean", progress=tell("hiding"))


def _answered(kind: int) -> Callable[[Tensor], Tensor]:
    """Of a dense answer the mean over the pixels that are answered so; over all where none is."""

    def found(outputs: Tensor) -> Tensor:
        own = (outputs.argmax(1) == kind).to(outputs.dtype)
        own = torch.where(own.flatten(1).any(1)[:, None, None], own, torch.ones_like(own))
        mean: Tensor = (outputs[:, kind] * own).sum((1, 2)) / own.sum((1, 2))
        return mean

    return found


def _without_gradients(predictor: Predictor) -> Callable[[Tensor], Tensor]:
    def answer(raw: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = predictor(raw)
        return found

    return answer


def _scrambled(network: nn.Module, x: Tensor, name: str) -> Sanity:
    """How a method's map changes while the network is scrambled."""

    def method(module: nn.Module, pictures: Tensor, target: Any) -> Tensor:
        return explain_answer(module, pictures, target, name).values

    with torch.no_grad():
        target = int(network(x.clone()).flatten(1).argmax(1)[0])
    return randomised_weights(network, x, target, method, steps=_STEPS)
