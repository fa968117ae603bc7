"""How long `neocog --help` takes to start and end, next to `python -c "import click"`.

Whole processes in turn. Bar: at most 3 times as long.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import machine
import pages

__all__ = ["main"]

BAR = 3.0


def _command() -> list[str]:
    """The installed command where this environment has it, else the module."""
    found = shutil.which("neocog", path=str(Path(sys.executable).parent))
    return [found, "--help"] if found else [sys.executable, "-m", "neocog", "--help"]


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="3 rounds; README.md stays as it is")
    parser.add_argument("--out", type=Path, help="folder of results/ and README.md")
    given = parser.parse_args()
    sides = {
        "import click": [sys.executable, "-c", "import click"],
        "neocog --help": _command(),
    }
    before = machine.describe()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + (3 if given.quick else given.rounds)):
        for name, command in sides.items():
            spent = 1000 * _seconds(command)
            if turn:  # the first writes bytecode and fills the disk cache
                times[name].append(spent)
    each = [b / a for a, b in zip(*times.values(), strict=True)]
    ratio = statistics.median(each)
    found = {
        name: {"median": statistics.median(t), "low": min(t), "high": max(t)}
        for name, t in times.items()
    }
    result = {
        "machine": before,
        "versions": {"click": metadata.version("click")},
        "rounds": len(each),
        "milliseconds": found,
        "ratio": {"value": ratio, "low": min(each), "high": max(each)},
        "bar": BAR,
        "met": ratio <= BAR,
    }
    with tempfile.TemporaryDirectory() as work:
        home = given.out or (Path(work) if given.quick else pages.HOME)
        bars = {name: (one["median"], one["low"], one["high"]) for name, one in found.items()}
        title = "whole process, start to end"
        lines = [pages.plot(home, "startup", title, "milliseconds", bars), ""]
        rows = [
            [name, f"{one['median']:.0f} ms", f"{one['low']:.0f} to {one['high']:.0f}"]
            for name, one in found.items()
        ]
        lines += pages.table(["command", "median", "range"], rows)
        verdict = "met" if result["met"] else "**missed**"
        lines += ["", f"`neocog --help` takes {ratio:.2f} × as long (bar: ≤ {BAR:g}, {verdict}),"]
        lines += [f"{len(each)} rounds. {machine.words(before)}."]
        pages.save(home, "startup", result)
        pages.section(home, "startup", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
