"""Max pooling of 2×2 windows in bfloat16: as PyTorch's own, to the last bit."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neocog import pooling
from neocog.pooling import max_pool_2x2, suits
from neocog.rewriting import rewritten

if TYPE_CHECKING:
    from collections.abc import Callable


def a_map(*shape: int, seed: int = 0, half: bool = True) -> Tensor:
    """Whole numbers, of which many are equal, in channels last."""
    generator = torch.Generator().manual_seed(seed)
    map_ = torch.randint(-3, 4, shape, generator=generator)
    map_ = map_.to(torch.bfloat16 if half else torch.float32)
    return map_.contiguous(memory_format=torch.channels_last)


def there_and_back(
    function: Callable[[Tensor], Tensor], map_: Tensor, grad: Tensor
) -> list[Tensor]:
    """What a function gives, and what it hands back."""
    map_ = map_.clone().requires_grad_()
    answer = function(map_)
    return [answer.detach(), *torch.autograd.grad(answer, map_, grad)]


def pooled(map_: Tensor) -> Tensor:
    return F.max_pool2d(map_, 2)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """A map, what comes back to it, and the bytes that are worked on at a time."""
    size, channels = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 3, 16, 33]))
    height, width = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    seed = draw(st.integers(0, 2**31))
    map_ = a_map(size, channels, height, width, seed=seed)
    map_ += draw(st.sampled_from([0, -4, 1e-30, 0.1]))  # also such as are all below 0, or tiny
    if draw(st.booleans()):
        odd = draw(st.sampled_from([float("inf"), float("-inf")]))
        map_.permute(0, 2, 3, 1).view(-1)[:: draw(st.integers(2, 9))] = odd
    grad = a_map(size, channels, height // 2, width // 2, seed=seed + 1)
    if draw(st.booleans()):
        grad = grad.contiguous()
    elif draw(st.booleans()):
        grad = grad[:1, :1, :1, :1].expand_as(grad)  # that of a sum
        return map_, grad, 1 << 21
    if draw(st.booleans()):
        grad[0, 0, 0, 0] = float("inf")
    return map_, grad, draw(st.sampled_from([1, 2000, 1 << 21]))


@settings(max_examples=300, deadline=None)
@given(case=cases(), relu=st.booleans())
def test_it_is_as_pytorch_has_it(case: tuple[Tensor, Tensor, int], relu: bool) -> None:
    map_, grad, block = case
    with mock.patch.object(pooling, "_BLOCK", block):
        found = there_and_back(lambda x: max_pool_2x2(x, relu=relu), map_, grad)
        with torch.no_grad():
            assert torch.equal(max_pool_2x2(map_, relu=relu), found[0])
    expected = there_and_back(lambda x: pooled(x).relu() if relu else pooled(x), map_, grad)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride() or 1 in one.shape


@settings(max_examples=50, deadline=None)
@given(signs=st.lists(st.sampled_from([0.0, -0.0, -1.0]), min_size=4, max_size=4))
def test_zeros_of_either_sign_are_equal(signs: list[float]) -> None:
    map_ = torch.tensor(signs, dtype=torch.bfloat16).view(1, 1, 2, 2).expand(1, 2, 2, 2)
    map_ = map_.contiguous(memory_format=torch.channels_last)
    grad = torch.ones(1, 2, 1, 1, dtype=torch.bfloat16)
    answer, back = there_and_back(max_pool_2x2, map_, grad)
    assert torch.equal(answer, pooled(map_))
    # Which of the greatest gets the gradient is open where their bits differ; one of them does.
    assert torch.equal(back.sum((2, 3)), torch.ones(1, 2))
    assert torch.equal((back * map_).sum((2, 3)), answer.flatten(1))
    _, back = there_and_back(lambda x: max_pool_2x2(x, relu=True), map_, grad)
    assert not back.any()


@pytest.mark.parametrize("relu", [False, True])
def test_nan_stays_nan(relu: bool) -> None:
    map_ = a_map(1, 4, 4, 4)
    map_[0, 0, 0, 1] = map_[0, 1, 3, 2] = float("nan")
    expected = pooled(map_).isnan()
    assert torch.equal(max_pool_2x2(map_, relu=relu).isnan(), expected)
    assert torch.equal(max_pool_2x2(map_.requires_grad_(), relu=relu).isnan(), expected)


@pytest.mark.parametrize("relu", [False, True])
def test_the_way_back_can_be_differentiated(relu: bool) -> None:
    """Gradients of a penalty on gradients, three deep."""

    def penalty(function: Callable[[Tensor], Tensor], map_: Tensor) -> list[Tensor]:
        map_ = map_.clone().requires_grad_()
        answer = function(map_)
        (first,) = torch.autograd.grad(answer.pow(3).sum(), map_, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), map_, create_graph=True)
        (third,) = torch.autograd.grad(second.pow(2).sum(), map_)
        return [first, second, third]

    map_ = a_map(2, 3, 5, 4)
    found = penalty(lambda x: max_pool_2x2(x, relu=relu), map_)
    expected = penalty(lambda x: pooled(x).relu() if relu else pooled(x), map_)
    assert float(expected[2].detach().abs().sum()) > 0
    assert all(map(torch.equal, found, expected))


def test_it_suits_large_maps_in_bfloat16_and_channels_last() -> None:
    large = a_map(64, 32, 32, 32)
    assert suits(large)
    assert not suits(large.float())
    assert not suits(large.half())
    assert not suits(large.contiguous())
    assert not suits(large[:2])
    assert not suits(large.flatten(0, 1))
    assert not suits(large.reshape(-1, 32, 1, 32).contiguous(memory_format=torch.channels_last))
    assert not suits(large.to("meta"))
    assert not suits(large.reshape(-1, 1, 32, 32))
    assert not suits(a_map(64, 32, 64, 32)[:, :, ::2])
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        assert not suits(large)


WINDOWS = {
    "plain": (nn.MaxPool2d(2), 33, True),
    "spelt out": (nn.MaxPool2d((2, 2), (2, 2), (0, 0), (1, 1)), 33, True),
    "overlapping": (nn.MaxPool2d(2, stride=1), 33, False),
    "larger": (nn.MaxPool2d(3, 2), 33, False),
    "padded": (nn.MaxPool2d(2, padding=1), 33, False),
    "stretched": (nn.MaxPool2d(2, dilation=2), 33, False),
    "to the end": (nn.MaxPool2d(2, ceil_mode=True), 33, False),
    "at the end": (nn.MaxPool2d(2, ceil_mode=True), 32, True),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("relu", [False, True])
def test_in_training_poolings_of_this_form_go_by_it(name: str, relu: bool) -> None:
    pool, height, meant = WINDOWS[name]
    net = nn.Sequential(*[nn.ReLU()] * relu, copy.deepcopy(pool))
    map_ = a_map(32, 64, height, 32)
    grad = torch.ones_like(net(map_))
    expected = there_and_back(net, map_, grad)
    with mock.patch("neocog.rewriting.max_pool_2x2", wraps=max_pool_2x2) as used, rewritten(net):
        found = there_and_back(net, map_, grad)
        assert used.called == meant
        if meant:
            assert used.call_args.kwargs == ({"relu": True} if relu else {})
    assert all(map(torch.equal, found, expected))


def test_a_pooling_that_changes_meanwhile_counts() -> None:
    pool, map_ = nn.MaxPool2d(2), a_map(32, 64, 32, 32)
    with rewritten(pool):
        pool.stride = 1
        assert torch.equal(pool(map_), F.max_pool2d(map_, 2, 1))
        pool.__class__ = type("Silent", (nn.MaxPool2d,), {"forward": lambda _, x: x * 0})
        assert torch.equal(pool(map_), map_ * 0)


def test_what_is_computed_again_is_the_same() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    images = torch.randn(64, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def gradients(again: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            answer = checkpoint(net, images, use_reentrant=False) if again else net(images)
        return list(torch.autograd.grad(answer.float().square().sum(), list(net.parameters())))

    with rewritten(net):
        found = gradients(True)
    assert all(map(torch.equal, found, gradients(False)))


def test_whole_networks_learn_the_same() -> None:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(64 * 8 * 8, 5))
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def gradients() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(images).float().square().mean()
        return [loss, *torch.autograd.grad(loss, list(net.parameters()))]

    expected = gradients()
    with mock.patch("neocog.rewriting.max_pool_2x2", wraps=max_pool_2x2) as used, rewritten(net):
        found = gradients()
    assert used.call_count == 2
    assert all(map(torch.equal, found, expected))
