"""Activations computed again: the same answers, gradients and averages, with less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from neocog.analysis.step import measure_step
from neocog.models.catalog import CATALOG, build, describe
from neocog.models.recompute import Recomputed, recomputed

DEEP = [name for name in CATALOG if name.startswith(("densenet", "efficientnet", "resnet"))]
ARGS: dict[str, dict] = {
    "densenet121": {"dropout": 0.2},
    "efficientnet_b0": {"drop_path": 0.5},
    "resnet18": {},
}


def block() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.Dropout(0.3),
        nn.Conv2d(8, 3, 1),
        nn.BatchNorm2d(3, momentum=None),
        nn.ReLU(),
    )


def step(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A training step's answer and the gradient at its input; those of the weights stay there."""
    x = x.clone().requires_grad_()
    torch.manual_seed(7)
    answer = net(x)
    answer.square().sum().backward()
    assert x.grad is not None
    return answer.detach(), x.grad


def same(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    for _ in range(2):  # the second step sees the averages of the first
        for found, expected in zip(step(other, x), step(one, x), strict=True):
            assert torch.equal(found, expected)
    for (path, left), right in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(left.grad, right.grad), path
    before, after = one.state_dict(), other.state_dict()
    assert list(before) == list(after)
    for path, value in before.items():
        assert torch.equal(value, after[path]), path


def kept(net: nn.Module, x: Tensor) -> int:
    """Bytes that autograd is given to keep, as its own hooks see them."""
    seen: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answer = net(x)
    del answer
    return sum(seen.values())


def test_a_step_is_the_same_bit_for_bit() -> None:
    """Dropout draws the same again; the averages of batch norm move once, also cumulative ones."""
    plain = nn.Sequential(block(), block())
    again = Recomputed(*copy.deepcopy(plain))
    x = torch.randn(4, 3, 6, 5)
    same(plain, again, x)
    assert again[0][1].num_batches_tracked == 2
    assert again[0][1].momentum == 0.1
    assert again[0][5].momentum is None
    assert not torch.equal(again[0][1].running_mean, torch.zeros(8))


def test_a_step_in_bfloat16_is_the_same() -> None:
    plain = nn.Sequential(block(), block())
    again = Recomputed(*copy.deepcopy(plain))
    with torch.autocast("cpu", torch.bfloat16):
        same(plain, again, torch.randn(4, 3, 6, 5))


def test_a_compiled_step_moves_the_averages_once_too() -> None:
    plain = nn.Sequential(block(), block())
    for part in plain.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0  # compiled, it draws other numbers
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1  # a cumulative one reads its count, which no graph can
    again = Recomputed(*copy.deepcopy(plain))
    torch._dynamo.reset()
    compiled = torch.compile(again, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3, 6, 5)
    for found, expected in zip(step(compiled, x), step(plain, x), strict=True):
        torch.testing.assert_close(found, expected)
    for (path, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=path, rtol=1e-4, atol=1e-5)
    for one, other in zip(plain.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_plain_checkpointing_would_move_the_averages_twice() -> None:
    """What the module is for: without it, this is what happens."""
    net = block()
    x = torch.randn(4, 3, 6, 5)
    answer = torch.utils.checkpoint.checkpoint(net, x.requires_grad_(), use_reentrant=False)
    answer.sum().backward()
    assert net[1].num_batches_tracked == 2


def test_in_use_and_without_gradients_nothing_is_computed_twice() -> None:
    net = block()
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, 4, 4)
    recomputed(net.eval(), x)
    with torch.no_grad():
        recomputed(net.train(), x)
    assert len(calls) == 2
    recomputed(net, x).sum().backward()
    assert len(calls) == 4


def test_an_error_on_the_way_leaves_the_norms_as_they_were() -> None:
    net = block()
    answer = recomputed(net, torch.randn(2, 3, 4, 4))

    def fail(*_: object) -> None:
        raise ValueError("no")

    handle = net[2].register_forward_hook(fail)
    with pytest.raises(ValueError, match="no"):
        answer.sum().backward()
    handle.remove()
    assert net[1].momentum == 0.1
    assert net[1].num_batches_tracked == 1
    assert "1.num_batches_tracked" in net.state_dict()


@pytest.mark.parametrize("name", DEEP)
def test_every_deep_family_has_the_keyword(name: str) -> None:
    found = {keyword.name: keyword for keyword in describe(name)}["checkpoint_blocks"]
    assert found.kind == "bool"
    assert found.default is False


@pytest.mark.parametrize("name", ARGS)
def test_networks_learn_the_same_with_less(name: str) -> None:
    nets = []
    for flag in (False, True):
        torch.manual_seed(0)
        args = {**ARGS[name], "checkpoint_blocks": flag}
        nets.append(build(name, channels=3, size=(9, 11), outputs=4, args=args).train())
    x = torch.randn(2, 3, 9, 11)
    same(*nets, x)
    assert kept(nets[1], x) < 0.35 * kept(nets[0], x)


@pytest.mark.parametrize("name", ARGS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_plan_knows(name: str, precision: str) -> None:
    found = []
    for flag in (False, True):
        with torch.device("meta"):
            args = {"checkpoint_blocks": flag}
            net = build(name, channels=3, size=(32, 32), outputs=4, args=args)
        found.append(measure_step(net, (32, 3, 32, 32), precision=precision))
    plain, again = found
    assert again.kept < 0.35 * plain.kept
    fixed = plain.weights + plain.gradients
    assert again.passes - fixed < 0.7 * (plain.passes - fixed)
    # Most of the forward pass runs once more, up to what each block needs last.
    assert 1.1 * plain.total_macs < again.total_macs < 4 / 3 * plain.total_macs
