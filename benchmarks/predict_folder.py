"""How fast a folder of pictures is answered for, next to decoding and answering alone.

Small JPEGs are written once, then, each in a fresh process and with all of them in the disk cache
of the system:

- `pillow`: one process lists, opens, decodes and scales every file;
- `engine`: the engine alone, on batches of 256 that are at hand;
- `table`: `neocog predict RUN FOLDER --to FILE.csv`, imports not timed.

On one processor a table cannot be faster than 1/(1/pillow + 1/engine), the rate of both one after
the other; on more, helpers decode while the engine computes.

The memory of the process that answers is what it holds in RAM after each batch (Linux). In the
first `WARM` of them the allocator finds out how much it needs; from then to the end, with five
times as many files, it should grow by less than 5 %. More than that is a failure where it goes on:
a leak grows in the second half as in the first, while an allocator's steps become rare, and come
early or late as the threads happen to run.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

__all__ = ["main"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neocog.runtime.engine import Engine

DRIFT = 0.05
"""How much the memory may grow after the first batches."""
LATE = 0.25
"""Share of it that falls into the second half where it is no step; of a leak half of it does."""
WARM = 10
"""Batches after which the memory is first looked at."""
FEW = 5
"""Batches whose median is taken, then and at the end."""


def make(folder: Path, count: int, side: int) -> None:
    """JPEGs with the spectrum of photographs, more or less; files beyond 1,000 are links."""
    chance = np.random.default_rng(0)
    for index in range(count):
        label = folder / f"class{index % 10}"
        label.mkdir(parents=True, exist_ok=True)
        path = label / f"{index:07d}.jpg"
        if index >= 1000:
            path.hardlink_to(folder / f"class{index % 10}" / f"{index % 1000:07d}.jpg")
            continue
        coarse = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        grain = chance.integers(-12, 13, (side, side, 3))
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def pillow(run: str, folder: Path) -> dict[str, float]:
    """Every file decoded, at the size that the network takes."""
    from neocog.geometry import covering_size
    from neocog.run import open_run

    height, width = open_run(run).bundle.input.size
    began, count = time.perf_counter(), 0
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            tall, wide = covering_size((image.height, image.width), (height, width))
            np.asarray(image.convert("RGB").resize((wide, tall), Image.Resampling.BILINEAR))
        count += 1
    return {"rate": count / (time.perf_counter() - began)}


def engine(run: str, count: int) -> dict[str, float]:
    """The same number of pictures, which are at hand."""
    from neocog.host import memory_kept
    from neocog.run import open_run

    own = open_run(run).engine(device="cpu")
    spec = own.described.input
    batch = np.random.default_rng(0).integers(
        0, 256, (256, spec.channels, *spec.size), dtype=np.uint8
    )
    with memory_kept():
        own(batch)
        began, done = time.perf_counter(), 0
        while done < count:
            own(batch)
            done += len(batch)
        return {"rate": done / (time.perf_counter() - began)}


class Watched:
    """An engine that notes after each batch how much memory the process holds, in MiB."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        found = self.engine(samples)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.held.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        return found


def table(run: str, folder: Path, to: Path) -> dict[str, float]:
    """All of it, by the engine of the run."""
    from neocog.run import open_run
    from neocog.verbs.answers import Wanted, write_table
    from neocog.verbs.console import Console

    wanted = Wanted(to=to, sources=(str(folder),), again=True)
    engine = Watched(open_run(run).engine(device="cpu"))
    summary = write_table(wanted, lambda *_: engine, Console(quiet=True))
    assert summary["skipped"] == 0
    assert len(engine.held) >= WARM + 2 * FEW, "too few files to tell"
    return {
        "rate": summary["images_per_second"],
        "batches": len(engine.held),
        "first": engine.held[0],
        "warm": statistics.median(engine.held[WARM : WARM + FEW]),
        "half": statistics.median(engine.held[len(engine.held) // 2 :][:FEW]),
        "end": statistics.median(engine.held[-FEW:]),
        "peak": max(engine.held),
    }


def train(out: Path, folder: Path, model: str, side: int) -> None:
    """A network to ask; how good it is does not matter."""
    command = [sys.executable, "-m", "neocog", "train", str(folder), "--model", model]
    command += ["--epochs", "1", "--set", f"data.size=[{side},{side}]", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)


def measured(*words: object) -> dict[str, float]:
    """One side, in a process of its own."""
    command = [sys.executable, __file__, "--side", *map(str, words)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(said)
    return found


def main() -> None:
    """Write the pictures, train, measure, print."""
    if "--side" in sys.argv:
        words = sys.argv[sys.argv.index("--side") + 1 :]
        if words[0] == "pillow":
            print(json.dumps(pillow(words[1], Path(words[2]))))
        elif words[0] == "engine":
            print(json.dumps(engine(words[1], int(words[2]))))
        else:
            print(json.dumps(table(words[1], Path(words[2]), Path(words[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--pixels", type=int, default=160, help="a side of a picture")
    parser.add_argument("--input", type=int, default=64, help="a side of the network's input")
    parser.add_argument("--model", default="cnn")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root / "few", 200, asked.pixels)
        train(root / "run", root / "few", asked.model, asked.input)
        make(root / "once", asked.files, asked.pixels)  # for what is not a table
        make(root / "five", 5 * asked.files, asked.pixels)
        run = root / "run"
        decoding = measured("pillow", run, root / "once")["rate"]
        answering = measured("engine", run, asked.files)["rate"]
        found = measured("table", run, root / "five", root / "five.csv")
    chain = 1 / (1 / decoding + 1 / answering)
    drift = found["end"] / found["warm"] - 1
    late = (found["end"] - found["half"]) / found["warm"]
    print(f"pillow, one process   {decoding:9,.0f} images/s")
    print(f"engine alone          {answering:9,.0f} images/s")
    print(f"one after the other   {chain:9,.0f} images/s")
    share = found["rate"] / chain
    print(f"table                 {found['rate']:9,.0f} images/s ({share:.2f} of it)")
    print(
        f"memory in RAM         {found['warm']:9,.0f} MiB after {WARM} of {found['batches']:.0f} "
        f"batches, {found['end']:,.0f} at the end ({drift:+.1%}, {late:+.1%} in the second "
        f"half); {found['first']:,.0f} after the first, {found['peak']:,.0f} at most"
    )
    sys.exit(drift > DRIFT and late > LATE * drift)


if __name__ == "__main__":
    main()
