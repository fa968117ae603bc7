"""Networks that answer for every pixel: wirings by hand with equal weights, published numbers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import probe
import reference
from neocog.analysis.step import measure_use
from neocog.analysis.trace import trace
from neocog.models.catalog import CATALOG, build
from neocog.models.fcn import bilinear_upsampling
from neocog.models.unet import _continued, valid_side
from neocog.models.unpooling import UnpoolingDecoder

if TYPE_CHECKING:
    from neocog.models.vgg import VGG16Trunk

VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage."""


def make(name: str, size=(32, 32), channels: int = 3, outputs: int = 5, **args) -> nn.Module:
    torch.manual_seed(0)
    return build(name, channels=channels, size=size, outputs=outputs, args=args).eval()


def ghost(name: str, size=(224, 224), channels: int = 3, outputs: int = 21, **args) -> nn.Module:
    with torch.device("meta"):
        return build(name, channels=channels, size=size, outputs=outputs, args=args).eval()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# -- U-Net -----------------------------------------------------------------------------------------


def simulated(side: int, depth: int) -> int | None:
    """What comes out of `side` pixels, layer by layer; None where a halving is odd."""
    sides = []
    for _ in range(depth):
        side -= 4
        sides.append(side)
        if side < 2 or side % 2:
            return None
        side //= 2
    side -= 4
    if side < 1:
        return None
    for _ in range(depth):
        side = 2 * side - 4
    return side if side > 0 else None


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_unpadded_sides_are_the_smallest_that_fit(depth: int) -> None:
    answers = {given: simulated(given, depth) for given in range(1, 400)}
    for side in range(1, 180):
        given, answered = valid_side(side, depth)
        assert answers[given] == answered >= side
        assert given == min(one for one, found in answers.items() if found and found >= side)


def test_the_sides_of_the_paper() -> None:
    """572×572 pixels answer for 388×388; the coarsest maps are 28×28."""
    assert valid_side(388, 4) == (572, 388)
    net = ghost("unet", (388, 388), 1, 2, padding="valid", norm="none")
    seen = []
    net.backbone[0][0].register_forward_hook(lambda _m, given, out: seen.append((given[0], out)))
    net.score.register_forward_hook(lambda _m, given, out: seen.append((given[0], out)))
    assert net(torch.empty(1, 1, 388, 388, device="meta")).shape == (1, 2, 388, 388)
    (first, after), (last, answer) = seen
    assert (first.shape[2:], after.shape[2:]) == ((572, 572), (570, 570))
    assert (last.shape, answer.shape) == ((1, 64, 388, 388), (1, 2, 388, 388))
    levels = net.forward_features(torch.empty(1, 1, 388, 388, device="meta"))
    assert [level.shape[-1] for level in levels] == [568, 280, 136, 64, 28]


@pytest.mark.parametrize("size", [(5, 7), (2, 3), (16, 16), (90, 40)])
def test_the_border_is_mirrored_as_often_as_it_takes(size: tuple[int, int]) -> None:
    x = images(1, 2, *size)
    margins = []
    for side in size:
        given, answered = valid_side(side, 2)
        before = (given - answered) // 2
        margins.append((before, given - side - before))
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), *margins), mode="reflect")
    np.testing.assert_array_equal(_continued(x, 2).numpy(), expected)


def test_a_side_of_one_pixel_is_repeated() -> None:
    found = _continued(torch.full((1, 1, 1, 1), 3.0), 1)
    assert found.shape[2:] == (valid_side(1, 1)[0],) * 2
    assert (found == 3).all()


def two(x: Tensor, part: nn.Sequential, padding: int) -> Tensor:
    for conv in (part[0], part[2]):
        x = F.conv2d(x, conv.weight, conv.bias, padding=padding).clamp(min=0)
    return x


@pytest.mark.parametrize("size", [(16, 16), (17, 23)])
def test_a_padded_unet_is_the_formula(size: tuple[int, int]) -> None:
    net = make("unet", size, width=3, depth=2, norm="none")
    x = images(2, 3, *size)
    a = two(x, net.backbone[0], 1)
    # Rounded up: a border of −∞ on the right and below.
    b = two(F.max_pool2d(halvable(a), 2), net.backbone[1], 1)
    c = two(F.max_pool2d(halvable(b), 2), net.backbone[2], 1)
    up = F.conv_transpose2d(c, net.up[0].weight, net.up[0].bias, stride=2)
    b = two(torch.cat([b, up[:, :, : b.shape[2], : b.shape[3]]], 1), net.decoder[0], 1)
    up = F.conv_transpose2d(b, net.up[1].weight, net.up[1].bias, stride=2)
    a = two(torch.cat([a, up[:, :, : a.shape[2], : a.shape[3]]], 1), net.decoder[1], 1)
    expected = torch.einsum("oc,bchw->bohw", net.score.weight[:, :, 0, 0], a)
    expected = expected + net.score.bias[:, None, None]
    torch.testing.assert_close(net(x), expected)


def halvable(x: Tensor) -> Tensor:
    """With −∞ where a side is odd."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=-np.inf)


def test_an_unpadded_unet_is_the_formula() -> None:
    """The skip's middle, and tiles that overlap as the paper's do: inside, a crop is answered as
    the picture is."""
    net = make("unet", (20, 24), width=3, depth=1, norm="none", padding="valid")
    x = images(2, 3, 20, 24)
    (high, _), (wide, _) = valid_side(20, 1), valid_side(24, 1)
    edges = ((0, 0), (0, 0), (8, high - 28), (8, wide - 32))
    a = two(torch.from_numpy(np.pad(x.numpy(), edges, mode="reflect")), net.backbone[0], 0)
    b = two(F.max_pool2d(a, 2), net.backbone[1], 0)
    up = F.conv_transpose2d(b, net.up[0].weight, net.up[0].bias, stride=2)
    y = two(torch.cat([a[:, :, 4:-4, 4:-4], up], 1), net.decoder[0], 0)
    expected = F.conv2d(y, net.score.weight, net.score.bias)[:, :, :20, :24]
    torch.testing.assert_close(net(x), expected)
    big = images(1, 3, 48, 48)
    crop = net(big[:, :, 6:42, 8:44])
    torch.testing.assert_close(crop[:, :, 8:-8, 8:-8], net(big)[:, :, 14:34, 16:36])


def test_unet_has_the_published_number_of_parameters() -> None:
    """Two 3×3 convolutions a level, 2×2 transposed ones between, a 1×1 at the end: 31,030,658."""
    formula = reference.parameters
    widths = (64, 128, 256, 512, 1024)
    total = formula(2, 64, (1, 1))
    for before, width in zip((1, *widths), widths, strict=False):
        total += formula(width, before, (3, 3)) + formula(width, width, (3, 3))
    for fine, coarse in itertools.pairwise(widths):
        total += formula(fine, coarse, (2, 2))
        total += formula(fine, 2 * fine, (3, 3)) + formula(fine, fine, (3, 3))
    assert count(ghost("unet", (572, 572), 1, 2, norm="none")) == total == 31_030_658
    assert count(ghost("unet", (572, 572), 1, 2, norm="none", padding="valid")) == total


@pytest.mark.parametrize("size", [(30, 30), (41, 37)])
@pytest.mark.parametrize("args", [{}, {"padding": "valid"}])
def test_a_unet_sees_the_support_of_the_gradient(args: dict, size: tuple[int, int]) -> None:
    net = ghost("unet", size, width=2, depth=1, norm="none", **args)
    found = probe.compare(net, (1, 3, *size))
    assert found
    assert all(one.equal for one in found)
    assert all(one.exact for one in found)


# -- U-Net over a backbone -------------------------------------------------------------------------


def test_unet_backbone_has_the_parameters_of_segmentation_models() -> None:
    """Unet("resnet34", classes=1): 24,436,369."""
    net = ghost("unet_backbone", (256, 256), 3, 1, backbone="resnet34")
    decoder, before = 0, 512
    for skip, width in ((256, 256), (128, 128), (64, 64), (64, 32), (0, 16)):
        decoder += 9 * width * (before + skip + width) + 4 * width
        before = width
    trunk = 21_797_672 - reference.parameters(1000, 512)
    assert count(net) == trunk + decoder + reference.parameters(1, 16, (3, 3)) == 24_436_369
    assert count(net.backbone) == trunk


@pytest.mark.parametrize(
    "backbone",
    [
        *("resnet18", "resnet50", "efficientnet_b0", "mobilenet_v2", "vgg16_bn", "densenet121"),
        *("convnext_tiny", "googlenet", "inception_v3", "alexnet", "lenet5", "cnn", "highway"),
        "speednet",
    ],
)
def test_any_convolutional_network_can_be_the_way_down(backbone: str) -> None:
    whole = ghost(backbone, (96, 128), outputs=1)
    net = ghost("unet_backbone", (96, 128), backbone=backbone, width=32)
    for size in ((96, 128), (99, 117)):
        assert net(torch.empty(2, 3, *size, device="meta")).shape == (2, 21, *size)
    inside = dict(net.backbone.named_parameters())
    behind = {name for name, _ in whole.named_parameters()} - set(inside)
    assert set(inside) <= {name for name, _ in whole.named_parameters()}
    heads = ("fc", "classifier", "head", "aux", "Aux", "whiten", "scale")
    assert behind
    assert all(name.startswith(heads) for name in behind), behind
    assert [(one.channels, one.stride) for one in net.features] == [
        (one.channels, one.stride) for one in net.backbone.features
    ]


def test_crops_do_not_choose_the_stem() -> None:
    """Crops of 48 pixels say nothing of how large things are: published weights load."""
    for size, stride in (((256, 256), 2), ((48, 48), 2), ((32, 32), 2), ((28, 40), 1)):
        net = ghost("unet_backbone", size)
        assert net.features[0].stride == stride
        assert net.backbone.conv1.kernel_size == ((7, 7) if stride == 2 else (3, 3))
    assert ghost("unet_backbone", (256, 256), stem="small").features[0].stride == 1
    assert ghost("resnet18", (48, 48)).features[0].stride == 1


def test_unet_backbone_is_the_formula() -> None:
    """Scaled to the next finer level (nearest), joined, convolved; then to the picture."""
    net = make("unet_backbone", (37, 45), width=16, norm="none")
    x = images(2, 3, 37, 45)
    *finer, y = net.backbone.forward_features(x)
    for skip, block in zip(reversed(finer), net.decoder, strict=False):
        y = two(torch.cat([nearest(y, skip.shape[2:]), skip], 1), block, 1)
    y = two(nearest(y, (37, 45)), net.decoder[4], 1)
    expected = F.conv2d(y, net.score.weight, net.score.bias, padding=1)
    torch.testing.assert_close(net(x), expected)


def nearest(x: Tensor, size) -> Tensor:
    rows = torch.arange(size[0]) * x.shape[2] // size[0]
    columns = torch.arange(size[1]) * x.shape[3] // size[1]
    return x[:, :, rows][:, :, :, columns]


# -- FCN -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_first_upsampling_is_bilinear(factor: int) -> None:
    """Each map by itself; what PyTorch interpolates, but where the border shows."""
    x = images(2, 3, 5, 6)
    layer = bilinear_upsampling(3, factor)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    half = factor // 2
    inside = (slice(None), slice(None), slice(half, -half), slice(half, -half))
    torch.testing.assert_close(layer(x)[inside], expected[inside])
    assert layer(x).shape == expected.shape


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_fcn_is_the_formula(name: str) -> None:
    """The stages by hand, the linear layers slid over what they leave, and the skips; odd sides."""
    net = make(name, (39, 54), width=2, hidden=6, batch_norm=False)
    nn.init.normal_(net.score.bias)
    for layer in net.skips:
        nn.init.normal_(layer.weight)
    for layer in net.doublings:
        nn.init.normal_(layer.weight)
    x = images(2, 3, 39, 54)
    _, pooled = stages(net.backbone, x)
    y = F.conv2d(pooled[4], net.fc6.weight, net.fc6.bias, padding=3).clamp(min=0)
    y = F.conv2d(y, net.fc7.weight, net.fc7.bias).clamp(min=0)
    y = F.conv2d(y, net.score.weight, net.score.bias)
    for at, finer in enumerate({"fcn32s": [], "fcn16s": [3], "fcn8s": [3, 2]}[name]):
        y = F.conv_transpose2d(y, net.doublings[at].weight, stride=2, padding=1)
        skip = F.conv2d(pooled[finer], net.skips[at].weight, net.skips[at].bias)
        y = y[:, :, : skip.shape[2], : skip.shape[3]] + skip
    stride = int(name[3:-1])
    y = F.conv_transpose2d(y, net.upsampling.weight, stride=stride, padding=stride // 2)
    torch.testing.assert_close(net(x), y[:, :, :39, :54])


def stages(backbone: VGG16Trunk, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Levels and what pooling leaves of them, by hand."""
    convs = [part for part in backbone.modules() if isinstance(part, nn.Conv2d)]
    levels, pooled = [], []
    for _, depth in VGG16:
        for conv in (convs.pop(0) for _ in range(depth)):
            x = F.conv2d(x, conv.weight, conv.bias, padding=1).clamp(min=0)
        levels.append(x)
        x = F.max_pool2d(halvable(x), 2)
        pooled.append(x)
    return levels, pooled


def test_finer_scores_begin_at_zero_and_the_last_scaling_stays() -> None:
    net = make("fcn8s", (64, 64), width=2, hidden=6)
    with torch.no_grad():
        before = net(images(1, 3, 64, 64))
        for layer in net.skips:
            layer.bias.zero_()
        assert torch.equal(net(images(1, 3, 64, 64)), before)
    assert all(not layer.weight.any() for layer in net.skips)
    frozen = [name for name, one in net.named_parameters() if not one.requires_grad]
    assert frozen == ["upsampling.weight"]


def test_a_score_lands_where_its_pixels_are() -> None:
    """Coarse scores that rise along the rows: pixel i of stride s has (i + ½) / s − ½."""
    net = make("fcn8s", (256, 256), width=1, hidden=2, outputs=1)
    rows = torch.arange(8.0)[:, None].expand(1, 1, 8, 8)
    y = net.upsampling(net.doublings[1](net.doublings[0](rows)))
    expected = (torch.arange(256.0) + 0.5) / 32 - 0.5
    torch.testing.assert_close(y[0, 0, 32:-32, 128], expected[32:-32], rtol=1e-4, atol=1e-4)


# -- unpooling -------------------------------------------------------------------------------------


def unpooled(x: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Values at the places of the maxima of 2×2 windows, by loops."""
    found = np.zeros((*x.shape[:2], *level.shape[2:]), x.dtype)
    for b, c, i, j in np.ndindex(*x.shape):
        window = level[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), window.shape)
        found[b, c, 2 * i + row, 2 * j + column] = x[b, c, i, j]
    return found


def up(x: Tensor, level: Tensor) -> Tensor:
    return torch.from_numpy(unpooled(x.detach().numpy(), level.detach().numpy()))


def test_segnet_is_the_formula() -> None:
    net = make("segnet", (19, 22), width=4, norm="none")
    x = images(2, 3, 19, 22)
    levels, pooled = stages(net.backbone, x)
    y = pooled[-1]
    for level, stage in zip(reversed(levels), net.decoder.stages, strict=True):
        y = up(y, level)
        for conv in stage[::2]:
            y = F.conv2d(y, conv.weight, conv.bias, padding=1).clamp(min=0)
    expected = F.conv2d(y, net.score.weight, net.score.bias, padding=1)
    torch.testing.assert_close(net(x), expected)
    assert [len(stage) // 2 for stage in net.decoder.stages] == [3, 3, 3, 2, 1]


@pytest.mark.parametrize("size", [(19, 22), (233, 260)])
def test_deconvnet_is_the_formula(size: tuple[int, int]) -> None:
    """Small pictures leave maps below 7×7, which are filled up with zeros."""
    net = make("deconvnet", size, width=1, hidden=6, norm="none")
    x = images(1, 3, *size)
    levels, pooled = stages(net.backbone, x)
    y = pooled[-1]
    high, wide = y.shape[2:]
    y = F.pad(y, (0, max(0, 7 - wide), 0, max(0, 7 - high)))
    y = F.conv2d(y, net.fc6[0].weight, net.fc6[0].bias).clamp(min=0)
    y = F.conv2d(y, net.fc7[0].weight, net.fc7[0].bias).clamp(min=0)
    y = F.conv_transpose2d(y, net.defc6[0].weight, net.defc6[0].bias).clamp(min=0)
    y = y[:, :, :high, :wide]
    for level, stage in zip(reversed(levels), net.decoder.stages, strict=True):
        y = up(y, level)
        for conv in stage[::2]:
            y = F.conv_transpose2d(y, conv.weight, conv.bias, padding=1).clamp(min=0)
    torch.testing.assert_close(net(x), F.conv2d(y, net.score.weight, net.score.bias))


def test_deconvnet_leaves_one_vector_of_a_picture_of_its_size() -> None:
    net = ghost("deconvnet")
    seen = []
    net.fc6.register_forward_hook(lambda _m, given, out: seen.append((given[0].shape, out.shape)))
    net.defc6.register_forward_hook(lambda _m, given, out: seen.append((given[0].shape, out.shape)))
    net(torch.empty(1, 3, 224, 224, device="meta"))
    assert seen == [((1, 512, 7, 7), (1, 4096, 1, 1)), ((1, 4096, 1, 1), (1, 512, 7, 7))]


class ThereAndBack(nn.Module):
    """Two stages of pooling and unpooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2, ceil_mode=True, return_indices=True)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.decoder = UnpoolingDecoder((4, 6), (1, 1), "none")
        self.decoder.initialise()

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        y, one = self.pool(a)
        b = self.second(y)
        y, two = self.pool(b)
        found: Tensor = self.decoder(y, (a, b), (one, two))
        return found


def test_unpooling_can_be_compiled() -> None:
    torch.manual_seed(0)
    net = ThereAndBack()
    torch._dynamo.reset()
    fast = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = images(2, 3, 13, 18)
    torch.testing.assert_close(fast(x), net(x))


def test_unpooling_is_understood_by_the_analysis() -> None:
    """Seen as far as the gradient reaches; read are the values and where they go, 8 bytes each."""
    net = ThereAndBack()
    found = probe.compare(net, (1, 3, 21, 18))
    assert found
    assert all(one.equal for one in found)
    assert all(one.exact for one in found)
    graph = trace(net, (1, 3, 21, 18))
    assert sum(node.op == "max_unpool2d" for node in graph.nodes) == 2
    work = {one for _, one in measure_use(net, (1, 3, 21, 18)).work if one.op == "max_unpool2d"}
    coarse, fine = 6 * 6 * 5, 6 * 11 * 9
    middle, whole = 4 * 11 * 9, 4 * 21 * 18
    expected = {12 * coarse + 4 * fine, 12 * middle + 4 * whole}
    assert {one.bytes for one in work} == expected
    assert {one.macs for one in work} == {0}


# -- published numbers of parameters ---------------------------------------------------------------


def vgg_convolutions(bias: bool) -> int:
    """13 convolutions, 14,714,688 with biases."""
    total, before = 0, 3
    for width, depth in VGG16:
        for _ in range(depth):
            total += 9 * before * width + bias * width
            before = width
    return total


def test_parameters_of_fcn() -> None:
    """FCN-8s on VGG-16, 21 classes: 134.5 million, as published."""
    trunk = vgg_convolutions(True) + reference.parameters(4096, 512, (7, 7))
    trunk += reference.parameters(4096, 4096, (1, 1)) + reference.parameters(21, 4096, (1, 1))
    assert vgg_convolutions(True) == 14_714_688
    pool4, pool3 = reference.parameters(21, 512, (1, 1)), reference.parameters(21, 256, (1, 1))
    double = 21 * 21 * 4 * 4
    expected = {
        "fcn32s": trunk + 21 * 21 * 64**2,
        "fcn16s": trunk + pool4 + double + 21 * 21 * 32**2,
        "fcn8s": trunk + pool4 + pool3 + 2 * double + 21 * 21 * 16**2,
    }
    assert {name: count(ghost(name, batch_norm=False)) for name in expected} == expected
    assert expected == {"fcn32s": 136_152_917, "fcn16s": 134_815_994, "fcn8s": 134_489_759}


def test_parameters_of_segnet_and_deconvnet() -> None:
    """29.4 and 251.8 million, as published. Encoder convolutions keep the biases of the published
    weights, others have none beside the norm's."""
    norms = 2 * sum(width * depth for width, depth in VGG16)
    encoder = vgg_convolutions(True) + norms
    widths = (64, 128, 256, 512, 512)
    back = 0
    for width, finer, depth in zip(widths, (64, *widths), (1, 2, 3, 3, 3), strict=False):
        outs = [width] * (depth - 1) + [finer]
        back += sum(9 * width * out + 2 * out for out in outs)
    segnet = encoder + back + reference.parameters(21, 64, (3, 3))
    assert count(ghost("segnet")) == segnet == 29_451_413
    middle = 2 * 512 * 4096 * 49 + 4096 * 4096 + 2 * (4096 + 4096 + 512)
    last = 9 * 64 * 64 + 2 * 64
    deconvnet = encoder + middle + back + last + reference.parameters(21, 64, (1, 1))
    assert count(ghost("deconvnet")) == deconvnet == 251_793_173


def test_trunks_take_the_names_of_published_weights() -> None:
    for name, args, classifier in (
        ("segnet", {}, "vgg16_bn"),
        ("deconvnet", {}, "vgg16_bn"),
        ("fcn8s", {"batch_norm": False}, "vgg16"),
    ):
        trunk = {
            key: value.shape
            for key, value in ghost(classifier, outputs=1000).state_dict().items()
            if key.startswith("features.")
        }
        inside = {
            key.removeprefix("backbone."): value.shape
            for key, value in ghost(name, **args).state_dict().items()
            if key.startswith("backbone.")
        }
        assert inside == trunk


def test_every_network_for_maps_says_so() -> None:
    assert {name for name, entry in CATALOG.items() if entry.gives == "map"} == {
        *("deconvnet", "fcn16s", "fcn32s", "fcn8s", "segnet", "unet", "unet_backbone")
    }
