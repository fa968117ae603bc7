"""A data set with known faults goes in, and the faults come out."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from neocog.config import DataRecipe, EngineRecipe, Recipe
from neocog.data import dataset
from neocog.data.near import Copies, Pair
from neocog.errors import ConfigError, DataError
from neocog.verbs import audit as verb
from neocog.verbs import doubts, folds
from neocog.verbs.console import Console

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.verbs.result import Result

CLASSES, MISSING = 10, 9


class Planted:
    """Digits as class folders: 1 % of the labels flipped, leaks, and no nines in val."""

    def __init__(self, folder: Path) -> None:
        chance = np.random.default_rng(0)
        digits = load_digits()
        pixels = (digits.images[:1200] * 15.9).astype(np.uint8)
        truth = digits.target[:1200].copy()
        val = np.zeros(1200, np.bool_)
        val[np.flatnonzero(truth != MISSING)[-130:]] = True
        copies = np.flatnonzero(val)[:12]
        originals = np.flatnonzero(~val & (truth != MISSING))[100:112]
        for number, (copy, original) in enumerate(zip(copies, originals, strict=True)):
            pixels[copy] = self._changed(pixels[original], number % 4, chance)
            truth[copy] = truth[original]
        free = np.setdiff1d(np.flatnonzero(~val), originals)
        flips = chance.choice(free, 12, replace=False)
        labels = truth.copy()
        labels[flips] = (truth[flips] + chance.integers(1, CLASSES, 12)) % CLASSES
        # One picture more than once, with two labels: a certain error.
        self.names = [
            f"{'val' if held else 'train'}/{label}/{row:04d}.png"
            for row, (held, label) in enumerate(zip(val, labels, strict=True))
        ]
        for name, picture in zip(self.names, pixels, strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        self.twin = "train/3/twin.png"
        self.twin_of = next(
            row for row in range(300, 1200) if truth[row] == labels[row] == 5 and not val[row]
        )
        Image.fromarray(pixels[self.twin_of]).save(folder / self.twin)
        self.folder = folder
        self.flipped = {self.names[row] for row in flips}
        self.truth = {self.names[row]: str(truth[row]) for row in flips}
        self.leaks = {
            (self.names[a], self.names[b]) for a, b in zip(originals, copies, strict=True)
        }

    @staticmethod
    def _changed(
        picture: NDArray[np.uint8], kind: int, chance: np.random.Generator
    ) -> NDArray[np.uint8]:
        if kind == 0:
            return picture.copy()
        if kind == 1:
            return picture[:, ::-1].copy()
        if kind == 2:
            return (0.6 * picture + 40).astype(np.uint8)
        noise = chance.normal(0, 4, picture.shape)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)

    def recipe(self) -> Recipe:
        return Recipe(
            model="auto",
            data=DataRecipe(source=str(self.folder)),
            engine=EngineRecipe(epochs=8, threads=1),
        )

    def short(self, path: str) -> str:
        return "/".join(path.split("/")[-3:])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def result(planted: Planted, out: Path) -> Result:
    with Console(quiet=True) as console:
        return verb.audit(planted.recipe(), folds=3, out=out, console=console)


def test_flips_are_among_the_first_suspects(planted: Planted, result: Result) -> None:
    top = result.json["suspects"][: 1201 // 20]
    found = {planted.short(one["path"]): one for one in top}
    hits = planted.flipped & set(found)
    assert len(hits) >= 0.8 * len(planted.flipped)
    right = [found[name]["suggested"] == planted.truth[name] for name in hits]
    assert sum(right) >= 0.8 * len(right)
    assert [one["rank"] for one in top] == list(range(1, len(top) + 1))
    assert 12 <= result.json["estimated_errors"] <= 40


def test_a_copy_with_another_label_comes_first(planted: Planted, result: Result) -> None:
    number = result.json["conflicts"]
    first = {planted.short(one["path"]): one for one in result.json["suspects"][:number]}
    assert 1 <= number <= 4  # a flip may have a copy, too
    twin = first[planted.twin]
    assert (twin["label"], twin["suggested"], twin["confidence"]) == ("3", "5", 1.0)
    assert planted.short(twin["copy"]) == planted.names[planted.twin_of]
    assert planted.names[planted.twin_of] not in first  # its label is right


def test_every_leak_is_found(planted: Planted, result: Result) -> None:
    told = result.json["duplicates"]
    found = {tuple(planted.short(path) for path in pair["paths"]) for pair in told["pairs"]}
    found |= {(b, a) for a, b in found}
    assert planted.leaks <= found
    assert len(planted.leaks) <= told["across"]["train/val"] <= len(planted.leaks) + 6
    assert told["exact"] >= 4  # three leaks and the twin


def test_a_class_that_is_missing_has_no_score(result: Result) -> None:
    rows = {one["name"]: one for one in result.json["classes"]}
    assert rows[str(MISSING)]["n"]["val"] == 0
    assert rows[str(MISSING)]["agreement"]["val"] is None
    assert rows[str(MISSING)]["agreement"]["train"] > 0.8
    assert all(rows[str(k)]["agreement"]["val"] is not None for k in range(9))
    assert any("class 9 is in train, and not in val" in one for one in result.json["remarks"])


def test_the_result_is_json_the_table_whole_and_the_page_closed(
    planted: Planted, result: Result, out: Path
) -> None:
    assert json.loads(json.dumps(result.json))["n"] == 1201
    with (out / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1201
    assert [row["path"] for row in rows[:50]] == [
        one["path"] for one in result.json["suspects"][:50]
    ]
    assert float(rows[1]["score"]) >= float(rows[2]["score"])
    page = (out / "audit.html").read_text()
    assert "Doubtful labels" in page
    assert "Copies" in page
    assert "Content-Security-Policy" in page
    assert len(page) < 2_000_000
    assert any(line.startswith("labels: 3 networks (cnn), each asked") for line in result.lines)


def test_copies_and_classes_are_spread_over_folds() -> None:
    chance = np.random.default_rng(0)
    ids = chance.permutation(1000)[:300]
    labels = chance.integers(0, 7, 300)
    clusters = [ids[:4].tolist(), [*ids[10:12].tolist(), 5000]]
    parts = folds.folds_of(ids, labels, clusters, 5, seed=3)
    assert len(set(parts[:4])) == 1
    assert len(set(parts[10:12])) == 1
    for k in range(7):
        counts = np.bincount(parts[labels == k], minlength=5)
        assert counts.max() - counts.min() <= 1 + 4  # what the clusters move
    # The order in which samples are listed decides nothing.
    turn = chance.permutation(300)
    again = folds.folds_of(ids[turn], labels[turn], clusters[1:], 5, seed=3)
    before = folds.folds_of(ids, labels, clusters[1:], 5, seed=3)
    assert np.array_equal(again, before[turn])


def test_no_network_sees_what_it_answers_for(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    asked: list[set[int]] = []

    def train(job: Any, what: str, console: Console) -> None:
        seen.append(set(job.data.splits["train"].tolist()))

    def ask(job: Any, data: Any, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        asked.append(set(ids.tolist()))
        return np.full((len(ids), CLASSES), 0.1)

    monkeypatch.setattr(folds, "_train", train)
    monkeypatch.setattr(folds, "_ask", ask)
    data = dataset.load(planted.recipe().data)
    ids = np.arange(40, 400)
    parts = folds.folds_of(ids, data.targets[40:400].numpy(), (), 4, seed=0)
    with Console(quiet=True) as console:
        found = folds.answers(
            planted.recipe(),
            data,
            parts=parts,
            ids=ids,
            extra=np.arange(20),
            ends=None,
            console=console,
        )
    for mine, theirs in zip(seen, asked, strict=True):
        assert not mine & theirs
        assert set(range(20)) <= theirs
    assert set.union(*asked) == set(range(20)) | set(range(40, 400))
    np.testing.assert_allclose(found.probabilities, 0.1)  # each once, the others as a mean
    assert found.folds == 4


@pytest.mark.parametrize(("likeness", "number"), [(0.95, 0), (0.97, 2)])
def test_only_a_certain_copy_contradicts(planted: Planted, likeness: float, number: int) -> None:
    data = dataset.load(planted.recipe().data)
    other = int((data.targets != data.targets[0]).nonzero()[0, 0])
    pair = Pair(first=0, second=other, likeness=likeness, kind="near", mirrored=False)
    doubles = Copies(pairs=(pair,), clusters=((0, other),), across={}, threshold=0.9)
    assert len(doubts.conflicts(data, doubles)) == number


@pytest.mark.parametrize("number", [1, -1, 5000])
def test_folds_that_cannot_be(planted: Planted, number: int) -> None:
    with Console(quiet=True) as console, pytest.raises(ConfigError, match="folds"):
        verb.audit(planted.recipe(), folds=number, console=console)


def test_without_networks_copies_are_told_all_the_same(planted: Planted) -> None:
    with Console(quiet=True) as console:
        found = verb.audit(planted.recipe(), folds=0, console=console)
    assert found.json["estimated_errors"] is None
    assert found.json["duplicates"]["across"]["train/val"] >= len(planted.leaks)
    assert planted.twin in {planted.short(one["path"]) for one in found.json["suspects"]}


def test_signals_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "waves.npz"
    waves = np.random.default_rng(0).normal(size=(40, 1, 50)).astype(np.float32)
    np.savez(path, x=waves, y=np.arange(40) % 2, dims=1)
    recipe = Recipe(data=DataRecipe(source=str(path), dims=1))
    with Console(quiet=True) as console, pytest.raises(DataError, match="pictures"):
        verb.audit(recipe, folds=0, console=console)


def test_pictures_with_several_labels_are_looked_through_for_copies(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    pictures = chance.integers(0, 255, (30, 20, 20, 1), dtype=np.uint8)
    pictures[29] = pictures[0]
    y = chance.integers(0, 2, (30, 3))
    path = tmp_path / "many.npz"
    np.savez(path, x=pictures, y=y)
    recipe = Recipe(data=DataRecipe(source=str(path)))
    with Console(quiet=True) as console:
        found = verb.audit(recipe, out=tmp_path / "out", console=console)
    assert found.json["duplicates"]["exact"] == 1
    assert found.json["suspects"] == []
    assert found.json["classes"] == []
    assert torch.is_tensor(dataset.load(recipe.data).targets)
