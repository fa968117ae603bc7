"""From a path to an engine. Floor 3, room runtime; imports bundle, floor 0 and its own room.

A path is a run's folder, a bundle's folder, or a file that `neocog export` wrote. Its name says
what it is, and it must be that; what may hold code is refused without a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neocog.bundle import Bundle
from neocog.errors import ConfigError, RunError, near
from neocog.runtime.content import read_content
from neocog.runtime.engine import KINDS
from neocog.runtime.label import PRECISIONS
from neocog.runtime.onnx_engine import OnnxEngine
from neocog.runtime.openvino_engine import OpenVinoEngine
from neocog.runtime.torch_engine import TorchEngine
from neocog.text import printable

if TYPE_CHECKING:
    from neocog.runtime.engine import Engine, Kind

__all__ = [
    "READ_BY",
    "Exported",
    "bundle_in",
    "exported_in",
    "file_engine",
    "open_engine",
    "read_by",
]

READ_BY: dict[str, tuple[Kind, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
}
"""Suffix of an exported file → the engines that compute it, the usual one first."""
_PROGRAMS = (".pt2", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".bin", ".h5", ".keras")
"""Suffixes of files that may hold code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file in a run's folder that was made of the weights which it has now."""

    path: Path
    """Where it is."""
    digest: str
    """SHA-256 of its bytes."""
    precision: str
    """One of `PRECISIONS`."""


def open_engine(
    path: Path | str,
    *,
    engine: str = "auto",
    model: str = "",
    device: str = "auto",
    threads: int = 0,
) -> Engine:
    """What answers for a path.

    Args:
        path: a run's folder, a bundle's folder, an `.onnx` or an `.xml`.
        engine: `torch`, `onnxruntime` or `openvino`; `auto`: torch for a folder, for a file the
            first in `READ_BY`. For a folder the others take the file of the highest precision in
            its `export/`, which must have been made of these very weights.
        model: names the code of a foreign network; see `Bundle.network`.
        device: `auto`, `cpu`, `cuda`, …; OpenVINO computes on processors alone.
        threads: of the processor; 0: the engine's own number.

    Raises:
        ConfigError: an unknown engine, one that cannot compute this or is not installed, or a
            device that is not there.
        RunError: the path is missing, damaged, or holds what is never opened.
    """
    path = Path(path)
    if engine not in ("auto", *KINDS):
        raise ConfigError(f"no engine {engine!r}", near(engine, ("auto", *KINDS)))
    folder = bundle_in(path)
    if folder is None:
        return _of_file(path, engine, device, threads)
    bundle = Bundle.load(folder)
    if engine in ("auto", "torch"):
        return TorchEngine(bundle, model=model, device=device, threads=threads)
    for found in exported_in(path, bundle.digest):
        if engine in READ_BY[found.path.suffix.lower()]:
            return _of_file(found.path, engine, device, threads)
    raise ConfigError(
        f"{printable(str(path))} has no exported file for {engine} that was made of its weights",
        f"neocog export {printable(str(path))}",
    )


def bundle_in(path: Path) -> Path | None:
    """The folder of a bundle: that of a run, or the path itself; None where it is no folder.

    Raises:
        RunError: a folder without a bundle, or nothing at all.
    """
    if not path.is_dir():
        return None
    for folder in (path / "bundle", path):
        if (folder / "bundle.json").is_file():
            return folder
    where = printable(str(path))
    if (path / "manifest.json").is_file():
        raise RunError(f"the run {where} is not finished", f"neocog resume {where}")
    raise RunError(
        f"{where} holds neither a run nor a bundle: bundle.json is missing",
        "give the folder that `neocog train` printed",
    )


def exported_in(path: Path, digest: str) -> list[Exported]:
    """The exported files of a run that were made of these weights; the most exact first.

    Files of other weights, and such as are damaged or none of ours, are passed over.

    Args:
        path: the run's folder.
        digest: `Bundle.digest` of what it holds now.
    """
    found = []
    for file in sorted(path.glob("export/*")):
        if file.suffix.lower() not in READ_BY:
            continue
        try:
            content = read_content(file)
        except RunError:
            continue
        if content.label.origin == digest:
            precision = content.label.precision
            found.append(Exported(path=file, digest=content.digest, precision=precision))
    return sorted(found, key=lambda one: PRECISIONS.index(one.precision))


def read_by(path: Path) -> tuple[Kind, ...]:
    """The engines that compute a file, by its name; the usual one first.

    Raises:
        RunError: none does.
    """
    where, suffix = printable(str(path)), path.suffix.lower()
    if suffix in _PROGRAMS:
        raise RunError(
            f"{where} is not opened: to load a {suffix} file may run code that is in it",
            "give the run's folder, or a file made with `neocog export RUN --to onnx`",
        )
    if suffix not in READ_BY:
        raise RunError(
            f"{where}: expected a run's folder, a bundle's folder, or an exported file that ends "
            f"in {' or '.join(READ_BY)}",
            "export the run with `neocog export RUN`",
        )
    return READ_BY[suffix]


def _of_file(path: Path, engine: str, device: str, threads: int) -> Engine:
    """What computes a file.

    Raises:
        ConfigError, RunError: see `open_engine`.
    """
    kinds = read_by(path)
    for kind in kinds:
        if engine in ("auto", kind):
            return file_engine(path, kind, device=device, threads=threads)
    raise ConfigError(
        f"{engine} does not compute {path.suffix.lower()} files",
        f"take --engine {' or '.join(kinds)}, or give the run's folder",
    )


def file_engine(path: Path, kind: Kind, *, device: str = "auto", threads: int = 0) -> Engine:
    """An exported file in the hands of one library.

    Raises:
        ConfigError, RunError: see `open_engine`.
    """
    if kind == "onnxruntime":
        return OnnxEngine(path, threads=threads, device=device)
    if device not in ("auto", "cpu"):
        raise ConfigError(f"OpenVINO does not compute on {device!r} here", "known: auto, cpu")
    return OpenVinoEngine(path, threads=threads)
