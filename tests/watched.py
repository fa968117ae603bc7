"""Opens model files while everything that Python does is written down: a program of its own.

    python tests/watched.py CASES

CASES is a JSON file: a list of {path, engine, folder, plant}. It prints, for each case, what came
of it and what was done outside the case's folder. With a `plant` the case does that instead of
opening the path: the proof that it would be noticed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

NOTED = (
    *("open", "exec", "compile", "import", "marshal.loads", "pickle.find_class"),
    *("ctypes.dlopen", "ctypes.dlsym", "mmap.__new__", "subprocess.Popen", "shutil.unpack_archive"),
    *("tempfile.mkstemp", "tempfile.mkdtemp", "urllib.Request"),
)
"""Events that are written down, beside all of `os` and `socket`."""
HARMLESS = ("os.listdir", "os.scandir")
"""Looking into a folder; those of a case are the only ones that are named."""
_SOURCE = Path(__file__).resolve().parent.parent / "src"
SYSTEM = (sys.prefix, sys.base_prefix, str(_SOURCE), "/proc/", "/sys/", "/dev/null", "/dev/urandom")
"""Where Python and the libraries that are installed have their files."""


class Notes:
    """Of one case."""

    def __init__(self) -> None:
        self.named, self.folder = "", ""
        self.found: list[str] = []
        self.on = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not (event in NOTED or event.startswith(("os.", "socket."))):
            return
        self.on = False  # what is done to write it down is not written down
        try:
            if not self._allowed(event, arguments):
                self.found.append(f"{event} {arguments!r:.200}")
        finally:
            self.on = True

    def _allowed(self, event: str, arguments: tuple[Any, ...]) -> bool:
        first = arguments[0] if arguments else None
        if event == "import":
            return str(first).partition(".")[0] in sys.modules or self._within(arguments[1])
        if event == "exec":
            return self._within(first.co_filename)
        if event == "open":
            # A number is a file that was opened by its name before; that was seen then.
            # The path that was asked for may be a link: whoever asked chose where it leads.
            named = first is not None and str(first) == self.named
            return named or isinstance(first, int) or self._within(first, self.folder)
        if event == "compile":
            return self._within(arguments[1])
        if event in HARMLESS:
            return self._within(first, self.folder)
        return event == "marshal.loads" and _importing()

    def _within(self, path: Any, *more: str) -> bool:
        if not path or path == "<frozen importlib._bootstrap>":
            return path is None
        plain = os.path.realpath(os.fsdecode(path))  # where a link leads to
        return plain.startswith((*SYSTEM, *more))


def _importing() -> bool:
    """Whether Python's own loader is reading a compiled module now."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == "<frozen importlib._bootstrap_external>":
            return True
    return False


def _planted(what: str, path: str) -> None:
    """Things that opening a model must never do."""
    if what == "python opens":
        with open(path, "rb") as file:  # noqa: PTH123
            file.read()
    elif what == "library opens":
        import onnxruntime

        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    elif what == "unpickles":
        import pickle

        pickle.loads(Path(path).read_bytes())
    elif what == "runs":
        os.system("true")
    elif what == "starts":
        os.posix_spawn("/bin/true", ["true"], {})
    elif what == "connects":
        import socket

        with socket.socket() as made:
            made.settimeout(0.1)
            made.connect_ex(("127.0.0.1", 9))
    elif what == "loads":
        import ctypes

        ctypes.CDLL(None)
    elif what == "imports":
        sys.path.insert(0, path)
        __import__("planted_module")


def main() -> None:
    """See above."""
    notes = Notes()
    sys.addaudithook(notes)
    from neocog.errors import NeocogError
    from neocog.runtime.opened import open_engine

    told = []
    for case in json.loads(Path(sys.argv[1]).read_text()):
        notes.named = "" if case.get("plant") else case["path"]
        notes.folder, notes.found = os.path.realpath(case["folder"]) + "/", []
        notes.on = not case.get("warm")
        outcome = "opened"
        try:
            if case.get("plant"):
                _planted(case["plant"], case["path"])
            else:
                open_engine(case["path"], engine=case["engine"], device="cpu", threads=1)
        except NeocogError as error:
            outcome = f"{type(error).__name__}: {error.message}"
        except Exception as error:  # noqa: BLE001 - whatever else it is, it is a finding
            outcome = f"NOT OURS: {type(error).__name__}: {error}"
        finally:
            notes.on = False
        told.append({"outcome": outcome, "done": notes.found})
    print(json.dumps(told))


if __name__ == "__main__":
    main()
