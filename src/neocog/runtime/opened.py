"""From a path to an engine. Floor 3, room runtime; imports bundle, floor 0 and its own room.

A path is a run's folder, a bundle's folder, or a file that `neocog export` wrote. Its name says
what it is, and it must be that; what may hold code is refused without a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neocog.bundle import Bundle
from neocog.errors import ConfigError, NeocogError, RunError, near
from neocog.runtime.content import Content, read_content, read_label
from neocog.runtime.engine import KINDS
from neocog.runtime.onnx_engine import OnnxEngine
from neocog.runtime.openvino_engine import OpenVinoEngine
from neocog.runtime.torch_engine import TorchEngine
from neocog.text import printable

if TYPE_CHECKING:
    from neocog.described import Described
    from neocog.runtime.engine import Engine, Kind

__all__ = [
    "READ_BY",
    "Exported",
    "Source",
    "exported_in",
    "file_engine",
    "moved_on",
    "open_engine",
]

READ_BY: dict[str, tuple[Kind, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
}
"""Suffix of an exported file → the engines that compute it, the usual one first."""
_PROGRAMS = (".pt2", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".bin", ".h5", ".keras")
"""Suffixes of files that may hold code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What lies at a path, read and checked once."""

    path: Path
    """A run's folder, a bundle's folder, or an exported file."""
    bundle: Bundle | None = None
    """Of a folder."""
    content: Content | None = None
    """Of a file."""

    @property
    def described(self) -> Described:
        """What goes in and comes out."""
        if self.bundle is not None:
            return self.bundle.described
        assert self.content is not None
        return self.content.label.described

    @staticmethod
    def of(path: Path | str, *, model: str = "") -> Source:
        """What lies there.

        Args:
            path: see `open_engine`.
            model: see `open_engine`.

        Raises:
            ConfigError: a file, and code for its network.
            RunError: the path is missing, damaged, or holds what is never opened.
        """
        path = Path(path)
        folder = _bundle_in(path)
        if folder is not None:
            return Source(path=path, bundle=Bundle.load(folder))
        _read_by(path)
        if model:
            raise ConfigError(
                f"{printable(str(path))} carries its network, and {model} would be ignored",
                "leave --model out",
            )
        return Source(path=path, content=read_content(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file in a run's folder, by what it says of itself."""

    path: Path
    """Where it is."""
    precision: str = ""
    """One of `PRECISIONS`; empty where it cannot be read."""
    why: str = ""
    """Why it does not answer for the run; empty: it was made of what the run has now, in fp32."""


def open_engine(
    path: Path | str | Source,
    *,
    engine: str = "auto",
    model: str = "",
    device: str = "auto",
    threads: int = 0,
) -> Engine:
    """What answers for a path.

    Args:
        path: a run's folder, a bundle's folder, an `.onnx` or an `.xml`; or what was read of it.
        engine: `torch`, `onnxruntime` or `openvino`; `auto`: torch for a folder, for a file the
            first in `READ_BY`. For a folder the others take a file in its `export/` in fp32, which
            must have been made of these very weights. Files that round are named themselves.
        model: names the code of a foreign network; see `Bundle.network`. Files carry theirs.
        device: `auto`, `cpu`, `cuda`, …; OpenVINO computes on processors alone.
        threads: of the processor; 0: the engine's own number.

    Raises:
        ConfigError: an unknown engine, one that cannot compute this or is not installed, a device
            that is not there, or code for the network of a file.
        RunError: the path is missing, damaged, or holds what is never opened.
    """
    if engine not in ("auto", *KINDS):
        raise ConfigError(f"no engine {engine!r}", near(engine, ("auto", *KINDS)))
    source = path if isinstance(path, Source) else Source.of(path, model=model)
    if source.bundle is None:
        return _of_file(source, engine, device, threads)
    if engine in ("auto", "torch"):
        return TorchEngine(source.bundle, model=model, device=device, threads=threads)
    there = exported_in(source)
    for found in there:
        if not found.why and engine in _read_by(found.path):
            read = Source(path=found.path, content=read_content(found.path))
            return _of_file(read, engine, device, threads)
    raise _none(source.path, engine, there)


def _none(path: Path, engine: str, there: list[Exported]) -> ConfigError:
    """No file of a run can be computed by this engine: which there are, and why they are none."""
    where, told = printable(str(path)), list[str]()
    hint = f"neocog export {where}"
    for one in there:
        name = printable(str(one.path.relative_to(path)))
        told.append(f"{name} {one.why or 'is not computed by ' + engine}")
        if _rounds(one) and engine in _read_by(one.path):
            hint = f"{hint}, or give the file itself instead of the run: {where}/{name}"
    words = f"{where} has no exported file in fp32 for {engine} that was made of its weights"
    return ConfigError(": ".join(filter(None, (words, "; ".join(told[:8])))), hint)


def _rounds(one: Exported) -> bool:
    """Whether a file is of the run, and only its precision stands against it."""
    return one.why == f"is {one.precision}"


def _bundle_in(path: Path) -> Path | None:
    """The folder of a bundle: that of a run, or the path itself; None for a file by its name.

    Raises:
        RunError: a folder without a bundle, or nothing at all.
    """
    where, remedy = printable(str(path)), "give the folder that `neocog train` printed"
    if not path.is_dir():
        if path.exists() or path.is_symlink() or path.suffix.lower() in (*READ_BY, *_PROGRAMS):
            return None
        raise RunError(f"{where} holds no run: there is nothing of this name", remedy)
    for folder in (path / "bundle", path):
        if (folder / "bundle.json").is_file():
            return folder
    if (path / "manifest.json").is_file():
        raise RunError(f"the run {where} is not finished", f"neocog resume {where}")
    raise RunError(f"{where} holds neither a run nor a bundle: bundle.json is missing", remedy)


def exported_in(source: Source) -> list[Exported]:
    """The exported files of a run by what they say of themselves, which answer for it first.

    Args:
        source: the run.
    """
    assert source.bundle is not None
    found, digest = list[Exported](), source.bundle.digest
    for file in sorted(source.path.glob("export/*")):
        if file.suffix.lower() not in READ_BY:
            continue
        try:
            label = read_label(file)
        except RunError as error:
            why = error.message.removeprefix(f"{printable(str(file))}: ")[:200]
            found.append(Exported(path=file, why=f"cannot be read ({why})"))
            continue
        why = ""
        if label.origin != digest:
            why = "was made before the weights or the temperature changed"
        elif label.precision != "fp32":
            why = f"is {label.precision}"
        found.append(Exported(path=file, precision=label.precision, why=why))
    return sorted(found, key=lambda one: bool(one.why))


def moved_on(path: Path) -> str:
    """A warning where a file lies in the folder of a run that has other weights by now, or another
    temperature; else empty.

    Args:
        path: of an exported file.
    """
    run = path.absolute().parent.parent
    if path.absolute().parent.name != "export" or not (run / "bundle" / "bundle.json").is_file():
        return ""
    try:
        if read_label(path).origin == Bundle.load(run / "bundle").digest:
            return ""
    except NeocogError:  # who opens one of them says it
        return ""
    where = printable(str(path.parent.parent))
    return (
        f"warning: {printable(str(path))} was made before the weights or the temperature of its "
        f"run changed; to make it again: neocog export {where}"
    )


def _read_by(path: Path) -> tuple[Kind, ...]:
    """The engines that compute a file, by its name; the usual one first.

    Raises:
        RunError: none does.
    """
    where, suffix = printable(str(path)), path.suffix.lower()
    if suffix == ".bin" and path.with_suffix(".xml").is_file():
        raise RunError(
            f"{where} holds only the numbers of a network",
            f"give the .xml beside it: {printable(str(path.with_suffix('.xml')))}",
        )
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


def _of_file(source: Source, engine: str, device: str, threads: int) -> Engine:
    """What computes a file.

    Raises:
        ConfigError, RunError: see `open_engine`.
    """
    kinds = _read_by(source.path)
    assert source.content is not None
    for kind in kinds:
        if engine in ("auto", kind):
            return file_engine(source.content, kind, device=device, threads=threads)
    raise ConfigError(
        f"{engine} does not compute {source.path.suffix.lower()} files",
        f"take --engine {' or '.join(kinds)}, or give the run's folder",
    )


def file_engine(content: Content, kind: Kind, *, device: str = "auto", threads: int = 0) -> Engine:
    """An exported file in the hands of one library.

    Raises:
        ConfigError, RunError: see `open_engine`.
    """
    if kind == "onnxruntime":
        return OnnxEngine(content, threads=threads, device=device)
    if device not in ("auto", "cpu"):
        raise ConfigError(f"OpenVINO does not compute on {device!r} here", "known: auto, cpu")
    return OpenVinoEngine(content, threads=threads)
