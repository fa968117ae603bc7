"""Networks without memory, to be asked for the shapes of their weights. Floor 2, room models."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["without_memory"]

_FILLS = frozenset({"normal_", "uniform_", "bernoulli_", "erfinv_", "mul_", "add_", "clamp_"})
_FILLS |= {"fill_", "zero_", "copy_", "div_"}
"""What gives weights their first numbers, in `torch.nn.init` and in its tensors' own names."""


class _Unfilled(TorchFunctionMode):
    """Tensors without memory are not filled.

    There is nothing to fill; but for random numbers on the meta device PyTorch loads its compiler,
    which takes 1.5 s, as long as all else that `predict` does before its first answer.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return func(*args, **kwargs)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """What is built inside has no numbers, only shapes."""
    with torch.device("meta"), _Unfilled():
        yield
