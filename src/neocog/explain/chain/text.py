"""The paths of a weight as text for the terminal. Floor 1, explain; imports this room."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from neocog.explain.chain.formula import formula
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from neocog.explain.chain.paths import WeightPaths
    from neocog.explain.chain.uses import Use

__all__ = ["paths_text"]

WIDTH = 98
"""Columns of the text."""

_ROWS = 12
"""Of a table, before the rest is only counted."""

_NAMED = 24
"""Elements, up to which they are named one by one."""

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def paths_text(found: WeightPaths) -> str:
    """From a weight to the loss: the paths, the gradient along them, and what it depends on.

    Args:
        found: of `weight_paths`.

    Returns:
        Plain text; a part that does not apply (no formula, no branches) is not there.
    """
    parts = {
        "Written out": _written_out(found),
        "Paths": _paths(found),
        "Where paths meet": _branches(found),
        "The last link: δ of the layer × what it was given": _uses(found),
        "Gates on the paths": _gates(found),
        "Factors: the activations that the paths are multiplied with": _activations(found),
        "What the derivative depends on": _dependences(found),
    }
    lines = _head(found)
    for title, part in parts.items():
        if part:
            lines += ["", title, *(f"  {line}".rstrip() for line in part)]
    return printable("\n".join(lines), lines=True) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}".replace("-", "−")


def _count(count: int) -> str:
    """An exact number, with its power of two where it is one and large."""
    power = count.bit_length() - 1
    if count >= 1024 and count == 1 << power:
        return f"{count:,} = 2{str(power).translate(_SUPERSCRIPTS)}".replace(",", " ")
    return f"{count:,}".replace(",", " ")


def _head(found: WeightPaths) -> list[str]:
    """The weight, its derivative, and that it is autograd's."""
    element = f"{found.weight}[{','.join(map(str, found.index))}]"
    lines = [
        f"{element} = {_number(found.value)}, loss = {_number(found.loss)}",
        f"  ∂L/∂{element} = {_number(found.derivative)}",
        f"  torch.autograd: {_number(float(found.autograd[found.index]))}; over all of the weights"
        f" they differ by at most {found.difference:.0e} of the largest",
    ]
    if found.difference > 1e-6:
        lines.append(
            "  They differ: autograd is told otherwise somewhere on the way (a detach, a function"
            " with a backward of its own)."
        )
    return lines


def _written_out(found: WeightPaths) -> list[str]:
    """The formula, its legend, and the terms."""
    own = formula(found)
    if own is None:
        return []
    lines = [*own.lines, *(f"  {line}" for line in own.legend)]
    if len(own.terms) > 1:
        common = _common([text.split(" · ") for text, _ in own.terms])
        each = f", each with {' · '.join(common)}" if common else ""
        lines.append(f"It consists of {len(own.terms)} terms{each}:")
        ordered = sorted(own.terms, key=lambda one: -abs(one[1]))
        shown = ordered[:_ROWS]
        rows = [(" · ".join(text.split(" · ")[len(common) :]), _number(v)) for text, v in shown]
        lines += _aligned([("term", "value"), *rows])
        rest = ordered[_ROWS:]
        if rest:
            tail = _number(sum(value for _, value in rest))
            lines.append(f"{len(rest)} more, together {tail}")
    return lines


def _common(terms: Sequence[Sequence[str]]) -> list[str]:
    """The factors with which all terms begin."""
    found: list[str] = []
    for factors in zip(*terms, strict=False):
        if len(set(factors)) > 1:
            break
        found.append(factors[0])
    return found


def _paths(found: WeightPaths) -> list[str]:
    """How many, how long, and each of them where they are few."""
    if not found.count:
        return ["None: the loss does not depend on it."]
    ways = "1 path leads" if found.count == 1 else f"{_count(found.count)} paths lead"
    lines = [f"{ways} from the weight to the loss through the operations that ran."]
    if len(found.lengths) > 1:
        told = [f"{_count(paths)} of {length}" for length, paths in found.lengths.items()]
        shown = told if len(told) <= 2 * _ROWS else [*told[:_ROWS], "…", *told[-_ROWS:]]
        lines += textwrap.wrap(f"By layers with weights on them: {', '.join(shown)}.", WIDTH - 2)
    for path in found.paths[:_ROWS]:
        share = f"{_number(path.part):>10}  "
        text = " → ".join(path.layers)
        lines += textwrap.wrap(
            share + text,
            WIDTH - 2,
            subsequent_indent=" " * (len(share) + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
    if len(found.paths) > _ROWS:
        rest = found.paths[_ROWS:]
        total = _number(sum(path.part for path in rest))
        lines.append(f"{len(rest)} more, together {total}")
    if len(found.paths) > 1:
        total = _number(sum(path.part for path in found.paths))
        lines.append(f"{total:>10}  is their sum")
    return lines


def _branches(found: WeightPaths) -> list[str]:
    """What comes in through each branch; of many joins the last."""
    joins = list(dict.fromkeys(branch.join for branch in found.branches))
    shown = set(joins[-_ROWS:])
    rows = [("in", "from", "paths", "adds to the gradient")]
    rows += [
        (branch.join, branch.source, _count(branch.count), _number(branch.part))
        for branch in found.branches
        if branch.join in shown
    ]
    if len(rows) == 1:
        return []
    more = [f"{len(joins) - _ROWS} before them"] if len(joins) > _ROWS else []
    return [*_aligned(rows), *more]


def _uses(found: WeightPaths) -> list[str]:
    lines: list[str] = []
    for use in found.uses:
        lines += _use(use)
    if len(found.uses) > 1:
        total = sum(use.total for use in found.uses)
        lines.append(f"{_number(total)} is the sum over the runs of the layer")
    return lines


def _use(use: Use) -> list[str]:
    """The sum, and its strongest terms."""
    lines = [
        f"{use.layer}: {use.formula} = {_number(use.total)}",
        f"{use.nonzero} of {use.count} terms are not zero",
    ]
    if use.count == 1:
        return lines[:1]
    rows = [("at", "reads", "δ", "given", "product")]
    rows += [
        (
            _place(one.position),
            _place(one.read),
            _number(one.delta),
            _number(one.given),
            _number(one.product),
        )
        for one in use.terms
    ]
    return [*lines, *_aligned(rows)]


def _place(position: Sequence[int]) -> str:
    return ",".join(map(str, position)).replace("-", "−")


def _gates(found: WeightPaths) -> list[str]:
    """How far a change gets: what closed activations hold back."""
    if found.unknown:
        return [f"Not followed: {found.unknown}"]
    rows = [("layer", "op", "reached", "let through", "of them the loss depends on")]
    rows += [
        (gate.layer, gate.op, str(gate.reached), str(gate.passed), str(gate.carried))
        for gate in found.gates[:_ROWS]
    ]
    more = len(found.gates) - _ROWS
    lines = [*_aligned(rows), *([f"and {more} more"] if more > 0 else [])] if found.gates else []
    shut = [
        f"{gate.layer}[{','.join(map(str, at[1:]))}]"
        for gate in found.gates
        if gate.closed is not None
        for at in gate.closed.nonzero()[: _NAMED + 1].tolist()
    ]
    if 0 < len(shut) <= _NAMED:
        lines += textwrap.wrap(f"Closed for this input: {', '.join(shut)}.", WIDTH - 2)
    return lines


def _activations(found: WeightPaths) -> list[str]:
    rows = [("made by", "elements", "that count")]
    own = [one for one in found.factors if one.kind != "parameter"]
    rows += [(one.name, str(one.coefficients.numel()), str(one.count)) for one in own[:_ROWS]]
    more = len(own) - _ROWS
    return [*_aligned(rows), *([f"and {more} more"] if more > 0 else [])] if own else []


def _dependences(found: WeightPaths) -> list[str]:
    """Parameter by parameter: as a factor, through its value, or not at all."""
    rows = [("", "elements", "factors", "any influence", "none", "passes through it")]
    for one in found.dependences[: 4 * _ROWS]:
        factor, value = (_held(mask) for mask in (one.factor, one.influence))
        none = "" if one.influence is None else str(one.numbers.numel() - int(one.influence.sum()))
        part = _number(one.part) if one.factor is not None and bool(one.factor.any()) else ""
        rows.append((one.name, str(one.numbers.numel()), factor, value, none, part))
    lines = _aligned(rows)
    if len(found.dependences) > 4 * _ROWS:
        lines.append(f"and {len(found.dependences) - 4 * _ROWS} more")
    lines += _elements(found)
    lines += textwrap.wrap(
        "Factors stand in the product along the paths for this input; any influence: the derivative"
        " changes with them, for instance because they change the answer that the loss compares;"
        " none: behind closed gates, or not part of this run.",
        WIDTH - 2,
    )
    return lines


def _elements(found: WeightPaths) -> list[str]:
    """The weights that are factors one by one, with their values, where they are few."""
    named = []
    for one in found.dependences:
        if one.name == "input" or one.factor is None:
            continue
        for at in one.factor.nonzero()[: _NAMED + 1].tolist():
            value = _number(float(one.numbers[tuple(at)]))
            # Spaces at which no line breaks.
            named.append(f"{one.name}[{','.join(map(str, at))}]\u00a0=\u00a0{value}")
    if not 0 < len(named) <= _NAMED:
        return []
    lines = textwrap.wrap(f"The weights among the factors: {', '.join(named)}.", WIDTH - 2)
    return [line.replace("\u00a0", " ") for line in lines]


def _held(mask: Tensor | None) -> str:
    """How many elements, empty where that is not known."""
    return "" if mask is None else str(int(mask.sum()))


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns: the first to the left; numbers under their heads to the right."""
    table = list(rows)
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    words = [
        at == 0 or any(row[at][:1].isalpha() for row in table[1:]) for at in range(len(widths))
    ]
    return [
        "  ".join(
            f"{cell:<{width}}" if left else f"{cell:>{width}}"
            for cell, width, left in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in table
    ]
