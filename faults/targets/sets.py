"""Data sets in one file or a few: IDX, CIFAR, NumPy's, tables."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from faults.mutate import mutated
from faults.targets.pictures import pixels
from faults.targets.target import Files, Target, seed

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TARGETS", "read_only", "zipped"]


def _read_set(folder: Path) -> None:
    from neocog.data.sources import read, signature

    signature(str(folder))
    source = read(str(folder))
    for part in source.parts:
        assert len(part.names) == len(part.targets) == len(part.splits)
        assert part.pixels is None or len(part.pixels) == len(part.names)


def read_only(folder: Path) -> None:
    """A data set that is one file, named itself."""
    from neocog.data.sources import read, signature

    (path,) = folder.glob("set.*")
    signature(str(path))
    read(str(path))


def _idx(array: NDArray[np.uint8]) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


LABELS = np.array([0, 1, 2, 1, 0, 2], np.uint8)
_IDX = {"images-idx3": _idx(pixels(6, 5, 4)), "labels-idx1": _idx(LABELS)}


def _make_idx(chance: random.Random) -> Files:
    bad, packed = chance.choice(tuple(_IDX)), chance.random() < 0.4
    files = {}
    for name, data in _IDX.items():
        if name == bad and (not packed or chance.random() < 0.5):
            data = mutated(data, seed(chance), tuple(_IDX.values()))
        elif name == bad:
            files[f"train-{name}-ubyte.gz"] = mutated(gzip.compress(data, mtime=0), seed(chance))
            continue
        ending = ".gz" if packed else ""
        files[f"train-{name}-ubyte{ending}"] = gzip.compress(data, mtime=0) if packed else data
    return files


def _idx_bombs() -> list[Files]:
    huge = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 65535, 65535)
    many = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60000, 100, 100)
    labels = {"train-labels-idx1-ubyte.gz": gzip.compress(_IDX["labels-idx1"], mtime=0)}
    name = "train-images-idx3-ubyte.gz"
    return [
        {name: gzip.compress(data, 9, mtime=0), **labels}
        for data in (huge, many, _IDX["images-idx3"] + bytes(256 << 20), many + bytes(200 << 20))
    ]


_NAMES = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n"


@cache
def _records(coarse: bool) -> bytes:
    rows = pixels(12, 3073 + coarse)
    rows[:, : 1 + coarse] = np.arange(12)[:, None] % 10
    return bytes(rows)


def _make_cifar(chance: random.Random) -> Files:
    coarse = chance.random() < 0.5
    data, names = _records(coarse), _NAMES
    if chance.random() < 0.7:
        data = mutated(data, seed(chance))
        if chance.random() < 0.5:  # or hardly any would have whole records
            data = data[: len(data) // (3073 + coarse) * (3073 + coarse)]
    else:
        names = mutated(names, seed(chance))
    if coarse:
        return {"train.bin": data, "fine_label_names.txt": names}
    return {"data_batch_1.bin": data, "batches.meta.txt": names}


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_X, _Y = _npy(pixels(6, 5, 4)), _npy(LABELS.astype(np.int64))


def zipped(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of some files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _make_npz(chance: random.Random) -> Files:
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    return {"set.npz": mutated(zipped({"x.npy": _X, "y.npy": _Y}, method), seed(chance))}


def _make_npy(chance: random.Random) -> Files:
    arrays = {"x.npy": _X, "y.npy": _Y}
    bad = chance.choice(tuple(arrays))
    arrays[bad] = mutated(arrays[bad], seed(chance), (_X, _Y))
    return {"set.npz": zipped(arrays)}


def _header(text: str) -> bytes:
    return b"\x93NUMPY\x03\0" + struct.pack("<I", len(text)) + text.encode()


def _npz_bombs() -> list[Files]:
    packed = zipfile.ZIP_DEFLATED
    shape = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"
    headers = [
        *(shape % shape_ for shape_ in ("(2**40,)", f"({2**40},)", f"({'1,' * 3000})")),
        *("[" * 5000, "{" * 5000, "9" * 60000, "(" * 60000, "-" * 60000),
        shape % "(60000,1000)",
    ]
    return [
        *({"set.npz": zipped({"x.npy": _header(text), "y.npy": _Y})} for text in headers),
        {
            "set.npz": zipped(
                {"x.npy": _npy(np.zeros((2000, 300, 300), np.uint8)), "y.npy": _Y}, packed
            )
        },
        {
            "set.npz": zipped(
                {"x.npy": _npy(np.zeros((4, 9000, 3000), np.uint8)), "y.npy": _Y}, packed
            )
        },
        {"set.npz": zipped({"x.npy": _X, "y.npy": _Y, **{f"z{i}": b"" for i in range(1000)}})},
    ]


_TABLE = b'path,label,split,weight\na.png,x,train,1\nb.png,"y",train,2\nc.png,x,val,0\n'
_VALUES = b"file;value_x;value_y\na.png;1.5;2\nb.png;-3e2;0\n".replace(b";", b",")
_LABELS = b"path,labels\na.png,cat|dog\nb.png,\nc.png,cat\n"


def _make_table(chance: random.Random) -> Files:
    tables = (_TABLE, _VALUES, _LABELS)
    pictures = {f"{name}.png": b"" for name in "abc"}
    return {"set.csv": mutated(chance.choice(tables), seed(chance), tables), **pictures}


def _table_bombs() -> list[Files]:
    many = b"path,label\n" + b"".join(b"a.png,c%d\n" % i for i in range(1000))
    texts = (
        b"path,label\n" + b"a" * (4 << 20),
        b'path,label\n"' + b"a\n" * 100_000,
        b"path,label\n" + b"," * (4 << 20) + b"\n",
        b"path,label" + b",x" * 100_000 + b"\na.png,b\n",
        many,
        _LABELS + b"a.png," + b"x|" * 100_000 + b"\n",
        b"path,label\na.png," + b"9" * 100_000 + b"\nb.png,1\n",
    )
    return [{"set.csv": text} for text in texts]


TARGETS = {
    "idx": Target(make=_make_idx, read=_read_set, bombs=_idx_bombs),
    "cifar": Target(make=_make_cifar, read=_read_set),
    "npz": Target(make=_make_npz, read=read_only, bombs=_npz_bombs),
    "npy": Target(make=_make_npy, read=read_only),
    "csv": Target(make=_make_table, read=read_only, bombs=_table_bombs),
}
