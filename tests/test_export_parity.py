"""The check before a file is kept: what it lets pass, what it catches, and what is left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import neocog
from neocog.config import AugmentRecipe, EngineRecipe, Recipe
from neocog.errors import ConfigError, RunError
from neocog.export import exporting
from neocog.export import onnx as writing
from neocog.export.parity import TOLERANCES, Difference, Parity, Samples, compare, of_part
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
    assert found.own == 0
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
        "digits.json",
        "digits.onnx",
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


@pytest.mark.parametrize(
    ("beyond", "own", "passes"),
    [(30, 24, True), (30, 0, False), (30, None, False), (90, 24, False)],
)
def test_a_network_that_jumps_is_measured_by_itself(
    beyond: int, own: int | None, passes: bool
) -> None:
    """Where maxima's places decide, the run differs from itself in another order of summing."""
    far = Difference(sample="a.png", expected=0.31, found=0.82, apart=0.51)
    found = Parity(tolerance=TOLERANCES["fp32"], part="val", largest=far, asked=1000)
    found.beyond, found.own = beyond, own
    assert (found.problem == "") is passes
