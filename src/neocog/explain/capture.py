"""What layers answer on the way, kept so that gradients at them can be taken. Floor 1, explain.

Imports torch and `analysis`. What comes next may write into an answer (an in-place
ReLU), so the network goes on with a copy of it and what is kept stays what was said. A module
that runs several times has a name for each run: `relu`, `relu#2`.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neocog.analysis.trace import tensors_in
from neocog.errors import ConfigError, NeocogError, near

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn

__all__ = ["Captured", "capture", "layer_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """One pass through a network, with what some layers said."""

    output: Tensor
    """What the network answered: the first tensor of it."""
    layers: Mapping[str, Tensor]
    """Name of a layer's run → the first tensor of its answer, part of the graph of `output`."""


def layer_names(twin: nn.Module) -> tuple[str, ...]:
    """Paths of all modules below the network, in the order of registration; shared ones once."""
    return tuple(name for name, _ in twin.named_modules() if name)


def capture(twin: nn.Module, x: Tensor, layers: Iterable[str]) -> Captured:
    """Run a network and keep what layers answer.

    Gradients flow if they are enabled and `x` (or a weight) asks for them.

    Args:
        twin: a network of one's own, of `analysis.twin.copied`.
        x: B×C×H×W, as the network takes it; it is not changed.
        layers: paths of modules; `path#2` is the second run of one. Empty text: the network itself.

    Raises:
        ConfigError: no such layer.
        NeocogError: a layer that did not run, or not so often.
    """
    wanted = [(name, *_parsed(twin, name)) for name in dict.fromkeys(layers)]
    kept: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for path in dict.fromkeys(path for _, path, _ in wanted):
            runs = {run: name for name, where, run in wanted if where == path}
            stack.enter_context(_kept(twin.get_submodule(path), runs, kept))
        answer = twin(x.clone())  # the network may write into what it is given
    output = next(tensors_in(answer), None)
    if output is None:
        raise NeocogError("the network answered without a tensor", "explain a part that does not")
    for name, path, run in wanted:
        if name not in kept:
            often = "did not run" if not run else f"did not run {run + 1} times"
            raise NeocogError(f"{path} {often} for this input", "name a layer that does")
    return Captured(output=output, layers=kept)


def _parsed(twin: nn.Module, name: str) -> tuple[str, int]:
    """Path and number of the run, from 0."""
    path, _, run = name.partition("#")
    if path and path not in (names := layer_names(twin)):
        raise ConfigError(f"no module is called {path!r}", near(path, names))
    if run and not (run.isdecimal() and int(run) > 0):
        raise ConfigError(f"expected path#2 for the second run of a module, found {name!r}")
    return path, int(run or 1) - 1


@contextlib.contextmanager
def _kept(part: nn.Module, runs: Mapping[int, str], kept: dict[str, Tensor]) -> Iterator[None]:
    """Keep what a module answers in some of its runs, and let the network go on with a copy."""
    count = itertools.count()

    def keep(_: nn.Module, __: Any, answer: Any) -> Any:
        name = runs.get(next(count))
        found = next(tensors_in(answer), None) if name is not None else None
        if name is None or found is None:
            return None
        kept[name] = found
        # Only a bare tensor can be swapped for its copy; what is packed away is rarely written to.
        return found.clone() if isinstance(answer, torch.Tensor) else None

    handle = part.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()
