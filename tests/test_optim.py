"""Every rule against NumPy written from its formula; Muon's matrices; penalties; clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neocog.config import OptimRecipe
from neocog.engine import optim
from neocog.engine.muon import orthogonal, working_type
from neocog.errors import ConfigError, RunError

RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon")
STEPS = 6


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other cost more than such small tensors do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Valley(nn.Module):
    """f(w) = Σ (a·w² / 2 + sin w): its gradient a·w + cos w is easy in NumPy and not linear."""

    def __init__(self, shape: tuple[int, ...] = (5, 4), layout=torch.contiguous_format) -> None:
        super().__init__()
        draw = np.random.default_rng(3)
        start = torch.tensor(draw.normal(size=shape))
        self.weight = nn.Parameter(start.contiguous(memory_format=layout))
        self.a = torch.tensor(draw.uniform(0.5, 3, size=shape))

    def forward(self) -> torch.Tensor:
        return (self.a * self.weight**2 / 2 + self.weight.sin()).sum()

    def slope(self, w: np.ndarray) -> np.ndarray:
        return self.a.numpy() * w + np.cos(w)


def descend(valley: Valley, recipe: OptimRecipe, steps: int = STEPS) -> list[np.ndarray]:
    optimizers = optim.build(valley, recipe, beside=() if recipe.name == "muon" else None)
    path = []
    for _ in range(steps):
        optimizers.zero_grad()
        valley().backward()
        optimizers.step()
        path.append(valley.weight.detach().numpy().copy())
    return path


def follow(rule: str, valley: Valley, *, textbook: bool, eps: float = 1e-3) -> list[np.ndarray]:
    """The rules as formulas. `textbook`: as published; else with torch's place for ε."""
    w = valley.weight.detach().numpy().copy()
    h, second, lr = np.zeros_like(w), np.zeros_like(w), 0.05
    path = []
    for t in range(1, STEPS + 1):
        g = valley.slope(w)
        root = (lambda s: np.sqrt(s + eps)) if textbook else (lambda s: np.sqrt(s) + eps)
        if rule == "sgd":
            w = w - lr * g
        elif rule == "momentum":
            h = 0.8 * h + lr * g
            w = w - h
        elif rule == "nesterov" and textbook:
            h = 0.8 * h + lr * valley.slope(w - 0.8 * h)
            w = w - h
            path.append(w - 0.8 * h)  # the look-ahead point, which is what torch stores
            continue
        elif rule == "nesterov":
            h = 0.8 * h + g
            w = w - lr * (g + 0.8 * h)
        elif rule == "adagrad":
            second = second + g**2
            w = w - lr * g / root(second)
        elif rule == "rmsprop":
            second = 0.9 * second + 0.1 * g**2
            w = w - lr * g / root(second)
        else:  # adam, adamw
            if rule == "adamw":
                w = w * (1 - lr * 0.3)
            h = 0.9 * h + 0.1 * g
            second = 0.99 * second + 0.01 * g**2
            unbiased = second / (1 - 0.99**t)
            w = w - lr * (h / (1 - 0.9**t)) / (np.sqrt(unbiased) + eps)
        path.append(w)
    return path


def recipe_of(rule: str, **more: object) -> OptimRecipe:
    return OptimRecipe(
        name=rule,
        **{
            "lr": 0.05,
            "momentum": 0.8,
            "alpha": 0.9,
            "betas": (0.9, 0.99),
            "eps": 1e-3,
            "weight_decay": 0.3 if rule == "adamw" else 0.0,
        }
        | more,
    )


@pytest.mark.parametrize("rule", RULES[:-1])
def test_each_rule_follows_its_formula(rule: str) -> None:
    got = descend(Valley(), recipe_of(rule))
    np.testing.assert_allclose(got, follow(rule, Valley(), textbook=False), rtol=1e-9)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_torch_and_the_textbook_agree_at_a_constant_rate(rule: str) -> None:
    got = descend(Valley(), recipe_of(rule))
    np.testing.assert_allclose(got, follow(rule, Valley(), textbook=True), rtol=1e-9)


@pytest.mark.parametrize("rule", ["adagrad", "rmsprop"])
def test_the_place_of_epsilon_is_all_that_differs_from_the_textbook(rule: str) -> None:
    got = np.array(descend(Valley(), recipe_of(rule)))
    assert np.abs(got - follow(rule, Valley(), textbook=True)).max() > 1e-4
    got = np.array(descend(Valley(), recipe_of(rule, eps=1e-14)))
    np.testing.assert_allclose(got, follow(rule, Valley(), textbook=True, eps=1e-14), atol=1e-6)


@pytest.mark.parametrize("rule", ["momentum", "rmsprop", "adam"])
def test_decay_is_the_l2_gradient_except_where_it_is_decoupled(rule: str) -> None:
    valley, decayed = Valley(), Valley()
    with torch.no_grad():
        decayed.a += 0.3  # λw on top of a·w
    np.testing.assert_allclose(
        descend(valley, recipe_of(rule, weight_decay=0.3)),
        descend(decayed, recipe_of(rule)),
        rtol=1e-9,
    )


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five quintic steps in double precision, coefficients of the Muon post."""
    x = matrix / np.linalg.norm(matrix)
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if flip else x


@pytest.mark.parametrize("shape", [(6, 4), (4, 2, 3, 3)])
def test_muon_follows_its_formula(shape: tuple[int, ...]) -> None:
    lr, decay, mu = 0.05, 0.1, 0.8
    valley = Valley(shape)
    w = valley.weight.detach().numpy().reshape(shape[0], -1).copy()
    buffer = np.zeros_like(w)
    path = []
    for _ in range(STEPS):
        g = valley.slope(w.reshape(shape)).reshape(w.shape)
        buffer = mu * buffer + (1 - mu) * g
        update = newton_schulz((1 - mu) * g + mu * buffer)
        w = w * (1 - lr * decay) - lr * 0.2 * math.sqrt(max(w.shape)) * update
        path.append(w.reshape(shape))
    got = descend(valley, recipe_of("muon", weight_decay=decay))
    # torch iterates in bfloat16 (8 bits): a step is good to about one part in a hundred.
    largest = lr * 0.2 * math.sqrt(max(w.shape))
    np.testing.assert_allclose(got, path, atol=0.03 * largest * STEPS)


def strange(shape: tuple[int, ...]) -> nn.Parameter:
    """A weight whose memory order has no out × rest view."""
    flat = torch.tensor(np.random.default_rng(3).normal(size=shape))
    return nn.Parameter(flat.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2))


@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "strange"])
def test_muon_on_a_kernel_is_torch_muon_on_its_matrix(kind: str) -> None:
    shape = (6, 3, 2, 2)
    layout = torch.channels_last if kind == "channels_last" else torch.contiguous_format
    valley = Valley(shape, layout)
    if kind == "strange":
        valley.weight = strange(shape)
        assert not valley.weight.is_contiguous()
    strides = valley.weight.stride()
    matrix = nn.Parameter(valley.weight.detach().contiguous().reshape(6, -1).clone())
    reference = torch.optim.Muon(
        [matrix], lr=0.05, momentum=0.8, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    got = descend(valley, recipe_of("muon", weight_decay=0.1))
    for step in range(STEPS):
        matrix.grad = torch.tensor(valley.slope(matrix.detach().numpy().reshape(shape))).reshape(
            6, -1
        )
        reference.step()
        want = matrix.detach().reshape(shape).numpy()
        # The order of the columns changes the order of bfloat16 sums.
        tolerance = {"atol": 0.0 if kind == "contiguous" else 2e-3, "rtol": 0}
        np.testing.assert_allclose(got[step], want, **tolerance)
    assert valley.weight.stride() == strides


class Net(nn.Module):
    """One of everything that Muon must tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.hidden = nn.Linear(8, 8)
        self.table = nn.Embedding(4, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (self.depthwise(self.norm(self.conv(x))) * self.scale).mean((2, 3))
        return self.head(self.hidden(x).relu() + self.table.weight.mean(0))


def loss_of(net: nn.Module, step: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(step)
    images = torch.randn(4, 3, 8, 8, generator=draw).contiguous(memory_format=torch.channels_last)
    return net(images).square().sum()


def train(net: nn.Module, optimizers: optim.Optimizers, first: int, last: int) -> None:
    for step in range(first, last):
        optimizers.zero_grad()
        loss_of(net, step).backward()
        optimizers.set_lr(0.01 / (1 + step))
        optimizers.step()


def make(rule: str, layout=torch.channels_last) -> tuple[Net, optim.Optimizers]:
    torch.manual_seed(1)
    net = Net().to(memory_format=layout)
    return net, optim.build(net, OptimRecipe(name=rule))


def test_muon_takes_matrices_and_leaves_the_rest() -> None:
    net, optimizers = make("muon")
    train(net, optimizers, 0, 1)
    state = optimizers.state_dict()["state"]
    by_muon = {name for name, held in state.items() if "momentum_buffer" in held}
    assert by_muon == {"conv.weight", "hidden.weight"}
    assert state.keys() == {name for name, _ in net.named_parameters()}
    assert state["conv.weight"]["momentum_buffer"].shape == net.conv.weight.shape
    all_of_them = optim.build(net, OptimRecipe(name="muon"), beside=["conv.weight"])
    train(net, all_of_them, 0, 1)
    state = all_of_them.state_dict()["state"]
    assert {name for name, held in state.items() if "momentum_buffer" in held} == {
        "hidden.weight",
        "head.weight",
    }
    with pytest.raises(ConfigError, match="no trainable parameter is called 'hed"):
        optim.build(net, OptimRecipe(name="muon"), beside=["hed.weight"])


def test_a_network_that_is_all_head_still_trains_with_muon() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    before = net[0].weight.detach().clone()
    optimizers = optim.build(net, OptimRecipe(name="muon"))
    net(torch.ones(1, 3)).sum().backward()
    optimizers.step()
    assert not torch.equal(before, net[0].weight)
    conv = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 1))
    assert optim.head_names(conv) == {"1.weight"}


@pytest.mark.parametrize("rule", RULES)
def test_decay_spares_vectors_and_frozen_weights_stay(rule: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
    net[2].requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizers = optim.build(net, OptimRecipe(name=rule, weight_decay=0.5, lr=0.1))
    for parameter in optimizers.parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step()
    for name, value in net.named_parameters():
        moved = not torch.equal(value, before[name])
        assert moved == (name in ("0.weight", "3.weight")), name


@pytest.mark.parametrize("rule", RULES)
def test_layout_does_not_matter(rule: str) -> None:
    """Fused kernels walk memory blindly; a mix-up of layouts would show here."""
    nets = [make(rule, layout) for layout in (torch.contiguous_format, torch.channels_last)]
    for net, optimizers in nets:
        train(net, optimizers, 0, 3)
    tolerance = 2e-3 if rule == "muon" else 1e-4
    for one, other in zip(nets[0][0].parameters(), nets[1][0].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rule", ["momentum", "adamw", "muon"])
def test_a_change_of_layout_on_the_way_is_noticed(rule: str) -> None:
    still, moved = make(rule, torch.contiguous_format), make(rule, torch.contiguous_format)
    for net, optimizers in (still, moved):
        train(net, optimizers, 0, 2)
    moved[0].to(memory_format=torch.channels_last)
    assert moved[0].conv.weight.stride() != still[0].conv.weight.stride()
    for net, optimizers in (still, moved):
        train(net, optimizers, 2, 5)
    tolerance = 2e-3 if rule == "muon" else 1e-4
    for one, other in zip(still[0].parameters(), moved[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def test_a_gradient_of_another_layout_is_laid_out_anew() -> None:
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        valley = Valley((4, 3, 2, 2), torch.channels_last)
        valley.weight.grad = torch.arange(48.0, dtype=torch.float64).reshape(4, 3, 2, 2)
        valley.weight.grad = valley.weight.grad.contiguous(memory_format=layout)
        optim.build(valley, OptimRecipe(name="momentum", lr=0.1)).step()
        results.append(valley.weight.detach())
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_loaded_state_goes_on_bit_for_bit(rule: str, layout: torch.memory_format) -> None:
    net, optimizers = make(rule, layout)
    train(net, optimizers, 0, 3)
    fresh, again = make(rule, layout)
    fresh.load_state_dict(net.state_dict())
    again.load_state_dict(optimizers.state_dict())
    assert again.lr == optimizers.lr
    train(net, optimizers, 3, 6)  # must not reach into the copy
    train(fresh, again, 3, 6)
    for one, other in zip(net.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_foreign_states_are_refused() -> None:
    net, optimizers = make("adam")
    train(net, optimizers, 0, 1)
    saved = optimizers.state_dict()
    with pytest.raises(RunError, match="belongs to adam, this recipe says momentum"):
        make("momentum")[1].load_state_dict(saved)
    odd = {**saved, "state": {"tail.weight": saved["state"]["head.weight"]}}
    with pytest.raises(RunError, match=r"has tail\.weight"):
        optimizers.load_state_dict(odd)
    odd = {**saved, "state": {"conv.weight": saved["state"]["head.weight"]}}
    with pytest.raises(RunError, match=r"shape \(5, 8\)"):
        optimizers.load_state_dict(odd)


def test_nothing_to_train_and_a_nesterov_without_momentum_are_refused() -> None:
    with pytest.raises(ConfigError, match="no parameter to train"):
        optim.build(nn.Linear(1, 1).requires_grad_(False), OptimRecipe())
    with pytest.raises(ConfigError, match="momentum above 0"):
        optim.build(nn.Linear(1, 1), OptimRecipe(name="nesterov", momentum=0.0))


@pytest.mark.parametrize("rule", RULES)
def test_defaults_learn(rule: str) -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 16)]
    net = nn.Sequential(*parts, nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1))
    optimizers = optim.build(net, OptimRecipe(name=rule))
    assert optimizers.lr == optim.RATES[rule]
    x = torch.randn(64, 2)
    losses = []
    for _ in range(60):
        optimizers.zero_grad()
        loss = (net(x) - x.prod(1, keepdim=True)).square().mean()
        loss.backward()
        optimizers.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_the_gradient_scaler_accepts_it(rule: str) -> None:
    plain, scaled = make(rule), make(rule)
    train(*plain, 0, 2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    net, optimizers = scaled
    for step in range(2):
        optimizers.zero_grad()
        scaler.scale(loss_of(net, step)).backward()
        optimizers.set_lr(0.01 / (1 + step))
        scaler.unscale_(optimizers)
        scaler.step(optimizers)
        scaler.update()
    for one, other in zip(plain[0].parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    net.head.weight.grad.fill_(math.inf)
    before = net.head.weight.detach().clone()
    scaler.scale(torch.ones(()))
    scaler.unscale_(optimizers)
    scaler.step(optimizers)
    assert torch.equal(before, net.head.weight)


def test_centralize_is_the_mean_over_all_axes_but_the_first() -> None:
    shapes = [(4, 3, 2, 2), (5, 3), (7,), (6, 1)]
    draw = np.random.default_rng(0)
    grads = [draw.normal(size=shape) for shape in shapes]
    parameters = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    parameters.append(nn.Parameter(torch.zeros(2, 2)))  # has no gradient
    optim.centralize(parameters)
    want = [
        grads[0] - grads[0].mean(axis=(1, 2, 3), keepdims=True),
        grads[1] - grads[1].mean(axis=1, keepdims=True),
        grads[2],
        grads[3],
    ]
    for parameter, value in zip(parameters, want, strict=False):
        np.testing.assert_allclose(parameter.grad, value, rtol=1e-12)


@settings(deadline=None, max_examples=25)
@given(*[st.floats(0, 2) for _ in range(4)])
def test_the_penalty_and_its_slope(l1: float, l2: float, elastic: float, beta: float) -> None:
    recipe = OptimRecipe(l1=l1, l2=l2, elastic=elastic, elastic_beta=beta)
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Linear(2, 2)).double()
    net[1].weight.requires_grad_(False)
    w = net[0].weight.detach().numpy().copy()

    def value(w: np.ndarray) -> float:
        return (
            l1 * np.abs(w).sum()
            + l2 * (w**2).sum()
            + elastic * (beta * (w**2).sum() + np.abs(w).sum())
        )

    got = optim.penalty(net.parameters(), recipe)
    if got is None:
        assert l1 == l2 == elastic == 0 or value(w) == pytest.approx(0, abs=1e-300)
        return
    assert got.item() == pytest.approx(value(w), rel=1e-9)
    got.backward()
    assert net[0].bias.grad is None
    for index in [(0, 0, 0, 0), (1, 1, 0, 1)]:
        up, down = w.copy(), w.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        slope = (value(up) - value(down)) / 2e-6
        assert net[0].weight.grad[index].item() == pytest.approx(slope, abs=1e-6)


def test_clip_bounds_the_norm_and_reports_it() -> None:
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    one.grad, two.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    idle = nn.Parameter(torch.zeros(3))
    assert optim.clip([one, two, idle], 0.0).item() == 5.0
    assert two.grad.item() == 4.0
    assert optim.clip([one, two, idle], 10.0).item() == 5.0
    assert two.grad.item() == 4.0
    assert optim.clip([one, two, idle], 1.0).item() == 5.0
    np.testing.assert_allclose([*one.grad, *two.grad], [0.6, 0.0, 0.8], rtol=1e-5)
    two.grad.fill_(math.nan)
    assert not torch.isfinite(optim.clip([one, two], 1.0))


@settings(deadline=None)
@given(
    rows=st.integers(2, 12),
    columns=st.integers(2, 40),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_orthogonal_keeps_the_singular_vectors(
    rows: int, columns: int, seed: int, dtype: torch.dtype
) -> None:
    """Against NumPy's decomposition: the singular values come near 1, the vectors stay."""
    chance = np.random.default_rng(seed)
    u, _, v = np.linalg.svd(chance.normal(size=(rows, columns)), full_matrices=False)
    values = np.linspace(1, 0.2, len(v))
    got = orthogonal(torch.tensor(u * values @ v, dtype=torch.float32), dtype).float().numpy()
    core = u.T @ got @ v.T
    slack = 0.02 if dtype == torch.float32 else 0.08
    assert (np.diag(core) > 0.65 - slack).all()
    assert (np.diag(core) < 1.25 + slack).all()
    np.testing.assert_allclose(core - np.diag(np.diag(core)), 0, atol=slack)


@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
def test_muon_does_not_emulate_bfloat16(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert working_type(torch.device("cpu")) == torch.float32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalised_kernels_move_by_a_share_of_themselves(layout) -> None:
    """Before a step a kernel has a norm of √rows, and the step turns it by lr, in spectral norm."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2)).to(memory_format=layout)
    kernel = net[0].weight
    optimizers = optim.build(
        net, OptimRecipe(name="muon", normalize=True, lr=0.1, momentum=0.0, beside=0.25)
    )
    before = kernel.detach().clone()
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradient = kernel.grad.detach().clone().reshape(8, -1)
    optimizers.step()
    scaled = before * (8**0.5 / before.norm())
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    step = (scaled - kernel.detach()).reshape(8, -1)
    turned = u.T @ step @ v.T / 0.1
    assert ((turned.diagonal() > 0.5) & (turned.diagonal() < 1.35)).all()  # bfloat16, perhaps
    assert [one["lr"] for part, _ in optimizers._parts for one in part.param_groups][:1] == [0.1]
    optimizers.set_lr(0.04)
    rates = {type(part).__name__: part.param_groups[0]["lr"] for part, _ in optimizers._parts}
    assert rates == {"Muon": pytest.approx(0.04), "AdamW": pytest.approx(0.01)}
