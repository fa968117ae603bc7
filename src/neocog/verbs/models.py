"""The catalogue for people. Floor 5, room verbs; imports no torch until arguments are asked for."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

from neocog.models import catalog
from neocog.models.notation.words import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LINE", "listing", "table", "word_table", "words"]

LINE = "line"
"""Asks for the words of a network in a line."""


def listing(pattern: str) -> list[dict[str, Any]]:
    """Name, summary, paper and arguments of the networks that match.

    Args:
        pattern: part of a name, or a pattern with `*`; empty for all.
    """
    return [
        {
            "name": name,
            "summary": catalog.CATALOG[name].summary,
            "paper": catalog.CATALOG[name].paper,
            "args": [
                {"name": keyword.name, "takes": keyword.kind, "default": keyword.default}
                for keyword in catalog.describe(name)
            ],
        }
        for name in catalog.names(pattern or None)
    ]


def words() -> list[dict[str, str]]:
    """The layers that a network in a line is made of: how each is written, and what it does."""
    return [
        {"word": word, "usage": entry.usage(word), "summary": entry.summary}
        for word, entry in WORDS.items()
    ]


def word_table(entries: Sequence[dict[str, str]]) -> list[str]:
    """The words as lines for a terminal."""
    lines = [
        'A network in a line: --model "conv 32 3; relu; pool 2; (conv 64 3; relu)*2; gap; linear"',
        "",
        "( … )*N                N times; each time has weights of its own",
        "res( … )               adds what comes in; res( … | … ) puts it through a shortcut",
        "cat( … | … )           branches, their channels one after the other",
        "add( … | … )           branches, added",
        "name: …                names a layer or a group",
        "KERNEL, SIZE, stride…  one number, or one an axis: 3x5",
        "pad                    a number, 2x1, same or valid, and :reflect, :replicate, :circular",
        "",
    ]
    for entry in entries:
        lines.append(entry["usage"])
        lines += wrap(entry["summary"], width=96, initial_indent="    ", subsequent_indent="    ")
    return lines


def table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """The listing as lines for a terminal."""
    width = max((len(entry["name"]) for entry in entries), default=0)
    lines = []
    for entry in entries:
        lines.append(f"{entry['name']:{width}}  {entry['summary']}")
        lines.append(f"{'':{width}}  {entry['paper']}")
        args = [f"{arg['name']}={arg['default']} ({arg['takes']})" for arg in entry["args"]]
        lines += wrap(
            ", ".join(args),
            width=100,
            initial_indent=f"{'':{width}}  model_args: ",
            subsequent_indent=f"{'':{width}}    ",
        )
    return lines
