"""Trained networks behind HTTP. Floor 5, room verbs; imports the extra `serve` where it is used."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import ipaddress
import json
import logging
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError
from neocog.host import cores, memory_kept
from neocog.serve.bounds import limits_of
from neocog.text import printable

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from neocog.runtime.engine import Engine
    from neocog.runtime.fastest import Chosen
    from neocog.serve.limits import Limits

__all__ = ["Wishes", "serve"]

MOST_DECODERS = 4
"""Helper programs that decode, of each way to do so: a picture takes some milliseconds."""
_NEEDED = ("uvicorn", "h11", "python_multipart", "prometheus_client")
BATCH = 8
"""Samples of a call by which engines are compared: what requests under some load come to."""
SAID_SECONDS = 1.0
"""Of a model's first calls, beyond which they are told."""
LAST_SECONDS = 5.0
"""How long models may take to end."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is asked of a server."""

    models: Sequence[str]
    """Paths of runs, bundles or exported files, or NAME=PATH."""
    host: str = "127.0.0.1"
    """The address that it listens at."""
    port: int = 8000
    """0: the system chooses."""
    engine: str = "auto"
    """Who computes; `auto`: whoever is fastest here."""
    device: str = "auto"
    """Where PyTorch computes."""
    model: str = ""
    """Names a foreign factory again."""
    threads: int = 0
    """Of each engine; 0: its own number."""
    limits: Sequence[str] = ()
    """NAME=VALUE."""
    allow_host: Sequence[str] = ()
    """Names besides its own under which it may be called, as a proxy or a container has them."""
    drain: float = 1.0
    """Seconds between the signal to end and the end, at least."""
    log: bool = False
    """Whether each request is told in a line."""


def serve(wishes: Wishes, *, as_json: bool) -> None:
    """Serve until a signal says to end.

    Args:
        wishes: what is served, where and how.
        as_json: one JSON object on standard output once it listens.

    Raises:
        ConfigError: a wish that cannot be, or a package that is missing.
        RunError: a model that cannot be opened, or an address that cannot be had.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serving needs {', '.join(missing)}, which is not installed",
            'pip install "neocog[serve]"',
        )
    from neocog.serve.http import bound
    from neocog.serve.served import named

    limits, names = limits_of(wishes.limits), named(wishes.models)
    if not 0 <= wishes.drain < float("inf"):
        raise ConfigError(f"--drain: expected seconds, found {wishes.drain}")
    with contextlib.closing(bound(wishes.host, wishes.port)) as held, _logged(wishes.log):
        engines, words = {}, {}
        for name, path in names.items():
            engines[name], words[name] = _opened(path, wishes, limits)
            _say(f"{name}: {engines[name].described.task.name}, {words[name]}")
        with memory_kept():
            asyncio.run(_served(engines, words, limits, held, wishes, as_json))


def _opened(path: str, wishes: Wishes, limits: Limits) -> tuple[Engine, str]:
    """Who answers for a path, and why, in words."""
    from neocog.runtime.fastest import candidates, fastest
    from neocog.runtime.opened import Source, moved_on, open_engine

    model, device, threads = wishes.model, wishes.device, wishes.threads
    place = Source.of(path, model=model)  # read and checked once, however many engines try it
    if place.content is not None and (warning := moved_on(place.path)):
        _say(warning)
    if wishes.engine != "auto":
        found = open_engine(
            place, engine=wishes.engine, model=model, device=device, threads=threads
        )
        return found, f"{_engine_words(found)}, as asked"
    first = open_engine(place, model=model, device=device, threads=threads)
    several = candidates(place, model=model, device=device, threads=threads)
    chosen = fastest(several, _samples(first, min(BATCH, limits.batch)))
    return chosen.engine, _engine_words(chosen.engine) + _by_how_much(chosen)


def _engine_words(engine: Engine) -> str:
    """Whose arithmetic it is, and how.

    >>> class Engine: kind, settings = "torch", {"device": "cpu", "threads": 2}
    >>> _engine_words(Engine())
    'computed by torch (device cpu, threads 2)'
    """
    how = ", ".join(f"{name} {value}" for name, value in engine.settings.items())
    return f"computed by {engine.kind}" + (f" ({how})" if how else "")


def _by_how_much(chosen: Chosen) -> str:
    """The choice in words, and how much faster it is than the next of another kind."""
    if len(chosen.trials) < 2:
        return ", the only one that there is"
    kinds = sorted({one.kind for one in chosen.trials})
    best = min(one.seconds for one in chosen.trials if one.kind == chosen.engine.kind)
    others = [one for one in chosen.trials if one.kind != chosen.engine.kind]
    when = "measured before" if chosen.remembered else f"measured in {chosen.seconds:.1f} s"
    if not others:
        return f", the fastest number of threads of {len(chosen.trials)} ({when})"
    second = min(others, key=lambda one: one.seconds)
    times = f"{second.seconds / best:.2g} times as fast as {second.kind}"
    return f", the choice of {', '.join(kinds)}: {times} ({when})"


def _samples(engine: Engine, count: int) -> NDArray[Any]:
    """Something to ask about that looks like a sample: smooth, with some noise on it."""
    import numpy as np

    spec = engine.described.input
    draws = np.random.default_rng(0)
    shape = (count, spec.channels, *spec.size)
    walks = draws.standard_normal(shape)
    for axis in range(2, len(shape)):
        walks = walks.cumsum(axis=axis)
    walks = walks / np.abs(walks).max() + 0.1 * draws.standard_normal(shape)
    samples: NDArray[Any]
    if engine.dtypes == ("uint8",):
        samples = np.clip(128 + 110 * walks, 0, 255).astype(np.uint8)
    else:
        std, mean = (np.reshape(one, (-1, *(1,) * len(spec.size))) for one in (spec.std, spec.mean))
        samples = (mean + std * walks).astype(np.float32)
    return samples


async def _served(
    engines: dict[str, Engine],
    words: dict[str, str],
    limits: Limits,
    held: socket.socket,
    wishes: Wishes,
    as_json: bool,
) -> None:
    """The life of the server.

    Args:
        engines: by name of the model.
        words: of each, why it was chosen.
        limits: bounds.
        held: where to listen.
        wishes: what else is asked.
        as_json: see `serve`.
    """
    from neocog.serve.app import App
    from neocog.serve.http import Server
    from neocog.serve.metrics import Metrics
    from neocog.serve.served import models_of

    metrics = Metrics()
    workers = max(1, min(MOST_DECODERS, cores()))
    models = models_of(engines, limits, metrics=metrics, workers=workers)
    app = App(models, limits, metrics=metrics, log=wishes.log, hosts=_hosts(wishes))

    def listening() -> None:
        about = [{**one.about(), "chosen": words[name]} for name, one in models.items()]
        _announce(about, held, wishes.host, limits, as_json)

    try:
        for served in models.values():
            await served.start()
            count, seconds = await served.warm()
            if seconds > SAID_SECONDS:
                _say(f"{served.name}: warmed by {count} sample(s) at once in {seconds:.1f} s")
        _keep()
        await Server(app, held, drain=wishes.drain, listening=listening).serve()
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(app.close(), LAST_SECONDS)


def _keep() -> None:
    """Let the garbage collector leave alone what is there, which lives as long as the server.

    A library for networks brings some two hundred thousand objects. To look through all takes a
    tenth of a second, in which nobody is answered, and would be done every few thousand requests.
    """
    gc.collect()
    gc.freeze()


def _announce(
    about: Sequence[Mapping[str, Any]],
    held: socket.socket,
    host: str,
    limits: Limits,
    as_json: bool,
) -> None:
    """Say where it is served, and how to ask."""
    port = held.getsockname()[1]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    asked = next((one["name"] for one in about if one["pictures"]), None)
    if asked is not None:
        which = f"?model={asked}" if len(about) > 1 else ""
        _say(f"ask    curl --data-binary @picture.jpg '{url}/predict{which}'")
    _say(f"try    {url}/")
    if not _is_loopback(host):
        _say("mind   whoever reaches this address may ask; there is no password")
    _say("end    Ctrl-C")
    if as_json:
        said = {"url": url, "host": host, "port": port, "models": about}
        text = json.dumps({**said, "limits": dataclasses.asdict(limits)}, indent=2)
        print(text, flush=True)


def _hosts(wishes: Wishes) -> tuple[str, ...]:
    """Names under which requests may call the server; none: any.

    Who listens for others is called by names that are not known here.

    >>> _hosts(Wishes(models=(), allow_host=("me.example",)))
    ('localhost', '127.0.0.0/8', '::1', 'me.example')
    >>> _hosts(Wishes(models=(), host="0.0.0.0"))
    ()
    """
    if not _is_loopback(wishes.host):
        return tuple(wishes.allow_host)
    from neocog.serve.hosts import LOOPBACK

    return (*LOOPBACK, *wishes.allow_host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _logged(each: bool) -> Iterator[None]:
    """The server's log goes to standard error.

    Args:
        each: with a line for each request; else faults alone.
    """
    log = logging.getLogger("neocog.serve")
    before: tuple[Any, ...] = (log.level, log.propagate)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if each else logging.WARNING)
    log.propagate = False
    # It warns of every form that is none; its client is told, and that is enough.
    forms = logging.getLogger("python_multipart")
    loud = forms.level
    forms.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        forms.setLevel(loud)
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
