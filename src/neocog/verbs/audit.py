"""Is the data what it says: copies within and across parts, labels that are probably wrong, classes
that are missing. Floor 5, room verbs.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog.config import Recipe
from neocog.data import dataset
from neocog.data.near import Copies, copies
from neocog.errors import ConfigError, DataError
from neocog.files import write_atomic
from neocog.geometry import noun
from neocog.metrics.suspects import suspects
from neocog.report import audited
from neocog.verbs import folds as out_of_fold
from neocog.verbs.doubts import CERTAIN, Judged, Suspect, conflicts, ranked
from neocog.verbs.result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.data.near import Pair
    from neocog.verbs.console import Console

__all__ = ["audit", "shown"]

FEW = 10
"""Training samples below which a class is told of as small."""
SHOWN = 48
"""Suspects and pairs on the page, at most."""
LISTED = 20
"""Suspects that people are told of on a terminal."""
TOLD = 1000
"""Pairs and suspects in the JSON, at most; the table has all suspects."""


def audit(
    recipe: Recipe | str,
    *,
    folds: int = 5,
    minutes: float | None = None,
    out: Path | None = None,
    console: Console,
) -> Result:
    """Look for copies, wrong labels, leaks and missing classes in a data set of classes.

    Args:
        recipe: the data set and, if it matters, the network and its settings; or a source.
        folds: networks that are trained, each without one fold of training and validation part; 0:
            none, and only what copies say about labels is told.
        minutes: time for all, about. None: as long as `folds` short trainings take.
        out: folder for `audit.html` and `suspects.csv`. None: neither is written.
        console: shows how far it is.

    Raises:
        DataError: the data set is refused, or holds signals or volumes.
        ConfigError: one fold, or more folds than samples.
    """
    began = time.monotonic()
    ends = None if minutes is None else began + 60 * minutes
    recipe = (
        Recipe(model="auto", data=dataclasses.replace(Recipe().data, source=recipe))
        if (isinstance(recipe, str))
        else recipe
    )
    data = dataset.load(recipe.data, seed=recipe.seed, progress=console.progress)
    console.done()
    if len(data.size) != 2:
        raise DataError(f"pictures can be audited, and these are {noun(data.size)}s")
    if folds < 0 or folds == 1 or folds > len(data):
        raise ConfigError(
            f"folds lies in 2…{len(data)}, the number of samples, or is 0, got {folds}"
        )
    doubles = copies(data.images, data.splits, tell=console.progress)
    console.done()
    found: list[Suspect] = []
    told: Judged | None = None
    if data.kind == "class":
        found = conflicts(data, doubles)
        if folds:
            told = _judged(recipe, data, doubles, folds, ends, console)
            found = ranked(data, found, told)
    seconds = time.monotonic() - began
    json = _json(data, doubles, found, told, folds, seconds)
    lines = _lines(data, doubles, found, json)
    if out is not None:
        _write(out, data, doubles, found, json)
        lines += [f"page: {out / 'audit.html'}", f"table: {out / 'suspects.csv'}"]
        json |= {"page": str(out / "audit.html"), "table": str(out / "suspects.csv")}
    return Result(json=json, lines=lines)


def _judged(
    recipe: Recipe,
    data: Dataset,
    doubles: Copies,
    folds: int,
    ends: float | None,
    console: Console,
) -> Judged:
    """Train out of fold and judge the labels."""
    learnt = [data.splits[part].numpy() for part in ("train", "val") if part in data.splits]
    ids = np.sort(np.concatenate(learnt))
    extra = data.splits["test"].numpy() if "test" in data.splits else np.zeros(0, np.int64)
    parts = out_of_fold.folds_of(
        ids, data.targets[torch.from_numpy(ids)].numpy(), doubles.clusters, folds, recipe.seed
    )
    answered = out_of_fold.answers(
        recipe, data, parts=parts, ids=ids, extra=extra, ends=ends, console=console
    )
    labels = data.targets[torch.from_numpy(answered.ids)].numpy()
    judged = suspects(answered.probabilities, labels)
    return Judged(
        ids=answered.ids,
        judged=judged,
        probabilities=answered.probabilities,
        model=answered.model,
    )


def _classes(data: Dataset, told: Judged | None) -> list[dict[str, Any]]:
    """Each class: samples of each part, and how often networks agree with its labels there; None
    where a part has none of it."""
    counts = {part: data.class_counts(ids) for part, ids in data.splits.items()}
    agrees: dict[str, list[float | None]] = {}
    if told is not None:
        answers = told.probabilities.argmax(1)
        row = np.full(len(data), -1)
        row[told.ids] = np.arange(len(told.ids))
        for part, ids in data.splits.items():
            labels = data.targets[ids].numpy()
            right = answers[row[ids.numpy()]] == labels
            agrees[part] = [
                float(right[labels == k].mean()) if (labels == k).any() else None
                for k in range(len(data.classes))
            ]
    return [
        {
            "name": name,
            "n": {part: one[k] for part, one in counts.items()},
            "agreement": {part: one[k] for part, one in agrees.items()},
        }
        for k, name in enumerate(data.classes)
    ]


def _agreement(data: Dataset, told: Judged) -> float:
    """Share of the labels that networks agree with."""
    labels = data.targets[torch.from_numpy(told.ids)].numpy()
    return float((told.probabilities.argmax(1) == labels).mean())


def _remarks(data: Dataset, doubles: Copies) -> list[str]:
    """What is odd about parts, classes and sizes, one sentence each."""
    found = []
    for pair, number in doubles.across.items():
        one, two = pair.split("/")
        plural = "pictures of {} have" if number != 1 else "picture of {} has"
        found.append(f"{number:,} {plural.format(two)} a copy in {one}: its score flatters")
    if data.kind == "class":
        counts = {part: data.class_counts(ids) for part, ids in data.splits.items()}
        for k, name in enumerate(data.classes):
            have = [part for part, one in counts.items() if one[k]]
            lacks = [part for part, one in counts.items() if not one[k]]
            if have and lacks:
                told = f"class {name} is in {' and '.join(have)}, and not in {' or '.join(lacks)}"
                found.append(told + (", where it has no score" if "train" in have else ""))
            few = counts.get("train", [FEW] * len(data.classes))[k]
            if 0 < few < FEW:
                found.append(f"class {name} has only {few} training pictures")
    found += _odd_sizes(data)
    return found


def _odd_sizes(data: Dataset) -> list[str]:
    """Pictures of a shape far from the others'."""
    if data.images.uniform:
        return []
    sizes = data.images.sizes.double()
    shape = (sizes[:, 1] / sizes[:, 0]).log()
    away = (shape - shape.median()).abs() > np.log(2.5)
    odd = away.nonzero()[:, 0].tolist()
    if not odd:
        return []
    one = odd[0]
    height, width = data.images.sizes[one].tolist()
    return [
        f"{len(odd):,} pictures are more than 2.5 times as wide or as high as is usual here, "
        f"{data.names[one]} ({height}×{width}) is one"
    ]


def _part_of(data: Dataset) -> NDArray[np.str_]:
    found = np.full(len(data), "", dtype="<U8")
    for part, ids in data.splits.items():
        found[ids.numpy()] = part
    return found


def _json(
    data: Dataset,
    doubles: Copies,
    found: Sequence[Suspect],
    told: Judged | None,
    folds: int,
    seconds: float,
) -> dict[str, Any]:
    """What was found as JSON values."""
    parts = _part_of(data)
    exact = sum(pair.kind == "exact" for pair in doubles.pairs)
    contradicted = sum(one.twin is not None for one in found)
    counted = int(told.judged.confident.sum()) if told else 0
    return {
        "source": data.source,
        "fingerprint": data.fingerprint,
        "n": len(data),
        "splits": {part: len(ids) for part, ids in data.splits.items()},
        "duplicates": {
            "exact": exact,
            "near": len(doubles.pairs) - exact,
            "clusters": len(doubles.clusters),
            "across": dict(doubles.across),
            "threshold": doubles.threshold,
            "pairs": [_pair(data, one, parts) for one in doubles.pairs[:TOLD]],
        },
        "conflicts": contradicted,
        "suspects": [
            {
                "rank": rank,
                "path": data.names[one.id],
                "part": str(parts[one.id]),
                "label": one.label,
                "suggested": one.suggested,
                "confidence": one.score,
                "copy": None if one.twin is None else data.names[one.twin],
            }
            for rank, one in enumerate(found[:TOLD], 1)
        ],
        "estimated_errors": round(told.judged.most) if told else None,
        "confident_errors": counted if told else None,
        "agreement": _agreement(data, told) if told else None,
        "classes": _classes(data, told) if data.kind == "class" else [],
        "remarks": _remarks(data, doubles),
        "folds": folds if told else 0,
        "model": told.model if told else None,
        "seconds": round(seconds, 1),
    }


def _pair(data: Dataset, pair: Pair, parts: NDArray[np.str_]) -> dict[str, Any]:
    labels: list[str] | None = None
    if data.kind == "class":
        labels = [data.classes[int(data.targets[one])] for one in (pair.first, pair.second)]
    return {
        "paths": [data.names[pair.first], data.names[pair.second]],
        "parts": [str(parts[pair.first]), str(parts[pair.second])],
        "labels": labels,
        "likeness": round(pair.likeness, 4),
        "kind": pair.kind,
        "mirrored": pair.mirrored,
    }


def _lines(
    data: Dataset, doubles: Copies, found: Sequence[Suspect], json: Mapping[str, Any]
) -> list[str]:
    """The same for people."""
    double = json["duplicates"]
    lines = [
        f"{len(data):,} pictures, {len(data.classes)} classes, "
        + ", ".join(f"{part} {n:,}" for part, n in json["splits"].items()),
        f"copies: {double['exact']:,} exact and {double['near']:,} near, in "
        f"{double['clusters']:,} groups; across parts: "
        + (", ".join(f"{pair} {n:,}" for pair, n in double["across"].items()) or "none"),
    ]
    lines += [f"note: {one}" for one in json["remarks"]]
    if json["conflicts"]:
        plural = "pictures have" if json["conflicts"] != 1 else "picture has"
        lines.append(f"{json['conflicts']:,} {plural} a copy with another label")
    if json["estimated_errors"] is not None:
        lines.append(
            f"labels: {json['folds']} networks ({json['model']}), each asked about pictures that "
            f"it had not seen, agree with {100 * json['agreement']:.1f} % of {len(found):,}; if "
            f"wrong ones are wrong by chance, no more than {json['estimated_errors']:,} are"
        )
    if found:
        lines.append("most suspicious first:")
        lines += [
            f"  {rank:3d}. {data.names[one.id]}: {one.label} → {one.suggested} "
            + (f"(copy of {data.names[one.twin]})" if one.twin is not None else f"{one.score:.2f}")
            for rank, one in enumerate(found[:LISTED], 1)
        ]
    lines.append(f"{json['seconds']:.0f} s")
    return lines


def _write(
    out: Path, data: Dataset, doubles: Copies, found: Sequence[Suspect], json: Mapping[str, Any]
) -> None:
    """The page and the table.

    Raises:
        RunError: the folder cannot be written to.
    """
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("path", "part", "label", "suggested", "score", "copy"))
    parts = _part_of(data)
    for one in found:
        twin = "" if one.twin is None else data.names[one.twin]
        row = (data.names[one.id], parts[one.id], one.label, one.suggested)
        writer.writerow((*row, f"{one.score:.6f}", twin))
    write_atomic(out / "suspects.csv", table.getvalue())
    audited.write(out / "audit.html", shown(data, doubles, found, json))


def shown(
    data: Dataset,
    doubles: Copies,
    found: Sequence[Suspect],
    json: Mapping[str, Any],
) -> audited.Audited:
    """What the page shows of an audit.

    Args:
        data: what was looked at.
        doubles: its copies.
        found: its suspects, ranked.
        json: what `audit` tells of them.
    """
    parts = _part_of(data)

    def face(one: int) -> audited.Face:
        label = data.classes[int(data.targets[one])] if data.kind == "class" else ""
        return audited.Face(
            picture=data.images.picture(one),
            name=data.names[one],
            part=str(parts[one]),
            label=label,
        )

    def sort(pair: Pair) -> tuple[bool, bool, bool, float]:
        other = data.kind == "class" and bool(data.targets[pair.first] != data.targets[pair.second])
        return (
            not (other and pair.likeness >= CERTAIN),
            not other,
            parts[pair.first] == parts[pair.second],
            -pair.likeness,
        )

    estimate = json["estimated_errors"]
    most = SHOWN if estimate is None else int(min(SHOWN, max(12, 1.5 * estimate)))
    doubtful = [one for one in found[:most] if one.twin is None]
    return audited.Audited(
        json=json,
        suspects=tuple(
            audited.Doubt(
                face=face(one.id),
                suggested=one.suggested,
                score=one.score,
            )
            for one in doubtful
        ),
        pairs=tuple(
            audited.Double(
                faces=(face(one.first), face(one.second)),
                likeness=one.likeness,
                exact=one.kind == "exact",
                certain=one.likeness >= CERTAIN,
                mirrored=one.mirrored,
            )
            for one in sorted(doubles.pairs, key=sort)[:SHOWN]
        ),
    )
