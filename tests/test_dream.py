"""A dreamt picture excites more than any real one, and stays a picture."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from torch import Tensor, nn

from neocog.errors import ConfigError, NeocogError
from neocog.explain.capture import capture
from neocog.explain.look.canvas import Canvas, moved, variation
from neocog.explain.look.dream import Dream, Restraint, dream

MEAN, STD = (0.305,), (0.376,)
STILL = Restraint(variation=0, jitter=0, zoom=0, turn=0, fourier=False)


@functools.cache
def learnt() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network that has learnt the digits, and the digits."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    x, y = (x - MEAN[0]) / STD[0], torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(512, 10)),
        )
        adam = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
        for _ in range(4):
            for ids in torch.randperm(len(x)).split(64):
                adam.zero_grad()
                nn.functional.cross_entropy(net(x[ids]), y[ids]).backward()
                adam.step()
    net.zero_grad()
    net.eval()
    with torch.no_grad():
        assert float((net(x).argmax(1) == y).float().mean()) > 0.98
    return net, x, y


def dreamt(target: int, restraint: Restraint | None = None, **more: object) -> Dream:
    net, _, _ = learnt()
    given = {"mean": MEAN, "std": STD, "steps": 60, "rate": 0.1, **more}
    return dream(net, (1, 8, 8), target, restraint=restraint, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("digit", range(10))
def test_a_dreamt_digit_is_answered_as_that_digit(digit: int) -> None:
    net, x, _ = learnt()
    one = dreamt(digit)
    with torch.no_grad():
        answer = net(one.picture[None])[0]
        real = float(net(x)[:, digit].max())
    assert int(answer.argmax()) == digit
    assert one.value == pytest.approx(float(answer[digit]), abs=1e-4)
    # More than noise, and about as much as the best of 1,797 real digits, though it was held back.
    assert one.value > one.before + 5
    assert one.value > 0.8 * real
    assert len(one.course) == 60
    assert max(one.course[-10:]) > one.course[0] + 4


@pytest.mark.parametrize("fourier", [False, True])
def test_unheld_it_excites_more_than_any_digit(fourier: bool) -> None:
    net, x, _ = learnt()
    held = Restraint(variation=0, jitter=0, zoom=0, turn=0, fourier=fourier)
    with torch.no_grad():
        real = net(x).amax(0)
    for digit in (1, 6):
        assert dreamt(digit, held, steps=120).value > float(real[digit])


def test_a_channel_and_a_unit_of_a_layer() -> None:
    net, x, _ = learnt()
    with torch.no_grad():
        every = capture(net, x, ["3"]).layers["3"]
    still = Restraint(variation=0.02, jitter=0, zoom=0, turn=0)
    whole = dreamt(5, still, layer="3")
    assert whole.value > float(every[:, 5].mean((1, 2)).max())
    one = dreamt(5, still, layer="3", unit=(2, 6))
    assert one.value > float(every[:, 5, 2, 6].max())
    with torch.no_grad():
        again = capture(net, one.picture[None], ["3"]).layers["3"][0, 5, 2, 6]
    assert one.value == pytest.approx(float(again), abs=1e-4)
    free = dream(
        net,
        (1, 8, 8),
        lambda y: y[:, 5].mean((1, 2)),
        layer="3",
        mean=MEAN,
        std=STD,
        steps=5,
        seed=2,
    )
    assert free.course == dreamt(5, layer="3", steps=5, seed=2, rate=0.05).course


@pytest.mark.parametrize("fourier", [False, True])
def test_it_stays_a_picture(fourier: bool) -> None:
    one = dreamt(3, Restraint(fourier=fourier, variation=0), rate=2.0, steps=30)
    assert one.pixels is not None
    assert one.pixels.shape == (8, 8, 1)
    seen = (torch.tensor(one.pixels).permute(2, 0, 1) / 255 - MEAN[0]) / STD[0]
    assert torch.allclose(one.picture, seen, atol=1e-6)
    assert one.pixels.max() == 255  # at such a rate it reaches the edge
    free = dream(learnt()[0], (1, 8, 8), 3, steps=3)
    assert free.pixels is None


def test_each_restraint_restrains() -> None:
    none = dreamt(4, STILL)
    rough = float(variation(none.picture[None]))
    size = float(none.picture.square().mean())
    smooth = Restraint(variation=1, jitter=0, zoom=0, turn=0, fourier=False)
    assert float(variation(dreamt(4, smooth).picture[None])) < 0.7 * rough
    small = Restraint(variation=0, decay=0.3, jitter=0, zoom=0, turn=0, fourier=False)
    assert float(dreamt(4, small).picture.square().mean()) < 0.7 * size
    blurred = Restraint(variation=0, blur=1, blur_every=2, jitter=0, zoom=0, turn=0, fourier=False)
    sharp, soft = (dreamt(4, held, rate=0.02).picture[None] for held in (STILL, blurred))
    assert float(variation(soft)) < 0.7 * float(variation(sharp))
    moves = Restraint(variation=0, fourier=False)
    assert dreamt(4, moves).course != none.course
    for wrong in ({"decay": -1.0}, {"zoom": 1.0}, {"blur_every": 0}, {"turn": float("nan")}):
        with pytest.raises(ConfigError, match="numbers of 0 or more"):
            Restraint(**wrong)  # type: ignore[arg-type]


def test_one_seed_one_dream_and_nothing_else_changes() -> None:
    net, _, _ = learnt()
    weights = {name: one.clone() for name, one in net.state_dict().items()}
    net.train()
    chance = torch.random.get_rng_state()
    first, second, other = dreamt(2, steps=8), dreamt(2, steps=8), dreamt(2, steps=8, seed=1)
    assert torch.equal(first.picture, second.picture)
    assert first.course == second.course
    assert not torch.equal(first.picture, other.picture)
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert net.training
    net.eval()
    assert all(torch.equal(one, weights[name]) for name, one in net.state_dict().items())
    assert all(one.requires_grad and one.grad is None for one in net.parameters())
    assert not any(part._forward_hooks for part in net.modules())


def test_what_cannot_be_dreamt_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected outputs 0 … 9"):
        dreamt(10)
    with pytest.raises(ConfigError, match="expected outputs 0 … 15"):
        dreamt(16, layer="0")
    with pytest.raises(ConfigError, match="no layer called '6'"):
        dreamt(0, layer="6", unit=(0, 0))
    with pytest.raises(ConfigError, match="within 8×8"):
        dreamt(0, layer="0", unit=(8, 0))
    with pytest.raises(ConfigError, match="the layer that the unit is of"):
        dreamt(0, unit=(0, 0))
    with pytest.raises(ConfigError, match="both the mean and the deviation"):
        dreamt(0, std=None)
    with pytest.raises(ConfigError, match="a mean and a deviation above 0"):
        dreamt(0, std=(0.0,))
    with pytest.raises(ConfigError, match="steps and a rate"):
        dreamt(0, steps=0)
    deaf = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        deaf[1].weight.fill_(torch.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(NeocogError, match="no longer finite"):
        dream(deaf, (1, 8, 8), 0)


# -- the canvas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fourier", [False, True])
def test_blur_is_a_gaussian(fourier: bool) -> None:
    canvas = Canvas((3, 24, 31), None, None, fourier=fourier, seed=0, device=torch.device("cpu"))
    before = canvas.picture().detach()[0].numpy().copy()
    canvas.blur(1.5)
    after = canvas.picture().detach()[0].numpy()
    expected = gaussian_filter(before, (0, 1.5, 1.5), mode="wrap", truncate=8)
    # SciPy's kernel is sampled in space, ours in frequency.
    np.testing.assert_allclose(after, expected, atol=2e-3 * np.abs(before).max())


@pytest.mark.parametrize("fourier", [False, True])
def test_a_canvas_begins_faint_and_grey(fourier: bool) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    canvas = Canvas((3, 32, 32), mean, std, fourier=fourier, seed=0, device=torch.device("cpu"))
    _, pixels = canvas.finished()
    assert pixels is not None
    assert 110 < pixels.min() < pixels.max() < 146
    assert 0.5 < pixels.std() < 6


def test_variation_is_that_of_numpy() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 5))
    expected = np.abs(np.diff(x, axis=2)).mean() + np.abs(np.diff(x, axis=3)).mean()
    assert float(variation(torch.tensor(x))) == pytest.approx(expected)
    assert float(variation(torch.ones(1, 1, 1, 1))) == 0


def test_moves_by_hand() -> None:
    x = torch.arange(2 * 6 * 8, dtype=torch.float64).view(1, 2, 6, 8).square()
    same = moved(x, shift=(0, 0), zoom=1, turn=0)
    torch.testing.assert_close(same, x)
    down = moved(x, shift=(2 / 6, -1 / 8), zoom=1, turn=0)
    torch.testing.assert_close(down[:, :, 2:, :-1], x[:, :, :-2, 1:])
    square = x[:, :, :, 1:7]
    turned = moved(square, shift=(0, 0), zoom=1, turn=90)
    torch.testing.assert_close(turned, square.rot90(-1, (2, 3)))
    half = moved(x, shift=(0, 0), zoom=1, turn=180)
    torch.testing.assert_close(half, x.flip(2, 3))
    ramp = torch.linspace(-1, 1, 9, dtype=torch.float64).expand(1, 1, 9, 9)
    larger = moved(ramp, shift=(0, 0), zoom=2, turn=0)
    torch.testing.assert_close(larger, ramp / 2)
