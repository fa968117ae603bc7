"""LeNet-5 as it was wired in 1998: published counts, and a forward pass in NumPy by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from neocog.errors import ConfigError
from neocog.models.catalog import build
from neocog.models.lenet import TABLE, TableConv2d
from neocog.verbs.plan import plan, recipe_for

# Table I of the paper, row by row: an X where the map of S2 is seen by the map of C3.
PUBLISHED = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)


def lenet(size: tuple[int, int] = (32, 32), outputs: int = 10, **args: object) -> nn.Module:
    torch.manual_seed(0)
    return build(
        "lenet5", channels=1, size=size, outputs=outputs, args={"wiring": 1998, **args}
    ).eval()


def correlated(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """H×W with one kernel, nothing assumed around it."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape)
    return (windows * weight).sum((2, 3))


def squashed(x: np.ndarray) -> np.ndarray:
    return 1.7159 * np.tanh(2 / 3 * x)


def subsampled(x: np.ndarray, coefficient: np.ndarray, bias: np.ndarray) -> np.ndarray:
    total = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    return squashed(coefficient * total + bias)


def test_c3_is_wired_as_in_the_paper() -> None:
    for source, row in enumerate(PUBLISHED):
        assert [source in inputs for inputs in TABLE] == [mark == "X" for mark in row]
    assert sum(map(len, TABLE)) == 60


def test_layers_have_the_published_numbers_of_parameters() -> None:
    net = lenet()
    counts = {
        name: sum(p.numel() for p in net.get_submodule(name).parameters())
        for name in ("conv1", "pool2", "conv3", "head.pool4", "head.conv5", "head.linear6")
    }
    assert list(counts.values()) == [156, 12, 1_516, 32, 48_120, 10_164]
    assert sum(counts.values()) == 60_000
    assert sum(p.numel() for p in net.parameters()) == 60_000 + 850


def test_the_plan_shows_them() -> None:
    recipe = recipe_for("lenet5", ("model_args.wiring=1998",), device="cpu", precision=None)
    made = plan("lenet5", recipe=recipe, time=False)
    rows = {layer["name"]: layer for layer in made.json["layers"]}
    learnt = {name: row["parameters"] for name, row in rows.items() if row["parameters"]}
    assert learnt == {
        "conv1": 156,
        "pool2.sum": 12,
        "conv3": 1_516,
        "head.pool4.sum": 32,
        "head.conv5": 48_120,
        "head.linear6": 10_164,
        "head.output": 850,
    }
    macs = {name: row["macs"] for name, row in rows.items() if row["macs"]}
    # Connections of the paper without those of the biases: 28² maps of 5², 60 kernels of 5² at 10².
    assert macs["conv1"] == 28 * 28 * 6 * 25
    assert macs["conv3"] == 10 * 10 * 60 * 25
    assert macs["head.conv5"] == 120 * 16 * 25
    assert made.json["unknown"] == []
    assert rows["conv3"]["receptive_field"] == [14, 14]
    assert rows["head.conv5"]["receptive_field"] == [32, 32]
    assert re.search(r"conv3 +TableConv2d +16×10×10 +1,516", str(made))


def test_the_forward_pass_is_the_paper_s() -> None:
    net = lenet()
    chance = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=chance)
    net.double()
    image = torch.randn(2, 1, 32, 32, generator=chance, dtype=torch.float64)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    runs = [weight for run in (1, 2, 3) for weight in state[f"conv3.weight{run}"]]
    with torch.no_grad():
        found = net(image).numpy()
        first, second = (level.numpy() for level in net.forward_features(image))
    for place, picture in enumerate(image.numpy()):
        c1 = [correlated(picture[0], one[0]) for one in state["conv1.weight"]]
        maps = squashed(np.stack(c1) + state["conv1.bias"][:, None, None])
        np.testing.assert_allclose(first[place], maps, atol=1e-12)
        maps = subsampled(maps, state["pool2.sum.coefficient"], state["pool2.sum.bias"])
        c3 = []
        for number, row in enumerate(zip(*PUBLISHED, strict=True)):
            sources = TABLE[number]
            assert set(sources) == {at for at, mark in enumerate(row) if mark == "X"}
            parts = [
                correlated(maps[source], weight)
                for source, weight in zip(sources, runs[number], strict=True)
            ]
            c3.append(sum(parts) + state["conv3.bias"][number])
        maps = squashed(np.stack(c3))
        np.testing.assert_allclose(second[place], maps, atol=1e-12)
        maps = subsampled(maps, state["head.pool4.sum.coefficient"], state["head.pool4.sum.bias"])
        vector = squashed(
            state["head.conv5.weight"].reshape(120, -1) @ maps.ravel() + state["head.conv5.bias"]
        )
        vector = squashed(state["head.linear6.weight"] @ vector + state["head.linear6.bias"])
        answer = state["head.output.weight"] @ vector + state["head.output.bias"]
        np.testing.assert_allclose(found[place], answer, atol=1e-11)


def test_a_table_is_a_dense_convolution_with_holes() -> None:
    torch.manual_seed(0)
    layer = TableConv2d(TABLE, 3)
    for weight in layer.weights():
        nn.init.normal_(weight)
    nn.init.normal_(layer.bias)
    kernels = [kernel for weight in layer.weights() for kernel in weight]
    dense = torch.zeros(16, 6, 3, 3)
    for out, (inputs, kernel) in enumerate(zip(TABLE, kernels, strict=True)):
        dense[out, list(inputs)] = kernel
    x = torch.randn(2, 6, 7, 8)
    expected = torch.nn.functional.conv2d(x, dense, layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_squashing_keeps_one_and_sub_sampling_begins_as_the_mean() -> None:
    net = lenet()
    ones = torch.tensor([-1.0, 0, 1])
    torch.testing.assert_close(net.act1(ones), ones, atol=1e-4, rtol=0)
    x = torch.rand(2, 6, 8, 9)
    torch.testing.assert_close(net.pool2.sum(x), nn.functional.avg_pool2d(x, 2))


def test_first_weights_are_uniform_within_the_paper_s_bounds() -> None:
    net = lenet()
    for weight, fan_in in (
        (net.conv1.weight, 25),
        *(
            (weight, 25 * inputs)
            for weight, inputs in zip(net.conv3.weights(), (3, 4, 6), strict=True)
        ),
        (net.head.linear6.weight, 120),
    ):
        bound = 2.4 / fan_in
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.8 * bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)


def test_other_activations_sizes_and_what_does_not_go_together() -> None:
    kinds = {type(m).__name__ for m in lenet(activation="relu").modules()}
    assert "ReLU" in kinds
    assert "ScaledTanh" not in kinds
    for size in ((28, 28), (28, 45), (64, 33)):
        assert lenet(size)(torch.zeros(1, 1, *size)).shape == (1, 10)
    with pytest.raises(ConfigError, match="leave pool out"):
        lenet(pool="max")
    with pytest.raises(ConfigError, match="wiring takes one of full, 1998"):
        lenet(wiring=1989)


def test_the_usual_wiring_stays_as_it_was() -> None:
    torch.manual_seed(0)
    net = build("lenet5", channels=1, size=(32, 32), outputs=10, args={})
    assert sum(p.numel() for p in net.parameters()) == 61_706
    assert [name for name, _ in net.named_parameters()] == [
        f"{layer}.{kind}"
        for layer in ("conv1", "conv3", "head.conv5", "head.linear6", "head.output")
        for kind in ("weight", "bias")
    ]
