"""Two runs side by side: the same samples or nothing, and what is told agrees with `eval`."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from neocog.config import DataRecipe, EngineRecipe, Recipe
from neocog.errors import ConfigError, DataError, RunError
from neocog.html import render
from neocog.metrics import paired as pairs
from neocog.metrics import wilson
from neocog.records import Interval, Scores
from neocog.report import compared, comparison
from neocog.verbs import compare as verb
from neocog.verbs.console import Console
from neocog.verbs.train import fit
from report_pages import headings, plain

if TYPE_CHECKING:
    from pathlib import Path

    from neocog import html
    from neocog.run import Run
    from neocog.verbs.result import Result


def recipe(**changes: Any) -> Recipe:
    engine = EngineRecipe(
        epochs=2, batch=64, device="cpu", precision="fp32", layout="contiguous", compile="off"
    )
    data = DataRecipe(source="digits", val=0.3, seed=0)
    return dataclasses.replace(Recipe(model="mlp", engine=engine, data=data), **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two recipes with two seeds each, and a run that holds back other samples."""
    folder = tmp_path_factory.mktemp("runs")
    wide, narrow = {"width": 64}, {"width": 4}
    recipes = {
        "wide0": recipe(model_args=wide),
        "wide1": recipe(model_args=wide, seed=1),
        "narrow0": recipe(model_args=narrow),
        "narrow1": recipe(model_args=narrow, seed=1),
        "other": recipe(data=DataRecipe(source="digits", val=0.3, seed=7)),
        "numbers": recipe(task="regress", model_args=wide),
    }
    return {name: fit(recipe=one, out=folder / name, quiet=True) for name, one in recipes.items()}


def compare(runs: dict[str, Run], *names: str, **options: Any) -> Result:
    with Console(quiet=True) as console:
        paths = [runs[name].path for name in names]
        return verb.compare(paths, device="cpu", console=console, **options)


def test_two_runs(runs: dict[str, Run], tmp_path: Path) -> None:
    out = tmp_path / "compare.html"
    result = compare(runs, "wide0", "narrow0", out=out)
    told = json.loads(json.dumps(result.json))
    scores = [runs[name].scores["val"] for name in ("wide0", "narrow0")]
    for side, one in zip("ab", scores, strict=True):
        assert told[side]["scores"][0]["accuracy"]["value"] == one.metrics["accuracy"].value
    test = told["paired"]
    n = test["both"] + test["only_a"] + test["only_b"] + test["neither"]
    assert n == told["n"] == scores[0].metrics["accuracy"].n
    assert (test["both"] + test["only_a"]) / n == pytest.approx(scores[0].metrics["accuracy"].value)
    assert (test["both"] + test["only_b"]) / n == pytest.approx(scores[1].metrics["accuracy"].value)
    assert test["p"] == pairs.mcnemar(test["only_a"], test["only_b"])
    assert test["p"] < 0.001
    losses = [one.metrics["loss"].value for one in scores]
    assert told["loss"]["value"] == pytest.approx(losses[1] - losses[0], rel=1e-5)
    # A class's recall is that of the report, and its gaps add up to the whole.
    recall = {row.name: row.recall for row in scores[0].classes}
    assert {gap["name"]: gap["a"]["value"] for gap in told["classes"]} == {
        name: one.value for name, one in recall.items() if one
    }
    gaps = sum(gap["difference"]["value"] * gap["a"]["n"] for gap in told["classes"])
    assert gaps == pytest.approx(test["only_b"] - test["only_a"])
    assert told["settings"] == {"model_args.width": {"a": "64", "b": "4"}}
    first = told["disagreements"][0]
    assert (first["truth"] == first["b"]) != (first["truth"] == first["a"])
    text = "\n".join(result.lines)
    assert f"B is right on {test['only_b']} picture" in text
    assert "A is better by more than chance" in text
    page = out.read_text(encoding="utf-8")
    assert headings(page) == [
        "Is it more than chance",
        "Scores and costs",
        "How they learned",
        "Class by class",
        "Where they disagree",
        "What was set differently",
    ]
    assert "by which A, mlp, is ahead of B, mlp," in plain(page)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)


def test_the_other_way_round_is_the_same(runs: dict[str, Run]) -> None:
    one, two = compare(runs, "wide0", "narrow0").json, compare(runs, "narrow0", "wide0").json
    assert one["paired"]["p"] == two["paired"]["p"]
    assert one["paired"]["difference"]["low"] == pytest.approx(
        -two["paired"]["difference"]["high"], abs=1e-9
    )


def test_over_seeds(runs: dict[str, Run], tmp_path: Path) -> None:
    names = ("wide0", "narrow0", "wide1", "narrow1")
    out = tmp_path / "compare.html"
    told = compare(runs, *names, out=out).json
    assert told["a"]["runs"] == [str(runs[name].path) for name in ("wide0", "wide1")]
    scores = {name: runs[name].scores["val"].metrics["accuracy"].value for name in names}
    seeds = pairs.over_seeds(
        [scores["wide0"], scores["wide1"]], [scores["narrow0"], scores["narrow1"]]
    )
    assert seeds is not None
    assert told["seeds"] == seeds.to_dict()
    assert told["settings"] == {"model_args.width": {"a": "64", "b": "4"}}
    assert "2 and 2 runs: their spread is itself hardly known" in plain(out.read_text("utf-8"))


def test_the_same_recipe_twice(runs: dict[str, Run]) -> None:
    told = compare(runs, "wide0", "wide1").json
    assert told["settings"] == {"seed": {"a": "0", "b": "1"}}
    assert any("One run of each" in note for note in told["notes"])


def test_other_data(runs: dict[str, Run]) -> None:
    """Runs that hold back other samples are compared on data that is given."""
    with pytest.raises(DataError, match="expected the same samples") as caught:
        compare(runs, "wide0", "other")
    assert "--on SOURCE" in caught.value.hint
    told = compare(runs, "wide0", "other", source="digits").json
    assert told["part"] == "all"
    assert told["n"] == 1797


def test_without_right_answers_losses_are_compared(runs: dict[str, Run], tmp_path: Path) -> None:
    from neocog.verbs.sides import grouped

    other = fit(
        recipe=recipe(task="regress", model_args={"width": 64}, seed=1),
        out=tmp_path / "numbers1",
        quiet=True,
    )
    out = tmp_path / "c.html"
    told = compare({**runs, "numbers1": other}, "numbers", "numbers1", out=out).json
    assert told["paired"] is None
    losses = [one.scores["val"].metrics["loss"].value for one in (runs["numbers"], other)]
    assert told["loss"]["value"] == pytest.approx(losses[1] - losses[0], abs=1e-6)
    assert "Class by class" not in headings(out.read_text("utf-8"))
    assert grouped([runs["numbers"], other]) == ([runs["numbers"]], [other])


def test_what_cannot_be_compared(runs: dict[str, Run]) -> None:
    with pytest.raises(ConfigError, match="two different runs"):
        compare(runs, "wide0", "wide0")
    with pytest.raises(ConfigError, match="two different runs"):
        compare(runs, "wide0")
    with pytest.raises(ConfigError, match="3 runs of 3 recipes"):
        compare(runs, "wide0", "narrow0", "other")
    with pytest.raises(RunError, match="runs of one task"):
        compare(runs, "wide0", "numbers")


# ------------------------------------------------------------------------------------- the page


def side(letter: str, model: str) -> comparison.Side:
    return comparison.Side(
        letter=letter,
        model=model,
        runs=(f"runs/<{letter}>",),
        scores=(Scores(metrics={"accuracy": wilson(90, 100)}),),
        epochs=([{"epoch": 1, "val_loss": 1.0, "val_accuracy": 0.5}],),
        costs={"parameters": 10, "macs": None, "seconds": float("nan")},
    )


def page(**changes: Any) -> html.Page:
    parts: dict[str, Any] = {
        "a": side("A", "<script>"),
        "b": side("B", "cnn"),
        "task": "classify",
        "source": "pets",
        "part": "test",
        "n": 100,
        "noun": "picture",
        "paired": pairs.paired(np.arange(100) < 90, np.arange(100) >= 10),
        "loss": None,
        "seeds": None,
    }
    return compared.build(comparison.Compared(**(parts | changes)))


def test_hostile_names_stay_words() -> None:
    text = render(page())
    assert "<script>" in plain(text)
    assert text.count("<script>") == 1  # the page's own


def test_no_difference_is_said_so() -> None:
    told = plain(render(page()))
    assert "0.0 points of accuracy between them on the same 100 test pictures" in told
    assert "chance alone could make such a difference" in told


def test_a_metric_that_should_be_small() -> None:
    """Mean absolute error 3 of A, 1 of B: B is better."""
    one = pairs.over_seeds([3.0, 3.1, 2.9], [1.0, 1.1, 0.9])
    sides = {
        letter.lower(): dataclasses.replace(
            side(letter, "cnn"),
            scores=(Scores(metrics={"mae": Interval(value=1, low=0, high=2, n=9)}),),
        )
        for letter in "AB"
    }
    told = plain(render(page(task="regress", paired=None, seeds=one, **sides)))
    assert "B is better by more than chance" in told
    assert "A is better" not in told


def test_words_for_chances_and_points() -> None:
    assert [comparison.chance(p) for p in (0.0, 0.00123, 0.0449, 0.996)] == [
        *("p < 0.0001", "p = 0.001", "p = 0.045", "p = 1")
    ]
    one = Interval(value=-0.0004, low=-0.0123, high=0.01, n=9)
    assert comparison.difference(one) == "0.0 points (95\u00a0% interval −1.2 to +1.0)"
