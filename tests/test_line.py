"""A network in a line: what it says is what torch computes, and what is wrong with it is shown."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

import neocog
from neocog.argv import PLACES, recipe_of
from neocog.bundle import Bundle
from neocog.cli import main
from neocog.config import Recipe
from neocog.errors import ConfigError, RunError
from neocog.models import catalog
from neocog.models.notation.build import line_net
from neocog.models.notation.grammar import parse, render
from neocog.models.notation.sizes import sizes
from neocog.models.notation.words import ACTIVATIONS, WORDS
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
from neocog.settings import from_dict
from neocog.verbs.models import words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neocog.models.notation.sizes import Stage

LENET = (
    "conv 6 5; tanh; avgpool 2; conv 16 5; tanh; avgpool 2; "
    "linear 120; tanh; linear 84; tanh; linear"
)
EXAMPLE = (
    "conv 32 3; relu; pool 2; conv 64 3 stride=2 pad=same:reflect; bn; relu; "
    "(conv 64 3; relu)*2; gap; linear"
)
RESNET = (
    "stem: (conv 8 3 pad=same bias=no; bn; relu); "
    "(res(conv 8 3 pad=same bias=no; bn; relu; conv 8 3 pad=same bias=no; bn); relu)*2; "
    "res(conv 16 3 stride=2 pad=same bias=no; bn; relu; conv 16 3 pad=same bias=no; bn "
    "| conv 16 1 stride=2 bias=no; bn); relu; gap; linear"
)
INCEPTION = (
    "conv 8 3 pad=same; relu; cat(conv 4 1; relu | conv 6 1; relu; conv 8 3 pad=same; relu "
    "| conv 2 1; relu; conv 4 5 pad=same; relu | pool 3 stride=1 pad=same; conv 4 1; relu); "
    "gap; dropout 0.4; linear"
)
ALL = (
    "stem: conv 16 4 stride=2 pad=same:circular; res(bn; prelu channels | conv 16 1); "
    "res(conv 16 3 pad=same groups=depthwise; se 4; shuffle 2)*2; "
    "cat(conv 4 1 | avgpool 3 stride=1 pad=same | add(identity | conv 16 3 pad=same:replicate)); "
    "pool 3 2 pad=1; up 2 bilinear; convt 8 4 stride=2 pad=same; gn 2; ln; in; lrn 3; "
    "dropout2d 0.1; adaptive 5 max; gmp; linear 7; ln; gelu tanh; dropout 0.2; linear"
)
NETS = {"lenet": LENET, "example": EXAMPLE, "resnet": RESNET, "inception": INCEPTION, "all": ALL}


def make(text: str, channels: int = 3, size: tuple[int, ...] = (32, 32), outputs: int = 7) -> Any:
    torch.manual_seed(0)
    return line_net(text, channels=channels, size=size, outputs=outputs)


def parameters(net: nn.Module) -> int:
    return sum(one.numel() for one in net.parameters())


def samples(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# What a line says is what torch computes --------------------------------------------------------


class Block(nn.Module):
    """A residual block, written down by hand."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.a = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.b = nn.BatchNorm2d(after)
        self.c = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.d = nn.BatchNorm2d(after)
        if stride > 1:
            self.e = nn.Conv2d(before, after, 1, stride, bias=False)
            self.f = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.d(self.c(torch.relu(self.b(self.a(x)))))
        return torch.relu(y + (self.f(self.e(x)) if hasattr(self, "e") else x))


class Side(nn.Module):
    """An Inception module, written down by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(8, 4, 1)
        self.three = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1))
        self.five = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 5, 1, 2))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.one, self.three, self.five, self.pool]
        return torch.cat([part(x).relu() for part in parts], dim=1)


BY_HAND = {
    LENET: lambda: nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 7)),
    ),
    EXAMPLE: lambda: nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, padding_mode="reflect"),
        *(nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 7)),
    ),
    RESNET: lambda: nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(Block(8, 8), Block(8, 8), Block(8, 16, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 7)),
    ),
    INCEPTION: lambda: nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), Side()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(20, 7)),
    ),
    "conv 8 3x5 stride=2x1 pad=4x2 dilation=3x1; softsign; convt 4 3 2 output_padding=1; "
    "maxpool 3x2 2x1 pad=1 ceil; up 2 bilinear; lrn 3; linear": lambda: nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(4, 2), dilation=(3, 1)),
        *(nn.Softsign(), nn.ConvTranspose2d(8, 4, 3, 2, output_padding=1)),
        nn.MaxPool2d((3, 2), (2, 1), padding=1, ceil_mode=True),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        *(nn.LocalResponseNorm(3), nn.Flatten(), nn.Linear(4 * 38 * 134, 7)),
    ),
}


@pytest.mark.parametrize("text", BY_HAND)
@pytest.mark.parametrize("training", [False, True])
def test_a_line_computes_what_the_same_layers_of_torch_do(text: str, training: bool) -> None:
    net, other = make(text), BY_HAND[text]()
    assert parameters(net) == parameters(other)
    ours, theirs = net.state_dict(), other.state_dict()
    assert [one.shape for one in ours.values()] == [one.shape for one in theirs.values()]
    other.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    net.train(training)
    other.train(training)
    x = samples(2, 3, 32, 32)
    torch.manual_seed(5)
    found = net(x)
    torch.manual_seed(5)
    assert torch.equal(found, other(x))


@pytest.mark.parametrize("rank", [1, 3])
def test_the_input_decides_how_many_axes_there_are(rank: int) -> None:
    convs = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
    pools = {1: nn.MaxPool1d, 3: nn.MaxPool3d}[rank]
    norms = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[rank]
    means = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}[rank]
    size = (11,) * rank
    net = make("conv 4 3 pad=1; bn; relu; pool 2; conv 6 3 stride=2; elu; gap; linear", 2, size, 5)
    other = nn.Sequential(
        *(convs(2, 4, 3, padding=1), norms(4), nn.ReLU(), pools(2)),
        *(convs(4, 6, 3, stride=2), nn.ELU(), means(1), nn.Flatten(), nn.Linear(6, 5)),
    )
    ours, theirs = net.state_dict(), other.state_dict()
    other.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    x = samples(3, 2, *size)
    assert torch.equal(net(x), other(x))
    whole = make(ALL, 2, (12,) * rank)
    assert whole(samples(2, 2, *(12,) * rank)).shape == (2, 7)


def test_squeeze_and_shuffle_by_the_formula() -> None:
    net = make("conv 6 1; se 2; shuffle 3; gap; linear").eval()
    x = net.conv1(samples(2, 3, 5, 5))
    se = net.se1
    hidden = (x.mean((2, 3)) @ se.squeeze.weight.T + se.squeeze.bias).clamp(min=0)
    scale = 1 / (1 + (-(hidden @ se.excite.weight.T + se.excite.bias)).exp())
    torch.testing.assert_close(se(x), x * scale[:, :, None, None])
    assert torch.equal(net.shuffle1(x), x[:, [0, 2, 4, 1, 3, 5]])


def test_published_sizes() -> None:
    """LeNet-5, and the sizes of courses: 28 → 26 → 13 → 11 → 5."""
    assert parameters(make(LENET, 1, outputs=10)) == 61_706
    found = sizes(parse("conv 8 3; pool 2; conv 8 3; pool 2; linear"), **data(1, (28, 28)))
    assert [stage.after[1] for stage in found.stages[:4]] == [26, 13, 11, 5]
    text = "conv 33 3x5 stride=2x1 pad=4x2 dilation=3x1; linear"
    assert sizes(parse(text), **data(16, (50, 100))).stages[0].after == (33, 26, 100)


def data(channels: int, size: tuple[int, ...], outputs: int = 7) -> dict[str, Any]:
    return {"channels": channels, "size": size, "outputs": outputs}


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_activations_are_torchs_and_leave_their_input_alone(word: str) -> None:
    names = "ReLU LeakyReLU PReLU ReLU6 ELU CELU SELU GELU SiLU Mish Tanh Sigmoid Softplus Softsign"
    known = {name.lower(): name for name in f"{names} Hardtanh Hardsigmoid Hardswish".split()}
    other = getattr(nn, "SiLU" if word == "swish" else known[word.replace("_", "")])()
    net = getattr(make(f"{word}; linear"), f"{word}_1" if word[-1].isdigit() else f"{word}1")
    x = samples(2, 3, 4, 4) * 4
    before = x.clone()
    assert torch.equal(net(x), other(x))
    assert torch.equal(x, before)


def test_values_of_norms_are_set_by_name() -> None:
    text = "bn eps=1e-3 momentum=0.2 affine=no; gn 1 eps=0.01; in affine; ln eps=0.1; linear"
    net, x = make(text), samples(4, 3, 32, 32) * 0.1
    assert (net.bn1.eps, net.bn1.momentum, net.bn1.weight) == (1e-3, 0.2, None)
    assert (net.gn1.eps, net.in1.weight.shape, net.ln1.eps) == (0.01, (3,), 0.1)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(net.bn1(x), (x - mean) / (variance + 1e-3).sqrt())
    for usage in (WORDS[word].usage(word) for word in ("bn", "gn", "ln", "in")):
        assert "[eps=1e-05]" in usage


# Sizes --------------------------------------------------------------------------------------------

GRID = list(itertools.product((1, 2, 5, 8), (1, 2, 3, 4), (1, 2, 3), (0, 1, 2), (1, 2)))


@pytest.mark.parametrize("word", ["conv", "pool", "pool ceil", "avgpool", "avgpool ceil", "convt"])
def test_sizes_are_torchs_and_what_torch_refuses_is_refused(word: str) -> None:
    """Along one axis, over all small sizes, kernels, strides, paddings and dilations."""
    kind, _, ceil = word.partition(" ")
    accepted = 0
    for n, k, s, p, d in GRID:
        if kind == "avgpool" and d > 1:
            continue
        values = f"{k} stride={s} pad={p}" + (f" dilation={d}" if kind != "avgpool" else "")
        values = {"conv": "2 ", "convt": "2 "}.get(kind, "") + values
        with torch.device("meta"):
            other: nn.Module = {
                "conv": lambda: nn.Conv1d(2, 2, k, s, p, d),  # noqa: B023 - called here
                "convt": lambda: nn.ConvTranspose1d(2, 2, k, s, p, dilation=d),  # noqa: B023
                "pool": lambda: nn.MaxPool1d(k, s, p, d, ceil_mode=bool(ceil)),  # noqa: B023
                "avgpool": lambda: nn.AvgPool1d(k, s, p, ceil_mode=bool(ceil)),  # noqa: B023
            }[kind]()
            try:
                wanted = other(torch.empty(1, 2, n)).shape[1:]
            except RuntimeError:
                wanted = None
        if ceil and n + 2 * p < d * (k - 1) + 1:
            wanted = None  # a kernel that is larger than all that there is
        case = f"{kind} {values}{' ceil=yes' if ceil else ''}; linear"
        try:
            found = sizes(parse(case), **data(2, (n,))).stages[0].after
        except ConfigError:
            assert wanted is None, (case, n, wanted)
        else:
            assert found == wanted, (case, n)
            accepted += 1
    assert accepted > 50


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_same_keeps_the_size_as_torch_does(mode: str) -> None:
    for kernel, dilation in itertools.product((1, 2, 3, 4, 5), (1, 2, 3)):
        if kernel % 2 == 0 and dilation % 2:
            continue  # torch copies and warns; the next test is about these
        net = make(f"conv 4 {kernel} pad=same:{mode} dilation={dilation}; linear", 3, (16, 16))
        conv = nn.Conv2d(3, 4, kernel, padding="same", dilation=dilation, padding_mode=mode)
        conv.load_state_dict(net.conv1.state_dict())
        x = samples(2, 3, 16, 16)
        assert torch.equal(net.conv1(x), conv(x))


@pytest.mark.parametrize("kernel", [2, 4])
def test_an_even_kernel_has_the_odd_row_behind(kernel: int) -> None:
    for mode, stride in itertools.product(("zeros", "reflect", "circular"), (1, 2, 3)):
        net = make(f"conv 4 {kernel} pad=same:{mode} stride={stride}; linear", 3, (13, 13))
        x = samples(2, 3, 13, 13)
        low, high = (kernel - 1) // 2, kernel // 2
        padded = nn.functional.pad(
            x, (low, high, low, high), mode="constant" if mode == "zeros" else mode
        )
        conv = net.conv1
        wanted = nn.functional.conv2d(padded, conv.weight, conv.bias, stride=stride)
        assert torch.equal(conv(net.pad1(x)), wanted)
        assert wanted.shape[2] == math.ceil(13 / stride)


def test_same_of_a_transposed_convolution_multiplies_the_size() -> None:
    for kernel, stride, dilation in itertools.product((1, 2, 3, 4, 5), (1, 2, 3), (1, 2)):
        text = f"convt 2 {kernel} stride={stride} dilation={dilation} pad=same; linear"
        if stride == dilation == 1 and kernel % 2 == 0:
            with pytest.raises(ConfigError, match="even kernel"):
                make(text, 2, (6,))
            continue
        assert make(text, 2, (6,)).convt1(samples(1, 2, 6)).shape == (1, 2, 6 * stride)


def leaves(stages: tuple[Stage, ...], path: str = "") -> Iterator[tuple[str, Stage]]:
    """Every atom of a line, with the path of its module."""
    for stage in stages:
        here = path + stage.name
        yield here, stage
        inside = {"block": [""], "res": ["body.", "shortcut."]}.get(stage.kind)
        for number, branch in enumerate(stage.branches):
            yield from leaves(
                branch, f"{here}.{inside[number] if inside else f'branch{number + 1}.'}"
            )


def layer(draw: Any) -> str:
    """Some layer; whether it fits is for the line to say."""
    count = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    side = draw(st.sampled_from(["1", "2", "3", "5", "3x2"]))
    stride = draw(st.sampled_from(["1", "2", "1x2"]))
    pad = draw(st.sampled_from(["0", "1", "same", "same:reflect", "1:circular", "2:replicate"]))
    groups = draw(st.sampled_from(["1", "2", "depthwise"]))
    made = {
        "conv": f"conv {count} {side} stride={stride} pad={pad} groups={groups} bias=no",
        "conv2": f"conv {count} {side} {stride} pad={pad} dilation=2",
        "convt": f"convt {count} {side} stride={stride}",
        "pool": f"pool {side} pad=1 stride={stride} ceil",
        "avgpool": f"avgpool {side} ceil=no",
        "adaptive": f"adaptive {side} {draw(st.sampled_from(['avg', 'max']))}",
        "up": f"up {side}",
        "gn": f"gn {count}",
        "shuffle": f"shuffle {count}",
        "se": f"se {count}",
        "linear": f"linear {count}",
        **{word: word for word in ("bn", "ln", "in", "lrn", "gap", "gmp", "flatten", "identity")},
        **{word: word for word in ("relu", "prelu", "dropout", "dropout2d", "hardswish")},
    }
    return made[draw(st.sampled_from(sorted(made)))]


@st.composite
def lines(draw: Any) -> tuple[str, int, tuple[int, ...]]:
    """A line that is accepted, and what it is for: layers and blocks, one by one, as long as they
    fit what is there."""
    channels = draw(st.sampled_from([1, 3, 4]))
    size = draw(st.sampled_from([(9,), (16,), (7, 9), (16, 16), (5, 6, 7)]))
    parts: list[str] = []
    for _ in range(draw(st.integers(1, 7))):
        inside = [layer(draw) for _ in range(draw(st.integers(1, 3)))]
        form = draw(
            st.sampled_from(["{0}", "{0}", "({2})*2", "n{3}: ({2})", "res({2})", "add({0} | {1})"])
            | st.sampled_from(["cat({2} | {0} | identity)", "res({2} | {1})", "res({0})*2"])
        )
        part = form.format(inside[0], inside[-1], "; ".join(inside), len(parts))
        text = "; ".join([*parts, part])
        try:
            sizes(parse(f"{text}; linear"), channels=channels, size=size, outputs=5)
        except ConfigError:
            continue
        parts.append(part)
    assume(parts)
    return "; ".join([*parts, "linear"]), channels, size


FUZZ = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow], database=None
)


@FUZZ
@given(lines())
def test_predicted_sizes_are_those_that_come_out(case: tuple[str, int, tuple[int, ...]]) -> None:
    text, channels, size = case
    found = sizes(parse(text), channels=channels, size=size, outputs=5)
    assert parse(render(parse(text))) == parse(text)
    with torch.device("meta"):
        net = make(text, channels, size, 5).eval()
        seen: dict[str, tuple[int, ...]] = {}
        for path, module in net.named_modules():
            module.register_forward_hook(
                lambda _m, _i, out, path=path: seen.update({path: tuple(out.shape)})
            )
        x = torch.empty(2, channels, *size)
        levels = net.forward_features(x)
        assert net(x).shape == (2, 5)
    assert parameters(net) == found.parameters
    assert {path: (2, *stage.after) for path, stage in leaves(found.stages)}.items() <= seen.items()
    strides = [info.stride for info in net.features]
    assert strides == sorted(set(strides))
    assert len(levels) == len(net.features) > 0
    for level, info in zip(levels, net.features, strict=True):
        assert tuple(level.shape) == seen[info.name]
        assert level.shape[1] == info.channels


# What is wrong ------------------------------------------------------------------------------------

WRONG = [
    # line, input, the place that is marked, what the error says
    ("convv 32 3; linear", (3, 32, 32), "convv", ["'convv'", "did you mean 'conv'"]),
    ("conv 32 3; softmax", (3, 32, 32), "softmax", ["leave it out: the loss has it"]),
    ("conv2d 32 3; linear", (3, 32, 32), "conv2d", ["write conv OUT KERNEL"]),
    ("conv 32 3 strid=2; linear", (3, 32, 32), "strid", ["'strid'", "did you mean 'stride'"]),
    (
        "conv 32; linear",
        (3, 32, 32),
        "conv 32",
        ["conv needs KERNEL", "conv OUT KERNEL [stride=1]"],
    ),
    ("conv 32 3 stride=0; linear", (3, 32, 32), "0", ["stride is a whole number from 1 on"]),
    ("conv 32 3 stride=2 stride=1; linear", (3, 32, 32), "stride=1", ["stride is set twice"]),
    ("conv 8 3 1 0 1 1 yes 7; linear", (3, 32, 32), "7", ["7 values at most", "separated by ;"]),
    ("conv 8 3, pad=1; linear", (3, 32, 32), ",", ["separated by spaces", "leave the comma out"]),
    ("conv(8, 3); linear", (3, 32, 32), "conv", ["before a parenthesis", "as in conv 32 3"]),
    ("conv 8 3 pad=same:reflekt; linear", (3, 32, 32), "same:reflekt", ["reflect", "circular"]),
    ("pool 2; pool 2; conv 8 5; linear", (3, 8, 8), "5", ["5×5", "2×2 here", "pad=same"]),
    ("conv 8 3 dilation=20; linear", (3, 32, 32), "3", ["dilated to 41×41", "32×32 here"]),
    ("pool 9; linear", (3, 8, 8), "9", ["9×9", "8×8 here"]),
    ("conv 8 3 pad=8:reflect; linear", (3, 8, 8), "8:reflect", ["at least 9", "8×8 here"]),
    ("conv 8 3; conv 9 3 groups=2; linear", (3, 8, 8), "2", ["8 come in, 9 go out", "divide"]),
    ("conv 7 3 groups=depthwise; linear", (3, 8, 8), "7", ["multiple of the 3 channels"]),
    ("conv 8 3x3x3; linear", (3, 8, 8), "3x3x3", ["is for 3 axes", "has 2", "write one number"]),
    ("gap; conv 8 3; linear", (3, 8, 8), "conv 8 3", ["takes a picture", "3 numbers are left"]),
    ("pool 2 pad=same; linear", (3, 8, 8), "same", ["kernel of 2×2", "pool 2 ceil"]),
    ("pool 3 pad=2; linear", (3, 8, 8), "2", ["at most half its kernel", "pad=1 at most"]),
    ("gn 4; linear", (6, 8, 8), "4", ["4 groups do not divide the 6 channels", "1, 2, 3, 6"]),
    ("adaptive 1; in; linear", (3, 8, 8), "in", ["single numbers", "3×1×1"]),
    ("up 20000; linear", (3, 8, 8), "up 20000", ["160000×160000", "at most 1,000,000,000"]),
    ("linear 40000; linear 40000; linear", (3, 8, 8), "linear 40000", ["1,607,760,000"]),
    ("linear; relu", (3, 8, 8), "linear", ["stands for the 10 outputs", "linear 128"]),
    ("conv 16 3; relu", (3, 8, 8), "relu", ["16×6×6", "conv 16 3; relu; gap; linear"]),
    ("conv 10 3", (3, 8, 8), "conv 10 3", ["10×6×6", "10 numbers", "conv 10 3; gap"]),
    (
        "conv 16 3 pad=1; relu",
        *((3, 8, 8), "relu"),
        [
            "16×8×8, and 10 numbers, or 10×8×8,",
            "relu; gap; linear to answer once, or …; conv 10 1 to",
        ],
    ),
    ("(adaptive 4); up 2; conv 10 1", (3, 8, 8), "adaptive 4", ["10×8×8", "of every size"]),
    ("linear 7", (3, 8, 8), "linear 7", ["ends in 7 numbers", "write linear without a number"]),
    ("res(conv 6 3); linear", (3, 8, 8), "res(conv 6 3)", ["3×8×8", "6×6×6", "pad=same"]),
    (
        "res(conv 6 3 stride=2 pad=same); linear",
        *((3, 8, 8), "res(conv 6 3 stride=2 pad=same)"),
        ["3×8×8", "6×4×4", "res( … | conv 6 1 stride=2)"],
    ),
    ("res(relu | conv 4 1); linear", (3, 8, 8), "conv 4 1", ["4×8×8", "3×8×8", "conv 3 1"]),
    ("cat(relu | conv 4 3); linear", (3, 8, 8), "conv 4 3", ["3×8×8 | 4×6×6", "pad=same"]),
    ("add(relu | conv 4 1); linear", (3, 8, 8), "conv 4 1", ["3×8×8 | 4×8×8", "conv 3 1"]),
    ("cat(relu); linear", (3, 8, 8), "cat(relu)", ["here is one", "cat( … | … )"]),
    ("(relu | relu); linear", (3, 8, 8), "|", ["cat( … | … )"]),
    ("res(relu | relu | relu); linear", (3, 8, 8), "|", ["one shortcut"]),
    ("(conv 8 3; relu", (3, 8, 8), "(", ["never closed", "write )"]),
    ("conv 8 3; relu); linear", (3, 8, 8), ")", ["never opened", "write ("]),
    ("(relu)*0; linear", (3, 8, 8), "0", ["1 to 1,000 times", "got '0'"]),
    ("relu*2; linear", (3, 8, 8), "*", ["in parentheses is repeated", "(relu)*2"]),
    ("((relu)*50)*50; linear", (3, 8, 8), "50", ["more than 2,000 layers", "repeat less"]),
    ("relu;; linear", (3, 8, 8), ";", ["expected a layer, found ';'"]),
    ("a: relu; a: relu; linear", (3, 8, 8), "relu", ["a is the name of two layers"]),
    ("eval: relu; linear", (3, 8, 8), "relu", ["has a eval already"]),
    # Norms know their channels; a bare number is never eps.
    ("bn 16; linear", (3, 8, 8), "16", ["bn knows its channels", "write bn, or bn eps=1e-3"]),
    ("in 16; linear", (3, 8, 8), "16", ["in knows its channels", "write in, or in eps=1e-3"]),
    ("ln 16; linear", (3, 8, 8), "16", ["ln knows its channels", "write ln, or ln eps=1e-3"]),
    ("gn 3 64; linear", (3, 8, 8), "64", ["gn knows its channels", "gn 3 eps=1e-3"]),
    ("bn eps=1e-3 16; linear", (3, 8, 8), "16", ["bn knows its channels"]),
    ("bn affine 16; linear", (3, 8, 8), "16", ["write bn affine, or bn affine eps=1e-3"]),
    # Words come before sizes.
    ("conv 32 3; linear; softmax", (3, 8, 8), "softmax", ["leave it out: the loss has it"]),
    ("conv 9 20; (linear; zebra)*2", (3, 8, 8), "zebra", ["no layer is called 'zebra'"]),
    ("linear; res(relu | zebra)", (3, 8, 8), "zebra", ["no layer is called 'zebra'"]),
    # A forgotten separator.
    ("conv 32 3 gelu; linear", (3, 8, 8), "gelu", ["values of conv", "; is missing before gelu"]),
    ("conv 32 3 pad=1 gelu; linear", (3, 8, 8), "gelu", ["a ; is missing before gelu"]),
    ("conv 32 3 1 0 1 1 yes gelu; linear", (3, 8, 8), "gelu", ["a ; is missing before gelu"]),
    ("bn ReLU; linear", (3, 8, 8), "ReLU", ["a ; is missing before ReLU"]),
    ("gelu none tanh; linear", (3, 8, 8), "tanh", ["values of gelu", "; is missing before tanh"]),
    ("conv 32 3 pad=1 2; linear", (3, 8, 8), "2", ["stands behind a named value"]),
]
LAST = {"stride=1", "7", "2", "50", ";", "|"}
"""Where the marked text stands more than once, the last of them is meant for these."""


def place(text: str, marked: str) -> int:
    """Column of the mark."""
    if marked == "stride=1":
        return text.rindex(marked)
    return text.rindex(marked) if marked in LAST | {"relu", "linear 40000"} else text.index(marked)


@pytest.mark.parametrize(("text", "sample", "marked", "said"), WRONG, ids=[one[0] for one in WRONG])
def test_an_error_names_the_place_the_sizes_and_the_remedy(
    text: str, sample: tuple[int, ...], marked: str, said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        line_net(text, channels=sample[0], size=sample[1:], outputs=10)
    message, shown, mark = caught.value.message.split("\n")
    assert message
    assert shown == f"  {text}"
    column = place(text, marked)
    wide = len("stride") if marked == "stride=1" else len(marked)
    assert mark == " " * (2 + column) + "^" * wide
    assert caught.value.hint
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_known_everywhere(word: str) -> None:
    values = " ".join("2" for parameter in WORDS[word].parameters if parameter.needed)
    text = f"{word} {values or '2' * (word == 'linear')}; linear"
    with torch.device("meta"):
        net = make(text, 4, (8, 8))
        assert net(torch.empty(2, 4, 8, 8)).shape == (2, 7)
    assert parameters(net) == sizes(parse(text), **data(4, (8, 8))).parameters


def test_a_long_line_is_shown_around_the_place() -> None:
    text = "relu; " * 50 + "convv 3 3; " + "relu; " * 50 + "linear"
    with pytest.raises(ConfigError) as caught:
        make(text)
    _, shown, mark = caught.value.message.split("\n")
    assert len(shown) < 84
    assert shown[2:4] == "… "
    assert shown[-2:] == " …"
    assert shown[mark.index("^") : mark.rindex("^") + 1] == "convv"
    with pytest.raises(ConfigError, match=r"at most 20,000 characters, got 30,000"):
        make("x" * 30_000)
    for text in ("", "  \n"):
        with pytest.raises(ConfigError, match="the line is empty"):
            make(text)


def test_marks_stand_right_where_signs_are_wide_or_none() -> None:
    """Signs that take two columns, or none, or that a terminal obeys, are shown as one each."""
    for strange in ("漢字", "e\u0301", "\x1b[31m", "\u200b", "\t\n"):
        with pytest.raises(ConfigError) as caught:
            make(f"relu; {strange} ; zebra")
        _, shown, mark = caught.value.message.split("\n")
        assert shown.isprintable()
        assert len(shown) == len(f"  relu; {strange} ; zebra")
        assert len(mark) <= len(shown)


def test_deep_nesting_is_refused_and_less_works() -> None:
    assert parse("(" * 32 + "relu" + ")" * 32)
    with pytest.raises(ConfigError, match="more than 32 parentheses"):
        parse("(" * 33 + "relu" + ")" * 33)


PIECES = [
    *("conv 8 3", "linear", "relu", "gap", "(", ")", ")*2", ")*99999", "|", ";", ":", "=", "*"),
    *(
        "res(",
        "cat(",
        "add(",
        "pad=same",
        "3x3",
        "bias",
        " ",
        "a:",
        "-1",
        "1e999",
        "\x00",
        "é",
        "²",
    ),
    *("conv 999999999 999999999", "up 999999999", "x" * 500, "9" * 500, "groups=depthwise", "nan"),
]


@FUZZ
@given(st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join))
def test_whatever_is_written_is_a_network_or_an_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        line = parse(text)
        assert parse(render(line)) == line
        sizes(line, **data(3, (16, 16)))


@pytest.mark.parametrize(
    "piece", ["relu;", "(", "((", "(relu", "a:", "=", "x", "1 ", "conv 1 1;", "cat(relu|", ";", "|"]
)
def test_hostile_text_takes_no_time(piece: str) -> None:
    """Milliseconds a 10 kB; here with room for a busy machine, and the quickest of three."""
    text, seconds = (piece * 10_000)[:10_000], []
    for _ in range(3):
        began = time.process_time()
        with pytest.raises(ConfigError):
            sizes(parse(text + "!"), **data(3, (16, 16)))
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.25


def test_random_bytes_are_refused() -> None:
    chance = random.Random(0)
    for _ in range(200):
        text = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 80))).decode("latin1")
        with pytest.raises(ConfigError):
            sizes(parse(text), **data(3, (16, 16)))


# The module ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_levels_names_and_weights_are_what_every_model_has(name: str) -> None:
    net, x = make(NETS[name]).eval(), samples(2, 3, 32, 32)
    assert list(make(NETS[name]).state_dict()) == list(net.state_dict())
    modules = dict(net.named_modules())
    seen: dict[str, torch.Tensor] = {}
    for info in net.features:
        modules[info.name].register_forward_hook(
            lambda _m, _i, output, key=info.name: seen.update({key: output})
        )
    changed: list[str] = []
    for path, module in net.named_modules():
        versions: dict[str, Any] = {}
        module.register_forward_pre_hook(
            lambda _m, i, kept=versions: kept.update(before=(i[0], i[0]._version))
        )
        module.register_forward_hook(
            lambda _m, _i, _o, kept=versions, key=path: (
                changed.append(key) if kept["before"][0]._version != kept["before"][1] else None
            )
        )
    with torch.no_grad():
        levels, answers = net.forward_features(x), net(x)
    assert changed == []  # nothing is written in place
    for level, info in zip(levels, net.features, strict=True):
        assert torch.equal(level, seen[info.name])
        assert all(side <= math.ceil(32 / info.stride) for side in level.shape[2:])
    other = line_net(NETS[name], channels=3, size=(32, 32), outputs=7).eval()
    other.load_state_dict(load(save(net.state_dict())))
    copied = copy.deepcopy(net)
    with torch.no_grad():
        assert torch.equal(other(x), answers)
        assert torch.equal(copied(x), answers)
        single = torch.cat([net(one[None]) for one in x])
        torch.testing.assert_close(single, answers, rtol=1e-4, atol=1e-5)
        last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, answers, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x)
        assert rough.dtype == torch.bfloat16
        assert (rough - answers).abs().max() < 0.1 * answers.abs().max()
        graph = torch.fx.symbolic_trace(other)
        assert torch.equal(graph(x), answers)
        # With the last level put out, nothing of the picture reaches the answer.
        dict(other.named_modules())[net.features[-1].name].register_forward_hook(
            lambda _m, _i, output: torch.zeros_like(output)
        )
        assert torch.equal(other(x), other(x * 2))
        assert not torch.equal(answers, other(x))


@pytest.mark.parametrize("name", NETS)
def test_gradients_reach_every_parameter(name: str) -> None:
    net = make(NETS[name]).train()
    net(samples(4, 3, 32, 32)).square().sum().backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


def test_names_are_readable() -> None:
    net = make(RESNET)
    names = set(net.state_dict())
    assert {"stem.conv1.weight", "block2.res1.body.bn2.bias", "linear1.bias"} <= names
    assert {"res1.shortcut.conv1.weight"} <= names
    assert [info.name for info in net.features] == ["block2", "relu1"]
    names = {path for path, _ in make(INCEPTION).named_modules()}
    assert {"conv1", "relu1", "cat1.branch3.conv2", "gap1", "flatten1", "dropout1"} <= names
    net = make("relu6; (relu)*2; block1: gelu; (elu; elu)*2; linear")
    assert [name for name, _ in net.named_children()][:6] == [
        *("relu6_1", "block2", "block3", "block1", "block4", "block5")
    ]


def test_a_line_without_a_picture_has_the_input_as_its_level() -> None:
    net = make("linear 5; relu; linear")
    assert [(info.name, info.channels, info.stride) for info in net.features] == [("picture", 3, 1)]
    assert torch.equal(net.forward_features(samples(2, 3, 32, 32))[0], samples(2, 3, 32, 32))
    assert set(net.state_dict()) == {
        f"linear{number}.{name}" for number in (1, 2) for name in ("weight", "bias")
    }


def test_a_signal_keeps_its_scale() -> None:
    """He's rule: with the gain of what follows, ten layers neither fade nor grow."""
    for activation, low, high in (("relu", 0.3, 3), ("leaky_relu 0.3", 0.3, 3), ("selu", 0.5, 2)):
        net = make(f"(conv 64 3 pad=same:circular; {activation})*10; linear", 16)
        with torch.no_grad():
            level = net.forward_features(samples(2, 16, 32, 32))[-1]
        assert low < level.square().mean().sqrt() < high, activation
    net = make("conv 64 3; sigmoid; convt 64 2 stride=2; relu; linear", 64)
    net.requires_grad_(False)
    assert net.conv1.weight.std() == pytest.approx((1 / (64 * 9)) ** 0.5, rel=0.03)
    assert net.convt1.weight.std() == pytest.approx((2 / 64) ** 0.5, rel=0.03)
    assert net.linear1.weight.std() == pytest.approx((2 / net.linear1.in_features) ** 0.5, rel=0.03)
    assert not net.conv1.bias.any()


def test_it_compiles() -> None:
    net, x = make(INCEPTION).eval(), samples(2, 3, 32, 32)
    with torch.no_grad():
        found = torch.compile(net, backend="eager", fullgraph=True)(x)
        assert torch.equal(found, net(x))


# As one of the networks ---------------------------------------------------------------------------


def test_lines_are_told_from_names() -> None:
    for line in (EXAMPLE, "linear", "res(relu)", "a b", "stem:conv 3 3", "(relu)*2"):
        assert catalog.is_line(line)
        assert not catalog.is_foreign(line)
    for name in (*catalog.CATALOG, "nets:small", "my.nets:linear", "(unnamed)", "zebra", "auto"):
        assert not catalog.is_line(name)
    assert catalog.is_foreign("nets:linear")
    assert catalog.describe(EXAMPLE) == ()
    assert len(catalog.sample(EXAMPLE)) == 3
    with pytest.raises(ConfigError, match="takes no arguments, got width"):
        catalog.build(EXAMPLE, **data(3, (32, 32)), args={"width": 8})


def said(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """What a command line prints, and how it ends."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["neocog", *map(str, argv)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    found = capsys.readouterr()
    return code, found.out, found.err


SMALL = "conv 8 3 pad=same:reflect; bn; relu; pool 2; (conv 16 3 pad=same; relu)*2; gap; linear"


def test_a_line_trains_answers_and_goes_on_like_any_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, "train", "digits", "--model", SMALL, "--epochs", 2, "--json")
    assert code == 0, err
    summary = json.loads(out)
    run = tmp_path / summary["run"]
    assert run == tmp_path / "runs" / "digits-line-1"
    assert summary["val"]["accuracy"]["value"] > 0.3
    bundle = json.loads((run / "bundle" / "bundle.json").read_text())
    assert bundle["model"] == {"name": SMALL, "args": {}}

    code, out, err = said(capsys, "eval", run, "--json")  # nothing is asked: a line is data
    assert code == 0, err
    code, out, err = said(capsys, "plan", run, "--no-time", "--json")
    assert code == 0, err
    assert {"conv1", "block2.conv1", "linear1"} <= {
        one["name"] for one in json.loads(out)["layers"]
    }

    # Again from its manifest, which nobody has to trust, and on from where it stood.
    recipe, _ = recipe_of(None, run / "manifest.json", (), dict.fromkeys(PLACES))
    assert recipe.model == SMALL
    (run / "evaluation.json").unlink()
    code, _, err = said(capsys, "resume", run, "--json")
    assert code == 0, err

    from PIL import Image

    Image.new("L", (8, 8), 99).save("grey.png")
    code, out, err = said(capsys, "predict", run, "grey.png", "--json")
    assert code == 0, err
    assert 0 < json.loads(out)[0]["probability"] <= 1


def test_a_file_may_bring_a_line(tmp_path: Path) -> None:
    """With colons and line breaks, and nothing asks whether its code is trusted."""
    line = "conv 4 3 pad=same:reflect;\n gap; linear\n"
    path = tmp_path / "recipe.toml"
    path.write_text(f"model = '''\n{line}'''\n[engine]\nepochs = 1\n")
    recipe, told = recipe_of("digits", path, (), dict.fromkeys(PLACES))
    assert recipe.model == line
    assert "model" in told
    assert line_net(recipe.model, **data(1, (8, 8)))
    recipe, _ = recipe_of("digits", None, (f"model={EXAMPLE}",), dict.fromkeys(PLACES))
    assert recipe.model == EXAMPLE
    path.write_text("model = 'nets:small'\n")
    with pytest.raises(ConfigError, match="if you trust that code"):
        recipe_of("digits", path, (), dict.fromkeys(PLACES))


def test_a_mistake_is_shown_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (("train", "digits", "--model"), ("plan",)):
        code, out, err = said(capsys, *argv, "conv 8 3; relu; zoom 2; gap; linear")
        assert code == 2
        assert out == ""
        lines = err.splitlines()
        # Where opening the data takes a while, that is told before.
        first = next(place for place, line in enumerate(lines) if line.startswith("neocog:"))
        assert lines[first : first + 3] == [
            "neocog: no layer is called 'zoom'",
            "  conv 8 3; relu; zoom 2; gap; linear",
            "                  ^^^^",
        ]
    code, out, err = said(capsys, "plan", "conv 8 3; up 3/4; gap; linear", "--json")
    assert code == 2
    assert "n is a whole number" in json.loads(out)["error"]
    code, out, err = said(capsys, "plan", "runs/no such run")
    assert code == 2
    assert "neither a network of the catalogue nor the folder of a run" in err


@pytest.mark.parametrize(
    ("sample", "text"), [("2x64", SMALL), ("1x9x9x9", SMALL), ("3x32x32", ALL)]
)
def test_plans_of_lines(capsys: pytest.CaptureFixture[str], sample: str, text: str) -> None:
    code, out, err = said(capsys, "plan", text, "--input", sample, "--no-time", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["unknown"] == []
    shape = tuple(map(int, sample.split("x")))
    assert found["parameters"] == sizes(parse(text), **data(shape[0], shape[1:], 10)).parameters
    long = "relu; " * 200 + "gap; linear"  # longer than a path can be
    assert said(capsys, "plan", long, "--no-time", "--json")[0] == 0


def test_a_plan_names_a_line_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    short = "conv 8 3;\n      relu;\tgap;linear"
    code, out, err = said(capsys, "plan", short, "--no-time", "--input", "3x8x8")
    assert code == 0, err
    assert out.startswith("conv 8 3; relu; gap; linear: input 3×8×8, ")
    code, out, err = said(capsys, "plan", LENET.replace("; ", ";\n  "), "--no-time")
    assert code == 0, err
    name, _, _ = out.partition(": input")
    assert len(name) == 72
    begin, _, end = name.partition("…")
    assert begin
    assert LENET.startswith(begin)
    assert end
    assert LENET.endswith(end)


def test_python_takes_lines_too() -> None:
    digits = neocog.load("digits")
    net = neocog.build(SMALL, digits)
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert neocog.plan(SMALL, (1, 8, 8), time=False).json["parameters"] == parameters(net)


def test_the_words_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "models", "line")
    assert code == 0
    for one in words():
        assert one["usage"].split()[0] == one["word"]
        assert one["usage"] in out
    assert json.loads(said(capsys, "models", "line", "--json")[1]) == words()
    assert {one["word"] for one in words()} == set(WORDS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NETS)
def test_the_device_computes_the_same(name: str) -> None:
    net, x = make(NETS[name]).eval(), samples(2, 3, 32, 32)
    with torch.no_grad():
        wanted = net(x)
        found = net.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_a_bundle_of_a_line_loads_anywhere_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    """As hostile as it may be: it is checked against its weights before anything is built."""
    net = make(SMALL, 1, (8, 8), 2)
    made = Bundle(
        model=ModelSpec(name=SMALL, args={}),
        weights=net.state_dict(),
        input=InputSpec(channels=1, size=(8, 8), mean=(0.5,), std=(0.25,)),
        task=TaskSpec(name="classify", args={"classes": ["cat", "dog"]}),
        classes=("cat", "dog"),
        manifest=Manifest(
            config={}, seed=0, versions={"torch": "2"}, argv=("neocog",), device={}, data={}
        ),
    )
    made.save(tmp_path)
    found = Bundle.load(tmp_path).network()
    x = samples(2, 1, 8, 8)
    assert torch.equal(found(x), net.eval()(x))
    path = tmp_path / "bundle.json"
    text = path.read_text()
    for other, says in (
        (SMALL.replace("16", "24"), "weight"),
        (SMALL.replace("gap", "linear 90000"), "larger than its weights"),
        (SMALL.replace("*2", "*900"), "larger than its weights"),
        (SMALL.replace("gap", "zoom"), "no layer is called 'zoom'"),
        ("(" * 9999 + "relu", "more than 32 parentheses"),
        ("relu; nets:small", "no layer is called 'small'"),
    ):
        path.write_text(text.replace(SMALL, other))
        began = time.process_time()
        with pytest.raises(RunError, match=says):
            Bundle.load(tmp_path)
        assert time.process_time() - began < 2


def test_a_report_shows_the_line_in_its_place(tmp_path: Path) -> None:
    """Not as the page's title, and without the breaks of the shell."""
    line = "conv 8 3 pad=same; relu;\n   pool 2; gap; linear"
    recipe = from_dict(Recipe, {"model": line, "engine": {"epochs": 1}})
    run = neocog.fit(None, "digits", recipe, out=tmp_path / "run", quiet=True)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "<bdi>A network in a line on digits</bdi>" in page
    assert "conv 8 3 pad=same; relu; pool 2; gap; linear" in page


MAPS = [
    "conv 5 3 pad=1",
    "conv 4 3; pool 2; conv 4 3 pad=same; convt 4 2 stride=2; convt 5 3",
    "pool 3 stride=2 ceil; up 2; conv 5 2; convt 5 2",
    "up 2; conv 4 3 pad=1; pool 2; (pool 2; conv 4 1; up 2); conv 5 1",
    "cat(pool 4; up 4 | conv 3 1; pool 2; up 2 | relu); conv 5 1",
]


@pytest.mark.parametrize("line", MAPS)
def test_a_line_may_answer_for_every_place(line: str) -> None:
    """For inputs of any size, and for a larger one by its layers one after the other."""
    net = make(line, 3, (32, 24), 5).eval()
    plain = list(net.children())
    traced = torch.fx.symbolic_trace(net)
    for size in ((32, 24), (48, 64), (33, 27), (30, 47), (31, 22)):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        found = net(x)
        assert found.shape == (2, 5, *size)
        assert torch.equal(traced(x), found)
        if size in ((32, 24), (48, 64)):
            wanted = x
            for layer in plain:
                wanted = layer(wanted)
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("size", [(40,), (12, 8, 16)])
def test_signals_and_volumes_have_places_too(size: tuple[int, ...]) -> None:
    net = make("conv 4 3 pad=1; relu; pool 2; up 2; conv 5 1", 1, size, 5).eval()
    odd = tuple(side + 1 for side in size)
    assert net(torch.randn(2, 1, *odd)).shape == (2, 5, *odd)
