"""First weights by name, against what their papers say of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from neocog.errors import ConfigError
from neocog.models.blocks import initialise
from neocog.models.catalog import build


def layer(
    init: str, activation: str = "relu", shape: tuple[int, ...] = (96, 64, 3, 3)
) -> nn.Module:
    torch.manual_seed(0)
    out, into, *kernel = shape
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    made = (
        kinds[len(kernel)](into, out, tuple(kernel), padding=kernel[0] // 2)
        if kernel
        else nn.Linear(into, out)
    )
    initialise(made, activation, init)  # type: ignore[arg-type]
    assert not made.bias.any()
    return made


@pytest.mark.parametrize("shape", [(96, 64, 3, 3), (300, 200), (80, 70, 5), (40, 30, 3, 3, 3)])
def test_he_and_glorot_have_their_variance(shape: tuple[int, ...]) -> None:
    out, into, *kernel = shape
    area = math.prod(kernel)
    weight = layer("he", shape=shape).weight
    assert weight.var().item() == pytest.approx(2 / (into * area), rel=0.05)
    weight = layer("glorot", shape=shape).weight
    assert weight.var().item() == pytest.approx(2 / ((into + out) * area), rel=0.05)
    bound = math.sqrt(6 / ((into + out) * area))  # formula 16 of the paper
    assert 0.99 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(("activation", "gain"), [("relu", math.sqrt(2)), ("tanh", 5 / 3)])
def test_orthogonal_kernels_stretch_every_direction_alike(activation: str, gain: float) -> None:
    for shape in ((96, 64, 3, 3), (64, 96), (96, 64), (32, 8, 2, 2)):
        weight = layer("orthogonal", activation, shape).weight.detach().flatten(1)
        stretched = torch.linalg.svdvals(weight.double())
        torch.testing.assert_close(stretched, torch.full_like(stretched, gain), atol=1e-5, rtol=0)


def test_the_identity_hands_its_input_on() -> None:
    x = torch.rand(2, 5, 7, 6)
    torch.testing.assert_close(layer("identity", shape=(5, 5, 3, 3))(x), x)
    wider = layer("identity", shape=(96, 5, 3, 3))
    torch.testing.assert_close(wider(x)[:, :5], x)
    rest = wider.weight[5:]
    assert rest.var().item() == pytest.approx(2 / 45, rel=0.1)  # as he
    narrower = layer("identity", shape=(3, 5, 3, 3))
    torch.testing.assert_close(narrower(x), x[:, :3])
    volume = torch.rand(2, 4, 3, 3, 3)
    torch.testing.assert_close(layer("identity", shape=(4, 4, 3, 3, 3))(volume), volume)
    assert torch.equal(layer("identity", shape=(6, 6)).weight, torch.eye(6))
    assert torch.equal(layer("identity", shape=(6, 7)).weight, layer("he", shape=(6, 7)).weight)


def test_networks_take_the_name() -> None:
    def weights(name: str, **args: object) -> torch.Tensor:
        torch.manual_seed(0)
        net = build(name, channels=3, size=(8, 8), outputs=4, args={"width": 8, **args})
        kinds = (nn.Conv2d, nn.Linear)
        layers = [part for part in net.modules() if isinstance(part, kinds)]
        return layers[1].weight.detach().flatten(1)

    for name in ("cnn", "mlp"):
        assert torch.equal(weights(name), weights(name, init="he"))
        found = weights(name, init="orthogonal")
        torch.testing.assert_close(found @ found.T, 2 * torch.eye(8), atol=1e-5, rtol=0)
        found = weights(name, init="identity")
        middle = found if name == "mlp" else found.view(8, 8, 3, 3)[:, :, 1, 1]
        assert torch.equal(middle, torch.eye(8))
        assert not torch.equal(weights(name, init="glorot"), weights(name))
        with pytest.raises(ConfigError, match="did you mean 'glorot'"):
            weights(name, init="gorot")
        with torch.device("meta"):
            for init in ("he", "glorot", "orthogonal", "identity"):
                assert weights(name, init=init).is_meta
    with pytest.raises(ConfigError, match="did you mean 'orthogonal'"):
        layer("ortogonal")
