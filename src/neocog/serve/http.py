"""The server: uvicorn with bounds, draining, and an end that comes. Floor 4, room serve.

Imports uvicorn (extra `serve`) and this room; what a connection may do is in `connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from neocog.errors import RunError
from neocog.serve.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from neocog.serve.app import App

__all__ = ["END_SECONDS", "KEEP_ALIVE", "Server", "bound"]

KEEP_ALIVE = 5.0
"""Seconds that a connection may wait for its next request to begin."""
END_SECONDS = 20.0
"""From the signal until whatever is left is cut. Who runs the server may end it by force some ten
seconds later: the models need a moment, too."""
BACKLOG = 1024


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
    The socket listens all the while. What is not finished `end` seconds after the signal is cut. A
    second signal ends the process.

    Args:
        app: the application.
        held: of `bound`.
        drain: seconds between the signal and the end, at least.
        end: seconds between the signal and the end, at most; one more than `drain`, where that
            is later.
        listening: called once requests are taken.
    """

    def __init__(
        self,
        app: App,
        held: socket.socket,
        *,
        drain: float = 1.0,
        end: float = END_SECONDS,
        listening: Callable[[], None] = lambda: None,
    ) -> None:
        protocol = functools.partial(Connection, app.limits, app.metrics.refused_early)
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
        )
        super().__init__(config)
        self.own = app
        self.held = held
        self.drain = drain
        self.end = max(end, drain + 1)
        self.listening = listening
        app.metrics.count_connections(lambda: len(self.server_state.connections))

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
        """Finish what was accepted, and end; cut what is not finished in time."""
        self.own.draining = True
        finished: tuple[Awaitable[None], ...] = (asyncio.sleep(self.drain), self.own.idle())
        try:
            async with asyncio.timeout(self.end):
                await asyncio.gather(*finished)
                await super().shutdown(sockets)
        except TimeoutError:
            await self._cut(sockets or [])

    async def _cut(self, sockets: list[socket.socket]) -> None:
        """End what is left."""
        for server in self.servers:
            server.close()
        for held in sockets:
            held.close()
        for connection in tuple(self.server_state.connections):
            cast("Connection", connection).inner.abort()
        if tasks := tuple(self.server_state.tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)

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
