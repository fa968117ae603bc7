"""Which number of an answer is explained. Floor 1, explain; imports floor 0 and torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neocog.errors import ConfigError

__all__ = ["Target", "chosen"]

Target = int | Tensor | Callable[[Tensor], Tensor]
"""An output for all pictures, one output for each of them, or a function of the whole answer, which
treats every row alike: it also sees parts of a batch, and many variants of one picture."""


def chosen(output: Tensor, target: Target) -> Tensor:
    """One number for each picture, part of the graph of `output`.

    Args:
        output: B×K, or B×K×… of a dense answer, whose positions are added up; B counts as B×1.
        target: the number of an output; B of them, one for each picture; or a function from the
            answer to B numbers.

    Raises:
        ConfigError: no such output, not one for each picture, or the function gives something else.

    >>> chosen(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0]))
    tensor([2., 3.])
    """
    count = len(output)
    if not isinstance(target, int | Tensor):
        found: object = target(output)
        if not isinstance(found, Tensor) or found.shape != (count,):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(
                f"expected {count} numbers, one for each picture, found {shape}",
                "let the target take one number from each answer: `lambda y: y[:, 3]`",
            )
        return found
    flat = output.reshape(count, 1 if output.dim() == 1 else output.shape[1], -1)
    index = torch.as_tensor(target, device=output.device).to(torch.int64)
    if index.dim() == 0:
        index = index.expand(count)
    if index.shape != (count,):
        raise ConfigError(
            f"expected one output for each of {count} pictures, found {tuple(index.shape)}",
            "name one for all of them, or as many as there are pictures",
        )
    kinds = flat.shape[1]
    if count and (int(index.min()) < 0 or int(index.max()) >= kinds):
        raise ConfigError(
            f"expected outputs 0 … {kinds - 1}, found {int(index.min())} … {int(index.max())}",
            "the network has no other outputs",
        )
    return flat[torch.arange(count, device=output.device), index].sum(1)
