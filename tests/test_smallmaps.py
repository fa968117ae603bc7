"""Convolutions of small maps: answers as PyTorch's own, gradients but for the order of sums."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from neocog import smallmaps
from neocog.models import catalog
from neocog.rewriting import rewritten


def gradients(answer: Tensor, *of: Tensor | None) -> list[Tensor]:
    """Of a sum in which every number counts differently."""
    weights = torch.linspace(-1, 2, answer.numel(), dtype=answer.dtype).view_as(answer)
    wanted = [one for one in of if one is not None]
    return [answer.detach(), *torch.autograd.grad((answer * weights).sum(), wanted)]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_it_is_as_pytorch_has_it(data: st.DataObject) -> None:
    numbers = st.integers(1, 4)
    size, height, width = (data.draw(numbers) for _ in range(3))
    padding = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    kernel = [
        data.draw(st.integers(1, min(5, side + 2 * more)))
        for side, more in zip((height, width), padding, strict=True)
    ]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))

    def numbers_of(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    images, weight = numbers_of(size, 3, height, width), numbers_of(5, 3, *kernel)
    bias = numbers_of(5) if data.draw(st.booleans()) else None
    order = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    ordered = images.contiguous(memory_format=order)
    if data.draw(st.booleans()):
        ordered = ordered.detach()  # of a first layer, to which nothing goes back
    of = [images if ordered.requires_grad else None, weight, bias]
    found = gradients(smallmaps.conv2d(ordered, weight, bias, padding), *of)
    expected = gradients(F.conv2d(ordered, weight, bias, padding=padding), *of)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_gradients_lie_in_memory_as_the_kernels_do() -> None:
    images = torch.randn(2, 3, 4, 4)
    for order in (torch.contiguous_format, torch.channels_last):
        weight = torch.randn(4, 3, 3, 3).contiguous(memory_format=order).requires_grad_()
        smallmaps.conv2d(images, weight, None, (1, 1)).sum().backward()
        assert weight.grad is not None
        assert weight.grad.stride() == weight.stride()


def test_finite_differences() -> None:
    def function(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return smallmaps.conv2d(images, weight, bias, (1, 1))

    torch.manual_seed(0)
    shapes = [(2, 2, 3, 2), (3, 2, 3, 3), (3,)]
    given_ = [torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(function, given_)
    assert torch.autograd.gradgradcheck(function, given_)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_bfloat16_is_as_close_as_pytorchs(side: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 256, 3, padding=1)
    images = torch.randn(16, 256, side, side).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    of = [images, conv.weight, conv.bias]
    exact = gradients(conv(images), *of)
    with torch.autocast("cpu", torch.bfloat16):
        usual = gradients(conv(images), *of)
        with (
            mock.patch.object(smallmaps, "conv2d", wraps=smallmaps.conv2d) as used,
            rewritten(conv),
        ):
            found = gradients(conv(images), *of)
    assert used.called
    assert [one.dtype for one in found] == [one.dtype for one in usual]
    assert torch.equal(found[0], usual[0])
    for one, other, true in zip(found, usual, exact, strict=True):
        error, least = ((x.double() - true).norm() / true.norm() for x in (one, other))
        assert error <= 1.1 * least + 1e-6


@pytest.mark.parametrize(
    ("conv", "side", "meant"),
    [
        (nn.Conv2d(256, 256, 3, padding=1), 4, True),
        (nn.Conv2d(256, 256, (3, 1), padding=(1, 0)), 2, True),
        (nn.Conv2d(256, 256, 3, padding=1), 5, False),
        (nn.Conv2d(256, 255, 3, padding=1), 4, False),
        (nn.Conv2d(256, 256, 3, padding=1, stride=2), 4, False),
        (nn.Conv2d(256, 256, 3, padding=2, dilation=2), 4, False),
        (nn.Conv2d(512, 512, 3, padding=1, groups=2), 4, False),
        (nn.Conv2d(256, 256, 3, padding="same"), 4, False),
        (nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect"), 4, False),
        (nn.Conv2d(256, 256, 3, padding=1).requires_grad_(False), 4, False),
    ],
)
def test_in_training_wide_kernels_on_small_maps_go_by_it(
    conv: nn.Conv2d, side: int, meant: bool
) -> None:
    images = torch.randn(2, conv.in_channels, side, side).requires_grad_()
    of = [images, *(one for one in conv.parameters() if one.requires_grad)]
    expected = gradients(conv(images), *of)
    with mock.patch.object(smallmaps, "conv2d", wraps=smallmaps.conv2d) as used, rewritten(conv):
        found = gradients(conv(images), *of)
        assert used.called == meant
        used.reset_mock()
        with torch.no_grad():
            conv(images)
        assert not used.called
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_it_suits_numbers_that_it_was_measured_with() -> None:
    images, weight = torch.randn(2, 256, 4, 4), torch.randn(256, 256, 3, 3).requires_grad_()
    assert smallmaps.suits(images, weight)
    assert smallmaps.suits(images.bfloat16(), weight)
    assert not smallmaps.suits(images.half(), weight)
    assert not smallmaps.suits(images.to(torch.complex64), weight)
    assert not smallmaps.suits(images, weight[:255])
    with torch.autocast("cpu", torch.float16):
        assert not smallmaps.suits(images, weight)
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        assert not smallmaps.suits(images, weight)


@pytest.mark.parametrize("padding", [1, (1,), [1, 1]])
def test_a_padding_that_is_set_otherwise_counts(padding: Any) -> None:
    conv, images = nn.Conv2d(256, 256, 3), torch.randn(2, 256, 4, 4)
    expected = gradients(F.conv2d(images, conv.weight, conv.bias, padding=1), conv.weight)
    with rewritten(conv):
        conv.padding = padding
        found = gradients(conv(images), conv.weight)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_autocast_leaves_float64_alone() -> None:
    conv = nn.Conv2d(256, 256, 3, padding=1)
    images = torch.randn(2, 256, 4, 4, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16), rewritten(conv):
        with pytest.raises(RuntimeError, match="type"):
            conv(images)
        assert conv.double()(images).dtype == torch.float64


def test_parametrizations_are_asked_once() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 256, 4, 4)
    conv = nn.Conv2d(256, 256, 3, padding=1)
    other = copy.deepcopy(conv)
    with rewritten(conv):
        for one in (conv, other):
            torch.manual_seed(1)
            spectral_norm(one)
        assert torch.equal(conv(images), other(images))
        assert torch.equal(conv(images), other(images))


def test_functional_transforms_see_pytorchs_own() -> None:
    conv, images = nn.Conv2d(256, 256, 3, padding=1), torch.randn(2, 256, 4, 4)
    pool, maps = nn.MaxPool2d(2), torch.randn(64, 32, 32, 32).bfloat16()
    maps = maps.contiguous(memory_format=torch.channels_last)
    with rewritten(conv), rewritten(pool):
        found = torch.func.grad(lambda x: conv(x).sum())(images)
        torch.func.grad(lambda x: pool(x).sum())(maps)
    torch.testing.assert_close(found, torch.func.grad(lambda x: conv(x).sum())(images))


def test_networks_in_bfloat16_learn_alike() -> None:
    """As far from the exact gradients as PyTorch's own way is."""
    torch.manual_seed(0)
    net = catalog.build(
        "vgg11", args={"hidden": 16, "dropout": 0.0}, channels=3, size=(32, 32), outputs=5
    )
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    exact = gradients(net(images), *net.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        usual = gradients(net(images), *net.parameters())
        with mock.patch.object(smallmaps, "conv2d", wraps=smallmaps.conv2d) as used, rewritten(net):
            found = gradients(net(images), *net.parameters())
    assert used.called
    for one, other, true in zip(found, usual, exact, strict=True):
        error, least = ((x.double() - true).norm() for x in (one, other))
        assert error <= 1.2 * least + 1e-6


def test_whole_networks_learn_the_same() -> None:
    torch.manual_seed(0)
    net = catalog.build("resnet18", args={}, channels=3, size=(32, 32), outputs=5).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = gradients(net(images), *net.parameters())
    with mock.patch.object(smallmaps, "conv2d", wraps=smallmaps.conv2d) as used, rewritten(net):
        found = gradients(net(images), *net.parameters())
    assert used.call_count == 3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
