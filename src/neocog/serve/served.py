"""One model that is served: its name, who computes it, who decodes for it. Floor 4, room serve."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from neocog import tasks
from neocog.errors import ConfigError, RunError, near
from neocog.geometry import noun, size_text
from neocog.layers import Fit
from neocog.runtime.answering import fitted, order_of
from neocog.serve import protocol
from neocog.serve.batching import Batcher
from neocog.serve.decoding import Decoding
from neocog.serve.limits import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from neocog.data.looks import Order
    from neocog.runtime.engine import Engine
    from neocog.serve.limits import Limits
    from neocog.serve.metrics import Metrics, ModelMetrics

__all__ = ["Served", "models_of", "name_of", "named", "unknown"]

LONGEST_NAME = 64
WARM_SECONDS = 10.0
"""That one call before the first request may take, about."""
LITTLE = 2**12
"""Numbers of an answer that is written at once, in a few milliseconds."""


class Served:
    """One model.

    Args:
        name: in addresses.
        engine: who answers.
        batcher: gathers requests for it.
        decoding: makes pixels of pictures.
        limits: bounds.
        metrics: where its numbers are counted.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        batcher: Batcher,
        decoding: Decoding,
        *,
        limits: Limits,
        metrics: ModelMetrics,
    ) -> None:
        self.name = name
        self.engine = engine
        self.batcher = batcher
        self.decoding = decoding
        self.limits = limits
        self.metrics = metrics
        self.input = engine.described.input
        self.spec = protocol.spec_of(
            engine.described, name, limits, dtypes=engine.dtypes, kind=engine.kind
        )
        self.task = tasks.build(engine.described.task)
        self.fit = nn.Identity() if self.input.whole else Fit(self.input.size)
        self.preparing = 0
        self.writing = asyncio.Lock()
        metrics.wait(lambda: self.waiting)

    @property
    def pictures(self) -> bool:
        """Whether it answers for picture files."""
        return len(self.input.size) == 2

    @property
    def waiting(self) -> int:
        """Requests that are decoded or wait for the network."""
        return self.preparing + self.batcher.waiting

    def words(self) -> str:
        """What it takes, for people."""
        spec, colours = self.input, {1: "grey", 3: "RGB"}
        if not self.pictures:
            channels = "one channel" if spec.channels == 1 else f"{spec.channels} channels"
            return f"{noun(spec.size)}s of {size_text(spec.size)}, {channels}"
        size = "any size" if spec.whole else f"scaled to {size_text(spec.size)}"
        return f"{colours.get(spec.channels, f'{spec.channels}-channel')} pictures, {size}"

    def refuse_files(self) -> None:
        """That it answers for picture files.

        Raises:
            RequestError: 415.
        """
        if not self.pictures:
            kind = noun(self.input.size)
            raise RequestError(
                415, f"model {self.name} takes {kind}s, which only v2/models/{self.name}/infer does"
            )

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """While a request is decoded; so that a flood cannot occupy the decoders, those that are
        decoded and those that wait are bounded together.

        Raises:
            RequestError: 429.
        """
        if self.waiting >= self.limits.queue:
            raise RequestError(429, f"{self.limits.queue} requests wait already", retry_after=1)
        self.preparing += 1
        try:
            yield
        finally:
            self.preparing -= 1

    async def predict(self, picture: bytes, deadline: float) -> dict[str, Any]:
        """What `neocog predict` says of a picture, without its path and mask.

        Args:
            picture: the bytes of a file.
            deadline: when the answer is no longer wanted, in the event loop's time.

        Raises:
            RequestError: 400, 429, 503 or 504.
        """
        with self._prepared():
            began = time.perf_counter()
            pixels = await self.decoding.picture(picture)
            self.metrics.decode.observe(time.perf_counter() - began)
            if self.input.whole:  # its answer may be far larger than itself
                shape = (1, self.input.channels, *pixels.shape[:2])
                protocol.refuse_large(shape, "uint8", spec=self.spec, limits=self.limits)
            samples = fitted(pixels, self.input, self.fit)[None].numpy()
        decoded = torch.from_numpy(await self.batcher.answer(samples, deadline))
        if self.input.whole:  # as large as the picture: others are served meanwhile
            entries = await asyncio.to_thread(self.task.answer, decoded)
        else:
            entries = self.task.answer(decoded)
        entry = {key: value for key, value in entries[0].items() if key != "mask"}
        return {"model": self.name, **entry}

    async def infer(
        self, body: bytes, header_length: int | None, deadline: float
    ) -> tuple[list[tuple[str, str]], bytes]:
        """An inference request of the Open Inference Protocol.

        Args:
            body: of the request.
            header_length: bytes of its JSON, where binary data follow.
            deadline: see `predict`.

        Returns:
            Header fields, the content's type first, and body of the answer.

        Raises:
            RequestError: 400, 429, 503 or 504.
        """
        with self._prepared():
            request = await self.decoding.request(body, header_length, self.spec, self.limits)
        answers = await self.batcher.answer(request.samples, deadline)
        if answers.size <= LITTLE:
            return protocol.write(request, answers, spec=self.spec)
        async with self.writing:  # one at a time: threads that write share Python with the loop
            return await asyncio.to_thread(protocol.write, request, answers, spec=self.spec)

    async def close(self) -> None:
        """Answer what waits, and end the helper programs."""
        await self.batcher.drain()
        self.batcher.close()
        self.decoding.close()

    async def start(self) -> None:
        """Start the helper programs, so that the first request need not.

        Raises:
            NeocogError: they cannot be started.
        """
        if self.pictures:
            await self.decoding.start()

    async def warm(self) -> tuple[int, float]:
        """Call the network with the largest batch that it may meet, so that memory and time are
        from the first request on what they stay. Samples have the network's own size; a picture
        whose pixels are answered for comes alone. Fewer come where it would take very long.

        Returns:
            Samples of that batch, and seconds of all.

        Raises:
            RunError: the network fails.
        """
        kind = "float32" if "float32" in self.engine.dtypes else self.engine.dtypes[0]
        one = np.zeros((1, self.input.channels, *self.input.size), kind)
        count = 1
        try:
            seconds = last = await self.batcher.warm(one)
            if not self.input.whole:
                if last < WARM_SECONDS / 2:  # the first call takes what no other does
                    last = await self.batcher.warm(one)
                    seconds += last
                most = min(self.limits.batch, self.limits.decoded // one.nbytes)
                count = max(1, min(most, int(WARM_SECONDS / last)))
            if count > 1:
                seconds += await self.batcher.warm(np.repeat(one, count, axis=0))
        except (MemoryError, RuntimeError, RunError) as error:
            text = str(error).partition("\n")[0][:300]
            raise RunError(
                f"{self.name}: the network fails for {count} samples at once: {text}",
                "let fewer share a call: --limit batch=8",
            ) from error
        return count, seconds

    def about(self) -> Mapping[str, Any]:
        """What it is, for the page and for people."""
        return {
            "name": self.name,
            "task": self.engine.described.task.name,
            "takes": self.words(),
            "classes": len(self.engine.described.classes),
            "engine": self.engine.kind,
            "pictures": self.pictures,
        }


def models_of(
    engines: Mapping[str, Engine], limits: Limits, *, metrics: Metrics, workers: int
) -> dict[str, Served]:
    """Models by name, from inside the event loop that will serve them. Those whose pictures are
    decoded alike share their helper programs.

    Args:
        engines: by name of the model.
        limits: bounds.
        metrics: where their numbers are counted.
        workers: helper programs that decode, of each way to do so.
    """
    decoding: dict[Order, Decoding] = {}
    models = {}
    for name, engine in engines.items():
        order = order_of(engine.described, decoded=limits.decoded)
        if order not in decoding:
            decoding[order] = Decoding(order, workers=workers, patience=limits.decode)
        counted = metrics.model(name, engine)
        columns = len(engine.described.classes) if engine.described.input.whole else 0
        batcher = Batcher(engine, limits, observe=counted, columns=columns)
        models[name] = Served(
            name, engine, batcher, decoding[order], limits=limits, metrics=counted
        )
    return models


def name_of(path: str) -> str:
    """The name that a run folder or file has in addresses.

    >>> name_of("runs/My cats (2).onnx"), name_of("runs/mnist/"), name_of("runs/a/bundle")
    ('My-cats-2', 'mnist', 'a')
    """
    parts = [part for part in re.split(r"[/\\]+", path) if part not in ("", ".", "..")]
    if len(parts) > 1 and parts[-1] == "bundle":
        parts.pop()
    last = re.sub(r"\.(onnx|xml)$", "", parts[-1]) if parts else ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:LONGEST_NAME] or "model"


def named(arguments: Iterable[str]) -> dict[str, str]:
    """Name → path, of arguments that are paths or NAME=PATH.

    Raises:
        ConfigError: a name that cannot stand in an address, or two of one name.

    >>> named(["runs/a", "b=runs/a", "old/a"])
    {'a': 'runs/a', 'b': 'runs/a', 'a-2': 'old/a'}
    """
    found: dict[str, str] = {}
    for argument in arguments:
        match = re.fullmatch(r"([^=/\\]*)=(.*)", argument, re.DOTALL)
        if match is None:
            name = base = name_of(argument)
            number = 1
            while name in found:
                number += 1
                name = f"{base}-{number}"
            found[name] = argument
            continue
        name, path = match.groups()
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", name):
            raise ConfigError(
                f"the name {name!r} cannot stand in an address",
                "up to 64 letters, digits, - _ and ., of which . is not the first",
            )
        if name in found:
            raise ConfigError(f"two models are named {name}", "give one another name: NAME=PATH")
        found[name] = path
    return found


def unknown(name: str, known: Iterable[str]) -> RequestError:
    """The refusal of a name that no model has."""
    return RequestError(404, f"there is no model {name[:80]!r}; {near(name[:80], known)}")
