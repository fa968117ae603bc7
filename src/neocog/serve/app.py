"""The application: addresses, the order of checks, and what is answered. Floor 4, room serve.

An ASGI application without a framework. The order of checks is the contract: a server that ends
says so first, then address and method, then the header, then the body, its content, the queue, and
the time. Before all of it comes whether the request is meant for this server, and no page of
somebody else sent it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from neocog import __version__
from neocog.serve import jsonread, openapi, page, protocol
from neocog.serve.batching import ending
from neocog.serve.hosts import check_host, check_page
from neocog.serve.incoming import SMALL, GoneError, Held, Incoming
from neocog.serve.limits import RequestError
from neocog.serve.metrics import CONTENT_TYPE_LATEST, Metrics
from neocog.serve.replies import JSON, Reply, json_reply, refusal_reply
from neocog.serve.served import unknown
from neocog.serve.upload import check_kind, picture_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence

    from neocog.serve.incoming import Message, Receive
    from neocog.serve.limits import Limits
    from neocog.serve.served import Served

    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Handler = Callable[[Incoming, Mapping[str, str]], Awaitable[Reply]]

__all__ = ["App"]

LOG = logging.getLogger("neocog.serve")
HEADER_LENGTH = protocol.HEADER_LENGTH.lower().encode()
SHORT = 2**14
"""Bytes of a body that asks for no answer of a network."""
PIECE = 2**17
"""Bytes of an answer that are handed over at once; the next when most of them were fetched."""
RATE = 2**18
"""Bytes a second with which an answer must be fetched, besides the time of a body."""
ANSWERS = 4
"""Of the largest answers, so many may wait to be fetched at once."""
_Found = TypeVar("_Found")
POLL = 0.02
"""Seconds between two looks whether all that was accepted is finished."""


@dataclass(frozen=True, slots=True)
class _Route:
    """An address."""

    template: str
    """With the names of its parameters in braces."""
    methods: Mapping[str, Handler]
    """What it offers."""
    works: bool = False
    """Whether the network is asked, so that it is refused while the server ends."""


class _MethodError(RequestError):
    """405, with what is offered instead."""

    def __init__(self, method: str, offered: tuple[str, ...]) -> None:
        self.allow = ", ".join(offered)
        super().__init__(405, f"expected {self.allow}, found {method[:20]}")


class App:
    """The application.

    Args:
        models: by name, at least one.
        limits: bounds.
        metrics: where the models count already; None: new ones.
        log: whether each answer is told in a line.
        hosts: names, addresses and networks that it answers to; empty: any (`hosts`).
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        limits: Limits,
        *,
        metrics: Metrics | None = None,
        log: bool = False,
        hosts: Sequence[str] = (),
    ) -> None:
        self.models = models
        self.limits = limits
        self.metrics = metrics or Metrics()
        self.log = log
        self.draining = False
        self.working = 0
        self.hosts = tuple(hosts)
        self.held = Held(limits.body * limits.queue, "too much is being sent; try again soon")
        self.answers = Held(
            limits.binary * ANSWERS, "too many answers wait to be fetched; try again soon"
        )
        self.metrics.count_held("requests", lambda: self.held.bytes)
        self.metrics.count_held("answers", lambda: self.answers.bytes)
        self._routes = {_key(route.template): route for route in self._addresses()}
        self._page = page.render(list(models.values()), limits)
        self._openapi = json_reply(openapi.document(models, limits, __version__))

    def _addresses(self) -> list[_Route]:
        def get(template: str, handler: Handler) -> _Route:
            return _Route(template, {"GET": handler, "HEAD": handler})

        def post(template: str, handler: Handler, *, works: bool = True) -> _Route:
            return _Route(template, {"POST": handler}, works)

        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        return [
            get("/", self._show_page),
            get("/openapi.json", self._show_openapi),
            get("/metrics", self._show_metrics),
            get("/v2", self._server),
            get("/v2/health/live", self._live),
            get("/v2/health/ready", self._ready),
            post("/v2/repository/index", self._index, works=False),
            post("/predict", self._predict),
            *(get(start, self._model) for start in (model, version)),
            *(get(f"{start}/ready", self._model_ready) for start in (model, version)),
            *(post(f"{start}/infer", self._infer) for start in (model, version)),
        ]

    async def idle(self) -> None:
        """Return when nobody waits for a network."""
        while self.working:
            await asyncio.sleep(POLL)

    async def close(self) -> None:
        """End all models."""
        for served in self.models.values():
            await served.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        assert scope["type"] == "http"
        began = time.perf_counter()
        incoming = Incoming(scope, receive)
        route, values = self._find(incoming.path)
        template = route.template if route else "none"
        with self.metrics.in_flight.track_inprogress():
            try:
                reply = await self._reply(incoming, route, values)
            except GoneError:
                self.metrics.gone()
                return
            finally:
                incoming.release(self.held)
            try:
                await self._send(reply, incoming, send)
            finally:
                self.answers.give(_counted(reply))
        seconds = time.perf_counter() - began
        self.metrics.answered(template, incoming.method, reply.status, seconds)
        if self.log:
            LOG.info(
                "%s %s %s %d %.1f ms",
                *(incoming.id, incoming.method[:20], template, reply.status, 1000 * seconds),
            )

    def _find(self, path: tuple[str, ...]) -> tuple[_Route | None, dict[str, str]]:
        """The address of a path, and the values of its parameters."""
        kept, values = list(path), {}
        if path[:2] == ("v2", "models"):
            for place, name in ((2, "model"), (4, "version")):
                if len(path) > place and (place == 2 or path[3] == "versions"):
                    values[name], kept[place] = path[place], "{}"
        return self._routes.get(tuple(kept)), values

    async def _reply(
        self, incoming: Incoming, route: _Route | None, values: Mapping[str, str]
    ) -> Reply:
        """What is answered; whatever goes wrong is a reply, too.

        Raises:
            GoneError: nobody waits for it.
        """
        try:
            reply = await self._handled(incoming, route, values)
            self.answers.take(_counted(reply))
            return reply
        except RequestError as error:
            if error.status >= 500 and error.status not in (503, 504):
                LOG.error("request %s failed: %s", incoming.id, error.text)
            self.metrics.refuse(error)
            reply = refusal_reply(error)
            if isinstance(error, _MethodError):
                reply = dataclasses.replace(reply, headers=(("Allow", error.allow),))
            return reply
        except (GoneError, asyncio.CancelledError):
            raise
        except Exception:
            LOG.exception("request %s failed", incoming.id)
            fault = RequestError(500, "internal error")
            self.metrics.refuse(fault)
            return refusal_reply(fault)

    async def _handled(
        self, incoming: Incoming, route: _Route | None, values: Mapping[str, str]
    ) -> Reply:
        """The reply of the address.

        Raises:
            RequestError: it is refused.
        """
        check_host(incoming.host, self.hosts)
        if incoming.method == "POST":
            origin, site = incoming.header(b"origin"), incoming.header(b"sec-fetch-site")
            check_page(incoming.host, origin, site, self.hosts)
        if route is None:
            raise RequestError(404, "nothing is served here; GET /openapi.json lists what is")
        if route.works and self.draining:
            raise ending()
        if "model" in values:
            self._served(values)  # what is not there offers no methods either
        handler = route.methods.get(incoming.method)
        if handler is None:
            raise _MethodError(incoming.method, tuple(route.methods))
        if not route.works:
            return await handler(incoming, values)
        self.working += 1
        try:
            return await handler(incoming, values)
        finally:
            self.working -= 1

    async def _send(self, reply: Reply, incoming: Incoming, send: Send) -> None:
        # A body that was not read, or a client that should go elsewhere: the connection ends.
        close = not incoming.whole or (self.draining and reply.status == 503)
        headers = reply.wire(incoming.id, close=close)
        begin = {"type": "http.response.start", "status": reply.status, "headers": headers}
        body = memoryview(reply.body)
        async with asyncio.timeout(self.limits.body_seconds + len(body) / RATE):
            await send(begin)
            for start in range(0, max(len(body), 1), PIECE):
                part, more = body[start : start + PIECE], start + PIECE < len(body)
                await send({"type": "http.response.body", "body": part, "more_body": more})

    # What is asked without a network

    async def _show_page(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        return self._page

    async def _show_openapi(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        return self._openapi

    async def _show_metrics(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        return Reply(200, self.metrics.text(), CONTENT_TYPE_LATEST)

    async def _server(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        return json_reply(protocol.server_metadata(__version__))

    async def _live(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        return json_reply(protocol.live())

    async def _ready(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        self._refuse_unready()
        return json_reply(protocol.ready(True))

    def _refuse_unready(self) -> None:
        if self.draining:
            raise ending()

    async def _index(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        """All models, or as the body may ask, those that are ready."""
        check_json(incoming)
        short = dataclasses.replace(self.limits, body=min(SHORT, self.limits.body))
        body = await incoming.body(short, self.held)
        wish = jsonread.parsed(body, self.limits.depth) if body else {}
        asked = jsonread.fields(wish, "the request", (), ("ready",)).get("ready", False)
        only_ready = jsonread.typed(asked, bool, "ready")
        is_ready = not self.draining
        return json_reply(
            protocol.repository_index(list(self.models), only_ready=only_ready, is_ready=is_ready)
        )

    async def _model(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        return json_reply(protocol.model_metadata(self._served(values).spec))

    async def _model_ready(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        served = self._served(values)
        self._refuse_unready()
        return json_reply(protocol.model_ready(served.name, True))

    def _served(self, values: Mapping[str, str]) -> Served:
        """The model that an address names.

        Raises:
            RequestError: 404.
        """
        name, version = values["model"], values.get("version", protocol.VERSION)
        if name not in self.models:
            raise unknown(name, self.models)
        if version != protocol.VERSION:
            raise RequestError(404, f"model {name} has version {protocol.VERSION} only")
        return self.models[name]

    # What a network is asked

    async def _infer(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        served = self._served(values)
        header_length = protocol.header_length(
            incoming.header(HEADER_LENGTH) if incoming.has(HEADER_LENGTH) else None
        )
        check_json(incoming, binary=header_length is not None)
        body = await incoming.body(self.limits, self.held)
        deadline = self._deadline()
        headers, answer = await self._worked(
            incoming, served.infer(body, header_length, deadline), deadline
        )
        (_, kind), *others = headers
        if kind != JSON and len(answer) > self.limits.binary:
            most = self.limits.binary  # with the JSON and its labels; numbers were counted before
            raise RequestError(400, f"expected an answer of at most {most} bytes")
        return Reply(200, answer, kind, tuple(others))

    async def _predict(self, incoming: Incoming, values: Mapping[str, str]) -> Reply:
        name = incoming.query("model")
        if name is None:
            if len(self.models) > 1:
                known = ", ".join(sorted(self.models))
                raise RequestError(400, f"expected ?model=NAME, one of: {known}")
            name = next(iter(self.models))
        served = self._served({"model": name})
        check_kind(incoming.kind)
        served.refuse_files()
        body = await incoming.body(self.limits, self.held)
        deadline = self._deadline()

        async def work() -> dict[str, Any]:
            return await served.predict(await picture_of(incoming, body), deadline)

        return json_reply(await self._worked(incoming, work(), deadline))

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.limits.seconds

    async def _worked(
        self, incoming: Incoming, work: Coroutine[Any, Any, _Found], deadline: float
    ) -> _Found:
        """The result of some work, which is dropped when nobody waits for it any longer.

        Raises:
            RequestError: of the work; 504 past the deadline.
            GoneError: the client is gone.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(incoming.gone())
        left = deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait((task, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise GoneError
            raise RequestError(504, f"no answer within {self.limits.seconds:g} s")
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


def _counted(reply: Reply) -> int:
    """Bytes of an answer for which there must be room."""
    return len(reply.body) if len(reply.body) > SMALL else 0


def _key(template: str) -> tuple[str, ...]:
    """The segments of an address, each parameter without its name."""
    return tuple("{}" if one.startswith("{") else one for one in template[1:].split("/"))


def check_json(incoming: Incoming, *, binary: bool = False) -> None:
    """That the body is said to be JSON, or JSON with binary data behind it.

    Raises:
        RequestError: 415.
    """
    allowed = ("", JSON, "application/octet-stream") if binary else ("", JSON)
    if incoming.kind not in allowed:
        raise RequestError(415, f"expected {' or '.join(allowed[1:])}")
