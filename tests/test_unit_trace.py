"""Traces of single numbers against NumPy loops, autograd, torch.nn.functional and hand-made sums.

`benchmarks/traces.py` draws a thousand units over the whole catalogue; here are two hundred.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import drawn_units
import small_nets
from neocog import chance
from neocog.analysis.normal import normal
from neocog.errors import ConfigError
from neocog.explain.recording import Recording, record
from neocog.explain.unit.telling import path_told, told
from neocog.explain.unit.terms import Step, Unit
from neocog.explain.unit.trace import Arithmetic, UnitTrace, trace_unit

GOLDEN = Path(__file__).parent / "golden"
DRAWN: dict[str, dict[str, Any]] = {
    "alexnet": {"hidden": 64},
    "cnn": {"width": 8},
    "convnext_tiny": {},
    "deconvnet": {"width": 8, "hidden": 64},
    "densenet121": {},
    "efficientnet_b0": {},
    "fcn8s": {"width": 8, "hidden": 64},
    "googlenet": {},
    "highway": {"width": 8},
    "lenet5": {},
    "mlp": {},
    "mobilenet_v2": {"width": 0.35},
    "resnet18": {},
    "segnet": {"width": 8},
    "speednet": {"width": 8},
    "unet": {"width": 8},
    "vgg11": {"hidden": 64},
}
DRAWS = 12


def random(*shape: int, of: str = "x") -> Tensor:
    return torch.from_numpy(normal(shape, chance.key("test unit trace", of)))


def last(trace: UnitTrace) -> Step:
    return trace.steps[-1]


def slopes(step: Step, recording: Recording) -> dict[int, Tensor]:
    """The factors of a step, laid out as the tensors that were read."""
    found: dict[int, Tensor] = {}
    for one in step.terms:
        if one.places is None:
            continue
        layout = found.setdefault(one.source, torch.zeros(int(np.prod(one.shape)), dtype=float))
        inside = one.places >= 0
        np.add.at(layout.numpy(), one.places[inside], one.factors[inside])
    return {value: one.reshape(recording.tensors[value].shape) for value, one in found.items()}


def gradients(step: Step, recording: Recording) -> dict[int, Tensor]:
    """∂ value / ∂ what was read, by autograd through the operation itself."""
    node = recording.graph.nodes[step.node]
    read = [one.source for one in step.terms if one.places is not None]
    leaves = {value: recording.tensors[value].double().requires_grad_(True) for value in read}
    # All in double precision, the weights too.
    given = {
        value: recording.tensors[value].double()
        for value in node.inputs
        if recording.tensors[value].is_floating_point()
    }
    outputs = recording.replay(node, {**given, **leaves})
    outputs[node.outputs.index(step.unit.value)][step.unit.index].backward()
    return {
        value: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for value, leaf in leaves.items()
    }


def same_slopes(step: Step, recording: Recording) -> None:
    theirs = gradients(step, recording)
    for value, ours in slopes(step, recording).items():
        assert torch.allclose(ours, theirs[value], atol=1e-9, rtol=1e-9), step.op


# -- draws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_traces_are_what_the_network_computes(name: str) -> None:
    net = drawn_units.network(name, **DRAWN[name])
    tally = drawn_units.Tally()
    key = chance.key("suite", name)
    drawn_units.tally(net, drawn_units.picture(name, 1), DRAWS, key, tally, name)
    assert tally.agree == tally.draws == DRAWS, tally.wrong
    assert tally.largest <= 1e-6, tally.largest_at
    assert not [kind for kind in tally.kinds if kind.startswith("gradient")]
    assert tally.pixels >= DRAWS - 3  # a trace may end at a fill, or where nothing is added


def test_small_nets_too() -> None:
    tally = drawn_units.Tally()
    for name, (make, shape) in small_nets.NETS.items():
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            net = make().eval()
        drawn_units.tally(net, random(*shape, of=name), 2, chance.key(name), tally, name)
    assert tally.agree == tally.draws == 2 * len(small_nets.NETS), tally.wrong
    assert tally.largest <= 2e-6, tally.largest_at


@pytest.mark.parametrize("name", [*list(small_nets.NETS)[::3], "ceil pools", "adaptive", "3D up"])
def test_slopes_are_those_of_autograd(name: str) -> None:
    """Every step along a path: its factors, laid out, are the gradient of the operation."""
    make, shape = small_nets.NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = make().eval()
    x = random(*shape, of=name)
    steps = 0
    for trace, _ in drawn_units.drawn(net, x, 3, chance.key("slopes", name)):
        for step in (step for one in trace.path_to_pixels() for step in one.steps):
            norm = "norm" in step.op  # its factors are those for given mean and variance
            # Two factors that are read; and numbers that write over one another, of which autograd
            # counts all.
            other = step.op in ("mul", "bmm", "mm", "written", "max_unpool2d")
            if not norm and not other:
                same_slopes(step, trace.arithmetic.recording)
                steps += 1
    assert steps


def test_a_fault_is_found() -> None:
    """A network whose numbers are not the sums of what it read is not said to agree."""
    found = record(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), random(1, 2, 6, 6))
    tensors = list(found.tensors)
    (made,) = found.graph.nodes[0].outputs
    tensors[made] = tensors[made] + 1e-3
    wrong = trace_unit(dataclasses.replace(found, tensors=tuple(tensors)), "0", 1, (2, 2))
    assert trace_unit(found, "0", 1, (2, 2)).agrees
    assert not wrong.agrees
    assert "do not trust" in told(wrong)


# -- convolution -----------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(3, 4, 3), (1, 3, 7, 8)),
    "padded": (nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), (1, 3, 7, 8)),
    "strided": (nn.Conv2d(3, 4, 3, stride=(2, 3), padding=1), (1, 3, 7, 8)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=(2, 3), padding=3, bias=False), (1, 3, 9, 8)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (1, 4, 5, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, stride=2), (1, 4, 7, 7)),
    "1D": (nn.Conv1d(3, 4, 5, stride=2, padding=2, dilation=2), (1, 3, 17)),
    "3D": (nn.Conv3d(2, 3, (1, 2, 3), padding=1), (1, 2, 4, 5, 6)),
    "transposed": (nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), (1, 3, 4, 5)),
    "transposed dilated": (
        nn.ConvTranspose2d(3, 4, 3, stride=2, dilation=2, padding=1, output_padding=1),
        (1, 3, 4, 5),
    ),
    "transposed grouped": (nn.ConvTranspose2d(4, 6, 3, stride=3, groups=2), (1, 4, 4, 5)),
    "transposed 1D": (nn.ConvTranspose1d(3, 2, 3, stride=2), (1, 3, 6)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_in_every_geometry(name: str) -> None:
    """Each unit: the factors at the places read are ∂ unit / ∂ input of torch.nn.functional."""
    layer, shape = CONVOLUTIONS[name]
    x = random(*shape, of=name)
    found = record(layer, x)
    double = layer.double()
    leaf = x.double().requires_grad_(True)
    answer = double(leaf)
    units = list(itertools.product(*(range(size) for size in answer.shape[1:])))
    for index in units[:: max(1, len(units) // 40)]:
        (step,) = trace_unit(found, "", index[0], index[1:]).steps
        assert step.agrees
        assert step.gap <= 1e-6 * step.scale
        (theirs,) = torch.autograd.grad(answer[(0, *index)], leaf, retain_graph=True)
        assert torch.equal(slopes(step, found)[found.graph.inputs[0]], theirs)
        assert step.total == pytest.approx(float(answer[(0, *index)].detach()), abs=1e-12)


def test_a_convolution_against_loops() -> None:
    """Patch, kernel and products of each input channel by three loops over a padded picture."""
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    x = random(1, 2, 6, 7)
    (step,) = trace_unit(layer, "", 2, (0, 3), x=x).steps
    products, bias = step.terms
    padded = np.pad(x[0].numpy().astype(float), ((0, 0), (1, 1), (1, 1)))
    kernel = layer.weight.detach().numpy().astype(float)
    assert products.read.shape == (2, 3, 3)
    for c, i, j in itertools.product(range(2), range(3), range(3)):
        assert products.read[c, i, j] == padded[c, 0 * 2 + i, 3 * 2 + j]
        assert products.factors[c, i, j] == kernel[2, c, i, j]
    assert (products.places[:, 0] == -1).all()
    assert (products.places[:, 1:, :2] >= 0).all()
    assert bias.products.sum() == float(layer.bias.detach()[2])
    term = products.term(0, (1, 2, 0))
    assert term.source == Unit(0, (0, 1, 1, 5))
    assert term.product == term.read * term.factor
    assert term.other is not None
    assert term.other.index == (2, 1, 2, 0)
    assert products.term(0, (0, 0, 0)).source is None


# -- others, by hand -------------------------------------------------------------------------------


def test_batch_norm_relu_and_the_chain() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.BatchNorm2d(1), nn.ReLU(inplace=True))
    net[0].weight.data = torch.tensor([[[[1.0, -2.0], [0.5, 3.0]]]])
    net[1].running_mean.data.fill_(2.0)
    net[1].running_var.data.fill_(4.0 - 1e-5)
    net[1].weight.data.fill_(3.0)
    net[1].bias.data.fill_(-1.0)
    x = torch.tensor([[[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]]])
    trace = trace_unit(net, "2", 0, (1, 0), x=x)
    assert [step.op for step in trace.steps] == ["relu_", "native_batch_norm", "convolution"]
    # 1 · 3 − 2 · 4 + 0.5 · 6 + 3 · 7 = 19; (19 − 2) / 2 · 3 − 1 = 24.5
    assert trace.value == pytest.approx(24.5)
    assert last(trace).value == 19
    assert last(trace).terms[0].products.tolist() == [[[3.0, -8.0], [3.0, 21.0]]]
    norm = dict(trace.steps[1].numbers)
    assert (norm["μ"], norm["γ"], norm["β"]) == (2, 3, -1)
    assert norm["σ²"] == pytest.approx(4, rel=1e-5)
    assert [float(one.products[0]) for one in trace.steps[1].terms] == pytest.approx(
        [28.5, -3.0, -1.0]
    )
    assert trace.field == ((1, 2), (0, 1))
    assert trace.patch.tolist() == [[[3, 4], [6, 7]]]
    dead = trace_unit(net, "2", 0, (0, 0), x=-x)
    assert dead.value == 0
    assert dead.steps[0].terms[0].read[0] < 0
    assert dead.agrees


def test_pools_name_the_winner_and_the_share() -> None:
    x = random(1, 2, 7, 9)
    pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    _, index = F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)
    for row, column in itertools.product(range(4), range(5)):
        (step,) = trace_unit(pool, "", 1, (row, column), x=x).steps
        assert step.onward is not None
        winner = step.onward.index[2] * 9 + step.onward.index[3]
        assert winner == int(index[0, 1, row, column])
        assert step.terms[0].factors.sum() == 1
    mean = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    (step,) = trace_unit(mean, "", 0, (0, 0), x=x).steps
    assert step.terms[0].factors.tolist() == [[0.25, 0.25], [0.25, 0.25]]
    (step,) = trace_unit(nn.AvgPool2d(3, 2, 1), "", 0, (0, 0), x=x).steps
    assert (step.terms[0].factors == 1 / 9).all()
    assert step.terms[0].read.shape == (2, 2)
    (step,) = trace_unit(nn.AdaptiveAvgPool2d((3, 4)), "", 0, (1, 1), x=x).steps
    assert step.terms[0].read.tolist() == x[0, 0, 2:5, 2:5].double().tolist()


@pytest.mark.parametrize(
    ("layer", "shape", "index"),
    [
        (nn.LayerNorm([3, 4]), (1, 2, 3, 4), (1, 2, 3)),
        (nn.GroupNorm(2, 4), (1, 4, 3, 3), (2, 1, 1)),
        (nn.InstanceNorm2d(3, affine=True), (1, 3, 4, 4), (1, 2, 3)),
        (nn.Softmax(1), (1, 6), (2,)),
        (nn.LogSoftmax(1), (1, 6), (5,)),
    ],
    ids=["layer", "group", "instance", "softmax", "log-softmax"],
)
def test_norms_and_softmax_against_their_formulas(
    layer: nn.Module, shape: tuple[int, ...], index: tuple[int, ...]
) -> None:
    for at, parameter in enumerate(layer.parameters()):
        parameter.data = random(*parameter.shape, of=str(at))
    x = random(*shape)
    trace = trace_unit(layer, "", index[0], index[1:], x=x)
    step = next(one for one in trace.steps if one.kind == "formula" or "norm" in one.op)
    assert step.agrees
    assert step.gap < 1e-6
    numbers = dict(step.numbers)
    own = x.double().numpy()
    if "softmax" in step.words:
        share = np.exp(own[0]) / np.exp(own[0]).sum()
        expected = np.log(share) if "log" in step.words else share
        assert step.total == pytest.approx(expected[index[0]], abs=1e-12)
        assert numbers["Σ exp(x_j − m)"] == pytest.approx(np.exp(own[0] - own[0].max()).sum())
        return
    group = {"layer": own[0, 1], "group": own[0, 2:], "instance": own[0, 1]}
    read = next(one for name, one in group.items() if name in type(layer).__name__.lower())
    assert numbers["μ"] == pytest.approx(read.mean())
    assert numbers["σ²"] == pytest.approx(read.var())
    assert sum(float(one.products.sum()) for one in step.terms) == step.total


class Gated(nn.Module):
    """Attention of three words, then a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)
        self.gate = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(self.q(x), self.k(x), x)
        return mixed * self.gate(x).sigmoid() + x


def test_attention_is_taken_apart_and_gates_are_followed() -> None:
    net, x = Gated(), random(1, 3, 4)
    trace = trace_unit(net, "", 1, (2,), x=x)
    (joined,) = trace.steps
    assert joined.op == "add"
    assert joined.agrees
    product = trace.follow(joined.terms[0].term(0, (0,)))
    (step,) = product.steps
    assert step.op == "mul"
    term = step.strongest()[0]
    gate = product.follow(term, other=True)
    assert gate.steps[0].op == "sigmoid"
    assert gate.value == pytest.approx(term.factor)
    attended = product.follow(term)
    # As many steps of reshaping as PyTorch likes, then Σ share · word.
    assert last(attended).op == "bmm"
    assert last(attended).formula == "Σ a · b"
    with torch.no_grad():
        share = torch.softmax(net.q(x) @ net.k(x).transpose(1, 2) / 2, -1)[0, 1]
    assert last(attended).terms[0].read == pytest.approx(share.numpy(), abs=1e-6)
    assert all(one.agrees for one in (*trace.path_to_pixels(), gate, attended))


class Strange(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_what_nobody_wrote_out_says_so() -> None:
    x = random(1, 2, 4, 4)
    (step,) = trace_unit(Strange(lambda x: x.cumsum(2)), "", 1, (2, 3), x=x).steps
    assert step.kind == "sum"
    assert "weighted sum" in step.words
    assert step.agrees
    assert step.terms[0].read.tolist() == x[0, 1, :3, 3].double().tolist()
    norm = trace_unit(Strange(lambda x: x.norm(dim=(2, 3), keepdim=True)), "", 1, (0, 0), x=x)
    assert norm.steps[0].kind == "gradient"
    assert "not a sum" in norm.steps[0].words
    assert norm.agrees
    power = trace_unit(Strange(lambda x: (x * 2).logsumexp(3)), "", 1, (2,), x=x)
    (step,) = power.steps
    given = 2 * x[0, 1, 2].double()
    shares = given.softmax(0)
    assert step.kind == "gradient"
    assert step.agrees
    assert step.terms[0].factors == pytest.approx(shares.numpy())
    assert step.terms[-1].label == "rest"
    rest = float(given.exp().sum().log() - (given * shares).sum())
    assert float(step.terms[-1].products.sum()) == pytest.approx(rest)
    mirrored = trace_unit(Strange(lambda x: x.amax(3)), "", 1, (0,), x=x).steps[0]
    assert mirrored.kind == "gradient"  # max(x) = 1 · x at one place, and yet it is no sum
    sorted_ = trace_unit(Strange(lambda x: x.argmax(1).float()), "", 1, (0,), x=x)
    assert sorted_.steps[-1].words.startswith("argmax, not written out")
    assert sorted_.agrees


def test_fills_and_ends() -> None:
    net = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(1, 1, 1))
    x = random(1, 1, 4, 4)
    trace = trace_unit(net, "1", 0, (0, 0), x=x)
    path = trace.path_to_pixels()
    assert trace.agrees
    assert not path[-1].is_pixel
    assert len(path) == 2
    assert path[-1].steps[0].words == "padding: filled in"
    assert path[-1].value == 0
    assert "nothing that depends on the picture" in path_told(path)
    with pytest.raises(ConfigError, match="padding or a constant"):
        trace.follow(trace.steps[0].terms[1].term(1, (0,)))


def test_errors_say_what_there_is() -> None:
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3)), random(1, 1, 5, 5)
    with pytest.raises(ConfigError, match="no layer called 'conv'"):
        trace_unit(net, "conv", 0, (0, 0), x=x)
    for channel, position in ((2, (0, 0)), (0, (3, 0)), (0, ()), (-1, (0, 0))):
        with pytest.raises(ConfigError, match="within 2×3×3"):
            trace_unit(net, "0", channel, position, x=x)
    with pytest.raises(ConfigError, match="picture"):
        trace_unit(net, "0", 0, (0, 0))


# -- text ------------------------------------------------------------------------------------------


def small() -> tuple[nn.Module, Tensor]:
    """Numbers that one can check by hand."""
    net = nn.Sequential(
        nn.Conv2d(2, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.MaxPool2d(2)
    )
    net.append(nn.Conv2d(7, 2, 2)).append(nn.Flatten()).append(nn.Linear(8, 3))
    for at, parameter in enumerate(net.parameters()):
        count = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
        parameter.data = (count * (at + 3) % 7 - 3) / 4
    x = (torch.arange(2 * 36, dtype=torch.float32).reshape(1, 2, 6, 6) * 5 % 11 - 3) / 2
    return net, x


def test_the_text_is_golden() -> None:
    net, x = small()
    arithmetic = Arithmetic(record(net, x))
    first, whole = arithmetic.unit("2", 3, (0, 4)), arithmetic.unit("", 1)
    path = whole.path_to_pixels()
    text = "\n".join([told(first), *(told(one) for one in path), path_told(path)])
    golden = GOLDEN / "trace-small.txt"
    assert text == golden.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 98


def test_the_golden_numbers_are_those_of_torch() -> None:
    net, x = small()
    with torch.no_grad():
        answer = net.eval()(x)
        middle = net[:3](x)
    text = (GOLDEN / "trace-small.txt").read_text(encoding="utf-8")
    assert f"the network, number 1: {float(answer[0, 1]):.4g}".replace("-", "−") in text
    assert f"2, channel 3, row 0, column 4: {float(middle[0, 3, 0, 4]):.4g}" in text


def test_many_channels_and_large_kernels_stay_short() -> None:
    net = nn.Conv2d(64, 2, 3)
    lines = told(trace_unit(net, "", 0, (0, 0), x=random(1, 64, 3, 3))).splitlines()
    assert len(lines) < 25
    assert any("59 other channels" in line for line in lines)
    large = told(trace_unit(nn.Conv2d(1, 1, 15), "", 0, (0, 0), x=random(1, 1, 15, 15)))
    assert "15×15 products, too many" in large
