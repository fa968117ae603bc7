"""What an answer looks like on the wire. Floor 4, room serve; standard library only."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neocog.serve.limits import RequestError

__all__ = ["JSON", "OWN_ID", "Reply", "fresh_id", "json_reply", "refusal"]

JSON = "application/json"
OWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids that are taken over from clients."""
_ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    """Of HTTP."""
    body: bytes
    """All of it."""
    type: str = JSON
    """Of its content."""
    headers: tuple[tuple[str, str], ...] = ()
    """Besides those that every answer has."""

    def wire(self, request_id: str, *, close: bool) -> list[tuple[bytes, bytes]]:
        """All its headers.

        Args:
            request_id: of the request.
            close: whether the connection ends with it.
        """
        found = [
            (b"content-type", self.type.encode()),
            (b"content-length", str(len(self.body)).encode()),
            *_ALWAYS,
            (b"x-request-id", request_id.encode()),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in self.headers),
        ]
        return [*found, (b"connection", b"close")] if close else found


def json_reply(value: Any, status: int = 200) -> Reply:
    """An answer in JSON.

    Raises:
        ValueError: a number that JSON has not.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate of a name becomes \\ud800, which is how JSON spells it.
    return Reply(status, text.encode(errors="backslashreplace"))


def refusal_reply(error: RequestError) -> Reply:
    """What a request that is refused is answered."""
    reply = json_reply({"error": error.text}, error.status)
    if error.retry_after is None:
        return reply
    return Reply(error.status, reply.body, JSON, (("Retry-After", str(error.retry_after)),))


def refusal(
    error: RequestError, request_id: str, *, close: bool
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of a refusal, where no application is asked."""
    reply = refusal_reply(error)
    return reply.wire(request_id, close=close), reply.body


def fresh_id() -> str:
    """An id for a request that brought none."""
    return secrets.token_hex(8)
