"""What people type, from end to end, on real pictures: the digits of scikit-learn."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from neocog import cli
from neocog.bundle import Bundle
from neocog.run import open_run


class Said:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def neocog(capsys: pytest.CaptureFixture[str], *argv: object) -> Said:
    """Run the command line in this process, as the console script does."""
    capsys.readouterr()
    old = sys.argv
    sys.argv = ["neocog", *map(str, argv)]
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = old
    found = capsys.readouterr()
    return Said(code, found.out, found.err)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as PNG files in class folders below train/ and test/."""
    root = tmp_path_factory.mktemp("pictures")
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        part = "test" if index % 5 == 0 else "train"
        folder = root / part / f"digit-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.round(image * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04d}.png")
    return root


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the folder, made through the command line in a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    command = [sys.executable, "-m", "neocog", "train", str(pictures), "--epochs", "4"]
    command += ["--model", "cnn", "--set", "model_args.width=16", "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    contract = {"run", "epochs", "steps", "seconds", "images_per_second", "engine", "val", "test"}
    assert contract <= set(summary)
    assert {"precision", "layout", "compile"} <= set(summary["engine"])
    assert summary["run"] == str(out)
    assert "epoch 4/4" in done.stderr
    assert "\x1b" not in done.stderr  # plain lines where there is no terminal
    return out


def test_training_counts_and_learns(trained: Path) -> None:
    summary = open_run(trained).summary
    assert summary["data"] == {"found": 1797, "used": 1797, "skipped": 0}
    assert summary["epochs"] == 4
    test, val = summary["test"], summary["val"]
    assert test["accuracy"]["n"] == test["data"]["used"] == 360
    assert val["accuracy"]["n"] == round(0.1 * (1797 - 360))
    assert test["accuracy"]["low"] < test["accuracy"]["value"] < test["accuracy"]["high"]
    assert test["accuracy"]["value"] > 0.9
    assert len(test["classes"]) == 10
    assert set(test["classes"][0]) >= {"name", "precision", "recall", "f1", "n"}
    assert np.trace(test["confusion"]) == round(test["accuracy"]["value"] * 360)
    assert 0 <= test["calibration"]["ece"] < 0.5


def test_the_run_folder_is_complete(trained: Path) -> None:
    for name in ("manifest.json", "events.jsonl", "evaluation.json", "report.html"):
        assert (trained / name).stat().st_size > 0
    assert {path.name for path in (trained / "bundle").iterdir()} == {
        "bundle.json",
        "weights.safetensors",
    }
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "digit-3" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_eval_repeats_the_numbers_of_train(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = neocog(capsys, "eval", trained, "--json")
    summary = open_run(trained).summary
    assert said.code == 0
    assert said.json["val"] == summary["val"]
    assert said.json["test"] == summary["test"]
    assert said.json["part"] == "test"
    assert said.json["accuracy"] == summary["test"]["accuracy"]


def test_predicting_the_files_agrees_with_eval(
    trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((pictures / "test").rglob("*.png"))
    said = neocog(capsys, "predict", trained, *files, "--json")
    assert said.code == 0
    names = [row["name"] for row in open_run(trained).summary["test"]["classes"]]
    confusion = np.zeros((10, 10), int)
    for file, entry in zip(files, said.json, strict=True):
        assert entry["path"] == str(file)
        assert entry["probability"] == max(one["probability"] for one in entry["top"])
        confusion[names.index(file.parent.name), names.index(entry["label"])] += 1
    assert confusion.tolist() == open_run(trained).summary["test"]["confusion"]


def test_both_are_the_network_written_out_by_hand(trained: Path, pictures: Path) -> None:
    """Bundle → PIL → NumPy normalisation → network → softmax, without our predictor."""
    run = open_run(trained)
    file = next((pictures / "test" / "digit-7").iterdir())
    pixels = np.asarray(Image.open(file), np.float64) / 255
    spec = run.bundle.input
    x = torch.tensor((pixels - spec.mean[0]) / spec.std[0], dtype=torch.float32)[None, None]
    with torch.no_grad():
        outputs = run.bundle.network()(x).double()
    expected = (outputs / run.bundle.task.args.get("temperature", 1.0)).softmax(1)[0]
    entry = run.predict([file])[0]
    place = run.bundle.classes.index(entry["label"])
    assert entry["probability"] == pytest.approx(float(expected[place]), abs=1e-6)
    train = sorted((pictures / "train").rglob("*.png"))
    values = np.stack([np.asarray(Image.open(one)) for one in train]) / 255
    assert spec.mean[0] == pytest.approx(values.mean(), abs=0.01)


def test_eval_on_other_data_matches_classes_by_name(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that lacks classes scores right; one with an unknown class is refused."""
    for name in ("digit-8", "digit-3"):
        (tmp_path / name).symlink_to(pictures / "test" / name)
    for name in ("digit-8", "digit-3"):
        copy = tmp_path / "few" / name
        copy.mkdir(parents=True)
        for file in (pictures / "test" / name).iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    said = neocog(capsys, "eval", trained, tmp_path / "few", "--json")
    assert said.code == 0, said.err
    rows = {row["name"]: row for row in said.json["classes"]}
    whole = {row["name"]: row for row in open_run(trained).summary["test"]["classes"]}
    for name in ("digit-8", "digit-3"):
        assert rows[name]["recall"] == whole[name]["recall"]
        assert rows[name]["n"] == whole[name]["n"]
    assert rows["digit-1"]["n"] == 0
    assert rows["digit-1"]["recall"] is None

    (tmp_path / "few" / "digit-x").mkdir()
    (tmp_path / "few" / "digit-x" / "a.png").write_bytes(file.read_bytes())
    said = neocog(capsys, "eval", trained, tmp_path / "few")
    assert said.code == 1
    assert "digit-x" in said.err
    assert "Traceback" not in said.err


def test_a_part_of_one_class_is_scored(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that holds a single class folder: to evaluate on, and to validate with."""
    few = tmp_path / "few"
    shutil.copytree(pictures / "test" / "digit-3", few / "digit-3")
    said = neocog(capsys, "eval", trained, few, "--json")
    assert said.code == 0, said.err
    rows = {row["name"]: row for row in said.json["classes"]}
    whole = {row["name"]: row for row in open_run(trained).summary["test"]["classes"]}
    assert rows["digit-3"]["n"] == whole["digit-3"]["n"] == said.json["accuracy"]["n"]
    assert rows["digit-3"]["recall"] == whole["digit-3"]["recall"]
    assert said.json["accuracy"]["value"] == rows["digit-3"]["recall"]

    train = ["train", pictures / "train", "--model", "mlp", "--epochs", 1, "--json"]
    said = neocog(capsys, *train, "--val", few, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert said.json["val"]["accuracy"]["n"] == whole["digit-3"]["n"]

    (few / "digit-3").rename(few / "digit-x")
    for argv in (["eval", trained, few], [*train, "--val", few, "--out", tmp_path / "b"]):
        said = neocog(capsys, *argv)
        assert said.code == 1
        assert "unknown class 'digit-x'" in said.err
        assert not (tmp_path / "b").exists()
    said = neocog(capsys, "train", few, "--out", tmp_path / "b")
    assert said.code == 1
    assert f"{few}: expected at least two classes, found only 'digit-x'" in said.err


def test_a_file_that_is_no_picture_is_named_and_the_rest_answered(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next((pictures / "test" / "digit-0").iterdir())
    (tmp_path / "bad.png").write_bytes(b"<html>not found</html>")
    said = neocog(
        capsys, "predict", trained, tmp_path / "bad.png", good, tmp_path / "gone.png", "--json"
    )
    assert said.code == 1
    assert set(said.json[0]) == set(said.json[2]) == {"path", "error"}
    assert said.json[1]["label"].startswith("digit-")
    assert f"{good}" in neocog(capsys, "predict", trained, good).out


def test_resuming_a_finished_run_says_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    # What a kill between the last file and the end of the lock leaves.
    (trained / ".lock").write_text("1\n")
    said = neocog(capsys, "resume", trained)
    assert said.code == 0
    assert "is finished" in said.err
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_folder_that_holds_a_run_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = neocog(capsys, "train", "digits", "--out", trained)
    assert said.code == 1
    assert f"neocog resume {trained}" in said.err


def test_a_manifest_runs_it_again_to_the_same_numbers(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    said = neocog(capsys, "train", "--config", trained / "manifest.json", "--out", out, "--json")
    assert said.code == 0, said.err
    summary = open_run(trained).summary
    assert said.json["val"] == summary["val"]
    assert said.json["test"] == summary["test"]
    first, again = (
        load_file(folder / "bundle" / "weights.safetensors") for folder in (trained, out)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_killed_run_is_resumed_to_the_same_bytes(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"
    code = (
        "import os, neocog.cli as c, neocog.engine.checkpoint as k\n"
        "old = k.save\n"
        "def save(*a, **b):\n"
        "    old(*a, **b)\n"
        "    os._exit(9)\n"
        "k.save = save\n"
        "c.main()\n"
    )
    command = [sys.executable, "-c", code, "train", "--config", str(trained / "manifest.json")]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stderr
    assert "not finished" in repr(open_run(out))
    said = neocog(capsys, "eval", out)
    assert said.code == 1
    assert f"neocog resume {out}" in said.err
    said = neocog(capsys, "resume", out, "--json")
    assert said.code == 0, said.err
    assert "going on after step" in said.err
    weights = [
        (folder / "bundle" / "weights.safetensors").read_bytes() for folder in (trained, out)
    ]
    assert weights[0] == weights[1]
    assert said.json["test"] == open_run(trained).summary["test"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["train", "nowhere"], 1, "nowhere"),
        (["train", "digit"], 1, "'digits'"),
        (["train"], 2, "neocog train digits"),
        (["train", "digits", "--model", "resnet8"], 2, "'resnet18'"),
        (["train", "digits", "--set", "engine.epoch=3"], 2, "'epochs'"),
        (["train", "digits", "--set", "model_args.widht=3"], 2, "'width'"),
        (["train", "digits", "--set", "optim.lr=-1"], 2, "positive"),
        (["train", "digits", "--device", "tpu"], 2, "device"),
        (["train", "digits", "--device", "cuda:99"], 2, "no cuda:99 device"),
        (["train", "digits", "--task", "multilabel"], 2, "--task classify"),
        (["train", "digits", "--config", "gone.toml"], 2, "gone.toml"),
        (
            ["train", "digits", "--set", "stop.patience=2", "--set", "stop.monitor=val_los"],
            2,
            "'val_loss'",
        ),
        (["trian", "digits"], 2, "'train'"),
        (["eval", "nowhere"], 1, "manifest.json is missing"),
        (["predict", "nowhere", "a.png"], 1, "there is nothing of this name"),
        (["resume", "nowhere"], 1, "manifest.json is missing"),
        (["data", "scam", "digits"], 2, "'scan'"),
        (["models", "zebra"], 2, "zebra"),
    ],
)
def test_mistakes_are_answered_with_a_remedy(
    argv: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    said = neocog(capsys, *argv)
    assert words in said.err
    assert said.code == code
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not list(tmp_path.glob("runs/*"))
    said = neocog(capsys, *argv, "--json")
    assert said.code == code
    assert words in said.json["error"] + said.json["hint"]


def test_data_verbs(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "train" / "digit-0" / "empty.png").touch()
    try:
        said = neocog(capsys, "data", "scan", pictures, "--out", tmp_path / "f.jsonl", "--json")
        assert said.code == 0, said.err
        assert {k: said.json[k] for k in ("found", "used", "skipped")} == {
            "found": 1798,
            "used": 1797,
            "skipped": 1,
        }
        faults = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
        assert [fault["path"] for fault in faults] == ["train/digit-0/empty.png"]
        assert {"path", "format", "code", "reason"} <= set(faults[0])
    finally:
        (pictures / "train" / "digit-0" / "empty.png").unlink()
    said = neocog(capsys, "data", "pack", pictures, "--json")
    assert said.json["splits"] == {"train": 1293, "val": 144, "test": 360}
    said = neocog(capsys, "data", "show", pictures)
    assert "digit-9" in said.out


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    said = neocog(capsys, "models", "--json")
    assert {"mlp", "lenet5", "cnn", "resnet18"} <= {entry["name"] for entry in said.json}
    assert "resnet18" in neocog(capsys, "models", "res").out


def test_python_m_neocog_is_neocog() -> None:
    script = Path(sys.executable).parent / "neocog"
    texts = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-m", "neocog"], [str(script)])
        if command[0] != str(script) or script.exists()
    ]
    assert all(text == texts[0] and "train" in text for text in texts)


FOREIGN = """
from torch import nn

def tiny(channels, size, outputs, width=8):
    open("ran", "w").close()
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], outputs))
"""


def test_a_network_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It trains by name, and its code runs again only when it is named again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(FOREIGN)
    train = ["train", "digits", "--model", "my_nets:tiny", "--epochs", 2, "--out", "run", "--json"]
    said = neocog(capsys, *train)
    assert said.code == 0, said.err
    score = said.json["val"]["accuracy"]
    Path("ran").unlink()
    for file in ("run/manifest.json", "recipe.toml"):
        Path("recipe.toml").write_text('model = "my_nets:tiny"\n')
        said = neocog(capsys, "train", "digits", "--config", file, "--out", "other")
        assert said.code == 2
        assert "if you trust that code, say so: --model my_nets:tiny" in said.err
        assert not Path("ran").exists()
    said = neocog(
        capsys,
        "train",
        "--config",
        "run/manifest.json",
        "--model",
        "my_nets:tiny",
        "--json",
        "--out",
        "other",
    )
    assert said.json["val"]["accuracy"] == score
    Path("ran").unlink()
    said = neocog(capsys, "eval", "run")
    assert said.code == 2
    assert "--model my_nets:tiny" in said.err
    assert not Path("ran").exists()
    said = neocog(capsys, "eval", "run", "--model", "my_nets:tiny", "--json")
    assert said.json["accuracy"] == score


def test_a_bundle_keeps_the_views_that_it_averages(trained: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(trained / "bundle")
    assert bundle.input.views == "one"
    spec = dataclasses.replace(bundle.input, views="mirror+shift")
    many = dataclasses.replace(bundle, input=spec)
    many.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    assert again.input == spec
    pixels = np.round(load_digits().images[:16] * 255 / 16).astype(np.uint8)
    images = torch.from_numpy(pixels)[:, None]
    with torch.no_grad():
        answers = [one.predictor()(images) for one in (bundle, many, again)]
    assert torch.equal(answers[1], answers[2])
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)


def test_damaged_bundles_are_refused(trained: Path, tmp_path: Path) -> None:
    from neocog.errors import RunError

    bundle = Bundle.load(trained / "bundle")
    weights = {name: tensor.clone() for name, tensor in bundle.weights.items()}

    def refused(match: str, **changes: Any) -> None:
        folder = tmp_path / "bundle"
        bundle.save(folder)
        for name, content in changes.items():
            if name == "weights":
                save_file(content, folder / "weights.safetensors")
            else:
                (folder / "bundle.json").write_text(content)
        with pytest.raises(RunError, match=match):
            Bundle.load(folder).network()

    text = (trained / "bundle" / "bundle.json").read_text()
    first = next(name for name, tensor in weights.items() if tensor.dim() == 4)
    refused("damaged", json=text[: len(text) // 2])
    refused("wrong fields: code", json=json.dumps({**json.loads(text), "code": "print()"}))
    refused("format 99", json=json.dumps({**json.loads(text), "format": 99}))
    old = {name: value for name, value in json.loads(text)["input"].items() if name != "views"}
    first_format = {**json.loads(text), "format": 1, "input": old}
    refused("bundle of format 1, expected 5", json=json.dumps(first_format))
    refused("InputSpec needs exactly", json=json.dumps({**json.loads(text), "input": {}}))
    odd = {**json.loads(text)["input"], "views": "all"}
    refused("damaged: views is one of", json=json.dumps({**json.loads(text), "input": odd}))
    refused(f"missing {first}", weights={k: v for k, v in weights.items() if k != first})
    refused("expected", weights={**weights, first: weights[first].double()})
    refused("expected", weights={**weights, first: weights[first][:1].clone()})
    refused("unknown more", weights={**weights, "more": torch.zeros(1)})
    (tmp_path / "bundle" / "weights.safetensors").write_bytes(b"\x80\x04 pickle")
    with pytest.raises(RunError, match="damaged"):
        Bundle.load(tmp_path / "bundle")


def test_how_much_may_be_bad_is_an_option_everywhere(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training, packing and looking refuse alike; a scan writes its report all the same."""
    bad = tmp_path / "bad"
    shutil.copytree(pictures, bad)
    victim = next(bad.rglob("*.png"))
    victim.write_bytes(b"")
    total = sum(1 for _ in bad.rglob("*.png"))
    enough = str(1.5 / total)
    report = tmp_path / "faults.jsonl"
    scan = ["data", "scan", bad, "--out", report]
    assert neocog(capsys, *scan).code == 0
    report.unlink()
    for option in (["--strict"], ["--max-bad", "0"]):
        said = neocog(capsys, *scan, *option)
        assert said.code == 1
        assert victim.name in said.err
        assert victim.name in report.read_text()
        for verb in (["data", "pack"], ["data", "show"], ["train"]):
            said = neocog(capsys, *verb, bad, *option)
            assert said.code == 1, verb
            assert option[0] in said.err
    assert neocog(capsys, *scan, "--max-bad", enough).code == 0
    said = neocog(capsys, "data", "show", bad, "--max-bad", enough, "--json")
    assert said.json["skipped"] == 1
    assert neocog(capsys, "train", bad, "--max-bad", "2").code == 2


def test_sixteen_bits_are_taken_where_that_is_said(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / "deep"
    shutil.copytree(pictures, deep)
    for path in deep.rglob("*.png"):
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"), np.uint16) * 256 + 77
        Image.fromarray(grey).save(path)
    said = neocog(capsys, "data", "show", deep)
    assert said.code == 1
    assert "data.deep=true" in said.err
    said = neocog(capsys, "data", "show", deep, "--set", "data.deep=true", "--json")
    assert said.code == 0, said.err
    assert said.json["skipped"] == 0
