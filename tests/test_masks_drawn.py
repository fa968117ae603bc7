"""Masks as pictures: the colours stay apart, overlays mix, index PNGs give back their classes."""

from __future__ import annotations

import colorsys
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neocog import plots
from neocog.errors import RunError
from neocog.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COLOURS = np.array([(200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)
# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB: another model of colour
# blindness than the palette was made with.
BLIND = {
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def cielab(colours: NDArray[np.uint8], seen: NDArray[np.float64] | None = None) -> NDArray[Any]:
    """CIE 1976 L*a*b* under D65, by the formulas of CIE 15; `seen` maps linear RGB."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    if seen is not None:
        linear = np.clip(linear @ seen.T, 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def closest(colours: NDArray[np.uint8], seen: NDArray[np.float64] | None = None) -> float:
    """The least ΔE*ab (1976) between two colours."""
    lab = cielab(colours, seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(apart[~np.eye(len(lab), dtype=bool)].min())


def test_the_independent_space_knows_published_values() -> None:
    """sRGB red, D65, in CIELAB: 53.2, 80.1, 67.2 (Lindbloom)."""
    red = cielab(np.array([(255, 0, 0)], np.uint8))[0]
    np.testing.assert_allclose(red, (53.2, 80.1, 67.2), atol=0.1)


def test_a_dozen_colours_stay_apart_for_all_readers() -> None:
    grounds = np.array([(0, 0, 0), (255, 255, 255), plots.VOID_COLOUR], np.uint8)
    dozen = np.concatenate([plots.palette(12), grounds])
    # 2.3 is what is just noticed; across a page it takes far more.
    assert closest(dozen) > 18
    assert closest(plots.palette(12)) > 25
    for name, seen in BLIND.items():
        assert closest(plots.palette(12), seen) > 18, name
        assert closest(dozen, seen) > 10, name
    # A wheel of hues fails: the test is worth something.
    wheel = [colorsys.hsv_to_rgb(step / 12, 0.8, 0.8) for step in range(12)]
    hues = (255 * np.array(wheel)).astype(np.uint8)
    assert max(closest(hues, seen) for seen in BLIND.values()) < 10


def test_many_colours_are_still_told_apart() -> None:
    assert closest(plots.palette(21)) > 14
    assert closest(plots.palette(64)) > 8
    everything = plots.palette(255)
    assert len({tuple(colour) for colour in everything.tolist()}) == 255
    assert closest(everything) > 2.3
    assert plots.VOID_COLOUR not in {tuple(colour) for colour in everything.tolist()}


def test_a_class_has_one_colour_whatever_the_number_of_classes() -> None:
    everything = plots.palette(255)
    assert (everything.dtype, everything.shape) == (np.uint8, (255, 3))
    for k in (0, 1, 11, 150):
        np.testing.assert_array_equal(plots.palette(k), everything[:k])
    everything[:] = 0  # a caller's copy
    assert plots.palette(255).any()
    for k in (-1, 256):
        with pytest.raises(ValueError, match="expected 0 to 255 classes"):
            plots.palette(k)


def test_an_overlay_mixes_as_computed_by_hand() -> None:
    picture = np.full((4, 6, 3), 100, np.uint8)
    mask = np.array([[0, 0, 0, 0, 1, 1]] * 3 + [[VOID] * 6], np.uint8)
    before = picture.copy(), mask.copy()
    shown = plots.overlay(picture, mask, COLOURS, 0.5)
    assert shown.shape == (4, 6, 3)
    # Half the picture, half the colour; beside another class a quarter and three quarters.
    np.testing.assert_array_equal(shown[0, 0], (150, 50, 50))
    np.testing.assert_array_equal(shown[0, 3], (175, 25, 25))
    np.testing.assert_array_equal(shown[0, 4], (25, 175, 25))
    np.testing.assert_array_equal(shown[2, 0], (175, 25, 25))  # void is another class
    np.testing.assert_array_equal(shown[3], picture[3])  # and is left as it is
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_the_ends_of_strength() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (9, 7, 1), np.uint8)
    mask = rng.integers(0, 3, (9, 7), np.uint8)
    grey = np.repeat(picture, 3, axis=2)
    np.testing.assert_array_equal(plots.overlay(picture, mask, COLOURS, 0), grey)
    np.testing.assert_array_equal(plots.overlay(picture, mask, COLOURS, 1), COLOURS[mask])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_an_overlay_is_the_exact_mean_to_within_one(seed: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (6, 5, 3), np.uint8)
    shown = plots.overlay(picture, np.full((6, 5), 2, np.uint8), COLOURS, strength).astype(float)
    exact = (1 - strength) * picture + strength * COLOURS[2].astype(float)
    assert np.abs(shown - exact).max() <= 1.0


def test_mistakes_are_red_and_void_is_striped() -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (60, 80, 3), np.uint8)
    truth = rng.integers(0, 3, (60, 80), np.uint8)
    truth[:, 70:] = VOID
    answer = rng.integers(0, 3, (60, 80), np.uint8)
    shown = plots.mistaken(picture, truth, answer).astype(int)
    red = shown[..., 0] - shown[..., 1:].max(axis=2)
    wrong = (truth != answer) & (truth != VOID)
    assert (red[wrong] > 100).all()
    assert (red[~wrong] == 0).all()
    stripes = shown[:, 70:, 0]
    assert set(stripes.ravel().tolist()) == {96, 160}
    assert 0.3 < (stripes == 96).mean() < 0.7


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 255))
def test_an_index_png_gives_its_classes_back(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, k, tuple(rng.integers(1, 30, 2)), np.uint8)
    mask[rng.random(mask.shape) < 0.2] = VOID
    colours = plots.palette(k)
    found = Image.open(io.BytesIO(plots.index_png(mask, colours)))
    assert found.mode == "P"
    np.testing.assert_array_equal(np.asarray(found), mask)
    painted = np.concatenate([colours, np.full((256 - k, 3), 128, np.uint8)])[mask]
    np.testing.assert_array_equal(np.asarray(found.convert("RGB")), painted)


def test_masks_and_overlays_are_written_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    mask = rng.integers(0, 3, (40, 50), np.uint8)
    picture = rng.integers(0, 256, (40, 50, 3), np.uint8)
    path = plots.write_mask(tmp_path / "new" / "mask.png", mask, COLOURS)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), mask)
    path = plots.write_overlay(tmp_path / "new" / "overlay.png", picture, mask, COLOURS, 0.4)
    expected = plots.overlay(picture, mask, COLOURS, 0.4)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["mask.png", "overlay.png"]
    with pytest.raises(RunError, match="cannot write"):
        plots.write_mask(path / "below a file.png", mask, COLOURS)


PICTURE, MASK = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plots.overlay(PICTURE, MASK, COLOURS, 1.5), "strength"),
        (lambda: plots.overlay(PICTURE, MASK[:3], COLOURS), "a mask of 4×5"),
        (lambda: plots.overlay(PICTURE[..., :2], MASK, COLOURS), "a picture of H×W×1 or H×W×3"),
        (lambda: plots.overlay(PICTURE, MASK + 3, COLOURS), "classes below 3, found 3"),
        (lambda: plots.mistaken(PICTURE, MASK, MASK.T), "a mask of 4×5"),
        (lambda: plots.index_png(MASK.astype(int), COLOURS), "H×W uint8"),
        (lambda: plots.index_png(MASK + 7, COLOURS), "classes below 3, found 7"),
        (lambda: plots.index_png(MASK, COLOURS[:, :2]), "colours of K×3"),
    ],
)
def test_what_is_no_mask_is_refused(call: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()  # type: ignore[operator]
