"""What the output layer is given. Floor 1, explain; imports floor 0, torch and `analysis`.

The output layer may be a module, a line of functional code, a matrix product with a shared weight:
it is found among the operations that ran, and watched there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neocog.analysis.trace import tensors_in
from neocog.errors import ConfigError, NeocogError, near
from neocog.explain.capture import layer_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from neocog.analysis.graph import Graph

__all__ = ["Operand", "input_of", "last_product"]

_PRODUCTS = {"convolution": (0, 1), "addmm": (1, 2), "mm": (0, 1), "bmm": (0, 1), "baddbmm": (1, 2)}
"""Operations that multiply and add up: positions of the two factors among the arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """The factor of a product that comes from the picture."""

    op: str
    """The operation."""
    argument: int
    """Position of the factor among its arguments."""
    behind: int
    """How many operations of this name run after it."""
    layer: str
    """Path of the module that it belongs to."""


def last_product(graph: Graph) -> Operand:
    """The last product of a picture's features with weights that the answer depends on.

    Raises:
        ConfigError: there is none.
    """
    from_picture = set(graph.inputs[:1])
    from_weights = {one.index for one in graph.values if one.kind == "parameter"}
    for node in graph.nodes:
        for origin in (from_picture, from_weights):
            if origin.intersection(node.inputs):
                origin.update(node.outputs)
    needed = set(graph.outputs[:1])
    behind = dict.fromkeys(_PRODUCTS, 0)
    for node in reversed(graph.nodes):
        asked = bool(needed.intersection(node.outputs))
        if asked:
            needed.update(node.inputs)
        if node.op not in _PRODUCTS:
            continue
        factors = {at: node.args[at].value for at in _PRODUCTS[node.op]}
        seen = [at for at, value in factors.items() if value in from_picture]
        learnt = any(value in from_weights - from_picture for value in factors.values())
        if asked and learnt and len(seen) == 1:
            layer = graph.calls[node.call].path
            return Operand(op=node.op, argument=seen[0], behind=behind[node.op], layer=layer)
        behind[node.op] += 1
    raise ConfigError(
        "no weights stand between the picture and the answer", "name the layer to look at"
    )


def input_of(twin: nn.Module, x: Tensor, where: Operand | str) -> Tensor:
    """Run a network and keep what one operation, or one module, was given.

    Args:
        twin: a network of one's own, of `analysis.twin.copied`.
        x: B×C×H×W.
        where: an operand, or the path of a module, whose first tensor in its last run is meant.

    Raises:
        ConfigError: no such module.
        NeocogError: it did not run, or ran otherwise than in the graph.
    """
    kept: list[Tensor] = []
    fast = torch.backends.mha.get_fastpath_enabled()
    # Attention in one piece would hide products that the graph has.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        if isinstance(where, str):
            kept = _given(twin, x, where)
        else:
            watch = _Watch(where)
            with watch:
                twin(x.clone())
            if len(watch.kept) > where.behind:
                kept = [watch.kept[0]]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    if not kept:
        name = where if isinstance(where, str) else where.layer
        raise NeocogError(f"{name or 'the output layer'} did not run", "name another layer")
    return kept[-1]


def _given(twin: nn.Module, x: Tensor, path: str) -> list[Tensor]:
    """What a module was given in its last run; empty where it did not run."""
    if path not in (names := layer_names(twin)):
        raise ConfigError(f"no module is called {path!r}", near(path, names))
    kept: list[Tensor] = []

    def keep(_: nn.Module, given: Any, named: Any) -> None:
        found = next(tensors_in((given, named)), None)
        if found is not None:
            kept[:] = [found.clone()]  # the module may write into it

    handle = twin.get_submodule(path).register_forward_pre_hook(keep, with_kwargs=True)
    try:
        twin(x.clone())
    finally:
        handle.remove()
    return kept


class _Watch(TorchDispatchMode):
    """Keeps one argument of the last operations of a name."""

    def __init__(self, where: Operand) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._where = where
        self.kept: deque[Tensor] = deque(maxlen=where.behind + 1)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation; of ours, keep a copy of what it was given."""
        if func._schema.name == f"aten::{self._where.op}":
            self.kept.append(args[self._where.argument].clone())
        return func(*args, **(kwargs or {}))
