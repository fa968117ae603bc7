"""SIGTERM and SIGINT: saved and ended in time, with a code of their own; then as if never ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest

from neocog.cli import main
from neocog.engine import checkpoint
from neocog.engine.stopping import GRACE
from neocog.run import open_run, read_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TRAIN = [
    *("train", "digits", "--model", "cnn", "--epochs", "3", "--batch", "32", "--precision", "fp32"),
    *("--set", "engine.layout=contiguous", "--set", "engine.compile=off"),
    *("--set", "engine.threads=1", "--set", "engine.ema=0.9", "--val", "0.3"),
]
# A hook on validation, so that a signal can be made to arrive in the middle of one.
SLOW = """
import signal, sys, time
# A shell lets its jobs in the background ignore SIGINT, and neocog leaves it at that.
signal.signal(signal.SIGINT, signal.default_int_handler)
import neocog.engine.evaluate as e
import neocog.engine.stopping as s
from neocog.cli import main
s.GRACE = 50.0  # a machine that runs other tests beside this one may be slow
old = e.eval_batches
def slow(*args, **options):
    for i, one in enumerate(old(*args, **{**options, "batch": 16})):
        print("validating", i, flush=True)
        time.sleep(0.05)
        yield one
if sys.argv.pop(1) == "validation":
    e.eval_batches = slow
main()
"""


def command(folder: Path, phase: str) -> list[str]:
    return [sys.executable, "-u", "-c", SLOW, phase, *TRAIN, "--out", str(folder)]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begin a training; whatever becomes of it, it ends with the test."""
    with contextlib.ExitStack() as stack:

        def begin(folder: Path, phase: str, *more: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*command(folder, phase), *more],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def wait_for(folder: Path, kind: str, count: int) -> None:
    """Until the run has told of so many events."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            if sum(e.kind == kind for e in read_events(folder / "events.jsonl")) >= count:
                return
        except OSError:
            pass
        time.sleep(0.01)
    raise AssertionError("the training did not get so far")


def story(folder: Path) -> list[tuple[int, str, dict[str, Any]]]:
    clocks = {"seconds", "images_per_second"}
    return [
        (e.step, e.kind, {k: v for k, v in e.values.items() if k not in clocks})
        for e in read_events(folder / "events.jsonl")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(folder, "nothing"), check=True, capture_output=True)
    return folder


def finish(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resume in this process."""
    before = sys.argv
    sys.argv = ["neocog", "resume", str(folder)]
    try:
        main()
    finally:
        sys.argv = before
    assert "going on after step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "phase"),
    [(signal.SIGTERM, "steps"), (signal.SIGINT, "steps"), (signal.SIGTERM, "validation")],
)
def test_a_signal_saves_and_ends(
    whole: Path,
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    phase: str,
) -> None:
    out = tmp_path / "run"
    process = start(out, phase, "--json")
    wait_for(out, "step", 45 if phase == "steps" else 40)
    if phase == "validation":
        wait_for(out, "step", 40)  # the first epoch has 40 steps
        time.sleep(0.2)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert f"to go on: neocog resume {out}" in errors
    assert f"stopped by {number.name}" in errors
    said = json.loads(output[output.index("{") :])
    assert said["error"] == f"stopped by {number.name}"
    found = checkpoint.load_latest(out / "checkpoints")
    assert found is not None
    steps = [e.step for e in read_events(out / "events.jsonl") if e.kind == "step"]
    assert found.state.step == max(steps)  # nothing is lost
    finish(out, capsys)
    assert story(out) == story(whole)
    names = ["weights.safetensors"]
    assert [(out / "bundle" / n).read_bytes() for n in names] == [
        (whole / "bundle" / n).read_bytes() for n in names
    ]


def test_a_second_sigterm_ends_at_once_and_loses_no_checkpoint(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(out, "nothing")
    wait_for(out, "epoch", 1)
    until = time.monotonic() + 30  # the epoch is told before it is saved
    while checkpoint.load_latest(out / "checkpoints") is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert checkpoint.load_latest(out / "checkpoints") is not None


def test_a_second_run_in_the_folder_is_refused(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(out, "validation")
    wait_for(out, "step", 1)
    second = subprocess.run(
        [sys.executable, "-m", "neocog", "resume", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"{out} is in use by process {process.pid}" in second.stderr


ALONE = """
import os, pathlib, signal, sys, threading, time
import pytest
from neocog.engine.stopping import Signals, Stopped
# However these tests were started: as by nohup, or in the background of a shell.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def alone(code: str, *more: str) -> None:
    """In a program of its own: a signal that is not heeded ends that one, not all tests."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", ALONE + textwrap.dedent(code), *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_before_and_after_training_a_signal_ends_the_program_where_it_stands() -> None:
    alone(
        """
        with Signals(), pytest.raises(Stopped) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.code == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """
    )


def test_while_training_it_waits_for_the_next_check() -> None:
    alone(
        """
        with Signals() as signals:
            with signals.patient():
                signals.check()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
                with pytest.raises(Stopped, match="SIGTERM"):
                    signals.check()
            with pytest.raises(KeyboardInterrupt):  # the second kind of signal does not wait
                os.kill(os.getpid(), signal.SIGINT)
        """
    )


def test_a_step_that_takes_too_long_is_given_up() -> None:
    """One call into C that comes back after half a minute: no handler in Python runs meanwhile."""
    code = (
        "import os, signal, threading, time\n"
        "import torch\n"
        "import neocog.engine.stopping as s\n"
        "s.GRACE = 0.3\n"
        "torch.set_num_threads(1)\n"
        "big = torch.ones(12000, 12000)\n"
        "with s.Signals() as signals, signals.patient():\n"
        "    def send():\n"
        "        time.sleep(0.5)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    threading.Thread(target=send).start()\n"
        "    torch.linalg.svd(big)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 143
    assert time.monotonic() - began < 20
    assert GRACE < 10


def test_a_second_kind_of_signal_is_heeded_by_its_own_rules() -> None:
    alone(
        """
        with Signals() as signals, signals.patient():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Stopped, match="SIGTERM") as caught:
                signals.check()
            assert caught.value.code == 143
        """
    )


def test_a_broken_connection_is_a_wish_to_stop() -> None:
    alone(
        """
        with Signals() as signals, signals.patient():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Stopped, match="SIGHUP"):
                signals.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        assert "neocog-signals" not in [thread.name for thread in threading.enumerate()]
        """
    )


def test_what_is_ignored_stays_ignored() -> None:
    """As by nohup."""
    alone(
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Signals() as signals, signals.patient():
            os.kill(os.getpid(), signal.SIGHUP)
            signals.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        """
    )


def test_a_signal_in_the_last_save_is_heeded(tmp_path: Path) -> None:
    """The training is done, but its bundle, scores and report are not wanted any more."""
    alone(
        """
        import torch
        from neocog import recipes, tasks
        from neocog.config import Recipe
        from neocog.data import dataset
        from neocog.engine import loop
        from neocog.engine.job import plain
        from neocog.settings import from_dict
        from neocog.verbs.prepare import prepare

        def late(event, control):
            if event.kind == "end":
                signal.raise_signal(signal.SIGINT)

        data = dataset.load(from_dict(Recipe, {"data": {"source": "digits"}}).data)
        recipe = recipes.resolve(from_dict(Recipe, {"model": "mlp", "engine": {"epochs": 1}}), data)
        device = torch.device("cpu")
        choice = plain(recipe.engine, device)
        job = prepare(recipe, data, tasks.for_data(data, recipe), device, choice, None, None).job
        signals = Signals()
        with signals, pytest.raises(Stopped):
            loop.train(job, folder=pathlib.Path(sys.argv[1]), callbacks=[late], signals=signals)
        """,
        str(tmp_path),
    )
    found = checkpoint.load_latest(tmp_path)
    assert found is not None


FULL = """
import errno, os, sys
from neocog.cli import main
write, broken = os.write, sys.argv.pop(1)
def full(handle, data):
    name = os.readlink(f"/proc/self/fd/{handle}")
    if any(part in name for part in broken.split(",")):
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(handle, data)
os.write = full
main()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names open files by /proc")  # noqa: PTH112
@pytest.mark.parametrize(
    ("broken", "code", "words"),
    [
        ("checkpoints", 1, "no checkpoint of it could be written"),
        ("checkpoints,events.jsonl", 1, "no checkpoint of it could be written"),
        ("bundle", 1, "cannot write"),
    ],
)
def test_a_full_disk_does_not_end_the_training(
    whole: Path, tmp_path: Path, broken: str, code: int, words: str
) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", FULL, broken, *TRAIN, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    if "checkpoints" in broken:
        assert "training goes on and will try again" in done.stderr
        name = "bundle/weights.safetensors"
        assert (out / name).read_bytes() == (whole / name).read_bytes()
        assert (out / "report.html").exists()
        assert open_run(out).evaluate()["val"] == open_run(whole).scores["val"]
    else:
        assert checkpoint.load_latest(out / "checkpoints") is not None
