"""Receptive fields against the support of the gradient, published numbers and hand-made cases."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import probe
import small_nets
from neocog.analysis import taps
from neocog.analysis.field import fields
from neocog.analysis.trace import trace
from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of these the analysis gives an upper bound, and says so.
BOUNDED = {"stripes", "shifted channels", "halves"}
WITHOUT_POSITIONS = {"pool over all", "global", "transformer", "mixer", "antialias"}
PUBLISHED = {"alexnet": 195, "vgg16": 212}
CATALOGUE = {
    **dict.fromkeys(("lenet5", "cnn", "speednet", "highway", "convnext_tiny"), 32),
    **dict.fromkeys(("alexnet", "vgg16", "googlenet"), 64),
    **dict.fromkeys(("resnet18", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_b0"), 72),
    "densenet121": 40,
    "efficientnet_b3": 40,
    "inception_v3": 96,
    **dict.fromkeys(("unet", "unet_backbone", "segnet", "deconvnet"), 33),
    "fcn8s": 49,
}


def build(name: str, size: int, channels: int = 3, outputs: int = 10) -> nn.Module:
    with torch.device("meta"):
        return catalog.build(name, channels=channels, size=(size, size), outputs=outputs, args={})


def check(found: Sequence[probe.Compared], bounded: bool = False) -> None:
    assert found
    for one in found:
        assert one.exact or bounded, one
        assert one.equal if one.exact else one.covers, one


@pytest.mark.parametrize("name", small_nets.NETS)
def test_small_nets_see_the_support_of_the_gradient(name: str) -> None:
    make, shape = small_nets.NETS[name]
    net = make()
    found = probe.compare(net, shape)
    check(found, bounded=name in BOUNDED)
    graph = trace(net, shape)
    # The comparison starts at the last tensor with positions: the answer, where it has some.
    assert (fields(graph).of(graph.outputs[0]) is None) == (name in WITHOUT_POSITIONS)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue_sees_the_support_of_the_gradient(name: str) -> None:
    channels = 1 if name == "lenet5" else 3
    size = CATALOGUE[name]
    net = build(name, size, channels)
    check(probe.compare(net, (1, channels, size, size), tensors=2))


def test_the_probe_can_fail() -> None:
    """A network whose padding is forgotten by the claim is caught."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    (first, *_) = probe.compare(net, (1, 3, 8, 8), tensors=1)
    assert first.position == (0, 0)
    assert first.found == ((0, 1), (0, 1))
    wrong = probe.Compared(first.path, first.position, ((0, 2), (0, 1)), first.found, exact=True)
    assert not wrong.equal
    with pytest.raises(AssertionError):
        check([wrong])


def test_the_probe_agrees_with_real_weights() -> None:
    """Random positive weights, nothing replaced: the same support."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(3, 2, 3, stride=2)
    ).double()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.1, 1)
    x = torch.ones(1, 2, 9, 11, dtype=torch.float64, requires_grad=True)
    y = net(x)
    units = probe.Units(net, x.shape)
    for i, j in ((0, 0), (4, 7), (y.shape[2] - 1, y.shape[3] - 1)):
        (gradient,) = torch.autograd.grad(y[:, :, i, j].sum(), x, retain_graph=True)
        index = (slice(None), slice(None), i, j)
        assert units.seen(("2", 0), index) == probe.support(gradient)


# -- published numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_receptive_fields(name: str) -> None:
    graph = trace(build(name, 224, outputs=1000), (1, 3, 224, 224))
    assert fields(graph).whole() == (PUBLISHED[name],) * 2


@pytest.mark.parametrize(
    ("depths", "published"),
    [((3, 4, 6, 3), 483), ((3, 4, 23, 3), 1027), ((3, 8, 36, 3), 1507)],
    ids=["resnet50", "resnet101", "resnet152"],
)
def test_published_receptive_fields_of_resnets(depths: tuple[int, ...], published: int) -> None:
    """The published ones are of the variant that strides in the last unit of a stage (Araujo,
    Norris, Sim 2019, table 1); the convolutions on the longest path make the field."""
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        for unit in range(depth):
            stride = 2 if unit == depth - 1 and stage < 3 else 1
            layers += [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, stride, 1), nn.Conv2d(4, 4, 1)]
    graph = trace(nn.Sequential(*layers), (1, 3, 224, 224))
    assert fields(graph).whole() == (published, published)


def test_the_resnets_of_the_catalogue_stride_in_the_first_unit() -> None:
    """Summed by hand: stem 11; then 3, 4, 6, 3 units, the first 3×3 of a stage at the old jump."""
    expected = 11 + 3 * 8 + (8 + 3 * 16) + (16 + 5 * 32) + (32 + 2 * 64)
    found = fields(trace(build("resnet50", 224), (1, 3, 224, 224))).whole()
    assert found == (expected, expected) == (427, 427)


def test_the_recursion_of_the_text_books() -> None:
    def whole(*layers: nn.Module) -> tuple[int, ...] | None:
        return fields(trace(nn.Sequential(*layers), (1, 1, 32, 32))).whole()

    assert whole(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)) == (5, 5)
    assert whole(nn.Conv2d(1, 1, 3, 2), nn.Conv2d(1, 1, 3, 2)) == (7, 7)
    assert whole(nn.MaxPool2d(2), nn.MaxPool2d(2)) == (4, 4)


# -- jump, offset, flags ---------------------------------------------------------------------------


def last(net: nn.Module, shape: tuple[int, ...] = (1, 3, 24, 24)):  # type: ignore[no-untyped-def]
    graph = trace(net, shape)
    found = fields(graph).of(graph.outputs[0])
    assert found is not None
    return found


def test_jump_and_offset() -> None:
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 5, 2, 2))
    row, column = last(strided)
    assert (row.size, row.jump, row.offset) == (3 + 4 * 2, 4, 0)
    assert column == row
    (up, _) = last(nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.Upsample(scale_factor=2)))
    # Two neighbours share one window: each starts half a jump beside its centre.
    assert (up.size, up.jump, up.offset) == (3, 2, -1)
    (shifted, _) = last(nn.Conv2d(3, 4, 2))
    assert shifted.offset == Fraction(1, 2)


def test_global_operations_see_everything() -> None:
    make, shape = small_nets.NETS["squeeze-excitation"]
    (row, _) = last(make(), shape)
    assert row.everything
    assert row.exact
    assert row.size == 5  # besides, by its positions


def test_misaligned_branches_are_reported() -> None:
    for name, is_aligned in (("residual", True), ("residual misaligned", False)):
        make, shape = small_nets.NETS[name]
        assert last(make(), shape)[0].aligned == is_aligned


def test_what_depends_on_shapes_only_sees_nothing() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch.zeros_like(x) + 1, x.new_ones(x.shape), torch.empty_like(x).copy_(x)

    graph = trace(Net(), (1, 1, 4, 4))
    found = fields(graph)
    zeros, ones, copied = (found.unit(value, (1, 2)) for value in graph.outputs)
    assert zeros is None
    assert ones is None
    assert copied == ((1, 1), (2, 2))


def test_writes_through_several_views_are_all_seen() -> None:
    """Both views exist before either is written; then the whole is read."""

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            whole = torch.zeros(1, 2, 4, 4)
            first, second = whole[:, :1], whole[:, 1:]
            first.copy_(x)
            second.copy_(x.mean((2, 3), keepdim=True).expand(1, 1, 4, 4))
            return whole * 1

    graph = trace(Net(), (1, 1, 4, 4))
    found = fields(graph)
    field = found.of(graph.outputs[0])
    assert field is not None
    assert field[0].everything
    assert found.unit(graph.outputs[0], (0, 0)) == ((0, 3), (0, 3))


# -- properties ------------------------------------------------------------------------------------


def axis_support(layer: nn.Module, size: int) -> list[tuple[int, int] | None]:
    """For each output position of a 1D layer, by real gradients: first and last input."""
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 0.5)
    x = torch.ones(1, 1, size, requires_grad=True)
    y = layer(x)[0, 0]
    answer: list[tuple[int, int] | None] = []
    for one in y:
        (gradient,) = torch.autograd.grad(one, x, retain_graph=True)
        # Interpolation leaves weights of rounding errors.
        hit = np.flatnonzero(gradient.numpy()[0, 0] > 1e-6 * gradient.numpy().max())
        answer.append((int(hit[0]), int(hit[-1])) if len(hit) else None)
    return answer


def said(layer: nn.Module, size: int) -> list[tuple[int, int] | None]:
    graph = trace(layer, (1, 1, size))
    (output,) = graph.outputs
    found = fields(graph)
    units = [found.unit(output, (i,)) for i in range(graph.values[output].shape[2])]
    return [None if one is None else one[0] for one in units]


geometry = {
    "size": st.integers(1, 24),
    "kernel": st.integers(1, 5),
    "stride": st.integers(1, 4),
    "padding": st.integers(0, 4),
    "dilation": st.integers(1, 3),
}


@settings(max_examples=80, deadline=None)
@given(**geometry)
def test_convolution(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    assume(size + 2 * padding >= dilation * (kernel - 1) + 1)
    layer = nn.Conv1d(1, 1, kernel, stride, padding, dilation)
    assert said(layer, size) == axis_support(layer, size)


@settings(max_examples=80, deadline=None)
@given(**geometry, extra=st.integers(0, 3))
def test_transposed_convolution(
    size: int, kernel: int, stride: int, padding: int, dilation: int, extra: int
) -> None:
    assume(extra < max(stride, dilation))
    assume((size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1 > 0)
    layer = nn.ConvTranspose1d(1, 1, kernel, stride, padding, extra, dilation=dilation)
    assert said(layer, size) == axis_support(layer, size)


@settings(max_examples=80, deadline=None)
@given(
    **{name: geometry[name] for name in ("size", "kernel", "stride", "padding")}, ceil=st.booleans()
)
def test_pooling(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> None:
    assume(padding <= kernel // 2 and size + 2 * padding >= kernel)
    layer = nn.AvgPool1d(kernel, stride, padding, ceil_mode=ceil)
    assert said(layer, size) == axis_support(layer, size)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 24), out=st.integers(1, 24))
def test_adaptive_pooling(size: int, out: int) -> None:
    layer = nn.AdaptiveAvgPool1d(out)
    assert said(layer, size) == axis_support(layer, size)


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(1, 16),
    out=st.integers(1, 40),
    mode=st.sampled_from(["nearest", "nearest-exact", "linear"]),
)
def test_interpolation(size: int, out: int, mode: str) -> None:
    layer = nn.Upsample(size=out, mode=mode)
    assert said(layer, size) == axis_support(layer, size)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_pixels_where_rounding_decides(mode: str) -> None:
    """All sizes, those with centres on edges among them, against what torch picks."""
    for size in range(1, 40):
        x = torch.arange(size, dtype=torch.float32)[None, None]
        for out in range(1, 60):
            picked = F.interpolate(x, size=out, mode=mode)[0, 0].tolist()
            found = taps.scaled(size, out, mode, align_corners=False).clipped[:, 0].tolist()
            assert found == picked, (size, out)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["conv", "pool", "up", "deconv", "cut"]), min_size=2, max_size=4))
def test_sequences(kinds: list[str]) -> None:
    make = {
        "conv": lambda: nn.Conv1d(1, 1, 3, 2, 1),
        "pool": lambda: nn.AvgPool1d(3, 2, 1, ceil_mode=True),
        "up": lambda: nn.Upsample(scale_factor=3),
        "deconv": lambda: nn.ConvTranspose1d(1, 1, 3, 2, 1),
        "cut": lambda: nn.ConstantPad1d((-1, 2), 0.0),
    }
    net = nn.Sequential(*(make[kind]() for kind in kinds))
    size = 7
    try:
        expected = axis_support(net, size)
    except RuntimeError:  # nothing is left of it
        assume(False)
    assert said(net, size) == expected
