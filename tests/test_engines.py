"""Engines that compute exported files, and what opens them: the same answers as PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import exported
from neocog import layers
from neocog.bundle import Bundle
from neocog.errors import ConfigError, RunError
from neocog.export import onnx as writer
from neocog.records import TaskSpec
from neocog.runtime import content, opened
from neocog.runtime.content import read_content, read_label
from neocog.runtime.fastest import candidates, fastest
from neocog.runtime.onnx_engine import OnnxEngine
from neocog.runtime.opened import Source, exported_in, open_engine
from neocog.runtime.openvino_engine import OpenVinoEngine
from neocog.runtime.torch_engine import AT_ONCE, TorchEngine
from neocog.verbs.choice import Choice
from served import small_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.runtime.engine import Engine

FILES = ("onnxruntime", "openvino", "openvino of .xml")


@pytest.fixture(scope="module")
def data() -> bytes:
    """A network that answers for each pixel, made by hand."""
    return exported.labelled(exported.model())


@pytest.fixture(scope="module")
def hand_made(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """The engines for it."""
    folder = tmp_path_factory.mktemp("hand_made")
    (folder / "net.onnx").write_bytes(data)
    exported.written_ir(data, folder / "net.xml")
    return {
        "onnxruntime": OnnxEngine(data, threads=1),
        "openvino": OpenVinoEngine(folder / "net.onnx", threads=1),
        "openvino of .xml": OpenVinoEngine(folder / "net.xml", threads=1),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A run's folder with a bundle and what `neocog export` makes of it."""
    folder, bundle = tmp_path_factory.mktemp("run"), small_bundle()
    bundle.save(folder / "bundle")
    (folder / "export").mkdir()
    writer.write(bundle, folder / "export" / "net.onnx")
    exported.written_ir(
        (folder / "export" / "net.onnx").read_bytes(), folder / "export" / "net.xml"
    )
    return folder, bundle


def _pictures(*shape: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _expected(samples: NDArray[Any]) -> NDArray[Any]:
    """Probabilities of the network made by hand, by torch, all pixels at once."""
    with torch.inference_mode():
        predictor = exported.network()
        found: NDArray[Any] = predictor.decode(
            predictor.network(predictor.normalize(torch.from_numpy(samples)))
        ).numpy()
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 3, 21, 13), (2, 3, 1, 1)])
def test_probabilities_of_pixels_are_those_of_torch(
    name: str, shape: tuple[int, ...], hand_made: dict[str, Engine]
) -> None:
    samples = _pictures(*shape)
    found = hand_made[name](samples)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _expected(samples), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_a_large_picture_is_looked_at_in_pieces(
    name: str, hand_made: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_TILE", 64)
    monkeypatch.setattr(layers, "_OVERLAP", 8)
    engine, seen = hand_made[name], list[tuple[int, ...]]()
    answer = engine._answer  # type: ignore[attr-defined]

    def noted(samples: NDArray[Any]) -> NDArray[Any]:
        assert samples.flags.c_contiguous
        seen.append(samples.shape[-2:])
        result: NDArray[Any] = answer(samples)
        return result

    monkeypatch.setattr(engine, "_answer", noted)
    samples = _pictures(1, 3, 150, 70)
    np.testing.assert_allclose(engine(samples), _expected(samples), rtol=0, atol=1e-5)
    assert len(seen) > 1
    assert max(max(one) for one in seen) <= 64


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("dtype", "shape", "words"),
    [
        ("float32", (1, 3, 8, 8), "expected uint8 B×C×H×W, got float32 with shape (1, 3, 8, 8)"),
        ("int64", (1, 3, 8, 8), "expected uint8 B×C×H×W, got int64"),
        ("S1", (1, 3, 8, 8), "expected uint8 B×C×H×W"),
        ("uint8", (3, 8, 8), "got uint8 with shape (3, 8, 8)"),
        ("uint8", (1, 1, 3, 8, 8), "got uint8 with shape (1, 1, 3, 8, 8)"),
        ("uint8", (1, 1, 8, 8), "the network takes 3 channel(s), got 1"),
        ("uint8", (0, 3, 8, 8), "at least one picture"),
        ("uint8", (1, 3, 0, 8), "at least one picture"),
    ],
)
def test_samples_are_refused_in_the_words_of_the_predictor(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    words: str,
    hand_made: dict[str, Engine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, samples = hand_made[name], np.zeros(shape, dtype)
    monkeypatch.setattr(engine, "_answer", lambda _: pytest.fail("the library was asked"))
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        engine(samples)
    if 0 not in shape and dtype != "S1":
        with pytest.raises(ValueError, match=r"expected|takes") as theirs:
            exported.network()(torch.from_numpy(samples))
        assert str(caught.value) == str(theirs.value).replace("torch.", "")


def test_memory_that_is_not_contiguous_is_taken(hand_made: dict[str, Engine]) -> None:
    samples = _pictures(2, 12, 14, 3).transpose(0, 3, 1, 2)[:, :, ::1, 1:9]
    for engine in hand_made.values():
        np.testing.assert_allclose(engine(samples), _expected(samples.copy()), rtol=0, atol=1e-5)


def test_an_engine_says_what_it_is(hand_made: dict[str, Engine], data: bytes) -> None:
    engine = hand_made["onnxruntime"]
    assert engine.kind == "onnxruntime"
    assert engine.digest == hashlib.sha256(data).hexdigest()
    assert engine.settings == {"device": "cpu", "threads": 1, "precision": "fp32"}
    assert engine.dtypes == ("uint8",)
    assert engine.described == exported.described()
    assert hand_made["openvino"].digest == engine.digest
    assert len({one.digest for one in hand_made.values()}) == 2
    assert {one.kind for one in hand_made.values()} == {"onnxruntime", "openvino"}
    assert hand_made["openvino of .xml"].described == engine.described


def test_a_run_answers_the_same_in_every_library(run: tuple[Path, Bundle]) -> None:
    folder, bundle = run
    samples = _pictures(2 * AT_ONCE + 5, 3, 17, 23)
    plain = open_engine(folder, device="cpu", threads=1)
    assert plain.kind == "torch"
    expected = plain(samples)  # in parts
    with torch.inference_mode():
        whole = bundle.predictor(device="cpu")(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(expected, whole, rtol=0, atol=1e-6)
    assert plain(samples[:0]).shape == (0, len(bundle.classes))
    assert np.ptp(expected, axis=0).max() > 0.01  # the pictures are told apart
    files = {
        (folder, "onnxruntime"): "onnxruntime",
        (folder, "openvino"): "openvino",
        (folder / "bundle", "auto"): "torch",
        (folder / "export" / "net.onnx", "auto"): "onnxruntime",
        (folder / "export" / "net.onnx", "openvino"): "openvino",
        (folder / "export" / "net.xml", "auto"): "openvino",
    }
    for (path, engine), kind in files.items():
        own = open_engine(path, engine=engine, threads=1)
        assert own.kind == kind
        found = own(samples)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert np.array_equal(found.argmax(1), expected.argmax(1))


def test_the_candidates_of_a_run_are_its_libraries(
    run: tuple[Path, Bundle], tmp_path: Path
) -> None:
    folder, bundle = run
    found = candidates(folder, device="cpu", threads=1)
    assert [one.kind for one in found] == ["torch", "onnxruntime", "openvino", "openvino"]
    assert found[0].digest == bundle.digest
    samples = _pictures(8, 3, 12, 10)
    chosen = fastest(found, samples, cache=tmp_path, seconds=1)
    assert chosen.remarks == ()
    assert all(one.difference < 1e-5 for one in chosen.trials)
    np.testing.assert_allclose(chosen.engine(samples), found[0].make()(samples), rtol=0, atol=1e-5)
    assert fastest(found, samples, cache=tmp_path).remembered
    of_file = candidates(folder / "export" / "net.onnx", device="cpu", threads=2)
    assert [(one.kind, one.threads) for one in of_file] == [("onnxruntime", 2), ("openvino", 2)]
    of_file = candidates(folder / "export" / "net.onnx", threads=1)
    assert fastest(of_file, samples, cache=tmp_path, seconds=0.2).engine.kind in FILES


def test_a_file_of_other_weights_is_not_taken(tmp_path: Path) -> None:
    bundle = small_bundle()
    bundle.save(tmp_path / "bundle")
    with pytest.raises(ConfigError, match="no exported file") as caught:
        open_engine(tmp_path, engine="onnxruntime")
    assert caught.value.hint == f"neocog export {tmp_path}"
    (tmp_path / "export").mkdir()
    file = tmp_path / "export" / "net.onnx"
    file.write_bytes(exported.of_bundle(bundle, digest="f" * 64))
    (tmp_path / "export" / "broken.onnx").write_bytes(b"PK")
    (tmp_path / "export" / "net.json").write_text("{}")
    with pytest.raises(ConfigError, match="no exported file") as caught:
        open_engine(tmp_path, engine="onnxruntime")
    message = caught.value.message
    assert "export/net.onnx was made before the weights or the temperature changed" in message
    assert "export/broken.onnx cannot be read (expected a file that neocog exported" in message
    rounded = tmp_path / "export" / "a8.onnx"
    rounded.write_bytes(exported.of_bundle(bundle, precision="int8"))
    with pytest.raises(ConfigError, match=r"export/a8\.onnx is int8") as caught:
        open_engine(tmp_path, engine="onnxruntime")
    assert f"give the file itself instead of the run: {rounded}" in caught.value.hint
    settings = open_engine(rounded, threads=1).settings
    assert (settings["precision"], settings["file"]) == ("int8", "a8.onnx")
    file.write_bytes(exported.of_bundle(bundle))
    assert open_engine(tmp_path, engine="onnxruntime").settings["precision"] == "fp32"
    assert [(one.path.name, bool(one.why)) for one in exported_in(Source.of(tmp_path))] == [
        ("net.onnx", False),
        ("a8.onnx", True),
        ("broken.onnx", True),
    ]
    kinds = [one.kind for one in candidates(tmp_path, device="cpu", threads=1)]
    assert kinds == ["torch", "onnxruntime", "openvino"]  # the int8 file is none


def test_a_temperature_makes_exported_files_old(tmp_path: Path) -> None:
    bundle = small_bundle()
    bundle.save(tmp_path / "bundle")
    file = tmp_path / "export" / "net.onnx"
    file.parent.mkdir()
    file.write_bytes(exported.of_bundle(bundle))
    exported.written_ir(file.read_bytes(), tmp_path / "export" / "net.xml")
    both = (file, file.with_suffix(".xml"))
    assert [opened.moved_on(one) for one in both] == ["", ""]
    task = TaskSpec(name="classify", args={**bundle.task.args, "temperature": 2.0})
    dataclasses.replace(bundle, task=task).describe(tmp_path / "bundle")
    for one in both:
        assert one.name in opened.moved_on(one)
        assert f"neocog export {tmp_path}" in opened.moved_on(one)
    with pytest.raises(ConfigError, match=r"net\.onnx was made before .* temperature changed"):
        open_engine(tmp_path, engine="onnxruntime")
    said: list[str] = []
    Choice(path=file, threads=1).open(1, lambda: iter([]), said.append)
    assert said == [opened.moved_on(file)]
    elsewhere = tmp_path / "net.onnx"
    file.rename(elsewhere)
    assert opened.moved_on(elsewhere) == ""
    bundle.describe(tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"net\.xml is not computed by onnxruntime"):
        open_engine(tmp_path, engine="onnxruntime")
    dataclasses.replace(bundle, task=task).describe(tmp_path / "bundle")
    elsewhere.rename(file)
    (tmp_path / "bundle" / "bundle.json").write_text("{")
    assert opened.moved_on(file) == ""


def test_code_for_the_network_of_a_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    for opening in (open_engine, candidates):
        with pytest.raises(ConfigError, match="carries its network, and package:net") as caught:
            opening(tmp_path / "net.onnx", model="package:net")
        assert "leave --model out" in caught.value.hint


def test_a_label_is_read_without_the_rest(data: bytes, tmp_path: Path) -> None:
    """The same as from the whole file; what is damaged or too long is refused."""
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    assert read_label(path) == read_content(path).label
    exported.written_ir(data, tmp_path / "net.xml")
    assert read_label(tmp_path / "net.xml") == read_content(tmp_path / "net.xml").label
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(RunError):
            read_label(path)
    path.write_bytes(b"\x08\x0a" * 5_000 + data)
    with pytest.raises(RunError, match="more outside its graph"):
        read_label(path)
    with path.open("wb") as file:  # metadata of a gigabyte, sparse
        file.write(b"\x72\x80\x80\x80\x80\x04")
        file.truncate(2**30 + 6)
    with pytest.raises(RunError, match="more outside its graph"):
        read_label(path)
    path.write_bytes(data)


def test_each_file_is_read_once(
    run: tuple[Path, Bundle], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though the bundle is opened, the files compared, and one taken."""
    folder, _ = run
    loads: list[Path] = []
    reads: list[Path] = []
    load, read = Bundle.load, content.read_file

    def loaded(path: Path) -> Bundle:
        loads.append(path)
        return load(path)

    def noted(path: Path, *most: int) -> bytes:
        reads.append(path)
        return read(path, *most)

    monkeypatch.setattr(Bundle, "load", staticmethod(loaded))
    monkeypatch.setattr(content, "read_file", noted)
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))
    pictures = [str(tmp_path / f"{number}.png") for number in range(5)]
    for number, name in enumerate(pictures):
        Image.fromarray(_pictures(12, 10, 3, seed=number)).save(name)
    seen = list[tuple[int, ...]]()
    answer = TorchEngine.__call__

    def watched(self: TorchEngine, samples: NDArray[Any]) -> NDArray[Any]:
        seen.append(samples.shape)
        return answer(self, samples)

    monkeypatch.setattr(TorchEngine, "__call__", watched)
    Choice(path=folder, device="cpu", threads=1).open(1000, lambda: iter(pictures))
    assert loads == [folder / "bundle"]
    assert reads == [folder / "export" / "net.onnx"]
    # As many as will be asked about at once.
    assert (256, 3, 12, 10) in seen


@pytest.mark.parametrize(
    ("engine", "words", "hint"),
    [
        ("onnx", "no engine 'onnx'", "did you mean|known"),
        ("onnxruntim", "no engine 'onnxruntim'", "did you mean 'onnxruntime'"),
        ("torch", "torch does not compute .onnx", "onnxruntime or openvino"),
    ],
)
def test_engines_by_name(engine: str, words: str, hint: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(ConfigError, match=words) as caught:
        open_engine(tmp_path / "net.onnx", engine=engine)
    assert re.search(hint, caught.value.hint)


def test_a_missing_library_says_which_extra(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    for name, extra in {"onnxruntime": "export", "openvino": "openvino"}.items():
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError) as caught:
            open_engine(tmp_path / "net.onnx", engine=name)
        assert f'pip install "neocog[{extra}]"' in caught.value.hint


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(device: str, data: bytes) -> None:
    with pytest.raises(ConfigError, match="does not compute on"):
        OnnxEngine(data, device=device)


def test_openvino_computes_on_the_processor_alone(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(ConfigError, match="does not compute on 'cuda'"):
        open_engine(tmp_path / "net.onnx", engine="openvino", device="cuda")


def test_nothing_but_our_own_files_is_served(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="found none of its metadata") as caught:
        OnnxEngine(exported.model().SerializeToString())
    assert "neocog export" in caught.value.hint


def _spoilt(change: dict[str, Any]) -> bytes:
    """Metadata with a change; of `described` where the name is one of its fields."""
    made, said = exported.model(), exported.described().plain()
    text = {"described": said, "digest": "0", "precision": "fp32", "task": "segment"}
    for name, value in change.items():
        (said if name in said else text)[name] = value
    made.metadata_props.add(key="neocog", value=json.dumps(text))
    data: bytes = made.SerializeToString()
    return data


@pytest.mark.parametrize(
    "change",
    [
        {"digest": 5},
        {"precision": "fp4"},
        {"described": None},
        {"described": {}},
        {"format": 99},
        {"classes": ["a", "b", "c"]},
        {"classes": [1, 2, 3]},
        {"input": {}},
        {"task": {"name": "zebra", "args": {}}},
        {"task": {"name": "segment", "args": {"classes": 7}}},
        {"task": {"name": "segment", "args": {"classes": [None]}}},
    ],
    ids=str,
)
def test_metadata_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(RunError):
        OnnxEngine(_spoilt(change))
    OnnxEngine(_spoilt({}))


def test_ports_and_shapes_are_those_of_the_description(data: bytes) -> None:
    made = exported.model()
    made.graph.output[1].name = made.graph.node[4].output[0] = "answers"
    with pytest.raises(RunError, match="found images uint8 and mask, answers"):
        OnnxEngine(exported.labelled(made))
    made = exported.model()
    made.graph.input[0].name = made.graph.node[0].input[0] = "picture"
    with pytest.raises(RunError, match="expected one input of images, samples"):
        OnnxEngine(exported.labelled(made))
    made = exported.model()
    made.graph.input[0].type.tensor_type.elem_type = 11  # double
    with pytest.raises(RunError, match="images tensor"):
        OnnxEngine(exported.labelled(made))
    bundle = small_bundle()
    engine = OnnxEngine(exported.labelled(exported.model(), bundle.described))
    with pytest.raises(RunError, match="where its description has"):
        engine(_pictures(1, 3, 12, 10))


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals")
def test_a_signal_after_the_end_of_an_engine_is_handled(tmp_path: Path) -> None:
    """OpenVINO gives the thread a stack for handlers, and may take it away while it is in use."""
    exported.written_ir(exported.labelled(exported.model()), tmp_path / "net.xml")
    script = """
import gc, signal, sys
from neocog.runtime.openvino_engine import OpenVinoEngine
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
older, newer = (OpenVinoEngine(sys.argv[1], threads=1) for _ in range(2))
del older
gc.collect()
del newer
gc.collect()
signal.raise_signal(signal.SIGUSR1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "net.xml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
