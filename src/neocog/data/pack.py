"""Decode once, open in milliseconds. Floor 1, room data; imports floor 0 and NumPy, no torch.

Turns a source and its scan into a pack: a folder of memory-mapped arrays (`store` says which). The
scan's spool becomes the pack where it already holds what is wanted; other pictures are taken from
arrays, scaled, recoloured or decoded again.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import PIL

from neocog.data.cache import cache_dir
from neocog.data.decode import SMALL, fit, recolor
from neocog.data.files import Limits, Remark
from neocog.data.looks import Order, pixel_print
from neocog.data.ranks import told
from neocog.data.scan import SPOOL_START, refuse, write_faults
from neocog.data.store import (
    SPLITS,
    VERSION,
    npy_header,
    open_pack,
    publish,
    write_meta,
    write_names,
)
from neocog.data.workers import look_at_all
from neocog.errors import ConfigError, DataError
from neocog.geometry import covering_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.data.samples import MaskSpool, Part, Source
    from neocog.data.scan import Progress, Scan
    from neocog.records import DataCount, Fault

__all__ = ["CROP", "geometry", "pack"]

CROP = 256
"""Pixels a side of the crops that masks are trained on, at most, unless said otherwise."""
_GRID = 32
"""Pixels that a network for masks halves five times: crops are multiples of it where they can."""


def geometry(
    scan: Scan,
    size: tuple[int, ...] | None,
    channels: int | None,
    *,
    learnt: NDArray[np.bool_] | None = None,
) -> tuple[tuple[int, ...], int]:
    """Input size and channels: as wished, else decided from the pictures.

    One size up to 128 pixels a side shared by all is taken as it is. Otherwise 128×128, or the
    median of the shorter sides, rounded down to a multiple of 8, where that is smaller. One
    channel where all pictures are grey. Signals and volumes are as they are.

    Of pictures with masks, which keep their size, it is the crops' that are trained on: up to 256
    pixels a side, and as much as the smallest picture has.

    Args:
        scan: what was found.
        size: what is wished for.
        channels: what is wished for.
        learnt: N; samples of the training part, which alone are cropped; None: all are scored.

    Raises:
        DataError: signals or volumes of another size or number of channels than wished; pictures
            with masks smaller than the crops, or one that is far smaller than the others.
        ConfigError: pictures of other than 1 or 3 channels are wished for.
    """
    if scan.sides is not None:
        return _as_it_is(scan.sides, int(scan.channels[0]), size, channels)
    if channels not in (None, 1, 3):
        raise ConfigError(f"data.channels is 1 or 3 for pictures, got {channels}")
    heights, widths = scan.heights[scan.used], scan.widths[scan.used]
    if channels is None:
        channels = 1 if (scan.channels[scan.used] == 1).all() else 3
    if scan.masks is not None:
        return _crop(scan, size, learnt), channels
    if size is None:
        native = (int(heights[0]), int(widths[0]))
        same = bool((heights == native[0]).all() and (widths == native[1]).all())
        if same and max(native) <= SMALL:
            return native, channels
        side = int(np.median(np.minimum(heights, widths))) // 8 * 8
        size = (min(SMALL, max(8, side)),) * 2
    return size, channels


def _crop(
    scan: Scan, size: tuple[int, ...] | None, learnt: NDArray[np.bool_] | None
) -> tuple[int, ...]:
    """Height and width of the crops that masks are trained on."""
    rows = scan.used if learnt is None else scan.used & learnt
    sizes = np.stack([scan.heights[rows], scan.widths[rows]], 1)
    if learnt is None or not len(sizes):
        return size or (CROP, CROP)
    least = sizes.min(axis=0)
    remedy = f"take crops of at most {least[0]}×{least[1]}: --set data.size={least[0]},{least[1]}; "
    remedy += "or leave small pictures out: --set data.minimum_side=… --max-bad …"
    if size is not None:
        if (np.array(size) > least).any():
            raise DataError(
                f"expected pictures of at least {size[0]}×{size[1]}, the size of the crops; found "
                f"one of {least[0]}×{least[1]} or less",
                remedy,
            )
        return size
    usual = np.minimum(np.median(sizes, axis=0), CROP)
    if (least < usual / 2).any():
        raise DataError(
            f"one picture has a side of {least.min()} pixels, most have {int(usual.min())} or "
            "more, and crops must fit into all of them",
            remedy,
        )
    return tuple(
        side // _GRID * _GRID if side >= _GRID else side
        for side in np.minimum(least, CROP).tolist()
    )


def _as_it_is(
    sides: tuple[int, ...], own: int, size: tuple[int, ...] | None, channels: int | None
) -> tuple[tuple[int, ...], int]:
    """The geometry of signals and volumes, which nothing changes."""
    wished = (sides if size is None else size, own if channels is None else channels)
    if wished != (sides, own):
        raise DataError(
            f"expected {told(*wished)}, found {told(sides, own)}",
            "signals and volumes are taken as they are: bring them to one size before, and leave "
            "data.size out",
        )
    return sides, own


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What is packed beside the pixels, one entry a listed sample."""

    names: list[str]
    splits: NDArray[np.uint8]
    targets: NDArray[Any]
    weights: NDArray[np.float32]


def _write_masks(
    path: Path, masks: MaskSpool, kept: NDArray[np.int64], sizes: list[tuple[int, ...]]
) -> None:
    """masks.npy: the masks of the kept samples, in order."""
    total = sum(map(math.prod, sizes))
    with path.open("wb") as file, masks.path.open("rb") as spool:
        file.write(npy_header((total,)))
        for row, size in zip(kept.tolist(), sizes, strict=True):
            spool.seek(int(masks.offsets[row]))
            file.write(spool.read(math.prod(size)))


def pack(
    source: Source,
    scan: Scan,
    *,
    size: tuple[int, ...],
    channels: int,
    counts: dict[str, DataCount],
    work: Path,
    notes: tuple[str, ...] = (),
    progress: Progress | None = None,
    began: float | None = None,
) -> Path:
    """Write a pack, unless the cache has it.

    Args:
        source: what the readers found.
        scan: what the scan found, with a spool where files are concerned.
        size: height and width of the network's input; of signals and volumes their own.
        channels: 1 or 3; of signals and volumes their own.
        counts: `all` and each split, before the pack; a file that changed since the scan is
            taken off and reported.
        work: a folder on the cache's disk that holds nothing but the spool.
        notes: what people should know, kept beside the pack.
        progress: told how far it is.
        began: when reading began, by `time.monotonic`; None: now.

    Returns:
        The pack's folder.

    Raises:
        DataError: every file changed since the scan.
    """
    began = time.monotonic() if began is None else began
    facts = _facts(source, scan)
    made = cache_dir() / "packs" / _key(source, scan, facts, counts, (size, channels, notes))
    if open_pack(made) is not None:
        return made
    writer = _Writer(work, channels)
    _fill(writer, source, scan, size, progress)
    if writer.faults:  # files changed under our hands: other content, so another key
        scan, counts = _without(scan, facts, counts, writer)
        refuse(scan.faults, scan.count, max_bad=1.0)
        made = cache_dir() / "packs" / _key(source, scan, facts, counts, (size, channels, notes))
    uniform = writer.finish(scan)
    _save_rows(work, scan, facts, writer, len(size))
    write_faults(work / "faults.jsonl", scan.faults)
    meta = {
        "kind": source.kind,
        "target": source.target,
        "classes": list(source.classes),
        "size": list(size),
        "channels": channels,
        "uniform": uniform,
        "notes": list(notes),
        "counts": {name: [one.found, one.used, one.skipped] for name, one in counts.items()},
        "fingerprint": _fingerprint(source, scan, facts),
        "seconds": round(time.monotonic() - began, 2),
    }
    write_meta(work, meta)
    if progress is not None:
        progress("pack", scan.count.used, scan.count.used)
    return publish(work, made)


def _save_rows(work: Path, scan: Scan, facts: _Facts, writer: _Writer, axes: int) -> None:
    """What the pack says of each of its samples, beside the pixels.

    Args:
        work: folder of the pack.
        scan: tells which samples are kept.
        facts: of all samples that are listed.
        writer: of the pixels, finished.
        axes: of a sample beside its channels.
    """
    kept = np.flatnonzero(scan.used)
    if scan.masks is not None:
        _write_masks(work / "masks.npy", scan.masks, kept, writer.sizes)
    arrays = {
        "targets": facts.targets[kept],
        "weights": facts.weights[kept],
        "splits": facts.splits[kept],
        "digests": scan.digests[kept],
        "prints": np.array(writer.prints, np.uint64),
        "sizes": np.array(writer.sizes, np.int64).reshape(-1, axes),
    }
    for name, array in arrays.items():
        np.save(work / f"{name}.npy", array)
    write_names(work, [facts.names[row] for row in kept])


def _fill(
    writer: _Writer,
    source: Source,
    scan: Scan,
    size: tuple[int, ...],
    progress: Progress | None,
) -> None:
    """All samples that can be used, one after the other."""
    found: Iterator[NDArray[Any]]
    if scan.sides is not None:
        found = (
            one for part in source.parts for one in (() if part.pixels is None else part.pixels)
        )
    else:
        height, width = size
        goals = _goals(scan, (height, width))
        if _is_finished(source, scan, goals, writer.channels):
            writer.adopt(scan)
            return
        found = _pixels(source, scan, goals, (height, width), writer.channels, writer)
    for pixels in found:
        writer.add(pixels)
        done = len(writer.sizes)
        if progress is not None and done % 256 == 0 and done < scan.count.used:
            progress("pack", done, scan.count.used)


def _facts(source: Source, scan: Scan) -> _Facts:
    """Targets as numbers; names and splits of all parts in one list."""
    names = [name for part in source.parts for name in part.names]
    splits = [SPLITS.index(split or "train") for part in source.parts for split in part.splits]
    weights = [
        np.ones(len(part.names)) if part.weights is None else np.array(part.weights)
        for part in source.parts
    ]
    place = {name: index for index, name in enumerate(source.classes)}
    found: list[Any] = [target for part in source.parts for target in part.targets]
    targets: NDArray[Any]
    if scan.masks is not None:
        targets = scan.masks.counts.astype(np.float32)
    elif source.target == "class":
        targets = np.array([place[name] for name in found], np.int64)
    elif source.target == "labels":
        targets = np.zeros((len(names), len(place)), np.float32)
        for row, labels in enumerate(found):
            targets[row, [place[name] for name in labels]] = 1
    else:
        targets = np.array(found, np.float32).reshape(len(names), len(place))
    return _Facts(
        names=names,
        splits=np.array(splits, np.uint8),
        targets=targets,
        weights=np.concatenate([*weights, np.zeros(0)]).astype(np.float32),
    )


def _fingerprint(source: Source, scan: Scan, facts: _Facts) -> str:
    """SHA-256 of the content that is used: names, splits, targets, weights, bytes of the files."""
    state = hashlib.sha256(json.dumps([source.target, source.classes]).encode())
    kept = np.flatnonzero(scan.used)
    state.update(json.dumps([facts.names[row] for row in kept]).encode())
    for array in (facts.splits, facts.targets, facts.weights, scan.digests):
        state.update(array[kept].tobytes())
    if scan.masks is not None:
        state.update(scan.masks.digests[kept].tobytes())
    return state.hexdigest()


def _key(
    source: Source,
    scan: Scan,
    facts: _Facts,
    counts: dict[str, DataCount],
    more: tuple[object, ...],
) -> str:
    """The pack's name: content, geometry, what was left out, and who decoded."""
    rest = [
        *(VERSION, PIL.__version__, source.kind, more),
        {name: asdict(one) for name, one in counts.items()},
        [asdict(fault) for fault in scan.faults],
    ]
    text = _fingerprint(source, scan, facts) + json.dumps(rest)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class _Writer:
    """images.npy while it grows."""

    def __init__(self, work: Path, channels: int) -> None:
        self.path = work / "images.npy"
        self.channels = channels
        self.kind = "|u1"
        self.sizes: list[tuple[int, ...]] = []
        self.prints: list[int] = []
        self.faults: list[tuple[int, Fault]] = []
        self.spool: Path | None = None
        self.file: IO[bytes] | None = None

    def adopt(self, scan: Scan) -> None:
        """Take the spool as it is: it holds the pixels of the pack."""
        held, used = scan.spool, scan.used
        assert held is not None
        self.spool = held.path
        self.sizes = list(zip(held.heights[used].tolist(), held.widths[used].tolist(), strict=True))
        self.prints = held.prints[used].tolist()

    def add(self, pixels: NDArray[Any]) -> None:
        """One picture, H×W×C; or a signal or volume, all in one type."""
        size, self.kind = pixels.shape[:-1], pixels.dtype.str
        self.sizes.append(size)
        data = pixels.tobytes()
        self.prints.append(pixel_print(size, data))
        if self.file is None:
            self.file = self.path.open("wb", buffering=2**20)
            self.file.write(bytes(SPOOL_START))
        self.file.write(data)

    def finish(self, scan: Scan) -> bool:
        """Put the head in front of the pixels; True where all pictures share one size."""
        if self.file is not None:
            self.file.close()
        if self.spool is not None:
            self.spool.replace(self.path)
        elif scan.spool is not None:
            scan.spool.path.unlink()
        uniform = len(set(self.sizes)) == 1
        total = sum(map(math.prod, self.sizes)) * self.channels
        shape = (len(self.sizes), *self.sizes[0], self.channels) if uniform else (total,)
        with self.path.open("r+b") as file:
            file.write(npy_header(shape, self.kind))
        return uniform


def _goals(scan: Scan, size: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Size in the file → size in the pack, of all usable pictures."""
    found = set(zip(scan.heights.tolist(), scan.widths.tolist(), strict=True)) - {(0, 0)}
    # A picture lies under its mask pixel by pixel, so it keeps its size.
    kept = scan.masks is not None
    return {stored: stored if kept else covering_size(stored, size) for stored in found}


def _pixels(
    source: Source,
    scan: Scan,
    goals: dict[tuple[int, int], tuple[int, int]],
    size: tuple[int, int],
    channels: int,
    writer: _Writer,
) -> Iterator[NDArray[np.uint8]]:
    """Every usable picture as it is packed, in order; `writer` is told of those that changed."""
    again = _again(source, scan, goals, size)
    held = None if scan.spool is None else np.memmap(scan.spool.path, np.uint8, "r")
    start = 0
    for part in source.parts:
        stop = start + len(part.names)
        rows = (np.flatnonzero(scan.used[start:stop]) + start).tolist()
        if part.pixels is not None:
            yield from _array_pixels(part, rows, start, goals, channels)
            rows = []
        for row in rows:
            stored = (int(scan.heights[row]), int(scan.widths[row]))
            if (held_size := _spooled(scan, row, goals[stored])) is not None:
                assert held is not None
                assert scan.spool is not None
                at = int(scan.spool.offsets[row])
                shape = (*held_size, int(scan.channels[row]))
                one = np.asarray(held[at : at + int(np.prod(shape))]).reshape(shape)
                yield recolor(fit(one, goals[stored]), channels)
                continue
            look = next(again)
            name = part.names[row - start]
            if look.usable and look.digest == scan.digests[row].tobytes():
                one = np.frombuffer(look.pixels, np.uint8).reshape(*look.size, look.channels)
                yield recolor(one, channels)
            else:
                reason = "expected the bytes that the scan saw, found others"
                writer.faults.append((row, Remark("file", "changed", reason, "skip").at(name)))
        start = stop
    again.close()


def _array_pixels(
    part: Part,
    rows: list[int],
    start: int,
    goals: dict[tuple[int, int], tuple[int, int]],
    channels: int,
) -> Iterator[NDArray[np.uint8]]:
    """Rows of an array, recoloured and scaled as a file's picture would be."""
    assert part.pixels is not None
    for first in range(0, len(rows), 1024):
        some = rows[first : first + 1024]
        block = np.ascontiguousarray(part.pixels[some[0] - start : some[-1] - start + 1])
        goal = goals[(block.shape[1], block.shape[2])]
        if goal != block.shape[1:3]:
            block = np.stack([fit(one, goal) for one in block])
        yield from recolor(block, channels)


def _spooled(scan: Scan, row: int, goal: tuple[int, int]) -> tuple[int, int] | None:
    """The size in the spool, where what lies there leads to the goal; else None.

    It does where it has the goal's size, or is the whole small picture; a picture that was scaled
    to something else would be scaled twice, and differ from what `decode` gives.
    """
    if scan.spool is None or scan.spool.offsets[row] < 0:
        return None
    held = (int(scan.spool.heights[row]), int(scan.spool.widths[row]))
    stored = (int(scan.heights[row]), int(scan.widths[row]))
    return held if held == goal or (held == stored and max(stored) <= SMALL) else None


def _is_finished(
    source: Source, scan: Scan, goals: dict[tuple[int, int], tuple[int, int]], channels: int
) -> bool:
    """Whether the spool, as it is, holds the pixels of the pack."""
    if scan.spool is None or any(part.pixels is not None for part in source.parts):
        return False
    used = scan.used
    if not np.array_equal(scan.spool.offsets >= 0, used):  # some were left out for their masks
        return False
    sizes = zip(scan.heights.tolist(), scan.widths.tolist(), strict=True)
    wanted = np.array([goals.get(stored, (0, 0)) for stored in sizes], np.int64).reshape(-1, 2)
    held = np.stack([scan.spool.heights, scan.spool.widths], 1)
    return bool((scan.channels[used] == channels).all() and (held[used] == wanted[used]).all())


def _again(
    source: Source,
    scan: Scan,
    goals: dict[tuple[int, int], tuple[int, int]],
    size: tuple[int, int],
) -> Any:
    """Looks at the files whose pixels are not in the spool as they are needed."""
    files, row = [], 0
    for part in source.parts:
        for place in range(len(part.names)):
            stored = (int(scan.heights[row]), int(scan.widths[row]))
            if part.files and scan.used[row] and _spooled(scan, row, goals[stored]) is None:
                files.append((part.files[place], str(part.root) if part.root else None))
            row += 1
    # What the scan took is taken again.
    cover = None if scan.masks is not None else size
    return look_at_all(files, Order(cover=cover, whole=0, limits=Limits(deep=True)))


def _without(
    scan: Scan, facts: _Facts, counts: dict[str, DataCount], writer: _Writer
) -> tuple[Scan, dict[str, DataCount]]:
    """The scan and the counts without samples that changed while we worked."""
    used, counts = scan.used.copy(), dict(counts)
    for row, _ in writer.faults:
        used[row] = False
        for name in ("all", SPLITS[facts.splits[row]]):
            one = counts[name]
            counts[name] = replace(one, used=one.used - 1, skipped=one.skipped + 1)
    faults = (*scan.faults, *(fault for _, fault in writer.faults))
    return replace(scan, used=used, faults=faults, count=counts["all"]), counts
