"""Masks from end to end: train, evaluate, predict, plan, stop and go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from drawn_masks import CLASSES, folder
from neocog import recipes, tasks
from neocog.bundle import Bundle
from neocog.cli import cli
from neocog.config import Recipe
from neocog.data import dataset
from neocog.engine.job import plain
from neocog.errors import ConfigError
from neocog.layers import Predictor
from neocog.records import InputSpec
from neocog.settings import from_dict
from neocog.verbs.prepare import prepare
from neocog.verbs.train import fit, resume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neocog.engine.control import Control
    from neocog.records import Event
    from neocog.run import Run

SMALL = {"model": "unet", "model_args": {"width": 4, "depth": 2}}


PLAIN = {"precision": "fp32", "layout": "contiguous", "compile": "off", "threads": 1}
"""Nothing is measured."""


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON that a command prints."""
    capsys.readouterr()
    cli.main([str(word) for word in words] + ["--json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def read(path: str | Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "roads", {"train": 24, "val": 6})


@pytest.fixture(scope="module")
def trained(roads: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {**SMALL, "engine": PLAIN | {"epochs": 40, "batch": 8}, "optim": {"lr": 0.01}}
    out = tmp_path_factory.mktemp("run") / "unet"
    return fit(None, roads, from_dict(Recipe, settings), out=out, quiet=True)


def test_it_learns_what_the_colours_say(trained: Run) -> None:
    scores = trained.scores["val"]
    assert list(scores.metrics) == ["jaccard", "accuracy", "boundary_f", "loss"]
    jaccard = scores.metrics["jaccard"]
    assert jaccard.value > 0.8
    assert jaccard.low <= jaccard.value <= jaccard.high
    assert jaccard.n == 6
    assert [row.name for row in scores.classes] == list(CLASSES)


def test_scores_are_those_of_the_masks_that_are_predicted(
    trained: Run, roads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way around: files in, PNGs out, counted here by NumPy alone."""
    found = call(capsys, "eval", trained.path)
    assert found["val"] == trained.summary["val"]
    entries = call(capsys, "predict", trained.path, roads / "val", "--out", tmp_path, "--overlay")
    assert len(entries) == 6
    confusion = np.zeros((3, 3), int)
    for entry in entries:
        with Image.open(entry["mask"]) as answer:
            assert answer.mode == "P"
            numbers = np.array(answer)
        truth = read(roads / "valannot" / Path(entry["path"]).name)
        assert numbers.shape == truth.shape
        for k in range(3):
            for j in range(3):
                confusion[k, j] += ((truth == k) & (numbers == j)).sum()
        shares = {CLASSES[k]: float((numbers == k).mean()) for k in range(3)}
        assert entry["shares"] == pytest.approx({k: v for k, v in shares.items() if v})
        assert entry["label"] == max(shares, key=lambda name: shares[name])
        assert read(entry["overlay"]).shape == (*truth.shape, 3)
    hits = np.diag(confusion)
    jaccard = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    assert found["jaccard"]["value"] == pytest.approx(jaccard.mean(), abs=1e-3)
    assert found["accuracy"]["value"] == pytest.approx(hits.sum() / confusion.sum(), abs=1e-3)
    assert np.abs(np.array(found["confusion"]) - confusion).sum() <= 4  # rounding may flip a tie


def test_predictions_of_one_name_do_not_overwrite_each_other(
    trained: Run, roads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [roads / "train" / "000.png", roads / "val" / "000.png"]
    np.savez(tmp_path / "two.npz", x=np.stack([read(file) for file in files]))
    entries = call(
        capsys, "predict", trained.path, *files, tmp_path / "two.npz", "--out", tmp_path / "out"
    )
    paths = [entry["mask"] for entry in entries]
    names = [Path(path).name for path in paths]
    assert names == ["000.png", "000-2.png", "two-0.png", "two-1.png"]
    for from_file, from_array in zip(paths[:2], paths[2:], strict=True):
        assert np.array_equal(read(from_file), read(from_array))
    with_python = trained.predict(files)
    assert np.array_equal(with_python[1]["mask"], read(paths[1]))


def test_a_mask_never_takes_the_place_of_a_picture(
    trained: Run, roads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    shutil.copytree(roads / "val", own)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    for asked in (own, own / "000.png", tmp_path / "own" / ".." / "own"):
        with pytest.raises(ConfigError, match="written beside"):
            call(capsys, "predict", trained.path, asked, "--out", own)
    assert len(call(capsys, "predict", trained.path, own, "--out", tmp_path)) == 6
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before


def test_masks_and_overlays_have_names_of_their_own(
    trained: Run, roads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in ("a.png", "a-overlay.png"):
        shutil.copy(roads / "val" / "000.png", given / name)
    out = tmp_path / "out"
    entries = call(capsys, "predict", trained.path, given, "--out", out, "--overlay")
    written = [entry[key] for entry in entries for key in ("mask", "overlay")]
    assert len(set(written)) == 4
    for entry in entries:
        assert read(entry["mask"]).ndim == 2
        assert read(entry["overlay"]).ndim == 3


def test_there_is_nothing_to_draw_where_pictures_have_one_answer(
    digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="nothing to draw"):
        call(capsys, "predict", digits_run.path, "x.png", "--overlay")


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"model": "mlp", "engine": PLAIN | {"epochs": 1}}
    out = tmp_path_factory.mktemp("digits") / "run"
    return fit(None, "digits", from_dict(Recipe, settings), out=out, quiet=True)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_was_cut_goes_on_to_the_same_bytes(
    roads: Path, tmp_path: Path, epoch: int
) -> None:
    """With everything on that draws by chance."""
    settings = {
        **SMALL,
        "model_args": {**SMALL["model_args"], "dropout": 0.2},  # type: ignore[dict-item]
        "data": {"source": str(roads)},
        "augment": {"rotate": 10.0, "shift": 0.1, "brightness": 0.2, "noise": 0.05},
        "loss": {"pixels": "cross_entropy+dice", "class_weights": "median_frequency"},
        "engine": PLAIN | {"epochs": 3, "ema": 0.9},
    }
    recipe = from_dict(Recipe, settings)

    def stop(event: Event, _: Control) -> None:
        if event.kind == "epoch" and event.values["epoch"] == epoch + 1:
            raise KeyboardInterrupt

    whole = fit(recipe=recipe, out=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe=recipe, out=tmp_path / "cut", callbacks=[stop], quiet=True)
    again = resume(tmp_path / "cut", anyway=True)
    assert whole.bundle.weights.keys() == again.bundle.weights.keys()
    for name, tensor in whole.bundle.weights.items():
        assert torch.equal(tensor, again.bundle.weights[name]), name
    assert whole.summary["val"] == again.summary["val"]


def test_what_has_no_label_has_none_in_other_data_either(tmp_path: Path) -> None:
    root = folder(tmp_path / "roads", {"train": 8, "val": 4})
    (root / "classes.txt").write_text("sky\nroad\n")
    settings = {
        **SMALL,
        "data": {"source": str(root), "ignore": 2},
        "engine": PLAIN | {"epochs": 1},
    }
    run = fit(recipe=from_dict(Recipe, settings), out=tmp_path / "run", quiet=True)
    own, other = run.evaluate(), run.evaluate(str(root))
    assert own["val"] == other["val"]
    assert sum(map(sum, own["val"].confusion)) < 4 * 40 * 48


def test_it_keeps_to_a_time(roads: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "data": {"source": str(roads)}, "engine": PLAIN | {"minutes": 0.15}}
    run = fit(recipe=from_dict(Recipe, settings), out=tmp_path / "timed", quiet=True)
    assert run.summary["reason"] == "the time is up"
    assert run.summary["steps"] > 0


def test_the_plan_of_a_run_is_of_its_crops(
    trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = call(capsys, "plan", trained.path, "--no-time")
    assert plan["unknown"] == []
    assert plan["layers"][-1]["output"][-2:] == [32, 32]
    network = trained.bundle.network()
    assert plan["parameters"] == sum(one.numel() for one in network.parameters())


def test_a_network_that_answers_once_a_picture_is_refused(roads: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"this task needs \(2, 3, 32, 32\)") as caught:
        fit(None, roads, from_dict(Recipe, {"model": "cnn"}), out=tmp_path / "run", quiet=True)
    assert "unet" in caught.value.hint
    recipe = from_dict(Recipe, {**SMALL, "engine": PLAIN | {"epochs": 1}})
    with pytest.raises(ConfigError, match="this task needs") as caught:
        fit(None, "digits", recipe, out=tmp_path / "run", quiet=True)


class OneSize(torch.nn.Module):
    """Answers for crops of 32×32 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * 32 * 32, 3 * 32 * 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(x.flatten(1)).view(-1, 3, 32, 32)
        return found


def test_a_network_for_one_size_is_refused_before_it_learns(roads: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"35, 37") as caught:
        fit(OneSize(), roads, from_dict(Recipe, {}), out=tmp_path / "run", quiet=True)
    assert "any height and width" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_bundles_of_before_are_of_pictures_that_are_cropped(
    digits_run: Run, tmp_path: Path
) -> None:
    bundle = digits_run.path / "bundle"
    described = json.loads((bundle / "bundle.json").read_text())
    assert described["format"] == 5
    del described["input"]["whole"]
    (bundle / "bundle.json").write_text(json.dumps({**described, "format": 2}))
    assert Bundle.load(bundle).input.whole is False


# --------------------------------------------------------------------------------- the predictor


class Blur(torch.nn.Module):
    """A network whose answer at a pixel depends on 7 rows and on `radius` columns either way."""

    def __init__(self, radius: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, (7, 2 * radius + 1), padding=(3, radius))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(x)
        return found


def predictor(views: str = "one", radius: int = 3) -> Predictor:
    torch.manual_seed(0)
    spec = InputSpec(
        channels=3,
        size=(16, 16),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.2, 0.3),
        views=views,  # type: ignore[arg-type]
        whole=True,
    )
    return Predictor(Blur(radius), spec, lambda outputs: outputs.softmax(1)).eval()


def noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_a_large_picture_is_answered_in_pieces_as_it_is_whole() -> None:
    asked, picture = predictor(), noise(1100, 2300)
    whole = asked.network(asked.normalize(picture))
    found = asked.outputs(picture)
    assert found.shape == (1, 4, 1100, 2300)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_lies_further_than_the_overlap_is_the_only_difference() -> None:
    """A radius beyond the overlap must show, or the test above could not fail."""
    asked, picture = predictor(radius=140), noise(8, 1300)
    whole = asked.network(asked.normalize(picture))
    assert (asked.outputs(picture) - whole).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("views", ["mirror", "shift", "mirror+shift"])
def test_views_of_masks_are_brought_back(views: str) -> None:
    """Away from the border a convolution commutes with moves, so all views say the same of a
    network that is symmetric; of any other, mirrored views differ until they are undone."""
    asked, picture = predictor(views), noise(30, 34)
    kernel = asked.network.conv.weight  # type: ignore[union-attr]
    kernel.copy_((kernel + kernel.flip(-1)) / 2)
    plain = asked.network(asked.normalize(picture))
    inner = (..., slice(6, -6), slice(6, -6))
    torch.testing.assert_close(asked.outputs(picture)[inner], plain[inner], atol=1e-4, rtol=1e-4)


def test_a_mask_is_as_large_as_its_picture() -> None:
    for height, width in ((5, 9), (64, 33)):
        assert predictor()(noise(height, width)).shape == (1, 4, height, width)


# ------------------------------------------------------------- what is refused, and what is taken


LINE = "conv 8 3 pad=1; bn; relu; pool 2; conv 8 3 pad=1; relu; up 2; conv 3 1"


def test_a_line_answers_for_every_pixel(roads: Path, tmp_path: Path) -> None:
    """It learns from crops, and answers for pictures of odd sizes as they are."""
    engine = PLAIN | {"epochs": 6, "batch": 8}
    recipe = from_dict(Recipe, {"model": LINE, "engine": engine, "optim": {"lr": 0.02}})
    run = fit(None, roads, recipe, out=tmp_path / "run", quiet=True)
    rates = [event.values["loss"] for event in run.events if event.kind == "epoch"]
    assert rates[-1] < rates[0]
    assert run.scores["val"].metrics["jaccard"].n == 6
    pixels = noise(41, 35)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    assert run.predict([tmp_path / "odd.png"])[0]["mask"].shape == (41, 35)


def test_a_line_of_pixels_is_no_answer_to_a_picture(tmp_path: Path) -> None:
    recipe = from_dict(Recipe, {"model": "conv 8 3 pad=1; relu; conv 10 1"})
    with pytest.raises(ConfigError, match=r"gives \(2, 10, 8, 8\) .*needs \(2, 10\)") as caught:
        fit(None, "digits", recipe, out=tmp_path / "run", quiet=True)
    assert caught.value.hint == (
        "it answers for each pixel; end it with pooling over the picture: gap; linear"
    )
    assert not (tmp_path / "run").exists()


ALONE: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"model": "deconvnet", "model_args": {"width": 2, "hidden": 4}},
        ["--batch 2", "data.size=64,64", "model_args.norm=group"],
    ),
    (
        {"model": "unet", "model_args": {"width": 2, "depth": 5}},
        ["--batch 2", "data.size=64,64", "model_args.norm=group"],
    ),
    ({"model": "unet_backbone", "model_args": {"width": 16}}, ["--batch 2", "data.size=64,64"]),
    (
        {"model": f"cat(conv 3 1 | pool 32; bn; up 32); {LINE}"},
        ["--batch 2", "data.size=64,64", "gn instead of bn"],
    ),
]


@pytest.mark.parametrize(("settings", "ways"), ALONE)
def test_batch_norm_over_one_number_is_refused(
    roads: Path, tmp_path: Path, settings: dict[str, Any], ways: list[str]
) -> None:
    engine = PLAIN | {"epochs": 1, "batch": 1}
    recipe = from_dict(Recipe, {**settings, "data": {"size": [32, 32]}, "engine": engine})
    with pytest.raises(ConfigError, match="batches of one picture") as caught:
        fit(None, roads, recipe, out=tmp_path / "run", quiet=True)
    given = caught.value.hint.split("; or ")
    assert all(wanted in way for wanted, way in zip(ways, given, strict=True)), given
    assert not (tmp_path / "run").exists()


def test_the_batch_that_is_named_has_no_batches_of_one(tmp_path: Path) -> None:
    """Five pictures, two at a time, are 1 + 2 + 2; three at a time are 2 + 3."""
    data = folder(tmp_path / "five", {"train": 5, "val": 2})
    settings = {**ALONE[0][0], "data": {"size": [32, 32]}}

    def run(batch: int) -> Run:
        recipe = from_dict(Recipe, {**settings, "engine": PLAIN | {"epochs": 1, "batch": batch}})
        return fit(None, data, recipe, out=tmp_path / f"run{batch}", quiet=True)

    with pytest.raises(ConfigError, match=r"5 to train on, engine\.batch=2") as caught:
        run(2)
    assert "--batch 3" in caught.value.hint
    assert run(3).summary["steps"] == 2


def test_a_look_ahead_leaves_statistics_and_chance_as_they_are(roads: Path) -> None:
    """Of a network that can train on one picture, with dropout: it is ready as if larger batches
    were to come, and so is what draws numbers."""
    data = dataset.load(from_dict(Recipe, {"data": {"source": str(roads)}}).data)
    cpu, states, flags = torch.device("cpu"), [], []
    for batch in (1, 8):
        settings = {
            "model": "unet",
            "model_args": {"width": 2, "depth": 2, "dropout": 0.5},
            "engine": PLAIN | {"epochs": 1, "batch": batch},
        }
        recipe = recipes.resolve(from_dict(Recipe, settings), data)
        task = tasks.for_data(data, recipe)
        before = torch.get_rng_state()
        job = prepare(recipe, data, task, cpu, plain(recipe.engine, cpu), None, None).job
        assert torch.equal(torch.get_rng_state(), before)
        states.append(job.network.state_dict())
        flags.append([part.training for part in job.network.modules()])
    assert flags[0] == flags[1]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
