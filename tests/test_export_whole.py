"""Export from end to end, as people type it: each form is opened by a library of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

import neocog
from drawn_masks import folder
from neocog.config import AugmentRecipe, DataRecipe, EngineRecipe, Recipe
from neocog.run import Run, open_run
from neocog.runtime.openvino_library import openvino_core
from test_cli import neocog as typed

if TYPE_CHECKING:
    from collections.abc import Callable

FACTORY = """
from torch import nn


def small(channels, outputs):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, outputs)
    )
"""


def arrays(root: Path, name: str, count: int = 240) -> str:
    """Drawn samples whose targets can be told from them."""
    chance = np.random.default_rng(7)
    shapes = {"signal": (64,), "volume": (8, 8, 8)}
    path = root / f"{name}.npz"
    if name in shapes:
        y = np.arange(count) % 2
        x = chance.normal(size=(count, *shapes[name])).astype(np.float32)
        x[y == 1] *= 0.2
        np.savez(path, x=x, y=y, dims=len(shapes[name]))
        return str(path)
    x = chance.integers(0, 120, (count, 12, 10, 3), np.uint8)
    on = chance.integers(0, 2, (count, 3))
    x += (on[:, None, None] * 120).astype(np.uint8)
    if name == "multilabel":
        np.savez(path, x=x, y=on, classes=np.array(["red", "green", "blue"]))
    else:
        np.savez(path, x=x, y=on[:, :2] * 1.5 - 0.5)
    return str(path)


def trained(root: Path, source: str, model: str = "cnn", **data: Any) -> Run:
    torch.set_num_threads(1)
    args = {"width": 4, "depth": 2 if model == "unet" else 1}
    recipe = Recipe(
        data=DataRecipe(**{"source": source, "val": 0.4, **data}),
        engine=EngineRecipe(epochs=1, device="cpu"),
        augment=AugmentRecipe(shift=0.0),
        model_args=args if model == "unet" else args | {"convs": 1},
    )
    return neocog.fit(model, source, recipe, out=root / "net", quiet=True)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A run for each task, made when it is first asked for."""
    made: dict[str, Run] = {}

    def of(task: str) -> Run:
        if task not in made:
            root = tmp_path_factory.mktemp(task)
            if task == "classify":
                made[task] = trained(root, "digits")
            elif task == "segment":
                masks = folder(root / "data", {"train": 6, "val": 3})
                made[task] = trained(root, str(masks), "unet", size=(32, 32))
            else:
                made[task] = trained(root, arrays(root, task))
        return made[task]

    return of


def opened(path: Path, form: str, name: str) -> Callable[[Any], dict[str, Any]]:
    """A file as anybody would open it: raw samples → outputs by name."""
    if form == "torch":
        module = torch.export.load(path).module()

        def ask(samples: Any) -> dict[str, Any]:
            found = module(torch.from_numpy(samples))
            several = found if isinstance(found, tuple) else (found,)
            return {str(place): one.detach().numpy() for place, one in enumerate(several)}

        return ask
    if form == "openvino":
        core = openvino_core()
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        model = core.compile_model(core.read_model(path), "CPU", settings)
        return lambda samples: {
            key.any_name: value for key, value in model({name: samples}).items()
        }
    file = path / "1" / "model.onnx" if form == "triton" else path
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return lambda samples: dict(zip(names, session.run(None, {name: samples}), strict=True))


@pytest.mark.parametrize(
    ("task", "form", "precision"),
    [
        ("classify", "onnx", "fp32"),
        ("classify", "openvino", "int8"),
        ("classify", "torch", "fp32"),
        ("multilabel", "openvino", "fp16"),
        ("multilabel", "triton", "int8"),
        ("regress", "onnx", "fp16"),
        ("regress", "openvino", "fp32"),
        ("segment", "onnx", "fp32"),
        ("segment", "torch", "fp32"),
        ("segment", "triton", "fp16"),
        ("signal", "torch", "fp32"),
        ("signal", "onnx", "int8"),
        ("volume", "onnx", "fp32"),
    ],
)
def test_what_was_written_answers_as_the_run(
    task: str,
    form: str,
    precision: str,
    run_of: Callable[[str], Run],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = run_of(task)
    options = ["--max-loss", 0.2] if precision == "int8" else []
    told = typed(
        capsys, "export", run.path, "--to", form, "--precision", precision, *options, "--json"
    )
    assert told.code == 0, told.err
    assert "Warning" not in told.err
    said, ending = told.json, "" if precision == "fp32" else f"-{precision}"
    path, report = Path(said["file"]), Path(said["report"])
    suffix = {"onnx": ".onnx", "torch": ".pt2", "openvino": ".xml", "triton": ""}[form]
    assert path.name == f"net{ending}{suffix}"
    assert report == path.with_name(f"{path.name}.json")
    # Names, by the file's own account.
    pictures = task not in ("signal", "volume")
    name = "images" if pictures else "samples"
    outputs = ["numbers"] if task == "regress" else ["probabilities"]
    outputs += ["mask"] if task == "segment" else []
    assert said["input"]["name"] == name
    assert [one["name"] for one in said["outputs"]] == outputs
    # Answers for samples of the data, and of pictures in another size.
    data = run.data()
    ids = data.splits["val"][:3].tolist()
    samples = np.stack([np.moveaxis(data.images.picture(one), -1, 0) for one in ids])
    ask = opened(path, form, name)
    for given in [samples, samples.repeat(2, 2)] if pictures else [samples]:
        given = np.ascontiguousarray(given)
        found = ask(given)
        if form != "torch":  # whose outputs have places instead
            assert sorted(found) == sorted(outputs)
        assert len(found) == len(outputs)
        first = next(iter(found)) if form == "torch" else outputs[0]
        with torch.no_grad():
            right = run.predictor()(torch.from_numpy(given)).numpy()
        scale = np.maximum(1, np.abs(right)) if task == "regress" else 1
        allowed = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.2}[precision]
        assert (np.abs(found[first] - right) / scale).max() <= allowed
        if task == "segment":
            mask = found["1" if form == "torch" else "mask"]
            assert mask.dtype == np.uint8
            assert (mask == found[first].argmax(1)).all()
    kept = json.loads(report.read_text())
    weights = {"openvino": path.with_suffix(".bin"), "triton": path / "1" / "model.onnx"}
    digest = hashlib.sha256(weights.get(form, path).read_bytes()).hexdigest()
    assert kept["sha256"] == said["sha256"] == digest
    assert kept["parity"] == said["parity"]
    assert (kept["to"], kept["precision"], kept["file"]) == (form, precision, path.name)
    assert said["parity"]["n"] == len(data.splits["val"])
    assert bool(kept["remarks"]) is (task == "segment")
    if precision == "int8":
        assert kept["int8"]["calibration"]["part"] == "train"
    if form == "triton" and task == "segment":
        assert "max_batch_size: 4\n" in (path / "config.pbtxt").read_text()


def test_forms_and_precisions_stand_beside_each_other(
    run_of: Callable[[str], Run], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing is written over but what an earlier export left."""
    run = shutil.copytree(run_of("classify").path, tmp_path / "net")
    shutil.rmtree(run / "export", ignore_errors=True)
    some = ("--samples", 20)
    for options in (
        (),
        ("--to", "torch"),
        ("--precision", "fp16"),
        ("--to", "openvino"),
        ("--to", "torch"),
    ):
        named = ("--name", "digits", *some)
        assert typed(capsys, "export", run, *named, *options).code == 0
    files = ["digits-fp16.onnx", "digits.bin", "digits.onnx", "digits.pt2", "digits.xml"]
    reports = [f"{name}.json" for name in files if not name.endswith(".bin")]
    assert sorted(one.name for one in (run / "export").iterdir()) == sorted(files + reports)
    for name in reports:
        kept = json.loads((run / "export" / name).read_text())
        weights = run / "export" / kept["file"].replace(".xml", ".bin")
        assert kept["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("form", "out", "taken"),
    [
        ("onnx", "thing.onnx", "thing.onnx"),
        ("onnx", "thing.onnx", "thing.onnx.json"),
        ("torch", "thing.pt2", "thing.pt2"),
        ("openvino", "thing.xml", "thing.xml"),
        ("openvino", "thing.xml", "thing.bin"),
        ("triton", "models", "models/net.json"),
        ("triton", "models", "models/net/config.pbtxt"),
        ("triton", "models", "models"),
    ],
)
def test_files_of_others_stay(
    form: str,
    out: str,
    taken: str,
    run_of: Callable[[str], Run],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / taken
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"name": "mine"}')
    run = run_of("classify").path
    told = typed(capsys, "export", run, "--to", form, "--out", tmp_path / out, "--samples", 20)
    assert told.code != 0
    assert "did not write" in told.err or "expected the folder" in told.err
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
    assert path.read_text() == '{"name": "mine"}'


def test_eight_bits_are_judged_by_enough_scores(
    run_of: Callable[[str], Run], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, int8 = run_of("classify").path, ("--precision", "int8", "--out", tmp_path / "a.onnx")
    few = typed(capsys, "export", run, *int8, "--samples", 99)
    assert few.code == 1
    assert "99 samples of val cannot tell" in few.err
    assert "expected 100 or more" in few.err
    unscored = tmp_path / "unscored.npz"
    x = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    np.savez(unscored, x=x, y=x[:, 0, :2] / 255.0)
    told = typed(capsys, "export", run, *int8, "--check", unscored)
    assert told.code == 1
    assert not (tmp_path / "a.onnx").exists()


def test_eight_bits_that_lose_too_much_are_refused(
    run_of: Callable[[str], Run],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Calibrated on black pictures alone, it knows no range."""
    from neocog.export import exporting

    raw = exporting._raw
    monkeypatch.setattr(exporting, "_raw", lambda samples: (one * 0 for one in raw(samples)))
    out = tmp_path / "a.onnx"
    options = ("--precision", "int8", "--max-loss", 0.01, "--out", out)
    told = typed(capsys, "export", run_of("classify").path, *options)
    assert told.code == 1
    assert "so no file is kept: a loss of 0.01 is allowed" in told.err
    assert "--max-loss 0." in told.err
    assert list(tmp_path.iterdir()) == []


def test_other_data_and_calibration_apart_from_it(
    run_of: Callable[[str], Run], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from sklearn.datasets import load_digits

    from neocog.export import exporting

    run, seen = run_of("classify"), []
    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[::3]
    np.savez(tmp_path / "other.npz", x=images, y=load_digits().target[::3].astype(str))
    with pytest.MonkeyPatch.context() as patch:
        raw = exporting._raw

        def watched(samples: Any) -> Any:
            for batch in raw(samples):
                seen.extend(one.tobytes() for one in batch)
                yield batch

        patch.setattr(exporting, "_raw", watched)
        options = ("--precision", "int8", "--max-loss", 0.2, "--samples", 400, "--json")
        told = typed(
            capsys, "export", run.path, "--check", tmp_path / "other.npz", *options,
            "--out", tmp_path / "a.onnx",
        )  # fmt: skip
    assert told.code == 0, told.err
    assert told.json["parity"]["n"] == 400
    report = json.loads(Path(told.json["report"]).read_text())
    assert report["source"] == str(tmp_path / "other.npz")
    calibration = report["int8"]["calibration"]
    assert (calibration["source"], calibration["part"]) == ("digits", "train")
    data = run.foreign(str(tmp_path / "other.npz"))
    scored = exporting._samples(data, True, 400)
    prints = {data.images.picture(one).tobytes() for one in scored.ids.tolist()}
    assert len(seen) > 100
    assert prints.isdisjoint(seen)


def test_a_foreign_network_is_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the run's folder is called as the data set is that it was trained on."""
    (tmp_path / "abroad.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(engine=EngineRecipe(epochs=1, device="cpu"), augment=AugmentRecipe(shift=0.0))
    neocog.fit("abroad:small", "digits", recipe, out=Path("digits"), quiet=True)
    assert "abroad:small" in typed(capsys, "export", "digits").err
    told = typed(capsys, "export", "digits", "--model", "abroad:small", "--json")
    assert told.code == 0, told.err
    ask = opened(Path(told.json["file"]), "onnx", "images")
    given = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), np.uint8)
    run = open_run("digits", model="abroad:small")
    right = run.predictor()(torch.from_numpy(given)).detach().numpy()
    np.testing.assert_allclose(ask(given)["probabilities"], right, rtol=0, atol=1e-4)
    assert typed(capsys, "eval", "digits", "--model", "abroad:small").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--name", "a", "--out", "b.onnx"), "leave one of them out"),
        (("--out", "q.bin"), "--out q.onnx"),
        (("--out", "q.v2"), "--out q.v2.onnx"),
        (("--to", "triton", "--out", "test_export_whole.py"), "--out models"),
    ],
)
def test_what_cannot_be_meant_is_refused_first(
    options: tuple[str, ...],
    words: str,
    run_of: Callable[[str], Run],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    told = typed(capsys, "export", run_of("classify").path, *options)
    assert told.code == 2
    assert words in told.err


def test_bundles_and_files_are_not_exported(
    run_of: Callable[[str], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("classify").path
    for path in (run / "bundle", run / "bundle" / "bundle.json"):
        told = typed(capsys, "export", path)
        assert told.code == 2
        assert "expected a run" in told.err
