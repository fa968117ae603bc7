"""From a run to a file that answers as it does: write, check, keep the report. Floor 4.

Room export; imports run, bundle, runtime and this room, whose writers are imported where they are
used. A file is written beside its place and moved there when its answers are those of the run; one
that fails is deleted, and was never there under its name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog import tasks
from neocog.errors import ConfigError, DataError, RunError
from neocog.export import onnx
from neocog.export.parity import TOLERANCES, Parity, compare
from neocog.export.places import FORMS, digest, place
from neocog.export.program import example
from neocog.export.samples import WHOLE_SIDES, Samples, batches, of_part, spread
from neocog.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.data.scan import Progress
    from neocog.described import Described
    from neocog.export.onnx import Precision
    from neocog.export.places import Form, Place
    from neocog.layers import Predictor
    from neocog.run import Run

    Answer = Callable[[NDArray[Any]], NDArray[Any]]

__all__ = ["MAX_LOSS", "SAMPLES", "Exported", "export"]

SAMPLES = 1000
"""Real samples that are compared on, at most."""
WHOLE = 100
"""The same where a picture is answered for pixel by pixel."""
MAX_LOSS = 0.01
"""How much worse an 8-bit file's score may be."""
CALIBRATION, CALIBRATION_BATCH = 256, 32
"""Samples that the ranges of 8-bit activations come from, and how many are looked at at once."""
ENOUGH = 30
"""Samples with a score that an 8-bit file is judged on, at least: with fewer one answer more that
is wrong, or one less, says nothing."""
FIRST = 64
"""Samples that the fp32 file is checked on which an 8-bit one is made of."""
BATCH, WHOLE_BATCH = 64, 4
"""Samples that Triton may answer for at once; pictures of any size where each pixel is answered
for."""
IN_ONE_PIECE = (
    f"pictures above {WHOLE_SIDES[1]:,} pixels a side are answered for in one piece, by the run in "
    "pieces that overlap: the same but near the seams, where a network sees further than "
    "the overlap"
)
"""What a report says of files for masks."""
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
    foreign: bool
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
        name: of the file or model, without its precision. Empty: as the run's folder is called.
        samples: compared on, at most. None: `SAMPLES`; of whole pictures `WHOLE`.
        max_loss: how much worse the score of an 8-bit file may be, as a share.
        progress: told how far it is: what, done, total.

    Raises:
        ConfigError: a form or precision that is none or does not go with the other, a place where
            something of others is, or a library is not installed.
        RunError: the answers differ, there is no data to compare on or too little, or the file
            cannot be written.
        DataError: `check` is broken.
    """
    began = time.monotonic()
    _refuse(to, precision, samples)
    there = place(run.path, to, out, name=name, precision=precision)
    with there.staged() as folder:
        data = _data(run, check, progress)
        job = _Job(
            run=run,
            predictor=run.predictor(),
            form=to,
            precision=precision,
            samples=_samples(data, bool(check), samples),
            foreign=bool(check),
            max_loss=max_loss,
            progress=progress,
        )
        if precision == "int8":
            _refuse_unjudged(job)
        staged = folder / (there.path.name if to != "triton" else f"{there.name}.onnx")
        answer, extra = _written(job, staged, folder)
        parity = job.compare(answer, precision, job.samples)
        _refuse_other(parity, job)
        weights = staged.with_suffix(".bin") if to == "openvino" else staged
        exported = Exported(
            path=there.path,
            report=there.report,
            form=to,
            precision=precision,
            described=run.bundle.described,
            bytes=sum(one.stat().st_size for one in {staged, weights}),
            sha256=digest(weights),
            parity=parity,
            seconds=time.monotonic() - began,
        )
        _keep(exported, staged, there, _report(exported, data.source) | extra)
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


def _refuse_unjudged(job: _Job) -> None:
    """Stop where the score of an 8-bit file would say too little.

    Raises:
        RunError: nothing has a score, or too few samples have.
    """
    data, task, count = job.samples.data, job.run.bundle.task.name, len(job.samples.ids)
    entry = tasks.CATALOGUE[task]
    if data.kind not in (entry.kind, *entry.also):
        raise RunError(
            f"an 8-bit file is judged by its score, but {data.source} has nothing to score {task} "
            "by",
            "give data with the right answers with --check SOURCE, or export with --precision fp16",
        )
    enough = ENOUGH
    if task in ("classify", "multilabel"):  # one answer more that is wrong is 1 / count
        enough = min(SAMPLES, max(ENOUGH, math.ceil(1 / max(job.max_loss, 1 / SAMPLES))))
    if count < enough:
        raise RunError(
            f"{count:,} samples of {job.samples.part} cannot tell whether an 8-bit file loses "
            f"{job.max_loss:g} of its score: expected {enough:,} or more",
            "give more with --check SOURCE or --samples, allow more with --max-loss, or export "
            "with --precision fp16",
        )


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
    chosen = _calibration(job)
    quantise.int8(exact, path, _raw(chosen))
    onnx.relabel(path, bundle, "int8")
    calibration = {"source": chosen.data.source, "part": chosen.part, "n": len(chosen.ids)}
    return {"int8": {"calibration": calibration, "max_loss": job.max_loss}}


def _calibration(job: _Job) -> Samples:
    """Samples for the ranges of activations: of the run's own training part where it can be opened,
    and none with the pixels of one that is scored.

    Raises:
        RunError: there is no other.
    """
    scored, data = job.samples, job.samples.data
    if job.foreign:
        try:
            data = job.run.data(job.progress)
        except (DataError, RunError):
            data = scored.data
    part = of_part(data, ("train",), CALIBRATION + 2 * len(scored.ids))
    known = {_print(scored.data, one) for one in scored.ids.tolist()}
    others = [one for one in part.ids.tolist() if _print(data, one) not in known]
    if not others:
        raise RunError(
            f"{data.source} has no samples to calibrate an 8-bit file with but those that it is "
            "scored on",
            "compare on fewer with --samples, or export with --precision fp16",
        )
    chosen = spread(torch.tensor(others), CALIBRATION)
    return Samples(data=data, ids=chosen, part=part.part)


def _print(data: Dataset, index: int) -> bytes:
    """What tells the pixels of one sample from others'."""
    return hashlib.sha256(data.images.picture(index).tobytes()).digest()


def _raw(samples: Samples) -> Iterator[NDArray[Any]]:
    """Calibration samples as they are packed, contiguous: B×C×h×w and so on."""
    for batch in batches(samples, CALIBRATION_BATCH):
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


def _keep(exported: Exported, staged: Path, there: Place, report: dict[str, Any]) -> None:
    """Move what was checked into its place, and its report beside it.

    Raises:
        RunError: it cannot be moved.
    """
    if exported.form == "triton":
        from neocog.export import triton

        repository, name = there.path.parent, there.name
        batch = WHOLE_BATCH if exported.described.input.whole else BATCH
        triton.write(repository, staged, exported.described, name=name, batch=batch)
        write_json(there.report, report)
        return
    written = staged.with_name("report.json")
    write_json(written, report)
    there.keep(staged, written)


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
    whole = exported.described.input.whole
    return {
        "file": exported.path.name,
        "to": exported.form,
        "precision": exported.precision,
        "bytes": exported.bytes,
        "sha256": exported.sha256,
        "source": source,
        "parity": exported.parity.plain(),
        "remarks": [IN_ONE_PIECE] if whole else [],
        "versions": _versions(),
        "seconds": round(exported.seconds, 3),
    }
