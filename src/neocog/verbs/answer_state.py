"""How far a table of answers has come, in a small file beside it. Floor 5, room verbs.

Imports floor 0. The file is replaced after each time that rows have reached the disk, so what it
says of the table is never more than is there. It stays when the table is done, and says what is in
it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neocog.errors import RunError
from neocog.files import read_json, write_json
from neocog.text import printable
from neocog.verbs.answer_files import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Asks", "Listing", "State"]

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What decides a table; where one of them differs, it cannot go on."""

    digest: str
    """Of the network, as the engine has it."""
    engine: str
    """Whose arithmetic it is."""
    device: str
    """Where it computes."""
    threads: int
    """Of the engine; sums of floats may depend on them."""
    sources: tuple[str, ...]
    """Files and folders as they were named."""
    columns: tuple[str, ...]
    """Of the table."""
    out: str
    """Folder of masks; empty where none are written."""


_WORDS = {
    "digest": "was written by another network: its digest is",
    "engine": "was written with another engine:",
    "device": "was written on another device:",
    "threads": "was written with other threads:",
    "sources": "is about other files:",
    "columns": "has other columns:",
    "out": "has its masks in another folder:",
}


@dataclass(slots=True, kw_only=True)
class State:
    """How far it has come."""

    asks: Asks
    """What decides it."""
    found: int = 0
    """Rows that are on the disk for sure."""
    skipped: int = 0
    """Those of them with an error."""
    seconds: float = 0.0
    """Spent on them, by all commands together."""
    kept: int = 0
    """Bytes of the CSV file, or parts of the Parquet table."""
    files: int = 0
    """Files that were begun."""
    samples: int = 0
    """Samples of the last of them that were answered."""
    listing: str = field(default_factory=lambda: Listing().digest)
    """`Listing.digest` of these files."""
    finished: bool = False
    """Whether all files were answered for."""

    @staticmethod
    def file_of(table: Path) -> Path:
        """Where the state of a table is written."""
        return table.with_name(f"{table.name}.progress.json")

    @staticmethod
    def clear(table: Path) -> None:
        """Delete what a killed process left of the file half-written; only where none is at it."""
        name = glob.escape(f".{State.file_of(table).name}.")
        for path in table.parent.glob(f"{name}*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()

    def write(self, table: Path) -> None:
        """Replace the file.

        Raises:
            RunError: it cannot be written.
        """
        values = dataclasses.asdict(self)
        first = {"format": FORMAT, "found": self.found, "used": self.found - self.skipped}
        write_json(self.file_of(table), {**first, **values})

    @staticmethod
    def read(table: Path) -> State | None:
        """The state of a table; None where there is none.

        Raises:
            RunError: it is damaged.
        """
        path = State.file_of(table)
        if not path.exists():
            return None
        try:
            values: dict[str, Any] = read_json(path)
            if values.pop("format") != FORMAT:
                raise RunError(f"{path} was written by another version of neocog", AGAIN)
            del values["used"]
            plain = values.pop("asks").items()
            asks: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain}
            state = State(asks=Asks(**asks), **values)
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error}", AGAIN) from error
        numbers = (state.found, state.skipped, state.kept, state.files, state.samples)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise RunError(f"{path} is damaged: expected counts, found {numbers}", AGAIN)
        return state

    def refuse_other(self, asks: Asks, table: Path) -> None:
        """Go on only with what was begun.

        Raises:
            RunError: something that decides the table differs, naming it.
        """
        for name, words in _WORDS.items():
            was, now = getattr(self.asks, name), getattr(asks, name)
            if was != now:
                raise RunError(f"{table} {words} {_short(was)}, now {_short(now)}", AGAIN)


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


class Listing:
    """A print of paths in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, path: str) -> None:
        """One more path."""
        self._hash.update(path.encode("utf-8", "surrogateescape") + b"\0")
        self.count += 1

    @property
    def digest(self) -> str:
        """SHA-256 of the paths so far, in hexadecimal."""
        return self._hash.hexdigest()

    def skip(self, paths: Iterator[str], state: State, table: Path) -> str:
        """Take the files that were begun from the paths, and give the last of them.

        Raises:
            RunError: they are no longer the same.
        """
        path = ""
        for path in paths:
            self.add(path)
            if self.count == state.files:
                break
        if (self.count, self.digest) != (state.files, state.listing):
            raise RunError(
                f"{table} cannot go on: the first {state.files:,} files, which it answers for, are "
                f"no longer the same (now up to {printable(path)})",
                AGAIN,
            )
        return path
