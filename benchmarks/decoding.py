"""How long neocog takes to open a folder of small JPEGs, next to Pillow alone.

Three sides in turn, each in a fresh process, on as many helper processes as there are processors,
all files in the disk cache of the system:

- `pillow`: list the folder, decode every file to an array; the arrays stay in the helpers;
- `pillow, joined`: the same, the arrays sent back and joined into one;
- `neocog`: `neocog.load` with an empty cache: list, read, hash, check, decode, find duplicates,
  write the pack, open it.

Bar: neocog within 20 % of `pillow`. Imports are not timed; starting helper processes is, on all
sides. What one side left to be written to the disk is written before the next one begins.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from multiprocessing import Pool
from pathlib import Path
from typing import TYPE_CHECKING

import machine
import numpy as np
import pages
from PIL import Image

from neocog.host import Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["main"]

BAR = 1.2
SIDES = ("pillow", "pillow, joined", "neocog")
PROCESSES = min(machine.cores(), 32)
"""As many as neocog starts."""
CHUNK = 256
"""Files that a process gets at once."""


def make(folder: Path, count: int, size: int) -> None:
    """JPEGs with the spectrum of photographs, more or less, in ten class folders."""
    chance = np.random.default_rng(0)
    for index in range(count):
        label = folder / f"class{index % 10}"
        label.mkdir(parents=True, exist_ok=True)
        coarse = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        grain = chance.integers(-12, 13, (size, size, 3))
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(label / f"{index:06d}.jpg", quality=90)


def _paths(folder: str) -> list[str]:
    return [
        os.path.join(root, name)  # noqa: PTH118 - the quickest there is
        for root, _, names in os.walk(folder)
        for name in sorted(names)
    ]


def _decode(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _count(paths: list[str]) -> int:
    """Decode some files into arrays that stay in this process."""
    return len([_decode(path) for path in paths])


def _pillow(folder: str, *, join: bool) -> int:
    """Decode all files; how many."""
    paths = _paths(folder)
    with Pool(PROCESSES) as pool:
        if join:
            return len(np.stack(list(pool.imap(_decode, paths, CHUNK))))
        chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        return sum(pool.imap_unordered(_count, chunks))


def _neocog(folder: str) -> int:
    """Open the folder; how many pictures."""
    import neocog

    return len(neocog.load(folder))


def _worker(side: str, folder: str) -> None:
    """One side in this process; prints seconds and pictures."""
    if side == "neocog":
        import torch

        import neocog

        assert neocog.load
        torch.set_num_threads(machine.cores())
    began = time.perf_counter()
    found = _neocog(folder) if side == "neocog" else _pillow(folder, join=side != "pillow")
    print(json.dumps([time.perf_counter() - began, found]))


def _run(side: str, folder: Path) -> tuple[float, int]:
    """One side in a fresh process, with a fresh cache."""
    if hasattr(os, "sync"):  # not on Windows
        os.sync()
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, "--worker", side, "--data", str(folder)],
            env=os.environ | {"NEOCOG_CACHE": cache},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    seconds, found = json.loads(done.stdout.splitlines()[-1])
    return seconds, found


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, after one that fills the disk cache."""
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(rounds + 1):
        counts = set()
        for side in SIDES:
            seconds, found = _run(side, folder)
            counts.add(found)
            if turn:
                times[side].append(seconds)
                print(f"{turn}/{rounds} {side}: {seconds:.2f} s", file=sys.stderr, flush=True)
        if len(counts) > 1:
            raise SystemExit(f"the sides found different numbers of pictures: {sorted(counts)}")
    return times


def report(
    home: Path, times: dict[str, list[float]], count: int, size: str, busy: float | None
) -> list[str]:
    """Write JSON and plot; the page's section.

    Args:
        home: folder of the page.
        times: side → seconds of each round.
        count: files.
        size: what they are.
        busy: processors that other programs kept busy meanwhile.
    """
    found = {
        side: {"median": statistics.median(t), "low": min(t), "high": max(t)}
        for side, t in times.items()
    }
    ratios = {}
    for side in SIDES[:2]:
        each = [b / a for a, b in zip(times[side], times["neocog"], strict=True)]
        ratios[side] = {"value": statistics.median(each), "low": min(each), "high": max(each)}
    where = machine.describe()
    result = {
        "machine": where | {"busy_with_others": busy},
        "versions": {name: metadata.version(name) for name in ("pillow", "numpy")},
        "pictures": count,
        "data": size,
        "processes": PROCESSES,
        "rounds": len(times["neocog"]),
        "seconds": {side: one | {"all": times[side]} for side, one in found.items()},
        "ratios": ratios,
        "bar": BAR,
        "met": ratios["pillow"]["value"] <= BAR,
    }
    bars = {
        side: (count / one["median"], count / one["high"], count / one["low"])
        for side, one in found.items()
    }
    lines = [pages.plot(home, "decoding", "opening small JPEGs", "files per second", bars), ""]
    lines += pages.table(
        ["side", "seconds", "range", "files/s", "neocog takes"],
        [
            [
                side,
                f"{one['median']:.2f}",
                f"{one['low']:.2f} to {one['high']:.2f}",
                f"{count / one['median']:,.0f}",
                f"{ratios[side]['value']:.2f} ×" if side in ratios else "",
            ]
            for side, one in found.items()
        ],
    )
    verdict = "met" if result["met"] else "**missed**"
    value = ratios["pillow"]
    idle = "" if busy is None else f" Other programs kept {busy:.1f} cores busy meanwhile."
    lines += [
        "",
        f"Bar: at most {BAR:g} × `pillow`, {verdict} ({value['low']:.2f} to {value['high']:.2f} in "
        f"the rounds). {count:,} files, {size}, {PROCESSES} processes, {result['rounds']} rounds. "
        f"{machine.words(where)}; Pillow {result['versions']['pillow']}.{idle}",
    ]
    pages.save(home, "decoding", result)
    pages.section(home, "decoding", lines)
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="50,000 files and 5 rounds take some 3 minutes on two slow processors.",
    )
    add = parser.add_argument
    add("--data", type=Path, help="a folder of pictures (default: synthetic ones)")
    add("--images", type=int, default=50_000, help="how many synthetic ones (default: 50,000)")
    add("--size", type=int, default=32, help="pixels a side of the synthetic ones (default: 32)")
    add("--rounds", type=int, default=5, help="turns of each side (default: 5, at least 3)")
    add("--quick", action="store_true", help="few pictures; README.md stays as it is")
    add("--out", type=Path, help="folder of results/ and README.md")
    add("--worker", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _worker(given.worker, str(given.data))
        return
    if given.rounds < 3 and not given.quick:
        parser.error("at least 3 rounds: a median of fewer says nothing")
    with tempfile.TemporaryDirectory(prefix="neocog-decoding-") as work:
        home = given.out or (Path(work) / "page" if given.quick else pages.HOME)
        home.mkdir(parents=True, exist_ok=True)
        folder, size = given.data, "real pictures"
        if folder is None:
            folder, size = Path(work) / "pictures", f"{given.size}×{given.size} synthetic"
            make(folder, 500 if given.quick else given.images, given.size)
        watch = Watch()
        times = measure(folder, 2 if given.quick else given.rounds)
        print("\n".join(report(home, times, len(_paths(str(folder))), size, watch.others())))


if __name__ == "__main__":
    main()
