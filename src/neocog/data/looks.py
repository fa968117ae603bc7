"""What is in files: the helper program that `workers` starts. Floor 1, room data.

Imports floor 0 and this room only, no NumPy and no torch, and not `workers`: a program that starts
for each set of pictures, and for a single one, starts with as little as it can.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neocog.data.decode import picture
from neocog.data.files import Limits, Remark, Undecodable, check_bytes, read_file
from neocog.data.masks import Values, mask
from neocog.data.messages import answer_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    File = tuple[str, str | bytes | None]
    """A path, with the folder it must not leave; or a name, with the bytes of a file."""
    Files = Sequence[File]

__all__ = [
    "NOTHING",
    "ROW",
    "Batch",
    "Look",
    "Order",
    "looks",
    "main",
    "pack_files",
    "pixel_print",
]

ROW = struct.Struct("<32s6qQ")
"""What a batch says of one file: SHA-256 of its bytes, stored height and width, height and width of
the pixels, channels, bytes of pixels that follow, print of the pixels. All 0: unusable."""
NOTHING = bytes(ROW.size)
"""The row of an unusable file."""
_WORKING_COPIES = 8
"""Address space for decoding, in units of `Limits.decoded_bytes`: 2 for all that `decode` holds at
once, as it reckons beforehand, and as much again where it reckons wrong; 2 for a file that is read
in pieces; 1 for the pixels of a batch, and 1 for those of the picture that joins them."""
_RESERVE = 64 * 2**20
"""Bytes of address space for all else that a helper may come to need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is wanted of each file."""

    cover: tuple[int, int] | None = None
    """Scale to `covering_size` of this; None: the pictures' own sizes."""
    whole: int = 0
    """Pictures with both sides up to this are not scaled."""
    pixels: bool = True
    """False: check only, send no pixels."""
    limits: Limits = field(default_factory=Limits)
    """What a picture may cost."""
    mask: Values | None = None
    """The files are masks, which may hold these numbers, and are never scaled."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was found in some files."""

    table: bytes
    """A `ROW` for each file."""
    remarks: tuple[tuple[int, Remark], ...]
    """(place of the file in the batch, what is odd about it), by place."""
    pixels: bytes | bytearray
    """H×W×C uint8 of each usable file, one after the other."""

    def __len__(self) -> int:
        return len(self.table) // ROW.size

    def looks(self) -> Iterator[Look]:
        """The files one by one."""
        at, pixels = 0, memoryview(self.pixels)
        for place, row in enumerate(ROW.iter_unpack(self.table)):
            digest, height, width, tall, wide, channels, length, _ = row
            yield Look(
                digest if channels else b"",
                (height, width),
                (tall, wide),
                channels,
                tuple(remark for other, remark in self.remarks if other == place),
                bytes(self.pixels if length == len(pixels) else pixels[at : at + length]),
            )
            at += length


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one file. Sizes are 0 and digest and pixels empty where it is unusable."""

    digest: bytes
    """SHA-256 of the file's bytes."""
    stored: tuple[int, int]
    """Height and width in the file, upright."""
    size: tuple[int, int]
    """Height and width of `pixels`."""
    channels: int
    """1 or 3."""
    remarks: tuple[Remark, ...]
    """What is odd; unusable where one of them does not say `accept`."""
    pixels: bytes = b""
    """H×W×C, uint8."""

    @property
    def usable(self) -> bool:
        """Whether the sample can be used."""
        return bool(self.digest)

    def array(self) -> NDArray[np.uint8]:
        """H×W×C, uint8, writable: the pixels, where they were wanted."""
        import numpy as np  # only here: no helper needs it

        found = np.frombuffer(self.pixels, np.uint8).reshape(*self.size, self.channels)
        return found.copy()  # which lets other threads run, as `bytearray` would not


def pixel_print(size: tuple[int, ...], pixels: bytes) -> int:
    """64 bits that are equal for equal pictures, and in practice only for them.

    Args:
        size: height and width of the picture; sides of a signal or volume.
        pixels: H×W×C, uint8; the bytes of a signal or volume.
    """
    state = hashlib.blake2b(" ".join(map(str, size)).encode(), digest_size=8)
    state.update(pixels)
    return int.from_bytes(state.digest(), "little")


def looks(files: Iterable[File], order: Order) -> Iterator[Batch]:
    """The batches of these files, made in this process; one ends where its pixels are many."""
    table, pixels = bytearray(), bytearray()  # one run each: the pictures' own memory is used again
    remarks: list[tuple[int, Remark]] = []
    cover, whole, limits = order.cover, order.whole, order.limits
    for path, root in files:
        if len(pixels) >= limits.decoded_bytes:
            yield Batch(bytes(table), tuple(remarks), pixels)
            table, pixels, remarks = bytearray(), bytearray(), []
        place, at = len(table) // ROW.size, len(pixels)
        try:
            if isinstance(root, bytes):
                data = check_bytes(path, root, limits)
            else:
                data = read_file(path, root=root, limits=limits)
            if order.mask is None:
                found = picture(data, name=path, cover=cover, whole=whole, limits=limits)
            else:
                found = mask(data, name=path, values=order.mask, limits=limits)
            kept = found.pixels if order.pixels else b""
            row = ROW.pack(
                hashlib.sha256(data).digest(),
                *found.stored,
                *found.size,
                found.channels,
                len(kept),
                pixel_print(found.size, kept) if kept else 0,
            )
            pixels += kept
            table += row
            remarks += [(place, remark) for remark in found.remarks]
        except Undecodable as error:
            remarks.append((place, error.remark))
            table += NOTHING
        except MemoryError:
            del table[place * ROW.size :], pixels[at:]
            reason = "decoding it takes more memory than it may"
            remarks.append((place, Remark("file", "out-of-memory", reason, "skip")))
            table += NOTHING
    yield Batch(bytes(table), tuple(remarks), pixels)


def pack_files(files: Files) -> tuple[bytes, bytes]:
    """A question's first and third part: as JSON, paths with their folders and names with numbers
    of bytes; those bytes, one file after the other."""
    contents = [root for _, root in files if isinstance(root, bytes)]
    named = [(path, len(root) if isinstance(root, bytes) else root) for path, root in files]
    return json.dumps(named).encode(), contents[0] if len(contents) == 1 else b"".join(contents)


def _files(listed: bytes, contents: bytes, sign: Callable[[], None]) -> Iterator[File]:
    """The files one by one, each after a sign of life where one is due."""
    at = 0
    for path, root in json.loads(listed):
        sign()
        if isinstance(root, int):
            yield path, contents[at : at + root]
            at += root
        else:
            yield path, root


def main(setting: str) -> None:
    """The helper program: answer for chunks of files until the input ends.

    Args:
        setting: as JSON, the fields of the order and the seconds of the caller's patience.
    """
    cover, whole, pixels, limits, values, patience = json.loads(setting)
    order = Order(
        cover=None if cover is None else (cover[0], cover[1]),
        whole=whole,
        pixels=pixels,
        limits=Limits(**limits),
        mask=None if values is None else Values(**values),
    )

    def answer(
        listed: bytes, contents: bytes, sign: Callable[[], None]
    ) -> Iterator[tuple[bytes, bytes, bytes | bytearray]]:
        for batch in looks(_files(listed, contents, sign), order):
            said = [(place, *dataclasses.astuple(remark)) for place, remark in batch.remarks]
            yield batch.table, json.dumps(said).encode(), batch.pixels

    memory = _WORKING_COPIES * order.limits.decoded_bytes + _RESERVE
    answer_all(answer, memory=memory, patience=patience)
