"""What a fault test counted and found. Standard library only."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Tally"]

SHOWN = 8
"""Findings that are printed one by one."""


@dataclass(slots=True)
class Tally:
    """Cases and findings of one test."""

    title: str
    cases: int = 0
    findings: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    """What else was counted."""
    table: list[str] = field(default_factory=list)
    """Lines that belong to it."""
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def count(self, note: str = "") -> None:
        """One more case, of this sort."""
        self.cases += 1
        self.seconds = time.monotonic() - self.began
        if note:
            self.notes[note] += 1

    def fail(self, finding: str) -> None:
        """Something that must not be."""
        self.findings.append(finding)

    @property
    def line(self) -> str:
        """All in one line."""
        verdict = "ok" if not self.findings else f"{len(self.findings)} FAILED"
        return f"{self.title:<44}{self.cases:>7,} cases  {verdict:<12}{self.seconds:7.1f} s"

    @property
    def code(self) -> int:
        """The exit code: 1 where anything was found, or nothing was tried."""
        return int(bool(self.findings) or not self.cases)

    def show(self) -> int:
        """Print it, and return the exit code."""
        print(self.line, flush=True)
        for note, number in sorted(self.notes.items()):
            print(f"    {number:>7,} {note}")
        for line in self.table:
            print(f"    {line}")
        for finding in self.findings[:SHOWN]:
            print(f"  ! {finding}")
        if len(self.findings) > SHOWN:
            print(f"  ! and {len(self.findings) - SHOWN} more")
        return self.code
