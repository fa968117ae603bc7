"""Does a trace add up to what the network computed? Random units over the whole catalogue.

    python benchmarks/traces.py [NETWORK …] [--draws 1000] [--seed 0]

Each draw is a network of the catalogue, a picture, a layer and a unit of it. What the network
computes is read by hooks on the network itself. A draw agrees when the trace has the same number,
and when every step of the trace, and every step from there on to the pixels along the strongest
terms, adds up in float64 to within 1e-5 · max(1, Σ |terms|). Takes some two minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import drawn_units
from neocog import chance
from neocog.models.catalog import CATALOG

__all__ = ["main"]

A_PICTURE = 15
"""Draws of one picture of one network."""


def main() -> int:
    """Draw, and print what came of it; the exit code tells whether all agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help="some of the catalogue; all by default")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    whole = drawn_units.Tally()
    names = given.networks or list(CATALOG)
    each, more = divmod(given.draws, len(names))
    for at, name in enumerate(names):
        share = each + (at < more)
        start, found = time.perf_counter(), drawn_units.Tally()
        net = drawn_units.network(name, seed=given.seed)
        for picture, first in enumerate(range(0, share, A_PICTURE)):
            x = drawn_units.picture(name, chance.key(given.seed, picture))
            key = chance.key(given.seed, name, picture)
            drawn_units.tally(net, x, min(A_PICTURE, share - first), key, found, name)
        seconds = time.perf_counter() - start
        print(
            f"{name:16} {found.agree:4} of {found.draws:4} agree, {found.pixels:4} paths end at a"
            f" pixel, {found.steps:6} steps, largest gap {found.largest:.1e}, {seconds:5.1f} s",
            flush=True,
        )
        for one in found.wrong[:5]:
            print("   ", one)
        whole.draws += found.draws
        whole.agree += found.agree
        whole.steps += found.steps
        whole.pixels += found.pixels
        whole.kinds += found.kinds
        if found.largest > whole.largest:
            whole.largest, whole.largest_at = found.largest, found.largest_at
    print(
        f"{whole.agree} of {whole.draws} agree, {whole.pixels} paths end at a pixel;"
        f" {whole.steps} steps, largest gap {whole.largest:.1e} of max(1, Σ |terms|)"
        f" at {whole.largest_at}"
    )
    for kind, count in whole.kinds.most_common():
        print(f"{count:8} {kind}")
    return int(whole.agree != whole.draws)


if __name__ == "__main__":
    sys.exit(main())
