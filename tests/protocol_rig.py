"""Requests of the Open Inference Protocol: in order, sent by the public client, and refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from neocog.serve.limits import RequestError
from neocog.serve.protocol import InferRequest, Spec, read, write
from small_specs import LIMITS, SMALL

__all__ = ["answered", "body_of", "got", "refusal", "same", "sent"]


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


def same(found: Any, wanted: Any) -> bool:
    """Equal in type, shape and every bit."""
    same_kind = (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    return same_kind and found.tobytes() == wanted.tobytes()
