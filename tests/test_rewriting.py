"""A ReLU behind the max pooling instead of before it: the same to the last bit, or not moved."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neocog.models import catalog
from neocog.rewriting import rewrite, rewritten

if TYPE_CHECKING:
    from collections.abc import Callable

POOLS: dict[int, tuple[type[nn.Module], type[nn.Module]]] = {
    1: (nn.MaxPool1d, nn.AdaptiveMaxPool1d),
    2: (nn.MaxPool2d, nn.AdaptiveMaxPool2d),
    3: (nn.MaxPool3d, nn.AdaptiveMaxPool3d),
}


def classic() -> nn.Sequential:
    """Two convolutions with one ReLU module for both."""
    relu = nn.ReLU()
    first = [nn.Conv2d(3, 8, 3, padding=1), relu, nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), relu, nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(8 * 8 * 8, 5))


class Split(nn.Module):
    """Somebody's network: rows of layers, and a `forward` of its own between them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = classic()[:-2]
        self.classifier = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def answers(net: nn.Module, images: Tensor) -> list[Tensor]:
    """Output, gradients of all weights and of the pictures, and what the norms remember."""
    images = images.clone().requires_grad_()
    output = net(images)
    wanted = [images, *net.parameters()]
    grads = torch.autograd.grad(output.float().square().sum(), wanted, allow_unused=True)
    return [output, *(one for one in grads if one is not None), *net.buffers()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """To the last bit."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


class Seen(TorchDispatchMode):
    """Shapes of what goes into operations, one after the other."""

    def __init__(self, *operations: Any) -> None:
        super().__init__()
        self.operations = operations
        self.seen: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.operations:
            self.seen.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


# One that was moved is a threshold of 0.
RELUS = torch.ops.aten.relu.default, torch.ops.aten.relu_.default, torch.ops.aten.threshold.default
CONVOLUTION = torch.ops.aten.convolution.default


def passed(net: nn.Module, images: Tensor, *operations: Any) -> list[tuple[int, ...]]:
    """Shapes of what its ReLUs see, or other operations."""
    with Seen(*(operations or RELUS)) as mode, torch.no_grad():
        net(images)
    return mode.seen


def side(name: str) -> int:
    """Of pictures that leave no layer with maps of one pixel, where a kernel of one covers all."""
    return 64 if name == "densenet121" else 32


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "sequential": classic,
    "rows in a network": Split,
    "row in a row": lambda: nn.Sequential(classic()[:2], classic()[2:]),
    **{
        name: lambda name=name, args=args: catalog.build(
            name, args=args, channels=3, size=(side(name), side(name)), outputs=5
        )
        for name, args in {
            "cnn": {"width": 8},
            "vgg11": {"hidden": 16, "dropout": 0.0},
            "resnet18": {"stem": "large"},
            "highway": {"width": 8, "depth": 1},
            "densenet121": {"stem": "large"},
        }.items()
    },
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("half", [False, True])
def test_networks_answer_and_learn_the_same(name: str, training: bool, half: bool) -> None:
    torch.manual_seed(0)
    plain = NETWORKS[name]().train(training)
    moved = copy.deepcopy(plain)
    rewrite(moved)
    images = torch.randn(4, 3, side(name), side(name))
    images = images.contiguous(memory_format=torch.channels_last)
    # But for small maps, whose gradients are summed in another order: see test_smallmaps.py.
    usual = mock.patch("neocog.smallmaps.suits", return_value=False)
    with usual, torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert same(answers(moved, images), answers(plain, images))


@pytest.mark.parametrize(
    ("name", "moved"),
    {"sequential": 2, "rows in a network": 2, "row in a row": 2, "cnn": 3, "vgg11": 5}
    .items(),
)  # fmt: skip
def test_relus_see_less(name: str, moved: int) -> None:
    torch.manual_seed(0)
    net, images = NETWORKS[name]().eval(), torch.randn(2, 3, 32, 32)
    before = passed(net, images)
    rewrite(net)
    after = passed(net, images)
    assert len(before) == len(after)
    halved = [a for b, a in zip(before, after, strict=True) if b != a]
    assert len(halved) == moved
    for big, small in zip(before, after, strict=True):
        assert big == small or small[2:] == tuple(-(-side // 2) for side in big[2:])


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A pooling and a map with many equal numbers, and with some that are none."""
    dims = draw(st.integers(1, 3))
    usual, adaptive = POOLS[dims]
    size = [draw(st.integers(1, 7)) for _ in range(dims)]
    kernel = draw(st.integers(1, 3))
    if draw(st.booleans()):
        pool: Any = adaptive(draw(st.integers(1, 4)))
    else:
        pool = usual(
            kernel,
            stride=draw(st.integers(1, 3)),
            padding=draw(st.integers(0, kernel // 2)),
            # Not stretched: over padding alone, PyTorch's own gradient writes out of bounds.
            ceil_mode=draw(st.booleans()),
        )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    map_ = torch.randint(-2, 3, (2, 3, *size), generator=generator).float()
    if draw(st.booleans()):
        map_.view(-1)[:: draw(st.integers(2, 9))] = draw(
            st.sampled_from([float("inf"), float("-inf"), -0.0])
        )
    return pool, map_


@settings(max_examples=300, deadline=None)
@given(case=cases())
def test_every_pooling_gives_the_same(case: tuple[nn.Module, Tensor]) -> None:
    pool, map_ = case
    plain = nn.Sequential(nn.Identity(), nn.ReLU(), pool)
    try:
        expected = answers(plain, map_)
    except RuntimeError:  # nothing is left of a map so small
        return
    with rewritten(plain):
        assert same(answers(plain, map_), expected)


def test_what_is_none_stays_none() -> None:
    map_ = torch.tensor([[[[float("nan"), 1.0], [-1.0, 2.0]]]])
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    with rewritten(net):
        assert net(map_).isnan().all()


def test_a_stretched_window_of_padding_alone_stays() -> None:
    # Rows −1 and 1 of a map of one row: −∞, where a ReLU behind would say 0.
    net = nn.Sequential(nn.ReLU(), nn.MaxPool1d(2, padding=1, dilation=2))
    map_ = torch.ones(1, 1, 1)
    expected = net(map_)
    with rewritten(net):
        assert torch.equal(net(map_), expected)
    assert expected.isinf().any()


def test_whoever_watches_sees_the_network_as_it_is() -> None:
    net, images = classic(), torch.randn(2, 3, 32, 32)
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Any:
        return lambda _, __, answer: seen.update({name: tuple(answer.shape)})

    with rewritten(net):
        handle = net[1].register_forward_hook(note("relu"))
        net(images)
        assert seen.pop("relu")[2:] == (16, 16)  # the module is in use twice; the last time counts
        handle.remove()
        handle = net[2].register_forward_hook(note("pool"))
        net(images)
        handle.remove()
        assert seen["pool"] == (2, 8, 16, 16)
    inner = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU()))
    outer = nn.Sequential(inner, nn.MaxPool2d(2))
    with rewritten(outer):
        inner.register_forward_hook(note("inner"))
        answer = outer(images)
    assert seen["inner"] == (2, 4, 30, 30)
    assert torch.equal(answer, outer(images))


def test_everything_is_as_it_was_afterwards() -> None:
    net = Split()
    names = list(net.state_dict())
    with rewritten(net):
        assert list(net.state_dict()) == names
        assert "forward" in vars(net.features)
    assert not any("forward" in vars(part) for part in net.modules())
    with pytest.raises(RuntimeError, match="channels"), rewritten(net):
        net(torch.zeros(1, 4, 32, 32))
    assert not any("forward" in vars(part) for part in net.modules())


def test_copies_made_meanwhile_stand_on_their_own() -> None:
    torch.manual_seed(0)
    net, images = classic().eval(), torch.randn(2, 3, 32, 32)
    with rewritten(net):
        other = copy.deepcopy(net)
        read = pickle.loads(pickle.dumps(net))
        with torch.no_grad():
            for one in net.parameters():
                one.zero_()
    assert other(images).abs().sum() > 0
    assert torch.equal(read(images), other(images))
    net[0] = nn.Conv2d(3, 8, 3, padding=1)
    assert net(images).shape == (2, 5)


def test_layers_that_change_meanwhile_count() -> None:
    net, images = classic().eval(), torch.randn(2, 3, 32, 32)
    with rewritten(net):
        net[2] = nn.AvgPool2d(2)
        found = net(images)
    assert torch.equal(found, net(images))


class Shortcut(nn.Module):
    """One whose ReLU changes what another branch takes, too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        return self.body(x) + nn.functional.avg_pool2d(x, 2)


def test_a_relu_in_place_changes_what_others_see() -> None:
    torch.manual_seed(0)
    net, map_ = Shortcut(), torch.randn(2, 3, 6, 6)
    row = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    expected = net(map_), row(map_)
    kept: list[Tensor] = []
    with rewritten(net), rewritten(row):
        assert torch.equal(net(map_), expected[0])
        assert torch.equal(row(map_), expected[1])
        assert [shape[2:] for shape in passed(row, map_)] == [(2, 2)]
        row[0].register_forward_hook(lambda _, __, answer: kept.append(answer))
        assert torch.equal(row(map_), expected[1])
    assert float(kept[0].detach().min()) == 0


class Placed(nn.Module):
    """One that adds something to the answer of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.row(x)
        x += 1
        return x


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(*Placed().row, nn.Hardtanh(0, 0.5, inplace=True)),
        lambda: nn.Sequential(*Placed().row, nn.ReLU(inplace=True)),
        lambda: nn.Sequential(*Placed().row, nn.Flatten(), nn.Dropout(0.0, inplace=True)),
        lambda: nn.Sequential(*Placed().row[::2], nn.ReLU(inplace=True)),
        Placed,
    ],
)
def test_what_comes_behind_may_work_in_place(make: Callable[[], nn.Module], half: bool) -> None:
    torch.manual_seed(0)
    net = make()
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        expected = answers(net, images)
        with rewritten(net):
            assert same(answers(net, images), expected)


def test_hooks_for_all_modules_see_the_poolings() -> None:
    net, seen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda part, _, answer: seen.append((type(part), tuple(answer.shape[2:])))
    )
    try:
        with rewritten(net):
            net(torch.randn(2, 3, 8, 8))
    finally:
        handle.remove()
    assert seen == [(nn.Conv2d, (6, 6)), (nn.MaxPool2d, (3, 3)), (nn.Sequential, (3, 3))]


def test_what_is_put_in_place_of_a_forward_counts_and_stays() -> None:
    net, map_ = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), torch.randn(2, 3, 6, 6)
    with rewritten(net):
        net[0].forward = torch.abs
        assert torch.equal(net(map_), nn.functional.max_pool2d(map_.abs(), 2))
        net.forward = torch.neg
    assert torch.equal(net(map_), -map_)


def test_a_convolution_that_changes_meanwhile_counts() -> None:
    conv, map_ = nn.Conv2d(4, 6, 3), torch.randn(2, 4, 3, 3)
    with rewritten(conv):
        conv.padding = (1, 1)
        found = conv(map_)
        assert torch.equal(found, nn.functional.conv2d(map_, conv.weight, conv.bias, padding=1))
        conv.__class__ = type("Silent", (nn.Conv2d,), {"forward": lambda _, x: x * 0})
        assert torch.equal(conv(map_), map_ * 0)


def test_replicas_of_several_devices_keep_their_weights() -> None:
    net = nn.DataParallel(classic())
    with rewritten(net):
        assert not any("forward" in vars(part) for part in net.modules())


def test_channels_last_stays_so() -> None:
    conv = nn.Conv2d(4, 6, 3)
    map_ = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    with rewritten(conv):
        found = nn.functional.interpolate(conv(map_), scale_factor=4)
    expected = nn.functional.interpolate(conv(map_), scale_factor=4)
    assert found.stride() == expected.stride()


class Doubled(nn.Sequential):
    """One that does more than its layers."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Skewed(nn.ReLU):
    """One that is no ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Doubled(nn.ReLU(), nn.MaxPool2d(2)),
        lambda: nn.Sequential(Doubled(nn.ReLU()), nn.MaxPool2d(2)),
        lambda: nn.Sequential(Skewed(), nn.MaxPool2d(2)),
        lambda: nn.Sequential(nn.LeakyReLU(), nn.MaxPool2d(2)),
        lambda: nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)),
        lambda: nn.Sequential(nn.MaxPool2d(2), nn.ReLU()),
        lambda: nn.Sequential(nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)),
        lambda: nn.Sequential(nn.Identity(), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        lambda: nn.Sequential(),
    ],
)
def test_other_rows_answer_as_they_do(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net, map_ = make(), torch.randn(2, 3, 6, 6)
    expected = net(map_.clone())
    with rewritten(net):
        assert torch.equal(net(map_.clone()), expected)


def test_places_of_maxima_are_given_as_asked() -> None:
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True))
    map_ = torch.randn(2, 3, 6, 6)
    with rewritten(net):
        found = net(map_)
    assert all(map(torch.equal, found, net(map_)))


def test_sequential_takes_its_argument_by_name() -> None:
    net = classic().eval()
    images = torch.randn(2, 3, 32, 32)
    with rewritten(net):
        assert torch.equal(net(input=images), net(images))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(16, 12, 5), (5, 5)),
        (nn.Conv2d(6, 4, (2, 3), stride=2, bias=False), (2, 3)),
        (nn.Conv2d(6, 4, 3, padding="valid"), (3, 3)),
        (nn.Conv2d(8, 2, 1), (1, 1)),
    ],
)
def test_a_kernel_over_all_of_the_picture_is_a_matrix(
    conv: nn.Conv2d, size: tuple[int, int], last: bool
) -> None:
    conv = copy.deepcopy(conv).double()
    order = torch.channels_last if last else torch.contiguous_format
    images = torch.randn(3, conv.in_channels, *size, dtype=torch.float64)
    images = images.contiguous(memory_format=order)
    expected = answers(conv, images)
    with rewritten(conv):
        found = answers(conv, images)
        assert passed(conv, images, CONVOLUTION) == []
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert passed(conv, images, CONVOLUTION) == [tuple(images.shape)]


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 2, dilation=2),
        nn.Conv2d(4, 4, 2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    images = torch.randn(2, 4, 3, 3)
    expected = conv(images)
    with rewritten(conv):
        assert torch.equal(conv(images), expected)
        assert len(passed(conv, images, CONVOLUTION)) == 1


def test_a_picture_without_a_batch_is_convolved() -> None:
    conv, picture = nn.Conv2d(4, 6, 3), torch.randn(4, 3, 3)
    with rewritten(conv):
        found = conv(picture)
    assert torch.equal(found, conv(picture))


@pytest.mark.parametrize(
    ("name", "args", "fewer"),
    [
        ("lenet5", {"activation": "relu", "pool": "max"}, 1),
        # In each of its 16 blocks one to squeeze and one to excite.
        ("efficientnet_b0", {}, 32),
    ],
)
def test_networks_with_such_layers_answer_and_learn_alike(
    name: str, args: dict[str, Any], fewer: int
) -> None:
    torch.manual_seed(0)
    plain = catalog.build(name, args=args, channels=3, size=(64, 64), outputs=5).double().eval()
    moved = copy.deepcopy(plain)
    rewrite(moved)
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    for one, other in zip(answers(moved, images), answers(plain, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    convolved = [len(passed(net, images, CONVOLUTION)) for net in (plain, moved)]
    assert convolved[0] - convolved[1] == fewer
