"""A plan as a page to show to each other: drawing, costs with error bars, layers, remarks.

Floor 4, room planning; imports report, html and plots.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neocog import __version__, html, plots
from neocog.host import BUSY
from neocog.html import words
from neocog.planning.text import (
    ROUGH,
    amount,
    between,
    bytes_text,
    field_text,
    shape_text,
    span_text,
)
from neocog.plots.costs import Part, memory
from neocog.report.insides import described

if TYPE_CHECKING:
    from neocog.planning import Plan
    from neocog.planning.nouns import Costs, Network

__all__ = ["page"]

_MANY = 120
"""Layers, from which on the table is folded."""
_LONGEST = 90
"""Characters of a title."""


def page(plan: Plan) -> html.Page:
    """The page about a network that has not run.

    Args:
        plan: of `neocog.planning.plan`.
    """
    network, costs = plan.network, plan.costs
    name = network.name
    lead, drawing = described(network)
    sections = [html.Section(title="The network", lead=lead, blocks=(drawing,))]
    if costs:
        sections.append(_costs(costs))
    if network.remarks:
        sections.append(_remarks(network))
    sections.append(_layers(network, costs))
    return html.Page(
        kind="plan",
        title=name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…",
        subtitle=_subtitle(plan),
        headline=_headline(plan),
        facts=_facts(plan),
        notes=_notes(plan),
        sections=tuple(sections),
        footer=f"Made by neocog {__version__}. This file needs nothing else and opens offline.",
    )


def _subtitle(plan: Plan) -> str:
    text = f"What it is and what it will cost, before it runs; input {_shape(plan.network.input)}"
    if plan.costs:
        how = plan.costs.how
        layout = ", channels last" if how.channels_last else ""
        text += f", batch {how.batch}, {how.precision}{layout}, {how.optimizer}, on {how.device}"
    return f"{text}."


def _shape(sizes: tuple[int, ...]) -> str:
    return shape_text(sizes).replace("×", " × ")


def _headline(plan: Plan) -> html.Headline | None:
    """Time where it is known, else memory, else parameters."""
    costs = plan.costs
    if costs is None:
        return html.Headline(number=words.size(plan.parameters), words="parameters")
    samples = words.count(costs.how.batch, "sample")
    if costs.seconds:
        low, high = span_text(costs.seconds.low), span_text(costs.seconds.high)
        said = f"for a training step of {samples}: {low} to {high}"
        return html.Headline(number=_unbroken(span_text(costs.seconds.value)), words=said)
    low, high = bytes_text(costs.peak.low), bytes_text(costs.peak.high)
    said = f"of memory for a training step of {samples}: {low} to {high}"
    return html.Headline(number=_unbroken(bytes_text(costs.peak.value)), words=said)


def _unbroken(text: str) -> str:
    """Numbers beside their units.

    >>> _unbroken("41 s (18 s to 95 s)").split(" ")
    ['41\\xa0s', '(18\\xa0s', 'to', '95\\xa0s)']
    """
    return re.sub(r"(\d) (?!to )(?=[a-zA-Z])", "\\1\u00a0", text)


def _facts(plan: Plan) -> tuple[tuple[str, str], ...]:
    found = [
        ("Parameters", f"{plan.parameters:,}"),
        ("Work for a sample", f"{amount(plan.macs)}MAC"),
        ("Layers", f"{len(plan.layers):,}"),
    ]
    if plan.receptive_field:
        found.append(("Receptive field", shape_text(plan.receptive_field)))
    if plan.costs:
        found.append(("Memory of a step", bytes_text(plan.costs.peak.value)))
    return tuple(found)


def _notes(plan: Plan) -> tuple[html.Note, ...]:
    """What a reader must not miss."""
    found = []
    if plan.refusal:
        found.append(f"A training step cannot be planned: {plan.refusal}.")
    if plan.network.unknown:
        names = sorted({one.op for one in plan.network.unknown})
        found.append(f"What these operations cost is not known, and in no sum: {', '.join(names)}.")
    if plan.costs and plan.costs.rough:
        found.append(f"{ROUGH}: {', '.join(plan.costs.rough)}.".capitalize())
    if plan.costs and plan.costs.busy >= BUSY:
        found.append(f"Times are less certain: {plan.costs.busy:.1f} cores were busy otherwise.")
    return tuple(html.Note(text=text, kind="warning") for text in found)


def _costs(costs: Costs) -> html.Section:
    """Memory and time, each with its error bar."""
    figure = _memory(costs)
    rows = [("A step's memory", between(costs.peak, bytes_text))]
    if costs.seconds:
        rate = words.number(costs.how.batch / costs.seconds.value, 2)
        rows.append(("A step's time", between(costs.seconds, span_text)))
        rows.append(("Training speed", f"{rate} samples a second"))
    rows.append(("A step's work", f"{amount(costs.macs)}MAC"))
    rows.append(("An answer's memory", between(costs.use_peak, bytes_text)))
    if costs.use_seconds:
        rows.append(("An answer's time", between(costs.use_seconds, span_text)))
    if costs.free is not None and costs.largest_batch is not None:
        fits = f"{costs.largest_batch:,}" if costs.largest_batch else "none fits"
        rows.append(("Largest batch", f"{fits}, of {bytes_text(costs.free)} free now"))
    timed = {
        "profile": "Times follow from what this machine does with typical operations.",
        "measured": "Each operation of this network was timed on this machine.",
    }
    lead = f"Every number carries the range in which it should lie. {timed.get(costs.timed, '')}"
    facts = html.Facts(items=tuple((name, _unbroken(text)) for name, text in rows))
    return html.Section(title="What it costs", lead=lead.strip(), blocks=(figure, facts))


def _memory(costs: Costs) -> html.Figure:
    """Where the memory goes."""
    sizes = (
        ("weights", costs.weights),
        ("gradients", costs.gradients),
        ("optimiser", costs.state),
        ("kept for the way back", costs.activations),
    )
    unit, sign = next(
        (size, sign)
        for size, sign in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))
        if costs.peak.value >= size or size == 1
    )
    free = None
    if costs.free is not None:
        free = Part(name=f"free now, {bytes_text(costs.free)}", size=costs.free / unit)
    drawn = memory(
        [Part(name=f"{name}, {bytes_text(size)}", size=size / unit) for name, size in sizes],
        (costs.peak.low / unit, costs.peak.value / unit, costs.peak.high / unit),
        unit=sign,
        said=f"peak, {bytes_text(costs.peak.value)}",
        free=free,
    )
    said = ", ".join(f"{name} {bytes_text(size)}" for name, size in sizes)
    return html.Figure(
        svg=plots.svg(drawn),
        alt=f"Memory of a training step: {said}; at its peak {between(costs.peak, bytes_text)}.",
        caption="What lies in memory during a training step. The peak, with its range, also holds "
        "what lives for a moment only.",
    )


def _remarks(network: Network) -> html.Section:
    said = (f"{one.sentence}. {one.remedy}." for one in network.remarks)
    lead = f"{words.count(len(network.remarks), 'remark')} on what one would want to know."
    blocks = (html.Lines(items=tuple(text.replace("..", ".") for text in said)),)
    return html.Section(title="Remarks", lead=lead, blocks=blocks)


def _layers(network: Network, costs: Costs | None) -> html.Section:
    """One row for each layer."""
    columns = ["Layer", "Kind", "Output", "Parameters", "MACs", "Field", "Jump"]
    if costs:
        columns.append("Kept")
    if costs and costs.bounds:
        columns.append("Bound by")
    rows = []
    for at, layer in enumerate(network.layers):
        field, jump = field_text(layer)
        learnt = f"{layer.parameters:,}" if layer.parameters else "shared" if layer.shared else ""
        row: list[html.Cell | str] = [
            html.Cell(text=layer.name, order=at),
            layer.kind,
            shape_text(layer.shape[1:]),
            html.Cell(text=learnt, order=layer.parameters),
            html.Cell(text=amount(layer.macs) if layer.macs else "", order=layer.macs),
            field,
            jump,
        ]
        if costs:
            kept = costs.kept[at]
            row.append(html.Cell(text=bytes_text(kept) if kept else "", order=kept))
        if costs and costs.bounds:
            row.append(costs.bounds[at])
        rows.append(tuple(row))
    table = html.Table(
        caption=f"{words.count(len(rows), 'layer')}, in the order of running",
        columns=tuple(columns),
        rows=tuple(rows),
        numeric=(2, 3, 4, 5, 6, *((7,) if costs else ())),
        folded=len(rows) > _MANY,
    )
    lead = "Field: pixels of the input that one value sees along each axis; jump: pixels between "
    lead += "neighbours."
    if costs:
        lead += " Kept: what the way forward keeps for the way back."
    return html.Section(title="Layer by layer", lead=lead, blocks=(table,))
