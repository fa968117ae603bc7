"""From a weight to the loss: counted, assembled and compared with textbooks and autograd."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.small_nets import NETS
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from neocog.errors import ConfigError
from neocog.explain.chain.formula import formula
from neocog.explain.chain.local import WRITTEN_OUT, by_autograd, pulled_back
from neocog.explain.chain.paths import weight_paths
from neocog.explain.chain.text import paths_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.explain.chain.paths import WeightPaths


def squares(answer: Tensor) -> Tensor:
    """A loss that treats no two outputs alike."""
    flat = answer.flatten()
    return (flat * torch.linspace(0.5, 1.5, len(flat), dtype=flat.dtype)).square().mean()


def named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def seeded(net: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return copy.deepcopy(net()).eval()  # some builders hand out the same network again


def perceptron() -> nn.Module:
    return named(
        flat=nn.Flatten(),
        fc1=nn.Linear(6, 5),
        act=nn.ReLU(inplace=True),
        fc2=nn.Linear(5, 4),
        bend=nn.Sigmoid(),
        fc3=nn.Linear(4, 3),
    )


def small_cnn() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.running_mean = torch.tensor([0.1, -0.2, 0.0, 0.3])
    norm.running_var = torch.tensor([0.5, 1.5, 1.0, 2.0])
    norm.weight = nn.Parameter(torch.tensor([1.5, 0.5, -1.0, 2.0]))
    norm.bias = nn.Parameter(torch.tensor([0.2, 0.1, 0.0, -0.1]))
    return named(
        conv1=nn.Conv2d(2, 4, 3, stride=2, padding=1),
        norm=norm,
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(2),
        conv2=nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
        tanh=nn.Tanh(),
        mean=nn.AvgPool2d(2),
        flat=nn.Flatten(),
        fc=nn.Linear(16, 3),
    )


class Residual(nn.Module):
    """Blocks x + f(x): two paths through each."""

    def __init__(self, blocks: int, width: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            named(conv=nn.Conv2d(width, width, 3, padding=1), relu=nn.ReLU(inplace=True))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x.mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads what all before it made: twice as many paths with each."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.layers = nn.ModuleList(
            named(relu=nn.ReLU(), conv=nn.Conv2d(2 + 2 * at, 2, 3, padding=1))
            for at in range(layers)
        )
        self.last = nn.Linear(2 + 2 * layers, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.first(x)]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        return self.last(torch.cat(maps, 1).mean((2, 3)))


class Twice(nn.Module):
    """One layer that runs three times, and its weight once more by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.relu(self.conv(x)) - 0.1
        return x.mean((2, 3)) * self.conv.weight.sum()


def own_gradients(net: nn.Module, x: Tensor, loss: Any) -> dict[str, Tensor]:
    """Of PyTorch, on the module itself."""
    names = [name for name, _ in net.named_parameters()]
    before = torch.get_default_dtype()
    torch.set_default_dtype(next(net.parameters()).dtype)  # for what a forward makes itself
    try:
        value = loss(net(x.clone()))
    finally:
        torch.set_default_dtype(before)
    found = torch.autograd.grad(
        value, list(net.parameters()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(names, found, strict=True))


# -- by hand --------------------------------------------------------------------------------------


def mazur() -> nn.Module:
    """The network of Mazur 2015, "A step by step backpropagation example"."""
    net = named(h=nn.Linear(2, 2), f=nn.Sigmoid(), o=nn.Linear(2, 2), g=nn.Sigmoid())
    with torch.no_grad():
        net.h.weight.copy_(torch.tensor([[0.15, 0.20], [0.25, 0.30]]))
        net.h.bias.fill_(0.35)
        net.o.weight.copy_(torch.tensor([[0.40, 0.45], [0.50, 0.55]]))
        net.o.bias.fill_(0.60)
    return net


def mazur_loss(answer: Tensor) -> Tensor:
    return (0.5 * (torch.tensor([[0.01, 0.99]], dtype=answer.dtype) - answer) ** 2).sum()


@pytest.mark.parametrize(
    ("weight", "index", "published"),
    [
        ("o.weight", (0, 0), 0.082167041),
        ("h.weight", (0, 0), 0.000438568),
    ],
)
def test_a_published_example(weight: str, index: tuple[int, int], published: float) -> None:
    found = weight_paths(mazur(), torch.tensor([[0.05, 0.10]]), mazur_loss, weight, index)
    assert found.derivative == pytest.approx(published, abs=1e-9)
    assert found.loss == pytest.approx(0.298371109, abs=1e-8)
    assert found.count == 1


def xor() -> nn.Module:
    """Goodfellow, Bengio, Courville 2016, section 6.1: XOR with rectified linear units."""
    net = named(h=nn.Linear(2, 2), relu=nn.ReLU(), o=nn.Linear(2, 1))
    with torch.no_grad():
        net.h.weight.fill_(1.0)
        net.h.bias.copy_(torch.tensor([0.0, -1.0]))
        net.o.weight.copy_(torch.tensor([[1.0, -2.0]]))
        net.o.bias.zero_()
    return net


def test_xor_by_hand() -> None:
    # x = (1, 1): z = (2, 1), y = 2 − 2·1 = 0; L = (y − 1)², ∂L/∂y = −2.
    found = weight_paths(
        xor(), torch.ones(1, 2), lambda y: ((y - 1) ** 2).sum(), "h.weight", (1, 0)
    )
    assert found.loss == 1
    # x[0] · gate · v[1] · ∂L/∂y = 1 · 1 · −2 · −2
    assert found.gradient.tolist() == [[-2, -2], [4, 4]]
    parts = {one.name: one for one in found.dependences}
    # Of the second layer only v[1] is on the path.
    assert parts["o.weight"].factor.tolist() == [[False, True]]
    assert parts["o.weight"].part == 4


def test_xor_with_a_closed_unit() -> None:
    # x = (0, 1): z = (1, 0), the second unit is closed; y = 1.
    x = torch.tensor([[0.0, 1.0]])
    found = weight_paths(xor(), x, lambda y: (y**2).sum(), "h.weight", (1, 1))
    assert found.gradient.tolist() == [[0, 2], [0, 0]]
    assert "Closed for this input: relu[1]." in paths_text(found)
    (gate,) = found.gates
    assert (gate.reached, gate.passed, gate.carried) == (1, 0, 0)
    assert gate.closed.tolist() == [[False, True]]
    assert all(not one.factor.any() for one in found.dependences)
    assert all(not one.influence.any() for one in found.dependences)


def test_the_formula_of_a_perceptron() -> None:
    found = weight_paths(
        xor(), torch.ones(1, 2), lambda y: F.mse_loss(y, torch.ones_like(y)), "h.weight", (1, 0)
    )
    own = formula(found)
    assert own is not None
    assert own.lines == (
        "∂L/∂h.weight[1,0] = x[0] · 1[z1[1] > 0] · o.weight[0,1] · 2·(ŷ[0] − y[0])",
        "                4 =  1   ·      1       ·      −2       ·       −2",
    )
    assert own.terms == (("x[0] · 1[z1[1] > 0] · o.weight[0,1] · 2·(ŷ[0] − y[0])", 4.0),)


def test_the_formula_of_a_softmax() -> None:
    found = weight_paths(seeded(perceptron), torch.randn(1, 1, 2, 3), 1, "fc1.weight", (2, 0))
    own = formula(found)
    assert own is not None
    text = " ".join(" ".join(own.lines[::2]).split())
    assert text == (
        "∂L/∂fc1.weight[2,0] = x[0] · 1[z1[2] > 0] · Σ_m fc2.weight[m,2] ·"
        " σ(z2[m])·(1 − σ(z2[m])) · Σ_n fc3.weight[n,m] · (p[n] − y[n])"
    )
    assert len(own.terms) == 4 * 3
    assert sum(value for _, value in own.terms) == pytest.approx(found.derivative, rel=1e-9)


def test_terms_by_numpy() -> None:
    net = seeded(perceptron).double()
    torch.manual_seed(3)
    x = torch.randn(1, 1, 2, 3, dtype=torch.float64)
    w1, b1, w2, b2, w3, b3 = (one.detach().numpy() for one in net.parameters())
    z1 = w1 @ x.numpy().ravel() + b1
    z2 = w2 @ np.maximum(z1, 0) + b2
    a2 = 1 / (1 + np.exp(-z2))
    z3 = w3 @ a2 + b3
    error = np.exp(z3) / np.exp(z3).sum() - np.eye(3)[2]
    unit = int(np.argmax(z1))
    found = weight_paths(net, x, 2, "fc1.weight", (unit, 4))
    wanted = [
        x.numpy().ravel()[4] * w2[m, unit] * a2[m] * (1 - a2[m]) * w3[n, m] * error[n]
        for m in range(4)
        for n in range(3)
    ]
    own = formula(found)
    assert own is not None
    np.testing.assert_allclose([value for _, value in own.terms], wanted, rtol=1e-9)


def test_the_formula_of_a_small_cnn() -> None:
    net = named(
        c1=nn.Conv2d(2, 4, 3, stride=2, padding=1),
        norm=nn.BatchNorm2d(4),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(2),
        c2=nn.Conv2d(4, 5, 3, stride=2, padding=1),
        tanh=nn.Tanh(),
        flat=nn.Flatten(),
        fc=nn.Linear(20, 3),
    )
    found = weight_paths(net, torch.randn(1, 2, 16, 16), 1, "c1.weight", (3, 0, 2, 1))
    own = formula(found)
    assert own is not None
    assert [line for line in own.lines[2:] if not line.startswith(" ")][:-1] == [
        "δ1[n,y,x] = γ1[n]/√(σ²1[n] + ε) · δ2[n,y,x]  (norm)",
        "δ2[n,y,x] = 1[n1[n,y,x] > 0] · δ3[n,y,x]  (relu)",
        "δ3[n,y,x] = Σ δ4[n] of the windows whose largest it is  (pool)",
        "δ4[n,y,x] = Σ_m,i,j c2.weight[m,n,i,j] · δ5[m, (y + 1 − i)/2, (x + 1 − j)/2], where these"
        " are whole",
        "δ5[n,y,x] = (1 − tanh²(z2[n,y,x])) · δ6[n,y,x]  (tanh)",
        "δ6[n,y,x] = δ7[(n·2 + y)·2 + x]",
        "δ7[n] = Σ_m fc.weight[m,n] · δ8[m]",
    ]
    head = "∂L/∂c1.weight[3,0,2,1] = Σ_y,x δ1[k,y,x] · input[c, 2·y + i − 1, 2·x + j − 1]"
    assert own.lines[0] == head
    assert own.lines[-1].startswith("δ8[m] = (p[m] − y[m]): 3 of 3 not zero")
    assert own.legend[0] == "k, c, i, j = 3, 0, 2, 1; input: the network's"


def test_too_long_to_write_out() -> None:
    net, x = seeded(lambda: Residual(1)), torch.randn(1, 1, 4, 4)
    assert formula(weight_paths(net, x, 1, "first.weight")) is None
    several = weight_paths(seeded(perceptron), torch.randn(2, 1, 2, 3), 1, "fc1.weight")
    assert formula(several) is None


# -- the gradient ---------------------------------------------------------------------------------


def assert_whole(found: WeightPaths, gradient: Tensor, tolerance: float = 1e-9) -> None:
    scale = float(gradient.abs().max()) or 1.0
    assert float((found.gradient - gradient).abs().max()) <= tolerance * scale
    assert found.difference <= 1e-9
    if found.paths:
        assert len(found.paths) == found.count
        total = sum(one.part for one in found.paths)
        assert total == pytest.approx(found.derivative, rel=1e-8, abs=1e-12 * scale)


@pytest.mark.parametrize("build", [perceptron, small_cnn, lambda: Residual(2), lambda: Dense(3)])
def test_the_gradient_is_autograds(build: Callable[[], nn.Module]) -> None:
    net = seeded(build)
    torch.manual_seed(1)
    shape = {"Sequential": (2, 2, 16, 16)}.get(type(net).__name__, (2, 1, 6, 6))
    x = torch.randn(2, 1, 2, 3) if build is perceptron else torch.randn(shape)
    wanted = own_gradients(
        net.double(), x.double(), lambda y: F.cross_entropy(y, torch.ones(2).long())
    )
    for name, gradient in wanted.items():
        assert_whole(weight_paths(net, x, 1, name), gradient)


def test_in_single_precision() -> None:
    net, x = seeded(small_cnn), torch.randn(1, 2, 16, 16)
    wanted = own_gradients(net, x, lambda y: F.cross_entropy(y, torch.tensor([2])))
    for name, gradient in wanted.items():
        found = weight_paths(net, x, 2, name)
        scale = float(gradient.abs().max())
        assert float((found.gradient - gradient).abs().max()) < 1e-5 * scale


@pytest.mark.parametrize("name", NETS)
def test_any_small_net(name: str) -> None:
    build, shape = NETS[name]
    net = seeded(build).double()
    torch.manual_seed(2)
    x = torch.randn(shape, dtype=torch.float64)
    weights = [one for one, _ in net.named_parameters()]
    counts: dict[str, int] = {}
    for weight in {weights[0], weights[len(weights) // 2]}:
        found = weight_paths(net, x, squares, weight, limit=8)
        wanted = own_gradients(net, x, squares)[weight]
        assert_whole(found, wanted)
        if found.uses:
            total = sum(use.total for use in found.uses)
            assert total == pytest.approx(found.derivative, rel=1e-8, abs=1e-12)
        for part in found.branches:
            assert part.part is not None
        counts[weight] = found.count
    # What is written into through a view has other nodes in autograd's graph.
    if name != "written into":
        for weight, count in counts.items():
            assert count == brute_force(net.float(), x.float(), squares, weight)


def test_every_rule_is_that_of_autograd() -> None:
    """Operation by operation, over all small nets."""
    seen: set[str] = set()
    builds: list[tuple[Callable[[], nn.Module], tuple[int, ...], Any]] = [
        *((build, shape, squares) for build, shape in NETS.values()),
        (small_cnn, (1, 2, 16, 16), 1),
        (perceptron, (1, 1, 2, 3), lambda y: F.mse_loss(y.softmax(1) / (y * y + 1), y - y.tanh())),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.2)), (2, 3), 1),
        (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)), (2, 2, 9), 1),
        (lambda: nn.Conv3d(1, 2, 2, stride=2, padding=1), (1, 1, 4, 5, 4), 1),
    ]
    for build, shape, loss in builds:
        net = seeded(build)
        weight = next(name for name, _ in net.named_parameters())
        run = weight_paths(net, torch.randn(shape), loss, weight, limit=0)
        for at in run.routes.nodes:
            node = run.recording.graph.nodes[at]
            given = {one: run.deltas[one] for one in node.outputs if one in run.deltas}
            wanted = [
                one for one in node.inputs
                if run.recording.graph.values[one].kind not in ("constant", "buffer")
                and run.recording.tensors[one].is_floating_point()
            ]  # fmt: skip
            ours = pulled_back(run.recording, node, given, wanted)
            theirs = by_autograd(run.recording, node, given, wanted)
            for value in ours.keys() | theirs.keys():
                zero = torch.zeros_like(run.recording.tensors[value])
                one, other = ours.get(value, zero), theirs.get(value, zero)
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
            seen.add(node.op.rstrip("_"))
    assert not WRITTEN_OUT.keys() - seen


# -- how many -------------------------------------------------------------------------------------


def brute_force(net: nn.Module, x: Tensor, loss: Any, weight: str) -> int:
    """Paths through autograd's own graph, one by one."""
    parameter = net.get_parameter(weight)
    with sdpa_kernel(SDPBackend.MATH):
        value = loss(net(x))
    graph = nx.DiGraph()
    open_nodes, ends = [(value.grad_fn, 0)], set()
    while open_nodes:
        node, place = open_nodes.pop()
        if getattr(node, "variable", None) is parameter:
            ends.add((node, place))
        for after in node.next_functions:  # what made an operand, and which of its answers it is
            # The sign of a number does not change with it, in small steps.
            if after[0] is not None and after[0].name() != "SignBackward0":
                if after not in graph:
                    open_nodes.append(after)
                graph.add_edge((node, place), after)
    return sum(1 for end in ends for _ in nx.all_simple_paths(graph, (value.grad_fn, 0), end))


def class_one(answer: Tensor) -> Tensor:
    return F.cross_entropy(answer, torch.ones(len(answer), dtype=torch.int64))


@pytest.mark.parametrize(
    ("build", "weight", "count"),
    [
        (lambda: Residual(1), "first.weight", 2),
        (lambda: Residual(5), "first.weight", 2**5),
        (lambda: Residual(5), "blocks.2.conv.weight", 2**2),
        (lambda: Dense(4), "first.weight", 2**4),
        (lambda: Dense(5), "layers.1.conv.weight", 2**3),
        (perceptron, "fc1.weight", 1),
    ],
)
def test_paths_are_counted(build: Callable[[], nn.Module], weight: str, count: int) -> None:
    net = seeded(build)
    x = torch.randn(1, 1, 2, 3)
    found = weight_paths(net, x, 1, weight)
    assert found.count == count == brute_force(net, x, class_one, weight)
    assert sum(found.lengths.values()) == count


def test_shortcuts_taken_are_binomial() -> None:
    found = weight_paths(seeded(lambda: Residual(4)), torch.randn(1, 1, 4, 4), 1, "first.weight")
    # The first convolution and the last layer are on all paths.
    assert found.lengths == {2: 1, 3: 4, 4: 6, 5: 4, 6: 1}
    assert len(found.branches) == 2 * 4
    for at in range(0, len(found.branches), 2):
        pair = found.branches[at : at + 2]
        assert [one.count for one in pair] == [8, 8]
        total = sum(one.part or 0 for one in pair)
        assert total == pytest.approx(found.derivative, rel=1e-9)


def test_more_paths_than_anyone_can_list() -> None:
    net = seeded(lambda: Residual(50, width=1))
    found = weight_paths(net, torch.randn(1, 1, 3, 3), 1, "first.weight")
    assert found.count == 2**50
    assert not found.paths
    assert found.lengths[2 + 25] == 126410606437752  # 50 over 25
    assert found.difference < 1e-9
    assert "1 125 899 906 842 624 = 2⁵⁰ paths" in paths_text(found)


def test_one_layer_that_runs_several_times() -> None:
    net, x = seeded(Twice), torch.randn(1, 2, 5, 5)
    found = weight_paths(net, x, squares, "conv.weight", (1, 0, 2, 1))
    assert found.count == 4 == brute_force(net, x, squares, "conv.weight")
    assert [use.layer for use in found.uses] == ["conv", "conv#2", "conv#3"]
    assert_whole(found, own_gradients(net.double(), x.double(), squares)["conv.weight"])
    longest = max(found.paths, key=lambda one: len(one.layers))
    assert longest.layers[:5] == ("conv.weight", "conv", "relu", "sub", "conv#2")
    # A tied weight goes by either name.
    both = named(a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    both.b.weight = both.a.weight
    again = weight_paths(both, torch.randn(1, 3), 1, "b.weight")
    assert again.count == 2


def test_no_path() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.c(x)
            return self.b(self.a(x).detach())

    net, x = Cut(), torch.randn(1, 3)
    for weight in ("a.weight", "c.weight"):
        found = weight_paths(net, x, 0, weight)
        assert found.count == 0
        assert not found.gradient.any()
        assert found.difference == 0
        assert "None: the loss does not depend on it" in paths_text(found)
    assert weight_paths(net, x, 0, "b.weight").count == 1


# -- places ---------------------------------------------------------------------------------------


def test_the_sum_over_positions() -> None:
    net = seeded(small_cnn).double()
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    kept: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor], answer: Tensor) -> Tensor:
        answer.retain_grad()
        kept.extend([given[0], answer])
        return answer.clone()

    handle = net.conv2.register_forward_hook(keep)
    class_one(net(x)).backward()
    handle.remove()
    given, delta = kept[0].detach(), kept[1].grad
    index = (3, 1, 2, 0)
    # Unit 3 lies in the second group of two: it reads channels 2 and 3.
    padded = F.pad(given, (2, 2, 2, 2))
    found = weight_paths(net, x, 1, "conv2.weight", index)
    (use,) = found.uses
    assert use.count == delta[:, 3].numel()
    assert use.total == pytest.approx(found.derivative, rel=1e-9)
    products = []
    for b in range(2):
        for y in range(delta.shape[2]):
            for column in range(delta.shape[3]):
                factor = padded[b, 3, y + 2 * 2, column + 2 * 0]
                products.append(float(delta[b, 3, y, column] * factor))
    assert use.total == pytest.approx(sum(products), rel=1e-9)
    strongest = sorted(products, key=abs, reverse=True)[: len(use.terms)]
    np.testing.assert_allclose([one.product for one in use.terms], strongest, rtol=1e-9)
    for one in use.terms:
        b, y, column = one.position
        channel, row, reads = one.read
        assert (channel, row, reads) == (3, y + 4 - 2, column - 2)
        inside = 0 <= row < given.shape[2] and 0 <= reads < given.shape[3]
        assert one.given == pytest.approx(float(given[b, 3, row, reads]) if inside else 0)
        assert one.delta == pytest.approx(float(delta[b, 3, y, column]), rel=1e-9)


# -- what it depends on ---------------------------------------------------------------------------


def one_gradient(net: nn.Module, x: Tensor, weight: str, index: tuple[int, ...]) -> float:
    (found,) = torch.autograd.grad(class_one(net(x)), net.get_parameter(weight))
    return float(found[index])


@pytest.mark.parametrize(
    ("build", "shape", "weight"),
    [
        (perceptron, (1, 1, 2, 3), "fc1.weight"),
        (small_cnn, (1, 2, 16, 16), "conv1.weight"),
        (lambda: Residual(2, width=2), (1, 1, 3, 3), "blocks.0.conv.weight"),
    ],
)
def test_dependence_against_perturbation(
    build: Callable[[], nn.Module], shape: tuple[int, ...], weight: str
) -> None:
    net = seeded(build, 4).double()
    torch.manual_seed(5)
    x = torch.randn(shape, dtype=torch.float64)
    found = weight_paths(net, x, 1, weight)
    parts = {one.name: one for one in found.dependences}
    assert set(parts) == {*(name for name, _ in net.named_parameters()), "input"}
    step = 1e-5
    for name, tensor in [*net.named_parameters(), ("input", x)]:
        flat = tensor.detach().view(-1)
        moved = torch.zeros(len(flat), dtype=torch.bool)
        for at in range(len(flat)):
            before = float(flat[at])
            ends = []
            for side in (-step, step):
                flat[at] = before + side
                ends.append(one_gradient(net, x, weight, found.index))
            flat[at] = before
            moved[at] = abs(ends[1] - ends[0]) > 1e-15
        assert torch.equal(parts[name].influence.flatten(), moved), name
    # Some do not count: behind closed gates.
    assert any(not bool(one.influence.all()) for one in found.dependences)


def test_factors_against_weights_of_the_backward_pass_alone() -> None:
    """The weights that pass errors back are perturbed, those of the forward pass are not."""
    net = seeded(perceptron, 4).double()
    torch.manual_seed(6)
    x = torch.randn(1, 1, 2, 3, dtype=torch.float64)
    found = weight_paths(net, x, 1, "fc1.weight")
    w1, b1, w2, b2, w3, b3 = (one.detach().numpy() for one in net.parameters())
    z1 = w1 @ x.numpy().ravel() + b1
    z2 = w2 @ np.maximum(z1, 0) + b2
    a2 = 1 / (1 + np.exp(-z2))
    z3 = w3 @ a2 + b3
    error = np.exp(z3) / np.exp(z3).sum() - np.eye(3)[1]
    unit, read = found.index

    def backward(v2: np.ndarray, v3: np.ndarray) -> float:
        inner = v2.T @ ((v3.T @ error) * a2 * (1 - a2))
        return float(inner[unit] * (z1[unit] > 0) * x.numpy().ravel()[read])

    own = {one.name: one for one in found.factors}
    for name, matrix in (("fc2.weight", w2), ("fc3.weight", w3)):
        slopes = np.zeros_like(matrix)
        for at in np.ndindex(matrix.shape):
            moved = matrix.copy()
            moved[at] += 1.0  # the derivative is linear in each
            given = (moved, w3) if name == "fc2.weight" else (w2, moved)
            slopes[at] = backward(*given) - backward(w2, w3)
        np.testing.assert_allclose(own[name].coefficients.numpy(), slopes, atol=1e-12)
        np.testing.assert_array_equal(own[name].coefficients.numpy() != 0, slopes != 0)


@pytest.mark.parametrize("weight", ["conv1.weight", "norm.weight", "norm.bias", "conv1.bias"])
def test_what_passes_through_a_layer_is_the_whole(weight: str) -> None:
    found = weight_paths(seeded(small_cnn), torch.randn(1, 2, 16, 16), 1, weight)
    parts = {one.name: one.part for one in found.dependences}
    for name in ("conv2.weight", "fc.weight"):
        assert parts[name] == pytest.approx(found.derivative, rel=1e-9)


# -- any module, and as it was --------------------------------------------------------------------


def test_the_module_stays_as_it_was() -> None:
    net = seeded(small_cnn).train()
    net.conv1.weight.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    ran: list[int] = []
    net.relu.register_forward_hook(lambda *_: ran.append(1))
    x = torch.randn(1, 2, 16, 16)
    state = {name: one.clone() for name, one in net.state_dict().items()}
    before, chance = x.clone(), torch.get_rng_state()
    told: list[tuple[int, int]] = []
    weight_paths(net, x, 1, "conv1.weight", progress=lambda done, of: told.append((done, of)))
    assert all(torch.equal(one, state[name]) for name, one in net.state_dict().items())
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(part.training for part in net.modules())
    assert not net.conv1.weight.requires_grad
    assert net.fc.weight.requires_grad
    assert bool((net.fc.weight.grad == 1).all())
    assert net.conv2.weight.grad is None
    assert len(net.relu._forward_hooks) == 1
    assert all(not part._forward_hooks for name, part in net.named_modules() if name != "relu")
    assert told[-1] == (5, 5)


class Scaled(nn.Module):
    """A parameter without axes, and one that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.idle = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(2))
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


PARTS: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        torch.ones(1, 3),
        "parametrizations.weight.original1",
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)),
        torch.tensor([[1, 2]]),
        "0.weight",
    ),
    "half precision": (lambda: nn.Linear(3, 3).bfloat16(), torch.ones(1, 3), "weight"),
    "dense answer": (lambda: nn.Conv2d(1, 3, 3), torch.ones(1, 1, 6, 6), "bias"),
    "without axes": (Scaled, torch.ones(1, 3), "scale"),
    "recurrent": (Recurrent, torch.ones(1, 3, 4), "lstm.weight_hh_l0"),
    "attention": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(40, 3)
        ),
        torch.linspace(-1, 1, 40).reshape(1, 5, 8),
        "0.self_attn.in_proj_weight",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_any_module(name: str) -> None:
    build, x, weight = PARTS[name]
    net = seeded(build)
    found = weight_paths(net, x, 1, weight)
    given = x.double() if x.is_floating_point() else x

    def loss(answer: Tensor) -> Tensor:
        target = torch.ones(len(answer), *answer.shape[2:], dtype=torch.int64)
        return F.cross_entropy(answer, target)

    assert_whole(found, own_gradients(net.double(), given, loss)[weight])
    assert not found.unknown
    assert all(one.influence is not None for one in found.dependences)
    assert paths_text(found)


def test_autograd_that_was_told_otherwise() -> None:
    class Straight(torch.autograd.Function):
        """The straight-through estimator: rounds, and passes gradients on as they are."""

        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.sign() * x

        @staticmethod
        def backward(_: Any, delta: Tensor) -> Tensor:
            return delta

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(Straight.apply(self.a(x)))

    found = weight_paths(seeded(Net), torch.tensor([[1.0, -2.0, 0.5]]), 1, "a.weight")
    assert found.difference > 1e-3
    assert "They differ: autograd is told otherwise" in paths_text(found)


def test_a_loss_that_is_a_module() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.tensor([0.5, 0.25, 0.0]))

        def forward(self, answer: Tensor) -> Tensor:
            return (answer - self.shift).square().sum()

    loss, net, x = Weighted(), seeded(perceptron), torch.randn(1, 1, 2, 3)
    found = weight_paths(net, x, loss, "fc3.weight")
    assert loss.shift.dtype == torch.float32
    assert_whole(found, own_gradients(net.double(), x.double(), loss.double())["fc3.weight"])
    # The shift does not stand in the chain, but moves the error of its own unit.
    (own,) = [one for one in found.dependences if one.name == "loss.shift"]
    assert not own.factor.any()
    assert own.influence.nonzero().tolist() == [[found.index[0]]]
    assert paths_text(found)


def test_a_loss_with_weights_of_its_own() -> None:
    net, x = seeded(perceptron), torch.randn(2, 1, 2, 3)
    weighing = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    target = torch.tensor([2, 0])
    found = weight_paths(net, x, lambda y: weighing.to(y.dtype)(y, target), "fc2.weight")
    wanted = own_gradients(net.double(), x.double(), lambda y: weighing(y, target))
    assert_whole(found, wanted["fc2.weight"])


def test_where_forward_derivatives_are_missing() -> None:
    class Far(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(self.fc(x), torch.ones(2, 3, dtype=x.dtype), p=3.0)

    found = weight_paths(Far(), torch.randn(4, 3), squares, "fc.weight")
    assert found.unknown
    assert found.difference < 1e-9
    assert all(one.factor is None for one in found.dependences)
    assert "Not followed" in paths_text(found)


def test_mistakes_are_told() -> None:
    net, x = seeded(small_cnn), torch.randn(1, 2, 16, 16)
    with pytest.raises(ConfigError, match=r"no parameter is called 'conv1\.wieght'") as raised:
        weight_paths(net, x, 1, "conv1.wieght")
    assert "conv1.weight" in (raised.value.hint or "")
    with pytest.raises(ConfigError, match=r"expected an element of conv1\.weight, 4×2×3×3"):
        weight_paths(net, x, 1, "conv1.weight", (4, 0, 0, 0))
    with pytest.raises(ConfigError, match="expected a class below 3"):
        weight_paths(net, x, 3, "conv1.weight")
    with pytest.raises(ConfigError, match="expected a loss of one number, found"):
        weight_paths(net, x, lambda y: y, "conv1.weight")


# -- text -----------------------------------------------------------------------------------------


def test_the_text_of_a_perceptron() -> None:
    text = paths_text(weight_paths(xor(), torch.ones(1, 2), lambda y: (y - 1).square().sum(),
                                   "h.weight", (1, 0)))  # fmt: skip
    assert text.startswith("h.weight[1,0] = 1, loss = 1\n  ∂L/∂h.weight[1,0] = 4\n")
    assert "4  h.weight → h → relu → o → loss." in text
    assert "h: Σ_b δ[b,k] · input[b,i] = 4" in text
    assert "The weights among the factors: o.weight[0,1] = −2." in text


@pytest.mark.parametrize("weight", ["conv1.weight", "conv2.weight", "fc.bias"])
def test_the_text_of_a_small_net(weight: str) -> None:
    found = weight_paths(seeded(small_cnn), torch.randn(1, 2, 16, 16), 1, weight)
    text = paths_text(found)
    assert all(len(line) <= 98 for line in text.splitlines()), text
    for title in ("Paths", "The last link", "What the derivative depends on"):
        assert f"\n{title}" in text
    assert ("Written out" in text) == (formula(found) is not None)


def test_the_text_of_branches() -> None:
    found = weight_paths(seeded(lambda: Residual(2)), torch.randn(1, 1, 4, 4), 1, "first.weight")
    text = paths_text(found)
    assert "4 paths lead from the weight to the loss" in text
    assert "By layers with weights on them: 1 of 2, 2 of 3, 1 of 4." in text
    assert "first.weight → first → add → add#2 → mean → last → " in text
    assert "Where paths meet" in text
