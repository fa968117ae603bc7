"""When a training is saved, and what happens when it cannot be."""

from __future__ import annotations

import errno
import itertools
import os
from typing import TYPE_CHECKING

import pytest
import torch

from neocog.config import Recipe
from neocog.engine import checkpoint
from neocog.engine.saves import BEST, RETRY, Saves
from neocog.errors import RunError
from neocog.files import clear_leftovers, write_atomic
from neocog.records import TrainState
from neocog.settings import from_dict
from neocog.verbs.train import fit

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def state(step: int) -> TrainState:
    return TrainState(
        step=step, model={"w": torch.full((3,), float(step))}, optimizer={}, schedule={}, ema={}
    )


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_one_is_due_after_the_time_that_was_asked_for(tmp_path: Path) -> None:
    clock = Clock()
    saves = Saves(tmp_path, every=300, world={}, clock=clock)
    clock.now += 299
    assert not saves.due()
    clock.now += 1
    assert saves.due()
    assert saves.state(state(1), name=None, events=0)
    assert not saves.due()
    clock.now += 300
    assert saves.due()
    never = Saves(tmp_path, every=0, world={}, clock=clock)
    clock.now += 1e9
    assert not never.due()


def test_what_a_full_disk_refuses_is_tried_again_within_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    saves = Saves(tmp_path, every=300, world={"threads": 2}, clock=clock)
    assert saves.state(state(1), name=None, events=4)
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        assert not saves.state(state(2), name=None, events=5)
    assert "No space left" in saves.error
    assert str(tmp_path) in saves.error
    clock.now += RETRY - 1
    assert not saves.due()
    clock.now += 1
    assert saves.due()
    assert saves.state(state(3), name=None, events=6)
    assert saves.error == ""
    clock.now += RETRY
    assert not saves.due()
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert (found.state.step, found.meta) == (3, {"events": 6, "world": {"threads": 2}})
    assert saves.written == 2


def test_the_best_that_could_not_be_written_is_still_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = Saves(tmp_path, every=0, world={}, clock=Clock())
    saves.weights({"w": torch.ones(2)}, name=BEST)
    live = torch.full((2,), 2.0)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        assert not saves.weights({"w": live}, name=BEST)
    live += 7  # training goes on
    assert torch.equal((saves.best() or {})["w"], torch.full((2,), 2.0))
    assert saves.weights({"w": torch.full((2,), 3.0)}, name=BEST)
    assert torch.equal((saves.best() or {})["w"], torch.full((2,), 3.0))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names open files by /proc")  # noqa: PTH112
def test_events_reach_the_disk_before_the_checkpoint_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave a checkpoint that knows of events which nobody can read."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        calls.append(f"fsync {os.readlink(f'/proc/self/fd/{handle}').rpartition('/')[2]}")  # noqa: PTH115
        fsync(handle)

    def noted_replace(before: Path, after: Path) -> None:
        calls.append(f"replace {after.name}")
        replace(before, after)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    fit("mlp", "digits", from_dict(Recipe, {"engine": {"epochs": 2}}), out=tmp_path, quiet=True)
    placed = [i for i, call in enumerate(calls) if call.startswith("replace step-")]
    assert len(placed) == 2
    for begin, end in itertools.pairwise([0, *placed]):
        assert "fsync events.jsonl" in calls[begin:end]


def test_a_checkpoint_waits_for_the_best_that_it_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a resumed run would take the file of an earlier epoch for the best."""
    saves = Saves(tmp_path, every=0, world={}, clock=Clock())
    saves.weights({"w": torch.ones(2)}, name=BEST)
    write = os.write

    def refused(handle: int, data: memoryview) -> int:
        if BEST in os.readlink(f"/proc/self/fd/{handle}"):  # noqa: PTH115
            raise OSError(errno.EIO, "Input/output error")
        return write(handle, data)

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", refused)
        assert not saves.weights({"w": torch.full((2,), 2.0)}, name=BEST)
        assert not saves.state(state(5), name=None, events=0)
    assert checkpoint.load_latest(tmp_path) is None
    assert saves.state(state(6), name=None, events=0)
    again = Saves(tmp_path, every=0, world={}, clock=Clock())
    assert torch.equal((again.best() or {})["w"], torch.full((2,), 2.0))


def test_a_best_that_is_gone_is_said(tmp_path: Path) -> None:
    saves = Saves(tmp_path, every=0, world={}, clock=Clock())
    assert saves.best() is None
    assert BEST in saves.error
    path = tmp_path / f"{BEST}.safetensors"
    saves.weights({"w": torch.ones(2)}, name=BEST)
    path.write_bytes(path.read_bytes()[:-1])
    assert saves.best() is None
    assert "damaged" in saves.error


def test_only_our_own_leftovers_are_deleted(tmp_path: Path) -> None:
    mine = tmp_path / ".step-00000001.safetensors.123-0123abcd.tmp"
    others = [tmp_path / name for name in (".notes.tmp", ".a.12-xyz.tmp", "b.1-0123abcd.tmp")]
    for path in (mine, *others):
        path.write_text("x")
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_flush_folders_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    fsync = os.fsync

    def some(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", some)
    if fails:
        with pytest.raises(RunError, match="Input/output"):
            write_atomic(tmp_path / "a", b"x")
    else:
        write_atomic(tmp_path / "a", b"x")
        assert (tmp_path / "a").read_bytes() == b"x"
