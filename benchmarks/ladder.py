"""Measure the table that `--minutes` chooses from: `src/neocog/ladder.json`.

    python benchmarks/ladder.py path/to/cifar10/train

Every candidate is trained in whole runs of rising length, each with its own schedule, seed 0, a
tenth held back; the table keeps the share of wrong answers on that tenth, as the saved bundle gives
them. Runs that are finished already are not made again, so the table can grow by a line in `RUNGS`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import neocog
from neocog.config import DataRecipe, EngineRecipe, Recipe
from neocog.files import write_json

RUNGS: tuple[tuple[str, dict[str, Any], float, tuple[int, ...]], ...] = (
    ("speednet", {"width": 16}, 1.0, (4, 16)),
    ("speednet", {"width": 32}, 0.75, (2, 8)),
    ("speednet", {"width": 32}, 1.0, (2, 8)),
    ("speednet", {"width": 64}, 0.75, (1, 4)),
    ("speednet", {"width": 64}, 1.0, (2, 8)),
)
"""Network, its arguments, side of the pictures as a share, epochs; the cheapest step first."""
SIDE = 32
"""Pixels of the pictures that it is measured on."""
TABLE = Path(__file__).parents[1] / "src" / "neocog" / "ladder.json"


def main() -> None:
    """Train what is missing, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", help="CIFAR-10, for example as class folders")
    parser.add_argument("--runs", type=Path, default=Path("runs/ladder"), help="where runs go")
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    rungs, data = [], {}
    for model, args, shrink, lengths in reversed(RUNGS):
        curve = []
        for epochs in reversed(lengths):
            run = _run(options.source, options.runs, model, args, shrink, epochs)
            data = {name: run.manifest.data[name] for name in ("fingerprint", "splits")}
            seen = epochs * data["splits"]["train"]
            error = 1 - run.scores["val"].metrics["accuracy"].value
            curve.insert(0, [seen, round(error, 4)])
            print(f"{model} {args} {shrink:g} {epochs:3d} epochs: {100 * error:.2f} % wrong")
        rungs.insert(0, {"model": model, "args": args, "shrink": shrink, "curve": curve})
    about = (
        "Share of wrong answers on the held-back tenth of CIFAR-10's training part "
        f"({SIDE}×{SIDE}, JPEG edition) against pictures seen, one whole run with seed 0 for each "
        "point: python benchmarks/ladder.py. One run scatters by some 0.004."
    )
    write_json(options.out, {"about": about, "data": data, "rungs": rungs})
    print(json.dumps(rungs))


def _run(
    source: str, folder: Path, model: str, args: dict[str, Any], shrink: float, epochs: int
) -> neocog.Run:
    """A finished run of one point."""
    words = [model, *(f"{name}{value}" for name, value in args.items()), f"{shrink:g}", str(epochs)]
    out = folder / "-".join(words)
    if (out / "manifest.json").is_file():
        return neocog.resume(out)  # a finished one comes back as it is
    side = round(shrink * SIDE)
    recipe = Recipe(
        model=model,
        data=DataRecipe(source=source, size=(side, side)),
        model_args=args,
        engine=EngineRecipe(epochs=epochs),
    )
    return neocog.fit(recipe=recipe, out=out)


if __name__ == "__main__":
    main()
