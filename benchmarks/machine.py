"""What a figure was measured on. Standard library only."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["cores", "describe", "grant", "words"]

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
"""What decides how fast a convolution is."""


def cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        return os.cpu_count() or 1


def grant(threads: int) -> None:
    """Bind this process and all that it starts to so many processors, where that is possible.

    JAX and helper processes have no other common switch.
    """
    if threads < cores() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def describe() -> dict[str, Any]:
    """Processor, granted cores and all, flags, system, and how busy it was with other things."""
    facts = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    found = set(facts.get("flags", "").split())
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "cores_of_machine": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in found],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def words(found: dict[str, Any]) -> str:
    """A description in one line."""
    flags = ", ".join(found["flags"]) or "none of the flags looked for"
    return f"{found['processor']}, {found['cores']} cores ({flags}); Python {found['python']}"
