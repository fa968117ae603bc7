"""Pictures and long requests of strangers, read by helper programs that stay open."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from bad_pictures import SKIPPED_IMAGES
from neocog.data.files import Limits as Cost
from neocog.data.looks import Order, looks
from neocog.serve.decoding import INLINE, Decoding
from neocog.serve.limits import Limits, RequestError
from neocog.serve.protocol import Output, Spec
from test_workers import trap

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("short_pauses")

__all__ = ["trap"]

PATIENCE = 1.5
LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
SPEC = Spec(
    name="numbers",
    platform="pytorch_safetensors",
    input="samples",
    dtypes=("float32",),
    channels=2,
    size=(5000,),
    outputs=(Output(name="probabilities", dtype="float32", shape=(-1, 3)),),
    classes=("a", "b", "c"),
    batch=64,
)


def encoded(pixels: NDArray[Any], kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def drawn(seed: int, height: int = 8, width: int = 8) -> NDArray[Any]:
    """A picture of H×W×3; its first pixel tells the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels[0, 0] = (seed % 256, seed // 256, 7)
    return pixels


def run(
    test: Callable[[Decoding], Coroutine[Any, Any, None]],
    order: Order | None = None,
    *,
    workers: int = 2,
    patience: float = 20.0,
) -> None:
    """Run it, and see that no task and no thread is left."""
    before = set(threading.enumerate())

    async def whole() -> None:
        decoding = Decoding(order or Order(), workers=workers, patience=patience)
        try:
            async with asyncio.timeout(60):
                await test(decoding)
        finally:
            decoding.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())
    left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith("neocog-")]
    assert not left


async def refused(work: Coroutine[Any, Any, object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await work
    return caught.value


@pytest.mark.parametrize(
    ("kind", "how"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 90})]
)
def test_pixels_are_those_that_pillow_finds(kind: str, how: dict[str, Any]) -> None:
    data = encoded(drawn(3, 60, 90), kind, **how)

    async def test(decoding: Decoding) -> None:
        found = await decoding.picture(data)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert found.dtype == np.uint8
        assert found.flags.writeable
        assert np.array_equal(found, expected)
        grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
        assert np.array_equal((await decoding.picture(encoded(grey)))[..., 0], grey)

    run(test)


def test_it_decodes_as_files_are_decoded() -> None:
    order = Order(cover=(32, 32), whole=16)
    several = [encoded(drawn(5, 300, 200), "JPEG"), encoded(drawn(6, 16, 12)), encoded(drawn(7))]

    async def test(decoding: Decoding) -> None:
        await decoding.start()
        for data in several:
            (batch,) = looks([("x", data)], order)
            (look,) = batch.looks()
            assert np.array_equal(await decoding.picture(data), look.array())

    run(test, order)


@pytest.mark.parametrize("workers", [1, 3])
def test_two_hundred_at_once_each_get_their_own(workers: int) -> None:
    pictures = [drawn(i, 8 + i % 5, 8) for i in range(200)]
    data = [encoded(one) if i % 9 else encoded(one)[:70] for i, one in enumerate(pictures)]

    async def test(decoding: Decoding) -> None:
        found = await asyncio.gather(*map(decoding.picture, data), return_exceptions=True)
        for i, (one, expected) in enumerate(zip(found, pictures, strict=True)):
            if i % 9:
                assert isinstance(one, np.ndarray)
                assert np.array_equal(one, expected)
            else:
                assert isinstance(one, RequestError)
                assert one.status == 400

    run(test, workers=workers)


def test_what_is_wrong_with_a_picture_is_said_without_any_path(tmp_path: Path) -> None:
    """The files of the battery of bad inputs, as bodies."""
    bodies: dict[str, bytes] = {}
    for number, case in enumerate(SKIPPED_IMAGES):
        place = tmp_path / str(number) / "a" / "b" / case.name
        place.parent.mkdir(parents=True)
        if isinstance(case.plant, partial):  # it plants bytes
            case.plant(place)
        if place.is_file() and place.stat().st_size:
            bodies[f"{case.expected[0]} {number}"] = place.read_bytes()
    assert len(bodies) > 15
    bodies["empty-file"] = b""

    async def test(decoding: Decoding) -> None:
        for what, body in bodies.items():
            error = await refused(decoding.picture(body))
            assert error.status == 400, what
            assert error.text.startswith("image: "), what
            assert "/" not in error.text.replace("Git-LFS", ""), error.text
        assert (await decoding.picture(encoded(drawn(1)))).shape == (8, 8, 3)

    run(test, Order(limits=Cost(minimum_side=2)), workers=1)


def test_more_than_a_picture_may_cost_is_refused() -> None:
    async def test(decoding: Decoding) -> None:
        error = await refused(decoding.picture(encoded(np.zeros((20, 20, 3), np.uint8))))
        assert "expected at most 600 bytes decoded, found 1200" in error.text
        error = await refused(decoding.picture(bytes(1201)))
        assert error.text == "image: expected at most 1200 bytes, found 1201"

    run(test, Order(limits=Cost(decoded_bytes=600)))


TRAP = """
def check_bytes(name, data, limits):
    deed = data[-8:]
    with open(home / "log", "a") as log:
        log.write(f"{os.getpid()}\\n")
    if deed == b"crashes!": os.kill(os.getpid(), signal.SIGSEGV)
    if deed == b"is_slow!": time.sleep(0.3)
    if deed == b"freezes!": time.sleep(1000)
    if deed == b"memory!!": bytearray(3 << 30)
    return data
files.check_bytes = check_bytes
"""
"""What helpers do of pictures that end in certain words."""


@pytest.fixture
def deeds(trap: Callable[..., None]) -> None:
    """Helpers that start from now on do them."""
    trap("pass", TRAP)


def helpers(home: Path) -> list[str]:
    """The helper of each picture, in order."""
    return (home / "log").read_text().split()


@LINUX
@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (b"crashes!", "image: the decoder died of this file (exit code -11)"),
        (b"freezes!", "image: the decoder hung on this file: no sign of it for 1.5 s"),
        (b"memory!!", "image: decoding it takes more memory than it may"),
    ],
)
def test_a_helper_takes_its_own_request_along_only(
    tmp_path: Path, deeds: None, deed: bytes, reason: str
) -> None:
    pictures = [drawn(i) for i in range(12)]

    async def test(decoding: Decoding) -> None:
        tasks = [asyncio.ensure_future(decoding.picture(encoded(one))) for one in pictures[:6]]
        bad = asyncio.ensure_future(decoding.picture(encoded(drawn(50)) + deed))
        tasks += [asyncio.ensure_future(decoding.picture(encoded(one))) for one in pictures[6:]]
        for found, expected in zip(await asyncio.gather(*tasks), pictures, strict=True):
            assert np.array_equal(found, expected)
        with pytest.raises(RequestError) as caught:
            await bad
        assert (caught.value.status, caught.value.text) == (400, reason)
        assert np.array_equal(await decoding.picture(encoded(drawn(60))), drawn(60))

    run(test, patience=PATIENCE)
    assert len(helpers(tmp_path)) == 14  # nothing was tried again
    assert len(set(helpers(tmp_path))) <= 3


@LINUX
def test_a_helper_that_ended_while_idle_is_nobodys_fault(tmp_path: Path, deeds: None) -> None:
    async def test(decoding: Decoding) -> None:
        for i in range(3):
            assert np.array_equal(await decoding.picture(encoded(drawn(i))), drawn(i))
            os.kill(int(helpers(tmp_path)[-1]), signal.SIGKILL)
            await asyncio.sleep(0.1)

    run(test, workers=1)
    assert len(set(helpers(tmp_path))) == 3


@LINUX
def test_a_stop_of_the_whole_group_leaves_the_helpers_at_work(tmp_path: Path, deeds: None) -> None:
    async def test(decoding: Decoding) -> None:
        await decoding.picture(encoded(drawn(1)))
        for stop in (signal.SIGTERM, signal.SIGINT):
            os.kill(int(helpers(tmp_path)[0]), stop)
        assert np.array_equal(await decoding.picture(encoded(drawn(2))), drawn(2))

    run(test, workers=1)
    assert len(set(helpers(tmp_path))) == 1


def test_who_leaves_gives_up_a_place(tmp_path: Path, deeds: None) -> None:
    async def test(decoding: Decoding) -> None:
        await decoding.start()
        slow = [
            asyncio.ensure_future(decoding.picture(encoded(drawn(i)) + b"is_slow!"))
            for i in range(6)
        ]
        await asyncio.sleep(0.1)
        for one in slow:
            one.cancel()
        began = time.monotonic()
        assert np.array_equal(await decoding.picture(encoded(drawn(9))), drawn(9))
        assert time.monotonic() - began < 1.2  # one was begun, five were not
        assert all(one.cancelled() for one in slow)

    run(test, workers=1)
    assert len(helpers(tmp_path)) == 2


def test_closing_ends_everything_at_once(tmp_path: Path, deeds: None) -> None:
    async def test(decoding: Decoding) -> None:
        tasks = [
            asyncio.ensure_future(decoding.picture(encoded(drawn(i)) + b"freezes!"))
            for i in range(5)
        ]
        while not (tmp_path / "log").exists() or len(helpers(tmp_path)) < 2:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        decoding.close()
        for task in tasks:
            with pytest.raises(RequestError) as caught:
                await task
            assert caught.value.status == 503
        assert time.monotonic() - began < 3
        assert (await refused(decoding.picture(encoded(drawn(1))))).status == 503
        assert (await refused(decoding.request(b"{}", None, SPEC, Limits()))).status == 503

    run(test)


@LINUX
def test_idle_helpers_do_not_outlive_a_killed_server(
    tmp_path: Path, trap: Callable[..., None]
) -> None:
    trap("pass", "import fcntl; lock = open(home / 'lock', 'w'); fcntl.flock(lock, fcntl.LOCK_SH)")
    program = (
        "import asyncio, time\n"
        "from neocog.data.looks import Order\n"
        "from neocog.serve.decoding import Decoding\n"
        "async def main():\n"
        "    decoding = Decoding(Order(), workers=2, patience=20)\n"
        "    await decoding.start()\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())"
    )
    server = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{program}"],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    with (tmp_path / "lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        server.kill()
        server.wait()
        server.stdout.close()
        for _ in range(100):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        else:
            pytest.fail("a helper still lives")


def body(samples: NDArray[Any], **more: Any) -> bytes:
    """A request in JSON."""
    return json.dumps(
        {
            "id": "mine",
            "inputs": [
                {
                    "name": "samples",
                    "shape": list(samples.shape),
                    "datatype": "FP32",
                    "data": samples.reshape(-1).tolist(),
                    **more,
                }
            ],
            "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
        }
    ).encode()


def normal(count: int) -> NDArray[Any]:
    return np.random.default_rng(count).normal(size=(count, 2, 5000)).astype(np.float32)


def test_long_requests_are_read_as_short_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = normal(3)
    long = body(samples)
    binary = json.loads(body(samples[:0]))
    del binary["inputs"][0]["data"]
    binary["inputs"][0] |= {
        "shape": [3, 2, 5000],
        "parameters": {"binary_data_size": samples.nbytes},
    }
    header = json.dumps(binary).encode()
    assert len(long) > INLINE > len(header)

    async def test(decoding: Decoding) -> None:
        found = await decoding.request(long, None, SPEC, Limits())
        assert decoding._readers is not None  # it took a helper
        assert found.id == "mine"
        assert np.array_equal(found.samples, samples)
        (wanted,) = found.outputs
        assert (wanted.name, wanted.classification) == ("probabilities", 2)
        padded = header + b" " * INLINE
        for start in (header, padded):  # one inline, one by a helper
            raw = start + samples.tobytes()
            found = await decoding.request(raw, len(start), SPEC, Limits())
            assert np.array_equal(found.samples, samples)
        # What is refused is refused in the same words.
        for wrong in (
            long[:-1],
            body(samples, datatype="FP64"),
            body(samples, data=[1.0] * 29_999),
        ):
            error = await refused(decoding.request(wrong, None, SPEC, Limits()))
            with monkeypatch.context() as patch:
                patch.setattr("neocog.serve.decoding.INLINE", 2**30)
                same = await refused(decoding.request(wrong, None, SPEC, Limits()))
            assert (error.status, error.text) == (same.status, same.text)
            assert error.status == 400

    run(test)


@LINUX
def test_a_reader_that_dies_is_replaced(tmp_path: Path, trap: Callable[..., None]) -> None:
    trap(
        "pass",
        "import json\n"
        "def loads(text, *rest, **more):\n"
        "    start = str(text[:100]) if len(text) > 40000 else ''\n"
        "    if 'crashes!' in start: os._exit(9)\n"
        "    if 'fails!' in start: 1 / 0\n"
        "    return whole(text, *rest, **more)\n"
        "if 'parsing' in ' '.join(sys.orig_argv): whole, json.loads = json.loads, loads",
    )
    samples = normal(1)

    async def test(decoding: Decoding) -> None:
        bad = body(samples).replace(b'"mine"', b'"crashes!"')
        error = await refused(decoding.request(bad, None, SPEC, Limits()))
        assert error.status == 400
        assert error.text == "the program that reads requests died of this request (exit code 9)"
        ours = body(samples).replace(b'"mine"', b'"fails!"')
        with pytest.raises(RuntimeError, match=r"(?s)reading a request failed.*ZeroDivisionError"):
            await decoding.request(ours, None, SPEC, Limits())
        found = await decoding.request(body(samples), None, SPEC, Limits())
        assert np.array_equal(found.samples, samples)

    run(test, workers=1)


def test_the_loop_is_free_while_ten_mebibytes_are_read() -> None:
    long = body(normal(50))
    assert len(long) > 9 * 2**20
    limits = Limits(body=2 * len(long))

    async def test(decoding: Decoding) -> None:
        await decoding.request(body(normal(1)), None, SPEC, limits)  # the helper has started
        gc.collect()
        pauses: list[float] = []

        async def tick() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.002)
                pauses.append(time.monotonic() - before)

        ticking = asyncio.ensure_future(tick())
        found = await decoding.request(long, None, SPEC, limits)
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        assert np.array_equal(found.samples, normal(50))
        began = time.monotonic()
        json.loads(long)
        alone = time.monotonic() - began
        assert max(pauses) < max(alone / 2, 0.05)
        assert np.median(pauses) < 0.01

    run(test, workers=1)


def test_large_binary_requests_are_read_beside_the_loop() -> None:
    given = {"name": "samples", "datatype": "FP32", "shape": [64, 2, 5000]}
    size = 64 * 2 * 5000 * 4
    given["parameters"] = {"binary_data_size": size}
    header = json.dumps({"inputs": [given]}).encode()
    samples = normal(64)
    threads: list[int] = []

    async def test(decoding: Decoding) -> None:
        with pytest.MonkeyPatch.context() as patch:
            whole = np.isfinite

            def finite(values: Any) -> Any:
                threads.append(threading.get_ident())
                return whole(values)

            patch.setattr(np, "isfinite", finite)
            raw = header + samples.tobytes()
            found = await decoding.request(raw, len(header), SPEC, Limits())
            assert np.array_equal(found.samples, samples)
            samples[63, 1, 7] = np.nan
            raw = header + samples.tobytes()
            error = await refused(decoding.request(raw, len(header), SPEC, Limits()))
        assert "expected finite numbers, found nan" in error.text
        assert threads
        assert threading.get_ident() not in threads

    run(test)


@LINUX
def test_a_stopped_helper_is_told_of_and_others_go_on(tmp_path: Path, deeds: None) -> None:
    async def test(decoding: Decoding) -> None:
        await decoding.start()
        began = time.monotonic()
        bad = asyncio.ensure_future(decoding.picture(encoded(drawn(1)) + b"is_slow!"))
        while not (tmp_path / "log").exists() or not helpers(tmp_path):
            await asyncio.sleep(0.01)
        os.kill(int(helpers(tmp_path)[0]), signal.SIGSTOP)
        for i in range(5):
            assert np.array_equal(await decoding.picture(encoded(drawn(i))), drawn(i))
        assert not bad.done()
        error = await refused(bad)  # type: ignore[arg-type]
        assert (error.status, "the decoder hung" in error.text) == (400, True)
        assert time.monotonic() - began < Limits().seconds
        assert np.array_equal(await decoding.picture(encoded(drawn(8))), drawn(8))

    run(test, patience=Limits().decode)


def test_readers_start_without_torch_and_pillow() -> None:
    program = (
        "import sys, neocog.serve.parsing; "
        "print(sorted({'torch', 'PIL', 'uvicorn', 'onnxruntime'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
