"""The fault tests in `faults/`: a short run of all of them, and the disk that they are built on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("the faults are those of POSIX systems", allow_module_level=True)

from faults.disk import Died, Disk, Fault
from faults.planted import PLANTS, Plant, planted
from neocog import text

ROOT = Path(__file__).parent.parent


def write(path: Path, content: bytes, *, flush: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(handle, content)
    if flush:
        os.fsync(handle)
    os.close(handle)


def flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def outcomes(disk: Disk) -> list[dict[str, bytes]]:
    return list(disk.after_power_cut())


def test_the_short_version_finds_nothing_and_every_planted_fault() -> None:
    """Kills, syscall faults, flips, and the proof that each of these tests can fail."""
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--short"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(plant.name in done.stdout for plant in PLANTS)
    assert len(PLANTS) >= 8


def test_what_was_flushed_is_all_that_a_power_cut_leaves_for_sure(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    with Disk(tmp_path) as disk:
        write(tmp_path / "new", b"abcd", flush=True)
        # The content is safe, its name is not.
        assert outcomes(disk) == [{"old": b"old"}, {"old": b"old", "new": b"abcd"}]
        flush_folder(tmp_path)
        assert outcomes(disk) == [{"old": b"old", "new": b"abcd"}]
        (tmp_path / "new").replace(tmp_path / "old")
        (tmp_path / "old").unlink()
        found = outcomes(disk)
    # Renamed and deleted, each or neither.
    assert {"old": b"old", "new": b"abcd"} in found
    assert {"old": b"abcd"} in found
    assert {"new": b"abcd"} in found
    assert {} in found
    assert len(found) == 4


def test_content_that_was_not_flushed_may_be_cut_anywhere(tmp_path: Path) -> None:
    with Disk(tmp_path) as disk:
        write(tmp_path / "a", b"abcd", flush=False)
        flush_folder(tmp_path)
        left = {files["a"] for files in outcomes(disk)}
        assert left == {b"", b"a", b"ab", b"abc", b"abcd", bytes(4)}
        assert disk.live == {"a": b"abcd"}
    assert [call.name for call in disk.calls] == [
        "open",
        "write",
        "close",
        "open",
        "fsync",
        "close",
    ]


@pytest.mark.parametrize(("call", "left"), [(0, {}), (1, {"a": b""}), (2, {"a": b"abcd"})])
def test_a_dead_process_reaches_nothing_more(
    tmp_path: Path, call: int, left: dict[str, bytes]
) -> None:
    before = os.open
    with Disk(tmp_path, Fault("die", call)) as disk:
        with pytest.raises(Died):
            write(tmp_path / "a", b"abcd", flush=True)
        with pytest.raises(Died):
            (tmp_path / "a").unlink()
    assert disk.live == left
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == left
    assert os.open is before


def test_half_of_a_write_then_no_room(tmp_path: Path) -> None:
    with Disk(tmp_path, Fault("full", 1)) as disk:
        handle = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
        assert os.write(handle, b"abcd") == 2
        with pytest.raises(OSError, match="No space"):
            os.write(handle, b"cd")
        os.close(handle)
    assert disk.live == {"a": b"ab"} == {"a": (tmp_path / "a").read_bytes()}


def test_a_plant_is_in_force_within_its_block_and_must_fit() -> None:
    where = "neocog.text:printable"
    plant = Plant("", where, "if text.isprintable():", "if True:", "saves")
    known = text.printable
    with planted(plant):
        assert known("a\0") == "a\0"
    assert known("a\0") == "a\\x00"
    with pytest.raises(LookupError, match="0 times"), planted(Plant("", where, "zebra", "", "")):
        pass
