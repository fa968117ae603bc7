"""What to do with a pickle: name it, or have a child process take the tensors out of it. Floor 1,
room weights; standard library and floor 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from neocog.errors import RunError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Found", "Limits", "converted", "identify", "told"]

_SAID = 4000
"""Bytes of the child's last words that are read."""
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")
"""Of the environment the child gets what a program needs to start; secrets stay here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What reading a pickle may cost. None: enough for an honest file of its size."""

    seconds: float | None = None
    """Until the child is ended, and of processor time."""
    memory: int | None = None
    """Bytes of address space beyond what PyTorch itself takes; Linux only."""
    output: int | None = None
    """Bytes of the tensors that come out."""

    def for_size(self, size: int) -> tuple[float, int, int]:
        """Seconds, memory and output for a file of so many bytes."""
        return (
            120 + size / 10e6 if self.seconds is None else self.seconds,
            2**30 + 4 * size if self.memory is None else self.memory,
            2**26 + 2 * size if self.output is None else self.output,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a file is that is no safetensors file."""

    words: str
    """For people."""
    readable: bool = False
    """Whether `pickle=True` reads it."""
    hint: str = ""
    """What to do about it, where it is not readable."""

    def remedy(self, where: str) -> str:
        """What to do about it."""
        if not self.readable:
            return self.hint
        return (
            "a pickle is a program and may do anything; to take only the tensors out of it, in a "
            f"process that may not use the network: neocog weights {where} --pickle "
            "--out FILE.safetensors (in Python: pickle=True)"
        )


_NUMPY = "save its arrays with safetensors; NumPy files are not read as weights"
_SIGNS = (
    (rb"PK\x03\x04", Found("a zip archive, as PyTorch's .pt and .pth are: a pickle", True)),
    (rb"\x80[\x00-\x05]", Found("a pickle, as PyTorch's old .pt and .pth are", True)),
    (
        rb"\x93NUMPY.{2,4}\{'descr': [^}]*\|?O'",
        Found("a NumPy array of objects, which is a pickle", hint=_NUMPY),
    ),
    (rb"\x93NUMPY", Found("a NumPy array", hint=_NUMPY)),
    (
        rb"\(?[ci][\w.]+\n[\w.]+\n|[(\]}][dlpqtu(\]}]",
        Found("a pickle of an old protocol", hint="save it again with safetensors"),
    ),
    (
        rb"version https://git-lfs",
        Found("a Git LFS pointer", hint="fetch the real file with `git lfs pull`"),
    ),
    (rb"\s*<(!DOCTYPE|html)", Found("a web page", hint="download the file itself")),
    (rb"\x89HDF", Found("an HDF5 file", hint="save it again with safetensors")),
    (rb"\x1f\x8b", Found("a gzip file", hint="unpack it first")),
)


def identify(head: bytes) -> Found | None:
    """What a file is by its first bytes; None: perhaps safetensors.

    The length that begins a safetensors file can be any bytes, those of a pickle included; but then
    its last four are 0, and `{` follows, which no pickle has there.

    >>> identify((640).to_bytes(8, "little") + b'{"w":') is None
    True
    >>> identify(b"\\x80\\x02}q").words
    "a pickle, as PyTorch's old .pt and .pth are"
    """
    if head[4:9] == b"\0\0\0\0{":
        return None
    for sign, found in _SIGNS:
        if re.match(sign, head, re.DOTALL | re.IGNORECASE):
            return found
    return None


@contextlib.contextmanager
def converted(file: BinaryIO, size: int, where: str, limits: Limits) -> Iterator[Path]:
    """The tensors of a .pt or .pth file as a safetensors file, made by a child process.

    The child gets the open file as its standard input, and no name of it; see `child`.

    Args:
        file: open, at its start.
        size: its bytes.
        where: its name for errors.
        limits: what it may cost.

    Yields:
        The safetensors file, which exists as long as the context.

    Raises:
        RunError: it cannot be read within the limits, or it holds more than data.
    """
    seconds, memory, output = limits.for_size(size)
    with tempfile.TemporaryDirectory(prefix="neocog-") as folder, tempfile.TemporaryFile() as said:
        made = Path(folder) / "weights.safetensors"
        setting = json.dumps([str(made), seconds, memory, output])
        code = _run(file, said, setting, folder, seconds)
        if code != 0:
            raise RunError(
                f"{where} was not read: {_ended(code, _last_line(said), seconds)}",
                "where you trust it, save its state_dict() with safetensors.torch.save_file",
            )
        yield made


def told(metadata: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """What the child wrote beside the tensors: where they lay, and what else there was.

    Raises:
        RunError: it did not write that.
    """
    try:
        under, left = json.loads(metadata["neocog"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunError("the process that reads pickles did not say what it found") from error
    return str(under), tuple(str(one) for one in left)


def _run(file: BinaryIO, said: IO[bytes], setting: str, folder: str, seconds: float) -> int | None:
    """The child's exit code; None: it took too long and was ended."""
    # The child gets this process's own search path: it finds what this one found.
    program = (
        "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
        "from neocog.weights.child import main; main(sys.argv[2])"
    )
    paths = json.dumps([str(Path(path).absolute()) for path in sys.path])
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", program, paths, setting],
            stdin=file,
            stdout=said,
            stderr=said,
            cwd=folder,
            env={**kept, **quiet},
            start_new_session=True,  # Ctrl-C reaches this process, which ends the child
        )
    except OSError as error:
        raise RunError(f"the process that reads pickles did not start: {error}") from error
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        process.kill()
        process.wait()


def _ended(code: int | None, last: str, seconds: float) -> str:
    """Why the child gave no tensors, in words."""
    if code is None:
        return f"it took longer than {seconds:g} seconds"
    if code > 0:
        return last or f"the process that read it failed with code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        if name == "SIGXCPU":
            return f"it took more than {seconds:g} seconds of processor time"
        return f"the process that read it was ended by {name}"
    return f"the process that read it was ended by signal {-code}"


def _last_line(said: IO[bytes]) -> str:
    length = said.seek(0, os.SEEK_END)
    said.seek(max(0, length - _SAID))
    lines = said.read().decode(errors="replace").strip().splitlines()
    return printable(lines[-1]) if lines else ""
