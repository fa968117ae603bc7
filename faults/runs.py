"""The small training that is killed: everything random on, over in a second.

A `Program` starts `neocog` with arguments and gives a process number. `forked` begins in the middle
of a process that has imported everything already, so that hundreds of kills fit into minutes;
`fresh` is what a person starts. Both are the whole command line, from argv to the exit code.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from unittest import mock

import numpy as np
import torch
from PIL import Image

from faults.prints import run_prints
from neocog import cli
from neocog.data import scan, workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "Place",
    "Program",
    "forked",
    "fresh",
    "make_pictures",
    "reference",
    "run_one",
    "scanned_by",
    "wait",
    "warm",
]

PARTS = {"train": 20, "val": 8, "test": 8}
"""Pictures of each of three classes."""
SIDE = 12
EPOCHS, BATCH = 6, 10
STEPS = 3 * PARTS["train"] // BATCH
"""Steps of an epoch."""
SETTINGS = (
    *("model=cnn", "model_args.width=4", "model_args.dropout=0.2", "seed=3"),
    *("augment.flip=0.5", "augment.flip_vertical=0.2", "augment.shift=0.1", "augment.rotate=10"),
    *("augment.scale=0.1", "augment.color=0.1", "augment.contrast=0.2", "augment.brightness=0.1"),
    *("augment.blur=0.5", "augment.noise=0.05", "augment.cutout=0.3", "augment.mixup=0.4"),
    *("augment.cutmix=0.5", "loss.label_smoothing=0.1"),
    *(f"engine.epochs={EPOCHS}", f"engine.batch={BATCH}", "engine.ema=0.9", "engine.device=cpu"),
    # Nothing is measured, so nothing can come out differently.
    *("engine.precision=fp32", "engine.layout=contiguous", "engine.compile=off"),
    *("engine.threads=1", "engine.save_minutes=0.0001"),
    *("checkpoint.keep=best", "checkpoint.weights_only=true", "stop.patience=50"),
    # No epoch is so much better than the one before: the rate falls, by what callbacks remember.
    *("plateau.patience=2", "plateau.min_delta=0.5", "plateau.factor=0.5"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run lives."""

    root: Path
    source: Path
    """The pictures."""

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        """What its processes printed."""
        return self.root / "log"

    @property
    def cache(self) -> Path:
        """Its own cache, cold at the beginning."""
        return self.root / "cache"

    @property
    def argv(self) -> list[str]:
        """What starts the run, or goes on with it where there is one."""
        if (self.run / "manifest.json").exists():
            return ["resume", str(self.run)]
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        return ["train", str(self.source), *settings, "--out", str(self.run)]

    def said(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


class Program(Protocol):
    """Starts neocog."""

    def __call__(self, place: Place, helpers: int) -> int:
        """Begin or go on with the run at this place; returns the number of the process."""


def make_pictures(source: Path) -> None:
    """Noise with a tint that tells the class, as PNG files in class folders."""
    draw = np.random.default_rng(0)
    for part, count in PARTS.items():
        for label in range(3):
            folder = source / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 200, (SIDE, SIDE, 3))
                pixels[:, :, label] += 40
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")


def forked(place: Place, helpers: int) -> int:
    """A process that begins with everything imported. Call it in a process of one thread."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        _redirect(place.log)
        os.environ["NEOCOG_CACHE"] = str(place.cache)
        sys.argv = ["neocog", *place.argv]
        with scanned_by(helpers):
            cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - it goes to the log, and the code tells of it
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def fresh(place: Place, helpers: int) -> int:
    """`python -m neocog`, with the number of helper programs of the scan decided."""
    code = (
        "from faults import runs; from neocog import cli\n"
        f"with runs.scanned_by({helpers}):\n"
        "    cli.main()\n"
    )
    words = ["-m", "neocog"] if helpers < 0 else ["-c", code]
    log = str(place.log)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *words, *place.argv],
        os.environ | {"NEOCOG_CACHE": str(place.cache)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, log, flags, 0o600),
        ],
    )


def _redirect(log: Path) -> None:
    """Have everything that this process prints go to a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(handle, stream)


@contextlib.contextmanager
def scanned_by(count: int) -> Iterator[None]:
    """Have scans done by so many helper programs; below 0: as many as neocog thinks best."""
    if count < 0:
        yield
        return

    def by_so_many(files: Any, order: Any, **_: Any) -> Any:
        return workers.look_in_batches(files, order, workers=count)

    with mock.patch.object(scan, "look_in_batches", by_so_many):
        yield


def wait(number: int, *, until: float, events: Path | None = None, lines: int = 0) -> int | None:
    """Wait for a process, and kill it when its time has come.

    Args:
        number: of the process, a child of this one.
        until: kill it then, by `time.monotonic`.
        events: kill it when this file has so many `lines`, too.
        lines: see `events`.

    Returns:
        Its exit code; None: it was killed.
    """
    while True:
        gone, status = os.waitpid(number, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until or (events and _lines(events) >= lines):
            os.kill(number, signal.SIGKILL)
            _, status = os.waitpid(number, 0)
            code = os.waitstatus_to_exitcode(status)
            return None if code == -signal.SIGKILL else code
        time.sleep(0.001)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def run_one(place: Place, program: Program, helpers: int = -1) -> float:
    """A run from its beginning to its end, nothing befalling it.

    Returns:
        How long it took, in seconds.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    place.root.mkdir(parents=True)
    began = time.monotonic()
    code = wait(program(place, helpers), until=began + 120)
    if code != 0:
        raise RuntimeError(f"the uninterrupted run ended with {code}:\n{place.said()}")
    return time.monotonic() - began


def warm(root: Path, source: Path) -> None:
    """Import everything that a run needs, by doing one in this process, quietly."""
    torch.set_num_threads(1)
    place = Place(root / "warm", source)
    place.root.mkdir(parents=True)
    argv, sys.argv = sys.argv, ["neocog", *place.argv]
    cache = os.environ.get("NEOCOG_CACHE")
    os.environ["NEOCOG_CACHE"] = str(place.cache)
    try:
        with place.log.open("w") as log, contextlib.redirect_stderr(log):
            cli.main()
    finally:
        sys.argv = argv
        del os.environ["NEOCOG_CACHE"]
        if cache is not None:
            os.environ["NEOCOG_CACHE"] = cache
    shutil.rmtree(place.root)
    gc.freeze()


def reference(root: Path, source: Path) -> dict[str, str]:
    """The prints of an uninterrupted run of a fresh program."""
    place = Place(root / "reference", source)
    run_one(place, fresh)
    prints = run_prints(place.run)
    shutil.rmtree(place.root)
    return prints
