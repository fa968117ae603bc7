"""A disk that can fail, below `os`. Standard library only.

`Disk` stands between a program and one folder. Everything really happens in the folder, so the
program sees its own writes; beside it a model keeps what has reached the disk. It counts the calls
that concern the folder, makes one of them fail as a disk does, and says what may be left when the
power goes: content that was not flushed is lost or cut at any byte, and a new name, a rename or a
deletion in a folder that was not flushed has happened or has not.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["KINDS", "Call", "Died", "Disk", "Fault", "Files", "Kind"]

Kind: TypeAlias = Literal[
    "no space", "quota", "input/output", "input/output for good", "short", "full", "die", "die in"
]
KINDS: dict[Kind, tuple[str, ...]] = {
    "no space": ("open", "write", "fsync", "close", "replace", "unlink"),
    "quota": ("open", "write", "fsync", "close", "replace", "unlink"),
    "input/output": ("open", "write", "fsync", "close", "replace", "unlink"),
    "input/output for good": ("open", "write", "fsync", "close", "replace", "unlink"),
    "short": ("write",),
    "full": ("write",),
    "die": ("open", "write", "fsync", "close", "replace", "unlink"),
    "die in": ("write",),
}
"""Each fault, and the calls that it can befall. `short`: half is written, and the rest may follow.
`full`: half is written, then there is no space. `for good`: every call from there on fails. `die`:
the process ends before the call; `die in`: with half of it done."""
ERRNO = {
    "no space": errno.ENOSPC,
    "full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "input/output": errno.EIO,
    "input/output for good": errno.EIO,
}

Files: TypeAlias = dict[str, bytes]
"""What is in a folder, by name."""


class Died(BaseException):
    """The process is no more: from here on no call reaches the disk. No `Exception`, so that
    nothing takes it for a failure that can be mended."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and at which call."""

    kind: Kind
    call: int
    """Counted from 0."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that concerned the folder."""

    name: str
    target: str
    """Name of the file; `.`: the folder itself."""


@dataclass(slots=True)
class _File:
    """Content, which may have several names or none."""

    live: bytes
    flushed: bytes | None
    """What is on the disk for sure; None: nothing, not even that it is empty."""


@dataclass(frozen=True, slots=True)
class _Change:
    """Something that happened to the folder and has not been flushed."""

    gone: str = ""
    new: str = ""
    file: _File | None = None


@dataclass(slots=True)
class _Handle:
    name: str
    file: _File | None
    """None: the folder itself."""
    place: int = 0


@dataclass(slots=True)
class _Model:
    """What is in the folder now, and what of it is on the disk."""

    live: dict[str, _File] = field(default_factory=dict)
    flushed: dict[str, _File] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)

    def change(self, change: _Change) -> None:
        _apply(self.live, change)
        self.pending.append(change)

    def flush_names(self) -> None:
        self.flushed = dict(self.live)
        self.pending.clear()


def _apply(names: dict[str, _File], change: _Change) -> None:
    names.pop(change.gone, None)
    if change.file is not None:
        names[change.new] = change.file


class Disk:
    """A context manager: within it, calls on files directly in `folder` can fail.

    `os.open`, `write`, `fsync`, `close`, `replace` and `unlink` are counted in `calls`; what the
    folder holds at the beginning is safe on the disk. One thread only.
    """

    def __init__(self, folder: Path, fault: Fault | None = None) -> None:
        self.folder = folder
        self.fault = fault
        self.calls: list[Call] = []
        self.died = False
        self._failing = False
        self._full = False
        self._model = _Model()
        for path in folder.iterdir():
            content = path.read_bytes()
            self._model.live[path.name] = _File(content, content)
        self._model.flush_names()
        self._handles: dict[int, _Handle] = {}
        self._real: dict[str, Any] = {}

    def __enter__(self) -> Disk:
        for name in ("open", "write", "fsync", "close", "replace", "unlink"):
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)
        for handle in self._handles:  # of a process that died
            with contextlib.suppress(OSError):
                os.close(handle)
        self._handles.clear()

    @property
    def live(self) -> Files:
        """What a process that begins now finds, the power having stayed."""
        return {name: file.live for name, file in self._model.live.items()}

    def after_power_cut(self) -> Iterator[Files]:
        """What may be on the disk when the power goes now: every combination of what may have
        happened, each once."""
        seen: set[tuple[tuple[str, bytes], ...]] = set()
        pending = self._model.pending
        for done in itertools.product((False, True), repeat=len(pending)):
            names = dict(self._model.flushed)
            for change in itertools.compress(pending, done):
                _apply(names, change)
            for contents in itertools.product(*(_remains(file) for file in names.values())):
                files = dict(zip(names, contents, strict=True))
                key = tuple(sorted(files.items()))
                if key not in seen:
                    seen.add(key)
                    yield files

    def _concerns(self, path: Any) -> str | None:
        """The name in the folder, `.` for the folder itself, None for anything else."""
        if isinstance(path, int):
            handle = self._handles.get(path)
            return None if handle is None else handle.name
        whole = Path(os.fsdecode(path))
        if whole == self.folder:
            return "."
        return whole.name if whole.parent == self.folder else None

    def _count(self, name: str, target: str) -> Kind | None:
        """Take down a call; die or fail if it is its turn.

        Returns:
            `short`, `full` or `die in` where half of this call is to be done.
        """
        if self.died:
            raise Died
        number = len(self.calls)
        self.calls.append(Call(name, target))
        if self._failing:
            raise _error("input/output", target)
        if self._full and name == "write":
            raise _error("no space", target)
        if self.fault is None or self.fault.call != number:
            return None
        kind = self.fault.kind
        assert name in KINDS[kind], f"{kind} cannot befall {name}"
        if kind == "die":
            self.died = True
            raise Died
        if kind in ("short", "full", "die in"):
            return kind
        self._failing = kind == "input/output for good"
        if name == "close":
            raise _ClosedError(ERRNO[kind], os.strerror(ERRNO[kind]), target)
        raise _error(kind, target)

    def _open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        name = self._concerns(path)
        if name is None:
            return int(self._real["open"](path, flags, *more, **named))
        self._count("open", name)
        number = int(self._real["open"](path, flags, *more, **named))
        if stat.S_ISDIR(os.fstat(number).st_mode):
            self._handles[number] = _Handle(name, None)
            return number
        file = self._model.live.get(name)
        if file is None:
            file = _File(b"", None)
            self._model.change(_Change(new=name, file=file))
        elif flags & os.O_TRUNC:
            file.live = b""
        self._handles[number] = _Handle(name, file, len(file.live) if flags & os.O_APPEND else 0)
        return number

    def _write(self, number: int, data: Any) -> int:
        handle = self._handles.get(number)
        if handle is None or handle.file is None:
            return int(self._real["write"](number, data))
        half = self._count("write", handle.name)
        content = bytes(data)
        if half:
            content = content[: (len(content) + 1) // 2]
        self._real["write"](number, content)
        file = handle.file
        file.live = file.live[: handle.place] + content + file.live[handle.place + len(content) :]
        handle.place += len(content)
        self._full = half == "full"
        if half == "die in":
            self.died = True
            raise Died
        return len(content)

    def _fsync(self, number: int) -> None:
        handle = self._handles.get(number)
        if handle is None:
            self._real["fsync"](number)
            return
        self._count("fsync", handle.name)
        # The model is the disk here: the real one need not be waited for.
        if handle.file is None:
            self._model.flush_names()
        else:
            handle.file.flushed = handle.file.live

    def _close(self, number: int) -> None:
        handle = self._handles.get(number)
        if handle is None:
            self._real["close"](number)
            return
        try:
            self._count("close", handle.name)
        except _ClosedError:
            self._release(number)  # a close that fails has closed
            raise
        self._release(number)

    def _release(self, number: int) -> None:
        del self._handles[number]
        self._real["close"](number)

    def _replace(self, old: Any, new: Any, **named: Any) -> None:
        source, target = self._concerns(old), self._concerns(new)
        if source is None or target is None:
            assert source is target, "a rename into or out of the folder is not modelled"
            self._real["replace"](old, new, **named)
            return
        self._count("replace", target)
        self._real["replace"](old, new, **named)
        if source != target:
            file = self._model.live[source]
            self._model.change(_Change(gone=source, new=target, file=file))

    def _unlink(self, path: Any, **named: Any) -> None:
        name = self._concerns(path)
        if name is None:
            self._real["unlink"](path, **named)
            return
        self._count("unlink", name)
        self._real["unlink"](path, **named)
        self._model.change(_Change(gone=name))


class _ClosedError(OSError):
    """A close that failed; the handle is gone all the same."""


def _error(kind: str, target: str) -> OSError:
    return OSError(ERRNO[kind], os.strerror(ERRNO[kind]), target)


def _remains(file: _File) -> list[bytes]:
    """What may be left of a file: all of it where it was flushed, else any part."""
    if file.flushed == file.live:
        return [file.live]
    size = len(file.live)
    cuts = sorted({0, 1, size // 2, max(0, size - 1), size})
    parts = [file.live[:cut] for cut in cuts]
    # Blocks that were given to the file but never written read as zeros.
    parts.append(bytes(size))
    if file.flushed is not None:
        parts.append(file.flushed)
    return list(dict.fromkeys(parts))
