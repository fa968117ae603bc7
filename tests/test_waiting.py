"""How threads wait: soon asleep where others want the processors, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from neocog import waiting
from neocog.host import cores

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_what_the_user_says_about_waiting_stays(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], want: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    waiting.wait_patiently()
    assert os.environ.get("GOMP_SPINCOUNT") == want


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


def tasks() -> int:
    """Threads of this process, as the system counts them."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def until(wanted: bool, before: int) -> bool:
    """Whether there is soon a crowd beyond the threads of before, or soon none: the system takes a
    moment to end threads that are joined already."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if (tasks() > before + cores()) == wanted:
            return True
        time.sleep(0.02)
    return False


def settled() -> int:
    """Threads of this process once those of earlier tests have ended."""
    found, since = tasks(), time.monotonic()
    while time.monotonic() < since + 0.3:
        time.sleep(0.02)
        if tasks() != found:
            found, since = tasks(), time.monotonic()
    return found


GNU = pytest.mark.skipif(waiting._library() is None, reason="PyTorch has another OpenMP")


@GNU
@pytest.mark.usefixtures("untold")
def test_a_crowd_is_there_while_others_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.01)
    monkeypatch.setattr(waiting, "EVERY", 0.01)
    busy = 0.0
    before = settled()
    with waiting.attentive(2, lambda: lambda: busy):
        for busy in (0.0, 1.0, 0.1, 0.0, 0.5):  # in between, everything stays as it is
            assert until(busy > 0.05, before), busy
    assert until(False, before)


@GNU
@pytest.mark.usefixtures("untold")
def test_the_threads_at_work_stay_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.01)
    threads, before = torch.get_num_threads(), settled()
    expected = torch.ones(400, 400) @ torch.ones(400, 400)
    with waiting.attentive(2, lambda: lambda: 1.0):
        assert until(True, before)
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.ones(400, 400) @ torch.ones(400, 400), expected)


@pytest.mark.parametrize("told", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}, {}])
def test_where_nothing_is_to_be_done_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, untold: None, told: dict[str, str]
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)

    def watch() -> None:
        raise AssertionError

    with waiting.attentive(2 if told else 1, watch):  # type: ignore[arg-type]
        pass


@GNU
@pytest.mark.usefixtures("untold")
def test_a_system_that_does_not_say_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.0)
    looked = threading.Event()

    def watch() -> Callable[[], None]:
        return looked.set

    with waiting.attentive(2, watch):
        assert looked.wait(20)
        ends = time.monotonic() + 20
        while any(one.name == "neocog-attentive" for one in threading.enumerate()):
            assert time.monotonic() < ends  # it does not look again
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("most", "used", "fits"),
    [("max", "900", True), ("100", "50", True), ("100", "70", False), ("", "", True)],
)
@pytest.mark.parametrize("line", ["0::/a/b", "4:pids:/a/b", "0::/"])
def test_a_control_group_has_room_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, used: str, fits: bool, line: str
) -> None:
    """In whichever of the groups above the limit stands."""
    (tmp_path / "own").write_text(f"{line}\n")
    monkeypatch.setattr(waiting, "GROUPS", str(tmp_path / "groups"))
    monkeypatch.setattr(waiting, "OWN_GROUP", str(tmp_path / "own"))
    _, kind, path = line.split(":")
    (tmp_path / "groups" / kind / path[1:]).mkdir(parents=True)
    limited = tmp_path / "groups" / kind / path[1:3].rstrip("/")
    if most:
        (limited / "pids.max").write_text(most + "\n")
        (limited / "pids.current").write_text(used + "\n")
    assert waiting._room(10) == fits
    assert not waiting._room(waiting.MOST + 1)


@pytest.mark.parametrize(("verb", "want"), [("train", "None"), ("predict", "1000")])
@pytest.mark.usefixtures("untold")
def test_only_what_trains_is_not_told_at_the_beginning(verb: str, want: str) -> None:
    script = (
        "import os, sys, click\n"
        "import neocog.cli as it\n"
        "it.cli.main = lambda **_: print(os.environ.get('GOMP_SPINCOUNT'))\n"
        f"sys.argv[1:] = ['{verb}', 'x']\n"
        "it.main()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(waiting.__file__).parents[1])},
    )
    assert found.stdout.split() == [want]
