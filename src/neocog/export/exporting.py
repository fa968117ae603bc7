"""From a run to a file that answers as it does: write, check, keep the report. Floor 4.

Room export; imports run, bundle, runtime and this room, whose writers are imported where they are
used. A file is written beside its place and moved there when its answers are those of the run; one
that fails is deleted, and was never there under its name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from neocog.data.batches import fetch
from neocog.errors import ConfigError, DataError, RunError
from neocog.export import onnx
from neocog.export.parity import TOLERANCES, Parity, Samples, compare, of_part
from neocog.export.program import example
from neocog.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.data.scan import Progress
    from neocog.described import Described
    from neocog.export.onnx import Precision
    from neocog.layers import Predictor
    from neocog.run import Run

    Answer = Callable[[NDArray[Any]], NDArray[Any]]

__all__ = ["FORMS", "MAX_LOSS", "SAMPLES", "Exported", "Form", "export"]

Form = Literal["onnx", "torch", "openvino", "triton"]
FORMS: tuple[Form, ...] = get_args(Form)
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "openvino": ".xml", "triton": ""}
SAMPLES = 1000
"""Real samples that are compared on, at most."""
WHOLE = 100
"""The same where a picture is answered for pixel by pixel."""
MAX_LOSS = 0.01
"""How much worse an 8-bit file's score may be."""
CALIBRATION, CALIBRATION_BATCH = 256, 32
"""Samples that the ranges of 8-bit activations come from, and how many are looked at at once."""
FIRST = 64
"""Samples that the fp32 file is checked on which an 8-bit one is made of."""
_LIBRARIES = ("neocog", "torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file that was checked and kept."""

    path: Path
    """The file; of Triton's form, the model's folder."""
    report: Path
    """What the check found, as JSON."""
    form: Form
    """What kind of file it is."""
    precision: Precision
    """What the network computes in."""
    described: Described
    """What goes in and comes out."""
    bytes: int
    """Of the file, with its weights."""
    sha256: str
    """Of the file; of OpenVINO's, of its weights."""
    parity: Parity
    """How its answers compare with the run's."""
    seconds: float
    """What all of it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is to be done."""

    run: Run
    predictor: Predictor
    form: Form
    precision: Precision
    samples: Samples
    max_loss: float
    progress: Progress | None

    @property
    def dtype(self) -> str:
        """Of the samples, as NumPy calls it."""
        return str(self.samples.data.images.picture(0).dtype)

    def compare(self, answer: Answer, precision: Precision, samples: Samples) -> Parity:
        """With the run's own answers."""
        tolerance = TOLERANCES[precision]
        task = self.run.bundle.task
        return compare(answer, self.predictor, samples, task, tolerance, self.progress)


def export(
    run: Run,
    *,
    to: Form = "onnx",
    out: Path | None = None,
    precision: Precision = "fp32",
    check: str = "",
    name: str = "",
    samples: int | None = None,
    max_loss: float = MAX_LOSS,
    progress: Progress | None = None,
) -> Exported:
    """Write a run's network as a file for other programs, which answers as the run does.

    Args:
        run: a finished one; opened with its foreign factory named again, where it has one.
        to: the file's form.
        out: the file, or Triton's repository. None: in the run's folder `export`.
        precision: what the network computes in.
        check: other data to compare on. Empty: the run's own.
        name: of the file or model. Empty: as the run's folder is called.
        samples: compared on, at most. None: `SAMPLES`; of whole pictures `WHOLE`.
        max_loss: how much worse the score of an 8-bit file may be, as a share.
        progress: told how far it is: what, done, total.

    Raises:
        ConfigError: a form or precision that is none or does not go with the other, or a library is
            not installed.
        RunError: the answers differ, there is no data to compare on, or the file cannot be written.
        DataError: `check` is broken.
    """
    began = time.monotonic()
    _refuse(to, precision, samples)
    called = _name(name, run.path, precision)
    path = _path(run, to, out, called)
    data = _data(run, check, progress)
    job = _Job(
        run=run,
        predictor=run.predictor(),
        form=to,
        precision=precision,
        samples=_samples(data, bool(check), samples),
        max_loss=max_loss,
        progress=progress,
    )
    with _beside(path) as folder:
        staged = folder / (path.name if to != "triton" else f"{called}.onnx")
        answer, extra = _written(job, staged, folder)
        parity = job.compare(answer, precision, job.samples)
        _refuse_other(parity, job)
        weights = staged.with_suffix(".bin") if to == "openvino" else staged
        digest, size = _digest(weights), sum(one.stat().st_size for one in {staged, weights})
        path, report = _kept(job, staged, path, called)
    exported = Exported(
        path=path,
        report=report,
        form=to,
        precision=precision,
        described=run.bundle.described,
        bytes=size,
        sha256=digest,
        parity=parity,
        seconds=time.monotonic() - began,
    )
    write_json(report, _report(exported, data.source) | extra)
    return exported


def _refuse(to: str, precision: str, samples: int | None) -> None:
    """Stop at what cannot be meant.

    Raises:
        ConfigError: naming it.
    """
    if to not in FORMS:
        raise ConfigError(f"there is no form {to!r} to export to", f"known: {', '.join(FORMS)}")
    if precision not in TOLERANCES:
        known = ", ".join(TOLERANCES)
        raise ConfigError(f"there is no precision {precision!r} to export in", f"known: {known}")
    if to == "torch" and precision != "fp32":
        raise ConfigError(
            f"a torch.export program is written in fp32, not {precision}",
            f"--to onnx --precision {precision}",
        )
    if samples is not None and samples < 1:
        raise ConfigError(f"expected at least one sample to compare on, got {samples}")


def _name(name: str, run: Path, precision: str) -> str:
    """What the file or model is called.

    >>> _name("", Path("runs/my digits"), "int8"), _name("cats", Path("x"), "int8")
    ('my_digits-int8', 'cats')

    Raises:
        ConfigError: a name that leads elsewhere.
    """
    if name:
        if not re.fullmatch(r"[\w-][\w.-]{0,127}", name, re.ASCII):
            raise ConfigError(
                f"{name!r:.80} cannot be the name of an exported network",
                "expected letters, digits, _, - and dots, the first no dot",
            )
        return name
    plain = re.sub(r"[^\w.-]+", "_", run.resolve().name, flags=re.ASCII).strip("._") or "network"
    return plain[:100] + ("" if precision == "fp32" else f"-{precision}")


def _path(run: Run, to: Form, out: Path | None, name: str) -> Path:
    """Where the file goes.

    Raises:
        ConfigError: it is called otherwise than such a file is.
    """
    suffix = SUFFIXES[to]
    if out is None:
        return run.path / "export" / (f"{name}{suffix}" if suffix else "triton")
    if out.suffix != suffix and suffix:
        raise ConfigError(
            f"expected --out to end in {suffix}, got {out.name}", f"--out {out}{suffix}"
        )
    if suffix and out.is_dir():
        raise ConfigError(f"{out} is a folder", f"--out {out / (name + suffix)}")
    return out


def _data(run: Run, check: str, progress: Progress | None) -> Dataset:
    """What is compared on.

    Raises:
        RunError: the run's own data is gone or has changed.
    """
    if check:
        return run.foreign(check, progress)
    try:
        return run.data(progress)
    except RunError as error:
        raise RunError(
            f"a file is kept only when it answers as the run does, on real samples, but "
            f"{error.message}",
            "give others with --check SOURCE: a folder or file like the one it was trained on",
        ) from error


def _samples(data: Dataset, other: bool, most: int | None) -> Samples:
    """Those that are compared on.

    Raises:
        DataError: there are none.
    """
    parts = ("test", "val") if other else ("val", "test", "train")
    found = of_part(data, parts, most or (WHOLE if data.whole else SAMPLES))
    if not len(found.ids):
        raise DataError(f"{data.source} has no samples to compare on", "--check SOURCE gives some")
    return found


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder beside a file's place, which is gone afterwards with all that is left in it.

    Raises:
        RunError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise RunError(
            f"cannot write into {path.parent}: {error.strerror or error}",
            "mend the permissions or choose another place with --out",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _written(job: _Job, path: Path, folder: Path) -> tuple[Answer, dict[str, Any]]:
    """Write the file, and say who answers with it, and what else the report tells."""
    bundle, form = job.run.bundle, job.form
    if form == "torch":
        from neocog.export import torch_program

        samples = example(bundle.input, getattr(torch, job.dtype))
        text = onnx.metadata(bundle, job.precision)
        torch_program.write(job.predictor, samples, path, text)
        return torch_program.reread(path), {}
    if form == "openvino":
        from neocog.export import openvino
        from neocog.runtime.openvino_engine import OpenVinoEngine

        source, half = folder / "source.onnx", job.precision == "fp16"
        extra = _onnx(job, source, folder, "fp32" if half else job.precision)
        openvino.write(source, path, onnx.metadata(bundle, job.precision), half=half)
        return OpenVinoEngine(path, threads=torch.get_num_threads()), extra
    from neocog.runtime.onnx_engine import OnnxEngine

    extra = _onnx(job, path, folder, job.precision)
    return OnnxEngine(path, threads=torch.get_num_threads()), extra


def _onnx(job: _Job, path: Path, folder: Path, precision: Precision) -> dict[str, Any]:
    """Write the ONNX file; say what the report tells of how."""
    bundle = job.run.bundle
    if precision != "int8":
        onnx.write(bundle, path, precision=precision, dtype=job.dtype, predictor=job.predictor)
        return {}
    from neocog.export import quantise
    from neocog.runtime.onnx_engine import OnnxEngine

    exact = folder / "exact.onnx"
    onnx.write(bundle, exact, dtype=job.dtype, predictor=job.predictor)
    first = Samples(data=job.samples.data, ids=job.samples.ids[:FIRST], part=job.samples.part)
    engine = OnnxEngine(exact, threads=torch.get_num_threads())
    _refuse_other(job.compare(engine, "fp32", first), job)
    chosen = of_part(job.samples.data, ("train",), CALIBRATION)
    quantise.int8(exact, path, _raw(chosen))
    onnx.relabel(path, bundle, "int8")
    calibration = {"part": chosen.part, "n": len(chosen.ids)}
    return {"int8": {"calibration": calibration, "max_loss": job.max_loss}}


def _raw(samples: Samples) -> Iterator[NDArray[Any]]:
    """Calibration samples as they are packed, contiguous: B×C×h×w and so on."""
    images = samples.data.images
    for ids, size in images.runs(samples.ids, CALIBRATION_BATCH, 1 << 22):
        batch = fetch(samples.data, images.ready(ids, size), size=size)
        yield np.ascontiguousarray(batch.images.numpy())


def _refuse_other(parity: Parity, job: _Job) -> None:
    """Stop where a file does not answer as the run does.

    Raises:
        RunError: where, by how much, and what was allowed.
    """
    if parity.problem:
        fp32 = job.precision == "fp32"
        raise RunError(
            f"the exported network does not answer as the run does, so no file is kept: "
            f"{parity.problem}",
            "other versions of torch, onnxscript and onnxruntime may do it right: the extra "
            "neocog[export] says which"
            if fp32
            else "export it with --precision fp32",
        )
    if job.precision == "int8" and parity.before and parity.after and parity.loss > job.max_loss:
        name = next(iter(parity.before))
        before, after = parity.before[name], parity.after[name]
        raise RunError(
            f"in 8 bits the {name} on {parity.n:,} samples of {parity.part} goes from "
            f"{before.value:.4g} ({before.low:.4g} to {before.high:.4g}) to {after.value:.4g} "
            f"({after.low:.4g} to {after.high:.4g}), so no file is kept: a loss of "
            f"{job.max_loss:g} is allowed",
            f"--precision fp16 loses less; --max-loss {_above(parity.loss):g} would allow it",
        )


def _above(loss: float) -> float:
    """A round number above it.

    >>> _above(0.0312)
    0.04
    """
    return round(math.floor(loss * 100 + 1) / 100, 2)


def _kept(job: _Job, staged: Path, path: Path, name: str) -> tuple[Path, Path]:
    """Move what was checked into its place: where it is now, and where its report goes.

    Raises:
        RunError: it cannot be moved.
    """
    if job.form == "triton":
        from neocog.export import triton

        triton.write(path, staged, job.run.bundle.described, name=name)
        return path / name, path / f"{name}.json"
    report = path.with_suffix(".json")
    try:
        report.unlink(missing_ok=True)  # of another file
        if job.form == "openvino":
            path.unlink(missing_ok=True)
            staged.with_suffix(".bin").replace(path.with_suffix(".bin"))
        staged.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    return path, report


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    """Of the libraries that had a part in it, as far as they are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _report(exported: Exported, source: str) -> dict[str, Any]:
    """What is kept beside the file."""
    return {
        "file": exported.path.name,
        "to": exported.form,
        "precision": exported.precision,
        "bytes": exported.bytes,
        "sha256": exported.sha256,
        "source": source,
        "parity": exported.parity.plain(),
        "versions": _versions(),
        "seconds": round(exported.seconds, 3),
    }
