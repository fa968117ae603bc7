"""From a path or a name to a `Source`: looks, and hands on to the reader that fits.

Floor 1, room data; imports floor 0 and this room. What a path is follows from what is there, never
from a guess: where two readings are possible the path is refused and both are named.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from neocog.data import named
from neocog.data.archive import archive_kind, unpack
from neocog.data.arrays import read_arrays
from neocog.data.cifar import has_cifar_name, read_cifar, refuse_pickles
from neocog.data.folder import is_picture, read_folder, split_folders
from neocog.data.idx import group_of, has_idx_name, read_idx
from neocog.data.opened import is_hidden, visible
from neocog.data.pairs import is_paired, read_pairs
from neocog.data.table import has_table_header, listed_files, read_table
from neocog.errors import DataError, near
from neocog.geometry import noun
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neocog.data.samples import Source

__all__ = ["read", "signature"]

_Kind = Literal["folder", "pairs", "idx", "cifar", "npz", "csv", "archive"]
_KNOWN = (
    "a source is a folder of class folders, a folder of pictures and masks, IDX files, CIFAR "
    "binaries, an .npz, a .csv, an archive of these (zip, tar, tar.gz, tar.bz2, tar.xz), or a "
    "name: " + ", ".join(named.NAMES)
)


def read(
    source: str,
    *,
    few: bool = False,
    dims: int | None = None,
    channels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """What is in a data set, before any picture is decoded.

    Args:
        source: a path, or one of `named.NAMES`. A path that exists goes before a name, but for the
            folder of a run.
        few: it is a validation or test part, or data for a network that exists: classes may be
            missing, down to a single one. Else it is to be learnt from, which takes two.
        dims: axes of a sample beside its channels: 1 for signals, 2 for pictures, 3 for volumes.
            None: what an .npz says; everything else holds pictures.
        channels: how many signals and volumes have, where that is known.
        progress: called with bytes so far and bytes in all while something is downloaded.

    Raises:
        DataError: no such path or name, two readings are possible, or the reader refuses it.
    """
    path = _located(source)
    if path is None:
        _refuse_other_rank(dims, source)
        return named.read_named(source, progress)
    kind, path = _look(path)
    if kind != "archive":
        return _read(kind, path, few, dims, channels)
    try:
        return _read(*_look_folder(unpack(path)), few, dims, channels)
    except DataError as error:
        error.add_note(f"in the archive {printable(str(path))}")
        raise


def _refuse_other_rank(dims: int | None, where: str) -> None:
    """Raises a DataError where something else than pictures is wanted of what holds pictures."""
    if dims not in (None, 2):
        raise DataError(
            f"{printable(where)}: expected {noun((0,) * dims)}s, found pictures",
            "signals and volumes come in an .npz: numpy.savez(path, x=…, y=…, dims=1)",
        )


def signature(source: str) -> str:
    """A key that changes when the source does: hex digits from names, sizes and times.

    Of all files that belong to it, none of which is opened, apart from a table, which says what
    belongs to it. For a name it follows from the published checksums.

    Raises:
        DataError: no such path or name, or a folder that cannot be read.
    """
    path = _located(source)
    digest = hashlib.sha256(b"neocog source 1\n")
    if path is None:
        digest.update(named.named_signature(source))
        return digest.hexdigest()
    digest.update(os.fsencode(path.absolute()) + b"\n")
    for line in _belongings(path):
        digest.update(line)
    return digest.hexdigest()


def _located(source: str) -> Path | None:
    """The path, absolute apart from links; None for a known name."""
    try:
        path = Path(os.path.abspath(Path(source).expanduser())) if source else None  # noqa: PTH100
        if path is not None and path.exists() and not (source in named.NAMES and _is_run(path)):
            return path
    except (OSError, RuntimeError) as error:  # no right to look; ~nobody
        raise DataError(f"cannot look at {printable(source)!r}: {error}", _KNOWN) from error
    if source in named.NAMES:
        return None
    hint = near(source, named.NAMES)
    if path is not None and not hint.startswith("did you"):
        hint = _KNOWN
        if path.parent.is_dir() and len(Path(source).parts) > 1:
            beside = near(path.name, [e.name for e in visible(path.parent)])
            hint = beside if beside.startswith("did you") else _KNOWN
        elif not path.parent.is_dir():
            hint = f"the folder {printable(str(path.parent))} does not exist either"
    raise DataError(f"{printable(source)!r} is neither a path nor a known data set", hint)


def _is_run(path: Path) -> bool:
    """Whether a folder is a run's: named like the set that it was trained on, it is none itself."""
    return (path / "manifest.json").is_file() and (path / "events.jsonl").is_file()


def _read(kind: _Kind, path: Path, few: bool, dims: int | None, channels: int | None) -> Source:
    if kind == "npz":
        return read_arrays(path, few=few, dims=dims, channels=channels)
    _refuse_other_rank(dims, str(path))
    if kind == "pairs":
        return read_pairs(path)
    if kind == "folder":
        return read_folder(path, few=few)
    if kind == "csv":
        return read_table(path, few=few)
    folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
    return read_idx(folder, name, few=few) if kind == "idx" else read_cifar(folder, name)


def _look(path: Path) -> tuple[_Kind, Path]:
    """Which reader reads this path, and where it begins."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return _look_folder(path)
    where = printable(str(path))
    if not stat.S_ISREG(mode):
        raise DataError(f"{where}: expected a file or a folder, found a special file", _KNOWN)
    name = path.name.lower()
    if has_idx_name(path.name):
        return "idx", path
    if name.endswith(".npz"):
        return "npz", path
    if name.endswith(".csv"):
        return "csv", path
    if name.endswith(".bin"):
        return "cifar", path
    refuse_pickles([path])
    if archive_kind(path) is not None:
        return "archive", path
    if is_picture(path.name):
        raise DataError(
            f"{where}: expected a data set, found one picture",
            "name the folder of its class folders",
        )
    if name.endswith(".npy"):
        raise DataError(
            f"{where}: expected pictures and targets, found one array",
            "save both in one file: numpy.savez(path, x=…, y=…)",
        )
    if "idx" in name or "ubyte" in name:
        raise DataError(
            f"{where}: expected the name of an IDX file, which tells what is in it",
            "name it like train-images-idx3-ubyte or t10k-labels-idx1-ubyte.gz",
        )
    raise DataError(f"{where}: expected a data set, found another kind of file", _KNOWN)


def _look_folder(root: Path) -> tuple[_Kind, Path]:
    """Which reader reads this folder. Never opens a file but tables, for their headers."""
    while True:
        entries = visible(root)
        where = printable(str(root))
        files = [root / e.name for e in entries if not _is_folder(e)]
        folders = [e.name for e in entries if _is_folder(e)]
        if any(has_idx_name(path.name) for path in files):
            return "idx", root
        if any(has_cifar_name(path.name) for path in files):
            return "cifar", root
        refuse_pickles(files)
        single = _single_file(files, bool(folders), where)
        if single is not None:
            return single
        if not entries:
            raise DataError(f"{where}: expected a data set, found an empty folder", _KNOWN)
        if is_paired(root):
            return "pairs", root
        if not folders and len(files) == 1 and not is_picture(files[0].name):
            raise DataError(
                f"{where}: expected a data set, found only {printable(files[0].name)}",
                f"name the file itself if it is an archive. {_KNOWN[0].upper()}{_KNOWN[1:]}",
            )
        if files or len(folders) != 1 or split_folders(root) or _is_class(root / folders[0]):
            return "folder", root
        root = root / folders[0]  # archives are often made with one folder around it all


def _is_class(folder: Path) -> bool:
    """Whether a lone folder is one class rather than a wrapper of the data set.

    A class holds pictures, or nothing. A wrapper holds class folders or the files of a data set;
    a picture that lies beside several folders is a stray.
    """
    entries = visible(folder)
    files = [folder / e.name for e in entries if not _is_folder(e)]
    if any(_is_data(path) for path in files):
        return False
    if any(is_picture(path.name) for path in files):
        return len(entries) - len(files) < 2
    return not entries


def _is_data(path: Path) -> bool:
    """Whether a file is called like one that holds a data set; a table must also begin like it."""
    name = path.name.lower()
    if name.endswith(".csv"):
        return path.is_file() and has_table_header(path)
    return has_idx_name(path.name) or has_cifar_name(path.name) or name.endswith(".npz")


def _single_file(files: list[Path], folders: bool, where: str) -> tuple[_Kind, Path] | None:
    """The one .npz or .csv that a folder is about; None where it is about its folders."""
    arrays = [path for path in files if path.suffix.lower() == ".npz"]
    tables = [path for path in files if path.suffix.lower() == ".csv"]
    fitting = [path for path in tables if path.is_file() and has_table_header(path)]
    if not folders and not arrays and len(tables) == 1:
        fitting = tables  # nothing else to read: the reader says what it lacks
    # Folders beside a table are where its pictures lie; beside an array they are another data set.
    if len(arrays) + len(fitting) > 1 or (arrays and folders):
        found = ", ".join(printable(path.name) for path in (*arrays, *fitting))
        raise DataError(
            f"{where}: expected one data set, found {found}"
            + (" and folders" if arrays and folders else ""),
            f"name the one you mean, for example {printable(str((arrays or fitting)[0]))}",
        )
    if arrays:
        return "npz", arrays[0]
    return ("csv", fitting[0]) if fitting else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _belongings(path: Path) -> Iterator[bytes]:
    """One line for each file of a source: name, size, time."""
    if not path.is_dir():
        kind, path = _look_quickly(path)
    else:
        try:
            kind, path = _look_folder(path)
        except DataError:  # `read` will say it; until then the folder is what is in it
            kind = "folder"
    if kind == "csv":
        yield _stamp(path.name, path)
        for name in listed_files(path):
            yield _stamp(name, path.parent / name)
    elif kind in ("idx", "cifar") and not path.is_dir():
        beside = (
            group_of(path.parent, path.name).values()
            if kind == "idx"
            else (path, *(path.parent / n for n in ("batches.meta.txt", "fine_label_names.txt")))
        )
        for file in beside:
            yield _stamp(file.name, file)
    elif path.is_dir():
        yield from _tree(path)
    else:
        yield _stamp(path.name, path)


def _look_quickly(path: Path) -> tuple[_Kind, Path]:
    """As `_look` for a file, by its name alone."""
    if has_idx_name(path.name):
        return "idx", path
    kinds: dict[str, _Kind] = {".csv": "csv", ".bin": "cifar", ".npz": "npz"}
    return kinds.get(path.suffix.lower(), "archive"), path


def _stamp(name: str, path: Path) -> bytes:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.fsencode(name) + b"\0-\n"
    return os.fsencode(name) + b"\0%d\0%d\n" % (found.st_size, found.st_mtime_ns)


def _tree(root: Path) -> Iterator[bytes]:
    """Folder by folder, a line for each visible entry. Links to folders are named, not followed."""
    todo = [(str(root), "")]
    while todo:
        folder, prefix = todo.pop()
        lines: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    name = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        lines.append(f"{name}/\n")
                        todo.append((entry.path, name + "/"))
                        continue
                    try:
                        found = entry.stat()
                    except OSError:  # a link that leads nowhere or to itself
                        found = entry.stat(follow_symlinks=False)
                    lines.append(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n")
        except OSError as error:
            raise DataError(
                f"cannot list the folder {printable(folder)}: {error.strerror or error}",
                "check that it exists and may be read",
            ) from error
        lines.sort()
        yield os.fsencode("".join(lines))
        # The order of the folders must not depend on the file system's.
        todo.sort()
