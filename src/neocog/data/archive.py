"""Archives: checked whole, then unpacked into the cache. Floor 1, room data; standard library.

An archive is a list of instructions from a stranger: write this, there. Nothing is written before
every member has been looked at, and what is written goes into a fresh folder by our own hand:
plain files and folders only, no owners, modes or links. The folder gets its name, the SHA-256 of
the archive, when it is complete, so an unpacked archive is whole or absent.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal

from neocog.data.cache import cache_dir
from neocog.data.names import fold
from neocog.data.opened import open_regular, sha256_of
from neocog.errors import DataError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["allowance", "archive_kind", "unpack"]

MEBI = 1 << 20
_DAMAGE = (
    EOFError,
    MemoryError,
    NotImplementedError,  # zip methods that the standard library lacks
    RuntimeError,  # zipfile: encrypted after all
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
_UNPACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}
_TAR_NAME = re.compile(r".*\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)", re.IGNORECASE)
_BLOCK = 512


def allowance(size: int, least: int = 256 * MEBI) -> int:
    """Bytes that an archive of `size` bytes may unpack to: a hundredfold, at least `least`, and
    never more than 64 GiB.

    >>> allowance(1) // MEBI, allowance(10 * MEBI) // MEBI, allowance(1 << 40) // MEBI
    (256, 1000, 65536)
    """
    return min(64 * 1024 * MEBI, max(least, 100 * size))


def archive_kind(path: Path) -> Literal["zip", "tar"] | None:
    """By its first bytes, or by its name; None: no archive.

    Raises:
        DataError: the file cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(_BLOCK)
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return "zip"
        if head[257:262] == b"ustar":
            return "tar"
        if unpacker := _UNPACKERS.get(head[:2]):
            file.seek(0)
            with contextlib.suppress(OSError, *_DAMAGE), unpacker(file) as stream:
                if stream.read(_BLOCK)[257:262] == b"ustar":
                    return "tar"
    if path.name.lower().endswith(".zip"):
        return "zip"
    return "tar" if _TAR_NAME.fullmatch(path.name) else None


def unpack(path: Path) -> Path:
    """The folder that holds what is in the archive; unpacked there if it is not yet.

    Raises:
        DataError: no readable archive, or one that is refused (nothing is then unpacked): members
            that leave the folder, links and special files, names that occur twice or differ only by
            case or Unicode form, encryption, or far more bytes than an honest archive unpacks to.
    """
    home = cache_dir() / "archives"
    target = home / sha256_of(path)
    if target.is_dir():
        return target
    members = _zip_members if archive_kind(path) == "zip" else _tar_members
    where = printable(path.name)
    with open_regular(path) as file:
        size = path.stat().st_size
        try:
            total = sum(m.size or 0 for m in _checked(members(file, size), where))
            _write(lambda: _checked(members(file, size), where), home, target, total)
        except (gzip.BadGzipFile, *_DAMAGE) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{where}: expected a whole archive, found it damaged ({error})",
                "download it again; only zip, tar, tar.gz, tar.bz2 and tar.xz are read",
            ) from error
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One entry of an archive."""

    name: str
    """As the archive has it, then as a safe relative path."""
    size: int | None
    """Bytes that it promises; None: a folder."""
    open: Callable[[], IO[bytes] | None]
    """Its content."""


def _checked(members: Iterator[_Member], where: str) -> Iterator[_Member]:
    """The members with safe relative paths; raises at the first that is not."""
    spelled: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        parts = _parts(member.name, where)
        if not parts:
            if member.size is None:
                continue
            raise DataError(
                f"{where}: the member {printable(member.name)!r} has no name",
                "make the archive again",
            )
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path in folders and (depth < len(parts) or member.size is None):
                continue
            other = spelled.setdefault(fold(path), path)
            if other != path:
                raise DataError(
                    f"{where}: the names {other!a} and {path!a} differ only by case or "
                    "Unicode form; nothing was unpacked",
                    "unpack it yourself on a system that tells them apart, and rename one",
                )
            if path in files or path in folders:
                raise DataError(
                    f"{where}: the name {printable(path)!r} occurs twice; nothing was unpacked",
                    "make the archive again",
                )
            is_file = depth == len(parts) and member.size is not None
            (files if is_file else folders).add(path)
        yield replace(member, name="/".join(parts))


def _parts(name: str, where: str) -> list[str]:
    """The steps of a member's path. Backslashes separate on Windows, so they count here too."""
    steps = re.split(r"[/\\]", name)
    if "\0" in name or ".." in steps or not steps[0] or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{where}: the member {printable(name)!r} leads out of the folder it is unpacked to; "
            "nothing was unpacked",
            "do not trust this archive",
        )
    return [step for step in name.split("/") if step not in ("", ".")]


def _too_large(where: str, limit: int, size: int) -> DataError:
    return DataError(
        f"{where}: expected at most {limit / MEBI:,.0f} MiB from an archive of "
        f"{size / MEBI:,.1f} MiB, found more; nothing was unpacked",
        "if you trust it unpack it yourself and name the folder",
    )


def _zip_members(file: BinaryIO, size: int) -> Iterator[_Member]:
    where = printable(Path(file.name).name)
    file.seek(0)
    limit, total = allowance(size), 0
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if info.flag_bits & 0x1:
                raise DataError(
                    f"{where}: the member {printable(info.filename)!r} is encrypted; nothing was "
                    "unpacked",
                    "unpack it yourself and name the folder",
                )
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _special(where, info.filename)
            total += info.file_size
            if total > limit:
                raise _too_large(where, limit, size)
            # zipfile cuts names at a NUL and would hide what stands behind it.
            name = info.orig_filename if "\0" in info.orig_filename else info.filename
            length = None if name.endswith("/") else info.file_size
            yield _Member(name=name, size=length, open=partial(archive.open, info))


def _special(where: str, name: str) -> DataError:
    return DataError(
        f"{where}: expected files and folders only, found that {printable(name)!r} is a link or a "
        "special file; nothing was unpacked",
        "make the archive again with the files themselves (tar --dereference)",
    )


class _Bounded:
    """A decompressed stream that refuses to go past a position.

    tarfile skips members by seeking, which unpacks all that lies between, and reads long names
    whole: a position is the one thing that bounds both time and memory.
    """

    def __init__(self, stream: BinaryIO, limit: int, error: DataError) -> None:
        self._stream, self._limit, self._error = stream, limit, error

    def read(self, size: int) -> bytes:
        # A negative size would read all, or lead back and round and round.
        if size < 0 or self._stream.tell() + size > self._limit:
            raise self._error
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        if not 0 <= position <= self._limit:
            raise self._error
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()


def _tar_members(file: BinaryIO, size: int) -> Iterator[_Member]:
    where = printable(Path(file.name).name)
    file.seek(0)
    unpacker = _UNPACKERS.get(file.read(2))
    file.seek(0)
    with contextlib.nullcontext(file) if unpacker is None else unpacker(file) as stream:
        limit = allowance(size)
        error = _too_large(where, limit, size)
        bounded = _Bounded(stream, limit, error)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]
            before = -1
            while (member := archive.next()) is not None:
                # tarfile keeps every header it has seen; a million of them are not needed.
                archive.members = []
                if member.issparse() or not (member.isreg() or member.isdir()):
                    raise _special(where, member.name)
                if not before < archive.offset <= limit:
                    raise error
                before = archive.offset
                length = None if member.isdir() else member.size
                opener = partial(archive.extractfile, member)
                yield _Member(name=member.name, size=length, open=opener)
            # tarfile takes a damaged header for the end. The end is a block of zeros.
            stream.seek(archive.offset)
            if stream.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(
                    f"{where}: expected the archive to end with zeros, found it cut short or "
                    "damaged; nothing was unpacked",
                    "download it again",
                )
            # To the very end, so that the decompressor compares its checksum.
            while stream.read(MEBI):
                if stream.tell() > limit:
                    raise error


def _write(
    members: Callable[[], Iterator[_Member]],
    home: Path,
    target: Path,
    total: int,
) -> None:
    """Write all members into a fresh folder, then give it its name."""
    temporary = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        if total > (free := shutil.disk_usage(home).free):
            raise DataError(
                f"unpacking needs {total / MEBI:,.0f} MiB in {home}, found {free / MEBI:,.0f} free",
                "free some space, or set NEOCOG_CACHE to another folder",
            )
        temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=home))
        for member in members():
            path = temporary / member.name
            if member.size is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                source = member.open()
                assert source is not None  # only regular files come here
                with source:
                    shutil.copyfileobj(source, file, MEBI)
                if file.tell() != member.size:
                    raise DataError(
                        f"the archive promises {member.size:,} bytes for "
                        f"{printable(member.name)!r}, found {file.tell():,}",
                        "download it again",
                    )
        # mkdtemp makes folders private; a cache may be shared.
        temporary.chmod(0o755)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first: its folder is as good
                raise
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise
        raise DataError(
            f"cannot unpack into {home}: {error.strerror or error}",
            "free some space, or set NEOCOG_CACHE to another folder",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
