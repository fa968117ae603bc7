"""CIFAR-10 and CIFAR-100 in their binary edition. Floor 1, room data; imports floor 0 and NumPy.

A record is one label byte (CIFAR-100: a coarse one, then a fine one) and 3072 pixels, all red, then
green, then blue, 32 rows of 32 (A. Krizhevsky, "Learning multiple layers of features from tiny
images", 2009). The Python and Matlab editions are pickles: they are named and never opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from neocog.data.names import refuse_lookalikes
from neocog.data.opened import open_regular, visible
from neocog.data.samples import Part, Source
from neocog.errors import DataError
from neocog.records import Fault
from neocog.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["has_cifar_name", "read_cifar", "refuse_pickles"]

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edition:
    """What tells the two sets apart."""

    title: str
    labels: int
    """Label bytes a record; the last one counts."""
    classes: int
    names_file: str
    files: re.Pattern[str]
    expected: tuple[str, ...]
    pickles: str
    binary: str

    @property
    def record(self) -> int:
        return self.labels + _PIXELS


_EDITIONS = (
    _Edition(
        title="CIFAR-10",
        labels=1,
        classes=10,
        names_file="batches.meta.txt",
        files=re.compile(r"(data|test)_batch(_\d+)?\.bin", re.IGNORECASE),
        expected=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        pickles=r"(data_batch_\d|test_batch|batches\.meta)(\.mat)?",
        binary="cifar-10-binary.tar.gz",
    ),
    _Edition(
        title="CIFAR-100",
        labels=2,
        classes=100,
        names_file="fine_label_names.txt",
        files=re.compile(r"(train|test)\.bin", re.IGNORECASE),
        expected=("train.bin", "test.bin"),
        pickles=r"(train|test|meta)(\.mat)?",
        binary="cifar-100-binary.tar.gz",
    ),
)


def has_cifar_name(name: str) -> bool:
    """Whether a file is called like one of the binary editions.

    >>> has_cifar_name("data_batch_1.bin"), has_cifar_name("data_batch_1")
    (True, False)
    """
    return any(edition.files.fullmatch(name) for edition in _EDITIONS)


def refuse_pickles(paths: list[Path]) -> None:
    """Refuse the pickled edition, told by its names and its first byte; it is never unpickled.

    Raises:
        DataError: saying which edition to get instead.
    """
    for path in paths:
        for edition in _EDITIONS:
            if not re.fullmatch(edition.pickles, path.name) or not path.is_file():
                continue
            with open_regular(path) as file:
                head = file.read(6)
            # Protocol 2 and later begin with 80; protocol 0 of these files with a dictionary mark.
            if head[:1] == b"\x80" or head[:2] == b"(d" or head == b"MATLAB":
                name = edition.title.lower().replace("-", "")
                raise DataError(
                    f"{printable(str(path))}: expected the binary edition of {edition.title}, "
                    "found a pickled or Matlab one, which is never opened: pickles can run code",
                    f"get {edition.binary}, or name the set {name}",
                )


def read_cifar(folder: Path, name: str = "") -> Source:
    """The binaries of a folder, or one of them.

    Class names come from `batches.meta.txt` or `fine_label_names.txt`; where they are missing the
    classes are called by their numbers and that is reported.

    Raises:
        DataError: a size that is no multiple of the record, one set opened as the other, a bad list
            of names, or no usable record.
    """
    beside = {entry.name for entry in visible(folder)}
    paths = [folder / name] if name else [folder / n for n in sorted(beside) if has_cifar_name(n)]
    edition = _edition(paths, beside, printable(str(folder)))
    names, faults = _names(edition, folder, beside)
    if not name:
        lower = {n.lower() for n in beside}
        faults += [
            _fault(file, "missing-part", f"expected {file}, found no such file", "accept")
            for file in edition.expected
            if file not in lower
        ]
    parts = []
    skipped = 0
    for path in paths:
        part, bad = _part(path, edition, names)
        faults += bad
        skipped += len(bad)
        if part is not None:
            parts.append(part)
    if not parts:
        raise DataError(
            f"{printable(str(folder))}: expected labels below {edition.classes}, found none",
            "the file is damaged or in another format",
        )
    return Source(
        kind="cifar",
        target="class",
        classes=names,
        parts=tuple(parts),
        faults=tuple(faults),
        skipped=skipped,
    )


def _fault(
    path: str, code: str, reason: str, policy: Literal["skip", "accept"], offset: int | None = None
) -> Fault:
    return Fault(path=path, format="cifar", code=code, reason=reason, policy=policy, offset=offset)


def _edition(paths: list[Path], beside: set[str], where: str) -> _Edition:
    """By the names; else by the list of class names beside it; else by the size."""
    named = [e for e in _EDITIONS if any(e.files.fullmatch(p.name) for p in paths)]
    listed = [e for e in _EDITIONS if e.names_file in beside]
    if len(named) > 1 or (named and len(listed) == 1 and listed != named):
        raise DataError(
            f"{where}: expected CIFAR-10 or CIFAR-100, found files of both",
            "put each set into a folder of its own",
        )
    sizes = [_size(path) for path in paths]
    fits = [e for e in _EDITIONS if not any(size % e.record for size in sizes)]
    choice = named or (listed if len(listed) == 1 else fits)
    if len(choice) != 1:
        raise DataError(
            f"{where}: expected records of 3073 bytes (CIFAR-10) or 3074 (CIFAR-100), found "
            f"{sizes[0]:,} bytes, which fits {'both' if choice else 'neither'}",
            "name the file as the edition does, for example data_batch_1.bin or train.bin",
        )
    edition = choice[0]
    for path, size in zip(paths, sizes, strict=True):
        if size == 0:
            raise DataError(f"{printable(path.name)}: the file is empty", "download it again")
        if size % edition.record:
            others = [e.title for e in _EDITIONS if e is not edition and size % e.record == 0]
            raise DataError(
                f"{printable(path.name)}: expected {edition.title} records of {edition.record} "
                f"bytes, found {size:,} bytes, "
                + (f"which are records of {others[0]}" if others else "no multiple of that"),
                f"this is {others[0]} under the names of {edition.title}: rename the file"
                if others
                else "the file is cut short: download it again",
            )
    return edition


def _size(path: Path) -> int:
    with open_regular(path):
        return path.stat().st_size


def _names(
    edition: _Edition, folder: Path, beside: set[str]
) -> tuple[tuple[str, ...], list[Fault]]:
    if edition.names_file not in beside:
        reason = f"expected {edition.names_file}, found none: classes are called by their numbers"
        fault = _fault(edition.names_file, "missing-names", reason, "accept")
        return tuple(map(str, range(edition.classes))), [fault]
    with open_regular(folder / edition.names_file) as file:
        text = file.read(1 << 16).decode("utf-8", "surrogateescape")
    names = tuple(printable(line.strip()) for line in text.splitlines() if line.strip())
    if len(set(names)) != edition.classes or len(names) != edition.classes:
        raise DataError(
            f"{edition.names_file}: expected {edition.classes} different names, one a line, found "
            f"{len(names)} names, {len(set(names))} of them different",
            f"take the file from {edition.binary}",
        )
    refuse_lookalikes(names, edition.names_file)
    return names, []


def _part(path: Path, edition: _Edition, names: tuple[str, ...]) -> tuple[Part | None, list[Fault]]:
    where = printable(path.name)
    with open_regular(path) as file:
        try:
            records = np.fromfile(file, np.uint8)
        except MemoryError as error:
            raise DataError(
                f"{where}: does not fit into memory", "split it into batches"
            ) from error
    if records.size % edition.record:
        raise DataError(f"{where}: the file changed while it was read", "try again")
    records = records.reshape(-1, edition.record)
    labels = records[:, edition.labels - 1]
    good = labels < edition.classes
    if edition.labels == 2:
        good &= records[:, 0] < 20  # the coarse label tells records apart from shifted bytes
    split = "test" if where.lower().startswith("test") else "train"
    if not has_cifar_name(path.name):
        split = ""
    stem = where.removesuffix(".bin")
    faults = [
        _fault(
            f"{stem}[{i}]",
            "label-range",
            f"expected a label below {edition.classes}, "
            f"found {records[i, : edition.labels].tolist()}",
            "skip",
            int(i) * edition.record,
        )
        for i in np.flatnonzero(~good)
    ]
    if len(faults) == len(records):
        return None, faults
    kept = np.flatnonzero(good)
    part = Part(
        names=tuple(f"{stem}[{i}]" for i in kept.tolist()),
        splits=(split,) * len(kept),
        targets=tuple(map(names.__getitem__, labels[kept].tolist())),
        pixels=_pixels(
            records[:, edition.labels :] if not faults else records[kept, edition.labels :]
        ),
    )
    return part, faults


def _pixels(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """N×3072, planes of red, green and blue → N×32×32×3."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
