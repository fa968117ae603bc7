"""Integrated gradients: Captum's numbers with Captum's rule, and sums that are complete."""

from __future__ import annotations

import captum.attr as captum
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attributed import CATALOGUE, NETS, built, pictures, quietly
from neocog.errors import ConfigError, NeocogError
from neocog.explain.why.integrated import TOLERANCE, integrated_gradients
from neocog.explain.why.methods import explain_answer
from untouched import untouched


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("given", ["zero", "number", "picture", "pictures"])
def test_with_one_piece_the_values_are_captums(name: str, given: str) -> None:
    net, x = built(name), pictures()
    baseline = {
        "zero": 0.0,
        "number": 0.7,
        "picture": pictures(1, seed=5),
        "pictures": pictures(2, seed=6),
    }[given]
    found = integrated_gradients(net, x, 3, baseline=baseline, steps=50, limit=50, batch=7)
    start = baseline if isinstance(baseline, Tensor) else torch.full_like(x, baseline)
    method = captum.IntegratedGradients(lambda x: net(x.clone()))
    theirs, delta = quietly(
        method.attribute,
        x,
        start.expand_as(x),
        target=3,
        n_steps=50,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    torch.testing.assert_close(found.values, theirs, atol=1e-4, rtol=1e-4)
    assert found.gap is not None
    assert found.steps is not None
    torch.testing.assert_close(found.gap.float(), delta.float(), atol=1e-4, rtol=1e-3)
    assert found.steps.tolist() == [50, 50]


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_values_sum_to_the_difference_over_the_catalogue(name: str) -> None:
    net, x = built(name), pictures(1, (3, 32, 32))
    with untouched(net, x):
        found = integrated_gradients(net, x, 2, batch=32)
    with torch.no_grad():
        change = net(x.clone())[0, 2] - net(torch.zeros_like(x))[0, 2]
    assert abs(float(found.values.sum() - change)) <= TOLERANCE * abs(float(change))
    assert found.gap_share is not None
    assert float(found.gap_share) <= TOLERANCE
    assert found.note == ""


def test_they_do_so_for_a_network_that_learnt_digits() -> None:
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(data.target)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(60):
        part = torch.arange(step * 64, step * 64 + 64) % 1500
        optimiser.zero_grad()
        F.cross_entropy(net(x[part]), y[part]).backward()
        optimiser.step()
    net.eval()
    with torch.no_grad():
        assert float((net(x[1500:]).argmax(1) == y[1500:]).float().mean()) > 0.85
    shown, classes = x[1500:1516], y[1500:1516]
    with untouched(net, shown):
        found = integrated_gradients(net, shown, classes, baseline=-1.0)
    assert found.gap_share is not None
    assert found.difference is not None
    assert (found.gap_share <= TOLERANCE).all()
    # What is as in the baseline has no part in the answer: the black pixels of a digit.
    assert (found.values[shown == -1] == 0).all()
    with torch.no_grad():
        rows = torch.arange(16)
        change = net(shown)[rows, classes] - net(torch.full_like(shown, -1))[rows, classes]
    torch.testing.assert_close(found.difference, change.double(), atol=1e-5, rtol=1e-4)


def test_halving_finds_a_jump_that_one_piece_misses() -> None:
    class Kink(nn.Module):
        """Flat up to 0.9 of the way, then steep: 1000 · ReLU(mean − 0.9)."""

        def forward(self, x: Tensor) -> Tensor:
            return 1000 * F.relu(x.mean((1, 2, 3)) - 0.9)[:, None]

    x = torch.ones(1, 1, 4, 4)
    one = integrated_gradients(Kink(), x, 0, steps=8, limit=8)
    halved = integrated_gradients(Kink(), x, 0, steps=8)
    assert one.gap_share is not None
    assert halved.gap_share is not None
    assert halved.steps is not None
    assert float(one.gap_share) > 0.1
    assert "8 gradients" in one.note
    assert float(halved.gap_share) <= TOLERANCE
    assert int(halved.steps) <= 128
    torch.testing.assert_close(halved.values, torch.full_like(x, 100 / 16), rtol=0.01, atol=0)


def test_polynomials_are_integrated_exactly() -> None:
    class Cubic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**3 + x[:, :, ::1] ** 2).sum((1, 2, 3))[:, None]

    x, start = pictures(1, (2, 3, 3)).double(), pictures(1, (2, 3, 3), seed=1).double()
    net = nn.Sequential(Cubic())
    net.register_buffer("kind", torch.zeros(1, dtype=torch.float64))
    found = integrated_gradients(net, x, 0, baseline=start, steps=2, limit=2)
    expected = x**3 - start**3 + x**2 - start**2
    np.testing.assert_allclose(found.values.numpy(), expected.numpy(), atol=1e-5)


def test_it_is_what_the_name_stands_for() -> None:
    net, x = built("plain"), pictures(1)
    named = explain_answer(net, x, 1, "integrated_gradients")
    assert torch.equal(named.values, integrated_gradients(net, x, 1).values)


def test_errors_say_what_was_expected() -> None:
    net, x = built("plain"), pictures(1)
    with pytest.raises(ConfigError, match="steps ≤ limit"):
        integrated_gradients(net, x, 0, steps=50, limit=10)
    with pytest.raises(ConfigError, match="broadcasts to 1×3×16×16, found 3×8×8"):
        integrated_gradients(net, x, 0, baseline=torch.zeros(3, 8, 8))
    with pytest.raises(NeocogError, match="for the baseline"):
        integrated_gradients(net, x, lambda y: 1 / (y - y[:, :1] + 0)[:, 0])
