"""From a recipe to a data set: parts, classes by name, duplicates, and a second opening."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neocog.config import DataRecipe
from neocog.data import dataset, sources
from neocog.data.dataset import Dataset, load, spec
from neocog.data.images import Images
from neocog.data.merge import merge
from neocog.data.samples import Part, Source
from neocog.errors import DataError
from neocog.layers import Fit

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))


def draw(seed: int, height: int = 10, width: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fill(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    """Class folders with distinct pictures."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            Image.fromarray(draw(start)).save(root / name / f"{start:04d}.png")
            start += 1
    return root


def open_(source: Path, **options: Any) -> Dataset:
    return load(DataRecipe(source=str(source), **options))


# -- Images -----------------------------------------------------------------------------------


SIZES = st.lists(st.tuples(st.integers(4, 12), st.integers(5, 12)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.sampled_from([1, 3]), st.data())
def test_gather_is_slicing(
    sizes: list[tuple[int, int]], channels: int, data: st.DataObject
) -> None:
    arrays = [
        np.random.default_rng(row).integers(0, 256, (*size, channels), dtype=np.uint8)
        for row, size in enumerate(sizes)
    ]
    flat = np.concatenate([one.reshape(-1) for one in arrays])
    images = Images(flat, np.array(sizes, np.int64), channels)
    assert images.uniform == (len(set(sizes)) == 1)
    size = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    ids = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=8))
    tops = [data.draw(st.integers(0, sizes[row][0] - size[0])) for row in ids]
    lefts = [data.draw(st.integers(0, sizes[row][1] - size[1])) for row in ids]
    got = images.gather(torch.tensor(ids), size, torch.tensor(tops), torch.tensor(lefts))
    assert got.shape == (len(ids), channels, *size)
    assert got.permute(0, 2, 3, 1).is_contiguous()
    for row, one, top, left in zip(got, ids, tops, lefts, strict=True):
        window = arrays[one][top : top + size[0], left : left + size[1]]
        assert np.array_equal(row.permute(1, 2, 0).numpy(), window)
    centred = images.gather(torch.tensor(ids), size)
    for row, one in zip(centred, ids, strict=True):
        top, left = (sizes[one][0] - size[0]) // 2, (sizes[one][1] - size[1]) // 2
        window = arrays[one][top : top + size[0], left : left + size[1]]
        assert np.array_equal(row.permute(1, 2, 0).numpy(), window)
        assert np.array_equal(images.picture(one), arrays[one])


def test_whole_uniform_pictures() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
    images = Images.of(stack)
    got = images.gather(torch.tensor([6, 0, 6]), (6, 5))
    assert np.array_equal(got.permute(0, 2, 3, 1).numpy(), stack[[6, 0, 6]])
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert images.sizes.tolist() == [[6, 5]] * 7
    assert images.gather(torch.tensor([], dtype=torch.int64), (6, 5)).shape == (0, 3, 6, 5)


def test_centred_window_is_what_fit_takes() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (2, 18, 21, 3), dtype=np.uint8)
    fitted = Fit((16, 16))(torch.from_numpy(stack).permute(0, 3, 1, 2))
    assert torch.equal(Images.of(stack).gather(torch.arange(2), (16, 16)), fitted)


def test_gather_refuses_what_is_not_there() -> None:
    images = Images.of(np.zeros((3, 6, 5, 1), np.uint8))
    for ids in ([3], [-1]):
        with pytest.raises(IndexError, match="0…2"):
            images.gather(torch.tensor(ids), (2, 2))
    with pytest.raises(ValueError, match="inside picture 1"):
        images.gather(torch.tensor([1]), (7, 5))
    with pytest.raises(ValueError, match="row 5"):
        images.gather(torch.tensor([1]), (2, 2), torch.tensor([5]), torch.tensor([0]))
    with pytest.raises(ValueError, match="expected 30 bytes"):
        Images(np.zeros(29, np.uint8), np.array([[6, 5]]), 1)


# -- load -------------------------------------------------------------------------------------


def test_a_flat_folder_is_split_by_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", {"cat": 20, "dog": 30})
    data = open_(root, val=0.2)
    assert data.classes == ("cat", "dog")
    assert {name: len(ids) for name, ids in data.splits.items()} == {"train": 40, "val": 10}
    assert torch.bincount(data.targets[data.splits["val"]]).tolist() == [4, 6]
    everything = torch.cat(list(data.splits.values())).sort().values
    assert everything.tolist() == list(range(50))
    for name, count in data.counts.items():
        assert count.found == count.used + count.skipped
        assert count.used == (50 if name == "all" else len(data.splits[name]))
    for row in (0, 25, 49):
        with Image.open(root / data.names[row]) as image:
            assert np.array_equal(data.images.picture(row), np.asarray(image))
        assert data.names[row].startswith(data.classes[data.targets[row]])
    assert (data.size, data.channels, data.kind) == ((10, 8), 3, "class")
    assert data.weights.tolist() == [1] * 50


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    recipe = DataRecipe(source=str(fill(tmp_path / "d", {"a": 30, "b": 30})), val=0.5)
    first, again, other = load(recipe), load(recipe), load(recipe, seed=1)
    assert torch.equal(first.splits["val"], again.splits["val"])
    assert not torch.equal(first.splits["val"], other.splits["val"])
    assert first.fingerprint == other.fingerprint


def test_a_second_opening_reads_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "d", {"a": 4, "b": 4})
    first = open_(root)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the source was read again")

    for name in ("scan", "pack", "merge"):
        monkeypatch.setattr(dataset, name, forbidden)
    monkeypatch.setattr(sources, "read", forbidden)
    second = open_(root)
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.targets, first.targets)
    ids = torch.arange(8)
    assert torch.equal(second.images.gather(ids, (10, 8)), first.images.gather(ids, (10, 8)))
    # A run opens by the size that was decided, another user by none: both are quick.
    assert open_(root, size=(10, 8), channels=3).fingerprint == first.fingerprint
    with pytest.raises(AssertionError, match="read again"):
        open_(root, size=(4, 4))


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ESTALE, "read-error"), (errno.EACCES, "unreadable")]
)
def test_a_bad_moment_of_a_drive_does_not_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    root = fill(tmp_path / "data", {"ant": 10, "bee": 10})
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nreal = os.open\n"
        "def fail(path, *rest):\n"
        f"    if str(path).endswith('0003.png'): raise OSError({number}, 'failed', path)\n"
        "    return real(path, *rest)\n"
        "os.open = fail\n"
    )
    with monkeypatch.context() as bad:
        bad.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
        found = open_(root, max_bad=0.1)
    assert (len(found), found.counts["all"].skipped) == (19, 1)
    assert [fault.code for fault in found.faults] == [code]
    passes = code == "read-error"
    assert ("the next opening tries again" in found.faults[0].reason) == passes
    assert len(open_(root, max_bad=0.1)) == (20 if passes else 19)


def test_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", {"a": 4, "b": 4})
    first = open_(root)
    Image.fromarray(draw(999)).save(root / "a" / "new.png")
    second = open_(root)
    assert len(second) == 9
    assert second.fingerprint != first.fingerprint


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", {"a": 4, "b": 4})
    first = open_(root)
    for path in (tmp_path / "cache").rglob("images.npy"):
        path.write_bytes(path.read_bytes()[:-5])
    assert open_(root).fingerprint == first.fingerprint
    for path in (tmp_path / "cache" / "opens").iterdir():
        path.write_text("{ not json")
    assert open_(root).fingerprint == first.fingerprint
    shutil.rmtree(tmp_path / "cache" / "packs")
    assert open_(root).fingerprint == first.fingerprint


def test_parts_of_the_source_itself(tmp_path: Path) -> None:
    for place, part in enumerate(("train", "val", "test")):
        fill(tmp_path / "d" / part, {"a": 5, "b": 5}, start=100 * place)
    data = open_(tmp_path / "d", val=0.5)  # its own part goes before a share
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 10,
        "val": 10,
        "test": 10,
    }
    assert all(data.names[row].startswith("test/") for row in data.splits["test"].tolist())


def test_sources_for_val_and_test(tmp_path: Path) -> None:
    main = fill(tmp_path / "main", {"a": 6, "b": 6, "c": 6})
    val = fill(tmp_path / "val", {"b": 3, "c": 2}, start=100)  # a class is missing: fine
    fill(tmp_path / "test" / "train", {"a": 2, "b": 2}, start=200)
    fill(tmp_path / "test" / "test", {"a": 3, "b": 1}, start=300)
    data = open_(main, val=str(val), test=str(tmp_path / "test"))
    assert data.classes == ("a", "b", "c")
    counts = {
        part: torch.bincount(data.targets[ids], minlength=3).tolist()
        for part, ids in data.splits.items()
    }
    assert counts == {"train": [6, 6, 6], "val": [0, 3, 2], "test": [3, 1, 0]}
    bad = fill(tmp_path / "bad", {"a": 1, "bb": 1}, start=400)
    with pytest.raises(DataError, match=r"(?s)val part.*unknown class 'bb'.*did you mean|known"):
        open_(main, val=str(bad))


def test_a_named_source_replaces_the_own_part(tmp_path: Path) -> None:
    for place, part in enumerate(("train", "val")):
        fill(tmp_path / "d" / part, {"a": 4, "b": 4}, start=100 * place)
    other = fill(tmp_path / "other", {"a": 2, "b": 1}, start=500)
    data = open_(tmp_path / "d", val=str(other))
    assert len(data.splits["val"]) == 3
    assert data.counts["all"].found == 11
    assert "8 samples" in data.notes[0]
    assert open_(tmp_path / "d", val=str(other)).notes == data.notes


def test_classes_of_a_trained_run(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", {"b": 2, "d": 3})
    data = load(
        DataRecipe(source=str(root), val=0.0),
        geometry=((16, 16), 1),
        classes=("d", "c", "b", "a"),
    )
    assert data.classes == ("d", "c", "b", "a")
    assert data.targets.tolist() == [2, 2, 0, 0, 0]
    assert (data.size, data.channels) == ((16, 16), 1)
    assert set(data.splits) == {"train"}
    with pytest.raises(DataError, match="unknown class 'd'"):
        load(DataRecipe(source=str(root), val=0.0), classes=("a", "b"))


def test_a_validation_source_may_hold_one_class(tmp_path: Path) -> None:
    main = fill(tmp_path / "main", {"cat": 6, "dog": 6})
    val = fill(tmp_path / "valmiss", {"cat": 3}, start=100)
    data = open_(main, val=str(val))
    assert data.classes == ("cat", "dog")
    assert data.targets[data.splits["val"]].tolist() == [0, 0, 0]
    (fault,) = data.faults
    assert (fault.path, fault.code, fault.policy) == ("val", "missing-class", "accept")
    assert "'dog'" in fault.reason
    test = fill(tmp_path / "test", {"dog": 2}, start=200)
    data = open_(main, val=str(val), test=str(test))
    assert data.targets[data.splits["test"]].tolist() == [1, 1]
    bad = fill(tmp_path / "bad", {"bird": 1}, start=300)
    with pytest.raises(DataError, match=r"the val part: unknown class 'bird'"):
        open_(main, val=str(bad))


def test_data_for_a_trained_run_may_hold_one_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "D", {"dog": 3})
    recipe = DataRecipe(source=str(root), val=0.0)
    data = load(recipe, classes=("cat", "dog"))
    assert data.targets.tolist() == [1, 1, 1]
    with pytest.raises(DataError, match=r"this data: unknown class 'dog'"):
        load(recipe, classes=("cat", "bird"))
    # Its pack is in the cache now, and is still not taken to learn from.
    with pytest.raises(DataError, match="at least two classes, found only 'dog'") as caught:
        load(recipe)
    assert f"{root}:" in caught.value.message


def test_a_training_part_of_one_class_is_refused_whatever_the_others_hold(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 6), np.uint8)
    path = tmp_path / "set.npz"
    np.savez(path, x_train=pixels, y_train=[0, 0, 0, 0], x_test=pixels, y_test=[0, 1, 0, 1])
    with pytest.raises(DataError, match="at least two classes, found only '0'"):
        open_(path)


@pytest.mark.parametrize("val", [0.0, 0.5])
def test_weights_that_are_all_zero_are_refused(tmp_path: Path, val: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 6), np.uint8)
    path, y = tmp_path / "set.npz", np.arange(8) % 2
    np.savez(path, x=pixels, y=y, w=np.zeros(8))
    for _ in range(2):  # also at a second opening
        with pytest.raises(DataError, match="weight above 0 in the training part, found 0 for all"):
            open_(path, val=val)
    assert load(DataRecipe(source=str(path), val=0.0), classes=("0", "1")).weights.sum() == 0
    np.savez(path, x=pixels, y=y, w=np.eye(8)[0])
    data = open_(path, val=0.0)
    assert data.weights.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    fill(tmp_path / "t", {"a": 2, "b": 2})
    rows = [f"{name},{name[0]},0" for name in ("a/0000.png", "b/0002.png")]
    (tmp_path / "t" / "t.csv").write_text("path,label,weight\n" + "\n".join(rows))
    with pytest.raises(DataError, match="found 0 for all of its 2 samples"):
        open_(tmp_path / "t", val=0.0)


def test_duplicates_are_counted_exactly(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "train", {"a": 5, "b": 5})
    fill(tmp_path / "d" / "test", {"a": 3, "b": 3}, start=100)
    for copy, original in (("a/x.png", "b/0007.png"), ("b/y.png", "b/0007.png")):
        shutil.copy(tmp_path / "d" / "train" / original, tmp_path / "d" / "test" / copy)
    data = open_(tmp_path / "d", val=0.0)
    assert data.duplicates == {"train/test": 2}
    (fault,) = [fault for fault in data.faults if fault.code == "duplicate"]
    assert (fault.policy, fault.path) == ("accept", "test/a/x.png")
    assert "train/b/0007.png" in fault.reason


def test_a_bad_sample_counts_in_the_part_that_it_would_have_been_in(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", {"a": 9, "b": 10})
    (root / "a" / "bad.png").write_bytes(b"<html>")
    count = open_(root, max_bad=0.1).counts["train"]
    assert (count.found, count.used, count.skipped) == (18, 17, 1)  # 2 are held back


def test_kinds_must_agree_and_columns_match_by_name() -> None:
    def source(kind: Any, classes: tuple[str, ...], targets: Any) -> Source:
        part = Part(
            names=tuple("xyz"[: len(targets)]),
            splits=("",) * len(targets),
            targets=targets,
            pixels=np.zeros((len(targets), 2, 2, 1), np.uint8),
        )
        return Source(kind="csv", target=kind, classes=classes, parts=(part,), skipped=2)

    main = source("numbers", ("x", "y"), ((1.0, 2.0),))
    merged = merge(main, {"val": source("numbers", ("y", "x"), ((3.0, 4.0),))})
    assert merged.source.parts[1].targets == ((4.0, 3.0),)
    assert merged.source.parts[1].splits == ("val",)
    assert merged.skipped == {"train": 2, "val": 2}
    assert merged.source.skipped == 4
    with pytest.raises(DataError, match="expected the columns x, y, found x, z"):
        merge(main, {"val": source("numbers", ("x", "z"), ((3.0, 4.0),))})
    with pytest.raises(DataError, match="expected numbers, found one class"):
        merge(main, {"test": source("class", ("x",), ("x",))})
    labels = source("labels", ("x", "y"), (("x",), ()))
    with pytest.raises(DataError, match="unknown class 'w'"):
        merge(labels, {"val": source("labels", ("w",), (("w",),))})


def test_digits_against_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = load(DataRecipe(source="digits"))
    truth = load_digits()
    assert len(data) == 1797
    assert data.targets.tolist() == truth.target.tolist()
    assert (data.size, data.channels) == ((8, 8), 1)
    # Stored values grow with the original ones, whatever the scale.
    first = data.images.picture(0)[..., 0].astype(float).ravel()
    assert np.corrcoef(first, truth.images[0].ravel())[0, 1] > 0.999


# -- spec and faces ---------------------------------------------------------------------------


def test_spec_is_numpys_mean_and_deviation(tmp_path: Path) -> None:
    data = open_(fill(tmp_path / "d", {"a": 15, "b": 15}), val=0.2)
    train = np.stack([data.images.picture(row) for row in data.splits["train"].tolist()]) / 255
    found = spec(data)
    assert found.mean == pytest.approx(train.mean((0, 1, 2)), abs=1e-12)
    assert found.std == pytest.approx(train.std((0, 1, 2)), abs=1e-12)
    assert (found.size, found.channels) == ((10, 8), 3)


def test_spec_of_constant_and_of_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(DataRecipe(source="digits"))
    blank = dataclasses.replace(data, images=Images.of(np.full((1797, 8, 8, 1), 51, np.uint8)))
    assert spec(blank).mean == pytest.approx((0.2,))
    assert spec(blank).std == (dataset.STD_FLOOR,)
    monkeypatch.setattr(dataset, "SPEC_PICTURES", 100)
    ids = data.splits["train"][torch.arange(100) * len(data.splits["train"]) // 100]
    some = np.stack([data.images.picture(row) for row in ids.tolist()]) / 255
    assert spec(data).mean == pytest.approx((some.mean(),))


def test_faces(tmp_path: Path) -> None:
    data = open_(fill(tmp_path / "d", {"a<b": 4, "c": 4}), val=0.25)
    text = repr(data)
    assert "8 pictures, 10×8×3" in text
    assert "a<b: train 3, val 1" in text
    page = data._repr_html_()
    assert "<td>a&lt;b</td><td>3</td><td>1</td>" in page
    many = dataclasses.replace(
        data, classes=tuple(f"k{i}" for i in range(30)), targets=torch.arange(8) * 3
    )
    assert "11 more" in repr(many)
    assert repr(data.images) == "<Images: 8, 10×8×3>"
