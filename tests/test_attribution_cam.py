"""Grad-CAM against Captum and NumPy, at any layer of any network."""

from __future__ import annotations

import captum.attr as captum
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attributed import CATALOGUE, NETS, Functional, Twice, built, lived_in, pictures, quietly
from neocog.analysis.trace import TraceError
from neocog.errors import ConfigError
from neocog.explain.why.cam import grad_cam, grad_cam_pp
from neocog.models import catalog
from untouched import untouched

LAST = {
    "cnn": "head.pool",
    "lenet5": "head.pool4",
    "resnet18": "layer4",
    "densenet121": "trunk.relu5",
    "mobilenet_v2": "trunk.18",
    "efficientnet_b0": "trunk.8",
}


@pytest.mark.parametrize("layer", ["0", "1", "2", "4", "5"])
@pytest.mark.parametrize("target", [3, torch.tensor([4, 0])], ids=["one", "each"])
def test_grad_cam_is_captums_at_every_layer(layer: str, target: int | Tensor) -> None:
    net, x = built("plain"), pictures()
    method = captum.LayerGradCam(net, net.get_submodule(layer))
    theirs = quietly(method.attribute, x, target, relu_attributions=True)
    small = grad_cam(net, x, target, layer, resize=False, batch=1)
    torch.testing.assert_close(small.values, theirs, atol=1e-4, rtol=1e-4)
    large = captum.LayerAttribution.interpolate(theirs, (16, 16), "bilinear")
    found = grad_cam(net, x, target, layer)
    torch.testing.assert_close(found.values, large, atol=1e-4, rtol=1e-4)
    assert found.layer == layer


def test_what_is_written_over_afterwards_is_seen_as_it_was_said() -> None:
    x = pictures()
    for layer in ("1", "2", "5"):
        expected = grad_cam(built("plain"), x, 1, layer).values
        torch.testing.assert_close(grad_cam(built("in place"), x, 1, layer).values, expected)


def by_numpy(answer: Tensor, slope: Tensor) -> np.ndarray:
    """Chattopadhay et al. 2018, equations 8 and 19, with the derivatives of exp(y) over exp(y)."""
    a, g = answer.detach().double().numpy(), slope.double().numpy()
    maps = np.zeros((a.shape[0], 1, *a.shape[2:]))
    for b in range(a.shape[0]):
        for k in range(a.shape[1]):
            second, third = g[b, k] ** 2, g[b, k] ** 3
            below = 2 * second + a[b, k].sum() * third
            alpha = np.divide(second, below, out=np.zeros_like(below), where=below != 0)
            maps[b, 0] += (alpha * np.maximum(g[b, k], 0)).sum() * a[b, k]
    return np.maximum(maps, 0)


@pytest.mark.parametrize("layer", ["1", "2", "4"])
def test_grad_cam_pp_is_the_papers_formula(layer: str) -> None:
    net, x = built("plain"), pictures()
    number = int(layer) + 1
    answer = net[:number](x)  # type: ignore[index]
    slope = torch.autograd.grad(net[number:](answer)[:, 3].sum(), answer)[0]  # type: ignore[index]
    found = grad_cam_pp(net, x, 3, layer, resize=False)
    np.testing.assert_allclose(found.values.numpy(), by_numpy(answer, slope), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found.values, grad_cam(net, x, 3, layer, resize=False).values)


def test_the_runs_of_a_shared_module_are_told_apart() -> None:
    net, x = built("twice"), pictures()
    assert isinstance(net, Twice)
    first = net.again(net.first(x))
    second = net.again(F.relu(first))
    answer = net.out(F.relu(second).mean((2, 3)))[:, 2].sum()
    for layer, said in (("again", first), ("again#2", second)):
        slope = torch.autograd.grad(answer, said, retain_graph=True)[0]
        expected = F.relu((slope.mean((2, 3), keepdim=True) * said).sum(1, keepdim=True)).detach()
        found = grad_cam(net, x, 2, layer, resize=False).values
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert grad_cam(net, x, 2).layer == "relu#2"


@pytest.mark.parametrize("name", CATALOGUE)
def test_without_a_name_it_is_the_last_map(name: str) -> None:
    side = 32 if name == "lenet5" else 64
    net, x = built(name, (side, side)), pictures(1, (3, side, side))
    with untouched(net, x):
        found = grad_cam(net, x, 2)
    assert found.layer == LAST[name]
    assert found.values.shape == (1, 1, side, side)
    again = grad_cam(net, x, 2, LAST[name]).values
    torch.testing.assert_close(found.values, again)


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_a_map(name: str) -> None:
    found = grad_cam_pp(built(name), pictures(), 1)
    assert found.layer
    assert found.values.isfinite().all()


def test_a_map_of_one_position_is_passed_over() -> None:
    # At 32×32 the large stem leaves nothing of the picture to layer4.
    assert grad_cam(built("resnet18"), pictures(1, (3, 32, 32)), 2).layer == "layer3"


def test_of_a_dense_answer_it_is_the_last_map_before_it() -> None:
    net = lived_in(
        catalog.build("unet", channels=3, size=(32, 32), outputs=4, args={"width": 4, "depth": 2})
    )
    x = pictures(1, (3, 32, 32))
    found = grad_cam(net, x, 2)
    assert found.layer
    with torch.no_grad():
        torch.testing.assert_close(found.answer, net(x)[:, 2].sum((1, 2)).double())


def test_maps_with_the_channels_last_are_read_as_such() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).contiguous()

    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * x.sigmoid()).mean((1, 2))

    torch.manual_seed(0)
    conv, out = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)
    net, x = nn.Sequential(conv, Last(), Pool(), out), pictures()
    found, expected = grad_cam(net, x, 1, "1"), grad_cam(net, x, 1, "0")
    torch.testing.assert_close(found.values, expected.values)


class Choosing(nn.Module):
    """Its path depends on numbers, so it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Functional()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x if float(x.detach().mean()) > -10 else -x)
        return answer


def test_what_cannot_be_traced_is_explained_at_a_named_layer() -> None:
    net, x = Choosing(), pictures()
    with pytest.raises(TraceError):
        grad_cam(net, x, 0)
    expected = grad_cam(net.body, x, 0, "second").values
    torch.testing.assert_close(grad_cam(net, x, 0, "body.second").values, expected)
    with pytest.raises(ConfigError, match="2 axes, expected a map"):
        grad_cam(net, x, 0, "body.out")


def test_errors_name_the_layer() -> None:
    net, x = built("twice"), pictures()
    with pytest.raises(ConfigError, match="did you mean 'again'"):
        grad_cam(net, x, 0, "agian")
    with pytest.raises(ConfigError, match="out does not answer with a map"):
        grad_cam(net, x, 0, "out")
    with pytest.raises(ConfigError, match="no module of the network answers with a map"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), x, 0)
