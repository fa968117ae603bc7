"""The event file: all of it, in order, in few writes, and seen by others when it matters."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from neocog.records import Event
from neocog.run import EVERY, EventLog, read_events

if TYPE_CHECKING:
    from pathlib import Path


def step(number: int, time: float) -> Event:
    return Event(step=number, kind="step", values={"loss": 0.5 / number, "lr": 0.1}, time=time)


def test_steps_go_to_the_disk_some_times_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = os.write

    def counted(handle: int, data: bytes) -> int:
        writes.append(len(data))
        return write(handle, data)

    log = EventLog(tmp_path / "events.jsonl")
    monkeypatch.setattr(os, "write", counted)
    told = [step(number, number / 1000) for number in range(1, 1001)]
    for event in told:
        log(event)
        shown = read_events(log.path)
        assert shown == told[: len(shown)]
        assert not shown or event.time - shown[-1].time < EVERY
    log.close()
    assert len(writes) <= 1 / EVERY + 2
    assert read_events(log.path) == told


def test_slow_steps_are_seen_at_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(1, 4):
        log(step(number, number * EVERY))
        assert len(read_events(log.path)) == number
    log.close()


@pytest.mark.parametrize("how", ["flush", "sync", "close"])
def test_nothing_waits_after_a_word(tmp_path: Path, how: str) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log(Event(step=0, kind="start", values={}, time=0.0))
    log(step(1, 0.001))
    assert [e.kind for e in read_events(log.path)] == ["start"]
    getattr(log, how)()
    assert [e.kind for e in read_events(log.path)] == ["start", "step"]
    log.close()


def test_what_is_no_step_takes_along_what_waits(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log(step(1, 0.001))
    log(step(2, 0.002))
    log(Event(step=2, kind="epoch", values={"epoch": 1}, time=0.003))
    assert [e.step for e in read_events(log.path)] == [1, 2, 2]
    log.close()


def test_a_full_disk_keeps_no_event_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = EventLog(tmp_path / "events.jsonl")
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        for number in (1, 2, 3):
            log(step(number, float(number)))
    log(step(4, 4.0))
    assert [e.step for e in read_events(log.path)] == [1, 2, 3, 4]
    log.close()
