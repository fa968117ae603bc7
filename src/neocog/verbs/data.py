"""Look at data before training on it: scan, pack, show. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from neocog.data import dataset, scan, sources

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.config import DataRecipe
    from neocog.verbs.console import Console

__all__ = ["pack", "scan_source", "show"]


def scan_source(source: str, *, out: Path, minimum_side: int, console: Console) -> dict[str, Any]:
    """Look at every sample and write one JSON line per fault.

    Raises:
        DataError: the data set is refused as a whole.
    """
    found = scan.scan(sources.read(source), minimum_side=minimum_side, progress=console.progress)
    console.done()
    scan.write_faults(out, found.faults)
    count = dataclasses.asdict(found.count)
    console.say("found {found:,}, used {used:,}, skipped {skipped:,}".format(**count))
    codes = Counter((fault.policy, fault.code) for fault in found.faults)
    for (policy, code), number in codes.most_common():
        console.say(f"  {number:6,} × {code} ({policy})")
    console.say(f"faults: {out}")
    return {
        "source": source,
        **count,
        "faults": str(out),
        "codes": [
            {"code": code, "policy": policy, "count": number}
            for (policy, code), number in codes.most_common()
        ],
    }


def pack(recipe: DataRecipe, *, seed: int, console: Console) -> dict[str, Any]:
    """Decode once into the cache, so that training and the next opening need no decoding.

    Raises:
        DataError: the data set is refused.
    """
    data = dataset.load(recipe, seed=seed, progress=console.progress)
    console.done()
    facts = _facts(data)
    console.say("packed: found {found:,}, used {used:,}, skipped {skipped:,}".format(**facts))
    return facts


def show(recipe: DataRecipe, *, seed: int, console: Console) -> dict[str, Any]:
    """Parts, classes, sizes and what is odd about them.

    Raises:
        DataError: the data set is refused.
    """
    data = dataset.load(recipe, seed=seed, progress=console.progress)
    console.done()
    console.say(repr(data))
    return _facts(data)


def _facts(data: dataset.Dataset) -> dict[str, Any]:
    """The data set as JSON values."""
    count = data.counts["all"]
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
            {
                "name": name,
                **{
                    part: int((data.targets[ids] == label).sum())
                    for part, ids in data.splits.items()
                },
            }
            for label, name in enumerate(data.classes)
        ]
        if data.kind == "class"
        else list(data.classes),
        "duplicates": dict(data.duplicates),
    }
