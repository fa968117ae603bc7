"""HTTP with bounds: uvicorn, whose connections may not be slow, large or many. Floor 4, room serve.

Imports uvicorn and h11 (extra `serve`) and this room. What uvicorn and h11 do not bound by
themselves is bounded here: the size and time of a header, the number of chunks, connections, and
how long a client may take to fetch its answer. Requests whose header cannot be understood never
reach the application; all refusals look alike (`replies`).

A connection that is closed after an answer takes its leave: its writing side is shut, and what the
client still sends is thrown away for a moment. To close it at once would reset it, and the client
would lose the answer that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from neocog.errors import RunError
from neocog.serve.limits import RequestError
from neocog.serve.replies import fresh_id, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from neocog.serve.app import App
    from neocog.serve.limits import Limits

__all__ = ["KEEP_ALIVE", "Server", "bound"]

KEEP_ALIVE = 5.0
"""Seconds that a connection may wait for its next request to begin."""
LEAVE_SECONDS = 1.0
"""How long a client may go on sending after it was told that its connection ends."""
LEAVE_BYTES = 16 * 2**20
"""How much of that is thrown away before the connection is cut."""
FEW_CHUNKS = 1024
"""Chunks of a body that may be as small as they like."""
SMALL_CHUNK = 64
"""Bytes that the chunks must have on average where they are many: each costs as much as a header
field to read, and a body of single bytes would keep everybody waiting."""
BACKLOG = 1024
_QUIET = logging.getLogger("neocog.serve.uvicorn")
"""What uvicorn says of a connection is known here already, or is the client's own affair."""
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class _Measured(h11.Connection):
    """A connection that knows how large headers and how small chunks are.

    Args:
        most: bytes of a header.
    """

    def __init__(self, most: int) -> None:
        super().__init__(h11.SERVER, most)
        self.most = most
        self.chunks = self.carried = 0
        self.fault: h11.RemoteProtocolError | None = None

    @property
    def kept(self) -> int:
        """Bytes that came and are not understood yet."""
        return len(self.trailing_data[0])

    def next_event(self) -> Any:
        """As h11 has it; it checks the size of a header only while it is incomplete."""
        try:
            before = self.kept if self.their_state is h11.IDLE else 0
            event = super().next_event()
            if isinstance(event, h11.Request):
                self.chunks = self.carried = 0
                if before - self.kept > self.most:
                    raise h11.RemoteProtocolError("header too long", error_status_hint=431)
                if not event.http_version.startswith(b"1."):
                    raise h11.RemoteProtocolError(f"version {event.http_version.decode()}")
            elif isinstance(event, h11.Data):
                self.chunks += 1
                self.carried += len(event.data)
                if self.chunks > FEW_CHUNKS and self.carried < SMALL_CHUNK * self.chunks:
                    raise h11.RemoteProtocolError(
                        f"more than {FEW_CHUNKS:,} chunks of less than {SMALL_CHUNK} bytes"
                    )
        except h11.RemoteProtocolError as error:
            self.fault = error
            raise
        return event


class _Transport:
    """A transport whose `close` lets the protocol take its leave, and which sends header and body
    of an answer at once: to send them one by one takes twice as long.
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
        if not self.waiting:
            self.loop.call_soon(self.flush)
        self.waiting.append(data)

    def flush(self) -> None:
        """Send what was written."""
        if self.waiting and not self.inner.is_closing():
            self.inner.write(b"".join(self.waiting))
        self.waiting.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Protocol(H11Protocol):
    """One connection.

    Args:
        limits: bounds.
        refused: told the status of each refusal that the application does not see.
        others: as uvicorn has it.
    """

    def __init__(self, limits: Limits, refused: Callable[[int], None], **others: Any) -> None:
        super().__init__(**others)
        self.limits = limits
        self.refused = refused
        self.logger = _QUIET
        self.access_log = False
        self.conn: _Measured = _Measured(limits.header)
        self.cycle: Any = None  # uvicorn says that it always is one; before a request it is none
        self.inner: asyncio.Transport
        self.outer: _Transport
        self.thrown = 0
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
        if len(self.connections) > self.limits.connections:
            if len(self.connections) > self.limits.connections * 5 // 4 + 1:
                self.refused(503)
                transport.abort()  # too many even to be told so
                return
            self._refuse(
                RequestError(503, "too many connections are open; try again soon", retry_after=1)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, or we are."""
        self.outer.left = True
        for name in tuple(self.timers):
            self._not(name)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if not self.transport.is_closing():
            super().data_received(data)
            return
        self.thrown += len(data)
        if self.thrown > LEAVE_BYTES:
            self.inner.abort()

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
        if not self.transport.is_closing():
            self._after("header", self.limits.header_seconds, self._header_is_late)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP, or too much of it; h11 said why."""
        fault = self.conn.fault
        assert fault is not None
        if fault.error_status_hint == 431:
            most = self.limits.header
            self._refuse(RequestError(431, f"the header is larger than {most:,} bytes"))
        else:
            self._refuse(RequestError(400, f"the request is not HTTP/1.1: {fault}"))

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
        elif self.cycle is None or self.cycle.response_complete:
            self.outer.flush()
            self.outer.left = True
            self.inner.close()
        else:
            self.cycle.keep_alive = False

    # What happens here

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
        self.refused(error.status)
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
        self._after("leave", LEAVE_SECONDS, self._gone)

    def _gone(self) -> None:
        """Cut the connection, unless its last answer is still being fetched."""
        if self.inner.get_write_buffer_size() and "fetch" in self.timers:
            self._after("leave", LEAVE_SECONDS, self._gone)
        else:
            self.inner.abort()


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds this address, and does not listen yet.

    Raises:
        RunError: the address is in use, is not this machine's, or may not be had.
    """
    held = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        held = socket.socket(family, kind, proto)
        if hasattr(signal, "SIGKILL"):  # on Windows the option would let two share the address
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
    except OSError as error:
        if held is not None:
            held.close()
        raise _no_address(host, port, error) from error
    return held


def _no_address(host: str, port: int, error: OSError) -> RunError:
    return RunError(
        f"cannot serve at {host} port {port}: {error.strerror}",
        "name another with --port, or let the system choose one: --port 0",
    )


class Server(uvicorn.Server):
    """The application behind a socket, until it is told to stop.

    A first SIGTERM or SIGINT, or `stop`, drains: the application refuses new work and says that it
    is not ready, what it accepted is finished, and a moment passes in which balancers can notice.
    The socket listens all the while. A second signal ends the process.

    Args:
        app: the application.
        held: of `bound`.
        drain: seconds between the signal and the end, at least.
        listening: called once requests are taken.
    """

    def __init__(
        self,
        app: App,
        held: socket.socket,
        *,
        drain: float = 1.0,
        listening: Callable[[], None] = lambda: None,
    ) -> None:
        limits = app.limits
        protocol = functools.partial(_Protocol, limits, app.metrics.refused_early)
        config = uvicorn.Config(
            cast("Any", app),
            loop="asyncio",
            http=cast("Any", protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("Server", "neocog")],
            backlog=BACKLOG,
            timeout_keep_alive=math.ceil(KEEP_ALIVE),
            timeout_graceful_shutdown=math.ceil(limits.seconds),
        )
        super().__init__(config)
        self.own = app
        self.held = held
        self.drain = drain
        self.listening = listening

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer until told to stop.

        Raises:
            RunError: somebody else listens at the address by now.
        """
        await super().serve([self.held, *(sockets or [])])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        try:
            await super().startup(sockets)
        except OSError as error:
            host, port = self.held.getsockname()[:2]
            raise _no_address(host, port, error) from error
        self.listening()

    def stop(self) -> None:
        """Drain, and end; may be called from any thread."""
        self.own.draining = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted, and end."""
        self.own.draining = True
        limits = self.own.limits
        patience = max(self.drain, limits.body_seconds + limits.seconds)
        finished: tuple[Awaitable[None], ...] = (asyncio.sleep(self.drain), self.own.idle())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*finished), patience)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not as uvicorn has it, which raises the signal again at the end, so that the exit status
        is never 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heeded = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, self.handle_exit) for one in heeded}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal came; at the second the system ends the process."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.stop()
