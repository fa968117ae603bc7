"""What a figure was measured on. Standard library only."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

__all__ = ["Watch", "cores", "describe", "grant", "words"]

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


class Watch:
    """How much of the machine other programs take while we measure."""

    def __init__(self) -> None:
        self.busy, self.own, self.began = _busy(), _own(), time.monotonic()

    def others(self) -> float | None:
        """Processors that others kept busy since the watch began, on average; the hypervisor's
        share counts. None where the system does not say. Helpers count once they have ended."""
        busy = _busy()
        if busy is None or self.busy is None:
            return None
        spent = max(1e-9, time.monotonic() - self.began)
        return round(max(0.0, busy - self.busy - (_own() - self.own)) / spent, 2)


def _busy() -> float | None:
    """Processor seconds of everything since the start of the machine."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:  # not Linux
        return None
    user, nice, system, _, _, *rest = (int(word) for word in words[1:9])
    return float(user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Processor seconds of this process and of those it started, once they have ended."""
    return sum(os.times()[:4])


def words(found: dict[str, Any]) -> str:
    """A description in one line."""
    flags = ", ".join(found["flags"]) or "none of the flags looked for"
    return f"{found['processor']}, {found['cores']} cores ({flags}); Python {found['python']}"
