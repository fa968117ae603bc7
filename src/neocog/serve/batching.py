"""Requests that share calls of a network. Floor 4, room serve; imports runtime's nouns and NumPy.

All state is touched in the event loop's thread only, and no task runs beside the requests' own: an
arrival, the end of a call and one timer each look whether there is something to begin. The network
computes in one thread, which leaves the event loop free as far as the engine lets go of Python.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neocog.serve.limits import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neocog.runtime.engine import Engine
    from neocog.serve.limits import Limits

    Found = list[NDArray[Any] | Exception]
    """What becomes of each request of a batch."""

__all__ = ["Batcher", "Observe", "ending"]

AGAIN = 1
"""Seconds after which somebody who found the queue full may try again."""


class Observe(Protocol):
    """Whom to tell of a call of the network, in the event loop's thread."""

    def __call__(self, samples: int, seconds: float) -> None:
        """The network took so many seconds for so many samples."""


@dataclass(eq=False, slots=True, frozen=True)
class _Waiting:
    """One request."""

    samples: NDArray[Any]
    kind: tuple[Any, ...]
    """Requests of one kind can share a call: their samples' shape and type."""
    came: float
    deadline: float
    answer: asyncio.Future[NDArray[Any]]


class Batcher:
    """The way to an engine, for one event loop.

    Requests whose samples have one shape and type share a call, up to `limits.batch` samples, the
    oldest first: the oldest of all decides which kind is next, so that none starves. While the
    network is idle, the first request waits at most `limits.latency` for company; while it is busy,
    requests gather by themselves, and the next call begins as soon as one ends.

    What one call takes is bounded as one request is, by `limits.decoded`: many pictures that each
    may come alone would take all memory together.

    Args:
        engine: called in a thread of this batcher's own.
        limits: `batch`, `decoded`, `queue`, `waiting` and `latency` of them.
        observe: told of every call.
        columns: numbers of the answer for each pixel, where pixels are answered for.
    """

    def __init__(
        self, engine: Engine, limits: Limits, *, observe: Observe | None = None, columns: int = 0
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._observe = observe
        self._columns = columns
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="neocog-engine")
        self._queue: dict[_Waiting, None] = {}  # in order of arrival; anyone may leave it
        self._call: asyncio.Future[tuple[Found, float]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open = True
        self._ended = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Requests that wait for the network; those that it computes do not count."""
        return len(self._queue)

    async def answer(self, samples: NDArray[Any], deadline: float) -> NDArray[Any]:
        """What the engine says of some samples. A caller that is cancelled leaves the queue.

        Args:
            samples: B×C×h×w, B×C×L or B×C×D×H×W.
            deadline: in the event loop's time; the answer is not wanted later.

        Returns:
            B×…, this request's own memory.

        Raises:
            RequestError: 400, the samples are too many, or the engine does not take them; 429, the
                queue is full, or what waits in it takes too much memory; 503, the server ends; 504,
                past the deadline.
            Exception: what else the engine raised.
        """
        if not self._open:
            raise ending()
        if len(samples) > self._limits.batch:
            found = f"expected at most {self._limits.batch} samples, found {len(samples)}"
            raise RequestError(400, found)
        if len(self._queue) >= self._limits.queue:
            found = f"{len(self._queue)} requests wait already"
            raise RequestError(429, found, retry_after=AGAIN)
        held = sum(one.samples.nbytes for one in self._queue)
        if held and held + samples.nbytes > self._limits.waiting:
            raise RequestError(429, f"{held} bytes of samples wait already", retry_after=AGAIN)
        loop = asyncio.get_running_loop()
        one = _Waiting(
            samples=samples,
            kind=(samples.dtype, *samples.shape[1:]),
            came=loop.time(),
            deadline=deadline,
            answer=loop.create_future(),
        )
        self._queue[one] = None
        self._begin()
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                return await one.answer
        except TimeoutError:
            if not timeout.expired():
                raise  # the engine's own
            raise RequestError(504, "no answer before the deadline") from None
        finally:
            if one in self._queue:
                del self._queue[one]
                self._settle()

    async def warm(self, samples: NDArray[Any]) -> float:
        """Call the network before anybody asks. Memory and threads that a first call takes, and
        the memory of a large one, are then there.

        Args:
            samples: of any number.

        Returns:
            Seconds.

        Raises:
            Exception: what the engine raised.
        """
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        await loop.run_in_executor(self._thread, self._engine, samples)
        return time.perf_counter() - began

    async def drain(self) -> None:
        """Refuse new requests, and return when those that were accepted are answered."""
        self._open = False
        self._begin(idle=False)  # nobody new will come: no reason to wait
        self._settle()
        await self._ended.wait()

    def close(self) -> None:
        """Refuse new requests and those that wait. A call that the network is in is not waited for;
        whoever waits for it is refused too."""
        self._open = False
        for one in self._queue:
            if not one.answer.done():
                one.answer.set_exception(ending())
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()  # `_finish` follows
        self._settle()
        self._thread.shutdown(wait=False)

    def _settle(self) -> None:
        """Put up the timer where nobody waits; say where all is done."""
        if not self._queue and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._open and not self._queue and self._call is None:
            self._ended.set()

    def _begin(self, *, idle: bool = True) -> None:
        """Call the network where it is free and somebody waits.

        Args:
            idle: it was: the oldest request may wait for company.
        """
        if self._call is not None or not self._queue:
            return
        loop = asyncio.get_running_loop()
        batch, full = self._next(loop.time())
        if not batch:
            return  # their time is up, as they are about to learn
        if idle and not full and self._open:
            due = batch[0].came + self._limits.latency
            if due > loop.time():
                if self._timer is None:
                    self._timer = loop.call_at(due, self._due)
                return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in batch:
            del self._queue[one]
        samples = [one.samples for one in batch]
        call = loop.run_in_executor(self._thread, self._compute, samples)
        self._call = call
        call.add_done_callback(lambda _: self._finish(call, batch))

    def _due(self) -> None:
        """The oldest request has waited long enough."""
        self._timer = None
        self._begin(idle=False)

    def _next(self, now: float) -> tuple[list[_Waiting], bool]:
        """The requests that the next call is for, and whether it can take no more."""
        batch: list[_Waiting] = []
        room, space = self._limits.batch, self._limits.decoded
        for one in self._queue:
            if one.answer.done() or one.deadline <= now or (batch and one.kind != batch[0].kind):
                continue
            cost = self._cost(one.samples)
            if len(one.samples) > room or (batch and cost > space):
                return batch, True  # the order among requests of one kind stays
            batch.append(one)
            room, space = room - len(one.samples), space - cost
            if not room:
                break
        return batch, not room

    def _cost(self, samples: NDArray[Any]) -> int:
        """What `limits.decoded` bounds: bytes of the samples, or numbers of their answer."""
        pixels: int = samples.size // samples.shape[1]
        return max(int(samples.nbytes), self._columns * pixels)

    def _compute(self, samples: Sequence[NDArray[Any]]) -> tuple[Found, float]:
        """One call of the network, in its thread: what becomes of each request, and the seconds."""
        began = time.perf_counter()
        found: Found
        try:
            one = samples[0] if len(samples) == 1 else np.concatenate(samples)
            # Part of a request's body cannot be written, and PyTorch takes no such arrays.
            answers = self._engine(one if one.flags.writeable else one.copy())
            lengths = [len(one) for one in samples]
            if len(answers) != sum(lengths):
                raise RuntimeError(
                    f"expected {sum(lengths)} answers of the engine, found {len(answers)}"
                )
            ends = list(itertools.accumulate(lengths, initial=0))
            # A view would keep all of the batch, or let the engine write into an answer.
            found = [answers[start:end].copy() for start, end in itertools.pairwise(ends)]
        except ValueError as error:
            if len(samples) > 1:  # whose fault it is, each alone will show
                found = [self._compute([one])[0][0] for one in samples]
            else:
                found = [RequestError(400, str(error))]
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            found = [error] * len(samples)
        return found, time.perf_counter() - began

    def _finish(self, call: asyncio.Future[tuple[Found, float]], batch: list[_Waiting]) -> None:
        """Hand out what a call found, and begin the next."""
        self._call = None
        found: Found = [ending() for _ in batch]
        if not call.cancelled():  # as `close` does
            found, seconds = call.result()
            if self._observe is not None:
                self._observe(sum(len(one.samples) for one in batch), seconds)
        for one, answer in zip(batch, found, strict=True):
            if one.answer.done():
                continue  # nobody waits for it any longer
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        self._begin(idle=False)
        self._settle()


def ending() -> RequestError:
    """The refusal of whatever comes, or still waits, when the server ends."""
    return RequestError(503, "the server is shutting down", retry_after=AGAIN)
