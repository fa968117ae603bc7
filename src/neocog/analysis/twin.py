"""A copy of a network to look into, so that the one that was given is never touched.

Floor 1, room analysis; imports floor 0, torch and this room.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neocog.analysis.trace import tensors_in
from neocog.errors import NeocogError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["copied", "own_chance", "place"]


def copied(module: nn.Module) -> nn.Module:
    """A copy with real weights, as in use: evaluation mode, none of them asking for a gradient,
    at least in single precision.

    Raises:
        NeocogError: it holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            for tensor in tensors_in(value):
                # What a module computed and kept (a normed weight) cannot be copied with its past.
                if not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:
        raise NeocogError(
            f"{type(module).__name__} cannot be copied: {error}",
            "the network is probed on a copy of it; keep open files and locks out of it",
        ) from error
    _, dtype = place(twin)
    twin = twin.float() if dtype.itemsize < 4 else twin  # flanks vanish in half precision
    return twin.eval().requires_grad_(False)


def place(twin: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a network's weights are, and what they are."""
    tensors = itertools.chain(twin.parameters(), twin.buffers())
    like = next((one for one in tensors if one.is_floating_point()), torch.empty(0))
    return like.device, like.dtype


@contextlib.contextmanager
def own_chance(device: torch.device, key: int) -> Iterator[None]:
    """Generators of its own for a forward that draws; the caller's go on as if nothing was.

    Args:
        device: where it computes.
        key: decides what is drawn; of `chance.key`.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # Not `torch.manual_seed`: that would seed GPUs whose state is not brought back.
        torch.default_generator.manual_seed(key)
        if on_gpu:
            torch.cuda.default_generators[device.index].manual_seed(key)
        yield
