"""Requests of the Open Inference Protocol that are refused: each part, in words that name it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neocog.serve import protocol
from neocog.serve.jsonread import parsed
from neocog.serve.limits import Limits, RequestError
from neocog.serve.protocol import header_length, read
from protocol_rig import answered, body_of, refusal, sent
from small_specs import LIMITS, MASKS, PICTURES, SIGNALS, SMALL, described


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
