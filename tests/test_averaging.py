"""The running average against its formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neocog.engine.averaging import Average, decay_at
from neocog.errors import RunError


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other cost more than such small tensors do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def net(layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    return made.to(memory_format=layout)


def shake(model: nn.Module, step: int) -> None:
    """Change every weight and the running statistics."""
    draw = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw))
        model(torch.randn(4, 2, 4, 4, generator=draw))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_average_is_its_formula(layout: torch.memory_format) -> None:
    model = net(layout)
    average = Average(model, 0.6)
    want = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    for step in range(1, 9):
        shake(model, step)
        average.update(model, step)
        d = min(0.6, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                want[name] = d * want[name] + (1 - d) * value.numpy()
            else:
                want[name] = value.numpy().copy()
    assert average.state["1.num_batches_tracked"] == 8
    for name, value in average.state.items():
        np.testing.assert_allclose(value.numpy(), want[name], rtol=1e-5, atol=1e-6)
    assert average.state["0.weight"].stride() == model[0].weight.stride()
    assert average.state.keys() == model.state_dict().keys()


def test_the_decay_warms_up() -> None:
    decays = [decay_at(0.99, step) for step in range(2000)]
    assert decays == sorted(decays)
    assert (decays[0], decays[-1]) == (0.1, 0.99)


def test_a_loaded_average_goes_on_bit_for_bit() -> None:
    model = net(torch.channels_last)
    average = Average(model, 0.9)
    for step in range(3):
        shake(model, step)
        average.update(model, step)
    again = Average(net(torch.channels_last), 0.9)
    again.load({name: value.contiguous() for name, value in average.state.items()})
    assert again.state["0.weight"].stride() == model[0].weight.stride()
    shake(model, 3)
    for one in (average, again):
        one.update(model, 3)
    for name, value in average.state.items():
        assert torch.equal(value, again.state[name])


def test_another_networks_average_is_refused() -> None:
    average = Average(net(), 0.9)
    with pytest.raises(RunError, match=r"'1\.weight' is in one only"):
        average.load({k: v for k, v in average.state.items() if k != "1.weight"})
    with pytest.raises(RunError, match=r"3\.bias of the saved average has shape \(5,\)"):
        average.load({**average.state, "3.bias": torch.zeros(5)})
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        Average(net(), 1.0)


def test_applied_lends_the_average_and_gives_the_weights_back() -> None:
    model = net()
    average = Average(model, 0.9)
    shake(model, 0)
    live = {name: value.clone() for name, value in model.state_dict().items()}

    def fail_inside() -> None:
        with average.applied(model):
            assert torch.is_grad_enabled()
            for name, value in model.state_dict().items():
                assert torch.equal(value, average.state[name])
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    for name, value in model.state_dict().items():
        assert torch.equal(value, live[name])


def test_half_precision_is_averaged_in_single() -> None:
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    average = Average(model, 0.999)
    nn.init.constant_(model.weight, 2.0)
    for _ in range(100):
        average.update(model, 10**6)
    assert average.state["weight"].item() == pytest.approx(2 - 0.999**100, rel=1e-5)
