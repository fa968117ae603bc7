"""`neocog explain` from end to end: pages about pictures, and about the inside of a network."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from drawn_masks import folder
from neocog import cli
from neocog.config import Recipe
from neocog.facade import load
from neocog.settings import from_dict
from neocog.verbs.train import fit
from neocog.verbs.way import way

if TYPE_CHECKING:
    from neocog.run import Run

SPOT = "stages.0.0.weight[2,0,1,1]"
PLAIN = {"precision": "fp32", "layout": "contiguous", "compile": "off", "threads": 1}


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON that a command prints."""
    capsys.readouterr()
    cli.cli.main([*map(str, words), "--json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str]:
    """Exit code and message of a command that fails."""
    monkeypatch.setattr("sys.argv", ["neocog", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small network that knows the digits a little, with the weights of each epoch."""
    recipe = {
        "model_args": {"width": 8},
        "engine": {**PLAIN, "epochs": 4},
        "checkpoint": {"keep": "all", "name": "epoch-{epoch}"},
    }
    out = tmp_path_factory.mktemp("runs") / "digits"
    return fit("cnn", load("digits"), from_dict(Recipe, recipe), out=out)


@pytest.fixture(scope="module")
def picture(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The held-out digit that the network is surest of, as a file."""
    data = run.data()
    raw = data.images.gather(data.splits["val"], data.size)
    with torch.no_grad():
        best = run.predictor()(raw).amax(1).argmax()
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.fromarray(raw[best, 0].numpy()).save(path)
    return path


def prepared(run: Run, path: Path) -> tuple[torch.nn.Module, torch.Tensor]:
    """Network and input by hand: the file's pixels, normalised with the bundle's numbers."""
    spec = run.bundle.input
    with Image.open(path) as image:
        pixels = np.asarray(image, np.float64) / 255
    x = (pixels - spec.mean[0]) / spec.std[0]
    return run.bundle.network(), torch.tensor(x[None, None], dtype=torch.float32)


def derivative(text: str) -> float:
    """What is said of the weight at `SPOT`."""
    said = re.search(r"∂L/∂stages\.0\.0\.weight\[2,0,1,1\] = (\S+)", text)
    assert said is not None
    return float(said[1].replace("−", "-"))


def bytes_of(root: Path) -> dict[str, str]:
    files = (one for one in sorted(root.rglob("*")) if one.is_file())
    return {str(one): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def test_a_page_about_a_picture(
    run: Run, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bytes_of(run.path)
    told = call(capsys, "explain", run.path, picture, "--method", "all", "--out", tmp_path / "why")
    assert bytes_of(run.path) == before
    (one,) = told["images"]
    answer = run.predict([picture])[0]
    assert (one["label"], one["probability"]) == (answer["label"], answer["probability"])
    assert one["target"] == one["label"]
    assert set(one["maps"]) == {
        *("input_gradient", "smooth_gradient", "integrated_gradients", "guided_backprop"),
        *("grad_cam", "grad_cam_pp", "occlusion"),
    }
    # The sum of the map is the answer minus that for the mean picture, as computed by hand.
    network, x = prepared(run, picture)
    kind = run.bundle.classes.index(one["label"])
    with torch.no_grad():
        difference = float(network(x)[0, kind] - network(torch.zeros_like(x))[0, kind])
    found = one["maps"]["integrated_gradients"]
    assert found["sum"] == pytest.approx(difference, rel=0.011)
    assert found["gap"] <= 0.01
    for made in one["maps"].values():
        with Image.open(made["file"]) as drawn:
            assert drawn.size[0] == drawn.size[1] >= 128  # squares of the eight pixels
    # Where the gradient is steepest, by finite differences.
    place = one["maps"]["input_gradient"]["strongest"]
    network.double()
    x = x.double()
    slopes = torch.zeros(8, 8, dtype=torch.float64)
    with torch.no_grad():
        for at in np.ndindex(8, 8):
            step = torch.zeros_like(x)
            step[0, 0, at[0], at[1]] = 1e-5
            slopes[at] = (network(x + step) - network(x - step))[0, kind].abs()
    assert slopes[tuple(place)] == pytest.approx(float(slopes.max()), rel=1e-3)
    page = Path(told["page"]).read_text(encoding="utf-8")
    assert len(page) < 5_000_000
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    for title in ("Why this answer", "What decides it", "From a number to the pixels"):
        assert title in page


def test_hiding_what_is_named_changes_the_answer(
    run: Run, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = call(capsys, "explain", run.path, picture, "--out", tmp_path)
    one = told["images"][0]
    assert one["hidden"]["found"]
    assert one["hidden"]["answer"] != one["label"]
    assert one["seen"]["answer"] == one["label"]
    assert 0 < one["hidden"]["share"] < 1


def test_pictures_of_one_name_have_maps_of_their_own(
    run: Run, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "digit.png").write_bytes(picture.read_bytes())
    words = ("explain", run.path, tmp_path / "a", tmp_path / "b", "--method", "grad_cam")
    told = call(capsys, *words, "--out", tmp_path / "why")
    files = [one["maps"]["grad_cam"]["file"] for one in told["images"]]
    assert [Path(one).name for one in files] == ["digit-grad_cam.png", "digit-2-grad_cam.png"]


def test_a_page_has_only_as_many_numbers_as_there_is_room_for(
    run: Run,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("explain", run.path, picture, "--method", "grad_cam", "--out", tmp_path)
    whole = Path(call(capsys, *words)["page"]).read_text()
    assert "From a number to the pixels" in whole
    for room, fits in ((len(whole.encode()) + 50_000, True), (50_000, False)):
        monkeypatch.setattr("neocog.verbs.pictures._PAGE", room)
        page = Path(call(capsys, *words)["page"]).read_text()
        assert len(page.encode()) <= len(whole.encode())
        assert ("From a number to the pixels" in page) == fits


def test_a_page_without_time_says_what_it_lacks(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = call(capsys, "explain", run.path, "--minutes", "0.0001", "--out", tmp_path)
    assert told["steadiness"] is None
    assert told["embedding"] is None
    assert told["kernels"] == "stages.0.0"  # costs nothing
    assert {line.partition(":")[0] for line in told["missing"]} == {
        *("embedding and exciting patches", "dreams", "changes", "landscape"),
    }


def test_another_class_can_be_asked_about(
    run: Run, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("explain", run.path, picture, "--method", "occlusion", "--out")
    own = call(capsys, *words, tmp_path / "own")["images"][0]
    name = next(name for name in run.bundle.classes if name != own["label"])
    told = call(capsys, *words, tmp_path / "other", "--target", name)
    asked = told["images"][0]
    assert f"What speaks for {name}" in Path(told["page"]).read_text()
    assert (asked["label"], asked["target"]) == (own["label"], name)
    with (
        Image.open(asked["maps"]["occlusion"]["file"]) as one,
        Image.open(own["maps"]["occlusion"]["file"]) as other,
    ):
        assert one.tobytes() != other.tobytes()


def test_the_worst_mistakes_are_explained_with_their_truth(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = call(
        capsys,
        *("explain", run.path, "--mistakes", 2, "--method", "input_gradient", "--out", tmp_path),
    )
    data = run.data()
    ids = data.splits["val"]
    with torch.no_grad():
        outputs = run.predictor().outputs(data.images.gather(ids, data.size))
    losses = F.cross_entropy(outputs, data.targets[ids], reduction="none")
    losses[outputs.argmax(1) == data.targets[ids]] = -1
    worst = [data.names[int(ids[at])] for at in losses.argsort(descending=True)[:2]]
    assert [one["path"] for one in told["images"]] == worst
    assert all(one["truth"] != one["label"] for one in told["images"])
    assert f"The truth is {told['images'][0]['truth']}" in Path(told["page"]).read_text()


def test_the_arithmetic_of_an_activation(
    run: Run, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = call(capsys, "explain", run.path, picture, "--trace", "stages.0.0:3,4,2")
    text = told["images"][0]["trace"]
    network, x = prepared(run, picture)
    with torch.no_grad():
        value = float(network.get_submodule("stages.0.0")(x)[0, 3, 4, 2])
    said = float(re.search(r"column 2: (\S+)", text)[1].replace("−", "-"))  # type: ignore[index]
    assert said == pytest.approx(value, rel=1e-3)
    assert "patch" in text
    assert "the picture" in text


def test_the_gradient_of_a_weight(
    run: Run, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = call(capsys, "explain", run.path, picture, "--weight", SPOT)
    text = told["images"][0]["weight"]
    network, x = prepared(run, picture)
    label = run.bundle.classes.index(run.predict([picture])[0]["label"])
    network.double()
    F.cross_entropy(network(x.double()), torch.tensor([label])).backward()
    gradient = float(network.get_submodule("stages.0.0").weight.grad[2, 0, 1, 1])
    assert derivative(text) == pytest.approx(gradient, rel=2e-3, abs=1e-12)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--method", "grad_kam"), 2, "did you mean 'grad_cam'"),
        (("--target", "eleven"), 2, "no class 'eleven'"),
        (("--layer", "nowhere"), 2, "nowhere"),
        (("--layer", "stages.0.0", "--method", "occlusion"), 2, "takes a layer"),
        (("--trace", "stages.0.0"), 2, "names no activation"),
        (("--trace", "stages.0.0:900,0,0"), 2, "900"),
        (("--trace", "stages.9.0:0,0,0"), 2, "stages."),
        (("--weight", "stages.0.0.weights"), 2, "did you mean 'stages.0.0.weight'"),
        (("--weight", "stages.0.0.weight[99,0,0,0]"), 2, "expected an element"),
        (("--minutes", "1"), 2, "--minutes is for the page about the network"),
        (("--trace", "stages.0.0:0,0,0", "--method", "all"), 2, "--method is about the page"),
        (("--weight", SPOT, "--mistakes", "2"), 2, "--mistakes is about the page"),
        (("--trace", "stages.0.0:0,0,0", "--target", "3"), 2, "--target is about the page"),
    ],
)
def test_what_does_not_exist_is_refused_with_a_hint(
    run: Run,
    picture: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    out = () if "--trace" in words or "--weight" in words else ("--out", tmp_path)
    found, said = refused(capsys, monkeypatch, "explain", run.path, picture, *words, *out)
    assert (found, message in said) == (code, True), said


def test_an_unreadable_picture_is_named_and_the_rest_explained(
    run: Run,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    words = ("explain", run.path, bad, picture, "--method", "grad_cam", "--out", tmp_path / "why")
    monkeypatch.setattr("sys.argv", ["neocog", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().out
    assert stop.value.code == 1
    assert f"{bad}  not read" in said
    assert (tmp_path / "why" / "explained.html").is_file()


def test_questions_about_a_picture_need_one(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = refused(capsys, monkeypatch, "explain", run.path, "--trace", "stages.0.0:0,0,0")
    assert code == 2
    assert "--trace is about an image" in said


def test_what_is_inside_a_network(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bytes_of(run.path)
    told = call(capsys, "explain", run.path, "--minutes", "0.1", "--out", tmp_path)
    assert bytes_of(run.path) == before
    assert told["kernels"] == "stages.0.0"
    assert told["dreams"][0]["answer"] == told["dreams"][0]["class"]
    assert {one["layer"] for one in told["exciting"]} <= set(
        dict(run.bundle.network().named_modules())
    )
    for one in told["exciting"]:
        assert one["values"] == sorted(one["values"], reverse=True)
    steady = told["steadiness"]
    unchanged = [
        next(one for one in levels if one["agreement"] == 1.0)
        for levels in steady["changes"].values()
    ]
    assert len({one["accuracy"] for one in unchanged}) == 1
    titles = [one["title"] for one in told["landscapes"]]
    assert titles == ["Along two random directions", "Along the way of the training"]
    # The middle is the loss of the network on the same pictures of the training part.
    data = run.data()
    ids = data.splits["train"]
    with torch.no_grad():
        outputs = run.predictor().outputs(data.images.gather(ids, data.size))
        losses = F.cross_entropy(outputs, data.targets[ids], reduction="none")
    middle = told["landscapes"][0]["centre"]
    assert middle == pytest.approx(float(losses.mean()), rel=0.5)
    page = Path(told["page"]).read_text(encoding="utf-8")
    assert len(page) < 5_000_000
    for title in ("Where pictures lie", "Does it hold still", "Where it sits"):
        assert title in page


def test_the_report_of_a_training_shows_the_inside(run: Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    for title in (
        *("Which pictures it gets wrong", "Where pictures lie", "From a number to the pixels"),
        *("What the first layer looks for", "How far to trust its confidence"),
    ):
        assert f">{title}</h2>" in page
    assert "a temperature fitted to the" in page
    assert len(page) < 5_000_000


def test_the_way_of_the_weights_begins_where_training_began(run: Run) -> None:
    states = way(run, run.data())
    assert len(states) == 5  # the first weights, and four epochs
    last = run.bundle.weights
    assert all(torch.equal(states[-1][name], one) for name, one in last.items())
    lengths = [
        sum(
            float((state[name] - one).square().sum()) for name, one in last.items() if one.dim() > 1
        )
        for state in states
    ]
    assert lengths[0] == max(lengths) > 0


def test_masks_have_reasons_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roads = folder(tmp_path / "roads", {"train": 8, "val": 2})
    recipe = {
        "model_args": {"width": 4, "depth": 2},
        "engine": {**PLAIN, "epochs": 1},
    }
    made = fit("unet", load(roads), from_dict(Recipe, recipe), out=tmp_path / "run")
    data = made.data()
    path = tmp_path / "road.png"
    Image.fromarray(data.images.picture(int(data.splits["val"][0]))).save(path)
    words = ("explain", made.path, path, "--method", "input_gradient", "--method", "grad_cam")
    told = call(capsys, *words, "--out", tmp_path / "why")
    one = told["images"][0]
    assert one["target"] == next(iter(one["shares"]))
    assert one["hidden"] is None
    assert set(one["maps"]) == {"input_gradient", "grad_cam"}
    inside = call(capsys, "explain", made.path, "--minutes", "0.05", "--out", tmp_path)
    assert inside["kernels"]
    assert {line.partition(":")[0] for line in inside["missing"]} >= {"embedding", "changes"}


def test_numbers_are_traced_but_have_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=x.mean((1, 2)).astype(np.float32))
    recipe = {"engine": {**PLAIN, "epochs": 1}, "model_args": {"width": 4}}
    made = fit("cnn", load(tmp_path / "set.npz"), from_dict(Recipe, recipe), out=tmp_path / "run")
    path = tmp_path / "one.png"
    Image.fromarray(x[0]).save(path)
    code, said = refused(capsys, monkeypatch, "explain", made.path, path)
    assert (code, "answers with numbers" in said) == (2, True)
    told = call(capsys, "explain", made.path, path, "--trace", "stages.0.0:0,0,0")
    assert "the network computed" in told["images"][0]["trace"]
    # The loss is the run's own, to a truth that is told: (z − goal)² in standard deviations.
    code, said = refused(capsys, monkeypatch, "explain", made.path, path, "--weight", SPOT)
    assert (code, "as the truth, found ''" in said) == (2, True)
    words = ("explain", made.path, path, "--weight", SPOT, "--target", "100")
    text = call(capsys, *words)["images"][0]["weight"]
    network, x = prepared(made, path)
    network.double()
    outputs = network(x.double())
    units = made.bundle.task.args
    goal = (100 - units["mean"][0]) / units["std"][0]
    ((outputs - goal) ** 2).mean().backward()
    gradient = float(network.get_submodule("stages.0.0").weight.grad[2, 0, 1, 1])
    assert derivative(text) == pytest.approx(gradient, rel=2e-3, abs=1e-12)


def test_a_run_that_is_not_finished_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = refused(capsys, monkeypatch, "explain", tmp_path)
    assert (code, "holds no run" in said) == (1, True)
