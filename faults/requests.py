"""A running server asked with broken requests: no fault of its own, no silence, no loss.

    neocog serve RUN --port 8000
    python -m faults.requests 8000 MODEL --count 10000

Good requests (inference in JSON and in binary, pictures, forms, metadata) are changed by
`faults.mutate`: the body alone, so that its length still fits, or all of it, head included.
Requests follow from `--seed` and their number. Found is a status of 500 or more, a connection that
ends without an answer although the request was whole, and a server that does not say that it lives
afterwards. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import sys
import zlib
from dataclasses import dataclass

from faults.mutate import checksummed_png, mutated
from faults.tally import Tally

__all__ = ["main", "run"]

PATIENCE = 20.0
"""Seconds after which silence is a finding, where the request was whole."""
SHORT = 0.2
"""Seconds that an answer has where the head was changed: the server may wait for more."""


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


def png(width: int, height: int) -> bytes:
    """A good PNG in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(3 * width)) for _ in range(height))
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def good(model: str) -> list[Ask]:
    """Requests that are right, for a model of pictures in colour."""
    shape = [1, 3, 4, 5]
    numbers = [7 * at % 256 for at in range(60)]
    given = {"name": "images", "shape": shape, "datatype": "UINT8"}
    plain = json.dumps({"id": "a", "inputs": [{**given, "data": numbers}]}).encode()
    rows = [[[numbers[at : at + 5] for at in range(c, c + 20, 5)] for c in (0, 20, 40)]]
    nested = json.dumps(
        {"inputs": [{**given, "data": rows}], "outputs": [{"name": "probabilities"}]}
    ).encode()
    head = json.dumps(
        {
            "inputs": [{**given, "parameters": {"binary_data_size": 60}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    line, kind = f"POST /v2/models/{model}/infer HTTP/1.1", "Content-Type: application/json"
    split = (f"Inference-Header-Content-Length: {len(head)}", "Content-Type: application/json")
    picture = png(9, 7)
    form = (
        b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n--xyz--\r\n"
    )
    predict = f"POST /predict?model={model} HTTP/1.1"
    return [
        Ask(line, (kind,), plain),
        Ask(line, (kind,), nested),
        Ask(line, split, head + bytes(numbers)),
        Ask(predict, ("Content-Type: image/png",), picture),
        Ask(predict, ("Content-Type: multipart/form-data; boundary=xyz",), form),
        Ask(f"GET /v2/models/{model} HTTP/1.1", (), b""),
        Ask("POST /v2/repository/index HTTP/1.1", (kind,), b"{}"),
    ]


def run(port: int, *, model: str, count: int = 10_000, seed: int = 0) -> Tally:
    """Ask so often.

    Args:
        port: of a server on this machine.
        model: a name that it serves.
        count: requests.
        seed: decides all of them.
    """
    tally = Tally(f"requests with faults, {model}")
    asks = good(model)
    link: socket.socket | None = None
    for number in range(count):
        chance = random.Random(f"{seed}:{number}")
        ask = chance.choice(asks)
        body = mutated(ask.body, f"{seed}:{number}:body")
        if ask.body.startswith(b"\x89PNG") and chance.random() < 0.5:
            body = checksummed_png(body)
        raw, whole = ask.raw(body), True
        if chance.random() < 0.25:
            raw, whole = mutated(ask.raw(ask.body), f"{seed}:{number}:all"), False
            if link is not None:
                link.close()
                link = None
        try:
            link, status = _asked(link, port, raw, whole)
        except TimeoutError:
            if whole:
                tally.fail(f"request {number}: no answer in {PATIENCE:g} s")
            link, status = None, 0
        if status >= 500 or (whole and status == 0):
            tally.fail(f"request {number}: {status or 'no answer'} to {raw[:200]!r}")
        tally.count(f"answered {status}" if status else "closed without an answer")
    if link is not None:
        link.close()
    alive = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    link, status = _asked(None, port, alive, True)
    if status != 200:
        tally.fail("the server does not say that it lives")
    if link is not None:
        link.close()
    return tally


def _asked(
    link: socket.socket | None, port: int, raw: bytes, whole: bool
) -> tuple[socket.socket | None, int]:
    """The connection, if it still can be used, and the status; 0: none came."""
    for fresh in (link is None, True):
        if fresh:
            link = socket.create_connection(("127.0.0.1", port), PATIENCE if whole else SHORT)
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
    if kept and whole:
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
    told = parser.parse_args()
    return run(told.port, model=told.model, count=told.count, seed=told.seed).show()


if __name__ == "__main__":
    sys.exit(main())
