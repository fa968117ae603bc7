"""The catalogue for people. Floor 5, room verbs; imports no torch until arguments are asked for."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["listing", "table"]


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
