"""Exported files made by hand, node by node, for tests of what reads them: independent of the
exporter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from neocog.described import Described
from neocog.layers import Predictor
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.bundle import Bundle

__all__ = ["CLASSES", "described", "labelled", "model", "network", "of_bundle", "written_ir"]

CLASSES = ("ant", "bee", "cat")
SPEC = InputSpec(channels=3, size=(8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), whole=True)


def described(task: str = "segment") -> Described:
    return Described(
        model=ModelSpec(name="conv 3 3 pad=same", args={}),
        input=SPEC,
        task=TaskSpec(name=task, args={"classes": list(CLASSES)}),
        classes=CLASSES,
        manifest=Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={}),
    )


def network() -> Predictor:
    """One convolution that answers for each pixel."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, len(CLASSES), 3, padding=1, padding_mode="zeros")
    return Predictor(layer, SPEC, lambda z: z.softmax(1)).eval()


def model() -> onnx.ModelProto:
    """The same, in the operations of ONNX, without metadata; with the mask beside."""
    layer = network().network
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    constants = {
        "mean": np.array(SPEC.mean, np.float32).reshape(1, 3, 1, 1) * 255,
        "std": np.array(SPEC.std, np.float32).reshape(1, 3, 1, 1) * 255,
        "weight": layer.weight.detach().numpy(),
        "bias": layer.bias.detach().numpy(),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["numbers_in"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["numbers_in", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["normal"]),
            helper.make_node("Conv", ["normal", "weight", "bias"], ["logits"], pads=[1, 1, 1, 1]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
        ],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 3, "h", "w"])],
        [
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["B", "h", "w"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", 3, "h", "w"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, producer_name="neocog", opset_imports=opset, ir_version=10)


def labelled(
    made: onnx.ModelProto, said: Described | None = None, *, digest: str = "0", **more: Any
) -> bytes:
    """With what an exported file says of itself."""
    said = said or described()
    plain = {
        "described": said.plain(),
        "digest": digest,
        "precision": "fp32",
        "task": said.task.name,
    }
    del made.metadata_props[:]
    made.metadata_props.add(key="neocog", value=json.dumps({**plain, **more}))
    data: bytes = made.SerializeToString()
    return data


def of_bundle(bundle: Bundle, **more: Any) -> bytes:
    """A file that says it was made of this bundle, and computes something else: for tests in which
    the file alone matters."""
    size = len(bundle.classes)
    weight = np.linspace(-1, 1, 3 * size, dtype=np.float32).reshape(3, size)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 3, "h", "w"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", size])],
        [
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
            numpy_helper.from_array(weight, "weight"),
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    made = helper.make_model(graph, producer_name="neocog", opset_imports=opset, ir_version=10)
    return labelled(made, bundle.described, **{"digest": bundle.digest, **more})


def written_ir(data: bytes, path: Path) -> Path:
    """The same model in OpenVINO's form, with its `.bin`."""
    from neocog.runtime.openvino_library import openvino_core, openvino_library

    library = openvino_library()
    text = next(p.value for p in onnx.load_from_string(data).metadata_props if p.key == "neocog")
    read = openvino_core().read_model(data)
    read.set_rt_info(text, ["neocog"])
    library.save_model(read, path, compress_to_fp16=False)
    return path
