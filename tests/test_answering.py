"""From files to answers: nothing is lost, nothing is collected, all is in order."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from neocog.data import walk
from neocog.data.files import Remark
from neocog.data.looks import Look
from neocog.errors import DataError
from neocog.runtime import answering
from pretended import Pretended

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

PIXELS = bytes(range(8 * 8 * 3))


def drawn(seed: int, size: tuple[int, int] = (8, 8)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def shares(pixels: NDArray[np.uint8]) -> list[float]:
    """Red, green and blue, by hand."""
    levels = pixels.reshape(-1, 3).astype(np.float64).mean(0) + 1
    return [float(level / levels.sum()) for level in levels]


def test_every_sample_is_answered_once_and_in_order(tmp_path: Path) -> None:
    """Pictures, broken ones, arrays of one and of many, over several batches."""
    expected: list[tuple[str, list[float] | None]] = []
    paths = []
    for number in range(300):
        path = tmp_path / f"{number:03d}.png"
        if number % 50 == 7:
            path.write_bytes(b"no picture")
            expected.append((str(path), None))
        else:
            Image.fromarray(drawn(number)).save(path)
            expected.append((str(path), shares(drawn(number))))
        paths.append(str(path))
    many = str(tmp_path / "many.npz")
    np.savez(many, x=np.stack([drawn(1000), drawn(1001)]))
    paths.insert(100, many)
    expected[100:100] = [(f"{many}[{k}]", shares(drawn(1000 + k))) for k in range(2)]
    engine = Pretended()
    found = list(answering.answers(engine, iter(paths)))
    assert [entry["path"] for entry, _ in found] == [name for name, _ in expected]
    assert engine.calls == 2
    for (entry, sample), (_, wanted) in zip(found, expected, strict=True):
        if wanted is None:
            assert sample is None
            assert entry["error"].startswith("expected")
            continue
        best = int(np.argmax(wanted))
        assert entry["label"] == ("red", "green", "blue")[best]
        assert entry["probability"] == pytest.approx(wanted[best], abs=1e-6)


def test_pictures_are_cropped_as_pillow_and_hands_do_it(tmp_path: Path) -> None:
    """Scaled to cover 1.15 of the side, the centre kept; grey is repeated."""
    Image.fromarray(drawn(1, (30, 47))).save(tmp_path / "a.png")
    Image.fromarray(drawn(2, (8, 8))[..., 0]).save(tmp_path / "grey.png")
    paths = [str(tmp_path / name) for name in ("a.png", "grey.png")]
    (_, first), (_, second) = answering.answers(Pretended(), paths)
    with Image.open(paths[0]) as image:
        wide = np.asarray(image.resize((14, 9), Image.Resampling.BILINEAR))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.permute(1, 2, 0).numpy(), wide[0:8, 3:11])
    grey = drawn(2, (8, 8))[..., 0]
    assert np.array_equal(second.numpy(), np.stack([grey] * 3))


def test_engines_are_handed_one_plain_array(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(drawn(number)).save(tmp_path / f"{number}.png")
    seen: list[NDArray[Any]] = []
    engine = Pretended(each=seen.append)
    list(answering.answers(engine, (str(path) for path in sorted(tmp_path.iterdir()))))
    (batch,) = seen
    assert batch.dtype == np.uint8
    assert batch.shape == (3, 3, 8, 8)
    assert batch.flags.c_contiguous
    assert np.array_equal(batch[1], drawn(1).transpose(2, 0, 1))


def pretend_looks(monkeypatch: pytest.MonkeyPatch, usable: bool = True) -> list[int]:
    """Pictures without files; gives how many files each set of helpers is handed."""
    slices: list[int] = []
    digest = b"x" if usable else b""
    remark = Remark("file", "missing", "expected a file, found nothing", "skip")

    def looks(files: Sequence[Any], *_: object, **__: object) -> Generator[Look]:
        slices.append(len(files))
        for _ in files:
            yield Look(digest, (8, 8), (8, 8), 3, (remark,), PIXELS)

    monkeypatch.setattr(answering, "look_at_all", looks)
    return slices


def test_many_paths_are_taken_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "SLICE", 1_000)
    slices = pretend_looks(monkeypatch)
    taken = 0

    def paths() -> Iterator[str]:
        nonlocal taken
        for number in range(40_000):
            taken += 1
            yield f"{number}.png"

    furthest = answered = 0
    for entry, _ in answering.answers(Pretended(), paths()):
        assert "error" not in entry
        answered += 1
        furthest = max(furthest, taken - answered)
    assert answered == 40_000
    assert slices == [1_000] * 40
    assert furthest <= 1_000 + 4 * 256


def test_who_stops_early_leaves_the_rest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "SLICE", 1_000)
    slices = pretend_looks(monkeypatch)
    endless = (f"{number}.png" for number in itertools.count())
    with contextlib.closing(answering.answers(Pretended(), endless)) as found:
        next(found)
    assert slices == [1_000]
    assert not [one for one in threading.enumerate() if "neocog" in one.name]


def test_a_batch_of_what_cannot_be_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_looks(monkeypatch, usable=False)
    engine = Pretended()
    asked = answering.samples(engine.described, (f"{number}.png" for number in range(10_000)))
    sizes = [len(batch) for batch in answering.batches(engine, asked)]
    assert sizes == [4096, 4096, 1808]
    assert engine.calls == 0


def test_an_error_of_the_paths_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_looks(monkeypatch)

    def paths() -> Iterator[str]:
        yield "a.png"
        raise DataError("the folder is gone")

    with pytest.raises(DataError, match="the folder is gone"):
        list(answering.answers(Pretended(), paths()))


@pytest.mark.parametrize("held", [1, 3, 1000])
def test_a_folder_is_walked_by_name(
    tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `sorted(rglob)` orders paths, whatever part of the names is held at a time."""
    monkeypatch.setattr(walk, "NAMES", held)
    names = ["a.png", "a/x.png", "a/b/c.JPG", "a-b/y.png", "b.jpg", "b/a.png", ".hid.png", "z.txt"]
    names += [f"many/{number * 7 % 23}.png" for number in range(23)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "many")
    expected = [path for path in sorted(tmp_path.rglob("*")) if walk.is_picture(path.name)]
    expected = [path for path in expected if "link" not in path.parts]
    assert [Path(one) for one in walk.pictures_below(str(tmp_path))] == expected
    assert walk.count_below(str(tmp_path)) == len(expected)


def test_a_folder_that_cannot_be_listed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(walk.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot list the folder .*: Permission denied"):
        list(walk.pictures_below(str(tmp_path)))
