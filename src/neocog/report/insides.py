"""The section about the network: drawing, costs, remarks. Room report; floor 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog import html
from neocog.geometry import noun
from neocog.html import words
from neocog.report.network import network_drawing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.planning.nouns import Network
    from neocog.report.nouns import Finished

__all__ = ["described", "network"]


def network(run: Finished) -> html.Section | None:
    """Layers, sizes, branches and receptive fields."""
    made = run.network
    if made is None or not made.layers:
        return None
    lead, drawing = described(made, line=run.line)
    blocks: list[html.Block] = [drawing]
    if run.plan is not None:
        blocks.append(html.Facts(items=tuple(_facts(run.plan))))
    if made.remarks:
        blocks.append(
            html.Lines(items=tuple(f"{one.sentence}. {one.remedy}." for one in made.remarks))
        )
    return html.Section(title="The network", lead=lead, blocks=tuple(blocks))


def described(made: Network, *, line: str = "") -> tuple[str, html.Figure]:
    """A network in a paragraph, and its drawing.

    Args:
        made: what ran.
        line: the line that it is written in, where it is.
    """
    what = noun(made.input[1:])
    sizes = "×".join(str(size) for size in made.input)
    macs = sum(layer.macs for layer in made.layers)
    lead = (
        f"{words.count(len(made.layers), 'layer')}, {made.graph.parameter_count:,} parameters and "
        f"{macs:,} multiply-accumulates for a {what} of {sizes}."
    )
    field = made.fields.whole()
    if field:
        unit = "pixels" if what == "picture" else "values"
        lead += f" Its receptive field is {'×'.join(str(size) for size in field)} {unit}."
    if line:
        lead += f" It is written “{line}”."
    drawing = html.Figure(
        svg=network_drawing(made.layers, (1, *made.input)),
        alt=f"The network as a drawing of its layers from the input down: {lead}",
        caption="The square in a square: how much of the input one value of a layer sees.",
    )
    return lead, drawing


def _facts(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was said before the training, beside what was measured."""
    found = []
    rows = (
        ("Memory for tensors", "peak_bytes", 2**20, "MiB", "the process grew by"),
        ("An epoch", "epoch_seconds", 1, "s", "took"),
    )
    for name, key, unit, sign, verb in rows:
        said, measured = plan.get(key), plan["measured"].get(key)
        parts = []
        if said:
            low, value, high = (f"{said[end] / unit:,.1f}" for end in ("low", "value", "high"))
            parts.append(f"planned {value} {sign} ({low} to {high})")
        if measured:
            parts.append(f"{verb} {measured / unit:,.1f} {sign}")
        if parts:
            found.append((name, ", ".join(parts)))
    return found
