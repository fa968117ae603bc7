"""Answers for image files and arrays, and tables of them. Floor 5, room verbs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog.data.walk import pictures_below
from neocog.engine.stopping import Signals
from neocog.errors import ConfigError, DataError
from neocog.runtime import answering
from neocog.verbs.answers import paths_of, write_table
from neocog.verbs.mask_files import MaskFiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.runtime.engine import Engine
    from neocog.verbs.answer_state import State
    from neocog.verbs.answers import Wanted
    from neocog.verbs.choice import Choice
    from neocog.verbs.console import Console

__all__ = ["expanded", "lines", "predict", "table"]


def predict(
    choice: Choice,
    images: Sequence[str],
    *,
    console: Console,
    out: Path | None = None,
    overlay: bool = False,
) -> list[dict[str, Any]]:
    """One entry an image: `path`, `label`, `probability`, `top`; or `path`, `error`.

    A folder stands for the image files below it, in order of their names; an .npz or .npy for all
    of its samples, or for the one that it is. Where each pixel is answered for, `mask` is the path
    of a PNG with the class of each, written below `out`, and `overlay` that of the picture with the
    classes laid over it.

    Args:
        choice: who answers.
        images: files and folders.
        console: told who it is.
        out: folder for masks; None: `predictions` in the run, or beside the exported file.
        overlay: whether overlays are written too.

    Raises:
        RunError: no finished run, or a file that cannot be written.
        DataError: a folder without images.
        ConfigError: `out` or `overlay` where nothing is drawn.
    """
    files = expanded(images)
    engine = choice.open(len(files), lambda: iter([file for file, _ in files]), console.say)
    _refuse_drawing(engine, choice.path, out, overlay)
    home = choice.path if choice.path.is_dir() else choice.path.parent
    writer = MaskFiles(out or home / "predictions", len(engine.described.classes), overlay)
    if engine.described.input.whole:
        writer.spare(files)
    entries = []
    paths, below = [file for file, _ in files], dict(files)
    with contextlib.closing(answering.answers(engine, paths)) as found:
        for entry, picture in found:
            if picture is not None and "mask" in entry:
                name = below.get(entry["path"]) or Path(entry["path"]).name
                writer.write(entry, picture, writer.name(name))
            entries.append(entry)
    return entries


def table(choice: Choice, wanted: Wanted, *, console: Console) -> dict[str, Any]:
    """Write a table of answers, or what is left of one; see `answers.write_table`.

    Args:
        choice: who answers.
        wanted: the table.
        console: told who answers, and how far it has come.

    Raises:
        RunError: no finished run, a table that cannot go on, or a disk that fails.
        DataError: a folder without images.
        ConfigError: masks where nothing is drawn, or among the pictures.
        Stopped: by a signal; what was answered until then is in the table.
    """

    def opened(before: State | None, total: int) -> Engine:
        begun = None if before is None else before.asks
        engine = choice.open(total, lambda: paths_of(wanted.sources), console.say, begun)
        _refuse_drawing(engine, choice.path, wanted.out, wanted.overlay)
        return engine

    def masks(engine: Engine) -> MaskFiles | None:
        if wanted.out is None:
            return None
        return MaskFiles(wanted.out, len(engine.described.classes), wanted.overlay)

    _refuse_among(wanted)
    with Signals() as signals:
        return write_table(wanted, opened, console, masks, signals)


def _refuse_drawing(engine: Engine, path: Path, out: Path | None, overlay: bool) -> None:
    if not engine.described.input.whole and (overlay or out is not None):
        raise ConfigError(
            f"the run {path} has one answer a picture, so there is nothing to draw",
            "leave out --out and --overlay",
        )


def _refuse_among(wanted: Wanted) -> None:
    """Masks among the pictures could take their place, and would be met by the walk.

    Raises:
        ConfigError: naming the folder; nothing was written.
    """
    if wanted.out is None:
        if wanted.overlay:
            raise ConfigError(
                "a table has masks and overlays only where their folder is named", "--out DIR"
            )
        return
    out = wanted.out.resolve()
    for source in map(Path, wanted.sources):
        if not source.is_dir():
            continue
        place = source.resolve()
        if place in (out, *out.parents) or out in place.parents:
            raise ConfigError(
                f"masks below {wanted.out} could come among the pictures of {source}",
                "name another folder: --out DIR",
            )


def expanded(images: Sequence[str]) -> list[tuple[str, str]]:
    """The files, and their paths below a folder that was named; empty for a file by itself."""
    files: list[tuple[str, str]] = []
    for image in images:
        if not Path(image).is_dir():
            files.append((image, ""))
            continue
        below = list(pictures_below(str(Path(image))))
        if not below:
            raise DataError(f"{image} holds no image files")
        files.extend((path, os.path.relpath(path, image)) for path in below)
    return files


def lines(entries: Sequence[dict[str, Any]]) -> list[str]:
    """The entries as a table for people.

    >>> lines([{"path": "a.png", "label": "cat", "probability": 0.9, "top": []},
    ...        {"path": "b.png", "error": "empty file"}])
    ['a.png  cat  90.0 %', 'b.png  not read: empty file']
    >>> lines([{"path": "c.png", "shares": {"sky": 0.7, "sea": 0.3}, "mask": "out/c.png"}])
    ['c.png  sky 70 %, sea 30 %  → out/c.png']
    """
    width = max((len(entry["path"]) for entry in entries), default=0)
    shown = []
    for entry in entries:
        if "error" in entry:
            text = f"not read: {entry['error']}"
        elif "mask" in entry:
            shares = [f"{name} {100 * share:.0f} %" for name, share in entry["shares"].items()]
            text = f"{', '.join(shares[:3])}  → {entry['mask']}"
        elif entry.get("probability") is None:
            text = str(entry["label"])
        else:
            text = f"{entry['label']}  {100 * entry['probability']:.1f} %"
        shown.append(f"{entry['path']:{width}}  {text}")
    return shown
