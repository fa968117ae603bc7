"""What pictures look like, and whether accuracy depends on it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import ndimage, stats

from neocog.config import DataRecipe
from neocog.data import dataset
from neocog.html import Page, render
from neocog.metrics import wilson
from neocog.metrics.properties import ENDS, by_property, looks, shapes
from neocog.plots import svg, trust
from neocog.report.properties import section
from neocog.verbs.properties import by_looks, measured
from report_pages import plain


def shown(found: Any) -> Any:
    """What the section reads of a run."""
    return SimpleNamespace(properties=found, noun="picture")


@pytest.mark.parametrize("shape", [(5, 9, 7, 3), (4, 12, 12, 1), (300, 40, 40, 3)])
def test_looks_are_those_of_scipy(shape: tuple[int, ...]) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    weights = np.array([0.299, 0.587, 0.114]) if shape[3] == 3 else np.ones(1)
    found = looks(pictures)
    for i in range(0, shape[0], 17):
        luma = (pictures[i] * weights).sum(axis=2) / 255
        assert found["brightness"][i] == pytest.approx(luma.mean())
        assert found["contrast"][i] == pytest.approx(luma.std())
        inside = ndimage.laplace(luma)[1:-1, 1:-1]
        assert found["sharpness"][i] == pytest.approx(inside.var())


def test_blurring_lowers_sharpness_and_grey_is_grey_in_colour() -> None:
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (32, 32)).astype(np.uint8)
    blurred = ndimage.gaussian_filter(picture.astype(float), 2).astype(np.uint8)
    sharp, soft = looks(np.stack([picture, blurred])[..., None])["sharpness"]
    assert soft < sharp / 10
    grey = looks(picture[None, :, :, None])
    for name, colour in looks(np.repeat(picture[None, :, :, None], 3, axis=3)).items():
        assert colour == pytest.approx(grey[name])
    assert np.isnan(looks(np.zeros((2, 2, 5, 1), np.uint8))["sharpness"]).all()
    with pytest.raises(ValueError, match="uint8"):
        looks(np.zeros((2, 4, 4, 3)))


def test_dark_pictures_are_found() -> None:
    random = np.random.default_rng(0)
    n = 470
    bright, other = random.random(n), random.random(n)
    right = random.random(n) < np.where(bright < 0.2, 0.7, 0.95)
    first, second = by_property({"contrast": other, "brightness": bright}, right)
    assert (first.name, second.name) == ("brightness", "contrast")
    assert first.adjusted < 0.01 < 0.05 < second.adjusted
    assert first.lowest == 0
    assert sum(one.right.n for one in first.bins) == n
    low = bright <= first.bins[0].high
    assert first.bins[0].right == wilson(int(right[low].sum()), int(low.sum()))
    assert first.name in ENDS
    json.dumps(first.to_dict())


def test_p_is_that_of_the_chi_square_where_there_is_much() -> None:
    random = np.random.default_rng(4)
    values = random.random(3000)
    right = random.random(3000) < 0.80 + 0.05 * values
    (found,) = by_property({"brightness": values}, right)
    table = [[round(b.right.value * b.right.n), b.right.n] for b in found.bins]
    counts = np.array([[hits, n - hits] for hits, n in table])
    exact = stats.chi2_contingency(counts, correction=False).pvalue
    assert found.p == pytest.approx(exact, abs=0.015)


def test_chance_is_found_as_often_as_said() -> None:
    random = np.random.default_rng(5)
    found = [
        by_property({"contrast": random.random(120)}, random.random(120) < 0.93)[0].p
        for _ in range(200)
    ]
    assert np.mean(np.array(found) < 0.05) <= 0.08
    # Of five properties at once, with Holm, no more.
    hits = 0
    for _ in range(60):
        names = {name: random.random(120) for name in ("a", "b", "c", "d", "e")}
        hits += by_property(names, random.random(120) < 0.8)[0].adjusted < 0.05
    assert hits / 60 <= 0.1


def test_equal_values_stay_together_and_what_is_the_same_is_left_out() -> None:
    right = np.arange(100) % 7 != 0
    values = {
        "pixels": np.repeat([1.0, 2.0], [70, 30]),
        "aspect": np.ones(100),
        "bytes": np.append(np.full(60, np.nan), np.arange(40.0)),
    }
    found = {one.name: one for one in by_property(values, right)}
    assert set(found) == {"pixels", "bytes"}
    assert [(b.low, b.high, b.right.n) for b in found["pixels"].bins] == [(1, 1, 70), (2, 2, 30)]
    assert sum(b.right.n for b in found["bytes"].bins) == 40
    assert by_property({"pixels": np.arange(15.0)}, np.ones(15, bool)) == []
    assert by_property({"pixels": np.arange(50.0)}, np.ones(50, bool))[0].p == 1.0
    with pytest.raises(ValueError, match="as many"):
        by_property({"pixels": np.arange(3.0)}, right)


def test_shapes() -> None:
    found = shapes(np.array([[10, 20], [30, 15]]))
    assert found["pixels"].tolist() == [200, 450]
    assert found["aspect"].tolist() == [2.0, 0.5]


def test_pictures_of_a_data_set() -> None:
    data = dataset.load(DataRecipe(source="digits", val=0.3))
    ids = data.splits["val"]
    found = measured(data, ids)
    assert set(found) == {"brightness", "contrast", "sharpness", "pixels", "aspect"}
    for place in (0, 77, len(ids) - 1):
        picture = data.images.picture(int(ids[place]))
        assert found["brightness"][place] == pytest.approx(picture.mean() / 255)
    # All have one size, so only their looks are told.
    right = found["brightness"] > np.quantile(found["brightness"], 0.2)
    told = by_looks(data, ids, right)
    assert {one.name for one in told} == {"brightness", "contrast", "sharpness"}
    made = section(shown(told))
    assert made is not None
    text = plain(render(Page(title="x", sections=(made,))))
    first = told[0].bins[0].right
    assert told[0].name == "brightness"
    assert f"Dark pictures: 0 % right (0 to {100 * first.high:.1f}) of {first.n}" in text
    assert "a whole class may be dark" in text


def test_a_section_says_where_there_is_nothing_to_find() -> None:
    random = np.random.default_rng(7)
    made = section(shown(by_property({"contrast": random.random(400)}, random.random(400) < 0.9)))
    assert made is not None
    assert "differs no more than by chance" in made.lead
    assert section(shown([])) is None


def test_figures_write_what_they_show() -> None:
    pair = [trust.Versus(name="cat", a=0.5, b=0.9), trust.Versus(name="dog", a=0.7, b=0.7)]
    drawn = svg(trust.versus(pair, names=("A, <b>", "B, cnn"), title="Recall"))
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    for word in ("cat", "dog", "A, &lt;b&gt;", "B, cnn", "Recall"):
        assert word in drawn
    row = trust.Group(name="brightness", ends=("dark", "bright"), shares=[(0.5, 0.4, 0.6)] * 3)
    for count in (1, 2, 5):
        drawn = svg(trust.groups([row] * count, title="Accuracy"))
        assert drawn.count(">brightness<") == drawn.count(">bright<") == count
    with pytest.raises(ValueError, match="at least one row"):
        trust.versus([], names=("A", "B"), title="")
    with pytest.raises(ValueError, match="at least one row"):
        trust.groups([], title="")
