"""Find the fastest engine for one network on one machine, by measuring. Floor 3, room runtime.

Imports bundle, data, machine, floor 0 and its own room. Which library is faster depends on the
network, the batch and the processor, and more threads slow small networks down; so all are timed in
turn on real samples, as `engine.tuner` does it for training, and one that answers otherwise is
never taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog import machine
from neocog.data.cache import cache_dir
from neocog.errors import NeocogError, RunError
from neocog.files import write_json
from neocog.host import cores
from neocog.runtime.content import Content, read_content
from neocog.runtime.opened import READ_BY, Source, exported_in, file_engine
from neocog.runtime.torch_engine import TorchEngine
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.bundle import Bundle
    from neocog.runtime.engine import Engine, Kind

__all__ = ["Candidate", "Chosen", "Trial", "candidates", "fastest"]

GAIN = 1.03
"""A candidate must be this much faster than the reference: less is noise."""
ROUNDS = 40
"""Calls of each candidate, at most."""
ENOUGH = 3
"""Timed calls after which a candidate may be given up, and which all need for the result to be
remembered."""
FEW = 32
"""Samples of a call that shows what one of all would take. In so large a network what a call costs
by itself is nothing, and a few samples tell as much as many."""
BEHIND = 1.5
"""Times as slow as the leader: such a candidate is not measured further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine that could be made."""

    kind: Kind
    """Whose arithmetic it is."""
    threads: int
    """Of the processor. Of candidates that differ in it alone, those after the first are tried only
    where the first leads."""
    digest: str
    """SHA-256 of what it computes with."""
    make: Callable[[], Engine]
    """Opens it."""
    device: str = "cpu"
    """Where it computes, as it was asked for."""

    @property
    def family(self) -> tuple[str, str, str]:
        """What it shares with those that differ in threads alone."""
        return self.kind, self.device, self.digest

    @property
    def facts(self) -> dict[str, Any]:
        """All of it that JSON can hold."""
        return {one: getattr(self, one) for one in ("kind", "threads", "digest", "device")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate, as measured."""

    kind: Kind
    """Whose arithmetic it is."""
    threads: int
    """Of the processor."""
    device: str
    """Where it computes."""
    seconds: float
    """Shortest time of one call; interruptions only ever add."""
    calls: int
    """Calls that were timed."""
    difference: float
    """Largest from the reference's answers; see `difference`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What was found."""

    engine: Engine
    """The one to use."""
    trials: tuple[Trial, ...] = ()
    """All that answered as the reference does, the reference first; empty where there was nothing
    to compare."""
    seconds: float = 0.0
    """What measuring took."""
    remembered: bool = False
    """Whether an earlier measurement was used."""
    remarks: tuple[str, ...] = ()
    """Which candidates were none, and why."""


@dataclass
class _Runner:
    """A candidate at work."""

    candidate: Candidate
    engine: Engine
    difference: float = 0.0
    times: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The shortest call so far."""
        return min(self.times)

    def call(self, samples: NDArray[Any]) -> NDArray[Any]:
        """One timed call."""
        began = time.perf_counter()
        found = self.engine(samples)
        self.times.append(time.perf_counter() - began)
        return found

    def warm(self, samples: NDArray[Any]) -> NDArray[Any]:
        """The first call also sets up memory and kernels; the second is the first that counts."""
        found = self.call(samples)
        self.times.clear()
        self.call(samples)
        return found

    def trial(self) -> Trial:
        """What was measured."""
        one = self.candidate
        return Trial(
            kind=one.kind,
            threads=one.threads,
            device=one.device,
            seconds=self.best,
            calls=len(self.times),
            difference=self.difference,
        )


def candidates(
    path: Path | Source, *, model: str = "", device: str = "auto", threads: int = 0
) -> list[Candidate]:
    """What could answer for a path; the reference first.

    For a folder PyTorch, then the libraries that read its exported files in fp32; for a file those
    that read it. On a processor each with all threads that this process may use, half of them, and
    one.

    Args:
        path, model, device: see `open_engine`. Files are read once for all candidates.
        threads: of the processor; 0: as many as are fastest.

    Raises:
        ConfigError, RunError: see `open_engine`.
    """
    source = path if isinstance(path, Source) else Source.of(path, model=model)
    bundle = source.bundle
    where = machine.device_named(device)
    numbers = [threads] if threads else sorted({cores(), max(1, cores() // 2), 1}, reverse=True)
    found: list[Candidate] = []
    if bundle is not None:
        digest, on = bundle.digest, str(where)
        for number in numbers if where.type == "cpu" else [threads]:
            make = _torch(bundle, model, on, number)
            found.append(
                Candidate(kind="torch", threads=number, digest=digest, make=make, device=on)
            )
    for file, content in _files(source):
        for kind in READ_BY[file.suffix.lower()]:
            on = device if bundle is None else str(where)
            if kind == "openvino":
                if on not in ("auto", "cpu"):
                    continue
                on = "cpu"
            for number in numbers if on in ("auto", "cpu") else [threads]:
                make, digest = _file(content, kind, on, number), content.digest
                found.append(
                    Candidate(kind=kind, threads=number, digest=digest, make=make, device=on)
                )
    return found


def _files(source: Source) -> list[tuple[Path, Content]]:
    """The exported files that answer as the source does, read once for all that compute them."""
    if source.content is not None:
        return [(source.path, source.content)]
    found = []
    for one in exported_in(source):
        if not one.why:
            with contextlib.suppress(RunError):  # it is none
                found.append((one.path, read_content(one.path)))
    return found


def _torch(bundle: Bundle, model: str, device: str, threads: int) -> Callable[[], Engine]:
    return lambda: TorchEngine(bundle, model=model, device=device, threads=threads)


def _file(content: Content, kind: Kind, device: str, threads: int) -> Callable[[], Engine]:
    return lambda: file_engine(content, kind, device=device, threads=threads)


def fastest(
    candidates: Sequence[Candidate],
    samples: NDArray[Any],
    *,
    tolerance: float = 1e-4,
    seconds: float = 3.0,
    cache: Path | None = None,
) -> Chosen:
    """The fastest of the candidates that answer as the first does.

    One whose library is missing or fails is none, and neither is one whose answers differ. The
    first is taken unless another is faster by `GAIN`.

    Args:
        candidates: the reference first.
        samples: real ones, as many as will be asked about at once: B×C×h×w and so on. Where a call
            of all takes the reference more than an eighth of `seconds`, the first `FEW` are timed.
        tolerance: largest difference of an answer; see `difference`.
        seconds: of measuring, in which two candidates are tried in any case; up to twice as long
            where other programs get in the way.
        cache: folder that remembers results per (network, batch, machine, versions).

    Raises:
        ValueError: no candidates, or samples that the network does not take.
        ConfigError, RunError: the reference cannot be opened or fails.
    """
    if not candidates:
        raise ValueError("expected at least one candidate, got none")
    if len(candidates) == 1:
        return Chosen(engine=candidates[0].make())
    file = (cache or cache_dir() / "engines") / f"{_key(candidates, samples, tolerance)}.json"
    threads = torch.get_num_threads()
    try:
        return _recalled(file, candidates) or _measured(
            file, candidates, samples, tolerance, seconds
        )
    finally:
        torch.set_num_threads(threads)


def _measured(
    file: Path,
    candidates: Sequence[Candidate],
    samples: NDArray[Any],
    tolerance: float,
    seconds: float,
) -> Chosen:
    """The fastest, found now and remembered."""
    began = time.monotonic()
    ends = began + seconds
    plain = _Runner(candidates[0], candidates[0].make())
    samples = _affordable(plain, samples, seconds / 8)
    reference = plain.warm(samples)
    crew, remarks, families = [plain], list[str](), {candidates[0].family}

    def join(some: Iterator[Candidate]) -> list[_Runner]:
        """Those that run, and answer as the reference does."""
        found: list[_Runner] = []
        for one in some:
            families.add(one.family)
            if time.monotonic() > ends and len(crew) + len(found) > 1:
                break
            try:
                runner = _Runner(one, one.make())
                runner.difference = difference(runner.engine, reference, runner.warm(samples))
            except Exception as error:  # noqa: BLE001 - a library's errors have no common root
                why = error.message if isinstance(error, NeocogError) else str(error)
                remarks.append(f"{_words(one)}: {printable(why)[:300]}")
                continue
            if runner.difference <= tolerance:
                found.append(runner)
            else:
                remarks.append(f"{_words(one)}: answers differ by {runner.difference:.2g}")
        return found

    # Of each family the first: `families` grows meanwhile.
    crew += join(one for one in candidates if one.family not in families)
    _race(crew, samples, began + seconds / 2, ends + seconds)
    leader = min(crew, key=lambda one: one.best)
    tried = [one.candidate for one in crew]
    fewer = join(
        one for one in candidates if one.family == leader.candidate.family and one not in tried
    )
    _race([leader, *fewer], samples, ends, ends + seconds)
    crew += fewer
    best = min(crew, key=lambda one: one.best)
    if best.best * GAIN > plain.best:
        best = plain
    trials = tuple(one.trial() for one in crew)
    took = round(time.monotonic() - began, 2)
    if all(one.calls >= ENOUGH for one in trials):
        with contextlib.suppress(RunError):  # a full disk costs the time again, nothing else
            write_json(
                file,
                {
                    "choice": best.candidate.facts,
                    "trials": [dataclasses.asdict(one) for one in trials],
                    "seconds": took,
                    "remarks": remarks,
                },
            )
    return Chosen(engine=best.engine, trials=trials, seconds=took, remarks=tuple(remarks))


def _affordable(plain: _Runner, samples: NDArray[Any], most: float) -> NDArray[Any]:
    """The samples, or the first `FEW` where a call of all would take more seconds than that."""
    if len(samples) <= FEW:
        return samples
    few = samples[:FEW]
    plain.warm(few)
    return samples if plain.best * len(samples) / FEW <= most else few


def _race(crew: Sequence[_Runner], samples: NDArray[Any], ends: float, latest: float) -> None:
    """Calls in turn until time or rounds are up.

    Args:
        crew: each timed at least once.
        samples: see `fastest`.
        ends: when it is over for those with `ENOUGH` calls.
        latest: when it is over for all.
    """
    for _ in range(ROUNDS if len(crew) > 1 else 0):
        lead = min(one.best for one in crew)
        for one in crew:
            enough, now = len(one.times) >= ENOUGH, time.monotonic()
            if now > latest or (enough and (now > ends or one.best > BEHIND * lead)):
                continue
            one.call(samples)


def difference(engine: Engine, reference: NDArray[Any], found: NDArray[Any]) -> float:
    """How far answers are from the reference's: the largest |a − b| / max(1, |b|).

    Infinite where another label is answered: for B×K probabilities of classes another class, for
    those of several labels another set of them. Masks, where two classes of a pixel may be as good
    as equal, are compared as probabilities alone. NaN where an answer is.

    Args:
        engine: whose task says what a label is.
        reference: B×K or B×K×h×w.
        found: the same of the engine.
    """
    if reference.shape != found.shape:
        return float("inf")
    task = engine.described.task.name
    if task == "classify" and not np.array_equal(reference.argmax(1), found.argmax(1)):
        return float("inf")
    if task == "multilabel" and not np.array_equal(reference > 0.5, found > 0.5):
        return float("inf")
    apart = np.abs(found - reference) / np.maximum(1, np.abs(reference))
    return float(apart.max(initial=0.0))


def _words(one: Candidate) -> str:
    return f"{one.kind} with {one.threads} thread(s) on {one.device}"


def _key(candidates: Sequence[Candidate], samples: NDArray[Any], tolerance: float) -> str:
    """What a measurement is good for: networks and files, batch, machine, libraries."""
    devices = sorted({one.device for one in candidates})
    facts = [
        [one.facts for one in candidates],
        [list(samples.shape), str(samples.dtype), tolerance],
        [machine.describe(machine.device_named(name)) for name in devices],
        torch.backends.cpu.get_cpu_capability(),
        [_version(package) for package in ("neocog", "torch", "onnxruntime", "openvino")],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _recalled(file: Path, candidates: Sequence[Candidate]) -> Chosen | None:
    """An earlier measurement, where it is there, whole, and its choice can still be opened."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        trials = tuple(Trial(**one) for one in found["trials"])
        chosen = next(one for one in candidates if one.facts == found["choice"])
        remarks = tuple(str(one) for one in found["remarks"])
        return Chosen(
            engine=chosen.make(),
            trials=trials,
            seconds=float(found["seconds"]),
            remembered=True,
            remarks=remarks,
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration, NeocogError):
        return None
