"""The masks of a source, looked at after its pictures. Floor 1, room data; imports floor 0, NumPy.

A mask must be of its picture's size and hold classes only. What is wrong with it is a fault of the
sample. Its numbers are kept in a spool beside that of the pictures, its pixels counted by class.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.data.files import Limits, Remark
from neocog.data.looks import Order
from neocog.data.masks import Values
from neocog.data.samples import MaskSpool
from neocog.data.workers import look_at_all
from neocog.errors import DataError
from neocog.geometry import size_text
from neocog.records import VOID, DataCount
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Found = tuple[NDArray[np.uint8] | None, bytes, tuple[Remark, ...]]
    """A mask H×W, or None where it cannot be used; SHA-256 of what it was read from; remarks."""

    from neocog.data.samples import Part, Source
    from neocog.data.scan import Progress, Scan

__all__ = ["scan_masks"]


def scan_masks(
    source: Source,
    found: Scan,
    *,
    spool: Path,
    ignore: int | None = None,
    few: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Look at the masks of all pictures that can be used.

    Args:
        source: with masks as targets.
        found: what the scan of its pictures found.
        spool: file to write the numbers to.
        ignore: a number that stands for pixels without a label, beside 255.
        few: they are only scored: not every class has to be shown.
        workers: helper programs; as `scan` takes them.
        progress: told how far it is.

    Returns:
        The scan with `masks`; samples whose mask cannot be used are left out, with a fault.

    Raises:
        DataError: no list of classes, and numbers between 0 and the highest that no mask holds.
    """
    used, faults = found.used.copy(), list(found.faults)
    digests = np.zeros_like(found.digests)
    values = Values(classes=len(source.classes) or VOID, ignore=ignore)
    offsets = np.full(len(used), -1, np.int64)
    counts = np.zeros((len(used), VOID), np.int32)
    at, done, total = 0, 0, int(used.sum())
    names = [name for part in source.parts for name in part.names]
    with (
        spool.open("wb") as file,
        contextlib.closing(_masks(source, used, values, workers)) as each,
    ):
        for row, (mask, digest, remarks) in each:
            size = (int(found.heights[row]), int(found.widths[row]))
            if mask is not None and mask.shape != size:
                remarks = (*remarks, _other_size(mask.shape, size))
                mask = None
            faults += [remark.at(names[row]) for remark in remarks]
            used[row] = mask is not None
            if mask is not None:
                offsets[row], at = at, at + file.write(mask.tobytes())
                counts[row] = np.bincount(mask.reshape(-1), minlength=VOID + 1)[:VOID]
                digests[row] = np.frombuffer(digest, np.uint8)
            done += 1
            if progress is not None and done % 64 == 0 and done < total:
                progress("masks", done, total)
    if progress is not None:
        progress("masks", total, total)
    classes = source.classes or _numbered(counts, few)
    kept = int(used.sum())
    return replace(
        found,
        used=used,
        faults=tuple(faults),
        count=DataCount(
            found=found.count.found, used=kept, skipped=found.count.skipped + total - kept
        ),
        masks=MaskSpool(
            path=spool,
            offsets=offsets,
            digests=digests,
            counts=counts[:, : len(classes)],
            classes=classes,
        ),
    )


def _other_size(found: tuple[int, ...], wanted: tuple[int, int]) -> Remark:
    """What is wrong with a mask of another size than its picture's."""
    reason = f"expected a mask of its picture's size {size_text(wanted)}, found {size_text(found)}"
    if found == wanted[::-1]:
        reason += "; a picture is turned upright where its EXIF says so, as its mask is"
    return Remark("mask", "mask-size", reason, "skip")


def _numbered(counts: NDArray[np.int32], few: bool) -> tuple[str, ...]:
    """The numbers up to the highest that masks hold, as names of classes, where no list names them.

    Raises:
        DataError: there are gaps between them, unless they are `few`: 0, 100 and 200 would be 201
            classes.
    """
    seen = np.flatnonzero(counts.any(axis=0)).tolist()
    names = tuple(map(str, range(seen[-1] + 1 if seen else 0)))
    if len(seen) < len(names) and not few:
        told = ", ".join(map(str, seen[:6])) + (", …" if len(seen) > 6 else "")
        raise DataError(
            f"the masks hold the numbers {told}, with gaps between them, and no list names the "
            "classes",
            "number the classes from 0 without gaps, or name all of them, one a line, in "
            "classes.txt",
        )
    return names


def _masks(
    source: Source, used: NDArray[np.bool_], values: Values, workers: int | None
) -> Generator[tuple[int, Found]]:
    """Row and mask of each usable picture, in order."""
    wanted = used.copy()  # the caller takes rows out while this runs
    files: list[tuple[str, str | None]] = []
    for start, part in _starts(source):
        if isinstance(part.masks, tuple):
            root = None if part.root is None else str(part.root)
            rows = np.flatnonzero(wanted[start : start + len(part.names)]).tolist()
            files += [(part.masks[row], root) for row in rows]
    order = Order(mask=values, limits=Limits())
    with contextlib.closing(look_at_all(files, order, workers=workers)) as looks:
        for start, part in _starts(source):
            for row in np.flatnonzero(wanted[start : start + len(part.names)]).tolist():
                if isinstance(part.masks, tuple):
                    look = next(looks)
                    mask = look.array()[..., 0] if look.usable else None
                    where = printable(part.masks[row][len(str(part.root or "")) :].lstrip("/\\"))
                    told = (
                        Remark(one.format, one.code, f"{where}: {one.reason}", one.policy)
                        for one in look.remarks
                    )
                    yield start + row, (mask, look.digest, tuple(told))
                else:
                    assert part.masks is not None
                    yield start + row, _checked(part.masks[row], values)


def _starts(source: Source) -> Iterator[tuple[int, Part]]:
    """Row of the first sample of each part, and the part."""
    start = 0
    for part in source.parts:
        yield start, part
        start += len(part.names)


def _checked(row: NDArray[Any], values: Values) -> Found:
    """One mask of an array, by the rules for a file."""
    numbers = np.asarray(row).astype(np.int64)
    void = numbers == VOID
    if values.ignore is not None:
        void |= numbers == values.ignore
    odd = np.unique(numbers[~void & ((numbers < 0) | (numbers >= values.classes))])
    if len(odd):
        told = ", ".join(map(str, odd[:4].tolist())) + (", …" if len(odd) > 4 else "")
        reason = f"expected classes from 0 to {values.classes - 1} or {VOID} for no label, found "
        return None, b"", (Remark("npz", "class-range", reason + told, "skip"),)
    mask = np.where(void, VOID, numbers).astype(np.uint8)
    remarks: tuple[Remark, ...] = ()
    if void.all():
        remarks = (Remark("npz", "all-unlabelled", "no pixel of this mask has a label"),)
    return mask, hashlib.sha256(mask.tobytes()).digest(), remarks
