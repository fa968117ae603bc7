"""The real server in a thread, and a client that writes bytes as it likes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.serve.app import App
from neocog.serve.http import Server, bound
from neocog.serve.limits import Limits
from neocog.serve.metrics import Metrics
from neocog.serve.served import models_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from neocog.described import Described
    from neocog.runtime.engine import Engine, Kind

__all__ = ["Answer", "Gated", "Rig", "answer_of", "exchange", "next_answer", "running"]

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Gated:
    """An engine without a network: each sample's answer says its mean. It can be held."""

    kind: Kind = "torch"
    settings: dict[str, Any] = {}  # noqa: RUF012 - as the protocol has it
    digest = "0" * 64
    dtypes = ("uint8",)

    def __init__(self, described: Described) -> None:
        self.described = described
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.calls = 0
        self.fail = False

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        self.calls += 1
        self.entered.set()
        self.open.wait(20)
        if self.fail:
            raise RuntimeError("/secret/path is broken")
        mean = samples.reshape(len(samples), -1).mean(axis=1, dtype=np.float64) / 255
        rest = len(self.described.classes) - 1
        columns = [mean, *([(1 - mean) / rest] * rest)]
        return np.stack(columns, axis=1).astype(np.float32)


@dataclass
class Rig:
    """A server that runs."""

    port: int
    app: App
    server: Server
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        with contextlib.closing(client):
            client.request(method, path, body, dict(headers or {}))
            found = client.getresponse()
            fields = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, fields, found.read())


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def running(
    engines: Mapping[str, Engine],
    limits: Limits | None = None,
    *,
    drain: float = 0.0,
    end: float = 20.0,
    log: bool = False,
    hosts: tuple[str, ...] = (),
) -> Iterator[Rig]:
    """Serve these engines until the context ends."""
    limits = limits or Limits()
    held, begun = bound("127.0.0.1", 0), threading.Event()
    made: dict[str, Any] = {}

    async def main() -> None:
        metrics = Metrics()
        models = models_of(engines, limits, metrics=metrics, workers=1)
        app = App(models, limits, metrics=metrics, log=log, hosts=hosts)
        server = Server(app, held, drain=drain, end=end, listening=begun.set)
        made.update(app=app, server=server, loop=asyncio.get_running_loop())
        try:
            await server.serve()
        finally:
            await app.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="server")
    thread.start()
    try:
        assert begun.wait(20)
        yield Rig(held.getsockname()[1], made["app"], made["server"], made["loop"], thread)
    finally:
        for engine in engines.values():
            if isinstance(engine, Gated):
                engine.open.set()
        if "server" in made:
            made["server"].stop()
        thread.join(30)
        held.close()
        assert not thread.is_alive()


def answer_of(found: bytes) -> tuple[Answer, bytes]:
    """The first answer in some bytes, and what follows it."""
    head, _, rest = found.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z -]+", first)
    assert match, found[:200]
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    length = int(headers["content-length"])
    assert len(rest) >= length, (found, length)
    return Answer(int(match[1]), headers, rest[:length]), rest[length:]


def exchange(rig: Rig, *parts: bytes, end: bool = True) -> bytes:
    """Write, and read until the server closes.

    Args:
        rig: the server.
        parts: what is written, one after the other.
        end: ask for a last answer whose connection ends.
    """
    with rig.connect() as client:
        for part in parts:
            client.sendall(part)
        if end:
            client.sendall(LIVE.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        found = bytearray()
        while data := client.recv(65536):
            found += data
    return bytes(found)


def next_answer(client: socket.socket) -> Answer:
    """Read one answer, and no further."""
    found = bytearray()
    while b"\r\n\r\n" not in found:
        data = client.recv(1)
        assert data, found
        found += data
    match = re.search(rb"content-length: (\d+)", found)
    assert match
    while len(found) - found.index(b"\r\n\r\n") - 4 < int(match[1]):
        found += client.recv(1)
    return answer_of(bytes(found))[0]
