"""A network as a block of a page: what the block says is run again by torch.nn.functional."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import drawn_units
import small_nets
from neocog import html
from neocog.analysis.normal import normal
from neocog.errors import ConfigError
from neocog.explain.recording import record
from neocog.explain.unit.telling import told
from neocog.explain.unit.trace import Arithmetic
from neocog.html.tracer import TracedLayer, Tracer
from neocog.verbs.tracer import traced

PICTURE = html.data_uri(np.zeros((2, 2), np.uint8))
NETS: dict[str, dict[str, Any]] = {
    "cnn": {"width": 8},
    "convnext_tiny": {},
    "densenet121": {},
    "efficientnet_b0": {},
    "googlenet": {},
    "highway": {"width": 8},
    "lenet5": {},
    "mlp": {},
    "unet": {"width": 8},
}
# How many operations are only shown with their numbers: what lies channels last, 1 − x, cuts.
OTHERS = {"convnext_tiny": 101, "highway": 9, "unet": 8}


def block(net: nn.Module, x: Tensor, budget: int = 1 << 30) -> Tracer:
    return traced(record(net, x), picture=PICTURE, alt="noise", budget=budget)


def tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(np.array(array)).double()


def again(layer: TracedLayer, given: list[Tensor]) -> Tensor | None:
    """What a layer answers, by what the block says of it; None for `other`."""
    weights, bias = tensor(layer.weights), tensor(layer.bias)
    x = given[0][None] if given else torch.empty(0)
    shape: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding}
    if layer.kind == "convolution":
        return F.conv2d(x, weights, bias, **shape, dilation=layer.dilation, groups=layer.groups)[0]
    if layer.kind == "transposed":
        more = {"dilation": layer.dilation, "groups": layer.groups}
        plain = F.conv_transpose2d(x, weights, bias, **shape, **more)[0]
        beyond = [have - size for have, size in zip(layer.shape[1:], plain.shape[1:], strict=True)]
        return F.conv_transpose2d(x, weights, bias, **shape, **more, output_padding=beyond)[0]
    if layer.kind == "linear":
        return F.linear(x.flatten(), weights, bias)[:, None, None]
    if layer.kind == "norm":
        mean, deviation = tensor(layer.mean), tensor(layer.deviation)
        scale, shift = tensor(layer.scale), tensor(layer.shift)
        assert mean is not None
        found = (given[0] - mean) / deviation
        return found * (1 if scale is None else scale) + (0 if shift is None else shift)
    if layer.kind == "max_pool" and layer.adaptive:
        return F.adaptive_max_pool2d(x, layer.shape[1:])[0]
    if layer.kind == "avg_pool" and layer.adaptive:
        return F.adaptive_avg_pool2d(x, layer.shape[1:])[0]
    if layer.kind in ("max_pool", "avg_pool"):
        pool: Any = F.max_pool2d if layer.kind == "max_pool" else F.avg_pool2d
        more = {"dilation": layer.dilation} if layer.kind == "max_pool" else {}
        more |= {} if layer.kind == "max_pool" else {"count_include_pad": layer.count_padding}
        for ceil in (False, True):
            found = pool(x, layer.kernel, **shape, **more, ceil_mode=ceil)[0]
            if found.shape == layer.shape:
                return found
    if layer.kind == "pointwise":
        slope = tensor(layer.slope)
        known = {
            "leaky_relu": lambda x: torch.where(x >= 0, x, x * slope[:, None, None]),
            "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
            "hardsigmoid": F.hardsigmoid,
            "square": torch.square,
        }
        function = known.get(layer.function) or getattr(F, layer.function, None)
        function = function or getattr(torch, layer.function, None)
        return None if function is None else function(given[0])
    several = {
        "softmax": lambda: given[0].softmax(0),
        "add": lambda: given[0] + given[1],
        "multiply": lambda: given[0] * given[1],
        "concat": lambda: torch.cat(given),
        "reshape": lambda: given[0].reshape(layer.shape),
    }
    return several[layer.kind]() if layer.kind in several else None


def ran(tracer: Tracer) -> tuple[list[Tensor], int]:
    """Every layer's answer, and how many could only be read."""
    answers: list[Tensor] = []
    read_only = 0
    picture = torch.from_numpy(tracer.values).double()
    for layer in tracer.layers:
        given = [picture if one < 0 else answers[one] for one in layer.inputs]
        found, stored = again(layer, given), tensor(layer.values)
        read_only += found is None
        assert found is not None or stored is not None, layer.name
        if found is not None and stored is not None:
            assert found.shape == stored.shape == layer.shape, layer.name
            scale = max(1.0, float(stored.abs().max()))
            assert float((found - stored).abs().max()) <= 1e-4 * scale, layer.name
        answers.append(found if stored is None else stored)
    return answers, read_only


@pytest.mark.parametrize("name", NETS)
def test_the_block_computes_what_the_network_does(name: str) -> None:
    net, x = drawn_units.network(name, **NETS[name]), drawn_units.picture(name, 1)
    answers, read_only = ran(block(net, x))
    with torch.no_grad():
        answer = net(x)
    assert torch.allclose(answers[-1].flatten().float(), answer.flatten(), atol=1e-4)
    assert read_only == OTHERS.get(name, 0)


@pytest.mark.parametrize("name", [one for one in small_nets.NETS if not one.startswith("3D")])
def test_small_nets_too(name: str) -> None:
    make, shape = small_nets.NETS[name]
    net, x = make().eval(), torch.from_numpy(normal(shape, 1))
    if shape[0] != 1:
        with pytest.raises(ConfigError, match="one picture"):
            block(net, x)
        return
    answers, _ = ran(block(net, x))
    with torch.no_grad():
        answer = net(x)
    assert torch.allclose(answers[-1].flatten().float(), answer.flatten(), atol=1e-4)


def test_settings_of_functions_and_norms() -> None:
    layers = [nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.3), nn.GroupNorm(2, 4), nn.ELU(0.7), nn.PReLU(4)]
    layers += [nn.InstanceNorm2d(4), nn.ReLU6(), nn.GELU("tanh"), nn.Flatten(), nn.LayerNorm(64)]
    net = nn.Sequential(*layers, nn.Linear(64, 5), nn.Softmax(1)).eval()
    tracer = block(net, torch.from_numpy(normal((1, 2, 6, 6), 2)))
    kinds = [(one.kind, one.function) for one in tracer.layers]
    for one in ("leaky_relu", "relu6", "gelu_tanh", "elu"):
        assert ("pointwise", one) in kinds
    assert [kind for kind, _ in kinds].count("norm") == 3
    assert tracer.layers[-1].kind == "softmax"
    _, read_only = ran_with_elu(tracer)
    assert read_only == 1  # elu's setting is not one of torch.nn.functional's defaults


def ran_with_elu(tracer: Tracer) -> tuple[list[Tensor], int]:
    """Elu is checked by hand: its slope is a setting."""
    at = next(n for n, one in enumerate(tracer.layers) if one.function == "elu")
    layer, source = tracer.layers[at], tracer.layers[tracer.layers[at].inputs[0]]
    assert source.values is not None
    expected = np.where(source.values >= 0, source.values, 0.7 * np.expm1(source.values))
    assert layer.values == pytest.approx(expected, abs=1e-6)
    layers = list(tracer.layers)
    layers[at] = TracedLayer(
        name=layer.name, kind="other", shape=layer.shape, values=layer.values, inputs=layer.inputs
    )
    rest = Tracer(picture=PICTURE, alt="", values=tracer.values, layers=tuple(layers))
    return ran(rest)


def test_fields_start_and_budget() -> None:
    net, x = drawn_units.network("lenet5"), drawn_units.picture("lenet5", 1)
    arithmetic = Arithmetic(record(net, x))
    start = arithmetic.unit("conv3", 2, (3, 4))
    names = [f"digit {one}" for one in range(10)]
    tracer = traced(
        arithmetic.recording,
        picture=PICTURE,
        alt="a digit",
        budget=100_000,
        labels=names,
        channels=("grey",),
        start=start,
    )
    assert tracer.start is not None
    at, *unit = tracer.start
    layer = tracer.layers[at]
    assert (layer.name, unit) == ("conv3", [2, 3, 4])
    assert layer.values is not None
    assert float(layer.values[tuple(unit)]) == start.value
    assert tracer.text == told(start)
    assert tracer.labels == tuple(names)
    field = layer.field
    assert field is not None
    assert start.field is not None
    for axis, (low, high) in enumerate(start.field):
        first = field.first[axis] + field.jump[axis] * unit[1 + axis]
        assert (first, first + field.size[axis] - 1) == (low, high)
    spent = sum(one.size for one in tracer.layers)
    assert spent <= 100_000 < sum(one.size for one in block(net, x).layers)
    text = html.render(html.Page(title="", sections=(html.Section(title="", blocks=(tracer,)),)))
    assert len(text) < 600_000
    assert math.prod(tracer.layers[-1].shape) == 10


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ConfigError, match="computed from the picture"):
        block(nn.Identity(), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ConfigError, match="one picture"):
        block(nn.Conv3d(1, 1, 2), torch.zeros(1, 1, 4, 4, 4))
