"""Helpers that are killed, hang, are stopped or want all memory: every file is answered once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from neocog.data.files import Limits
from neocog.data.looks import Look, Order
from neocog.data.workers import look_at_all, look_in_batches
from neocog.errors import NeocogError

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 1.5
TRAP = """
import os, signal, sys, time
from pathlib import Path
import neocog.data.files as files
home = Path({home!r})

def first_time(name):
    try:
        os.close(os.open(home / ("met " + name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

def read_file(path, **rest):
    name = os.path.basename(path)
    with open(home / "log", "a") as log:
        log.write(f"{{os.getpid()}} {{name}}\\n")
    {deed}
    return real(path, **rest)

real, files.read_file = files.read_file, read_file
{start}
"""
"""A `sitecustomize` for helpers, which acts at their start or before certain files are read."""
DEEDS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "crashed": "os.kill(os.getpid(), signal.SIGSEGV)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "asleep": "time.sleep(1000)",
    "busy": "exec('while True: pass')",
}
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the helpers that start from now on do a deed for each file, `name`, or at their start."""

    def lay(deed: str, start: str = "") -> None:
        program = TRAP.format(home=str(tmp_path), deed=deed, start=start)
        compile(program, "sitecustomize.py", "exec")  # a helper would go on without it
        (tmp_path / "sitecustomize.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    return lay


def log(home: Path) -> list[tuple[int, str]]:
    """(helper, file) in the order of reading."""
    lines = (home / "log").read_text().splitlines()
    return [(int(pid), name) for pid, _, name in (line.partition(" ") for line in lines)]


def pictures(home: Path, count: int) -> list[tuple[str, str | None]]:
    """PNGs of different pixels and sizes; every seventh is damaged."""
    chance = np.random.default_rng(count)
    (home / "data").mkdir()
    for i in range(count):
        file = io.BytesIO()
        pixels = chance.integers(0, 256, (8, 4 + i % 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        data = file.getvalue()
        (home / "data" / f"{i:03d}.png").write_bytes(data[:60] if i % 7 == 6 else data)
    return [(str(path), None) for path in sorted((home / "data").iterdir())]


def codes(looks: list[Look]) -> list[list[str]]:
    return [[remark.code for remark in look.remarks] for look in looks]


@pytest.mark.parametrize("workers", [1, 2, 4, None])
def test_any_number_of_workers_gives_the_same(tmp_path: Path, workers: int | None) -> None:
    files = pictures(tmp_path, 70)
    alone = list(look_at_all(files, Order(cover=(6, 6)), workers=0))
    assert list(look_at_all(files, Order(cover=(6, 6)), workers=workers)) == alone
    assert sum(look.usable for look in alone) == 60
    assert list(look_at_all([], Order(), workers=workers)) == []


@POSIX
@pytest.mark.parametrize("deed", DEEDS)
def test_a_lost_helper_is_replaced_and_its_files_come_once(
    tmp_path: Path, trap: Callable[..., None], deed: str
) -> None:
    files = pictures(tmp_path, 40)  # five a chunk
    expected = list(look_at_all(files, Order(), workers=0))
    trap(f"if name == '023.png' and first_time(name): {DEEDS[deed]}")
    began = time.monotonic()
    assert list(look_at_all(files, Order(), workers=2, patience=PATIENCE)) == expected
    assert time.monotonic() - began < PATIENCE + 10
    assert len({pid for pid, _ in log(tmp_path)}) == 3
    assert {name for _, name in log(tmp_path)} == {Path(path).name for path, _ in files}
    assert not [t for t in threading.enumerate() if t.name.startswith("neocog-")]


@POSIX
@pytest.mark.parametrize(
    ("deed", "code"), [("killed", "decoder-died"), ("stopped", "decoder-hung")]
)
def test_a_file_that_takes_helpers_along_is_a_fault(
    tmp_path: Path, trap: Callable[..., None], deed: str, code: str
) -> None:
    files = pictures(tmp_path, 20)
    expected = list(look_at_all(files, Order(), workers=0))
    trap(f"if name == '008.png': {DEEDS[deed]}")
    found = list(look_at_all(files, Order(), workers=1, patience=PATIENCE))
    assert [remark.policy for remark in found[8].remarks] == ["skip"]
    assert codes(found)[8] == [code]
    assert not found[8].usable
    assert found[:8] + found[9:] == expected[:8] + expected[9:]


@pytest.mark.parametrize("workers", [0, 2])
def test_bytes_are_held_to_what_files_are(tmp_path: Path, workers: int) -> None:
    limits = Limits(decoded_bytes=2000)
    files = pictures(tmp_path, 30)
    for name, content in (("a", b""), ("b", bytes(4001)), ("c", bytes(4000))):
        (tmp_path / "data" / name).write_bytes(content)
        files.append((str(tmp_path / "data" / name), None))
    mixed = [
        (path, root) if i % 4 == 0 else ("/no/such/file", Path(path).read_bytes())
        for i, (path, root) in enumerate(files)
    ]
    expected = list(look_at_all(files, Order(limits=limits), workers=0))
    assert codes(expected)[-3:] == [["empty-file"], ["over-budget"], ["unknown-format"]]
    assert list(look_at_all(mixed, Order(limits=limits), workers=workers)) == expected


@POSIX
def test_a_set_of_bytes_names_the_culprit(tmp_path: Path, trap: Callable[..., None]) -> None:
    files = [(str(i), Path(path).read_bytes()) for i, (path, _) in enumerate(pictures(tmp_path, 9))]
    expected = list(look_at_all(files, Order(), workers=0))
    check = (
        "def check_bytes(name, *rest): return os._exit(3) if name == '5' else whole(name, *rest)"
    )
    trap("pass", f"{check}\nwhole, files.check_bytes = files.check_bytes, check_bytes")
    found = list(look_at_all(files, Order(), workers=1))
    assert codes(found)[5] == ["decoder-died"]
    assert found[:5] + found[6:] == expected[:5] + expected[6:]


def test_what_was_answered_before_the_loss_stands(
    tmp_path: Path, trap: Callable[..., None]
) -> None:
    files = pictures(tmp_path, 48)  # twelve a chunk
    order = Order(limits=Limits(decoded_bytes=1000))  # a picture takes 96 to 192 bytes
    expected = list(look_at_all(files, order, workers=0))
    trap("if name == '009.png' and first_time(name): os._exit(3)")
    batches = list(look_in_batches(files, order, workers=1))
    assert [look for batch in batches for look in batch.looks()] == expected
    assert max(len(batch.pixels) for batch in batches) < 1000 + 192
    assert max(len(batch) for batch in batches) > 1
    times = [sum(name == f"{i:03d}.png" for _, name in log(tmp_path)) for i in range(12)]
    assert times[0] == times[1] == times[2] == 1  # the first batch came
    assert times[9] == 2


def test_slow_files_are_waited_for(tmp_path: Path, trap: Callable[..., None]) -> None:
    files = pictures(tmp_path, 24)  # six a chunk
    expected = list(look_at_all(files, Order(), workers=0))
    trap("if name < '006.png': time.sleep(0.25)")
    assert list(look_at_all(files, Order(), workers=1, patience=1.0)) == expected
    assert len(log(tmp_path)) == 24  # 1.5 s in one chunk, and yet nothing was tried again


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_files_and_dumps_are_limited(tmp_path: Path, trap: Callable[..., None]) -> None:
    files = pictures(tmp_path, 20)
    expected = list(look_at_all(files, Order(), workers=0))
    trap(
        "if name == '002.png': bytearray(3 << 30)\n"
        "    import resource as r\n"
        "    assert r.getrlimit(r.RLIMIT_CORE)[0] == 0\n"
        "    assert r.getrlimit(r.RLIMIT_NOFILE)[0] == 64\n"
        "    assert 2**29 < r.getrlimit(r.RLIMIT_AS)[0] < 2**31\n"
        "    assert name != '003.png' or os.write(2, bytes(2**20)) == 2**16"
    )
    found = list(look_at_all(files, Order(), workers=1))
    assert codes(found)[2] == ["out-of-memory"]
    assert found[2].remarks[0].policy == "skip"
    assert found[:2] + found[3:] == expected[:2] + expected[3:]
    assert len({pid for pid, _ in log(tmp_path)}) == 1  # it lived on


def test_a_helper_lost_at_its_start_is_replaced(tmp_path: Path, trap: Callable[..., None]) -> None:
    files = pictures(tmp_path, 5)
    expected = list(look_at_all(files, Order(), workers=0))
    trap("pass", "if first_time('start'): os._exit(3)")
    assert list(look_at_all(files, Order(), workers=1)) == expected
    trap("pass", "time.sleep(1000)")
    with pytest.raises(NeocogError, match=r"did not start: it says nothing"):
        list(look_at_all(files, Order(), workers=1, patience=0.2))


@POSIX
def test_a_helper_that_cannot_be_ended_is_left_behind(
    tmp_path: Path, trap: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(tmp_path, 3)
    left: list[subprocess.Popen[bytes]] = []
    kill = subprocess.Popen.kill
    trap(f"if name == '001.png': {DEEDS['stopped']}")  # as in a disk's wait, but it can be ended
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: left.append(process))
    try:
        began = time.monotonic()
        found = list(look_at_all(files, Order(), workers=1, patience=0.5))
        assert time.monotonic() - began < 30
        assert codes(found) == [[], ["decoder-hung"], []]
        assert not [t for t in threading.enumerate() if t.name.startswith("neocog-")]
    finally:
        for process in left:
            kill(process)
            process.wait()


@POSIX
def test_a_hanging_helper_does_not_outlive_a_killed_caller(
    tmp_path: Path, trap: Callable[..., None]
) -> None:
    import fcntl

    files = pictures(tmp_path, 1)
    trap(
        "import fcntl; lock = open(home / 'lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "    (home / 'locked').touch(); time.sleep(1000)"
    )
    program = (
        "from neocog.data.looks import Order\n"
        "from neocog.data.workers import look_at_all\n"
        f"list(look_at_all({files!r}, Order(), patience=1.0))"
    )
    caller = subprocess.Popen([sys.executable, "-c", program])
    while not (tmp_path / "locked").exists():
        time.sleep(0.01)
    caller.kill()
    caller.wait()
    with (tmp_path / "lock").open() as lock:
        for _ in range(200):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        else:
            pytest.fail("the helper still lives")
