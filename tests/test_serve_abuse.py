"""Clients that take more than their share: the others are answered all the same."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from neocog.records import TaskSpec
from neocog.serve import app as app_module
from neocog.serve.connection import Connection
from neocog.serve.limits import Limits
from serve_rig import LIVE, Gated, Rig, answer_of, exchange, next_answer, running
from served import CLASSES, small_bundle
from test_serve_http import eventually, post, read_all, request_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("short_pauses")

INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
CHUNKED = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
PIXELS = TaskSpec(name="segment", args={"classes": list(CLASSES)})


@pytest.fixture(scope="module")
def engine() -> Gated:
    return Gated(small_bundle().described)


class Pixels(Gated):
    """Zeros for each pixel, without work."""

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        count, _, height, width = samples.shape
        return np.zeros((count, len(CLASSES), height, width), np.float32)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    line = "conv 8 3 pad=same; relu; conv 5 3 pad=same"
    return Pixels(small_bundle(task=PIXELS, line=line, whole=True).described)


def masks_of(side: int) -> bytes:
    """A request whose binary answer has 20 bytes a pixel, and some more for the mask."""
    given = {
        "name": "images",
        "shape": [1, 3, side, side],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": 3 * side * side},
    }
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    length = b"Inference-Header-Content-Length: %d" % len(head)
    return post(head + bytes(3 * side * side), length)


def slowest(rig: Rig, busy: threading.Event) -> float:
    """The longest that `live` takes until the event is set."""
    found = 0.0
    while not busy.is_set():
        began = time.monotonic()
        assert rig.ask("GET", "/v2/health/live").status == 200
        found = max(found, time.monotonic() - began)
    return found


@pytest.mark.parametrize("size", [65, 1024], ids=["refused", "taken"])
def test_small_chunks_keep_nobody_waiting(engine: Gated, size: int) -> None:
    chunk = b"%x\r\n%s\r\n" % (size, b" " * size)
    body = chunk * (10 * 2**20 // size - 1) + b"0\r\n\r\n"
    done, told = threading.Event(), list[str]()

    def send(own: Rig) -> None:
        with own.connect() as client, contextlib.suppress(OSError):
            client.sendall(CHUNKED + body)
        with own.connect() as client:
            with contextlib.suppress(OSError):
                client.sendall(CHUNKED + body)
            told.append(next_answer(client).json()["error"])

    with running({"m": engine}, Limits(body_seconds=60)) as own:
        senders = [threading.Thread(target=send, args=(own,)) for _ in range(4)]

        def wait() -> None:
            for one in senders:
                one.join()
            done.set()

        for one in (*senders, threading.Thread(target=wait)):
            one.start()
        took = slowest(own, done)
    assert ["chunks" in one for one in told] == [size < 1024] * 4
    assert took < 2.0  # some ten milliseconds on an idle machine


def test_a_turn_of_the_loop_reads_little(engine: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    with running({"m": engine}) as own:
        seen: list[int] = []
        before = Connection.data_received

        def data_received(self: Connection, data: bytes) -> None:
            seen.append(len(data))
            before(self, data)

        monkeypatch.setattr(Connection, "data_received", data_received)
        answer = answer_of(exchange(own, post(b" " * 2**20)))[0]
    assert answer.status == 400
    assert sum(seen) > 2**20
    assert max(seen) <= 2**15


def test_a_promise_takes_no_room(engine: Gated) -> None:
    with running({"m": engine}, Limits(queue=2)) as own, contextlib.ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(own.connect())
            client.sendall(INFER + b"Content-Length: 10485760\r\n\r\n")
        assert eventually(lambda: own.app.working == 8)
        assert own.app.held.bytes == 0
        large = b" " * 2**20 + request_of()
        assert own.ask("POST", "/v2/models/m/infer", large).status == 200


def test_there_is_room_for_little_where_much_is_sent(engine: Gated) -> None:
    limits = Limits(queue=1, body=300_000)
    with running({"m": engine}, limits) as own, own.connect() as slow:
        slow.sendall(INFER + b"Content-Length: 299999\r\n\r\n" + b" " * 250_000)
        assert eventually(lambda: own.app.held.bytes == 250_000)
        refused = own.ask("POST", "/v2/models/m/infer", b" " * 100_000)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert own.ask("POST", "/v2/models/m/infer", b" " * 60_000 + request_of()).status == 200
        text = own.ask("GET", "/metrics").body.decode()
        assert 'neocog_refused_total{reason="memory"} 1.0' in text
        assert 'neocog_held_bytes{of="requests"} 250000.0' in text
        assert "neocog_connections 2.0" in text
        slow.sendall(b" " * 49_999)
        assert next_answer(slow).status == 400
        assert own.app.held.bytes == 0


def test_answers_that_nobody_fetches_are_bounded(pixels: Pixels) -> None:
    """Each is some 16 MB; there is room for 4 × 20 MiB."""
    limits = Limits(binary=20 * 2**20, body_seconds=3)
    with running({"m": pixels}, limits) as own, contextlib.ExitStack() as stack:
        sent = masks_of(880)
        for place in range(5):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", own.port))
            client.sendall(sent)
            most = 15e6 * (place + 1)
            assert eventually(lambda most=most: own.app.answers.bytes > most, 10)
        held = own.app.answers.bytes
        assert 75e6 < held <= 4 * limits.binary
        assert most_buffered(own) < 2**20  # none is in a connection's own buffer as a whole
        with own.connect() as client:
            client.sendall(sent)
            assert next_answer(client).status == 429
        assert own.ask("GET", "/v2/health/live").status == 200
        assert eventually(lambda: own.app.answers.bytes == 0, 15)  # they are cut in the end


def most_buffered(rig: Rig) -> int:
    connections: Any = tuple(rig.server.server_state.connections)
    return max(one.inner.get_write_buffer_size() for one in connections)


def test_a_large_answer_is_whole_and_one_too_large_is_refused(pixels: Pixels) -> None:
    with running({"m": pixels}, Limits(binary=2 * 2**20)) as own:
        for side, status in ((300, 200), (330, 400)):
            with own.connect() as client:
                client.sendall(masks_of(side).replace(b"Host: x", b"Host: x\r\nConnection: close"))
                answer, rest = answer_of(read_all(client))
                assert (answer.status, rest) == (status, b"")
        assert "at most 2097152 bytes, found 2286900" in answer.json()["error"]
        assert own.app.answers.bytes == 0


def test_an_answer_may_not_be_fetched_for_ever(
    pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "RATE", 2**30)
    with running({"m": pixels}, Limits(body_seconds=1.0)) as own, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", own.port))
        client.sendall(masks_of(1000))
        assert eventually(lambda: own.app.answers.bytes > 0, 10)
        began = time.monotonic()
        while own.app.answers.bytes and time.monotonic() - began < 15:
            client.recv(2**18)  # some, so that it is never quite still
            time.sleep(0.02)
        assert own.app.answers.bytes == 0
        assert 0.5 < time.monotonic() - began < 12


def test_a_client_that_says_no_more_is_answered(engine: Gated) -> None:
    with running({"m": engine}) as own:
        engine.open.clear()
        engine.entered.clear()
        with own.connect() as client:
            client.sendall(post(request_of()) + LIVE + post(request_of()))
            client.shutdown(socket.SHUT_WR)
            assert engine.entered.wait(10)
            time.sleep(0.3)
            engine.open.set()
            rest = read_all(client)
        while rest.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            rest = rest.partition(b"\r\n\r\n")[2]
        for _ in range(3):
            answer, rest = answer_of(rest.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
            assert answer.status == 200
        assert rest == b""
        for part in (b"GET / HT", post(request_of())[:-5]):
            with own.connect() as client:
                client.sendall(part)
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b""
        assert eventually(lambda: not own.server.server_state.connections)


def test_silent_connections_make_room(engine: Gated) -> None:
    limits = Limits(connections=4, header_seconds=30)
    with running({"m": engine}, limits) as own, contextlib.ExitStack() as stack:
        kept, *silent = (stack.enter_context(own.connect()) for _ in range(4))
        connections = own.server.server_state.connections
        assert eventually(lambda: len(connections) == 4)
        kept.sendall(LIVE)
        assert next_answer(kept).status == 200  # the youngest now
        for _ in range(3):
            last = stack.enter_context(own.connect())
            last.sendall(LIVE[:-2])
            assert eventually(lambda: len(connections) == 4)
            assert eventually(lambda: any(one.conn.kept for one in connections))
        for one in silent:
            assert one.recv(1) == b""
        kept.sendall(LIVE)
        assert next_answer(kept).status == 200
        kept.sendall(LIVE[:-2])
        assert eventually(lambda: sum(one.conn.kept > 0 for one in connections) == 4)
        refused = answer_of(exchange(own, end=False))[0]
        assert refused.status == 503
        last.sendall(b"\r\n")
        assert next_answer(last).status == 200
        text = own.ask("GET", "/metrics").body.decode()
        assert 'neocog_refused_total{reason="connections"} 1.0' in text


def test_the_end_comes(engine: Gated) -> None:
    """Though a network hangs, a body trickles and an answer is not fetched."""
    with running({"m": engine}, Limits(seconds=60, body_seconds=60), end=1.0) as own:
        engine.open.clear()
        engine.entered.clear()
        with own.connect() as hangs, own.connect() as trickles:
            hangs.sendall(post(request_of()))
            trickles.sendall(INFER + b"Content-Length: 10\r\n\r\n{")
            assert engine.entered.wait(10)
            assert eventually(lambda: own.app.working == 2)
            began = time.monotonic()
            own.server.stop()
            for one in (hangs, trickles):
                with contextlib.suppress(ConnectionError):
                    assert one.recv(4096) == b""
            assert 0.5 < time.monotonic() - began < 10
        engine.open.set()
        own.thread.join(10)
        assert not own.thread.is_alive()


@pytest.fixture(autouse=True)
def opened(engine: Gated) -> Iterator[None]:
    yield
    engine.open.set()
