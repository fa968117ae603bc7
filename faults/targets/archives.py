"""Archives of a folder of pictures."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from functools import cache
from typing import TYPE_CHECKING

from faults.mutate import checksummed_tar, mutated
from faults.targets.pictures import pictures
from faults.targets.sets import read_only, zipped
from faults.targets.target import Files, Target, seed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["TARGETS"]


@cache
def _members() -> Files:
    picture = pictures()[6]
    return {f"set/{name}/{i}.png": picture for name in "ab" for i in range(2)}


def _tar(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"comment": "words"}
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


def _make_tar(chance: random.Random) -> Files:
    forms = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    data = _tar(_members() | {"set/b/" + "n" * 120: b""}, chance.choice(forms[:2]))
    ending = chance.choice(("tar", "tar", *_PACKERS))
    if ending == "tar" or chance.random() < 0.5:
        data = mutated(data, seed(chance))
        data = checksummed_tar(data) if chance.random() < 0.7 else data
        return {f"set.{ending}": _PACKERS[ending](data)}
    return {f"set.{ending}": mutated(_PACKERS[ending](data), seed(chance))}


def _tar_bombs() -> list[Files]:
    zeros = _tar({"set/a/1.png": bytes(300 << 20)})
    sparse = tarfile.TarInfo("set/a/1.png")
    sparse.size = 2**40
    endless = tarfile.TarInfo("set/a/1.png")
    endless.size = 2**33
    return [
        *({f"set.{name}": pack(zeros)} for name, pack in _PACKERS.items() if name == "tar.gz"),
        {"set.tar.gz": gzip.compress(bytes(300 << 20), mtime=0)},
        {"set.tar": sparse.tobuf()},
        {"set.tar.gz": gzip.compress(endless.tobuf() + bytes(1 << 20), mtime=0)},
        {"set.tar.gz": gzip.compress(_tar({f"set/a/{i}": b"" for i in range(1000)}), mtime=0)},
    ]


def _make_zip(chance: random.Random) -> Files:
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return {"set.zip": mutated(zipped(_members(), chance.choice(methods)), seed(chance))}


def _zip_bombs() -> list[Files]:
    zeros = zipped({"set/a/1.png": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)
    # The same with a directory that promises 1000 bytes.
    liar = zeros.replace(struct.pack("<I", 300 << 20), struct.pack("<I", 1000))
    return [
        {"set.zip": zeros},
        {"set.zip": liar},
        {"set.zip": zipped({f"set/a/{i}": b"" for i in range(1000)})},
    ]


TARGETS = {
    "zip": Target(make=_make_zip, read=read_only, bombs=_zip_bombs),
    "tar": Target(make=_make_tar, read=read_only, bombs=_tar_bombs),
}
