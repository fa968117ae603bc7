"""From files to answers, with any engine. Floor 3, room runtime.

Imports tasks, layers, data, the size of an evaluated batch, and torch. Helper programs decode
(`data.workers`), one thread makes batches of what they find, the caller's computes: all three at
once, and each only a little ahead of the next, so that memory is the same for a million files as
for a thousand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from neocog import tasks
from neocog.data import decode
from neocog.data.ahead import ahead
from neocog.data.arrays import is_array, read_samples
from neocog.data.files import Limits
from neocog.data.looks import Order
from neocog.data.workers import look_at_all
from neocog.engine.evaluate import eval_batch
from neocog.errors import DataError
from neocog.geometry import covering_size, noun, size_text
from neocog.layers import Fit

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from neocog.described import Described
    from neocog.records import InputSpec
    from neocog.runtime.engine import Engine
    from neocog.tasks import AnyTask

__all__ = [
    "SLICE",
    "Answered",
    "Asked",
    "answers",
    "batches",
    "fitted",
    "is_deep",
    "order_of",
    "samples",
    "stacked",
    "together",
]

SLICE = 1 << 15
"""Files that one set of helper programs decodes. A new set starts in a fifth of a second, in which
little is decoded; the paths of a slice take some megabytes."""
MOST = 1 << 12
"""Samples of a batch, with those that cannot be read: a folder may hold nothing else."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One sample that is asked about."""

    file: int
    """Which of the paths it comes from, from 0 on."""
    path: str
    """That path."""
    place: int
    """Which of the samples of this file it is, from 0 on."""
    name: str
    """What it is called: the path, or `sounds.npz[3]`."""
    found: torch.Tensor | str
    """As the network takes it, C×H×W; or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What was said of a sample."""

    asked: Asked
    """The sample."""
    entry: dict[str, Any]
    """`path`, and what the task answers; or `path` and `error`."""
    numbers: NDArray[Any] | None
    """K probabilities or numbers; None where it cannot be read, and where each pixel is answered
    for."""

    @property
    def sample(self) -> torch.Tensor | None:
        """C×H×W; None where it cannot be read."""
        return None if isinstance(self.asked.found, str) else self.asked.found


def is_deep(described: Described) -> bool:
    """Whether a network learnt from pictures of 16 bits a channel, and takes them."""
    data = described.manifest.config.get("data")
    return isinstance(data, dict) and data.get("deep") is True


def order_of(described: Described, *, deep: bool | None = None, decoded: int = 0) -> Order:
    """How a picture is decoded for a network.

    Args:
        described: what the network takes.
        deep: take pictures of 16 bits; None: as the network has learnt.
        decoded: bytes of a decoded picture; 0: the usual limit.
    """
    spec = described.input
    cover = None if spec.whole else (spec.size[0], spec.size[-1])
    limits = Limits(deep=is_deep(described) if deep is None else deep)
    if decoded:
        limits = dataclasses.replace(limits, decoded_bytes=decoded)
    return Order(cover=cover, limits=limits)


def answers(
    engine: Engine, paths: Iterable[str], *, deep: bool | None = None
) -> Generator[tuple[dict[str, Any], torch.Tensor | None]]:
    """An entry for each sample, in order, each with the sample as the network takes it, C×H×W; None
    where it cannot be read. Only some of them are held at a time.

    Args:
        engine: who answers.
        paths: image files, .npz and .npy.
        deep: take pictures of 16 bits; None: as the network has learnt.
    """
    asked = samples(engine.described, paths, deep=deep)
    with contextlib.closing(batches(engine, asked)) as found:
        for batch in found:
            for one in batch:
                yield one.entry, one.sample


def batches(engine: Engine, asked: Generator[Asked]) -> Generator[list[Answered]]:
    """Samples with their answers, as many together as the engine was asked about at once.

    A batch ends with the sample that fills it, so where one ends, and with it the last bit of an
    answer, depends on the samples since the end of any batch before it and on nothing else.

    Args:
        engine: who answers.
        asked: taken by another thread meanwhile, and closed at the end.
    """
    spec, task = engine.described.input, tasks.build(engine.described.task)
    with contextlib.closing(asked), contextlib.closing(_ahead(asked, together(spec))) as batched:
        for batch, images in batched:
            if images is None:
                yield [_unread(one) for one in batch]
            else:
                yield _answered(batch, engine(images), task)


def together(spec: InputSpec) -> int:
    """Samples that an engine is asked about at once.

    Args:
        spec: of its input.
    """
    # Of pictures that are answered for whole, no two need have the same size.
    return 1 if spec.whole else eval_batch(spec.size)


def _answered(batch: Sequence[Asked], decoded: NDArray[Any], task: AnyTask) -> list[Answered]:
    """Each sample with its row of what the engine gave for the readable ones."""
    entries = task.answer(torch.from_numpy(decoded))
    # What was said of each pixel is as large as all else together, and nobody asks for it again.
    rows = decoded if decoded.ndim == 2 else itertools.repeat(None)
    said = zip(entries, rows, strict=False)
    found = []
    for one in batch:
        if isinstance(one.found, str):
            found.append(_unread(one))
        else:
            entry, numbers = next(said)
            found.append(Answered(one, {"path": one.name, **entry}, numbers))
    return found


def _ahead(
    asked: Iterator[Asked], count: int
) -> Generator[tuple[list[Asked], NDArray[Any] | None]]:
    """Batches and their arrays, one made while another is answered."""
    grouped = ((batch, stacked(batch)) for batch in _grouped(asked, count))
    yield from ahead(grouped, 1)


def _grouped(asked: Iterable[Asked], most: int) -> Iterator[list[Asked]]:
    """Runs of samples that end with their `most`-th readable one, or are `MOST`."""
    batch: list[Asked] = []
    count = 0
    for one in asked:
        batch.append(one)
        count += not isinstance(one.found, str)
        if count == most or len(batch) == MOST:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def stacked(batch: Sequence[Asked]) -> NDArray[Any] | None:
    """The readable ones as one array B×C×H×W, in one run of memory; None where there is none."""
    found = [one.found for one in batch if not isinstance(one.found, str)]
    return torch.stack(found).numpy() if found else None


def _unread(one: Asked) -> Answered:
    return Answered(one, {"path": one.name, "error": one.found}, None)


def samples(
    described: Described, paths: Iterable[str], *, deep: bool | None = None
) -> Generator[Asked]:
    """The samples of files, in order, as the network takes them.

    Args:
        described: what it takes.
        paths: image files, .npz and .npy; taken as they are needed, `SLICE` at a time.
        deep: take pictures of 16 bits; None: as the network has learnt.
    """
    spec, order = described.input, order_of(described, deep=deep)
    numbered = enumerate(paths)
    while some := list(itertools.islice(numbered, SLICE)):
        yield from _of_slice(some, spec, order)


def _of_slice(some: Sequence[tuple[int, str]], spec: InputSpec, order: Order) -> Generator[Asked]:
    """The samples of some files; pictures are decoded by one set of helper programs."""
    pictures = len(spec.size) == 2
    fit = nn.Identity() if spec.whole else Fit(spec.size)
    files = [(path, None) for _, path in some if pictures and not is_array(path)]
    with contextlib.closing(look_at_all(files, order)) as looks:
        for number, path in some:
            if is_array(path):
                for place, (name, found) in enumerate(_of_array(path, spec, fit)):
                    yield Asked(number, path, place, name, found)
                continue
            reason = f"expected an .npz or .npy of {noun(spec.size)}s"
            if pictures:
                look = next(looks)
                if look.usable:
                    yield Asked(number, path, 0, path, fitted(look.array(), spec, fit))
                    continue
                reason = look.remarks[-1].reason
            yield Asked(number, path, 0, path, reason)


def _of_array(
    path: str, spec: InputSpec, fit: nn.Module
) -> Iterator[tuple[str, torch.Tensor | str]]:
    """The samples of an .npz or .npy, each with what it is called."""
    try:
        names, found = read_samples(Path(path), size=spec.size, channels=spec.channels)
    except DataError as error:
        yield path, "; ".join(filter(None, (error.message, error.hint)))
        return
    if len(spec.size) != 2 and found.shape[1:-1] != spec.size:
        have, wanted = (size_text(size) for size in (found.shape[1:-1], spec.size))
        yield path, f"expected {noun(spec.size)}s of {wanted}, found {have}"
        return
    for name, one in zip(names, found, strict=True):
        if spec.whole:
            yield path + name, fitted(one, spec, fit)
        elif len(spec.size) == 2:
            # Scaled as the pack does it, so that a picture answers the same from either.
            size = covering_size(one.shape[:2], (spec.size[0], spec.size[1]))
            yield path + name, fitted(np.array(decode.fit(one, size)), spec, fit)
        else:
            yield path + name, torch.from_numpy(one).movedim(-1, 0)


def fitted(pixels: NDArray[np.uint8], spec: InputSpec, fit: nn.Module) -> torch.Tensor:
    """A picture H×W×C, cropped at once so that pictures of all shapes share a batch: C×H×W."""
    pixels = decode.recolor(pixels, spec.channels)
    found: torch.Tensor = fit(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    return found
