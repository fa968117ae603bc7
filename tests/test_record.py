"""The recorded pass: its operations are the graph's, its numbers what each operation read and made.

Independent of it: the network's own answer, hooks on the network, autograd.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import drawn_units
import small_nets
from neocog.analysis.recorder import TraceError
from neocog.analysis.trace import trace
from neocog.errors import ConfigError
from neocog.explain.recording import Recording, record

CATALOGUE = ("lenet5", "speednet", "densenet121", "unet_backbone")
# All of them are recorded by the tests of traces; here those that write, and a share of the others.
WRITING = {"written into", "stripes", "strips", "circular", "replicate", "shifted channels"}
SMALL = sorted({*list(small_nets.NETS)[::4], *WRITING, "transformer"} & set(small_nets.NETS))


def ops(graph: Any) -> list[str]:
    # A trace also notes reserves that nothing reads: batch norm asks for one.
    return [node.op for node in graph.nodes if node.op != "empty"]


def check(net: nn.Module, x: Tensor) -> Recording:
    """The answer is the network's, and every operation gives again what it gave."""
    found = record(net, x)
    with torch.no_grad():
        answer = net.eval()(x.clone())
    assert torch.allclose(found.output, answer, atol=1e-6, rtol=1e-6)
    for node in found.graph.nodes:
        if node.op == "new_empty":
            continue
        for value, again in zip(node.outputs, found.replay(node), strict=True):
            # Reserves that are filled later hold anything, also what is no number.
            assert torch.allclose(again, found.tensors[value], atol=0, rtol=0, equal_nan=True)
            assert tuple(again.shape) == found.graph.values[value].shape
    return found


@pytest.mark.parametrize("name", SMALL)
def test_small_nets(name: str) -> None:
    make, shape = small_nets.NETS[name]
    torch.manual_seed(0)
    net = make()
    found = check(net, torch.randn(shape))
    if name != "back to map":  # there the real tensor takes a product that the empty one does not
        assert ops(found.graph) == ops(trace(net, shape))


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue(name: str) -> None:
    net = drawn_units.network(name)
    x = drawn_units.picture(name, 1)
    found = check(net, x)
    assert ops(found.graph) == ops(trace(net, tuple(x.shape)))
    for layer, answer in drawn_units.said(net, x).items():
        assert torch.equal(found.tensors[found.layer(layer).outputs[0]], answer), layer


class Written(nn.Module):
    """A buffer of its own that is filled in part by part, and read in between."""

    def forward(self, x: Tensor) -> Tensor:
        table = torch.zeros(1, 2, 3)
        table[:, 0] = x
        first = table * 2
        table[:, 1].add_(x + 1)
        half = table[:, :1]
        table.mul_(3)
        return first.sum() + table.sum() + half.sum()


def test_numbers_are_those_before_they_are_written_over() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0]])
    found = record(Written(), x)
    assert float(found.output) == 2 * 7 + 3 * (7 + 10) + 3 * 7
    by_op = {node.op: node for node in found.graph.nodes}
    assert found.tensors[by_op["add_"].outputs[0]].tolist() == [[2.0, 3.0, 5.0]]
    (before, *_) = by_op["mul_"].inputs
    assert found.tensors[before].tolist() == [[[1, 2, 4], [2, 3, 5]]]
    (doubled, *_) = by_op["mul"].inputs
    assert found.tensors[doubled].tolist() == [[[1, 2, 4], [0, 0, 0]]]
    for node in found.graph.nodes:
        for value, again in zip(node.outputs, found.replay(node), strict=True):
            assert torch.equal(again, found.tensors[value]), node.op


class Counting(nn.Module):
    """A mask that grows from step to step, made of nothing that the network is given."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(3)
        for step in range(3):
            mask[step] = 1
            x = x * mask + 1
        return x


def test_constants_that_change_are_kept_as_they_were() -> None:
    found = record(Counting(), torch.ones(1, 3))
    masks = [
        found.tensors[node.inputs[1]].tolist() for node in found.graph.nodes if node.op == "mul"
    ]
    assert masks == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


class Shared(nn.Module):
    """One activation in place and one convolution, both run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        return self.act(self.conv(x) + x)


def test_layers_parameters_and_replay_under_autograd() -> None:
    torch.manual_seed(1)
    net, x = Shared(), torch.randn(1, 2, 5, 5)
    found = record(net, x)
    assert list(found.layers()) == ["", "conv", "act", "conv#2", "act#2"]
    first, second = (node for node in found.graph.nodes if node.op == "convolution")
    assert found.parameters(first) == found.parameters(second)
    assert set(found.parameters(first)) == {"conv.weight", "conv.bias"}
    weight = found.named["conv.weight"]
    leaf = found.tensors[weight].clone().requires_grad_(True)
    (again,) = found.replay(second, {weight: leaf})
    again.sum().backward()
    other = net.conv.weight.detach().clone().requires_grad_(True)
    middle = F.relu(net.conv(x)).detach()
    F.conv2d(middle, other, net.conv.bias, padding=1).sum().backward()
    assert leaf.grad is not None
    assert other.grad is not None
    assert torch.allclose(leaf.grad, other.grad, atol=1e-5)
    # In place: written into a copy, and differentiable.
    node = next(node for node in found.graph.nodes if node.op == "relu_")
    (before,) = node.inputs
    kept = found.tensors[before].clone()
    given = kept.clone().requires_grad_(True)
    (after,) = found.replay(node, {before: given})
    after.sum().backward()
    assert given.grad is not None
    assert torch.equal(given.grad, (kept > 0).float())
    assert torch.equal(found.tensors[before], kept)
    assert torch.equal(given.detach(), kept)


def test_the_module_is_untouched() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout())
    net[0].weight.requires_grad_(False)
    net.train()
    net[3].eval()
    seen: list[int] = []
    net[1].register_forward_hook(lambda *_: seen.append(1))
    x = torch.rand(1, 1, 6, 6)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules()]
    kept, state = x.clone(), torch.get_rng_state()
    record(net, x)
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in net.modules()] == [True, True, True, True, False]
    assert not net[0].weight.requires_grad
    assert net[1].weight.requires_grad
    assert all(one.grad is None for one in net.parameters())
    assert [
        len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules()
    ] == hooks
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_does_not_run_says_where() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    with pytest.raises(TraceError, match=r"0 .*does not run"):
        record(net, torch.zeros(1, 1, 5, 5))
    with pytest.raises(ConfigError, match="no layer called '1'"):
        record(net, torch.zeros(1, 3, 5, 5)).layer("1")
