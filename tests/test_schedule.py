"""Schedules against torch's own, and at their corners."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from neocog.config import ScheduleRecipe
from neocog.engine.schedule import factor, lowered

NAMES = ("constant", "step", "cosine", "linear", "onecycle")


def by_torch(make, steps: int) -> list[float]:
    """Rates that a torch scheduler gives, the peak being 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants optimizer.step() in between
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return rates


def ours(recipe: ScheduleRecipe, total: int, per_epoch: int = 5) -> list[float]:
    return [factor(recipe, step, total, per_epoch) for step in range(total)]


def test_step_is_torchs() -> None:
    want = by_torch(lambda o: lr_scheduler.StepLR(o, step_size=3 * 5, gamma=0.3), 60)
    assert ours(ScheduleRecipe(name="step", every=3, gamma=0.3), 60) == pytest.approx(want)


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_cosine_is_torchs(end: float) -> None:
    want = by_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=40, eta_min=end), 40)
    assert ours(ScheduleRecipe(name="cosine", end=end), 40) == pytest.approx(want, abs=1e-12)


def test_linear_is_torchs() -> None:
    want = by_torch(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=40), 40)
    assert ours(ScheduleRecipe(name="linear", end=0.2), 40) == pytest.approx(want)


@pytest.mark.parametrize("rise", [0.25, 0.5])
def test_onecycle_is_torchs(rise: float) -> None:
    """torch spends its last step on the last rate, and peaks at pct·total − 1: same curve."""
    total, start, end = 40, 0.04, 0.001
    want = by_torch(
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=total + 1,
            pct_start=(rise * total + 1) / (total + 1),
            div_factor=1 / start,
            final_div_factor=start / end,
            cycle_momentum=False,
        ),
        total,
    )
    recipe = ScheduleRecipe(name="onecycle", rise=rise, start=start, end=end)
    assert ours(recipe, total) == pytest.approx(want, abs=1e-12)
    assert factor(recipe, int(rise * total), total, 5) == 1.0
    assert factor(recipe, total, total, 5) == pytest.approx(end)


def test_warm_up_rises_evenly_to_where_the_shape_begins() -> None:
    recipe = ScheduleRecipe(name="cosine", warmup=0.2)
    rates = ours(recipe, 20)
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:] == pytest.approx(ours(ScheduleRecipe(name="cosine"), 16))
    cycle = ours(ScheduleRecipe(name="onecycle", warmup=0.5, start=0.4), 8)
    assert cycle[:5] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])


@settings(deadline=None)
@given(
    name=st.sampled_from(NAMES),
    total=st.integers(1, 50),
    past=st.integers(0, 20),
    warmup=st.floats(0, 1),
    rise=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_every_step_of_every_run_has_a_positive_rate(
    name: str, total: int, past: int, warmup: float, rise: float
) -> None:
    recipe = ScheduleRecipe(name=name, warmup=warmup, rise=rise)
    rates = ours(recipe, total)
    assert all(0 < rate <= 1 for rate in rates)
    beyond = factor(recipe, total + past, total, total)
    assert 0 <= beyond <= 1


@pytest.mark.parametrize("call", [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_nonsense_is_refused(call: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected step"):
        factor(ScheduleRecipe(), *call)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_drop_lowers_but_never_below_the_floor(rate: float, scale: float, floor: float) -> None:
    assert lowered(rate, scale, floor) <= rate
    assert lowered(rate, scale, floor) >= min(rate, floor)
