"""The sides of a figure in turn: each is a process that trains when it is told to, and else waits.

Speeds of shared machines change within seconds. Whatever is to be compared must therefore be done
within a second or two of one another, and not once each has been started, has tuned and compiled.
So all sides of a round are started first, one after another, up to the end of their first epoch;
then they train for a moment each, A B C C B A …, and sleep while the others do. The other end of
the conversation is `sides.Turns`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pages
from figures import SIDES, Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ISA", "Contender", "NoAnswerError", "Setting", "started"]

LONGEST = 600
"""Seconds without a word after which a side is given up."""
ISA = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
}
"""Makes PyTorch treat this processor as one without bf16; XLA follows its own mind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One call of `rates.py`."""

    sides: list[str]
    rounds: int
    threads: int
    compile: str
    quick: bool
    data: dict[str, str]
    """Sources of real pictures → what they are called; a figure takes the first that fits."""
    synthetic: bool
    """Whether synthetic ones will do where none of `data` fits."""
    isa: str
    choice: dict[str, Any]
    home: Path
    """Where results go."""
    work: Path
    """For files that nobody keeps."""


class NoAnswerError(Exception):
    """A side did not answer: why, in one line, and the end of what it said."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(reason)
        self.said = said


class Contender:
    """A process that waits for its turns."""

    def __init__(self, process: subprocess.Popen[str], answer: Path, log: Path) -> None:
        self.process = process
        self.answered, self.log = answer, log
        self.late = False

    def first(self) -> dict[str, Any]:
        """Wait until it is warm; what it tells of itself, if anything."""
        return self._hear()

    def turn(self) -> None:
        """Let it train for a while."""
        self._say("go")
        self._hear()

    def answer(self) -> Any:
        """Let it end, and read what it measured."""
        self._say("end")
        self._over()
        if self.process.returncode or not self.answered.exists():
            raise self._why()
        return json.loads(self.answered.read_text(encoding="utf-8"))

    def _say(self, word: str) -> None:
        try:
            self.process.stdin.write(f"{word}\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except OSError:  # it has ended: the next one who listens says why
            pass

    def _hear(self) -> dict[str, Any]:
        """Wait until it hands its turn on."""
        late = threading.Timer(LONGEST, self._give_up)
        late.start()
        try:
            for line in self.process.stdout:  # type: ignore[union-attr]
                word, _, rest = line.partition(" ")
                if word == "turn":
                    about: dict[str, Any] = json.loads(rest)
                    return about
        finally:
            late.cancel()
        self._over()
        raise self._why()

    def _over(self) -> None:
        """Wait for its end."""
        try:
            self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self._give_up()
            self.process.wait()

    def _give_up(self) -> None:
        self.late = True
        self.process.kill()

    def _why(self) -> NoAnswerError:
        """What became of a side that ended without an answer."""
        said = self.log.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        reason = lines[-1] if lines else "it said nothing"
        if self.late:
            reason = f"no word in {LONGEST} s"
        elif self.process.returncode < 0:
            reason = f"ended by signal {-self.process.returncode}: {reason}"
        elif not self.process.returncode:
            reason = f"ended before its turns were over: {reason}"
        elif missing := re.findall(r"No module named '([\w.]+)'", said):
            reason = f"{missing[-1]} is not installed: pip install -r benchmarks/requirements.txt"
        # The page is of this project; where it lies on this machine is not.
        reason = reason.replace(f"{pages.HOME.parent}{os.sep}", "")[:300]
        return NoAnswerError(reason, "\n".join(lines[-20:]))


@contextlib.contextmanager
def started(
    figure: Figure, name: str, setting: Setting, facts: Any, more: Any
) -> Iterator[Contender]:
    """A side in a process of its own, in an empty folder; at the end of the block it is gone.

    Args:
        figure: what is compared.
        name: of the side.
        setting: of the call.
        facts: what `nets.facts` says of the net.
        more: options beside the side's own.
    """
    kind = SIDES[name]
    with tempfile.TemporaryDirectory(dir=setting.work) as folder:
        order = {
            "figure": figure.name,
            "data": str(setting.work / f"{figure.name}.npz"),
            "folder": folder,
            "images": figure.images,
            "batch": figure.batch,
            "seconds": figure.seconds,
            "threads": setting.threads,
            "compile": setting.compile,
            "quick": setting.quick,
            "facts": facts,
            "options": kind.options | more,
        }
        (asked, answered) = (Path(folder) / "order.json", Path(folder) / "answer.json")
        asked.write_text(json.dumps(order), encoding="utf-8")
        # Absolute: the side runs in another folder.
        given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(pages.HOME), *map(os.path.abspath, given)]),
            "OMP_NUM_THREADS": str(setting.threads),
            "NEOCOG_CACHE": str(setting.work / "cache"),
            "KERAS_HOME": str(setting.work / "keras"),
        }
        log = setting.work / f"{figure.name}-{name}.log"
        with (
            log.open("w", encoding="utf-8") as out,
            subprocess.Popen(
                [sys.executable, "-m", kind.module, str(asked), str(answered)],
                env=env | kind.env | ISA.get(setting.isa, {}),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            ) as process,
        ):
            try:
                yield Contender(process, answered, log)
            finally:
                process.kill()
                with contextlib.suppress(OSError):  # what was still to be said, nobody hears
                    process.stdin.close()  # type: ignore[union-attr]
