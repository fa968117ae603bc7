"""A file's bytes, and what can be wrong before they are a picture. Floor 1, room data.

Imports floor 0 only; no NumPy, no Pillow. Reading never blocks on a pipe, never opens a device and
never follows a link out of the data set.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from neocog.errors import DataError
from neocog.records import Fault
from neocog.text import printable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MOMENTARY", "Limits", "Remark", "Undecodable", "check_bytes", "read_file", "skip"]

MOMENTARY = frozenset(("changed", "decoder-died", "decoder-hung", "out-of-memory", "read-error"))
"""Codes of faults that depend on the moment: the same file may be in order the next time."""

_HINTS = {
    "damaged": "copy or download it again",
    "empty-file": "copy or download it again",
    "link-loop": "put the picture itself in its place",
    "link-outside": "put the picture itself in its place",
    "missing": "name a file that exists",
    "not-a-file": "put a picture in its place",
    "too-small": "take it out, or lower data.minimum_side",
    "text-bomb": "do not trust this file; save the picture again without its metadata",
    "truncated": "copy or download it again",
    "unknown-format": "save it as JPEG or PNG",
    "git-lfs-pointer": "fetch the real file with `git lfs pull`",
    "html": "the download saved a web page: fetch the picture itself",
    "foreign-format": "convert it to JPEG or PNG",
    "16-bit": "convert it to 8 bits a channel, or take the upper 8: --set data.deep=true",
    "unreadable": "give yourself the right to read it",
    "read-error": "try again once the drive or the network is in order",
    "out-of-memory": "try again with more free memory, or scale the picture down first",
    "over-budget": "scale the picture down first",
    "pixel-limit": "scale the picture down first",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a picture may cost."""

    minimum_side: int = 1
    """Pixels; a picture with a shorter side is a fault."""
    deep: bool = False
    """Take pictures of 16 bits a channel, their upper 8; else they are a fault that refuses the
    data set."""
    decoded_bytes: int = 64 * 2**20
    """Memory of one decoded picture. A large JPEG is decoded at a fraction of its size where the
    network's input is small, and only what is decoded counts."""
    pixels: int = 89_478_485
    """Pixels that a header may promise: a quarter of a GiB as RGB."""


_FAULTS_OF_THE_FILE = {
    errno.ELOOP: "link-loop",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR), "unreadable"),
}
"""Error numbers that say the same until somebody changes something; all others may pass."""
_USUAL = Limits()
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)


@dataclass(frozen=True, slots=True)
class Remark:
    """What is odd about one picture: a `Fault` that does not know its path yet."""

    format: str
    code: str
    reason: str
    policy: Literal["skip", "refuse", "accept"] = "accept"
    offset: int | None = None

    def at(self, path: str) -> Fault:
        """The fault, with its place; its reason says where it depends on the moment."""
        again = "; the next opening tries again" if self.code in MOMENTARY else ""
        return Fault(
            path=printable(path),
            format=self.format,
            code=self.code,
            reason=self.reason + again,
            policy=self.policy,
            offset=self.offset,
        )


class Undecodable(DataError):  # noqa: N818 - reads as what it says
    """A picture that cannot be used; `fault` says why and what becomes of the sample."""

    def __init__(self, path: str, remark: Remark) -> None:
        super().__init__(f"{printable(path)}: {remark.reason}", _HINTS.get(remark.code, ""))
        self.remark = remark
        self.fault = remark.at(path)


def skip(name: str, code: str, reason: str, kind: str = "file") -> Undecodable:
    """The error for a sample that is left out."""
    return Undecodable(name, Remark(kind, code, reason, "skip"))


def read_file(
    path: Path | str, *, root: Path | str | None = None, limits: Limits | None = None
) -> bytes:
    """All bytes of a regular file; never blocks on a pipe, never leaves `root` by a link.

    Raises:
        Undecodable: it cannot be read, or should not be.
    """
    name, limits = os.fspath(path), limits or _USUAL
    try:
        place, mode = _resolve(name, None if root is None else os.fspath(root))
        _refuse_special(name, mode)
        # Between the two looks the file may have become a pipe: then O_NONBLOCK saves us.
        handle = os.open(place, _FLAGS)
        try:
            found = os.fstat(handle)
            _refuse_special(name, found.st_mode)
            _check_length(name, found.st_size, limits)
            data = _read_all(handle, found.st_size)
        finally:
            os.close(handle)
    except FileNotFoundError as error:
        raise skip(name, "missing", "expected a file, found nothing") from error
    except OSError as error:
        code = _FAULTS_OF_THE_FILE.get(error.errno or 0, "read-error")
        found_text = "a link that loops" if code == "link-loop" else error.strerror
        raise skip(name, code, f"expected a readable file, found {found_text}") from error
    return _check_any(name, data)


def check_bytes(name: str, data: bytes, limits: Limits) -> bytes:
    """The bytes of a file that is at hand, held to what `read_file` holds files to.

    Raises:
        Undecodable: there are none, or too many.
    """
    _check_length(name, len(data), limits)
    return _check_any(name, data)


def _check_length(name: str, length: int, limits: Limits) -> None:
    limit = 2 * limits.decoded_bytes
    if length > limit:
        raise skip(name, "over-budget", f"expected at most {limit} bytes, found {length}")


def _check_any(name: str, data: bytes) -> bytes:
    if not data:
        raise skip(name, "empty-file", "expected a picture, found an empty file")
    return data


def _refuse_special(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise skip(name, "not-a-file", f"expected a file, found {_kind(mode)}")


def _read_all(handle: int, size: int) -> bytes:
    """What is left of an open file, `size` bytes if nobody writes to it meanwhile."""
    data = os.read(handle, size + 1)
    if len(data) == size:  # one byte more was asked for: this was all
        return data
    parts = [data]
    while parts[-1]:  # a network's file system may give less at once, and the file may grow
        parts.append(os.read(handle, 2**20))
    return b"".join(parts)


@functools.lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    """Where a folder really is; cached, because a folder holds many files."""
    return os.path.realpath(folder or ".", strict=True)


@functools.lru_cache(maxsize=64)
def _inside(root: str) -> str:
    """How the path of everything below a root begins."""
    return _real_folder(root).rstrip(os.sep) + os.sep


def _resolve(name: str, root: str | None) -> tuple[str, int]:
    """Where the file really is, and its mode; a Undecodable when that lies outside `root`."""
    folder, last = os.path.split(name)
    place = os.path.join(_real_folder(folder), last)  # noqa: PTH118 - once a file, and hot
    mode = os.lstat(place).st_mode
    if stat.S_ISLNK(mode):
        place = os.path.realpath(place, strict=True)
        mode = os.lstat(place).st_mode
    if root is not None and not place.startswith(_inside(root)):
        raise skip(name, "link-outside", "expected a file below the root, found a link out")
    return place, mode


def _kind(mode: int) -> str:
    """A file type in words."""
    for test, word in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return word
    return "a device"
