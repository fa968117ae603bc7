"""The network that is chosen for a time: from the table, by measuring, below what was told."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import neocog
from neocog import ladder, recipes, tasks, usual
from neocog.config import AugmentRecipe, DataRecipe, EngineRecipe, OptimRecipe, Recipe
from neocog.data import dataset
from neocog.data.dataset import Dataset
from neocog.engine.job import plain
from neocog.verbs import prepare
from neocog.verbs.choose import choose
from neocog.verbs.console import Console


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return dataset.load(DataRecipe(source="digits", val=0.2))


def chosen(
    recipe: Recipe, data: Dataset, *, seconds: float | None = 60.0, told: tuple[str, ...] = ()
) -> tuple[Recipe, Dataset]:
    device = torch.device("cpu")
    return choose(
        recipe,
        data,
        told=told,
        device=device,
        choice=plain(recipe.engine, device),
        ends=None if seconds is None else time.monotonic() + seconds,
        console=Console(quiet=True),
    )


TIMED = Recipe(data=DataRecipe(source="digits", val=0.2), engine=EngineRecipe(minutes=1.0))


def test_a_network_that_was_named_stays(digits: Dataset) -> None:
    recipe = dataclasses.replace(TIMED, model="mlp")
    assert chosen(recipe, digits) == (recipe, digits)


def test_without_a_time_it_is_the_default_one(digits: Dataset) -> None:
    found, _ = chosen(Recipe(), digits, seconds=None)
    assert found == dataclasses.replace(Recipe(), model="cnn")


def test_with_a_time_it_is_one_of_the_table_with_its_usual_settings(digits: Dataset) -> None:
    found, data = chosen(TIMED, digits)
    sides = {
        round(rung.shrink * 8)
        for rung in ladder.rungs()
        if (rung.model, rung.args) == (found.model, found.model_args)
    }
    assert data.size[0] == data.size[1]
    assert data.size[0] in sides
    assert found.optim.name == "muon"
    assert found.engine.views == "many"
    assert found.engine.minutes == 1.0


def test_what_was_told_stays(digits: Dataset) -> None:
    recipe = dataclasses.replace(TIMED, optim=OptimRecipe(name="sgd", lr=0.3))
    found, data = chosen(recipe, digits, told=("optim.name", "engine.views", "data.size"))
    assert found.optim.name == "sgd"
    assert found.optim.lr == 0.3
    assert found.engine.views == "one"
    assert data.size == (8, 8)


def test_the_most_promising_is_taken(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dear one promises more, until there is no time for it."""
    cheap = ladder.Rung(
        model="speednet", args={"width": 4}, shrink=1.0, curve=((1e3, 0.5), (1e6, 0.2))
    )
    dear = ladder.Rung(
        model="speednet", args={"width": 8}, shrink=1.0, curve=((1e3, 0.4), (1e6, 0.1))
    )
    monkeypatch.setattr(ladder, "rungs", lambda: (cheap, dear))
    cost = {4: 1e-4, 8: 4e-3}
    monkeypatch.setattr(
        "neocog.engine.tuner.seconds_per_picture",
        lambda job: (cost[job.recipe.model_args["width"]], cost[job.recipe.model_args["width"]]),
    )
    assert chosen(TIMED, digits, seconds=600)[0].model_args == {"width": 8}
    assert chosen(TIMED, digits, seconds=10)[0].model_args == {"width": 4}


def small(shrink: float) -> ladder.Rung:
    """A candidate that promises the most, whatever it costs."""
    return ladder.Rung(
        model="speednet", args={"width": 4}, shrink=shrink, curve=((1.0, 0.01), (2.0, 0.001))
    )


def test_a_resolution_that_its_network_does_not_take_is_no_candidate(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6×6 pixels are too few for speednet."""
    monkeypatch.setattr(ladder, "rungs", lambda: (small(0.75),))
    assert chosen(TIMED, digits)[0].model == "cnn"


def test_another_resolution_holds_back_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "rungs", lambda: (small(0.5),))
    section = DataRecipe(source="digits", size=(16, 16))
    large = dataset.load(section, seed=7)
    recipe = dataclasses.replace(TIMED, data=DataRecipe(source="digits"))
    found, data = chosen(recipe, large)
    assert found.data.size == data.size == (8, 8)
    assert data.seed == 7
    for part, ids in large.splits.items():
        assert torch.equal(data.splits[part], ids)
    assert chosen(recipe, large, told=("data.size",))[0].model == "cnn"


def test_numbers_get_a_candidate_too(tmp_path: Path) -> None:
    """Usual settings of a classifier that a regression has no use for do not keep it away."""
    pictures = torch.arange(40 * 64, dtype=torch.uint8).view(40, 8, 8).numpy()
    file = tmp_path / "numbers.npz"
    np.savez(file, x=pictures, y=np.linspace(0, 1, 40, dtype=np.float32))
    section = DataRecipe(source=str(file))
    data = dataset.load(section)
    found, _ = chosen(dataclasses.replace(TIMED, data=section), data)
    assert found.model == "speednet"
    assert found.loss.label_smoothing == 0
    named, _ = chosen(dataclasses.replace(TIMED, data=section, model="speednet"), data)
    assert named.loss.label_smoothing == 0


def test_pictures_that_no_candidate_takes_get_the_default_one() -> None:
    tiny = dataset.load(DataRecipe(source="digits", size=(4, 4)))
    found, data = chosen(TIMED, tiny)
    assert found.model == "cnn"
    assert data is tiny


def test_a_run_of_nine_seconds(tmp_path: Path) -> None:
    """From beginning to end: the chosen network is in the manifest, and evaluation repeats."""
    began = time.monotonic()
    recipe = dataclasses.replace(TIMED, engine=EngineRecipe(minutes=0.15))
    run = neocog.fit(data="digits", recipe=recipe, out=str(tmp_path / "run"), quiet=True)
    assert run.recipe.model == "speednet"
    assert run.recipe.engine.epochs is None
    assert run.summary["reason"] == "the time is up"
    assert run.summary["steps"] > 0
    assert time.monotonic() - began < 18  # 9 s, and as many for a machine that others use too
    again, _ = run.score(run.data(), "val", torch.device("cpu"))
    assert again == run.scores["val"]


@pytest.mark.parametrize(
    ("look", "told", "views"),
    [(1e-5, (), "shift"), (0.1, (), "one"), (0.1, ("engine.views",), "shift")],
)
def test_many_views_are_taken_where_they_leave_time_for_training(
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    look: float,
    told: tuple[str, ...],
    views: str,
) -> None:
    """359 digits are held back: a tenth of a second for each is 36 s a view of 60 s."""
    monkeypatch.setattr(prepare, "look_seconds", lambda *_, **__: look)
    recipe = dataclasses.replace(TIMED, data=digits.recipe, augment=AugmentRecipe(shift=0.125))
    device = torch.device("cpu")
    recipe = recipes.resolve(usual.under(recipe, "speednet"), digits)
    choice, ends = plain(recipe.engine, device), time.monotonic() + 60
    task = tasks.for_data(digits, recipe)
    before = prepare.prepare(recipe, digits, task, device, choice, None, ends)
    found = prepare.afford(before, told, Console())
    assert found.job.input.views == views
    assert recipes.views_for(found.job.recipe) == views  # what a resumed run takes
    assert ("views: one of each" in capsys.readouterr().err) == (views == "one")
    assert found.job.network is before.job.network


def test_a_time_is_no_reason_for_one_view_where_there_is_none(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "look_seconds", lambda *_, **__: 1.0)
    recipe = Recipe(data=digits.recipe, augment=AugmentRecipe(shift=0.125))
    recipe = recipes.resolve(usual.under(recipe, "speednet"), digits)
    device = torch.device("cpu")
    task = tasks.for_data(digits, recipe)
    before = prepare.prepare(recipe, digits, task, device, plain(recipe.engine, device), None, None)
    assert before.job.input.views == "shift"
    assert prepare.afford(before, (), Console(quiet=True)) is before
