"""The page to try a model: self-contained, and safe with hostile names."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from neocog.serve.limits import Limits
from serve_rig import Answer, Gated, running
from served import small_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping


class Found(HTMLParser):
    """Elements with their attributes, and the text of styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"style": [], "script": []}
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in self.inside:
            self.inside[self.open][-1] += data


def page(**bundles: Mapping[str, Any]) -> Answer:
    engines = {name: Gated(small_bundle(**how).described) for name, how in bundles.items()}
    with running(engines, Limits(body=2**21)) as rig:
        return rig.ask("GET", "/")


@pytest.fixture(scope="module")
def two() -> Answer:
    return page(ants={}, heart={"channels": 1, "size": (16,), "line": "conv 4 3; gap; linear"})


def policy(answer: Answer) -> dict[str, str]:
    parts = answer.headers["content-security-policy"].split("; ")
    return {name: values for name, _, values in (one.partition(" ") for one in parts)}


def test_its_policy_allows_what_is_in_it_and_nothing_else(two: Answer) -> None:
    assert two.status == 200
    assert two.headers["content-type"] == "text/html; charset=utf-8"
    allowed, found = policy(two), Found(two.body.decode())
    assert allowed["default-src"] == "'none'"
    assert allowed["connect-src"] == "'self'"
    assert allowed["frame-ancestors"] == allowed["base-uri"] == "'none'"
    for tag in ("style", "script"):
        (text,) = found.inside[tag]
        assert text.strip()
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"


def test_nothing_is_fetched_from_elsewhere(two: Answer) -> None:
    text = two.body.decode()
    for _, attributes in Found(text).elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value in ("#content", "openapi.json", "metrics", "data:,")
    assert not re.findall(r"url\(|@import|https?://(?!HOST:PORT)", text)


def test_each_model_can_be_chosen_and_says_what_it_takes(two: Answer) -> None:
    options = [
        attributes for tag, attributes in Found(two.body.decode()).elements if tag == "option"
    ]
    assert [one["value"] for one in options] == ["ants", "heart"]
    assert options[0]["data-takes"] == "RGB pictures, scaled to 12×10"
    assert "data-pictures" in options[0]
    assert options[1]["data-takes"] == "signals of 16, one channel"
    assert "data-pictures" not in options[1]
    assert "2 MiB as a file" in two.body.decode()


def test_one_model_needs_no_choice() -> None:
    answer = page(**{"a-b": {}})
    found = Found(answer.body.decode())
    assert not any(tag == "select" for tag, _ in found.elements)
    (hidden,) = [one for _, one in found.elements if one.get("id") == "model"]
    assert hidden["value"] == "a-b"
    assert "<title>a-b · neocog</title>" in answer.body.decode()


def test_every_element_that_the_script_asks_for_is_there(two: Answer) -> None:
    found = Found(two.body.decode())
    script = found.inside["script"][0]
    asked = set(re.findall(r'at\("(\w+)"\)', script))
    listed = re.search(r"= \[([^\]]+)\]\.map\(at\)", script)
    assert listed
    asked |= set(re.findall(r'"(\w+)"', listed[1]))
    assert len(asked) > 8
    assert asked <= {one.get("id") for _, one in found.elements}
