"""Masks that networks answer with, as files. Floor 5, room verbs; imports plots and floor 0."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError, RunError
from neocog.plots.masks import palette, write_mask, write_overlay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["MaskFiles"]


class MaskFiles:
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

    def write(self, entry: dict[str, Any], picture: Tensor, name: str) -> None:
        """Write the mask of an entry, in which its path takes its place.

        Args:
            entry: of `answering.answers`.
            picture: C×H×W uint8.
            name: of the file below the folder, without an ending; no other mask has it.

        Raises:
            RunError: a full disk and the like.
        """
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

    def name(self, path: str) -> str:
        """A name that no other mask or overlay was given: `a.jpg` → `a`, `sounds.npz[3]` →
        `sounds-3`, and of two of one name the second → `a-2`."""
        stem = re.sub(r"\.[^./\\\[\]:]*(?=[\[:]|$)", "", path, count=1)
        stem = re.sub(r"[\[\]:]+", "-", stem).strip("-") or "mask"
        name, number = stem, 1
        while self.taken & {name.lower(), f"{name}-overlay".lower()}:
            number += 1
            name = f"{stem}-{number}"
        self.taken |= {name.lower(), f"{name}-overlay".lower()}
        return name
