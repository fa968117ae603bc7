"""Signals and volumes: from an .npz through train, eval, predict, resume and plan."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image
from torch import nn

import neocog
from neocog.bundle import Bundle
from neocog.cli import cli
from neocog.config import AugmentRecipe, DataRecipe, Recipe
from neocog.data import dataset, sources
from neocog.data.augment import Augment, resolve
from neocog.data.faces import faces
from neocog.data.images import Images
from neocog.data.ranks import moments, rows
from neocog.data.resident import ResidentImages
from neocog.data.samples import Part, Source
from neocog.data.scan import scan
from neocog.data.warp import shift_flip_axes
from neocog.engine import checkpoint
from neocog.errors import ConfigError, DataError, RunError
from neocog.layers import Fit, Normalize, Predictor
from neocog.models.catalog import CATALOG, build
from neocog.records import Batch, InputSpec
from neocog.run import Run, open_run
from neocog.settings import apply_settings, from_dict
from neocog.verbs.console import Console
from neocog.verbs.plan import plan, size_of
from neocog.verbs.train import fit, resume

if TYPE_CHECKING:
    from pathlib import Path

RANKS = {1: (48,), 2: (32, 32), 3: (16, 32, 16)}
FULL = {"uint8": 255, "int16": 32768, "float32": 1}


def numbers(*shape: int, kind: str = "float32", seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    if kind == "float32":
        return chance.normal(size=shape).astype(np.float32)
    low, high = (0, 256) if kind == "uint8" else (-32768, 32768)
    return chance.integers(low, high, shape).astype(kind)


def save(folder: Path, name: str = "set.npz", **arrays: Any) -> str:
    np.savez(folder / name, **arrays)
    return str(folder / name)


def load(source: str, **settings: Any) -> dataset.Dataset:
    return dataset.load(DataRecipe(**{"source": source, "val": 0.0, **settings}))


# --- Reading --------------------------------------------------------------------------------------

Y = np.arange(6) % 2


@pytest.mark.parametrize(
    ("shape", "settings", "dims", "moved"),
    [
        ((6, 40), {"dims": 1}, None, (6, 40, 1)),
        ((6, 40, 2), {"dims": 1}, None, None),
        ((6, 2, 40), {"dims": 1}, None, (6, 40, 2)),
        ((6, 40, 2), {}, 1, None),
        ((6, 5, 4), {"dims": 1}, None, "channels=4"),
        ((6, 5, 6, 7), {}, 3, (6, 5, 6, 7, 1)),
        ((6, 8, 8, 8, 2), {}, None, None),
        ((6, 2, 8, 8, 8), {}, None, (6, 8, 8, 8, 2)),
    ],
)
def test_layouts(tmp_path: Path, shape: Any, settings: Any, dims: Any, moved: Any) -> None:
    """N×L, channels last and channels first; what `dims` says in the file or in the recipe."""
    x = numbers(*shape)
    channels = 4 if moved == "channels=4" else None
    source = sources.read(save(tmp_path, x=x, y=Y, **settings), dims=dims, channels=channels)
    found = source.parts[0].pixels
    assert found is not None
    wanted = x
    if isinstance(moved, tuple):
        wanted = x[..., None] if len(moved) > len(shape) else np.moveaxis(x, 1, -1)
    assert np.array_equal(found, wanted)
    assert not source.faults


@pytest.mark.parametrize(
    ("x", "kind", "factor"),
    [
        (numbers(6, 40, kind="uint8"), "uint8", 1),
        (numbers(6, 40, kind="int16"), "int16", 1),
        (numbers(6, 40), "float32", 1),
        (numbers(6, 40).astype(np.float64), "float32", 1),
        (numbers(6, 40).astype(np.float16), "float32", 1),
        (numbers(6, 40) > 0, "uint8", 255),
    ],
    ids=["uint8", "int16", "float32", "float64", "float16", "bool"],
)
def test_values_are_kept(tmp_path: Path, x: np.ndarray, kind: str, factor: int) -> None:
    """No value is rounded to eight bits: what comes out of a batch is what was saved."""
    data = load(save(tmp_path, x=x, y=Y, dims=1))
    assert (data.size, data.channels) == ((40,), 1)
    found = data.images.gather(torch.arange(6), (40,))
    assert str(found.dtype) == f"torch.{kind}"
    assert np.array_equal(found.numpy()[:, 0], x.astype(kind) * np.array(factor, kind))
    assert "6 signals, 40×1" in repr(data)


def test_a_second_opening_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, x=numbers(6, 2, 6, 5, 4), y=Y)
    first = load(path)
    assert (first.size, first.channels) == ((6, 5, 4), 2)
    monkeypatch.setattr(sources, "read", None)
    for again in (load(path), load(path, size=first.size, channels=2)):  # as a manifest asks
        ids = torch.tensor([5, 0, 3])
        same = again.images.gather(ids, again.size), first.images.gather(ids, first.size)
        assert torch.equal(*same)
        assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("arrays", "settings", "message", "hint"),
    [
        ({"x": numbers(6, 40)}, {}, "expected N×H×W", "--set data.dims=1"),
        ({"x": numbers(6, 8, 7), "dims": 1}, {}, "N×L×C and as N×C×L", "data.channels=2"),
        ({"x": numbers(6, 8, 8), "dims": 1}, {"channels": 8}, "can be read as", "another size"),
        ({"x": numbers(6, 40, 2), "dims": 1}, {"channels": 3}, "expected 3 channel(s)", "leave"),
        ({"x": numbers(6, 40), "dims": 1}, {"channels": 3}, "expected 3 channels, found one", ""),
        ({"x": numbers(6, 40), "dims": 1}, {"dims": 3}, "volumes (dims=3) are wan", "leave out"),
        (
            {"x": numbers(6, 40), "dims": 1},
            {"size": (32, 32)},
            "holds signals (dims=1), pictures (dims=2) are wanted",
            "signals come whole, data.size is for pictures",
        ),
        ({"x": numbers(6, 40), "dims": 1}, {"size": (20,)}, "expected signals of 20 × 1", "as th"),
        ({"x": numbers(6, 40), "dims": 4}, {}, "dims: expected 1, 2 or 3", "dims=1"),
        ({"x": numbers(6, 40), "dims": np.arange(2)}, {}, "dims: expected 1, 2 or 3", "dims=1"),
        ({"x": numbers(6, 4, 4, 4, 4, 4), "dims": 3}, {}, "expected volumes N×D×H×W", "data.dims"),
        ({"x": np.full((6, 40), np.nan), "dims": 1}, {}, "finite", "repair"),
        ({"x": np.full((6, 40), 1e300), "dims": 1}, {}, "finite", "repair"),
        ({"x": np.zeros((6, 40), np.int32), "dims": 1}, {}, "int16 or floats", "float32"),
    ],
)
def test_refused(tmp_path: Path, arrays: Any, settings: Any, message: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        load(save(tmp_path, y=Y, **arrays), **settings)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_parts_must_be_alike(tmp_path: Path) -> None:
    long, short = numbers(6, 40), numbers(6, 30)
    with pytest.raises(DataError, match="one size in all parts"):
        load(save(tmp_path, x_train=long, y_train=Y, x_test=short, y_test=Y, dims=1))
    both = {"x_train": long, "x_test": numbers(6, 40, kind="int16")}
    with pytest.raises(DataError, match="one type in all parts"):
        load(save(tmp_path, "types.npz", y_train=Y, y_test=Y, dims=1, **both))
    main = save(tmp_path, "main.npz", x=long, y=Y, dims=1)
    pictures = save(tmp_path, "pictures.npz", x=numbers(6, 8, 8, kind="uint8"), y=Y)
    other = save(tmp_path, "other.npz", x=short, y=Y, dims=1)
    for test, found in ((pictures, "pictures and signals 40×1"), (other, "signals 30×1")):
        with pytest.raises(DataError, match=found):
            load(main, test=test)


def test_only_an_npz_holds_signals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected signals, found pictures"):
        load("digits", dims=1)
    with pytest.raises(ConfigError, match="not of one rank"):
        load("digits", dims=1, size=(8, 8))
    with pytest.raises(ConfigError, match="1 or 3 for pictures"):
        load(save(tmp_path, x=numbers(6, 8, 8, kind="uint8"), y=Y), channels=2)


@pytest.mark.parametrize(
    ("shape", "size", "channels", "found"),
    [
        # One sample: the network's own shape, channels last, first or left out.
        ((32, 32, 3), (32, 32), 3, 1),
        ((24, 32, 3), (24, 32), 3, 1),
        ((32, 32), (32, 32), 3, 1),
        ((28, 28), (28, 28), 1, 1),
        ((28, 28, 1), (28, 28), 1, 1),
        ((1, 28, 28), (28, 28), 1, 1),
        ((64,), (64,), 1, 1),
        ((64, 1), (64,), 1, 1),
        ((64, 2), (64,), 2, 1),
        ((2, 64), (64,), 2, 1),
        ((12, 12, 12), (12, 12, 12), 1, 1),
        ((12, 12, 12, 1), (12, 12, 12), 1, 1),
        ((8, 9, 10, 2), (8, 9, 10), 2, 1),
        ((2, 8, 9, 10), (8, 9, 10), 2, 1),
        # Several; pictures of any size.
        ((32, 32, 32), (32, 32), 3, 32),
        ((7, 40, 50), (28, 28), 1, 7),
        ((3, 28, 28), (28, 28), 1, 3),
        ((2, 480, 640), (32, 32), 3, 2),
        ((5, 3, 3), (3, 3), 1, 5),
        ((5, 40, 50, 3), (32, 32), 1, 5),
        ((3, 32, 32, 1), (32, 32), 3, 3),
        ((5, 3, 40, 50), (32, 32), 3, 5),
        ((64, 64), (64,), 1, 64),
        ((5, 64, 2), (64,), 2, 5),
        ((5, 2, 64), (64,), 2, 5),
        ((5, 50), (64,), 1, 5),
        ((12, 12, 12, 12), (12, 12, 12), 1, 12),
        ((5, 8, 9, 10, 2), (8, 9, 10), 2, 5),
        # One or several.
        ((3, 32, 32), (32, 32), 3, "can be read as one picture C×H×W and as 3 grey"),
        ((3, 480, 640), (32, 32), 3, "can be read as one picture C×H×W and as 3 grey"),
        ((3, 3, 3), (3, 3), 3, "can be read as one picture C×H×W and as 3 grey"),
        # Neither.
        ((480, 640, 3), (32, 32), 3, "N×H×W×C for a network of 32×32×3"),
        ((32, 32, 4), (32, 32), 3, "N×H×W×C for a network of 32×32×3"),
        ((28, 28, 3), (28, 28), 1, "N×H×W×C for a network of 28×28×1"),
        ((5, 40), (28, 28), 1, "N×H×W×C for a network of 28×28×1"),
        ((40,), (28, 28), 1, "N×H×W×C for a network of 28×28×1"),
        ((5, 32, 32, 4), (32, 32), 3, "N×H×W×C for a network of 32×32×3"),
        ((5, 8, 8, 8, 3), (8, 8), 3, "N×H×W×C for a network of 8×8×3"),
        ((), (28, 28), 1, "N×H×W×C for a network of 28×28×1"),
        ((64,), (64,), 2, "N×L×C for a network of 64×2"),
        ((50, 2), (64,), 2, "N×L×C for a network of 64×2"),
        ((5, 64, 3), (64,), 2, "N×L×C for a network of 64×2"),
        ((5, 28, 28), (64,), 1, "N×L×C for a network of 64×1"),
        ((8, 9, 10), (8, 9, 10), 2, "N×D×H×W×C for a network of 8×9×10×2"),
        ((5, 9, 10), (8, 9, 10), 1, "N×D×H×W×C for a network of 8×9×10×1"),
    ],
)
def test_one_sample_or_several(shape: Any, size: Any, channels: int, found: int | str) -> None:
    """What an array holds that a network is asked about; never a guess."""
    x = np.zeros(shape, np.uint8)
    if isinstance(found, int):
        samples = rows(x, size, channels, "a.npy")
        assert len(samples) == found
        assert samples.size == x.size
        assert np.shares_memory(samples, x)
        return
    with pytest.raises(DataError) as caught:
        rows(x, size, channels, "a.npy")
    assert found in caught.value.message
    assert str(shape) in caught.value.message
    if "can be read" in caught.value.message:
        assert "x[numpy.newaxis], for 3 grey ones x[..., numpy.newaxis]" in caught.value.hint
        for remedy, several in ((x[np.newaxis], 1), (x[..., np.newaxis], 3)):
            assert len(rows(remedy, size, channels, "a.npy")) == several


def test_settings_of_any_rank() -> None:
    def size(text: str) -> Any:
        return from_dict(Recipe, apply_settings({}, (f"data.size={text}",))).data.size

    assert (size("64"), size("[64]"), size("64,32"), size("8,9,10")) == (
        (64, 64),
        (64,),
        (64, 32),
        (8, 9, 10),
    )
    with pytest.raises(ConfigError):
        size("1,2,3,4")


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("shape", [(300, 3, 50), (20, 2, 6, 5, 4)])
def test_moments_and_normalisation(kind: str, shape: tuple[int, ...]) -> None:
    x = numbers(*shape, kind=kind)
    axes = (0, *range(2, len(shape)))
    mean, std = moments(len(x), lambda a, b: x[a:b], shape[1:], FULL[kind])
    scaled = x.astype(np.float64) / FULL[kind]
    np.testing.assert_allclose(mean, scaled.mean(axes), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axes), rtol=1e-12)
    found = Normalize(mean, std, len(shape) - 2)(torch.from_numpy(x)).numpy()
    wanted = (scaled - scaled.mean(axes, keepdims=True)) / scaled.std(axes, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    x = np.stack([np.full((4, 9), 0.02), np.zeros((4, 9))], 1).astype(np.float32)
    _, std = moments(4, lambda a, b: x[a:b], (2, 9), 1.0)
    np.testing.assert_allclose(std, (2e-5, 1e-3), rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 30, 2), (7, 4, 5, 6, 2)])
def test_a_device_gathers_what_the_host_does(shape: tuple[int, ...]) -> None:
    x = numbers(*shape, kind="int16")
    images, ids = Images.of(x), torch.tensor([6, 0, 6])
    there = ResidentImages(images, torch.device("cpu"))
    size = shape[1:-1]
    found = images.gather(ids, size)
    assert np.array_equal(found.numpy(), np.moveaxis(x[[6, 0, 6]], -1, 1))
    assert torch.equal(there.gather(there.ready(ids, size), size), found)
    assert found.is_contiguous()
    assert np.array_equal(images.picture(3), x[3])
    with pytest.raises(ValueError, match="expected"):
        images.gather(ids, tuple(side - 1 for side in size))
    with pytest.raises(IndexError):
        images.gather(torch.tensor([7]), size)


def test_a_predictor_takes_its_own_rank_only() -> None:
    net = build("cnn", channels=1, size=(16,), outputs=2, args={"width": 2})
    spec = InputSpec(channels=1, size=(16,), mean=(0.0,), std=(0.5,))
    predictor = Predictor(net.eval(), spec, lambda x: x)
    whole = torch.randint(-32768, 32767, (3, 1, 16), dtype=torch.int16)
    with torch.no_grad():
        assert torch.equal(predictor(whole), predictor(whole.float() / 32768))
    for wrong in (torch.zeros(3, 1, 16, 16, dtype=torch.uint8), torch.zeros(3, 1, 16).double()):
        with pytest.raises(ValueError, match="B×C×L"):
            predictor(wrong)
    with pytest.raises(ValueError, match="expected signals of 16, got 15"):
        Fit((16,))(torch.zeros(1, 1, 15))


# --- Augmentation ---------------------------------------------------------------------------------

PADS = {"zero": "constant", "reflect": "reflect", "replicate": "edge"}


@pytest.mark.parametrize("padding", PADS)
@pytest.mark.parametrize("shape", [(5, 2, 13), (5, 2, 5, 6, 7)])
def test_shifts_and_flips_are_those_of_numpy(padding: Any, shape: tuple[int, ...]) -> None:
    x = numbers(*shape, kind="int16")
    chance = np.random.default_rng(1)
    sides = shape[2:]
    shifts = [chance.integers(-2, 3, 5) for _ in sides]
    flip, vertical = chance.random(5) < 0.5, chance.random(5) < 0.5
    found = shift_flip_axes(
        torch.from_numpy(x),
        [torch.from_numpy(one) for one in shifts],
        flip=torch.from_numpy(flip),
        flip_vertical=torch.from_numpy(vertical) if len(sides) > 1 else None,
        padding=padding,
        reach=(2,) * len(sides),
    )
    for row, one in enumerate(x):
        wanted = np.flip(one, -1) if flip[row] else one
        if len(sides) > 1 and vertical[row]:
            wanted = np.flip(wanted, -2)
        wanted = np.pad(wanted, [(0, 0), *[(2, 2)] * len(sides)], PADS[padding])
        for axis, (side, shift) in enumerate(zip(sides, shifts, strict=True), 1):
            wanted = np.take(wanted, range(2 - shift[row], 2 - shift[row] + side), axis)
        assert np.array_equal(found[row].numpy(), wanted)


def batch_of(x: np.ndarray) -> Batch:
    n = len(x)
    return Batch(
        images=torch.from_numpy(x),
        targets=torch.arange(n) % 2,
        weights=torch.ones(n),
        valid=torch.ones(n, dtype=torch.bool),
        ids=torch.arange(n),
    )


def augment(size: tuple[int, ...], **settings: Any) -> Augment:
    recipe = resolve(
        AugmentRecipe(**settings),
        channels=1,
        size=size,
        classes=("cat", "dog"),
        kind="class",
        uniform=True,
    )
    return Augment(recipe, seed=0, classes=2, kind="class", mean=(0.0,))


def test_nothing_is_done_to_signals_and_volumes_unasked() -> None:
    for shape in ((4, 1, 20), (4, 1, 6, 6, 6)):
        batch = batch_of(numbers(*shape))
        assert augment(shape[2:])(batch, 0).images is batch.images


def test_mixed_signals_are_in_units_of_their_full_scale() -> None:
    x = numbers(6, 1, 20, kind="int16")
    found = augment((20,), mixup=0.5, shift=0.1)(batch_of(x), 0)
    floats = augment((20,), mixup=0.5, shift=0.1)(batch_of((x / 32768).astype(np.float32)), 0)
    assert found.images.dtype == torch.float32
    torch.testing.assert_close(found.images, floats.images)
    assert found.targets.shape == (6, 2)
    assert not torch.equal(found.images, torch.from_numpy(x / 32768).float())


@pytest.mark.parametrize(
    ("size", "name"),
    [
        *itertools.product([(40,)], ["rotate", "noise", "blur", "cutout", "flip_vertical"]),
        *itertools.product([(8, 8, 8)], ["scale", "color", "contrast", "brightness", "cutmix"]),
    ],
)
def test_what_is_for_pictures_is_refused_by_name(size: tuple[int, ...], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment\.{name} is for pictures") as caught:
        augment(size, **{name: 0.5})
    assert "shift" in caught.value.hint


# --- Networks -------------------------------------------------------------------------------------


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """A convolution with zero padding of half the kernel, sum by sum, of any rank."""
    kernel = weight.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), *[(k // 2, k // 2) for k in kernel]])
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for offset in itertools.product(*map(range, kernel)):
        window = padded[(..., *(slice(o, o + n) for o, n in zip(offset, x.shape[2:], strict=True)))]
        out += np.einsum("bc...,oc->bo...", window, weight[(..., *offset)])
    return out if bias is None else out + bias.reshape(-1, *(1,) * len(kernel))


@pytest.mark.parametrize("size", [(12,), (4, 6, 5)])
def test_cnn_is_the_sum_that_it_says(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    args = {"width": 3, "depth": 1, "convs": 2, "norm": "none"}
    net = build("cnn", channels=2, size=size, outputs=4, args=args).eval()
    x = numbers(3, 2, *size)
    state = {name: value.numpy().astype(np.float64) for name, value in net.state_dict().items()}
    y = x.astype(np.float64)
    for layer in (0, 2):
        y = convolved(y, state[f"stages.0.{layer}.weight"], state[f"stages.0.{layer}.bias"])
        y = np.maximum(y, 0)
    for axis, side in enumerate(size, 2):  # pooling by two drops an odd last position
        y = np.take(y, range(side // 2 * 2), axis)
        y = np.maximum(
            np.take(y, range(0, y.shape[axis], 2), axis),
            np.take(y, range(1, y.shape[axis], 2), axis),
        )
    wanted = y.reshape(3, -1) @ state["head.linear.weight"].T + state["head.linear.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 3])
def test_a_signal_along_one_axis_is_a_picture_of_one_column(dims: int) -> None:
    """A kernel that is nonzero in its middle column only sees one axis: the picture's network then
    computes what the signal's does, and the volume's what the picture's does."""
    torch.manual_seed(0)
    small, large = (1, 2) if dims == 1 else (2, 3)
    sides = (12,) if dims == 1 else (12, 10)
    args: dict[str, Any] = {"width": 4, "depth": 2, "head": "gap", "pool": "avg"}
    one = build("cnn", channels=2, size=sides, outputs=3, args=args).eval()
    more = build("cnn", channels=2, size=(*sides, 12), outputs=3, args=args).eval()
    state = one.state_dict()
    assert list(state) == list(more.state_dict())
    for name, value in state.items():
        if value.dim() == small + 2:
            state[name] = F.pad(value[..., None], (1, 1))
    more.load_state_dict(state)
    x = torch.from_numpy(numbers(3, 2, *sides))
    with torch.no_grad():
        wide = x[..., None].expand(*x.shape, 12)
        torch.testing.assert_close(more(wide), one(x), rtol=1e-5, atol=1e-6)
    assert len(more.state_dict()["stages.0.0.weight"].shape) == large + 2


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("dims", RANKS)
def test_residual_networks_of_every_rank(name: str, dims: int) -> None:
    """The same names, and shapes that differ in the kernel's axes only; levels as declared."""
    size = RANKS[dims]
    with torch.device("meta"):
        net = build(name, channels=2, size=size, outputs=7, args={}).eval()
        flat = build(name, channels=2, size=RANKS[2], outputs=7, args={})
        x = torch.empty(2, 2, *size)
        levels, answer = net.forward_features(x), net(x)  # type: ignore[operator]
    assert answer.shape == (2, 7)
    for level, info in zip(levels, net.features, strict=True):
        wanted = (2, info.channels, *(-(-side // info.stride) for side in size))
        assert tuple(level.shape) == wanted
    one, two = net.state_dict(), flat.state_dict()
    assert list(one) == list(two)
    for key, value in one.items():
        kernel = two[key].shape[2:]
        assert value.shape == (*two[key].shape[:2], *kernel[:1] * (dims if kernel else 0)), key


@pytest.mark.parametrize("dims", [1, 3])
def test_a_residual_block_is_its_formula(dims: int) -> None:
    torch.manual_seed(0)
    net = build("resnet18", channels=2, size=RANKS[dims], outputs=7, args={}).eval()
    block: Any = net.get_submodule("layer2.0")
    for part in block.modules():
        if hasattr(part, "running_mean"):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 64, *(6,) * dims)
    conv = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]

    def norm(y: torch.Tensor, bn: Any) -> torch.Tensor:
        shape = (1, -1, *(1,) * dims)
        y = (y - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + 1e-5).sqrt()
        return y * bn.weight.view(shape) + bn.bias.view(shape)

    with torch.no_grad():
        y = norm(conv(x, block.conv1.weight, stride=2, padding=1), block.bn1).relu()
        y = norm(conv(y, block.conv2.weight, padding=1), block.bn2)
        y = y + norm(conv(x, block.downsample[0].weight, stride=2), block.downsample[1])
        torch.testing.assert_close(block(x), y.relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet18"])
@pytest.mark.parametrize("dims", RANKS)
def test_dims_may_be_said_and_must_agree(name: str, dims: int) -> None:
    with torch.device("meta"):
        build(name, channels=1, size=RANKS[dims], outputs=2, args={"dims": dims})
    other = dims % 3 + 1
    with pytest.raises(ConfigError, match=rf"dims={other} .*: dims={dims}"):
        build(name, channels=1, size=RANKS[dims], outputs=2, args={"dims": other})


def test_networks_of_pictures_say_who_takes_the_rest() -> None:
    for name, entry in CATALOG.items():
        if entry.dims == (1, 2, 3):
            continue
        with pytest.raises(ConfigError, match=r"takes pictures .* signal of 16000") as caught:
            build(name, channels=1, size=(16000,), outputs=2, args={})
        assert caught.value.hint == (
            "signals are taken by cnn, mlp, resnet101, resnet152, resnet18, resnet34, resnet50"
        )


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet18", (7,), "takes signals from 8 on, got 7"),
        ("cnn", (8, 8, 1), "takes volumes from 2×2×2 on, got 8×8×1"),
    ],
)
def test_too_small(name: str, size: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, channels=1, size=size, outputs=2, args={})


# --- Whole runs -----------------------------------------------------------------------------------


def waves(n: int, length: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sines, squares and noise of random frequency, phase and strength, as 16-bit sound."""
    chance = np.random.default_rng(seed)
    y = np.arange(n) % 3
    turns = chance.uniform(2, 5, (n, 1)) * np.arange(length) / length + chance.random((n, 1))
    sine = np.sin(2 * np.pi * turns)
    x = np.choose(y[:, None], [sine, np.sign(sine), chance.normal(size=(n, length)) / 2])
    loud = 20000 * chance.uniform(0.2, 1, (n, 1))
    return np.clip(x * loud, -32768, 32767).astype(np.int16), y


def solids(n: int, side: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Balls and cubes of one volume at random places, in noise."""
    chance = np.random.default_rng(seed)
    y = np.arange(n) % 2
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"))
    x = chance.normal(0, 0.1, (n, side, side, side)).astype(np.float32)
    for one, kind in zip(x, y, strict=True):
        away = grid - chance.integers(4, side - 4, 3)[:, None, None, None]
        cube = np.abs(away).max(0) <= 2
        one += cube if kind else np.square(away).sum(0) <= 9.6
    return x, y


def recipe(source: str, *, epochs: int = 5, **sections: Any) -> Recipe:
    plain = {"precision": "fp32", "threads": 1, "device": "cpu", "compile": "off"}
    values = {"data": {"source": source}, "engine": {"epochs": epochs, **plain}}
    return from_dict(Recipe, {**values, **sections})


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sounds")
    names = np.array(["sine", "square", "noise"])
    x, y = waves(240)
    source = save(folder, x=x, y=y, classes=names, dims=1)
    test = save(
        folder, "test.npz", x=waves(90, seed=1)[0], y=np.arange(90) % 3, classes=names, dims=1
    )
    one = recipe(
        source,
        data={"source": source, "test": test},
        model_args={"width": 8, "depth": 3},
        augment={"flip": 0.5, "shift": 0.1},
    )
    return fit(recipe=one, out=folder / "run", quiet=True)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("shapes")
    x, y = solids(300)
    names = np.array(["ball", "cube"])
    source = save(folder, x=x, y=y, classes=names, dims=3)
    later, truth = solids(60, seed=1)
    test = save(folder, "test.npz", x=later[..., None], y=truth, classes=names)
    one = recipe(
        source,
        epochs=10,
        data={"source": source, "test": test},
        model_args={"width": 4, "head": "gap"},
    )
    return fit(recipe=one, out=folder / "run", quiet=True)


@pytest.mark.parametrize(("name", "size"), [("sounds", (64,)), ("shapes", (12, 12, 12))])
def test_learns_and_answers_alike_everywhere(
    name: str, size: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    """The test part, the file evaluated by itself, predictions sample by sample: one answer."""
    run: Run = request.getfixturevalue(name)
    accuracy = run.scores["test"].metrics["accuracy"].value
    assert accuracy >= 0.9
    assert run.bundle.input.size == size
    test = run.path.parent / "test.npz"
    again = run.evaluate(str(test), device="cpu")["all"]
    assert again.metrics["accuracy"].value == accuracy
    entries = run.predict([str(test)], device="cpu")
    with np.load(test) as arrays:
        truths = arrays["classes"][arrays["y"]].tolist()
        x = arrays["x"]
    assert [entry["path"] for entry in entries] == [f"{test}[{i}]" for i in range(len(truths))]
    right = [entry["label"] == truth for entry, truth in zip(entries, truths, strict=True)]
    assert np.mean(right) == pytest.approx(accuracy)
    np.save(run.path.parent / "one.npy", x[:2])
    (first, second) = run.predict([str(run.path.parent / "one.npy")], device="cpu")
    assert first["probability"] == pytest.approx(entries[0]["probability"], abs=1e-5)
    assert second["label"] == entries[1]["label"]


def test_a_bundle_of_signals_is_checked(sounds: Run, tmp_path: Path) -> None:
    spec = Bundle.load(sounds.path / "bundle").input
    x = waves(240)[0].astype(np.float64) / 32768
    assert spec.mean[0] == pytest.approx(x.mean(), abs=0.01)
    assert spec.std[0] == pytest.approx(x.std(), rel=0.1)
    sounds.bundle.save(tmp_path)
    text = json.loads((tmp_path / "bundle.json").read_text())
    for wrong in ([], [0], [2**24 + 1], [64, 1, 1, 1], ["64"]):
        text["input"]["size"] = wrong
        (tmp_path / "bundle.json").write_text(json.dumps(text))
        with pytest.raises(RunError, match=r"input\.size"):
            Bundle.load(tmp_path)


def test_what_does_not_fit_a_run_is_said(sounds: Run, tmp_path: Path) -> None:
    def error(**arrays: Any) -> str:
        (entry,) = sounds.predict([save(tmp_path, **arrays)], device="cpu")
        return entry["error"]

    assert error(x=waves(3, 50)[0]) == "expected signals of 64, found 50"
    found = error(x=solids(3)[0], dims=3)
    assert "holds volumes (dims=3), signals (dims=1) are wanted" in found
    assert "takes only what it was trained on" in found
    for wrong in (numbers(3, 64, 2), numbers(50), numbers(2, 3, 4, 64)):
        found = error(x=wrong)
        assert f"expected signals N×L×C for a network of 64×1, found {wrong.shape}" in found
        assert "one alone as x[numpy.newaxis]" in found
    assert "expected samples under x" in error(z=waves(3)[0])
    (entry,) = sounds.predict(["photo.png"], device="cpu")
    assert entry["error"] == "expected an .npz or .npy of signals"
    with pytest.raises(DataError, match="expected signals of 64 × 1 channel, found signals of 50"):
        sounds.evaluate(save(tmp_path, x=waves(6, 50)[0], y=Y, classes=["sine", "noise"]))
    with pytest.raises(DataError, match="expected signals, found pictures"):
        sounds.evaluate("digits")


def test_pictures_of_an_array_answer_as_in_their_data_set(tmp_path: Path) -> None:
    x = numbers(40, 20, 24, kind="uint8")
    source = save(
        tmp_path, x_train=x, y_train=np.arange(40) % 2, x_test=x[:7], y_test=np.arange(7) % 2
    )
    section = {"source": source, "size": [16, 16]}
    one = recipe(source, epochs=1, data=section, model="mlp")
    run = fit(recipe=one, out=tmp_path / "run", quiet=True)
    data = run.data()
    ids = data.splits["test"]
    with torch.no_grad():
        wanted = run.predictor()(data.images.gather(ids, data.size)).max(1).values
    entries = run.predict([source], device="cpu")
    assert [entry["path"] for entry in entries[39:41]] == [
        f"{source}:train[39]",
        f"{source}:test[0]",
    ]
    found = [entry["probability"] for entry in entries[40:]]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("coloured")
    x = numbers(24, 16, 16, 3, kind="uint8")
    one = recipe(save(folder, x=x, y=np.arange(24) % 2), epochs=1, model="mlp")
    return fit(recipe=one, out=folder / "run", quiet=True)


def test_one_picture_as_an_array_has_one_answer(coloured: Run, tmp_path: Path) -> None:
    """That of the same picture as a file, by the command line."""
    x = numbers(16, 16, 3, kind="uint8", seed=1)
    paths = [str(tmp_path / name) for name in ("a.png", "one.npy", "many.npy", "first.npy")]
    Image.fromarray(x).save(paths[0])
    for path, array in zip(paths[1:], (x, x[None], x.transpose(2, 0, 1)), strict=True):
        np.save(path, array)
    paths.append(save(tmp_path, "part.npz", x_test=x / 255))
    done = CliRunner().invoke(cli, ["predict", str(coloured.path), *paths, "--json"])
    assert done.exit_code == 1
    picture, one, many, first, part = json.loads(done.stdout)
    assert [one["path"], many["path"]] == [paths[1], f"{paths[2]}[0]"]
    assert part["path"] == f"{paths[4]}:test"
    for entry in (one, many, part):
        assert {**entry, "path": ""} == {**picture, "path": ""}
    assert "can be read as one picture C×H×W and as 3 grey ones; for one save" in first["error"]


def test_one_signal_and_one_volume_have_one_answer(
    sounds: Run, shapes: Run, tmp_path: Path
) -> None:
    for run, x in ((sounds, waves(2)[0]), (shapes, solids(2)[0])):
        for name, array in (("one.npy", x[1]), ("last.npy", x[1][..., None]), ("all.npy", x)):
            np.save(tmp_path / name, array)
        paths = [str(tmp_path / name) for name in ("one.npy", "last.npy", "all.npy")]
        one, last, first, second = run.predict(paths, device="cpu")
        assert one["path"] == paths[0]
        assert one["probability"] == pytest.approx(second["probability"], abs=1e-5)
        assert {**one, "path": ""} == {**last, "path": ""}
        assert first["path"] == f"{paths[2]}[0]"


def test_a_run_that_was_killed_ends_as_if_never_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = waves(60)
    source = save(tmp_path, x=x, y=y, dims=1)
    sections = {"model_args": {"width": 4, "depth": 2, "dropout": 0.2}}
    sections["augment"] = {"flip": 0.5, "shift": 0.2, "mixup": 0.3}
    one = recipe(source, epochs=3, **sections)
    fit(recipe=one, out=tmp_path / "whole", quiet=True)
    kept = checkpoint.save

    def once(folder: Path, *args: Any, **rest: Any) -> Path:
        path = kept(folder, *args, **rest)
        raise KeyboardInterrupt(path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", once)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe=one, out=tmp_path / "cut", quiet=True)
    assert not (tmp_path / "cut" / "bundle").exists()
    assert resume(tmp_path / "cut", console=Console(quiet=True)).finished
    bundles = [
        (tmp_path / name / "bundle" / "weights.safetensors").read_bytes()
        for name in ("whole", "cut")
    ]
    assert bundles[0] == bundles[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "vgg11"}, "vgg11 takes pictures"),
        ({"model_args": {"dims": 2}}, "dims=2 is asked of the network"),
        ({"augment": {"rotate": 10.0}}, r"augment\.rotate is for pictures"),
        ({"engine": {"views": "many", "device": "cpu"}}, r"engine\.views=many is for pictures"),
        ({"engine": {"layout": "channels_last", "device": "cpu"}}, r"engine\.layout"),
    ],
)
def test_what_signals_cannot_have_is_said_before_training(
    tmp_path: Path, settings: Any, message: str
) -> None:
    x, y = waves(30)
    with pytest.raises(ConfigError, match=message):
        fit(
            recipe=recipe(save(tmp_path, x=x, y=y, dims=1), **settings),
            out=tmp_path / "run",
            quiet=True,
        )
    assert not (tmp_path / "run").exists()


def test_from_python(tmp_path: Path) -> None:
    """A module of one's own, two channels that come first, numbers as targets."""
    x = numbers(40, 2, 30)
    data = neocog.load(save(tmp_path, x=x, y=x[:, 1].std(axis=1)), dims=1)
    assert (data.size, data.channels, data.kind) == ((30,), 2, "numbers")
    layers = [nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 1)]
    engine = {"epochs": 1, "batch": 16, "device": "cpu", "precision": "fp32"}
    one = from_dict(Recipe, {"engine": engine})
    run = fit(nn.Sequential(*layers), data, one, out=tmp_path / "run", quiet=True)
    assert len(run.predict([str(tmp_path / "set.npz")], device="cpu")) == 40
    wrong = nn.Sequential(nn.Conv2d(2, 4, 3), *layers[1:])
    with pytest.raises(ConfigError, match="does not take float32 signals") as caught:
        fit(wrong, data, one, out=tmp_path / "wrong", quiet=True)
    assert "B×C×L" in caught.value.hint


# --- Plans and reports ----------------------------------------------------------------------------


def test_plans(sounds: Run) -> None:
    """Work by hand: a convolution takes kernel · before · after at each position."""
    args = {"width": 2, "depth": 1, "convs": 1}
    with_args = from_dict(Recipe, {"model_args": args})
    for size, kernel in (((64,), 3), ((4, 6, 8), 27)):
        found = plan("cnn", (3, *size), recipe=with_args, outputs=5, time=False).json
        places, left = int(np.prod(size)), int(np.prod([side // 2 for side in size]))
        assert found["macs"] == kernel * 3 * 2 * places + 2 * left * 5
        assert found["parameters"] == kernel * 3 * 2 + 2 * 2 + 2 * left * 5 + 5
        assert not found["unknown"]
    own = plan(sounds.path, time=False).json
    assert own["parameters"] == sum(p.numel() for p in sounds.bundle.network().parameters())
    assert (size_of("1x441000"), size_of("1x32x64x64")) == ((1, 441000), (1, 32, 64, 64))
    shown = CliRunner().invoke(cli, ["plan", "resnet18", "--input", "1x4000", "--no-time"])
    assert shown.exit_code == 0, shown.output
    assert "Conv1d" in shown.output
    assert "the whole signal" in shown.output
    with pytest.raises(ConfigError, match="vgg11 takes pictures"):
        plan("vgg11", (1, 16000), time=False)


def test_faces() -> None:
    """A wave is drawn between the least and the greatest value of each column; of a volume the
    middle slice is shown."""
    signal = numbers(1, 1, 1000)
    (face,) = faces(signal)
    assert face.shape == (64, 192, 1)
    low, high = signal.min(), signal.max()
    for column in (50, 120):
        some = signal[0, 0, column * 1000 // 192 : (column + 1) * 1000 // 192]
        rows = np.flatnonzero(face[:, column, 0] < 128)
        assert rows[0] <= round((high - some.max()) / (high - low) * 63)
        assert rows[-1] >= round((high - some.min()) / (high - low) * 63)
        assert len(rows) == rows[-1] - rows[0] + 1
    assert faces(np.zeros((1, 2, 5), np.float32))[0].shape == (128, 192, 1)
    volume = numbers(1, 3, 4, 5, 6, kind="uint8")
    assert np.array_equal(faces(volume)[0], volume[0, :, 2].transpose(1, 2, 0))
    (grey,) = faces(numbers(1, 2, 4, 5, 6))
    assert grey.shape == (5, 6, 1)


def test_reports_speak_of_what_they_show(sounds: Run, shapes: Run) -> None:
    for run, word in ((sounds, "signal"), (shapes, "volume")):
        page = (run.path / "report.html").read_text()
        assert f"test {word}s" in page
        words = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", page.partition("<main")[2], flags=re.DOTALL)
        assert "picture" not in words.lower()
        # A setting of the recipe, which is printed whole, is called so.
        assert "pixel" not in words.lower().replace("&#34;pixels&#34;", "")


def test_features_are_of_each_signal(
    sounds: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = waves(30, seed=2)
    names = np.array(["sine", "square", "noise"])
    transfer = {"source": str(sounds.path), "freeze": "all"}
    one = recipe(save(tmp_path, x=x, y=y, classes=names, dims=1), epochs=1, transfer=transfer)
    fit(recipe=one, out=tmp_path / "run")
    said = capsys.readouterr().err
    assert "numbers of each signal, computed once" in said
    assert "picture" not in said


def test_the_command_line(sounds: Run, tmp_path: Path) -> None:
    x, y = waves(12)
    plain = save(tmp_path, x=x, y=y)

    def ask(*words: str) -> Any:
        done = CliRunner().invoke(cli, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert ask("data", "show", plain, "--set", "data.dims=1")["size"] == [64]
    assert ask("data", "scan", plain, "--dims", "1", "--out", str(tmp_path / "f"))["used"] == 12
    assert len(ask("predict", str(sounds.path), plain)) == 12
    assert ask("eval", str(sounds.path), str(sounds.path.parent / "test.npz"))["part"] == "all"
    assert open_run(sounds.path).recipe.data.size == (64,)


def test_a_scan_tells_rows_apart_by_their_type() -> None:
    """Equal bytes of another type are another signal."""

    def digest(x: np.ndarray) -> bytes:
        part = Part(names=("a",), splits=("",), targets=("c",), pixels=x)
        made = Source(kind="npz", target="class", classes=("c",), parts=(part,))
        found = scan(made)
        assert found.sides == (4,)
        return found.digests[0].tobytes()

    bits = np.zeros((1, 4, 1), np.int16)
    assert digest(bits) != digest(np.zeros((1, 4, 2), np.uint8))
    assert digest(bits) == digest(bits.copy())
