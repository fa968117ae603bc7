"""What networks cost: parameters and multiply-accumulates against torch and published numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import small_nets
from neocog.analysis.field import fields
from neocog.analysis.summary import layers, node_macs, unknown
from neocog.analysis.trace import trace
from neocog.models import catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.analysis.graph import Graph


def total(graph: Graph) -> int:
    return sum(node_macs(graph, node) for node in graph.nodes)


def counted(module: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates by PyTorch's own counter, which counts two operations for each."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    given = [torch.empty(one, device=device) if isinstance(one, tuple) else one for one in inputs]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*given)
    return int(counter.get_total_flops()) // 2


def build(name: str, size: int = 224, channels: int = 3, **args: Any) -> nn.Module:
    with torch.device("meta"):
        return catalog.build(name, channels=channels, size=(size, size), outputs=1000, args=args)


# REFERENCE: parameters, and multiply-accumulates at 224×224 in thousands of millions.
PUBLISHED = {
    "alexnet": (61_100_840, 0.714),
    "vgg11": (132_863_336, 7.609),
    "vgg13": (133_047_848, 11.308),
    "vgg16": (138_357_544, 15.470),
    "vgg19": (143_667_240, 19.632),
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "efficientnet_b0": (5_288_548, 0.386),
    "efficientnet_b4": (19_341_616, 1.504),
    "efficientnet_b7": (66_347_960, 5.170),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    net = build(name)
    graph = trace(net, (1, 3, 224, 224))
    parameters, giga = PUBLISHED[name]
    assert graph.parameter_count == parameters
    assert total(graph) == counted(net, (1, 3, 224, 224))
    assert round(total(graph) / 1e9, 3) == pytest.approx(giga, abs=0.0011)
    assert unknown(graph) == ()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "densenet121", "convnext_tiny"])
def test_the_counter_of_torch_agrees(name: str) -> None:
    net = build(name)
    graph = trace(net, (2, 3, 224, 224))
    assert graph.parameter_count == sum(p.numel() for p in net.parameters())
    assert total(graph) == counted(net, (2, 3, 224, 224))
    assert unknown(graph) == ()


@pytest.mark.parametrize("name", small_nets.NETS)
def test_small_nets(name: str) -> None:
    make, shape = small_nets.NETS[name]
    net = make()
    graph = trace(net, shape)
    lines = layers(graph, fields(graph))
    assert unknown(graph) == ()
    if name != "transformer":  # its fused kernel is not in torch's table
        assert total(graph) == counted(net, shape)
    used = {n for node in graph.nodes for n in node.inputs if graph.values[n].kind == "parameter"}
    assert sum(line.macs for line in lines) == total(graph)
    assert sum(line.parameters for line in lines) == sum(
        graph.values[index].elements for index in used
    )


def test_a_lesson() -> None:
    """32 kernels 3×3, padding 1, on 3×64×64; 784 → 1000; 3×3 RGB → 10 without bias."""
    graph = trace(nn.Conv2d(3, 32, 3, padding=1), (1, 3, 64, 64))
    assert total(graph) == 3_538_944
    assert trace(nn.Linear(784, 1000), (1, 784)).parameter_count == 785_000
    assert trace(nn.Conv2d(3, 10, 3, bias=False), (1, 3, 8, 8)).parameter_count == 270


@settings(max_examples=60, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    wide=st.integers(1, 3),
    out=st.integers(1, 3),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
)
def test_convolutions_of_every_kind(
    groups: int,
    wide: int,
    out: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(
        groups * wide, groups * out, kernel, stride, padding, dilation=dilation, groups=groups
    )
    size = (2, groups * wide, 7, 9)
    try:
        expected = counted(layer, size)
    except RuntimeError:  # the kernel does not fit
        assume(False)
    assert total(trace(layer, size)) == expected


# -- by hand ---------------------------------------------------------------------------------------


class Calls(nn.Module):
    """A forward from a function."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *given: Tensor) -> Any:
        return self.run(self, *given)


def test_recurrent_layers_by_hand() -> None:
    """4 gates · hidden · (input + hidden) for each step and direction; 2 sequences of 5 steps."""
    lstm = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)
    first, second = 4 * 16 * (8 + 16), 4 * 16 * (2 * 16 + 16)
    assert total(trace(lstm, (2, 5, 8))) == 2 * 5 * 2 * (first + second)
    gru = nn.GRU(8, 16)
    assert total(trace(gru, (5, 2, 8))) == 2 * 5 * 3 * 16 * (8 + 16)


def test_attention_by_hand() -> None:
    """B·L words: 3E² for query, key, value, L·E for scores, L·E for values, E² for the answer."""
    net = Calls(lambda m, x: m.a(x, x, x), a=nn.MultiheadAttention(8, 2, batch_first=True))
    expected = 2 * 5 * (3 * 8 * 8 + 5 * 8 + 5 * 8 + 8 * 8)
    graph = trace(net, (2, 5, 8))
    assert total(graph) == expected
    assert unknown(graph) == ()
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
    assert total(trace(encoder, (2, 5, 8))) == 3 * (expected + 2 * 5 * 2 * 8 * 16)


def test_bilinear_by_hand() -> None:
    net = Calls(lambda m, x: m.b(x, x), b=nn.Bilinear(4, 4, 6))
    assert total(trace(net, (2, 4))) == 2 * 6 * (4 * 4 + 4)


def test_the_counter_of_torch_agrees_on_products() -> None:
    cases: list[tuple[Callable[..., Any], list[tuple[int, ...]]]] = [
        (lambda _, a, b: a @ b, [(3, 4, 5), (3, 5, 6)]),
        (lambda _, a, b: torch.einsum("bij,kj->bik", a, b), [(3, 4, 5), (6, 5)]),
        (lambda _, a, b, c: torch.addmm(a, b, c), [(4, 6), (4, 5), (5, 6)]),
        (lambda _, a, b, c: torch.baddbmm(a, b, c), [(2, 4, 6), (2, 4, 5), (2, 5, 6)]),
        (lambda _, a, b: F.scaled_dot_product_attention(a, b, b), [(2, 2, 5, 8), (2, 2, 7, 8)]),
    ]
    for run, shapes in cases:
        net = Calls(run)
        graph = trace(net, *shapes)
        assert unknown(graph) == ()
        assert total(graph) == counted(net, *[torch.empty(s, device="meta") for s in shapes])


def test_shared_modules_count_once_in_parameters_and_each_time_in_work() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    net = Calls(lambda m, x: m.b(m.a(m.a(x))), a=layer, b=layer)
    graph = trace(net, (1, 4, 8, 8))
    lines = layers(graph, fields(graph))
    assert graph.parameter_count == 4 * 4 * 9 + 4
    assert total(graph) == 3 * 64 * 4 * 4 * 9
    assert [line.name for line in lines] == ["a", "a#2", "a#3"]
    assert [line.parameters for line in lines] == [148, 0, 0]
    assert [line.shared for line in lines] == [0, 148, 148]
    assert graph.owners == {"a.weight": ("a", "b"), "a.bias": ("a", "b")}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_made_from_weights_belong_to_their_layer() -> None:
    parametrizations = torch.nn.utils.parametrizations
    for make in (parametrizations.weight_norm, torch.nn.utils.weight_norm):
        net = nn.Sequential(make(nn.Conv2d(3, 4, 3)), nn.ReLU())
        graph = trace(net, (1, 3, 8, 8))
        first, *_ = layers(graph, fields(graph))
        assert (first.name, first.kind) == ("0", "Conv2d")
        assert first.parameters == graph.parameter_count == 4 * 27 + 4 + 4
    spectral = parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    graph = trace(spectral, (1, 3, 8, 8))
    # Beside the convolution: σ = uᵀWv.
    assert total(graph) == 36 * 4 * 27 + 4 * 27 + 4
    assert sum(line.macs for line in layers(graph, fields(graph))) == total(graph)
    turned = Calls(lambda m, x: F.conv2d(x, m.c.weight.flip(2)), c=nn.Conv2d(3, 4, 3, bias=False))
    graph = trace(turned, (1, 3, 8, 8))
    assert sum(line.parameters for line in layers(graph, fields(graph))) == 4 * 27


def test_all_inputs_are_alive() -> None:
    """Decoders read two inputs; what hangs on the second alone has its line, too."""
    net = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    graph = trace(net, (2, 5, 8), (2, 7, 8))
    lines = layers(graph, fields(graph))
    assert sum(line.parameters for line in lines) == graph.parameter_count
    assert sum(line.macs for line in lines) == total(graph)
    assert any(line.name == "decoder.layers.0.self_attn" for line in lines)


def test_operations_without_a_known_cost_are_named() -> None:
    with torch.library._scoped_library("neocog_test", "DEF") as library:
        library.define("strange(Tensor x) -> Tensor")
        torch.library.register_fake(
            "neocog_test::strange", lambda x: torch.empty_like(x), lib=library
        )
        net = nn.Sequential(Calls(lambda _, x: torch.ops.neocog_test.strange(x)))
        (one,) = unknown(trace(net, (1, 3)))
    assert one.op == "neocog_test::strange"
    assert one.path == "0"
    assert one.source.startswith("test_work.py:")


def test_memory_that_moves() -> None:
    """An addition reads two tensors and writes one; views move nothing."""
    net = Calls(lambda _, x: (x + x.view(4, 6).view(1, 24)).relu(), none=nn.Identity())
    graph = trace(net, (1, 24))
    added, relu = layers(graph, fields(graph))
    assert (added.read, added.written) == (2 * 24 * 4, 24 * 4)
    assert (relu.read, relu.written) == (24 * 4, 24 * 4)
    assert math.isclose(added.intensity, 0)
