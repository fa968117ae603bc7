"""The pack holds what `decode` gives, whichever way the pixels came; damage is never trusted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from neocog.config import DataRecipe
from neocog.data import dataset, decode
from neocog.data.cache import cache_dir
from neocog.data.images import Images
from neocog.data.pack import geometry, pack
from neocog.data.samples import Part, Source
from neocog.data.scan import Scan, scan
from neocog.data.store import Names, Pack, npy_header, open_pack, work_folder, write_names
from neocog.errors import DataError
from neocog.geometry import covering_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))


def picture(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    shape = (height, width, 3) if channels == 3 else (height, width)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def files(root: Path, pixels: Sequence[NDArray[np.uint8]], suffix: str = "png") -> Source:
    """A source of files with two classes in turn."""
    root.mkdir(parents=True, exist_ok=True)
    names = tuple(f"{row:03d}.{suffix}" for row in range(len(pixels)))
    for name, one in zip(names, pixels, strict=True):
        Image.fromarray(one).save(root / name)
    part = Part(
        names=names,
        splits=("train", "val") * (len(names) // 2) + ("train",) * (len(names) % 2),
        targets=("a", "b") * (len(names) // 2) + ("a",) * (len(names) % 2),
        files=tuple(str(root / name) for name in names),
        root=root,
    )
    return Source(kind="folder", target="class", classes=("a", "b"), parts=(part,))


def packed(
    source: Source, size: tuple[int, int] | None = None, channels: int | None = None
) -> tuple[Pack, Scan]:
    with work_folder() as work:
        found = scan(source, cover=size or (128, 128), spool=work / "spool")
        shape = geometry(found, size, channels)
        made = pack(
            source,
            found,
            size=shape[0],
            channels=shape[1],
            counts={"all": found.count, "train": found.count, "val": found.count},
            work=work,
        )
    opened = open_pack(made)
    assert opened is not None
    return opened, found


def check(source: Source, opened: Pack) -> None:
    """Every packed picture is what `decode` gives for its file."""
    size, channels = tuple(opened.meta["size"]), opened.meta["channels"]
    images = Images(opened.images, opened.sizes, channels)
    for row, path in enumerate(source.parts[0].files or ()):
        expected = decode.decode(path, channels=channels, cover=size)
        assert np.array_equal(images.picture(row), expected)


def test_uniform_small_files_are_packed_as_they_are(tmp_path: Path) -> None:
    pixels = [picture(12, 9) for _ in range(5)]
    source = files(tmp_path / "d", pixels)
    opened, _ = packed(source)
    assert opened.meta["size"] == [12, 9]
    assert opened.meta["uniform"]
    stack = np.load(opened.folder / "images.npy")
    assert np.array_equal(stack, np.stack(pixels))
    assert list(opened.names) == list(source.parts[0].names)
    assert opened.targets.tolist() == [0, 1, 0, 1, 0]
    assert opened.splits.tolist() == [0, 1, 0, 1, 0]
    assert opened.weights.tolist() == [1] * 5


@pytest.mark.parametrize(
    ("sizes", "wish", "expected"),
    [
        ([(300, 200), (90, 140), (50, 50), (128, 128)], None, (104, 104)),
        ([(300, 200), (190, 240), (150, 450), (128, 128)], None, (128, 128)),
        ([(300, 200)] * 4, None, (128, 128)),
        ([(300, 200), (90, 140), (50, 50), (128, 128)], (32, 48), (32, 48)),
        ([(20, 20), (21, 20), (3, 3), (20, 9)], None, (8, 8)),
        ([(30, 20)] * 3, (16, 16), (16, 16)),
        ([(200, 150)] * 2, (200, 150), (200, 150)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_photographs_are_what_decode_gives(
    tmp_path: Path,
    sizes: list[tuple[int, int]],
    wish: tuple[int, int] | None,
    expected: tuple[int, int],
    suffix: str,
) -> None:
    source = files(tmp_path / "d", [picture(*size) for size in sizes], suffix)
    opened, _ = packed(source, wish)
    assert tuple(opened.meta["size"]) == expected
    assert opened.sizes.tolist() == [list(covering_size(size, expected)) for size in sizes]
    check(source, opened)


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_grey_and_colour_together(tmp_path: Path, channels: int | None) -> None:
    pixels = [picture(9, 9), picture(9, 9, 1), picture(200, 150), picture(150, 200, 1)]
    source = files(tmp_path / "d", pixels)
    opened, _ = packed(source, (16, 16), channels)
    assert opened.meta["channels"] == (channels or 3)
    check(source, opened)


def test_all_grey_is_one_channel(tmp_path: Path) -> None:
    source = files(tmp_path / "d", [picture(9, 9, 1) for _ in range(3)])
    opened, _ = packed(source)
    assert opened.meta["channels"] == 1
    check(source, opened)


def test_arrays_beside_files(tmp_path: Path) -> None:
    source = files(tmp_path / "d", [picture(10, 10), picture(40, 30)])
    stack = RNG.integers(0, 256, (3, 14, 12, 1), dtype=np.uint8)
    part = Part(
        names=("x[0]", "x[1]", "x[2]"),
        splits=("test",) * 3,
        targets=("a",) * 3,
        weights=(1.0, 2.0, 0.5),
        pixels=stack,
    )
    both = Source(kind="folder", target="class", classes=("a", "b"), parts=(part, source.parts[0]))
    opened, _ = packed(both, (10, 10))
    images = Images(opened.images, opened.sizes, 3)
    goal = covering_size((14, 12), (10, 10))
    for row in range(3):
        grey = Image.fromarray(stack[row, :, :, 0]).resize(goal[::-1], Image.Resampling.BILINEAR)
        assert np.array_equal(images.picture(row), np.asarray(grey.convert("RGB")))
    for row, path in enumerate(source.parts[0].files or (), 3):
        assert np.array_equal(images.picture(row), decode.decode(path, cover=(10, 10)))
    assert opened.weights.tolist() == [1, 2, 0.5, 1, 1]
    assert opened.splits.tolist() == [2, 2, 2, 0, 1]


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_other_targets(tmp_path: Path, kind: Any) -> None:
    targets: Any = ((), ("b", "a")) if kind == "labels" else ((1.5, -2.0), (0.0, 4.0))
    part = Part(
        names=("0", "1"),
        splits=("", ""),
        targets=targets,
        pixels=np.zeros((2, 4, 4, 1), np.uint8),
    )
    source = Source(kind="csv", target=kind, classes=("a", "b"), parts=(part,))
    opened, _ = packed(source)
    expected = [[0, 0], [1, 1]] if kind == "labels" else [[1.5, -2], [0, 4]]
    assert opened.targets.tolist() == expected
    assert opened.targets.dtype == np.float32


def test_bad_samples_are_left_out_and_reported(tmp_path: Path) -> None:
    pixels = [picture(8, 8) for _ in range(4)]
    source = files(tmp_path / "d", pixels)
    (tmp_path / "d" / "001.png").write_bytes(b"<html>")
    opened, found = packed(source)
    assert np.array_equal(np.load(opened.folder / "images.npy"), np.stack(pixels)[[0, 2, 3]])
    assert list(opened.names) == ["000.png", "002.png", "003.png"]
    assert [fault.code for fault in opened.faults()] == ["html"]
    assert opened.faults() == found.faults
    count = opened.counts()["all"]
    assert (count.found, count.used, count.skipped) == (4, 3, 1)


def test_a_file_that_changes_after_the_scan_is_skipped(tmp_path: Path) -> None:
    source = files(tmp_path / "d", [picture(200, 200) for _ in range(4)])
    with work_folder() as work:
        found = scan(source)  # no spool: the pack must decode
        Image.fromarray(picture(200, 200)).save(tmp_path / "d" / "002.png")
        counts = {"all": found.count, "train": found.count, "val": found.count}
        made = pack(source, found, size=(64, 64), channels=3, counts=counts, work=work)
    opened = open_pack(made)
    assert opened is not None
    assert list(opened.names) == ["000.png", "001.png", "003.png"]
    assert [(fault.path, fault.code) for fault in opened.faults()] == [("002.png", "changed")]
    for name, used, skipped in (("all", 3, 1), ("train", 3, 1), ("val", 4, 0)):
        count = opened.counts()[name]
        assert (count.found, count.used, count.skipped) == (4, used, skipped)


def test_a_pack_reaches_the_disk_before_and_after_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file, then their folder, then the name."""
    happened: list[tuple[str, int]] = []
    honest_sync, honest_rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        happened.append(("fsync", os.fstat(handle).st_ino))
        honest_sync(handle)

    def rename(old: Path, new: Path) -> None:
        happened.append(("rename", 0))
        honest_rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    made, _ = packed(files(tmp_path / "d", [picture(8, 8) for _ in range(4)]))
    inside = [("fsync", path.stat().st_ino) for path in made.folder.iterdir()]
    assert len(inside) >= 10
    files_first, folder = happened[: len(inside)], happened[len(inside)]
    assert sorted(files_first) == sorted(inside)
    assert folder == ("fsync", made.folder.stat().st_ino)
    assert happened[len(inside) + 1 :] == [
        ("rename", 0),
        ("rename", 0),
        ("fsync", made.folder.parent.stat().st_ino),
    ]


def test_when_every_file_changes_there_is_nothing_to_pack(tmp_path: Path) -> None:
    source = files(tmp_path / "d", [picture(200, 200)])
    found = scan(source)
    (tmp_path / "d" / "000.png").unlink()
    counts = {"all": found.count, "train": found.count}
    with work_folder() as work, pytest.raises(DataError, match="none that can be used"):
        pack(source, found, size=(64, 64), channels=3, counts=counts, work=work)


def test_key_is_content_and_geometry(tmp_path: Path) -> None:
    pixels = [picture(12, 12) for _ in range(4)]
    first, _ = packed(files(tmp_path / "d", pixels))
    again, _ = packed(files(tmp_path / "elsewhere", pixels))
    assert again.folder == first.folder
    small, _ = packed(files(tmp_path / "d", pixels), (8, 8))
    assert small.folder != first.folder
    assert small.meta["fingerprint"] == first.meta["fingerprint"]
    other, _ = packed(files(tmp_path / "other", [*pixels[:3], picture(12, 12)]))
    assert other.meta["fingerprint"] != first.meta["fingerprint"]


def test_equal_pixels_have_equal_prints(tmp_path: Path) -> None:
    one = picture(8, 8)
    source = files(tmp_path / "d", [one, picture(8, 8), one])
    file = io.BytesIO()
    Image.fromarray(one).save(file, "PNG", compress_level=0)  # other bytes, the same pixels
    (tmp_path / "d" / "002.png").write_bytes(file.getvalue())
    opened, _ = packed(source)
    assert opened.prints[0] == opened.prints[2] != opened.prints[1]
    assert not np.array_equal(opened.digests[0], opened.digests[2])
    content = hashlib.sha256((tmp_path / "d" / "001.png").read_bytes()).digest()
    assert opened.digests[1].tobytes() == content


@pytest.mark.parametrize("channels", [3, 1])  # the spool as it is, and every picture turned grey
def test_prints_are_of_the_packed_pixels(tmp_path: Path, channels: int) -> None:
    source = files(tmp_path / "d", [picture(8, 5), picture(5, 8), picture(8, 5)])
    (tmp_path / "d" / "001.png").write_bytes(b"")
    opened, _ = packed(source, (16, 16), channels)
    images = Images(opened.images, opened.sizes, channels)
    for row in range(2):
        one = images.picture(row)
        content = b"%d %d" % one.shape[:2] + one.tobytes()
        expected = hashlib.blake2b(content, digest_size=8).digest()
        assert opened.prints[row].tobytes() == expected


@pytest.mark.parametrize("name", ["images.npy", "targets.npy", "meta.json", "names.npy"])
@pytest.mark.parametrize("how", ["short", "gone", "garbled"])
def test_a_damaged_pack_is_made_again(tmp_path: Path, name: str, how: str) -> None:
    pixels = [picture(8, 8) for _ in range(4)]
    source = files(tmp_path / "d", pixels)
    opened, _ = packed(source)
    path = opened.folder / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "short":
        path.write_bytes(data[:-1])
    else:
        path.write_bytes(b"x" * 60 + data[60:])
    assert open_pack(opened.folder) is None
    again, _ = packed(source)
    assert again.folder == opened.folder
    assert np.array_equal(np.load(again.folder / "images.npy"), np.stack(pixels))
    left = [path.name for path in (cache_dir() / "packs").iterdir()]
    assert left == [again.folder.name]  # no work folders stay behind


def test_many_at_once_do_no_harm(tmp_path: Path) -> None:
    pixels = [picture(8, 8) for _ in range(6)]
    source = files(tmp_path / "d", pixels)
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(packed(source)[0].folder)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len(set(results)) == 1
    assert [path.name for path in (cache_dir() / "packs").iterdir()] == [results[0].name]


def test_memory_maps_protect_the_file(tmp_path: Path) -> None:
    opened, _ = packed(files(tmp_path / "d", [picture(8, 8) for _ in range(2)]))
    before = (opened.folder / "images.npy").read_bytes()
    opened.images[:] = 0
    assert (opened.folder / "images.npy").read_bytes() == before


def test_a_cache_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"(?s)cannot be written to.*NEOCOG_CACHE"), work_folder():
        pass


def test_names_are_read_lazily(tmp_path: Path) -> None:
    names = ["a/1.png", "", "Zoë\udcff.png", "x" * 300]
    write_names(tmp_path, names)
    lazy = Names(np.load(tmp_path / "names.npy"), np.load(tmp_path / "name_ends.npy"))
    assert list(lazy) == names
    assert lazy[-1] == names[-1]
    assert lazy[1:3] == names[1:3]
    with pytest.raises(IndexError):
        lazy[4]


def test_header_is_a_numpy_header() -> None:
    array = picture(6, 5)
    data = io.BytesIO(npy_header(array.shape) + array.tobytes())
    assert np.array_equal(np.load(data), array)


def test_scan_and_pack_load_no_torch() -> None:
    program = "import sys, neocog.data.pack, neocog.data.scan; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("count", [255, 256, 257])
def test_each_end_is_told_once(tmp_path: Path, count: int) -> None:
    """A line for people would stand there twice."""
    np.savez(tmp_path / "set.npz", x=np.zeros((count, 4, 4), np.uint8), y=np.arange(count) % 2)
    told: list[tuple[str, int, int]] = []
    recipe = DataRecipe(source=str(tmp_path / "set.npz"))
    dataset.load(recipe, progress=lambda *facts: told.append(facts))
    assert [one for one in told if one[1] == one[2]] == [
        ("scan", count, count),
        ("pack", count, count),
    ]


def test_meta_says_what_is_there(tmp_path: Path) -> None:
    opened, _ = packed(files(tmp_path / "d", [picture(8, 8) for _ in range(2)]))
    meta = json.loads(json.loads((opened.folder / "meta.json").read_text())["meta"])
    present = {path.name for path in opened.folder.iterdir()}
    assert set(meta["files"]) | {"meta.json"} == present
