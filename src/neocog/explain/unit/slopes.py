"""Operations of one place, and those that nobody has written out. Floor 1, explain.

Imports NumPy, torch and this room. A function of the numbers at one place is worked out again on
these numbers alone, in float64. What has no rule is taken apart by its gradient at what it read:
the value is gradient × input + rest, and the inputs are those with a gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog.analysis.trace import tensors_in
from neocog.explain.unit.place import Worked, constant
from neocog.explain.unit.terms import TOLERANCE, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from neocog.explain.unit.place import Place
    from neocog.explain.unit.terms import Terms

__all__ = ["by_gradient", "difference", "place_by_place", "product", "quotient", "same", "total"]

_FLOATING = ("float", "bfloat")


def _spread(at: Place, value: int) -> tuple[int, ...]:
    """The index of what is read at the unit's place; axes of one position are spread."""
    shape = at.shape(value)
    index = at.index[len(at.index) - len(shape) :]
    return tuple(0 if size == 1 else one for one, size in zip(index, shape, strict=True))


def _operand(at: Place, position: int, label: str, factor: float) -> Terms:
    """An argument that is a tensor or a number, as one term."""
    value = at.source(position)
    if value < 0:
        return constant(label, float(at.given(position)) * factor)
    return at.one(label, value, _spread(at, value), factor)


def _operand_number(at: Place, position: int) -> float:
    value = at.source(position)
    if value < 0:
        return float(at.given(position))
    return at.number(value, _spread(at, value))


def total(at: Place) -> Worked | None:
    """x + α · y."""
    return _sum(at, 1.0, float(at.node.kwargs.get("alpha", 1)), "x + y")


def difference(*, turned: bool) -> Callable[[Place], Worked | None]:
    """x − α · y, or, turned, y − α · x."""

    def rule(at: Place) -> Worked | None:
        alpha = float(at.node.kwargs.get("alpha", at.given(2, 1)))
        return _sum(at, -alpha, 1.0, "y − x") if turned else _sum(at, 1.0, -alpha, "x − y")

    return rule


def _sum(at: Place, left: float, right: float, formula: str) -> Worked:
    first, second = _operand(at, 0, "x", left), _operand(at, 1, "y", right)
    return Worked(
        words="sum" if right > 0 and left > 0 else "difference",
        formula=formula,
        terms=(first, second),
        onward=_only(at, 0, 1),
    )


def _only(at: Place, *positions: int) -> Unit | None:
    """The one argument that the network made; None where there are several."""
    values = at.recording.graph.values
    made = [at.source(one) for one in positions if at.source(one) >= 0]
    made = [one for one in made if values[one].kind in ("result", "input")]
    return Unit(made[0], _spread(at, made[0])) if len(made) == 1 else None


def product(at: Place) -> Worked | None:
    """x · y."""
    return _times(at, "product", "x · y", lambda y: y)


def quotient(at: Place) -> Worked | None:
    """x / y."""
    if at.node.kwargs.get("rounding_mode") is not None or not _operand_number(at, 1):
        return None
    return _times(at, "quotient", "x / y", lambda y: 1 / y)


def _times(at: Place, words: str, formula: str, factor: Callable[[float], float]) -> Worked:
    y = _operand_number(at, 1)
    term = _operand(at, 0, formula, factor(y))
    other = at.source(1)
    if other >= 0:  # the factor can be followed, too
        place = _operand(at, 1, "", 1.0).places
        term = replace(term, other=other, other_shape=at.shape(other), other_places=place)
    return Worked(
        words=words,
        formula=formula,
        terms=(term,),
        numbers=(("x", _operand_number(at, 0)), ("y", y)),
        onward=_only(at, 0, 1),
    )


def same(at: Place) -> Worked | None:
    """The number itself, as another type or on another device."""
    source = at.source(0)
    if source < 0 or at.shape(source) != at.shape(at.unit.value):
        return None
    return Worked(
        words="handed on",
        formula="x",
        terms=(at.one("handed on", source, at.index),),
        onward=Unit(source, at.index),
    )


def place_by_place(at: Place) -> Worked | None:
    """A function of the numbers at one place, worked out on them alone; factors are slopes."""
    values = at.recording.graph.values
    read = list(dict.fromkeys(at.node.inputs))
    axes = len(at.index)
    alone: dict[int, Tensor] = {}
    for value in read:
        shape = at.shape(value)
        if len(shape) > axes or any(
            size not in (1, out)
            for size, out in zip(reversed(shape), reversed(at.shape(at.unit.value)), strict=False)
        ):
            return None
        one = at.tensor(value)[_spread(at, value)].reshape((1,) * len(shape))
        if values[value].dtype.startswith(_FLOATING):
            one = one.double().requires_grad_(True)
        alone[value] = one
    try:
        with torch.enable_grad():
            answer = at.recording.replay(at.node, alone)[at.slot]
    except (RuntimeError, NotImplementedError):
        return None
    if answer.numel() != 1:
        return None
    leaves = {value: one for value, one in alone.items() if one.requires_grad}
    slopes = _gradients(answer.sum(), leaves)
    terms = [
        at.one(
            "before → after" if len(leaves) == 1 else f"input {number + 1} × slope",
            value,
            _spread(at, value),
            float(slopes[value]),
        )
        for number, value in enumerate(leaves)
    ]
    made = [value for value in read if values[value].kind in ("result", "input")]
    numbers = [
        ("x" if len(leaves) == 1 else f"x{at + 1}", float(one.detach()))
        for at, one in enumerate(leaves.values())
    ]
    return Worked(
        words=_name(at),
        formula=f"{_name(at)}({', '.join(name for name, _ in numbers)})",
        terms=tuple(terms),
        numbers=tuple(numbers),
        onward=Unit(made[0], _spread(at, made[0])) if len(made) == 1 else None,
        kind="formula",
        total=float(answer.detach().double().sum()),
    )


def _name(at: Place) -> str:
    return at.op.strip("_").replace("_", " ")


def _gradients(answer: Tensor, leaves: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """∂ answer / ∂ each leaf; zeros where it has none."""
    if not leaves or not answer.requires_grad:
        return {value: torch.zeros_like(one) for value, one in leaves.items()}
    found = torch.autograd.grad(answer, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def by_gradient(at: Place) -> Worked:
    """Gradient × input + rest, at what the operation read, in float64 where it runs in that.

    Whether it is a sum (affine in its inputs, so that slopes and rest are the same everywhere) is
    tried out at 0 and at the mirrored input; else the slopes are said to be slopes.
    """
    values = at.recording.graph.values
    floating = [
        value
        for value in dict.fromkeys(at.node.inputs)
        if values[value].dtype.startswith(_FLOATING)
    ]
    for kind in (torch.float64, None):
        leaves = {
            value: at.tensor(value).to(kind or at.tensor(value).dtype).clone().requires_grad_(True)
            for value in floating
        }
        try:
            with torch.enable_grad():
                answer = _at(at, leaves)
                slopes = _gradients(answer, leaves)
        except (RuntimeError, NotImplementedError):
            continue
        if not answer.requires_grad:
            break
        return _by_gradient(at, leaves, slopes, float(answer.detach()))
    terms = tuple(
        at.terms("read", value, np.arange(values[value].elements).reshape(at.shape(value)), 0.0)
        for value in dict.fromkeys(at.node.inputs)
    )
    return Worked(
        words=f"{_name(at)}, not written out: it has no gradient, and all that it reads is listed",
        formula="",
        terms=(*terms, constant("value", at.value)),
        kind="gradient",
    )


def _at(at: Place, given: Mapping[int, Tensor]) -> Tensor:
    answer: Any = at.recording.replay(at.node, given)
    return list(tensors_in(answer))[at.slot][at.index].double()


def _by_gradient(
    at: Place, leaves: Mapping[int, Tensor], slopes: Mapping[int, Tensor], value: float
) -> Worked:
    made = {
        one: leaf.detach()
        for one, leaf in leaves.items()
        if at.recording.graph.values[one].kind in ("result", "input")
    }
    terms: list[Terms] = []
    for one in made or leaves:
        gradient = slopes[one].double().numpy().ravel()
        (places,) = np.nonzero(gradient)
        if len(places):
            terms.append(at.terms("input × slope", one, places, gradient[places]))
    whole = sum(float(one.products.sum()) for one in terms)
    scale = max(1.0, sum(float(np.abs(one.products).sum()) for one in terms))
    rest = value - whole
    with torch.no_grad():
        at_zero = float(_at(at, {one: torch.zeros_like(leaf) for one, leaf in made.items()}))
        mirrored = float(_at(at, {one: -leaf for one, leaf in made.items()}))
    room = TOLERANCE * scale
    affine = abs(at_zero - rest) <= room and abs(mirrored - (rest - whole)) <= room
    how = "weighted sum" if affine else "not a sum: slopes at what it read"
    if abs(rest) > room or not terms:
        terms.append(constant("rest", rest))
    onward = None
    if len(terms) == 1 and terms[0].read.size == 1:
        onward = terms[0].term(0, (0,)).source
    return Worked(
        words=f"{_name(at)}, {how}",
        formula="Σ x · w" if affine else "Σ x · slope + rest",
        terms=tuple(terms),
        onward=onward,
        kind="sum" if affine else "gradient",
    )
