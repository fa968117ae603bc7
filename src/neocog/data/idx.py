"""IDX files: the format of MNIST and its kin. Floor 1, room data; imports floor 0 and NumPy.

A file is two zero bytes, a type byte, the number of dimensions, the dimensions as big-endian 32-bit
integers, then the items; often gzipped. (Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database
of handwritten digits".) The header is a promise by a stranger: it is checked against the size of
the file before anything is allocated, and never more is unpacked than it promises plus one byte.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from neocog.data.names import SPLITS, too_few
from neocog.data.opened import open_regular, visible
from neocog.data.samples import Part, Source
from neocog.errors import DataError
from neocog.records import Fault
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["group_of", "has_idx_name", "read_idx"]

_NAME = re.compile(
    r"(?P<prefix>.*?)(?P<split>train|t10k|test|validation|valid|val)[-_.]"
    r"(?P<role>images|labels)[-_.]idx\d[-_.]ubyte(?P<gz>\.gz)?",
    re.IGNORECASE,
)
_TYPES = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
_DEFLATE = 1032
"""No deflate stream unpacks to more than this many times its size (RFC 1951)."""
_CHUNK = 1 << 24
_SPREAD = 16


def has_idx_name(name: str) -> bool:
    """Whether a file is called like an IDX file of a data set.

    >>> has_idx_name("train-images-idx3-ubyte.gz"), has_idx_name("t10k-labels.idx1-ubyte")
    (True, True)
    >>> has_idx_name("images.idx")
    False
    """
    return _NAME.fullmatch(name) is not None


def group_of(folder: Path, name: str = "") -> dict[tuple[str, str], Path]:
    """The IDX files of one data set: (split, `images` or `labels`) → path.

    Args:
        folder: where they lie.
        name: one of them; the others are those that share what stands before `train` or `t10k`.
            Empty: all of the folder, which must then be one set.

    Where a file lies there both plain and gzipped the plain one is taken.

    Raises:
        DataError: two sets in one folder, or two files for one role.
    """
    given = _NAME.fullmatch(name)
    prefix = given["prefix"] if given else None
    group: dict[tuple[str, str], Path] = {}
    gzipped: set[tuple[str, str]] = set()
    for entry in visible(folder):
        match = _NAME.fullmatch(entry.name)
        if match is None or (given and match["prefix"] != prefix):
            continue
        if prefix is None:
            prefix = match["prefix"]
        if match["prefix"] != prefix:
            raise DataError(
                f"{printable(str(folder))}: expected one IDX data set, found {prefix!r} and "
                f"{match['prefix']!r}",
                f"name one of its files, for example {printable(entry.path)}",
            )
        split = match["split"].lower()
        key = ("test" if split == "t10k" else SPLITS[split], match["role"].lower())
        if key in group and (key in gzipped) == bool(match["gz"]):
            raise DataError(
                f"{printable(str(folder))}: two files hold the {key[0]} {key[1]}: "
                f"{printable(group[key].name)} and {printable(entry.name)}",
                "keep one of them",
            )
        if key not in group or not match["gz"]:
            group[key] = folder / entry.name
            (gzipped.add if match["gz"] else gzipped.discard)(key)
    return group


def read_idx(
    folder: Path, name: str = "", classes: Sequence[str] = (), *, few: bool = False
) -> Source:
    """The data set of IDX files in a folder.

    Args:
        folder: where the files lie.
        name: one of the files where the folder holds several sets.
        classes: names of the classes by index; empty: "0" … up to the highest label.
        few: it is only scored: one class is enough, and labels may leave gaps.

    Raises:
        DataError: a missing partner, a wrong header (the field, expected and found are named), too
            few or too many bytes, counts that differ, a label out of range, no items.
    """
    group = group_of(folder, name)
    arrays: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
    for split in ("train", "val", "test"):
        paths = [group.get((split, role)) for role in ("images", "labels")]
        if paths == [None, None]:
            continue
        if paths[0] is None or paths[1] is None:
            role, other = ("images", "labels") if paths[0] is None else ("labels", "images")
            raise DataError(
                f"{printable(str(folder))}: expected {split} images and {split} labels, found no "
                f"{role}",
                f"put its {role} file beside {printable(group[split, other].name)}",
            )
        images, labels = _read_file(paths[0], (3, 4)), _read_file(paths[1], (1,))
        if len(images) != len(labels):
            raise DataError(
                f"{printable(str(folder))}: field dimensions: expected as many images as labels, "
                f"found {len(images):,} images in {printable(paths[0].name)} and "
                f"{len(labels):,} labels in {printable(paths[1].name)}",
                "one of the two files belongs to another set",
            )
        arrays[split] = images, labels
    if not arrays:
        raise DataError(
            f"{printable(str(folder))}: expected IDX files, found none",
            "name them like train-images-idx3-ubyte and train-labels-idx1-ubyte",
        )
    every = np.concatenate([labels for _, labels in arrays.values()])
    highest = max(arrays, key=lambda split: int(arrays[split][1].max()))
    names = tuple(classes) or _class_names(every, group[highest, "labels"], few)
    faults = []
    for split, (_, labels) in arrays.items():
        if labels.max() >= len(names):
            at = int(np.argmax(labels >= len(names)))
            raise DataError(
                f"{printable(group[split, 'labels'].name)}: field label, item {at}: expected below "
                f"{len(names)}, found {labels[at]}",
                "the file is damaged or belongs to another set",
            )
        faults += _absent(labels, names, split)
    return Source(
        kind="idx",
        target="class",
        classes=names,
        parts=tuple(_part(split, *pair, names) for split, pair in arrays.items()),
        faults=tuple(faults),
    )


def _class_names(labels: NDArray[np.uint8], file: Path, few: bool) -> tuple[str, ...]:
    """ "0" … "K-1". A label far beyond the number of labels that occur is damage, not a class.

    `file` holds the highest label.
    """
    distinct, highest = len(np.unique(labels)), int(labels.max())
    if few:  # what it lacks is decided where it is matched with the classes of a network
        return tuple(map(str, range(highest + 1)))
    if distinct < 2:
        raise too_few([str(highest)], printable(str(file.parent)))
    if highest >= 2 * distinct + _SPREAD:
        raise DataError(
            f"{printable(str(file))}: field label: expected labels from 0 without large gaps, "
            f"found {highest} though only {distinct} different labels occur",
            "the label file is damaged, or its labels must be renumbered",
        )
    return tuple(map(str, range(highest + 1)))


def _absent(labels: NDArray[np.uint8], names: Sequence[str], split: str) -> list[Fault]:
    counts = np.bincount(labels, minlength=len(names))
    return [
        Fault(
            path=split,
            format="idx",
            code="missing-class",
            reason=f"the {split} part has no sample of the class {names[k]!r}",
            policy="accept",
        )
        for k in np.flatnonzero(counts == 0).tolist()
    ]


def _part(
    split: str, images: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str]
) -> Part:
    n = len(labels)
    return Part(
        names=tuple(f"{split}[{i}]" for i in range(n)),
        splits=(split,) * n,
        targets=tuple(map(names.__getitem__, labels.tolist())),
        pixels=images if images.ndim == 4 else images[..., np.newaxis],
    )


def _read_file(path: Path, ranks: tuple[int, ...]) -> NDArray[np.uint8]:
    """One IDX file of unsigned bytes, gzipped or not (told by its content)."""
    where = printable(path.name)
    with open_regular(path) as file:
        size = path.stat().st_size
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if packed:
                with gzip.GzipFile(fileobj=file) as stream:
                    return _parse(stream, where, ranks, None, size * _DEFLATE)  # type: ignore[arg-type]
            return _parse(file, where, ranks, size, size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(
                f"{where}: expected a whole gzip file, found it damaged ({error})",
                "download it again",
            ) from error
        except MemoryError as error:
            raise DataError(f"{where}: does not fit into memory", "split it into parts") from error


def _parse(
    stream: BinaryIO, where: str, ranks: tuple[int, ...], exact: int | None, most: int
) -> NDArray[np.uint8]:
    """Header and items. `exact`: size of the stream where known; `most`: an upper bound of it."""
    head = stream.read(4)
    if not head:
        raise DataError(
            f"{where}: field magic: expected 4 bytes, found none: the file is empty",
            "download it again",
        )
    if len(head) < 4 or head[:2] != b"\0\0":
        raise DataError(
            f"{where}: field magic: expected 00 00, a type and a rank, found {head.hex(' ')}",
            "this is no IDX file",
        )
    if head[2] != 0x08:
        raise DataError(
            f"{where}: field type: expected 08 (unsigned bytes), found {head[2]:02x} "
            f"({_TYPES.get(head[2], 'unknown')})",
            "convert it to unsigned bytes, or save it as .npz",
        )
    if head[3] not in ranks:
        raise DataError(
            f"{where}: field rank: expected {' or '.join(map(str, ranks))} dimensions, "
            f"found {head[3]}",
            "images have 3 or 4 dimensions, labels have 1; is it the other file?",
        )
    fields = stream.read(4 * head[3])
    if len(fields) < 4 * head[3]:
        raise DataError(
            f"{where}: field dimensions: expected {4 * head[3]} bytes, found {len(fields)}: the "
            "file ends inside them",
            "download it again",
        )
    shape: tuple[int, ...] = struct.unpack(f">{head[3]}I", fields)
    if min(shape) == 0:
        raise DataError(
            f"{where}: field dimensions: expected at least one item, found {shape}",
            "the file holds nothing: download it again",
        )
    if len(shape) == 4 and shape[3] not in (1, 3):
        raise DataError(
            f"{where}: field channels: expected 1 or 3, found {shape[3]}",
            "the last dimension is colour: grey or red, green and blue",
        )
    count, start = math.prod(shape), 4 + 4 * head[3]
    if start + count > most:
        held = f"at most {most:,} once unpacked" if exact is None else f"{most:,}"
        raise DataError(
            f"{where}: field dimensions: expected {start + count:,} bytes for {shape}, found a "
            f"file that can hold {held}",
            "the file is cut short or its header is damaged",
        )
    if exact is not None and start + count < exact:
        raise _trailing(where, shape)
    items = np.empty(count, np.uint8)
    view, got = items.data, 0
    while got < count:
        read = stream.readinto(view[got : got + _CHUNK])  # type: ignore[attr-defined]
        if not read:
            raise DataError(
                f"{where}: field data: expected {count:,} bytes for {shape}, found {got:,}",
                "the file is cut short: download it again",
            )
        got += read
    # Reading on also makes gzip check its CRC.
    if stream.read(1):
        raise _trailing(where, shape)
    return items.reshape(shape)


def _trailing(where: str, shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"{where}: field data: expected the file to end after {shape}, found more bytes",
        "the header is damaged, or the file was joined with another",
    )
