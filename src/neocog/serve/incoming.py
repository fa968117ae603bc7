"""One request as it comes in: its header at once, its body only where it is wanted. Floor 4, room
serve; standard library only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from neocog.serve.limits import RequestError
from neocog.serve.replies import OWN_ID, fresh_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from neocog.serve.limits import Limits

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]

__all__ = ["SMALL", "GoneError", "Held", "Incoming"]

FIELDS = 64
"""Parameters of a query."""
SMALL = 2**16
"""Bytes of a body or of an answer for which there always is room."""


class GoneError(Exception):
    """The client is no longer there; nobody waits for an answer."""


class Held:
    """How many bytes of bodies, or of answers, are in memory, of all requests together.

    What is at most `SMALL` always gets in, so that who sends much keeps nobody out who asks little;
    the number of connections bounds it.

    Args:
        most: of them.
        refusal: what is told where there is no room.
    """

    def __init__(self, most: int, refusal: str) -> None:
        self.most = most
        self.refusal = refusal
        self.bytes = 0

    def take(self, count: int, before: int = 0) -> None:
        """Make room.

        Args:
            count: bytes that come.
            before: bytes of the same body that are here already.

        Raises:
            RequestError: 429, there is none.
        """
        if self.bytes + count > self.most and before + count > SMALL:
            raise RequestError(429, self.refusal, retry_after=1, reason="memory")
        self.bytes += count

    def give(self, count: int) -> None:
        """Give back what was taken."""
        self.bytes -= count


class Incoming:
    """A request.

    Args:
        scope: of ASGI.
        receive: of ASGI.
    """

    def __init__(self, scope: Message, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        authority, self.path = _target(scope["raw_path"])
        self.receive = receive
        self.taken = 0
        given = self.header(b"x-request-id")
        self.host = self.header(b"host") if authority is None else authority
        self.id = given if OWN_ID.fullmatch(given) else fresh_id()
        self.whole = not self.header(b"transfer-encoding") and self._length() == 0
        self._query: bytes = scope["query_string"]

    def header(self, name: bytes) -> str:
        """The only value of a header; several of one name are joined; empty: it has none."""
        return ", ".join(value.decode("latin-1") for key, value in self.headers if key == name)

    def has(self, name: bytes) -> bool:
        """Whether a header was sent, if only an empty one."""
        return any(key == name for key, _ in self.headers)

    @property
    def kind(self) -> str:
        """The type of the body's content, in small letters and without parameters."""
        return self.header(b"content-type").partition(";")[0].strip().lower()

    def query(self, name: str) -> str | None:
        """The first value of a parameter; None: it has none.

        Raises:
            RequestError: 400, a query with very many parameters.
        """
        text = self._query.decode("latin-1")
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            raise RequestError(400, f"expected at most {FIELDS} parameters in the query") from None
        return next((value for key, value in pairs if key == name), None)

    def _length(self) -> int:
        """Bytes that the body is said to have; h11 has checked that it is one number."""
        return int(self.header(b"content-length") or 0)

    async def body(self, limits: Limits, held: Held) -> bytes:
        """The whole body; `release` gives its room back.

        Raises:
            RequestError: 400, 408, 413, 415 or 429.
            GoneError: the client is gone.
        """
        coding = self.header(b"content-encoding").strip().lower()
        if coding not in ("", "identity"):
            raise RequestError(415, "expected a body without Content-Encoding; send it as it is")
        self._refuse_longer(self._length(), limits)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(limits.body_seconds):
                while not self.whole:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    part = message.get("body", b"")
                    self._refuse_longer(self.taken + len(part), limits)
                    held.take(len(part), self.taken)  # what came, not what is promised
                    self.taken += len(part)
                    parts.append(part)
                    self.whole = not message.get("more_body", False)
        except TimeoutError:
            seconds = limits.body_seconds
            raise RequestError(408, f"the body was not whole within {seconds:g} s") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _refuse_longer(self, length: int, limits: Limits) -> None:
        if length > limits.body:
            raise RequestError(413, f"the body is larger than {limits.body:,} bytes")

    def release(self, held: Held) -> None:
        """The body is no longer needed."""
        held.give(self.taken)
        self.taken = 0

    async def gone(self) -> None:
        """Return when the client is no longer there; to be asked once the body is whole."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def _target(raw: bytes) -> tuple[str | None, tuple[str, ...]]:
    """The host that a target names, if it names one, and the segments of its path, each decoded by
    itself.

    >>> _target(b"/v2/models/a%2Fb")
    (None, ('v2', 'models', 'a/b'))
    >>> _target(b"http://host:80/v2"), _target(b"/"), _target(b"/v2/")
    (('host:80', ('v2',)), (None, ('',)), (None, ('v2', '')))
    """
    text, authority = raw.decode("latin-1"), None
    if not text.startswith("/"):
        scheme, found, rest = text.partition("://")
        if not found or scheme.lower() not in ("http", "https"):
            return None, (text,)
        authority, _, path = rest.partition("/")
        text = "/" + path
    return authority, tuple(unquote(one) for one in text[1:].split("/"))
