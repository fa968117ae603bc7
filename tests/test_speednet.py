"""What is special about speednet: whitening, the identity start, the sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from neocog.errors import ConfigError
from neocog.models.catalog import build
from neocog.usual import USUAL, usual


def digits() -> torch.Tensor:
    images = torch.tensor(load_digits().images[:500], dtype=torch.float32)[:, None]
    return (images - images.mean()) / images.std()


def make(channels: int = 1, size: tuple[int, int] = (8, 8), **args: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return build("speednet", channels=channels, size=size, outputs=10, args=args)


def test_calibrated_patches_are_white() -> None:
    """The covariance of what the first layer makes of the data's patches, against NumPy."""
    network = make()
    images = digits()
    network.calibrate(images)
    with torch.no_grad():
        seen = F.conv2d(images, network.whiten.weight).numpy()
    channels = seen.transpose(1, 0, 2, 3).reshape(8, -1).astype(np.float64)
    second = channels @ channels.T / channels.shape[1]
    np.testing.assert_allclose(np.diag(second), 1, atol=0.02)
    np.testing.assert_allclose(second[:4, :4] - np.diag(np.diag(second[:4, :4])), 0, atol=1e-3)
    np.testing.assert_allclose(channels[4:], -channels[:4], atol=1e-4)
    assert not network.whiten.weight.requires_grad


def test_constant_pictures_do_not_explode() -> None:
    network = make()
    network.calibrate(torch.zeros(4, 1, 8, 8))
    assert torch.isfinite(network.whiten.weight).all()


def test_uncalibrated_kernels_are_orthogonal() -> None:
    kernels = make(channels=3).whiten.weight.flatten(1)
    torch.testing.assert_close(kernels[:12] @ kernels[:12].T, torch.eye(12))
    torch.testing.assert_close(kernels[12:], -kernels[:12])


def test_stages_begin_as_the_identity() -> None:
    network = make(width=16)
    conv = network.stages[0].conv2
    x = torch.randn(2, 16, 6, 6)
    torch.testing.assert_close(conv(x), x)


@pytest.mark.parametrize(
    ("size", "stages"), [((8, 8), 2), ((28, 28), 3), ((32, 32), 3), ((64, 64), 4), ((96, 128), 5)]
)
def test_depth_follows_the_picture(size: tuple[int, int], stages: int) -> None:
    network = make(size=size, width=4)
    assert len(network.stages) == stages
    assert network(torch.zeros(2, 1, *size)).shape == (2, 10)


def test_the_published_size_costs_what_was_published() -> None:
    """3×32×32: 0.29 PFLOP for 8 epochs of 50,000, backward counted as twice forward."""
    network = make(channels=3, size=(32, 32))
    multiplies = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal multiplies
        if isinstance(module, torch.nn.Conv2d):
            multiplies += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        module.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, 32, 32))
    assert 2 * 3 * multiplies * 50_000 * 8 == pytest.approx(0.29e15, rel=0.03)


def test_too_deep_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing"):
        make(depth=4)


def test_what_is_usual_is_a_recipe() -> None:
    from neocog.config import Recipe
    from neocog.settings import from_dict

    for name in USUAL:
        assert from_dict(Recipe, usual(name)) != Recipe()
    usual("speednet")["optim"]["name"] = "changed"
    assert usual("speednet")["optim"]["name"] == "muon"
