"""A running server asked with broken requests: no fault of its own, no silence, no loss.

    neocog serve RUN --port 8000
    python -m faults.requests 8000 MODEL --count 10000

Good requests (inference in JSON and in binary, pictures, forms, metadata) are changed: of an
inference the body, by `faults.inferences`; of all others the body, by `faults.mutate`, so that its
length still fits; or all of one, head included. The model says by its metadata what it takes; it
is to take pictures. Requests follow from `--seed` and their number.

Found is a status of 500 or more; a connection that ends without an answer although the request was
whole; silence; and a server that does not say that it lives afterwards. A server may wait for more
of a request whose head was changed, but not for ever: such connections are kept aside, and each
must be answered or closed in the time that the server gives a header, a body and an answer
together. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import selectors
import socket
import struct
import sys
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faults.inferences import Taken, changed, valid
from faults.mutate import checksummed_png, mutated
from faults.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Aside", "main", "run"]

PATIENCE = 20.0
"""Seconds after which silence is a finding, where the request was whole."""
SHORT = 0.05
"""Seconds that an answer has where the head was changed, before its connection is put aside."""
LATE = 40.0
"""Seconds after which silence is a finding there: 10 for a header, 15 for a body and 10 for an
answer are the server's usual limits."""
MOST_ASIDE = 256
"""Connections; half of those that a server usually keeps open."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A good request."""

    line: str
    fields: tuple[str, ...]
    body: bytes

    def raw(self, body: bytes) -> bytes:
        """With this body, and its length."""
        lines = (self.line, "Host: localhost", *self.fields, f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def png(width: int, height: int, channels: int) -> bytes:
    """A good PNG, grey or in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    row = b"\0" + bytes(range((1 if channels == 1 else 3) * width))
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(row * height)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def others(model: str, taken: Taken) -> list[Ask]:
    """Requests that are right, besides inference."""
    picture = png(9, 7, taken.channels)
    form = (
        b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n--xyz--\r\n"
    )
    predict = f"POST /predict?model={model} HTTP/1.1"
    return [
        Ask(predict, ("Content-Type: image/png",), picture),
        Ask(predict, ("Content-Type: multipart/form-data; boundary=xyz",), form),
        Ask(f"GET /v2/models/{model} HTTP/1.1", (), b""),
        Ask("POST /v2/repository/index HTTP/1.1", ("Content-Type: application/json",), b"{}"),
    ]


def inference(model: str, body: bytes, length: int | None) -> Ask:
    """A request with this body; `length` is what it says of its JSON."""
    fields: tuple[str, ...] = ("Content-Type: application/json",)
    if length is not None:
        fields += (f"Inference-Header-Content-Length: {length}",)
    return Ask(f"POST /v2/models/{model}/infer HTTP/1.1", fields, body)


def broken(seed: str, model: str, taken: Taken, asks: Sequence[Ask]) -> tuple[str, bytes, bool]:
    """What was done to a request, its bytes, and whether its head is as it was."""
    chance = random.Random(seed)
    of_others = chance.random() < 0.4
    if of_others:
        ask = chance.choice(asks)
    else:
        body, length = valid(taken, chance)
        ask = inference(model, body, length)
    if chance.random() < 0.25:
        return "head", mutated(ask.raw(ask.body), f"{seed}:all"), False
    if not of_others:
        what, body, length = changed(body, length, chance)
        ask = inference(model, body, length)
        return what, ask.raw(body), True
    body = mutated(ask.body, f"{seed}:body")
    if ask.body.startswith(b"\x89PNG") and chance.random() < 0.5:
        body = checksummed_png(body)
    return "others", ask.raw(body), True


class Aside:
    """Connections that were given a request whose head was changed, and that say nothing yet.

    Args:
        tally: told of each.
        late: seconds after which silence is a finding.
    """

    def __init__(self, tally: Tally, late: float) -> None:
        self.tally = tally
        self.late = late
        self.waiting: dict[socket.socket, tuple[int, bytes, float]] = {}
        self.selector = selectors.DefaultSelector()

    def add(self, number: int, raw: bytes, link: socket.socket) -> None:
        """One more, whose last byte was sent just now."""
        self.waiting[link] = (number, raw, time.monotonic())
        self.selector.register(link, selectors.EVENT_READ)

    def settle(self, most: int) -> None:
        """Wait until at most so many say nothing yet; take note of those that do."""
        patient = 0.0
        while True:
            for key, _ in self.selector.select(patient):
                assert isinstance(key.fileobj, socket.socket)
                self._ended(key.fileobj, self._status(key.fileobj))
            now = time.monotonic()
            for link, (number, raw, sent) in list(self.waiting.items()):
                if now - sent > self.late:
                    self.tally.fail(
                        f"request {number}: silence for {self.late:g} s after {raw[:200]!r}"
                    )
                    self._ended(link, 0)
            if len(self.waiting) <= most:
                return
            patient = 0.1

    def _status(self, link: socket.socket) -> int:
        """The status of what a connection says; 0: it was closed."""
        try:
            return _read(link)[0]
        except ConnectionError:
            return 0
        except TimeoutError:
            self.tally.fail(f"request {self.waiting[link][0]}: half an answer in {PATIENCE:g} s")
            return 0

    def _ended(self, link: socket.socket, status: int) -> None:
        number, raw, _ = self.waiting.pop(link)
        self.selector.unregister(link)
        link.close()
        _note(self.tally, number, raw, status)


def _note(tally: Tally, number: int, raw: bytes, status: int) -> None:
    """Count an answer, or a connection that was closed without one."""
    if status >= 500:
        tally.fail(f"request {number}: {status} to {raw[:200]!r}")
    tally.count(f"answered {status}" if status else "closed without an answer")


def run(port: int, *, model: str, count: int = 10_000, seed: int = 0, late: float = LATE) -> Tally:
    """Ask so often.

    Args:
        port: of a server on this machine.
        model: a name that it serves.
        count: requests.
        seed: decides all of them.
        late: seconds that the server's limits for a header, a body and an answer come to, and some
            more.
    """
    tally = Tally(f"requests with faults, {model}")
    taken = _taken(port, model)
    asks, aside = others(model, taken), Aside(tally, late)
    link: socket.socket | None = None
    for number in range(count):
        what, raw, whole = broken(f"{seed}:{number}", model, taken, asks)
        tally.notes[f"of which {what.partition('+')[0]}"] += 1
        if not whole:
            _begun(port, number, raw, aside)
            aside.settle(MOST_ASIDE)
            continue
        try:
            link, status = _asked(link, port, raw)
        except TimeoutError:
            tally.fail(f"request {number}: no answer in {PATIENCE:g} s to {raw[:200]!r}")
            tally.count("silent")
            link = None
            continue
        if status == 0:
            tally.fail(f"request {number}: no answer to {raw[:200]!r}")
        _note(tally, number, raw, status)
    if link is not None:
        link.close()
    aside.settle(0)
    alive = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    link, status = _asked(None, port, alive)
    if status != 200:
        tally.fail("the server does not say that it lives")
    if link is not None:
        link.close()
    return tally


def _taken(port: int, model: str) -> Taken:
    """What a model takes, as it says itself."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request("GET", f"/v2/models/{model}")
        answer = client.getresponse()
        if answer.status != 200:
            raise SystemExit(f"model {model}: {answer.status} {answer.read()[:200]!r}")
        return Taken.of(json.load(answer))
    finally:
        client.close()


def _begun(port: int, number: int, raw: bytes, aside: Aside) -> None:
    """A request whose head was changed, on a connection of its own."""
    link = socket.create_connection(("127.0.0.1", port), PATIENCE)
    with contextlib.suppress(ConnectionError):  # it was answered before it was whole
        link.sendall(raw)
    aside.add(number, raw, link)
    ready = selectors.DefaultSelector()
    with ready:
        ready.register(link, selectors.EVENT_READ)
        ready.select(SHORT)


def _asked(link: socket.socket | None, port: int, raw: bytes) -> tuple[socket.socket | None, int]:
    """The connection, if it still can be used, and the status; 0: none came.

    Raises:
        TimeoutError: silence.
    """
    for fresh in (link is None, True):
        if fresh:
            link = socket.create_connection(("127.0.0.1", port), PATIENCE)
        assert link is not None
        try:
            link.sendall(raw)
            status, kept = _read(link)
        except ConnectionError:
            status, kept = 0, False
        except TimeoutError:
            link.close()
            raise
        if status or fresh:
            break
        link.close()  # it was closed between two requests, which is nobody's fault
    assert link is not None
    if kept:
        return link, status
    link.close()
    return None, status


def _read(link: socket.socket) -> tuple[int, bool]:
    """Status of the next answer, and whether the connection goes on."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = link.recv(65536)
        if not part:
            return 0, False
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    left = int(fields.get("content-length", "0")) - len(body)
    while left > 0:
        part = link.recv(65536)
        if not part:
            return 0, False
        left -= len(part)
    return int(first.split()[1]), left == 0 and fields.get("connection", "").lower() != "close"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faults.requests", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--late", type=float, default=LATE)
    told = parser.parse_args()
    return run(told.port, model=told.model, count=told.count, seed=told.seed, late=told.late).show()


if __name__ == "__main__":
    sys.exit(main())
