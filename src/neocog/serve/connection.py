"""One connection: what comes is read in small pieces, and nobody holds it for ever. Floor 4, room
serve; imports uvicorn and h11 (extra `serve`) and this room.

What uvicorn and h11 do not bound by themselves is bounded here: the time of a header, how much is
read before others have their turn, the number of connections, and how long a client may take to
fetch its answer. Requests that cannot be understood never reach the application; all refusals look
alike (`replies`).

A connection that is closed after an answer takes its leave: its writing side is shut, and what the
client still sends is thrown away for a moment. To close it at once would reset it, and the client
would lose the answer that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, cast

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from neocog.serve.limits import RequestError
from neocog.serve.replies import fresh_id, refusal
from neocog.serve.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.serve.limits import Limits

__all__ = ["Connection"]

LEAVE_SECONDS = 1.0
"""How long a client may go on sending after it was told that its connection ends."""
LEAVE_BYTES = 16 * 2**20
"""How much of that is thrown away before the connection is cut."""
TURN = 16 * 2**10
"""Bytes that are read of one connection before the others have their turn: some milliseconds where
they are made to be slow."""
JOINED = 2**14
"""Bytes of an answer up to which it is sent together with its header."""
THERE = 0.1
"""Seconds between two looks whether a client that says no more is still there."""
_QUIET = logging.getLogger("neocog.serve.uvicorn")
"""What uvicorn says of a connection is known here already, or is the client's own affair."""
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class _Transport:
    """A transport whose `close` lets the protocol take its leave, and which sends the header of an
    answer with a body that is short: to send them one by one takes twice as long. What is long is
    handed on at once, so that a client that does not fetch it is noticed.
    """

    def __init__(
        self,
        inner: asyncio.Transport,
        leave: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.inner = inner
        self.close = leave
        self.loop = loop
        self.left = False
        self.waiting: list[bytes] = []

    def is_closing(self) -> bool:
        return self.left or self.inner.is_closing()

    def write(self, data: bytes) -> None:
        if self.left:
            return  # everything was said
        if not self.waiting:
            self.loop.call_soon(self.flush)
        self.waiting.append(data)
        if len(data) > JOINED:
            self.flush()

    def flush(self) -> None:
        """Send what was written."""
        sent, self.waiting = self.waiting, []
        if self.inner.is_closing():
            return
        short = [one for one in sent if len(one) <= JOINED]
        if short:
            self.inner.write(b"".join(short))
        for one in sent:
            if len(one) > JOINED:
                self.inner.write(one)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """One connection.

    Args:
        limits: bounds.
        refused: told of each refusal that the application does not see.
        others: as uvicorn has it.
    """

    def __init__(
        self, limits: Limits, refused: Callable[[RequestError], None], **others: Any
    ) -> None:
        super().__init__(**others)
        self.limits = limits
        self.refused = refused
        self.logger = _QUIET
        self.access_log = False
        self.conn: Wire = Wire(limits)
        self.cycle: Any = None  # uvicorn says that it always is one; before a request it is none
        self.inner: asyncio.Transport
        self.outer: _Transport
        self.thrown = 0
        self.ended = False
        """Whether the client says no more."""
        self.since = self.loop.time()
        """When the last answer ended, or the connection was made."""
        self.buffer = bytearray(TURN)
        self.timers: dict[str, asyncio.TimerHandle] = {}

    # Timers

    def _after(self, name: str, seconds: float, what: Callable[[], None]) -> None:
        """Call it then, instead of what was to be called under this name."""
        self._not(name)
        self.timers[name] = self.loop.call_later(seconds, what)

    def _not(self, name: str) -> None:
        if timer := self.timers.pop(name, None):
            timer.cancel()

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        self.inner = transport
        self.outer = _Transport(transport, self._leave, self.loop)
        super().connection_made(cast("asyncio.Transport", self.outer))
        self._after("header", self.limits.header_seconds, self._header_is_late)
        self._find_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, or we are."""
        self.outer.left = True
        for name in tuple(self.timers):
            self._not(name)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where what comes is put."""
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if self.transport.is_closing():
            self.thrown += nbytes
            if self.thrown > LEAVE_BYTES:
                self.inner.abort()
        elif self.conn.their_state not in (h11.MUST_CLOSE, h11.CLOSED):
            self.data_received(bytes(memoryview(self.buffer)[:nbytes]))

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client says no more; what it has asked is answered."""
        self.ended = True
        if self.transport.is_closing() or not self._works() or self.cycle.more_body:
            return False
        # A client that shut its writing side and one that is gone look alike until they are told
        # something: who is gone answers that with a reset, and the others do not mind.
        if self.conn.our_state is h11.SEND_RESPONSE and self.conn.their_http_version == b"1.1":
            told = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self.transport.write(self.conn.send(told) or b"")
            self._after("there", THERE, self._look_for_client)
        return True

    def pause_writing(self) -> None:
        """An answer waits to be fetched."""
        super().pause_writing()
        self._after("fetch", self.limits.body_seconds, self.inner.abort)

    def resume_writing(self) -> None:
        """Most of it was."""
        self._not("fetch")
        super().resume_writing()

    # What uvicorn calls

    def handle_events(self) -> None:
        """Go on with what came; a header that is whole is no longer waited for."""
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._not("header")

    def on_response_complete(self) -> None:
        """An answer was given: the next header is waited for."""
        self.since = self.loop.time()
        self._not("there")
        if not self.transport.is_closing():
            self._after("header", self.limits.header_seconds, self._header_is_late)
        super().on_response_complete()
        if self.ended and not self._works():
            self._leave()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP, or too much of it."""
        assert self.conn.fault is not None
        self._refuse(self.conn.fault)

    def timeout_keep_alive_handler(self) -> None:
        """No further request began."""
        if self.flow.write_paused:
            seconds = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(
                seconds, self.timeout_keep_alive_handler
            )
        elif not self.transport.is_closing() and not self.conn.kept:
            self._leave()

    def shutdown(self) -> None:
        """The server ends: close what is idle, or as soon as it is."""
        if self.transport.is_closing():
            self.inner.abort()
        elif not self._works():
            self._close()
        else:
            self.cycle.keep_alive = False

    # What happens here

    def _works(self) -> bool:
        """Whether a request waits for the end of its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _idles(self) -> bool:
        """Whether nothing is lost where it is closed."""
        return (
            self.conn.their_state is h11.IDLE
            and not (self.transport.is_closing() or self._works() or self.conn.kept)
            and not (self.outer.waiting or self.inner.get_write_buffer_size())
        )

    def _find_room(self) -> None:
        """Where too many connections are open: close the one that idles longest, or this one."""
        most = self.limits.connections
        if len(self.connections) <= most:
            return
        others = [cast("Connection", one) for one in self.connections if one is not self]
        idle = [one for one in others if one._idles()]
        if idle:
            min(idle, key=lambda one: one.since)._close()
            return
        error = RequestError(
            503,
            "too many connections are open; try again soon",
            retry_after=1,
            reason="connections",
        )
        if len(self.connections) > most * 5 // 4 + 1:
            self.refused(error)
            self.inner.abort()  # too many even to be told so
        else:
            self._refuse(error)

    def _close(self) -> None:
        """Close it without a word."""
        self.outer.flush()
        self.outer.left = True
        self.connections.discard(self)  # room for others, at once
        self.inner.close()

    def _look_for_client(self) -> None:
        """Whether a client that says no more is gone."""
        held = self.inner.get_extra_info("socket")
        if held is not None and held.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.inner.abort()
        else:
            self._after("there", THERE, self._look_for_client)

    def _header_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if not self.conn.kept:  # a client that opened a connection to have one
            self._leave()
            return
        seconds = self.limits.header_seconds
        self._refuse(RequestError(408, f"the header was not whole within {seconds:g} s"))

    def _refuse(self, error: RequestError) -> None:
        """Answer in the application's place, and close."""
        if self.transport.is_closing():
            return
        self.refused(error)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application need not go on
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers, body = refusal(error, fresh_id(), close=True)
            response = h11.Response(
                status_code=error.status,
                headers=[*self.server_state.default_headers, *headers],
                reason=STATUS_PHRASES[error.status],
            )
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self._leave()

    def _leave(self) -> None:
        """Say no more, and hear no more after a moment."""
        if self.transport.is_closing():
            return
        self.outer.left = True
        self._not("header")
        self._unset_keepalive_if_required()
        self.outer.flush()
        with contextlib.suppress(OSError):  # the client was faster
            self.inner.write_eof()
        self.inner.resume_reading()
        if self.ended and not self.inner.get_write_buffer_size():
            self.inner.close()
        else:
            self._after("leave", LEAVE_SECONDS, self._gone)

    def _gone(self) -> None:
        """Cut the connection, unless its last answer is still being fetched."""
        if self.inner.get_write_buffer_size() and "fetch" in self.timers:
            self._after("leave", LEAVE_SECONDS, self._gone)
        else:
            self.inner.abort()
