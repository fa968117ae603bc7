"""The Open Inference Protocol: by its text, and by the public client that speaks it."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from neocog.serve import protocol
from neocog.serve.jsonread import parsed
from neocog.serve.limits import Limits, RequestError
from neocog.serve.protocol import InferRequest, Spec, WantedOutput, header_length, read, write
from small_specs import LIMITS, MASKS, PICTURES, SIGNALS, SMALL, VOLUMES, described

CLIENT = settings(deadline=None, max_examples=60)


def body_of(given: dict[str, Any] | None = None, **request: Any) -> bytes:
    """A request for `SMALL` that is in order, with other fields of the input or of itself."""
    usual = {"name": "images", "shape": [1, 1, 1, 2], "datatype": "UINT8", "data": [7, 8]}
    merged = {k: v for k, v in {**usual, **(given or {})}.items() if v is not ...}
    return json.dumps({"inputs": [merged], **request}).encode()


def refusal(
    body: bytes, length: int | None = None, spec: Spec = SMALL, limits: Any = LIMITS
) -> str:
    with pytest.raises(RequestError) as caught:
        read(body, length, spec=spec, limits=limits)
    assert caught.value.status == 400
    assert "\n" not in caught.value.text
    assert len(caught.value.text) < 400
    return caught.value.text


def answered(request: InferRequest, answers: Any, spec: Spec) -> tuple[dict[str, str], bytes]:
    headers, body = write(request, np.asarray(answers, np.float32), spec=spec)
    return dict(headers), body


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


def sent(
    samples: np.ndarray[Any, Any],
    spec: Spec,
    outputs: list[Any] | None = None,
    *,
    binary: bool = True,
    **more: Any,
) -> InferRequest:
    """What is read of what the client sends."""
    datatype = {"uint8": "UINT8", "int16": "INT16", "float32": "FP32"}[samples.dtype.name]
    given = InferInput(spec.input, list(samples.shape), datatype)
    given.set_data_from_numpy(samples, binary_data=binary)
    body, length = InferenceServerClient.generate_request_body([given], outputs=outputs, **more)
    return read(body, length, spec=spec, limits=LIMITS)


def got(request: InferRequest, answers: np.ndarray[Any, Any], spec: Spec) -> Any:
    """What the client makes of the answer."""
    headers, body = answered(request, answers, spec)
    return InferenceServerClient.parse_response_body(
        body, header_length=headers.get("Inference-Header-Content-Length")
    )


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


def same(found: Any, wanted: Any) -> bool:
    """Equal in type, shape and every bit."""
    same_kind = (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    return same_kind and found.tobytes() == wanted.tobytes()


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


# --- what is refused


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"[1]", "expected an object"),
        (b"{", "expected JSON"),
        (b'{"inputs": [1,]}', "expected JSON"),
        (b"\xff\xfe{\0}\0", "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"{}", "'inputs'"),
        (b'{"inputs": [], "inputs": []}', "'inputs' 2 times"),
        (b"[" * 33, "at most 32 brackets"),
        (b"[" * 10_000_000, "at most 32 brackets"),
        (b'{"a":' * 5_000, "at most 32 brackets"),
        (b"[" + b"{}," * 1000 + b"1]", "64 objects"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"inputs": NaN}', "NaN"),
        (b'{"inputs": [-Infinity]}', "-Infinity"),
        (b'{"inputs": "\x01"}', "control character"),
        (body_of(more=1), "found 'more'"),
        (body_of(id=5), "id: expected text, found 5"),
        (body_of(id=None), "found null"),
        (body_of(id="x" * 257), "256 characters, found 257"),
        (body_of(id="\ud800"), "surrogate"),
        (body_of(model_name="other"), "model_name: expected 'm'"),
        (body_of(parameters=[]), "parameters: expected an object"),
        (body_of(parameters={"a": None}), "found null"),
        (body_of(parameters={"a": {}}), "found an object"),
        (body_of(parameters={"sequence_id": 3}), "not offered"),
        (body_of(parameters={"binary_data_output": 1}), "true or false"),
        (json.dumps({"inputs": 5}).encode(), "array of 1"),
        (json.dumps({"inputs": []}).encode(), "array of 1"),
        (json.dumps({"inputs": [1]}).encode(), "expected an object, found 1"),
        (json.dumps({"inputs": [{}, {}]}).encode(), "array of 1"),
        (body_of({"name": "samples"}), "expected the input 'images', found 'samples'"),
        (body_of({"name": ...}), "'name'"),
        (body_of({"extra": 1}), "found 'extra'"),
        (body_of({"parameters": {"shared_memory_region": "r"}}), "not offered"),
    ],
)
def test_requests_that_are_none(body: bytes, words: str) -> None:
    assert words in refusal(body)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shape": None}, "shape: expected [1 to 64, 1, 1 to 65535, 1 to 65535], found null"),
        ({"shape": [1, 1, 2]}, "found an array of 3"),
        ({"shape": [0, 1, 1, 2]}, "found [0, 1, 1, 2]"),
        ({"shape": [-1, 1, 1, 2]}, "found [-1, 1, 1, 2]"),
        ({"shape": [65, 1, 1, 2]}, "1 to 64"),
        ({"shape": [1, 3, 1, 2]}, "found [1, 3, 1, 2]"),
        ({"shape": [1, 1, 0, 2]}, "found [1, 1, 0, 2]"),
        ({"shape": [1, 1, 1, 65536]}, "65535"),
        ({"shape": [1, 1, 1, 2.0]}, "whole number, found 2.0"),
        ({"shape": [1, True, 1, 2]}, "whole number, found true"),
        ({"shape": [1, 1, 1, 10**400]}, "65535"),
        ({"shape": [1, 1, 65535, 65535]}, "at most 67108864 bytes"),
        ({"datatype": "FP32"}, "datatype: expected UINT8, found 'FP32'"),
        ({"datatype": 8}, "found 8"),
        ({"data": None}, "expected an array, found null"),
        ({"data": ...}, "found neither"),
        ({"data": "ab"}, "expected an array, found 'ab'"),
        ({"data": [1]}, "expected 2 numbers, found 1"),
        ({"data": [1, 2, 3]}, "expected 2 numbers, found 3"),
        ({"data": [1, True]}, "expected numbers, found true at 1"),
        ({"data": [1, None]}, "found null at 1"),
        ({"data": [1, "2"]}, "found '2' at 1"),
        ({"data": [1, [2]]}, "found an array of 1 at 1"),
        ({"data": [1, 256]}, "expected 0 to 255, found 256 at 1"),
        ({"data": [-1, 2]}, "found -1 at 0"),
        ({"data": [1, 10**4000]}, "0 to 255"),
        ({"data": [1, 1e300]}, "0 to 255"),
        ({"data": [10**400, 1.0]}, "0 to 255"),
        ({"data": [1, 1.5]}, "whole numbers, found 1.5 at 1"),
        ({"data": [[[[1, 2]]], [[[1, 2]]]]}, "expected 1 arrays, found 2"),
        ({"data": [[[[1]]]]}, "expected arrays of 2 at depth 3"),
        ({"data": [[[1]]]}, "expected arrays 3 deep, found 1"),
        ({"data": [[[[[1], [2]]]]]}, "found an array of 1 at 0"),
        ({"parameters": {"binary_data_size": 2}}, "found both"),
        ({"parameters": {"binary_data_size": 2}, "data": ...}, "behind the JSON"),
        ({"parameters": {"binary_data_size": -2}, "data": ...}, "expected 2, found -2"),
        ({"parameters": {"binary_data_size": True}, "data": ...}, "found true"),
    ],
)
def test_inputs_that_are_none_are_named(given: dict[str, Any], words: str) -> None:
    text = refusal(body_of(given))
    assert words in text
    assert "input 'images'" in text


def test_whole_numbers_may_be_written_as_fractions() -> None:
    body = b'{"inputs":[{"name":"images","shape":[1,1,1,2],"datatype":"UINT8","data":[1.0,2e2]}]}'
    assert read(body, None, spec=SMALL, limits=LIMITS).samples.tolist() == [[[[1, 200]]]]


@pytest.mark.parametrize("number", ["1e39", "-1e400", "1e999", "3.4028236e38", "9" * 400])
def test_numbers_that_float32_has_not(number: str) -> None:
    given = {"name": "samples", "shape": [1, 2, 5], "datatype": "FP32", "data": [0.5] * 10}
    body = body_of(given).replace(b"0.5]", f"{number}]".encode())
    assert "numbers of FP32" in refusal(body, spec=SIGNALS)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_binary_data_that_are_not_finite(number: float) -> None:
    samples = np.zeros((1, 2, 5), np.float32)
    samples[0, 1, 2] = number
    with pytest.raises(RequestError, match=r"'samples'.*finite.*at 7") as caught:
        sent(samples, SIGNALS)
    assert caught.value.status == 400


def test_binary_sizes_must_add_up() -> None:
    head = body_of({"parameters": {"binary_data_size": 2}, "data": ...})
    size = len(head)
    assert read(head + b"ab", size, spec=SMALL, limits=LIMITS).samples.tobytes() == b"ab"
    for body, length, words in (
        (head + b"abc", size, "found 3"),
        (head + b"a", size, "found 1"),
        (head, size, "found 0"),
        (head + b"ab", size + 3, "found " + str(size + 3)),
        (head + b"ab", 0, "1 to"),
        (head + b"ab", -1, "1 to"),
        (head + b"ab", size + 1, "JSON"),
        (head + b"ab", size - 1, "JSON"),
        (head + b"ab", None, "JSON"),
        (body_of() + b"ab", len(body_of()), "no bytes behind the JSON, found 2"),
    ):
        assert words in refusal(body, length)
    assert header_length("12") == 12
    for value in ("", "-1", "+1", "1.0", "1_0", " 1", "0x1", "٣", "9" * 13):
        with pytest.raises(RequestError, match="number of bytes"):
            header_length(value)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (5, "outputs: expected an array"),
        ([5], "expected an object"),
        ([{"name": "logits"}], "expected the outputs probabilities, found 'logits'"),
        ([{"name": ["probabilities"]}], "found an array of 1"),
        ([{"name": "probabilities"}] * 2, "expected once, found twice"),
        ([{"name": "probabilities", "data": []}], "found 'data'"),
        ([{"name": "probabilities", "parameters": {"binary_data": "yes"}}], "true or false"),
        ([{"name": "probabilities", "parameters": {"classification": 0}}], "1 or more"),
        ([{"name": "probabilities", "parameters": {"classification": 1.0}}], "whole number"),
        ([{"name": "probabilities", "parameters": {"shared_memory_byte_size": 1}}], "not offered"),
    ],
)
def test_outputs_that_are_none(outputs: Any, words: str) -> None:
    assert words in refusal(body_of(outputs=outputs))


def test_numbers_have_no_classes() -> None:
    spec = protocol.spec_of(described(task="regress", channels=1, classes=("w",)), "m", LIMITS)
    outputs = [{"name": "numbers", "parameters": {"classification": 1}}]
    assert "'numbers': classification is not offered" in refusal(
        body_of(outputs=outputs), spec=spec
    )


def test_long_answers_are_asked_for_in_binary() -> None:
    few = Limits(answer=8)
    given = {"shape": [1, 3, 1, 2], "data": [0] * 6}  # 8 probabilities and a mask of 2
    assert "10;" in refusal(body_of(given), spec=MASKS, limits=few)
    assert "binary" in refusal(body_of(given), spec=MASKS, limits=few)
    for request in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "probabilities"}]},
        {"outputs": [{"name": "mask", "parameters": {"binary_data": False}}]},
    ):
        read(body_of(given, **request), None, spec=MASKS, limits=few)


def test_numbers_in_json_are_counted() -> None:
    binary = WantedOutput(name="mask", binary=True)
    classes = WantedOutput(name="probabilities", binary=False, classification=2)
    both = read(body_of({"shape": [1, 3, 1, 2], "data": [0] * 6}), None, spec=MASKS, limits=LIMITS)
    assert protocol.json_numbers(both.outputs, (1, 3, 1, 2), spec=MASKS) == 10
    assert protocol.json_numbers([binary], (1, 3, 1, 2), spec=MASKS) == 0
    assert protocol.json_numbers([classes], (5, 3, 8, 8), spec=PICTURES) == 10


def test_answers_that_take_too_much_memory_are_not_begun() -> None:
    small = Limits(decoded=100)
    shape = [1, 3, 5, 6]  # 90 bytes, 120 probabilities
    assert "answer has at most 100 numbers, found 120" in refusal(
        body_of({"shape": shape, "data": [0] * 90}), spec=MASKS, limits=small
    )
    assert "at most 100 bytes, found 108" in refusal(
        body_of({"shape": [1, 3, 6, 6], "data": [0] * 108}), spec=PICTURES, limits=small
    )


def test_answers_that_are_not_finite_are_nobodys_secret() -> None:
    request = read(body_of(), None, spec=SMALL, limits=LIMITS)
    with pytest.raises(RequestError, match="not finite") as caught:
        answered(request, [[math.nan, 1]], SMALL)
    assert caught.value.status == 500
    request = sent(np.full((1, 2, 5), 3e38, np.float32), SIGNALS)
    with pytest.raises(RequestError, match="not finite") as caught:
        answered(request, [[math.inf, 1, 0, 0]], SIGNALS)
    assert caught.value.status == 400
    with pytest.raises(ValueError, match="expected"):
        answered(request, [[1, 0]], SIGNALS)


@given(
    value=st.recursive(st.text('[]{}"\\', max_size=5), lambda inner: st.lists(inner, max_size=3))
)
@settings(deadline=None, max_examples=200)
def test_brackets_in_texts_are_not_counted(value: Any) -> None:
    def depth(one: Any) -> int:
        return 1 + max(map(depth, one), default=0) if isinstance(one, list) else 0

    body = json.dumps(value).encode()
    assert parsed(body, depth(value)) == value
    if depth(value):
        with pytest.raises(RequestError, match="brackets"):
            parsed(body, depth(value) - 1)


def test_it_is_there_without_torch() -> None:
    code = "import sys, neocog.serve.protocol; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
