"""How fast a folder of pictures is answered for, next to decoding and answering alone.

Small JPEGs are written once, then, each in a fresh process and with all of them in the disk cache
of the system:

- `pillow`: one process lists, opens, decodes and scales every file;
- `engine`: the engine alone, on batches of 256 that are at hand;
- `table`: `neocog predict RUN FOLDER --to FILE.csv`, imports not timed.

On one processor a table cannot be faster than 1/(1/pillow + 1/engine), the rate of both one after
the other; on more, helpers decode while the engine computes. The memory of the process that answers
is reported for the folder and for one with five times as many files, whose peaks should differ by
less than 5 %.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["main"]

DRIFT = 0.05
"""How much more memory five times as many files may take."""


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


def table(run: str, folder: Path, to: Path) -> dict[str, float]:
    """All of it, by the engine of the run."""
    from neocog.verbs.answers import Wanted
    from neocog.verbs.choice import Choice
    from neocog.verbs.console import Console
    from neocog.verbs.predict import table as write

    wanted = Wanted(to=to, sources=(str(folder),), again=True)
    choice = Choice(path=Path(run), device="cpu", engine="torch")
    summary = write(choice, wanted, console=Console(quiet=True))
    assert summary["skipped"] == 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": summary["images_per_second"], "peak": peak}


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
        make(root / "once", asked.files, asked.pixels)
        make(root / "five", 5 * asked.files, asked.pixels)
        run = root / "run"
        decoding = measured("pillow", run, root / "once")["rate"]
        answering = measured("engine", run, asked.files)["rate"]
        once = measured("table", run, root / "once", root / "once.csv")
        five = measured("table", run, root / "five", root / "five.csv")
    chain = 1 / (1 / decoding + 1 / answering)
    drift = five["peak"] / once["peak"] - 1
    print(f"pillow, one process   {decoding:9,.0f} images/s")
    print(f"engine alone          {answering:9,.0f} images/s")
    print(f"one after the other   {chain:9,.0f} images/s")
    print(f"table                 {once['rate']:9,.0f} images/s ({once['rate'] / chain:.2f} of it)")
    print(f"peak memory           {once['peak']:9,.0f} MiB; five times the files {drift:+.1%}")
    sys.exit(drift > DRIFT)


if __name__ == "__main__":
    main()
