"""Steadiness is what a plain loop over single pictures counts."""

from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neocog import plots
from neocog.errors import ConfigError, DataError
from neocog.explain.still.changes import CHANGES, WAYS, changed
from neocog.explain.still.steady import picture_curves, steadiness, usual_changes
from neocog.plots.steady import Response, responses

SIZE = (12, 14)


def pictures(n: int = 23) -> Tensor:
    """Small round numbers of grey, so that probabilities are the same in any batch."""
    rng = np.random.default_rng(7)
    return torch.from_numpy(rng.integers(0, 256, (n, 1, *SIZE)).astype(np.uint8))


def linear(pictures: Tensor) -> Tensor:
    """Three classes by fixed weights, in double precision."""
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(SIZE[0] * SIZE[1], 3)))
    return (pictures.flatten(1).double() / 255 @ weights * 0.4).softmax(1)


def constant(pictures: Tensor) -> Tensor:
    return torch.tensor([0.2, 0.7, 0.1]).expand(len(pictures), -1)


def parity(pictures: Tensor) -> Tensor:
    """Whether one pixel in the middle is an even number."""
    odd = pictures[:, 0, 6, 7] % 2
    return torch.stack([odd, 1 - odd], 1).float()


CHOSEN = {"shift": (1, 2), "rotation": (-20, 0, 15), "noise": (30,), "jpeg": (20, 100)}


def test_counts_are_those_of_a_plain_loop() -> None:
    given = pictures()
    truth = torch.arange(23) % 3
    found = steadiness(linear, given.split(6), CHOSEN, truth, seed=4)
    assert found.n == 23
    assert list(found.changes) == list(CHOSEN)
    assert [one.level for one in found.changes["shift"]] == [0, 1, 2]
    assert [one.level for one in found.changes["noise"]] == [0, 30]
    for name, levels in found.changes.items():
        for level in levels:
            rows = []
            for at in range(23):
                one = given[at : at + 1]
                other = changed(one, name, level.level, ids=torch.tensor([at]), seed=4)
                rows.append((linear(one)[0].numpy(), linear(other)[0].numpy(), int(truth[at])))
            assert level.n == 23
            assert level.agree == sum(a.argmax() == b.argmax() for a, b, _ in rows)
            assert level.right == sum(b.argmax() == c for _, b, c in rows)
            assert level.agreement == level.agree / 23
            assert level.accuracy == level.right / 23
            assert level.confidence == pytest.approx(np.mean([b.max() for _, b, _ in rows]))
            assert level.truth == pytest.approx(np.mean([b[c] for _, b, c in rows]))
    # The chosen network is neither right nor steady everywhere, or the above would say little.
    assert 0 < found.changes["shift"][2].agree < 23


def test_the_size_of_batches_does_not_matter() -> None:
    given = pictures()
    one, two = (steadiness(linear, given.split(size), CHOSEN) for size in (23, 4))
    assert one.consistent == two.consistent
    for name in CHOSEN:
        for a, b in zip(one.changes[name], two.changes[name], strict=True):
            assert (a.level, a.n, a.agree) == (b.level, b.n, b.agree)
            assert a.confidence_sum == pytest.approx(b.confidence_sum, rel=1e-12)
            assert a.right is a.accuracy is a.truth is None


def test_random_shifts_go_everywhere_within_reach_and_independently() -> None:
    spot = torch.zeros(3000, 1, 13, 13, dtype=torch.uint8)
    spot[:, :, 6, 6] = 255
    seen: list[Tensor] = []

    def watch(pictures: Tensor) -> Tensor:
        seen.append(pictures)
        return constant(pictures)

    found = steadiness(watch, [spot], {})
    assert found.reach == 4
    first, second = (pictures.flatten(1).argmax(1).numpy() for pictures in seen[1:])
    shifts = [(at // 13 - 6, at % 13 - 6) for at in (first, second)]
    for down, right in shifts:
        for axis in (down, right):
            counts = np.bincount(axis + 4, minlength=9)
            assert len(counts) == 9
            assert np.abs(counts - 3000 / 9).max() < 4.5 * np.sqrt(3000 / 9)
        assert abs(np.corrcoef(down, right)[0, 1]) < 4.5 / np.sqrt(3000)
    assert abs(np.corrcoef(shifts[0][0], shifts[1][0])[0, 1]) < 4.5 / np.sqrt(3000)
    assert abs(np.corrcoef(shifts[0][1], shifts[1][1])[0, 1]) < 4.5 / np.sqrt(3000)


def test_a_constant_answer_is_perfectly_consistent_and_one_by_a_pixel_s_parity_is_not() -> None:
    given = pictures(600).split(200)
    still = steadiness(constant, given, {"shift": (1,)})
    assert still.consistency == 1
    assert still.changes["shift"][1].agreement == 1
    assert still.changes["shift"][1].confidence == pytest.approx(0.7)
    # Two random pixels agree in parity half the time, and 1/49 more where the shifts are equal.
    wild = steadiness(parity, given, {"shift": (1,)})
    assert wild.reach == 3
    expected = 0.5 + 0.5 / 49
    assert abs(wild.consistency - expected) < 4 * 0.5 / np.sqrt(600)
    assert abs(wild.changes["shift"][1].agreement - 0.5) < 4 * 0.5 / np.sqrt(600)


def test_a_network_that_averages_over_circles_does_not_mind_noise_but_brightness() -> None:
    """By hand: bright or dark by the mean alone."""
    given = torch.cat([torch.full((10, 1, 16, 16), 60), torch.full((10, 1, 16, 16), 200)])

    def bright(pictures: Tensor) -> Tensor:
        share = pictures.double().mean((1, 2, 3)) / 255
        return torch.stack([1 - share, share], 1)

    truth = [0] * 10 + [1] * 10
    found = steadiness(
        bright, [given.to(torch.uint8)], {"noise": (10,), "brightness": (0.5, 2, 3)}, truth
    )
    assert [one.right for one in found.changes["noise"]] == [20, 20]
    assert [one.level for one in found.changes["brightness"]] == [0.5, 1, 2, 3]
    # 200 · 0.5 = 100 is dark; 60 · 2 = 120 is dark still, 60 · 3 = 180 is not.
    assert [one.right for one in found.changes["brightness"]] == [10, 20, 20, 10]
    assert [one.agree for one in found.changes["brightness"]] == [10, 20, 20, 10]
    assert found.changes["brightness"][3].truth == pytest.approx((1 - 180 / 255 + 1) / 2)


def test_usual_changes_fit_the_pictures_and_progress_counts_them() -> None:
    assert usual_changes((224, 300))["shift"] == tuple(range(9))
    assert usual_changes((8, 8))["shift"] == (0, 1, 2)
    assert set(usual_changes((8, 8))) == set(CHANGES)
    calls: list[tuple[int, int]] = []
    batches = pictures(4).split(2)
    steadiness(constant, batches, progress=lambda *now: calls.append(now))
    total = 2 * (3 + sum(len(of) - 1 for of in usual_changes(SIZE).values()))
    assert calls == [(done, total) for done in range(1, total + 1)]
    calls.clear()
    endless = (batch for batch in batches)  # nobody knows how many will come
    steadiness(constant, endless, {}, progress=lambda *now: calls.append(now))
    assert calls == [(done, 0) for done in range(1, 7)]


def test_a_network_and_its_chance_are_left_alone() -> None:
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.Softmax(1))
    network(pictures(2).float())
    state = torch.get_rng_state()
    steadiness(lambda x: network(x.float()), [pictures(4)], {"noise": (5,)})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in network.parameters())


def test_curves_of_one_picture() -> None:
    one = pictures(1)[0]
    curves = picture_curves(linear, one, CHOSEN, kind=2, seed=3)
    assert list(curves) == list(CHOSEN)
    for name, curve in curves.items():
        for at, level in enumerate(curve.levels):
            drawn = CHANGES[name].drawn and level != CHANGES[name].none
            rows = np.stack(
                [
                    linear(changed(one[None], name, level, ids=torch.tensor([i]), seed=3))[0]
                    for i in range(WAYS if drawn else 1)
                ]
            )
            assert curve.mean[at] == pytest.approx(rows[:, 2].mean())
            assert curve.low[at] == pytest.approx(rows[:, 2].min())
            assert curve.high[at] == pytest.approx(rows[:, 2].max())
            assert curve.said[at] == rows.mean(0).argmax()
            assert (curve.low[at] < curve.high[at]) == drawn
    still = linear(one[None])[0]
    default = picture_curves(linear, one, {"blur": (1,)})["blur"]
    assert default.mean[0] == pytest.approx(float(still.max()))
    calls: list[tuple[int, int]] = []
    picture_curves(linear, one, CHOSEN, progress=lambda *now: calls.append(now))
    assert calls == [(done, 10) for done in range(1, 11)]


def test_what_is_no_answer_for_pictures_is_refused() -> None:
    given = [pictures(4)]
    with pytest.raises(DataError, match="every pixel moves along"):
        steadiness(lambda x: torch.ones(len(x), 2, 5, 5), given)
    with pytest.raises(DataError, match="with the sum 1"):
        steadiness(lambda x: torch.full((len(x), 3), 7.0), given)
    with pytest.raises(DataError, match="with the sum 1"):
        steadiness(lambda x: torch.tensor([[1.5, -0.5]]).expand(len(x), -1), given)
    with pytest.raises(DataError, match=r"found \(4, 1\)"):
        steadiness(lambda x: torch.ones(len(x), 1), given)
    with pytest.raises(DataError, match="no pictures"):
        steadiness(constant, [])
    for truth in ([0, 1, 2], [0] * 5):
        with pytest.raises(DataError, match="true classes"):
            steadiness(constant, given, {}, truth)
    with pytest.raises(DataError, match="found 0 … 3"):
        steadiness(constant, given, {}, [0, 1, 2, 3])
    with pytest.raises(ConfigError, match="'blurr'"):
        steadiness(constant, given, {"blurr": (1,)})
    with pytest.raises(ConfigError, match="signals"):
        steadiness(constant, [torch.zeros(2, 1, 50, dtype=torch.uint8)])
    with pytest.raises(ConfigError, match="expected a class 0 … 2, found 3"):
        picture_curves(constant, pictures(1)[0], kind=3)


# -- figures --------------------------------------------------------------------------------------


def panel(name: str = "blur", **told: object) -> Response:
    values: dict[str, object] = {
        "unit": "pixels",
        "levels": (0, 1, 3),
        "none": 0.0,
        "value": (0.9, 0.5, 0.25),
        "low": (0.8, 0.4, 0.2),
        "high": (0.95, 0.6, 0.3),
    }
    return Response(name=name, **{**values, **told})  # type: ignore[arg-type]


def test_small_multiples_show_their_numbers() -> None:
    panels = [
        panel(second=(0.8, 0.7, 0.6)),
        panel("scale", unit="×", levels=(0.5, 1, 2), none=1.0, log=True),
        panel("noise", otherwise=(False, True, True)),
    ]
    before = dict(matplotlib.rcParams)
    figure = responses(panels, title="Does it hold still")
    assert dict(matplotlib.rcParams) == before
    blur, scale, noise, rest = figure.axes
    assert not rest.axison
    lines = {tuple(line.get_ydata()) for line in blur.lines if len(line.get_ydata()) == 3}
    assert lines == {(0.9, 0.5, 0.25), (0.8, 0.7, 0.6)}
    band = blur.collections[0].get_paths()[0].vertices
    assert {(0, 0.8), (1, 0.4), (3, 0.3)} <= {tuple(point) for point in band.tolist()}
    assert scale.get_xticks().tolist() == [0.5, 1, 2]
    hollow = [line.get_ydata()[0] for line in noise.lines if line.get_marker() == "s"]
    assert hollow == [0.5, 0.25]
    drawing = plots.svg(figure)
    written = ["".join(node.itertext()) for node in ElementTree.fromstring(drawing).iter("text")]
    assert {"blur", "scale", "×", "accuracy", "confidence", "another answer", "100 %"} <= set(
        written
    )
    assert drawing == plots.svg(responses(panels, title="Does it hold still"))
    assert "var(--accent,#0a67a6)" in drawing
    assert len(drawing) < 40_000


def test_figures_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one change"):
        responses([], title="nothing")
    for told in ({"value": (0.1,)}, {"second": (0.1, 0.2)}, {"levels": ()}):
        with pytest.raises(ValueError, match="numbers for blur"):
            responses([panel(**told)], title="wrong")


def test_one_level_alone_can_be_drawn() -> None:
    one = panel(levels=(0,), value=(1.0,), low=(1.0,), high=(1.0,))
    factor = panel(levels=(1,), none=1.0, value=(1.0,), low=(1.0,), high=(1.0,), log=True)
    assert "<svg" in plots.svg(responses([one, factor], title="one", columns=4))
