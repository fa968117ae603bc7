"""A run folder as an object: read its events and scores, evaluate it, ask it.

Floor 3; imports bundle, runtime and the floors below. Layout: `manifest.json`, `events.jsonl`,
`checkpoints/`, `bundle/`, `evaluation.json`, `report.html`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from neocog import machine, tasks
from neocog.bundle import Bundle
from neocog.config import DataRecipe, Recipe
from neocog.data import dataset
from neocog.engine.evaluate import evaluate
from neocog.errors import DataError, RunError
from neocog.files import read_json, write_atomic
from neocog.host import memory_kept
from neocog.measures import called, is_share
from neocog.records import Event, Manifest, scores_from_dict
from neocog.runtime import answering
from neocog.runtime.torch_engine import TorchEngine
from neocog.settings import from_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import nn

    from neocog.data.dataset import Dataset
    from neocog.data.scan import Progress
    from neocog.engine.evaluate import Evaluation
    from neocog.layers import Predictor
    from neocog.records import Batch, Scores

__all__ = ["EventLog", "Run", "open_run"]

EVERY = 0.1
"""Seconds that steps wait for others, on their way to the disk."""


class EventLog:
    """`events.jsonl`: one event a line, append-only; a listener of the engine.

    Steps are handed to the system together, some times a second: one by one they took 0.1 ms each,
    1 % of a step of a small network. Whatever else happens is handed over at once, `flush` and
    `sync` leave nothing, and the latter comes before a checkpoint: it never knows of an event that
    a killed process took along.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        """Open for appending after the first `keep` lines; later ones are cut off.

        Raises:
            RunError: the file cannot be written.
        """
        lines = path.read_bytes().splitlines(keepends=True)[:keep] if path.exists() else []
        if len(lines) < keep:
            raise RunError(
                f"{path} holds {len(lines):,} events, its checkpoint counts {keep:,}",
                "bring the file back, or train anew into another folder",
            )
        write_atomic(path, b"".join(lines))
        self.path = path
        self._events: list[Event] = []
        self._waiting = bytearray()
        self._written = 0.0
        try:
            self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error

    def __call__(self, event: Event) -> None:
        """Append one event."""
        self._events.append(event)
        if event.kind != "step" or not 0 <= event.time - self._written < EVERY:
            self._written = event.time
            self.flush()

    def flush(self) -> None:
        """Have others see every event. What a full disk does not take waits for the next time, or
        for `sync`: training does not end for it."""
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        self._waiting += "".join(map(_line, self._events)).encode()
        self._events.clear()
        while self._waiting:
            del self._waiting[: os.write(self._handle, self._waiting)]

    def sync(self) -> None:
        """Have every event reach the disk.

        Raises:
            RunError: it does not take them.
        """
        try:
            self._write()
            os.fsync(self._handle)
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}, which needs {len(self._waiting):,} bytes more: "
                f"{error.strerror}"
            ) from error

    def close(self) -> None:
        """Close the file; a second time nothing happens."""
        if self._handle < 0:
            return
        self.flush()
        os.close(self._handle)
        self._handle = -1


def _line(event: Event) -> str:
    line = {
        "step": event.step,
        "kind": event.kind,
        "values": event.values,
        "time": round(event.time, 6),
    }
    return json.dumps(line, ensure_ascii=False) + "\n"


def read_events(path: Path) -> list[Event]:
    """The events of a run; a last line that was cut short by a crash is left out.

    Raises:
        RunError: a line before the last one is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(Event(**json.loads(line.decode())))
        except (ValueError, TypeError, RecursionError) as error:
            if number == len(lines):
                break
            raise RunError(f"{path} line {number} is damaged: {error}") from error
    return events


class Run:
    """One run folder. Cheap to make: everything is read when first asked for."""

    def __init__(self, path: Path, *, model: str | nn.Module = "") -> None:
        """Open a run.

        Args:
            path: the run folder.
            model: names a foreign factory again, or is the module; see `Bundle.network`.

        Raises:
            RunError: no run lives there.
        """
        if not (path / "manifest.json").is_file():
            raise RunError(
                f"{path} holds no run: manifest.json is missing",
                "give the folder that `neocog train` printed",
            )
        self.path = path
        self._model = model
        self._bundle: Bundle | None = None

    @property
    def manifest(self) -> Manifest:
        """What decided the run.

        Raises:
            RunError: manifest.json is damaged.
        """
        try:
            values = read_json(self.path / "manifest.json")
            return Manifest(**{**values, "argv": tuple(values["argv"])})
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.path / 'manifest.json'} is damaged: {error}") from error

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return from_dict(Recipe, dict(self.manifest.config))

    @property
    def finished(self) -> bool:
        """Whether the run was trained and evaluated to its end."""
        return (self.path / "evaluation.json").is_file()

    @property
    def events(self) -> list[Event]:
        """Everything that happened, in order."""
        return read_events(self.path / "events.jsonl")

    @property
    def bundle(self) -> Bundle:
        """The trained model.

        Raises:
            RunError: the run has not got so far, or the bundle is damaged.
        """
        if self._bundle is None:
            if not (self.path / "bundle" / "bundle.json").is_file():
                raise RunError(f"the run {self.path} is not finished", f"neocog resume {self.path}")
            self._bundle = Bundle.load(self.path / "bundle")
        return self._bundle

    @property
    def summary(self) -> dict[str, Any]:
        """What `train --json` prints: epochs, steps, seconds, rate, engine, data, val, test.

        Raises:
            RunError: the run is not finished.
        """
        if not self.finished:
            raise RunError(f"the run {self.path} is not finished", f"neocog resume {self.path}")
        summary = {"run": str(self.path), **read_json(self.path / "evaluation.json")}
        return {**summary, "report": str(self.path / "report.html")}

    @property
    def scores(self) -> dict[str, Scores]:
        """The scores by part of the data: `val`, `test`."""
        summary = self.summary
        return {
            part: scores_from_dict(summary[part]) for part in ("val", "test") if summary.get(part)
        }

    def data(self, progress: Progress | None = None, *, changed: bool = False) -> Dataset:
        """The data set that the run was trained on, opened again.

        Args:
            progress: told how far opening is: what, done, total.
            changed: take it as it is now.

        Raises:
            DataError: it is no longer there.
            RunError: its content is no longer the same.
        """
        manifest = self.manifest
        try:
            data = dataset.load(self.recipe.data, progress=progress)
        except DataError as error:
            raise RunError(
                f"the data of this run cannot be opened: {error.message}",
                f"it was {manifest.data['source']}; bring it back, or give other data: "
                f"neocog eval {self.path} SOURCE",
            ) from error
        if data.fingerprint != manifest.data["fingerprint"] and not changed:
            raise RunError(
                f"the data of this run has changed: {data.source} has fingerprint "
                f"{data.fingerprint[:12]}, the run saw {manifest.data['fingerprint'][:12]}",
                f"evaluate on it as on new data: neocog eval {self.path} {data.source}",
            )
        return data

    def again(self) -> Run:
        """The same run, read anew: for when its bundle has changed."""
        return Run(self.path, model=self._model)

    def predictor(self, device: torch.device | str = "cpu") -> Predictor:
        """The one way to an answer: uint8 B×C×h×w → probabilities or numbers; signals and volumes
        as `layers.Predictor.outputs` says."""
        return self.bundle.predictor(model=self._model, device=device)

    def evaluate(
        self, source: str = "", *, device: str = "auto", progress: Progress | None = None
    ) -> dict[str, Scores]:
        """Scores by part of the data.

        Args:
            source: other data, with the same classes by name. Empty: the run's own.
            device: where to compute.
            progress: told how far opening the data is: what, done, total.

        Returns:
            `val` and `test`, as far as they exist. For a source: its test part, else its val part,
            else all of it, under that name (`test`, `val` or `all`).
        """
        if source:
            data = self.foreign(source, progress)
            part = next((name for name in ("test", "val") if name in data.splits), "all")
            parts = [part]
        else:
            data = self.data(progress)
            parts = [name for name in ("val", "test") if name in data.splits]
        where = machine.device_named(device)
        return {part: self.score(data, part, where)[0] for part in parts}

    def foreign(self, source: str, progress: Progress | None = None) -> Dataset:
        """Other data, read as this run's network takes it, classes matched by name.

        Args:
            source: a folder, a file, or a name.
            progress: told how far opening is: what, done, total.

        Raises:
            DataError: the source is broken, or holds classes that the run does not know.
        """
        bundle, own = self.bundle, self.recipe.data
        recipe = dataclasses.replace(
            DataRecipe(source=source, val=0.0),
            max_bad=own.max_bad,
            strict=own.strict,
            deep=own.deep,
            ignore=own.ignore,
        )
        geometry = (bundle.input.size, bundle.input.channels)
        return dataset.load(recipe, geometry=geometry, classes=bundle.classes, progress=progress)

    def score(
        self,
        data: Dataset,
        part: str,
        device: torch.device,
        each: Callable[[Batch, torch.Tensor], None] | None = None,
    ) -> tuple[Scores, Evaluation]:
        """Scores of one part (`train`, `val`, `test`, `all`), and the loss of each sample.

        Args:
            data: where the samples are.
            part: which of them.
            device: where to compute.
            each: handed every batch with the outputs for it; see `engine.evaluate.evaluate`.
        """
        ids = torch.arange(len(data.targets)) if part == "all" else data.splits[part]
        task = tasks.build(self.bundle.task)
        with memory_kept():
            result = evaluate(self.predictor(device), task, data, ids, device=device, each=each)
        scores = dataclasses.replace(result.statistics.scores(), data=data.counts[part])
        return scores, result

    def predict(
        self, images: Sequence[str | Path], *, device: str = "auto"
    ) -> list[dict[str, Any]]:
        """Answers for image files, one entry each, and for every sample of .npz and .npy files, in
        order; an array of just the network's shape is one sample.

        An entry holds `path`, `label`, `probability` and `top`; for a file that cannot be read
        `path` and `error`. The path of a sample among others is `sounds.npz[3]`. Where each pixel
        is answered for, `mask` is the class of each, H×W uint8, as large as the picture.
        """
        return [entry for entry, _ in self.answers(images, device=device)]

    def answers(
        self, images: Sequence[str | Path], *, device: str = "auto"
    ) -> Generator[tuple[dict[str, Any], torch.Tensor | None]]:
        """The entries of `predict`, one after the other, each with the sample as the network takes
        it, C×H×W; None where it cannot be read. Only some of them are held at a time."""
        engine = self.engine(device=device)
        paths = [str(path) for path in images]
        return answering.answers(engine, paths, deep=self.recipe.data.deep)

    def engine(self, *, device: str = "auto", threads: int = 0) -> TorchEngine:
        """The network as PyTorch computes it; arguments as `TorchEngine` has them."""
        return TorchEngine(self.bundle, model=self._model, device=device, threads=threads)

    def __repr__(self) -> str:
        manifest = self.manifest
        lines = [f"Run({str(self.path)!r})", f"  {manifest.config['model']} on {self._source()}"]
        if self.finished:
            lines += [f"  {part}: {headline(scores)}" for part, scores in self.scores.items()]
        else:
            lines.append(f"  not finished; go on with: neocog resume {self.path}")
        return "\n".join(lines)

    def _source(self) -> str:
        """The data's name, short."""
        return Path(self.manifest.data["source"]).name

    def _repr_html_(self) -> str:
        """For notebooks."""
        name, *rest = repr(self).splitlines()
        lines = "<br>".join(escape(line.strip()) for line in rest)
        return f"<b>{escape(name)}</b><br>{lines}"


def headline(scores: Scores) -> str:
    """The first metric of a task with its interval, in words.

    >>> from neocog.records import Interval, Scores
    >>> headline(Scores(metrics={"accuracy": Interval(value=0.98, low=0.96, high=0.99, n=360)}))
    'accuracy 98.0 % (95 % interval 96.0 to 99.0 %, n = 360)'
    """
    name, metric = next(iter(scores.metrics.items()))
    numbers = (metric.value, metric.low, metric.high)
    share = is_share(name)
    value, low, high = (f"{100 * x:.1f}" if share else f"{x:.4g}" for x in numbers)
    sign = " %" if share else ""
    ends = f"95 % interval {low} to {high}{sign}"
    return f"{called(name)} {value}{sign} ({ends}, n = {metric.n:,})"


def open_run(path: str | Path, *, model: str | nn.Module = "") -> Run:
    """Open a run folder.

    Args:
        path: the folder that `neocog train` printed.
        model: only for a network from outside the catalogue: its factory
            (`package.module:factory`), named again because nothing foreign runs unasked, or the
            module itself.

    Raises:
        RunError: no run lives there.
    """
    return Run(Path(path), model=model)
