"""Kernels, feature maps and exciting patches are what the network really holds and answers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from neocog import plots
from neocog.errors import ConfigError, DataError, NeocogError
from neocog.explain.look.exciting import exciting
from neocog.explain.look.first_layer import first_kernels, kernel_tiles
from neocog.explain.look.maps import feature_maps, map_tiles
from neocog.explain.look.sheets import Tiles, columns_for, levels, sheet
from neocog.models import catalog
from neocog.plots.inside import TileRow, tiles


class Shared(nn.Module):
    """One in-place ReLU that runs twice, a functional one, a residual sum, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Conv2d(6, 4, 3, padding=1)  # registered first, runs last
        self.norm = nn.BatchNorm2d(3)
        self.early = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.middle = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.early(self.norm(x)))
        x = F.relu(self.relu(self.middle(x)) + x)
        x = self.last(self.late(x).permute(0, 2, 3, 1))
        answer: Tensor = self.head(x.mean((1, 2)))
        return answer


def shared() -> Shared:
    torch.manual_seed(0)
    net = Shared().eval()
    net.norm.running_mean.uniform_()
    net.norm.running_var.uniform_(0.5, 2)
    return net


def state(module: nn.Module) -> dict[str, Any]:
    """All that an explanation must leave alone."""
    return {
        "weights": copy.deepcopy(module.state_dict()),
        "flags": [part.training for part in module.modules()],
        "asks": [one.requires_grad for one in module.parameters()],
        "grads": [one.grad is None for one in module.parameters()],
        "hooks": [len(part._forward_hooks) for part in module.modules()],
        "before": [len(part._forward_pre_hooks) for part in module.modules()],
    }


def assert_untouched(module: nn.Module, before: dict[str, Any]) -> None:
    after = state(module)
    weights, kept = after.pop("weights"), before.pop("weights")
    assert after == before
    for name, tensor in kept.items():
        assert torch.equal(weights[name], tensor), name


# -- kernels --------------------------------------------------------------------------------------


def test_the_first_kernels_are_those_that_ran_first() -> None:
    net = shared()
    before = state(net)
    found = first_kernels(net, (3, 16, 16))
    assert (found.layer, found.stride) == ("early", (2, 2))
    np.testing.assert_array_equal(found.values, net.early.weight.detach().numpy())
    assert_untouched(net, before)


def test_kernels_that_are_computed_are_shown_as_used() -> None:
    net = nn.Sequential(weight_norm(nn.Conv2d(1, 4, 5)), nn.ReLU())
    with torch.no_grad():
        net[0].parametrizations.weight.original0.mul_(3)  # type: ignore[union-attr]
    used = net[0].weight.detach().numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(first_kernels(net, (1, 9, 9)).values, used, rtol=1e-6)


def test_a_network_without_a_first_convolution_is_refused() -> None:
    mixed = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Unflatten(1, (1, 8, 8)))
    with pytest.raises(ConfigError, match="no convolution reads the picture"):
        first_kernels(nn.Sequential(mixed, nn.Conv2d(1, 2, 3)), (1, 8, 8))
    with pytest.raises(ConfigError, match="expected pictures"):
        first_kernels(nn.Conv1d(1, 2, 3), (1, 8))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "convnext_tiny"])
def test_first_kernels_of_the_catalogue(name: str) -> None:
    net = catalog.build(name, channels=3, size=(32, 32), outputs=4, args={})
    first = next(one for one in net.modules() if isinstance(one, nn.Conv2d))
    found = first_kernels(net, (3, 32, 32))
    np.testing.assert_array_equal(found.values, first.weight.detach().numpy())


def test_levels_by_hand() -> None:
    values = np.array([[-2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [3.0, 6.0, 4.5]])
    assert levels(values, "signed").tolist() == [[1, 128, 192], [128] * 3, [192, 255, 223]]
    assert levels(values, "positive").tolist() == [[0, 0, 255], [0] * 3, [128, 255, 191]]
    assert levels(values, "range").tolist() == [[0, 170, 255], [0] * 3, [0, 255, 128]]
    together = levels(values, "positive", each=False)
    assert together.tolist() == [[0, 0, 43], [0] * 3, [128, 255, 191]]
    with pytest.raises(ValueError, match="finite"):
        levels(np.array([np.nan]), "range")


def test_kernels_of_three_channels_are_in_colour_and_others_in_rows() -> None:
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(5, 3, 4, 2))
    shown = kernel_tiles(kernels)
    assert shown.pixels.shape == (5, 4, 2, 3)
    one = kernels[2].transpose(1, 2, 0)
    expected = np.floor(128 + 127 * one / np.abs(one).max() + 0.5)
    np.testing.assert_array_equal(shown.pixels[2], expected)
    strong = kernel_tiles(kernels, order="strength", most=2)
    power = (kernels**2).sum((1, 2, 3))
    assert strong.numbers == tuple(np.argsort(-power)[:2])
    many = kernel_tiles(rng.normal(size=(6, 5, 3, 3)), most=20)
    assert many.columns == 5
    assert many.pixels.shape == (20, 3, 3)
    assert len(set(many.numbers)) == 4
    assert list(many.numbers) == sorted(many.numbers)
    assert kernel_tiles(rng.normal(size=(7, 1, 3, 3))).pixels.shape == (7, 3, 3)
    with pytest.raises(ValueError, match="K×C×h×w"):
        kernel_tiles(np.zeros((2, 3)))


def test_a_sheet_puts_tiles_in_rows() -> None:
    pixels = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)
    one = sheet(Tiles(pixels=pixels, numbers=(0, 1, 2), columns=2, scale="range", each=True))
    assert one.tolist() == [
        [0, 1, 255, 4, 5],
        [2, 3, 255, 6, 7],
        [255] * 5,
        [8, 9, 255, 255, 255],
        [10, 11, 255, 255, 255],
    ]
    assert columns_for(1) == 1


# -- feature maps ---------------------------------------------------------------------------------


def by_hand(net: Shared, x: Tensor) -> dict[str, Tensor]:
    """Every answer, computed in the open."""
    found: dict[str, Tensor] = {"norm": net.norm(x)}
    found["early"] = F.conv2d(found["norm"], net.early.weight, net.early.bias, 2, 1)
    found["relu"] = found["early"].clamp(min=0)
    found["middle"] = F.conv2d(found["relu"], net.middle.weight, net.middle.bias, 1, 1)
    found["relu#2"] = found["middle"].clamp(min=0)
    late = F.conv2d(found["relu#2"] + found["relu"], net.late.weight, net.late.bias, 1, 1)
    found["late"] = late
    centred = late - late.mean(1, keepdim=True)
    found["last"] = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return {name: one.detach() for name, one in found.items()}


def test_feature_maps_are_the_layers_answers() -> None:
    net = shared()
    before = state(net)
    picture = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(1))
    kept = picture.clone()
    found = {one.layer: one.values for one in feature_maps(net, picture)}
    expected = by_hand(net, picture[None])
    assert list(found) == ["norm", "early", "relu", "middle", "relu#2", "late", "last"]
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name][0].numpy(), atol=1e-5, err_msg=name)
    assert torch.equal(picture, kept)
    assert_untouched(net, before)
    (one,) = feature_maps(net, picture, ["relu#2"])
    np.testing.assert_array_equal(one.values, found["relu#2"])


def test_what_only_a_block_answers_is_shown_under_its_name() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x) + x)

    net = nn.Sequential(Block(), nn.Dropout(), nn.Sequential(nn.Conv2d(2, 3, 1)))
    names = [one.layer for one in feature_maps(net, torch.randn(2, 6, 6))]
    assert names == ["0.conv", "0", "2.0"]


def test_maps_that_are_not_there_are_refused() -> None:
    net = shared()
    with pytest.raises(ConfigError, match="did you mean 'middle'"):
        feature_maps(net, torch.zeros(3, 8, 8), ["midle"])
    with pytest.raises(ConfigError, match="no layer called 'head'"):
        feature_maps(net, torch.zeros(3, 8, 8), ["head"])
    with pytest.raises(ConfigError, match="no module of the network answers with a map"):
        feature_maps(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.zeros(1, 8, 8))
    with pytest.raises(ConfigError, match="one picture"):
        feature_maps(net, torch.zeros(1, 3, 8, 8))


def test_the_strongest_maps_are_shown() -> None:
    values = np.random.default_rng(0).normal(size=(9, 4, 5)) * np.arange(9)[:, None, None]
    shown = map_tiles(values, most=3)
    assert shown.numbers == tuple(np.argsort(-(values**2).sum((1, 2)))[:3])
    assert shown.scale == "signed"
    assert map_tiles(np.abs(values)).scale == "positive"
    assert map_tiles(values, most=4, order="number").numbers == tuple(
        sorted(np.argsort(-(values**2).sum((1, 2)))[:4])
    )
    with pytest.raises(ValueError, match="C×h×w"):
        map_tiles(np.zeros((0, 4, 4)))


# -- patches --------------------------------------------------------------------------------------


def batches(x: Tensor, sizes: list[int], ids: list[int] | None = None) -> list[Any]:
    names = torch.arange(len(x)) if ids is None else torch.tensor(ids)
    return list(zip(names.split(sizes), x.split(sizes), strict=True))


def test_exciting_patches_against_all_activations() -> None:
    net = shared()
    before = state(net)
    x = torch.randn(23, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    told: list[tuple[int, int]] = []
    found = exciting(
        net,
        batches(x, [7, 7, 7, 2]),
        ["middle", "relu#2", "last", "head"],
        top=4,
        pictures=23,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(7, 23), (14, 23), (21, 23), (23, 23)]
    expected = by_hand(net, x)
    expected["head"] = net(x).detach()
    for one in found:
        every = expected[one.layer].numpy()
        every = every.reshape(*every.shape[:2], -1) if every.ndim == 4 else every
        most = every.max(2) if every.ndim == 3 else every
        for channel in range(every.shape[1]):
            order = np.argsort(-most[:, channel], kind="stable")[:4]
            np.testing.assert_array_equal(one.ids[channel], order)
            np.testing.assert_allclose(one.values[channel], most[order, channel], atol=1e-5)
            if every.ndim == 3:
                places = every[order, channel].argmax(1)
                wide = expected[one.layer].shape[3]
                np.testing.assert_array_equal(
                    one.positions[channel], np.stack(np.divmod(places, wide), -1)
                )
    assert (found[-1].positions == -1).all()
    assert (found[-1].boxes == (0, 11, 0, 11)).all()
    assert_untouched(net, before)


def test_boxes_hold_just_the_pixels_that_count() -> None:
    net = shared()
    x = torch.randn(9, 3, 14, 14, generator=torch.Generator().manual_seed(3))
    (one,) = exciting(net, batches(x, [9]), ["middle"], top=3)
    for channel in range(6):
        for at in range(3):
            leaf = x[one.ids[channel, at]][None].clone().requires_grad_(True)
            hidden = net.relu(net.early(net.norm(leaf)))
            # Without the ReLU's zeros, the gradient is non-zero wherever a pixel can count.
            free = net.middle(net.early(net.norm(leaf)) + 0 * hidden)
            row, column = one.positions[channel, at]
            free[0, channel, row, column].backward()
            rows, columns = np.nonzero(leaf.grad[0].abs().sum(0).numpy())
            box = (rows.min(), rows.max(), columns.min(), columns.max())
            assert tuple(one.boxes[channel, at]) == box


def test_a_picture_counts_once_and_the_first_of_equals_wins() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.ones_(net[0].weight)  # type: ignore[arg-type]
    heights = [3.0, 1.0, 3.0, 5.0, 5.0, 1.0, 2.0]
    x = torch.tensor(heights).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    (one,) = exciting(net, batches(x, [3, 3, 1], [10, 11, 10, 13, 14, 11, 12]), ["0"], top=4)
    assert one.ids.tolist() == [[13, 14, 10, 12]]
    assert one.positions[0, 0].tolist() == [0, 0]
    (few,) = exciting(net, batches(x, [4, 3], [10, 11, 10, 13, 13, 11, 12]), ["0"], top=9)
    assert few.ids.tolist() == [[13, 10, 12, 11]]


def test_data_that_cannot_excite_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1))
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(DataError, match="found none"):
        exciting(net, [], ["0"])
    with pytest.raises(DataError, match="expected pictures of"):
        exciting(net, [([0, 1], x), ([2], torch.zeros(1, 1, 5, 5))], ["0"])
    with pytest.raises(DataError, match="expected 2 ids"):
        exciting(net, [([0], x)], ["0"])
    with pytest.raises(ConfigError, match="at least one"):
        exciting(net, [([0, 1], x)], [])
    with pytest.raises(NeocogError, match="NaN"):
        exciting(net, [([0, 1], x * torch.nan)], ["0"])


# -- figures --------------------------------------------------------------------------------------


def test_tiles_become_a_figure() -> None:
    rng = np.random.default_rng(0)
    rows = [
        TileRow(
            name="layer <1>",
            detail="3 of 8",
            tiles=[rng.integers(0, 255, (4, 6), dtype=np.uint8) for _ in range(30)],
            captions=[str(at) for at in range(30)],
            signed=True,
        ),
        TileRow(name="b", tiles=[np.zeros((9, 9, 3), np.uint8), np.zeros((5, 9, 3), np.uint8)]),
    ]
    for beside in (False, True):
        figure = tiles(rows, title="Maps", remark="each on its own scale", beside=beside)
        drawing = plots.svg(figure)
        assert drawing.count("<image") == 32
        assert "layer &lt;1&gt;" in drawing
    low, high = (tiles(rows, title="", side=side).get_size_inches() for side in (30, 60))
    assert low[1] < high[1]
    with pytest.raises(ValueError, match="at least one tile"):
        tiles([TileRow(name="x", tiles=[])], title="")
    with pytest.raises(ValueError, match="a caption for each"):
        tiles([TileRow(name="x", tiles=rows[1].tiles, captions=["1"])], title="")


def test_the_middle_of_a_signed_tile_is_paper() -> None:
    image = (
        tiles(
            [TileRow(name="x", tiles=[np.array([[1, 128, 255]], np.uint8)], signed=True)], title=""
        )
        .axes[0]
        .images[0]
    )
    left, middle, right = image.cmap(image.norm(image.get_array()))[0]
    assert min(middle[:3]) > 0.97
    assert left[2] > left[0]
    assert right[0] > right[2]
