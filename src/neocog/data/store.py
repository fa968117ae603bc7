"""Folders of the cache that hold a pack: how one is made whole, opened and checked.

Floor 1, room data; imports floor 0 and NumPy, no torch. A pack is a folder of arrays, named by a
hash of what is in it. It is written under another name, flushed to the disk and renamed when whole,
so two processes that pack the same data do no harm and neither a crash nor a power cut leaves
anything half done behind a good name.

    meta.json     what and how much; written last, with a hash of itself
    images.npy    N×H×W×C where all pictures share one size, else their bytes in one run; signals
                  N×L×C, volumes N×D×H×W×C
    sizes.npy     N×2 int64 (N×1, N×3)         prints.npy    N uint64: hash of the packed pixels
    targets.npy   N int64, or N×K float32      weights.npy   N float32
    masks.npy     where those are the targets: H×W uint8 of each, in one run
    splits.npy    N uint8: 0 train, 1 val, 2 test
    digests.npy   N×32 uint8: SHA-256 of the content
    names.npy, name_ends.npy, faults.jsonl
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from neocog.data.cache import cache_dir
from neocog.data.scan import SPOOL_START
from neocog.errors import DataError
from neocog.files import sync_folder
from neocog.records import DataCount, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "SPLITS",
    "VERSION",
    "Names",
    "Pack",
    "npy_header",
    "open_pack",
    "publish",
    "work_folder",
    "write_meta",
    "write_names",
]

VERSION = 1
"""Raised whenever packs of old could mislead."""
SPLITS = ("train", "val", "test")
_ARRAYS = ("sizes", "targets", "weights", "splits", "prints", "digests", "name_ends")

_UNWRITABLE = (
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    getattr(errno, "EDQUOT", errno.ENOSPC),  # Windows has no quotas to exceed
)


def npy_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """The head of a .npy file, of uint8 or another type, padded to `SPOOL_START` bytes.

    A fixed length lets pixels be written first, and the head once their number is known.

    >>> len(npy_header((50000, 32, 32, 3)))
    256
    """
    text = repr({"descr": kind, "fortran_order": False, "shape": shape})
    length = SPOOL_START - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + f"{text:<{length - 1}}\n".encode()


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Write names as one run of bytes and where each of them ends."""
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    data = b"".join(encoded)
    (folder / "names.npy").write_bytes(npy_header((len(data),)) + data)
    np.save(folder / "name_ends.npy", ends)


class Names(Sequence[str]):
    """Names that are decoded when they are asked for: opening a million of them costs nothing.

    Args:
        data: UTF-8 of all names, one after the other.
        ends: N, int64; where each of them ends.
    """

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._data = data
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) if place else 0
        return bytes(self._data[start : int(self._ends[place])]).decode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        return f"<{len(self):,} names>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """An open pack. Arrays are memory-mapped copy-on-write: nothing can change the file."""

    folder: Path
    """Where it is."""
    images: NDArray[Any]
    """Flat bytes of all pictures; numbers of signals and volumes, in their type."""
    sizes: NDArray[np.int64]
    """N×2: height and width as packed; N×1 for signals, N×3 for volumes."""
    targets: NDArray[Any]
    """N int64, or N×K float32."""
    weights: NDArray[np.float32]
    """N."""
    splits: NDArray[np.uint8]
    """N; places in `SPLITS`."""
    digests: NDArray[np.uint8]
    """N×32."""
    prints: NDArray[np.uint64]
    """N; equal for equal packed pixels."""
    names: Names
    """N."""
    masks: NDArray[np.uint8] | None = None
    """Flat bytes of all masks, of the pictures' sizes; None: the targets are no masks."""
    meta: dict[str, Any]
    """`target`, `classes`, `size`, `channels`, `counts`, `fingerprint`, `kind`."""

    def faults(self) -> tuple[Fault, ...]:
        """All faults of reader and scan."""
        with (self.folder / "faults.jsonl").open(encoding="utf-8") as file:
            return tuple(Fault(**json.loads(line)) for line in file)

    def counts(self) -> dict[str, DataCount]:
        """`all` and each split."""
        return {
            name: DataCount(found=found, used=used, skipped=skipped)
            for name, (found, used, skipped) in self.meta["counts"].items()
        }


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A fresh folder on the cache's disk for what is not finished; gone afterwards.

    Raises:
        DataError: the cache cannot be written to.
    """
    packs = cache_dir() / "packs"
    try:
        packs.mkdir(parents=True, exist_ok=True)
        for old in packs.glob(".work-*"):  # left by processes that were killed
            with contextlib.suppress(OSError):
                if old.stat().st_mtime < time.time() - 24 * 3600:
                    shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix=".work-", dir=packs) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise DataError(
            f"the cache {packs} cannot be written to: {error.strerror or error}",
            "set NEOCOG_CACHE to a folder with free space",
        ) from error


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Describe all files of a folder; written last, so that a description vouches for the rest."""
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    meta = {"version": VERSION, "files": files, **meta}
    body = json.dumps(meta)
    check = hashlib.sha256(body.encode()).hexdigest()
    (folder / "meta.json").write_text(json.dumps({"check": check, "meta": body}), encoding="utf-8")


def publish(work: Path, made: Path) -> Path:
    """Give the finished folder its name; another process may have been faster.

    On return it has reached the disk: of its files only the sizes are ever compared again.

    Raises:
        DataError: a damaged folder of that name cannot be removed.
        OSError: the disk does not take it.
    """
    for file in work.iterdir():
        _flush(file)
    sync_folder(work)
    mask = os.umask(0)
    os.umask(mask)
    work.chmod(0o777 & ~mask)  # temporary folders are private; a shared cache is not
    fresh = work.parent / f"{work.name}-done"
    os.rename(work, fresh)  # noqa: PTH104 - a rename, not a replace
    work.mkdir()  # whoever owns the work folder will want to remove it
    try:
        for _ in range(3):
            try:
                os.rename(fresh, made)  # noqa: PTH104 - fails where `made` exists and holds files
            except OSError:
                if open_pack(made) is not None:
                    return made
                shutil.rmtree(made, ignore_errors=True)  # damaged: make room
            else:
                sync_folder(made.parent)
                return made
        raise DataError(f"the cache entry {made} cannot be written", "remove it and try again")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _flush(file: Path) -> None:
    """Make what was written to a file last through a power cut."""
    handle = os.open(file, os.O_RDWR)  # Windows flushes only what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_pack(folder: Path) -> Pack | None:
    """Open a pack; None where it is missing, damaged or of another version.

    Checked are the description against its hash, the size of every file, and that the sizes of
    the pictures account for their bytes; not every byte: that would cost as much as decoding.
    """
    try:
        outer = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if hashlib.sha256(outer["meta"].encode()).hexdigest() != outer["check"]:
            return None
        meta = json.loads(outer["meta"])
        if meta["version"] != VERSION:
            return None
        for name, length in meta["files"].items():
            if (folder / name).stat().st_size != length:
                return None
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
            for name in ("images", "names")
        } | {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS}
        sizes, images = arrays["sizes"], arrays["images"].reshape(-1)
        if len(images) != int(sizes.prod(axis=1).sum()) * meta["channels"]:
            return None
        masks = _masks(folder, meta, sizes)
        names = Names(arrays.pop("names"), arrays.pop("name_ends"))
        if len({len(names), *(len(arrays[key]) for key in arrays if key != "images")}) != 1:
            return None
        return Pack(
            folder=folder, names=names, meta=meta, masks=masks, **(arrays | {"images": images})
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _masks(
    folder: Path, meta: dict[str, Any], sizes: NDArray[np.int64]
) -> NDArray[np.uint8] | None:
    """The masks of a pack; None where it has none.

    Raises:
        ValueError: they do not cover the pictures.
    """
    if meta["target"] != "mask":
        return None
    masks: NDArray[np.uint8] = np.load(folder / "masks.npy", mmap_mode="c", allow_pickle=False)
    if masks.dtype != np.uint8 or masks.shape != (int(sizes.prod(axis=1).sum()),):
        raise ValueError("masks of other sizes than the pictures")
    return masks
