"""How long neocog takes to open a folder of small JPEGs, next to Pillow alone.

Three sides in turn, each in a fresh process, on as many processes as there are processors:

- `pillow`: list the folder, decode every file, throw the pixels away;
- `pillow, kept`: the same, the pixels sent back and joined into one array;
- `neocog`: `neocog.load` with an empty cache: list, read, hash, check, decode, find duplicates,
  write the pack, open it.

Bar: neocog within 20 % of `pillow`. Imports are not timed; starting helper processes is.
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["main"]

BAR = 1.2
SIDES = ("pillow", "pillow, kept", "neocog")
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


def _decode(path: str) -> None:
    with Image.open(path) as picture:
        picture.convert("RGB").load()


def _decode_and_keep(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _pillow(folder: str, *, keep: bool) -> int:
    """Decode all files; how many."""
    with Pool(machine.cores()) as pool:
        if keep:
            return len(np.stack(list(pool.imap(_decode_and_keep, _paths(folder), CHUNK))))
        return sum(1 for _ in pool.imap_unordered(_decode, _paths(folder), CHUNK))


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
    found = _neocog(folder) if side == "neocog" else _pillow(folder, keep=side != "pillow")
    print(json.dumps([time.perf_counter() - began, found]))


def _run(side: str, folder: Path) -> tuple[float, int]:
    """One side in a fresh process, with a fresh cache."""
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


def report(home: Path, times: dict[str, list[float]], count: int, size: str) -> list[str]:
    """Write JSON and plot; the page's section."""
    found = {
        side: {"median": statistics.median(t), "low": min(t), "high": max(t)}
        for side, t in times.items()
    }
    ratios = {}
    for side in SIDES[:2]:
        each = [b / a for a, b in zip(times[side], times["neocog"], strict=True)]
        ratios[side] = {"value": statistics.median(each), "low": min(each), "high": max(each)}
    value = ratios["pillow"]["value"]
    where = machine.describe()
    result = {
        "machine": where,
        "versions": {name: metadata.version(name) for name in ("pillow", "numpy")},
        "pictures": count,
        "data": size,
        "processes": machine.cores(),
        "rounds": len(times["neocog"]),
        "seconds": found,
        "ratios": ratios,
        "bar": BAR,
        "met": value <= BAR,
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
    lines += [
        "",
        f"Bar: at most {BAR:g} × `pillow`, {verdict}. {count:,} files, {size}, "
        f"{result['processes']} processes, {result['rounds']} rounds. {machine.words(where)}.",
    ]
    pages.save(home, "decoding", result)
    pages.section(home, "decoding", lines)
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="a folder of pictures (default: synthetic ones)")
    add("--images", type=int, default=20_000, help="how many synthetic ones")
    add("--size", type=int, default=32, help="pixels a side of the synthetic ones")
    add("--rounds", type=int, default=5)
    add("--quick", action="store_true", help="few pictures; README.md stays as it is")
    add("--out", type=Path, help="folder of results/ and README.md")
    add("--worker", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _worker(given.worker, str(given.data))
        return
    with tempfile.TemporaryDirectory(prefix="neocog-decoding-") as work:
        home = given.out or (Path(work) / "page" if given.quick else pages.HOME)
        home.mkdir(parents=True, exist_ok=True)
        folder, size = given.data, "real pictures"
        if folder is None:
            folder, size = Path(work) / "pictures", f"{given.size}×{given.size} synthetic"
            make(folder, 500 if given.quick else given.images, given.size)
        times = measure(folder, 2 if given.quick else given.rounds)
        print("\n".join(report(home, times, len(_paths(str(folder))), size)))


if __name__ == "__main__":
    main()
