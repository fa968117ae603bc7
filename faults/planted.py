"""Faults planted in neocog itself: each must be caught, else the tests here are worth nothing.

A plant replaces a few words of one function's source and swaps the compiled code in place, so that
everyone who has imported the function runs the faulty one. Where the words are no longer there, the
planting itself fails: a plant that has become harmless would prove nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import inspect
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from faults import flips, saves
from faults.kills import MOMENTS, prepared, strike
from faults.lanes import in_lanes
from faults.tally import Tally
from neocog.verbs import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.kills import Setting
    from neocog.run import Run

__all__ = ["PLANTS", "Plant", "planted", "run"]


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault."""

    name: str
    where: str
    """`module:function` or `module:Class.method`."""
    old: str
    """Words of its source, which occur once."""
    new: str
    catcher: str
    """`saves`, `flips` or `kills`."""


WRITE, LIVE = "neocog.files:write_atomic", "neocog.engine.live:Live.load"
LOOP, CHECKPOINT = "neocog.engine.loop:_Run", "neocog.engine.checkpoint"
PLANTS = (
    Plant("fsync skipped", WRITE, "os.fsync(handle)", "pass", "saves"),
    Plant("fsync of the folder skipped", WRITE, "sync_folder(path.parent)", "pass", "saves"),
    Plant("written in place", WRITE, "path.with_name(", "path; str(", "saves"),
    Plant(
        "rename before the write",
        *(WRITE, "made = True\n", "made = True; os.replace(temporary, path); temporary = path\n"),
        "saves",
    ),
    Plant(
        "short write taken for a whole one",
        *("neocog.files:_write", "data[os.write(handle, data[:_MOST]) :]"),
        *("data[0 * os.write(handle, data[:_MOST]) + len(data) :]", "saves"),
    ),
    Plant(
        "newest by clock instead of step",
        *(f"{CHECKPOINT}:_numbered", "int(match[1])", "path.stat().st_mtime_ns", "saves"),
    ),
    Plant("the newest are deleted", f"{CHECKPOINT}:prune", "[keep:]", "[:-keep]", "saves"),
    Plant(
        "half-written file accepted",
        *(f"{CHECKPOINT}:_verify", "!= expected", "is None", "flips"),
    ),
    Plant(
        "optimiser state dropped",
        *(LIVE, "self.optimizers.load_state_dict(state.optimizer)", "pass", "kills"),
    ),
    Plant("averaged weights not restored", LIVE, "self.average.load(state.ema)", "pass", "kills"),
    Plant(
        "order shifted by one",
        *(f"{LOOP}._steps", "start=done * group", "start=(done - (done > 0)) * group", "kills"),
    ),
    Plant(
        "order of another epoch after a resume",
        *(f"{LOOP}._steps", "epoch=epoch", "epoch=epoch + (done > 0)", "kills"),
    ),
    Plant(
        "step counted once too often",
        *(LIVE, "self.step = state.step", "self.step = state.step + 1", "kills"),
    ),
    Plant(
        "random state of a step not set",
        *(f"{LOOP}._step", '_seed(job.device, chance.key(job.recipe.seed, "step", live.step))'),
        *("pass", "kills"),
    ),
    Plant(
        "events not cut on resume",
        *("neocog.run:EventLog.__init__", "[:keep]", "[:]", "kills"),
    ),
    Plant(
        "half-written files not cleared on resume",
        *("neocog.verbs.train:_clear_all", "clear_leftovers(folder)", "pass", "kills"),
    ),
    Plant(
        "losses since the last epoch forgotten",
        *(f"{LOOP}.recall_epoch", "since = history[told[-1] :]", "since = history[-1:]", "kills"),
    ),
    Plant(
        "what callbacks remember dropped",
        *(LIVE, 'recall(self.callbacks, memory["callbacks"])', "pass", "kills"),
    ),
)


@contextlib.contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Within the block, neocog has this fault; so have processes that are forked there.

    Raises:
        LookupError: the words are not there once.
    """
    module, _, path = plant.where.partition(":")
    found: Any = importlib.import_module(module)
    function = functools.reduce(getattr, path.split("."), found)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(plant.old) != 1:
        raise LookupError(f"{plant.where} has {plant.old!r} {source.count(plant.old)} times, not 1")
    source = "from __future__ import annotations\n" + source.replace(plant.old, plant.new)
    made: dict[str, Any] = {}
    exec(compile(source, plant.where, "exec"), function.__globals__, made)
    whole = function.__code__
    function.__code__ = made[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = whole


def run(setting: Setting) -> Tally:
    """Plant one after the other, and say what caught each."""
    tally = Tally("planted faults: caught")
    controls = [functools.partial(_control, setting, lines) for lines in MOMENTS]
    looks = [functools.partial(_look, plant, setting) for plant in PLANTS]
    results = in_lanes([*looks, *controls])
    found, controlled = results[: len(PLANTS)], results[len(PLANTS) :]
    for findings in controlled:
        if findings != []:
            tally.fail(f"without a fault: {findings or 'the run failed'}")
    for plant, caught in zip(PLANTS, found, strict=True):
        tally.count()
        if caught:
            tally.table.append(f"{plant.name:<42} {plant.catcher}: {caught}")
        else:
            why = "the planting failed" if caught is None else f"not caught by {plant.catcher}"
            tally.fail(f"{plant.name}: {why}")
    return tally


def _look(plant: Plant, setting: Setting) -> str:
    """The first finding of the test that must find something, with the fault planted; empty where
    it finds nothing."""
    with planted(plant), mock.patch.object(page, "write", _no_report):
        if plant.catcher == "saves":
            findings = saves.run(first=True).findings
        elif plant.catcher == "flips":
            findings = flips.run(truncations=10, flips=40).findings
        else:
            struck = (strike(setting, plant.name, lines) for lines in MOMENTS)
            findings = next(filter(None, struck), [])
    return findings[0].splitlines()[0][:90] if findings else ""


def _control(setting: Setting, lines: int) -> list[str]:
    """What is found where no fault is planted: nothing, else the plants would prove nothing."""
    with mock.patch.object(page, "write", _no_report):
        return strike(setting, f"control {lines}", lines)


def _no_report(run: Run, *_: object) -> None:
    """Stands for the report, which takes half of the time and has no part in these faults."""
    (run.path / "report.html").touch()


def main() -> int:
    """The command line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with prepared() as setting:
        return run(setting).show()


if __name__ == "__main__":
    sys.exit(main())
