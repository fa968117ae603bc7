"""Where neocog keeps what it can make or fetch again. Floor 1, room data; standard library only."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """`$NEOCOG_CACHE`, else `$XDG_CACHE_HOME/neocog`, else `~/.cache/neocog`. It need not exist."""
    if own := os.environ.get("NEOCOG_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "neocog"
    return Path.home() / ".cache" / "neocog"
