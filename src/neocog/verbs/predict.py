"""Answers for image files and arrays. Floor 5, room verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog.data import folder
from neocog.errors import DataError
from neocog.run import open_run

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["lines", "predict"]


def predict(path: Path, images: Sequence[str], *, device: str, model: str) -> list[dict[str, Any]]:
    """One entry an image: `path`, `label`, `probability`, `top`; or `path`, `error`.

    A folder stands for the image files below it, in order of their names; an .npz or .npy for all
    of its samples, or for the one that it is.

    Raises:
        RunError: no finished run.
        DataError: a folder without images.
    """
    run = open_run(path, model=model)
    return run.predict(_expand(images), device=device)


def _expand(images: Sequence[str]) -> list[str]:
    """Folders replaced by the image files below them."""
    files: list[str] = []
    for image in images:
        if not Path(image).is_dir():
            files.append(image)
            continue
        below = [
            str(path) for path in sorted(Path(image).rglob("*")) if folder.is_picture(path.name)
        ]
        if not below:
            raise DataError(f"{image} holds no image files")
        files.extend(below)
    return files


def lines(entries: Sequence[dict[str, Any]]) -> list[str]:
    """The entries as a table for people.

    >>> lines([{"path": "a.png", "label": "cat", "probability": 0.9, "top": []},
    ...        {"path": "b.png", "error": "empty file"}])
    ['a.png  cat  90.0 %', 'b.png  not read: empty file']
    """
    width = max((len(entry["path"]) for entry in entries), default=0)
    shown = []
    for entry in entries:
        if "error" in entry:
            text = f"not read: {entry['error']}"
        elif entry.get("probability") is None:
            text = str(entry["label"])
        else:
            text = f"{entry['label']}  {100 * entry['probability']:.1f} %"
        shown.append(f"{entry['path']:{width}}  {text}")
    return shown
