"""The Open Inference Protocol, version 2, over REST. Room serve; floor 4.

Pure functions between bytes and arrays: nothing here waits, opens or keeps anything. Imports NumPy,
described's nouns and jsonread, no torch, so that a helper program has it in no time. The protocol:
https://github.com/kserve/open-inference-protocol; binary data and classification as Triton's
extensions of these names have them:
https://github.com/triton-inference-server/server/tree/main/docs/protocol

    spec = spec_of(described, "digits", limits, dtypes=engine.dtypes, kind=engine.kind)
    request = read(body, header_length(value), spec=spec, limits=limits)
    headers, answer = write(request, engine(request.samples), spec=spec)

Between two programs a request travels as `request.pack()`, a small JSON object and the bytes of the
samples, and comes out of `InferRequest.unpack`; a spec as `spec.plain()` and `Spec.of`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.described import MOST_SIDE
from neocog.serve.jsonread import fields, numbers, parsed, refused, shown, text, typed
from neocog.serve.limits import RequestError
from neocog.serve.spec import DATATYPES, Output, Spec, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neocog.serve.limits import Limits

__all__ = [
    "DATATYPES",
    "EXTENSIONS",
    "HEADER_LENGTH",
    "VERSION",
    "InferRequest",
    "Output",
    "Spec",
    "WantedOutput",
    "binary_bytes",
    "header_length",
    "json_numbers",
    "live",
    "model_metadata",
    "model_ready",
    "read",
    "ready",
    "refuse_large",
    "repository_index",
    "server_metadata",
    "spec_of",
    "write",
]

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header field: bytes of JSON before the binary data."""
EXTENSIONS = ("binary_tensor_data", "classification")
"""What is understood beyond the protocol's core, by the names that Triton gave."""
VERSION = "1"
"""Of every model: one file is one version."""
_MOST_ID = 256
"""Characters of the name that a client gives its request."""
_LENGTH = 4
"""Bytes in front of a label in binary data: how many follow."""
_PART = 2**14
"""Numbers that become text in one go, in some ten milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedOutput:
    """One output that a client asked for."""

    name: str
    """Of the spec's."""
    binary: bool
    """As bytes behind the JSON, rather than in it."""
    classification: int = 0
    """So many of the most probable classes as text, in place of the numbers; 0: the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """A request in order."""

    id: str
    """What the client calls it; may be empty."""
    samples: NDArray[Any]
    """B×C×h×w, B×C×L or B×C×D×H×W, of a type of the spec; finite. It may be read-only, and part of
    the body that was read."""
    outputs: tuple[WantedOutput, ...]
    """In the order of the answer."""

    def pack(self) -> tuple[dict[str, Any], memoryview]:
        """A small JSON object, and the bytes of the samples in row-major order."""
        header = {
            "id": self.id,
            "dtype": self.samples.dtype.name,
            "shape": list(self.samples.shape),
            "outputs": [dataclasses.asdict(one) for one in self.outputs],
        }
        return header, np.ascontiguousarray(self.samples).reshape(-1).view(np.uint8).data

    @staticmethod
    def unpack(header: Mapping[str, Any], raw: bytes | bytearray | memoryview) -> InferRequest:
        """What was packed; the samples are `raw` itself, not a copy."""
        samples = np.frombuffer(raw, dtype=header["dtype"]).reshape(header["shape"])
        outputs = tuple(WantedOutput(**one) for one in header["outputs"])
        return InferRequest(id=header["id"], samples=samples, outputs=outputs)


def header_length(value: str | None) -> int | None:
    """The header field `HEADER_LENGTH` as a number; None where it is not sent.

    Raises:
        RequestError: 400.

    >>> header_length("120"), header_length(None)
    (120, None)
    """
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise refused(f"{HEADER_LENGTH}: expected a number of bytes, found {shown(value)}")
    return int(value)


def read(body: bytes, header_length: int | None, *, spec: Spec, limits: Limits) -> InferRequest:
    """An inference request.

    Args:
        body: JSON, and the binary data behind it.
        header_length: bytes of the JSON; None: all.
        spec: of the model that is asked.
        limits: `depth`, `decoded`, `answer` and `binary` of them.

    Raises:
        RequestError: 400; anything that is not in order, naming the input or output.
    """
    if not body:
        raise refused("expected a request in JSON, found an empty body")
    if header_length is not None and not 0 < header_length <= len(body):
        raise refused(f"{HEADER_LENGTH}: expected 1 to {len(body)}, found {header_length}")
    end = len(body) if header_length is None else header_length
    request = fields(
        parsed(body[:end] if end < len(body) else body, limits.depth),
        "the request",
        ("inputs",),
        ("id", "parameters", "outputs", "model_name"),
    )
    if request.get("model_name", spec.name) != spec.name:
        raise refused(f"model_name: expected {spec.name!r}, found {shown(request['model_name'])}")
    parameters = _parameters(request, "the request")
    inputs = request["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise refused(f"inputs: expected an array of 1, {spec.input!r}, found {shown(inputs)}")
    given = fields(inputs[0], "the input", ("name", "shape", "datatype"), ("data", "parameters"))
    if given["name"] != spec.input:
        raise refused(f"expected the input {spec.input!r}, found {shown(given['name'])}")
    where = f"input {spec.input!r}"
    shape, dtype = _shape(given["shape"], where, spec), _dtype(given["datatype"], where, spec)
    refuse_large(shape, dtype, spec=spec, limits=limits)
    outputs = _outputs(request, parameters, spec)
    if (found := json_numbers(outputs, shape, spec=spec)) > limits.answer:
        raise refused(
            f"expected an answer of at most {limits.answer} numbers in JSON, found {found}; ask for"
            " binary data, by the parameter binary_data_output of the request or binary_data of an"
            " output"
        )
    if (found := binary_bytes(outputs, shape, spec=spec)) > limits.binary:
        raise refused(f"expected an answer of at most {limits.binary} bytes, found {found}")
    samples = _samples(given, memoryview(body)[end:], shape, dtype, where)
    name = text(request.get("id", ""), "id", _MOST_ID)
    return InferRequest(id=name, samples=samples, outputs=outputs)


def _parameters(value: dict[str, Any], where: str) -> dict[str, Any]:
    """The field `parameters`, empty where it is not sent. Those that nobody knows are left alone,
    as the protocol has it; those that ask for what is not offered are refused."""
    found = value.get("parameters", {})
    if not isinstance(found, dict):
        raise refused(f"{where}: parameters: expected an object, found {shown(found)}")
    for name, one in found.items():
        if name.startswith(("shared_memory_", "sequence_")):
            raise refused(f"{where}: {shown(name)} is not offered; send data or binary data")
        if type(one) not in (str, int, float, bool):
            raise refused(
                f"{where}: parameter {shown(name)}: expected text, a number, true or false,"
                f" found {shown(one)}"
            )
    return found


def _shape(value: Any, where: str, spec: Spec) -> tuple[int, ...]:
    """A shape that the spec allows."""
    wanted = ["1 to " + str(spec.batch), str(spec.channels)]
    wanted += [f"1 to {MOST_SIDE}" if side is None else str(side) for side in spec.size]
    words = f"{where}: shape: expected [{', '.join(wanted)}]"
    if not isinstance(value, list) or len(value) != len(wanted):
        raise refused(f"{words}, found {shown(value)}")
    for side in value:
        typed(side, int, f"{where}: shape")
    sides = zip(spec.size, value[2:], strict=True)
    fits = all(1 <= n <= MOST_SIDE if side is None else n == side for side, n in sides)
    if not (fits and 1 <= value[0] <= spec.batch and value[1] == spec.channels):
        raise refused(f"{words}, found [{', '.join(map(shown, value))}]")
    return tuple(value)


def _dtype(value: Any, where: str, spec: Spec) -> str:
    """A type of the spec, by the protocol's name, as NumPy calls it."""
    for dtype in spec.dtypes:
        if value == DATATYPES[dtype]:
            return dtype
    known = " or ".join(DATATYPES[dtype] for dtype in spec.dtypes)
    raise refused(f"{where}: datatype: expected {known}, found {shown(value)}")


def refuse_large(shape: Sequence[int], dtype: str, *, spec: Spec, limits: Limits) -> None:
    """Stop at samples, or at an answer for each pixel, that would take too much memory.

    Samples may take `limits.decoded`; an answer may have as many float32 as that is bytes, which is
    what samples of one byte become in the network.

    Raises:
        RequestError: 400.
    """
    where, size = f"input {spec.input!r}", math.prod(shape) * np.dtype(dtype).itemsize
    if size > limits.decoded:
        raise refused(f"{where}: expected at most {limits.decoded} bytes, found {size}")
    found = math.prod(_filled(spec.outputs[0], shape))
    if found > limits.decoded:
        raise refused(
            f"{where}: expected a shape whose answer has at most {limits.decoded} numbers,"
            f" found {found}"
        )


def _filled(output: Output, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of an output for samples of this shape."""
    dynamic = iter((shape[0], *shape[-2:]))
    return tuple(next(dynamic) if side == -1 else side for side in output.shape)


def _outputs(
    request: dict[str, Any], parameters: dict[str, Any], spec: Spec
) -> tuple[WantedOutput, ...]:
    """What is asked for; none: all outputs."""
    binary = typed(parameters.get("binary_data_output", False), bool, "binary_data_output")
    listed = request.get("outputs", [])
    if not isinstance(listed, list):
        raise refused(f"outputs: expected an array, found {shown(listed)}")
    if not listed:
        return tuple(WantedOutput(name=one.name, binary=binary) for one in spec.outputs)
    known = [one.name for one in spec.outputs]
    wanted: list[WantedOutput] = []
    for value in listed:
        one = fields(value, "an output", ("name",), ("parameters",))
        if one["name"] not in known:
            raise refused(f"expected the outputs {' and '.join(known)}, found {shown(one['name'])}")
        if any(before.name == one["name"] for before in wanted):
            raise refused(f"output {one['name']!r}: expected once, found twice")
        wanted.append(_wanted(one, binary, spec))
    return tuple(wanted)


def _wanted(value: dict[str, Any], binary: bool, spec: Spec) -> WantedOutput:
    """One of the outputs that are asked for."""
    name, where = value["name"], f"output {value['name']!r}"
    how = _parameters(value, where)
    binary = typed(how.get("binary_data", binary), bool, f"{where}: binary_data")
    if "classification" not in how:
        return WantedOutput(name=name, binary=binary)
    count = typed(how["classification"], int, f"{where}: classification")
    if not spec.classes or spec.whole:
        raise refused(f"{where}: classification is not offered: it has no classes of a sample")
    if count < 1:
        raise refused(f"{where}: classification: expected 1 or more, found {shown(count)}")
    return WantedOutput(name=name, binary=binary, classification=min(count, len(spec.classes)))


def json_numbers(outputs: Sequence[WantedOutput], shape: Sequence[int], *, spec: Spec) -> int:
    """How many numbers or texts an answer has in its JSON; `write` takes a microsecond for each.

    Args:
        outputs: that are wanted.
        shape: of the samples.
        spec: of the model.
    """
    shapes = {one.name: _filled(one, shape) for one in spec.outputs}
    return sum(
        shape[0] * one.classification if one.classification else math.prod(shapes[one.name])
        for one in outputs
        if not one.binary
    )


def binary_bytes(outputs: Sequence[WantedOutput], shape: Sequence[int], *, spec: Spec) -> int:
    """How many bytes an answer has behind its JSON, at least: how long labels are, only `write`
    knows.

    Args:
        outputs: that are wanted.
        shape: of the samples.
        spec: of the model.
    """
    sizes = {
        one.name: math.prod(_filled(one, shape)) * np.dtype(one.dtype).itemsize
        for one in spec.outputs
    }
    return sum(
        shape[0] * one.classification * _LENGTH if one.classification else sizes[one.name]
        for one in outputs
        if one.binary
    )


def _samples(
    given: dict[str, Any], raw: memoryview, shape: tuple[int, ...], dtype: str, where: str
) -> NDArray[Any]:
    """The data of an input, from JSON or from the bytes behind it."""
    parameters = _parameters(given, where)
    binary = "binary_data_size" in parameters
    if binary and "data" in given:
        raise refused(f"{where}: expected data or binary_data_size, found both")
    if not binary and "data" not in given:
        raise refused(f"{where}: expected data or binary_data_size, found neither")
    if not binary:
        if len(raw):
            raise refused(f"expected no bytes behind the JSON, found {len(raw)}")
        return numbers(given["data"], shape, dtype, f"{where}: data")
    size = typed(parameters["binary_data_size"], int, f"{where}: binary_data_size")
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if size != expected:
        raise refused(f"{where}: binary_data_size: expected {expected}, found {shown(size)}")
    if len(raw) != size:
        raise refused(
            f"{where}: expected {size} bytes behind the JSON, as binary_data_size says,"
            f" found {len(raw)}; {HEADER_LENGTH} says where the JSON ends"
        )
    little = np.frombuffer(raw, dtype=np.dtype(dtype).newbyteorder("<"))
    # Numbers may stand at odd addresses, which not every library reads.
    samples = np.require(little.astype(dtype, copy=False), requirements="A").reshape(shape)
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        at = int(np.argmin(np.isfinite(samples)))
        raise refused(f"{where}: expected finite numbers, found {samples.flat[at]} at {at}")
    return samples


def write(
    request: InferRequest, answers: NDArray[Any], *, spec: Spec
) -> tuple[list[tuple[str, str]], bytes]:
    """The answer to a request: header fields, and the body.

    Args:
        request: as it was read.
        answers: `Engine`'s for its samples: B×K float32, or B×K×h×w.
        spec: of the model.

    Raises:
        RequestError: numbers that are not finite; 400 where samples are floats and may be too
            large for the network, 500 else.
    """
    shape = _filled(spec.outputs[0], request.samples.shape)
    if answers.shape != shape or answers.dtype != np.float32:
        raise ValueError(f"expected {shape} float32, got {answers.shape} {answers.dtype}")
    if not np.isfinite(answers).all():
        raise RequestError(
            400 if request.samples.dtype.kind == "f" else 500,
            f"input {spec.input!r}: the network's answer is not finite for these samples",
        )
    described, binary = [], []
    for wanted in request.outputs:
        document, content = _written(wanted, answers, spec)
        described.append(document)
        binary.append(content)
    head = [f'"model_name":{json.dumps(spec.name)}', f'"model_version":"{VERSION}"']
    head += [f'"id":{json.dumps(request.id)}'] if request.id else []
    body = f'{{{",".join(head)},"outputs":[{",".join(described)}]}}'.encode()
    if not any(one.binary for one in request.outputs):
        return [("Content-Type", "application/json")], body
    headers = [("Content-Type", "application/octet-stream"), (HEADER_LENGTH, str(len(body)))]
    return headers, b"".join([body, *binary])


def _written(wanted: WantedOutput, answers: NDArray[Any], spec: Spec) -> tuple[str, bytes]:
    """One output: its JSON, and the bytes behind it."""
    values, labels = answers, []
    if wanted.name == "mask":
        values = answers.argmax(axis=1).astype(np.uint8)
    shape, datatype = values.shape, DATATYPES[values.dtype.name]
    if wanted.classification:
        labels = _labels(answers, wanted.classification, spec.classes)
        shape, datatype = (len(answers), wanted.classification), "BYTES"
    head = f'"name":"{wanted.name}","datatype":"{datatype}","shape":{list(shape)}'
    if wanted.binary:
        if labels:
            coded = [one.encode("utf-8", "backslashreplace") for one in labels]
            content = b"".join(len(one).to_bytes(_LENGTH, "little") + one for one in coded)
        else:
            content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        return f'{{{head},"parameters":{{"binary_data_size":{len(content)}}}}}', content
    data = json.dumps(labels) if labels else f"[{','.join(_texts(values))}]"
    return f'{{{head},"data":{data}}}', b""


def _labels(answers: NDArray[np.float32], count: int, classes: Sequence[str]) -> list[str]:
    """`value:index:label` of the most probable classes of each row; ties by index."""
    order = np.argsort(-answers, axis=1, kind="stable")[:, :count]
    values = _texts(np.take_along_axis(answers, order, axis=1))
    indices = order.reshape(-1).tolist()
    return [f"{value}:{k}:{classes[k]}" for value, k in zip(values, indices, strict=True)]


def _texts(values: NDArray[Any]) -> list[str]:
    """Numbers in row-major order, as short as they can be so that reading them gives them back.

    In parts, so that a thread that does this lets others have their turn.
    """
    flat, found = values.reshape(-1), []
    for start in range(0, len(flat), _PART):
        found += _part_texts(flat[start : start + _PART])
    return found


def _part_texts(part: NDArray[Any]) -> list[str]:
    if part.dtype.kind != "f":
        return list(map(str, part.tolist()))
    texts = part.astype(str)
    found: list[str] = texts.tolist()
    # Read as a double and rounded then, a short text may fall on a neighbour: once in a very long
    # while, at the ends of the range.
    wrong = np.flatnonzero(texts.astype(np.float64).astype(np.float32) != part)
    for at in wrong.tolist():
        found[at] = repr(float(part[at]))
    return found


def server_metadata(version: str) -> dict[str, Any]:
    """The document at `/v2`; `version` is neocog's."""
    return {"name": "neocog", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(spec: Spec) -> dict[str, Any]:
    """The document at `/v2/models/NAME`. Where samples may have several types, it names float."""
    dtype = "float32" if "float32" in spec.dtypes else spec.dtypes[0]
    sides = [-1 if side is None else side for side in spec.size]
    taken = {"name": spec.input, "datatype": DATATYPES[dtype], "shape": [-1, spec.channels, *sides]}
    outputs = [
        {"name": one.name, "datatype": DATATYPES[one.dtype], "shape": list(one.shape)}
        for one in spec.outputs
    ]
    return {
        "name": spec.name,
        "versions": [VERSION],
        "platform": spec.platform,
        "inputs": [taken],
        "outputs": outputs,
    }


def live() -> dict[str, Any]:
    """The document at `/v2/health/live`."""
    return {"live": True}


def ready(is_ready: bool) -> dict[str, Any]:
    """The document at `/v2/health/ready`."""
    return {"ready": is_ready}


def model_ready(name: str, is_ready: bool) -> dict[str, Any]:
    """The document at `/v2/models/NAME/ready`."""
    return {"name": name, "ready": is_ready}


def repository_index(
    names: Sequence[str], *, only_ready: bool, is_ready: bool
) -> list[dict[str, Any]]:
    """The document at `/v2/repository/index`.

    Args:
        names: of the models.
        only_ready: list none that is not ready, as its request may ask.
        is_ready: none is while the server drains.
    """
    state = "READY" if is_ready else "UNAVAILABLE"
    reason = "" if is_ready else "the server is shutting down"
    if only_ready and not is_ready:
        return []
    return [{"name": name, "version": VERSION, "state": state, "reason": reason} for name in names]
