"""The order of pictures in memory: what a choice says is what a network is given, and one that
takes the channels first alone trains, answers, explains and ships as any other."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import neocog
from neocog.config import Recipe
from neocog.data import dataset
from neocog.data.dataset import Dataset
from neocog.engine import checkpoint, loop, tuner
from neocog.errors import ConfigError, RunError
from neocog.export.exporting import export
from neocog.layers import Normalize
from neocog.settings import from_dict
from test_loop import make

ORDERS = {"contiguous": (0, 1, 2, 3), "channels_last": (0, 2, 3, 1)}


def lies(images: Tensor, name: str) -> bool:
    """Whether the strides, those of axes of one count too, are those of an order."""
    axes = ORDERS[name]
    shape = [images.shape[axis] for axis in axes]
    return [images.stride(axis) for axis in axes] == list(torch.empty(shape).stride())


def order(images: Tensor) -> str:
    """The order of pictures that are larger than one pixel."""
    found = [name for name in ORDERS if lies(images, name)]
    return found[0] if found else f"neither: {tuple(images.shape)} {images.stride()}"


class Spy(nn.Module):
    """A network that remembers in which order its pictures and kernels lay."""

    seen: set[tuple[bool, str, str]]

    def __init__(self, channels: int, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4, classes)
        self.seen = set()

    def __deepcopy__(self, _: Any) -> "Spy":
        twin = Spy(self.first.in_channels, self.last.out_features)
        twin.load_state_dict(self.state_dict())
        twin.seen = self.seen
        return twin

    def forward(self, images: Tensor) -> Tensor:
        inside = self.first(images).relu()
        self.seen.add((self.training, order(images), order(inside)))
        found: Tensor = self.last(self.second(inside).relu().mean((2, 3)))
        return found


class Viewing(nn.Module):
    """As tutorials write it."""

    def __init__(self, channels: int = 3, side: int = 12) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(6 * (side // 2) ** 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        inside = self.pool(torch.relu(self.convolution(images)))
        found: Tensor = self.last(inside.view(-1, 6 * inside.shape[2] ** 2))
        return found


class Repeating(Viewing):
    """Whose convolution is given pictures in the usual order, whatever it is given itself."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.contiguous())


class Hidden(Viewing):
    """Which views while it trains alone."""

    def forward(self, images: Tensor) -> Tensor:
        inside = self.pool(torch.relu(self.convolution(images)))
        flat = inside.view(-1, 6 * inside.shape[2] ** 2) if self.training else inside.flatten(1)
        found: Tensor = self.last(flat)
        return found


class Straight(nn.Module):
    """Whose first operation is a view: a window of a picture has none."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * 12 * 12, 3)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(images.view(images.shape[0], -1))
        return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes across, stripes down, chequers, in colours of chance."""
    folder = tmp_path_factory.mktemp("patterns")
    chance = np.random.default_rng(0)
    rows, columns = np.mgrid[:12, :12] // 2 % 2
    for name, pattern in {"across": rows, "down": columns, "chequers": rows ^ columns}.items():
        (folder / name).mkdir()
        for number in range(40):
            picture = pattern[..., None] * chance.integers(100, 256, 3)
            picture = (picture + chance.integers(0, 40, picture.shape)).clip(0, 255)
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def patterns(source: Path) -> Dataset:
    recipe = from_dict(Recipe, {"data": {"source": str(source), "val": 0.2}})
    return dataset.load(recipe.data)


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    given_order=st.sampled_from(list(ORDERS)),
    wanted=st.sampled_from(list(ORDERS)),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
)
@settings(deadline=None)
def test_bytes_are_normalised_into_the_order_that_is_wanted(
    shape: tuple[int, int, int, int], given_order: str, wanted: str, dtype: torch.dtype
) -> None:
    count, channels, height, width = shape
    if given_order == "channels_last":
        images = torch.randint(0, 256, (count, height, width, channels)).movedim(-1, 1)
    else:
        images = torch.randint(0, 256, shape)
    images = images.to(dtype)
    before = images.clone()
    mean, std = (0.3,) * channels, (0.2,) * channels
    memory = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[wanted]
    found = Normalize(mean, std, order=memory)(images)
    assert lies(found, wanted)
    assert torch.equal(images, before)
    expected = (before.numpy() / 255 - 0.3) / 0.2
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grown", [0.0, 0.5])
@pytest.mark.parametrize("layout", list(ORDERS))
def test_pictures_lie_in_training_as_the_choice_says(
    layout: str, grown: float, patterns: Dataset, tmp_path: Path
) -> None:
    network = Spy(3)
    values = {"engine": {"layout": layout}, "schedule": {"grow": 0.7, "grown": grown}}
    loop.train(make(patterns, values, network), folder=tmp_path)
    assert {(where, inside) for training, where, inside in network.seen if training} == {
        (layout, layout)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_the_tuner_times_both_orders(
    channels: int, patterns: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = patterns if channels == 3 else dataset.load(_digits().data)
    network = Spy(channels, len(data.classes))
    monkeypatch.setattr(tuner, "MOST", 0.5)
    seen: dict[str, set[str]] = {}
    step = tuner.Candidate.step

    def spied(self: tuner.Candidate, batches: Any) -> None:
        network.seen.clear()
        step(self, batches)
        seen.setdefault(self.choice.layout, set()).update(one[1] for one in network.seen)

    monkeypatch.setattr(tuner.Candidate, "step", spied)
    values = {"engine": {"epochs": 100_000, "precision": "fp32", "compile": "off"}}
    found = tuner.tune(make(data, values, network), cache=tmp_path)
    assert {trial.choice.layout for trial in found.trials} == set(ORDERS)
    assert seen == {name: {name} for name in ORDERS}


def _digits() -> Recipe:
    return from_dict(Recipe, {"data": {"source": "digits"}})


def test_where_nothing_is_measured_pictures_stay_as_they_are(source: Path, tmp_path: Path) -> None:
    run = neocog.fit(Spy(3), recipe=_recipe(source), out=tmp_path / "run")
    assert run.recipe.engine.layout == "channels_last"
    assert not run.bundle.input.contiguous


def _recipe(source: Path, **engine: Any) -> Recipe:
    values = {
        "data": {"source": str(source), "val": 0.2},
        "engine": {"epochs": 3, "batch": 16, "device": "cpu", **engine},
        "augment": {"flip": 0.5, "shift": 0.1},
    }
    return from_dict(Recipe, values)


@pytest.fixture(scope="module", params=[Viewing, Straight], ids=lambda kind: kind.__name__)
def viewed(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[neocog.Run, nn.Module]:
    """A run of a network that takes the channels first alone, all views on."""
    torch.manual_seed(0)
    module: nn.Module = request.param()
    out = tmp_path_factory.mktemp("viewed") / "run"
    return neocog.fit(module, recipe=_recipe(source, views="many", epochs=40), out=out), module


def test_a_network_that_views_trains_and_answers(
    viewed: tuple[neocog.Run, nn.Module], patterns: Dataset
) -> None:
    run, module = viewed
    assert run.recipe.engine.layout == "contiguous"
    assert run.bundle.input.contiguous
    assert run.scores["val"].metrics["accuracy"].value > 0.5
    again = neocog.open(run.path, model=type(module)())
    images = patterns.images.gather(torch.arange(10), patterns.size)
    answers = again.predictor()(images)
    # The same through a twin that takes any order, with the views written out.
    twin = type(module)()
    twin.load_state_dict(run.bundle.weights)
    spec = run.bundle.input
    ready = ((images.double() / 255 - _column(spec.mean)) / _column(spec.std)).contiguous()
    sides = []
    for side in (ready, ready.flip(-1)):
        padded = torch.nn.functional.pad(side, (1, 1, 1, 1), mode="reflect")
        high, wide = side.shape[2:]
        moved = (padded[..., :high, :wide], padded[..., 2:, 2:])
        parts = [twin.double()(one.contiguous()) for one in (side, *moved)]
        sides.append(parts[0] / 2 + parts[1] / 4 + parts[2] / 4)
    mean = (sides[0] + sides[1]) / 2 if "mirror" in spec.views else sides[0]
    temperature = run.bundle.task.args.get("temperature", 1.0)
    torch.testing.assert_close(answers, (mean / temperature).softmax(1).float())


def test_it_ships(viewed: tuple[neocog.Run, nn.Module], tmp_path: Path) -> None:
    run, module = viewed
    again = neocog.open(run.path, model=type(module)())
    found = export(again, to="onnx", out=tmp_path / "net.onnx")
    assert found.parity.n
    assert not found.parity.beyond


class Counting(Viewing):
    """Which asks Python for the number of pictures."""

    def forward(self, images: Tensor) -> Tensor:
        inside = self.pool(torch.relu(self.convolution(images)))
        found: Tensor = self.last(inside.view(len(inside), -1))
        return found


@pytest.mark.parametrize(("form", "name"), [("onnx", "net.onnx"), ("torch", "net.pt2")])
def test_what_cannot_be_followed_is_told_how(
    form: Any, name: str, source: Path, tmp_path: Path
) -> None:
    run = neocog.fit(Counting(), recipe=_recipe(source), out=tmp_path / "run")
    again = neocog.open(run.path, model=Counting())
    with pytest.raises(RunError, match="size") as told:
        export(again, to=form, out=tmp_path / name)
    assert told.value.hint.endswith("write x.shape[0] instead of len(x)")


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "contiguous"), [(Repeating, False), (Hidden, True)], ids=["repeats", "hides"]
)
def test_views_are_found_wherever_they_are(
    kind: type[Viewing], contiguous: bool, source: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    run = neocog.fit(kind(), recipe=_recipe(source, epochs=12), out=tmp_path / "run")
    assert run.bundle.input.contiguous is contiguous
    assert run.scores["val"].metrics["accuracy"].value > 0.5


def test_kernels_that_lie_otherwise_are_put_right(source: Path, tmp_path: Path) -> None:
    module = Viewing().to(memory_format=torch.channels_last)
    run = neocog.fit(module, recipe=_recipe(source), out=tmp_path / "run")
    assert run.bundle.input.contiguous
    again = neocog.open(run.path, model=Viewing().to(memory_format=torch.channels_last))
    assert again.predictor()(torch.zeros(2, 3, 12, 12, dtype=torch.uint8)).shape == (2, 3)


def test_one_channel_is_viewed_from_a_window(tmp_path: Path) -> None:
    """Of one channel both orders are the same bytes; a window of a padded picture is neither."""
    values = {"engine": {"epochs": 1, "views": "many"}, "augment": {"flip": 0.5, "shift": 0.125}}
    recipe = from_dict(Recipe, {"data": {"source": "digits"}, **values})
    run = neocog.fit(_Flat(), recipe=recipe, out=tmp_path / "run")
    assert "shift" in run.bundle.input.views
    assert run.bundle.input.contiguous


class _Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(images.view(-1, 64))
        return found


def test_the_order_is_part_of_what_is_remembered(source: Path, tmp_path: Path) -> None:
    """Two networks of the same layers, one of which views."""

    class Twin(Viewing):
        def forward(self, images: Tensor) -> Tensor:
            inside = self.pool(torch.relu(self.convolution(images)))
            found: Tensor = self.last(inside.flatten(1))
            return found

    Twin.__name__ = Twin.__qualname__ = "Viewing"
    data = dataset.load(_recipe(source).data)
    jobs = [make(data, {"engine": {"epochs": 9}}, kind()) for kind in (Viewing, Twin)]
    jobs[0] = dataclasses.replace(
        jobs[0], input=dataclasses.replace(jobs[0].input, contiguous=True)
    )
    assert str(jobs[0].network) == str(jobs[1].network)
    assert tuner._key(jobs[0]) != tuner._key(jobs[1])


def test_channels_last_cannot_be_asked_of_it(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not take pictures in channels_last memory") as told:
        neocog.fit(Viewing(), recipe=_recipe(source, layout="channels_last"), out=tmp_path / "run")
    assert "x.flatten(1)" in str(told.value.hint)
    assert not (tmp_path / "run").exists()


def test_bundles_of_before_lie_as_they_did(source: Path, tmp_path: Path) -> None:
    run = neocog.fit("mlp", recipe=_recipe(source), out=tmp_path / "run")
    assert not run.bundle.input.contiguous
    plain = json.loads(json.dumps(run.bundle.described.plain()))
    del plain["input"]["contiguous"]
    older = {**plain, "format": 4}
    # Files that were made from it before are still its own.
    before = {key: older[key] for key in ("classes", "input", "model", "task")}
    text = json.dumps(before, sort_keys=True)
    assert run.bundle.digest == checkpoint.digest_of(text, run.bundle.weights)
    described = type(run.bundle.described).of(older, file="f", thing="t")
    assert described == run.bundle.described
