"""The effective receptive field against convolutions of boxes, and the figure that shows it."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neocog import plots
from neocog.analysis.effective import SHARE, EffectiveField, effective_field
from neocog.errors import ConfigError, NeocogError
from neocog.models import catalog


def box(kernel: int, channels: int = 1, **more: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, **more)
    nn.init.constant_(layer.weight, 1 / kernel**2)
    return layer


def grown(kernel: int, times: int, size: int, centre: int) -> np.ndarray:
    """A box convolved with itself, laid into a row of pixels."""
    line = np.ones(1)
    for _ in range(times):
        line = np.convolve(line, np.ones(kernel) / kernel)
    row = np.zeros(size)
    start = centre - len(line) // 2
    row[start : start + len(line)] = line
    return row


def test_a_box_filter_sees_its_box_evenly() -> None:
    found = effective_field(nn.Sequential(box(5)), (1, 16, 16), "0", samples=2)
    expected = np.zeros((16, 16))
    expected[6:11, 6:11] = 1 / 25
    assert found.unit == (8, 8)
    np.testing.assert_allclose(found.weights, expected, atol=1e-8)
    # 24 of 25 pixels would hold 95 %, a square only holds all.
    assert found.square == found.box == ((6, 10), (6, 10))
    assert (found.side, found.size, found.samples) == (5, (5, 5), 2)


def test_a_stack_of_boxes_is_a_box_convolved_with_itself() -> None:
    depth, size = 12, 41
    found = effective_field(nn.Sequential(*(box(3) for _ in range(depth))), (1, size, size))
    line = grown(3, depth, size, size // 2)
    np.testing.assert_allclose(found.weights, np.outer(line, line), atol=1e-7)
    # The Gaussian of the same variance, depth · 2/3 (central limit).
    x = np.arange(size) - size // 2
    gauss = np.exp(-(x**2) / (2 * depth * 2 / 3))
    assert np.abs(line - gauss / gauss.sum()).max() < 0.003
    assert found.size == (2 * depth + 1,) * 2
    held = {
        side: line[(size - side) // 2 : (size + side) // 2].sum() ** 2 for side in range(1, 40, 2)
    }
    assert found.side == min(side for side, share in held.items() if share >= SHARE)
    assert found.side < found.size[0]


def test_strides_move_the_centre_and_even_kernels_put_it_between_pixels() -> None:
    layer = nn.Conv2d(1, 1, 2, stride=2)
    nn.init.ones_(layer.weight)
    found = effective_field(layer, (1, 12, 12))
    assert found.unit == (3, 3)
    assert found.centre == (6.5, 6.5)
    assert found.square == found.box == ((6, 7), (6, 7))
    assert found.side == 2


def test_behind_upsampling_the_centre_is_that_of_the_unit() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3))
    found = effective_field(net, (1, 12, 20), samples=1)
    (top, bottom), (left, right) = found.box
    assert found.centre == ((top + bottom) / 2, (left + right) / 2)
    assert found.square == found.box


def test_maps_with_channels_last_are_understood() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(self.patches(x).permute(0, 2, 3, 1))
            return y.mean((1, 2))

    net = Last()
    nn.init.normal_(net.norm.weight)  # else the sum of what was normalised is always 0
    found = effective_field(net, (3, 32, 48), samples=1)
    assert (found.layer, found.unit) == ("norm", (4, 6))
    assert found.box == found.square == ((16, 19), (24, 27))


def test_half_precision_loses_no_flanks() -> None:
    net = nn.Sequential(*(box(3) for _ in range(12))).half()
    line = grown(3, 12, 41, 20)
    found = effective_field(net, (1, 41, 41), samples=1)
    np.testing.assert_allclose(found.weights, np.outer(line, line), atol=1e-5)
    assert net[0].weight.dtype == torch.float16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_is_probed_there() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
    here = effective_field(net, (3, 12, 12), samples=2)
    net = net.cuda()
    state = torch.cuda.get_rng_state()
    there = effective_field(net, (3, 12, 12), samples=2)
    np.testing.assert_allclose(there.weights, here.weights, atol=1e-3)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_the_field_is_cut_off_at_the_edge() -> None:
    found = effective_field(nn.Sequential(*(box(9) for _ in range(4))), (1, 12, 12))
    assert found.size == (33, 33)
    assert found.box == ((0, 11), (0, 11))
    assert found.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v2", "cnn"])
def test_nothing_outside_of_the_theoretical_field_counts(name: str) -> None:
    torch.manual_seed(0)
    net = catalog.build(name, channels=3, size=(64, 64), outputs=4, args={})
    paths = [path for path, part in net.named_modules() if isinstance(part, nn.Conv2d)]
    inner = 0
    for path in paths[:: len(paths) // 4]:
        try:
            found = effective_field(net, (3, 64, 64), path, samples=1)
        except ConfigError:  # a head that does not run in use
            continue
        (top, bottom), (left, right) = found.box
        inside = found.weights[top : bottom + 1, left : right + 1]
        assert np.count_nonzero(found.weights) == np.count_nonzero(inside)
        assert inside.any(1)[[0, -1]].all()
        inner += inside.size < found.weights.size
    assert inner, "all fields cover the picture: nothing was tested"


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 4, 3, padding=1))
    net = net.double()
    pictures = torch.randn(3, 2, 7, 7, dtype=torch.float64)
    found = effective_field(net, (2, 7, 7), pictures=pictures)
    total = np.zeros((7, 7))
    for picture in pictures:
        for c, i, j in np.ndindex(2, 7, 7):
            step = torch.zeros_like(picture)
            step[c, i, j] = 1e-6
            ends = [net((picture + sign * step)[None])[0, :, 3, 3].sum() for sign in (1, -1)]
            total[i, j] += abs(float((ends[0] - ends[1]).detach()) / 2e-6)
    np.testing.assert_allclose(found.weights, total / total.sum(), atol=1e-8)


class Loud(nn.Module):
    """Draws, writes in place, counts and normalises: all that a probe could leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        y: Tensor = self.norm(self.first(x)).relu_()
        return torch.as_tensor(self.last(y + 0.1 * torch.rand_like(y)).mean((2, 3)))


def test_the_network_and_chance_come_back_untouched() -> None:
    torch.manual_seed(0)
    net = Loud().train()
    net.norm.eval()
    net.first.weight.requires_grad_(False)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    state = copy.deepcopy(net.state_dict())
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}
    asks = [p.requires_grad for p in net.parameters()]
    flags = [part.training for part in net.modules()]
    hooks = [len(part._forward_hooks) for part in net.modules()]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    pictures = torch.randn(2, 3, 8, 8)
    torch.set_rng_state(torch_state)
    before = pictures.clone()
    first = effective_field(net, (3, 8, 8), pictures=pictures)
    again = effective_field(net, (3, 8, 8), pictures=pictures)
    assert first.layer == "last"
    np.testing.assert_array_equal(first.weights, again.weights)
    assert torch.equal(pictures, before)
    assert not pictures.requires_grad
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert [part.training for part in net.modules()] == flags
    assert [len(part._forward_hooks) for part in net.modules()] == hooks
    assert [p.requires_grad for p in net.parameters()] == asks
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, parameter in net.named_parameters():
        old = grads[name]
        assert (parameter.grad is None) == (old is None)
        assert old is None or torch.equal(torch.as_tensor(parameter.grad), old)


def test_pictures_come_from_the_seed_alone() -> None:
    net = nn.Sequential(box(3, 2), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.MaxPool2d(2))
    nets = [effective_field(net, (2, 10, 10), seed=seed).weights for seed in (1, 1, 2)]
    np.testing.assert_array_equal(nets[0], nets[1])
    assert not np.array_equal(nets[0], nets[2])


def test_a_module_that_runs_twice_has_two_fields() -> None:
    shared = box(3)
    net = nn.Sequential(shared, nn.Identity(), shared, nn.AdaptiveAvgPool2d(1))
    sizes = [effective_field(net, (1, 9, 9), name).size for name in ("0", "0#2")]
    assert sizes == [(3, 3), (5, 5)]


def test_what_cannot_be_answered_says_why() -> None:
    net = nn.Sequential(box(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with pytest.raises(ConfigError, match="no module is called 'zero'"):
        effective_field(net, (1, 8, 8), "zero")
    with pytest.raises(ConfigError, match="does not answer with a map"):
        effective_field(net, (1, 8, 8), "3")
    with pytest.raises(ConfigError, match="C×H×W"):
        effective_field(net, (8, 8))
    with pytest.raises(ConfigError, match="expected pictures"):
        effective_field(net, (1, 8, 8), pictures=torch.zeros(2, 1, 9, 9))
    with pytest.raises(ConfigError, match="no module of the network"):
        effective_field(nn.Flatten(), (1, 8, 8))
    dead = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    nn.init.constant_(dead[0].bias, -1e3)  # type: ignore[arg-type]
    with pytest.raises(NeocogError, match="zero or not finite"):
        effective_field(dead, (1, 8, 8), "1")


# -- the figure ------------------------------------------------------------------------------------


def drawn(found: EffectiveField) -> str:
    figure = plots.effective(
        found.weights, box=found.box, square=found.square, size=found.size, side=found.side
    )
    return plots.svg(figure)


def test_the_figure_names_both_fields_and_draws_them_around_their_pixels() -> None:
    found = effective_field(nn.Sequential(*(box(3) for _ in range(12))), (1, 41, 41))
    text = drawn(found)
    assert "theoretical field 25×25<" in text
    assert f"95 % of the gradient within {found.side}×{found.side}<" in text
    assert text == drawn(found)
    figure = plots.effective(
        found.weights, box=found.box, square=found.square, size=found.size, side=found.side
    )
    inner, outer = (line.get_xydata() for line in figure.axes[0].lines)
    assert (outer.min(), outer.max()) == (8, 33)  # the edges of pixels 8 … 32
    assert inner.max() - inner.min() == found.side
    shades = np.asarray(figure.axes[0].images[0].get_array())[:, :, 3]
    np.testing.assert_allclose(shades**2, found.weights / found.weights.max(), atol=1e-12)


def test_a_field_beyond_the_picture_is_told() -> None:
    text = drawn(effective_field(nn.Sequential(*(box(9) for _ in range(4))), (1, 12, 12)))
    assert "theoretical field 33×33, 12×12 on the picture" in text


@pytest.mark.parametrize("weights", [np.zeros((4, 4)), np.ones(4), -np.ones((4, 4))])
def test_weights_that_are_none_are_refused(weights: np.ndarray) -> None:
    whole = ((0, 3), (0, 3))
    with pytest.raises(ValueError, match="expected H×W weights"):
        plots.effective(weights, box=whole, square=whole, size=(4, 4), side=4)


def test_depth_widens_the_effective_field_by_its_root() -> None:
    """Luo et al. 2016, section 2.1: of uniform kernels, the deviation is √(n · (k² − 1) / 12)."""
    spreads = []
    for depth in (4, 9, 16):
        weights = effective_field(
            nn.Sequential(*(box(3) for _ in range(depth))), (1, 41, 41)
        ).weights
        spreads.append(float(np.sqrt((weights.sum(0) * (np.arange(41) - 20) ** 2).sum())))
    assert spreads == pytest.approx([np.sqrt(depth * 8 / 12) for depth in (4, 9, 16)], rel=1e-4)
    assert all(a < b for a, b in pairwise(spreads))
