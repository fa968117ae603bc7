"""Where the axes of the input lie in a tensor, through reshapes and transpositions. Floor 1.

Room analysis; imports floor 0, NumPy and this room. Each axis of a tensor is a product of *atoms*,
as in mixed-radix numbers: a window partition splits the rows into (windows, rows in a window), a
flattened map is (rows, columns) in one axis, a pixel shuffle puts a plain factor behind the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from neocog.analysis.span import NOTHING, Ideal, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from neocog.analysis.span import Taps

__all__ = ["Atom", "State", "aligned"]


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor of a tensor's axis."""

    size: int
    """Its values."""
    axis: int = -1
    """The axis of the input that it moves along; −1: none."""
    weight: int = 0
    """Positions by which one step of it moves."""


Dim = tuple[Atom, ...]


def _normal(atoms: Iterable[Atom]) -> Dim:
    """Neighbours that are one number in two digits become one atom; plain atoms of one value go.

    An axis of the input stays where it has one position only: a 1×1 map still has a receptive field
    that the next layer widens.
    """
    found: list[Atom] = []
    for atom in atoms:
        if atom.size == 1 and atom.axis < 0:
            continue
        if found and found[-1].axis == atom.axis:
            last = found[-1]
            if atom.axis < 0:
                found[-1] = Atom(last.size * atom.size)
                continue
            if last.weight == atom.size * atom.weight:
                found[-1] = Atom(last.size * atom.size, atom.axis, atom.weight)
                continue
        found.append(atom)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class State:
    """What every element of a tensor sees of the input."""

    dims: tuple[Dim, ...]
    """One product of atoms for each axis of the tensor."""
    spans: Mapping[int, Span] = field(default_factory=dict)
    """Axis of the input → what positions along it see. The positions are those of its atoms."""
    seen: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Axis of the input → what every element sees besides: a mean over the picture, a gate."""
    misaligned: bool = False
    """Branches were joined whose jumps differ."""
    guessed: bool = False
    """The answer is an upper bound: something was not followed position by position."""

    @staticmethod
    def plain(shape: Sequence[int]) -> tuple[Dim, ...]:
        """The layout of a tensor that no axis of the input runs through."""
        return tuple(_normal([Atom(size)]) for size in shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(math.prod(atom.size for atom in dim) for dim in self.dims)

    def atoms(self, axis: int) -> list[tuple[int, Atom]]:
        """Where an axis of the input lies: (axis of the tensor, atom)."""
        return [(at, atom) for at, dim in enumerate(self.dims) for atom in dim if atom.axis == axis]

    def axes_in(self, dim: int) -> list[int]:
        """Axes of the input in one axis of the tensor."""
        return list(dict.fromkeys(atom.axis for atom in self.dims[dim] if atom.axis >= 0))

    # -- seeing more -------------------------------------------------------------------------------

    def also(self, axis: int, hull: tuple[int, int]) -> State:
        """Every element sees this, too."""
        if hull[0] > hull[1]:
            return self
        old = self.seen.get(axis, NOTHING)
        joined = (min(old[0], hull[0]), max(old[1], hull[1]))
        return replace(self, seen={**self.seen, axis: joined})

    def coupled(self, dims: Sequence[int]) -> State:
        """Every element depends on all others along these axes, but stays where it is."""
        state = self
        for axis in dict.fromkeys(one for dim in dims for one in self.axes_in(dim)):
            state = state.also(axis, self.spans[axis].hull)
        return state

    def mixed(self, dims: Sequence[int]) -> State:
        """Every element depends on all others along these axes: positions there mean nothing."""
        state = self
        for dim in dims:
            for atom in self.dims[dim]:
                if atom.axis >= 0:
                    grouped = state.spans[atom.axis].grouped(atom.size, atom.weight)
                    state = replace(state, spans={**state.spans, atom.axis: grouped})
            plain = _normal(Atom(atom.size) for atom in self.dims[dim])
            state = replace(state, dims=(*state.dims[:dim], plain, *state.dims[dim + 1 :]))
        return state._settled()

    def _settled(self) -> State:
        """Axes that no atom runs along any more are seen by every element."""
        state = self
        for axis, span in self.spans.items():
            if not self.atoms(axis):
                rest = {key: one for key, one in state.spans.items() if key != axis}
                state = replace(state, spans=rest).also(axis, span.hull)
        return state

    def lost(self, axes: Iterable[int] | None = None) -> State:
        """Positions along these axes (all) can be followed no longer: all sees their hull."""
        gone = set(self.spans if axes is None else axes)
        if not gone:
            return self
        dims = tuple(
            _normal(Atom(a.size) if a.axis in gone else a for a in dim) for dim in self.dims
        )
        return replace(replace(self, dims=dims)._settled(), guessed=True)

    # -- moving axes -------------------------------------------------------------------------------

    def with_dims(self, dims: Sequence[Dim]) -> State:
        """The same, its axes arranged anew."""
        return replace(self, dims=tuple(dims))._settled()

    def reshaped(self, shape: Sequence[int]) -> State:
        """The same elements in row-major order under another shape."""
        flat = [atom for dim in self.dims for atom in dim]
        dims: list[Dim] = []
        for size in shape:
            taken: list[Atom] = []
            need = size
            while need > 1:
                if not flat:
                    return self._unfollowed(shape)
                atom = flat.pop(0)
                if need % atom.size == 0:
                    taken.append(atom)
                    need //= atom.size
                elif atom.size % need == 0:
                    rest = atom.size // need
                    taken.append(Atom(need, atom.axis, atom.weight * rest))
                    flat.insert(0, Atom(rest, atom.axis, atom.weight))
                    need = 1
                else:
                    return self._unfollowed(shape)
            if size == 1 and flat and flat[0].size == 1:
                taken.append(flat.pop(0))
            dims.append(_normal(taken))
        return self.with_dims(dims)

    def _unfollowed(self, shape: Sequence[int]) -> State:
        return replace(self.lost(), dims=State.plain(shape))

    # -- one axis ----------------------------------------------------------------------------------

    def single(self, dim: int) -> State:
        """The axis of the tensor runs along at most one axis of the input, position by position.

        What else of that input axis lies in other axes of the tensor (the rows within a patch,
        among the channels) is mixed first: an operation that reads along the one reads all of the
        other.
        """
        axes = self.axes_in(dim)
        if not axes:
            return self
        if len(axes) > 1:
            return self.lost(axes)
        (axis,) = axes
        others = sorted({at for at, _ in self.atoms(axis) if at != dim})
        state = self.mixed_atoms(others, axis) if others else self
        atoms = state.dims[dim]
        span = state.spans[axis]
        size = math.prod(atom.size for atom in atoms)
        if atoms == (Atom(len(span), axis, 1),):
            return state
        index = np.zeros(1, np.int64)
        for atom in atoms:
            steps = np.arange(atom.size) * (atom.weight if atom.axis >= 0 else 0)
            index = (index[:, None] + steps[None, :]).reshape(-1)
        new = span.taken(index, _resampled(span.ideal, atoms))
        dims = (*state.dims[:dim], (Atom(size, axis, 1),), *state.dims[dim + 1 :])
        return replace(state, dims=dims, spans={**state.spans, axis: new})

    def mixed_atoms(self, dims: Sequence[int], axis: int) -> State:
        """Like `mixed`, but only along one axis of the input."""
        state = self
        for dim in dims:
            for atom in self.dims[dim]:
                if atom.axis == axis:
                    grouped = state.spans[axis].grouped(atom.size, atom.weight)
                    state = replace(state, spans={**state.spans, axis: grouped})
            plain = _normal(Atom(a.size) if a.axis == axis else a for a in state.dims[dim])
            state = replace(state, dims=(*state.dims[:dim], plain, *state.dims[dim + 1 :]))
        return state._settled()

    def through(self, dim: int, taps: Taps, out: int) -> State:
        """An operation read along one axis of the tensor, which now has `out` positions."""
        state = self.single(dim)
        axes = state.axes_in(dim)
        if not axes:
            dims = (*state.dims[:dim], *State.plain([out]), *state.dims[dim + 1 :])
            return state.with_dims(dims)
        (axis,) = axes
        span = state.spans[axis].through(taps)
        dims = (*state.dims[:dim], _normal([Atom(out, axis, 1)]), *state.dims[dim + 1 :])
        return replace(state, dims=dims, spans={**state.spans, axis: span})._settled()

    def without(self, dim: int) -> State:
        """One axis of the tensor, of one value or mixed before, goes."""
        return self.with_dims((*self.dims[:dim], *self.dims[dim + 1 :]))


def _resampled(ideal: Ideal | None, atoms: Dim) -> Ideal | None:
    """The endless intervals of an axis under other digits, where they repeat."""
    if ideal is None:
        return None
    if len(atoms) == 1:  # every weight-th position
        weight = atoms[0].weight
        rounds = ideal.period // math.gcd(ideal.period, weight)
        low, high = ideal.at(np.arange(rounds) * weight)
        advance = int(ideal.jump * weight * rounds)
        return Ideal(rounds, advance, tuple(low.tolist()), tuple(high.tolist()))
    if len(atoms) == 2 and atoms[0].weight == 1 and atoms[1].axis < 0:  # each several times
        index = np.arange(ideal.period * atoms[1].size) // atoms[1].size
        low, high = ideal.at(index)
        return Ideal(len(index), ideal.advance, tuple(low.tolist()), tuple(high.tolist()))
    return None


def aligned(states: Sequence[State], shape: Sequence[int]) -> State:
    """What elements see that are computed from elements at the same place (broadcast).

    Args:
        states: of the operands; axes are aligned from the right.
        shape: of the answer.
    """
    wide = [_broadcast(state, shape) for state in states]
    # An axis whose positions are counted otherwise in two operands (windows of a padded map beside
    # the map itself) can be followed in the first only.
    lengths: dict[int, int] = {}
    for state in wide:
        for axis, span in state.spans.items():
            lengths.setdefault(axis, len(span))
    wide = [
        state.lost([axis for axis, span in state.spans.items() if len(span) != lengths[axis]])
        for state in wide
    ]
    dims: list[Dim] = []
    for at, size in enumerate(shape):
        moving = [state.dims[at] for state in wide if state.axes_in(at)]
        dims.append(moving[0] if moving else State.plain([size])[0])
    answer = State(dims=tuple(dims))
    for state in wide:
        answer = _join(answer, state)
    return answer._settled()


def _broadcast(state: State, shape: Sequence[int]) -> State:
    """The operand with the answer's axes; what has one position along a longer axis is seen by all
    of it."""
    state = replace(state, dims=((),) * (len(shape) - len(state.dims)) + state.dims)
    repeated = [at for at, size in enumerate(state.shape) if size == 1 < shape[at]]
    return state.mixed(repeated) if any(state.dims[at] for at in repeated) else state


def _join(answer: State, state: State) -> State:
    """Add what one operand sees; its axes lie as the answer's do, or are lost."""
    places = {axis: answer.atoms(axis) for axis in state.spans}
    # An operand may lack atoms of an axis (it is constant along them), not have others.
    strange = [axis for axis in state.spans if not set(state.atoms(axis)) <= set(places[axis])]
    state = state.lost(strange)
    guessed = _differ(answer, state) or _differ(state, answer)
    spans, misaligned = dict(answer.spans), answer.misaligned or state.misaligned
    for axis, span in state.spans.items():
        if axis in spans:
            spans[axis], fits = spans[axis].joined(span)
            misaligned = misaligned or not fits
        else:
            spans[axis] = span
    joined = replace(
        answer,
        spans=spans,
        misaligned=misaligned,
        guessed=guessed or answer.guessed or state.guessed,
    )
    for axis, hull in state.seen.items():
        joined = joined.also(axis, hull)
    return joined


def _differ(one: State, other: State) -> bool:
    """Whether an element that sees nothing of one operand would be said to see too much.

    What is seen is held axis by axis: where one operand has nothing in a row (it is padded there,
    or the piece of a concatenation ends), its columns still count, unless the other sees them, too.
    """
    if not other.spans:
        return False
    for axis in (axis for axis, span in one.spans.items() if span.blind):
        for beside, span in one.spans.items():
            if beside != axis and not (
                beside in other.spans
                and len(span) == len(other.spans[beside])
                and span.within(other.spans[beside])
            ):
                return True
    return False
