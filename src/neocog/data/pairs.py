"""Folders of pictures and of their masks. Floor 1, room data; imports floor 0 and this room.

Three ways to lay them out, `masks` standing for `masks`, `annotations`, `labels`, `annot` or
`segmentation`:

    train/ trainannot/ (or train_masks/ …)      val/ valannot/     test/ testannot/
    images/ masks/                              each flat, or with train/ val/ test/ inside
    train/images/ train/masks/                  val/images/ val/masks/ …
    JPEGImages/ SegmentationClass/              as PASCAL VOC, with its lists of names in
                                                ImageSets/Segmentation/train.txt, val.txt

A picture and its mask share their name without its ending; the mask may add `_mask`, `_masks`,
`_label`, `_labels`, `_gt`, `_L` or `_annot`. `classes.txt`, one name a line, names the classes by
number. Names only: no picture is opened here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from neocog.data.folder import is_picture
from neocog.data.names import SPLITS, refuse_lookalikes
from neocog.data.opened import open_regular, visible
from neocog.data.samples import Part, Source
from neocog.errors import DataError
from neocog.records import VOID, Fault
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CLASSES", "is_paired", "read_pairs"]

CLASSES = "classes.txt"
"""Where the names of the classes lie."""
_MASKS = (
    *("masks", "mask", "annotations", "annotation", "annot", "labels", "segmentation"),
    "segmentationclass",
)
_IMAGES = ("images", "image", "imgs", "jpegimages")
_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt", "_l", "_annot")
_LONGEST = 2**20
"""Bytes of a list of classes."""


def is_paired(root: Path) -> bool:
    """Whether a folder holds pictures and masks in one of the known layouts.

    Two folders `images` and `masks` are a pair; so are `train` and `trainannot`.
    """
    return bool(_pairs(root))


def read_pairs(root: Path) -> Source:
    """The data set of a folder of pictures and masks.

    A picture without a mask, a mask without a picture, and one of either that could go with two are
    skipped and reported. Files are ordered by name.

    Raises:
        DataError: a list of classes that cannot be used; a validation or test part without a
            training part; no pair at all.
    """
    listing = _Listing(root)
    pairs = _pairs(root)
    if "train" not in pairs and "" not in pairs and len(pairs) > 1:
        raise DataError(
            f"{printable(str(root))}: expected a training part beside {' and '.join(pairs)}, found "
            "none",
            "name the part that you mean",
        )
    lists = _lists(root) if "" in pairs else {}
    if lists:
        pairs = dict.fromkeys(lists, pairs[""])
    parts = [
        part
        for split, (images, masks) in pairs.items()
        if (part := listing.part(split, images, masks, lists.get(split))).names
    ]
    if not parts:
        raise DataError(
            f"{printable(str(root))}: expected pictures and masks of the same names, found no pair",
            "a mask is called like its picture: a.jpg and a.png",
        )
    return Source(
        kind="pairs",
        target="mask",
        classes=_classes(root),
        parts=tuple(parts),
        faults=tuple(listing.faults),
        skipped=listing.skipped,
    )


def _folders(root: Path) -> dict[str, Path]:
    """Lower-case name → folder; links are not followed."""
    return {
        entry.name.lower(): Path(entry)
        for entry in visible(root)
        if entry.is_dir(follow_symlinks=False)
    }


def _pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Split → folder of pictures and folder of masks; `` where the layout does not say."""
    folders = _folders(root)
    found: dict[str, tuple[Path, Path]] = {}
    for name, folder in folders.items():
        if (split := SPLITS.get(name)) is None:
            continue
        beside = [f"{name}{sign}{word}" for sign in ("", "_", "-") for word in _MASKS]
        masks = next((folders[one] for one in beside if one in folders), None)
        pair = (folder, masks) if masks is not None else _inner(folder)
        if pair is not None:
            found[split] = pair
    if not found and (pair := _inner(root)) is not None:
        inside, drawn = (_folders(one) for one in pair)
        for name in inside.keys() & drawn.keys() & SPLITS.keys():
            found[SPLITS[name]] = (inside[name], drawn[name])
        found = found or {"": pair}
    return {split: found[split] for split in ("", "train", "val", "test") if split in found}


def _inner(folder: Path) -> tuple[Path, Path] | None:
    """The folders of pictures and of masks inside a folder."""
    folders = _folders(folder)
    images = next((folders[one] for one in _IMAGES if one in folders), None)
    masks = next((folders[one] for one in _MASKS if one in folders), None)
    return None if images is None or masks is None else (images, masks)


def _lists(root: Path) -> dict[str, frozenset[str]]:
    """Split → names, without ending, of what belongs to it; empty where there are no lists."""
    folder = root / "ImageSets" / "Segmentation"
    found = {}
    for split in ("train", "val", "test"):
        path = folder / f"{split}.txt"
        if path.is_file():
            with open_regular(path) as file:
                text = file.read(_LONGEST * 16).decode("utf-8", "replace")
            found[split] = frozenset(text.split())
    return found


@dataclass(slots=True)
class _Listing:
    """What is odd about the folders, while they are listed."""

    root: Path
    faults: list[Fault] = field(default_factory=list)
    skipped: int = 0

    def part(
        self, split: str, images: Path, masks: Path, only: frozenset[str] | None = None
    ) -> Part:
        """The pairs of one part, by name; `only` those of a list."""
        pictures, drawn = self._by_stem(images, only), self._by_stem(masks, only)
        # The very same name goes first: a picture may be called `scene_L` itself.
        for stem in [stem for stem in drawn if stem not in pictures]:
            ending = next((one for one in _ENDINGS if stem.lower().endswith(one)), "")
            if ending and stem[: -len(ending)] in pictures:
                drawn.setdefault(stem[: -len(ending)], []).extend(drawn.pop(stem))
        names, files, targets = [], [], []
        for stem, paths in pictures.items():
            found = drawn.pop(stem, [])
            if len(paths) == 1 and len(found) == 1:
                names.append(self._name(paths[0]))
                files.append(paths[0])
                targets.append(found[0])
            elif not found:
                for path in paths:
                    self._skip(path, "no-mask", "expected a mask of the same name, found none")
            else:
                told = " and ".join(sorted(self._name(path) for path in [*paths, *found]))
                reason = f"expected one picture and one mask of this name, found {told}"
                self._skip(paths[0], "two-masks", reason)
        for found in drawn.values():
            self._skip(found[0], "no-picture", "expected a picture of the same name, found none")
        return Part(
            names=tuple(printable(name) for name in names),
            splits=(split,) * len(names),
            targets=("",) * len(names),
            files=tuple(files),
            masks=tuple(targets),
            root=self.root,
        )

    def _by_stem(self, folder: Path, only: frozenset[str] | None) -> dict[str, list[str]]:
        """Name without ending, below the folder → its files."""
        found: dict[str, list[str]] = {}
        for path in self._pictures(folder):
            stem = os.path.splitext(os.path.relpath(path, folder))[0]  # noqa: PTH122
            if only is None or stem in only:
                found.setdefault(stem, []).append(path)
        return found

    def _pictures(self, folder: Path) -> Iterator[str]:
        """All pictures below a folder by name; what is none is remarked on, links are skipped."""
        paths: list[str] = []
        todo = [folder]
        while todo:
            for entry in visible(todo.pop()):
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry))
                elif is_picture(entry.name):
                    paths.append(entry.path)
                elif entry.is_symlink() and Path(entry.path).is_dir():
                    self._skip(entry.path, "linked-folder", "links to folders are not followed")
                else:
                    reason = "expected a picture or a mask; it is ignored"
                    self.faults.append(self._fault(entry.path, "stray-file", reason, "accept"))
        yield from sorted(paths)

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _skip(self, path: str, code: str, reason: str) -> None:
        self.skipped += 1
        self.faults.append(self._fault(path, code, reason, "skip"))

    def _fault(self, path: str, code: str, reason: str, policy: str) -> Fault:
        name = printable(self._name(path))
        return Fault(path=name, format="pairs", code=code, reason=reason, policy=policy)  # type: ignore[arg-type]


def _classes(root: Path) -> tuple[str, ...]:
    """The names in `classes.txt`; empty where there is none.

    Raises:
        DataError: no UTF-8, an empty list, an empty or repeated name, or more names than a mask can
            tell apart.
    """
    path = root / CLASSES
    if not path.exists():
        return ()
    where = printable(str(path))
    with open_regular(path) as file:
        data = file.read(_LONGEST + 1)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: expected UTF-8, found other bytes", "save it as UTF-8"
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    names = tuple(printable(line.strip()) for line in lines)
    remedy = "one name a line; the first is class 0"
    if not 1 <= len(names) <= VOID or len(data) > _LONGEST:
        raise DataError(f"{where}: expected 1 to {VOID} names, found {len(names):,}", remedy)
    if "" in names or len(set(names)) < len(names):
        odd = next(name for at, name in enumerate(names) if not name or name in names[:at])
        what = f"{odd!r} twice" if odd else "an empty line"
        raise DataError(f"{where}: expected different names, found {what}", remedy)
    refuse_lookalikes(names, where)
    return names
