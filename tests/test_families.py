"""AlexNet, VGG, GoogLeNet and ResNet: published numbers and names, and the layers by formula."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neocog.errors import ConfigError
from neocog.models.catalog import build
from neocog.models.googlenet import AuxiliaryHead, GoogLeNet, Inception, Widths
from neocog.models.resnet import Bottleneck

# name, arguments, parameters, 10⁹ multiply-accumulates at 224×224, and of the published weight file
# the number of its entries and a digest of their names and shapes.
PUBLISHED = [
    ("alexnet", {}, 61_100_840, 0.714, 16, "9c198ebdae1863e4"),
    ("googlenet", {}, 13_004_888, 1.498, 364, "7f541ca29410efb1"),
    ("resnet18", {}, 11_689_512, 1.814, 122, "84fb10d9c6905a1c"),
    ("resnet34", {}, 21_797_672, 3.664, 218, "28f9096d51307499"),
    ("resnet50", {}, 25_557_032, 4.089, 320, "d7e4f8bb0a536344"),
    ("resnet101", {}, 44_549_160, 7.801, 626, "02c0f34f4842751f"),
    ("resnet152", {}, 60_192_808, 11.514, 932, "685c66205bc823aa"),
    ("vgg11", {}, 132_863_336, 7.609, 22, "cb3dc23f2a13e182"),
    ("vgg13", {}, 133_047_848, 11.308, 26, "67c1dc8b57fde74b"),
    ("vgg16", {}, 138_357_544, 15.470, 32, "35c4623e0cd4a39d"),
    ("vgg16", {"norm": "batch"}, 138_365_992, 15.470, 97, "347371586a8ea365"),
    ("vgg19", {}, 143_667_240, 19.632, 38, "4723255af8f6c485"),
]
RESNET = ((64, 2), (64, 4), (128, 8), (256, 16), (512, 32))
BOTTLENECKS = ((64, 2), (256, 4), (512, 8), (1024, 16), (2048, 32))
VGG = ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))
# Channels and stride of the levels, behind the large stem and the small one.
LEVELS = {
    "alexnet": (((64, 4), (192, 8), (256, 16)), ((64, 1), (192, 2), (256, 4))),
    "googlenet": (
        ((64, 2), (192, 4), (480, 8), (832, 16), (1024, 32)),
        ((192, 1), (480, 2), (832, 4), (1024, 8)),
    ),
    "resnet34": (RESNET, ((64, 1), (128, 2), (256, 4), (512, 8))),
    "resnet50": (BOTTLENECKS, ((256, 1), (512, 2), (1024, 4), (2048, 8))),
    "vgg16": (VGG, VGG),
}


def ghost(name: str, args: dict, size=(224, 224), channels: int = 3, outputs: int = 1000):
    """The network without memory for its values."""
    with torch.device("meta"):
        return build(name, channels=channels, size=size, outputs=outputs, args=args).eval()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def lively(net: nn.Module) -> nn.Module:
    """In use, with running averages, scales and shifts that are not 0 and 1."""
    chance = torch.Generator().manual_seed(2)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value in (part.weight, part.bias, part.running_mean, part.running_var):
                value.data = 0.5 + torch.rand(value.shape, generator=chance)
    return net.eval()


@pytest.mark.parametrize(
    ("name", "args", "parameters", "gmac", "entries", "digest"),
    PUBLISHED,
    ids=["-".join([name, *args.values()]) for name, args, *_ in PUBLISHED],
)
def test_parameters_cost_and_names_are_the_published_ones(
    name: str, args: dict, parameters: int, gmac: float, entries: int, digest: str
) -> None:
    net = ghost(name, args)
    assert sum(p.numel() for p in net.parameters()) == parameters
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        net(torch.empty(1, 3, 224, 224, device="meta"))
    assert counted.get_total_flops() / 2e9 == pytest.approx(gmac, abs=5e-4)
    names = [f"{key} {tuple(value.shape)}" for key, value in net.state_dict().items()]
    assert len(names) == entries
    assert hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("name", "args", "shapes"),
    [
        ("alexnet", {}, {"features.0.weight": (64, 3, 11, 11), "classifier.6.bias": (1000,)}),
        ("vgg16", {}, {"features.28.weight": (512, 512, 3, 3), "classifier.0.bias": (4096,)}),
        ("vgg16", {"norm": "batch"}, {"features.41.running_mean": (512,)}),
        (
            "googlenet",
            {},
            {
                "conv1.conv.weight": (64, 3, 7, 7),
                "inception3a.branch1.conv.weight": (64, 192, 1, 1),
                "inception5b.branch3.1.conv.weight": (128, 48, 3, 3),
                "aux1.fc1.weight": (1024, 2048),
                "aux2.conv.conv.weight": (128, 528, 1, 1),
                "fc.weight": (1000, 1024),
            },
        ),
        (
            "resnet50",
            {},
            {
                "layer1.0.downsample.0.weight": (256, 64, 1, 1),
                "layer2.0.conv2.weight": (128, 128, 3, 3),
                "layer4.2.bn3.running_var": (2048,),
                "fc.weight": (1000, 2048),
            },
        ),
    ],
)
def test_published_names(name: str, args: dict, shapes: dict) -> None:
    state = ghost(name, args).state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


def test_googlenet_without_its_further_heads() -> None:
    net = ghost("googlenet", {"auxiliary": False})
    assert sum(p.numel() for p in net.parameters()) == 6_624_904
    assert not [key for key in net.state_dict() if key.startswith("aux")]
    assert len(net.forward_auxiliary(torch.empty(1, 3, 224, 224, device="meta"))) == 1


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_and_outputs_for_large_and_small_pictures(name: str, channels: int) -> None:
    large, small = LEVELS[name]
    for expected, sizes in (
        (large, ((224, 224), (65, 65), (299, 150))),
        (small, ((28, 28), (64, 64), (31, 50), (64, 300))),
    ):
        for size in sizes:
            net = ghost(name, {}, size, channels, 7)
            x = torch.empty(2, channels, *size, device="meta")
            assert tuple((info.channels, info.stride) for info in net.features) == expected
            levels = net.forward_features(x)
            assert len(levels) == len(expected)
            for level, (width, stride) in zip(levels, expected, strict=True):
                assert level.shape[:2] == (2, width)
                for got, side in zip(level.shape[2:], size, strict=True):
                    # AlexNet pads too little for its kernels: it loses up to two positions.
                    lost = 2 if name == "alexnet" else 0
                    assert side // stride - lost <= got <= math.ceil(side / stride)
            assert net(x).shape == (2, 7)


def test_alexnet_has_the_published_maps() -> None:
    levels = ghost("alexnet", {}).forward_features(torch.empty(1, 3, 224, 224, device="meta"))
    assert [tuple(level.shape[1:]) for level in levels] == [
        *((64, 55, 55), (192, 27, 27), (256, 13, 13)),
    ]


@pytest.mark.parametrize(
    ("head", "sides"), [("small", [62, 31, 16, 8, 4]), ("large", [62, 31, 15, 7, 3])]
)
def test_vgg_rounds_up_for_small_pictures_alone(head: str, sides: list[int]) -> None:
    x = torch.empty(1, 3, 62, 62, device="meta")
    levels = ghost("vgg11", {"head": head}, (62, 62)).forward_features(x)
    assert [level.shape[2] for level in levels] == sides


@pytest.mark.parametrize(("name", "inputs"), [("alexnet", 256 * 6 * 6), ("vgg11", 512 * 7 * 7)])
def test_the_published_classifier_takes_pictures_of_any_size(name: str, inputs: int) -> None:
    position = 1 if name == "alexnet" else 0
    for size in ((97, 65), (224, 224), (300, 500)):
        assert ghost(name, {}, size).classifier[position].in_features == inputs
    part = "stem" if name == "alexnet" else "head"
    assert ghost(name, {part: "large"}, (64, 64)).classifier[position].in_features == inputs


@pytest.mark.parametrize(
    ("name", "size", "inputs"),
    [
        ("alexnet", (32, 32), 256 * 3 * 3),
        ("alexnet", (28, 64), 256 * 2 * 6),
        ("alexnet", (64, 200), 256 * 6 * 6),
        ("vgg11", (28, 28), 512),
        ("vgg11", (32, 64), 512 * 2),
        ("vgg11", (64, 300), 512 * 2 * 7),
    ],
)
def test_the_small_classifier_takes_no_more_than_the_maps(name: str, size, inputs: int) -> None:
    assert ghost(name, {}, size).classifier[1 if name == "alexnet" else 0].in_features == inputs


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet101", "resnet152"])
def test_every_depth_refuses_what_its_stem_cannot_take(name: str) -> None:
    for args, smallest in (({}, 8), ({"stem": "large"}, 32)):
        ghost(name, args, (smallest, smallest))
        with pytest.raises(ConfigError, match=f"{name} with .* from {smallest}×{smallest} pixels"):
            ghost(name, args, (smallest - 1, 40))


# The layers by formula ----------------------------------------------------------------------------


def normed(x: Tensor, state: dict, name: str, eps: float = 1e-5) -> Tensor:
    """γ·(x − mean)/√(variance + ε) + β, written out."""
    mean, variance, scale, shift = (
        state[f"{name}.{key}"].view(1, -1, 1, 1)
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + eps).sqrt() * scale + shift


def basic(x: Tensor, state: dict, name: str) -> Tensor:
    """Convolution that keeps the size, norm with GoogLeNet's ε, ReLU."""
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return normed(x, state, f"{name}.bn", eps=1e-3).clamp(min=0)


@pytest.mark.parametrize(("before", "stride"), [(16, 1), (16, 2), (8, 1)])
def test_a_bottleneck_is_its_formula(before: int, stride: int) -> None:
    torch.manual_seed(0)
    block = lively(Bottleneck(before, 4, stride))
    state = block.state_dict()
    x = images(2, before, 7, 6)
    y = normed(F.conv2d(x, state["conv1.weight"]), state, "bn1").clamp(min=0)
    y = F.conv2d(y, state["conv2.weight"], stride=stride, padding=1)
    y = F.conv2d(normed(y, state, "bn2").clamp(min=0), state["conv3.weight"])
    y = normed(y, state, "bn3")
    if (before, stride) == (16, 1):
        assert "downsample.0.weight" not in state
        shortcut = x
    else:
        shortcut = F.conv2d(x[:, :, ::stride, ::stride], state["downsample.0.weight"])
        shortcut = normed(shortcut, state, "downsample.1")
    torch.testing.assert_close(block(x), (y + shortcut).clamp(min=0), rtol=1e-4, atol=1e-5)


def test_bottlenecks_can_begin_as_the_identity() -> None:
    torch.manual_seed(0)
    net = build("resnet50", channels=3, size=(32, 32), outputs=7, args={"zero_init": True}).eval()
    x = torch.rand(1, 256, 4, 4)
    assert torch.equal(net.layer1[1:](x), x)
    assert not net.layer4[2].bn3.weight.any()
    assert net.layer4[2].bn2.weight.all()


def test_an_inception_module_is_its_formula() -> None:
    torch.manual_seed(0)
    widths = Widths(one=3, reduce_three=4, three=5, reduce_five=2, five=6, pooled=7)
    module = lively(Inception(8, widths))
    state = module.state_dict()
    x = images(2, 8, 5, 6)
    # The maximum over 3×3, by hand: of nine pictures that are moved against each other.
    wide = F.pad(x, (1, 1, 1, 1), value=-math.inf)
    moved = [wide[:, :, i : i + 5, j : j + 6] for i in range(3) for j in range(3)]
    highest = torch.stack(moved).amax(0)
    expected = [
        basic(x, state, "branch1"),
        basic(basic(x, state, "branch2.0"), state, "branch2.1"),
        basic(basic(x, state, "branch3.0"), state, "branch3.1"),
        basic(highest, state, "branch4.1"),
    ]
    assert [branch.shape[1] for branch in expected] == [3, 5, 6, 7]
    assert module.after == 21
    torch.testing.assert_close(module(x), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_an_auxiliary_head_is_its_formula() -> None:
    torch.manual_seed(0)
    head = lively(AuxiliaryHead(6, 5, dropout=0.7))
    state = head.state_dict()
    x = images(2, 6, 8, 8)
    pooled = x.reshape(2, 6, 4, 2, 4, 2).mean((3, 5))
    y = basic(pooled, state, "conv").flatten(1)
    y = (y @ state["fc1.weight"].T + state["fc1.bias"]).clamp(min=0)
    y = y @ state["fc2.weight"].T + state["fc2.bias"]
    torch.testing.assert_close(head(x), y, rtol=1e-4, atol=1e-4)


def test_vgg_is_its_formula_from_the_published_names() -> None:
    torch.manual_seed(0)
    args = {"norm": "batch", "hidden": 16}
    net = lively(build("vgg11", channels=1, size=(32, 32), outputs=5, args=args))
    state, x = net.state_dict(), images(2, 1, 32, 32)
    expected, number = x, 0
    for depth in (1, 1, 2, 2, 2):
        for _ in range(depth):
            weight, bias = (state[f"features.{number}.{key}"] for key in ("weight", "bias"))
            expected = F.conv2d(expected, weight, bias, padding=1)
            expected = normed(expected, state, f"features.{number + 1}").clamp(min=0)
            number += 3
        expected = F.max_pool2d(expected, 2)
        number += 1
    expected = expected.flatten(1)
    for layer in (0, 3, 6):
        weight, bias = (state[f"classifier.{layer}.{key}"] for key in ("weight", "bias"))
        expected = F.linear(expected if layer == 0 else expected.clamp(min=0), weight, bias)
    torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-4)


def test_alexnet_is_its_formula_from_the_published_names() -> None:
    torch.manual_seed(0)
    args = {"stem": "large", "hidden": 16}
    net = build("alexnet", channels=1, size=(80, 70), outputs=5, args=args).eval()
    state, x = net.state_dict(), images(2, 1, 80, 70)
    expected = x
    for number, stride, padding, pooled in (
        (0, 4, 2, True),
        (3, 1, 2, True),
        (6, 1, 1, False),
        (8, 1, 1, False),
        (10, 1, 1, True),
    ):
        weight, bias = (state[f"features.{number}.{key}"] for key in ("weight", "bias"))
        expected = F.conv2d(expected, weight, bias, stride, padding).clamp(min=0)
        expected = F.max_pool2d(expected, 3, 2) if pooled else expected
    assert expected.shape == (2, 256, 1, 1)
    expected = expected.expand(2, 256, 6, 6).flatten(1)  # one position stands for all 36
    for layer in (1, 4, 6):
        weight, bias = (state[f"classifier.{layer}.{key}"] for key in ("weight", "bias"))
        expected = F.linear(expected if layer == 1 else expected.clamp(min=0), weight, bias)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


# GoogLeNet's further heads ------------------------------------------------------------------------


def googlenet() -> GoogLeNet:
    torch.manual_seed(0)
    net = build("googlenet", channels=3, size=(32, 32), outputs=4, args={})
    assert isinstance(net, GoogLeNet)
    return net


def test_the_further_heads_answer_beside_the_main_one() -> None:
    net = lively(googlenet())
    x = images(2, 3, 32, 32)
    taken = {}
    for name in ("inception4a", "inception4d"):
        net.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, key=name: taken.update({key: output})
        )
    with torch.no_grad():
        main, first, second = net.forward_auxiliary(x)
        assert torch.equal(main, net(x))
        assert torch.equal(first, net.aux1(taken["inception4a"]))
        assert torch.equal(second, net.aux2(taken["inception4d"]))
    assert first.shape == second.shape == (2, 4)
    assert not torch.allclose(first, second)
    assert net.auxiliary_weight == 0.3


def test_the_weighted_sum_reaches_every_parameter_and_the_main_loss_all_but_the_heads() -> None:
    net = googlenet().train()
    targets = torch.tensor([0, 1, 2, 3])
    main, *others = net.forward_auxiliary(images(4, 3, 32, 32))
    loss = F.cross_entropy(main, targets)
    loss = loss + net.auxiliary_weight * sum(F.cross_entropy(one, targets) for one in others)
    loss.backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.any(), path
    net.zero_grad()
    F.cross_entropy(net(images(4, 3, 32, 32)), targets).backward()
    untouched = {path for path, parameter in net.named_parameters() if parameter.grad is None}
    assert untouched == {path for path, _ in net.named_parameters() if path.startswith("aux")}
