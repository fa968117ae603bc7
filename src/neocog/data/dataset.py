"""A data set, ready to train on: pictures, targets, splits. Floor 1, room data; torch.

`load` is the whole way from a recipe to a `Dataset`: read, merge, scan, refuse or go on, pack,
split. What it finds is cached twice over: a note under `opens/` leads from the source's signature
to the pack, so that a second opening decodes nothing and reads no picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
import torch

from neocog.data.cache import cache_dir
from neocog.data.decode import SMALL
from neocog.data.files import MOMENTARY
from neocog.data.images import Images
from neocog.data.matching import match, renumbered
from neocog.data.merge import Merged, merge
from neocog.data.pack import geometry as decide
from neocog.data.pack import pack
from neocog.data.paired import scan_masks
from neocog.data.ranks import moments
from neocog.data.scan import Scan, refuse, refuse_empty_classes, scan
from neocog.data.split import held_back
from neocog.data.store import SPLITS, VERSION, Pack, open_pack, work_folder
from neocog.data.teachable import refuse_unteachable, unseen
from neocog.data.twins import TWIN, twins
from neocog.errors import ConfigError, DataError, RunError
from neocog.files import write_atomic
from neocog.geometry import noun, size_text
from neocog.records import DataCount, Fault, InputSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.config import DataRecipe
    from neocog.data.samples import TargetKind
    from neocog.data.scan import Progress

__all__ = ["Dataset", "load", "spec"]

Geometry = tuple[tuple[int, ...], int]
Asked = tuple[tuple[int, ...] | None, int | None]

STD_FLOOR = 1e-3
"""Smallest standard deviation that normalisation divides by, in units of 0…1: a quarter of one of
the 255 steps. A constant channel would divide by zero otherwise."""
SPEC_PICTURES = 10_000
"""Pictures that mean and standard deviation are taken from, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What training and evaluation see."""

    images: Images
    """N pictures, signals or volumes."""
    targets: Tensor
    """N int64 class indices, N×K float32 labels (0 or 1), N×K float32 numbers, or of masks N×K
    float32: labelled pixels of each class."""
    weights: Tensor
    """N, float32; 1 where the data has none."""
    kind: TargetKind
    """`class`, `labels`, `numbers` or `mask`."""
    classes: tuple[str, ...]
    """Class, label or column names, in the order of the targets."""
    splits: Mapping[str, Tensor]
    """`train`, `val`, `test`: ids, int64, rising. A part that does not exist is absent."""
    names: Sequence[str]
    """N; what each sample is called in reports."""
    size: tuple[int, ...]
    """Height and width of the network's input, of masks those of training crops; the size of
    signals or volumes."""
    channels: int
    """1 or 3; any number for signals and volumes."""
    fingerprint: str
    """SHA-256 of the content that is used; the same at every size."""
    source: str
    """What was opened."""
    counts: Mapping[str, DataCount]
    """`all` and each part; found = used + skipped. A part that was held back by chance counts what
    it got."""
    faults: tuple[Fault, ...]
    """What was skipped, or accepted with a remark."""
    duplicates: Mapping[str, int]
    """`train/val`: samples of val whose packed pixels also occur in train. Only pairs that have
    any."""
    notes: tuple[str, ...]
    """What people should know, one sentence each."""
    seconds: float
    """What reading and packing took when that was last done; opening a pack takes none."""
    recipe: DataRecipe
    """What was asked for."""
    seed: int
    """Decided which samples were held back."""
    masks: Images | None = None
    """N masks, one channel, of the pictures' sizes: the class of each pixel, or `VOID`; None: the
    targets are no masks."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def whole(self) -> bool:
        """Whether a picture is answered for as it is, whatever its size: pixel by pixel."""
        return self.masks is not None

    def class_counts(self, ids: Tensor) -> list[int]:
        """Samples of each class among some; of masks, labelled pixels.

        Args:
            ids: int64; where the targets are classes or masks.
        """
        targets = self.targets[ids]
        if self.whole:
            return [int(number) for number in targets.sum(0, dtype=torch.float64)]
        counts: list[int] = torch.bincount(targets, minlength=len(self.classes)).tolist()
        return counts

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(ids):,}" for name, ids in self.splits.items())
        count = self.counts["all"]
        lines = [
            f"Dataset {self.source}: {len(self):,} {noun(self.size)}s, {self._shape()}",
            f"  found {count.found:,}, used {count.used:,}, skipped {count.skipped:,}",
            f"  parts: {parts}",
        ]
        if self.whole:
            lines.append(f"  {len(self.classes)} classes, share of the labelled pixels:")
            lines += [
                f"    {name}: " + ", ".join(f"{part} {share}" for part, share in row.items())
                for name, row in self._shares()
            ]
        elif self.kind == "class":
            lines.append(f"  {len(self.classes)} classes:")
            for name, *row in self._class_rows():
                numbers = ", ".join(
                    f"{part} {n:,}" for part, n in zip(self.splits, row, strict=True)
                )
                lines.append(f"    {name}: {numbers}")
        else:
            lines.append(f"  {self.kind}: {', '.join(self.classes)}")
        codes = Counter(fault.code for fault in self.faults)
        if codes:
            found = ", ".join(f"{number} × {code}" for code, number in codes.most_common())
            lines.append(f"  remarks: {found}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head, rest = repr(self).split("\n", 1)
        if self.kind != "class":
            return f"<b>{escape(head)}</b><pre>{escape(rest)}</pre>"
        shown, _, _ = rest.partition(f"  {len(self.classes)} classes:")
        titles = "".join(f"<th>{escape(name)}</th>" for name in ("class", *self.splits))
        rows = "".join(
            f"<tr><td>{escape(str(name))}</td>"
            + "".join(f"<td>{number:,}</td>" for number in row)
            + "</tr>"
            for name, *row in self._class_rows()
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return (
            f"<b>{escape(head)}</b><pre>{escape(shown.rstrip())}</pre>"
            f"<table><tr>{titles}</tr>{rows}</table>{notes}"
        )

    def _shape(self) -> str:
        """Size and channels in words."""
        if not self.whole:
            return f"{size_text(self.size)}×{self.channels}"
        stored = "sizes differ"
        if self.images.uniform:
            stored = f"{size_text(self.images.sizes[0].tolist())}×{self.channels}"
        return f"{stored}, learnt from crops of {size_text(self.size)}"

    def _shares(self) -> list[tuple[str, dict[str, str]]]:
        """Name and share of the labelled pixels in each part."""
        counts = {part: self.class_counts(ids) for part, ids in self.splits.items()}
        return [
            (
                name,
                {part: f"{100 * one[k] / max(1, sum(one)):.2f} %" for part, one in counts.items()},
            )
            for k, name in enumerate(self.classes)
        ]

    def _class_rows(self, most: int = 20) -> list[list[Any]]:
        """Name and count in each part; the tail of a long list in one row."""
        columns = [self.class_counts(ids) for ids in self.splits.values()]
        rows: list[list[Any]] = [
            [name, *(column[row] for column in columns)] for row, name in enumerate(self.classes)
        ]
        if len(rows) <= most:
            return rows
        rest = rows[most - 1 :]
        sums = [sum(row[column + 1] for row in rest) for column in range(len(columns))]
        return [*rows[: most - 1], [f"{len(rest)} more", *sums]]


def load(
    recipe: DataRecipe,
    *,
    seed: int = 0,
    geometry: Geometry | None = None,
    classes: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Open a data set; pack it first where the cache does not have it.

    Args:
        recipe: where the data is and how it is read.
        seed: decides which samples are held back for validation, unless the recipe does.
        geometry: input size and channels of a network that exists; goes before the recipe's.
        classes: names of a network that exists: targets are mapped to them by name, and any of
            them may be missing. None: the training part is to be learnt from.
        progress: told how far it is: what, done, total.

    Raises:
        DataError: the data set is refused, or there is nothing to learn from its training part.
    """
    asked: Asked = geometry or (recipe.size, recipe.channels)
    dims = recipe.dims if asked[0] is None else len(asked[0])
    if recipe.dims not in (None, dims):
        raise ConfigError(
            f"data.dims={recipe.dims} and data.size={asked[0]} are not of one rank",
            "leave one of them out",
        )
    signed = _sign(recipe)
    packed = _find(_note(signed, asked, dims))
    if packed is None:
        packed = _make(recipe, asked, dims, signed, classes is not None, progress)
    faults = packed.faults()
    refuse(faults, packed.counts()["all"], max_bad=recipe.max_bad, strict=recipe.strict)
    split_seed = seed if recipe.seed is None else recipe.seed
    return _assemble(packed, recipe, split_seed, classes, faults)


def _sources(recipe: DataRecipe) -> dict[str, str]:
    """The sources that a recipe names, the main one under ``."""
    named = {"": recipe.source}
    if isinstance(recipe.val, str) and recipe.val:
        named["val"] = recipe.val
    if recipe.test:
        named["test"] = recipe.test
    return named


def _sign(recipe: DataRecipe) -> str:
    """All that decides what is read and how, but for the geometry; opens no picture."""
    from neocog.data.sources import signature

    signatures = {name: signature(source) for name, source in _sources(recipe).items()}
    told = [VERSION, PIL.__version__, recipe.minimum_side, recipe.deep, signatures]
    told += [] if recipe.ignore is None else [recipe.ignore]
    return json.dumps(told, sort_keys=True)


def _note(signed: str, asked: Asked, dims: int | None) -> Path:
    """The file that leads from what is asked for to the pack."""
    rank = "" if dims is None or asked[0] is not None else f" {dims}"  # a size tells its rank
    name = hashlib.sha256(f"{signed} {json.dumps(asked)}{rank}".encode()).hexdigest()[:40]
    return cache_dir() / "opens" / f"{name}.json"


def _find(note: Path) -> Pack | None:
    """The pack of an earlier opening, where it is there and whole."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        key = found["pack"]
        return open_pack(cache_dir() / "packs" / key) if key.isalnum() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _make(
    recipe: DataRecipe,
    asked: Asked,
    dims: int | None,
    signed: str,
    few: bool,
    progress: Progress | None,
) -> Pack:
    """Read, merge, scan, refuse or pack; leave notes for the next opening, unless a fault may pass.

    `signed` was taken before reading, so that what changes meanwhile is noticed next time. `few`:
    the main source is only scored.
    """
    from neocog.data.sources import read

    began = time.monotonic()
    named = _sources(recipe)
    kind: Any = {"dims": dims, "channels": asked[1]}
    main = read(named.pop(""), few=few, **kind)
    merged = merge(main, {name: read(source, few=True, **kind) for name, source in named.items()})
    source = merged.source
    with work_folder() as work:
        has_files = any(part.files for part in source.parts)
        found = scan(
            source,
            minimum_side=recipe.minimum_side,
            deep=recipe.deep,
            cover=None if source.target == "mask" else _pair(asked[0]),
            spool=work / "spool" if has_files else None,
            progress=progress,
        )
        if source.target == "mask":
            found = scan_masks(
                source,
                found,
                spool=work / "masks",
                ignore=recipe.ignore,
                few=few,
                progress=progress,
            )
            source = replace(source, classes=_classes(found))
        refuse(found.faults, found.count, max_bad=recipe.max_bad, strict=recipe.strict)
        _refuse_lost(merged, found)
        final = decide(found, *asked, learnt=None if few else _learnt(merged))
        folder = pack(
            source,
            found,
            size=final[0],
            channels=final[1],
            counts=_counts(merged, found),
            work=work,
            notes=merged.notes,
            progress=progress,
            began=began,
        )
    packed = open_pack(folder)
    if packed is None:
        raise DataError(f"the pack {folder} is damaged", "is the disk of the cache in order?")
    if any(fault.code in MOMENTARY for fault in packed.faults()):
        return packed  # no note: the next opening looks again
    # A run writes the decided geometry into its manifest: opening by that must be as quick.
    for target in {_note(signed, asked, dims), _note(signed, final, len(final[0]))}:
        with contextlib.suppress(RunError):  # a full disk costs time next time, nothing else
            write_atomic(target, json.dumps({"pack": folder.name}))
    return packed


def _learnt(merged: Merged) -> NDArray[np.bool_]:
    """Which samples are of the training part; what is held back by chance comes out of it."""
    splits = [split for part in merged.source.parts for split in part.splits]
    return np.array([split in ("", "train") for split in splits])


def _classes(found: Scan) -> tuple[str, ...]:
    return () if found.masks is None else found.masks.classes


def _pair(size: tuple[int, ...] | None) -> tuple[int, int]:
    """Height and width that files are decoded to cover; of signals and volumes there are none."""
    return (size[0], size[1]) if size is not None and len(size) == 2 else (SMALL, SMALL)


def _refuse_lost(merged: Merged, found: Scan) -> None:
    """A class of the training part must not lose all of its samples."""
    if merged.source.target != "class":
        return
    before: set[str] = set()
    after: set[str] = set()
    row = 0
    for part in merged.source.parts:
        for target, split in zip(part.targets, part.splits, strict=True):
            if split in ("", "train"):
                before.add(str(target))
                if found.used[row]:
                    after.add(str(target))
            row += 1
    refuse_empty_classes(merged.source.classes, before, after, found.faults)


def _counts(merged: Merged, found: Scan) -> dict[str, DataCount]:
    """`all` and each part that lists samples."""
    counts = {"all": found.count}
    splits = np.array(
        [SPLITS.index(split or "train") for part in merged.source.parts for split in part.splits]
    )
    for place, name in enumerate(SPLITS):
        mine = splits == place
        if mine.any():
            extra = merged.skipped.get(name, 0)
            listed, used = int(mine.sum()), int(found.used[mine].sum())
            counts[name] = DataCount(found=listed + extra, used=used, skipped=listed - used + extra)
    return counts


def _assemble(
    packed: Pack,
    recipe: DataRecipe,
    seed: int,
    classes: tuple[str, ...] | None,
    faults: tuple[Fault, ...],
) -> Dataset:
    """From a pack to a data set: split, match classes, count duplicates."""
    meta = packed.meta
    targets, names = match(packed, classes)
    masks = None
    if packed.masks is not None:
        masks = Images(renumbered(packed, names), packed.sizes, 1)
    counts = packed.counts()
    splits = {
        name: np.flatnonzero(packed.splits == place)
        for place, name in enumerate(SPLITS)
        if name in counts
    }
    share = recipe.val if isinstance(recipe.val, int | float) else 0.0
    if share > 0 and "val" not in splits and "train" in splits:
        splits, counts = _hold_back(packed, splits, counts, share, seed)
    splits = {name: ids for name, ids in splits.items() if len(ids)}
    if classes is None:
        refuse_unteachable(packed, splits, recipe.source)
    missing = unseen(packed, splits)
    duplicates, remarks = twins(packed.prints, splits, packed.names, meta["kind"])
    return Dataset(
        images=Images(packed.images, packed.sizes, meta["channels"]),
        masks=masks,
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(packed.weights),
        kind=meta["target"],
        classes=names,
        splits={name: torch.from_numpy(ids) for name, ids in splits.items()},
        names=packed.names,
        size=tuple(meta["size"]),
        channels=meta["channels"],
        fingerprint=meta["fingerprint"],
        source=recipe.source,
        counts=counts,
        # Equal pixels say all that the scan's equal bytes say, and know the part held back.
        faults=(*(fault for fault in faults if fault.code != TWIN), *remarks, *missing),
        duplicates=duplicates,
        notes=(*meta["notes"], *(fault.reason for fault in missing)),
        seconds=meta.get("seconds", 0.0),
        recipe=recipe,
        seed=seed,
    )


def _hold_back(
    packed: Pack,
    splits: dict[str, NDArray[np.int64]],
    counts: dict[str, DataCount],
    share: float,
    seed: int,
) -> tuple[dict[str, NDArray[np.int64]], dict[str, DataCount]]:
    """A validation part out of the training part, by class where there are classes."""
    train = splits["train"]
    # Ids from the content: copies of a picture stay on one side, names and order do not matter.
    ids = np.ascontiguousarray(packed.digests[train, :4]).view("<u4")[:, 0].astype(np.int64)
    labels = packed.targets[train] if packed.meta["target"] == "class" else None
    chosen = held_back(ids, share, seed=seed, classes=labels)
    taken = int(chosen.sum())
    old = counts["train"]
    parts = {"train": train[~chosen], "val": train[chosen]} | {
        name: ids for name, ids in splits.items() if name != "train"
    }
    new = {
        **counts,
        "train": replace(old, found=old.found - taken, used=old.used - taken),
        "val": DataCount(found=taken, used=taken, skipped=0),
    }
    return parts, new


def spec(data: Dataset) -> InputSpec:
    """What a network for this data takes: size, and mean and deviation of each channel.

    Over the centred windows of at most 10,000 training pictures, evenly chosen; of all pictures
    where there is no training part. Sums are integers, so the result is exact and the same
    everywhere. The deviation is at least 0.001. For signals and volumes: `ranks.moments`.
    """
    ids = data.splits.get("train", torch.arange(len(data)))
    if len(ids) > SPEC_PICTURES:
        ids = ids[torch.arange(SPEC_PICTURES) * len(ids) // SPEC_PICTURES]
    if len(data.size) != 2:
        mean, std = moments(
            len(ids),
            lambda first, end: data.images.gather(ids[first:end], data.size).numpy(),
            (data.channels, *data.size),
            data.images.full,
        )
        return InputSpec(channels=data.channels, size=data.size, mean=mean, std=std)
    total = torch.zeros(data.channels, dtype=torch.int64)
    squares = torch.zeros(data.channels, dtype=torch.int64)
    for first in range(0, len(ids), 256):
        some = ids[first : first + 256]
        pixels = data.images.gather(some, data.size).to(torch.int32)
        total += pixels.sum((0, 2, 3), dtype=torch.int64)
        squares += pixels.square_().sum((0, 2, 3), dtype=torch.int64)
    count = max(1, len(ids) * data.size[0] * data.size[1])
    means, stds = [], []
    for one, square in zip(total.tolist(), squares.tolist(), strict=True):
        means.append(one / count / 255)
        # n·Σx² − (Σx)² in whole numbers: no cancellation.
        stds.append(max(STD_FLOOR, max(0, count * square - one * one) ** 0.5 / count / 255))
    return InputSpec(
        channels=data.channels,
        size=data.size,
        mean=tuple(means),
        std=tuple(stds),
        whole=data.whole,
    )
