"""EfficientNet, MobileNetV2, DenseNet, ConvNeXt, Inception-v3 and highway networks: published
numbers, names and shapes; their blocks against the formulas of the papers."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import reference
from neocog.errors import ConfigError
from neocog.models.blocks import (
    ConvNormActivation,
    StochasticDepth,
    initialise_by_fan_out,
    round_channels,
)
from neocog.models.catalog import build
from neocog.models.convnext import ConvNeXtBlock
from neocog.models.densenet import DenseBlock
from neocog.models.efficientnet import MBConv
from neocog.models.highway import HighwayLayer
from neocog.models.inception import AuxiliaryHead, Mixed, inception_v3
from neocog.models.mobilenet import InvertedResidual

# Name, parameters at 3 channels and 1000 outputs, side, GMAC there.
PUBLISHED = [
    ("efficientnet_b0", 5_288_548, 224, 0.386),
    ("efficientnet_b1", 7_794_184, 224, 0.570),
    ("efficientnet_b2", 9_109_994, 224, 0.659),
    ("efficientnet_b3", 12_233_232, 224, 0.963),
    ("efficientnet_b4", 19_341_616, 224, 1.504),
    ("efficientnet_b5", 30_389_784, 224, 2.356),
    ("efficientnet_b6", 43_040_704, 224, 3.360),
    ("efficientnet_b7", 66_347_960, 224, 5.170),
    ("mobilenet_v2", 3_504_872, 224, 0.301),
    ("densenet121", 7_978_856, 224, 2.834),
    ("convnext_tiny", 28_589_128, 224, 4.456),
    ("inception_v3", 27_161_264, 299, 5.713),
]

# Channels and side of every level at the published size.
LEVELS = {
    "efficientnet_b0": [(16, 112), (24, 56), (40, 28), (112, 14), (1280, 7)],
    "efficientnet_b7": [(32, 112), (48, 56), (80, 28), (224, 14), (2560, 7)],
    "mobilenet_v2": [(16, 112), (24, 56), (32, 28), (96, 14), (1280, 7)],
    "densenet121": [(64, 112), (256, 56), (512, 28), (1024, 14), (1024, 7)],
    "convnext_tiny": [(96, 56), (192, 28), (384, 14), (768, 7)],
    "inception_v3": [(64, 147), (192, 71), (288, 35), (768, 17), (2048, 8)],
}

# Entries and shapes of the published files.
NAMES = {
    "efficientnet_b0": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.0.block.0.0.weight": (32, 1, 3, 3),
        "features.1.0.block.1.fc1.weight": (8, 32, 1, 1),
        "features.1.0.block.2.1.running_mean": (16,),
        "features.6.3.block.1.0.weight": (1152, 1, 5, 5),
        "features.6.3.block.2.fc2.bias": (1152,),
        "features.8.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    },
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.2.bias": (16,),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.18.1.num_batches_tracked": (),
        "classifier.1.bias": (1000,),
    },
    "densenet121": {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.norm0.running_var": (64,),
        "features.denseblock1.denselayer1.norm1.weight": (64,),
        "features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
        "features.transition3.conv.weight": (512, 1024, 1, 1),
        "features.norm5.bias": (1024,),
        "classifier.weight": (1000, 1024),
    },
    "convnext_tiny": {
        "features.0.0.weight": (96, 3, 4, 4),
        "features.0.1.weight": (96,),
        "features.1.0.layer_scale": (96, 1, 1),
        "features.1.0.block.0.weight": (96, 1, 7, 7),
        "features.2.1.weight": (192, 96, 2, 2),
        "features.7.2.block.5.weight": (768, 3072),
        "classifier.0.bias": (768,),
        "classifier.2.weight": (1000, 768),
    },
    "inception_v3": {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3.bn.running_mean": (384,),
        "Mixed_6b.branch7x7dbl_2.conv.weight": (128, 128, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3dbl_3a.conv.weight": (384, 384, 1, 3),
        "AuxLogits.conv1.conv.weight": (768, 128, 5, 5),
        "AuxLogits.fc.weight": (1000, 768),
        "fc.weight": (1000, 2048),
    },
}
ENTRIES = {
    "efficientnet_b0": 360,
    "mobilenet_v2": 314,
    "densenet121": 727,
    "convnext_tiny": 182,
    "inception_v3": 580,
}
ONE_SHAPE = ["efficientnet_b0", "mobilenet_v2", "inception_v3"]
"""Those of which both stems have weights of one shape."""


def make(name: str, side: int = 32, *, channels: int = 3, outputs: int = 7, **args) -> nn.Module:
    return build(name, channels=channels, size=(side, side), outputs=outputs, args=args)


def ghost(name: str, side: int, *, channels: int = 3, outputs: int = 7, **args) -> nn.Module:
    with torch.device("meta"):
        return make(name, side, channels=channels, outputs=outputs, **args).eval()


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def disturb(module: nn.Module) -> nn.Module:
    """Every weight and average away from the values at which a mistake would not show."""
    generator = torch.Generator().manual_seed(3)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            low = 0.5 if name.endswith("running_var") else -0.5
            value.uniform_(low, low + 1, generator=generator)
    return module


def picture(channels: int, side: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, side, side, generator=generator)


def array(value: torch.Tensor) -> np.ndarray:
    return value.detach().double().numpy()


# Published numbers and names --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters", "side", "gmac"), PUBLISHED)
def test_published_parameters_and_cost(name: str, parameters: int, side: int, gmac: float) -> None:
    net = ghost(name, side, outputs=1000)
    assert sum(p.numel() for p in net.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, side, side, device="meta"))
    assert round(counter.get_total_flops() / 2e9, 3) == gmac


@pytest.mark.parametrize("name", LEVELS)
def test_levels_at_the_published_size(name: str) -> None:
    side = 299 if name == "inception_v3" else 224
    net = ghost(name, side)
    levels = net.forward_features(torch.empty(1, 3, side, side, device="meta"))
    assert [tuple(level.shape[1:]) for level in levels] == [(c, s, s) for c, s in LEVELS[name]]
    assert [level.channels for level in net.features] == [c for c, _ in LEVELS[name]]
    strides = [2, 4, 8, 16, 32]
    assert [level.stride for level in net.features] == strides[-len(LEVELS[name]) :]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    found = shapes(ghost(name, 299, outputs=1000, stem="large"))
    assert len(found) == ENTRIES[name]
    for key, shape in NAMES[name].items():
        assert found[key] == shape, key


@pytest.mark.parametrize("name", NAMES)
def test_stems_and_heads_follow_the_data(name: str) -> None:
    large = 4 if name == "convnext_tiny" else 2
    for side, channels, first in ((28, 1, 1), (64, 3, 1), (75, 1, large), (224, 3, large)):
        net = ghost(name, side, channels=channels, outputs=5)
        x = torch.empty(2, channels, side, side, device="meta")
        assert net(x).shape == (2, 5)
        assert net.features[0].stride == first
        modules = dict(net.named_modules())
        assert all(level.name in modules for level in net.features)
    with torch.device("meta"):  # not thrown away: some positions are left
        small = build(name, channels=3, size=(28, 200), outputs=5, args={})
    assert min(small.forward_features(torch.empty(1, 3, 28, 200, device="meta"))[-1].shape[2:]) >= 3
    assert ghost(name, 224, stem="small").features[0].stride == 1


def test_inception_has_a_small_stem_wherever_the_large_one_takes_more() -> None:
    assert ghost("inception_v3", 74).features[0].stride == 1
    assert ghost("inception_v3", 75).features[0].stride == 2


@pytest.mark.parametrize("name", ONE_SHAPE)
def test_both_stems_have_weights_of_one_shape(name: str) -> None:
    assert shapes(ghost(name, 128, stem="small")) == shapes(ghost(name, 128, stem="large"))


@pytest.mark.parametrize(
    ("name", "stem", "smallest"),
    [
        *((name, "small", 8) for name in ("efficientnet_b0", "efficientnet_b7", "mobilenet_v2")),
        *((name, "large", 32) for name in ("efficientnet_b0", "efficientnet_b7", "mobilenet_v2")),
        ("densenet121", "small", 8),
        ("densenet121", "large", 32),
        ("convnext_tiny", "small", 8),
        ("convnext_tiny", "large", 32),
        ("inception_v3", "small", 7),
        ("inception_v3", "large", 75),
    ],
)
def test_the_smallest_size_works_and_one_less_is_refused(
    name: str, stem: str, smallest: int
) -> None:
    net = ghost(name, smallest, stem=stem)
    levels = net.forward_features(torch.empty(1, 3, smallest, smallest, device="meta"))
    assert min(levels[-1].shape[2:]) == 1
    with pytest.raises(ConfigError, match=f"{stem} stem takes pictures from {smallest}×"):
        make(name, smallest - 1, stem=stem)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("efficientnet_b3", {"stem": "smal"}, "did you mean 'small'"),
        ("efficientnet_b3", {"drop_path": 1.0}, "drop_path lies in"),
        ("efficientnet_b3", {"dropout": -0.1}, "dropout lies in"),
        ("mobilenet_v2", {"width": 0.0}, "width is above 0"),
        ("densenet121", {"dropout": 1.0}, "dropout lies in"),
        ("convnext_tiny", {"drop_path": -0.5}, "drop_path lies in"),
        ("inception_v3", {"stem": "big"}, "stem"),
        ("highway", {"depth": 0}, "depth is at least 1"),
        ("highway", {"activation": "rely"}, "did you mean 'relu'"),
    ],
)
def test_senseless_arguments_are_refused(name: str, args: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, **args)


@pytest.mark.parametrize("name", ["convnext_tiny", "inception_v3"])
def test_the_largest_can_be_traced(name: str) -> None:
    net = ghost(name, 32)
    graph = torch.fx.symbolic_trace(net)
    assert graph(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 7)
    assert not any(getattr(module, "inplace", False) for module in net.modules())


# Two names for one trunk ------------------------------------------------------------------------


def test_the_trunk_is_published_as_features() -> None:
    net = make("mobilenet_v2", width=0.25)
    assert {name.partition(".")[0] for name, _ in net.named_parameters()} == {"trunk", "classifier"}
    state = net.state_dict()
    assert {name.partition(".")[0] for name in state} == {"features", "classifier"}
    for name, parameter in net.named_parameters():
        assert state[name.replace("trunk.", "features.")].data_ptr() == parameter.data_ptr()
    outer = nn.Sequential(nn.Identity(), net)
    assert {name.partition(".")[0] for name in outer.state_dict()} == {"1"}
    assert "1.features.0.0.weight" in outer.state_dict()


@pytest.mark.parametrize("way", ["same", "nested", "copied", "pickled", "own names"])
def test_published_names_load(way: str) -> None:
    source = disturb(make("mobilenet_v2", width=0.25)).eval()
    net = make("mobilenet_v2", width=0.25).eval()
    state = source.state_dict()
    if way == "copied":
        net = copy.deepcopy(net)
    if way == "pickled":
        net = pickle.loads(pickle.dumps(net))
    if way == "own names":
        state = {name.replace("features.", "trunk."): value for name, value in state.items()}
    if way == "nested":
        nn.ModuleDict({"net": net}).load_state_dict({f"net.{k}": v for k, v in state.items()})
    else:
        net.load_state_dict(state)
    x = picture(3, 32)
    assert torch.equal(net(x), source(x))
    assert list(source.state_dict()) == list(net.state_dict())


def test_a_wrong_name_is_still_refused() -> None:
    net = make("mobilenet_v2", width=0.25)
    state = dict(net.state_dict())
    state["features.99.weight"] = state.pop("features.0.0.weight")
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.0\.weight"):
        net.load_state_dict(state)


def test_densenet_reads_the_names_of_its_old_files() -> None:
    net = ghost("densenet121", 224, outputs=1000)
    old = {
        key.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2."): torch.empty_like(value)
        for key, value in net.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    net.load_state_dict(old, assign=True)
    assert net.trunk.denseblock1.denselayer1.conv2.weight is not None
    assert "features.denseblock1.denselayer1.norm1.weight" in net.state_dict()


# Blocks by their formulas -----------------------------------------------------------------------


def conv_norm(block: ConvNormActivation, x: np.ndarray) -> np.ndarray:
    """Convolution and batch norm in use, without the activation."""
    conv, norm = block[0], block[1]
    y = reference.correlate(
        x, array(conv.weight), stride=conv.stride, padding=conv.padding, groups=conv.groups
    )
    running = (array(norm.running_mean), array(norm.running_var))
    return reference.batch_norm(
        y, array(norm.weight), array(norm.bias), running, training=False, eps=norm.eps
    )[0]


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize(("after", "stride", "adds"), [(4, 1, True), (4, 2, False), (6, 1, False)])
def test_mbconv_is_the_formula(after: int, stride: int, adds: bool) -> None:
    block = MBConv(4, after, 3, stride, expand=3, drop_path=0.5, norm=nn.BatchNorm2d)
    disturb(block).eval()
    x = picture(4, 5)
    widen, filtered, squeeze, narrow = block.block
    y = silu(conv_norm(widen, array(x)))
    y = silu(conv_norm(filtered, y))
    mean = y.mean((2, 3), keepdims=True)
    hidden = silu(reference.correlate(mean, array(squeeze.fc1.weight), array(squeeze.fc1.bias)))
    scale = reference.correlate(hidden, array(squeeze.fc2.weight), array(squeeze.fc2.bias))
    y = conv_norm(narrow, y / (1 + np.exp(-scale)))
    expected = y + array(x) if adds else y
    assert squeeze.fc1.out_channels == 1  # a quarter of what comes in
    np.testing.assert_allclose(array(block(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "expand"), [(1, 6), (2, 6), (1, 1)])
def test_inverted_residual_is_the_formula(stride: int, expand: int) -> None:
    block = disturb(InvertedResidual(4, 4, stride, expand)).eval()
    x = picture(4, 5)
    y = array(x)
    *convs, last, norm = block.conv
    assert len(convs) == (2 if expand > 1 else 1)
    for conv in convs:
        y = np.clip(conv_norm(conv, y), 0, 6)
    y = conv_norm(nn.Sequential(last, norm), y)
    expected = y + array(x) if stride == 1 else y
    np.testing.assert_allclose(array(block(x)), expected, rtol=1e-4, atol=1e-5)


def test_dense_block_hands_everything_on() -> None:
    block = disturb(DenseBlock(3, 2, 0.0)).eval()
    x = picture(3, 4)
    y = x.double()
    for layer in copy.deepcopy(block).double().children():
        inner = F.conv2d(F.relu(F.batch_norm(y, *norm_of(layer.norm1))), layer.conv1.weight)
        inner = F.relu(F.batch_norm(inner, *norm_of(layer.norm2)))
        y = torch.cat([y, F.conv2d(inner, layer.conv2.weight, padding=1)], 1)
    assert y.shape[1] == 3 + 2 * 32
    torch.testing.assert_close(block(x).double(), y, rtol=1e-4, atol=1e-4)


def norm_of(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, ...]:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def test_convnext_block_is_the_formula() -> None:
    block = disturb(ConvNeXtBlock(4, 0.5)).eval()
    x = picture(4, 5)
    conv, _, norm, wide, _, narrow, _ = block.block
    y = reference.correlate(
        array(x), array(conv.weight), array(conv.bias), padding=(3, 3), groups=4
    )
    y = np.moveaxis(y, 1, -1)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = y * array(norm.weight) + array(norm.bias)
    y = y @ array(wide.weight).T + array(wide.bias)
    y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    y = y @ array(narrow.weight).T + array(narrow.bias)
    y = array(x) + array(block.layer_scale) * np.moveaxis(y, -1, 1)
    np.testing.assert_allclose(array(block(x)), y, rtol=1e-4, atol=1e-5)
    net = make("convnext_tiny", 8)
    assert all((p == 1e-6).all() for name, p in net.named_parameters() if "layer_scale" in name)


def inception_conv(block: nn.Module, x: torch.Tensor, **args) -> torch.Tensor:
    return F.relu(
        F.batch_norm(F.conv2d(x, block.conv.weight, **args), *norm_of(block.bn), eps=1e-3)
    )


def test_the_last_inception_module_is_figure_7() -> None:
    net = inception_v3(channels=1, size=(32, 32), outputs=2, auxiliary=False)
    block = disturb(net.Mixed_7b).double().eval()
    x = picture(1280, 3, 1).double()
    flat, tall = {"padding": (0, 1)}, {"padding": (1, 0)}
    one = inception_conv(block.branch1x1, x)
    two = inception_conv(block.branch3x3_1, x)
    three = inception_conv(block.branch3x3dbl_1, x)
    three = inception_conv(block.branch3x3dbl_2, three, padding=1)
    expected = [
        one,
        inception_conv(block.branch3x3_2a, two, **flat),
        inception_conv(block.branch3x3_2b, two, **tall),
        inception_conv(block.branch3x3dbl_3a, three, **flat),
        inception_conv(block.branch3x3dbl_3b, three, **tall),
        inception_conv(block.branch_pool, F.avg_pool2d(x, 3, 1, 1)),
    ]
    torch.testing.assert_close(block(x), torch.cat(expected, 1))


def test_the_halving_inception_module_is_figure_10() -> None:
    net = inception_v3(channels=1, size=(32, 32), outputs=2, auxiliary=False)
    block = disturb(net.Mixed_6a).double().eval()
    assert isinstance(block, Mixed)
    x = picture(288, 8, 1).double()
    double = inception_conv(block.branch3x3dbl_1, x)
    double = inception_conv(block.branch3x3dbl_2, double, padding=1)
    expected = [
        inception_conv(block.branch3x3, x, stride=2),
        inception_conv(block.branch3x3dbl_3, double, stride=2),
        F.max_pool2d(x, 3, 2),
    ]
    torch.testing.assert_close(block(x), torch.cat(expected, 1))
    assert block(x).shape == (1, 768, 3, 3)


# Inception's second head ------------------------------------------------------------------------


def test_the_auxiliary_head_pools_as_published_or_to_what_is_there() -> None:
    head = disturb(AuxiliaryHead(6, 3)).double().eval()
    for side in (17, 20, 15, 3):
        x = picture(6, side).double()
        pooled = F.avg_pool2d(x, 5, 3) if side >= 17 else F.adaptive_avg_pool2d(x, 5)
        y = inception_conv(head.conv1, inception_conv(head.conv0, pooled))
        expected = F.linear(y.mean((2, 3)), head.fc.weight, head.fc.bias)
        torch.testing.assert_close(head(x), expected)


def test_the_second_answer_is_for_training_only() -> None:
    net = make("inception_v3", 16, channels=1, dropout=0.0)
    assert net.auxiliary_weight == 0.3
    x = picture(1, 16)
    net.eval()
    with torch.no_grad():
        main, second = net.forward_auxiliary(x)
        assert torch.equal(main, net(x))
    assert second.shape == (2, 7)
    assert not torch.equal(second, main)
    net.train()
    main, second = net.forward_auxiliary(x)
    (main + net.auxiliary_weight * second).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_without_a_second_head_there_is_one_answer() -> None:
    net = ghost("inception_v3", 32, auxiliary=False)
    answers = net.forward_auxiliary(torch.empty(2, 3, 32, 32, device="meta"))
    assert [tuple(answer.shape) for answer in answers] == [(2, 7)]
    assert not any(key.startswith("AuxLogits") for key in net.state_dict())


# Highway ----------------------------------------------------------------------------------------


def test_highway_layer_is_the_formula() -> None:
    layer = disturb(HighwayLayer(3, "tanh", -1.0))
    x = picture(3, 4)
    parts = {
        part: reference.correlate(array(x), array(conv.weight), array(conv.bias), padding=(1, 1))
        for part, conv in (("H", layer.transform), ("T", layer.gate))
    }
    gate = 1 / (1 + np.exp(-parts["T"]))
    expected = np.tanh(parts["H"]) * gate + array(x) * (1 - gate)
    np.testing.assert_allclose(array(layer(x)), expected, rtol=1e-4, atol=1e-5)


def test_a_closed_gate_hands_on_its_input() -> None:
    layer = HighwayLayer(3, "relu", -100.0)
    x = picture(3, 4)
    torch.testing.assert_close(layer(x), x)
    biases = [m.gate.bias for m in make("highway").modules() if isinstance(m, HighwayLayer)]
    assert len(biases) == 3 * 3
    assert all((bias == -2).all() for bias in biases)


@pytest.mark.parametrize(("side", "stages"), [(1, 1), (8, 2), (28, 3), (96, 5)])
def test_highway_has_as_many_stages_as_the_picture_allows(side: int, stages: int) -> None:
    net = ghost("highway", side, width=4, depth=2)
    levels = net.forward_features(torch.empty(1, 3, side, side, device="meta"))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (4 * 2**index, side >> index, side >> index) for index in range(stages)
    ]


def test_a_deep_highway_still_learns() -> None:
    """Sixty layers without norm: a plain network of that depth does not move."""
    torch.manual_seed(0)
    net = make("highway", 4, channels=1, outputs=1, width=4, depth=30)
    x = picture(1, 4, 32)
    wanted = x.mean((1, 2, 3)).sign()[:, None]
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = F.soft_margin_loss(net(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# Shared parts -----------------------------------------------------------------------------------


def test_stochastic_depth_leaves_out_whole_samples() -> None:
    layer = StochasticDepth(0.25).train()
    x = torch.ones(4000, 2, 3, 1)
    torch.manual_seed(5)
    y = layer(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y, y[:, :1, :1].expand_as(y))  # one draw a sample
    share = (y[:, 0, 0, 0] == 0).double().mean().item()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    torch.manual_seed(5)
    assert torch.equal(layer(x), y)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(StochasticDepth(0.0).train()(x), x)


def test_stochastic_depth_grows_from_the_first_block_to_the_last() -> None:
    blocks = [m for m in ghost("efficientnet_b0", 32).modules() if isinstance(m, MBConv)]
    for index, block in enumerate(blocks):
        if block.stochastic_depth is not None:
            assert block.stochastic_depth.share == pytest.approx(0.2 * index / 16)
    assert len(blocks) == 16
    net = ghost("convnext_tiny", 32, drop_path=0.34)
    shares = [m.share for m in net.modules() if isinstance(m, StochasticDepth)]
    assert shares == pytest.approx([0.02 * index for index in range(18)])


def test_batch_norm_of_the_three_largest_is_the_slow_one() -> None:
    for number in (4, 5, 7):
        net = ghost(f"efficientnet_b{number}", 32)
        found = {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
        assert found == ({(1e-3, 0.01)} if number >= 5 else {(1e-5, 0.1)})


def test_first_weights_by_fan_out() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(64, 128, 3), nn.Conv2d(4096, 4096, 3, groups=4096), nn.Linear(300, 300)
    )
    initialise_by_fan_out(net)
    for part, std in zip(net, (math.sqrt(2 / (128 * 9)), math.sqrt(2 / 9), 0.01), strict=True):
        assert part.weight.std().item() == pytest.approx(std, rel=0.03)
        assert not part.bias.any()


def test_widths_are_rounded_to_eight_but_never_far_below() -> None:
    for width in range(1, 400):
        rounded = round_channels(width)
        assert rounded % 8 == 0
        assert rounded >= max(8, 0.9 * width)
        assert rounded - width <= 8
    # MobileNetV2 at three quarters (Table 2 of its paper times 0.75).
    net = ghost("mobilenet_v2", 224, width=0.75)
    assert [level.channels for level in net.features] == [16, 24, 24, 72, 1280]
