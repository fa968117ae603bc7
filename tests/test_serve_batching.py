"""Requests that share calls of a network: whose answer is whose, and what waits how long."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neocog.serve.batching import Batcher
from neocog.serve.limits import Limits, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from numpy.typing import NDArray

    from neocog.described import Described
    from neocog.runtime.engine import Kind

pytestmark = pytest.mark.usefixtures("short_pauses")

SHAPES = ((1, 2, 2), (1, 3, 2), (2, 5))


class Fake:
    """Answers each sample with its first number, its product with 3, and its last; says so."""

    kind: Kind = "torch"
    settings: dict[str, Any] = {}  # noqa: RUF012 - as the protocol has it
    described: Described
    digest = ""
    dtypes = ("uint8",)

    def __init__(self, work: Callable[[NDArray[Any]], object] = lambda samples: None) -> None:
        self.work = work
        self.calls: list[tuple[tuple[int, ...], list[float]]] = []
        self.threads: set[int] = set()

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        flat = samples.reshape(len(samples), -1)
        self.threads.add(threading.get_ident())
        self.calls.append((samples.shape, flat[:, 0].tolist()))
        self.work(samples)
        return np.stack([flat[:, 0], flat[:, 0] * 3, flat[:, -1]], axis=1).astype(np.float32)

    @property
    def sizes(self) -> list[int]:
        return [shape[0] for shape, _ in self.calls]


class Gate:
    """Work that takes until it is let go, and says when it has begun."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.free = threading.Semaphore(0)

    def __call__(self, samples: NDArray[Any]) -> None:
        self.began.release()
        assert self.free.acquire(timeout=20)


def rows(first: float, count: int = 1, shape: tuple[int, ...] = SHAPES[0]) -> NDArray[Any]:
    """`count` samples; the first number of each is `first`, `first` + 1, …, the last minus that."""
    samples = np.zeros((count, *shape), np.float32)
    flat = samples.reshape(count, -1)
    flat[:, 0] = np.arange(first, first + count)
    flat[:, -1] = -flat[:, 0]
    return samples


def right(answer: NDArray[Any], first: float, count: int = 1) -> bool:
    ids = np.arange(first, first + count, dtype=np.float32)
    return np.array_equal(answer, np.stack([ids, 3 * ids, -ids], axis=1))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it, and see that no task is left."""

    async def whole() -> None:
        async with asyncio.timeout(30):
            await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


def later(seconds: float = 10.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def begun(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.began.acquire, timeout=20)


async def refused(work: Coroutine[Any, Any, object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await work
    return caught.value


def test_thousands_at_once_each_get_their_own() -> None:
    chance = np.random.default_rng(3)
    counts = chance.integers(1, 6, 3000)
    shapes = chance.integers(0, len(SHAPES), 3000)
    starts = np.cumsum(counts) - counts

    async def test() -> None:
        engine = Fake()
        batcher = Batcher(engine, Limits(queue=5000, batch=16))

        async def one(i: int) -> None:
            await asyncio.sleep(float(i % 17) / 1000)
            first, count = int(starts[i]), int(counts[i])
            samples = rows(first, count, SHAPES[shapes[i]])
            assert right(await batcher.answer(samples, later(25)), first, count)

        await asyncio.gather(*(one(i) for i in range(3000)))
        assert sum(engine.sizes) == counts.sum()
        assert max(engine.sizes) <= 16
        assert len(engine.sizes) < 3000 / 3
        assert len(engine.threads) == 1
        assert batcher.waiting == 0
        batcher.close()

    run(test)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # shape
            st.integers(1, 4),  # samples
            st.sampled_from([0, 0, 0.001, 0.003]),  # pause before it
            st.sampled_from(["stays", "stays", "stays", "leaves", "late"]),
        ),
        max_size=25,
    ),
    st.sampled_from([0.0, 0.002]),
)
def test_any_order_of_arrivals(plan: list[tuple[int, int, float, str]], latency: float) -> None:
    async def test() -> None:
        engine = Fake(lambda _: time.sleep(0.001))
        batcher = Batcher(engine, Limits(queue=100, batch=4, latency=latency))
        asked: list[tuple[int, int, str, asyncio.Task[NDArray[Any]]]] = []
        first = 0
        for shape, count, pause, fate in plan:
            await asyncio.sleep(pause)
            deadline = later(0.002 if fate == "late" else 10)
            work = batcher.answer(rows(first, count, SHAPES[shape]), deadline)
            asked.append((first, count, fate, asyncio.ensure_future(work)))
            first += count
        await asyncio.sleep(0)
        for _, _, fate, task in asked:
            if fate == "leaves":
                task.cancel()
        for start, count, fate, task in asked:
            (found,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(found, RequestError):
                assert (found.status, fate) == (504, "late")
            elif isinstance(found, BaseException):
                assert (type(found), fate) == (asyncio.CancelledError, "leaves")
            else:
                assert right(found, start, count)
        assert batcher.waiting == 0
        await batcher.drain()
        batcher.close()
        computed = [number for _, numbers in engine.calls for number in numbers]
        assert len(computed) == len(set(computed))  # nothing twice
        for i, shape in enumerate(SHAPES):  # and of each kind in order
            mine = [n for size, numbers in engine.calls for n in numbers if size[1:] == shape]
            assert mine == sorted(mine), i

    run(test)


def test_while_the_network_is_busy_the_next_batch_gathers() -> None:
    async def test() -> None:
        gate = Gate()
        engine = Fake(gate)
        seen: list[tuple[int, float]] = []
        batcher = Batcher(
            engine,
            Limits(queue=40, batch=8, latency=0),
            observe=lambda samples, seconds: seen.append((samples, seconds)),
        )
        tasks = [asyncio.ensure_future(batcher.answer(rows(0), later()))]
        await begun(gate)
        plan = [(10, 3, 0), (20, 3, 0), (30, 1, 1), (40, 3, 0), (50, 1, 0), (60, 8, 1)]
        for first, count, shape in plan:
            work = batcher.answer(rows(first, count, SHAPES[shape]), later())
            tasks.append(asyncio.ensure_future(work))
        await asyncio.sleep(0.01)
        assert batcher.waiting == 6
        gate.free.release(10)
        answers = await asyncio.gather(*tasks)
        assert [shape[0] for shape, _ in engine.calls] == [1, 6, 1, 4, 8]
        assert [shape[1:] for shape, _ in engine.calls] == [SHAPES[i] for i in (0, 0, 1, 0, 1)]
        assert all(
            right(answer, first, count)
            for answer, (first, count, _) in zip(answers[1:], plan, strict=True)
        )
        assert [samples for samples, _ in seen] == [1, 6, 1, 4, 8]
        assert seen[0][1] >= 0.01
        batcher.close()

    run(test)


@pytest.mark.parametrize("latency", [0.0, 0.2])
def test_an_idle_network_waits_for_company_and_no_longer(latency: float) -> None:
    async def test() -> None:
        engine = Fake()
        batcher = Batcher(engine, Limits(batch=4, latency=latency))
        began = time.monotonic()
        first = asyncio.ensure_future(batcher.answer(rows(1), later()))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, batcher.answer(rows(2), later()))
        took = time.monotonic() - began
        assert engine.sizes == ([2] if latency else [1, 1])
        assert latency <= took < latency + 0.15
        began = time.monotonic()
        await asyncio.gather(*(batcher.answer(rows(i), later()) for i in range(4)))
        if latency:  # a batch that is full goes at once
            assert engine.sizes[1:] == [4]
        assert time.monotonic() - began < 0.15
        batcher.close()

    run(test)


def test_types_are_not_mixed_and_answers_are_ones_own_memory() -> None:
    async def test() -> None:
        kept = np.zeros((64, 3), np.float32)

        class Reusing(Fake):
            def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
                answers = super().__call__(samples)
                kept[: len(samples)] = answers  # as libraries with a buffer of their own do
                return kept[: len(samples)]

        engine = Reusing()
        batcher = Batcher(engine, Limits(latency=0.01))
        small = rows(7).astype(np.int16)
        one, two, three = await asyncio.gather(
            batcher.answer(rows(5), later()),
            batcher.answer(small, later()),
            batcher.answer(rows(6), later()),
        )
        kept[:] = np.nan
        assert right(one, 5)
        assert right(two, 7)
        assert right(three, 6)
        assert engine.sizes == [2, 1]
        assert all(answer.base is None and answer.size == 3 for answer in (one, two, three))
        batcher.close()

    run(test)


def test_a_full_queue_refuses_at_once() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = Batcher(Fake(gate), Limits(queue=3, latency=0, batch=4))
        tasks = [asyncio.ensure_future(batcher.answer(rows(0), later()))]
        await begun(gate)
        tasks += [asyncio.ensure_future(batcher.answer(rows(i), later())) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        error = await refused(batcher.answer(rows(4), later()))
        assert (error.status, error.retry_after) == (429, 1)
        tasks[2].cancel()  # a client that is gone makes room
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        tasks[2] = asyncio.ensure_future(batcher.answer(rows(2), later()))
        gate.free.release(5)
        for i, answer in enumerate(await asyncio.gather(*tasks)):
            assert right(answer, i)
        assert (await refused(batcher.answer(rows(0, 5), later()))).status == 400
        batcher.close()

    run(test)


def test_past_its_deadline_a_request_is_refused_then_and_never_computed() -> None:
    async def test() -> None:
        gate = Gate()
        engine = Fake(gate)
        batcher = Batcher(engine, Limits(latency=0))
        busy = asyncio.ensure_future(batcher.answer(rows(1), later()))
        await begun(gate)
        began = time.monotonic()
        waits = asyncio.ensure_future(batcher.answer(rows(2), later()))
        error = await refused(batcher.answer(rows(3), later(0.05)))
        assert error.status == 504
        assert 0.045 < time.monotonic() - began < 0.2
        # A loop that comes late must not compute it either.
        last = asyncio.ensure_future(batcher.answer(rows(4), later(0.02)))
        await asyncio.sleep(0)
        gate.free.release(2)
        time.sleep(0.05)
        assert (await refused(last)).status == 504  # type: ignore[arg-type]
        assert right(await busy, 1)
        assert right(await waits, 2)
        assert (await refused(batcher.answer(rows(5), later(-1)))).status == 504
        await asyncio.sleep(0.02)
        assert [numbers for _, numbers in engine.calls] == [[1], [2]]
        # One whose time ends while it is computed is refused then, too; the network goes on.
        error = await refused(batcher.answer(rows(6), later(0.03)))
        assert error.status == 504
        gate.free.release(2)
        assert right(await batcher.answer(rows(7), later()), 7)
        batcher.close()

    run(test)


def test_who_leaves_is_not_computed_and_the_rest_is_not_forgotten() -> None:
    async def test() -> None:
        engine = Fake()
        batcher = Batcher(engine, Limits(latency=0.05))
        gone = asyncio.ensure_future(batcher.answer(rows(1), later()))
        stays = asyncio.ensure_future(batcher.answer(rows(2), later()))
        await asyncio.sleep(0.01)
        gone.cancel()
        assert right(await stays, 2)
        assert gone.cancelled()
        assert [numbers for _, numbers in engine.calls] == [[2]]
        alone = asyncio.ensure_future(batcher.answer(rows(3), later()))
        await asyncio.sleep(0.01)
        alone.cancel()
        await asyncio.sleep(0.1)
        assert len(engine.calls) == 1
        assert right(await batcher.answer(rows(4), later()), 4)
        batcher.close()

    run(test)


def test_an_engine_that_fails_fails_its_requests_only() -> None:
    async def test() -> None:
        def fail(samples: NDArray[Any]) -> None:
            flat = samples.reshape(len(samples), -1)[:, 0]
            if (flat == 13).any():
                raise RuntimeError("out of luck")
            if (flat == 14).any():
                raise ValueError("expected another size")
            if (flat == 15).any():
                raise TimeoutError("of the engine's own")

        engine = Fake(fail)
        batcher = Batcher(engine, Limits(latency=0.01))

        async def asked(*numbers: int) -> list[Any]:
            work = (batcher.answer(rows(i), later()) for i in numbers)
            return await asyncio.gather(*work, return_exceptions=True)

        assert [type(one) for one in await asked(12, 13)] == [RuntimeError] * 2
        (alone,) = await asked(14)
        assert (alone.status, alone.text) == (400, "expected another size")
        good, bad, fine = await asked(1, 14, 2)  # a bad one cannot spoil the others
        assert right(good, 1)
        assert right(fine, 2)
        assert bad.status == 400
        (own,) = await asked(15)
        assert isinstance(own, TimeoutError)
        assert right((await asked(3))[0], 3)
        short = Batcher(
            type("Short", (Fake,), {"__call__": lambda *_: np.zeros((1, 3))})(), Limits()
        )
        with pytest.raises(RuntimeError, match="expected 2 answers of the engine, found 1"):
            await short.answer(rows(1, 2), later())
        batcher.close()
        short.close()

    run(test)


def test_draining_answers_what_was_accepted() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = Batcher(Fake(gate), Limits(latency=5.0, batch=2))
        tasks = [asyncio.ensure_future(batcher.answer(rows(i), later())) for i in range(3)]
        await begun(gate)  # the first two
        end = asyncio.ensure_future(batcher.drain())
        await asyncio.sleep(0.01)
        assert (await refused(batcher.answer(rows(9), later()))).status == 503
        assert not end.done()
        gate.free.release(2)
        for i, answer in enumerate(await asyncio.gather(*tasks)):
            assert right(answer, i)
        await end
        await batcher.drain()
        batcher.close()
        idle = Batcher(Fake(), Limits(latency=5.0))
        waits = asyncio.ensure_future(idle.answer(rows(1), later()))
        await asyncio.sleep(0)
        began = time.monotonic()
        await idle.drain()
        assert time.monotonic() - began < 1  # nobody waits for company that cannot come
        assert right(await waits, 1)
        idle.close()

    run(test)


def test_closing_refuses_all_and_waits_for_nobody() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = Batcher(Fake(gate), Limits(latency=0))
        busy = asyncio.ensure_future(batcher.answer(rows(1), later()))
        await begun(gate)
        waits = asyncio.ensure_future(batcher.answer(rows(2), later()))
        await asyncio.sleep(0)
        batcher.close()
        for one in (busy, waits):
            assert (await refused(one)).status == 503  # type: ignore[arg-type]
        assert (await refused(batcher.answer(rows(3), later()))).status == 503
        await batcher.drain()
        gate.free.release()

    run(test)


def test_the_loop_stays_responsive_while_the_network_computes() -> None:
    async def test() -> None:
        noise = bytes(16 * 2**20)
        batcher = Batcher(Fake(lambda _: hashlib.sha256(noise)), Limits(latency=0, queue=100))
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                ticks.append(time.monotonic() - before)

        ticking = asyncio.ensure_future(tick())
        began = time.monotonic()
        while time.monotonic() - began < 1:
            await asyncio.gather(*(batcher.answer(rows(i), later()) for i in range(8)))
        took = time.monotonic() - began
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        assert len(ticks) > took / 0.005 / 4  # four times slower, where all cores are busy
        assert np.median(ticks) < 0.015
        batcher.close()

    run(test)


def test_samples_that_wait_take_so_much_memory_and_no_more() -> None:
    async def test() -> None:
        gate = Gate()
        size = rows(0).nbytes
        batcher = Batcher(Fake(gate), Limits(queue=50, latency=0, batch=1, waiting=3 * size))
        tasks = [asyncio.ensure_future(batcher.answer(rows(0), later()))]
        await begun(gate)  # what is computed waits no longer
        tasks += [asyncio.ensure_future(batcher.answer(rows(i), later())) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        error = await refused(batcher.answer(rows(4), later()))
        assert (error.status, error.retry_after) == (429, 1)
        assert f"{3 * size} bytes" in error.text
        gate.free.release(5)
        for i, answer in enumerate(await asyncio.gather(*tasks)):
            assert right(answer, i)
        # What alone is larger is let in while nothing waits: a limit of requests refuses it.
        large = Batcher(Fake(), Limits(latency=0, waiting=1))
        assert right(await large.answer(rows(5), later()), 5)
        large.close()
        batcher.close()

    run(test)


@pytest.mark.parametrize("columns", [0, 40])
def test_a_call_takes_what_a_request_may_and_no_more(columns: int) -> None:
    async def test() -> None:
        gate = Gate()
        engine = Fake(gate)
        one = max(rows(0).nbytes, 4 * columns)  # 2×2 pixels, each answered by so many numbers
        limits = Limits(queue=50, latency=0, batch=64, decoded=2 * one + 1)
        batcher = Batcher(engine, limits, columns=columns)
        tasks = [asyncio.ensure_future(batcher.answer(rows(0), later()))]
        await begun(gate)
        tasks += [asyncio.ensure_future(batcher.answer(rows(i), later())) for i in range(1, 6)]
        tasks.append(asyncio.ensure_future(batcher.answer(rows(6, 5), later())))  # alone too large
        await asyncio.sleep(0)
        gate.free.release(9)
        for i, answer in enumerate(await asyncio.gather(*tasks)):
            assert right(answer, i, 1 if i < 6 else 5)
        assert engine.sizes == [1, 2, 2, 1, 5]
        batcher.close()

    run(test)


def test_engines_are_given_what_they_may_write() -> None:
    async def test() -> None:
        seen: list[tuple[bool, bool]] = []

        def look(samples: NDArray[Any]) -> None:
            seen.append((samples.flags.writeable, np.shares_memory(samples, mine)))

        batcher = Batcher(Fake(look), Limits(latency=0))
        mine = rows(3)
        assert right(await batcher.answer(mine, later()), 3)
        mine.flags.writeable = False
        assert right(await batcher.answer(mine, later()), 3)
        assert seen == [(True, True), (True, False)]
        batcher.close()

    run(test)


def test_the_first_calls_come_before_the_first_request() -> None:
    async def test() -> None:
        engine = Fake(lambda _: time.sleep(0.05))
        counted: list[int] = []
        batcher = Batcher(
            engine, Limits(latency=0), observe=lambda samples, seconds: counted.append(samples)
        )
        assert 0.05 <= await batcher.warm(rows(0, 9)) < 5
        assert engine.sizes == [9]
        assert not counted  # nobody asked
        assert right(await batcher.answer(rows(1), later()), 1)
        assert len(engine.threads) == 1  # of the same thread as all later ones
        batcher.close()

    run(test)
