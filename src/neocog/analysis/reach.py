"""How a receptive field grows from layer to layer, in words and numbers. Floor 1, room analysis.

Standard library and this room. The recursion is that of Araujo, Norris and Sim (2019, "Computing
receptive fields of convolutional neural networks"); each of its steps is compared with the field
that was followed through the graph, and stands without arithmetic where the two differ.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from neocog.analysis.formulas import axis_names, listed, shape_text, windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from neocog.analysis.field import Field, Fields
    from neocog.analysis.graph import Graph, Node
    from neocog.analysis.summary import Layer

__all__ = ["grown", "seen"]

RECURSION = "fieldₖ = fieldₖ₋₁ + (kernelₖ − 1)·dilationₖ·jumpₖ₋₁     jumpₖ = jumpₖ₋₁·strideₖ"
_BRANCHES = 8
"""Joins that are told one by one; of more, the first ones."""


@dataclass(frozen=True, slots=True)
class Step:
    """One layer that changes the field or the jump: a row of the table."""

    name: str
    kernel: str
    stride: str
    dilation: str
    jump: str
    field: str
    """The arithmetic and its result."""


@dataclass(frozen=True, slots=True)
class Join:
    """A layer where branches with different fields meet."""

    name: str
    fields: tuple[int, ...]
    """Of the branches, the largest first."""
    result: int
    """Of the answer."""


def grown(graph: Graph, fields: Fields, layers: Sequence[Layer], layer: Layer) -> list[str]:
    """The recursion along the longest way from the input to a layer, one table for each axis.

    Axes that are alike share a table. Behind what mixes all positions there is none.
    """
    found = fields.of(layer.output)
    names = {at: one.name for one in layers for at in one.nodes}
    whole = _mixers(graph, fields, layer, names)
    if found is None:
        return _without_positions(graph, fields, layers, layer, whole)
    tables: dict[tuple[str, ...], list[str]] = {}
    for axis, name in enumerate(axis_names(len(found))):
        steps, joins = _walk(graph, fields, names, layer.output, axis)
        table = (*_table(steps), *_joined(joins))
        tables.setdefault(table, []).append(name)
    lines = [RECURSION]
    for table, axes in tables.items():
        lines += ["", f"{listed(axes)}:" if len(tables) > 1 else "", *table]
    lines = [line for at, line in enumerate(lines) if line or lines[at - 1]]
    if any(not one.aligned for one in found):
        lines.append(
            "Branches with different jumps meet on the way: their positions are not those of one"
            " grid."
        )
    if any(not one.exact for one in found):
        lines.append("At most: something on the way was not followed position by position.")
    if whole:
        lines.append(f"Besides, every unit sees the whole picture, by {whole}.")
    return lines


def _without_positions(
    graph: Graph, fields: Fields, layers: Sequence[Layer], layer: Layer, whole: str
) -> list[str]:
    by = f", by {whole}" if whole else ""
    text = f"Its numbers have no place in the picture; each sees all of it{by}."
    if not fields.sees_everything(layer.output):
        text = "Its numbers have no place in the picture."
    last = [one for one in _ancestors(graph, layers, layer) if one.field is not None]
    if not last:
        return [text]
    sizes = tuple(field.size for field in last[-1].field or ())
    return [text, f"The last layer before it with positions is {last[-1].name}: {_by(sizes)}."]


def _by(sizes: tuple[int, ...]) -> str:
    """A field in words."""
    return f"a field of {shape_text(sizes)}" if len(sizes) > 1 else f"a field of {sizes[0]}"


def _behind(graph: Graph, value: int) -> list[int]:
    """The operations that a value comes from, itself included, in the order of running."""
    producers = graph.producers()
    found: set[int] = set()
    open_values = [value]
    while open_values:
        at = producers.get(open_values.pop())
        if at is not None and at not in found:
            found.add(at)
            open_values += graph.nodes[at].inputs
    return sorted(found)


def _ancestors(graph: Graph, layers: Sequence[Layer], layer: Layer) -> list[Layer]:
    """The layers that one reads from, however far, in the order of running."""
    nodes = {at for index in layer.inputs for at in _behind(graph, index)}
    return [one for one in layers if nodes & set(one.nodes)]


# -- what sees everything -----------------------------------------------------------------------------


def _mixers(graph: Graph, fields: Fields, layer: Layer, names: Mapping[int, str]) -> str:
    """Where positions were mixed over the whole picture first, and how; empty where they were not."""
    if not fields.sees_everything(layer.output):
        return ""
    for at in _behind(graph, layer.output):
        node = graph.nodes[at]
        over_all = any(fields.sees_everything(index) for index in node.outputs)
        if over_all and not any(fields.sees_everything(index) for index in node.inputs):
            return f"{_how(node)} in {names.get(at, _place(graph, node))}"
    return ""


def _how(node: Node) -> str:
    """How an operation mixes all positions."""
    if "scaled_dot_product" in node.op or "softmax" in node.op or node.op in ("bmm", "baddbmm"):
        return "attention"
    if "pool" in node.op or node.op in ("mean", "sum", "amax", "amin", "max", "min"):
        return "global pooling"
    if "norm" in node.op or node.op in ("var_mean", "var", "std"):
        return "statistics over the picture"
    if node.op in ("addmm", "mm", "linear"):
        return "a linear layer over all positions"
    return node.op


def _place(graph: Graph, node: Node) -> str:
    path = graph.calls[node.call].path if graph.calls else ""
    return f"{path}.{node.op}" if path else node.op


# -- the recursion --------------------------------------------------------------------------------------


def _walk(
    graph: Graph, fields: Fields, names: Mapping[int, str], value: int, axis: int
) -> tuple[list[Step], list[Join]]:
    """From a value back to the input, at every join along the branch with the larger field."""
    producers = graph.producers()
    steps: list[Step] = []
    joins: list[Join] = []
    while value in producers:
        node = graph.nodes[producers[value]]
        known = {index: field[axis] for index in node.inputs if (field := fields.of(index))}
        after = fields.of(value)
        if not known or after is None:
            break
        largest = max(known, key=lambda index: known[index].size)
        name = names.get(node.index, _place(graph, node))
        sizes = sorted({field.size for field in known.values()}, reverse=True)
        if len(sizes) > 1:
            joins.append(Join(name, tuple(sizes), after[axis].size))
        if _changed(known[largest], after[axis]):
            steps.append(_step(graph, node, name, axis, known[largest], after[axis], len(after)))
        value = largest
    start = fields.of(value)
    size, jump = (start[axis].size, start[axis].jump) if start else (1, Fraction(1))
    first = Step("input" if value in graph.inputs else "…", "", "", "", str(jump), str(size))
    return [first, *reversed(steps)], joins[::-1]


def _changed(before: Field, after: Field) -> bool:
    return (before.size, before.jump) != (after.size, after.jump)


def _step(
    graph: Graph, node: Node, name: str, axis: int, before: Field, after: Field, axes: int
) -> Step:
    """A row, with its arithmetic where that comes to what was found in the graph."""
    row = Step(name, "", "", "", str(after.jump), str(after.size))
    found = windows(graph, node)
    if found is None or len(found) < axes:
        return replace(row, stride=_ratio(before, after))
    window = found[len(found) - axes + axis]
    reach, kernel = window.kernel - 1, f"({window.kernel} − 1)"
    stride, dilation = Fraction(window.stride), f"·{window.dilation}"
    if window.transposed:
        # One output meets every stride-th tap of the kernel.
        reach = -(-window.kernel // window.stride) - 1
        kernel = f"(⌈{window.kernel} / {window.stride}⌉ − 1)"
        stride = 1 / stride
        dilation = "" if window.dilation == 1 else dilation
    row = replace(
        row, kernel=str(window.kernel), stride=str(stride), dilation=str(window.dilation)
    )
    if before.jump * stride != after.jump:
        return row
    if before.size + reach * window.dilation * before.jump == after.size:
        text = f"{before.size} + {kernel}{dilation}·{_factor(before.jump)} = {after.size}"
        row = replace(row, field=text)
    return row


def _ratio(before: Field, after: Field) -> str:
    """The stride of an operation without windows: an up-sampling, a slice."""
    return str(after.jump / before.jump) if before.jump else ""


def _factor(jump: Fraction) -> str:
    return str(jump) if jump.denominator == 1 else f"({jump})"


def _table(steps: Sequence[Step]) -> list[str]:
    """The rows under their headings; numbers to the right."""
    heads = ("layer", "kernel", "stride", "dilation", "jump")
    rows = [(one.name, one.kernel, one.stride, one.dilation, one.jump) for one in steps]
    width = max(len(row[0]) for row in [heads, *rows])
    fields = ["field", *(one.field for one in steps)]
    return [
        f"{row[0]:<{width}}"
        + "".join(f"  {cell:>{len(head)}}" for cell, head in zip(row[1:], heads[1:], strict=True))
        + f"   {field}"
        for row, field in zip([heads, *rows], fields, strict=True)
    ]


def _joined(joins: Sequence[Join]) -> list[str]:
    """Where branches meet, and which field holds on."""
    if not joins:
        return []
    told = [_meeting(one) for one in joins[:_BRANCHES]]
    more = len(joins) - len(told)
    rest = f", and so on in {more} more" if more else ""
    alike = all(one.result == one.fields[0] for one in joins)
    rule = "the larger field holds on" if alike else "what they see together holds on"
    return [f"Where branches meet, {rule}: {', '.join(told)}{rest}."]


def _meeting(join: Join) -> str:
    others = listed([str(size) for size in join.fields[1:]])
    if join.result == join.fields[0]:
        return f"{join.result} over {others} in {join.name}"
    return f"{listed([str(size) for size in join.fields])} become {join.result} in {join.name}"


# -- single units -----------------------------------------------------------------------------------------


def seen(graph: Graph, fields: Fields, layer: Layer) -> list[str]:
    """First and last input position that the centre unit and the corner unit really see."""
    value = layer.output
    found = fields.of(value)
    if found is None or fields.sees_everything(value):
        whole = fields.unit(value)
        every = "every unit" if found is not None else "every number"
        return [f"{every} sees {_ranges(whole)}"] if whole else []
    limit = graph.values[value].elements
    counts = [_positions(fields, value, axis, len(found), limit) for axis in range(len(found))]
    centre = tuple(count // 2 for count in counts)
    corner = (0,) * len(counts)
    units = {"centre": centre, "corner": corner} if any(centre) else {"only": corner}
    lines = []
    for name, position in units.items():
        place = ", ".join(str(one) for one in position)
        head = f"{name} unit ({place})"
        texts = _unit(fields, found, fields.unit(value, position), position)
        lines += [f"{head}  {texts[0]}", *(" " * len(head) + f"  {one}" for one in texts[1:])]
    return lines


def _positions(fields: Fields, value: int, axis: int, axes: int, limit: int) -> int:
    """How many positions a value has along an axis of the picture.

    Its shape does not tell: the axes may lie in any of its own, or several in one.
    """

    def is_past(count: int) -> bool:
        try:
            fields.unit(value, [count if one == axis else 0 for one in range(axes)])
        except IndexError:
            return True
        return False

    return bisect_left(range(limit), True, key=is_past)


def _unit(
    fields: Fields,
    found: Sequence[Field],
    hull: tuple[tuple[int, int], ...] | None,
    position: Sequence[int],
) -> list[str]:
    """What one unit sees, and what of its field lies outside the picture."""
    if hull is None:
        return ["sees nothing of the picture: it lies in the padding"]
    own = tuple(high - low + 1 for low, high in hull)
    full = tuple(field.size for field in found)
    share = f": {shape_text(own)} of {shape_text(full)}" if own != full else ""
    lines = [f"sees {_ranges(hull)}{share}"]
    outside = [
        text
        for axis, name in enumerate(_units(len(hull)))
        for text in _outside(found[axis], hull[axis], position[axis], fields.sizes[axis], name)
    ]
    if outside:
        lines.append(f"outside the picture: {', '.join(outside)}")
    return lines


def _outside(
    field: Field, hull: tuple[int, int], position: int, size: int, name: str
) -> list[str]:
    """The parts of a unit's field before the first and behind the last position of the picture."""
    first = field.offset + field.jump * position - Fraction(field.size - 1, 2)
    last = first + field.size - 1
    if first.denominator != 1 or (max(first, 0), min(last, size - 1)) != hull:
        return []
    before = [f"{name} {_signed(first)} … −1"] if first < 0 else []
    return [*before, *([f"{name} {size} … {last}"] if last >= size else [])]


def _signed(number: Fraction) -> str:
    return str(number).replace("-", "−")


def _units(axes: int) -> Iterable[str]:
    return ("positions",) if axes == 1 else ("planes", "rows", "columns")[-axes:]


def _ranges(hull: Sequence[tuple[int, int]]) -> str:
    """`rows 0 … 105, columns 0 … 105`."""
    names = _units(len(hull))
    return ", ".join(
        f"{name} {low} … {high}" for name, (low, high) in zip(names, hull, strict=True)
    )
