"""Hiding parts of a picture: occlusion against Captum and by hand, and what decides an answer."""

from __future__ import annotations

import itertools

import captum.attr as captum
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from attributed import NETS, built, pictures, quietly
from neocog.errors import ConfigError
from neocog.explain.why.fills import blurred, filling
from neocog.explain.why.hide import Parts, must_be_hidden, must_be_seen
from neocog.explain.why.occlusion import Grid, occlusion
from untouched import untouched

# -- occlusion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("side", "stride"), [(4, 4), (5, 3), (3, 1), (16, 16), (7, 7)])
def test_occlusion_is_captums(name: str, side: int, stride: int) -> None:
    net, x = built(name), pictures()
    found = occlusion(net, x, torch.tensor([3, 1]), side=side, stride=stride, batch=11)
    with torch.no_grad():
        theirs = quietly(
            captum.Occlusion(lambda x: net(x.clone())).attribute,
            x,
            (3, side, side),
            (3, stride, stride),
            0,
            torch.tensor([3, 1]),
        )
    torch.testing.assert_close(found.values, theirs[:, :1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 64])
def test_occlusion_by_hand(batch: int) -> None:
    class Weighed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            weights = torch.tensor([[1.0, 2.0, -4.0]])
            return (x[:, 0] * weights).sum((1, 2))[:, None]

    x = torch.tensor([[[[3.0, 5.0, 7.0]]]])
    found = occlusion(Weighed(), x, 0, side=1, stride=1, fill=1.0, batch=batch)
    # (3 − 1) · 1, (5 − 1) · 2, (7 − 1) · −4
    assert found.values.tolist() == [[[[2.0, 8.0, -24.0]]]]
    assert found.answer.tolist() == [3 + 10 - 28]
    # Squares 0–1, 1–2: each pixel the mean over its squares.
    found = occlusion(Weighed(), x, 0, side=2, stride=1, fill=1.0, batch=batch)
    assert found.values.tolist() == [[[[10.0, (10 - 16) / 2, -16.0]]]]


def test_a_fill_may_be_a_mean_or_the_blurred_picture() -> None:
    x = pictures(2, (3, 12, 9))
    torch.testing.assert_close(filling(x, "mean")[1, 2, 3, 4], x[1, 2].mean())
    assert filling(x, 0.5).unique().tolist() == [0.5]
    picture = pictures(1, (3, 12, 9), seed=3)
    assert torch.equal(filling(x, picture)[1], picture[0])
    torch.testing.assert_close(filling(x, "blur"), blurred(x, 1.5))
    with pytest.raises(ConfigError, match="did you mean 'blur'"):
        filling(x, "blurr")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="broadcasts to 2×3×12×9, found 5"):
        filling(x, torch.zeros(5))


@pytest.mark.parametrize("deviation", [0.5, 1.5, 6.0])
def test_blur_is_scipys(deviation: float) -> None:
    x = pictures(2, (3, 12, 9)).double()
    sigma = (0, 0, deviation, deviation)
    expected = ndimage.gaussian_filter(
        x.numpy(), sigma, mode="nearest", radius=(0, 0, *[int(np.ceil(4 * deviation))] * 2)
    )
    np.testing.assert_allclose(blurred(x, deviation).numpy(), expected, atol=1e-6)


def test_a_grid_covers_every_pixel() -> None:
    for height, width, side in itertools.product((1, 5, 8), (4, 8), (1, 3, 4)):
        for stride in range(1, side + 1):
            grid = Grid.over((height, width), side, stride)
            masks = grid.masks(slice(0, grid.count))
            assert masks.any(0).all()
            assert torch.equal(masks.sum(0), grid.covers())
            assert torch.equal(masks[1:3], grid.masks(slice(1, 3)))
    with pytest.raises(ConfigError, match="stride 4"):
        Grid.over((8, 8), 3, 4)
    with pytest.raises(ConfigError, match="side 9"):
        Grid.over((8, 8), 9, 3)


# -- what decides an answer -----------------------------------------------------------------------


class Spots(nn.Module):
    """Class 1 if enough of some places are bright, otherwise class 0."""

    def __init__(self, weights: Tensor, least: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        one = (x[:, 0] * self.weights).sum((1, 2))
        return torch.stack([torch.full_like(one, self.least), one], 1)


def spots(places: dict[tuple[int, int], float]) -> Tensor:
    """8×8 weights, spread over the 2×2 pixels of squares."""
    weights = torch.zeros(8, 8)
    for (row, column), weight in places.items():
        weights[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = weight / 4
    return weights


def which(found: Parts) -> set[tuple[int, int]]:
    squares = found.mask.reshape(4, 2, 4, 2)
    assert (squares.all((1, 3)) == squares.any((1, 3))).all()
    return set(zip(*map(list, np.nonzero(squares.any((1, 3)))), strict=True))  # type: ignore[arg-type]


WHITE = torch.ones(1, 1, 8, 8)


@pytest.mark.parametrize("guided", [False, True])
def test_what_must_be_hidden_by_hand(guided: bool) -> None:
    weights = spots({(0, 0): 4, (1, 2): 3, (3, 3): 2, (2, 0): -1, (3, 0): 0.5})
    net = Spots(weights, 4)  # 8.5 in all
    guide = weights if guided else None
    told: list[tuple[int, int]] = []
    with untouched(net, WHITE):
        found = must_be_hidden(
            net,
            WHITE,
            side=2,
            fill=0.0,
            guide=guide,
            batch=3,
            progress=lambda *at: told.append(at),
        )
    assert which(found) == {(0, 0), (1, 2)}
    assert (found.before, found.after, found.found, found.parts) == (1, 0, True, 2)
    assert found.share == 2 / 16
    assert told[-1][0] == told[-1][1]


def test_what_became_superfluous_is_given_up() -> None:
    # Led by a poor guide, everything that it likes better comes first and is given up again.
    weights = spots({(0, 0): 8, (1, 1): 1, (2, 2): 1})
    guide = spots({(1, 1): 5, (2, 2): 4, (3, 3): 3, (0, 0): 2})
    found = must_be_hidden(Spots(weights, 4), WHITE, side=2, fill=0.0, guide=guide)
    assert which(found) == {(0, 0)}


def test_what_must_be_seen_by_hand() -> None:
    net = Spots(spots({(0, 0): 4, (1, 2): 3, (3, 3): 2, (2, 0): -1}), 5.5)
    found = must_be_seen(net, WHITE, side=2, fill=0.0)
    assert which(found) == {(0, 0), (1, 2)}
    assert (found.before, found.after, found.found) == (1, 1, True)
    easy = must_be_seen(Spots(torch.zeros(8, 8), -1), WHITE, side=2, fill=0.0)
    assert (easy.parts, easy.found, easy.after) == (0, True, 1)


@pytest.mark.parametrize("guided", [False, True])
def test_no_set_up_to_the_limit_is_said_so(guided: bool) -> None:
    weights = spots({(row, column): 1 for row in range(4) for column in range(4)})
    net, guide = Spots(weights, 4.5), weights if guided else None
    asked = {"side": 2, "fill": 0.0, "guide": guide}
    enough = must_be_hidden(net, WHITE, limit=0.8, **asked)  # type: ignore[arg-type]
    assert (enough.found, enough.parts, enough.after) == (True, 12, 0)
    short = must_be_hidden(net, WHITE, limit=0.7, **asked)  # type: ignore[arg-type]
    assert (short.found, short.parts, short.before, short.after) == (False, 11, 1, 1)
    never = must_be_hidden(Spots(weights, -1), WHITE, **asked)  # type: ignore[arg-type]
    assert (never.found, never.share, never.after) == (False, 1.0, 1)


def test_segments_of_any_shape_and_number() -> None:
    segments = np.full((8, 8), 7)
    segments[:, :3], segments[5, 5] = -2, 40
    weights = torch.zeros(8, 8)
    weights[5, 5], weights[0, 0] = 3, 1
    found = must_be_hidden(Spots(weights, 2), WHITE, segments=segments, fill=0.0)
    assert found.mask.sum() == 1
    assert found.mask[5, 5]
    with pytest.raises(ConfigError, match="found 4×4"):
        must_be_hidden(Spots(weights, 2), WHITE, segments=segments[:4, :4])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("guided", [False, True])
def test_of_real_networks_no_part_is_superfluous(name: str, guided: bool) -> None:
    net, x = built(name), 3 * pictures(1, seed=2)
    fill = pictures(1, seed=9) * 3
    guide = occlusion(net, x, int(net(x.clone()).argmax())).values if guided else None
    with untouched(net, x):
        hidden = must_be_hidden(net, x, side=4, fill=fill, guide=guide)
        seen = must_be_seen(net, x, side=4, fill=fill, guide=guide)

    def answer(mask: np.ndarray) -> int:
        with torch.no_grad():
            return int(net(torch.where(torch.from_numpy(mask), fill, x)).argmax())

    whole = answer(np.zeros((16, 16), bool))
    assert hidden.before == seen.before == whole
    assert answer(hidden.mask) == hidden.after
    assert answer(~seen.mask) == seen.after == whole
    assert hidden.found == (hidden.after != whole)
    squares = [np.kron(one.reshape(4, 4), np.ones((4, 4))) > 0 for one in np.eye(16)]
    for square in squares:
        if hidden.found and (hidden.mask & square).any():
            assert answer(hidden.mask & ~square) == whole
        if (seen.mask & square).any():
            assert answer(~(seen.mask & ~square)) != whole


def test_errors_say_what_can_be_asked() -> None:
    net = built("plain")
    with pytest.raises(ConfigError, match="expected one picture 1×C×H×W"):
        must_be_hidden(net, pictures(2))
    with pytest.raises(ConfigError, match="scores B×K of at least two classes"):
        must_be_hidden(nn.Sequential(net, nn.Linear(5, 1)), pictures(1))
    with pytest.raises(ConfigError, match="limit above 0"):
        must_be_hidden(net, pictures(1), limit=0)
    with pytest.raises(ConfigError, match="resize=True"):
        must_be_hidden(net, pictures(1), guide=torch.zeros(1, 1, 4, 4))
