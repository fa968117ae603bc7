"""What goes into the output layer, and where it lies in the plane."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from neocog import plots
from neocog.errors import ConfigError, DataError, NeocogError
from neocog.explain.look.embedding import MOST, features, principal, sampled, tsne
from neocog.models import catalog
from neocog.plots.embedding import embedding


def batches(x: Tensor, size: int = 4) -> list[Any]:
    return list(zip(torch.arange(len(x)).split(size), x.split(size), strict=True))


class Functional(nn.Module):
    """The output layer is a line of code, and in-place operations come before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.conv = nn.Conv2d(3, 6, 3)
        self.weight = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu_(self.conv(x)).mean((2, 3))
        answer = F.linear(h, self.weight)
        h.mul_(0)
        self.unused(x[:, :, 0, 0])  # runs last, and has no say
        return answer.log_softmax(1)


def test_features_are_the_last_layers_input() -> None:
    torch.manual_seed(0)
    net = Functional()
    before = {name: one.clone() for name, one in net.state_dict().items()}
    x = torch.randn(10, 3, 8, 8)
    told: list[tuple[int, int]] = []
    found = features(net, batches(x), pictures=10, progress=lambda *now: told.append(now))
    expected = F.relu(net.conv(x)).mean((2, 3)).detach().numpy()
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.ids.tolist() == list(range(10))
    assert found.layer == ""
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert net.training
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "fc"), ("densenet121", "classifier"), ("googlenet", "fc"), ("lenet5", "output")],
)
def test_features_of_the_catalogue(name: str, layer: str) -> None:
    size = catalog.sample(name)
    size = size if name == "lenet5" else (3, 64, 64)
    torch.manual_seed(0)
    net = catalog.build(name, channels=size[0], size=size[1:], outputs=4, args={}).eval()
    linear = [path for path, one in net.named_modules() if isinstance(one, nn.Linear)]
    seen: list[Tensor] = []
    part = net.get_submodule(linear[-1])
    handle = part.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    x = torch.randn(2, *size)
    net(x)
    handle.remove()
    found = features(net, batches(x))
    assert found.layer == linear[-1]
    assert layer in (found.layer, found.layer.split(".")[-1], "output")
    np.testing.assert_allclose(found.values, seen[0].numpy(), atol=1e-5)


def test_maps_before_a_convolution_are_averaged() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1))
    x = torch.randn(3, 3, 6, 6)
    found = features(net, batches(x))
    assert found.layer == "2"
    expected = net[1](net[0](x)).mean((2, 3)).detach().numpy()
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


def test_a_fixed_filter_is_no_output_layer() -> None:
    class Smoothed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.register_buffer("kernel", torch.ones(2, 1, 3, 3) / 9)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.conv(x), self.kernel, groups=2).mean((2, 3))

    x = torch.randn(3, 3, 6, 6)
    found = features(Smoothed(), batches(x))
    assert found.layer == "conv"
    np.testing.assert_allclose(found.values, x.mean((2, 3)).numpy(), atol=1e-6)


def test_a_named_layers_input() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(3, 3, 2, 2)
    found = features(net, batches(x), layer="1")
    np.testing.assert_allclose(found.values, x.flatten(1).numpy())
    with pytest.raises(ConfigError, match="no module is called '9'"):
        features(net, batches(x), layer="9")


def test_what_has_no_features_is_refused() -> None:
    x = torch.randn(3, 3, 4, 4)
    with pytest.raises(DataError, match="found none"):
        features(nn.Flatten(), [])
    with pytest.raises(ConfigError, match="no weights stand between"):
        features(nn.Flatten(), batches(x))
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(NeocogError, match="not finite"):
        features(net, batches(x * torch.inf))
    with pytest.raises(DataError, match="expected 3 ids"):
        features(net, [([0, 1], x)])
    with pytest.raises(NeocogError, match="one row of features"):
        features(nn.Sequential(nn.Flatten(0, 2), nn.Linear(4, 2)), batches(x))


# -- principal components -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50, 8), (12, 40), (9, 9), (30, 12)])
def test_principal_components_against_scikit_learn(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1]))).astype(np.float32)
    kept = values.copy()
    k = 5
    other = PCA(k, svd_solver="full").fit(values.astype(np.float64))
    found = principal(values, k)
    np.testing.assert_allclose(found.explained, other.explained_variance_ratio_, rtol=1e-9)
    signs = np.sign((found.components * other.components_).sum(1))
    np.testing.assert_allclose(found.components, signs[:, None] * other.components_, atol=1e-8)
    places = other.transform(values.astype(np.float64)) * signs
    np.testing.assert_allclose(found.places, places, atol=1e-6)
    largest = np.abs(found.components).argmax(1)
    assert (found.components[np.arange(k), largest] > 0).all()
    np.testing.assert_array_equal(values, kept)


def test_points_of_few_directions() -> None:
    line = np.outer(np.arange(6.0), [3.0, 4.0])
    found = principal(line, 3)
    np.testing.assert_allclose(found.explained, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.places[:, 0], 5 * (np.arange(6) - 2.5))
    np.testing.assert_allclose(found.places[:, 1:], 0, atol=1e-9)
    assert not principal(np.ones((4, 3))).places.any()
    for wrong in (np.zeros((1, 3)), np.zeros(4), np.full((3, 3), np.nan)):
        with pytest.raises(ConfigError):
            principal(wrong)


# -- t-SNE ----------------------------------------------------------------------------------------


def test_tsne_keeps_groups_together() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(3), 30)
    values = rng.normal(size=(90, 60)) + 12 * np.eye(60)[kinds]
    places = tsne(values, seed=1)
    assert places.shape == (90, 2)
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(far, np.inf)
    assert (kinds[far.argmin(1)] == kinds).all()
    np.testing.assert_array_equal(places, tsne(values, seed=1))


def test_tsne_of_few_and_of_equal_points() -> None:
    assert tsne(np.random.default_rng(0).normal(size=(5, 1))).shape == (5, 2)
    assert tsne(np.random.default_rng(0).normal(size=(6, 3))).shape == (6, 2)
    assert not tsne(np.ones((7, 4))).any()
    with pytest.raises(ConfigError, match="at least 5"):
        tsne(np.zeros((4, 2)))
    with pytest.raises(ConfigError, match=f"at most {MOST}"):
        tsne(np.zeros((MOST + 1, 2)))


def test_a_sample_is_drawn_evenly_and_in_order() -> None:
    assert sampled(5, 9).tolist() == [0, 1, 2, 3, 4]
    drawn = sampled(1000, 100, seed=3)
    assert len(set(drawn.tolist())) == 100
    assert drawn.tolist() == sorted(drawn.tolist())
    assert (drawn != sampled(1000, 100, seed=4)).any()
    hits = np.zeros(40)
    for seed in range(400):
        hits[sampled(40, 10, seed)] += 1
    # 100 ± 5 standard deviations of a share of 1/4 in 400 draws.
    assert np.abs(hits - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


# -- the figure -----------------------------------------------------------------------------------


def test_a_figure_with_a_legend_or_with_names_alone() -> None:
    rng = np.random.default_rng(0)
    places, labels = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
    figure = embedding(places, labels, ["a<b", "cat", "dog"], title="Here", axes=("first", ""))
    drawing = plots.svg(figure)
    assert "a&lt;b · " in drawing
    assert "first" in drawing
    shown = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(np.sort(shown, 0), np.sort(places, 0))
    apart = np.stack(np.divmod(np.arange(60) % 20, 5), -1) + 0.01 * places
    many = embedding(apart, np.arange(60) % 20, [f"class {at}." for at in range(20)], title="")
    assert many.axes[0].get_legend() is None
    drawing = plots.svg(many)
    assert all(f"class {at}." in drawing for at in range(20))
    # Where all classes lie in one place, one name stands there.
    three = np.repeat(np.arange(3), 20)
    piled = embedding(np.tile(places[:20], (3, 1)), three, ["x1", "x2", "x3"], title="")
    assert len(re.findall(r">x\d<", plots.svg(piled))) == 1
    assert embedding(np.zeros((2, 2)), [0, 0], ["a"], title="").axes
    with pytest.raises(ValueError, match="N×2"):
        embedding(places[:, :1], labels, ["a", "b", "c"], title="")
    with pytest.raises(ValueError, match="expected classes"):
        embedding(places, labels, ["a"], title="")
