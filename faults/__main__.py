"""`python -m faults`: every fault test, then one table. Ends with 1 where anything was found."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from faults import flips, kills, planted, saves, twenty

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.tally import Tally

SHORT = "a share of all, in some 20 seconds: what `make test` runs"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help=SHORT)
    parser.add_argument("--kills", type=int, help=f"of forked processes  [{kills.KILLS}]")
    parser.add_argument("--seed", type=int, default=0, help="of all that is by chance  [0]")
    told = parser.parse_args()
    seed: int = told.seed
    began = time.monotonic()
    with kills.prepared(quick=told.short) as setting:
        tests: list[Callable[[], Tally]]
        if told.short:
            tests = [
                partial(saves.run, every=3),
                partial(flips.run, truncations=10, flips=30, seed=seed),
                partial(kills.run, setting, told.kills or kills.FEW, seed=seed),
                partial(planted.run, setting),
            ]
        else:
            tests = [
                saves.run,
                partial(flips.run, seed=seed),
                partial(kills.run, setting, told.kills or kills.KILLS, seed=seed),
                partial(kills.run_whole, setting, kills.WHOLE, seed=seed),
                twenty.run,
                partial(planted.run, setting),
            ]
        tallies = []
        for test in tests:
            tallies.append(test())
            tallies[-1].show()
    print(f"\n{'=' * 78}")
    for tally in tallies:
        print(tally.line)
    code = max(tally.code for tally in tallies)
    print(f"{'nothing was found' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
