"""A bundle as one ONNX file: raw samples in, named answers out. Floor 4, room export.

Imports bundle, layers' floor and torch; onnx and onnxscript (the extra `export`) where a file is
made. Resize, normalisation, the mean of the views and the decoding are in the file, and what it
takes and means is in its metadata, so that nobody has to do any of it again.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from neocog.errors import ConfigError, RunError
from neocog.export.program import program_of, remedy, traced
from neocog.files import write_atomic
from neocog.layers import Predictor
from neocog.runtime.label import ANSWERS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neocog.bundle import Bundle
    from neocog.described import Described

__all__ = ["LARGEST", "Half", "Precision", "metadata", "ports", "relabel", "write"]

Precision = Literal["fp32", "fp16", "int8"]

LARGEST = 2**31 - 2**20
"""Bytes of weights that one file can hold: protocol buffers end at 2 GiB."""
_OF_EXPORTER = ("torch.onnx._internal.exporter._registration", "onnx_ir._convenience")
"""Loggers of the exporter's remarks to its own developers."""
_OWN_AFFAIRS = (r".*LeafSpec",)
"""How warnings about code of the exporter begin."""


class Half(nn.Module):
    """A network that computes with half precision and is spoken to in fp32.

    Args:
        network: a copy, whose floating-point weights become float16.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, pictures: Tensor) -> Tensor:
        """B×C×H×W float32 → what the network gives, float32."""
        found: Tensor = self.network(pictures.half())
        return found.float()


def write(
    bundle: Bundle,
    path: Path,
    *,
    precision: Precision = "fp32",
    dtype: str = "uint8",
    predictor: Predictor | None = None,
) -> None:
    """Write the file; its answers are compared with the bundle's elsewhere, in `parity`.

    Args:
        bundle: of the trained network.
        path: the file.
        precision: fp32, or fp16 of the network alone: scaling, normalising and decoding stay fp32.
        dtype: NumPy name of the samples' type: uint8 for pictures.
        predictor: of the bundle, on the CPU; None: built. It stays as it is.

    Raises:
        ConfigError: the extra is not installed.
        RunError: the network is larger than one file can be, does something that cannot be
            exported, or the file cannot be written.
    """
    onnx = _library()
    total = sum(one.nbytes for one in bundle.weights.values()) // (2 if precision == "fp16" else 1)
    if total > LARGEST:
        raise RunError(
            f"the weights take {total:,} bytes, but one ONNX file holds {LARGEST:,} at most",
            "export in fp16: --precision fp16",
        )
    program = _program(predictor or bundle.predictor(), precision)
    proto = _model(program, bundle, getattr(torch, dtype))
    _tidy(proto)
    _label(proto, bundle, precision)
    _name_axes(proto.graph, len(bundle.input.size), bundle.input.whole)
    onnx.checker.check_model(proto)
    write_atomic(path, proto.SerializeToString())


def relabel(path: Path, bundle: Bundle, precision: Precision) -> None:
    """Write anew what a file says of itself, after it was turned into another precision."""
    onnx = _library()
    proto = onnx.load(path, load_external_data=False)
    _label(proto, bundle, precision)
    onnx.checker.check_model(proto)
    write_atomic(path, proto.SerializeToString())


def _label(proto: Any, bundle: Bundle, precision: Precision) -> None:
    """Write into a model, in place, what it takes and means and where it comes from."""
    from neocog import __version__

    proto.producer_name, proto.producer_version = "neocog", __version__
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = "neocog", metadata(bundle, precision)


def metadata(bundle: Bundle, precision: Precision) -> str:
    """What a file says of itself: JSON text."""
    values = {
        "described": bundle.described.plain(),
        "digest": bundle.digest,
        "precision": precision,
        "task": bundle.task.name,
    }
    return json.dumps(values, ensure_ascii=False, sort_keys=True)


def _library() -> Any:
    """onnx, once onnxscript is known to be there, too."""
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise ConfigError(
            f"export to ONNX needs onnx and onnxscript, which cannot be imported: {error}",
            'pip install "neocog[export]"',
        ) from error
    import onnx.checker

    return onnx


def ports(described: Described) -> tuple[str, list[str]]:
    """Name of the input, and names of the outputs."""
    probabilities, numbers = ANSWERS
    pictures, others = SAMPLES
    answers = numbers if described.task.name == "regress" else probabilities
    samples = pictures if len(described.input.size) == 2 else others
    return samples, [answers, "mask"] if described.input.whole else [answers]


def _program(predictor: Predictor, precision: Precision) -> nn.Module:
    """What is traced."""
    if precision == "fp16":
        network = Half(copy.deepcopy(predictor.network))
        predictor = Predictor(network, predictor.input, predictor.decode)
    return program_of(predictor)


def _model(program: nn.Module, bundle: Bundle, dtype: torch.dtype) -> Any:
    """A program as a ModelProto.

    Raises:
        RunError: torch cannot trace it, or an operation of it has no form in ONNX.
    """
    from torch.onnx import OnnxExporterError

    samples, answers = ports(bundle.described)
    try:
        with _quiet():
            found = torch.onnx.export(
                traced(program, bundle.input, dtype),
                dynamo=True,
                input_names=[samples],
                output_names=answers,
                verbose=False,
            )
    except (OnnxExporterError, RuntimeError, ValueError) as error:
        cause = error.__cause__ or error
        why = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise RunError(
            f"the network {bundle.model.name} cannot be exported: {why[:300]}",
            remedy(cause),
        ) from error
    assert found is not None  # it is None for the older exporter alone
    return found.model_proto


def _tidy(proto: Any) -> None:
    """Remove, in place, what the exporter notes for its own developers: traces of the machine that
    it ran on, and sizes of what lies in between, in symbols that mean nothing."""
    _tidy_graph(proto.graph)
    proto.doc_string = ""
    for function in proto.functions:
        _tidy_all(function.node)
        del function.metadata_props[:], function.value_info[:]
        function.doc_string = ""


def _tidy_graph(graph: Any) -> None:
    """A graph, and those inside its nodes."""
    del graph.value_info[:], graph.metadata_props[:]
    graph.name, graph.doc_string = "neocog", ""
    for values in (graph.input, graph.output, graph.initializer):
        for value in values:
            del value.metadata_props[:]
            value.doc_string = ""
    _tidy_all(graph.node)


def _tidy_all(nodes: Any) -> None:
    """Nodes, and the graphs inside them."""
    for node in nodes:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _tidy_graph(inner)


def _name_axes(graph: Any, dims: int, whole: bool) -> None:
    """Call the axes what people call them, in place."""
    sides = ["height", "width"] if dims == 2 else []
    for value in graph.input:
        _name(value, ["batch", "", *sides])
    for value in graph.output:
        shape = ["batch", *([] if value.name == "mask" else [""]), *(sides if whole else [])]
        _name(value, shape)


def _name(value: Any, names: list[str]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        if name:
            axis.dim_param = name


@contextmanager
def _quiet() -> Iterator[None]:
    """What the exporter says of itself, and of libraries that it could also know, is not for who
    exports."""
    loggers = [logging.getLogger(name) for name in _OF_EXPORTER]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _OWN_AFFAIRS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
