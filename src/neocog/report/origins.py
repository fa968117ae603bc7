"""Sections about what went in: pictures, data, faults, settings. Room report; floor 4."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from neocog import html, plots
from neocog.html import words
from neocog.report.answers import SHOWN

if TYPE_CHECKING:
    from neocog.records import Fault
    from neocog.report.nouns import Finished

SHOWN_FAULTS = 50
"""Faults listed one by one; the fault report has all."""
_POLICIES = {"skip": "left out", "accept": "kept", "refuse": "refused"}


def began(run: Finished) -> html.Section | None:
    """What the network had learnt before."""
    if not run.began:
        return None
    return html.Section(
        title="What it began with",
        lead="Weights that were learnt elsewhere, and what of them was kept.",
        blocks=(html.Lines(items=tuple(_sentence(line) for line in run.began)),),
    )


def seen(run: Finished) -> html.Section | None:
    """What the network really saw: originals above, augmented pictures below."""
    blocks: list[html.Block] = []
    if run.sheet is not None and run.sheet.size:
        blocks.append(
            html.Figure(
                image=html.data_uri(run.sheet, longest=1600),
                rows=("original", "epoch 1", "epoch 2", "epoch 3"),
                alt=f"Training {run.noun}s: originals in the first row, then each as the network "
                "saw it in the first three epochs.",
            )
        )
    if run.notes:
        blocks.append(html.Lines(items=tuple(_sentence(note) for note in run.notes)))
    if not blocks:
        return None
    return html.Section(
        title="What the network saw",
        lead=f"Training {run.noun}s as they are, and as they reached the network."
        + SHOWN.get(run.noun, ""),
        blocks=tuple(blocks),
    )


def _sentence(text: str) -> str:
    """A remark with a capital and a full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) or "--set" in text else text + "."


def data(run: Finished) -> html.Section | None:
    """Found, used, skipped; classes; what is wrong."""
    count = run.counts
    lead = (
        f"{words.count(count.found, 'sample')} found, {count.used:,} used, "
        f"{count.skipped:,} skipped."
    )
    duplicates = run.data.get("duplicates") or {}
    shared = [f"{pair}: {number:,}" for pair, number in duplicates.items() if number]
    if shared:
        lead += f" Identical {run.noun}s across parts: {words.listing(shared)}."
    elif len(run.data.get("splits") or ()) > 1 and duplicates:
        lead += f" No {run.noun} occurs in two parts."
    blocks: list[html.Block] = []
    facts = [("Source", str(run.data["source"]))] if run.data.get("source") else []
    if run.data.get("fingerprint"):
        facts.append(("Fingerprint", str(run.data["fingerprint"])))
    if facts:
        blocks.append(html.Facts(items=tuple(facts)))
    names = [str(name) for name in run.data.get("classes") or ()]
    counts = run.data.get("class_counts") or {}
    counts = {split: row for split, row in counts.items() if len(row) == len(names)}
    if names and counts:
        unit = run.kind.unit or "sample"
        blocks.append(
            html.Figure(
                svg=plots.svg(plots.balance(names, counts, unit=unit)),
                alt=f"{unit}s of each of {len(names)} classes by part.".capitalize(),
                caption=_balance_words(names, counts, run.kind.unit),
            )
        )
    blocks += _faults(run.faults)
    return html.Section(title="The data", lead=lead, blocks=tuple(blocks))


def _balance_words(names: list[str], counts: dict[str, list[int]], unit: str) -> str:
    totals = [sum(row[i] for row in counts.values()) for i in range(len(names))]
    large, small = max(totals), min(totals)
    if large == small:
        return f"Every class has {words.count(large, unit or 'sample')}."
    most, least = names[totals.index(large)], names[totals.index(small)]
    if unit:
        large_words, small_words = (words.percent(n / sum(totals)) for n in (large, small))
        end = f" of all {unit}s that have a label"
        return f"Largest class: {most}, {large_words}; smallest: {least}, {small_words}{end}."
    return f"Largest class: {most}, {large:,}; smallest: {least}, {small:,}."


def _faults(faults: Any) -> list[html.Block]:
    """What is wrong by kind, then the first faults one by one."""
    if not faults:
        return []
    kinds: Counter[tuple[str, str]] = Counter((f.code, f.policy) for f in faults)
    first: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        first.setdefault((fault.code, fault.policy), fault)
    rows = tuple(
        (
            code,
            _POLICIES.get(policy, policy),
            html.Cell(text=f"{number:,}", order=number),
            first[code, policy].reason,
        )
        for (code, policy), number in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    )
    some = len(faults) > SHOWN_FAULTS
    listed = f"The first {SHOWN_FAULTS} of {len(faults):,} faults" if some else "Every fault"
    return [
        html.Table(
            caption="What is wrong with the data, and what was done about it",
            columns=("Fault", "Samples were", "Times", "For example"),
            rows=rows,
            numeric=(2,),
        ),
        html.Table(
            caption=listed,
            columns=("Path", "Format", "Fault", "Reason"),
            rows=tuple(
                (fault.path + _offset(fault), fault.format, fault.code, fault.reason)
                for fault in faults[:SHOWN_FAULTS]
            ),
            folded=True,
        ),
    ]


def _offset(fault: Fault) -> str:
    return "" if fault.offset is None else f" @ {fault.offset}"


def again(run: Finished) -> html.Section | None:
    """The command that repeats the run, and all that decided it."""
    blocks: list[html.Block] = [
        html.Code(
            text="neocog train --config manifest.json",
            caption="In the run folder, with the same data in the same place",
        )
    ]
    argv = [str(one) for one in run.manifest.get("argv") or ()]
    if argv:
        # A Python call is one piece of text, which no shell would quote.
        line = argv[0] if len(argv) == 1 else shlex.join(argv)
        blocks.append(html.Code(text=line, caption="As it was started"))
    versions = run.manifest.get("versions") or {}
    device = run.manifest.get("device") or {}
    facts = [("Seed", str(run.manifest.get("seed", "–")))]
    facts += [(str(name), str(value)) for name, value in versions.items()]
    facts += [(f"device {name}", str(value)) for name, value in device.items() if value is not None]
    blocks.append(html.Facts(items=tuple(facts)))
    if run.manifest.get("config"):
        recipe = json.dumps(run.manifest["config"], indent=2, ensure_ascii=False, default=str)
        blocks.append(html.Code(text=recipe, caption="The whole recipe", folded=True))
    return html.Section(
        title="Run it again",
        lead="Chance is a function of the seed: the same recipe, data and machine draw the same "
        "numbers.",
        blocks=tuple(blocks),
    )
