"""Bad binaries, arrays, tables and archives: rows of the battery in `test_bad_inputs`."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import tarfile
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bad_sets import (
    HUGE,
    IMAGES,
    MEMBERS,
    PLAIN,
    RECORDS,
    Case,
    X,
    Y,
    archive,
    arrays,
    cifar10,
    cifar100,
    gzipped_idx_files,
    idx,
    idx_files,
    patched,
    table,
    tarred,
    write,
    zipped,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def idx_case(item: str, content: bytes, *words: str, variant: str = "", **more: Any) -> Case:
    start = {"item": f"IDX: {item}", "variant": variant, "good": idx_files}
    start["name"] = "train-images-idx3-ubyte"
    return Case(**{**start, "plant": partial(write, content), "expected": words, **more})


PACKED: dict[str, Any] = {"good": gzipped_idx_files, "name": "train-images-idx3-ubyte.gz"}
GZIP = "truncated or exploding gzip"
DIMENSIONS = ("field dimensions", "expected", "found")
DATA = ("field data", "expected", "found")

IDX = (
    idx_case("Empty", b"", "field magic", "expected 4 bytes", "found none"),
    idx_case("Empty", gzip.compress(b""), "field magic", "found none", variant="gzip", **PACKED),
    idx_case("bad magic", b"\x01" + IMAGES[1:], "field magic", "expected 00 00", "found 01 00"),
    idx_case("bad magic", b"\x89PNG\r\n", "field magic", "found 89 50", variant="a picture"),
    idx_case("unsupported type byte", idx(X, 0x0D), "field type", "expected 08", "found 0d"),
    idx_case("dimension overflow", patched(IMAGES, 4, 3 * HUGE), *DIMENSIONS, variant="large"),
    idx_case(
        "dimension overflow",
        patched(IMAGES, 4, struct.pack(">3I", 2**31, 2**31, 4)),  # 2⁶⁴: 0 in 64 bits
        *DIMENSIONS,
        variant="wraps to 0",
    ),
    idx_case("short data", IMAGES[:-1], *DIMENSIONS),
    idx_case("short data", IMAGES[:9], *DIMENSIONS, variant="in the header"),
    idx_case("short data", gzip.compress(IMAGES[:-1]), *DATA, variant="gzip", **PACKED),
    idx_case("trailing bytes", IMAGES + b"x", *DATA),
    idx_case("trailing bytes", gzip.compress(IMAGES + b"x"), *DATA, variant="gzip", **PACKED),
    idx_case("image and label counts differ", idx(X[:5]), *DIMENSIONS, "5 images", "6 labels"),
    idx_case(
        "label out of range",
        idx(np.where(Y == 2, 200, Y)),
        *("field label", "expected", "found 200"),
        name="train-labels-idx1-ubyte",
    ),
    idx_case(
        GZIP, gzip.compress(IMAGES)[:-9], "expected a whole gzip", "found", variant="cut", **PACKED
    ),
    idx_case(
        GZIP,
        gzip.compress(IMAGES + bytes(64 << 20)),
        *DATA,
        variant="64 MiB behind an honest header",
        **PACKED,
    ),
    idx_case(
        GZIP,
        gzip.compress(patched(IMAGES, 4, struct.pack(">I", 1 << 30))),
        *DIMENSIONS,
        variant="promises 64 GiB",
        **PACKED,
    ),
    idx_case("no items", idx(X[:0]), *DIMENSIONS, "(0, 8, 8)"),
)


class Explosive:
    """Unpickled it makes a folder, which the battery would notice."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place / "unpickled"),)


def pickled(path: Path) -> None:
    """A pickle that can do harm, under the name of the Python edition."""
    import pickle

    (path.parent / "data_batch_1.bin").unlink()
    write(pickle.dumps(Explosive(path.parent)), path)


CIFAR = (
    Case(
        item="CIFAR binaries: size no multiple of the record",
        good=cifar10,
        name="data_batch_1.bin",
        plant=lambda path: path.write_bytes(path.read_bytes()[:-1]),
        expected=("expected CIFAR-10 records of 3073", "found 24,583", "no multiple"),
    ),
    Case(
        item="CIFAR binaries: CIFAR-10 opened as CIFAR-100",
        good=cifar100,
        name="train.bin",
        plant=partial(write, RECORDS.astype(np.uint8).tobytes()),
        expected=("expected CIFAR-100 records of 3074", "records of CIFAR-10", "rename"),
    ),
    Case(
        item="CIFAR binaries: the pickled edition (never unpickled: say which edition to get)",
        good=cifar10,
        name="data_batch_1",
        plant=pickled,
        expected=("never opened", "get cifar-10-binary.tar.gz"),
    ),
    Case(
        item="CIFAR binaries: label out of range",
        good=cifar10,
        name="data_batch_1.bin",
        plant=lambda path: path.write_bytes(path.read_bytes() + b"\x0a" + bytes(3072)),
        reported="data_batch_1[8]",
        expected=("label-range",),
    ),
)


def with_arrays(path: Path, **found: Any) -> None:
    np.savez(path, **found)


def with_objects(path: Path, key: str) -> None:
    content = np.array([Explosive(path.parent)] * 6, object)
    np.savez(path, **{"x": X, "y": Y, key: content})


def overstated(path: Path) -> None:
    """x says that it holds 6,000,000,000 pictures."""
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    length = int.from_bytes(content["x.npy"][8:10], "little")
    head = content["x.npy"][10 : 10 + length].rstrip()
    head = head.replace(b"(6, 8, 8)", b"(6000000000, 8, 8)").ljust(length - 1) + b"\n"
    content["x.npy"] = patched(content["x.npy"], 10, head)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


def alone(path: Path) -> None:
    (path.parent / "set.npz").unlink()
    np.save(path, X)


def arrays_case(item: str, plant: Callable[[Path], None], *words: str, **more: Any) -> Case:
    start = {"item": f"Arrays: {item}", "good": arrays, "name": "set.npz", "plant": plant}
    return Case(**{**start, "expected": words, **more})


OBJECTS, GAPS = "object dtype (never unpickled)", "NaN or Inf"
ARRAYS = (
    *(
        arrays_case(OBJECTS, partial(with_objects, key=key), "never unpickled", variant=key)
        for key in ("x", "y", "classes")
    ),
    arrays_case("missing keys", partial(with_arrays, x=X), "expected the array 'y'", variant="y"),
    arrays_case("missing keys", partial(with_arrays, y=Y), "expected the array 'x'", variant="x"),
    arrays_case("missing keys", partial(with_arrays, a=X, b=Y), "expected x and y", variant="both"),
    arrays_case(
        "missing keys",
        alone,
        "found one array",
        "x=…, y=…",
        variant=".npy",
        name="set.npy",
        source="set.npy",
    ),
    arrays_case(
        "x and y of different length", partial(with_arrays, x=X, y=Y[:5]), "as many rows", "(5,)"
    ),
    arrays_case(
        GAPS,
        partial(with_arrays, x=np.where(X.max() == X, np.nan, X), y=Y),
        *("x: expected finite values, found NaN", "repair"),
        variant="NaN in x",
    ),
    arrays_case(
        GAPS,
        partial(with_arrays, x=np.where(X.max() == X, -np.inf, X), y=Y),
        "x: expected finite values, found NaN or infinity",
        variant="Inf in x",
    ),
    arrays_case(
        GAPS,
        partial(with_arrays, x=X, y=Y / 0.3 * np.array([1, 1, np.nan, 1, 1, 1])),
        *("y: expected finite numbers", "y[2]"),
        variant="NaN in y",
    ),
    arrays_case(
        "unsupported rank",
        partial(with_arrays, x=X.reshape(6, 64), y=Y),
        "(6, 64)",
        "reshape",
        variant="2",
    ),
    arrays_case(
        "unsupported rank",
        partial(with_arrays, x=X[..., None, None, None], y=Y),
        "(6, 8, 8, 1, 1, 1)",
        variant="6",
    ),
    arrays_case(
        "header that promises more than the file holds",
        overstated,
        *("promises", "384,000,000,000 bytes", "holds 384"),
    ),
)


def append(line: bytes, path: Path) -> None:
    path.write_bytes(path.read_bytes() + line + b"\n")


def table_case(item: str, plant: Callable[[Path], None], *expected: str, **more: Any) -> Case:
    start = {"item": f"Tables: {item}", "good": table, "name": "table.csv", "plant": plant}
    return Case(**{**start, "expected": expected, **more})


TEXT = "invalid UTF-8 or NUL"
TABLES = (
    table_case("missing image", partial(append, b"gone.png,cat"), "missing-image"),
    table_case("ragged row", partial(append, b"cat/0.png"), "ragged-row", variant="short"),
    table_case("ragged row", partial(append, b"cat/0.png,cat,?"), "ragged-row", variant="long"),
    table_case(TEXT, partial(append, b"cat/0.png,c\xe4t"), "bad-utf-8", variant="invalid UTF-8"),
    table_case(TEXT, partial(append, b"cat/0.png,c\0t"), "nul", variant="NUL"),
    table_case(
        "missing column",
        partial(write, b"label,note\ncat,x\n"),
        *("expected one column of pictures", "label, note"),
        variant="pictures",
        source="table.csv",
    ),
    table_case(
        "missing column",
        partial(write, b"path,note\ncat/0.png,x\n"),
        *("expected one target", "path, note", "call the target label"),
        variant="target",
        source="table.csv",
    ),
    table_case(
        "no usable rows", partial(write, b"path,label\n"), "expected rows", variant="none at all"
    ),
    table_case(
        "no usable rows",
        partial(write, b"path,label\ngone.png,cat\nlost.png,dog\n"),
        *("expected rows", "the first of 2 faults is: line 2", "'gone.png'"),
        variant="all bad",
    ),
    table_case(
        "numbers mixed with names in the target",
        partial(append, b"cat/0.png,7"),
        *("names or numbers", "'cat' in line 2", "7 in line 12"),
    ),
)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def bomb() -> bytes:
    """320 MiB of zeros in 320 kB: gzip files laid end to end unpack end to end."""
    info = member("a/bomb.png")
    info.size = 320 << 20
    zeros = gzip.compress(bytes(16 << 20))
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + 20 * zeros + gzip.compress(bytes(1024))


def promising(size: int) -> bytes:
    """A zip file whose directory gives its last member another size."""
    content = zipped(("b/bomb.png", bytes(1 << 20)))
    return patched(content, content.rindex(b"PK\x01\x02") + 24, struct.pack("<I", size))


def encrypted() -> bytes:
    content = zipped()
    at = content.rindex(b"PK\x01\x02") + 8
    return patched(content, at, bytes([content[at] | 1]))


def linked_zip() -> bytes:
    info = zipfile.ZipInfo("a/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped((info, b"/etc/passwd"))


def archive_case(item: str, variant: str, content: Callable[[], bytes], *words: str) -> Case:
    return Case(
        item=f"Archives: {item}",
        variant=variant,
        good=archive,
        name="set.archive",
        plant=lambda path: write(content(), path),
        expected=words,
    )


NAMES, OUT = "duplicate or case-colliding names", ("leads out of the folder", "do not trust")
ARCHIVES = (
    *(
        archive_case("Path traversal", name, make, *OUT)
        for name, make in {
            "tar ../": lambda: tarred({**MEMBERS, "../evil.png": PLAIN}),
            "tar /": lambda: tarred({**MEMBERS, "/tmp/evil.png": PLAIN}),
            "tar a/../..": lambda: tarred({**MEMBERS, "a/../../evil.png": PLAIN}),
            "zip ..\\": lambda: zipped(("..\\evil.png", PLAIN)),
            "zip C:": lambda: zipped(("C:evil.png", PLAIN)),
        }.items()
    ),
    *(
        archive_case("link members", name, make, "link or a special file", "--dereference")
        for name, make in {
            "symbolic": lambda: tarred(extra=[member("a/l.png", tarfile.SYMTYPE, "/etc/passwd")]),
            "hard": lambda: tarred(extra=[member("a/l.png", tarfile.LNKTYPE, "a/0.png")]),
            "zip": linked_zip,
        }.items()
    ),
    archive_case("compression-ratio bomb", "tar.gz", bomb, "at most 256 MiB", "found more"),
    archive_case(
        "compression-ratio bomb", "zip", lambda: promising(1 << 31), "at most 256 MiB", "found more"
    ),
    archive_case(
        "compression-ratio bomb", "zip that plays it down", lambda: promising(9), "damage"
    ),
    *(
        archive_case(NAMES, name, make, *words)
        for name, make, words in (
            (
                "duplicate",
                lambda: tarred(extra=[member("a/0.png")]),
                ("'a/0.png' occurs twice", "make the archive again"),
            ),
            (
                "case",
                lambda: zipped(("A/0.PNG", PLAIN)),
                ("'a'", "'A'", "differ only by case", "rename"),
            ),
            (
                "Unicode form",
                lambda: tarred({"\u00e9/1.png": PLAIN, "e\u0301/1.png": PLAIN}),
                ("Unicode form", "rename"),
            ),
        )
    ),
    archive_case("encrypted", "", encrypted, "is encrypted", "unpack it yourself"),
)
