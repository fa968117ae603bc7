"""Normalisation and softmax written out. Floor 1, explain; imports NumPy and this room."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neocog.explain.unit.place import Worked
from neocog.explain.unit.products import gathered
from neocog.explain.unit.terms import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from neocog.explain.unit.place import Place
    from neocog.explain.unit.terms import Terms

    Flat = NDArray[np.int64]

__all__ = ["batch_norm", "group_norm", "layer_norm", "softmax"]

LINEAR = "(x − μ) / √(σ² + ε) · γ + β"


def batch_norm(*, training: int | None, eps: int) -> Callable[[Place], Worked | None]:
    """(x − μ) / √(σ² + ε) · γ + β with the statistics that were learnt, or with the input's own
    over batch and positions (instance norm runs as that).

    Args:
        training: place of the argument that says which; None: those learnt.
        eps: place of ε among the arguments.
    """

    def rule(at: Place) -> Worked | None:
        if at.slot:
            return None
        channel = (at.index[1],)
        weight, bias, mean, var = (at.source(position) for position in (1, 2, 3, 4))
        affine = _affine(at, (weight, channel), (bias, channel))
        epsilon = float(at.given(eps))
        if training is not None and at.given(training):
            shape = at.shape(at.source(0))
            rows = [np.arange(size) for size in shape]
            rows[1] = np.array(channel)
            return _own_statistics(at, "batch norm", gathered(shape, rows).ravel(), affine, epsilon)
        source = at.source(0)
        gamma, shift = affine
        centre, spread = at.number(mean, channel), at.number(var, channel)
        deviation = math.sqrt(spread + epsilon)
        scale = gamma / deviation
        terms = [
            at.one("x · γ/√(σ² + ε)", source, at.index, scale),
            at.one("−μ · γ/√(σ² + ε)", mean, channel, -scale),
        ]
        return Worked(
            words="batch norm with learnt statistics",
            formula=LINEAR,
            terms=(*terms, *([at.one("β", bias, channel)] if bias >= 0 else [])),
            numbers=(
                ("μ", centre),
                ("σ²", spread),
                ("ε", epsilon),
                ("γ", gamma),
                ("β", shift),
                ("(x − μ)/√(σ² + ε)", (at.number(source, at.index) - centre) / deviation),
            ),
            onward=Unit(source, at.index),
        )

    return rule


def layer_norm(at: Place) -> Worked | None:
    """(x − μ) / √(σ² + ε) · γ + β with the mean and variance along the last axes."""
    if at.slot:
        return None
    shape, count = at.shape(at.source(0)), len(at.given(1))
    rows = [
        np.arange(size) if axis >= len(shape) - count else np.array([at.index[axis]])
        for axis, size in enumerate(shape)
    ]
    inner = at.index[len(shape) - count :]
    affine = _affine(at, (at.source(2), inner), (at.source(3), inner))
    return _own_statistics(
        at, "layer norm", gathered(shape, rows).ravel(), affine, float(at.given(4))
    )


def group_norm(at: Place) -> Worked | None:
    """(x − μ) / √(σ² + ε) · γ + β with the mean and variance of a group of channels."""
    if at.slot:
        return None
    shape, groups = at.shape(at.source(0)), int(at.given(6))
    size = shape[1] // groups
    first = at.index[1] // size * size
    rows = [np.arange(size) for size in shape]
    rows[0], rows[1] = np.array([at.index[0]]), np.arange(first, first + size)
    channel = (at.index[1],)
    affine = _affine(at, (at.source(1), channel), (at.source(2), channel))
    return _own_statistics(
        at, "group norm", gathered(shape, rows).ravel(), affine, float(at.given(7))
    )


def _affine(
    at: Place, weight: tuple[int, Sequence[int]], bias: tuple[int, Sequence[int]]
) -> tuple[float, float]:
    """γ and β; 1 and 0 where there are none."""
    return (
        at.number(*weight) if weight[0] >= 0 else 1.0,
        at.number(*bias) if bias[0] >= 0 else 0.0,
    )


def _own_statistics(
    at: Place, words: str, places: Flat, affine: tuple[float, float], epsilon: float
) -> Worked:
    """The numbers of a group give mean and variance; given these, the answer is a sum."""
    source = at.source(0)
    gamma, beta = affine
    numbers = at.read(source, places)
    centre, spread = float(numbers.mean()), float(numbers.var())
    scale = gamma / math.sqrt(spread + epsilon)
    count = len(places)
    terms: list[Terms] = [
        at.one("x · γ/√(σ² + ε)", source, at.index, scale),
        at.terms(f"−μ · γ/√(σ² + ε), μ = Σ x/{count}", source, places, -scale / count),
    ]
    shift = at.source(3 if at.op == "native_layer_norm" else 2)
    if shift >= 0:
        index = at.index[len(at.index) - len(at.shape(shift)) :]
        index = index if at.op == "native_layer_norm" else (at.index[1],)
        terms.append(at.one("β", shift, index))
    return Worked(
        words=f"{words} over {count} numbers",
        formula=LINEAR,
        terms=tuple(terms),
        numbers=(("μ", centre), ("σ²", spread), ("ε", epsilon), ("γ", gamma), ("β", beta)),
    )


def softmax(at: Place) -> Worked | None:
    """exp(x_i − m) / Σ_j exp(x_j − m) with m the largest x, or its logarithm.

    The factors are slopes: ∂y/∂x_j = y · ([i = j] − p_j), of the logarithm [i = j] − p_j.
    """
    source = at.source(0)
    shape = at.shape(source)
    axis = int(at.given(1)) % max(1, len(shape))
    rows = [
        np.arange(size) if one == axis else np.array([at.index[one]])
        for one, size in enumerate(shape)
    ]
    places = gathered(shape, rows).ravel()
    numbers = at.read(source, places)
    most = float(numbers.max())
    if not math.isfinite(most):
        return None
    powers = np.exp(numbers - most)
    below = float(powers.sum())
    shares = powers / below
    own = at.index[axis]
    logarithm = at.op == "_log_softmax"
    slopes = (np.arange(len(shares)) == own) - shares
    total = float(numbers[own] - most - math.log(below)) if logarithm else float(shares[own])
    return Worked(
        words=f"{'log-softmax' if logarithm else 'softmax'} over {len(shares)} numbers",
        formula="x − m − ln Σ exp(x_j − m)" if logarithm else "exp(x − m) / Σ exp(x_j − m)",
        terms=(
            at.terms(
                "input × slope", source, places, slopes if logarithm else slopes * shares[own]
            ),
        ),
        numbers=(
            ("x", float(numbers[own])),
            ("m", most),
            ("exp(x − m)", float(powers[own])),
            ("Σ exp(x_j − m)", below),
        ),
        kind="formula",
        total=total,
    )
