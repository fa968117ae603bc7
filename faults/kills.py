"""Trainings killed at random times and resumed until they end: the same bytes as never killed.

`python -m faults.kills --kills 500 --fresh 30 --seed 0`. Most kills hit processes that were forked
from one that has imported everything; `--fresh` adds kills of whole programs. Prints kills,
differences and exceptions, where the kills fell, and ends with 1 where anything differed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.lanes import in_lanes
from faults.prints import different, run_prints
from faults.runs import (
    STEPS,
    Place,
    Program,
    forked,
    fresh,
    make_pictures,
    reference,
    run_one,
    wait,
    warm,
)
from faults.tally import Tally
from neocog.host import cores

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOMENTS", "Lane", "Setting", "prepared", "run", "run_whole", "spread", "strike"]

KILLS, WHOLE, FEW = 500, 30, 12

MOST = 40
"""Kills of one run; it must end some time."""
LATE, ENOUGH = ("bundle", "scores and report"), 2
"""So many kills of one run after its training; else most would fall there."""
LEFT = (
    ".events.jsonl.1-00000001.tmp",
    "bundle/.bundle.json.1-00000002.tmp",
    "checkpoints/.step-00000001.safetensors.1-00000003.tmp",
)
"""What a kill in the middle of a write leaves; whoever goes on clears it up."""
STUCK = 120.0
"""Seconds after which a process is taken for stuck."""
MOMENTS = (11, 24, 37)
"""Events after which a run has come to the middle of an epoch."""
WORKERS = (-1, 0, 0, 0, 1, 2, 4)
"""Helper programs of a scan, drawn anew for each process; -1: as neocog thinks best."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all runs share."""

    root: Path
    source: Path
    """The pictures."""
    expected: dict[str, str]
    """The prints of the uninterrupted run."""
    seconds: float
    """How long a run takes that nobody kills."""


@dataclass(slots=True)
class Lane:
    """One run after the other, each killed again and again."""

    root: Path
    setting: Setting
    program: Program
    chance: random.Random
    reaches: tuple[float, ...] = (1.0,)
    """Kills fall within so much of the time of a whole run, one of these for each run."""
    kills: int = 0
    runs: int = 0
    """Runs that came to their end."""
    where: Counter[str] = field(default_factory=Counter)
    """Where the kills fell."""
    differences: list[str] = field(default_factory=list)
    exceptions: list[str] = field(default_factory=list)

    def go(self, kills: int) -> dict[str, Any]:
        """Runs until so many kills are done; what they found, for another process."""
        while self.kills < kills and not self.exceptions:
            self.one(min(MOST, kills - self.kills))
        shutil.rmtree(self.root, ignore_errors=True)
        names = ("kills", "runs", "where", "differences", "exceptions")
        return {name: getattr(self, name) for name in names}

    def one(self, most: int) -> None:
        """One run, killed at random times, at most so often."""
        place = self._place()
        reach = self.setting.seconds * self.chance.choice(self.reaches)
        marks: Counter[str] = Counter()
        while True:
            over = marks.total() >= most or sum(marks[mark] for mark in LATE) >= ENOUGH
            limit = STUCK if over else self.chance.uniform(0, reach)
            number = self.program(place, self.chance.choice(WORKERS))
            code = wait(number, until=time.monotonic() + limit)
            if code is not None or over:
                break
            marks[_mark(place.run)] += 1
        self._close(place, code, marks)

    def once(self, lines: int) -> None:
        """One run, killed once when it has told of so many events, as if in the middle of
        several writes."""
        place = self._place()
        events, until = place.run / "events.jsonl", time.monotonic() + STUCK
        code = wait(self.program(place, -1), until=until, events=events, lines=lines)
        marks: Counter[str] = Counter()
        if code is None:
            marks[_mark(place.run)] += 1
            for name in LEFT:
                path = place.run / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"half")
            code = wait(self.program(place, -1), until=time.monotonic() + STUCK)
        self._close(place, code, marks)

    def _place(self) -> Place:
        place = Place(self.root / f"{self.runs}", self.setting.source)
        place.root.mkdir(parents=True)
        return place

    def _close(self, place: Place, code: int | None, marks: Counter[str]) -> None:
        """Compare what is there now with what should be."""
        self.kills += marks.total()
        self.runs += 1
        for mark, count in marks.items():
            self.where[mark.rpartition(" in epoch ")[0] or mark] += count
        if any(count > 1 and " in epoch " in mark for mark, count in marks.items()):
            self.where["(runs with several kills in one epoch)"] += 1
        if code is None:
            self.exceptions.append(f"a process was stuck:\n{place.said()}")
            return
        if code != 0:
            self.exceptions.append(f"a process ended with {code}:\n{place.said()}")
            return
        try:
            prints = run_prints(place.run)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            self.exceptions.append(f"a finished run: {type(error).__name__}: {error}")
            return
        odd = different(prints, self.setting.expected)
        if odd:
            kept = " ".join(f"{mark} ×{count}" for mark, count in marks.items())
            self.differences.append(f"{', '.join(odd)} differ after kills: {kept}")
        shutil.rmtree(place.root)


def _mark(run: Path) -> str:
    """How far a run had come when it was killed, by what it left."""
    if (run / "evaluation.json").exists():
        return "at its very end"
    if (run / "bundle" / "bundle.json").exists():
        return "scores and report"
    if not (run / "manifest.json").exists():
        return "before the run folder: scan, pack, network"
    try:
        lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return "before the first event"
    told = [json.loads(line) for line in lines if line.endswith(b"\n")]
    if not told:
        return "before the first event"
    if told[-1]["kind"] == "end":
        return "bundle"
    epoch = told[-1]["step"] // STEPS + 1
    told_all = told[-1]["step"] % STEPS == 0 and told[-1]["kind"] == "step"
    phase = "validation and saving" if told_all else "steps"
    return f"{phase} in epoch {epoch}"


def strike(setting: Setting, name: str, lines: int) -> list[str]:
    """What is found where one run is killed once, as soon as it has told of so many events."""
    lane = Lane(setting.root / name, setting, forked, random.Random(0))
    lane.once(lines)
    shutil.rmtree(lane.root)
    return lane.differences + lane.exceptions


def spread(
    setting: Setting,
    kills: int,
    *,
    program: Program,
    title: str,
    seed: int,
    reaches: tuple[float, ...],
) -> Tally:
    """Share kills out among as many processes as there are cores, and add up what they found."""
    tally = Tally(title)
    shares = [kills // cores() + (lane < kills % cores()) for lane in range(cores())]
    lanes = [
        Lane(
            setting.root / f"lane{lane}",
            setting,
            program,
            random.Random(f"{title} {seed} {lane}"),
            reaches,
        )
        for lane in range(cores())
    ]
    jobs = [partial(lane.go, share) for lane, share in zip(lanes, shares, strict=True)]
    for found in in_lanes(jobs):
        if found is None:
            tally.fail("a process that kills others failed itself")
            continue
        tally.cases += found["kills"]
        tally.notes.update(found["where"])
        tally.notes["runs to their end"] += found["runs"]
        for sort in ("differences", "exceptions"):
            tally.notes[sort] += len(found[sort])
            tally.findings += found[sort]
    tally.seconds = time.monotonic() - tally.began
    return tally


@contextlib.contextmanager
def prepared(*, quick: bool = False) -> Iterator[Setting]:
    """Pictures, an uninterrupted run, and a process that can be forked.

    Args:
        quick: compare with a forked run instead of a fresh program's.
    """
    with tempfile.TemporaryDirectory(prefix="neocog-faults-") as made:
        root = Path(made)
        source = root / "pictures"
        make_pictures(source)
        expected = {} if quick else reference(root, source)
        warm(root, source)
        place = Place(root / "timed", source)
        seconds = run_one(place, forked)
        prints = run_prints(place.run)
        expected = expected or prints
        odd = different(prints, expected)
        if odd:
            raise RuntimeError(f"uninterrupted runs differ in {', '.join(odd)}")
        shutil.rmtree(place.root)
        yield Setting(root, source, expected, seconds)


def run(setting: Setting, kills: int, *, seed: int) -> Tally:
    """Kills of forked processes."""
    title = "kills at random times, then resumed"
    # Any time, or early and so more often in one run.
    return spread(setting, kills, program=forked, title=title, seed=seed, reaches=(1.0, 0.4))


def run_whole(setting: Setting, kills: int, *, seed: int) -> Tally:
    """Kills of whole programs."""
    place = Place(setting.root / "fresh", setting.source)
    slow = dataclasses.replace(setting, seconds=run_one(place, fresh))
    shutil.rmtree(place.root)
    title = "kills of whole programs, then resumed"
    # Half of the time goes into imports.
    return spread(slow, kills, program=fresh, title=title, seed=seed, reaches=(1.0, 0.8))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--fresh", type=int, default=WHOLE, help="kills of whole programs")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    codes = []
    with prepared() as setting:
        if told.kills:
            codes.append(run(setting, told.kills, seed=told.seed).show())
        if told.fresh:
            codes.append(run_whole(setting, told.fresh, seed=told.seed).show())
    return max(codes, default=2)


if __name__ == "__main__":
    sys.exit(main())
