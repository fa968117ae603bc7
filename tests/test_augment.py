"""Augmentation: each operation against NumPy, SciPy or Pillow, then the promises of the whole."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

from neocog import chance
from neocog.config import AugmentRecipe
from neocog.data import color, mixing, warp
from neocog.data.augment import Augment, contact_sheet, explain, resolve, tiles
from neocog.data.images import Images
from neocog.errors import ConfigError
from neocog.records import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

NUMPY_MODE = {"zero": "constant", "reflect": "reflect", "replicate": "edge"}
SCIPY_MODE = {"zero": "grid-constant", "reflect": "mirror", "replicate": "nearest"}
PHOTO: dict[str, Any] = {
    "channels": 3,
    "size": (128, 128),
    "classes": ("cat", "dog"),
    "kind": "class",
    "uniform": False,
}
THUMB = PHOTO | {"size": (32, 32), "uniform": True}
DIGIT = PHOTO | {"channels": 1, "size": (28, 28), "classes": tuple("0123456789"), "uniform": True}
EVERYTHING = AugmentRecipe(
    flip=0.5,
    flip_vertical=0.5,
    shift=0.2,
    padding="reflect",
    rotate=30.0,
    scale=0.3,
    color=0.2,
    contrast=0.5,
    brightness=0.3,
    blur=1.0,
    noise=0.2,
    cutout=0.3,
    mixup=0.4,
    cutmix=1.0,
)
OFF = AugmentRecipe(flip=0, shift=0, padding="zero", rotate=0, scale=0)


def pictures(count: int, channels: int = 3, size: tuple[int, int] = (20, 14)) -> Tensor:
    """Random uint8 pictures in channels_last memory."""
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, *size, channels), generator=generator)
    return pixels.to(torch.uint8).permute(0, 3, 1, 2)


def batch_of(images: Tensor, ids: Tensor | None = None, targets: Tensor | None = None) -> Batch:
    count = len(images)
    return Batch(
        images=images,
        targets=torch.arange(count) % 10 if targets is None else targets,
        weights=torch.ones(count),
        valid=torch.ones(count, dtype=torch.bool),
        ids=torch.arange(count) if ids is None else ids,
    )


def augment(recipe: AugmentRecipe, **changes: Any) -> Augment:
    mean = (0.4, 0.5, 0.6)
    return Augment(replace(recipe, **changes), seed=3, classes=10, kind="class", mean=mean)


# Geometry


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([1, 3]),
    padding=st.sampled_from(["zero", "reflect", "replicate"]),
    floating=st.booleans(),
    runs=st.sampled_from([("cpu",), ()]),
)
def test_shift_and_flip_equal_pad_and_slice(
    data: st.DataObject,
    size: tuple[int, int],
    channels: int,
    padding: Any,
    floating: bool,
    runs: tuple[str, ...],
) -> None:
    reach = tuple(data.draw(st.integers(0, side - 1)) for side in size)
    images = pictures(4, channels, size)
    if floating:
        images = images.float()
    moves = [[data.draw(st.integers(-far, far)) for _ in range(4)] for far in reach]
    flips = [[data.draw(st.booleans()) for _ in range(4)] for _ in range(2)]
    with pytest.MonkeyPatch.context() as devices:
        devices.setattr(warp, "RUNS", runs)
        result = warp.shift_flip(
            images,
            torch.tensor(moves[0]),
            torch.tensor(moves[1]),
            flip=torch.tensor(flips[0]),
            flip_vertical=torch.tensor(flips[1]),
            padding=padding,
            reach=(reach[0], reach[1]),
        )
    assert result.dtype == images.dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    widths = ((0, 0), (reach[0],) * 2, (reach[1],) * 2)
    for i in range(4):
        picture = images[i].numpy()
        if flips[0][i]:
            picture = np.flip(picture, 2)
        if flips[1][i]:
            picture = np.flip(picture, 1)
        padded = np.pad(picture, widths, mode=NUMPY_MODE[padding])  # type: ignore[call-overload]
        top, left = reach[0] - moves[0][i], reach[1] - moves[1][i]
        expected = padded[:, top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(result[i].numpy(), expected)


def matrices(size: tuple[int, int], count: int = 1, **changes: Tensor) -> Tensor:
    still = {
        "degrees": torch.zeros(count),
        "zoom": torch.ones(count),
        "down": torch.zeros(count, dtype=torch.int64),
        "right": torch.zeros(count, dtype=torch.int64),
        "flip": torch.zeros(count, dtype=torch.bool),
        "flip_vertical": torch.zeros(count, dtype=torch.bool),
    }
    return warp.affine(size, **(still | changes))


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (20, 14), (7, 1), (1, 1), (225, 37)])
@pytest.mark.parametrize("padding", ["zero", "reflect", "replicate"])
def test_warp_by_whole_pixels_is_bit_for_bit_the_shift(size: tuple[int, int], padding: Any) -> None:
    images = pictures(4, size=size).float() + 0.1
    reach = (size[0] // 3, size[1] // 3)
    flips = {
        "flip": torch.tensor([False, True, False, True]),
        "flip_vertical": torch.tensor([False, False, True, True]),
    }
    for far in ((0, 0), reach):
        down = torch.tensor([-1, 1, 0, 1]) * far[0]
        right = torch.tensor([1, 0, -1, 1]) * far[1]
        moved = matrices(size, 4, down=down, right=right, **flips)
        result = warp.warp(images, moved, padding)
        expected = warp.shift_flip(images, down, right, **flips, padding=padding, reach=far)
        assert torch.equal(result, expected)
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [8, 28, 33])
@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_quarter_turns_are_anticlockwise(side: int, turns: int) -> None:
    images = pictures(2, size=(side, side)).float()
    turned = matrices((side, side), 2, degrees=torch.full((2,), 90.0 * turns))
    expected = torch.rot90(images, turns, (2, 3))
    assert torch.allclose(warp.warp(images, turned), expected, atol=5e-3, rtol=0)


def smooth(size: tuple[int, int]) -> NDArray[np.float32]:
    """A picture without jumps, so that rounding of coordinates stays small in its values."""
    rng = np.random.default_rng(5)
    return ndimage.gaussian_filter(rng.uniform(0, 255, size), 1.0).astype(np.float32)


@pytest.mark.parametrize("padding", ["zero", "reflect", "replicate"])
@pytest.mark.parametrize(
    ("degrees", "zoom", "down", "right"),
    [(30, 1, 0, 0), (0, 1.3, 0, 0), (0, 0.5, 0, 0), (-77, 0.8, 3, -2), (200, 0.3, -5, 4)],
)
def test_warp_against_scipy(
    padding: Any, degrees: float, zoom: float, down: int, right: int
) -> None:
    picture = smooth((19, 26))
    moved = matrices(
        picture.shape,
        degrees=torch.tensor([degrees]).float(),
        zoom=torch.tensor([zoom]).float(),
        down=torch.tensor([down]),
        right=torch.tensor([right]),
    )
    result = warp.warp(torch.from_numpy(picture)[None, None], moved, padding)[0, 0].numpy()
    # Rows before columns, y down: the source of an anticlockwise turn.
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / zoom
    centre = (np.array(picture.shape) - 1) / 2
    offset = centre - matrix @ (centre + np.array([down, right]))
    expected = ndimage.affine_transform(
        picture.astype(float), matrix, offset, order=1, mode=SCIPY_MODE[padding]
    )
    np.testing.assert_allclose(result, expected, atol=5e-3)


def test_warp_turns_like_pillow() -> None:
    picture = smooth((40, 40))
    turned = matrices((40, 40), degrees=torch.tensor([25.0]))
    result = warp.warp(torch.from_numpy(picture)[None, None], turned)[0, 0].numpy()
    pillow = np.asarray(Image.fromarray(picture).rotate(25, Image.Resampling.BILINEAR))
    np.testing.assert_allclose(result[10:30, 10:30], pillow[10:30, 10:30], atol=0.05)


def test_zoom_of_a_ramp() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    result = warp.warp(ramp, matrices((16, 16), zoom=torch.tensor([2.0])), "replicate")
    expected = 7.5 + (torch.arange(16.0) - 7.5) / 2
    assert torch.allclose(result, expected.expand(1, 1, 16, 16), atol=1e-5)


# Values


@pytest.mark.parametrize("size", [(20, 14), (3, 5)])
def test_blur_against_scipy(size: tuple[int, int]) -> None:
    images = pictures(4, size=size).float()
    sigmas = [0.0, 0.3, 1.0, 1.6]
    result = color.blur(images, torch.tensor(sigmas), 1.6)
    assert torch.equal(result[0], images[0])
    assert result.is_contiguous(memory_format=torch.channels_last)
    for i, sigma in enumerate(sigmas[1:], start=1):
        expected = ndimage.gaussian_filter(
            images[i].numpy().astype(float), sigma, axes=(1, 2), mode="nearest", radius=5
        )
        np.testing.assert_allclose(result[i].numpy(), expected, atol=1e-3)


def test_recolor_against_numpy() -> None:
    images = pictures(3).float()
    contrast, shift = torch.tensor([0.0, 1.0, 1.5]), torch.tensor([[9.0, 0, -4]] * 3)
    result = color.recolor(images, contrast, shift).numpy()
    for i in range(3):
        picture = images[i].numpy().astype(float)
        middle = picture.mean()
        expected = middle + float(contrast[i]) * (picture - middle)
        expected += shift[i].numpy()[:, None, None]
        np.testing.assert_allclose(result[i], expected, atol=1e-3)


def test_noise_is_white_and_has_the_strength_asked_for() -> None:
    images = torch.full((3, 3, 64, 64), 100.0).to(memory_format=torch.channels_last)
    sigma = torch.tensor([0.0, 2.0, 30.0])
    noisy = color.add_noise(images, sigma, 7, torch.tensor([5, 6, 7]))
    assert torch.equal(noisy[0], images[0])
    assert noisy.is_contiguous(memory_format=torch.channels_last)
    for i in (1, 2):
        noise = ((noisy[i] - 100) / sigma[i]).numpy()
        assert stats.kstest(noise.ravel(), stats.norm.cdf).pvalue > 1e-3
        for one, other in (
            (noise[:, 1:], noise[:, :-1]),
            (noise[:, :, 1:], noise[:, :, :-1]),
            (noise[1:], noise[:-1]),
        ):
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.04


def test_values_are_clamped_and_strengths_are_spread() -> None:
    images = torch.full((2000, 3, 2, 2), 128, dtype=torch.uint8)
    batch = batch_of(images)
    bright = augment(OFF, brightness=0.25)(batch, 0).images[:, 0, 0, 0].numpy()
    assert stats.kstest(bright, stats.uniform(128 - 63.75, 127.5).cdf).pvalue > 1e-3
    tinted = augment(OFF, color=0.25)(batch, 0).images[:, :, 0, 0].numpy()
    assert np.abs(np.corrcoef(tinted, rowvar=False) - np.eye(3)).max() < 0.08
    strong = augment(OFF, brightness=2.0, noise=1.0)(batch, 0).images
    assert float(strong.min()) == 0
    assert float(strong.max()) == 255


def test_color_leaves_grey_pictures_alone() -> None:
    batch = batch_of(pictures(5, channels=1))
    assert torch.equal(augment(OFF, color=0.5)(batch, 0).images, batch.images)


# Squares and pairs


def test_cutout_blanks_one_square_with_the_mean() -> None:
    images = pictures(300, size=(16, 12)).float()
    fill = torch.tensor([1000.0, 2000.0, 3000.0])
    result = mixing.cutout(images, torch.arange(300), 9, 0.25, fill)
    blank = (result == fill[None, :, None, None]).all(1).numpy()
    assert torch.equal(result[:, 0][~torch.from_numpy(blank)], images[:, 0][~blank])
    for mask in blank:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns) > 0
        assert max(len(rows), len(columns)) <= 3
        assert np.ptp(rows) == len(rows) - 1
        assert np.ptp(columns) == len(columns) - 1


def test_cutout_lies_anywhere_with_its_centre_inside() -> None:
    count, size = 6000, (8, 6)
    result = mixing.cutout(torch.ones(count, 1, *size), torch.arange(count), 9, 0.5, torch.zeros(1))
    # A pixel is blank when the centre is one of its 3×3 neighbours, or of those that there are.
    neighbours = ndimage.convolve(np.ones(size), np.ones((3, 3)), mode="constant")
    expected = neighbours / (size[0] * size[1])
    error = np.abs((result[:, 0] == 0).numpy().mean(0) - expected)
    assert (error < 4.5 * np.sqrt(expected * (1 - expected) / count)).all()


@settings(deadline=None)
@given(st.sets(st.integers(0, 2**31), min_size=1, max_size=20), st.randoms())
def test_partners_form_one_cycle_whatever_the_order(chosen: set[int], random: Any) -> None:
    ids = sorted(chosen)
    row = mixing.partners(torch.tensor(ids), 4).tolist()
    seen, place = [], 0
    for _ in ids:
        seen.append(place)
        place = row[place]
    assert place == 0
    assert sorted(seen) == list(range(len(ids)))
    mixed = random.sample(ids, len(ids))
    again = mixing.partners(torch.tensor(mixed), 4).tolist()
    pairs = {ids[i]: ids[j] for i, j in enumerate(row)}
    assert {mixed[i]: mixed[j] for i, j in enumerate(again)} == pairs


def constant(count: int) -> Batch:
    """Pictures that are one value all over: a mix can be read off."""
    values = torch.arange(count, dtype=torch.float32)[:, None, None, None]
    return batch_of(values.expand(count, 3, 16, 16).contiguous(), targets=torch.arange(count))


def test_mixup_mixes_pictures_and_targets_alike() -> None:
    batch = constant(64)
    mixed = mixing.mix_pairs(batch, mixup=0.7, cutmix=0, classes=64, key=1)
    assert mixed.targets.shape == (64, 64)
    assert torch.allclose(mixed.targets.sum(1), torch.ones(64))
    expected = mixed.targets @ torch.arange(64.0)
    assert torch.allclose(mixed.images.amin((1, 2, 3)), expected, atol=1e-3)
    assert torch.allclose(mixed.images.amax((1, 2, 3)), expected, atol=1e-3)
    assert bool((mixed.targets.amax(1) < 1).any())
    assert torch.equal(mixed.weights, batch.weights)


def test_cutmix_pastes_a_box_of_the_share_in_the_target() -> None:
    mixed = mixing.mix_pairs(constant(64), mixup=0, cutmix=1.0, classes=64, key=1)
    partner = mixing.partners(torch.arange(64), chance.key(1, "partner"))
    for i in range(64):
        picture = mixed.images[i, 0].numpy()
        pasted = picture == float(partner[i])
        assert ((picture == i) | pasted).all()
        rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
        assert pasted.sum() == rows * columns
        assert float(mixed.targets[i, i]) == pytest.approx(1 - pasted.mean(), abs=1e-6)
        assert float(mixed.targets[i, partner[i]]) == pytest.approx(pasted.mean(), abs=1e-6)


def test_both_share_the_samples_evenly() -> None:
    mixed = mixing.mix_pairs(constant(800), mixup=1.0, cutmix=1.0, classes=800, key=2)
    pictures = mixed.images.numpy()
    pasted = (pictures == np.floor(pictures)).all((1, 2, 3))
    assert 330 < pasted.sum() < 470
    pooled = torch.from_numpy(pictures).mean((1, 2, 3))
    assert torch.allclose(pooled, mixed.targets @ torch.arange(800.0), atol=2e-2)


def test_mixing_gives_the_loss_that_both_samples_deserve() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = replace(constant(40), weights=torch.rand(40, generator=generator))
    batch.weights[::5] = 0
    plain = mixing.mix_pairs(
        replace(batch, weights=torch.ones(40)), mixup=1, cutmix=0, classes=40, key=3
    )
    mixed = mixing.mix_pairs(batch, mixup=1, cutmix=0, classes=40, key=3)
    scores = torch.randn(40, 40, generator=generator)
    losses = mixed.weights * F.cross_entropy(scores, mixed.targets, reduction="none")
    # The definition: each class's share in the picture, times the weight of the sample it is from.
    each = -torch.log_softmax(scores, 1)
    expected = (plain.targets * batch.weights[None, :] * each).sum(1)
    assert torch.allclose(losses, expected, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 4])
def test_labels_and_numbers_mix_linearly(columns: int) -> None:
    targets = torch.arange(64.0)[:, None].expand(64, columns)
    batch = replace(constant(64), targets=targets)
    mixed = mixing.mix_pairs(batch, mixup=1.0, cutmix=0, classes=columns, key=1)
    assert mixed.targets.shape == (64, columns)
    assert torch.allclose(mixed.targets[:, 0], mixed.images[:, 0, 0, 0], atol=1e-3)


def test_a_batch_of_one_is_its_own_partner() -> None:
    one = mixing.mix_pairs(constant(1), mixup=1.0, cutmix=1.0, classes=3, key=1)
    assert torch.equal(one.images, constant(1).images)
    assert one.targets.tolist() == [[1, 0, 0]]


# The whole


def test_a_sample_is_treated_alike_in_any_batch() -> None:
    recipe = replace(EVERYTHING, mixup=0, cutmix=0)
    images = pictures(40, size=(24, 20))
    whole = augment(recipe)(batch_of(images), 2).images
    some = torch.tensor([31, 4, 4, 17])
    part = augment(recipe)(batch_of(images[some], some), 2).images
    assert torch.equal(part, whole[some])


# Two say how others act and do nothing alone.
ACTING = sorted(set(AugmentRecipe.__dataclass_fields__) - {"padding", "alternate"})


def test_flipping_by_turns_shows_every_picture_both_ways() -> None:
    images = pictures(400, size=(6, 6))
    active = augment(OFF, flip=0.5, alternate=True)
    mirrored = []
    for epoch in range(4):
        seen = active(batch_of(images), epoch).images
        flipped = (seen == images.flip(-1)).flatten(1).all(1)
        assert (flipped | (seen == images).flatten(1).all(1)).all()
        mirrored.append(flipped)
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2])
    assert 150 < int(mirrored[0].sum()) < 250
    assert torch.equal(augment(OFF, alternate=True)(batch_of(images), 1).images, images)


@pytest.mark.parametrize("name", ACTING)
def test_each_setting_acts_and_follows_seed_and_epoch(name: str) -> None:
    batch = batch_of(pictures(12, size=(24, 20)))
    before = batch.images.clone()
    value = {"rotate": 30.0, "blur": 2.0, "mixup": 1.0, "cutmix": 1.0}.get(name, 0.5)
    active = augment(OFF, **{name: value})
    first = active(batch, 0)
    assert torch.equal(batch.images, before)
    assert not torch.equal(first.images, before)
    assert torch.equal(first.images, active(batch, 0).images)
    assert not torch.equal(first.images, active(batch, 1).images)
    other = Augment(active.recipe, seed=4, classes=10, kind="class", mean=(0.4, 0.5, 0.6))
    assert not torch.equal(first.images, other(batch, 0).images)
    cheap = name in ("flip", "flip_vertical", "shift")
    assert first.images.dtype == (torch.uint8 if cheap else torch.float32)
    assert first.images.is_contiguous(memory_format=torch.channels_last)
    assert first.targets.dtype == (torch.float32 if "mix" in name else torch.int64)
    assert name in repr(active)


def test_nothing_on_changes_nothing() -> None:
    batch = batch_of(pictures(5))
    result = augment(OFF)(batch, 0)
    assert torch.equal(result.images, batch.images)
    assert result.images.dtype == torch.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once_stays_in_range(channels: int) -> None:
    batch = batch_of(pictures(32, channels, (33, 20)))
    active = Augment(EVERYTHING, seed=0, classes=10, kind="class", mean=(0.5,) * channels)
    result = active(batch, 0)
    assert result.images.shape == batch.images.shape
    assert result.images.dtype == torch.float32
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 255
    assert bool(result.images.isfinite().all())
    assert torch.allclose(result.targets.sum(1), torch.ones(32))


def test_flips_and_shifts_come_as_often_as_asked() -> None:
    # One bright pixel in the middle of the left edge tells flip and shift.
    images = torch.zeros(6000, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 0] = 255
    flipped = augment(OFF, flip=0.3)(batch_of(images), 0).images[:, 0, 4, 8] == 255
    assert stats.binomtest(int(flipped.sum()), 6000, 0.3).pvalue > 1e-3
    images = images.roll(4, 3)
    moved = augment(OFF, shift=0.25)(batch_of(images), 0).images[:, 0].flatten(1).argmax(1)
    counts = torch.bincount(moved, minlength=81).view(9, 9)[2:7, 2:7]
    assert int(counts.sum()) == 6000
    assert stats.chisquare(counts.flatten()).pvalue > 1e-3


def test_windows_stay_inside_and_reach_every_place() -> None:
    sizes = torch.tensor([[10, 14], [8, 8], [12, 8]]).repeat(2000, 1)
    tops, lefts = augment(OFF).windows(sizes, (8, 8), torch.arange(6000), 0)
    for kind, (rows, columns) in enumerate([(3, 7), (1, 1), (5, 1)]):
        assert len(torch.bincount(tops[kind::3])) == rows
        assert len(torch.bincount(lefts[kind::3])) == columns
    assert stats.chisquare(torch.bincount(tops[0::3] * 7 + lefts[0::3])).pvalue > 1e-3


def test_windows_follow_seed_and_epoch() -> None:
    sizes, ids = torch.full((50, 2), 40), torch.arange(50)
    first = augment(OFF).windows(sizes, (8, 8), ids, 0)
    other = Augment(OFF, seed=4, classes=10, kind="class", mean=(0.5,) * 3)
    for tops, lefts in (
        augment(OFF).windows(sizes, (8, 8), ids, 1),
        other.windows(sizes, (8, 8), ids, 0),
        first[::-1],
    ):
        assert not torch.equal(first[0], tops)
        assert not torch.equal(first[1], lefts)


def test_turns_and_zooms_are_spread_as_asked() -> None:
    # On a ramp the two slopes of the result give the angle and the zoom.
    ramp = (torch.arange(17) * 8).to(torch.uint8).expand(3000, 1, 17, 17)
    recipe = replace(OFF, padding="replicate", rotate=40.0, scale=0.5)
    result = augment(recipe)(batch_of(ramp), 0).images[:, 0].double() / 8
    across = (result[:, 8, 9] - result[:, 8, 7]).numpy() / 2
    down = (result[:, 9, 8] - result[:, 7, 8]).numpy() / 2
    degrees = np.rad2deg(np.arctan2(-down, across))
    assert stats.kstest(degrees, stats.uniform(-40, 80).cdf).pvalue > 1e-3
    zoom = -np.log(np.hypot(across, down)) / np.log(1.5)
    assert stats.kstest(zoom, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(stats.pearsonr(degrees, zoom).statistic) < 0.06


def test_noise_has_its_strength_in_units_of_one() -> None:
    images = torch.full((800, 3, 8, 8), 128, dtype=torch.uint8)
    noise = augment(OFF, noise=0.1)(batch_of(images), 0).images - 128
    strengths = noise.flatten(1).std(1).numpy() / 255
    assert stats.kstest(strengths, stats.uniform(0, 0.1).cdf).pvalue > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_draws_and_does_the_same() -> None:
    batch = batch_of(pictures(64, size=(32, 32)))
    there = Batch(**{name: getattr(batch, name).cuda() for name in Batch.__slots__})
    for recipe in (EVERYTHING, resolve(AugmentRecipe(), **THUMB)):
        here, moved = augment(recipe)(batch, 1), augment(recipe)(there, 1)
        difference = (here.images.float() - moved.images.cpu().float()).abs()
        assert float(difference.mean()) < 1e-2
        assert torch.allclose(here.targets.float(), moved.targets.cpu().float(), atol=1e-4)


# Rules


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (THUMB, (0.5, 0.125, "reflect", 0, 0)),
        (PHOTO, (0.5, 0, "reflect", 0, 0.2)),
        (PHOTO | {"channels": 1}, (0.5, 0, "zero", 0, 0.2)),
        (DIGIT, (0, 0.125, "zero", 0, 0)),
        (DIGIT | {"classes": ("coat", "shoe")}, (0, 0.125, "zero", 0, 0)),
        (THUMB | {"classes": ("a", "b", "10")}, (0, 0.125, "reflect", 0, 0)),
        (THUMB | {"classes": ("-1.5", "2")}, (0, 0.125, "reflect", 0, 0)),
        (THUMB | {"classes": ("a", "dog")}, (0.5, 0.125, "reflect", 0, 0)),
        (THUMB | {"kind": "numbers", "classes": ("age",)}, (0, 0.125, "reflect", 0, 0)),
        (THUMB | {"kind": "labels"}, (0.5, 0.125, "reflect", 0, 0)),
        (THUMB | {"uniform": False}, (0.5, 0, "reflect", 0, 0)),
    ],
)
def test_rules(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = resolve(AugmentRecipe(), **facts)
    assert (found.flip, found.shift, found.padding, found.rotate, found.scale) == expected
    assert resolve(found, **facts) == found
    Augment(found, seed=0, classes=2, kind=facts["kind"], mean=(0.5,) * facts["channels"])


def test_what_is_set_stays() -> None:
    recipe = AugmentRecipe(flip=0.25, shift=0.0, padding="replicate", rotate=7, scale=0.1)
    assert resolve(recipe, **DIGIT) == recipe
    lines = explain(recipe, **DIGIT)
    assert lines[0] == "flipped left to right with probability 0.25: as set"
    assert "not shifted: as set" in lines


def test_reasons_say_what_is_done_and_how_to_change_it() -> None:
    text = "\n".join(explain(resolve(AugmentRecipe(), **DIGIT), **DIGIT))
    assert "not flipped: class names are single characters or numbers" in text
    assert "--set augment.flip=0.5" in text
    assert "up to 4 pixels down or up and 4 across" in text
    numbers = THUMB | {"kind": "numbers"}
    assert "--set augment.shift=0" in "\n".join(
        explain(resolve(AugmentRecipe(), **numbers), **numbers)
    )
    everything = explain(EVERYTHING, **PHOTO)
    for word in ("zoomed", "turned", "top to bottom", "cutmix 1", "blur 1"):
        assert any(word in line for line in everything)


def test_an_open_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match="flip is not decided"):
        Augment(AugmentRecipe(), seed=0, classes=2, kind="class", mean=(0.5,))


# Contact sheet


def data_of(count: int, channels: int) -> Any:
    """What the contact sheet needs of a data set: 16×20 pictures, the training part backwards."""
    pixels = pictures(count, channels, (16, 20))
    return SimpleNamespace(
        images=Images.of(pixels.permute(0, 2, 3, 1).numpy()),
        targets=torch.zeros(count, dtype=torch.int64),
        weights=torch.ones(count),
        splits={"train": torch.arange(count).flip(0)},
        size=(16, 20),
        masks=None,
        whole=False,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet_shows_originals_then_epochs(channels: int) -> None:
    data = data_of(80, channels)
    active = Augment(
        resolve(AugmentRecipe(), **(THUMB | {"channels": channels, "classes": ("cat", "dog")})),
        seed=0,
        classes=2,
        kind="class",
        mean=(0.5,) * channels,
    )
    sheet = contact_sheet(data, active, epoch=1)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (4 * 64 + 3 * 2, 8 * 80 + 7 * 2, 3)
    plain = tiles(data, active, epoch=1)
    assert plain[0][0].shape == (16, 20, channels)
    for column in range(8):
        id_ = int(data.splits["train"][column * 10])
        original = data.images.picture(id_)
        np.testing.assert_array_equal(plain[0][column], original)
        shown = sheet[:64, column * 82 : column * 82 + 80]
        np.testing.assert_array_equal(shown[::4, ::4], np.broadcast_to(original, (16, 20, 3)))
    ids = data.splits["train"][::10]
    seen = active(batch_of(data.images.gather(ids, data.size), ids), 2).images
    np.testing.assert_array_equal(np.stack(plain[2]), seen.permute(0, 2, 3, 1).numpy())


def test_contact_sheet_of_few_samples_with_everything() -> None:
    sheet = contact_sheet(data_of(3, 3), augment(EVERYTHING))
    assert sheet.shape == (4 * 64 + 3 * 2, 3 * 80 + 2 * 2, 3)
