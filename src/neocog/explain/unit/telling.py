"""The arithmetic of a number as plain text, as on a blackboard. Floor 1, explain.

Imports NumPy and this room. Every step is a table: what was read beside the kernel and the
products, the sums of the channels, and at the end the sum beside what the network computed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neocog.explain.unit.terms import Step, Term, Terms, Unit
    from neocog.explain.unit.trace import UnitTrace

    Numbers = NDArray[np.float64]

__all__ = ["path_told", "placed", "told"]

WIDTH = 98
"""Columns of the text."""
_DIGITS = 4
_LARGEST_GRID = 13
"""Sides of a kernel up to which its numbers are written out."""


def told(trace: UnitTrace, *, grids: int = 1, most: int = 5) -> str:
    """How one number came about.

    Args:
        trace: of the number.
        grids: how many input channels of a convolution are written out, the strongest first.
        most: how many channels or terms are listed; the others are one sum.

    Returns:
        Lines of text, the last with its line end.
    """
    lines = [f"{printable(trace.layer) or 'the network'}, {placed(trace.unit)}: {_n(trace.value)}"]
    if trace.is_pixel:
        lines.append("  a pixel")
    elif trace.field is not None:
        lines.append(f"  {_seen(trace)}")
    for number, step in enumerate(trace.steps, start=1):
        lines += ["", f"{number}  {_title(step)}"]
        lines += [f"   {line}".rstrip() for line in _body(trace, step, grids, most)]
    if not trace.agrees:
        lines += ["", "The sums do not give what the network computed: do not trust this trace."]
    return "\n".join(lines) + "\n"


def path_told(path: Sequence[UnitTrace]) -> str:
    """From a number to the pixels along the strongest terms: one line a trace.

    Args:
        path: of `UnitTrace.path_to_pixels`.
    """
    rows = [("layer", "number", "value", "of it, the strongest term")]
    for trace in path:
        strongest = trace.strongest()
        words = ""
        if strongest:
            term = strongest[0]
            words = f"{_n(term.read)} × {_n(term.factor)} = {_n(term.product)}"
            words += f" of {_n(trace.steps[-1].value)}"
        layer = printable(trace.layer) or "the network"
        rows.append((layer, placed(trace.unit), _n(trace.value), words))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    ]
    if not path[-1].is_pixel:
        lines.append("nothing that depends on the picture is added here")
    return "\n".join(lines) + "\n"


_AXES: dict[int, tuple[str, ...]] = {
    1: ("number",),
    2: ("channel", "position"),
    3: ("channel", "row", "column"),
    4: ("channel", "depth", "row", "column"),
}


def placed(unit: Unit) -> str:
    """`channel 3, row 4, column 7`."""
    index = unit.index[1:]
    names = _AXES.get(len(index), tuple(f"axis {axis}" for axis in range(1, len(index) + 1)))
    return ", ".join(f"{name} {one}" for name, one in zip(names, index, strict=True)) or "number"


def _n(number: float) -> str:
    """Four digits, with a true minus."""
    return f"{number:.{_DIGITS}g}".replace("-", "−")


def _aligned(numbers: Sequence[float]) -> list[str]:
    """Numbers to one place behind the point, that of the fourth digit of the largest."""
    most = max((abs(one) for one in numbers if math.isfinite(one)), default=0.0)
    places = _DIGITS - 1 - math.floor(math.log10(most)) if most else 0
    if not -1 <= places <= 2 * _DIGITS:
        return [_n(one) for one in numbers]
    # `+ 0.0`: what rounds to nothing has no sign.
    rounded = [round(one, places) + 0.0 if math.isfinite(one) else one for one in numbers]
    return [f"{one:.{max(0, places)}f}".replace("-", "−") for one in rounded]


def _seen(trace: UnitTrace) -> str:
    """Which part of the picture it depends on."""
    field = trace.field or ()
    names = {1: ("positions",), 2: ("rows", "columns"), 3: ("slices", "rows", "columns")}
    if not field:
        return "depends on the whole input"
    words = zip(names.get(len(field), ("positions",) * len(field)), field, strict=True)
    sizes = "×".join(str(high - low + 1) for low, high in field)
    places = ", ".join(f"{name} {low} … {high}" for name, (low, high) in words)
    return f"sees {sizes} of the picture: {places}"


def _title(step: Step) -> str:
    layer = printable(step.layer) or "the network"
    return f"{layer}: {step.words}"


def _body(trace: UnitTrace, step: Step, grids: int, most: int) -> list[str]:
    """The arithmetic of a step."""
    if step.formula == "x" and step.onward is not None:
        return [f"handed on: {_written(trace, step, step.terms[0].term(0, (0,)))}"]
    lines = [step.formula] if step.formula else []
    if step.numbers:
        lines.append(", ".join(f"{name} = {_n(one)}" for name, one in step.numbers))
    if step.op == "convolution":
        lines += _convolved(trace, step, grids, most)
    elif "pool" in step.op:
        lines += _windowed(step)
    elif step.kind == "formula" and len(step.terms) == 1 and step.terms[0].read.size == 1:
        return [f"{step.formula} = {_n(step.total)}  at  x = {_n(float(step.terms[0].read[0]))}"]
    else:
        lines += _listed(trace, step, most)
    return [*lines, _checked(step)]


def _checked(step: Step) -> str:
    """The sum beside the network's own number."""
    words = "sum" if step.kind == "sum" else "together"
    words = "largest" if step.formula.startswith("max") else words
    text = f"{words} {_n(step.total)}; the network computed {_n(step.value)}"
    return f"{text}, {step.gap:.0e} apart" if step.gap else text


# -- convolution ---------------------------------------------------------------------------------


def _convolved(trace: UnitTrace, step: Step, grids: int, most: int) -> list[str]:
    """The strongest channels written out, then the sum of each channel."""
    products, *more = step.terms
    sums = products.products.reshape(len(products.read), -1).sum(1)
    order = np.argsort(-np.abs(sums), kind="stable")
    first = _first_channel(products)
    source = printable(trace.arithmetic.layer_of(products.source)) or "the network"
    lines: list[str] = []
    for channel in order[:grids].tolist():
        lines += ["", f"channel {first + channel} of {source}", *_grids(products, channel)]
    lines += ["", f"sums of the {len(sums)} input channels" if len(sums) > 1 else "sums"]
    rows = [(f"channel {first + channel}", float(sums[channel])) for channel in order[:most]]
    if len(order) > most:
        others = len(order) - most
        words = f"{others} other channel{'s' if others > 1 else ''}"
        rows.append((words, float(sums[order[most:]].sum())))
    rows += [(one.label, float(one.products.sum())) for one in more]
    return [*lines, *_column(rows)]


def _first_channel(products: Terms) -> int:
    """Number of the first input channel that is read: of a group, not 0."""
    for channel, places in enumerate(products.places if products.places is not None else ()):
        inside = places[places >= 0]
        if len(inside):
            return int(np.unravel_index(int(inside.flat[0]), products.shape)[1]) - channel
    return 0


def _grids(products: Terms, channel: int) -> list[str]:
    """Patch, kernel and products of one input channel, side by side where there is room."""
    patch, kernel = products.read[channel], products.factors[channel]
    if max(patch.shape, default=0) > _LARGEST_GRID:
        return [f"{'×'.join(map(str, patch.shape))} products, too many to write out"]
    outside = products.places[channel] < 0 if products.places is not None else None
    blocks = [
        _block("patch", patch, outside),
        _block("kernel", kernel),
        _block("products", patch * kernel),
    ]
    if sum(len(one[0]) + 3 for one in blocks) + 3 <= WIDTH:
        return [" " + "   ".join(parts).rstrip() for parts in zip(*blocks, strict=True)]
    return [f" {line}".rstrip() for block in blocks for line in block]


def _block(title: str, numbers: Numbers, outside: NDArray[np.bool_] | None = None) -> list[str]:
    """A grid of numbers below its title; padding is a dot."""
    columns = numbers.shape[-1] if numbers.ndim else 1
    texts = _aligned(numbers.ravel().tolist())
    if outside is not None:
        texts = ["·" if out else text for text, out in zip(texts, outside.ravel(), strict=True)]
    width = max(map(len, texts), default=0)
    rows = [texts[at : at + columns] for at in range(0, len(texts), columns)]
    lines = [" ".join(f"{text:>{width}}" for text in row) for row in rows]
    whole = max(len(title), *(len(line) for line in lines))
    return [f"{title:^{whole}}", *(f"{line:>{whole}}" for line in lines)]


# -- others --------------------------------------------------------------------------------------


def _windowed(step: Step) -> list[str]:
    """A window as a grid; of a maximum, where it stands."""
    (window,) = step.terms
    if max(window.read.shape, default=0) > _LARGEST_GRID:
        return [f"{'×'.join(map(str, window.read.shape))} numbers, too many to write out"]
    outside = window.places < 0 if window.places is not None else None
    lines = [f" {line}".rstrip() for line in _block("window", window.read, outside)]
    if step.onward is not None:
        lines.append(f"largest at {placed(step.onward)}")
    return lines


def _listed(trace: UnitTrace, step: Step, most: int) -> list[str]:
    """The strongest terms as products, the others as one sum."""
    count = sum(one.read.size for one in step.terms)
    chosen = step.strongest(most if count > most + 1 else count)
    if len(chosen) == count:  # all of them: in the order of the formula
        chosen.sort(key=lambda term: (term.part, term.at))
    rows = [(_written(trace, step, term), term.product) for term in chosen]
    rest = sum(float(one.products.sum()) for one in step.terms if one.places is not None)
    rest -= sum(term.product for term in chosen)
    sourced = sum(one.read.size for one in step.terms if one.places is not None)
    if sourced > len(chosen):
        rows.append((f"{sourced - len(chosen)} others", rest))
    for one in step.terms:
        if one.places is None:
            rows.append((one.label, float(one.products.sum())))
    return _column(rows)


def _written(trace: UnitTrace, step: Step, term: Term) -> str:
    """`input × weight, number 17 of relu: 0.51 × 0.22`."""
    group = step.terms[term.part]
    where = ""
    if term.source is not None:
        graph = trace.arithmetic.recording.graph
        value = graph.values[term.source.value]
        if value.kind in ("parameter", "buffer"):
            where = f", {printable(value.name)}"
        elif value.kind != "constant":
            source = printable(trace.arithmetic.layer_of(term.source.value)) or "the network"
            where = f", {placed(term.source)} of {source}"
    factors = "" if term.factor == 1 else f": {_n(term.read)} × {_n(term.factor)}"
    label = "" if group.label == "handed on" else group.label
    return f"{label}{where}{factors}".removeprefix(", ")


def _column(rows: Sequence[tuple[str, float]]) -> list[str]:
    """Words, and numbers below one another."""
    if not rows:
        return []
    words = min(max(len(one) for one, _ in rows), WIDTH - 20)
    numbers = _aligned([number for _, number in rows])
    width = max(map(len, numbers))
    return [
        f"  {text:{words}}  {number:>{width}}"
        for (text, _), number in zip(rows, numbers, strict=True)
    ]
