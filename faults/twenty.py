"""Twenty fresh programs, scanning with 0, 1, 2 and 4 helpers: one hash of everything."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from faults.prints import different, run_prints
from faults.runs import Place, fresh, make_pictures, wait
from faults.tally import Tally
from neocog.host import cores

__all__ = ["run"]

PROGRAMS = 20
HELPERS = (0, 1, 2, 4)
SECONDS = 120
"""After so long a program is taken for stuck."""


def run(programs: int = PROGRAMS) -> Tally:
    """Train anew in so many programs, each with a cold cache, as many at a time as there are
    cores."""
    tally = Tally("fresh programs, 0, 1, 2 and 4 helpers: equal")
    with tempfile.TemporaryDirectory(prefix="neocog-faults-") as made:
        source = Path(made) / "pictures"
        make_pictures(source)
        first: dict[str, str] = {}
        under_way: deque[tuple[int, Place, int]] = deque()
        for number, helpers in zip(range(programs), itertools.cycle(HELPERS), strict=False):
            place = Place(Path(made) / str(number), source)
            place.root.mkdir()
            under_way.append((fresh(place, helpers), place, helpers))
            if len(under_way) >= cores():
                first = _look(*under_way.popleft(), first, tally)
        for waiting in under_way:
            first = _look(*waiting, first, tally)
    return tally


def _look(
    process: int, place: Place, helpers: int, first: dict[str, str], tally: Tally
) -> dict[str, str]:
    """Wait for one program and compare it with the first.

    Returns:
        The prints of the first.
    """
    code = wait(process, until=time.monotonic() + SECONDS)
    tally.count(f"with {helpers} helpers")
    if code != 0:
        tally.fail(f"{place.root.name} ended with {code}:\n{place.said()}")
        return first
    prints = run_prints(place.run)
    first = first or prints
    odd = different(prints, first)
    if odd:
        tally.fail(f"{', '.join(odd)} differ, {helpers} helpers")
    shutil.rmtree(place.root)
    return first


if __name__ == "__main__":
    sys.exit(run().show())
