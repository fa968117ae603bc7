"""Every call of a save made to fail: afterwards there is a good checkpoint, and no bad one is used.

Two good checkpoints lie in a folder, a third is saved and the oldest pruned. Each call of that is
made to fail in each way that `disk` knows, the process dies before it and within it, and the power
goes with every outcome that is possible then. Nothing but the end of the process may come out of
the save. Whatever is left, `load_latest` must find a state that was saved, the new one if the save
had said that it was done, and the name of a checkpoint must never stand on a part of one.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from faults.disk import KINDS, Died, Disk, Fault
from faults.prints import state_print
from faults.tally import Tally
from neocog.engine import checkpoint
from neocog.engine.saves import Saves
from neocog.records import TrainState

if TYPE_CHECKING:
    from faults.disk import Call, Files

__all__ = ["OLD", "run", "state", "written"]

OLD = (10, 20)
"""Steps of the checkpoints that are there before."""
NEW = 30
"""Step of the one that is saved."""
NAMED = re.compile(
    rf"cannot write .*step-{NEW:08d}\.safetensors, which needs [\d,]+ bytes"
    rf"|.*step-{OLD[0]:08d}\.safetensors"  # the one that could not be deleted
)
"""What the error must say."""


def state(step: int) -> TrainState:
    """A small state with every kind of value, different at each step."""
    draw = torch.Generator().manual_seed(step)
    model = {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=draw),
        "conv.bias": torch.randn(4, generator=draw),
        "norm.running_mean": torch.randn(4, generator=draw),
        "norm.num_batches_tracked": torch.tensor(step),
        "head.weight": torch.randn(3, 4, generator=draw),
    }
    moments = {
        index: {
            "step": torch.tensor(float(step)),
            "exp_avg": torch.randn(value.shape, generator=draw),
            "exp_avg_sq": torch.rand(value.shape, generator=draw),
        }
        for index, value in enumerate((model["conv.weight"], model["head.weight"]))
    }
    return TrainState(
        step=step,
        model=model,
        optimizer={"state": moments, "param_groups": [{"lr": 0.1 / step, "betas": (0.9, 0.99)}]},
        schedule={"scale": 1.0, "reason": "", "callbacks": [{"best": None}]},
        ema={name: value + 1 for name, value in model.items()},
    )


def written(*steps: int) -> Files:
    """The checkpoints of these steps, as files."""
    with tempfile.TemporaryDirectory() as made:
        for step in steps:
            checkpoint.save(Path(made), state(step), meta={"events": step})
        return {path.name: path.read_bytes() for path in Path(made).iterdir()}


def run(*, every: int = 1, first: bool = False) -> Tally:
    """All of it.

    Args:
        every: try every so many faults only.
        first: end at the first finding.
    """
    tally = Tally("syscall faults in a save")
    prints = {step: state_print(state(step)) for step in (*OLD, NEW)}
    old = written(*OLD)
    with tempfile.TemporaryDirectory() as made:
        trial = _Trial(Path(made), old, prints, tally)
        calls = trial.unharmed()
        faults = [
            Fault(kind, number)
            for number, call in enumerate(calls)
            for kind, befallen in KINDS.items()
            if call.name in befallen
        ]
        for fault in faults[::every]:
            if first and tally.findings:
                break
            call = calls[fault.call]
            tally.notes[f"faults: {fault.kind}"] += 1
            target = re.sub(r"\.\d+-[0-9a-f]+\.tmp$", ".tmp", call.target)
            trial.one(fault, f"{fault.kind} at call {fault.call}, {call.name} of {target}")
    return tally


class _Trial:
    """One save at a time, in a folder that is set up anew."""

    def __init__(self, root: Path, old: Files, prints: dict[int, str], tally: Tally) -> None:
        self.folder, self.scratch = root / "checkpoints", root / "scratch"
        self.old, self.prints, self.tally = old, prints, tally
        self.which = ""

    def save(self) -> str:
        """What the training does at a checkpoint.

        Returns:
            What went wrong; empty where nothing did.
        """
        saves = Saves(self.folder, every=0, world={}, clock=time.monotonic)
        done = saves.state(state(NEW), name=None, events=NEW)
        if done == bool(saves.error):
            self.tally.fail(f"{self.which}: done is {done}, the error is {saves.error!r}")
        return saves.error

    def unharmed(self) -> list[Call]:
        """A save that nothing befalls; the power goes after it."""
        self.which = "no fault"
        _fill(self.folder, self.old)
        with Disk(self.folder) as disk:
            self.save()
        self.judge(disk.live, {NEW})
        for files in disk.after_power_cut():
            self.judge(files, {NEW})
        return disk.calls

    def one(self, fault: Fault, which: str) -> None:
        """A save with one fault, and all that may be left of it."""
        self.which = which
        _fill(self.folder, self.old)
        done = False
        with Disk(self.folder, fault) as disk:
            try:
                error = self.save()
                done = not error
                if error and not NAMED.match(error):
                    self.tally.fail(f"{which}: the error says only {error!r}")
            except Died:
                pass
            except Exception as raised:  # noqa: BLE001 - whatever it is, it is the finding
                self.tally.fail(f"{which}: {type(raised).__name__}: {raised}")
        allowed = {NEW} if done else {OLD[-1], NEW}
        self.judge(disk.live, allowed)
        for files in disk.after_power_cut():
            self.judge(files, allowed)
        if not disk.died and not done and fault.kind != "input/output for good":
            left = sorted(set(disk.live) - set(self.old) - {f"step-{NEW:08d}.safetensors"})
            if left:
                self.tally.fail(f"{which}: left behind {', '.join(left)}")
        self.again(disk.live)

    def judge(self, files: Files, allowed: set[int]) -> None:
        """What resuming finds in these files."""
        self.tally.count()
        _fill(self.scratch, files)
        try:
            found = checkpoint.load_latest(self.scratch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            self.tally.fail(f"{self.which}: load_latest: {type(error).__name__}: {error}")
            return
        if found is None:
            self.tally.fail(f"{self.which}: no checkpoint is left")
        elif found.warnings:
            self.tally.fail(f"{self.which}: a part has the name of a whole file")
        elif state_print(found.state) not in {self.prints[step] for step in allowed}:
            self.tally.fail(f"{self.which}: loaded step {found.state.step}, allowed: {allowed}")

    def again(self, files: Files) -> None:
        """The next save, the fault being over, succeeds and clears up."""
        _fill(self.folder, files)
        try:
            error = self.save()
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is the finding
            error = f"{type(raised).__name__}: {raised}"
        if error:
            self.tally.fail(f"{self.which}: the next save: {error}")
            return
        names = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self.judge(names, {NEW})
        expected = {f"step-{step:08d}.safetensors" for step in (OLD[-1], NEW)}
        if set(names) != expected:
            odd = sorted(set(names) ^ expected)
            self.tally.fail(f"{self.which}: after the next save: {', '.join(odd)}")


def _fill(folder: Path, files: Files) -> None:
    """Make the folder hold these files and no others, the newest with the oldest clock, as a copy
    may have it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for age, name in enumerate(sorted(files)):
        path = folder / name
        path.write_bytes(files[name])
        os.utime(path, (1e9 - 1000 * age, 1e9 - 1000 * age))


if __name__ == "__main__":
    sys.exit(run().show())
