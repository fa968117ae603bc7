"""Where an exported file goes, what it is called, and whether that place is free. Floor 4.

Room export; imports runtime's look at files, errors, files, lock, and this room's Triton. Nothing
is written over but what an earlier export left there, and everything appears under its name at
once, after it was checked.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from neocog.errors import ConfigError, RunError
from neocog.export import triton
from neocog.export.program import METADATA
from neocog.files import read_json
from neocog.lock import locked
from neocog.runtime.content import read_content
from neocog.runtime.label import Label

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FORMS", "REPORTED", "Form", "Place", "digest", "place"]

Form = Literal["onnx", "torch", "openvino", "triton"]
FORMS: tuple[Form, ...] = get_args(Form)
SUFFIXES: dict[Form, str] = {"onnx": ".onnx", "torch": ".pt2", "openvino": ".xml", "triton": ""}
REPORTED = frozenset({"file", "to", "precision", "bytes", "sha256", "parity", "versions"})
"""Keys that every report has."""
_USUAL = (".bin", ".json", ".onnx", ".pt", ".pt2", ".pth", ".xml")
"""Suffixes that are replaced in a hint, where others are part of a name."""
_LONGEST = 16 << 20
"""Bytes of a text that an earlier export may have left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the parts of one exported network go."""

    path: Path
    """The file; of Triton's form, the model's folder."""
    form: Form
    """What kind of file it is."""
    name: str
    """Of the network, without a suffix."""

    @property
    def report(self) -> Path:
        """What the check found: beside the file, of its whole name, so that forms of one name
        keep theirs."""
        return self.path.with_name(f"{self.path.name}.json")

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder beside the place, which is gone afterwards with all that is left in it; nobody
        else exports to this place meanwhile.

        Raises:
            ConfigError: something of others stands at the place.
            RunError: the folder cannot be made, or another process exports to the same place.
        """
        home = self.path.parent
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(home, error) from error
        with locked(home, f".{self.path.name}.lock"):
            self._must_be_free()
            try:
                made = tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".tmp", dir=home)
            except OSError as error:
                raise _unwritable(home, error) from error
            folder = Path(made)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def keep(self, staged: Path, report: Path) -> None:
        """Move a checked file into its place, after its report; not for Triton's form.

        Raises:
            RunError: it cannot be moved.
        """
        try:
            # First: it says whose the weights beside an .xml are, should this be cut short.
            report.replace(self.report)
            if self.form == "openvino":
                self.path.unlink(missing_ok=True)
                staged.with_suffix(".bin").replace(self.path.with_suffix(".bin"))
            staged.replace(self.path)
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _must_be_free(self) -> None:
        """Raise ConfigError unless nothing stands there, or only what an earlier export left."""
        if self.form == "triton":
            triton.must_be_ours(self.path)
        elif _there(self.path) and not _is_export(self.path):
            raise _taken(self.path)
        if _there(self.report) and _reported(self.report) is None:
            raise _taken(self.report)
        weights = self.path.with_suffix(".bin")
        if self.form == "openvino" and _there(weights) and not _there(self.path):
            values = _reported(self.report) or {}
            if weights.is_symlink() or values.get("sha256") != digest(weights):
                raise _taken(weights)


def place(
    run: Path, form: Form, out: Path | None = None, *, name: str = "", precision: str = "fp32"
) -> Place:
    """Where a run's network goes.

    Args:
        run: the run's folder.
        form: of the file.
        out: the file, or Triton's repository. None: in the run's folder `export`.
        name: of the file or model. Empty: as the run's folder is called.
        precision: of the file; another than fp32 is told by the end of the name.

    Raises:
        ConfigError: a name that leads elsewhere, a file that is called otherwise than such files
            are, or both a name and a file.
    """
    called = _name(name, run, precision)
    if form == "triton":
        home = run / "export" / "triton" if out is None else out
        if _there(home) and not home.is_dir():
            raise ConfigError(
                f"{home} is a file, expected the folder of a model repository",
                f"--out {home.with_name('models')}",
            )
        return Place(path=home / called, form=form, name=called)
    suffix = SUFFIXES[form]
    if out is None:
        return Place(path=run / "export" / f"{called}{suffix}", form=form, name=called)
    if name:
        raise ConfigError(
            f"--out {out} says already what the file is called, and so does --name {name}",
            "leave one of them out",
        )
    if out.is_dir():
        raise ConfigError(f"{out} is a folder", f"--out {out / (called + suffix)}")
    if out.suffix != suffix:
        base = out.with_suffix("") if out.suffix.lower() in _USUAL else out
        raise ConfigError(
            f"expected --out to end in {suffix}, got {out.name}",
            f"--out {base.with_name(base.name + suffix)}",
        )
    return Place(path=out, form=form, name=called)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(name: str, run: Path, precision: str) -> str:
    """What the file or model is called.

    >>> _name("", Path("runs/my digits"), "int8"), _name("cats", Path("x"), "fp16")
    ('my_digits-int8', 'cats-fp16')

    Raises:
        ConfigError: a name that leads elsewhere.
    """
    if name and not re.fullmatch(r"[\w-][\w.-]{0,119}", name, re.ASCII):
        raise ConfigError(
            f"{name!r:.80} cannot be the name of an exported network",
            "expected up to 120 letters, digits, _, - and dots, the first no dot",
        )
    plain = re.sub(r"[^\w.-]+", "_", run.resolve().name, flags=re.ASCII).strip("._") or "network"
    ending = "" if precision == "fp32" else f"-{precision}"
    return (name or plain[:100]).removesuffix(ending) + ending


def _there(path: Path) -> bool:
    """Whether anything is, a broken link too."""
    return path.exists() or path.is_symlink()


def _is_export(path: Path) -> bool:
    """Whether a file says that neocog exported it. Nothing in it is run."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.suffix != ".pt2":
            read_content(path)
            return True
        with zipfile.ZipFile(path) as archive:
            (entry,) = (one for one in archive.infolist() if one.filename.endswith(f"/{METADATA}"))
            if entry.file_size > _LONGEST:
                return False
            Label.of(archive.read(entry).decode(), path.name)
            return True
    except (RunError, OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False


def _reported(path: Path) -> dict[str, Any] | None:
    """The values of a report of an earlier export; None: it is something else, or not there."""
    try:
        if path.is_symlink() or path.stat().st_size > _LONGEST:
            return None
        values = read_json(path)
    except (OSError, RunError):
        return None
    return values if isinstance(values, dict) and values.keys() >= REPORTED else None


def _taken(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is there already, and neocog export did not write it",
        "choose another place with --out, or move it away; nothing was changed",
    )


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"cannot write into {folder}: {error.strerror or error}",
        "mend the permissions or choose another place with --out",
    )
