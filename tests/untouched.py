"""Nothing that was handed over is changed: weights, buffers, flags, hooks, gradients, chance."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["untouched"]


@contextlib.contextmanager
def untouched(module: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Assert that what happens within leaves a network and its inputs as they were.

    Compared are the very tensors (identity, version of what was written, bits), gradients, whether
    they ask for one, training flags, every hook of every module and tensor, the attributes of the
    modules, the random generators of Python, NumPy and torch, and torch's modes.
    """
    before = _state(module, inputs)
    yield
    after = _state(module, inputs)
    assert before.keys() == after.keys(), before.keys() ^ after.keys()
    for name, value in before.items():
        assert _same(value, after[name]), f"{name} was changed"


def _state(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        found[f"module {path}"] = id(part)
        for key, value in vars(part).items():
            name = f"{path}.{key}"
            if isinstance(value, dict):
                # Parameters, buffers, children, and hooks, whose order and identity count.
                found[name] = [(one, id(other)) for one, other in value.items()]
            elif isinstance(value, Tensor):
                found.update(_tensor(name, value))
            elif isinstance(value, list | set | tuple):
                found[name] = (id(value), repr(value))
            else:
                found[name] = (id(value), value if isinstance(value, bool | int | float) else None)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    tensors += [(f"input {index}", one) for index, one in enumerate(inputs)]
    for name, tensor in tensors:
        found.update(_tensor(name, tensor))
    found["chance of torch"] = torch.random.get_rng_state().clone()
    found["chance of NumPy"] = repr(np.random.get_state())
    found["chance of Python"] = random.getstate()
    found["modes"] = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
    )
    return found


def _tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    version = None if tensor.is_inference() else tensor._version
    return {
        f"{name}: bits": tensor.detach().clone(),
        f"{name}: identity": (id(tensor), tensor.data_ptr(), version, tensor.requires_grad),
        f"{name}: gradient": None if tensor.grad is None else tensor.grad.clone(),
        f"{name}: hooks": repr(tensor._backward_hooks),
    }


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return (
            torch.equal(first.view(torch.uint8), second.view(torch.uint8))
            if (first.dim() and first.shape == second.shape and first.dtype == second.dtype)
            else torch.equal(first, second)
        )
    return type(first) is type(second) and bool(first == second)
