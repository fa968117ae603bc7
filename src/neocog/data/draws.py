"""Distributions from `chance.draw`. Floor 1, room data; imports floor 0 and torch.

Everything here is a pure function of (key, ids): one number for each sample id, with no state and
no loop over samples. Integers come out equal on every device, floats up to rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from neocog import chance

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["beta", "between", "integers", "normals", "unit"]

ATTEMPTS = 8
"""Tries of Marsaglia and Tsang's rejection. Each fails with probability < 0.05 (shape ≥ 1), so one
sample in 2·10¹⁰ falls back to the mode."""


def unit(bits: Tensor) -> Tensor:
    """Draws in [0, 2³²) as float32 in [0, 1): the upper 24 bits, which float32 holds exactly."""
    return (bits >> 8).to(torch.float32) * 2.0**-24


def between(key: int, ids: Tensor, low: float, high: float) -> Tensor:
    """Evenly from [low, high), one float32 for each id."""
    return unit(chance.draw(key, ids)) * (high - low) + low


def integers(key: int, ids: Tensor, count: int | Tensor) -> Tensor:
    """Evenly from 0 … count − 1, one int64 for each id (Lemire's multiply and shift).

    Args:
        key: what the draw is for.
        ids: int64.
        count: at least 1 and below 2³¹, for all or for each id.
    """
    bits: Tensor = chance.draw(key, ids) * count
    return bits >> 32


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals from two independent draws; the tail ends at 5.8 σ."""
    radius = (-2 * torch.log(1 - unit(first))).sqrt_()
    angle = unit(second) * (2 * math.pi)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def _table(key: int, ids: Tensor, count: int) -> Tensor:
    """`count` draws for each id: B → B×count int64.

    A sample's hash is combined with the hash of each position and mixed again, so that no two
    samples share a stretch of the sequence.
    """
    places: Tensor = chance.draw(key, torch.arange(count, device=ids.device), 1)
    bits: Tensor = chance.mix(chance.draw(key, ids)[:, None] ^ places[None])
    return bits


def normals(key: int, ids: Tensor, count: int) -> Tensor:
    """`count` standard normals for each id: B → B×count float32."""
    half = (count + 1) // 2
    bits = _table(key, ids, 2 * half)
    return torch.cat(_box_muller(bits[:, :half], bits[:, half:]), dim=1)[:, :count]


def _log_gamma(key: int, ids: Tensor, shape: float) -> Tensor:
    """Logarithm of a Gamma(shape, 1) variate for each id (Marsaglia and Tsang, 2000).

    Shapes below 1 are drawn as Gamma(shape + 1) · U^(1/shape). That power underflows for small
    shapes, hence logarithms throughout.
    """
    boosted = shape + 1 if shape < 1 else shape
    d = boosted - 1 / 3
    x = normals(chance.key(key, "normal"), ids, ATTEMPTS)
    log_u = torch.log(1 - unit(_table(chance.key(key, "accept"), ids, ATTEMPTS)))
    v = (1 + x / math.sqrt(9 * d)) ** 3
    log_v = torch.log(v.clamp(min=1e-30))
    accepted = (v > 0) & (log_u < 0.5 * x * x + d * (1 - v + log_v))
    first = accepted.int().argmax(dim=1, keepdim=True)  # the first of equals
    result = math.log(d) + torch.where(accepted, log_v, 0.0).gather(1, first)[:, 0]
    if shape < 1:
        result += torch.log(1 - unit(chance.draw(chance.key(key, "boost"), ids))) / shape
    return result


def beta(key: int, ids: Tensor, alpha: float) -> Tensor:
    """One Beta(α, α) variate in [0, 1], float32, for each id: G₁ / (G₁ + G₂).

    Args:
        key: what the draw is for.
        ids: int64.
        alpha: positive.
    """
    first = _log_gamma(chance.key(key, "first"), ids, alpha)
    return torch.sigmoid(first - _log_gamma(chance.key(key, "second"), ids, alpha))
