"""What the operating system grants this process. Floor 0: standard library only."""

from __future__ import annotations

import os

__all__ = ["cores"]


def cores() -> int:
    """Processors that this process may use: affinity counts, and hyper-threads do."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS and Windows have no affinity
        return os.cpu_count() or 1
