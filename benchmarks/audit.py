"""Does the audit find what was planted? Flipped labels, leaked copies, a class that is missing.

    python benchmarks/audit.py path/to/cifar10/train --n 10000
    python benchmarks/audit.py digits

Of a data set of classes, so many pictures are drawn; a tenth becomes the validation part, without
one class; 1 % of all labels are flipped to another class by chance; copies of 50 training pictures,
each changed in one of nine ways or two of them, take the place of validation pictures. Told are the
share of the flips among the first 5 % of the suspects, the share of the leaks that were found, and
what else is called a leak.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

import neocog
from neocog.config import DataRecipe, Recipe
from neocog.verbs.audit import audit
from neocog.verbs.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    Change = Callable[[Picture, np.random.Generator], Picture]


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def _array(image: Image.Image, like: Picture) -> Picture:
    return np.asarray(image, np.uint8).reshape(like.shape)


def jpeg(picture: Picture, chance: np.random.Generator) -> Picture:
    """Saved again, of a quality between 25 and 90."""
    buffer = io.BytesIO()
    _image(picture).save(buffer, "jpeg", quality=int(chance.integers(25, 91)))
    return _array(Image.open(buffer), picture)


def resized(picture: Picture, chance: np.random.Generator) -> Picture:
    """Made smaller, to 50 to 85 % of the side, and large again."""
    image, share = _image(picture), chance.uniform(0.5, 0.85)
    small = image.resize(
        [max(2, round(share * side)) for side in image.size], Image.Resampling.BICUBIC
    )
    return _array(small.resize(image.size, Image.Resampling.BICUBIC), picture)


def cut(picture: Picture, chance: np.random.Generator) -> Picture:
    """A part of 85 to 97 % of the side, enlarged."""
    image, share = _image(picture), chance.uniform(0.85, 0.97)
    left, top = (side * (1 - share) * chance.random() for side in image.size)
    box = (left, top, left + share * image.width, top + share * image.height)
    return _array(image.resize(image.size, Image.Resampling.BICUBIC, box=box), picture)


def moved(picture: Picture, chance: np.random.Generator) -> Picture:
    """Moved by up to a tenth of the side."""
    most = max(1, round(0.1 * picture.shape[0]))
    edges = ((most, most), (most, most), (0, 0))
    wide = np.pad(picture, edges, mode="edge" if chance.random() < 0.5 else "constant")
    top, left = chance.integers(0, 2 * most + 1, 2)
    return wide[top : top + picture.shape[0], left : left + picture.shape[1]].copy()


def relit(picture: Picture, chance: np.random.Generator) -> Picture:
    """Of another brightness and contrast."""
    mean = picture.mean()
    changed = (picture - mean) * chance.uniform(0.6, 1.4) + mean + chance.uniform(-40, 40)
    return np.clip(changed, 0, 255).astype(np.uint8)


def mirrored(picture: Picture, chance: np.random.Generator) -> Picture:
    """Left and right exchanged."""
    return picture[:, ::-1].copy()


def noisy(picture: Picture, chance: np.random.Generator) -> Picture:
    """With noise of 3 to 12 grey levels."""
    noise = chance.normal(0, chance.uniform(3, 12), picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def recoloured(picture: Picture, chance: np.random.Generator) -> Picture:
    """Without colour, or each channel of another strength."""
    if picture.shape[2] == 1:
        return relit(picture, chance)
    if chance.random() < 0.5:
        grey = picture @ np.array([0.299, 0.587, 0.114])
        return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    return np.clip(picture * chance.uniform(0.75, 1.25, 3), 0, 255).astype(np.uint8)


CHANGES: tuple[Change, ...] = (jpeg, resized, cut, moved, relit, mirrored, noisy, recoloured)
TINY: tuple[Change, ...] = (relit, mirrored, noisy)
"""For digits of 8×8 pixels, of which little is left when they are resized or become a single block
of a JPEG, and which cannot move by a tenth."""


def changed(picture: Picture, kind: int, changes: tuple[Change, ...], seed: int) -> Picture:
    """A copy, changed in way `kind`; the last is two ways after each other."""
    chance = np.random.default_rng(seed)
    if kind < len(changes):
        return changes[kind](picture, chance)
    one, two = chance.choice(len(changes), 2, replace=False)
    return changes[two](changes[one](picture, chance), chance)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A data set as class folders, and what is wrong with it."""

    flipped: set[str]
    """Names of files with a wrong label."""
    leaked: dict[str, tuple[str, str]]
    """File of a copy in val → that of its original in train, and what was done."""
    missing: str
    """The class that val lacks."""
    n: int
    """Pictures."""


def plant(source: str, folder: Path, n: int, leaks: int, seed: int) -> Planted:
    """Write a data set with faults that are known."""
    data = neocog.load(source)
    chance = np.random.default_rng(seed)
    ids = chance.permutation(len(data))[: min(n, len(data))]
    pictures = data.images.gather(torch.from_numpy(ids), data.size)
    pixels = pictures.permute(0, 2, 3, 1).numpy()
    truth = data.targets[torch.from_numpy(ids)].numpy()
    classes = data.classes
    missing = int(chance.integers(len(classes)))
    held = len(ids) // 10
    val = np.flatnonzero(truth != missing)[:held]
    is_val = np.zeros(len(ids), np.bool_)
    is_val[val] = True
    changes = CHANGES if min(data.size) >= 16 else TINY
    copies = chance.choice(val, leaks, replace=False)
    originals = chance.choice(np.flatnonzero(~is_val & (truth != missing)), leaks, replace=False)
    pixels = pixels.copy()
    kinds = {}
    for k, (copy, original) in enumerate(zip(copies, originals, strict=True)):
        kind = k % (len(changes) + 1)
        pixels[copy] = changed(pixels[original], kind, changes, seed + k)
        truth[copy] = truth[original]
        kinds[copy] = changes[kind].__name__ if kind < len(changes) else "two of them"
    # Copies keep their labels: a copy that contradicts its original would give the flip away. A
    # class that val lacks cannot come back by a flip either.
    free = np.setdiff1d(np.arange(len(ids)), np.concatenate((copies, originals)))
    flips = chance.choice(free, round(0.01 * len(ids)), replace=False)
    labels = truth.copy()
    for one in flips:
        barred = {int(truth[one])} | ({missing} if is_val[one] else set())
        labels[one] = chance.choice([k for k in range(len(classes)) if k not in barred])
    names = {}
    for row in range(len(ids)):
        part = "val" if is_val[row] else "train"
        names[row] = f"{part}/{classes[labels[row]]}/{row:06d}.png"
        path = folder / names[row]
        path.parent.mkdir(parents=True, exist_ok=True)
        _image(pixels[row]).save(path, compress_level=1)
    return Planted(
        flipped={names[int(one)] for one in flips},
        leaked={
            names[int(copy)]: (names[int(original)], kinds[copy])
            for copy, original in zip(copies, originals, strict=True)
        },
        missing=classes[missing],
        n=len(ids),
    )


def judge(
    planted: Planted, folder: Path, found: dict[str, object], table: str
) -> dict[str, object]:
    """Recall and precision of what an audit told."""
    rows = [line.split(",") for line in table.splitlines()[1:]]
    order = [str(Path(row[0])) for row in rows]
    short = [
        str(Path(one).relative_to(folder)) if Path(one).is_absolute() else one for one in order
    ]
    top = short[: round(0.05 * planted.n)]
    hits = [one in planted.flipped for one in top]
    first = len(planted.flipped)
    duplicates: dict[str, object] = found["duplicates"]  # type: ignore[assignment]
    told = set()
    across = 0
    for pair in duplicates["pairs"]:  # type: ignore[attr-defined]
        names = [
            str(Path(one).relative_to(folder)) if Path(one).is_absolute() else one
            for one in pair["paths"]
        ]
        if pair["parts"][0] != pair["parts"][1]:
            across += 1
            told |= {tuple(names), tuple(names[::-1])}
    missed = [
        kind for copy, (original, kind) in planted.leaked.items() if (original, copy) not in told
    ]
    row = next(one for one in found["classes"] if one["name"] == planted.missing)  # type: ignore[attr-defined]
    return {
        "n": planted.n,
        "flips": len(planted.flipped),
        "recall_at_5_percent": sum(hits) / max(1, len(planted.flipped)),
        "precision_at_flips": sum(one in planted.flipped for one in short[:first]) / max(1, first),
        "estimated_errors": found["estimated_errors"],
        "leaks": len(planted.leaked),
        "leaks_found": len(planted.leaked) - len(missed),
        "leaks_missed": missed,
        "other_pairs_across": across - len(planted.leaked) + len(missed),
        "missing_class": [row["n"]["val"], row["agreement"].get("val")],
        "seconds": found["seconds"],
    }


def main() -> None:
    """Plant, audit, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", help="CIFAR-10, for example as class folders; or digits")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--leaks", type=int, default=50)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="where the page goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "planted"
        planted = plant(options.source, folder, options.n, options.leaks, options.seed)
        out = options.out or Path(work) / "audit"
        recipe = Recipe(model="auto", data=DataRecipe(source=str(folder)))
        engine = dataclasses.replace(recipe.engine, threads=options.threads)
        recipe = dataclasses.replace(recipe, engine=engine)
        began = time.monotonic()
        with Console() as console:
            result = audit(
                recipe, folds=options.folds, minutes=options.minutes, out=out, console=console
            )
        told = judge(planted, folder, dict(result.json), (out / "suspects.csv").read_text())
        print("\n".join(result.lines[:12]))
        print(json.dumps(told | {"wall": round(time.monotonic() - began, 1)}, indent=1))


if __name__ == "__main__":
    main()
