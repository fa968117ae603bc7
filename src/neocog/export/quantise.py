"""An exported network with weights and activations in 8 bits. Floor 4, room export.

Imports errors, files, NumPy and, where they are used, onnx and ONNX Runtime (the extra `export`).

Jacob et al. 2017, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference", arXiv 1712.05877: x ≈ scale · (q − zero), with the scales of activations taken from
what they are on calibration images.

- Weights have one scale for each output channel and are symmetric (zero = 0). Activations are uint8
  with one scale each, from their least and largest value.
- Weights use 7 of their 8 bits. Processors without VNNI multiply pairs of uint8 and int8 and add
  them up in 16 bits, with saturation (`vpmaddubsw`): 2 · 255 · 127 = 64,770 is cut off at 32,767,
  and a file would answer otherwise than on processors with VNNI, which add up in 32 bits.
  2 · 255 · 64 = 32,640 always fits.
- Only what lies between the layers with weights is quantised. What stands before the first (scaling
  to size, normalisation) and behind the last (softmax, the mean of views) stays in fp32; so does
  each last layer, whose outputs in steps of 1/255 would make classes equal that are not.
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError, DataError
from neocog.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["inner_nodes", "int8"]

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operations that have weights where one of their inputs is a constant."""
QUANTISED = (
    *("Conv", "Gemm", "MatMul"),
    *("Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul"),
    *("Relu", "Reshape", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze"),
)
"""Operations for which ONNX Runtime has integers on processors, or that only move them. Others stay
in fp32 where they stand: layer norm, GELU, transposed convolutions, a batch norm that is not part
of a convolution."""


def int8(onnx_path: Path, out: Path, batches: Iterable[NDArray[Any]]) -> None:
    """Write the quantised form of an exported network (QDQ: quantise and dequantise nodes around
    operations, which runtimes fuse into integer ones).

    Args:
        onnx_path: in fp32, as `export.onnx` writes it: one file, one input.
        out: the file to write.
        batches: raw calibration samples, as the network takes them; looked at one after the other.
            All that is kept of a batch is the least and the largest value of each activation.

    Raises:
        ConfigError: the extra is not installed, or there is nothing to quantise.
        DataError: no calibration samples.
        RunError: the file cannot be written.
    """
    onnx, quantization = _libraries()
    source = onnx.load(onnx_path, load_external_data=False)
    with tempfile.TemporaryDirectory(prefix="neocog-int8-") as folder, _quiet():
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        # Constants are folded and nodes that do nothing are removed, so that every weight is seen.
        quantization.quant_pre_process(onnx_path, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        _name_nodes(model.graph.node)
        onnx.save(model, prepared)
        inner = [node for node in inner_nodes(model.graph) if node.op_type in QUANTISED]
        if not any(node.op_type in LAYERS for node in inner):
            raise ConfigError(
                "expected a network of two or more layers with weights, of which all but the last "
                "can be quantised; found none",
                "export it as fp32 or fp16",
            )
        quantization.quantize_static(
            prepared,
            quantised,
            _reader(quantization, source.graph.input[0].name, batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=[node.name for node in inner],
        )
        finished = onnx.load(quantised)
    _sign(finished, source)
    write_atomic(out, finished.SerializeToString())


def inner_nodes(graph: Any) -> list[Any]:
    """The nodes of an ONNX graph from its first layers with weights up to, and without, its last.

    Found by the graph alone, whatever nodes are called: a node is one of them if a layer with
    weights needs what it computes, and if it is such a layer or needs what one computes. The
    matrices that scale pictures are no weights: they are computed from the pictures' sizes.

    Args:
        graph: a GraphProto whose nodes are in topological order, as ONNX demands.
    """
    constant = {one.name for one in graph.initializer}
    constant |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    layers = [
        node.op_type in LAYERS and not constant.isdisjoint(node.input[:2]) for node in graph.node
    ]
    behind: set[str] = set()  # names of what is computed from a layer's outputs
    after = []
    for node, layer in zip(graph.node, layers, strict=True):
        after.append(layer or not behind.isdisjoint(node.input))
        if after[-1]:
            behind.update(node.output)
    wanted: set[str] = set()  # names of what a layer is computed from
    inner = []
    for node, layer, reached in reversed(list(zip(graph.node, layers, after, strict=True))):
        before = not wanted.isdisjoint(node.output)
        if layer or before:
            wanted.update(node.input)
        if before and reached:
            inner.append(node)
    return inner[::-1]


def _libraries() -> tuple[Any, Any]:
    """onnx, and quantization of ONNX Runtime."""
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise ConfigError(
            f"int8 needs onnx and ONNX Runtime, which cannot be imported: {error}",
            'pip install "neocog[export]"',
        ) from error
    return onnx, quantization


def _name_nodes(nodes: Sequence[Any]) -> None:
    """Give every node a name of its own, in place: they are chosen by name."""
    known: set[str] = set()
    for number, node in enumerate(nodes):
        if not node.name or node.name in known:
            node.name = f"{node.op_type}_{number}_inner"
        known.add(node.name)


def _reader(quantization: Any, name: str, batches: Iterable[NDArray[Any]]) -> Any:
    """The samples in the form in which the library asks for them; one batch is held at a time.

    Raises:
        DataError: there is none.
    """
    waiting = iter(batches)
    first = next(waiting, None)
    if first is None:
        raise DataError("int8 needs calibration samples, found none", "export it as fp32 or fp16")
    held: list[NDArray[Any]] = [first]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """One batch after the other."""

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            """The next one; None behind the last."""
            batch = held.pop() if held else next(waiting, None)
            return None if batch is None else {name: batch}

    return Reader()


def _sign(model: Any, source: Any) -> None:
    """Metadata and producer as the fp32 file has them, in place. What tools added is removed: their
    notes, and sets of operations that are not used."""
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    model.doc_string, model.domain = source.doc_string, source.domain
    used = {node.domain for node in model.graph.node}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's hints about its own tools are not for who exports a network."""
    root = logging.getLogger()

    def drop(record: logging.LogRecord) -> bool:
        return "pre-processing" not in record.getMessage()

    root.addFilter(drop)
    try:
        yield
    finally:
        root.removeFilter(drop)
