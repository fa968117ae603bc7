"""Remarks: each flaw is found where it was planted, and not in a twin without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.analysis.advice import CODES, Remark, advice
from neocog.analysis.field import fields
from neocog.analysis.summary import layers
from neocog.analysis.trace import trace
from neocog.errors import ConfigError
from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


def remarks(
    module: nn.Module,
    *shape: int,
    objects: Sequence[int] = (),
    trained: Collection[str] = (),
) -> tuple[Remark, ...]:
    graph = trace(module, shape)
    known = fields(graph)
    return advice(graph, known, layers(graph, known), objects=objects, trained=trained)


def only(code: str, module: nn.Module, *shape: int) -> Remark:
    found = [one for one in remarks(module, *shape) if one.code == code]
    assert len(found) == 1, [one.sentence for one in found]
    return found[0]


def none(code: str, module: nn.Module, *shape: int) -> bool:
    return not [one for one in remarks(module, *shape) if one.code == code]


class Joined(nn.Module):
    """Layers by name and a function that runs them."""

    def __init__(self, run: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(before: int, after: int, kernel: int = 3, **more: int | bool) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, **more)  # type: ignore[arg-type]


# -- rows that are lost ----------------------------------------------------------------------------


def unread_rows(layer: nn.Module, size: int) -> int:
    """Rows without a gradient, whatever the columns."""
    x = torch.rand(1, 4, size, size + 40, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    return int((x.grad[0].abs().sum((0, 2)) == 0).sum())


WINDOWS = {
    f"{k}/{s} pad {p} dilation {d} on {size}": (k, s, p, d, size)
    for k, s, p, d in (
        *((2, 2, 0, 1), (3, 2, 0, 1), (3, 2, 1, 1), (3, 3, 0, 1), (1, 2, 0, 1), (5, 4, 1, 1)),
        *((3, 2, 0, 2), (2, 3, 0, 1), (3, 1, 0, 1)),
    )
    for size in (11, 12, 13, 14)
}


@pytest.mark.parametrize("name", WINDOWS)
def test_rows_that_nothing_reads_are_those_without_a_gradient(name: str) -> None:
    kernel, stride, padding, dilation, size = WINDOWS[name]
    layer = conv(4, 4, kernel, stride=stride, padding=padding, dilation=dilation)
    nn.init.ones_(layer.weight)
    lost = unread_rows(layer, size)
    if not lost:
        assert none("unread", layer, 1, 4, size, size)
        return
    verb = "is" if lost == 1 else "are"
    said = only("unread", layer, 1, 4, size, size).sentence
    assert f"{lost} of {size} rows and columns {verb} never read" in said


def test_a_pooling_on_an_odd_map_is_told_and_the_map_it_wants_is_right() -> None:
    net = nn.Sequential(conv(3, 8, padding=1), nn.MaxPool2d(3, 2), conv(8, 8))
    said = only("unread", net, 1, 3, 14, 13)
    assert said.layer == "1"
    assert said.sentence == "1 (MaxPool2d, 3×3/2): 1 of 14 rows is never read"
    assert "15×13" in said.remedy
    assert none("unread", net, 1, 3, 15, 13)
    rounded = nn.Sequential(conv(3, 8, padding=1), nn.MaxPool2d(3, 2, ceil_mode=True), conv(8, 8))
    assert none("unread", rounded, 1, 3, 14, 13)


def test_what_one_branch_skips_another_may_read() -> None:
    """The shortcut of a residual block reads every second position; the block reads all."""
    parts = {"a": conv(4, 4, stride=2, padding=1), "b": conv(4, 4, 1, stride=2)}
    both = Joined(lambda net, x: net.a(x.relu()) + net.b(x), **parts)
    block = Joined(lambda net, x: net.a(x) + net.b(x), **parts)
    assert only("unread", Joined(lambda net, x: net.b(x), **parts), 1, 4, 12, 12).layer == "b"
    assert none("unread", both, 1, 4, 12, 12)
    assert none("unread", block, 1, 4, 12, 12)


# -- padding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "dilation", "size"), [(3, 1, 1), (5, 1, 2), (7, 1, 3), (7, 1, 1), (3, 6, 5)]
)
def test_the_share_of_the_padding_is_that_of_a_window_over_ones(
    kernel: int, dilation: int, size: int
) -> None:
    padding = dilation * (kernel // 2)
    layer = conv(1, 1, kernel, padding=padding, dilation=dilation)
    ones = torch.ones(1, 1, size, size)
    inside = F.unfold(ones, kernel, dilation=dilation, padding=padding).mean().item()
    gone = kernel**2 * (1 - inside)
    said = only("padded", layer, 1, 1, size, size).sentence
    number = f"{gone:.0f} of" if abs(gone - round(gone)) < 1e-4 else f"on average {gone:.1f} of"
    assert f"a map of {size}×{size}: {number} {kernel**2} positions" in said


def test_a_kernel_that_fits_is_not_blamed_and_several_are_told_together() -> None:
    net = nn.Sequential(*(conv(4, 4, padding=1) for _ in range(5)))
    assert none("padded", net, 1, 4, 2, 2)
    assert none("padded", nn.Conv2d(4, 4, 1), 1, 4, 1, 1)
    said = only("padded", net, 1, 4, 1, 1)
    assert "8 of 9" in said.sentence
    assert said.sentence.endswith("the same in 1, 2 and 2 more")


# -- what is seen ----------------------------------------------------------------------------------


def tower(count: int, *behind: nn.Module) -> nn.Module:
    return nn.Sequential(*(conv(3, 3, padding=1) for _ in range(count)), *behind)


def test_a_field_smaller_than_the_picture_is_told_where_the_picture_is_averaged() -> None:
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    said = only("short-sighted", tower(4, *pooled), 1, 3, 20, 20)
    assert said.layer == "4"
    # 1 + 4·(3 − 1)
    assert said.sentence.startswith("the receptive field is 9×9 of 20×20 pixels before 4 averages")
    assert none("short-sighted", tower(10, *pooled), 1, 3, 20, 20)
    strided = nn.Sequential(conv(3, 3, 7, stride=4), conv(3, 3, 5), *pooled)
    assert none("short-sighted", strided, 1, 3, 23, 23)  # 7 + 4·4
    assert not none("short-sighted", strided, 1, 3, 24, 24)


def test_linear_layers_and_gates_see_all() -> None:
    flat = tower(2, nn.Flatten(), nn.Linear(3 * 20 * 20, 2))
    assert none("short-sighted", flat, 1, 3, 20, 20)
    layers_of = {"a": conv(3, 3, padding=1), "g": conv(3, 3, 1), "b": conv(3, 3, padding=1)}
    gated = Joined(
        lambda net, x: net.b(net.a(x) * net.g(net.a(x).mean((2, 3), True)).sigmoid()).mean((2, 3)),
        **layers_of,
    )
    plain = Joined(lambda net, x: net.b(net.g(net.a(x))).mean((2, 3)), **layers_of)
    assert none("short-sighted", gated, 1, 3, 20, 20)
    assert not none("short-sighted", plain, 1, 3, 20, 20)


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 3), nn.InstanceNorm2d(3), nn.BatchNorm2d(3)])
def test_a_norm_does_not_look_around(norm: nn.Module) -> None:
    assert not none("short-sighted", tower(2, norm, nn.AdaptiveAvgPool2d(1)), 1, 3, 20, 20)


def test_objects_are_what_must_be_seen_where_they_are_known() -> None:
    net = tower(4)
    (dense,) = remarks(net, 1, 3, 20, 20)
    assert dense.sentence.startswith("an output sees 9×9 of 20×20 pixels")
    assert not remarks(net, 1, 3, 20, 20, objects=(9, 8))
    (small,) = remarks(net, 1, 3, 20, 20, objects=(9, 10))
    assert "an object of 9×10" in small.sentence
    with pytest.raises(ConfigError, match="along 2 axes"):
        remarks(net, 1, 3, 20, 20, objects=(9,))


def test_a_stem_for_large_pictures_on_small_ones() -> None:
    large = nn.Sequential(
        conv(3, 8, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1), conv(8, 8), nn.Flatten()
    )
    said = only("steep-stem", large, 1, 3, 32, 32)
    assert said.layer == "0"
    assert (
        said.sentence == "the stem divides 32×32 by 4 before the first block: 2 reads 8×8 positions"
    )
    assert large[:2](torch.zeros(1, 3, 32, 32)).shape == (1, 8, 8, 8)
    assert none("steep-stem", large, 1, 3, 96, 96)
    small = nn.Sequential(conv(3, 8, padding=1), nn.MaxPool2d(3, 2, 1), conv(8, 8), nn.Flatten())
    assert none("steep-stem", small, 1, 3, 32, 32)


# -- weight ----------------------------------------------------------------------------------------


def test_a_linear_layer_that_outweighs_the_rest() -> None:
    flat = nn.Sequential(conv(3, 16), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(16 * 36, 9))
    said = only("heavy-linear", flat, 1, 3, 8, 8)
    linear, rest = 16 * 36 * 9 + 9, 16 * 3 * 9 + 16
    assert said.layer == "4"
    assert f"{linear:,} parameters, all the rest {rest:,}" in said.sentence
    assert "2 makes 16×6×6 = 576 inputs" in said.sentence
    assert "leaves 16 inputs" in said.remedy
    pooled = nn.Sequential(conv(3, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 90))
    assert none("heavy-linear", pooled, 1, 3, 8, 8)
    assert none("heavy-linear", nn.Sequential(nn.Flatten(), nn.Linear(192, 9)), 1, 3, 8, 8)


def test_a_flattening_without_a_module_is_named_by_its_line() -> None:
    net = Joined(lambda net, x: net.b(net.a(x).flatten(1)), a=conv(3, 4), b=nn.Linear(144, 50))
    assert "the flattening at test_advice.py:" in only("heavy-linear", net, 1, 3, 8, 8).sentence


def test_a_linear_layer_for_every_position_flattens_nothing() -> None:
    """Tokens of 2×2 pixels and 4 channels, and a matrix over positions."""

    def merged(net: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = net.a(x).reshape(1, 4, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1)
        return torch.as_tensor(net.b(y.reshape(1, 16, 16)))

    tokens = Joined(merged, a=conv(3, 4, padding=1), b=nn.Linear(16, 16))
    assert none("heavy-linear", tokens, 1, 3, 8, 8)
    mixer = Joined(lambda net, x: net.b(net.a(x).flatten(2)), a=conv(3, 4), b=nn.Linear(36, 36))
    assert none("heavy-linear", mixer, 1, 3, 8, 8)


def test_sound_has_positions_and_one_axis() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.AvgPool1d(3), nn.Conv1d(4, 4, 15))
    said = only("unread", net, 1, 2, 60)
    assert said.sentence == "1 (AvgPool1d, 3/3): 1 of 58 positions is never read"
    assert "map here is 60" in said.remedy


def test_a_bias_in_front_of_batch_norm() -> None:
    def net(bias: bool) -> nn.Module:
        return nn.Sequential(
            *(conv(3, 8, bias=bias), nn.BatchNorm2d(8), nn.ReLU()),
            *(conv(8, 4, bias=bias), nn.BatchNorm2d(4), nn.Flatten()),
            *(nn.Linear(64, 5, bias=bias), nn.BatchNorm1d(5)),
        )

    said = only("useless-bias", net(True), 1, 3, 8, 8)
    assert said.layer == "0"
    assert "17 parameters" in said.sentence  # 8 + 4 + 5
    assert "the same in 3 and 6" in said.sentence
    assert none("useless-bias", net(False), 1, 3, 8, 8)
    kept = nn.Sequential(conv(3, 8), nn.ReLU(), nn.BatchNorm2d(8), conv(8, 4), nn.GroupNorm(2, 4))
    assert none("useless-bias", kept, 1, 3, 8, 8)


# -- dead ends -------------------------------------------------------------------------------------


def test_a_branch_that_reaches_no_output() -> None:
    parts = {"a": conv(3, 4), "b": conv(4, 5), "c": conv(5, 6)}

    def lost(net: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = net.a(x)
        net.c(net.b(y))
        return y

    said = only("dead-end", Joined(lost, **parts), 1, 3, 8, 8)
    weights = sum(one.numel() for name in "bc" for one in parts[name].parameters())
    macs = 5 * 4 * 9 * 16 + 6 * 5 * 9 * 4
    assert said.layer == "c"
    assert f"2 layers with {weights:,} parameters and {macs:,} multiply" in said.sentence
    assert none("dead-end", Joined(lambda net, x: net.c(net.b(net.a(x))), **parts), 1, 3, 8, 8)


def test_writing_into_a_part_is_no_dead_end() -> None:
    def written(net: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = net.a(x)
        y[:, :2] = net.b(y)[:, :2]
        y.view(-1).relu_()
        return y

    net = Joined(written, a=conv(3, 4), b=conv(4, 4, padding=1))
    assert none("dead-end", net, 1, 3, 8, 8)
    assert none("idle", net, 1, 3, 8, 8)


def test_parameters_that_nothing_reads() -> None:
    used = Joined(lambda net, x: net.a(x), a=conv(3, 4))
    assert none("idle", used, 1, 3, 8, 8)
    head = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    spare = Joined(lambda net, x: net.a(x), a=conv(3, 4), head=head)
    said = only("idle", spare, 1, 3, 8, 8)
    count = sum(one.numel() for one in head.parameters())
    assert said.layer == "head"
    assert said.sentence.startswith(f"4 parameters of head ({count} numbers)")
    names = [f"head.{name}" for name, _ in head.named_parameters()]
    assert not [one for one in remarks(spare, 1, 3, 8, 8, trained=names) if one.code == "idle"]
    used.a.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert only("idle", used, 1, 3, 8, 8).sentence.startswith("a.scale (1 number)")


def test_shared_and_reparametrised_weights_are_read() -> None:
    shared = conv(3, 3, padding=1)
    assert none("idle", nn.Sequential(shared, nn.ReLU(), shared), 1, 3, 8, 8)
    normed = nn.utils.parametrizations.weight_norm(conv(3, 3, padding=1))
    assert none("idle", normed, 1, 3, 8, 8)


def test_branches_on_different_grids() -> None:
    def net(size: int) -> nn.Module:
        return Joined(
            lambda net, x: net.b(x) + F.interpolate(net.a(x), size=x.shape[2:]),
            a=conv(3, 3, size, stride=2),
            b=conv(3, 3, padding=1),
        )

    said = only("misaligned", net(3), 1, 3, 13, 13)  # 13 → 6 → 13: 2 · 6/13 = 0.923
    assert said.layer == "add"
    assert "1 and 0.9231 pixels" in said.sentence
    assert none("misaligned", net(2), 1, 3, 14, 14)  # 14 → 7 → 14
    assert none("misaligned", tower(2), 1, 3, 13, 13)


# -- the networks that everybody knows -------------------------------------------------------------

KNOWN = {
    **{name: set() for name in ("resnet50", "efficientnet_b0", "densenet121", "mobilenet_v2")},
    "vgg16": {("heavy-linear", "classifier.0")},
    "alexnet": {("heavy-linear", "classifier.1")},
    "googlenet": {("idle", "aux1"), ("idle", "aux2")},
    "lenet5": set(),
}


@pytest.mark.parametrize("name", KNOWN)
def test_published_networks_at_their_sizes_get_no_false_alarm(name: str) -> None:
    size, channels = (32, 1) if name == "lenet5" else (224, 3)
    with torch.device("meta"):
        net = catalog.build(name, channels=channels, size=(size, size), outputs=1000, args={})
    found = remarks(net, 1, channels, size, size)
    assert {(one.code, one.layer) for one in found} == KNOWN[name]
    assert {one.code for one in found} <= set(CODES)


def test_the_numbers_of_vgg16() -> None:
    with torch.device("meta"):
        net = catalog.build("vgg16", channels=3, size=(224, 224), outputs=1000, args={})
    linear = 512 * 7 * 7 * 4096 + 4096
    said = only("heavy-linear", net, 1, 3, 224, 224).sentence
    assert f"{linear:,} parameters, all the rest {138_357_544 - linear:,}" in said
