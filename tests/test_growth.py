"""Training pictures that grow: sizes, their cost, and a training that shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import integrate
from torch import nn

import neocog
from neocog.config import Recipe, ScheduleRecipe
from neocog.engine import loop, step
from neocog.engine.budget import Budget
from neocog.engine.growth import LEAST, STAGES, Growth, shrunk
from neocog.errors import ConfigError
from neocog.settings import from_dict
from neocog.usual import under
from neocog.verbs.console import Expected
from neocog.verbs.train import resume

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.records import Event

GROWTHS = st.builds(
    lambda grow, grown, height, width: Growth(
        ScheduleRecipe(grow=grow, grown=grown), (height, width)
    ),
    st.floats(0.05, 1),
    st.floats(0, 0.95),
    st.integers(4, 256),
    st.integers(4, 256),
)


def area(growth: Growth, share: float) -> float:
    """Pixels of a training picture, as a share of the whole one's."""
    return math.prod(growth.size(share)) / math.prod(growth.whole)


@given(growth=GROWTHS, shares=st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_pictures_only_grow_and_end_whole(growth: Growth, shares: list[float]) -> None:
    sizes = [growth.size(share) for share in sorted(shares)]
    for axis, side in enumerate(growth.whole):
        sides = [size[axis] for size in sizes]
        assert sides == sorted(sides)
        assert all(min(side, LEAST) <= one <= side for one in sides)
    assert growth.size(growth.recipe.grown) == growth.size(1.0) == growth.whole
    assert len(growth.stages) <= STAGES + 1


@given(growth=GROWTHS, share=st.floats(0, 1))
def test_work_is_the_integral_of_the_area(growth: Growth, share: float) -> None:
    ends = [end for end, _ in growth.stages if end < share]
    expected, _ = integrate.quad(
        lambda x: area(growth, x), 0, share, points=ends or None, limit=200
    )
    assert growth.work(share) == pytest.approx(expected, abs=1e-6)
    spent = growth.work(share) / growth.work(1.0)
    assert growth.share(spent) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(("grow", "grown"), [(0.0, 0.5), (1.1, 0.5), (0.5, 1.0), (0.5, -0.1)])
def test_a_growth_that_cannot_be(grow: float, grown: float) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.gro"):
        ScheduleRecipe(grow=grow, grown=grown)


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    parts=st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
)
def test_shrinking_is_antialiased_and_bilinear(
    size: tuple[int, int], parts: tuple[float, float]
) -> None:
    """As Pillow has it. (PyTorch 2.13 shrinks maps that are one pixel wide to a constant.)"""
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, *size))).float()
    target = (max(1, round(size[0] * parts[0])), max(1, round(size[1] * parts[1])))
    expected = [
        np.asarray(Image.fromarray(one).resize(target[::-1], Image.Resampling.BILINEAR))
        for one in images.flatten(0, 1).numpy()
    ]
    found = shrunk(images, target).flatten(0, 1).numpy()
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-4)


def test_what_is_left_counts_the_dearer_steps_to_come() -> None:
    growth = Growth(ScheduleRecipe(grow=0.5, grown=0.8), (32, 32))
    length = Expected(steps=10, epochs=10, work=growth.work)
    spent = sum(area(growth, done / 100) for done in range(30))
    left = sum(area(growth, done / 100) for done in range(30, 100))
    assert length.left(30, spent) == pytest.approx(left, rel=0.01)
    assert Expected(steps=10, epochs=10).left(30, 3.0) == pytest.approx(7.0)
    # Gone on with after the last step, in whose validation it was stopped.
    assert Expected(steps=10, epochs=10, first=100, work=growth.work).left(0, 1.0) == 0


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes of 32×32, across and down."""
    chance = np.random.default_rng(0)
    images = chance.integers(0, 60, (240, 32, 32, 1), dtype=np.uint8)
    labels = np.arange(240) % 2
    images[labels == 0, ::4] += 150
    images[labels == 1, :, ::4] += 150
    path = tmp_path_factory.mktemp("striped") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    return path


def recipe(source: Path, **more: Any) -> Recipe:
    values: dict[str, Any] = {
        "model": "conv 4 3; bn; relu; pool 2; conv 8 3; relu; gap; linear",
        "data": {"source": str(source), "val": 0.25},
        "schedule": {"name": "linear", "grow": 0.5, "grown": 0.8},
        "engine": {
            "epochs": 5,
            "batch": 30,
            "precision": "fp32",
            "layout": "contiguous",
            "compile": "off",
            "threads": 1,
            "device": "cpu",
        },
    }
    for name, value in more.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    return from_dict(Recipe, values)


def fit(recipe: Recipe, out: Path, *callbacks: Any) -> neocog.Run:
    return neocog.fit(recipe.model, recipe=recipe, out=out, callbacks=callbacks)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the pictures of each training step."""
    sizes: list[tuple[int, ...]] = []

    def watched(images: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        found = shrunk(images, size)
        sizes.append(tuple(found.shape[2:]))
        return found

    monkeypatch.setattr(step, "shrunk", watched)
    return sizes


def test_a_training_shows_them_and_a_resumed_one_goes_on_alike(
    striped: Path, tmp_path: Path, seen: list[tuple[int, ...]]
) -> None:
    whole = fit(recipe(striped), tmp_path / "whole")
    growth = Growth(whole.recipe.schedule, (32, 32))
    assert seen == [growth.size(done / 30) for done in range(30)]
    assert set(seen) == {(16, 16), (24, 24), (32, 32)}

    def cut(event: Event, _: object) -> None:
        if event.kind == "step" and event.step == 14:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(recipe(striped), tmp_path / "cut", cut)
    resume(tmp_path / "cut", anyway=True)
    name = "bundle/weights.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Forty(Budget):
    """A time of forty steps, all of one length."""

    steps = 0

    def stepped(self, seconds: float, size: tuple[int, ...] = ()) -> None:
        self.steps += 1

    def share(self) -> float:
        return min(1.0, self.steps / 40)

    def over(self, pending: int = 0) -> bool:
        return self.steps >= 40


def test_a_training_with_a_time_gives_each_size_its_steps(
    striped: Path, tmp_path: Path, seen: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the time small pictures get as much as they cost, not as much as they are steps."""
    monkeypatch.setattr(loop, "Budget", Forty)
    timed = recipe(striped, engine={"epochs": None, "minutes": 5.0})
    growth = Growth(fit(timed, tmp_path / "run").recipe.schedule, (32, 32))
    assert seen == [growth.size(growth.share(done / 40)) for done in range(40)]
    # A fifth of the steps is on whole pictures, and more of the time.
    assert seen.count((32, 32)) == round(40 * 0.2 / growth.work(1.0))


def short(striped: Path, model: str, grow: float, **args: Any) -> Recipe:
    values = {"model": model, "model_args": args, "schedule": {"grow": grow}}
    return from_dict(
        Recipe, {**values, "data": {"source": str(striped)}, "engine": {"epochs": 1, "threads": 1}}
    )


def test_a_network_of_one_size_is_refused(striped: Path, tmp_path: Path) -> None:
    words = "takes pictures of 32×32, but none of 16×16 to 24×24"
    with pytest.raises(ConfigError, match=words) as caught:
        fit(short(striped, "lenet5", 0.5), tmp_path / "run")
    assert "schedule.grow=1" in caught.value.hint


@pytest.mark.parametrize(
    ("args", "grow"),
    [({"depth": 4}, 0.75), ({}, 0.5)],  # 15 → 7 → 3 → 1 → nothing
)
def test_it_grows_from_what_the_network_takes(
    striped: Path, tmp_path: Path, args: dict[str, Any], grow: float
) -> None:
    found = fit(short(striped, "speednet", 0.5, width=4, **args), tmp_path / "run")
    assert found.recipe.schedule.grow == grow


class Tiles(nn.Module):
    """Takes pictures whose sides are multiples of four."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.pixel_unshuffle(x, 4).mean((2, 3)))


def test_every_size_is_tried_before(striped: Path, tmp_path: Path) -> None:
    """It takes 20×20, but not the 26×26 that follow."""
    with pytest.raises(ConfigError, match="none of 20×20 to 26×26"):
        neocog.fit(Tiles(), recipe=short(striped, "cnn", 0.625), out=tmp_path / "a")
    found = neocog.fit(Tiles(), recipe=short(striped, "cnn", 0.5), out=tmp_path / "b")
    assert found.recipe.schedule.grow == 0.5


@pytest.mark.parametrize("side", [8, 15, 16, 17, 28, 33, 34, 40, 65])
def test_the_usual_growth_suits_pictures_of_any_size(tmp_path: Path, side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, side, side, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=images, labels=np.arange(40) % 2)
    chosen = short(tmp_path / "some.npz", "speednet", 1.0, width=2)
    found = fit(under(chosen, "speednet"), tmp_path / "run")
    assert found.recipe.schedule.grow in (0.625, 0.8125)


def test_signals_do_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "signals.npz"
    signals = np.random.default_rng(0).normal(size=(40, 64, 1)).astype(np.float32)
    np.savez(path, images=signals, labels=np.arange(40) % 2, dims=1)
    with pytest.raises(ConfigError, match="these are signals"):
        fit(
            from_dict(Recipe, {"data": {"source": str(path)}, "schedule": {"grow": 0.5}}),
            tmp_path / "run",
        )


def test_a_step_costs_its_pixels() -> None:
    growth = Growth(ScheduleRecipe(grow=0.5), (32, 32))
    assert area(growth, 0.0) == 0.25
    assert math.isclose(growth.work(1.0), 0.4 + 0.3 * (0.5**2 + 0.75**2))
