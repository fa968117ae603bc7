"""What a server counts of itself, for Prometheus. Floor 4, room serve; imports prometheus-client
(extra `serve`).

Labels are ours: names of models, templates of routes, numbers of statuses; never text of clients,
who could fill the memory with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.runtime.engine import Engine
    from neocog.serve.limits import RequestError

__all__ = ["CONTENT_TYPE_LATEST", "Metrics", "ModelMetrics"]

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Methods that are counted by name."""
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
REASONS = {
    400: "malformed",
    403: "origin",
    404: "unknown",
    405: "method",
    408: "slow",
    413: "body-size",
    415: "type",
    417: "expectation",
    421: "host",
    429: "queue",
    431: "header-size",
    500: "internal",
    503: "closed",
    504: "deadline",
}
"""Why a request is refused, by status; a refusal may have a word of its own instead."""


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "neocog_requests", "Answers given.", ("route", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "neocog_request_seconds",
            "From the end of a request's header until its answer was handed over.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "neocog_refused", "Requests refused, by reason.", ("reason",), registry=registry
        )
        self.in_flight = Gauge(
            "neocog_requests_in_flight", "Requests that wait for their answer.", registry=registry
        )
        self.connections = Gauge(
            "neocog_connections", "Connections that are open.", registry=registry
        )
        self.held = Gauge(
            "neocog_held_bytes",
            "Bytes of requests, or of answers that wait to be fetched, in memory.",
            ("of",),
            registry=registry,
        )
        self.samples = Counter(
            "neocog_samples", "Samples answered for.", ("model",), registry=registry
        )
        self.batch = Histogram(
            "neocog_batch_size",
            "Samples of a call of the network.",
            ("model",),
            buckets=SAMPLES,
            registry=registry,
        )
        self.engine = Histogram(
            "neocog_engine_seconds",
            "A call of the network.",
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self.decode = Histogram(
            "neocog_decode_seconds",
            "From a picture's bytes to its pixels.",
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self.waiting = Gauge(
            "neocog_queue_waiting",
            "Requests that wait for the network.",
            ("model",),
            registry=registry,
        )
        self.info = Gauge(
            "neocog_model_info",
            "What is served; always 1.",
            ("model", "task", "engine", "digest"),
            registry=registry,
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """An answer was given.

        Args:
            route: its template.
            method: the client's word.
            status: of HTTP.
            seconds: it took.
        """
        named = method if method in METHODS else "other"
        self.requests.labels(route, named, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def refuse(self, error: RequestError) -> None:
        """A request was refused."""
        self.refused.labels(error.reason or REASONS.get(error.status, "other")).inc()

    def gone(self) -> None:
        """A client left before it had its answer."""
        self.refused.labels("gone").inc()

    def refused_early(self, error: RequestError) -> None:
        """A request was refused before the application saw it."""
        self.requests.labels("none", "other", str(error.status)).inc()
        self.refuse(error)

    def count_connections(self, count: Callable[[], int]) -> None:
        """Where to ask how many connections are open."""
        self.connections.set_function(count)

    def count_held(self, of: str, count: Callable[[], int]) -> None:
        """Where to ask how many bytes are in memory.

        Args:
            of: `requests` or `answers`.
            count: says how many.
        """
        self.held.labels(of).set_function(count)

    def model(self, name: str, engine: Engine) -> ModelMetrics:
        """The numbers of one model.

        Args:
            name: of the model.
            engine: who answers.
        """
        task = engine.described.task.name
        self.info.labels(name, task, engine.kind, engine.digest).set(1)
        return ModelMetrics(self, name)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)


class ModelMetrics:
    """The numbers of one model; as a function, what a batcher tells of a call of the network.

    Args:
        metrics: of the server.
        name: of the model.
    """

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.decode = metrics.decode.labels(name)
        self._samples = metrics.samples.labels(name)
        self._batch = metrics.batch.labels(name)
        self._engine = metrics.engine.labels(name)
        self._waiting = metrics.waiting.labels(name)

    def __call__(self, samples: int, seconds: float) -> None:
        """The network was called.

        Args:
            samples: it was called with.
            seconds: it took.
        """
        self._samples.inc(samples)
        self._batch.observe(samples)
        self._engine.observe(seconds)

    def wait(self, waiting: Callable[[], int]) -> None:
        """Where to ask how many requests wait."""
        self._waiting.set_function(waiting)
