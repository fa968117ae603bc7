"""What a target is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Files", "Target", "seed"]

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser."""

    make: Callable[[random.Random], Files]
    """Draws the files of an input, by name."""
    read: Callable[[Path], None]
    """Reads them in a folder."""
    bombs: Callable[[], list[Files]] = list
    """Inputs that cost more than they look; each is read as it is, before the drawn ones."""


def seed(chance: random.Random) -> int:
    """For what is drawn of one file."""
    return chance.getrandbits(64)
