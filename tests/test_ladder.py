"""The table of candidates, and which of them is taken."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neocog.argv import PLACES, recipe_of
from neocog.config import AugmentRecipe, EngineRecipe, OptimRecipe, Recipe
from neocog.errors import ConfigError
from neocog.ladder import Rung, best, rungs
from neocog.models.catalog import CATALOG, build
from neocog.settings import apply_settings, from_dict, merge, paths, to_dict
from neocog.usual import USUAL, under, usual


def test_the_table_is_whole() -> None:
    """Every rung can be built, and its curve falls."""
    table = rungs()
    assert len(table) >= 3
    for rung in table:
        assert rung.model in CATALOG
        build(rung.model, channels=3, size=(32, 32), outputs=10, args=dict(rung.args))
        assert 0 < rung.shrink <= 1
        seen = [point[0] for point in rung.curve]
        errors = [point[1] for point in rung.curve]
        assert len(seen) >= 2
        assert seen == sorted(set(seen))
        assert errors == sorted(errors, reverse=True)
        assert 0 < errors[-1] < errors[0] < 1


@given(st.floats(1, 1e9), st.floats(1, 1e9))
def test_more_pictures_never_hurt(first: float, second: float) -> None:
    few, many = sorted((first, second))
    for rung in rungs():
        assert 0 < rung.expected(many) <= rung.expected(few) <= 1


def test_between_two_points_lies_a_line_in_the_logarithms() -> None:
    rung = Rung(model="m", args={}, shrink=1.0, curve=((100.0, 0.4), (900.0, 0.1)))
    assert rung.expected(300) == pytest.approx(math.sqrt(0.4 * 0.1))


def test_a_faster_machine_gets_a_larger_network() -> None:
    table = rungs()
    cost = {id(rung): index + 1.0 for index, rung in enumerate(table)}
    slow = best([(rung, 5e4 / cost[id(rung)] ** 2) for rung in table])[0]
    fast = best([(rung, 5e7 / cost[id(rung)] ** 2) for rung in table])[0]
    assert table.index(fast) >= table.index(slow)


@pytest.mark.parametrize("settings", [(), ("optim.lr=0.5", "schedule.name=onecycle")])
def test_settings_under_a_recipe_are_those_under_its_text(settings: tuple[str, ...]) -> None:
    """Two ways to the same recipe: merged as text, or laid under the finished record."""
    values = apply_settings({}, settings)
    merged = from_dict(Recipe, merge(usual("speednet"), values | {"model": "speednet"}))
    assert under(from_dict(Recipe, values), "speednet", paths(values)) == merged


def test_what_differs_from_the_default_stays_even_untold() -> None:
    recipe = Recipe(optim=OptimRecipe(momentum=0.3), augment=AugmentRecipe(shift=0.0))
    found = under(recipe, "speednet")
    assert found.optim.momentum == 0.3
    assert found.augment.shift == 0.0
    assert found.optim.name == USUAL["speednet"]["optim"]["name"]


def told(*settings: str, config: Path | None = None, **options: object) -> tuple[Recipe, set[str]]:
    """What the command line makes of its words."""
    empty = dict.fromkeys(PLACES)
    recipe, named = recipe_of("digits", config, settings, {**empty, **options})
    return recipe, named


def test_one_length_puts_out_the_other(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"config": to_dict(Recipe(engine=EngineRecipe(epochs=20)))}))
    assert told(config=file, minutes=5.0)[0].engine.epochs is None
    assert told("engine.minutes=5", config=file)[0].engine.minutes == 5.0
    assert told(config=file)[0].engine.epochs == 20
    with pytest.raises(ConfigError, match="both say how long"):
        told(epochs=3, minutes=5.0)


def test_a_manifest_tells_everything(tmp_path: Path) -> None:
    """Also what its version did not know yet: nothing is laid under it."""
    config = to_dict(Recipe(model="speednet"))
    del config["optim"]["normalize"]
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"config": config}))
    recipe, named = told(config=file)
    assert under(recipe, "speednet", named) == recipe


def test_another_optimiser_takes_none_of_the_usual_ones_settings() -> None:
    recipe, named = told("optim.name=nesterov", model="speednet")
    found = under(recipe, "speednet", named).optim
    assert (found.name, found.momentum, found.normalize) == ("nesterov", 0.9, False)
