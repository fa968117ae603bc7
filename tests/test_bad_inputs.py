"""What bad input gets: one battery for every reader, one row or more for every catalogued item.

The catalogue stands below as it was written. Policy letters: S skip the sample and report it,
R refuse the data set with one clear error, W accept and report. A row of `CASES` plants one bad
thing in a small good set; the battery then checks what its letter demands, that `strict` turns
every S into an R, that the good samples' pixels are those of a clean read, that the counts close,
and that no original is changed. A row cannot vanish unnoticed: the items of the rows are compared
with the catalogue, and their number is written down.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import neocog.data
from bad_files import ARCHIVES, ARRAYS, CIFAR, IDX, TABLES
from bad_masks import MASKS
from bad_pictures import ACCEPTED_IMAGES, FOLDERS, REFUSED_IMAGES, SKIPPED_IMAGES
from bad_sets import Case, chunk, folder, png, split_folder, write
from bad_weights import WEIGHTS, BadWeights, bundle
from neocog.cli import cli
from neocog.config import DataRecipe
from neocog.data import pack as packing
from neocog.data import paired
from neocog.data import scan as scanning
from neocog.data.dataset import Dataset, load
from neocog.data.sources import read
from neocog.errors import DataError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

CATALOGUE = """
**Images.** S: empty file; truncated JPEG; HTML or a Git-LFS pointer named .jpg; EPS, PDF, FITS or
PSD renamed .png (give the decoder a list of allowed formats); 65535² header; a file under the pixel
limit that still decodes to more than the byte budget (64 MiB a sample by default); PNG text-chunk
bomb; 1×20000 strip when a minimum side is set; FIFO, device or directory named x.jpg; symbolic link
that leaves the root or loops; unreadable file; file changed since the scan. W: PNG without its end;
animated GIF (frame 0); CMYK, palette or alpha (converted to RGB); EXIF orientation (applied),
broken EXIF or ICC; odd or non-UTF-8 names (escaped in reports); the same bytes in train and test.
R: 16-bit images unless the caller declares them.

**Folders.** R: empty class; a single class; names that differ only by case or Unicode form; train,
val and test with different classes. W: stray files.

**IDX (R; name the field, expected, found).** Empty; bad magic; unsupported type byte; dimension
overflow; short data; trailing bytes; image and label counts differ; label out of range; truncated
or exploding gzip; no items.

**CIFAR binaries.** R: size no multiple of the record; CIFAR-10 opened as CIFAR-100; the pickled
edition (never unpickled: say which edition to get). S: label out of range.

**Arrays (.npz, .npy).** R: object dtype (never unpickled); missing keys; x and y of different
length; NaN or Inf; unsupported rank; header that promises more than the file holds.

**Tables (.csv).** S: missing image; ragged row; invalid UTF-8 or NUL. R: missing column; no usable
rows; numbers mixed with names in the target.

**Masks.** S: size differs from the image; no pair; class out of range; RGB mask without a palette.
R: JPEG masks. W: a mask that is all unlabelled.

**Archives (R, nothing extracted).** Path traversal; link members; compression-ratio bomb; duplicate
or case-colliding names; encrypted.

**Weights and models.** R: pickle in any form unless the caller says so explicitly; safetensors with
wrong header length, overlapping or missing ranges, other dtype or shape than the spec;
`bundle.json` with unknown or missing fields.
"""
"""Of the formats that are read so far. ONNX, of which the last section also speaks, is not."""


def items(catalogue: str) -> dict[str, str]:
    """`Section: item` → policy letter."""
    found = {}
    for title, body in re.findall(
        r"\*\*(.+?)\.\*\*\s(.+?)(?=\n\n|\Z)", catalogue.strip(), re.DOTALL
    ):
        section, _, aside = title.partition(" (")
        letter = aside[:1]  # of a section with one policy; else a letter stands before its items
        for part in re.split(r"\s*\b([SRW]): ", " " + " ".join(body.split())):
            if part in ("S", "R", "W"):
                letter = part
                continue
            for item in filter(None, part.strip().rstrip(".").split("; ")):
                found[f"{section}: {item}"] = letter
    return found


POLICY = items(CATALOGUE)


CASES = (
    *(*SKIPPED_IMAGES, *ACCEPTED_IMAGES, *REFUSED_IMAGES),
    *(*FOLDERS, *IDX, *CIFAR, *ARRAYS, *TABLES, *MASKS, *ARCHIVES),
)


# -- the table is the catalogue ------------------------------------------------------------------


def sections(names: Sequence[str]) -> dict[str, int]:
    return dict(Counter(name.split(":")[0] for name in names))


def test_every_item_of_the_catalogue_has_a_row() -> None:
    assert sections(list(POLICY)) == {
        "Images": 19,
        "Folders": 5,
        "IDX": 10,
        "CIFAR binaries": 4,
        "Arrays": 6,
        "Tables": 6,
        "Masks": 6,
        "Archives": 5,
        "Weights and models": 3,
    }
    assert Counter(POLICY.values()) == {"S": 20, "W": 8, "R": 36}
    assert {case.item for case in (*CASES, *WEIGHTS)} == set(POLICY)


def test_no_row_has_vanished() -> None:
    assert sections([case.item for case in (*CASES, *WEIGHTS)]) == {
        "Images": 47,
        "Folders": 8,
        "IDX": 18,
        "CIFAR binaries": 4,
        "Arrays": 14,
        "Tables": 10,
        "Masks": 9,
        "Archives": 15,
        "Weights and models": 32,
    }
    assert len({str(case) for case in (*CASES, *WEIGHTS)}) == len(CASES) + len(WEIGHTS)


# -- the battery ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without helpers, which take longer to start than a small set takes to read."""

    def alone(look: Callable[..., Any]) -> Callable[..., Any]:
        return lambda files, order, **_: look(files, order, workers=0)

    monkeypatch.setattr(scanning, "look_in_batches", alone(scanning.look_in_batches))
    monkeypatch.setattr(packing, "look_at_all", alone(packing.look_at_all))
    monkeypatch.setattr(paired, "look_at_all", alone(paired.look_at_all))


@pytest.fixture
def _root_is_nobody_special(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may open what nobody may read; here it may not, as everybody else."""
    if os.geteuid() != 0:
        return
    honest = os.open

    def open_(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if not more and Path(path).is_file() and not stat.S_IMODE(Path(path).stat().st_mode):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return honest(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", open_)


def snapshot(place: Path) -> dict[str, tuple[Any, ...]]:
    """All that could be changed of the originals, and a hash of every file."""
    found = {}
    for path in sorted(place.rglob("*")):
        seen = path.lstat()
        digest = ""
        if path.is_symlink():
            digest = str(path.readlink())
        elif path.is_file() and stat.S_IMODE(seen.st_mode):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = (seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ino, digest)
        found[str(path)] = facts
    return found


def opened(source: Path, originals: Path, case: Case | None = None, **options: Any) -> Dataset:
    """The data set; the originals are the same before and after."""
    before = snapshot(originals)

    def progress(what: str, done: int, total: int) -> None:
        nonlocal before
        if case is not None and case.during is not None and what == "scan" and done == total:
            case.during(originals / "set" / case.name)
            before = snapshot(originals)

    recipe = DataRecipe(source=str(source), val=0.0, **options)
    try:
        return load(recipe, progress=progress)
    finally:
        assert snapshot(originals) == before


def samples(data: Dataset) -> dict[str, tuple[str, bytes]]:
    """Name → class and pixels; of masks, their numbers and pixels."""
    if data.masks is not None:
        masks = (data.masks.picture(row).tobytes().hex() for row in range(len(data)))
        pixels = (data.images.picture(row).tobytes() for row in range(len(data)))
        return dict(zip(data.names, zip(masks, pixels, strict=True), strict=True))
    return {
        name: (data.classes[int(target)], data.images.picture(row).tobytes())
        for row, (name, target) in enumerate(zip(data.names, data.targets, strict=True))
    }


def scanned(source: Path, report: Path, case: Case) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What `neocog data scan` says, and the lines of its report."""
    side = str(case.options.get("minimum_side", 1))
    asked = ["data", "scan", str(source), "--out", str(report), "--minimum-side", side, "--json"]
    said = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert said.exit_code == 0
    lines = report.read_text(encoding="ascii").splitlines()
    return json.loads(said.stdout), [json.loads(line) for line in lines]


@pytest.mark.usefixtures("_in_this_process", "_root_is_nobody_special")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_reader_passes_the_battery(case: Case, tmp_path: Path) -> None:
    originals = tmp_path / "originals"
    source = case.good(originals / "set")
    clean = samples(opened(source, originals))
    assert len(clean) >= 6
    shutil.rmtree(tmp_path / "cache")
    case.plant(originals / "set" / case.name)
    source = originals / "set" / case.source if case.source else source
    named = case.reported or case.name
    letter = POLICY[case.item]
    if letter == "R":
        check_refused(case, source, originals, named)
        return
    if letter == "S":
        check_skipped(case, source, originals, named, clean)
    else:
        check_accepted(case, source, originals, named, clean)
    if case.during is None:
        before = snapshot(originals)
        total, lines = scanned(source, tmp_path / "faults.jsonl", case)
        assert snapshot(originals) == before
        assert total["found"] == total["used"] + total["skipped"]
        mine = [line for line in lines if (line["path"], line["code"]) == (named, *case.expected)]
        assert len(mine) == 1
        assert set(mine[0]) == {"path", "format", "code", "reason", "policy", "offset"}
        assert mine[0]["format"]
        assert mine[0]["reason"].isprintable()
        assert mine[0]["policy"] == {"S": "skip", "W": "accept"}[letter]


@pytest.mark.parametrize("case", WEIGHTS, ids=str)
def test_weights_and_bundles_pass_the_battery(case: BadWeights, tmp_path: Path) -> None:
    assert POLICY[case.item] == "R"
    originals = bundle(tmp_path / "bundle")
    assert case.read(originals) is not None
    bad = originals / case.name
    write(case.change(bad.read_bytes()), bad)
    before = snapshot(originals)
    with pytest.raises(RunError) as caught:
        case.read(originals)
    assert snapshot(originals) == before
    assert str(originals) in str(caught.value)
    assert caught.value.hint
    for word in case.expected:
        assert word in str(caught.value)


def check_refused(case: Case, source: Path, originals: Path, named: str) -> None:
    for options in ({}, {"max_bad": 1.0}, {"strict": True}):
        with pytest.raises(DataError) as caught:
            opened(source, originals, case, **case.options, **options)
        said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
        assert named in said
        assert caught.value.hint
        for word in case.expected:
            assert word in said
    assert not list((originals.parent / "cache").rglob("*.png"))  # nothing was extracted


def check_skipped(
    case: Case,
    source: Path,
    originals: Path,
    named: str,
    clean: dict[str, tuple[str, bytes]],
) -> None:
    def refused() -> None:
        with pytest.raises(DataError) as caught:
            opened(source, originals, case, **case.options, max_bad=1.0, strict=True)
        assert f"{named}: " in caught.value.message
        assert f"1 × {case.expected[0]}" in caught.value.message
        assert caught.value.hint

    refused()
    data = opened(source, originals, case, **case.options, max_bad=1.0)
    skips = [fault for fault in data.faults if fault.policy == "skip"]
    assert [(fault.path, fault.code) for fault in skips] == [(named, *case.expected)]
    assert samples(data) == clean
    count = data.counts["all"]
    assert (count.found, count.used, count.skipped) == (len(clean) + 1, len(clean), 1)
    assert all(one.found == one.used + one.skipped for one in data.counts.values())
    refused()  # also where a pack is at hand
    with pytest.raises(DataError, match="1 of"):  # one of a dozen is more than one of a hundred
        opened(source, originals, case, **case.options)


def check_accepted(
    case: Case,
    source: Path,
    originals: Path,
    named: str,
    clean: dict[str, tuple[str, bytes]],
) -> None:
    for strict in (False, True):
        data = opened(source, originals, case, **case.options, max_bad=0.0, strict=strict)
        assert (named, *case.expected) in [(fault.path, fault.code) for fault in data.faults]
        assert {fault.policy for fault in data.faults} == {"accept"}
        found = samples(data)
        assert {name: one for name, one in found.items() if name != named} == clean
        count = data.counts["all"]
        assert (count.found, count.used, count.skipped) == (len(clean) + case.adds,) * 2 + (0,)
        assert all(one.found == one.used + one.skipped for one in data.counts.values())
        if case.shows is not None:
            pixels = np.frombuffer(found[named][1], np.uint8).reshape(case.shows.shape)
            assert np.abs(pixels.astype(int) - case.shows).max() <= case.within


def test_helpers_report_what_this_process_reports(tmp_path: Path) -> None:
    """All rows of pictures in one set, through other programs."""
    root = folder(tmp_path / "originals" / "set")
    for place, case in enumerate((*SKIPPED_IMAGES, *ACCEPTED_IMAGES, *REFUSED_IMAGES)):
        if case.good is folder and case.item != "Images: unreadable file":  # root may read it
            case.plant(root / "cat" / f"{place}{Path(case.name).suffix}")
    before = snapshot(root)
    source = read(str(root))
    alone = scanning.scan(source, minimum_side=2, workers=0)
    assert len({fault.code for fault in alone.faults}) >= 20
    helped = scanning.scan(source, minimum_side=2, workers=2)
    assert helped.faults == alone.faults
    assert helped.count == alone.count
    assert np.array_equal(helped.digests, alone.digests)
    assert snapshot(root) == before


# -- many files ----------------------------------------------------------------------------------


def fast_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG without filters, written in a few microseconds."""
    lines = np.concatenate([np.zeros((8, 1), np.uint8), pixels.reshape(8, 24)], axis=1)
    return png(8, 8, chunk(b"IDAT", zlib.compress(lines.tobytes(), 0)))


ANYWHERE = (
    *("empty-file", "truncated", "html", "git-lfs-pointer", "foreign-format", "pixel-limit"),
    *("text-bomb", "not-a-file", "link-outside", "link-loop"),
)
"""Kinds that need no setting, no size and no helping hand."""


def test_one_percent_of_two_thousand(tmp_path: Path) -> None:
    """The report is the planted set, and the good samples are those of a clean read."""
    originals = tmp_path / "originals"
    root = originals / "set"
    truth = {}
    pixels = np.random.default_rng(0).integers(0, 256, (1980, 8, 8, 3), np.uint8)
    for place, one in enumerate(pixels):
        name = f"{('ant', 'bee', 'cat')[place % 3]}/{place:04d}.png"
        truth[name] = (name[:3], one.tobytes())
        write(fast_png(one), root / name)
    clean = samples(opened(root, originals))
    assert clean == truth
    good = snapshot(originals)
    planted = {}
    kinds = {case.expected[0]: case for case in SKIPPED_IMAGES}
    for place, code in enumerate(2 * ANYWHERE):
        case = kinds[code]
        name = f"{('ant', 'bee', 'cat')[place % 3]}/{place * 99:04d}b{Path(case.name).suffix}"
        case.plant(root / name)
        planted[name] = code
    assert len(planted) == 20
    data = opened(root, originals)  # 1 %, the default, is still accepted
    report = tmp_path / "faults.jsonl"
    scanning.write_faults(report, data.faults)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line["path"]: line["code"] for line in lines} == planted
    assert len(lines) == 20
    count = data.counts["all"]
    assert (count.found, count.used, count.skipped) == (2000, 1980, 20)
    assert samples(data) == clean
    after = snapshot(originals)
    assert {name: after[name] for name in good if Path(name).is_file()} == {
        name: facts for name, facts in good.items() if Path(name).is_file()
    }
    write(b"", root / "ant" / "one more.png")
    with pytest.raises(DataError, match=r"21 of 2001 samples are bad, at most 0\.01"):
        opened(root, originals)


@pytest.mark.usefixtures("_in_this_process")
def test_more_bad_samples_than_max_bad_stop_the_run(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", 50)
    (root / "cat" / "0.png").write_bytes(b"")
    assert opened(root, root).counts["all"].skipped == 1  # 1 of 100
    (root / "cat" / "2.png").write_bytes(b"<html>")
    with pytest.raises(
        DataError, match=r"(?s)2 of 100 .*1 × empty-file, 1 × html.*cat/0\.png"
    ) as c:
        opened(root, root)
    assert "--max-bad" in c.value.hint
    assert opened(root, root, max_bad=0.02).counts["all"].skipped == 2
    with pytest.raises(DataError, match=r"2 of 100 .*at most 0\.019"):  # a pack is at hand
        opened(root, root, max_bad=0.019)


@pytest.mark.usefixtures("_in_this_process")
def test_a_class_that_becomes_empty_stops_the_run(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    for path in (root / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)class 'cat' .*5 × empty-file.*cat/0\.png") as caught:
        opened(root, root, max_bad=1.0)
    assert caught.value.hint
    split = split_folder(tmp_path / "split")
    for path in (split / "val" / "cat").iterdir():
        path.write_bytes(b"")
    data = opened(split, split, max_bad=1.0)  # only the training part must have every class
    assert data.counts["val"].skipped == 5
    for path in (split / "train" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="class 'dog' has no usable sample left for training"):
        opened(split, split, max_bad=1.0)


@pytest.mark.usefixtures("_in_this_process")
def test_the_battery_can_fail(tmp_path: Path) -> None:
    """A row with a wrong code, and a catalogue with one line more, are noticed."""
    wrong = replace(SKIPPED_IMAGES[0], expected=("truncated",))
    with pytest.raises(AssertionError):
        test_every_reader_passes_the_battery(wrong, tmp_path)
    more = items(CATALOGUE.replace("empty file;", "empty file; a new kind of file;"))
    assert set(more) - {case.item for case in (*CASES, *WEIGHTS)} == {"Images: a new kind of file"}


def test_every_refusal_says_what_to_do() -> None:
    """No reader raises a DataError without a hint."""
    for path in sorted(Path(neocog.data.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "DataError":
                place = f"{path.name}, line {node.lineno}"
                assert len(node.args) + len(node.keywords) == 2, place
