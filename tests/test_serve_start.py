"""Names of models, limits as people write them, and how a server ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from neocog.errors import ConfigError
from neocog.serve.bounds import limits_of
from neocog.serve.served import name_of, named
from served import small_bundle
from test_serve_app import PICTURES

if TYPE_CHECKING:
    from pathlib import Path


def test_names_of_models() -> None:
    assert named(["runs/a", "b=runs/c", "x/a.onnx"]) == {
        "a": "runs/a",
        "b": "runs/c",
        "a-2": "x/a.onnx",
    }
    assert named(["a/b=c"]) == {"b-c": "a/b=c"}
    assert name_of("/") == "model"
    assert re.fullmatch("[A-Za-z0-9._-]{1,64}", name_of("ä ö/<ü>" * 90))
    for wrong in (["a b=x"], ["=x"], [".a=x"], ["a=x", "a=y"]):
        with pytest.raises(ConfigError):
            named(wrong)


def test_limits_are_read() -> None:
    found = limits_of(["body=1.5KiB", "seconds=250ms", "batch=7", "decoded=1gb", "latency=0"])
    assert (found.body, found.seconds, found.batch) == (1536, 0.25, 7)
    assert (found.decoded, found.latency) == (10**9, 0.0)
    for wrong in ("body", "body=", "bdy=3", "batch=1.5", "batch=0", "batch=-1", "seconds=0"):
        with pytest.raises(ConfigError):
            limits_of([wrong])
    for wrong in ("seconds=nan", "batch=1KiB", "body=1.0001", "body=9e9", "seconds=3 h"):
        with pytest.raises(ConfigError):
            limits_of([wrong])


@pytest.mark.parametrize("twice", [False, True])
def test_a_signal_drains_and_a_second_one_ends(tmp_path: Path, twice: bool) -> None:
    small_bundle().save(tmp_path / "ants" / "bundle")
    code = "from neocog.cli.shipping import serve; serve()"
    options = ["--port", "0", "--json", "--engine", "torch", "--threads", "1"]
    options += ["--drain", "20" if twice else "0.2", "--limit", "queue=5"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "ants"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        text = b""
        while not text.endswith(b"\n}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()
            text += line
        said = json.loads(text)
        assert said["limits"]["queue"] == 5
        assert [one["name"] for one in said["models"]] == ["ants"]
        client = http.client.HTTPConnection("127.0.0.1", said["port"], timeout=20)
        client.request("POST", "/predict", PICTURES["small.png"])
        assert client.getresponse().status == 200
        process.send_signal(signal.SIGTERM)
        if twice:
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        client.close()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == (-signal.SIGTERM if twice else 0)
    assert b"curl --data-binary" in errors
    assert b"Traceback" not in errors
