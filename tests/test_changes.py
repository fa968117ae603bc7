"""Changes of pictures do what SciPy, NumPy and Pillow do, to each picture on its own."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from neocog.errors import ConfigError
from neocog.explain.still.changes import CHANGES, WAYS, changed, farthest

STRONG = {
    "shift": 3.0,
    "rotation": 17.0,
    "scale": 0.63,
    "brightness": 1.7,
    "blur": 1.3,
    "noise": 25.0,
    "jpeg": 30.0,
}


def pictures(batch: int = 5, channels: int = 3, height: int = 21, width: int = 28) -> torch.Tensor:
    """Smooth, so that JPEG is a fair test, with some noise on top."""
    rng = np.random.default_rng(3)
    wild = rng.normal(size=(batch, channels, height, width))
    smooth = ndimage.gaussian_filter(wild, (0, 0, 2, 2)) * 300 + 128 + wild * 6
    return torch.from_numpy(smooth.clip(0, 255).astype(np.uint8))


def floats(batch: torch.Tensor) -> np.ndarray:
    return batch.numpy().astype(np.float64)


def assert_near(found: torch.Tensor, wanted: np.ndarray) -> None:
    """The nearest whole number, where either side of a half will do."""
    assert np.abs(floats(found) - wanted.clip(0, 255)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", CHANGES)
def test_no_change_is_the_picture_itself_in_memory_of_its_own(name: str) -> None:
    given = pictures()
    change = CHANGES[name]
    assert change.none in change.levels
    assert list(change.levels) == sorted(set(change.levels))
    found = changed(given, name, change.none)
    assert torch.equal(found, given)
    assert found.data_ptr() != given.data_ptr()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_know_nothing_of_their_batch_and_are_not_touched(name: str, channels: int) -> None:
    given = pictures(batch=7, channels=channels)
    before = given.clone()
    ids = torch.arange(40, 47)
    whole = changed(given, name, STRONG[name], ids=ids, seed=5)
    assert whole.shape == given.shape
    assert whole.dtype == torch.uint8
    assert not torch.equal(whole, given)
    assert torch.equal(given, before)
    parts = [
        changed(given[at : at + 3], name, STRONG[name], ids=ids[at : at + 3], seed=5)
        for at in (0, 3, 6)
    ]
    assert torch.equal(whole, torch.cat(parts))
    # Channels last, as a reader may hand them over, is the same picture.
    other = given.contiguous(memory_format=torch.channels_last)
    assert torch.equal(changed(other, name, STRONG[name], ids=ids, seed=5), whole)


@pytest.mark.parametrize("level", [1, 4])
def test_shifts_are_rolls_inside_and_mirrors_outside(level: int) -> None:
    one = pictures(batch=1)
    ids = torch.arange(WAYS)
    found = changed(one.expand(WAYS, -1, -1, -1), "shift", level, ids=ids).numpy()
    padded = np.pad(one[0].numpy(), ((0, 0), (level, level), (level, level)), mode="reflect")
    ways = {}
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            rolled = np.roll(padded, (down * level, right * level), (1, 2))
            ways[down, right] = rolled[:, level : level + 21, level : level + 28]
    chosen = [way for got in found for way, want in ways.items() if np.array_equal(got, want)]
    # Eight ids in a row go all eight ways, each once.
    assert sorted(chosen) == sorted(way for way in ways if way != (0, 0))


def test_the_way_of_a_shift_does_not_follow_the_order_of_classes() -> None:
    """Every tenth picture of a class, or every eighth: all ways are about equally common."""
    spot = torch.zeros(800, 1, 9, 9, dtype=torch.uint8)
    spot[:, :, 4, 4] = 1
    for step in (8, 10):
        ids = torch.arange(800) * step
        places = changed(spot, "shift", 2, ids=ids).flatten(1).argmax(1)
        counts = torch.unique(places, return_counts=True)[1]
        assert len(counts) == WAYS
        assert counts.min() > 60


@pytest.mark.parametrize("degrees", [-45.0, 10.0, 90.0, 133.0])
def test_rotation_is_scipy_s(degrees: float) -> None:
    given = pictures()
    wanted = ndimage.rotate(
        floats(given), degrees, axes=(3, 2), reshape=False, order=1, mode="mirror"
    )
    assert_near(changed(given, "rotation", degrees), wanted)


def test_a_positive_rotation_is_anticlockwise() -> None:
    square = pictures(height=21, width=21)
    assert torch.equal(changed(square, "rotation", 90), torch.rot90(square, 1, (2, 3)))
    assert np.array_equal(
        changed(square, "rotation", 90)[0, 0], Image.fromarray(square[0, 0].numpy()).rotate(90)
    )


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_scale_is_scipy_s_with_a_blur_before_what_shrinks(factor: float) -> None:
    given = pictures()
    values = floats(given)
    if factor < 1:
        sigma = (1 / factor - 1) / 2
        values = ndimage.gaussian_filter(values, (0, 0, sigma, sigma), mode="mirror")
    centre = (np.array(given.shape[2:]) - 1) / 2
    wanted = np.empty_like(values)
    for index in np.ndindex(*given.shape[:2]):
        wanted[index] = ndimage.affine_transform(
            *(values[index], np.full(2, 1 / factor), centre - centre / factor),
            order=1,
            mode="mirror",
        )
    assert_near(changed(given, "scale", factor), wanted)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 7.0])
def test_blur_is_scipy_s(sigma: float) -> None:
    given = pictures()
    wanted = ndimage.gaussian_filter(floats(given), (0, 0, sigma, sigma), mode="mirror")
    assert_near(changed(given, "blur", sigma), wanted)


@pytest.mark.parametrize("factor", [0.25, 1.33, 3.0])
def test_brightness_is_pillow_s(factor: float) -> None:
    given = pictures(channels=3)
    found = changed(given, "brightness", factor).numpy()
    for got, one in zip(found, given.numpy(), strict=True):
        wanted = ImageEnhance.Brightness(Image.fromarray(one.transpose(1, 2, 0))).enhance(factor)
        apart = got.transpose(1, 2, 0).astype(int) - np.asarray(wanted)
        assert np.abs(apart).max() <= 1  # Pillow cuts off what it computes


def test_noise_is_gaussian_and_independent() -> None:
    given = torch.full((6, 3, 100, 100), 128, dtype=torch.uint8)
    noise = floats(changed(given, "noise", 20, ids=torch.tensor([0, 1, 2, 3, 50, 0]))) - 128
    flat = noise.reshape(6, -1)
    assert np.array_equal(flat[0], flat[5])  # the same id
    assert np.abs(flat.mean(1)).max() < 4 * 20 / math.sqrt(30_000)
    assert np.abs(flat.std(1) / 20 - 1).max() < 0.02
    assert abs((np.abs(flat) < 20.5).mean() - 0.6946) < 0.01  # rounded: within 20.5 of 20
    together = np.corrcoef(flat[:5]) - np.eye(5)
    assert np.abs(together).max() < 4.5 / math.sqrt(30_000)
    for axis in (2, 3):  # neighbours
        one, other = (np.moveaxis(noise, axis, 0)[part] for part in (slice(1, None), slice(-1)))
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4.5 / math.sqrt(170_000)
    again = floats(changed(given, "noise", 20, seed=1)) - 128
    assert abs(np.corrcoef(again[0].ravel(), flat[0])[0, 1]) < 4.5 / math.sqrt(30_000)


def test_noise_in_parts_is_noise_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = pictures()
    whole = changed(given, "noise", 20)
    monkeypatch.setattr("neocog.explain.still.changes._NUMBERS", 2 * given[0].numel())
    assert torch.equal(changed(given, "noise", 20), whole)


@pytest.mark.parametrize("channels", [1, 3, 2])
@pytest.mark.parametrize("quality", [5, 80])
def test_jpeg_is_pillow_s(channels: int, quality: int) -> None:
    given = pictures(batch=3, channels=channels)
    found = changed(given, "jpeg", quality)
    for got, one in zip(found.numpy(), given.numpy(), strict=True):
        planes = [one.transpose(1, 2, 0)] if channels == 3 else list(one)
        read = []
        for plane in planes:
            file = io.BytesIO()
            Image.fromarray(plane).save(file, "JPEG", quality=quality)
            read.append(np.asarray(Image.open(file)))
        wanted = read[0].transpose(2, 0, 1) if channels == 3 else np.stack(read)
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 2)])
@pytest.mark.parametrize("name", CHANGES)
def test_tiny_pictures_and_empty_batches(name: str, size: tuple[int, int]) -> None:
    tiny = torch.full((2, 1, *size), 77, dtype=torch.uint8)
    for level in CHANGES[name].levels:
        found = changed(tiny, name, level)
        assert found.shape == tiny.shape
        if name not in ("noise", "brightness", "jpeg"):
            assert torch.equal(found, tiny)
        assert changed(tiny[:0], name, level).shape == (0, 1, *size)


def test_the_furthest_shift_leaves_something_to_see() -> None:
    assert [farthest((side, 90)) for side in (1, 4, 8, 25, 28, 224)] == [1, 1, 2, 8, 8, 8]


def test_what_cannot_be_changed_is_refused() -> None:
    with pytest.raises(ConfigError, match="'rotations'") as found:
        changed(pictures(), "rotations", 3)
    assert "rotation" in found.value.hint
    with pytest.raises(ConfigError, match="a jpeg of 1 to 100 quality, found 0"):
        changed(pictures(), "jpeg", 0)
    with pytest.raises(ConfigError, match="found nan"):
        changed(pictures(), "blur", math.nan)
    with pytest.raises(ConfigError, match=r"\(signals\)"):
        changed(torch.zeros(2, 1, 50, dtype=torch.uint8), "noise", 5)
    with pytest.raises(ConfigError, match=r"\(volumes\)"):
        changed(torch.zeros(2, 1, 5, 5, 5, dtype=torch.uint8), "noise", 5)
    with pytest.raises(ConfigError, match="uint8, found 1×1×4×4 of float32"):
        changed(torch.zeros(1, 1, 4, 4), "noise", 5)
    with pytest.raises(ConfigError, match="expected 5 ids"):
        changed(pictures(), "noise", 5, ids=torch.arange(4))
