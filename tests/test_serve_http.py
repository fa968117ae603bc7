"""Slow, large, many, malformed and absent clients, at real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from neocog.errors import RunError
from neocog.serve.http import bound
from neocog.serve.limits import Limits
from serve_rig import LIVE, Answer, Gated, Rig, answer_of, exchange, next_answer, running
from served import small_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("short_pauses")

SHORT = Limits(header_seconds=0.4, body_seconds=0.4, body=20_000, header=2_000, connections=6)
INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def engine() -> Gated:
    return Gated(small_bundle().described)


@pytest.fixture(scope="module")
def rig(engine: Gated) -> Iterator[Rig]:
    with running({"m": engine}, SHORT) as made:
        yield made


def refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status
    assert list(answer.json()) == ["error"]
    for word in words:
        assert word in answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]
    assert answer.headers["server"] == "neocog"
    assert "date" in answer.headers


def only(found: bytes) -> Answer:
    answer, rest = answer_of(found)
    assert rest == b""
    return answer


def request_of(samples: int = 1) -> bytes:
    shape = [samples, 3, 2, 2]
    tensor = {"name": "images", "shape": shape, "datatype": "UINT8", "data": [51] * 12 * samples}
    return json.dumps({"inputs": [tensor]}).encode()


def post(body: bytes, *headers: bytes) -> bytes:
    fields = (b"Content-Length: %d" % len(body), *headers)
    return INFER + b"".join(one + b"\r\n" for one in fields) + b"\r\n" + body


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"G", b"\x16\x03"])
def test_a_slow_header_is_told_so(rig: Rig, sent: bytes) -> None:
    began = time.monotonic()
    found = exchange(rig, sent, end=False)
    if sent == b"\x16\x03":
        refused(only(found), 400, "not HTTP")
        return
    refused(only(found), 408, "0.4 s")
    assert answer_of(found)[0].headers["connection"] == "close"
    assert 0.3 < time.monotonic() - began < 9


def test_a_header_may_not_trickle(rig: Rig) -> None:
    began = time.monotonic()
    with rig.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 10:
                client.sendall(b"a: b\r\n")
                time.sleep(0.05)
                if client.recv(1 << 16, socket.MSG_DONTWAIT):
                    break
    assert time.monotonic() - began < 9


def test_a_silent_connection_is_closed_silently(rig: Rig) -> None:
    assert exchange(rig, end=False) == b""


@pytest.mark.parametrize("whole", [False, True], ids=["endless", "whole"])
def test_a_large_header_is_refused(rig: Rig, whole: bool) -> None:
    fields = b"".join(b"X-%03d: %s\r\n" % (n, b"a" * 100) for n in range(200 if not whole else 20))
    found = exchange(
        rig, b"GET / HTTP/1.1\r\nHost: x\r\n", fields + (b"\r\n" if whole else b""), end=False
    )
    refused(only(found), 431, "2,000")


def test_a_header_of_the_allowed_size_is_taken(rig: Rig) -> None:
    start = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: "
    line = b"a" * (2000 - len(start) - 4)
    assert only(exchange(rig, start + line + b"\r\n\r\n", end=False)).status == 200
    refused(only(exchange(rig, start + line + b"a\r\n\r\n", end=False)), 431)


def test_a_large_header_behind_another_request_is_refused(rig: Rig) -> None:
    first, rest = answer_of(
        exchange(rig, LIVE + b"GET / HTTP/1.1\r\nHost: " + b"x" * 3000 + b"\r\n\r\n", end=False)
    )
    assert first.status == 200
    refused(only(rest), 431)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        bytes(range(256)) * 4,
    ],
)
def test_what_is_not_http_is_refused(rig: Rig, sent: bytes, capfd: Any) -> None:
    answer = only(exchange(rig, sent, end=False))
    assert answer.status == 400
    assert list(answer.json()) == ["error"]
    assert answer.headers["x-request-id"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_body_that_is_said_to_be_large_is_never_read(rig: Rig) -> None:
    head = INFER + b"Content-Length: 20001\r\nExpect: 100-continue\r\n\r\n"
    found = exchange(rig, head, end=False)
    refused(only(found), 413, "20,000")
    assert b"100 Continue" not in found


def test_a_client_that_sends_all_of_a_large_body_gets_its_answer(rig: Rig) -> None:
    body = b"x" * 3_000_000
    refused(only(exchange(rig, post(body), end=False)), 413)


def test_a_chunked_body_is_counted(rig: Rig) -> None:
    head = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (6000, b"a" * 6000)] * 4
    refused(only(exchange(rig, head, *chunks, end=False)), 413)


def test_very_small_chunks_are_refused(rig: Rig) -> None:
    head = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
    refused(only(exchange(rig, head, b"1\r\na\r\n" * 2000, end=False)), 400, "chunks")


def test_a_chunked_request_is_answered(rig: Rig) -> None:
    body = request_of()
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    head = INFER + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = only(exchange(rig, head, chunked, b"0\r\n\r\n", end=False))
    assert answer.status == 200
    assert answer.json()["outputs"][0]["data"][0] == pytest.approx(0.2)


def test_a_body_that_is_expected_to_be_asked_for_is(rig: Rig) -> None:
    body = request_of()
    with rig.connect() as client:
        client.sendall(INFER + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_slow_body_is_told_so(rig: Rig) -> None:
    began = time.monotonic()
    answer = only(exchange(rig, INFER + b"Content-Length: 100\r\n\r\n", b"{", end=False))
    refused(answer, 408, "body", "0.4 s")
    assert answer.headers["connection"] == "close"
    assert 0.3 < time.monotonic() - began < 9


def test_requests_in_a_row_are_answered_in_order(rig: Rig) -> None:
    sent = b"".join(
        (
            LIVE.replace(b"Host: x", b"Host: x\r\nX-Request-Id: %d" % n)
            if n % 2
            else post(request_of(), b"X-Request-Id: %d" % n)
        )
        for n in range(20)
    )
    rest = exchange(rig, sent)
    for n in range(20):
        answer, rest = answer_of(rest)
        assert (answer.status, answer.headers["x-request-id"]) == (200, str(n))
    assert only(rest).status == 200


def test_an_idle_connection_is_closed_and_one_in_use_is_not(engine: Gated) -> None:
    with running({"m": engine}, SHORT) as own:
        own.server.config.timeout_keep_alive = 1
        with own.connect() as client:
            for _ in range(3):
                client.sendall(LIVE)
                assert next_answer(client).status == 200
                time.sleep(0.2)
            began = time.monotonic()
            assert client.recv(4096) == b""  # closed, without a word
            assert time.monotonic() - began < 9


def test_too_many_connections_are_told_so(rig: Rig) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(SHORT.connections):
            busy = stack.enter_context(rig.connect())
            busy.sendall(b"GET")
        assert eventually(lambda: kept_of(rig) == [3] * SHORT.connections)
        answer = only(exchange(rig, end=False))
        refused(answer, 503, "connections")
        assert answer.headers["retry-after"] == "1"
    assert eventually(lambda: len(rig.server.server_state.connections) == 0)
    assert rig.ask("GET", "/v2/health/live").status == 200


def kept_of(rig: Rig) -> list[int]:
    """Bytes of unfinished headers, of each connection."""
    return [one.conn.kept for one in tuple(rig.server.server_state.connections)]  # type: ignore[union-attr]


def eventually(is_so: Any, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.02)
    return bool(is_so())


def test_a_client_that_leaves_is_forgotten(engine: Gated, capfd: Any) -> None:
    limits = Limits(queue=2)
    with running({"m": engine}, limits) as own:
        engine.open.clear()
        engine.entered.clear()
        clients = [own.connect() for _ in range(3)]
        for place, client in enumerate(clients):
            client.sendall(post(request_of()))
            if not place:
                assert engine.entered.wait(20)
        served = own.app.models["m"]
        assert eventually(lambda: served.waiting == 2)
        assert own.ask("POST", "/v2/models/m/infer", request_of()).status == 429
        for client in clients:
            client.close()
        assert eventually(lambda: served.waiting == 0)
        assert eventually(lambda: own.app.working == 0)
        assert own.app.held.bytes == 0
        calls = engine.calls
        engine.open.set()
        assert own.ask("POST", "/v2/models/m/infer", request_of()).status == 200
        assert engine.calls == calls + 1
    assert "".join(capfd.readouterr()) == ""


def test_it_drains(engine: Gated) -> None:
    with running({"m": engine}, drain=0.5) as own:
        engine.open.clear()
        engine.entered.clear()
        idle, busy = own.connect(), own.connect()
        idle.sendall(LIVE)
        assert next_answer(idle).status == 200
        busy.sendall(post(request_of()))
        assert engine.entered.wait(20)
        began = time.monotonic()
        own.server.stop()
        assert own.ask("GET", "/v2/health/live").status == 200
        ready = own.ask("GET", "/v2/health/ready")
        refused(ready, 503)
        assert ready.headers["retry-after"] == "1"
        assert own.ask("GET", "/v2/models/m/ready").status == 503
        late = own.ask("POST", "/v2/models/m/infer", request_of())
        refused(late, 503)
        assert late.headers["connection"] == "close"
        assert late.headers["retry-after"] == "1"
        time.sleep(0.8)
        assert own.ask("GET", "/v2/health/live").status == 200  # still there for what it accepted
        threading.Timer(0.1, engine.open.set).start()
        assert only(read_all(busy)).status == 200
        assert read_all(idle) == b""
        own.thread.join(15)
        assert not own.thread.is_alive()
        assert 0.5 < time.monotonic() - began < 15
        with pytest.raises(ConnectionError):
            own.connect()


def read_all(client: socket.socket) -> bytes:
    found = bytearray()
    with client:
        while data := client.recv(65536):
            found += data
    return bytes(found)


def test_a_port_that_is_taken_is_named() -> None:
    with contextlib.closing(bound("127.0.0.1", 0)) as held:
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(RunError, match=f"port {port}.*in use") as caught:
            bound("127.0.0.1", port)
        assert "--port" in caught.value.hint
    with pytest.raises(RunError, match="cannot serve at"):
        bound("192.0.2.1", 0)
