"""HTTP/1.1 as it is read here: stricter than h11 reads it, and with bounds. Floor 4, room serve.

Imports h11 (extra `serve`) and this room. What two readers could take for different requests is
refused: lines that end in a bare line feed, folded fields, a repeated `Content-Length`, a length
beside `Transfer-Encoding` (RFC 9112, 2.2, 5.2 and 6.3). What costs much to read is refused before
it is read: very many fields, very many small chunks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import h11

from neocog.serve.limits import RequestError

if TYPE_CHECKING:
    from neocog.serve.limits import Limits

__all__ = ["Wire"]

FIELDS = 100
"""Fields of a header, or behind a body in chunks."""
FEW_CHUNKS = 256
"""Chunks of a body that may be as small as they like."""
SMALL_CHUNK = 1024
"""Bytes that chunks must have on average where they are many: each costs as much as a header field
to read, and a body of small ones would keep everybody waiting."""
_END = re.compile(rb"\n\r?\n")
_BARE = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\n[ \t]")
_LENGTH = re.compile(rb"\ncontent-length:([^\r\n]*)", re.IGNORECASE)
_FAULTS = {
    "illegal request line": "the first line is none of a request",
    "no request line": "the first line is none of a request",
    "illegal header line": "a field of the header is malformed",
    "illegal chunk header": "the size of a chunk is malformed",
    "malformed chunk footer": "a chunk is longer than its size says",
    "missing mandatory host": "the field Host is missing",
    "found multiple host": "the field Host is there more than once",
    "illegal method": "the method is malformed",
    "illegal target": "the address is malformed",
    "bad content-length": "Content-Length is not a number of bytes",
    "conflicting content-length": "Content-Length is there more than once",
    "multiple transfer-encoding": "Transfer-Encoding is there more than once",
    "only transfer-encoding": "Transfer-Encoding is not chunked",
    "peer ": "the connection ended before the request",
}
"""How h11's messages begin, in small letters, and what the client is told instead."""


class _Fault(h11.RemoteProtocolError):
    """A request that is refused before the application sees it."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(error.text, error.status)
        self.error = error


def _malformed(words: str) -> _Fault:
    return _Fault(RequestError(400, f"the request is not HTTP/1.1: {words}"))


class Wire(h11.Connection):
    """What comes over one connection.

    Args:
        limits: `header` and `body` of them.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(h11.SERVER, limits.header)
        self.limits = limits
        self.chunks = self.carried = 0
        self.fault: RequestError | None = None
        """Why what came cannot be read."""

    @property
    def kept(self) -> int:
        """Bytes that came and are not understood yet."""
        return len(self.trailing_data[0])

    def next_event(self) -> Any:
        """As h11 has it.

        Raises:
            h11.RemoteProtocolError: `fault` says why.
        """
        try:
            if self.their_state is h11.IDLE:
                self._look_at_header()
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._look_at_request(event)
            elif isinstance(event, h11.Data):
                self._look_at_chunk(event)
            elif isinstance(event, h11.EndOfMessage):
                _few(len(list(event.headers)))
            self._look_at_size()
        except h11.RemoteProtocolError as error:
            self.fault = error.error if isinstance(error, _Fault) else self._in_words(error)
            raise
        return event

    def _look_at_header(self) -> None:
        """What h11 lets pass, or would take long to read."""
        came = self.trailing_data[0]
        end = _END.search(came)
        head = came[: end.end()] if end else came
        if len(head) > self.limits.header:
            raise self._long()
        _few(head.count(b"\n") - (2 if end else 1))
        if not end or end.start() == 0:
            return
        if _BARE.search(head):
            raise _malformed("a line of the header ends in a bare line feed")
        if _FOLDED.search(head):
            raise _malformed("a field of the header is folded")
        lengths = _LENGTH.findall(head)
        if len(lengths) > 1 or any(b"," in one for one in lengths):
            raise _malformed("Content-Length is there more than once")

    def _look_at_request(self, request: h11.Request) -> None:
        self.chunks = self.carried = 0
        names = {bytes(name) for name, _ in request.headers}
        if request.http_version not in (b"1.0", b"1.1"):
            raise _malformed("its version is neither 1.0 nor 1.1")
        if b"transfer-encoding" in names:
            if b"content-length" in names:
                raise _malformed("found both Content-Length and Transfer-Encoding")
            if request.http_version == b"1.0":
                raise _malformed("HTTP/1.0 has no Transfer-Encoding")
        for name, value in request.headers:
            if name == b"expect" and value.lower() != b"100-continue":
                raise _Fault(RequestError(417, "expected no Expect but 100-continue"))

    def _look_at_chunk(self, part: h11.Data) -> None:
        self.chunks += part.chunk_start  # a part of a body with a length begins none
        self.carried += len(part.data)
        if self.chunks > FEW_CHUNKS and self.carried < SMALL_CHUNK * (self.chunks - 1):
            raise _malformed(
                f"more than {FEW_CHUNKS} chunks of less than {SMALL_CHUNK:,} bytes on average"
            )

    def _look_at_size(self) -> None:
        """A chunk says its size first; h11 keeps it to itself."""
        left = getattr(self._reader, "_bytes_in_chunk", 0)
        if left and self.carried + left > self.limits.body:
            raise _Fault(RequestError(413, f"the body is larger than {self.limits.body:,} bytes"))

    def _in_words(self, error: h11.RemoteProtocolError) -> RequestError:
        """A fault that h11 found, without its Python."""
        if error.error_status_hint == 431:
            return self._long().error
        text = str(error).lower()
        words = (told for start, told in _FAULTS.items() if text.startswith(start))
        return _malformed(next(words, "it cannot be read")).error

    def _long(self) -> _Fault:
        most = self.limits.header
        return _Fault(RequestError(431, f"the header is larger than {most:,} bytes"))


def _few(count: int) -> None:
    """That there are not too many fields."""
    if count > FIELDS:
        raise _Fault(RequestError(431, f"expected at most {FIELDS} fields in the header"))
