"""The newest checkpoint cut short, or with one bit flipped: each of these must be noticed."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from faults.prints import state_print
from faults.saves import OLD, state, written
from faults.tally import Tally
from neocog.engine import checkpoint
from neocog.errors import RunError

__all__ = ["run"]

TRUNCATIONS, FLIPS = 200, 500


def run(*, truncations: int = TRUNCATIONS, flips: int = FLIPS, seed: int = 0) -> Tally:
    """Damage the newest of two checkpoints: loading refuses it, resuming names it and goes on from
    the one before.

    Args:
        truncations: how many lengths are tried: nothing, all but one byte, others by chance.
        flips: how many bits are flipped, one at a time.
        seed: of the chance.
    """
    tally = Tally("truncations and bit flips of a checkpoint")
    chance = random.Random(seed)
    before = state_print(state(OLD[0]))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, content in written(*OLD).items():
            (folder / name).write_bytes(content)
        newest = folder / f"step-{OLD[1]:08d}.safetensors"
        whole = newest.read_bytes()
        lengths = [0, len(whole) - 1, *chance.sample(range(1, len(whole) - 1), truncations - 2)]
        for length in lengths[:truncations]:
            newest.write_bytes(whole[:length])
            tally.count("truncations")
            _judge(tally, f"cut to {length} of {len(whole)} bytes", newest, before)
        for place in chance.sample(range(8 * len(whole)), flips):
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            newest.write_bytes(damaged)
            tally.count("bit flips")
            _judge(tally, f"bit {place % 8} of byte {place // 8} flipped", newest, before)
    return tally


def _judge(tally: Tally, which: str, newest: Path, before: str) -> None:
    """Look at one damaged file."""
    try:
        checkpoint.load(newest)
        tally.fail(f"{which}: loaded")
    except RunError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        tally.fail(f"{which}: load: {type(error).__name__}: {error}")
    try:
        found = checkpoint.load_latest(newest.parent)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        tally.fail(f"{which}: load_latest: {type(error).__name__}: {error}")
        return
    if found is None or state_print(found.state) != before:
        tally.fail(f"{which}: the one before was not used")
    elif not any(newest.name in warning for warning in found.warnings):
        tally.fail(f"{which}: no warning names the file")


if __name__ == "__main__":
    sys.exit(run().show())
