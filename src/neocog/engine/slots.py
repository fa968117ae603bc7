"""What a torch optimiser sees of a parameter. Floor 2, room engine; imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MatrixSlot", "Slot"]


class Slot:
    """One parameter and the tensor that its torch optimiser sees: here, the parameter itself."""

    def __init__(self, name: str, parameter: nn.Parameter) -> None:
        self.name = name
        self.parameter = parameter
        self.target = parameter

    def bind(self) -> None:
        """Find the parameter's memory again."""

    def flatten(self, value: Any) -> Any:
        """A copy of a state entry, laid out like the parameter."""
        if not isinstance(value, Tensor):
            return value
        if not value.dim() or value.shape != self.parameter.shape:
            return value.clone()
        like = torch.empty_like(self.parameter, dtype=value.dtype, requires_grad=False)
        return like.copy_(value)

    def unflatten(self, value: Any) -> Any:
        """A state entry in the parameter's shape."""
        return value


class MatrixSlot(Slot):
    """A kernel that Muon sees as a matrix, out × rest.

    The matrix is a view of the kernel's memory wherever one exists. A channels-last kernel is
    viewed as out × (h, w, in): the columns come in another order than out × (in, h, w), which
    Muon's update does not mind, for orthogonalising commutes with permuting columns.
    """

    def __init__(self, name: str, parameter: nn.Parameter, normalize: bool, own: bool) -> None:
        super().__init__(name, parameter)
        # Of a matrix of zeros there is no norm to keep.
        norm = float(parameter.detach().norm()) if normalize and own else 0.0
        self.norm = (norm or parameter.shape[0] ** 0.5) if normalize else 0.0
        self.target = nn.Parameter(parameter.detach().flatten(1), requires_grad=True)
        self.bind()

    def bind(self) -> None:
        """View the parameter's memory; copy in and out around each step where no view exists."""
        weight = self.parameter.detach()
        axes = tuple(range(weight.dim()))
        channels_last = (0, *axes[2:], 1)
        if not weight.is_contiguous() and weight.permute(channels_last).is_contiguous():
            axes = channels_last
        ordered = weight.permute(axes)
        self.axes = axes
        self.ordered_shape = ordered.shape
        self.copied = not ordered.is_contiguous()
        self.target.data = ordered.reshape(weight.shape[0], -1)

    def before(self) -> None:
        """Hand the gradient, and the weights if no view exists, to the matrix."""
        grad = self.parameter.grad
        if self.copied:
            self.target.data.copy_(self._matrix(self.parameter.detach()))
        self.target.grad = None if grad is None else self._matrix(grad)
        if self.norm and grad is not None:
            matrix = self.target.data
            # A matrix of zeros has no direction to keep.
            matrix *= self.norm / matrix.norm().clamp(min=1e-12)

    def after(self) -> None:
        """Drop the gradient's view; copy the weights back if no view exists."""
        self.target.grad = None
        if self.copied:
            self.parameter.copy_(self.unflatten(self.target.detach()))

    def flatten(self, value: Any) -> Any:
        """A copy of a state entry of the parameter's shape, as the matrix."""
        return self._matrix(value).clone() if isinstance(value, Tensor) and value.dim() else value

    def unflatten(self, value: Any) -> Any:
        """A state entry of the matrix's shape, in the parameter's (a view)."""
        if not isinstance(value, Tensor) or not value.dim():
            return value
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return value.view(self.ordered_shape).permute(inverse)

    def _matrix(self, value: Tensor) -> Tensor:
        return value.permute(self.axes).reshape(value.shape[0], -1)
