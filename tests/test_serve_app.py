"""Addresses, the order of checks, answers and refusals."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from neocog.files import write_json
from neocog.records import TaskSpec
from neocog.run import Run
from neocog.runtime.torch_engine import TorchEngine
from neocog.serve.limits import Limits
from serve_rig import Answer, Gated, Rig, running
from served import CLASSES, small_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neocog.bundle import Bundle

COLUMNS = ("width", "height")
NUMBERS = TaskSpec(
    name="regress", args={"columns": list(COLUMNS), "mean": [1.0, 2.0], "std": [1.0, 3.0]}
)
PIXELS = TaskSpec(name="segment", args={"classes": list(CLASSES)})


@pytest.fixture(scope="module")
def bundles() -> dict[str, Bundle]:
    pixelwise = "conv 8 3 pad=same; relu; conv 5 3 pad=same"
    return {
        "insects": small_bundle(),
        "signals": small_bundle(channels=1, size=(16,), line="conv 4 3; relu; gap; linear"),
        "grey": small_bundle(channels=1, size=(9, 9), seed=1),
        "sizes": small_bundle(task=NUMBERS, classes=COLUMNS),
    } | ({"pixels": small_bundle(task=PIXELS, line=pixelwise, whole=True)} if pixelwise else {})


@pytest.fixture(scope="module")
def rig(bundles: dict[str, Bundle]) -> Iterator[Rig]:
    engines = {name: TorchEngine(one, threads=1) for name, one in bundles.items()}
    with running(engines, Limits(body=300_000)) as made:
        yield made


def gated() -> Gated:
    return Gated(small_bundle().described)


def refused(answer: Answer, status: int, *words: str) -> None:
    assert (answer.status, list(answer.json())) == (status, ["error"])
    for word in words:
        assert word in answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def drawn(size: tuple[int, int], mode: str, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, len(mode)), np.uint8)
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode=None)


def picture(
    form: str = "PNG", size: tuple[int, int] = (20, 31), mode: str = "RGB", **how: Any
) -> bytes:
    file = io.BytesIO()
    drawn(size, mode).save(file, form, **how)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", (200, 310), exif=exif)


PICTURES = {
    "small.png": picture(),
    "exact.png": picture(size=(12, 10)),
    "large.jpg": picture("JPEG", (700, 431)),
    "grey.png": picture(mode="L"),
    "clear.png": picture(mode="RGBA"),
    "palette.gif": picture("GIF", mode="L"),
    "turned.jpg": turned(),
    "thin.png": picture(size=(1, 90)),
}


@pytest.mark.parametrize("model", ["insects", "grey", "sizes", "pixels"])
def test_a_picture_answers_as_predict_does(
    rig: Rig, bundles: dict[str, Bundle], model: str, tmp_path: Path
) -> None:
    bundles[model].save(tmp_path / "bundle")
    write_json(tmp_path / "manifest.json", dataclasses.asdict(bundles[model].manifest))
    files = []
    for name, data in PICTURES.items():
        files.append(tmp_path / name)
        files[-1].write_bytes(data)
    expected = Run(tmp_path).predict(files, device="cpu")
    assert len(expected) == len(PICTURES)
    for entry, data in zip(expected, PICTURES.values(), strict=True):
        found = rig.ask("POST", f"/predict?model={model}", data).json()
        entry.pop("path")
        mask = entry.pop("mask", None)
        assert found.pop("model") == model
        assert set(found) == set(entry)
        close_to(found, entry)
        if mask is not None:
            shares = {name: float((mask == k).mean()) for k, name in enumerate(CLASSES)}
            assert found["shares"] == {k: v for k, v in shares.items() if v}


def close_to(found: Any, expected: Any) -> None:
    """Alone or in a batch the last bit may differ."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            close_to(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close_to(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    elif not (isinstance(expected, str) and re.search(r"=\d", expected)):
        assert found == expected


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "image/png",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "IMAGE/X; a=b",
    ],
)
def test_a_picture_comes_under_several_types(rig: Rig, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert rig.ask("POST", "/predict?model=insects", PICTURES["small.png"], headers).status == 200


def form(*parts: tuple[str, bytes], boundary: str = "bound") -> tuple[bytes, dict[str, str]]:
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    kind = f"multipart/form-data; boundary={boundary}"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": kind}


def test_a_form_may_hold_a_picture(rig: Rig) -> None:
    plain = rig.ask("POST", "/predict?model=insects", PICTURES["small.png"]).json()
    file = ('name="picture"; filename="a\\"b.png"', PICTURES["small.png"])
    body, headers = form(('name="note"', b"x"), file)
    assert rig.ask("POST", "/predict?model=insects", body, headers).json() == plain


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((), "found 0"),
        ((('name="a"', b"x"),), "found 0"),
        ((('name="a"; filename="a"', b"x"),) * 2, "found 2"),
        ((('name="a"; filename="a"', b""),), "found none"),
        ((('name="a"; filename="a"', b"x"),) * 9, "at most 8"),
        ((('name="a"; filename="a"\r\nContent-Transfer-Encoding: base64', b"x"),), "encoded"),
    ],
)
def test_a_form_of_another_shape_is_refused(rig: Rig, parts: Any, words: str) -> None:
    body, headers = form(*parts)
    refused(rig.ask("POST", "/predict?model=insects", body, headers), 400, words)


def test_a_damaged_form_is_refused(rig: Rig) -> None:
    body, headers = form(('name="a"; filename="a"', PICTURES["small.png"]))
    for damaged in (body[:-20], b"x" + body, body.replace(b"bound", b"other"), b"", b"--bound"):
        refused(rig.ask("POST", "/predict?model=insects", damaged, headers), 400, "form")
    for kind in ("multipart/form-data", f"multipart/form-data; boundary={'x' * 80}"):
        answer = rig.ask("POST", "/predict?model=insects", body, {"Content-Type": kind})
        refused(answer, 400, "boundary")


def test_what_is_no_picture_is_refused(rig: Rig) -> None:
    refused(rig.ask("POST", "/predict?model=insects", b""), 400, "found none")
    refused(rig.ask("POST", "/predict?model=insects", b"hello"), 400, "image")
    refused(rig.ask("POST", "/predict?model=insects", PICTURES["large.jpg"][:900]), 400, "image")
    json_kind = {"Content-Type": "application/json"}
    refused(rig.ask("POST", "/predict?model=insects", b"{}", json_kind), 415, "picture")
    refused(rig.ask("POST", "/predict?model=signals", PICTURES["small.png"]), 415, "signal")
    packed = {"Content-Encoding": "gzip"}
    refused(rig.ask("POST", "/predict?model=insects", b"x", packed), 415, "Content-Encoding")
    refused(rig.ask("POST", "/predict?model=insects", b"x" * 300_001), 413, "300,000")


def test_models_are_named_and_near_names_told(rig: Rig) -> None:
    refused(rig.ask("POST", "/predict", PICTURES["small.png"]), 400, "?model=", "insects", "grey")
    refused(rig.ask("POST", "/predict?model=insect", b"x"), 404, "did you mean 'insects'")
    refused(rig.ask("GET", "/v2/models/gray"), 404, "'grey'")
    refused(rig.ask("POST", "/v2/models/zebra/infer", b"{}"), 404)
    refused(rig.ask("GET", "/v2/models/grey/versions/2"), 404, "version 1")
    assert rig.ask("GET", "/v2/models/grey?a=b&c").json()["name"] == "grey"
    many = "&".join(["a=b"] * 100)
    refused(rig.ask("POST", f"/predict?{many}", b"x"), 400, "64 parameters")


@pytest.mark.parametrize("between", ["", "/versions/1"])
def test_an_inference_is_that_of_the_engine(
    rig: Rig, bundles: dict[str, Bundle], between: str
) -> None:
    samples = np.random.default_rng(3).integers(0, 256, (3, 1, 9, 9), np.uint8)
    tensor = {
        "name": "images",
        "shape": [3, 1, 9, 9],
        "datatype": "UINT8",
        "data": samples.tolist(),
    }
    body = json.dumps({"id": "7", "inputs": [tensor]}).encode()
    found = rig.ask("POST", f"/v2/models/grey{between}/infer", body).json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("grey", "1", "7")
    data = np.reshape(found["outputs"][0]["data"], found["outputs"][0]["shape"])
    expected = TorchEngine(bundles["grey"], threads=1)(samples)
    np.testing.assert_allclose(data, expected, atol=1e-6)
    del tensor["data"]
    tensor["parameters"] = {"binary_data_size": samples.nbytes}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    headers = {
        "Inference-Header-Content-Length": str(len(head)),
        "Content-Type": "application/octet-stream",
    }
    answer = rig.ask("POST", f"/v2/models/grey{between}/infer", head + samples.tobytes(), headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["inference-header-content-length"])
    binary = np.frombuffer(answer.body[end:], "<f4").reshape(3, 5)
    np.testing.assert_allclose(binary, expected, atol=1e-6)
    for wrong in ("x", ""):
        bad = {**headers, "Inference-Header-Content-Length": wrong}
        refused(rig.ask("POST", "/v2/models/grey/infer", head, bad), 400, "Inference-Header")
    refused(rig.ask("POST", "/v2/models/grey/infer", head, {"Content-Type": "text/xml"}), 415)
    refused(rig.ask("POST", "/v2/models/grey/infer", b"{"), 400)


def test_health_metadata_and_index(rig: Rig) -> None:
    assert rig.ask("GET", "/v2/health/live").json() == {"live": True}
    assert rig.ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert rig.ask("GET", "/v2").json()["name"] == "neocog"
    for start in ("/v2/models/signals", "/v2/models/signals/versions/1"):
        assert rig.ask("GET", start).json()["inputs"][0]["name"] == "samples"
        assert rig.ask("GET", f"{start}/ready").json() == {"name": "signals", "ready": True}
    names = {"insects", "signals", "grey", "sizes", "pixels"}
    for body in (None, b"{}", b'{"ready": true}'):
        index = rig.ask("POST", "/v2/repository/index", body).json()
        assert {one["name"] for one in index} == names
        assert {one["state"] for one in index} == {"READY"}
    refused(rig.ask("POST", "/v2/repository/index", b"[]"), 400)
    refused(rig.ask("POST", "/v2/repository/index", b'{"ready": 1}'), 400)


@pytest.mark.parametrize(
    "path",
    [
        *("/v2/", "//", "/v3", "/v2/models", "/v2/models/", "/v2/models/grey/", "/predict/"),
        *("/v2/models/grey/infer/x", "/v2/models/grey/versions", "/v2/models/grey/stats"),
        *("/v2/models/grey/config", "/v2/systemsharedmemory/status", "/v2/trace/setting"),
        *("/v2/repository/models/grey/load", "/v2/models/{}/versions/{}/x", "/../etc/passwd"),
        *("/v2/models/grey%2Fready", "/%2e%2e/", "/index.html", "*", "/{}", "/v2/models/%FF"),
    ],
)
def test_nothing_else_is_served(rig: Rig, path: str) -> None:
    for method in ("GET", "POST"):
        answer = rig.ask(method, path, None if method == "GET" else b"{}")
        refused(answer, 404)
        assert "/etc" not in answer.json()["error"]


def test_methods(rig: Rig) -> None:
    for path in ("/", "/v2", "/v2/models/grey", "/metrics", "/openapi.json"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
            answer = rig.ask(method, path)
            refused(answer, 405, method)
            assert answer.headers["allow"] == "GET, HEAD"
        head, get = rig.ask("HEAD", path), rig.ask("GET", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(get.body))
    for path in ("/predict", "/v2/models/grey/infer", "/v2/repository/index"):
        answer = rig.ask("GET", path)
        refused(answer, 405)
        assert answer.headers["allow"] == "POST"
    assert rig.ask("HEAD", "/v2/models/zebra").status == 404
    assert rig.ask("GET", "http://elsewhere/v2").json()["name"] == "neocog"


def test_request_ids(rig: Rig) -> None:
    for given in ("a", "A-b_c.9", "x" * 64):
        answer = rig.ask("GET", "/nowhere", None, {"X-Request-Id": given})
        assert answer.headers["x-request-id"] == given
    for given in ("x" * 65, "a b", "a,b", "<script>", ""):
        answer = rig.ask("GET", "/v2", None, {"X-Request-Id": given})
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])
    assert len({rig.ask("GET", "/v2").headers["x-request-id"] for _ in range(5)}) == 5


def test_a_flood_is_refused_before_it_is_decoded() -> None:
    engine, answers = gated(), list[Answer]()
    with running({"m": engine}, Limits(queue=3)) as own:
        engine.open.clear()
        served = own.app.models["m"]

        def ask() -> None:
            answers.append(own.ask("POST", "/predict", PICTURES["small.png"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        threads[0].start()
        assert engine.entered.wait(20)
        for thread in threads[1:]:
            thread.start()
        end = time.monotonic() + 10
        while served.batcher.waiting < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert served.preparing == 0
        decoded = values_of(own)["neocog_decode_seconds_count"]
        answer = own.ask("POST", "/predict", PICTURES["small.png"])
        refused(answer, 429, "3 requests")
        assert answer.headers["retry-after"] == "1"
        assert values_of(own)["neocog_decode_seconds_count"] == decoded == 4
        assert own.ask("GET", "/v2/health/live").status == 200
        engine.open.set()
        for thread in threads:
            thread.join()
    assert [one.status for one in answers] == [200] * 4


def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    engine = gated()
    with running({"m": engine}, Limits(seconds=0.3)) as own:
        engine.open.clear()
        began = time.monotonic()
        refused(own.ask("POST", "/predict", PICTURES["small.png"]), 504)
        assert time.monotonic() - began < 5
        engine.open.set()


def test_a_fault_of_ours_is_told_to_us_alone(caplog: pytest.LogCaptureFixture) -> None:
    engine = gated()
    with running({"m": engine}) as own, caplog.at_level(logging.ERROR, "neocog.serve"):
        engine.fail = True
        answer = own.ask("POST", "/predict", PICTURES["small.png"])
        refused(answer, 500)
        assert answer.json() == {"error": "internal error"}
        assert answer.headers["x-request-id"] in caplog.text
        text = own.ask("GET", "/metrics").body.decode()
        assert 'neocog_refused_total{reason="internal"} 1.0' in text
        assert "/secret/path is broken" in caplog.text
        engine.fail = False
        assert own.ask("POST", "/predict", PICTURES["small.png"]).status == 200


def test_each_request_is_logged_where_it_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    engine = gated()
    with caplog.at_level(logging.INFO, "neocog.serve"):
        with running({"m": engine}) as own:
            own.ask("GET", "/v2")
        assert caplog.text == ""
        with running({"m": engine}, log=True) as own:
            own.ask("GET", "/v2/models/m", None, {"X-Request-Id": "mine"})
    (record,) = caplog.records
    assert re.fullmatch(r"mine GET /v2/models/\{model\} 200 \d+\.\d ms", record.getMessage())


def values_of(rig: Rig) -> dict[str, float]:
    """Each series summed over its labels."""
    answer = rig.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_metrics() -> None:
    engine = gated()
    with running({"m": engine}) as own:
        for _ in range(3):
            assert own.ask("POST", "/predict", PICTURES["small.png"]).status == 200
        own.ask("GET", "/made/up/<path>")
        own.ask("BREW", "/v2")
        own.ask("GET", "/v2/models/%3Cx%3E")
        text = own.ask("GET", "/metrics").body.decode()
        found = values_of(own)
    assert found["neocog_samples_total"] == 3
    assert found["neocog_batch_size_sum"] == 3
    assert found["neocog_engine_seconds_count"] == 3
    assert found["neocog_decode_seconds_count"] == 3
    assert found["neocog_queue_waiting"] == 0
    assert found["neocog_refused_total"] == 3
    assert found["neocog_model_info"] == 1
    assert found["neocog_requests_in_flight"] == 1  # this one
    assert 'neocog_requests_total{method="POST",route="/predict",status="200"} 3.0' in text
    assert 'reason="method"' in text
    for stranger in ("made", "BREW", "<x>", "3Cx"):
        assert stranger not in text


def test_the_description_names_all_that_is_served(rig: Rig) -> None:
    answer = rig.ask("GET", "/openapi.json")
    found = answer.json()
    assert found["openapi"].startswith("3.1")
    served = {path.template for path in rig.app._routes.values()}
    described = {
        re.sub("/versions/1", "/versions/{version}", re.sub("/models/[a-z]+", "/models/{model}", p))
        for p in found["paths"]
    }
    assert described == served
    for path, operations in found["paths"].items():
        for method in ("get", "head", "post"):
            if method in operations:
                asked = path + ("?model=grey" if path == "/predict" else "")
                status = str(
                    rig.ask(method.upper(), asked, b"{" if method == "post" else None).status
                )
                assert status in operations[method]["responses"], (method, path)
            else:
                refused_head = rig.ask(method.upper(), path)
                assert refused_head.status == 405
    for model in ("grey", "signals", "pixels"):
        content = found["paths"][f"/v2/models/{model}/infer"]["post"]["requestBody"]["content"]
        body = json.dumps(content["application/json"]["example"]).encode()
        assert rig.ask("POST", f"/v2/models/{model}/infer", body).status == 200
    for name in re.findall(r'"#/components/([^"]+)"', answer.body.decode()):
        kind, _, key = name.partition("/")
        assert key in found["components"][kind]
    names = [
        op["operationId"]
        for p in found["paths"].values()
        for op in p.values()
        if "operationId" in op
    ]
    assert len(names) == len(set(names))
