"""Parsers fed with broken files: no crash, nothing raised but `NeocogError`, not slow, not large.

`python -m faults.fuzz images --count 200000`, or others of `faults.targets.TARGETS`, or `all`.
Inputs follow from `--seed` and their index; bombs come first. They are read in child processes, so
that a crash is a finding like any other. Each finding is printed with its index and its files are
kept in `--keep`. Ends with 1 where anything was found.

- Slow: more than `--seconds` of the processor, in the quickest of four readings.
- Large: at its peak the child holds more than `--mebibytes` above what it held when it began. (Only
  where the system can be asked for the peak of one reading: Linux.)
- Hung: no end after `HANG` seconds; the child is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.tally import Tally
from faults.targets import TARGETS
from neocog.errors import NeocogError
from neocog.host import cores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.targets import Files, Target

__all__ = ["drawn", "main", "read_once"]

HANG = 30.0
"""Seconds of the clock after which an input is given up."""
PIECE = 2000
"""Inputs a child reads; what it leaks is then gone."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a reading took, or a maximum of several."""

    seconds: float = 0.0
    """Of the processor."""
    peak: int = 0
    """Bytes held above the beginning."""
    slowest: int = -1
    """Index."""
    largest: int = -1
    """Index."""


def drawn(name: str, seed: int, index: int) -> Files:
    """The files of one input, drawn by chance."""
    return TARGETS[name].make(random.Random(f"{name} {seed} {index}"))


def read_once(target: Target, files: Files, folder: Path) -> bool:
    """Read the files; whether they were accepted. Nothing is left of them.

    Raises:
        Exception: what the parser lets through apart from `NeocogError`.
    """
    folder.mkdir()
    try:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        target.read(folder)
    except NeocogError as error:
        if not str(error).strip():
            raise ValueError("an error without words") from error
        return False
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(os.environ["NEOCOG_CACHE"], ignore_errors=True)
    return True


def _held(what: str) -> int:
    """`VmRSS` or `VmHWM` of this process, bytes; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _child(
    name: str, seed: int, start: int, stop: int, most: Cost, bombs: bool
) -> Iterator[dict[str, Any]]:
    """Read inputs `start` to `stop`; findings, then the summary."""
    target, accepted, worst = TARGETS[name], 0, Cost()
    heaped = target.bombs() if bombs else []
    work = Path(os.environ["NEOCOG_CACHE"]).parent
    at = os.open(work / "at", os.O_CREAT | os.O_WRONLY)
    for _ in range(3):  # imports, caches, arenas
        with contextlib.suppress(Exception):  # found again below
            read_once(target, drawn(name, seed, start), work / "files")
    _forget_peak()
    before = _held("VmRSS")
    for index in range(start, stop):
        os.pwrite(at, b"%20d" % index, 0)
        files = heaped[index] if bombs else drawn(name, seed, index)
        spent = float("inf")
        for _ in range(4):
            _forget_peak()
            began = time.process_time()
            try:
                accepted += read_once(target, files, work / "files")
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                text = "".join(traceback.format_exception(error)[-3:])
                yield {"index": index, "what": f"{type(error).__name__}: {error}", "text": text}
                break
            spent = min(spent, time.process_time() - began)
            if spent <= most.seconds:
                break
        else:
            yield {"index": index, "what": f"slow: {spent:.2f} s"}
        peak = _held("VmHWM") - before
        if peak > most.peak:
            yield {"index": index, "what": f"large: {peak >> 20} MiB"}
        if spent != float("inf") and spent > worst.seconds:
            worst = Cost(spent, worst.peak, index, worst.largest)
        if peak > worst.peak:
            worst = Cost(worst.seconds, peak, worst.slowest, index)
    yield {"done": True, "accepted": accepted, **asdict(worst)}


def _piece(
    name: str, given: argparse.Namespace, start: int, stop: int, bombs: bool
) -> list[dict[str, Any]]:
    """What children say of some inputs; one that dies or hangs is followed by another."""
    said: list[dict[str, Any]] = []
    while start < stop:
        with tempfile.TemporaryDirectory(prefix="neocog-fuzz-") as work:
            environment = os.environ | {
                "NEOCOG_CACHE": str(Path(work) / "cache"),
                "OMP_NUM_THREADS": "1",
            }
            facts = [name, given.seed, start, stop, given.seconds, given.mebibytes << 20, bombs]
            child = subprocess.Popen(
                [sys.executable, "-m", "faults.fuzz", name, "--child", json.dumps(facts)],
                stdout=(Path(work) / "said").open("wb"),
                stderr=(Path(work) / "chatter").open("wb"),
                env=environment,
            )
            hung = _wait(child, Path(work) / "at")
            lines = (Path(work) / "said").read_text().splitlines()
            said += [json.loads(line) for line in lines if line.endswith("}")]
            if child.returncode == 0:
                return said
            text = (Path(work) / "at").read_text() if (Path(work) / "at").exists() else ""
            chatter = (Path(work) / "chatter").read_text(errors="replace")
            if not text or "Traceback" in chatter:
                raise SystemExit(f"the child for {name} failed by itself: {chatter[-2000:]}")
            what = "hangs" if hung else f"crash: exit code {child.returncode}"
            said.append({"index": int(text), "what": what})
            start = int(text) + 1
    return said


def _wait(child: subprocess.Popen[bytes], at: Path) -> bool:
    """Wait until it ends; whether it had to be killed."""
    seen, since = "", time.monotonic()
    while True:
        try:
            child.wait(1)
            return False
        except subprocess.TimeoutExpired:
            now = at.read_text() if at.exists() else ""
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > HANG:
                child.kill()
                child.wait()
                return True


def _run(name: str, given: argparse.Namespace) -> int:
    """One target; the exit code."""
    tally = Tally(f"fuzz {name}, seed {given.seed}")
    heaped = len(TARGETS[name].bombs())
    pieces = [(0, heaped, True)] if heaped and not given.start else []
    stop = given.start + given.count
    pieces += [
        (start, min(stop, start + PIECE), False) for start in range(given.start, stop, PIECE)
    ]
    worst: dict[str, tuple[float, str]] = {"seconds": (0.0, ""), "peak": (0.0, "")}
    with ThreadPoolExecutor(given.jobs) as threads:
        tasks = [(piece, threads.submit(_piece, name, given, *piece)) for piece in pieces]
        for (start, end, bombs), task in tasks:
            kind = "bomb" if bombs else "input"
            for said in task.result():
                if said.get("done"):
                    tally.notes["accepted"] += said["accepted"]
                    for what, where in (("seconds", "slowest"), ("peak", "largest")):
                        found = (said[what], f"{kind} {said[where]}")
                        worst[what] = max(worst[what], found)
                    continue
                index = said["index"]
                kept = given.keep / f"{name}-{given.seed}-{kind}-{index}"
                files = TARGETS[name].bombs()[index] if bombs else drawn(name, given.seed, index)
                kept.mkdir(parents=True, exist_ok=True)
                for file, data in files.items():
                    (kept / file).write_bytes(data)
                (kept / "finding.txt").write_text(f"{said['what']}\n{said.get('text', '')}")
                tally.fail(f"{kind} {index}: {said['what'][:200]}  ({kept})")
            tally.cases += end - start
            tally.count()
            tally.cases -= 1
    code = tally.show()
    seconds, peak = worst["seconds"], worst["peak"]
    rate = tally.cases / tally.seconds
    print(
        f"    slowest {seconds[0]:.3f} s ({seconds[1]}), "
        f"largest {peak[0] / 2**20:.0f} MiB ({peak[1]}), {rate:,.0f} inputs a second",
        flush=True,
    )
    return code


def main() -> int:
    """Fuzz what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("target", nargs="+", choices=[*TARGETS, "all"])
    add("--count", type=int, default=50_000, help="inputs of each (default: 50,000)")
    add("--seed", type=int, default=0)
    add("--start", type=int, default=0, help="index of the first input (default: 0)")
    add("--jobs", type=int, default=cores(), help="child processes (default: one a core)")
    add("--seconds", type=float, default=1.0, help="that a reading may take (default: 1)")
    add("--mebibytes", type=int, default=128, help="that a reading may hold (default: 128)")
    add("--keep", type=Path, default=Path("fuzz-findings"), help="folder for what is found")
    add("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, seed, start, stop, seconds, peak, bombs = json.loads(given.child)
        for said in _child(name, seed, start, stop, Cost(seconds, peak), bombs):
            print(json.dumps(said), flush=True)
        return 0
    names = TARGETS if "all" in given.target else given.target
    return max([_run(name, given) for name in names])


if __name__ == "__main__":
    sys.exit(main())
