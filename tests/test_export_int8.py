"""Quantisation to 8 bits: what is quantised, with which numbers, and what it costs."""

from __future__ import annotations

import sys
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import small_exports
from neocog.errors import ConfigError, DataError
from neocog.export import quantise
from neocog.layers import Predictor
from neocog.runtime.foreign import check_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def digits() -> small_exports.Digits:
    return small_exports.trained()


@pytest.fixture(scope="module")
def exact(digits: small_exports.Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_exports.saved(digits.predictor, tmp_path_factory.mktemp("exact") / "fp32.onnx")


@pytest.fixture(scope="module")
def quantised(digits: small_exports.Digits, exact: Path) -> Path:
    out = exact.with_name("int8.onnx")
    quantise.int8(exact, out, batches(digits.seen[:320]))
    return out


def batches(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    yield from (images[at : at + 32] for at in range(0, len(images), 32))


def answers(path: Path, images: NDArray[Any], *, fused: bool = True) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not fused:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: NDArray[Any] = session.run(["probabilities"], {"images": images})[0]
    return found


def test_it_reads_digits_as_well_as_before(
    digits: small_exports.Digits, exact: Path, quantised: Path
) -> None:
    before, after = answers(exact, digits.images), answers(quantised, digits.images)
    right = (before.argmax(1) == digits.labels).mean()
    assert right > 0.85  # else the rest says nothing
    assert abs((after.argmax(1) == digits.labels).mean() - right) <= 0.01
    assert (after.argmax(1) == before.argmax(1)).mean() >= 0.98
    assert 1e-4 < np.abs(after - before).max() < 0.25
    assert quantised.stat().st_size < exact.stat().st_size


def test_pictures_of_other_sizes_are_scaled_as_exactly_as_before(
    digits: small_exports.Digits, exact: Path, quantised: Path
) -> None:
    large = digits.images[:64].repeat(2, 2).repeat(3, 3)
    before, after = answers(exact, large), answers(quantised, large)
    assert (after.argmax(1) == before.argmax(1)).mean() >= 0.95
    assert np.abs(after - before).max() < 0.25


def test_another_implementation_and_unfused_nodes_answer_the_same(
    digits: small_exports.Digits, quantised: Path
) -> None:
    some = digits.images[:8]
    ours = answers(quantised, some)
    numpy_only = ReferenceEvaluator(onnx.load(quantised)).run(["probabilities"], {"images": some})
    # One step of one activation, which rounding may decide either way, moves an answer a little.
    assert np.abs(numpy_only[0] - ours).max() < 0.02
    assert np.abs(answers(quantised, some, fused=False) - ours).max() < 0.02


def test_weights_are_symmetric_by_channel_and_cannot_saturate_16_bits(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    stored = [
        [constants[name] for name in node.input]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    kernels = [parts for parts in stored if parts[0].ndim == 4]
    assert [parts[0].shape for parts in kernels] == [(16, 1, 3, 3), (32, 16, 3, 3)]
    for weights, scales, zeros in kernels:
        assert weights.dtype == np.int8
        assert scales.shape == (len(weights),)
        assert not zeros.any()
        largest = np.abs(weights.astype(int)).max()
        assert largest > 32
        assert 2 * 255 * largest <= np.iinfo(np.int16).max
    assert np.iinfo(np.int16).max < 2 * 255 * 127  # of all 8 bits


def test_only_what_is_between_the_layers_is_quantised(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    makers = {name: node for node in graph.node for name in node.output}
    users = {name: node.op_type for node in graph.node for name in node.input}

    def inputs(kind: str) -> list[list[str]]:
        found = [node for node in graph.node if node.op_type == kind]
        return [[makers[name].op_type for name in node.input if name in makers] for node in found]

    assert inputs("Conv") == [["DequantizeLinear"] * 3] * 2
    for scaling in inputs("MatMul"):
        assert "DequantizeLinear" not in scaling
    (last,) = (node for node in graph.node if node.op_type == "Gemm")
    assert last.input[1] in {one.name for one in graph.initializer}  # its weights, in fp32
    assert users[last.output[0]] != "QuantizeLinear"
    behind = {"Softmax", "ReduceMax", "Sub", "Div", "Exp"}
    assert all("DequantizeLinear" not in found for kind in behind for found in inputs(kind))
    # uint8 activations
    zeros = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    kinds = {one.data_type for one in graph.initializer if one.name in zeros}
    assert kinds == {TensorProto.UINT8}


def test_what_the_file_says_of_itself_stays(exact: Path, quantised: Path) -> None:
    made = onnx.load(quantised)
    onnx.checker.check_model(made, full_check=True)
    assert (made.producer_name, made.producer_version) == ("neocog", "0")
    found = {one.key: one.value for one in made.metadata_props}
    assert found == {"neocog": small_exports.metadata()}
    assert check_onnx(quantised.read_bytes(), "it")["neocog"] == found["neocog"]
    assert [one.domain for one in made.opset_import] == [""]


def by_hand(names: str) -> Any:
    """Scaling, two layers beside each other, their sum, a third, and a softmax."""
    constants = {
        "kernel": np.ones((4, 3, 1, 1), np.float32),
        "row": np.ones((8, 4), np.float32),
        "mean": np.ones((1, 3, 1, 1), np.float32),
        "shape": np.array([-1, 4], np.int64),
    }
    steps = [
        ("MatMul", ["matrix", "picture"], "scaled"),
        ("Sub", ["scaled", "mean"], "normal"),
        ("Conv", ["normal", "kernel"], "left"),
        ("Conv", ["normal", "kernel"], "right"),
        ("Relu", ["right"], "positive"),
        ("Add", ["left", "positive"], "sum"),
        ("ReduceMean", ["normal"], "aside"),
        ("GlobalAveragePool", ["sum"], "pooled"),
        ("Reshape", ["pooled", "shape"], "flat"),
        ("Gemm", ["flat", "row_t"], "outputs"),
        ("Softmax", ["outputs"], "probabilities"),
        ("MatMul", ["probabilities", "matrix"], "mixed"),
    ]
    nodes = [
        helper.make_node(kind, inputs, [output], name=names.format(number))
        for number, (kind, inputs, output) in enumerate(steps)
    ]
    transposed = helper.make_node(
        "Constant", [], ["row_t"], value=numpy_helper.from_array(constants["row"].T.copy())
    )
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph([transposed, *nodes], "g", [], [], initial)


@pytest.mark.parametrize("names", ["", "same", "predictor.network.{}", "fit.{}"])
def test_the_inner_nodes_are_found_whatever_they_are_called(names: str) -> None:
    found = [node.output[0] for node in quantise.inner_nodes(by_hand(names))]
    assert found == ["left", "right", "positive", "sum", "pooled", "flat"]


def test_calibration_holds_no_more_than_two_batches(
    digits: small_exports.Digits, exact: Path, tmp_path: Path
) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def watched() -> Iterator[NDArray[Any]]:
        nonlocal most
        for at in range(0, 320, 16):
            batch = digits.seen[at : at + 16].copy()
            alive.append(weakref.ref(batch))
            most = max(most, sum(one() is not None for one in alive))
            yield batch
            del batch

    quantise.int8(exact, tmp_path / "out.onnx", watched())
    assert len(alive) == 20
    assert most <= 3  # one in use, one just made, one not yet let go


def test_nothing_is_left_behind(
    digits: small_exports.Digits,
    exact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    beside = sorted(exact.parent.iterdir())

    def torn() -> Iterator[NDArray[Any]]:
        yield digits.seen[:8]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        quantise.int8(exact, tmp_path / "out.onnx", torn())
    assert not (tmp_path / "out.onnx").exists()
    quantise.int8(exact, tmp_path / "out.onnx", batches(digits.seen[:32]))
    assert not list(temporary.iterdir())
    assert sorted(exact.parent.iterdir()) == beside
    assert not caplog.records


def test_nothing_to_calibrate_with_or_to_quantise(
    digits: small_exports.Digits, exact: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="found none"):
        quantise.int8(exact, tmp_path / "out.onnx", iter(()))
    one = Predictor(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        small_exports.SPEC,
        lambda z: z.softmax(1),
    )
    single = small_exports.saved(one.eval(), tmp_path / "single.onnx")
    with pytest.raises(ConfigError, match="two or more layers"):
        quantise.int8(single, tmp_path / "out.onnx", batches(digits.seen[:32]))
    assert not (tmp_path / "out.onnx").exists()


def test_without_the_extra(exact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError) as caught:
        quantise.int8(exact, tmp_path / "out.onnx", iter(()))
    assert caught.value.hint == 'pip install "neocog[export]"'
