"""Small good data sets, and what a row of the battery in `test_bad_inputs` says."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One bad thing in a good set."""

    item: str
    """As the catalogue has it, with its section."""
    variant: str = ""
    """Which of the things that the item names."""
    good: Callable[[Path], Path]
    """Writes the good set into a folder that does not exist; gives the source's path."""
    name: str
    """The bad file, below the folder of the set."""
    plant: Callable[[Path], None]
    """Writes, changes or removes it."""
    reported: str = ""
    """What reports call it; empty: its name."""
    expected: tuple[str, ...]
    """S and W: the fault's code. R: words of the error."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the data recipe."""
    during: Callable[[Path], None] | None = None
    """What happens to it once the scan is over."""
    adds: int = 1
    """W: samples more than in the good set."""
    shows: NDArray[np.uint8] | None = None
    """W: what the sample's pixels are."""
    within: int = 0
    """W: how far they may be from that."""
    source: str = ""
    """File in the folder that is opened instead of what `good` gave."""

    def __str__(self) -> str:
        return f"{self.item} [{self.variant}]" if self.variant else self.item


RNG = np.random.default_rng(0)
FLAT = np.full((8, 8, 3), (200, 100, 50), np.uint8)
"""One colour, which palettes and JPEG keep."""
HALVES = np.concatenate([FLAT[:, :4], FLAT[:, 4:] // 4], axis=1)
"""Bright on the left, dark on the right: shows how it is turned."""


def draw(seed: int, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(pixels: Any, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **options)
    return file.getvalue()


def write(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def folder(root: Path, count: int = 5, start: int = 0) -> Path:
    for place in range(2 * count):
        name = f"{('cat', 'dog')[place % 2]}/{place}.png"
        write(encoded(draw(start + place)), root / name)
    return root


def split_folder(root: Path) -> Path:
    for place, part in enumerate(("train", "val", "test")):
        folder(root / part, start=100 * place)
    return root


def idx(array: Any, kind: int = 8) -> bytes:
    array = np.asarray(array, np.uint8)
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


X = RNG.integers(0, 256, (6, 8, 8), np.uint8)
Y = np.array([0, 1, 2, 1, 0, 2], np.uint8)
IMAGES = idx(X)


def idx_files(root: Path) -> Path:
    write(IMAGES, root / "train-images-idx3-ubyte")
    write(idx(Y), root / "train-labels-idx1-ubyte")
    return root


def gzipped_idx_files(root: Path) -> Path:
    for path in list(idx_files(root).iterdir()):
        write(gzip.compress(path.read_bytes()), path.with_name(path.name + ".gz"))
        path.unlink()
    return root


RECORDS = np.concatenate([np.arange(8)[:, None] % 3, RNG.integers(0, 256, (8, 3072))], axis=1)


def cifar10(root: Path) -> Path:
    write(RECORDS.astype(np.uint8).tobytes(), root / "data_batch_1.bin")
    return root


def cifar100(root: Path) -> Path:
    both = np.concatenate([RECORDS[:, :1], RECORDS], axis=1)
    write(both.astype(np.uint8).tobytes(), root / "train.bin")
    return root


def arrays(root: Path) -> Path:
    root.mkdir(parents=True)
    np.savez(root / "set.npz", x=X, y=Y)
    return root


def table(root: Path) -> Path:
    folder(root)
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    write("\n".join(["path,label", *rows, ""]).encode(), root / "table.csv")
    return root


MEMBERS = {f"{'ab'[i % 2]}/{i}.png": encoded(draw(i)) for i in range(6)}


def tarred(files: Mapping[str, bytes] = MEMBERS, extra: Sequence[tarfile.TarInfo] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return buffer.getvalue()


def zipped(*extra: tuple[Any, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (*MEMBERS.items(), *extra):
            file.writestr(name, content)
    return buffer.getvalue()


def archive(root: Path) -> Path:
    write(gzip.compress(tarred()), root / "set.archive")
    return root / "set.archive"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, color: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


PLAIN = encoded(FLAT)
HUGE = b"\xff\xff\xff\xff"
"""The largest 32-bit number, or two of 16 bits."""
