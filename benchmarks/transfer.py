"""What knowledge carried over is worth: half of the classes first, the others from few pictures.

    python benchmarks/transfer.py path/to/cifar10/train [--model speednet] [--epochs 8]

A network learns five classes with all their pictures. The other five are then learnt from 20, 100
and 500 pictures each, in three ways: from scratch, with `--from` (all of it learns, the deeper the
slower), and with `--from --freeze all` (the last layer alone, on features that are computed once).
Nothing is held back, and the bundles are scored afterwards on 1,000 other pictures of each class;
seconds are those of training (features included), and of the whole run with tuning, saving and the
report. Every way gets the settings that `neocog train` gives it by itself.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import machine

import neocog
from neocog.config import Recipe
from neocog.host import Watch
from neocog.settings import from_dict

COUNTS = (20, 100, 500)
HELD = 1000
WAYS: tuple[tuple[str, dict[str, object]], ...] = (
    ("from scratch", {}),
    ("carried over, all learns", {"source": ""}),
    ("carried over, last layer", {"source": "", "freeze": "all"}),
)


def main() -> None:
    """Train the first half, then every way with every count; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, help="class folders")
    parser.add_argument("--model", default="speednet")
    parser.add_argument("--epochs", type=int, default=8, help="of the first half")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each way")
    parser.add_argument("--first", type=Path, help="a run on the first half that is there already")
    options = parser.parse_args()
    watch, about = Watch(), machine.describe()
    names = sorted(one.name for one in options.source.iterdir() if one.is_dir())
    half = len(names) // 2
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        first = options.first or _first(options, home, names[:half])
        print(f"\nLearnt first: {', '.join(names[:half])}; {options.model}.\n")
        print("| pictures a class | way | accuracy (95 % interval) | training, s | whole run, s |")
        print("| ---: | --- | --- | ---: | ---: |", flush=True)
        for count in COUNTS:
            data = _few(options.source, home / f"few{count}", names[half:], count)
            for way, settings in WAYS:
                _row(options, home, data, count, way, settings, first)
    print(f"\n{machine.words(about)}; others kept {watch.others()} cores busy.")


def _first(options: argparse.Namespace, home: Path, names: list[str]) -> Path:
    """A run on all pictures of the first classes."""
    data = home / "first"
    for name in names:
        shutil.copytree(options.source / name, data / name)
    recipe = from_dict(Recipe, {"model": options.model, "engine": {"epochs": options.epochs}})
    run = neocog.fit(None, data, recipe, out=home / "run-first")
    return run.path


def _few(source: Path, folder: Path, names: list[str], count: int) -> Path:
    """`train/` with so many pictures of each class, and `held/` with others."""
    for name in names:
        files = sorted((source / name).iterdir())
        for part, mine in (("train", files[:count]), ("held", files[-HELD:])):
            (folder / part / name).mkdir(parents=True)
            for file in mine:
                shutil.copy(file, folder / part / name / file.name)
    return folder


def _row(
    options: argparse.Namespace,
    home: Path,
    data: Path,
    count: int,
    way: str,
    settings: dict[str, object],
    first: Path,
) -> None:
    """One line of the table: every seed with its interval, the middle time."""
    found, times, training = [], [], []
    for seed in range(options.seeds):
        asked = {**settings, **({"source": str(first)} if "source" in settings else {})}
        values = {"model": options.model, "seed": seed, "transfer": asked}
        opened = neocog.load(data / "train", val=0)
        began = time.monotonic()
        out = home / f"run-{count}-{way}-{seed}".replace(" ", "-").replace(",", "")
        run = neocog.fit(None, opened, from_dict(Recipe, values), out=out, quiet=True)
        times.append(time.monotonic() - began)
        training.append(run.summary["seconds"] + (run.summary["features_seconds"] or 0.0))
        score = run.evaluate(str(data / "held"))["all"].metrics["accuracy"]
        found.append(f"{score.value:.1%} ({score.low:.1%} to {score.high:.1%})")
    middle = [f"{sorted(one)[len(one) // 2]:.1f}" for one in (training, times)]
    print(f"| {count} | {way} | {', '.join(found)} | {' | '.join(middle)} |", flush=True)


if __name__ == "__main__":
    main()
