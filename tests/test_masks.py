"""Pictures and masks: what is read, what is refused, and that both go the same way."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drawn_masks import CLASSES, drawn, folder, picture_of
from neocog.config import AugmentRecipe, DataRecipe
from neocog.data import dataset
from neocog.data.augment import Augment, resolve, tiles
from neocog.data.batches import WHOLE, eval_batches, train_batches
from neocog.data.files import Undecodable
from neocog.data.masks import Values, mask
from neocog.data.pairs import is_paired, read_pairs
from neocog.data.resident import ResidentImages
from neocog.errors import ConfigError, DataError
from neocog.records import VOID, Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset


def png(numbers: NDArray[Any], mode: str = "L") -> bytes:
    """A mask as a file."""
    stream = io.BytesIO()
    image = Image.fromarray(numbers)
    if mode == "P":
        image.putpalette([value for n in range(256) for value in (n, 255 - n, n * 7 % 256)])
    image.save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return folder(tmp_path / "roads", {"train": 12, "val": 4})


def load(root: Path, **settings: Any) -> Dataset:
    return dataset.load(DataRecipe(source=str(root), **settings))


# ------------------------------------------------------------------------------------ one file


@pytest.mark.parametrize("mode", ["L", "P"])
def test_the_numbers_of_a_mask_come_back_whatever_its_colours(mode: str) -> None:
    numbers = drawn(1)
    found = mask(png(numbers, mode), name="m.png", values=Values(classes=3)).array()[..., 0]
    assert np.array_equal(found, numbers)


def test_black_and_white_are_two_classes() -> None:
    numbers = drawn(2, top=2) == 1
    found = mask(png(numbers), name="m.png", values=Values(classes=2)).array()[..., 0]
    assert np.array_equal(found, numbers)


def test_a_number_that_is_ignored_has_no_label() -> None:
    numbers = drawn(3, top=3)
    found = mask(png(numbers), name="m.png", values=Values(classes=2, ignore=2)).array()[..., 0]
    assert np.array_equal(found, np.where(numbers == 2, VOID, numbers))


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_mask_is_turned_as_its_picture_is(turn: int) -> None:
    from neocog.data.decode import decode

    numbers = drawn(4)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(numbers).save(stream, "png", exif=exif)
    found = mask(stream.getvalue(), name="m.png").array()
    assert np.array_equal(found, decode(stream.getvalue()))


@pytest.mark.parametrize(
    ("data", "code", "policy"),
    [
        (png(drawn(5)), "class-range", "skip"),
        (png(picture_of(drawn(5))), "mask-colors", "skip"),
        (png(drawn(5))[:60], "truncated", "skip"),
        (b"", "unknown-format", "skip"),
    ],
)
def test_what_is_no_mask_is_skipped(data: bytes, code: str, policy: str) -> None:
    with pytest.raises(Undecodable) as caught:
        mask(data, name="m.png", values=Values(classes=2))
    assert (caught.value.fault.code, caught.value.fault.policy) == (code, policy)


def test_a_lossy_mask_refuses_the_data_set(pairs: Path) -> None:
    for path in (pairs / "trainannot").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(DataError, match=r"(?s)JPEG.*PNG"):
        load(pairs)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_bytes_of_any_kind_are_a_mask_or_a_fault(data: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"P5 4 4 255\n"):
        with contextlib.suppress(Undecodable):
            found = mask(start + data, name="m", values=Values(classes=2))
            assert set(np.unique(found.array())) <= {0, 1, VOID}


# ------------------------------------------------------------------------------------- folders


def test_a_folder_of_pairs(pairs: Path) -> None:
    data = load(pairs)
    assert (data.kind, data.classes, data.whole) == ("mask", CLASSES, True)
    assert {part: len(ids) for part, ids in data.splits.items()} == {"train": 12, "val": 4}
    assert data.masks is not None
    counted = np.zeros((16, 3))
    for row, name in enumerate(data.names):
        numbers = np.array(Image.open(pairs / name.replace("/", "annot/")))
        assert np.array_equal(data.masks.picture(row)[..., 0], numbers)
        assert np.array_equal(data.images.picture(row), picture_of(numbers))
        counted[row] = [(numbers == k).sum() for k in range(3)]
    assert np.array_equal(data.targets.numpy(), counted)
    assert "road: train" in repr(data)
    again = load(pairs)  # from the cache
    assert again.fingerprint == data.fingerprint
    assert np.array_equal(again.masks.picture(3), data.masks.picture(3))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "places",
    [
        ("images/a.png", "masks/a.png"),
        ("images/a.png", "masks/a_mask.png"),
        ("images/train/a.png", "masks/train/a.png"),
        ("train/images/a.png", "train/labels/a_gt.png"),
        ("Train/a.png", "train_masks/a.png"),
        ("imgs/deep/a.png", "annotations/deep/a.png"),
    ],
)
def test_layouts(tmp_path: Path, places: tuple[str, str]) -> None:
    for number in range(3):
        for place, pixels in zip(places, (picture_of(drawn(number)), drawn(number)), strict=True):
            path = tmp_path / Path(place).parent / Path(place).name.replace("a", f"a{number}", 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    assert is_paired(tmp_path)
    source = read_pairs(tmp_path)
    assert [len(part.names) for part in source.parts] == [3]
    data = load(tmp_path)  # no list of classes: they are numbers
    assert data.classes == ("0", "1", "2")


def test_class_folders_are_no_pairs(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(picture_of(drawn(0))).save(tmp_path / name / "a.png")
    assert not is_paired(tmp_path)


def test_what_has_no_partner_is_skipped_and_counted(pairs: Path) -> None:
    (pairs / "trainannot" / "000.png").unlink()
    (pairs / "train" / "001.png").unlink()
    numbers = drawn(200)
    Image.fromarray(numbers).save(pairs / "trainannot" / "002.bmp")
    Image.fromarray(numbers[:-1]).save(pairs / "trainannot" / "003.png")  # another size
    Image.fromarray(numbers + 10).save(pairs / "trainannot" / "004.png")  # no such class
    Image.fromarray(picture_of(numbers)).save(pairs / "trainannot" / "005.png")  # colours
    Image.fromarray(np.full_like(numbers, VOID)).save(pairs / "trainannot" / "006.png")
    data = load(pairs, max_bad=0.5)
    codes = {fault.code: fault.path for fault in data.faults}
    assert codes == {
        "no-mask": "train/000.png",
        "no-picture": "trainannot/001.png",
        "two-masks": "train/002.png",
        "mask-size": "train/003.png",
        "class-range": "train/004.png",
        "mask-colors": "train/005.png",
        "all-unlabelled": "train/006.png",
    }
    count = data.counts["all"]
    assert (count.found, count.used, count.skipped) == (16, 10, 6)
    assert len(data) == 10
    assert data.masks is not None
    for row, name in enumerate(data.names):  # what is left lies under its own picture still
        if name != "train/006.png":
            numbers = data.masks.picture(row)[..., 0]
            assert np.array_equal(data.images.picture(row), picture_of(numbers))


def test_a_number_beyond_the_list_says_what_to_do(pairs: Path) -> None:
    (pairs / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(DataError, match="class-range") as caught:
        load(pairs)
    assert "--set data.ignore=" in caught.value.hint
    data = load(pairs, ignore=2)
    assert data.classes == ("sky", "road")
    assert data.masks is not None
    assert set(np.unique(data.masks.picture(0))) <= {0, 1, VOID}


@pytest.mark.parametrize("text", ["", "a\n\nb\n", "a\na\n", "Car\ncar\n"])
def test_a_list_of_classes_that_cannot_be_used_is_refused(pairs: Path, text: str) -> None:
    (pairs / "classes.txt").write_text(text)
    with pytest.raises(DataError):
        load(pairs)


def test_masks_of_0_and_255_are_told_apart_from_what_has_no_label(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train": 4}, names=False)
    for path in (root / "trainannot").iterdir():
        numbers = np.array(Image.open(path))
        Image.fromarray(np.where(numbers > 0, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(DataError) as caught:
        load(root)
    assert "save the 255 as 1" in caught.value.hint


def test_masks_of_more_bits_are_refused_with_what_helps(pairs: Path) -> None:
    for path in (pairs / "trainannot").iterdir():
        Image.fromarray(np.array(Image.open(path)).astype(np.uint16)).save(path)
    with pytest.raises(DataError, match="8 bits a pixel") as caught:
        load(pairs)
    assert "deep" not in caught.value.hint
    assert "uint8" in caught.value.hint


def test_gaps_between_numbers_are_no_classes(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train": 4}, names=False)
    for path in (root / "trainannot").iterdir():
        numbers = np.array(Image.open(path))
        Image.fromarray(np.where(numbers == VOID, VOID, numbers * 100).astype(np.uint8)).save(path)
    with pytest.raises(DataError, match=r"0, 100, 200.*gaps") as caught:
        load(root)
    assert "classes.txt" in caught.value.hint


def test_data_that_is_only_scored_need_not_show_every_number(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train": 4}, names=False)
    for path in (root / "trainannot").iterdir():
        numbers = np.array(Image.open(path))
        Image.fromarray(np.where(numbers == 1, VOID, numbers).astype(np.uint8)).save(path)
    recipe = DataRecipe(source=str(root), val=0.0)
    with pytest.raises(DataError, match="gaps"):
        dataset.load(recipe)
    data = dataset.load(recipe, classes=("0", "1", "2", "3"), geometry=((32, 32), 3))
    assert (data.targets.sum(0) > 0).tolist() == [True, False, True, False]


def test_a_class_that_a_part_does_not_show_is_told(pairs: Path) -> None:
    (pairs / "classes.txt").write_text("sky\nroad\ncar\nbus\n")
    data = load(pairs)
    told = {(fault.path, fault.code) for fault in data.faults}
    assert told == {("train", "missing-class"), ("val", "missing-class")}
    assert "note: no mask of the train part shows the class 'bus'" in repr(data)


def test_a_held_part_without_any_label_is_refused(pairs: Path) -> None:
    for path in (pairs / "valannot").iterdir():
        Image.fromarray(np.full((40, 48), VOID, np.uint8)).save(path)
    with pytest.raises(DataError, match="labelled pixels in the val part"):
        load(pairs)


def test_a_small_picture_that_is_only_scored_rules_no_crop(pairs: Path) -> None:
    tiny = drawn(9, (9, 9))
    Image.fromarray(tiny).save(pairs / "valannot" / "tiny.png")
    Image.fromarray(picture_of(tiny)).save(pairs / "val" / "tiny.png")
    assert load(pairs).size == (32, 32)


def test_pictures_that_are_called_like_masks_go_with_their_own(tmp_path: Path) -> None:
    for number, name in enumerate(("a_L", "b_mask", "c", "d")):
        mask_name = name if number < 3 else f"{name}_gt"
        for place, pixels in (
            (f"images/{name}", picture_of(drawn(number))),
            (f"masks/{mask_name}", drawn(number)),
        ):
            path = tmp_path / f"{place}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    source = read_pairs(tmp_path)
    assert source.skipped == 0
    assert [len(part.names) for part in source.parts] == [4]


def test_the_lists_of_voc_say_what_belongs_to_which_part(tmp_path: Path) -> None:
    for number in range(6):
        for place, pixels in (
            ("JPEGImages", picture_of(drawn(number))),
            ("SegmentationClass", drawn(number)),
        ):
            path = tmp_path / place / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            if place == "JPEGImages" or number < 5:
                Image.fromarray(pixels).save(path)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("4\n")
    data = load(tmp_path)
    assert {part: len(ids) for part, ids in data.splits.items()} == {"train": 3, "val": 1}
    assert data.counts["all"].skipped == 0
    assert data.names[3] == "JPEGImages/4.png"


def test_a_validation_source_must_name_the_same_classes(tmp_path: Path) -> None:
    train = folder(tmp_path / "a", {"train": 4})
    other = folder(tmp_path / "b", {"train": 3})
    assert len(load(train, val=str(other)).splits["val"]) == 3
    (other / "classes.txt").write_text("road\nsky\ncar\n")
    with pytest.raises(DataError, match="classes"):
        load(train, val=str(other))


def test_a_network_numbers_its_classes_itself(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train": 4})
    wanted = ("car", "bus", "sky", "road")
    recipe = DataRecipe(source=str(root), val=0.0)
    data = dataset.load(recipe, classes=wanted, geometry=((32, 32), 3))
    assert data.classes == wanted
    assert data.masks is not None
    table = np.full(256, VOID)
    table[:3] = (2, 3, 0)
    for row, name in enumerate(data.names):
        numbers = np.array(Image.open(root / name.replace("/", "annot/")))
        assert np.array_equal(data.masks.picture(row)[..., 0], table[numbers])
        assert data.targets[row].tolist() == [(table[numbers] == k).sum() for k in range(4)]
    with pytest.raises(DataError, match="road"):
        dataset.load(recipe, classes=("car", "sky"), geometry=((32, 32), 3))


def test_crops_fit_into_the_smallest_picture(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train": 4})
    assert load(root).size == (32, 32)
    assert load(root, size=(40, 16)).size == (40, 16)
    with pytest.raises(DataError, match="40×48") as caught:
        load(root, size=(64, 64))
    assert "data.size=40,48" in caught.value.hint
    tiny = drawn(9, (9, 9))
    Image.fromarray(tiny).save(root / "trainannot" / "tiny.png")
    Image.fromarray(picture_of(tiny)).save(root / "train" / "tiny.png")
    with pytest.raises(DataError, match="9 pixels") as caught:
        load(root)
    assert "--max-bad" in caught.value.hint
    assert len(load(root, minimum_side=16, max_bad=0.5)) == 4


# -------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.int16])
def test_arrays_of_masks(tmp_path: Path, kind: Any) -> None:
    numbers = np.stack([drawn(n) for n in range(6)])
    pictures = np.stack([picture_of(one) for one in numbers])
    y = numbers.astype(kind)
    if kind is np.int16:
        y[0, 0, 0] = -1
    np.savez(tmp_path / "a.npz", x=pictures, masks=y, classes=np.array(CLASSES))
    data = load(tmp_path / "a.npz", val=0.0, max_bad=0.2)
    assert data.classes == CLASSES
    assert data.masks is not None
    rows = range(1, 6) if kind is np.int16 else range(6)
    assert len(data) == len(rows)
    for place, row in enumerate(rows):
        assert np.array_equal(data.masks.picture(place)[..., 0], numbers[row])
        assert np.array_equal(data.images.picture(place), pictures[row])


def test_arrays_of_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 9, 9, 3), np.uint8), y=np.zeros((4, 9, 8), int))
    with pytest.raises(DataError, match="masks"):
        load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 9, 9, 3), np.uint8), y=np.zeros((4, 9, 9)))
    with pytest.raises(DataError, match="whole numbers"):
        load(tmp_path / "b.npz")


# ----------------------------------------------------------------------------- batches, augment


def augmented(data: Dataset, **settings: Any) -> Augment:
    recipe = resolve(
        AugmentRecipe(**settings),
        channels=3,
        size=data.size,
        classes=data.classes,
        kind="mask",
        uniform=data.images.uniform,
    )
    return Augment(recipe, seed=3, classes=3, kind="mask", mean=(0.5, 0.5, 0.5))


def agree(batch: Batch, *, edge: int = 0) -> float:
    """The share of labelled pixels whose colour is that of their class."""
    red = batch.images[:, 0].float().round()
    inner = (slice(None), slice(edge, -edge or None), slice(edge, -edge or None))
    masks = batch.targets[inner].long()
    right = (red[inner] - masks * 40).abs() <= 1
    return float(right[masks != VOID].float().mean())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flip": 1.0},
        {"flip": 0.5, "flip_vertical": 0.5, "shift": 0.2, "padding": "reflect"},
        {"shift": 0.2, "padding": "replicate"},
        {"flip": 0.5, "alternate": True},
    ],
)
def test_a_mask_goes_where_its_picture_goes(pairs: Path, settings: dict[str, Any]) -> None:
    data = load(pairs)
    augment = augmented(data, scale=0.0, **settings)
    for epoch in range(3):
        for batch in train_batches(data, batch=5, seed=1, epoch=epoch, augment=augment):
            assert batch.targets.shape == batch.images.shape[:1] + batch.images.shape[2:]
            assert batch.targets.dtype == torch.uint8
            assert agree(batch) == 1.0


def test_what_a_shift_uncovers_has_no_label(pairs: Path) -> None:
    data = load(pairs)
    augment = augmented(data, flip=0.0, scale=0.0, shift=0.25, padding="zero")
    plain = next(
        iter(
            train_batches(
                data, batch=12, seed=1, epoch=0, augment=augmented(data, flip=0.0, scale=0.0)
            )
        )
    )
    moved = next(iter(train_batches(data, batch=12, seed=1, epoch=0, augment=augment)))
    assert agree(moved) == 1.0
    black = (moved.images == 0).all(dim=1)
    assert (moved.targets[black & (moved.images.sum(1) == 0)] != VOID).float().mean() < 0.2
    assert (moved.targets == VOID).sum() > (plain.targets == VOID).sum()


def test_turned_and_zoomed_masks_follow_but_for_the_edges_of_things(pairs: Path) -> None:
    data = load(pairs)
    augment = augmented(data, rotate=20.0, scale=0.3)
    for batch in train_batches(data, batch=12, seed=1, epoch=0, augment=augment):
        assert batch.images.dtype == torch.float32
        assert set(batch.targets.unique().tolist()) <= {0, 1, 2, VOID}
        assert agree(batch, edge=1) > 0.85  # colours are mixed at edges, classes are not


def test_colours_change_pictures_alone(pairs: Path) -> None:
    data = load(pairs)
    calm = {"flip": 0.0, "scale": 0.0}
    plain, bright = (
        next(iter(train_batches(data, batch=12, seed=1, epoch=0, augment=augmented(data, **one))))
        for one in (calm, {**calm, "brightness": 0.3, "noise": 0.1, "cutout": 0.3})
    )
    assert torch.equal(plain.targets, bright.targets)
    assert not torch.equal(plain.images.float(), bright.images.float())


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_of_pixels_are_not_mixed(pairs: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        augmented(load(pairs), **{name: 0.5})


def test_evaluation_takes_whole_pictures_each_once_in_order(tmp_path: Path) -> None:
    for number in range(9):
        size = [(40, 48), (40, 48), (56, 44)][number % 3]
        for place, pixels in (
            ("images", picture_of(drawn(number, size))),
            ("masks", drawn(number, size)),
        ):
            (tmp_path / place).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / place / f"{number}.png")
    data = load(tmp_path, val=0.0)
    seen: list[int] = []
    for batch in eval_batches(data, torch.arange(9), batch=2):
        seen += batch.ids.tolist()
        assert len(batch.ids) <= 2
        for row, number in enumerate(batch.ids.tolist()):
            assert np.array_equal(
                batch.images[row].permute(1, 2, 0).numpy(), data.images.picture(number)
            )
        assert agree(batch) == 1.0
    assert seen == list(range(9))
    runs = data.images.runs(torch.arange(9), 16, 2 * 40 * 48)
    assert [len(ids) for ids, _ in runs] == [2, 1, 2, 1, 2, 1]
    assert all(len(ids) * size[0] * size[1] <= WHOLE for ids, size in runs)


def test_masks_on_a_device_are_the_same(pairs: Path) -> None:
    from neocog.data.resident import _moved

    data = load(pairs)
    moved = _moved(data, torch.device("cpu"))
    assert isinstance(moved.masks, ResidentImages)
    augment = augmented(data)
    for one, other in zip(
        train_batches(data, batch=5, seed=1, epoch=2, augment=augment),
        train_batches(moved, batch=5, seed=1, epoch=2, augment=augment),
        strict=True,
    ):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)


def test_the_sheet_shows_each_mask_with_its_own_picture(pairs: Path) -> None:
    """What is drawn is the pair that a step sees, in every row."""
    shares = []

    def draw(picture: NDArray[np.uint8], numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        labelled = numbers != VOID
        red = np.abs(picture[..., 0].astype(int) - numbers.astype(int) * 40) <= 1
        shares.append(red[labelled].mean())
        return picture

    sheet = tiles(load(pairs), augmented(load(pairs), scale=0.0), rows=3, columns=4, draw=draw)
    assert [len(row) for row in sheet] == [4, 4, 4]
    assert shares == [1.0] * 12
