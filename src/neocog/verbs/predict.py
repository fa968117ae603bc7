"""Answers for image files and arrays. Floor 5, room verbs."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog.data import folder
from neocog.errors import ConfigError, DataError, RunError
from neocog.plots.masks import palette, write_mask, write_overlay
from neocog.run import open_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["expanded", "lines", "predict"]


def predict(
    path: Path,
    images: Sequence[str],
    *,
    device: str,
    model: str,
    out: Path | None = None,
    overlay: bool = False,
) -> list[dict[str, Any]]:
    """One entry an image: `path`, `label`, `probability`, `top`; or `path`, `error`.

    A folder stands for the image files below it, in order of their names; an .npz or .npy for all
    of its samples, or for the one that it is. Where each pixel is answered for, `mask` is the path
    of a PNG with the class of each, written below `out`, and `overlay` that of the picture with the
    classes laid over it.

    Args:
        path: the run.
        images: files and folders.
        device: where to compute.
        model: a foreign network, named again.
        out: folder for masks; None: `predictions` in the run.
        overlay: whether overlays are written too.

    Raises:
        RunError: no finished run, or a file that cannot be written.
        DataError: a folder without images.
        ConfigError: `out` or `overlay` where nothing is drawn.
    """
    run = open_run(path, model=model)
    if not run.bundle.input.whole and (overlay or out is not None):
        raise ConfigError(
            f"the run {path} has one answer a picture, so there is nothing to draw",
            "leave out --out and --overlay",
        )
    files = expanded(images)
    writer = _Masks(out or path / "predictions", len(run.bundle.classes), overlay)
    if run.bundle.input.whole:
        writer.spare(files)
    entries = []
    with contextlib.closing(run.answers([str(file) for file, _ in files], device=device)) as found:
        below = dict(files)
        for entry, picture in found:
            if picture is not None and "mask" in entry:
                writer.write(entry, picture, below.get(entry["path"], ""))
            entries.append(entry)
    return entries


class _Masks:
    """Where masks are written.

    Args:
        out: the folder.
        classes: how many there are.
        overlay: whether overlays are written too.
    """

    def __init__(self, out: Path, classes: int, overlay: bool) -> None:
        self.out = out
        self.colours = palette(classes)
        self.overlay = overlay
        self.taken: set[str] = set()

    def spare(self, files: Sequence[tuple[str, str]]) -> None:
        """Refuse to write into a folder in which a picture lies that is asked about.

        Args:
            files: of `expanded`.

        Raises:
            ConfigError: naming the picture; nothing was written.
        """
        for file, below in files:
            here = (self.out / (below or Path(file).name)).parent.resolve()
            if Path(file).resolve().parent == here:
                raise ConfigError(
                    f"masks would be written beside {file}, and could take its place",
                    "name another folder: --out DIR",
                )

    def write(self, entry: dict[str, Any], picture: Tensor, below: str) -> None:
        """Write the mask of an entry, in which its path takes its place.

        Args:
            entry: of `Run.answers`.
            picture: C×H×W uint8.
            below: path of the file below the folder that was named; empty: its name will do.
        """
        name = self._name(below or Path(entry["path"]).name)
        target = self.out / f"{name}.png"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write {target.parent}: {error.strerror}") from error
        mask = entry["mask"]
        entry["mask"] = str(write_mask(target, mask, self.colours))
        if self.overlay:
            pixels = picture.permute(1, 2, 0).numpy()
            place = self.out / f"{name}-overlay.png"
            entry["overlay"] = str(write_overlay(place, pixels, mask, self.colours))

    def _name(self, path: str) -> str:
        """A name that no other mask or overlay has: `a.jpg` → `a`, `sounds.npz[3]` → `sounds-3`,
        and of two of one name the second → `a-2`."""
        stem = re.sub(r"\.[^./\\\[\]:]*(?=[\[:]|$)", "", path, count=1)
        stem = re.sub(r"[\[\]:]+", "-", stem).strip("-") or "mask"
        name, number = stem, 1
        while self.taken & {name.lower(), f"{name}-overlay".lower()}:
            number += 1
            name = f"{stem}-{number}"
        self.taken |= {name.lower(), f"{name}-overlay".lower()}
        return name


def expanded(images: Sequence[str]) -> list[tuple[str, str]]:
    """The files, and their paths below a folder that was named; empty for a file by itself."""
    files: list[tuple[str, str]] = []
    for image in images:
        if not Path(image).is_dir():
            files.append((image, ""))
            continue
        below = [path for path in sorted(Path(image).rglob("*")) if folder.is_picture(path.name)]
        if not below:
            raise DataError(f"{image} holds no image files")
        files.extend((str(path), str(path.relative_to(image))) for path in below)
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
