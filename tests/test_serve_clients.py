"""The server in the hands of clients that others wrote: tritonclient, schemathesis, curl."""

from __future__ import annotations

import http.client
import io
import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from faults import requests
from faults.tally import Tally
from neocog.runtime.torch_engine import TorchEngine
from neocog.serve.limits import Limits
from serve_rig import running
from served import CLASSES, serving, small_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from neocog.bundle import Bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def port(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("served") / "bundle"
    bundle.save(folder)
    with serving(f"insects={folder}", f"second={folder}") as said:
        yield said["port"]


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as made:
        yield made


def _samples(count: int, size: tuple[int, int] = (12, 10)) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 3, *size), dtype=np.uint8)


def _answers(bundle: Bundle, samples: NDArray[np.uint8]) -> NDArray[np.float32]:
    return TorchEngine(bundle, threads=1)(samples)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("insects")
    assert client.is_model_ready("insects", "1")
    assert not client.is_model_ready("wasps")
    server = client.get_server_metadata()
    assert server["name"] == "neocog"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("insects")
    assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, -1, -1]}]
    assert model["outputs"][0]["name"] == "probabilities"
    assert model["outputs"][0]["shape"] == [-1, 5]
    assert {one["name"] for one in client.get_model_repository_index()} == {"insects", "second"}


@pytest.mark.parametrize("size", [(12, 10), (30, 41)])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_inference(
    client: Any,
    bundle: Bundle,
    count: int,
    size: tuple[int, int],
    binary_in: bool,
    binary_out: bool,
) -> None:
    samples = _samples(count, size)
    given = triton.InferInput("images", list(samples.shape), "UINT8")
    given.set_data_from_numpy(samples, binary_data=binary_in)
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary_out)
    found = client.infer("insects", [given], outputs=[wanted], request_id="seven")
    assert found.get_response()["id"] == "seven"
    np.testing.assert_allclose(
        found.as_numpy("probabilities"), _answers(bundle, samples), rtol=0, atol=1e-6
    )


def test_answers_without_asking_for_outputs(client: Any, bundle: Bundle) -> None:
    samples = _samples(3)
    given = triton.InferInput("images", list(samples.shape), "UINT8")
    given.set_data_from_numpy(samples)
    found = client.infer("second", [given]).as_numpy("probabilities")
    np.testing.assert_allclose(found, _answers(bundle, samples), rtol=0, atol=1e-6)


def test_classes_by_name(client: Any, bundle: Bundle) -> None:
    samples = _samples(2)
    given = triton.InferInput("images", list(samples.shape), "UINT8")
    given.set_data_from_numpy(samples)
    wanted = triton.InferRequestedOutput("probabilities", class_count=2)
    rows = client.infer("insects", [given], outputs=[wanted]).as_numpy("probabilities")
    for row, answer in zip(rows, _answers(bundle, samples), strict=True):
        best = np.argsort(-answer)[:2]
        for text, at in zip(row, best, strict=True):
            value, index, label = text.decode().split(":")
            assert (int(index), label) == (at, CLASSES[at])
            assert float(value) == pytest.approx(answer[at], abs=1e-5)


def test_what_does_not_fit_is_said(client: Any) -> None:
    samples = _samples(2)[:, :1]
    given = triton.InferInput("images", list(samples.shape), "UINT8")
    given.set_data_from_numpy(np.ascontiguousarray(samples))
    with pytest.raises(InferenceServerException, match=r"images.*expected .*3.*found .*1"):
        client.infer("insects", [given])
    with pytest.raises(InferenceServerException, match="wasps"):
        client.infer("wasps", [given])


def test_a_picture_file(port: int, bundle: Bundle) -> None:
    samples = _samples(1)
    page = io.BytesIO()
    Image.fromarray(samples[0].transpose(1, 2, 0)).save(page, "png")
    # As `curl --data-binary @file` sends it.
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    ask = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict?model=insects", page.getvalue(), kind
    )
    with urllib.request.urlopen(ask) as answer:
        found = json.load(answer)
    expected = _answers(bundle, samples)[0]
    assert found["label"] == CLASSES[int(expected.argmax())]
    assert found["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
    assert [one["label"] for one in found["top"]] == [CLASSES[at] for at in np.argsort(-expected)]


@pytest.mark.parametrize("channels", [3, 1])
def test_no_bytes_are_answered_by_a_fault_of_ours(channels: int) -> None:
    """Requests that are nearly right, by mutation; the long form is `python -m faults.requests`."""
    engine = TorchEngine(small_bundle(channels=channels), threads=1)
    with running({"insects": engine}, Limits(header_seconds=1, body_seconds=1)) as rig:
        told = requests.run(rig.port, model="insects", count=400, late=15)
    assert told.cases == 400
    assert not told.findings
    assert told.notes["answered 200"] > 40
    assert told.notes["answered 400"] > 40
    assert told.notes["of which head"] > 50


def test_a_server_that_says_nothing_is_found() -> None:
    """To a head that was changed, or to a whole request."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        tally = Tally("deaf")
        aside = requests.Aside(tally, late=0.2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(requests, "SHORT", 0.01)
            requests._begun(deaf.getsockname()[1], 7, b"GET / HTTP/1.1\r\n", aside)
        aside.settle(0)
    assert tally.cases == 1
    (finding,) = tally.findings
    assert finding.startswith("request 7: silence for 0.2 s")


def test_schemathesis_finds_nothing(port: int, tmp_path: Path) -> None:
    config = Path(__file__).with_name("schemathesis.toml")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    url = f"http://127.0.0.1:{port}/openapi.json"
    options = ["--max-examples", "25", "--seed", "1", "--no-shrink"]
    found = subprocess.run(
        [*command, url, *options, "--phases", "examples,coverage,fuzzing"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,  # it keeps notes where it runs
    )
    assert found.returncode == 0, found.stdout[-8000:]


def test_connections_are_kept(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(3):
        connection.request("GET", "/v2/health/live")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert not answer.will_close
    connection.close()
