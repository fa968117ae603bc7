"""Tracing: the module is not touched, and what cannot be followed is named with its place."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.analysis.field import fields
from neocog.analysis.recorder import TraceError
from neocog.analysis.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURE = (1, 3, 8, 8)
PLACE = re.compile(r"test_trace\.py:\d+")


class Calls(nn.Module):
    """A forward from a function."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *given: Tensor) -> Any:
        return self.run(self, *given)


class Snapshot:
    """All that a trace must leave as it was."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.state = copy.deepcopy(module.state_dict())
        self.now = self.look()

    def look(self) -> Any:
        module = self.module
        hooks = [
            (part.training, *(len(getattr(part, name)) for name in vars(part) if "hooks" in name))
            for part in module.modules()
        ]
        learnt = [
            (n, id(p), p.requires_grad, p._version, p.grad) for n, p in module.named_parameters()
        ]
        kept = [(n, id(b), b._version) for n, b in module.named_buffers()]
        return hooks, learnt, kept, torch.is_grad_enabled(), torch.get_rng_state().tolist()

    def check(self) -> None:
        assert self.look() == self.now
        after = self.module.state_dict()
        assert after.keys() == self.state.keys()
        assert all(torch.equal(after[name], one) for name, one in self.state.items())


def network() -> nn.Module:
    net = nn.Sequential(
        torch.nn.utils.weight_norm(nn.Conv2d(3, 4, 3)),
        torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)),
        nn.BatchNorm2d(4),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(64, 2),
    )
    net[2].eval()
    net[5].weight.requires_grad_(False)
    net[0].register_forward_hook(lambda *_: None)
    return net


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_module_comes_back_untouched() -> None:
    net = network()
    before = Snapshot(net)
    graph = trace(net, PICTURE)
    before.check()
    assert graph.parameter_count == sum(p.numel() for p in net.parameters())
    wrong = Snapshot(net)
    with pytest.raises(TraceError):
        trace(net, (1, 5, 8, 8))
    wrong.check()


# -- errors ----------------------------------------------------------------------------------------


def choose(_: nn.Module, x: Tensor) -> Tensor:
    return x if (x > 0).any() else -x


VALUES: dict[str, Callable[..., Any]] = {
    "item": lambda _, x: x * x.sum().item(),
    "if": choose,
    "int": lambda _, x: x[: int(x.sum())],
    "mask": lambda _, x: x[x > 0],
    "nonzero": lambda _, x: torch.nonzero(x),
    "masked_select": lambda _, x: x.masked_select(x > 0),
    "unique": lambda _, x: torch.unique(x),
}


@pytest.mark.parametrize("name", VALUES)
def test_questions_for_numbers_are_named(name: str) -> None:
    net = nn.Sequential(nn.Identity(), nn.Sequential(Calls(VALUES[name])))
    with pytest.raises(TraceError, match="asks for the numbers in a tensor") as caught:
        trace(net, PICTURE)
    assert caught.value.path == "1.0"
    assert PLACE.fullmatch(caught.value.source)
    assert caught.value.op
    assert caught.value.op in str(caught.value)


def test_an_operation_without_a_shape_is_named() -> None:
    with torch.library._scoped_library("neocog_test", "DEF") as library:
        library.define("blind(Tensor x) -> Tensor")
        library.impl("blind", lambda x: x.clone(), "CPU")
        net = nn.Sequential(Calls(lambda _, x: torch.ops.neocog_test.blind(x)))
        with pytest.raises(TraceError, match="neocog_test::blind") as caught:
            trace(net, PICTURE)
    assert caught.value.op == "neocog_test::blind"
    assert caught.value.path == "0"
    assert PLACE.fullmatch(caught.value.source)


def test_other_errors_say_where() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(5, 4, 3)))
    with pytest.raises(TraceError, match=r"1\.0 does not run") as caught:
        trace(net, PICTURE)
    assert caught.value.path == "1.0"
    with pytest.raises(TraceError, match="lazy module"):
        trace(nn.LazyConv2d(4, 3), PICTURE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_programs_of_jit_are_refused() -> None:
    compiled = torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(PICTURE))
    with pytest.raises(TraceError, match=r"torch\.jit") as caught:
        trace(nn.Sequential(compiled), PICTURE)
    assert caught.value.path == "0"


def test_a_module_that_cannot_be_copied() -> None:
    net = nn.Conv2d(3, 4, 3)
    net.log = (line for line in ["open"])  # type: ignore[assignment]
    with pytest.raises(TraceError, match="cannot be copied"):
        trace(net, PICTURE)


# -- modules of every kind -------------------------------------------------------------------------


class NonLeaf(nn.Module):
    """Keeps tensors that were computed from its weights, and plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.doubled = self.weight * 2
        self.place = torch.ones(1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.doubled) + self.place


def made_in_forward(m: nn.Module, x: Tensor) -> Tensor:
    whole = torch.zeros(len(x), 4, *x.shape[2:])
    whole[:, :3] = x
    whole[:, 3] += x.mean(1)
    return m.c(whole) * torch.arange(6).to(x)


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], tuple[int, ...]]] = {
    "lstm": (lambda: nn.LSTM(8, 16, 2, bidirectional=True), ((5, 2, 8),), (5, 2, 32)),
    "gru": (lambda: nn.GRU(8, 16, batch_first=True), ((2, 5, 8),), (2, 5, 16)),
    "lstm cell": (lambda: nn.LSTMCell(8, 16), ((2, 8),), (2, 16)),
    "bag": (lambda: nn.EmbeddingBag(10, 4), (torch.zeros(3, 5, dtype=torch.int64),), (3, 4)),
    "words": (
        lambda: nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)),
        (torch.zeros(3, 5, dtype=torch.int64),),
        (3, 5, 3),
    ),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1),
        ((2, 5, 8),),
        (2, 5, 8),
    ),
    "parallel": (lambda: nn.DataParallel(nn.Conv2d(3, 4, 3)), (PICTURE,), (1, 4, 6, 6)),
    "compiled": (lambda: torch.compile(nn.Conv2d(3, 4, 3)), (PICTURE,), (1, 4, 6, 6)),
    "not a leaf": (NonLeaf, (PICTURE,), (1, 4, 6, 6)),
    "made in forward": (
        lambda: Calls(made_in_forward, c=nn.Conv2d(4, 2, 3)),
        (PICTURE,),
        (1, 2, 6, 6),
    ),
    "half": (
        lambda: nn.Conv2d(3, 4, 3).half(),
        (torch.zeros(PICTURE, dtype=torch.half),),
        (1, 4, 6, 6),
    ),
    "dictionary": (
        lambda: Calls(lambda m, x: {"a": m.c(x), "b": [x]}, c=nn.Conv2d(3, 4, 3)),
        (PICTURE,),
        (1, 4, 6, 6),
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", KINDS)
def test_modules_of_every_kind(name: str) -> None:
    make, inputs, shape = KINDS[name]
    net = make()
    before = Snapshot(net) if name != "not a leaf" else None
    graph = trace(net, *inputs)
    assert graph.values[graph.outputs[0]].shape == shape
    assert graph.parameter_count == sum(p.numel() for p in net.parameters())
    if before:
        before.check()


def test_shapes_are_those_of_a_real_run() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ConvTranspose2d(4, 2, 4, 3), nn.AdaptiveAvgPool2d(5)
    )
    graph = trace(net, (2, 3, 17, 19))
    x = torch.zeros(2, 3, 17, 19)
    for call, layer in zip(graph.calls[1:], net, strict=True):
        x = layer(x)
        assert graph.values[call.outputs[0]].shape == tuple(x.shape)
        assert graph.values[call.outputs[0]].strides == x.stride()


def test_calls_know_their_place() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    net = Calls(lambda m, x: m.b(m.a(x)), a=inner, b=inner)
    graph = trace(net, PICTURE)
    found = [(call.path, call.repeat, call.parent, call.leaf) for call in graph.calls]
    assert found == [
        ("", 0, -1, False),
        ("a", 0, 0, False),
        ("a.0", 0, 1, True),
        ("a.1", 0, 1, True),
        ("a", 1, 0, False),
        ("a.0", 1, 4, True),
        ("a.1", 1, 4, True),
    ]
    assert [node.op for node in graph.nodes] == ["convolution", "relu"] * 2


# -- writing in place ------------------------------------------------------------------------------


def test_a_tensor_that_gets_another_storage() -> None:
    def run(_: nn.Module, x: Tensor) -> Tensor:
        kept = x + 1
        answer = kept * 2
        kept.set_()
        return answer + torch.empty_like(x).copy_(x)

    graph = trace(Calls(run), PICTURE)
    assert graph.values[graph.outputs[0]].shape == PICTURE
    assert fields(graph).unit(graph.outputs[0], (3, 4)) == ((3, 3), (4, 4))


def test_no_write_is_lost() -> None:
    """Three views are made, then written to, then the whole is read: three `written` nodes."""

    def run(_: nn.Module, x: Tensor) -> Tensor:
        whole = x.new_zeros(1, 9, 8, 8)
        parts = [whole[:, i : i + 3] for i in (0, 3, 6)]
        for part in parts:
            part.copy_(x)
        return whole.relu()

    graph = trace(Calls(run), PICTURE)
    (relu,) = (node for node in graph.nodes if node.op == "relu")
    made = graph.producers()
    value, found = relu.inputs[0], 0
    while value in made and graph.nodes[made[value]].op == "written":
        found += 1
        value = graph.nodes[made[value]].inputs[0]
    assert found == 3


def test_a_real_tensor_is_followed_once_something_was_written_into_it() -> None:
    """`torch.zeros` in a forward is real until the network's numbers arrive."""

    def run(_: nn.Module, x: Tensor) -> Tensor:
        whole = torch.zeros(1, 6, 8, 8)
        whole[:, ::2] = x
        return whole[:, :1] * 2

    graph = trace(Calls(run), PICTURE)
    assert fields(graph).unit(graph.outputs[0], (3, 4)) == ((3, 3), (4, 4))
