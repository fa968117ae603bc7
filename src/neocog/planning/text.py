"""A plan for people: a table and what follows from it, as plain text. Floor 4, room planning."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from neocog.host import BUSY
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from fractions import Fraction

    from neocog.analysis.summary import Layer
    from neocog.planning.nouns import Costs, Network, Range

__all__ = [
    "amount",
    "between",
    "bytes_text",
    "field_text",
    "headline",
    "lines",
    "shape_text",
    "span_text",
]

ROUGH = "the ranges are wide, since this costs something else on the device than can be foreseen"
_WIDTH = 100
_LONGEST = 44
"""Characters of a layer's name; the middle of a longer one is left out."""


def amount(number: float) -> str:
    """A large number with four digits at most.

    >>> amount(512), amount(118_013_952), amount(4_089_184_256)
    ('512', '118.0 M', '4.089 G')
    """
    for size, sign in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            scaled = number / (size if sign != "k" else 1e3)
            return f"{scaled:.{max(0, 3 - max(0, len(str(int(scaled))) - 1))}f} {sign}"
    return f"{number:,.0f}"


def bytes_text(number: float) -> str:
    """Bytes with three digits.

    >>> bytes_text(700), bytes_text(98 * 2**20), bytes_text(3.5 * 2**30)
    ('700 B', '98.0 MiB', '3.50 GiB')
    """
    if number < 1024:
        return f"{number:,.0f} B"
    for sign in ("KiB", "MiB", "GiB", "TiB"):
        number /= 1024
        if number < 1000 or sign == "TiB":
            break
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{digits}f} {sign}"


def span_text(seconds: float) -> str:
    """Seconds for people.

    >>> span_text(0.00042), span_text(0.0731), span_text(3.42), span_text(312)
    ('0.42 ms', '73 ms', '3.4 s', '5.2 min')
    """
    if seconds < 0.1:
        thousandths = seconds * 1e3
        return f"{thousandths:.{2 if thousandths < 1 else 1 if thousandths < 10 else 0}f} ms"
    if seconds < 120:
        return f"{seconds:.{2 if seconds < 1 else 1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def shape_text(shape: Iterable[int]) -> str:
    """A shape.

    >>> shape_text((3, 224, 224))
    '3×224×224'
    """
    return "×".join(str(size) for size in shape) or "1"


def _number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.3g}"


def field_text(layer: Layer) -> tuple[str, str]:
    """Receptive field and jump of a layer: `427`, `32`; `7×5` where axes differ; `all` where an
    element sees the whole picture; `31` where it sees 31 pixels, wherever it stands."""
    if layer.field is None:
        if layer.everything or not layer.seen:
            return ("all" if layer.everything else "", "")
        sizes = [f"{last - first + 1}" for first, last in layer.seen]
        return (sizes[0] if len(set(sizes)) == 1 else "×".join(sizes), "")
    sizes = [f"{one.size}" for one in layer.field]
    jumps = [_number(one.jump) for one in layer.field]
    field = sizes[0] if len(set(sizes)) == 1 else "×".join(sizes)
    jump = jumps[0] if len(set(jumps)) == 1 else "×".join(jumps)
    return ("all" if layer.everything else field, jump)


def headline(network: Network) -> str:
    """One line: the input, parameters, work, receptive field."""
    macs = sum(layer.macs for layer in network.layers)
    found = [
        f"input {shape_text(network.input)}",
        f"{network.graph.parameter_count:,} parameters",
        f"{amount(macs)}MAC" if macs >= 1e4 else f"{macs} MAC",
    ]
    whole = network.fields.whole()
    if whole and max(whole) == 1 and any(layer.everything for layer in network.layers):
        first = next(one for one in network.layers if one.everything)
        found.append(f"everything seen from {first.name} on")
    elif whole:
        gate = next((one for one in network.layers if one.everything and one.field), None)
        field = f"receptive field {shape_text(whole)}"
        found.append(f"{field} by windows, everything from {gate.name} on" if gate else field)
    return ", ".join(found)


def lines(network: Network, costs: Costs | None) -> list[str]:
    """The whole plan."""
    return [
        f"{printable(network.name)}: {headline(network)}",
        "",
        *_table(network, costs),
        *(["", *_costs(costs)] if costs else []),
        *_unknown(network),
        *_remarks(network),
    ]


def _table(network: Network, costs: Costs | None) -> list[str]:
    """One line for each layer, and their sums."""
    heads = ["layer", "kind", "output", "parameters", "MACs", "field", "jump"]
    if costs:
        heads += ["kept"]
    if costs and costs.bounds:
        heads += ["bound by"]
    rows = []
    for at, layer in enumerate(network.layers):
        learnt = f"{layer.parameters:,}" if layer.parameters else "(shared)" if layer.shared else ""
        row = [
            _short(printable(layer.name)),
            printable(layer.kind),
            shape_text(layer.shape[1:]),
            learnt,
            amount(layer.macs) if layer.macs else "",
            *field_text(layer),
        ]
        if costs:
            row.append(bytes_text(costs.kept[at]) if costs.kept[at] else "")
        if costs and costs.bounds:
            row.append(costs.bounds[at])
        rows.append(row)
    idle = network.graph.parameter_count - sum(layer.parameters for layer in network.layers)
    if idle:
        rows.append(["(not read in use)", "", "", f"{idle:,}", *[""] * (len(heads) - 4)])
    sums = ["total", "", "", f"{network.graph.parameter_count:,}"]
    sums += [amount(sum(layer.macs for layer in network.layers)), "", ""]
    if costs:
        sums.append(bytes_text(sum(costs.kept)))
    return _aligned([heads, *rows, [*sums, *[""] * (len(heads) - len(sums))]])


def _short(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    half = (_LONGEST - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


_LEFT = (0, 1, 8)
"""Columns of words; the others hold numbers."""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    found = []
    for row in rows:
        cells = [
            f"{cell:<{width}}" if at in _LEFT else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        found.append("  ".join(cells).rstrip())
    rule = "─" * max(len(line) for line in found)
    return [found[0], rule, *found[1:-1], rule, found[-1]]


def between(value: Range, text: Callable[[float], str]) -> str:
    """`3.42 GiB (3.25 GiB to 3.69 GiB)`."""
    return f"{text(value.value)} ({text(value.low)} to {text(value.high)})"


def _costs(costs: Costs) -> list[str]:
    """Memory, time, the largest batch."""
    how = costs.how
    layout = ", channels last" if how.channels_last else ""
    rows = [
        ("a training step", f"batch {how.batch}, {how.precision}{layout}, {how.optimizer}"),
        (
            "  memory",
            f"{between(costs.peak, bytes_text)}: weights {bytes_text(costs.weights)},"
            f" gradients {bytes_text(costs.gradients)}, optimiser {bytes_text(costs.state)},"
            f" kept for the way back {bytes_text(costs.activations)}",
        ),
    ]
    if costs.free is not None and costs.largest_batch is not None:
        largest = (
            f"largest batch {costs.largest_batch:,}" if costs.largest_batch else "no batch fits"
        )
        rows.append(("", f"of {bytes_text(costs.free)} that are free now; {largest}"))
    if costs.seconds:
        rate = how.batch / costs.seconds.value
        rows.append(
            (
                "  time",
                f"{between(costs.seconds, span_text)}, {rate:,.0f} samples a second,"
                f" {amount(costs.macs)}MAC",
            )
        )
    used = f"memory {between(costs.use_peak, bytes_text)}"
    if costs.use_seconds:
        used += f", time {between(costs.use_seconds, span_text)}"
    rows.append(("an answer to one sample", used))
    if costs.busy >= BUSY:
        rows.append(("", f"times are less certain: {costs.busy:.1f} cores were busy otherwise"))
    if costs.rough:
        rows.append(("roughly", f"{ROUGH}: {', '.join(costs.rough)}"))
    width = max(len(name) for name, _ in rows)
    found = []
    for name, words in rows:
        found += textwrap.wrap(
            words,
            _WIDTH,
            initial_indent=f"{name:<{width}}  ",
            subsequent_indent=" " * (width + 2),
        )
    return found


def _unknown(network: Network) -> list[str]:
    if not network.unknown:
        return []
    found = ["", "operations whose cost is not known, and which are in no sum:"]
    for one in network.unknown:
        where = " at ".join(part for part in (one.path, one.source) if part)
        found.append(f"  {one.op}" + (f" in {where}" if where else ""))
    return found


def _remarks(network: Network) -> list[str]:
    found = []
    for one in network.remarks:
        found += ["", *_wrapped(f"! {printable(one.sentence)}", "  ")]
        if one.remedy:
            found += _wrapped(f"  → {printable(one.remedy)}", "    ")
    return found


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent)
