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


_INTERPOLATED = {"nearest": 1, "linear": 2, "bicubic": 4}
"""Up-sampling → positions that one output reads along an axis."""


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
    if not fields.sizes:
        return []
    found = fields.of(layer.output)
    names = {at: one.name for one in layers for at in one.nodes}
    mixer = _mixer(graph, fields, layer, names)
    if found is None:
        return _without_positions(graph, fields, layers, layer, mixer)
    tables: dict[tuple[str, ...], list[str]] = {}
    for axis, name in enumerate(axis_names(len(found))):
        steps, joins = _walk(graph, fields, names, layer.output, axis)
        still = ("Nothing on the way widens it.",) if len(steps) == 1 else ()
        table = (*_table(steps), *still, *_joined(joins))
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
    if mixer:
        gate = _gate(graph, fields, layer, names)
        way = (
            f"scales every position in {gate} (squeeze-excitation)" if gate else "reaches all units"
        )
        lines.append(f"Besides, {mixer}; what it finds {way}, so each sees all of it.")
    return lines


def _without_positions(
    graph: Graph, fields: Fields, layers: Sequence[Layer], layer: Layer, mixer: str
) -> list[str]:
    """Words for a layer whose numbers stand for no place of the picture."""
    text = "Its numbers have no place in the picture"
    lines = [f"{text}: {mixer}, so each sees all of it." if mixer else f"{text}."]
    last = [one for one in _ancestors(graph, layers, layer) if one.field is not None]
    if last:
        sizes = tuple(field.size for field in last[-1].field or ())
        lines.append(f"The last layer before it with positions is {last[-1].name}: {_by(sizes)}.")
    return lines


def _by(sizes: tuple[int, ...]) -> str:
    """A field in words."""
    return f"a field of {shape_text(sizes)}" if len(sizes) > 1 else f"a field of {sizes[0]}"


def _behind(graph: Graph, value: int) -> dict[int, Node]:
    """The values that a value comes from, itself included, and what made them, in their order."""
    producers = graph.producers()
    found: dict[int, Node] = {}
    open_values = [value]
    while open_values:
        index = open_values.pop()
        if index in producers and index not in found:
            found[index] = graph.nodes[producers[index]]
            open_values += found[index].inputs
    return dict(sorted(found.items(), key=lambda item: item[1].index))


def _ancestors(graph: Graph, layers: Sequence[Layer], layer: Layer) -> list[Layer]:
    """The layers that one reads from, however far, in the order of running."""
    nodes = {node.index for index in layer.inputs for node in _behind(graph, index).values()}
    return [one for one in layers if nodes & set(one.nodes)]


# -- what sees everything -------------------------------------------------------------------------


def _mixer(graph: Graph, fields: Fields, layer: Layer, names: Mapping[int, str]) -> str:
    """What first mixed all positions, as half a sentence; empty where nothing did."""
    if not fields.sees_everything(layer.output):
        return ""
    for index, node in _behind(graph, layer.output).items():
        before = any(fields.sees_everything(one) for one in node.inputs)
        if fields.sees_everything(index) and not before:
            return f"{names.get(node.index, _place(graph, node))} {_how(node)}"
    return ""


def _how(node: Node) -> str:
    """How an operation mixes all positions."""
    if "scaled_dot_product" in node.op or "softmax" in node.op or node.op in ("bmm", "baddbmm"):
        return "lets all positions attend to all others"
    if "pool" in node.op or node.op in ("mean", "sum", "amax", "amin", "max", "min"):
        return "pools over the whole picture"
    if "norm" in node.op or node.op in ("var_mean", "var", "std"):
        return "takes statistics over the whole picture"
    if node.op in ("addmm", "mm", "linear"):
        return "reads all positions at once"
    return "mixes all positions"


def _gate(graph: Graph, fields: Fields, layer: Layer, names: Mapping[int, str]) -> str:
    """The first product of a map with numbers for the whole picture: squeeze and excitation."""
    for node in _behind(graph, layer.output).values():
        reached = [index for index in node.inputs if fields.reached(index)]
        placed = [index for index in reached if fields.of(index) is not None]
        if node.op.rstrip("_") == "mul" and placed and len(placed) < len(reached):
            return names.get(node.index, _place(graph, node))
    return ""


def _place(graph: Graph, node: Node) -> str:
    path = graph.calls[node.call].path if graph.calls else ""
    return f"{path}.{node.op}" if path else node.op


# -- the recursion --------------------------------------------------------------------------------


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
        return _resized(node, row, before, after)
    window = found[len(found) - axes + axis]
    reach, kernel = window.kernel - 1, f"({window.kernel} − 1)"
    stride, dilation = Fraction(window.stride), f"·{window.dilation}"
    if window.transposed:
        # One output meets every stride-th tap of the kernel.
        reach = -(-window.kernel // window.stride) - 1
        kernel = f"(⌈{window.kernel} / {window.stride}⌉ − 1)"
        stride = 1 / stride
        dilation = "" if window.dilation == 1 else dilation
    row = replace(row, kernel=str(window.kernel), stride=str(stride), dilation=str(window.dilation))
    if before.jump * stride != after.jump:
        return row
    if before.size + reach * window.dilation * before.jump == after.size:
        text = f"{before.size} + {kernel}{dilation}·{_factor(before.jump)} = {after.size}"
        row = replace(row, field=text)
    return row


def _resized(node: Node, row: Step, before: Field, after: Field) -> Step:
    """An operation without windows: an up-sampling, an adaptive pooling, a slice."""
    row = replace(row, stride=str(after.jump / before.jump) if before.jump else "")
    taps = next((count for kind, count in _INTERPOLATED.items() if kind in node.op), 0)
    if taps and before.size + (taps - 1) * before.jump == after.size:
        text = f"{before.size} + ({taps} − 1)·{_factor(before.jump)} = {after.size}"
        row = replace(row, kernel=str(taps), field=text if taps > 1 else row.field)
    return row


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


# -- single units ---------------------------------------------------------------------------------


def seen(graph: Graph, fields: Fields, layer: Layer) -> list[str]:
    """First and last input position that the centre unit and the corner unit really see."""
    value = layer.output
    if not fields.sizes:
        return []
    found = fields.of(value)
    if found is None or fields.sees_everything(value):
        whole = fields.unit(value)
        every = "every unit" if found is not None else "every number"
        return [f"{every} sees {_ranges(whole)}"] if whole else []
    counts = _positions(fields, value, len(found), graph.values[value].elements)
    if counts is None:
        return []
    centre = tuple(count // 2 for count in counts)
    corner = (0,) * len(counts)
    units = {"centre": centre, "corner": corner} if any(centre) else {"only": corner}
    heads = {f"{name} unit ({', '.join(map(str, at))})": at for name, at in units.items()}
    width = max(len(head) for head in heads)
    lines = []
    for head, position in heads.items():
        texts = _unit(fields, found, fields.unit(value, position), position)
        lines += [f"{head:<{width}}  {texts[0]}", *(f"{'':<{width}}  {one}" for one in texts[1:])]
    return lines


def _positions(fields: Fields, value: int, axes: int, limit: int) -> tuple[int, ...] | None:
    """How many positions a value has along each axis of the picture; None where that is hidden.

    Its shape does not tell: the axes may lie in any of its own, or several in one. So it is asked
    for ever later units until there are none.
    """
    counts: list[int] = []
    for axis in range(axes):
        # A unit that sees nothing along an earlier axis answers without a look at this one.
        before, behind = [count // 2 for count in counts], [0] * (axes - axis - 1)

        def is_past(count: int, before: list[int] = before, behind: list[int] = behind) -> bool:
            try:
                fields.unit(value, [*before, count, *behind])
            except IndexError:
                return True
            return False

        counts.append(bisect_left(range(limit + 1), True, key=is_past))
    return tuple(counts) if max(counts) <= limit else None


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
    outside = [
        text
        for axis, name in enumerate(_units(len(hull)))
        for text in _outside(found[axis], hull[axis], position[axis], fields.sizes[axis], name)
    ]
    # Behind up-sampling units differ, and the field is the widest of them.
    most = "" if outside else "at most "
    share = f": {shape_text(own)} of {most}{shape_text(full)}" if own != full else ""
    lines = [f"sees {_ranges(hull)}{share}"]
    return [*lines, f"outside the picture: {', '.join(outside)}"] if outside else lines


def _outside(field: Field, hull: tuple[int, int], position: int, size: int, name: str) -> list[str]:
    """The parts of a unit's field before the first and behind the last position of the picture."""
    first = field.offset + field.jump * position - Fraction(field.size - 1, 2)
    last = first + field.size - 1
    if first.denominator != 1 or (max(first, 0), min(last, size - 1)) != hull:
        return []
    before = [_range(name, int(first), min(int(last), -1))] if first < 0 else []
    return [*before, *([_range(name, max(int(first), size), int(last))] if last >= size else [])]


def _units(axes: int) -> Iterable[str]:
    if axes > 3:
        return axis_names(axes)
    return ("position",) if axes == 1 else ("plane", "row", "column")[-axes:]


def _ranges(hull: Sequence[tuple[int, int]]) -> str:
    """`rows 0 … 105, columns 0 … 105`."""
    names = _units(len(hull))
    return ", ".join(_range(name, *ends) for name, ends in zip(names, hull, strict=True))


def _range(name: str, low: int, high: int) -> str:
    ends = f"{name} {low}" if low == high else f"{name}s {low} … {high}"
    return ends.replace("-", "−")
