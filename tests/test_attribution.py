"""Why this answer: equal to Captum's where it computes the same, and no harm to any network."""

from __future__ import annotations

import captum.attr as captum
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attributed import NETS, Functional, Twice, built, lived_in, pictures, quietly
from neocog import chance
from neocog.errors import ConfigError, NeocogError
from neocog.explain.why.gradients import guided_backprop, input_gradient, smooth_gradient
from neocog.explain.why.methods import METHODS, explain_answer
from neocog.explain.why.target import chosen
from untouched import untouched

EQUAL = {"atol": 1e-4, "rtol": 1e-4}


def margin(output: Tensor) -> Tensor:
    return output[:, 1] - output[:, 2]


# -- the number that is explained -----------------------------------------------------------------


def test_a_target_is_an_output_one_for_each_picture_or_a_function() -> None:
    output = torch.arange(6.0).reshape(2, 3)
    assert chosen(output, 2).tolist() == [2, 5]
    assert chosen(output, torch.tensor([2, 0])).tolist() == [2, 3]
    assert chosen(output, margin).tolist() == [-1, -1]
    assert chosen(output[:, 0], 0).tolist() == [0, 3]
    dense = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert chosen(dense, 1).tolist() == [4 + 5 + 6 + 7, 16 + 17 + 18 + 19]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "expected outputs 0 … 2, found 3"),
        (-1, "expected outputs 0 … 2, found -1"),
        (torch.tensor([0, 1, 2]), "for each of 2 pictures"),
        (lambda y: y, "expected 2 numbers"),
        (lambda y: 3.0, "found float"),
    ],
)
def test_a_target_that_is_none_is_refused(target: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(torch.zeros(2, 3), target)  # type: ignore[arg-type]


# -- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", [3, torch.tensor([4, 0])], ids=["one", "each"])
def test_the_input_gradient_is_captums(name: str, target: int | Tensor) -> None:
    net, x = built(name), pictures()
    found = input_gradient(net, x, target, batch=1)
    theirs = quietly(captum.Saliency(lambda x: net(x.clone())).attribute, x, target, abs=False)
    torch.testing.assert_close(found.values, theirs, **EQUAL)
    with torch.no_grad():
        torch.testing.assert_close(found.answer, chosen(net(x.clone()), target).double())


def test_the_gradient_of_a_function_of_the_answer_is_that_of_finite_differences() -> None:
    net, x = built("plain").double(), pictures(1).double()
    found = input_gradient(net, x, margin).values
    for place in ((0, 0, 3, 4), (0, 2, 15, 0), (0, 1, 8, 8)):
        step = torch.zeros_like(x)
        step[place] = 1e-6
        with torch.no_grad():
            slope = (margin(net(x + step)) - margin(net(x - step))) / 2e-6
        assert float(found[place]) == pytest.approx(float(slope), abs=1e-6)


def test_smooth_gradients_are_the_mean_over_noisy_pictures() -> None:
    net, x = built("plain"), pictures()
    found = smooth_gradient(net, x, 1, noise=0.2, samples=5, batch=2, seed=3)
    for row in range(2):
        total = torch.zeros_like(x[row])
        for sample in range(5):
            # Box and Muller, by hand.
            key = chance.key(3, "smooth gradient", row, sample)
            ids = np.arange(x[row].numel())
            a, b = ((chance.draw(key, ids, at) + 0.5) / 2**32 for at in (0, 1))
            drawn = np.sqrt(-2 * np.log(a)) * np.cos(2 * np.pi * b)
            spread = 0.2 * (x[row].max() - x[row].min())
            noise = torch.from_numpy(drawn).float().reshape(x[row].shape)
            noisy = (x[row] + spread * noise)[None].requires_grad_(True)
            total += torch.autograd.grad(net(noisy)[0, 1], noisy)[0][0]
        torch.testing.assert_close(found.values[row], total / 5, **EQUAL)
    plainly = smooth_gradient(net, x, 1, noise=0, samples=1)
    torch.testing.assert_close(plainly.values, input_gradient(net, x, 1).values)


def test_noise_is_of_the_size_that_was_asked_for() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**2).sum((1, 2, 3))[:, None] / 2

    # The gradient is the noisy picture itself, so the mean strays by noise / √samples.
    x = torch.linspace(-1, 3, 3 * 40 * 40).reshape(1, 3, 40, 40)
    found = smooth_gradient(Square(), x, 0, noise=0.1, samples=16).values
    assert float((found - x).std()) == pytest.approx(0.4 / 4, rel=0.05)
    assert abs(float((found - x).mean())) < 4 * 0.1 / 4800**0.5


# -- guided backprop ------------------------------------------------------------------------------


def test_guided_backprop_is_captums_where_every_relu_is_a_module() -> None:
    net, x = built("plain"), pictures()
    theirs = quietly(captum.GuidedBackprop(net).attribute, x, target=2)
    found = guided_backprop(net, x, 2, batch=1)
    torch.testing.assert_close(found.values, theirs, **EQUAL)
    assert found.note == ""
    assert not torch.allclose(found.values, input_gradient(net, x, 2).values, **EQUAL)
    inplace = guided_backprop(built("in place"), x, 2)
    torch.testing.assert_close(inplace.values, theirs, **EQUAL)


def test_a_relu_that_runs_twice_is_guided_twice() -> None:
    net, x = built("twice"), pictures()

    class Unrolled(nn.Module):
        """The same numbers, with modules of their own as Captum wants them."""

        def __init__(self, net: Twice) -> None:
            super().__init__()
            self.net = net
            self.one, self.two = nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(self.net.again(self.net.first(x)))
            return self.net.out(self.two(self.net.again(x)).mean((2, 3)))  # type: ignore[no-any-return]

    assert isinstance(net, Twice)
    theirs = quietly(captum.GuidedBackprop(Unrolled(net)).attribute, x, target=2)
    torch.testing.assert_close(guided_backprop(net, x, 2).values, theirs, **EQUAL)


@pytest.mark.parametrize(
    "relu",
    [
        torch.relu,
        torch.relu_,
        F.relu_,
        lambda x: x.relu(),
        lambda x: F.relu(x, inplace=True),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_(min=0),
        lambda x: x.clamp_min(0),
        lambda x: F.threshold(x, 0, 0),
        lambda x: torch.clamp(x, 0, 1e6),
        lambda x: F.hardtanh(x, 0, 1e6),
        lambda x: F.relu6(x / 1e3) * 1e3,
    ],
)
def test_a_relu_is_what_runs_as_one(relu: object) -> None:
    torch.manual_seed(0)
    net = lived_in(Functional(relu))  # type: ignore[arg-type]

    class Modules(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.two(net.second(self.one(net.first(x - 0.1))))  # type: ignore[operator]
            x = F.max_pool2d(x, 2)
            return net.out(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return,operator]

    x = pictures()
    theirs = quietly(captum.GuidedBackprop(Modules()).attribute, x, target=2)
    found = guided_backprop(net, x, 2)
    torch.testing.assert_close(found.values, theirs, **EQUAL)
    assert found.note == ""


@pytest.mark.parametrize("other", [F.silu, torch.tanh, lambda x: F.hardtanh(x), F.leaky_relu])
def test_what_is_no_relu_is_left_alone_and_said(other: object) -> None:
    net, x = lived_in(Functional(other)), pictures()  # type: ignore[arg-type]
    found = guided_backprop(net, x, 2)
    torch.testing.assert_close(found.values, input_gradient(net, x, 2).values)
    assert "no ReLU ran" in found.note


# -- every method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_no_method_changes_a_network(name: str, method: str) -> None:
    net, x = built(name).train(), pictures(1)
    net.register_forward_hook(lambda *_: None)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    told: list[tuple[int, int]] = []
    with untouched(net, x):
        found = explain_answer(net, x, 1, method, progress=lambda *at: told.append(at))
    assert found.method == method
    assert found.values.shape in ((1, 3, 16, 16), (1, 1, 16, 16))
    assert found.values.isfinite().all()
    assert not found.values.requires_grad
    assert bool(found.layer) == METHODS[method].layer
    assert (found.gap is not None) == METHODS[method].complete
    assert all(done <= whole for done, whole in told)
    assert not told or told[-1][0] == told[-1][1]
    with torch.no_grad():
        net.eval()
        torch.testing.assert_close(found.answer, net(x.clone())[:, 1].double())


def test_the_helper_sees_what_is_changed() -> None:
    net, x = built("in place"), pictures(1)
    spoilers = [
        lambda: net.train(),
        lambda: net[0].register_forward_hook(lambda *_: None),
        lambda: net[1].running_mean.add_(1),
        lambda: net(x).sum().backward(),
        lambda: net[0].weight.requires_grad_(False),
        lambda: torch.rand(1),
        lambda: x.mul_(1),
    ]
    for spoil in spoilers:
        with torch.no_grad() if spoil is not spoilers[3] else torch.enable_grad():  # noqa: SIM117
            with pytest.raises(AssertionError, match="was changed"), untouched(net, x):
                spoil()


@pytest.mark.parametrize("method", METHODS)
def test_hooks_on_gradients_are_not_asked(method: str) -> None:
    """They would change what is explained, and cannot stand before what works in place."""
    net, x = built("in place"), pictures(1)
    expected = explain_answer(net, x, 1, method).values

    def spoil(*_: object) -> None:
        raise AssertionError("a hook of the caller's ran")

    net[1].register_full_backward_hook(spoil)  # type: ignore[operator,index]
    net[2].register_full_backward_pre_hook(spoil)  # type: ignore[operator,index]
    net[0].weight.register_hook(spoil)  # type: ignore[operator,index,union-attr]
    with untouched(net, x):
        torch.testing.assert_close(explain_answer(net, x, 1, method).values, expected)


@pytest.mark.parametrize("method", ["input_gradient", "guided_backprop", "integrated_gradients"])
def test_it_does_not_matter_in_which_mode_the_caller_is(method: str) -> None:
    net, x = built("dense"), pictures(1)
    expected = explain_answer(net, x, 1, method).values
    with torch.inference_mode():
        torch.testing.assert_close(explain_answer(net, x, 1, method).values, expected)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(explain_answer(net, x, 1, method).values, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_a_network_on_a_gpu_is_asked_there(method: str) -> None:
    net, x = built("dense"), pictures()
    here = explain_answer(net, x, torch.tensor([1, 3]), method)
    net, state = net.cuda(), torch.cuda.get_rng_state()
    for given in (x, x.cuda()):
        there = explain_answer(net, given, torch.tensor([1, 3]), method)
        torch.testing.assert_close(there.values, here.values, atol=1e-2, rtol=1e-2)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_what_is_drawn_in_a_forward_is_the_same_every_time() -> None:
    class Drawn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (F.dropout(x, 0.5, training=True)).sum((1, 2, 3))[:, None]

    x = pictures(1)
    first, again = (input_gradient(Drawn(), x, 0, seed=1).values for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, input_gradient(Drawn(), x, 0, seed=2).values)


def test_errors_say_what_to_do() -> None:
    net, x = built("plain"), pictures(1)
    with pytest.raises(ConfigError, match="did you mean 'grad_cam'"):
        explain_answer(net, x, 0, "gradcam")
    with pytest.raises(ConfigError, match="takes no layer"):
        explain_answer(net, x, 0, "occlusion", layer="0")
    with pytest.raises(ConfigError, match="expected pictures B×C×H×W, found 3×16×16"):
        input_gradient(net, x[0], 0)
    with pytest.raises(ConfigError, match="one output for each of 1 pictures"):
        input_gradient(net, x, torch.tensor([0, 1]))
    with pytest.raises(NeocogError, match="1 pictures went in, an answer 5 came out"):
        input_gradient(nn.Sequential(net, nn.Flatten(0)), x, 0)
    with pytest.raises(NeocogError, match="no gradient"):
        input_gradient(nn.Sequential(net, Rounded()), x, 0)
    with pytest.raises(NeocogError, match="not finite"):
        input_gradient(net, x, lambda y: torch.sqrt(0 * y[:, 0]))
    with pytest.raises(ConfigError, match="batch=0"):
        input_gradient(net, x, 0, batch=0)


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float()
