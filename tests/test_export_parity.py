"""The check before a file is kept: what it lets pass, what it catches, and what is left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import neocog
from drawn_masks import CLASSES, folder
from neocog import tasks
from neocog.config import AugmentRecipe, DataRecipe, EngineRecipe, Recipe
from neocog.data import dataset
from neocog.errors import ConfigError, RunError
from neocog.export import exporting
from neocog.export import onnx as writing
from neocog.export.parity import TOLERANCES, Difference, Parity, compare
from neocog.export.samples import Samples, of_part
from neocog.layers import Predictor
from neocog.records import InputSpec, TaskSpec
from neocog.run import Run, open_run
from neocog.verbs.export import told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SHORT = Recipe(
    engine=EngineRecipe(epochs=2, device="cpu"),
    augment=AugmentRecipe(shift=0.0),
    model_args={"width": 8, "depth": 1, "convs": 1},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "digits"
    return neocog.fit("cnn", "digits", SHORT, out=out, quiet=True)


@pytest.fixture(scope="module")
def samples(run: Run) -> Samples:
    return of_part(run.data(), ("val", "test", "train"), 100)


def of(run: Run, change: Callable[[Any], Any] = lambda answers: answers) -> Any:
    """The run's own answers, changed: as a file would say them."""
    predictor = run.predictor()

    def answer(given: Any) -> Any:
        with torch.no_grad():
            return change(predictor(torch.from_numpy(given)).numpy().copy())

    return answer


def compared(run: Run, samples: Samples, answer: Any, precision: str = "fp32") -> Any:
    task = run.bundle.task
    return compare(answer, run.predictor(), samples, task, TOLERANCES[precision])


def test_the_same_answers_pass_and_are_scored(run: Run, samples: Samples) -> None:
    found = compared(run, samples, of(run))
    assert (found.n, found.part, found.problem) == (100, "val", "")
    assert found.apart == found.mean == found.other == 0
    assert found.before == found.after
    assert found.paired.both + found.paired.neither == 100
    # Accuracy by hand: the run's labels against the targets of the same samples.
    images = samples.data.images
    hits = 0
    for one in samples.ids.tolist():
        given = torch.from_numpy(images.picture(one)).permute(2, 0, 1)[None]
        hits += int(run.predictor()(given).argmax()) == int(samples.data.targets[one])
    assert found.before["accuracy"].value == pytest.approx(hits / 100)
    assert {1, 3, 8} <= set(found.batches)
    assert len({tuple(size) for size in found.sizes}) >= 4
    json.dumps(found.plain(), allow_nan=False)


def test_a_planted_wrong_mean_is_caught(run: Run, samples: Samples) -> None:
    """By one of 255 in a single channel: nothing else about the file is wrong."""
    bundle = run.bundle
    mean = (bundle.input.mean[0] + 1 / 255,)
    wrong = dataclasses.replace(bundle, input=dataclasses.replace(bundle.input, mean=mean))
    predictor = wrong.predictor()
    found = compared(run, samples, lambda x: predictor(torch.from_numpy(x)).detach().numpy())
    assert "the run says" in found.problem
    assert "where 0.0001 is allowed" in found.problem
    assert found.largest.sample.split(" at ")[0] in {
        samples.data.names[one] for one in samples.ids.tolist()
    }


@pytest.mark.parametrize("size", [1.5e-4, np.nan, np.inf])
def test_one_wrong_number_is_found(run: Run, samples: Samples, size: float) -> None:
    seen: list[int] = []

    def change(answers: Any) -> Any:
        if not seen and len(answers) > 8:
            answers[7, 3] += size
        seen.append(len(answers))
        return answers

    found = compared(run, samples, of(run, change))
    assert found.beyond == 1
    assert found.values == (1 if np.isfinite(size) else 2)  # then the label is another one, too
    assert found.largest.sample == samples.data.names[int(samples.ids[7])]
    assert found.problem
    for precision in ("fp16", "int8"):  # a number that is none is never within a tolerance
        seen.clear()
        problem = compared(run, samples, of(run, change), precision).problem
        assert bool(problem) is not np.isfinite(size)


def test_labels_are_compared_apart_from_numbers(run: Run, samples: Samples) -> None:
    """Numbers that are near enough, and another label: the two best change places."""
    tiny = 4e-5

    class Even(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.5, 0.5 - tiny, *[0.0] * 8]]).expand(len(x), 10)

    predictor = run.predictor()
    predictor.network, predictor.decode = Even(), torch.nn.Identity()

    def answer(given: Any) -> Any:
        return np.tile(np.float32([0.5 - tiny, 0.5, *[0] * 8]), (len(given), 1))

    task = run.bundle.task
    found = compare(answer, predictor, samples, task, TOLERANCES["fp32"])
    assert found.apart < 1e-4
    assert "labels differ" in found.problem
    found = compare(answer, predictor, samples, task, TOLERANCES["fp16"])
    assert found.other == found.ties == found.labels
    assert found.problem == ""


def test_export_keeps_a_checked_file_and_its_report(run: Run) -> None:
    found = exporting.export(run, samples=50)
    assert found.path == run.path / "export" / "digits.onnx"
    assert sorted(one.name for one in found.path.parent.iterdir()) == [
        "digits.onnx",
        "digits.onnx.json",
    ]
    report = json.loads(found.report.read_text())
    assert report["sha256"] == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert report["parity"]["n"] == 50
    assert report["parity"]["labels"]["differ"] == 0
    assert 0 <= report["parity"]["largest"]["difference"] < 1e-4
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__
    lines = "\n".join(told(found))
    assert "images  batch×1×height×width" in lines
    assert "50 samples of val" in lines
    # The same picture as a file on disk, by hand, through plain ONNX Runtime.
    data = run.data()
    pixels = data.images.picture(0)[..., 0]
    large = np.asarray(Image.fromarray(pixels).resize((31, 17), Image.Resampling.NEAREST))
    session = onnxruntime.InferenceSession(found.path, providers=["CPUExecutionProvider"])
    shares = session.run(["probabilities"], {"images": large[None, None]})[0]
    right = run.predictor()(torch.from_numpy(large.copy())[None, None])
    np.testing.assert_allclose(shares, right.detach().numpy(), rtol=0, atol=1e-5)


def test_a_file_that_answers_otherwise_is_never_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The writer is handed a bundle with another mean; the check compares with the run."""
    out = tmp_path / "wrong.onnx"
    write = writing.write

    def planted(bundle: Any, path: Path, **options: Any) -> None:
        assert not out.exists()
        spec = dataclasses.replace(bundle.input, mean=(bundle.input.mean[0] + 0.02,))
        write(dataclasses.replace(bundle, input=spec), path, **{**options, "predictor": None})

    monkeypatch.setattr(writing, "write", planted)
    with pytest.raises(RunError, match="does not answer as the run does, so no file is kept"):
        exporting.export(run, out=out, samples=20)
    assert list(tmp_path.iterdir()) == []


def test_without_data_it_tells_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Run, progress: Any = None) -> Any:
        raise RunError("the data of this run cannot be opened")

    monkeypatch.setattr(Run, "data", gone)
    with pytest.raises(RunError, match="answers as the run does") as caught:
        exporting.export(open_run(run.path))
    assert "--check SOURCE" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "onyx"}, "no form 'onyx'"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"to": "torch", "precision": "int8"}, "written in fp32"),
        ({"name": "../up"}, "cannot be the name"),
        ({"samples": 0}, "at least one sample"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        exporting.export(run, **options)


FAR = Difference(sample="a.png", expected=0.31, found=0.82, apart=0.51)


@pytest.mark.parametrize(
    ("beyond", "values", "own", "own_values", "passes"),
    [
        (30, 700, 24, 400, True),
        (30, 700, 0, 0, False),
        (30, 700, None, None, False),
        (90, 700, 24, 400, False),
        (30, 1400, 24, 400, False),  # few pictures, but too much of them
        (3, 90, 1, 20, True),
    ],
)
def test_masks_that_jump_are_measured_by_the_run_itself(
    beyond: int, values: int, own: int | None, own_values: int | None, passes: bool
) -> None:
    found = Parity(
        tolerance=TOLERANCES["fp32"], part="val", whole=True, largest=FAR, asked=1000, labels=9
    )
    found.beyond, found.values, found.own, found.own_values = beyond, values, own, own_values
    assert (found.problem == "") is passes
    assert bool(found.exception) is passes
    assert found.plain()["exception"] == (found.exception or None)
    # Where a picture has one answer nothing excuses a file.
    found.whole = False
    assert found.problem
    assert found.exception == ""


class Jumps(torch.nn.Module):
    """Sums of three channels; of two neighbours the larger one returns to where it stood.

    Args:
        order: in which channels are summed.
    """

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = (x[:, one : one + 1] for one in self.order)
        total = first + second + third
        largest, places = F.max_pool2d(total, (1, 2), return_indices=True)
        back = F.max_unpool2d(largest, places, (1, 2), output_size=list(total.shape[2:]))
        return torch.cat([back, -back, 0.3 * back + 1], 1)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Forty pictures with masks, brighter and brighter to the right. In three of them are
    neighbours with the same colours in other channels, whose sums are equal but for rounding."""
    root, chance = tmp_path_factory.mktemp("tied"), np.random.default_rng(5)
    folder(root, {"train": 40})
    rows, columns = np.indices((40, 48))
    for index in range(40):
        pixels = np.stack([columns * 5, rows * 3, rows * 0 + 5 * index], 2).astype(np.uint8)
        if index in (11, 23, 35):
            pixels[:4, ::2] = chance.integers(0, 256, (4, 24, 3), np.uint8)
            pixels[:4, 1::2] = pixels[:4, ::2, ::-1]
        Image.fromarray(pixels).save(root / "train" / f"{index:03}.png")
    data = dataset.load(DataRecipe(source=str(root), val=0.0, size=(32, 32)))
    return of_part(data, ("train",), 100)


def jumping(mean: tuple[float, float, float], *order: int) -> Predictor:
    spec = InputSpec(channels=3, size=(32, 32), mean=mean, std=(0.3,) * 3, whole=True)
    return Predictor(Jumps(*order), spec, lambda z: z.softmax(1)).eval()


def test_rounding_alone_is_no_fault_of_a_file_for_masks(tied: Samples) -> None:
    task = tasks.build(TaskSpec(name="segment", args={"classes": list(CLASSES)})).spec
    run = jumping((0.45,) * 3, 0, 1, 2)

    def of(change: Callable[[Any], Any], mean: float = 0.45, order: Any = (2, 1, 0)) -> Parity:
        file = jumping((mean, 0.45, 0.45), *order)

        def answer(given: Any) -> Any:
            return change(file(torch.from_numpy(np.ascontiguousarray(given))).numpy())

        return compare(answer, run, tied, task, TOLERANCES["fp32"])

    same = of(lambda x: x, order=(0, 1, 2))
    assert (same.beyond, same.own, same.exception, same.pieces) == (0, None, "", 0)
    other = of(lambda x: x)  # summed in another order
    assert other.n == 40
    assert other.apart > 0.1
    assert 1 <= other.beyond <= 3
    assert 1 <= (other.own or 0) <= 3
    assert "rounding decides" in other.exception
    assert other.problem == ""
    json.dumps(other.plain(), allow_nan=False)
    # A mean that is off by 1 of 255, and a file that is wrong in two pictures beside.
    assert "is allowed" in of(lambda x: x, mean=0.45 + 1 / 255).problem
    left = [2]

    def torn(answers: Any) -> Any:
        if left[0] and len(answers) > 8:
            left[0] -= 1
            answers[0] = answers[0, ::-1]
        return answers

    wrong = of(torn)
    assert wrong.beyond <= 3 * ((wrong.own or 0) + 1)
    assert wrong.problem
