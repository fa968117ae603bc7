"""The section about accuracy by what a picture looks like. Room report; floor 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neocog import html, plots
from neocog.html import words
from neocog.metrics.properties import ENDS
from neocog.plots import trust
from neocog.report.answers import metric_cell
from neocog.report.comparison import chance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.metrics.properties import Property
    from neocog.report.nouns import Finished

__all__ = ["finding", "section"]

_SURE = 0.05


def section(run: Finished) -> html.Section | None:
    """Accuracy by each property: the finding in words, a figure, and the numbers."""
    found, noun = run.properties, run.noun
    if not found:
        return None
    sure = [one for one in found if one.adjusted < _SURE]
    many = words.count(len(found), "property", "properties")
    lead = " ".join(finding(one, noun) for one in sure) or (
        f"Between groups of {noun}s by any of {many} accuracy differs no more than by chance."
    )
    lead += f" The p-values are raised for having looked at {many} (Holm)."
    if sure:
        low = ENDS.get(sure[0].name, (f"low in {sure[0].name}", ""))[0]
        lead += f" What goes with a property need not come from it: a whole class may be {low}."
    drawn = plots.svg(
        trust.groups(
            [
                trust.Group(
                    name=f"{one.name} ({chance(one.adjusted)})",
                    ends=ENDS.get(one.name, ("little", "much")),
                    shares=[(b.right.value, b.right.low, b.right.high) for b in one.bins],
                )
                for one in found
            ],
            title="Accuracy by property",
        )
    )
    return html.Section(
        title=f"Which {noun}s it gets wrong",
        lead=lead,
        blocks=(
            html.Figure(
                svg=drawn,
                alt=f"Accuracy of groups of {noun}s by each property; the table has the numbers.",
                caption=f"{noun.capitalize()}s sorted into groups of about equal size, from little "
                "of a property to much; accuracy with 95\u00a0% intervals. Sharpness: variance of "
                "the Laplacian; aspect: width over height.",
            ),
            _table(found, noun),
        ),
    )


def finding(one: Property, noun: str = "picture") -> str:
    """What is worst, in words.

    >>> from neocog.metrics.properties import Bin, Property
    >>> from neocog.metrics import wilson
    >>> low = Bin(low=0.1, high=0.2, right=wilson(67, 94))
    >>> high = Bin(low=0.3, high=0.9, right=wilson(80, 94))
    >>> one = Property(name="brightness", bins=(low, high), p=0.01, adjusted=0.03)
    >>> finding(one).replace("\\xa0", " ")
    'Dark pictures: 71.3 % right (61.4 to 79.4) of 94, all: 78.2 % of 188.'
    """
    worst = one.bins[one.lowest].right
    ends = ENDS.get(one.name, (f"low in {one.name}", f"high in {one.name}"))
    place = {0: ends[0], len(one.bins) - 1: ends[1]}.get(one.lowest, f"of middling {one.name}")
    head = f"{place} {noun}s" if " " not in place else f"{noun}s {place}"
    value, low, high = words.percent_range(worst)
    n = sum(b.right.n for b in one.bins)
    hits = sum(b.right.value * b.right.n for b in one.bins)
    return (
        f"{head[:1].upper()}{head[1:]}: {value} right ({low} to {high}) of {worst.n:,}, all: "
        f"{words.percent(hits / n)} of {n:,}."
    )


def _table(found: Sequence[Property], noun: str) -> html.Table:
    """Every group in numbers."""
    rows = tuple(
        (
            one.name,
            html.Cell(text=f"{words.number(b.low)} to {words.number(b.high)}", order=b.low),
            metric_cell("accuracy", b.right),
            html.Cell(text=f"{b.right.n:,}", order=b.right.n),
        )
        for one in found
        for b in one.bins
    )
    return html.Table(
        caption="The same in numbers",
        columns=("Property", "Values", "Accuracy", f"{noun}s".capitalize()),
        rows=rows,
        numeric=(1, 2, 3),
        folded=True,
    )
