"""Training pictures that grow: sizes, their cost, and a training that shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import integrate

import neocog
from neocog.config import Recipe, ScheduleRecipe
from neocog.engine import step
from neocog.engine.growth import LEAST, STAGES, Growth, shrunk
from neocog.errors import ConfigError
from neocog.settings import from_dict
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


@given(growth=GROWTHS, shares=st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_pictures_only_grow_and_end_whole(growth: Growth, shares: list[float]) -> None:
    sizes = [growth.size(share) for share in sorted(shares)]
    for axis, side in enumerate(growth.whole):
        sides = [size[axis] for size in sizes]
        assert sides == sorted(sides)
        assert all(min(side, LEAST) <= one <= side for one in sides)
    assert growth.size(growth.recipe.grown) == growth.size(1.0) == growth.whole
    assert len(growth.stages) in (1, STAGES + 1)


@given(growth=GROWTHS, share=st.floats(0, 1))
def test_work_is_the_integral_of_the_area(growth: Growth, share: float) -> None:
    ends = [end for end, _ in growth.stages if end < share]
    expected, _ = integrate.quad(growth.area, 0, share, points=ends or None, limit=200)
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
    spent = sum(growth.area(done / 100) for done in range(30))
    left = sum(growth.area(done / 100) for done in range(30, 100))
    assert length.left(30, spent) == pytest.approx(left, rel=0.01)
    assert Expected(steps=10, epochs=10).left(30, 3.0) == pytest.approx(7.0)


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
    assert set(seen) == {(16, 16), (20, 20), (24, 24), (28, 28), (32, 32)}

    def cut(event: Event, _: object) -> None:
        if event.kind == "step" and event.step == 14:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(recipe(striped), tmp_path / "cut", cut)
    resume(tmp_path / "cut", anyway=True)
    name = "bundle/weights.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_training_with_a_time_gives_each_size_its_steps(
    striped: Path, tmp_path: Path, seen: list[tuple[int, ...]]
) -> None:
    timed = recipe(striped, engine={"epochs": None, "minutes": 0.2})
    fit(timed, tmp_path / "run")
    sides = [size[0] for size in seen]
    assert sides == sorted(sides)
    assert sides[0] == 16
    assert sides[-1] == 32


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        ("lenet5", {}, r"takes pictures of 32×32, but not those of 16×16"),
        ("speednet", {"depth": 4}, r"schedule\.grow=0\.5 begins"),
    ],
)
def test_networks_of_one_size_are_refused(
    striped: Path, tmp_path: Path, model: str, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        fit(
            from_dict(
                Recipe,
                {
                    "model": model,
                    "model_args": args,
                    "schedule": {"grow": 0.5},
                    "data": {"source": str(striped)},
                    "engine": {"epochs": 1},
                },
            ),
            tmp_path / "run",
        )
    assert "schedule.grow=1" in caught.value.hint


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
    assert growth.area(0.0) == 0.25
    assert math.isclose(
        growth.work(1.0), 0.25 + 0.1875 * sum(s * s for s in (0.5, 0.625, 0.75, 0.875))
    )
