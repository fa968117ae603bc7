"""Maps change when weights do, from the top layer down; what does not look at weights is caught."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attributed import NETS, built, pictures
from neocog.errors import ConfigError
from neocog.explain.why.methods import METHODS, explain_answer
from neocog.explain.why.sanity import randomised_weights, rank_correlation
from untouched import untouched


def edges(_: nn.Module, x: Tensor, __: object) -> Tensor:
    """A picture's gradients: sharp, and the same for every network."""
    return F.conv2d(x.mean(1, keepdim=True), torch.tensor([[[[-1.0, 0, 1]]]]), padding=(0, 1))


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A network that knows them, and some of them."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(data.target)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    optimiser = torch.optim.Adam(net.parameters(), 0.005)
    for step in range(60):
        part = torch.arange(step * 64, step * 64 + 64) % 1500
        optimiser.zero_grad()
        F.cross_entropy(net(x[part]), y[part]).backward()
        optimiser.step()
    return net.eval(), x[1500:1508], y[1500:1508]


@pytest.mark.parametrize(
    "method", ["input_gradient", "smooth_gradient", "integrated_gradients", "grad_cam", "occlusion"]
)
def test_maps_change_from_the_top_layer_down(
    digits: tuple[nn.Module, Tensor, Tensor], method: str
) -> None:
    net, x, target = digits
    with untouched(net, x):
        found = randomised_weights(
            net, x, target, lambda *asked: explain_answer(*asked, method).values
        )
    assert found.layers == ("6", "2", "0")
    assert found.similarity[0] < 0.9
    assert found.similarity[-1] < 0.75
    assert found.sensitive


def test_what_does_not_look_at_the_weights_is_caught(
    digits: tuple[nn.Module, Tensor, Tensor],
) -> None:
    found = randomised_weights(*digits, edges)
    assert found.similarity == pytest.approx((1, 1, 1))
    assert not found.sensitive


def test_guided_backprop_hardly_looks_at_the_top(
    digits: tuple[nn.Module, Tensor, Tensor],
) -> None:
    """As Adebayo et al. found: its maps stay, where those of the gradient do not."""
    asked = {
        method: randomised_weights(
            *digits, lambda *asked, method=method: explain_answer(*asked, method).values
        )
        for method in ("guided_backprop", "input_gradient")
    }
    assert asked["guided_backprop"].similarity[0] > asked["input_gradient"].similarity[0]


@pytest.mark.parametrize("name", NETS)
def test_layers_are_taken_by_when_they_ran(name: str) -> None:
    expected = {
        "plain": ("9", "7", "4", "1", "0"),
        "in place": ("9", "7", "4", "1", "0"),
        "twice": ("out", "again", "first"),
        "functional": ("out", "second", "first"),
        "dense": (
            "out",
            "last",
            *(f"{kind}.{i}" for i in (2, 1, 0) for kind in ("convs", "norms")),
        ),
    }
    net, x = built(name), pictures()
    told: list[tuple[int, int]] = []
    with untouched(net, x):
        found = randomised_weights(
            net,
            x,
            1,
            lambda *asked: explain_answer(*asked, "input_gradient").values,
            progress=lambda *at: told.append(at),
        )
    if name in expected:
        assert found.layers[: len(expected[name])] == expected[name]
    assert found.layers[0] == "out" or name in ("plain", "in place")
    assert told == [(i + 1, len(found.layers)) for i in range(len(found.layers))]


def test_a_layer_is_shuffled_and_nothing_below_it() -> None:
    net, x = built("plain"), pictures()
    seen: list[nn.Module] = []

    def spy(module: nn.Module, x: Tensor, _: object) -> Tensor:
        seen.append({k: v.clone() for k, v in module.state_dict().items()})  # type: ignore[arg-type]
        return x

    randomised_weights(net, x, 1, spy, steps=2, seed=4)
    before, half, all_ = seen  # type: ignore[misc]
    whole = net.state_dict()
    assert all(torch.equal(before[k], whole[k]) for k in whole)  # type: ignore[index]
    for name, tensor in whole.items():
        top = name.split(".")[0] in ("9", "7", "4")
        learnt = name.split(".")[1] in ("weight", "bias")
        assert torch.equal(half[name], tensor) == (not (top and learnt)), name  # type: ignore[index]
        assert torch.equal(all_[name], tensor) == (not learnt), name  # type: ignore[index]
        if learnt:
            shuffled = all_[name].flatten().sort().values  # type: ignore[index]
            assert torch.equal(shuffled, tensor.flatten().sort().values)


def test_rank_correlation_is_scipys() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        first, second = chance.integers(0, 8, (2, 30)).astype(float)
        expected = stats.spearmanr(first, second).statistic
        assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation(np.ones(3), np.arange(3.0)) == 0
    assert rank_correlation(np.ones(3), np.zeros(3)) == 1


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 0 layers"):
        randomised_weights(nn.Flatten(), pictures(), 0, edges)


def test_every_method_can_be_asked() -> None:
    assert set(METHODS) == {
        *("input_gradient", "smooth_gradient", "integrated_gradients", "guided_backprop"),
        *("grad_cam", "grad_cam_pp", "occlusion"),
    }
