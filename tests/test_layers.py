"""Layers against the independent formulas and against numbers worked out by hand.

The package builds on torch.nn's convolution, pooling, norms and dropout: that they mean what the
documentation says (convention, padding, rounding) is tested here, as are the layers of its own.
"""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import reference
from neocog.layers import Fit, Normalize, Predictor
from neocog.models.blocks import initialise, norm_layer
from neocog.records import InputSpec, Views


def plane(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def random(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


# Convolution ------------------------------------------------------------------------------------


def test_convolution_is_cross_correlation() -> None:
    x = plane([1, 2, 3], [3, 4, 5], [1, 0, 2])
    w = plane([0, 1], [1, -1])
    assert F.conv2d(x, w)[0, 0].tolist() == [[1, 2], [5, 3]]
    assert reference.correlate(x.numpy(), w.numpy())[0, 0].tolist() == [[1, 2], [5, 3]]


def test_convolution_and_mean_of_a_five_by_five_plane() -> None:
    x = plane([3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1])
    w = plane([0, 1, 2], [2, 2, 0], [0, 1, 2])
    assert F.conv2d(x, w)[0, 0].tolist() == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]
    mean = F.avg_pool2d(x, 3, stride=1)[0, 0]
    assert mean.round(decimals=1).tolist() == [[1.7, 1.7, 1.7], [1.0, 1.2, 1.8], [1.1, 0.8, 1.3]]
    np.testing.assert_allclose(mean, reference.pool(x.numpy(), (3, 3), (1, 1), "mean")[0, 0])


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    mode=st.sampled_from(sorted(reference.PADDINGS)),
    seed=st.integers(0, 99),
)
def test_convolution_agrees_with_numpy(
    size, kernel, stride, padding, dilation, groups, bias, mode, seed
) -> None:
    for axis in range(2):
        assume(size[axis] + 2 * padding[axis] > dilation[axis] * (kernel[axis] - 1))
    layer = nn.Conv2d(
        *(4, 6, kernel, stride, padding, dilation, groups, bias, mode), dtype=torch.float64
    )
    x = random((2, 4, *size), seed)
    expected = reference.correlate(
        x.numpy(),
        layer.weight.detach().numpy(),
        layer.bias.detach().numpy() if layer.bias is not None else None,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        mode=mode,
    )
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-10)
    count = sum(p.numel() for p in layer.parameters())
    assert count == reference.parameters(6, 4, kernel, groups, bias)


def test_published_output_sizes() -> None:
    conv = nn.Conv2d(16, 33, (3, 5), stride=(2, 1), padding=(4, 2), dilation=(3, 1), device="meta")
    y = conv(torch.empty(20, 16, 50, 100, device="meta"))
    assert y.shape == (20, 33, 26, 100)
    assert reference.output_size(50, 3, 2, 4, 3) == 26
    assert reference.output_size(100, 5, 1, 2, 1) == 100
    pooled = nn.MaxPool2d((3, 2), stride=(2, 1))(torch.empty(20, 16, 50, 32, device="meta"))
    assert pooled.shape == (20, 16, 24, 31)


def test_sizes_shrink_from_28_to_26_13_11_5() -> None:
    x = torch.empty(1, 1, 28, 28, device="meta")
    sizes = []
    for into in (1, 8):
        x = nn.Conv2d(into, 8, 3, device="meta")(x)
        sizes.append(x.shape[-1])
        x = nn.MaxPool2d(2)(x)
        sizes.append(x.shape[-1])
    assert sizes == [26, 13, 11, 5]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: nn.Conv2d(3, 10, 3, bias=False, device="meta"), 270),
        (lambda: nn.Linear(784, 1000, device="meta"), 785_000),
        (lambda: nn.Linear(224 * 224 * 3, 1000, bias=False, device="meta"), 150_528_000),
    ],
)
def test_numbers_of_parameters(layer, expected: int) -> None:
    assert sum(p.numel() for p in layer().parameters()) == expected


def test_parameter_formula() -> None:
    assert reference.parameters(10, 3, (3, 3), bias=False) == 270
    assert reference.parameters(1000, 784) == 785_000
    assert reference.parameters(1000, 224 * 224 * 3, bias=False) == 150_528_000


def test_reversing_the_channels_is_a_pointwise_convolution() -> None:
    x = random((2, 3, 4, 5))
    permutation = torch.eye(3, dtype=torch.float64).flip(0)[:, :, None, None]
    assert torch.equal(F.conv2d(x, permutation), x[:, [2, 1, 0]])


# Pooling ----------------------------------------------------------------------------------------


def test_two_by_two_pooling() -> None:
    x = plane([2, -4, 2, 2], [0, 1, 0, -1], [2, 1, 0, 2], [5, -3, 1, 4])
    assert F.max_pool2d(x, 2)[0, 0].tolist() == [[2, 2], [5, 4]]
    assert F.avg_pool2d(x, 2)[0, 0].tolist() == [[-0.25, 0.75], [1.25, 1.75]]
    x = plane([12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12])
    assert F.max_pool2d(x, 2)[0, 0].tolist() == [[20, 30], [112, 37]]


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_pooling_agrees_with_numpy(size, kernel, stride, seed) -> None:
    x = random((2, 2, *size), seed)
    for kind, function in (("max", F.max_pool2d), ("mean", F.avg_pool2d)):
        expected = reference.pool(x.numpy(), kernel, stride, kind)
        np.testing.assert_allclose(function(x, kernel, stride), expected, atol=1e-12)


def test_max_pooling_passes_the_gradient_to_the_maximum() -> None:
    x = random((2, 3, 6, 8)).requires_grad_()
    upstream = random((2, 3, 3, 4), seed=1)
    F.max_pool2d(x, 2).backward(upstream)
    assert x.grad is not None
    expected = reference.max_pool_gradient(x.detach().numpy(), 2, upstream.numpy())
    np.testing.assert_array_equal(x.grad, expected)
    assert (x.grad != 0).sum() == upstream.numel()


# Norms and dropout ------------------------------------------------------------------------------


def test_batch_norm_in_training_and_in_use() -> None:
    layer = norm_layer("batch", 3)
    assert isinstance(layer, nn.BatchNorm2d)
    layer.double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        layer.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    gamma, beta = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    running = (np.zeros(3), np.ones(3))
    for step in range(3):
        x = random((4, 3, 2, 5), seed=step) * (step + 1) + step
        expected, running = reference.batch_norm(x.numpy(), gamma, beta, running, training=True)
        np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-10)
    np.testing.assert_allclose(layer.running_mean, running[0], rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, running[1], rtol=1e-12)

    layer.eval()
    x = random((4, 3, 2, 5), seed=9)
    expected, after = reference.batch_norm(x.numpy(), gamma, beta, running, training=False)
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-10)
    np.testing.assert_allclose(layer.running_mean, after[0])


@pytest.mark.parametrize(
    ("channels", "groups"), [(256, 32), (64, 16), (24, 6), (7, 1), (97, 1), (100, 25)]
)
def test_group_norm(channels: int, groups: int) -> None:
    layer = norm_layer("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups
    x = random((2, channels, 3, 4)) * 3 + 1
    expected = reference.group_norm(x.numpy(), groups)
    np.testing.assert_allclose(layer.double()(x).detach(), expected, atol=1e-10)


def test_dropout_is_inverted() -> None:
    n, p = 200_000, 0.3
    layer = nn.Dropout(p)
    x = random((n,)).abs() + 1
    torch.manual_seed(0)
    y = layer(x)
    kept = (y != 0).numpy()
    np.testing.assert_allclose(y, reference.dropout(x.numpy(), kept, p), rtol=1e-12)
    # The kept share lies within five standard deviations of its expectation.
    assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n)
    layer.eval()
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_first_weights_keep_the_scale_of_the_signal(activation: str) -> None:
    torch.manual_seed(0)
    act = nn.ReLU() if activation == "relu" else nn.Tanh()
    layers = [nn.Sequential(nn.Linear(512, 512), act) for _ in range(10)]
    x = torch.randn(256, 512)
    for layer in layers:
        initialise(layer, activation)  # type: ignore[arg-type]
        x = layer(x).detach()
    assert 0.5 < float(x.pow(2).mean().sqrt()) < 1.5
    conv = nn.Conv2d(64, 256, 3)
    initialise(conv, activation)  # type: ignore[arg-type]
    gain = 2.0 if activation == "relu" else 25 / 9
    assert float(conv.weight.detach().var()) == pytest.approx(gain / (64 * 9), rel=0.03)
    assert conv.bias is not None
    assert not conv.bias.any()


# The package's own ------------------------------------------------------------------------------


def picture(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """A smooth picture, where any two sound ways of scaling agree closely. 1×C×H×W uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [
        127 + 100 * np.sin(2 * np.pi * (rows / height + c / 3)) * np.cos(3 * columns / width)
        for c in range(channels)
    ]
    return torch.from_numpy(np.stack(planes).round().astype(np.uint8))[None]


def test_fit_leaves_the_right_size_alone() -> None:
    x = picture(32, 32)
    assert Fit((32, 32))(x) is x


@pytest.mark.parametrize("shape", [(64, 96), (300, 200), (20, 20), (33, 90), (32, 31), (37, 56)])
def test_fit_scales_like_pillow_and_crops_the_centre(shape: tuple[int, int]) -> None:
    x = picture(*shape)
    got = Fit((32, 48))(x)
    assert got.shape == (1, 3, 32, 48)
    assert got.dtype == (torch.uint8 if shape == (37, 56) else torch.float32)

    factor = max(round(32 * 1.15) / shape[0], round(48 * 1.15) / shape[1])
    height, width = (math.floor(side * factor + 0.5) for side in shape)
    image = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    scaled = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=int)
    top, left = (height - 32) // 2, (width - 48) // 2
    expected = scaled[top : top + 32, left : left + 48].transpose(2, 0, 1)
    assert np.abs(got[0].numpy() - expected).max() <= 1
    other = F.interpolate(x.float(), (height, width), mode="bilinear", antialias=True)
    other = other[..., top : top + 32, left : left + 48]
    torch.testing.assert_close(got.float(), other, rtol=0, atol=1e-3)


def test_normalize() -> None:
    x = picture(5, 7)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    expected = (x.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    got = Normalize(mean, std)(x)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(Normalize(mean, std)(x.float()), got)
    assert not Normalize(mean, std).state_dict()
    for one in (x, x[:, :1], x.contiguous(memory_format=torch.channels_last)):
        some = mean[: one.shape[1]], std[: one.shape[1]]
        last = Normalize(*some, order=torch.channels_last)(one)
        assert torch.equal(last, Normalize(*some)(one))
        assert last.is_contiguous(memory_format=torch.channels_last)


def test_predictor_is_fit_normalise_network_decode() -> None:
    spec = InputSpec(channels=3, size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    predictor = Predictor(network, spec, lambda outputs: outputs.softmax(1))
    x = torch.cat([picture(8, 8), 255 - picture(8, 8)])
    logits = network((x.float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(predictor.outputs(x), logits)
    torch.testing.assert_close(predictor(x), logits.softmax(1))
    fitted = (Fit((8, 8))(picture(30, 17)) / 255 - 0.5) / 0.25
    torch.testing.assert_close(predictor.outputs(picture(30, 17)), network(fitted))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(1, 3, 8, 8), "expected uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "expected uint8 B×C×H×W"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "takes 3 channel"),
    ],
)
def test_predictor_refuses_what_it_was_not_made_for(wrong: torch.Tensor, message: str) -> None:
    spec = InputSpec(channels=3, size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(ValueError, match=message):
        Predictor(nn.Flatten(), spec, lambda outputs: outputs)(wrong)


# Views ------------------------------------------------------------------------------------------

VIEWS = get_args(Views)


def looking(
    network: nn.Module, views: Views, size: tuple[int, int], channels: int = 1
) -> Predictor:
    """A predictor that hands pixels to the network as they are, 0…255, and decodes nothing."""
    spec = InputSpec(
        channels=channels, size=size, mean=(0.0,) * channels, std=(1 / 255,) * channels, views=views
    )
    return Predictor(network.eval(), spec, lambda outputs: outputs)


def small_network(channels: int, size: tuple[int, int], outputs: int = 5) -> nn.Module:
    """It tells places apart, and has statistics that a batch could change."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * size[0] * size[1], outputs)).eval()


def noise(*shape: int) -> torch.Tensor:
    """B×C×H×W uint8."""
    return torch.from_numpy(np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8))


def weighted_views(x: np.ndarray, views: Views) -> list[tuple[float, np.ndarray]]:
    """The definition, written out with NumPy: B×C×H×W → weights and what they belong to."""
    edge = "reflect" if min(x.shape[2:]) > 1 else "edge"

    def down_right(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0)), mode=edge)[:, :, :-1, :-1]

    def up_left(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)), mode=edge)[:, :, 1:, 1:]

    mirrored = np.flip(x, axis=3)
    return {
        "one": [(1.0, x)],
        "mirror": [(0.5, x), (0.5, mirrored)],
        "shift": [(0.5, x), (0.25, down_right(x)), (0.25, up_left(x))],
        "mirror+shift": [
            *((0.25, x), (0.125, down_right(x)), (0.125, up_left(x))),
            *((0.25, mirrored), (0.125, down_right(mirrored)), (0.125, up_left(mirrored))),
        ],
    }[views]


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("size", [(7, 9), (2, 2), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_are_the_weighted_mean_over_the_views(
    views: Views, size: tuple[int, int], channels: int
) -> None:
    network = small_network(channels, size)
    spec = InputSpec(
        channels=channels, size=size, mean=(0.4,) * channels, std=(0.3,) * channels, views=views
    )
    x = noise(4, channels, *size)
    normalised = ((x.numpy() / 255 - 0.4) / 0.3).astype(np.float32)
    expected = np.zeros((4, 5))
    with torch.no_grad():
        for weight, view in weighted_views(normalised, views):
            expected += weight * network(torch.from_numpy(view.copy())).numpy()
        predictor = Predictor(network, spec, lambda outputs: outputs.softmax(1))
        found = predictor.outputs(x)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, atol=2e-6)
        # The mean is taken before decoding.
        powers = np.exp(expected)
        np.testing.assert_allclose(predictor(x), powers / powers.sum(1, keepdims=True), atol=2e-6)
        one_by_one = torch.cat([predictor.outputs(one[None]) for one in x])
        torch.testing.assert_close(one_by_one, found)
        assert predictor.outputs(x[:0]).shape == (0, 5)


def test_views_of_nine_pixels() -> None:
    x = torch.tensor([[[[1, 2, 4], [8, 16, 32], [64, 128, 0]]]], dtype=torch.uint8)
    expected: dict[Views, list[list[float]]] = {
        "one": [[1, 2, 4], [8, 16, 32], [64, 128, 0]],
        "mirror": [[2.5, 2, 2.5], [20, 16, 20], [32, 128, 32]],
        "shift": [[8.5, 11, 10], [36.5, 8.25, 48.5], [40, 74, 8]],
    }
    for views, pixels in expected.items():
        found = looking(nn.Flatten(), views, (3, 3)).outputs(x).view(3, 3)
        torch.testing.assert_close(found, torch.tensor(pixels, dtype=torch.float32))


def test_a_place_that_is_measured_stays_where_it_is() -> None:
    """The two moved pictures lie symmetrically about the picture."""
    x = torch.zeros(1, 1, 8, 9, dtype=torch.uint8)
    x[0, 0, 3, 5] = 1
    measure = nn.Linear(72, 2, bias=False)
    rows, columns = np.mgrid[0:8, 0:9]
    places = np.stack([rows.ravel(), columns.ravel()]).astype(np.float32)
    measure.weight = nn.Parameter(torch.from_numpy(places))
    network = nn.Sequential(nn.Flatten(), measure)
    found = looking(network, "shift", (8, 9)).outputs(x)
    torch.testing.assert_close(found, torch.tensor([[3.0, 5.0]]))


@pytest.mark.parametrize("views", ["mirror", "mirror+shift"])
def test_a_picture_and_its_mirror_image_get_the_same_answer(views: Views) -> None:
    x = noise(4, 3, 7, 9)
    network = small_network(3, (7, 9))
    found = looking(network, views, (7, 9), 3).outputs(x)
    mirrored = looking(network, views, (7, 9), 3).outputs(x.flip(-1))
    torch.testing.assert_close(found, mirrored, atol=1e-6, rtol=0)
    once = looking(network, "one", (7, 9), 3)
    assert not torch.allclose(once.outputs(x), once.outputs(x.flip(-1)), atol=0.01)


class Minus(nn.Module):
    """Makes −0 of 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -x.flatten(1)


def test_one_view_changes_no_bit() -> None:
    x = noise(4, 3, 7, 9)
    x[:, :, 0] = 0
    for network in (small_network(3, (7, 9)), Minus()):
        found = looking(network, "one", (7, 9), 3).outputs(x)
        plain = network(Normalize((0.0,) * 3, (1 / 255,) * 3)(x))
        assert torch.equal(found.view(torch.int32), plain.view(torch.int32))


def test_each_view_costs_one_call() -> None:
    calls: dict[str, int] = {}
    for views in VIEWS:
        network = nn.Flatten()
        seen: list[int] = []
        network.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        looking(network, views, (4, 4)).outputs(noise(2, 1, 4, 4))
        calls[views] = len(seen)
    assert calls == {"one": 1, "mirror": 2, "shift": 3, "mirror+shift": 6}


def test_pictures_are_fitted_before_they_are_moved() -> None:
    """A pixel is a pixel of the network's input."""
    x = picture(9, 12)
    predictor = looking(small_network(3, (8, 8)), "mirror+shift", (8, 8), 3)
    torch.testing.assert_close(predictor.outputs(x), predictor.outputs(Fit((8, 8))(x)))


def test_unknown_views_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of one, mirror, shift, mirror\+shift, got 'all'"):
        InputSpec(channels=1, size=(8, 8), mean=(0.5,), std=(0.5,), views="all")  # type: ignore[arg-type]
