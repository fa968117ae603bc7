"""Exported ONNX files: plain ONNX Runtime makes of them what the bundle's predictor says."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from neocog import tasks
from neocog.bundle import Bundle
from neocog.errors import RunError
from neocog.export import onnx as exporting
from neocog.models import catalog
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = ["cat", "dog", "émeu"]
CNN = {"width": 4, "depth": 1, "convs": 1}


def bundle_of(
    model: str = "cnn",
    *,
    size: tuple[int, ...] = (12, 10),
    channels: int = 3,
    args: dict[str, Any] | None = None,
    task: str = "classify",
    views: Any = "one",
    **of_task: Any,
) -> Bundle:
    """A network with drawn weights, moved a little so that its answers differ."""
    torch.manual_seed(3)
    names = {"columns" if task == "regress" else "classes": CLASSES}
    spec = tasks.build(TaskSpec(name=task, args={**names, **of_task})).spec
    given = CNN if args is None else args
    network = catalog.build(model, channels=channels, size=size, outputs=3, args=given)
    weights = {
        name: one + 0.05 * torch.randn_like(one) if one.is_floating_point() else one
        for name, one in network.state_dict().items()
    }
    for name in weights:
        if name.endswith("running_var"):
            weights[name] = weights[name].abs() + 0.5
    whole = task == "segment"
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    return Bundle(
        model=ModelSpec(name=model, args=given),
        weights=weights,
        input=InputSpec(channels=channels, size=size, mean=mean, std=std, views=views, whole=whole),
        task=spec,
        classes=tuple(CLASSES),
        manifest=Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={}),
    )


def session(path: Path) -> Any:
    """The file in ONNX Runtime, as anybody would open it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pictures(*shape: int, dtype: Any = np.uint8) -> Any:
    chance = np.random.default_rng(sum(shape))
    if dtype == np.float32:
        return chance.uniform(-1, 1, shape).astype(dtype)
    return chance.integers(0, np.iinfo(dtype).max, shape, dtype)


def expected(bundle: Bundle, samples: Any) -> Any:
    with torch.no_grad():
        return bundle.predictor()(torch.from_numpy(samples)).numpy()


def test_all_is_inside_and_the_file_says_what_it_is(tmp_path: Path) -> None:
    bundle, path = bundle_of(views="shift", temperature=1.7), tmp_path / "a.onnx"
    exporting.write(bundle, path)
    run = session(path)
    assert [(one.name, one.type, one.shape) for one in run.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 3, "height", "width"])
    ]
    assert [(one.name, one.type, one.shape) for one in run.get_outputs()] == [
        ("probabilities", "tensor(float)", ["batch", 3])
    ]
    for shape in [(1, 3, 12, 10), (5, 3, 12, 10), (2, 3, 31, 17), (3, 3, 5, 40)]:
        given = pictures(*shape)
        found = run.run(None, {"images": given})[0]
        np.testing.assert_allclose(found, expected(bundle, given), rtol=0, atol=1e-5)
    told = json.loads(run.get_modelmeta().custom_metadata_map["neocog"])
    assert told["described"]["classes"] == CLASSES
    assert told["digest"] == bundle.digest
    assert (told["precision"], told["task"]) == ("fp32", "classify")
    proto = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.producer_name == "neocog"
    assert not any(one.external_data for one in proto.graph.initializer)
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]
    # What the exporter notes about the machine that it ran on stays there.
    assert b"site-packages" not in path.read_bytes()
    assert b"src/neocog" not in path.read_bytes()


def test_half_precision_is_inside_only(tmp_path: Path) -> None:
    bundle, path = bundle_of(), tmp_path / "half.onnx"
    predictor = bundle.predictor()
    exporting.write(bundle, path, precision="fp16", predictor=predictor)
    assert all(one.dtype == torch.float32 for one in predictor.network.parameters())
    run, given = session(path), pictures(9, 3, 20, 20)
    assert run.get_outputs()[0].type == "tensor(float)"
    found, right = run.run(None, {"images": given})[0], expected(bundle, given)
    np.testing.assert_allclose(found, right, rtol=0, atol=5e-3)
    assert np.abs(found - right).max() > 1e-7  # it is not fp32 under another name
    kernels = [one for one in onnx.load(path).graph.initializer if list(one.dims[2:]) == [3, 3]]
    assert kernels
    assert {one.data_type for one in kernels} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("unet", {"width": 4, "depth": 2}),
        ("unet_backbone", {"backbone": "cnn", "width": 8}),
    ],
)
def test_masks_of_any_size(model: str, args: dict[str, Any], tmp_path: Path) -> None:
    """Also where halvings round up."""
    bundle = bundle_of(model, size=(32, 32), args=args, task="segment")
    exporting.write(bundle, tmp_path / "m.onnx")
    run = session(tmp_path / "m.onnx")
    assert [one.shape for one in run.get_outputs()] == [
        ["batch", 3, "height", "width"],
        ["batch", "height", "width"],
    ]
    for shape in [(2, 3, 32, 32), (1, 3, 37, 50), (1, 3, 64, 33)]:
        given = pictures(*shape)
        shares, mask = run.run(["probabilities", "mask"], {"images": given})
        right = expected(bundle, given)
        np.testing.assert_allclose(shares, right, rtol=0, atol=1e-4)
        assert mask.dtype == np.uint8
        assert (mask == shares.argmax(1)).all()


def test_signals_give_numbers(tmp_path: Path) -> None:
    units = {"mean": [10.0, -3.0, 500.0], "std": [2.0, 1.0, 100.0]}
    bundle = bundle_of(size=(40,), task="regress", **units)
    exporting.write(bundle, tmp_path / "s.onnx", dtype="float32")
    run, given = session(tmp_path / "s.onnx"), pictures(4, 3, 40, dtype=np.float32)
    assert [one.shape for one in run.get_inputs()] == [["batch", 3, 40]]
    found = run.run(["numbers"], {"samples": given})[0]
    np.testing.assert_allclose(found, expected(bundle, given), rtol=1e-5, atol=1e-4)


def test_volumes_have_labels(tmp_path: Path) -> None:
    bundle = bundle_of(size=(6, 8, 10), channels=1, task="multilabel")
    exporting.write(bundle, tmp_path / "v.onnx", dtype="int16")
    run, given = session(tmp_path / "v.onnx"), pictures(3, 1, 6, 8, 10, dtype=np.int16)
    found = run.run(["probabilities"], {"samples": given})[0]
    np.testing.assert_allclose(found, expected(bundle, given), rtol=0, atol=1e-5)


def test_what_is_too_large_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "LARGEST", 100)
    with pytest.raises(RunError, match="one ONNX file holds 100 at most"):
        exporting.write(bundle_of(), tmp_path / "large.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_traced_is_told(tmp_path: Path) -> None:
    class Asks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    bundle = bundle_of()
    predictor = bundle.predictor()
    predictor.network = Asks()
    with pytest.raises(RunError, match="the network cnn cannot be exported"):
        exporting.write(bundle, tmp_path / "x.onnx", predictor=predictor)
    assert not list(tmp_path.iterdir())


def test_another_mean_is_another_file(tmp_path: Path) -> None:
    bundle = bundle_of()
    spec = dataclasses.replace(bundle.input, mean=(0.4, 0.5, 0.7))
    exporting.write(dataclasses.replace(bundle, input=spec), tmp_path / "w.onnx")
    given = pictures(4, 3, 12, 10)
    found = session(tmp_path / "w.onnx").run(None, {"images": given})[0]
    assert np.abs(found - expected(bundle, given)).max() > 1e-3
