"""The loss around weights: known in closed form, and the same however it is computed."""

import copy
import math
import re
import threading
import time
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neocog import plots
from neocog.errors import ConfigError, NeocogError
from neocog.explain.landscape.plane import Path, filter_directions, path_directions, project
from neocog.explain.landscape.surface import Profile, Samples, affordable, profile, surface
from neocog.plots.surface import Track, landscape, relief


def network(seed: int = 0) -> nn.Sequential:
    """All kinds of weights, in-place activations and a frozen one."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4, 6, 2, groups=2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 49, 3),
    )
    net[6].bias.requires_grad_(False)
    return net


def samples(n: int = 20) -> Samples:
    rng = np.random.default_rng(0)
    return Samples(
        inputs=torch.from_numpy(rng.normal(size=(n, 2, 6, 6)).astype(np.float32)),
        targets=torch.from_numpy(rng.integers(0, 3, n)),
        criterion=nn.functional.cross_entropy,
        batch=8,
    )


# -- directions -----------------------------------------------------------------------------------


def test_filters_of_directions_are_as_long_as_those_of_the_network() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight[1] = 0  # a dead filter stays dead
    first, second = filter_directions(net, seed=3)
    assert set(first) == set(second) == {"0.weight", "3.weight", "6.weight"}
    for direction in (first, second):
        for name, step in direction.items():
            weight, step = net.get_parameter(name).detach().numpy(), step.numpy()
            if name == "3.weight":
                # 4 inputs × 3 outputs of each of 2 groups: 6 filters of 2 inputs each.
                pairs = [(weight[g : g + 2, o], step[g : g + 2, o]) for g in (0, 2) for o in (0, 1)]
            else:
                pairs = list(zip(weight, step, strict=True))
            for one, other in pairs:
                assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(one), rel=1e-5)
    assert not first["0.weight"][1].any()
    # Different from each other and with each seed, equal with the same.
    one, other = (direction["6.weight"].flatten().numpy() for direction in (first, second))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(one.size)
    again, _ = filter_directions(net, seed=3)
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert not torch.equal(filter_directions(net, seed=4)[0]["6.weight"], first["6.weight"])


def test_directions_are_normal_before_they_are_scaled() -> None:
    net = nn.Linear(20_000, 1, bias=False)
    step = filter_directions(net)[0]["weight"].numpy().ravel()
    step /= step.std()
    assert abs(step.mean()) < 0.03
    assert abs((np.abs(step) < 1).mean() - 0.6827) < 0.015
    assert abs((np.abs(step) < 2).mean() - 0.9545) < 0.007


def test_a_network_without_filters_has_no_directions() -> None:
    with pytest.raises(NeocogError, match="two axes or more"):
        filter_directions(nn.BatchNorm2d(3))


# -- surfaces -------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """Loss θᵀAθ/2 of its own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]))
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x


A = np.array([1.0, 4.0, 0.5, 2.0, 3.0, 1.0])


def quadratic(module: nn.Module) -> float:
    weight = module.get_parameter("weight").double().flatten().numpy()
    return float(weight @ (A * weight) / 2 + module.get_parameter("scale") - 2)


def test_a_quadratic_network_has_the_surface_of_the_formula() -> None:
    net = Quadratic()
    found = surface(net, quadratic, side=7, span=((-1, 1), (-0.5, 2)), seed=1)
    one, other = (d["weight"].double().flatten().numpy() for d in filter_directions(net, seed=1))
    base = net.weight.detach().double().flatten().numpy()
    assert found.x.tolist() == np.linspace(-1, 1, 7).tolist()
    assert found.y.tolist() == np.linspace(-0.5, 2, 7).tolist()
    wanted = np.empty((7, 7))
    for row, y in enumerate(found.y):
        for column, x in enumerate(found.x):
            at = base + x * one + y * other
            wanted[row, column] = at @ (A * at) / 2
    assert found.loss == pytest.approx(wanted, rel=1e-5)
    assert found.centre == pytest.approx(base @ (A * base) / 2, rel=1e-6)
    row, column = np.unravel_index(wanted.argmin(), wanted.shape)
    assert found.lowest[:2] == (found.x[column], found.y[row])
    assert found.samples is None


def test_the_centre_is_the_loss_of_the_network_in_use() -> None:
    net, loss = network(), samples()
    found = surface(net, loss, side=5, threads=1)
    net.eval()
    with torch.no_grad():
        wanted = float(nn.functional.cross_entropy(net(loss.inputs.clone()), loss.targets))
    assert found.centre == pytest.approx(wanted, rel=1e-5)
    assert found.loss[2, 2] == found.centre
    assert found.samples == 20
    # Any point, by weights set by hand.
    one, other = filter_directions(net)
    with torch.no_grad():
        for name in one:
            net.get_parameter(name).add_(-0.5 * one[name] + 1.0 * other[name])
        wanted = float(nn.functional.cross_entropy(net(loss.inputs.clone()), loss.targets))
    assert (found.x[1], found.y[4]) == (-0.5, 1)
    assert found.loss[4, 1] == pytest.approx(wanted, rel=1e-4)


def test_threads_change_no_value_and_torch_keeps_its_number() -> None:
    before = torch.get_num_threads()
    net, loss = network(), samples()
    seen = set()

    def watched(module: nn.Module) -> float:
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return loss(module)

    one = surface(net, watched, side=7, threads=1)
    two = surface(net, watched, side=7, threads=2)
    three = surface(net, loss, side=7, threads=3)
    assert np.array_equal(one.loss, two.loss)
    assert np.array_equal(one.loss, three.loss)
    assert (one.threads, two.threads, three.threads) == (1, 2, 3)
    assert {number for who, number in seen if who != threading.get_ident()} == {1}
    assert torch.get_num_threads() == before
    told: list[int] = []
    late = threading.Thread(target=lambda: told.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert told == [before]


def test_the_network_and_the_caller_s_chance_are_left_alone() -> None:
    net = network().train()
    net[0].register_forward_hook(lambda *_: None)
    net(torch.randn(2, 2, 6, 6)).sum().backward()
    hooks = len(net[0]._forward_hooks)
    state = copy.deepcopy(net.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    asks = [p.requires_grad for p in net.parameters()]
    other = network(5).state_dict()
    chance = torch.get_rng_state()
    surface(net, samples(), side=5, threads=2)
    profile(net, samples(), state, state, points=3)
    directions = path_directions(net, [other])
    project(net, [state], directions)
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert net.training
    assert net[1].training
    assert asks == [p.requires_grad for p in net.parameters()]
    for before, weight in zip(gradients, net.parameters(), strict=True):
        assert before is None or torch.equal(before, weight.grad)
    assert len(net[0]._forward_hooks) == hooks


class Noisy(nn.Module):
    """Draws whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1) + torch.randn(len(x), 72))


def test_a_network_that_draws_draws_the_same_everywhere() -> None:
    net, state = Noisy(), torch.get_rng_state()
    one, two = (surface(net, samples(), side=5, threads=n) for n in (1, 4))
    assert np.array_equal(one.loss, two.loss)
    assert two.threads == 1
    assert one.loss[2, 2] == one.centre
    assert torch.equal(torch.get_rng_state(), state)


class Greedy(nn.Module):
    """Writes into what it is given, and uses one weight twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.relu_())).mean((2, 3)).repeat(1, 2)[:, :3]


def test_pictures_stay_and_shared_weights_move_once() -> None:
    torch.manual_seed(0)
    net, loss = Greedy(), samples()
    loss = Samples(inputs=loss.inputs, targets=loss.targets * 0, criterion=loss.criterion)
    inputs = loss.inputs.clone()
    found = surface(net, loss, side=3)
    assert torch.equal(loss.inputs, inputs)
    one, other = filter_directions(net)
    assert set(one) == {"first.weight"}
    with torch.no_grad():
        net.first.weight.add_(one["first.weight"] - other["first.weight"])
    assert found.loss[0, 2] == pytest.approx(loss(net), rel=1e-5)


def test_a_loss_that_fails_ends_the_work() -> None:
    calls = []

    def broken(module: nn.Module) -> float:
        calls.append(0)
        time.sleep(0.005)
        if len(calls) > 6:
            raise OSError("the pictures are gone")
        return 0.0

    before = torch.get_num_threads()
    with pytest.raises(OSError, match="are gone"):
        surface(Quadratic(), broken, side=41, threads=2)
    assert len(calls) < 1000
    assert torch.get_num_threads() == before


def test_losses_that_are_not_finite_are_kept() -> None:
    found = surface(Quadratic(), lambda _: math.nan, side=3)
    assert np.isnan(found.loss).all()

    def steep(module: nn.Module) -> float:
        value = quadratic(module)
        return math.inf if value > 20 else value

    found = surface(Quadratic(), steep, side=5)
    assert np.isinf(found.loss).any()
    assert found.lowest[2] == found.loss[np.isfinite(found.loss)].min()


def test_time_decides_how_much_is_asked() -> None:
    for seconds, each, count in ((60, 0.1, 1000), (10, 3.0, 5000), (5, 1e-4, 200), (1, 9, None)):
        side, kept = affordable(seconds, each, count)
        assert 5 <= side <= 41
        assert side % 2 == 1
        cost = each * (kept / count if count and kept else 1)
        assert side == 5 or side**2 * cost <= 0.81 * seconds
        if count and kept is not None:
            assert min(64, count) <= kept <= count
            assert kept == count or side <= 25
    found = surface(network(), samples(), seconds=0)
    assert found.loss.shape == (5, 5)
    assert surface(Quadratic(), quadratic, seconds=600).loss.shape == (41, 41)
    many = samples(400)
    some = surface(network(), many, seconds=0)
    assert some.samples == 64
    kept = [at * 400 // 64 for at in range(64)]
    even = Samples(
        inputs=many.inputs[kept], targets=many.targets[kept], criterion=many.criterion, batch=8
    )
    assert some.centre == surface(network(), even, side=3).centre


def test_a_first_evaluation_is_of_a_few_samples_alone() -> None:
    seen: list[int] = []

    def counted(output: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return nn.functional.cross_entropy(output, targets)

    many = samples(5000)
    loss = Samples(inputs=many.inputs, targets=many.targets, criterion=counted, batch=50)
    found = surface(network(), loss, seconds=0, threads=1)
    assert found.samples == 64
    # One to see whether it draws, two for the time, one for the centre and 25 for the grid.
    assert sum(seen) == 64 * (1 + 2 + 1 + 25)


def test_progress_and_what_is_refused() -> None:
    calls: list[tuple[int, int]] = []
    surface(Quadratic(), quadratic, side=3, progress=lambda *now: calls.append(now))
    assert calls == [(done, 10) for done in range(1, 11)]
    for side in (1, 4):
        with pytest.raises(ConfigError, match="odd"):
            surface(Quadratic(), quadratic, side=side)
    with pytest.raises(ConfigError, match="spans"):
        surface(Quadratic(), quadratic, span=((0, 0), (-1, 1)))
    with pytest.raises(ConfigError, match=r"no parameter 0\.weight"):
        surface(Quadratic(), quadratic, directions=filter_directions(network()))
    with pytest.raises(ConfigError, match="one thread"):
        surface(Quadratic(), quadratic, threads=0)


# -- lines ----------------------------------------------------------------------------------------


def test_the_line_between_two_sets_of_weights() -> None:
    net, loss = network(), samples()
    start, end = copy.deepcopy(network(1).state_dict()), copy.deepcopy(network(2).state_dict())
    end["1.running_var"] *= 4
    end["1.num_batches_tracked"] += 7
    found = profile(net, loss, start, end, points=5, threads=2)
    assert found.at.tolist() == [0, 0.25, 0.5, 0.75, 1]
    other = network().eval()
    for share, value in zip(found.at, found.loss, strict=True):
        mixed = {
            name: start[name].double() * (1 - share) + end[name].double() * share for name in start
        }
        other.load_state_dict(mixed)
        with torch.no_grad():
            wanted = float(nn.functional.cross_entropy(other(loss.inputs.clone()), loss.targets))
        assert value == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(ConfigError, match=r"6\.bias"):
        profile(net, loss, start, {name: end[name] for name in end if name != "6.bias"})
    with pytest.raises(ConfigError, match="two points"):
        profile(net, loss, start, end, points=1)


def test_the_barrier_is_what_rises_above_the_chord() -> None:
    at = np.linspace(0, 1, 5)
    hill = Profile(at=at, loss=np.array([1.0, 2.5, 4.0, 3.5, 3.0]))
    assert hill.barrier == 2.0
    assert Profile(at=at, loss=np.array([4.0, 2.0, 1.0, 0.5, 0.0])).barrier == 0


# -- checkpoints ----------------------------------------------------------------------------------


def flat(direction: dict[str, Tensor] | object, net: nn.Module) -> np.ndarray:
    rows = [
        (direction[name] if name in direction else torch.zeros_like(weight)).flatten()  # type: ignore[operator,index]
        for name, weight in net.named_parameters()
    ]
    return torch.cat(rows).detach().double().numpy()


def steps(net: nn.Module, states: list[dict[str, Tensor]]) -> np.ndarray:
    centre = flat(dict(net.named_parameters()), net)
    return np.stack([flat(state, net) - centre for state in states])


def test_projection_is_least_squares() -> None:
    net = network()
    states = [network(seed).state_dict() for seed in (1, 2, 3)]
    directions = filter_directions(net)
    found = project(net, [*states, net.state_dict()], directions)
    plane = np.stack([flat(one, net) for one in directions], 1)
    away = steps(net, states)
    places, *_ = np.linalg.lstsq(plane, away.T)
    assert found.x[:3] == pytest.approx(places[0], rel=1e-4)
    assert found.y[:3] == pytest.approx(places[1], rel=1e-4)
    inside, whole = np.linalg.norm(plane @ places, axis=0), np.linalg.norm(away, axis=1)
    assert found.shares[:3] == pytest.approx(inside / whole, rel=1e-4)
    assert found.share == pytest.approx(np.linalg.norm(inside) / np.linalg.norm(whole), rel=1e-4)
    assert max(found.shares[:3]) < 0.3  # a random plane holds little
    assert (found.x[3], found.y[3]) == (0, 0)
    assert math.isnan(found.shares[3])


def test_a_path_within_the_plane_is_held_whole() -> None:
    net = network()
    directions = filter_directions(net)
    states = []
    for a, b in ((0.5, -1.0), (0.25, 2.0)):
        state = copy.deepcopy(net.state_dict())
        for name in directions[0]:
            state[name] += a * directions[0][name] + b * directions[1][name]
        states.append(state)
    found = project(net, states, directions)
    assert found.x == pytest.approx((0.5, 0.25), rel=1e-5)
    assert found.y == pytest.approx((-1.0, 2.0), rel=1e-5)
    assert found.shares == pytest.approx((1, 1), rel=1e-6)


def test_the_directions_of_a_training_are_its_singular_vectors() -> None:
    net = network()
    states = [network(seed).state_dict() for seed in (1, 2, 3, 4)]
    directions = path_directions(net, states)
    away = steps(net, states)
    _, values, right = np.linalg.svd(away, full_matrices=False)
    for which, direction in enumerate(directions):
        mine = flat(direction, net)
        assert np.linalg.norm(mine) == pytest.approx(1, rel=1e-5)
        assert abs(mine @ right[which]) == pytest.approx(1, rel=1e-5)
    found = project(net, states, directions)
    held = math.sqrt((values[:2] ** 2).sum() / (values**2).sum())
    assert found.share == pytest.approx(held, rel=1e-5)
    assert np.abs(found.x) == pytest.approx(np.abs(away @ right[0]), rel=1e-3)


def test_one_checkpoint_gets_a_random_second_direction() -> None:
    net = network()
    states = [network(1).state_dict()]
    first, second = path_directions(net, states)
    one, other = flat(first, net), flat(second, net)
    away = steps(net, states)[0]
    assert abs(one @ away) == pytest.approx(np.linalg.norm(away), rel=1e-5)
    assert np.linalg.norm(other) == pytest.approx(1, rel=1e-5)
    assert abs(one @ other) < 1e-5
    found = project(net, states, (first, second))
    assert found.share == pytest.approx(1, rel=1e-5)
    assert found.y[0] == pytest.approx(0, abs=1e-4)


def test_checkpoints_of_another_network_and_one_direction_are_refused() -> None:
    net = network()
    state = net.state_dict()
    with pytest.raises(ConfigError, match="differ from the network"):
        path_directions(net, [state])
    with pytest.raises(ConfigError, match="differ from the network"):
        path_directions(net, [])
    directions = filter_directions(net)
    with pytest.raises(ConfigError, match="span a plane"):
        project(net, [state], (directions[0], directions[0]))
    with pytest.raises(ConfigError, match=r"found \(3, 1\) in a checkpoint"):
        project(net, [{**state, "6.weight": torch.zeros(3, 1)}], directions)
    with pytest.raises(ConfigError, match="found nothing in a checkpoint"):
        project(net, [{}], directions)


def test_a_span_shows_the_whole_path_and_the_network() -> None:
    path = Path(x=(-4.0, -1.0), y=(0.5, 0.1), shares=(1, 1), share=1)
    (left, right), (bottom, top) = path.span(margin=0.25)
    assert (left, right) == (-5, 1)
    # Hardly any way along the second axis: three tenths of the first one's.
    assert top - bottom == pytest.approx(1.2 * 1.5)
    assert bottom < 0 < 0.5 < top
    still = Path(x=(0.0,), y=(0.0,), shares=(math.nan,), share=math.nan)
    assert all(low < 0 < high for low, high in still.span())


# -- figures --------------------------------------------------------------------------------------


def bowl(n: int = 9, floor: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest at (0.5, −0.5)."""
    x, y = np.linspace(-1, 1, n), np.linspace(-1, 1, n)
    return x, y, (x[None] - 0.5) ** 2 + (y[:, None] + 0.5) ** 2 + floor


TRACK = Track(x=(1.0, 0.4), y=(0.8, 0.1), note="the plane holds 9 % of their way")
FIGURES = {
    "map": lambda: landscape(*bowl(), centre=0.55, track=TRACK),
    "map of one value": lambda: landscape(*bowl()[:2], np.ones((9, 9)), centre=1.0),
    "map below zero": lambda: landscape(*bowl(9, -1), centre=-0.5),
    "map with holes": lambda: landscape(*holes(), centre=0.55),
    "relief": lambda: relief(*bowl(), centre=0.55, track=TRACK),
    "relief below zero": lambda: relief(*bowl(9, -1), centre=-0.5),
    "relief of one value": lambda: relief(*bowl()[:2], np.ones((9, 9)), centre=1.0),
    "relief with holes": lambda: relief(*holes(), centre=0.55),
    "large relief": lambda: relief(*bowl(41, 1e-6), centre=0.5),
    "large map": lambda: landscape(*bowl(41, 1e-6), centre=0.5),
}


def holes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, loss = bowl()
    loss[0, 0], loss[8, 8] = math.inf, math.nan
    return x, y, loss


def written(drawing: str) -> set[str]:
    return {"".join(node.itertext()) for node in ElementTree.fromstring(drawing).iter("text")}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_small_and_follows_the_page(name: str) -> None:
    before = dict(matplotlib.rcParams)
    drawing = plots.svg(FIGURES[name]())
    assert dict(matplotlib.rcParams) == before
    assert written(drawing)
    assert len(drawing) < 300_000
    assert "://" not in drawing
    assert "var(--ink,#1d2126)" in drawing
    assert not re.search(r"(?<!,)#(0a67a6|b8500a|1d2126|5b626b|d8dad5)", drawing)
    assert plots.svg(FIGURES[name]()) == drawing


def test_a_map_names_the_lowest_point_and_the_network() -> None:
    figure = FIGURES["map"]()
    words = written(plots.svg(figure))
    assert {
        *("the network: 0.55", "lowest point of the grid: 0.05"),
        "checkpoints: the plane holds 9 % of their way",
    } <= words
    (axes,) = figure.axes
    marks = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines}
    assert marks["X"] == [[0.5, -0.5]]
    x, y, loss = bowl()
    together = landscape(x - 0.5, y + 0.5, loss, centre=0.05)
    assert "the network: 0.05, the lowest point of the grid" in written(plots.svg(together))


def test_contours_lie_at_equal_ratios() -> None:
    (axes,) = FIGURES["map"]().axes
    levels = axes.collections[0].levels
    assert levels[0] == pytest.approx(0.05)
    assert levels[-1] == pytest.approx(bowl()[2].max())
    assert np.ptp(np.log(levels[1:] / levels[:-1])) < 1e-6


def test_the_relief_is_as_high_as_the_loss() -> None:
    (axes,) = FIGURES["relief"]().axes
    assert "logarithmic" in FIGURES["relief"]().get_suptitle()
    assert "logarithmic" not in FIGURES["relief below zero"]().get_suptitle()
    path, network = axes.lines
    x, y, z = (np.asarray(one) for one in path.get_data_3d())
    assert x.tolist() == [1, 0.4, 0]
    assert y.tolist() == [0.8, 0.1, 0]
    # Logarithmic, between the points of the grid by interpolation.
    exact = np.log10((x - 0.5) ** 2 + (y + 0.5) ** 2 + 0.05)
    assert z == pytest.approx(exact, abs=0.05)
    assert z[-1] == network.get_data_3d()[2][0] == pytest.approx(math.log10(0.55))


def test_figures_refuse_what_is_no_surface() -> None:
    x, y, loss = bowl()
    for draw in (landscape, relief):
        with pytest.raises(ValueError, match="9×9 losses"):
            draw(x, y, loss[:3], centre=0.0)
        with pytest.raises(ValueError, match="finite"):
            draw(x, y, loss * math.nan, centre=0.0)
