"""Requests that are almost in order are read or refused, and soon."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import random
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from faults.inferences import Taken, mutations, valid
from neocog.serve.limits import RequestError
from neocog.serve.protocol import DATATYPES, InferRequest, Spec, model_metadata, read
from small_specs import LIMITS, MASKS, PICTURES, SIGNALS, VOLUMES

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("short_pauses")

COUNT = 500
"""Mutations of each model's requests."""
SECONDS = 1.0
"""That one request may take, on a busy machine."""


def taken(spec: Spec) -> Taken:
    """What clients know of a model, and all types that it takes."""
    types = tuple(DATATYPES[dtype] for dtype in spec.dtypes)
    return dataclasses.replace(Taken.of(model_metadata(spec)), datatypes=types)


def assert_read_right(request: InferRequest, body: bytes, length: int | None) -> None:
    """What was taken from a damaged body is what any reader of JSON and bytes finds in it."""
    end = len(body) if length is None else length
    (given,) = json.loads(body[:end])["inputs"]
    dtype = {"UINT8": "u1", "INT16": "<i2", "FP32": "<f4"}[given["datatype"]]
    if "data" in given:
        wanted = np.array(given["data"], dtype=np.float64).ravel()
    else:
        wanted = np.frombuffer(body[end:], dtype=dtype)
    assert list(request.samples.shape) == given["shape"]
    assert np.isfinite(request.samples).all()
    np.testing.assert_array_equal(request.samples.ravel(), wanted.astype(dtype))


@pytest.mark.parametrize("spec", [PICTURES, SIGNALS, VOLUMES, MASKS], ids=["i", "s", "v", "m"])
def test_mutated_requests_are_read_or_refused(spec: Spec) -> None:
    outcomes: collections.Counter[str | int] = collections.Counter()
    texts = []
    for name, body, length in mutations(0, taken(spec), COUNT):
        began = time.process_time()
        try:
            request = read(body, length, spec=spec, limits=LIMITS)
        except RequestError as error:
            outcomes[error.status] += 1
            texts.append(error.text)
        else:
            outcomes["read"] += 1
            assert_read_right(request, body, length)
        assert time.process_time() - began < SECONDS, name
    assert outcomes.keys() == {"read", 400}
    assert min(outcomes.values()) > COUNT // 20  # neither all nor none of them reach the end
    assert all(text.isprintable() and len(text) < 400 for text in texts)


@pytest.mark.parametrize("spec", [PICTURES, SIGNALS, VOLUMES, MASKS], ids=["i", "s", "v", "m"])
def test_requests_that_nothing_was_done_to_are_read(spec: Spec) -> None:
    for seed in range(200):
        body, length = valid(taken(spec), random.Random(seed))
        read(body, length, spec=spec, limits=LIMITS)


def test_mutations_are_chances_function() -> None:
    several = list(mutations(1, taken(PICTURES), 50))
    assert several == list(mutations(1, taken(PICTURES), 50))
    assert several != list(mutations(2, taken(PICTURES), 50))


SAMPLE = b'{"inputs":[{"name":"images","shape":[50,3,%d,128],"datatype":"UINT8","data":[%b]}]}'
ENDS: dict[str, Callable[[], bytes]] = {
    "numbers": lambda: SAMPLE % (256, b"7," * 4_915_199 + b"7"),
    "bad last": lambda: SAMPLE % (256, b"7," * 4_915_199 + b"256"),
    "fraction last": lambda: SAMPLE % (128, b"1.0," * 2_457_599 + b"1.5"),
    "arrays": lambda: SAMPLE % (256, b"[]," * 3_300_000 + b"[]"),
    "arrays at most": lambda: SAMPLE % (256, b"[]," * 260_000 + b"[]"),
    "empty texts": lambda: SAMPLE % (256, b'"",' * 3_300_000 + b'""'),
    "one text": lambda: SAMPLE % (256, b'"' + b"7," * 4_900_000 + b'"'),
    "quotes": lambda: b'{"inputs": "' + rb"\"" * 5_000_000 + b'"}',
    "open text": lambda: b'{"inputs": "' + rb"\"" * 5_000_000,
    "backslashes": lambda: b'{"inputs": "' + b"\\" * 10_000_000,
    "brackets": lambda: b"[" * 10_000_000,
    "both brackets": lambda: b"[" + b"[]," * 3_300_000,
    "closing brackets": lambda: b"]" * 5_000_000 + b"[" * 5_000_000,
    "open texts": lambda: b'["' * 5_000_000,
    "digits": lambda: b'{"inputs": [' + b"9" * 10_000_000 + b"]}",
    "point": lambda: b'{"inputs": [0.' + b"9" * 10_000_000 + b"]}",
    "big numbers": lambda: b'{"inputs": [' + (b"9" * 4300 + b",") * 2300 + b"1]}",
    "names": lambda: b"{" + b",".join(b'"%d":1' % n for n in range(900_000)) + b"}",
    "one name": lambda: b"{" + b",".join([b'"a":1'] * 1_600_000) + b"}",
    "spaces": lambda: b" " * 10_000_000,
    "zeros": lambda: b"\0" * 10_000_000,
    "broken UTF-8": lambda: b'"' + b"\xc3" * 10_000_000,
}
"""The largest bodies that are let in, made to be slow or to grow."""


@pytest.mark.parametrize("name", ENDS)
def test_the_largest_bodies_are_soon_done_with(name: str) -> None:
    body = ENDS[name]()
    began = time.process_time()
    with pytest.raises(RequestError) if name != "numbers" else contextlib.nullcontext():
        read(body, None, spec=PICTURES, limits=LIMITS)
    assert time.process_time() - began < SECONDS
