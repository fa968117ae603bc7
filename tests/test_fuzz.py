"""Every parser against broken files, briefly; `python -m faults.fuzz all` does it at length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damage import FUZZ
from faults import fuzz
from faults.mutate import mutated
from faults.targets import TARGETS, Target
from neocog.errors import DataError

if TYPE_CHECKING:
    import random

    from faults.targets import Files

ROOT = Path(__file__).parent.parent


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_broken_files_raise_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))

    @settings(FUZZ, max_examples=60)
    @given(index=st.integers(0, 2**32))
    def check(index: int) -> None:
        fuzz.read_once(TARGETS[name], fuzz.drawn(name, 0, index), tmp_path / "files")

    check()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TARGETS if name != "images"])
def test_bombs_are_refused_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))
    for bomb in TARGETS[name].bombs():
        fuzz.read_once(TARGETS[name], bomb, tmp_path / "files")


def test_the_mutator_is_chances_function() -> None:
    content = bytes(range(256)) * 4
    several = {mutated(content, seed) for seed in range(200)}
    assert len(several) > 150
    assert {mutated(content, seed) for seed in range(200)} == several
    assert mutated(b"", 3) == mutated(b"", 3)


def drawn(chance: random.Random) -> Files:
    return {"x": b"%d" % chance.randrange(5)}


def read(folder: Path) -> None:
    """Fails in every way but a crash, each for one digit."""
    digit = int((folder / "x").read_text())
    if digit == 1:
        raise KeyError("found")
    if digit == 2:
        bytearray(b"1") * (200 << 20)
    if digit == 3:
        sum(range(10_000_000))
    if digit == 4:
        raise DataError("as it should be")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_each_sort_of_finding_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(TARGETS, "own", Target(make=drawn, read=read))
    *found, summary = fuzz._child("own", 0, 0, 30, fuzz.Cost(0.08, 128 << 20), False)
    kinds = {1: "KeyError: 'found'", 2: "large: ", 3: "slow: "}
    digits = [int(fuzz.drawn("own", 0, index)["x"]) for index in range(30)]
    large = {one["index"] for one in found if one["what"].startswith("large")}
    assert large == {index for index, digit in enumerate(digits) if digit == 2}
    for one in found:
        assert one["what"].startswith((kinds[digits[one["index"]]], "slow"))
    assert {one["index"] for one in found} == {i for i in range(30) if digits[i] in kinds}
    assert summary["peak"] > 190 << 20


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_crash_is_found_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, neocog.data.decode as decode\n"
        "real, times = decode.read_file, []\n"
        "def read_file(path):\n"
        "    times.append(path)\n"
        "    if len(times) == 10: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return real(path)\n"
        "decode.read_file = read_file\n"
    )
    command = [sys.executable, "-m", "faults.fuzz", "images", "--start", "1", "--count", "10"]
    done = subprocess.run(
        [*command, "--jobs", "1", "--keep", str(tmp_path / "kept")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    # Three readings before the first input, which is number 1, then the tenth kills.
    assert "input 7: crash: exit code -11" in done.stdout
    assert " 10 cases  1 FAILED" in done.stdout
    assert (tmp_path / "kept" / "images-0-input-7" / "x").read_bytes() == fuzz.drawn(
        "images", 0, 7
    )["x"]
