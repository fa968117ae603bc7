"""The Open Inference Protocol: by its text, and by the public client that speaks it."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.http import InferRequestedOutput

from neocog.serve import protocol
from neocog.serve.limits import RequestError
from neocog.serve.protocol import InferRequest, Spec, WantedOutput, read
from protocol_rig import answered, body_of, got, refusal, same, sent
from small_specs import LIMITS, MASKS, PICTURES, SIGNALS, SMALL, VOLUMES, described

CLIENT = settings(deadline=None, max_examples=60)


# --- by the protocol's text


def test_a_request_and_its_answer_as_the_protocol_has_them() -> None:
    body = b"""
    {
      "id" : "42",
      "inputs" : [
        {
          "name" : "images",
          "shape" : [ 1, 1, 2, 3 ],
          "datatype" : "UINT8",
          "data" : [ [ [ [ 1, 2, 3 ], [ 4, 5, 255 ] ] ] ]
        }
      ],
      "outputs" : [ { "name" : "probabilities" } ]
    }
    """
    request = read(body, None, spec=SMALL, limits=LIMITS)
    assert request.id == "42"
    assert request.samples.tolist() == [[[[1, 2, 3], [4, 5, 255]]]]
    assert request.samples.dtype == np.uint8
    assert request.outputs == (WantedOutput(name="probabilities", binary=False),)
    headers, answer = answered(request, [[0.25, 0.75]], SMALL)
    assert headers == {"Content-Type": "application/json"}
    assert json.loads(answer) == {
        "id": "42",
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 0.75]}
        ],
    }


def test_binary_data_as_its_extension_has_them() -> None:
    head = b"""{"model_name": "m", "inputs": [{"name": "samples", "shape": [1, 2, 5],
    "datatype": "INT16", "parameters": {"binary_data_size": 20}}],
    "outputs": [{"name": "probabilities", "parameters": {"binary_data": true}}]}"""
    values = (-32768, 1, 2, 3, 4, 5, 6, 7, 8, 32767)
    request = read(head + struct.pack("<10h", *values), len(head), spec=SIGNALS, limits=LIMITS)
    assert request.samples.dtype == np.int16
    assert request.samples.ravel().tolist() == list(values)
    headers, answer = answered(request, [[0.1, 0.2, 0.3, 0.4]], SIGNALS)
    length = int(headers["Inference-Header-Content-Length"])
    assert headers["Content-Type"] == "application/octet-stream"
    assert json.loads(answer[:length])["outputs"] == [
        {
            "name": "probabilities",
            "shape": [1, 4],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 16},
        }
    ]
    assert struct.unpack("<4f", answer[length:]) == struct.unpack(
        "<4f", struct.pack("<4f", 0.1, 0.2, 0.3, 0.4)
    )


def test_classification_as_its_extension_has_it() -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    spec = dataclasses.replace(SMALL, classes=("x", "index_1", "y", "index_3"))
    spec = dataclasses.replace(spec, outputs=(dataclasses.replace(spec.outputs[0], shape=(-1, 4)),))
    request = read(body_of(outputs=outputs), None, spec=spec, limits=LIMITS)
    _, answer = answered(request, [[1.1, 3.3, 0.5, 2.4]], spec)
    (found,) = json.loads(answer)["outputs"]
    assert found["data"] == ["3.3:1:index_1", "2.4:3:index_3"]
    assert (found["shape"], found["datatype"]) == ([1, 2], "BYTES")


def test_ties_go_by_index_and_more_than_all_are_all() -> None:
    names = tuple(map(str, range(400)))
    spec = protocol.spec_of(described(channels=1, classes=names), "m", LIMITS)
    outputs = [{"name": "probabilities", "parameters": {"classification": 9999}}]
    request = read(body_of(outputs=outputs), None, spec=spec, limits=LIMITS)
    answers = np.arange(400)[None] % 3 / 4  # each value a hundred times and more
    _, answer = answered(request, answers, spec)
    (found,) = json.loads(answer)["outputs"]
    order = sorted(range(400), key=lambda k: (-(k % 3), k))
    assert found["data"] == [f"{k % 3 / 4}:{k}:{k}" for k in order]
    assert found["shape"] == [1, 400]


def test_masks_are_the_most_probable_class_of_each_pixel() -> None:
    given = {"shape": [1, 3, 1, 2], "data": [0] * 6}
    request = read(body_of(given), None, spec=MASKS, limits=LIMITS)
    assert [one.name for one in request.outputs] == ["probabilities", "mask"]
    answers = np.array([[[[0.1, 0.3]], [[0.6, 0.3]], [[0.2, 0.3]], [[0.1, 0.1]]]])
    _, body = answered(request, answers, MASKS)
    whole, mask = json.loads(body)["outputs"]
    assert whole["shape"] == [1, 4, 1, 2]
    assert mask == {"name": "mask", "datatype": "UINT8", "shape": [1, 1, 2], "data": [1, 0]}
    assert "not offered" in refusal(
        body_of(given, outputs=[{"name": "mask", "parameters": {"classification": 1}}]), spec=MASKS
    )


def test_documents() -> None:
    assert protocol.server_metadata("1.2") == {
        "name": "neocog",
        "version": "1.2",
        "extensions": ["binary_tensor_data", "classification"],
    }
    assert protocol.model_metadata(MASKS) == {
        "name": "m",
        "versions": ["1"],
        "platform": "pytorch_safetensors",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, -1, -1]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 4, -1, -1]},
            {"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]},
        ],
    }
    found = protocol.model_metadata(VOLUMES)
    assert found["inputs"] == [{"name": "samples", "datatype": "FP32", "shape": [-1, 1, 2, 3, 4]}]
    assert found["outputs"] == [{"name": "numbers", "datatype": "FP32", "shape": [-1, 1]}]
    assert protocol.live() == {"live": True}
    assert protocol.ready(False) == {"ready": False}
    assert protocol.model_ready("m", True) == {"name": "m", "ready": True}
    index = protocol.repository_index(["a", "b"], only_ready=True, is_ready=True)
    assert index[1] == {"name": "b", "version": "1", "state": "READY", "reason": ""}
    assert protocol.repository_index(["a"], only_ready=True, is_ready=False) == []
    drained = protocol.repository_index(["a"], only_ready=False, is_ready=False)
    assert drained[0]["state"] == "UNAVAILABLE"


# --- by the public client


def arrays(spec: Spec) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Samples of any type, number and size that a spec allows."""
    sides = [st.integers(1, 5) if side is None else st.just(side) for side in spec.size]
    shapes = st.tuples(st.integers(1, 3), st.just(spec.channels), *sides)
    finite = {"allow_nan": False, "allow_infinity": False}
    return st.sampled_from(spec.dtypes).flatmap(
        lambda dtype: hnp.arrays(
            np.dtype(dtype),
            shapes,
            elements=finite if dtype == "float32" else None,
        )
    )


@pytest.mark.parametrize("spec", [PICTURES, SIGNALS, VOLUMES], ids=["images", "signals", "volumes"])
@CLIENT
@given(data=st.data(), binary=st.booleans(), name=st.text('abc 猫"\\', max_size=9))
def test_every_array_that_the_client_sends_arrives(
    spec: Spec, data: st.DataObject, binary: bool, name: str
) -> None:
    samples = data.draw(arrays(spec))
    # Its header's length counts characters, so names in binary requests are of ASCII.
    name = name.encode("ascii", "ignore").decode() if binary else name
    request = sent(samples, spec, binary=binary, request_id=name)
    assert same(request.samples, samples)
    assert request.id == name
    assert all(one.binary for one in request.outputs)  # the client's wish, where it names none


@pytest.mark.parametrize("spec", [PICTURES, SIGNALS, VOLUMES], ids=["images", "signals", "volumes"])
@CLIENT
@given(data=st.data())
def test_nested_and_flat_json_are_one(spec: Spec, data: st.DataObject) -> None:
    samples = data.draw(arrays(spec))
    given = {
        "name": spec.input,
        "shape": list(samples.shape),
        "datatype": protocol.DATATYPES[samples.dtype.name],
    }
    for values in (samples.tolist(), samples.ravel().tolist()):
        request = read(body_of({**given, "data": values}), None, spec=spec, limits=LIMITS)
        assert same(request.samples, samples)


@CLIENT
@given(data=st.data(), binary=st.booleans())
def test_the_client_reads_every_number_to_the_bit(data: st.DataObject, binary: bool) -> None:
    bits = data.draw(hnp.arrays(np.uint32, st.tuples(st.integers(1, 5), st.just(4))))
    answers = bits.view(np.float32)
    answers[~np.isfinite(answers)] = -0.0
    request = sent(
        np.zeros((len(answers), 3, 1, 1), np.uint8),
        PICTURES,
        [InferRequestedOutput("probabilities", binary_data=binary)],
    )
    assert same(got(request, answers, PICTURES).as_numpy("probabilities"), answers)


def test_texts_of_numbers_are_short_and_exact() -> None:
    bits = np.random.default_rng(3).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    texts = protocol._texts(values)
    found = np.array([float(one) for one in json.loads(f"[{','.join(texts)}]")], np.float32)
    assert same(found, values)
    assert max(map(len, texts)) <= 15
    few = np.array([0.1, 1.0, 16777216.0, 1e-45, -0.0], np.float32)
    assert [float(one) for one in protocol._texts(few)] == [0.1, 1.0, 16777216.0, 1e-45, -0.0]


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_reads_classes_and_masks(binary: bool) -> None:
    wanted = [InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
    request = sent(np.zeros((2, 3, 4, 4), np.uint8), PICTURES, wanted)
    answers = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.15, 0.05]], np.float32)
    found = got(request, answers, PICTURES).as_numpy("probabilities")
    assert found.shape == (2, 3)
    texts = [one.decode() if isinstance(one, bytes) else one for one in found.ravel()]
    assert texts == [
        *("0.4:3:d", "0.3:2:größer 猫", "0.2:1:dog: big"),
        *("0.7:0:cat", "0.15:2:größer 猫", "0.1:1:dog: big"),
    ]
    both = [InferRequestedOutput("mask", binary_data=binary), InferRequestedOutput("probabilities")]
    request = sent(np.zeros((2, 3, 4, 5), np.uint8), MASKS, both)
    dense = np.random.default_rng(1).random((2, 4, 4, 5), dtype=np.float32)
    result = got(request, dense, MASKS)
    assert same(result.as_numpy("mask"), dense.argmax(axis=1).astype(np.uint8))
    assert same(result.as_numpy("probabilities"), dense)
    assert result.get_response()["model_name"] == "m"


@CLIENT
@given(data=st.data())
def test_requests_survive_the_way_between_programs(data: st.DataObject) -> None:
    wanted = [InferRequestedOutput("probabilities", class_count=2)]
    request = sent(data.draw(arrays(SIGNALS)), SIGNALS, wanted, request_id="x")
    header, raw = request.pack()
    found = InferRequest.unpack(json.loads(json.dumps(header)), bytes(raw))
    assert same(found.samples, request.samples)
    assert (found.id, found.outputs) == (request.id, request.outputs)


@pytest.mark.parametrize("spec", [PICTURES, SIGNALS, VOLUMES, MASKS])
def test_specs_survive_json(spec: Spec) -> None:
    assert Spec.of(json.loads(json.dumps(spec.plain()))) == spec


def test_whole_numbers_may_be_written_as_fractions() -> None:
    body = b'{"inputs":[{"name":"images","shape":[1,1,1,2],"datatype":"UINT8","data":[1.0,2e2]}]}'
    assert read(body, None, spec=SMALL, limits=LIMITS).samples.tolist() == [[[[1, 200]]]]


def test_numbers_in_json_are_counted() -> None:
    binary = WantedOutput(name="mask", binary=True)
    classes = WantedOutput(name="probabilities", binary=False, classification=2)
    both = read(body_of({"shape": [1, 3, 1, 2], "data": [0] * 6}), None, spec=MASKS, limits=LIMITS)
    assert protocol.json_numbers(both.outputs, (1, 3, 1, 2), spec=MASKS) == 10
    assert protocol.json_numbers([binary], (1, 3, 1, 2), spec=MASKS) == 0
    assert protocol.json_numbers([classes], (5, 3, 8, 8), spec=PICTURES) == 10


def test_bytes_of_a_binary_answer_are_counted_before_it_is_computed() -> None:
    asked = {"binary_data": True}
    outputs = [{"name": one, "parameters": asked} for one in ("probabilities", "mask")]
    body = body_of({"shape": [1, 3, 2, 2], "data": [0] * 12}, outputs=outputs)
    wanted = read(body, None, spec=MASKS, limits=LIMITS)
    answer = np.zeros((1, 4, 2, 2), np.float32)
    headers, written = protocol.write(wanted, answer, spec=MASKS)
    found = protocol.binary_bytes(wanted.outputs, (1, 3, 2, 2), spec=MASKS)
    assert found == len(written) - int(dict(headers)[protocol.HEADER_LENGTH]) == 4 * (4 * 4 + 1)
    tight = dataclasses.replace(LIMITS, binary=found - 1)
    with pytest.raises(RequestError, match="at most 67 bytes, found 68"):
        read(body, None, spec=MASKS, limits=tight)
    classes = WantedOutput(name="probabilities", binary=True, classification=2)
    assert protocol.binary_bytes([classes], (5, 3, 8, 8), spec=PICTURES) == 5 * 2 * 4
    number = WantedOutput(name="probabilities", binary=False)
    assert protocol.binary_bytes([number], (5, 3, 8, 8), spec=PICTURES) == 0


def test_it_is_there_without_torch() -> None:
    code = "import sys, neocog.serve.protocol; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
