"""Answers for a folder of any size, to a table on the disk. Floor 5, room verbs.

Rows are written as they come and never collected. After Ctrl-C or SIGTERM, which are heeded at the
end of a batch, and after a kill or a full disk, the same command goes on where the table ends, and
the finished table is that of a command that was never stopped: batches end where they would have
ended, because a table is committed at the end of one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from neocog import __version__
from neocog.data.walk import count_below, pictures_below
from neocog.engine.stopping import Signals, Stopped
from neocog.errors import ConfigError, DataError, RunError
from neocog.host import memory_kept
from neocog.lock import locked
from neocog.runtime import answering
from neocog.text import printable
from neocog.verbs.answer_files import AGAIN, CsvTable, ParquetTable
from neocog.verbs.answer_rows import Columns
from neocog.verbs.answer_state import Asks, Listing, State
from neocog.verbs.console import Console, clock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from neocog.runtime.answering import Answered
    from neocog.runtime.engine import Engine
    from neocog.verbs.answer_files import Table
    from neocog.verbs.mask_files import MaskFiles

__all__ = ["Wanted", "paths_of", "tell", "write_table"]

TOLD = 30.0
"""Seconds between two lines about progress where there is no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A table that is asked for."""

    to: Path
    """`FILE.csv`, or `FILE.parquet` for a folder of parts."""
    sources: tuple[str, ...]
    """Files, and folders that stand for the pictures below them."""
    each: bool = False
    """Whether each class has a column."""
    out: Path | None = None
    """Folder for masks; None: none are written."""
    overlay: bool = False
    """Whether overlays are written beside them."""
    again: bool = False
    """Whether a table that is there is replaced."""

    def __post_init__(self) -> None:
        if self.to.suffix.lower() not in (".csv", ".parquet"):
            raise ConfigError(
                f"expected a table .csv or .parquet, found {self.to}", "--to FILE.csv"
            )


def paths_of(sources: Sequence[str]) -> Iterator[str]:
    """The files that sources stand for, one by one, in a fixed order.

    Raises:
        DataError: a folder that cannot be listed.
    """
    for source in sources:
        if not Path(source).is_dir():
            yield source
            continue
        yield from pictures_below(source)


def count_of(sources: Sequence[str]) -> int:
    """How many files sources stand for.

    Raises:
        DataError: a folder without pictures, or one that cannot be listed.
    """
    total = 0
    for source in sources:
        count = count_below(source) if Path(source).is_dir() else 1
        if not count:
            raise DataError(f"{printable(source)} holds no image files")
        total += count
    return total


def write_table(
    wanted: Wanted,
    opened: Callable[[State | None, int], Engine],
    console: Console,
    masks: Callable[[Engine], MaskFiles | None] = lambda _: None,
    signals: Signals | None = None,
) -> dict[str, Any]:
    """Write a table, or the rest of one.

    Args:
        wanted: which.
        opened: gives the engine; told what was begun, whose engine must be taken again, and of how
            many files.
        console: told how far it has come.
        masks: gives what draws masks, where they are wanted.
        signals: heeded at the end of a batch, which is written before.

    Returns:
        `to`, `found`, `used`, `skipped`, `seconds`, `images_per_second`, `engine`, `resumed`: rows
        in all, those with an answer, those with an error; what this command took, and how many rows
        it wrote a second; rows that were there when it began.

    Raises:
        RunError: a table that is there and cannot go on, or a disk that fails.
        DataError: a folder without pictures, or one that cannot be listed.
        ConfigError: columns that the task has not, or a library that is missing.
        Stopped: by a signal; what was answered until then is in the table.
    """
    to = wanted.to
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {to.parent}: {error.strerror or error}") from error
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(to.parent, f".{to.name}.lock"))
        except RunError as error:
            if "in use" not in error.message:
                raise
            raise RunError(f"{to} is being written by another process", "wait for it") from error
        State.clear(to)
        before = None if wanted.again else State.read(to)
        if before is None and not wanted.again and to.exists():
            raise RunError(f"{to} is there, and was not begun by this command", AGAIN)
        total = count_of(wanted.sources)
        engine = opened(before, total)
        writer = _Writer(wanted, engine, before, masks(engine))
        return writer.run(_Pace(console, total), signals or Signals())


class _Pace:
    """Tells how far it has come: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.first = 0
        self.began = self.told = time.monotonic()
        self.bar: Progress | None = None

    def start(self, first: int) -> None:
        """Say where it begins: files that were done before."""
        self.first = first
        self.began = self.told = time.monotonic()
        if self.console.terminal:
            columns = TextColumn("{task.description}"), BarColumn(bar_width=30)
            self.bar = Progress(*columns, console=self.console.rich, transient=True)
            self.bar.add_task("", total=self.total)
            self.bar.start()

    def at(self, files: int, rows: int) -> None:
        """Say how far: files in all, and rows of this command."""
        now = time.monotonic()
        spent, done = now - self.began, files - self.first
        left = spent / max(1, done) * max(0, self.total - files)
        text = f"{files:,} of {self.total:,} files  {rows / max(1e-9, spent):,.1f} images/s"
        text += f"  {clock(left)} left"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description=text, completed=files)
        elif now - self.told >= TOLD:
            self.told = now
            self.console.say(text)

    def halted(self, table: Path, files: int) -> None:
        """Say that it was stopped, and how far it had come."""
        self.stop()
        self.console.say(
            f"{table}: stopped at {files:,} of {self.total:,} files; the same command goes on"
        )

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()


class _Writer:
    """One table, its state and the engine.

    Args:
        wanted: the table.
        engine: who answers.
        before: the state in which the table is; None: it begins.
        masks: draws them; None: nobody does.
    """

    def __init__(
        self, wanted: Wanted, engine: Engine, before: State | None, masks: MaskFiles | None
    ) -> None:
        self.wanted = wanted
        self.engine = engine
        self.masks = masks
        drawn = ("mask", "overlay")[: 1 + wanted.overlay] if masks else ()
        self.columns = Columns.of(engine.described, each=wanted.each, drawn=drawn)
        asks = Asks(
            digest=engine.digest,
            engine=engine.kind,
            device=str(engine.settings.get("device", "cpu")),
            threads=int(engine.settings.get("threads", 0)),
            sources=tuple(map(printable, wanted.sources)),
            columns=self.columns.names,
            out=printable(str(wanted.out)) if masks else "",
        )
        if before is not None:
            before.refuse_other(asks, wanted.to)
        self.state = before or State(asks=asks)
        self.resumed = self.state.found
        self.listing = Listing()

    def run(self, pace: _Pace, signals: Signals) -> dict[str, Any]:
        """Write what is left of the table; see `write_table`."""
        began, state = time.monotonic(), self.state
        paths = paths_of(self.wanted.sources)
        first = state.files
        if first:
            paths = itertools.chain([self.listing.skip(paths, state, self.wanted.to)], paths)
        if state.finished:
            self._refuse_more(paths)
        else:
            state.write(
                self.wanted.to
            )  # before the table: without it nobody would know whose it is
            with contextlib.closing(self._table()) as table, memory_kept():
                pace.start(first)
                try:
                    with signals.patient():
                        self._fill(table, paths, first, pace, signals)
                finally:
                    pace.stop()
        seconds = time.monotonic() - began
        new = state.found - self.resumed
        return {
            "to": str(self.wanted.to),
            "found": state.found,
            "used": state.found - state.skipped,
            "skipped": state.skipped,
            "seconds": round(seconds, 3),
            "images_per_second": round(new / seconds, 2) if new and seconds else 0.0,
            "engine": {"kind": self.engine.kind, **self.engine.settings},
            "resumed": self.resumed,
        }

    def _refuse_more(self, paths: Iterator[str]) -> None:
        """A table that is done holds all there is.

        Raises:
            RunError: there is more now.
        """
        next(paths, None)  # the last one that it answers for
        if (more := next(paths, None)) is not None:
            raise RunError(
                f"{self.wanted.to} is finished, and now there is also {printable(more)}", AGAIN
            )

    def _table(self) -> Table:
        """The table, cut to what is sure of it."""
        to, kept = self.wanted.to, self.state.kept
        if to.suffix.lower() == ".csv":
            return CsvTable(to, self.columns, kept)
        about = {
            "version": __version__,
            "digest": self.state.asks.digest,
            "engine": self.state.asks.engine,
            "task": self.columns.task,
        }
        return ParquetTable(to, self.columns, {"neocog": json.dumps(about)}, kept)

    def _fill(
        self, table: Table, paths: Iterator[str], first: int, pace: _Pace, signals: Signals
    ) -> None:
        """Append the rows of all batches, and commit now and then.

        Raises:
            Stopped: by a signal; all that was appended is committed.
        """
        state, last = self.state, time.monotonic()
        found, skipped, done = state.found, state.skipped, state.samples
        asked = answering.samples(self.engine.described, paths)
        if first:  # the last file that was begun is opened again, for what is left of it
            asked = _after(asked, done)
        files, samples = first, done
        with contextlib.closing(answering.batches(self.engine, asked)) as batches:
            for batch in batches:
                for one in batch:
                    if one.asked.place == 0:
                        self.listing.add(one.asked.path)
                    if self.masks is not None and one.sample is not None:
                        self._draw(one)
                table.add([self.columns.row(one) for one in batch])
                found += len(batch)
                skipped += sum(one.sample is None for one in batch)
                files, samples = self.listing.count, batch[-1].asked.place + 1
                pace.at(files, found - self.resumed)
                now = time.monotonic()
                stopped = _stopped(signals)
                if stopped or table.full or now - last >= table.seconds:
                    state.seconds += now - last
                    state.found, state.skipped = found, skipped
                    self._commit(table, files, samples)
                    last = now
                if stopped:
                    pace.halted(self.wanted.to, files)
                    raise stopped
        state.seconds += time.monotonic() - last
        state.found, state.skipped, state.finished = found, skipped, True
        self._commit(table, files, samples)

    def _commit(self, table: Table, files: int, samples: int) -> None:
        """Rows to the disk first, what is said of them then."""
        state = self.state
        state.kept = table.commit()
        state.files, state.samples, state.listing = files, samples, self.listing.digest
        state.write(self.wanted.to)

    def _draw(self, one: Answered) -> None:
        """Write the mask of a sample, in which its path takes its place."""
        if "mask" in one.entry and self.masks is not None and one.sample is not None:
            self.masks.write(one.entry, one.sample, _name(one, self.wanted.sources))


def _stopped(signals: Signals) -> Stopped | None:
    """What a signal that has come is raised as."""
    try:
        signals.check()
    except Stopped as stopped:
        return stopped
    return None


def _after(asked: Generator[answering.Asked], done: int) -> Generator[answering.Asked]:
    """Without the first samples of the first file."""
    with contextlib.closing(asked):
        for one in asked:
            if one.file or one.place >= done:
                yield one


def _name(one: Answered, sources: Sequence[str]) -> str:
    """What the mask of a sample is called, which no other one is: the path below the folder, or
    without its root where there are several sources, with its ending."""
    path = one.asked.path
    if len(sources) == 1 and Path(sources[0]).is_dir():
        name = os.path.relpath(path, sources[0])
    else:
        name = os.path.splitdrive(Path(path).resolve())[1].lstrip(os.sep)
    return name + one.asked.name.removeprefix(path).replace(":", "-").replace("[", "-").strip("]")


def tell(summary: dict[str, Any]) -> str:
    """The summary for people.

    >>> tell({"to": "a.csv", "found": 1200, "used": 1199, "skipped": 1, "seconds": 2.0,
    ...       "images_per_second": 600.0, "engine": {"kind": "torch"}, "resumed": 0})
    'a.csv: 1,200 rows = 1,199 answered + 1 not read; 0:02, 600.0 images/s'
    """
    text = (
        f"{summary['to']}: {summary['found']:,} rows = {summary['used']:,} answered + "
        f"{summary['skipped']:,} not read"
    )
    if summary["resumed"] == summary["found"]:
        return f"{text}; it was done before"
    if summary["resumed"]:
        text += f"; went on after {summary['resumed']:,}"
    return f"{text}; {clock(summary['seconds'])}, {summary['images_per_second']:,.1f} images/s"
