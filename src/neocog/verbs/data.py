"""Look at data before training on it: scan, pack, show. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog.data import dataset, scan, sources
from neocog.data.paired import scan_masks
from neocog.verbs.result import Result

if TYPE_CHECKING:
    from neocog.config import DataRecipe
    from neocog.verbs.console import Console

__all__ = ["pack", "scan_source", "show"]


def scan_source(
    source: str,
    *,
    out: Path,
    minimum_side: int,
    dims: int | None = None,
    ignore: int | None = None,
    max_bad: float | None,
    strict: bool,
    console: Console,
) -> Result:
    """Look at every sample and write one JSON line per fault.

    Args:
        source: what to look at.
        out: the report.
        minimum_side: pixels; a picture with a shorter side is a fault.
        dims: axes of a sample beside its channels; None: what the source says.
        ignore: of masks, a number that stands for pixels without a label, beside 255.
        max_bad: share of the samples that may be bad; None: as many as there are.
        strict: none may be.
        console: shows how far it is.

    Raises:
        DataError: the data set is refused as a whole, or too much of it is bad. The report is
            written before that.
    """
    listed = sources.read(source, few=True, dims=dims)
    found = scan.scan(listed, minimum_side=minimum_side, progress=console.progress)
    if listed.target == "mask":
        with tempfile.TemporaryDirectory() as work:
            found = scan_masks(
                listed,
                found,
                spool=Path(work) / "masks",
                ignore=ignore,
                few=True,
                progress=console.progress,
            )
    console.done()
    scan.write_faults(out, found.faults)
    if max_bad is not None or strict:
        share = 1.0 if max_bad is None else max_bad
        scan.refuse(found.faults, found.count, max_bad=share, strict=strict)
    count = dataclasses.asdict(found.count)
    lines = ["found {found:,}, used {used:,}, skipped {skipped:,}".format(**count)]
    codes = Counter((fault.policy, fault.code) for fault in found.faults)
    for (policy, code), number in codes.most_common():
        lines.append(f"  {number:6,} × {code} ({policy})")
    lines.append(f"faults: {out}")
    numbers = [
        {"code": code, "policy": policy, "count": number}
        for (policy, code), number in codes.most_common()
    ]
    return Result(
        json={"source": source, **count, "faults": str(out), "codes": numbers}, lines=lines
    )


def pack(recipe: DataRecipe, *, seed: int, console: Console) -> Result:
    """Decode once into the cache, so that training and the next opening need no decoding.

    Raises:
        DataError: the data set is refused.
    """
    data = dataset.load(recipe, seed=seed, progress=console.progress)
    console.done()
    facts = _facts(data)
    line = "packed: found {found:,}, used {used:,}, skipped {skipped:,}".format(**facts)
    return Result(json=facts, lines=[line])


def show(recipe: DataRecipe, *, seed: int, console: Console) -> Result:
    """Parts, classes, sizes and what is odd about them.

    Raises:
        DataError: the data set is refused.
    """
    data = dataset.load(recipe, seed=seed, progress=console.progress)
    console.done()
    return Result(json=_facts(data), lines=repr(data).splitlines())


def _facts(data: dataset.Dataset) -> dict[str, Any]:
    """The data set as JSON values."""
    count = data.counts["all"]
    counted = data.kind in ("class", "mask")
    numbers = {part: data.class_counts(ids) for part, ids in data.splits.items() if counted}
    return {
        "source": data.source,
        "kind": data.kind,
        "size": list(data.size),
        "channels": data.channels,
        "fingerprint": data.fingerprint,
        "found": count.found,
        "used": count.used,
        "skipped": count.skipped,
        "splits": {name: len(ids) for name, ids in data.splits.items()},
        "classes": [
            {"name": name, **{part: counts[label] for part, counts in numbers.items()}}
            for label, name in enumerate(data.classes)
        ]
        if numbers
        else list(data.classes),
        "duplicates": dict(data.duplicates),
    }
