"""Requests that two readers could take for different ones, and names that are not the server's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from neocog.serve.hosts import LOOPBACK
from neocog.serve.limits import Limits
from serve_rig import LIVE, Gated, Rig, answer_of, exchange, next_answer, running
from served import small_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
LIMITS = Limits(body=20_000, header_seconds=5, body_seconds=5)


@pytest.fixture(scope="module")
def engine() -> Gated:
    return Gated(small_bundle().described)


@pytest.fixture(scope="module")
def rig(engine: Gated) -> Iterator[Rig]:
    with running({"m": engine}, LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(engine: Gated) -> Iterator[Rig]:
    with running({"m": engine}, LIMITS, hosts=(*LOOPBACK, "ants.example")) as made:
        yield made


def told(rig: Rig, sent: bytes) -> tuple[int, str]:
    """Status and text of the refusal; the connection ends with it."""
    answer, rest = answer_of(exchange(rig, sent, end=False))
    assert rest == b""
    assert answer.headers["connection"] == "close"
    return answer.status, answer.json()["error"]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (GET + b"X : y\r\n\r\n", "a field of the header is malformed"),
        (b"GET /\r\n\r\n", "first line"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", "version"),
        (b"GET / HTTP/1.1\r\n\r\n", "Host is missing"),
        (GET + b"Host: x\r\n\r\n", "Host is there more than once"),
        (GET + b"A: b\r\n c\r\n\r\n", "folded"),
        (GET + b"A: b\n\r\n", "bare line feed"),
        (GET + b"\n", "bare line feed"),
        (POST + b"Content-Length: 2\r\ncontent-length: 2\r\n\r\n{}", "more than once"),
        (POST + b"Content-Length: 2, 2\r\n\r\n{}", "more than once"),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "more than once"),
        (POST + b"Content-Length: +2\r\n\r\n{}", "not a number"),
        (GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "both"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "not chunked"),
        (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", "size of a chunk"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "longer than its size"),
    ],
)
def test_what_is_not_http_is_told_in_words(rig: Rig, sent: bytes, words: str) -> None:
    status, text = told(rig, sent)
    assert status == 400
    assert words in text
    assert "bytearray" not in text
    assert "b'" not in text


def test_many_fields_are_refused_before_they_are_read(rig: Rig) -> None:
    most = b"a:b\r\n" * 98 + b"Connection: close\r\n\r\n"
    assert answer_of(exchange(rig, GET + most, end=False))[0].status == 200
    status, text = told(rig, GET + b"a:b\r\n" + most)
    assert (status, "100 fields" in text) == (431, True)
    assert told(rig, GET + b"a:b\r\n" * 200)[0] == 431  # and before the header is whole
    chunked = b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 101 + b"\r\n"
    assert told(rig, POST + chunked)[0] == 431


def test_a_refusal_leaves_no_fault_behind(engine: Gated, caplog: pytest.LogCaptureFixture) -> None:
    with running({"m": engine}, LIMITS) as own:
        for _ in range(5):
            assert told(own, GET + b"X : y\r\n\r\n")[0] == 400
        assert own.ask("GET", "/v2/health/live").status == 200
    assert [one.getMessage() for one in caplog.records if one.name == "asyncio"] == []


def test_expectations(rig: Rig) -> None:
    assert told(rig, POST + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n")[0] == 417


def test_a_chunk_that_says_to_be_large_is_not_waited_for(rig: Rig) -> None:
    status, text = told(rig, POST + b"Transfer-Encoding: chunked\r\n\r\n4e21\r\n")
    assert (status, "20,000" in text) == (413, True)


def test_parts_of_one_chunk_are_not_many_chunks(rig: Rig) -> None:
    """Bytes that come one by one are slow, but no chunks of their own."""
    for head, end in (
        (b"Content-Length: 400\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n190\r\n", b"\r\n0\r\n\r\n"),
    ):
        with rig.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(POST + head)
            for _ in range(400):
                client.sendall(b"x")
            client.sendall(end)
            assert "chunk" not in next_answer(client).json()["error"]


def test_what_follows_the_last_request_is_not_read(rig: Rig) -> None:
    last = LIVE.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answer, rest = answer_of(exchange(rig, last, b"\x00 nonsense", end=False))
    assert (answer.status, rest) == (200, b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80")),
        *((host, 200) for host in ("[::1]:8000", "[::1]", "ants.example", "ants.example.:80")),
        *((host, 421) for host in ("evil.example", "127.0.0.1.evil.example", "128.0.0.1", "")),
        *((host, 421) for host in ("localhost@evil.example", "localhost:x", "[::2]", "0.0.0.0")),
    ],
)
def test_hosts(guarded: Rig, rig: Rig, host: str, status: int) -> None:
    assert guarded.ask("GET", "/v2/health/live", None, {"Host": host}).status == status
    assert rig.ask("GET", "/v2/health/live", None, {"Host": host}).status == 200
    if host and "@" not in host:
        there = guarded.ask("GET", f"http://{host}/v2", None, {"Host": "localhost"})
        assert there.status == status  # the target's own host counts


def test_a_request_without_a_host(guarded: Rig, rig: Rig) -> None:
    old = b"GET /v2/health/live HTTP/1.0\r\n\r\n"
    assert answer_of(exchange(rig, old, end=False))[0].status == 200
    assert told(guarded, old)[0] == 421


def test_another_host_is_refused_before_its_body(guarded: Rig) -> None:
    head = POST + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    found = exchange(guarded, head, end=False)
    assert answer_of(found)[0].status == 421
    assert b"100 Continue" not in found


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, 400),
        ({"Origin": "https://LOCALHOST"}, 400),
        ({"Sec-Fetch-Site": "none"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "Cross-Site"}, 403),
    ],
)
def test_pages_of_others(guarded: Rig, rig: Rig, fields: dict[str, str], status: int) -> None:
    headers = {"Host": "localhost:8000", **fields}
    for one in (guarded, rig):
        assert one.ask("POST", "/v2/models/m/infer", b"{", headers).status == status
        assert one.ask("GET", "/v2/health/live", None, headers).status == 200
    named = {"Host": "localhost", "Origin": "https://ants.example"}
    assert guarded.ask("POST", "/v2/models/m/infer", b"{", named).status == 400
    assert rig.ask("POST", "/v2/models/m/infer", b"{", named).status == 403
