"""Many files decoded at once, by small helper programs. Floor 1, room data; imports floor 0.

A decoder is a large piece of C that meets bytes from strangers: it may crash, hang or want all
memory. So files are decoded in helpers alone, one of them even for a single picture: it costs a
tenth of a second. Who asks for `workers=0` does without, and a crash takes the caller along.

Why not `multiprocessing`: its spawned children import the caller's `__main__` again, so that a
script without a guard starts itself over and a notebook may hang. A helper here is a fresh
interpreter that runs `looks.main`, takes one chunk of paths as JSON on its standard input
and answers with a table of fixed rows, remarks as JSON and raw pixels on its standard output. No
pickle, no torch, no NumPy.

What can go wrong with a helper, and what becomes of it:

- It dies: noticed at once, by the end of its output.
- It hangs, is stopped, or waits for a disk that never answers: a helper that is at work says so
  every second, and one that says nothing for `PATIENCE` seconds is killed.
- It wants more memory than decoding may cost: the system refuses, and the file is a fault. The
  helper lives on. (Only where the system says how much memory a process holds: Linux.)

A helper that is lost is replaced. What it had answered stands, the rest of its chunk is tried again
file by file, and the file that takes a helper along once more is reported as a fault like any
other. Each file is answered exactly once, in order, whatever happens.

A server keeps its helpers open, and hands them the bytes of one picture at a time: `Decoders`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections import deque
from typing import TYPE_CHECKING

from neocog.data.files import Remark
from neocog.data.helpers import Crew, LostError, Program
from neocog.data.looks import NOTHING, Batch, Look, Order, looks, pack_files
from neocog.host import cores

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from concurrent.futures import Future

    from neocog.data.helpers import Helper
    from neocog.data.looks import File, Files

__all__ = ["PATIENCE", "Decoders", "look_at_all", "look_in_batches"]

CHUNK = 128
"""Files a message: large enough to hide the cost of a message, small enough to share work out."""
FEW_FILES = 200
FEW_BYTES = 8 * 2**20
"""Up to so many files of so many bytes together, a second helper would cost more than it saves."""
PATIENCE = 25.0
"""Seconds without a sign after which a helper is given up. A sign comes every second, unless one
file takes longer: the largest picture that `Limits` admits takes some two."""


def look_at_all(
    files: Files, order: Order, *, workers: int | None = None, patience: float = PATIENCE
) -> Generator[Look]:
    """One `Look` for each (path, root), in order; arguments and errors as `look_in_batches`."""
    found = look_in_batches(files, order, workers=workers, patience=patience)
    with contextlib.closing(found) as batches:
        for batch in batches:
            yield from batch.looks()


def look_in_batches(
    files: Files, order: Order, *, workers: int | None = None, patience: float = PATIENCE
) -> Generator[Batch]:
    """Read, hash and decode files; whatever is wrong with one comes back as a remark.

    Args:
        files: paths, each with the folder it must not leave; or names, each with a file's bytes.
        order: what is wanted.
        workers: helper programs; None: as many as cores, or one for a small set; 0: none, so that
            a decoder that crashes takes this process along.
        patience: seconds without a sign of a helper after which it is replaced.

    Yields:
        Batches of any length, which cover the files in order.

    Raises:
        NeocogError: helpers cannot be started.
    """
    if not files:
        return
    if workers is None:
        workers = 1 if _is_little(files) else min(cores(), 32)
    if workers < 1 or not sys.executable:
        for file in files:
            yield from looks([file], order)  # one picture in memory at a time
        return
    size = max(1, min(CHUNK, len(files) // (4 * workers)))
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with Crew(min(workers, len(chunks)), _program(order, patience), patience) as crew:
        yield from _run(crew, chunks)


def _is_little(files: Files) -> bool:
    if len(files) > FEW_FILES:
        return False
    total = 0
    for path, root in files:
        with contextlib.suppress(OSError):
            total += len(root) if isinstance(root, bytes) else os.lstat(path).st_size
    return total <= FEW_BYTES


class Decoders:
    """Helpers that stay open and decode single pictures, whose bytes they are given.

    Args:
        order: what is wanted of each.
        workers: helpers, at least one; all else waits, first come, first served.
        patience: seconds after which a helper that is at one picture is given up.
    """

    def __init__(self, order: Order, *, workers: int, patience: float = PATIENCE) -> None:
        self._crew = Crew(workers, _program(order, patience), patience)

    def start(self) -> list[Future[object]]:
        """Start all helpers now. A future raises NeocogError where that fails."""
        return [self._crew.submit(self._crew.helper) for _ in range(self._crew.count)]

    def look(self, name: str, data: bytes) -> Future[Look]:
        """What is in a file. Whatever is wrong with it is a remark, also that it took its helper
        along: it is not tried again. The future raises NeocogError where no helper starts.

        Raises:
            RuntimeError: closed.
        """

        def work() -> Look:
            (found,) = (
                look for batch in _ask_one(self._crew, (name, data)) for look in batch.looks()
            )
            return found

        return self._crew.submit(work)

    def close(self) -> None:
        """End all helpers at once; what waits is cancelled, what is at work comes as a remark."""
        self._crew.close()


def _run(crew: Crew, chunks: Sequence[Files]) -> Iterator[Batch]:
    """All batches in order; only a few chunks ahead, so that memory stays bounded."""
    ahead: deque[Future[list[Batch]]] = deque()
    for chunk in chunks:
        ahead.append(crew.submit(functools.partial(_ask_many, crew, chunk)))
        if len(ahead) > 3 * crew.count:
            yield from ahead.popleft().result()
    while ahead:
        yield from ahead.popleft().result()


def _ask_many(crew: Crew, chunk: Files) -> list[Batch]:
    """One chunk, by this thread's helper; after a loss file by file, to find the culprit."""
    batches: list[Batch] = []
    try:
        batches.extend(_ask(crew.helper(), chunk))
    except LostError:
        crew.replace()
    for file in chunk[sum(len(batch) for batch in batches) :]:
        if crew.closed.is_set():
            break
        batches.extend(_ask_one(crew, file))
    return batches


def _ask_one(crew: Crew, file: File) -> list[Batch]:
    """One file, by this thread's helper; a loss is a remark on it."""
    try:
        return list(_ask(crew.helper(), [file]))
    except LostError as error:
        crew.replace()
        code = "decoder-hung" if error.hung else "decoder-died"
        remark = Remark("file", code, f"the decoder {error.reason}", "skip")
        return [Batch(NOTHING, ((0, remark),), b"")]


def _ask(helper: Helper, files: Files) -> Iterator[Batch]:
    """The batches of some files, as they come.

    Raises:
        LostError: the helper ended before it had answered for all of them.
    """
    left = len(files)
    with helper.asked(*pack_files(files)) as messages:
        while left:
            table, said, pixels = next(messages)
            remarks = tuple((place, Remark(*facts)) for place, *facts in json.loads(said))
            batch = Batch(table, remarks, pixels)
            left -= len(batch)
            yield batch


def _program(order: Order, patience: float) -> Program:
    """`looks.main` with this order."""
    setting = [
        *(order.cover, order.whole, order.pixels),
        dataclasses.asdict(order.limits),
        None if order.mask is None else dataclasses.asdict(order.mask),
        patience,
    ]
    return Program(
        module="neocog.data.looks",
        setting=json.dumps(setting),
        about="file",
        deed="decodes pictures",
        remedy="scan with workers=0 to decode in this process",
    )
