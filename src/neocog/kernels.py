"""Kernels with names: what a convolution can do before anything is learnt. Floor 1; imports floor 0
and torch.

All are 3×3 and meant for cross-correlation, `y[i,j] = Σ_uv x[i+u−1, j+v−1] · w[u,v]`, which is what
`torch.nn.functional.conv2d` computes. Rows run downwards, columns to the right.
"""

from __future__ import annotations

import torch

from neocog.errors import ConfigError, near

__all__ = ["KERNELS", "named_kernel"]

_Rows = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]

KERNELS: dict[str, tuple[_Rows, int]] = {
    "identity": (((0, 0, 0), (0, 1, 0), (0, 0, 0)), 1),
    "mean": (((1, 1, 1), (1, 1, 1), (1, 1, 1)), 9),
    "gaussian": (((1, 2, 1), (2, 4, 2), (1, 2, 1)), 16),
    "sharpen": (((0, -1, 0), (-1, 5, -1), (0, -1, 0)), 1),
    "outline": (((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)), 1),
    "sobel-right": (((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), 1),
    "sobel-left": (((1, 0, -1), (2, 0, -2), (1, 0, -1)), 1),
    "sobel-down": (((-1, -2, -1), (0, 0, 0), (1, 2, 1)), 1),
    "sobel-up": (((1, 2, 1), (0, 0, 0), (-1, -2, -1)), 1),
    "shift-right": (((0, 0, 0), (1, 0, 0), (0, 0, 0)), 1),
    "shift-left": (((0, 0, 0), (0, 0, 1), (0, 0, 0)), 1),
    "shift-down": (((0, 1, 0), (0, 0, 0), (0, 0, 0)), 1),
    "shift-up": (((0, 0, 0), (0, 0, 0), (0, 1, 0)), 1),
    "edge-vertical": (((0, 0, 0), (-1, 0, 1), (0, 0, 0)), 1),
    "edge-horizontal": (((0, -1, 0), (0, 0, 0), (0, 1, 0)), 1),
}
"""Integer rows and the number that divides them. A Sobel kernel answers positively where the
picture gets brighter in its direction; a shift moves the picture by one pixel; an edge kernel is
the plain difference of the two neighbours across the edge."""


def named_kernel(name: str) -> torch.Tensor:
    """A kernel by name, 3×3 float32.

    Raises:
        ConfigError: no such name (with the near one).

    >>> named_kernel("sharpen").tolist()
    [[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]]
    """
    if name not in KERNELS:
        raise ConfigError(f"no kernel is called {name!r}", near(name, KERNELS))
    rows, divisor = KERNELS[name]
    return torch.tensor(rows, dtype=torch.float32) / divisor
