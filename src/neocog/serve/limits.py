"""What a stranger may ask of the server, and how a refusal is told. Room serve; floor 4.

Imports the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits", "RequestError"]

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on requests. Times are seconds, sizes bytes."""

    body: int = 10 * MIB
    """Of a request, without its header."""
    header: int = 16 * 1024
    """Request line and header fields together."""
    header_seconds: float = 10.0
    """From the connection, or the end of the answer before, until the header is whole."""
    body_seconds: float = 15.0
    """From the end of the header until the body is whole."""
    depth: int = 32
    """Brackets within brackets of JSON."""
    decoded: int = 64 * MIB
    """Of one picture, decoded, and of the samples of one call of the network."""
    batch: int = 64
    """Samples of one request, and of one call of the network."""
    queue: int = 32
    """Requests that wait for the network, of one model."""
    waiting: int = 256 * MIB
    """Of the samples that wait for the network together, of one model."""
    seconds: float = 10.0
    """From the end of the body until the answer begins."""
    decode: float = 3.0
    """How long a helper program may be at one picture or request without a sign, before it is given
    up; shorter than `seconds`, so that the client can be told."""
    latency: float = 0.002
    """How long a sample may wait for others to share a call of the network, which is idle."""
    connections: int = 512
    """That are open at once."""
    answer: int = 2**18
    """Numbers of an answer in JSON; more must be asked for in binary."""
    binary: int = 64 * MIB
    """Of an answer in binary."""


class RequestError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        text: for the client: what was expected and what was found; never a path of this machine.
        retry_after: seconds after which to try again, for 429 and 503.
        reason: a word under which it is counted; empty: the status says enough.
    """

    def __init__(
        self, status: int, text: str, *, retry_after: int | None = None, reason: str = ""
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after = retry_after
        self.reason = reason
