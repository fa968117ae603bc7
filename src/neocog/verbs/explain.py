"""Show why a run answers as it does. Floor 5, room verbs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog import machine
from neocog.errors import ConfigError
from neocog.explain.chain.paths import weight_paths
from neocog.explain.chain.text import paths_text
from neocog.explain.recording import record
from neocog.explain.unit.telling import path_told, told
from neocog.explain.unit.trace import trace_unit
from neocog.run import open_run
from neocog.verbs.predict import expanded
from neocog.verbs.result import Result
from neocog.verbs.spots import activation, weight
from neocog.verbs.truths import truth_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from neocog.run import Run
    from neocog.verbs.console import Console

__all__ = ["Asked", "explain"]

_GRIDS = 3
"""Input channels whose products are written out: all of a picture in colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is wanted to be known."""

    methods: Sequence[str] = ()
    """Names of `explain.why.methods.METHODS`, or `all`; empty: the usual ones."""
    target: str = ""
    """A class; empty: what is answered."""
    layer: str = ""
    """Whose map is weighed by methods that take one; empty: the last map."""
    mistakes: int = 0
    """Held-out samples that are answered wrongly, the worst first, beside the images."""
    trace: str | None = None
    """An activation, as `spots.activation` reads it."""
    weight: str | None = None
    """A weight, as `spots.weight` reads it."""
    minutes: float | None = None
    """Of the page about the network itself."""
    out: Path | None = None
    """Folder for the page; None: the run's."""
    device: str = "auto"
    """Where to compute."""
    model: str = ""
    """A foreign network, named again."""


def explain(path: Path, images: Sequence[str], asked: Asked, *, console: Console) -> Result:
    """Explain a run's answers for images, or, without any, what is inside its network.

    Args:
        path: the run.
        images: files and folders.
        asked: what is wanted.
        console: told how far it is.

    Raises:
        RunError: no finished run, or a page that cannot be written.
        ConfigError: something that does not exist, or does not fit the run.
        DataError: a folder without images.
    """
    if not images and not asked.mistakes:
        return _inside(path, asked, console)
    if asked.minutes is not None:
        raise ConfigError("--minutes is for the page about the network", "leave the images out")
    if asked.trace is None and asked.weight is None:
        from neocog.verbs.pictures import page

        return page(path, images, asked, console)
    _refuse_beside(asked)
    run = open_run(path, model=asked.model)
    found: dict[str, Any] = {"run": str(path), "images": []}
    lines: list[str] = []
    for entry, sample in _answered(run, images, asked.device):
        if sample is None:
            found["images"].append(entry)
            lines.append(f"{entry['path']}  not read: {entry['error']}")
            continue
        texts = _texts(run, sample, entry, asked)
        found["images"].append({"path": entry["path"], **texts})
        lines += [entry["path"], *(line for text in texts.values() for line in text.splitlines())]
    return Result(json=found, lines=lines)


def _refuse_beside(asked: Asked) -> None:
    """Refuse what `--trace` and `--weight` would not heed.

    Raises:
        ConfigError: something that is about the page.
    """
    about = {
        "--mistakes": asked.mistakes,
        "--method": asked.methods,
        "--layer": asked.layer,
        "--out": asked.out,
        "--target": asked.target and asked.weight is None,
    }
    wrong = [name for name, value in about.items() if value]
    if wrong:
        raise ConfigError(
            f"{wrong[0]} is about the page, and --trace and --weight print text instead",
            "leave out one or the other",
        )


def _inside(path: Path, asked: Asked, console: Console) -> Result:
    """The page about the network itself."""
    from neocog.verbs.within import within

    about = {
        "--method": asked.methods,
        "--target": asked.target,
        "--layer": asked.layer,
        "--trace": asked.trace,
        "--weight": asked.weight,
    }
    wrong = [name for name, value in about.items() if value]
    if wrong:
        raise ConfigError(f"{wrong[0]} is about an image, and none was given", "name one")
    return within(
        path,
        minutes=asked.minutes,
        device=asked.device,
        model=asked.model,
        out=asked.out,
        console=console,
    )


def _answered(
    run: Run, images: Sequence[str], device: str
) -> Iterator[tuple[dict[str, Any], Tensor | None]]:
    """The answers for files and for those in folders, one by one."""
    files = [file for file, _ in expanded(images)]
    with contextlib.closing(run.answers(files, device=device)) as found:
        yield from found


def _texts(run: Run, sample: Tensor, entry: dict[str, Any], asked: Asked) -> dict[str, str]:
    """The arithmetic of an activation, and the paths of a weight."""
    predictor = run.predictor(machine.device_named(asked.device))
    x = predictor.normalize(predictor.fit(sample[None]))
    network, found = predictor.network, {}
    if asked.trace is not None:
        spot = activation(asked.trace)
        made = trace_unit(record(network, x), spot.layer, spot.channel, spot.position)
        found["trace"] = f"{told(made, grids=_GRIDS)}\n\n{path_told(made.path_to_pixels())}"
    if asked.weight is not None:
        place = weight(asked.weight)
        # An answer stands for the truth where it is one of several; a number has no loss to itself.
        answer = "" if entry.get("probability") is None else str(entry["label"])
        loss, said = truth_loss(run.bundle.task, asked.target or answer)
        made_paths = weight_paths(network, x, loss, place.name, place.index)
        found["weight"] = f"loss: {said}\n{paths_text(made_paths)}"
    return found
