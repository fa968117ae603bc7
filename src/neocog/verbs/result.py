"""What a verb found: once for programs, once for people. Floor 5, room verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Result"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The command line prints one of the two on standard output."""

    json: Mapping[str, Any]
    """The contract's keys, JSON values only."""
    lines: Sequence[str]
    """The same for people."""
