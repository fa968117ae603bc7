"""Look at every sample before anything is trained on it. Floor 1, room data; imports floor 0.

The scan reads, hashes and decodes each file once, in parallel, and says what is wrong. Pixels that
the pack will need are kept in a spool on the way, so that most sets are decoded exactly once. No
torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
from collections import Counter
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from neocog.data.decode import SMALL
from neocog.data.files import Limits, Remark
from neocog.data.looks import Batch, Order
from neocog.data.twins import twins
from neocog.data.workers import look_in_batches
from neocog.errors import DataError
from neocog.geometry import noun, size_text
from neocog.records import DataCount, Fault
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.data.samples import MaskSpool, Part, Source

__all__ = [
    "SPOOL_START",
    "Progress",
    "Scan",
    "Spool",
    "refuse",
    "refuse_empty_classes",
    "scan",
    "write_faults",
]

SPOOL_START = 256
"""Bytes before the first pixel of a spool: room for the header that makes it a .npy file."""


class Progress(Protocol):
    """Told how far a long step has come."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`what` is `scan` or `pack`; `done` of `total` samples are finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """Pixels that the scan decoded, one picture after the other, in the order of the samples."""

    path: Path
    """`SPOOL_START` bytes of nothing, then H×W×C uint8 of each picture that was kept."""
    offsets: NDArray[np.int64]
    """N; byte where a sample's pixels begin; −1: not in the spool."""
    heights: NDArray[np.int64]
    """N; of what is in the spool."""
    widths: NDArray[np.int64]
    """N; of what is in the spool."""
    prints: NDArray[np.uint64]
    """N; `pixel_print` of what is in the spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was found. The arrays have one row for each sample that the source lists, in order."""

    used: NDArray[np.bool_]
    """N; whether the sample can be used."""
    heights: NDArray[np.int64]
    """N; as in the file, upright; 0 where unusable."""
    widths: NDArray[np.int64]
    """N; as in the file, upright; 0 where unusable."""
    channels: NDArray[np.int64]
    """N; of pictures 1 or 3; 0 where unusable."""
    digests: NDArray[np.uint8]
    """N×32; SHA-256 of the file, or of shape and pixels of an array's row."""
    faults: tuple[Fault, ...]
    """The reader's, then the scan's in the order of the samples."""
    count: DataCount
    """All samples, those that the reader left out among them."""
    spool: Spool | None = None
    """Decoded pixels, where a place for them was given."""
    masks: MaskSpool | None = None
    """The masks, where those are the targets."""
    sides: tuple[int, ...] | None = None
    """Length of all signals, or depth, height and width of all volumes, whose heights and widths
    are 0; None: the samples are pictures."""


def scan(
    source: Source,
    *,
    minimum_side: int = 1,
    deep: bool = False,
    cover: tuple[int, int] | None = (SMALL, SMALL),
    workers: int | None = None,
    spool: Path | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Look at every sample of a source.

    Args:
        source: what the readers found.
        minimum_side: pictures with a shorter side are left out.
        deep: pictures of 16 bits a channel are taken.
        cover: the network's input size, as far as it is known: larger pictures are spooled at
            `covering_size` of it, small ones (both sides up to 128) as they are.
        workers: helper programs; None: as many as there are cores; 0: none.
        spool: file to write pixels to; None: none are kept.
        progress: told how far it is.

    Raises:
        DataError: pixels of an array with another shape than N×H×W×1 or N×H×W×3; signals or volumes
            that differ in size or type, or beside pictures.
    """
    sides = _sides(source)
    total = sum(len(part.names) for part in source.parts)
    limits = Limits(minimum_side=minimum_side, deep=deep)
    order = Order(cover=cover, whole=SMALL, pixels=spool is not None, limits=limits)
    table = _Table(total, spool)
    try:
        names: list[str] = []
        files: list[tuple[str, str | None]] = []
        places: list[NDArray[np.int64]] = []
        start = 0
        for part in source.parts:
            if part.pixels is not None:
                table.add_rows(part, start, minimum_side, sides)
            elif part.files is not None:
                root = None if part.root is None else str(part.root)
                names += part.names
                files += [(path, root) for path in part.files]
                places.append(np.arange(start, start + len(part.files)))
            start += len(part.names)
        rows = np.concatenate([*places, np.zeros(0, np.int64)])
        at = 0
        with contextlib.closing(look_in_batches(files, order, workers=workers)) as batches:
            for batch in batches:
                some = slice(at, at + len(batch))
                table.add(rows[some], names[some], files[some], batch)
                at = some.stop
                if progress is not None and at < len(files):
                    progress("scan", total - len(files) + at, total)
    finally:
        table.close()
    if progress is not None:
        progress("scan", total, total)
    return table.result(source, sides)


def _sides(source: Source) -> tuple[int, ...] | None:
    """The size that all signals or volumes share; None for pictures.

    Raises:
        DataError: they differ in size, channels or type, or are beside pictures.
    """

    def kind(pixels: NDArray[Any] | None) -> str:
        if pixels is None or pixels.ndim == 4:
            return "pictures"
        return f"{noun(pixels.shape[1:-1])}s {size_text(pixels.shape[1:])} {pixels.dtype}"

    kinds = {kind(part.pixels) for part in source.parts}
    if len(kinds) > 1:
        raise DataError(
            "expected samples of one kind, size and type in all parts, found "
            + " and ".join(sorted(kinds)),
            "cut them or fill them up to one size, and save them in one type",
        )
    first = source.parts[0].pixels if source.parts else None
    return None if first is None or first.ndim == 4 else first.shape[1:-1]


_ROW = np.dtype(
    [
        ("digest", np.uint8, 32),
        ("numbers", "<i8", 5),  # stored height and width, height and width in the spool, channels
        ("length", "<i8"),
        ("print", "<u8"),
    ]
)
"""`looks.ROW`, as NumPy reads it."""


class _Table:
    """The scan's arrays while they fill."""

    def __init__(self, total: int, spool: Path | None) -> None:
        self.numbers = np.zeros((total, 5), np.int64)  # as in `_ROW`
        self.digests = np.zeros((total, 32), np.uint8)
        self.prints = np.zeros(total, np.uint64)
        self.offsets = np.full(total, -1, np.int64)
        self.used = np.zeros(total, np.bool_)
        self.faults: list[Fault] = []
        self.spool = spool
        self.at = SPOOL_START
        self.file: IO[bytes] | None = None
        if spool is not None:
            self.file = spool.open("wb")
            self.file.write(bytes(SPOOL_START))

    def add(
        self,
        rows: NDArray[np.int64],
        names: Sequence[str],
        files: Sequence[tuple[str, str | None]],
        batch: Batch,
    ) -> None:
        """Some files, whose samples are `rows`."""
        found = np.frombuffer(batch.table, _ROW)
        usable = found["numbers"][:, 4] > 0
        self.used[rows] = usable
        self.digests[rows] = found["digest"]
        self.numbers[rows] = found["numbers"]
        if self.file is not None:
            self.prints[rows] = found["print"]
            ends = self.at + np.cumsum(found["length"])
            self.offsets[rows] = np.where(usable, ends - found["length"], -1)
            self.at += self.file.write(batch.pixels)
        remarks = [*batch.remarks, *_odd_names(files)]
        remarks.sort(key=operator.itemgetter(0))
        self.faults += [remark.at(names[place]) for place, remark in remarks]

    def add_rows(
        self, part: Part, start: int, minimum_side: int, sides: tuple[int, ...] | None
    ) -> None:
        """A part whose pixels are an array; its first sample is `start`."""
        pixels = part.pixels
        assert pixels is not None
        shape = pixels.shape
        picture = pixels.dtype == np.uint8 and len(shape) == 4 and shape[3] in (1, 3)
        if not picture and sides is None:
            raise DataError(
                f"expected pixels N×H×W×1 or N×H×W×3 in uint8, found {shape} in {pixels.dtype}",
                "convert them with numpy",
            )
        if len(part.names) != shape[0]:
            raise DataError(
                f"expected {len(part.names)} pictures, found {shape[0]}", "one name a row"
            )
        if picture and min(shape[1:3]) < minimum_side:
            raise DataError(
                f"expected sides of at least {minimum_side}, found {shape[1]}×{shape[2]}",
                "lower data.minimum_side",
            )
        rows = slice(start, start + len(pixels))
        self.used[rows] = True
        self.numbers[rows] = (*(shape[1:3] if picture else (0, 0)), 0, 0, shape[-1])
        seed = hashlib.sha256(
            repr(shape[1:] if picture else (shape[1:], pixels.dtype.name)).encode()
        )
        for row, one in enumerate(np.ascontiguousarray(pixels), start):
            state = seed.copy()
            state.update(one)
            self.digests[row] = np.frombuffer(state.digest(), np.uint8)

    def close(self) -> None:
        """Finish the spool."""
        if self.file is not None:
            self.file.close()

    def _twins(self, source: Source) -> tuple[Fault, ...]:
        """A remark where two parts share files, or rows of arrays, byte for byte."""
        splits = np.array([split or "train" for part in source.parts for split in part.splits])
        parts = {
            name: np.flatnonzero(self.used & (splits == name))
            for name in ("train", "val", "test")
            if name in splits
        }
        names = [name for part in source.parts for name in part.names]
        prints = self.digests[:, :8].copy().view(np.uint64)[:, 0]
        return twins(prints, parts, names, source.kind)[1]

    def result(self, source: Source, sides: tuple[int, ...] | None) -> Scan:
        """The finished scan."""
        used = int(self.used.sum())
        heights, widths, spool_heights, spool_widths, channels = self.numbers.T.copy()
        return Scan(
            used=self.used,
            heights=heights,
            widths=widths,
            channels=channels,
            digests=self.digests,
            faults=(*source.faults, *self.faults, *self._twins(source)),
            count=DataCount(
                found=len(self.used) + source.skipped,
                used=used,
                skipped=len(self.used) - used + source.skipped,
            ),
            sides=sides,
            spool=None
            if self.spool is None
            else Spool(
                path=self.spool,
                offsets=self.offsets,
                heights=spool_heights,
                widths=spool_widths,
                prints=self.prints,
            ),
        )


def _odd_names(files: Sequence[tuple[str, str | None]]) -> Iterator[tuple[int, Remark]]:
    """A name that a terminal or a JSON reader could choke on is worth a remark."""
    if "".join(path for path, _ in files).isprintable():
        return
    for place, (path, root) in enumerate(files):
        name = path[len(root or "") :]
        if printable(name) != name:
            reason = "a name that cannot be printed as it is; it is shown escaped"
            yield place, Remark("file", "odd-name", reason)


def write_faults(path: Path, faults: Iterable[Fault]) -> None:
    """One JSON line for each fault: path, format, code, reason, policy, offset.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for fault in faults:
                file.write(json.dumps(asdict(fault)) + "\n")
    except OSError as error:
        raise DataError(
            f"cannot write the fault report {printable(str(path))}: {error.strerror}",
            "choose another place for it",
        ) from error


_REMEDIES = {
    "16-bit": "take their upper 8 bits with --set data.deep=true, convert them, or take them out",
    "deep-mask": "save masks of class numbers with 8 bits a pixel (numpy: mask.astype('uint8'))",
    "lossy-mask": "save the masks as PNG, from what they were drawn with: JPEG has changed them",
    "class-range": "a number that stands for no label is told by --set data.ignore=NUMBER",
    "mask-colors": "save each class as one number a pixel (PNG, grey or palette)",
}
"""Code → what can be done where most samples have that fault."""


def refuse(
    faults: Sequence[Fault], count: DataCount, *, max_bad: float = 0.01, strict: bool = False
) -> None:
    """Refuse the data set where its faults are too grave or too many.

    Args:
        faults: all of them; those accepted do not matter here.
        count: samples found, used and skipped.
        max_bad: share of the samples that may be skipped.
        strict: refuse at the first one.

    Raises:
        DataError: naming the first file, with the counts by code.
    """
    grave = [fault for fault in faults if fault.policy == "refuse"]
    skips = [fault for fault in faults if fault.policy == "skip"]
    if grave:
        raise DataError(
            f"{_first(grave)}\n  {len(grave)} of {count.found} samples like this: {_codes(grave)}",
            _REMEDIES.get(grave[0].code, "`neocog data scan` lists them all"),
        )
    if strict and skips:
        raise DataError(
            f"{_first(skips)}\n  {count.skipped} of {count.found} samples are bad: "
            f"{_codes(skips)}; strict accepts none",
            "repair or remove them; without --strict they are skipped and reported",
        )
    if count.skipped > max_bad * count.found:
        raise DataError(
            f"{count.skipped} of {count.found} samples are bad, at most {max_bad:.3g} of them may "
            f"be: {_codes(skips)}\n  first: {_first(skips)}",
            _REMEDIES.get(
                Counter(fault.code for fault in skips).most_common(1)[0][0],
                "`neocog data scan` lists them all; --max-bad sets the share that is accepted",
            ),
        )
    if count.used == 0:
        raise DataError(
            f"expected samples, found none that can be used of {count.found}",
            "`neocog data scan` says why",
        )


def refuse_empty_classes(
    classes: Iterable[str], before: Iterable[str], after: Iterable[str], faults: Sequence[Fault]
) -> None:
    """Refuse when a class of the training part lost all of its samples.

    Args:
        classes: names in order.
        before: class of each training sample that was listed.
        after: class of each training sample that can be used.
        faults: for the message.

    Raises:
        DataError: naming the class.
    """
    lost = set(before) - set(after)
    for name in classes:
        if name in lost:
            skips = [fault for fault in faults if fault.policy == "skip"]
            raise DataError(
                f"class {name!r} has no usable sample left for training: {_codes(skips)}\n"
                f"  first: {_first(skips)}",
                "repair its files, or take the class out",
            )


def _codes(faults: Sequence[Fault]) -> str:
    """Counts by code, the most frequent first."""
    counts = Counter(fault.code for fault in faults)
    return ", ".join(f"{number} × {code}" for code, number in counts.most_common()) or "no code"


def _first(faults: Sequence[Fault]) -> str:
    return f"{faults[0].path}: {faults[0].reason}" if faults else "unknown"
