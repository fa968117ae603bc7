"""What is served, as an OpenAPI 3.1 document. Floor 4, room serve.

The document is a function of the models and the limits, so that every bound in it is one that is
enforced.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from neocog.described import MOST_SIDE
from neocog.serve import protocol
from neocog.serve.jsonread import MOST_OBJECTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.serve.limits import Limits
    from neocog.serve.protocol import Spec
    from neocog.serve.served import Served

    Json = dict[str, Any]

__all__ = ["document"]

SHORT = 4096
"""Numbers of an example."""
TEXTS = {
    400: "Malformed: no HTTP, no JSON, a wrong shape, type or length, NaN, or no picture.",
    403: "A page of another site asks.",
    404: "No such model, version or address.",
    405: "Another method; the header Allow names those that are offered.",
    408: "The request was not whole in time.",
    413: "The body is larger than the server takes.",
    415: "The content is of a type or coding that is not taken here.",
    417: "The field Expect is not 100-continue.",
    421: "The field Host names somebody else.",
    429: "The queue is full, or too much is being sent or waits to be fetched.",
    431: "The header is larger, or has more fields, than the server takes.",
    500: "A fault of the server's own; its log has more under the request's id.",
    503: "The server is shutting down, or has too many connections.",
    504: "No answer in time.",
}
_AGAIN = (429, 503)
_EVERYWHERE = (400, 405, 408, 413, 417, 421, 431, 500, 503)
_SENT = (*_EVERYWHERE, 403, 415, 429)
_ASKED = (*_SENT, 504)


def document(models: Mapping[str, Served], limits: Limits, version: str) -> Json:
    """The document.

    Args:
        models: by name.
        limits: that are enforced.
        version: neocog's.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "neocog",
            "version": version,
            "description": "Trained networks behind the Open Inference Protocol, version 2.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **_plain_paths(),
            **_model_paths(models, limits),
            **_predict_path(models, limits),
        },
        "components": {
            "schemas": _schemas(models),
            "headers": _HEADERS,
            "parameters": _PARAMETERS,
            "responses": {str(status): _refusal(status) for status in TEXTS},
        },
    }


def _ref(kind: str, name: str | int) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


_HEADERS: Json = {
    "X-Request-Id": {
        "description": "The request's own, where it can be taken over; else a fresh one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Allow": {
        "description": "The methods that are offered.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_PARAMETERS: Json = {
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": (
            "An id for the answer and the log: 1 to 64 letters, digits, ., _ and -; anything else "
            "is replaced by a fresh one."
        ),
        "schema": {"type": "string"},
    },
}


def _refusal(status: int) -> Json:
    """A response of one of the statuses of `TEXTS`."""
    headers = {"X-Request-Id": _ref("headers", "X-Request-Id")}
    if status in _AGAIN:
        headers["Retry-After"] = _ref("headers", "Retry-After")
    if status == 405:
        headers["Allow"] = _ref("headers", "Allow")
    content = {"application/json": {"schema": _ref("schemas", "Error")}}
    return {"description": TEXTS[status], "headers": headers, "content": content}


def _responses(content: Json, statuses: tuple[int, ...], headers: Json | None = None) -> Json:
    """All responses of an operation.

    Args:
        content: of 200.
        statuses: that can come instead.
        headers: of 200, besides those of all.
    """
    every = {"X-Request-Id": _ref("headers", "X-Request-Id"), **(headers or {})}
    found = {"200": {"description": "The answer.", "headers": every, "content": content}}
    return {**found, **{str(one): _ref("responses", one) for one in sorted(set(statuses))}}


def _json_content(name: str) -> Json:
    return {"application/json": {"schema": _ref("schemas", name)}}


def _get(name: str, summary: str, content: Json, *also: int) -> Json:
    """An address that is only read: GET, and HEAD without the content."""
    responses = _responses(content, (*_EVERYWHERE, *also))
    parameters = [_ref("parameters", "X-Request-Id")]
    get = {"operationId": name, "summary": summary, "responses": responses}
    head = {"operationId": f"{name}Head", "summary": f"{summary} Without content."}
    without = {status: {"description": "The header of the answer to GET."} for status in responses}
    return {"parameters": parameters, "get": get, "head": {**head, "responses": without}}


def _plain_paths() -> Json:
    """Addresses without a model."""
    wish = {"application/json": {"schema": _ref("schemas", "IndexRequest")}}
    index = {
        "operationId": "repositoryIndex",
        "summary": "All models.",
        "requestBody": {"required": False, "content": wish},
        "responses": _responses(_json_content("Index"), _SENT),
    }
    html = {"text/html; charset=utf-8": {"schema": {"type": "string"}}}
    from prometheus_client.exposition import CONTENT_TYPE_LATEST

    numbers = {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}
    any_object = {"application/json": {"schema": {"type": "object"}}}
    return {
        "/": _get("page", "A page to try a model with a picture.", html),
        "/openapi.json": _get("openapi", "This document.", any_object),
        "/metrics": _get("metrics", "Numbers for Prometheus.", numbers),
        "/v2": _get("server", "What the server is.", _json_content("Server")),
        "/v2/health/live": _get("live", "Whether it runs.", _json_content("Live")),
        "/v2/health/ready": _get("ready", "Whether it takes work.", _json_content("Ready")),
        "/v2/repository/index": {
            "parameters": [_ref("parameters", "X-Request-Id")],
            "post": index,
        },
    }


def _model_paths(models: Mapping[str, Served], limits: Limits) -> Json:
    """Addresses of each model, spelled out: each takes samples of its own."""
    found: Json = {}
    for place, (name, served) in enumerate(models.items()):
        about = _get(f"model{place}", f"What {name} takes and answers.", _json_content("Model"))
        ready = _get(f"ready{place}", f"Whether {name} takes work.", _json_content("ModelReady"))
        infer = {
            "parameters": [_ref("parameters", "X-Request-Id")],
            "post": _infer(f"infer{place}", served, limits, place),
        }
        version = f"/versions/{protocol.VERSION}"
        for between, suffix in (("", ""), (version, "Version")):
            start = f"/v2/models/{name}{between}"
            found[start] = _renamed(about, suffix)
            found[f"{start}/ready"] = _renamed(ready, suffix)
            found[f"{start}/infer"] = _renamed(infer, suffix)
    return found


def _renamed(path: Json, suffix: str) -> Json:
    """A path whose operations have names of their own."""
    return {
        key: {**value, "operationId": value["operationId"] + suffix}
        if isinstance(value, dict)
        else value
        for key, value in path.items()
    }


def _infer(name: str, served: Served, limits: Limits, place: int) -> Json:
    """The operation that asks a network."""
    binary = {
        "description": "JSON, of as many bytes as the header says, and the samples behind it.",
        "type": "string",
        "format": "binary",
    }
    answered = {
        "application/json": {"schema": _ref("schemas", f"Answer{place}")},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    length = {
        "description": "Bytes of JSON before the binary data.",
        "required": False,
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,11}$"},
    }
    return {
        "operationId": name,
        "summary": f"Ask {served.name}: it takes {served.words()}.",
        "description": (
            f"At most {limits.body:,} bytes, {limits.depth} brackets in each other and "
            f"{MOST_OBJECTS} objects; a sample's bytes decoded, and the numbers of an answer for "
            f"each pixel, at most {limits.decoded:,}; an answer in JSON at most "
            f"{limits.answer:,} numbers."
        ),
        "parameters": [{"name": protocol.HEADER_LENGTH, "in": "header", **length}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _ref("schemas", f"Request{place}"),
                    **_example(served.spec),
                },
                "application/octet-stream": {"schema": binary},
            },
        },
        "responses": _responses(answered, _ASKED, {protocol.HEADER_LENGTH: length}),
    }


def _example(spec: Spec) -> Json:
    """A request that is in order, where one is short."""
    shape = [1, spec.channels, *(2 if side is None else side for side in spec.size)]
    count = math.prod(shape)
    if count > SHORT:
        return {}
    datatype = protocol.DATATYPES[spec.dtypes[0]]
    tensor = {"name": spec.input, "shape": shape, "datatype": datatype, "data": [0] * count}
    return {"example": {"inputs": [tensor]}}


def _predict_path(models: Mapping[str, Served], limits: Limits) -> Json:
    """The address that takes a picture."""
    offered = [name for name, one in models.items() if one.pictures] or list(models)
    picture = {
        "description": f"A file of {limits.body:,} bytes at most.",
        "type": "string",
        "format": "binary",
        "minLength": 1,
    }
    kinds = ("image/jpeg", "image/png", "image/*", "application/octet-stream")
    form = {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
        "maxProperties": 8,
    }
    content = {kind: {"schema": picture} for kind in kinds}
    which = {
        "name": "model",
        "in": "query",
        "required": len(models) > 1,
        "description": "Which model is asked.",
        "schema": {"type": "string", "enum": offered},
    }
    operation = {
        "operationId": "predict",
        "summary": "What a model says of a picture.",
        "description": f"A picture may take {limits.decoded:,} bytes decoded.",
        "parameters": [which],
        "requestBody": {
            "required": True,
            "content": {**content, "multipart/form-data": {"schema": form}},
        },
        "responses": _responses(_json_content("Prediction"), (*_ASKED, 404)),
    }
    return {"/predict": {"parameters": [_ref("parameters", "X-Request-Id")], "post": operation}}


def _object(properties: Json, required: tuple[str, ...] | None = None) -> Json:
    """An object of these fields and no others; None: all are required."""
    needed = list(properties if required is None else required)
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": needed} if needed else found


_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "number"}
_FLAG: Json = {"type": "boolean"}
_SHARE: Json = {"type": "number", "minimum": 0, "maximum": 1}


def _schemas(models: Mapping[str, Served]) -> Json:
    """Everything that is JSON."""
    tensor = _object(
        {
            "name": _TEXT,
            "datatype": {"type": "string", "enum": list(protocol.DATATYPES.values())},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        }
    )
    tensors = {"type": "array", "items": tensor, "minItems": 1}
    names = {"type": "string", "enum": list(models)}
    state = {"type": "string", "enum": ["READY", "UNAVAILABLE"]}
    entry = _object({"name": names, "version": _TEXT, "state": state, "reason": _TEXT})
    top = {"type": "array", "items": _object({"label": _TEXT, "probability": _SHARE})}
    plain: Json = {
        "Error": _object({"error": {"type": "string", "minLength": 1}}),
        "Live": _object({"live": _FLAG}),
        "Ready": _object({"ready": _FLAG}),
        "ModelReady": _object({"name": names, "ready": _FLAG}),
        "Server": _object(
            {"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}
        ),
        "Model": _object(
            {
                "name": names,
                "versions": {"type": "array", "items": _TEXT},
                "platform": _TEXT,
                "inputs": tensors,
                "outputs": tensors,
            }
        ),
        "IndexRequest": _object({"ready": _FLAG}, ()),
        "Index": {"type": "array", "items": entry},
        "Prediction": _object(
            {
                "model": names,
                "label": _TEXT,
                "labels": {"type": "array", "items": _TEXT},
                "probability": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                "top": top,
                "value": _NUMBER,
                "values": {"type": "object", "additionalProperties": _NUMBER},
                "shares": {"type": "object", "additionalProperties": _SHARE},
            },
            ("model", "label", "probability", "top"),
        ),
    }
    for place, served in enumerate(models.values()):
        plain[f"Request{place}"] = _request(served.spec)
        plain[f"Answer{place}"] = _answer(served.spec)
    return plain


def _parameters(properties: Json) -> Json:
    """The field `parameters`: what is understood, and whatever else is no object and no list."""
    scalar = {"type": ["string", "number", "boolean"]}
    refused = {"not": {"pattern": "^(shared_memory_|sequence_)"}}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": scalar,
        "propertyNames": refused,
    }


def _request(spec: Spec) -> Json:
    """An inference request in JSON."""
    sides = [_side(1, spec.batch), _side(spec.channels, spec.channels)]
    sides += [_side(1, MOST_SIDE) if n is None else _side(n, n) for n in spec.size]
    shape = {
        "type": "array",
        "prefixItems": sides,
        "minItems": len(sides),
        "maxItems": len(sides),
        "items": False,
    }
    types = [protocol.DATATYPES[one] for one in spec.dtypes]
    data = {
        "description": "Numbers in row-major order, flat or nested, as many as the shape says.",
        "type": "array",
        "items": {"type": ["number", "array"]},
        "minItems": 1,
    }
    given = _object(
        {
            "name": {"const": spec.input},
            "shape": shape,
            "datatype": {"type": "string", "enum": types},
            "data": data,
            "parameters": _parameters({}),
        },
        ("name", "shape", "datatype", "data"),
    )
    asked: Json = {"binary_data": _FLAG}
    if spec.classes and not spec.whole:
        asked["classification"] = {"type": "integer", "minimum": 1}
    output = _object(
        {
            "name": {"type": "string", "enum": [one.name for one in spec.outputs]},
            "parameters": _parameters(asked),
        },
        ("name",),
    )
    return _object(
        {
            "id": {"type": "string", "maxLength": 256},
            "parameters": _parameters({"binary_data_output": _FLAG}),
            "inputs": {"type": "array", "items": given, "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": output, "maxItems": len(spec.outputs)},
        },
        ("inputs",),
    )


def _side(least: int, most: int) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


def _answer(spec: Spec) -> Json:
    """An answer in JSON."""
    datatypes = [protocol.DATATYPES[one.dtype] for one in spec.outputs]
    output = _object(
        {
            "name": {"type": "string", "enum": [one.name for one in spec.outputs]},
            "datatype": {"type": "string", "enum": sorted({*datatypes, "BYTES"})},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "data": {"type": "array", "items": {"type": ["number", "string"]}},
            "parameters": {"type": "object"},
        },
        ("name", "datatype", "shape"),
    )
    return _object(
        {
            "model_name": {"const": spec.name},
            "model_version": {"const": protocol.VERSION},
            "id": _TEXT,
            "outputs": {"type": "array", "items": output, "minItems": 1},
        },
        ("model_name", "model_version", "outputs"),
    )
