"""The page of a plan says what the plan says."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from neocog import html, plots
from neocog.planning import Plan, Range, plan
from neocog.planning.page import page
from neocog.planning.text import bytes_text, span_text
from neocog.plots.costs import Part, memory
from report_pages import headings, plain
from test_html import assert_offline, read


class Odd(nn.Module):
    """An operation that nobody knows the cost of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu().flatten(1))


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(Odd(), (1, 8, 8), name="<odd> & \u202enet", time=False)


def test_the_page_holds_the_plan(made: Plan) -> None:
    text = html.render(page(made))
    assert_offline(text.replace(' xmlns="http://www.w3.org/2000/svg"', ""))
    seen = plain(text)
    assert headings(text) == ["The network", "What it costs", "Remarks", "Layer by layer"] or (
        headings(text) == ["The network", "What it costs", "Layer by layer"]
    )
    assert r"<odd> & \u202enet" in seen
    parameters = 4 * 9 + 4 + 3 * 256 + 3
    assert f"{parameters:,} parameters" in seen
    assert made.costs is not None
    for end in (made.costs.peak.low, made.costs.peak.value, made.costs.peak.high):
        assert bytes_text(end).replace(" ", "\u00a0") in text
    assert not any(name.startswith("on") for _, attrs in read(text).tags for name in attrs)


def test_every_layer_has_a_row_with_its_numbers(made: Plan) -> None:
    (table,) = re.findall(r"<tbody>(.*?)</tbody>", html.render(page(made)), re.DOTALL)
    rows = [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    ]
    assert [row[0] for row in rows] == [layer.name for layer in made.layers]
    assert rows[0][1:7] == ["Conv2d", "4×8×8", "40", "2,304", "3", "1"]
    assert sum(int(row[3].replace(",", "") or 0) for row in rows) == made.parameters
    orders = [float(order) for order in re.findall(r'data-order="([^"]+)"', table)]
    assert 4 * 64 * 9 in orders


def test_times_lead_where_they_are_known(made: Plan) -> None:
    assert made.costs is not None
    span = Range(value=0.5, low=0.4, high=0.7)
    costs = replace(made.costs, seconds=span, use_seconds=span, timed="profile", busy=1.5)
    found = page(replace(made, costs=costs))
    assert found.headline is not None
    assert found.headline.number == "0.50\u00a0s"
    assert "0.40 s to 0.70 s" in found.headline.words
    seen = plain(html.render(found)).replace("\u00a0", " ")
    assert f"{span_text(0.5)} (0.40 s to 0.70 s)" in seen
    assert f"{costs.how.batch / 0.5:.0f} samples a second" in seen
    assert "1.5 cores were busy" in seen


def test_what_cannot_be_trained_or_told_is_said(made: Plan) -> None:
    from neocog.analysis.summary import Unknown

    unknown = (Unknown(op="mystery", path="a", source="b"),)
    refused = replace(
        made, costs=None, refusal="no gradient", network=replace(made.network, unknown=unknown)
    )
    text = html.render(page(refused))
    assert "A training step cannot be planned: no gradient." in plain(text)
    assert "in no sum: mystery" in plain(text)
    assert "What it costs" not in headings(text)


def test_remarks_are_told(made: Plan) -> None:
    from neocog.analysis.advice import Remark

    remark = Remark(code="x", layer="", sentence="Something is odd", remedy="mend it")
    told = replace(made, network=replace(made.network, remarks=(remark,)))
    assert "Something is odd. mend it." in plain(html.render(page(told)))


def test_bars_of_memory_begin_where_the_last_one_ends() -> None:
    parts = [Part(name="a", size=1), Part(name="none", size=0), Part(name="b", size=3)]
    figure = memory(parts, (3.0, 4.0, 6.0), unit="MiB", said="peak", free=Part(name="f", size=5))
    (axes,) = figure.axes
    bars: list[Any] = list(axes.patches)
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0, 1), (1, 3)]
    (ends,) = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_lw() == 1.6]
    assert list(ends.get_xdata()) == [3.0, 6.0]
    assert {text.get_text() for text in axes.texts} == {"a", "b", "peak", "f"}
    assert "var(--warm" in plots.svg(figure)
    with pytest.raises(ValueError, match="1 to 5 parts"):
        memory([], (1, 1, 1), unit="", said="")
