"""Tree and input → every layer with its name and its shapes. Floor 2, room models; imports errors
and the standard library only.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from neocog.models.notation.grammar import Block, Layer, Place, render, wrong
from neocog.models.notation.shapes import atoms, shown
from neocog.models.notation.words import bind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from neocog.models.notation.grammar import Item, Line
    from neocog.models.notation.shapes import Atom, Shape
    from neocog.models.notation.words import Bound

__all__ = ["Sized", "Stage", "Strides", "sizes"]

_MOST_LAYERS = 2_000
_MOST_PARAMETERS = 10**9

Strides = tuple[Fraction, ...]
"""Steps of the input for one step, one an axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One module of the network: an atom of torch, or a block of further stages."""

    name: str
    """Among its siblings."""
    kind: str
    """`atom`, `block`, `res`, `cat` or `add`."""
    place: Place
    """Where it was written."""
    before: Shape
    """Of what comes in."""
    after: Shape
    """Of what goes out."""
    strides: Strides
    """Steps of the input for one of what goes out, one an axis; empty: it is no picture."""
    atom: Atom | None = None
    """What it is made of, where it is an atom."""
    branches: tuple[tuple[Stage, ...], ...] = ()
    """What is inside, where it is a block. `res`: the body, and the shortcut where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A line whose sizes are known."""

    stages: tuple[Stage, ...]
    """In order."""
    parameters: int
    """Numbers that it learns."""
    map: bool
    """Whether it answers for every place of the input, not once."""


def sizes(line: Line, *, channels: int, size: tuple[int, ...], outputs: int) -> Sized:
    """The sizes of every layer.

    Args:
        line: as it was read.
        channels: of the input.
        size: of the input along each of its one to three axes.
        outputs: numbers that have to come out, once or for every place of the input.

    Raises:
        ConfigError: an unknown word, a wrong value, a layer that cannot take what comes in, or
            another number of outputs; with the place, the sizes and the remedy.

    >>> from neocog.models.notation.grammar import parse
    >>> found = sizes(parse("conv 8 3; pool 2; linear"), channels=1, size=(28, 28), outputs=10)
    >>> [(stage.name, stage.after) for stage in found.stages]
    [('conv1', (8, 26, 26)), ('pool1', (8, 13, 13)), ('flatten1', (1352,)), ('linear1', (10,))]
    >>> found.parameters
    13610
    """
    walk = _Walk(line.text, outputs)
    walk.count(line.items)
    walk.bind(line.items)
    stages = walk.items(line.items, (channels, *size), (Fraction(1),) * len(size), last=True)
    after = stages[-1].after
    walk.check_end(line, after, size)
    return Sized(stages=stages, parameters=walk.parameters, map=len(after) > 1)


class _Walk:
    """Goes through the tree in the order in which the network computes."""

    def __init__(self, text: str, outputs: int) -> None:
        self.text = text
        self.outputs = outputs
        self.parameters = 0
        self.bound: dict[Place, Bound] = {}
        """Values of the layers, by where they stand."""
        self.fixed: Place | None = None
        """The last layer that makes one size of every input and leaves a picture."""

    def count(self, items: Iterable[Item]) -> int:
        """Layers with all repetitions, before anything is repeated."""
        found = 0
        for item in items:
            if isinstance(item, Layer):
                found += 1
            else:
                found += item.times * sum(map(self.count, item.branches))
            if found > _MOST_LAYERS:
                raise wrong(
                    self.text,
                    item.place if isinstance(item, Layer) else item.repeat,
                    f"the line has more than {_MOST_LAYERS:,} layers, repetitions included",
                    "repeat less; deeper networks are written in Python: "
                    "--model package.module:factory",
                )
        return found

    def bind(self, items: Iterable[Item]) -> None:
        """Words and their values, before any size: `linear; softmax` is about softmax."""
        for item in items:
            if isinstance(item, Layer):
                self.bound[item.place] = bind(self.text, item)
            else:
                for branch in item.branches:
                    self.bind(branch)

    def items(
        self, items: Sequence[Item], shape: Shape, strides: Strides, *, last: bool
    ) -> tuple[Stage, ...]:
        """Layers and blocks one after the other.

        Args:
            items: at least one.
            shape: that comes in.
            strides: that come in.
            last: whether they end the line.
        """
        stages: list[Stage] = []
        names = _Names(self.text, items)
        for item in items:
            times = item.times if isinstance(item, Block) else 1
            for number in range(times):
                ends = last and item is items[-1] and number == times - 1
                if isinstance(item, Block):
                    name = names.of(item, item.kind or "block")
                    made = [self._block(item, name, shape, strides, last=ends)]
                else:
                    made = self._layer(item, names, shape, strides, last=ends)
                stages += made
                shape, strides = stages[-1].after, stages[-1].strides
        return tuple(stages)

    def _layer(
        self, layer: Layer, names: _Names, shape: Shape, strides: Strides, *, last: bool
    ) -> list[Stage]:
        bound = self.bound[layer.place]
        if layer.word.text == "linear" and bound.values["out"] is None:
            if not last:
                raise wrong(
                    self.text,
                    layer.place,
                    f"linear without a number stands for the {self.outputs} outputs, "
                    "and this is not the end",
                    "write how many numbers come out: linear 128",
                )
            bound = dataclasses.replace(bound, values={**bound.values, "out": self.outputs})
        if layer.word.text == "adaptive":
            self.fixed = layer.place
        stages = []
        for atom in atoms(self.text, layer, bound, shape):
            self.parameters += atom.parameters
            if self.parameters > _MOST_PARAMETERS:
                raise wrong(
                    self.text,
                    layer.place,
                    f"this layer has {atom.parameters:,} parameters, and with it the network "
                    f"{self.parameters:,}; at most {_MOST_PARAMETERS:,} are taken",
                    f"{shown(shape)} come in: gap before linear, or pool, make that less",
                )
            main = atom.word == layer.word.text
            stages.append(
                Stage(
                    name=names.of(layer if main else None, atom.word),
                    kind="atom",
                    place=layer.place,
                    before=atom.before,
                    after=atom.after,
                    strides=_strides(atom, strides),
                    atom=atom,
                )
            )
            strides = stages[-1].strides
        return stages

    def _block(
        self, block: Block, name: str, shape: Shape, strides: Strides, *, last: bool
    ) -> Stage:
        inside = last and not block.kind
        branches = [self.items(one, shape, strides, last=inside) for one in block.branches]
        ends = [branch[-1].after for branch in branches]
        after = ends[0]
        if block.kind == "res":
            self._check_residual(block, shape, ends)
        elif block.kind:
            self._check_join(block, ends)
        if block.kind == "cat":
            after = (sum(end[0] for end in ends), *after[1:])
        return Stage(
            name=name,
            kind=block.kind or "block",
            place=block.place,
            before=shape,
            after=after,
            strides=branches[0][-1].strides,
            branches=tuple(branches),
        )

    def _check_residual(self, block: Block, shape: Shape, ends: list[Shape]) -> None:
        """What is added has one shape."""
        body = ends[0]
        if len(ends) == 2:
            if ends[1] != body:
                raise wrong(
                    self.text,
                    _span(block.branches[1]),
                    f"the shortcut gives {shown(ends[1])}, and it is added to {shown(body)}",
                    _shortcut(shape, body) or "both have to give one shape",
                )
        elif body != shape:
            raise wrong(
                self.text,
                block.place,
                f"res adds what comes in, {shown(shape)}, to what comes out, {shown(body)}",
                _shortcut(shape, body)
                or "keep the size within it: pad=same in convolutions and pools with stride 1",
            )

    def _check_join(self, block: Block, ends: list[Shape]) -> None:
        """Branches fit together."""
        if len(ends) == 1:
            raise wrong(
                self.text,
                block.place,
                f"{block.kind} joins branches, and here is one",
                f"write {block.kind}( … | … )",
            )
        first = ends[0]
        for branch, end in zip(block.branches[1:], ends[1:], strict=True):
            if block.kind == "cat":
                fits, what = end[1:] == first[1:], "cat joins channels of equal pictures"
            else:
                fits, what = end == first, "add takes equal shapes"
            if not fits:
                found = " | ".join(map(shown, ends))
                raise wrong(
                    self.text,
                    _span(branch),
                    f"{what}, and the branches give {found}",
                    "pad=same keeps the size; a pool with stride=1 pad=same does too"
                    if end[1:] != first[1:]
                    else f"conv {first[0]} 1 makes {first[0]} channels",
                )

    def check_end(self, line: Line, after: Shape, size: tuple[int, ...]) -> None:
        """The line ends in as many numbers as are wanted, or in a map of them as large as its
        input, whatever size that has."""
        if after == (self.outputs,):
            return
        if after == (self.outputs, *size):
            if self.fixed:
                raise wrong(
                    self.text,
                    self.fixed,
                    f"the line ends in {shown(after)}, a map as large as its input, and adaptive "
                    "makes one size of inputs of every size",
                    "pool and up by the same number keep the size",
                )
            return
        end = line.items[-1]
        found, wanted = shown(after), shown((self.outputs,))
        if len(after) > 1:
            wanted += f", or {shown((self.outputs, *size))},"
            pooled = after[0] == self.outputs
            more = "flatten" if math.prod(after) == self.outputs else "gap"
            hint = _longer(line, more if pooled else "gap; linear")
            if after[1:] == size:
                hint += f" to answer once, or …; conv {self.outputs} 1 to answer for every place"
        elif isinstance(end, Layer) and end.word.text == "linear":
            hint = "write linear without a number at the end"
        else:
            hint = _longer(line, "linear")
        raise wrong(
            self.text, end.place, f"the line ends in {found}, and {wanted} are wanted", hint
        )


class _Names:
    """Names of siblings: what the user says, or the word and which of that word it is."""

    def __init__(self, text: str, items: Iterable[Item]) -> None:
        self.numbers: dict[str, int] = {}
        self.said: set[str] = set()
        for item in items:
            said = {item.label} - {""}
            if said and isinstance(item, Block) and item.times > 1:
                said = {_numbered(item.label, one + 1) for one in range(item.times)}
            for name in sorted(said & self.said)[:1]:
                raise wrong(
                    text,
                    item.place,
                    f"{name} is the name of two layers",
                    "give one of them another name, or none",
                )
            self.said |= said

    def of(self, item: Item | None, stem: str) -> str:
        """The next name of an item, or of something that has no item of its own."""
        label = item.label if item is not None else ""
        if label and not (isinstance(item, Block) and item.times > 1):
            return label
        while True:
            counted = f"{label}:" if label else stem
            number = self.numbers[counted] = self.numbers.get(counted, 0) + 1
            name = _numbered(label or stem, number)
            if label or name not in self.said:
                return name


def _numbered(stem: str, number: int) -> str:
    """conv1, but relu6_1: the first of relu6 is not the 61st of relu."""
    return f"{stem}_{number}" if stem[-1].isdigit() else f"{stem}{number}"


def _strides(atom: Atom, strides: Strides) -> Strides:
    """Steps of the input for one step of what an atom makes."""
    if len(atom.after) == 1:
        return ()
    steps = atom.values.get("stride")
    if isinstance(steps, tuple):
        if atom.word == "convt":
            return tuple(one / step for one, step in zip(strides, steps, strict=True))
        return tuple(one * step for one, step in zip(strides, steps, strict=True))
    if atom.before[1:] == atom.after[1:] or atom.word == "pad":
        return strides
    return tuple(
        one * Fraction(n, m)
        for one, n, m in zip(strides, atom.before[1:], atom.after[1:], strict=True)
    )


def _shortcut(before: Shape, after: Shape) -> str:
    """The line of a shortcut between two shapes, where a 1×1 convolution can be one."""
    if len(before) == 1 or len(after) == 1:
        return f"res( … | linear {after[0]})" if len(before) == len(after) else ""
    sides = list(zip(before[1:], after[1:], strict=True))
    step = max(-(-n // m) for n, m in sides)
    if any(-(-n // step) != m for n, m in sides):
        return ""
    return f"write the shortcut: res( … | conv {after[0]} 1{f' stride={step}' * (step > 1)})"


def _span(items: Sequence[Item]) -> Place:
    """From the first to the last of them."""
    return Place(items[0].place.start, items[-1].place.end)


def _longer(line: Line, more: str) -> str:
    """The line with something behind it, or of a long one that alone."""
    text = render(line)
    return f"write {text if len(text) <= 100 else '…'}; {more}"
