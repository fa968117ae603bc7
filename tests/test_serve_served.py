"""One model behind HTTP: refusals before its network is asked, and what comes before requests."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from neocog.errors import RunError
from neocog.records import TaskSpec
from neocog.runtime.torch_engine import TorchEngine
from neocog.serve import served as serving
from neocog.serve.limits import Limits
from neocog.serve.metrics import Metrics
from neocog.serve.served import models_of
from serve_rig import Gated, running
from served import CLASSES, small_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neocog.runtime.engine import Engine
    from neocog.serve.served import Served

pytestmark = pytest.mark.usefixtures("short_pauses")

PIXELS = TaskSpec(name="segment", args={"classes": list(CLASSES)})


def gated(**how: Any) -> Gated:
    return Gated(small_bundle(**how).described)


def pixelwise(channels: int = 3) -> Any:
    line = "conv 5 3 pad=same"
    return small_bundle(task=PIXELS, line=line, whole=True, channels=channels)


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def made(engines: Mapping[str, Engine], limits: Limits) -> dict[str, Served]:
    return models_of(engines, limits, metrics=Metrics(), workers=2)


def test_a_picture_whose_answer_would_be_too_large_is_refused() -> None:
    """A small file of many pixels, each of which is answered for."""
    engine = TorchEngine(pixelwise(), threads=1)
    with running({"m": engine}, Limits(decoded=3 * 100 * 100)) as rig:  # 30,000 numbers
        flat = encoded(np.zeros((80, 80, 3), np.uint8))
        answer = rig.ask("POST", "/predict", flat, {"Content-Type": "image/png"})
        assert answer.status == 400
        assert "at most 30000 numbers, found 32000" in answer.json()["error"]
        fits = encoded(np.zeros((60, 100, 3), np.uint8))
        assert rig.ask("POST", "/predict", fits, {"Content-Type": "image/png"}).status == 200


def test_one_answer_for_all_of_a_picture_is_never_too_large() -> None:
    with running({"m": gated()}, Limits(decoded=3 * 100 * 100)) as rig:
        most = encoded(np.zeros((100, 100, 3), np.uint8))
        assert rig.ask("POST", "/predict", most, {"Content-Type": "image/png"}).status == 200


def test_models_share_helpers_where_pictures_are_decoded_alike() -> None:
    async def test() -> None:
        engines = {
            "a": gated(),
            "b": gated(seed=1),
            "grey": gated(channels=1),
            "large": gated(size=(20, 20)),
        }
        models = made(engines, Limits())
        assert models["a"].decoding is models["b"].decoding is models["grey"].decoding
        assert models["large"].decoding is not models["a"].decoding
        picture = encoded(noise(12, 10))
        later = asyncio.get_running_loop().time() + 20
        found = await asyncio.gather(*(one.predict(picture, later) for one in models.values()))
        assert [one["model"] for one in found] == list(engines)
        assert sum(t.name == "neocog-watch" for t in threading.enumerate()) == 2
        for one in models.values():
            await one.close()
        assert not any(t.name.startswith("neocog-") for t in threading.enumerate())

    asyncio.run(test())


class Counting(Gated):
    """Says what it was called with, and takes as long for each sample."""

    def __init__(self, described: Any, seconds: float = 0.0, most: int = 10**9) -> None:
        super().__init__(described)
        self.seconds, self.most = seconds, most
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        self.shapes.append(samples.shape)
        if len(samples) > self.most:
            raise RuntimeError("out of memory\nat /secret/place")
        time.sleep(self.seconds * len(samples))
        return super().__call__(samples)


def warmed(engine: Counting, limits: Limits) -> tuple[int, float]:
    async def test() -> tuple[int, float]:
        (model,) = made({"m": engine}, limits).values()
        try:
            return await model.warm()
        finally:
            await model.close()

    return asyncio.run(test())


def test_the_largest_batch_comes_before_the_first_request() -> None:
    engine = Counting(small_bundle().described)
    count, seconds = warmed(engine, Limits(batch=48))
    assert count == 48
    assert 0 <= seconds < 5
    assert engine.shapes[-1] == (48, 3, 12, 10)
    assert {shape[0] for shape in engine.shapes[:-1]} == {1}


def test_fewer_come_where_it_would_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WARM_SECONDS", 0.2)
    engine = Counting(small_bundle().described, seconds=0.04)
    count, seconds = warmed(engine, Limits(batch=1000))
    assert 1 <= count <= 5
    assert engine.shapes[-1][0] == count
    assert seconds < 2


def test_warming_keeps_to_what_a_call_may_take() -> None:
    engine = Counting(small_bundle().described)
    assert warmed(engine, Limits(batch=1000, decoded=360 * 7))[0] == 7
    masks = Counting(pixelwise().described)
    assert warmed(masks, Limits())[0] == 1
    assert masks.shapes == [(1, 3, 12, 10)]
    signals = Counting(small_bundle(channels=1, size=(16,), line="gap; linear").described)
    assert warmed(signals, Limits(batch=3))[0] == 3
    assert signals.shapes[-1] == (3, 1, 16)


def test_a_network_that_fails_for_a_batch_is_told_of_before_the_first_request() -> None:
    engine = Counting(small_bundle().described, most=20)
    with pytest.raises(RunError, match="fails for 64 samples at once: out of") as caught:
        warmed(engine, Limits())
    assert "secret" not in str(caught.value)
    assert caught.value.hint is not None
    assert "batch=" in caught.value.hint


@pytest.mark.parametrize("size", [100, 2**18 - 60, 2**18, 700_000])
def test_a_file_of_a_form_arrives_as_it_is(size: int) -> None:
    """Also where it is cut in the midst of what might be its end."""
    content = bytearray(b"\r\n--xy\r\n-" * (size // 9) + b"\r\n--x")
    data = encoded(noise(12, 10)) + bytes(content)  # decoders stop where a picture ends
    form = (
        b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nnone\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    )
    engine = gated()
    with running({"m": engine}) as rig:
        seen: list[bytes] = []
        (model,) = rig.app.models.values()
        whole = model.decoding.picture

        async def picture(data: bytes) -> Any:
            seen.append(data)
            return await whole(data)

        model.decoding.picture = picture  # type: ignore[method-assign]
        kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
        answer = rig.ask("POST", "/predict", form + data + b"\r\n--xyz--\r\n", kind)
        assert answer.status in (200, 400), answer.body
        assert seen == [data]
        rig.ask("POST", "/predict", data, {"Content-Type": "image/png"})
        assert seen == [data, data]


def test_live_answers_beside_large_requests_and_long_answers() -> None:
    """Eight binary bodies of some 9 MiB, and answers in JSON as long as they may be."""
    engine = TorchEngine(pixelwise(), threads=1)
    large = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 225, 230]}  # 5 + 1 each
    raw = noise(225, 230).tobytes()
    body = json.dumps({"inputs": [large | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
    length = {"Inference-Header-Content-Length": str(len(body))}
    with running({"m": engine, "gate": gated()}, Limits(answer=2**19)) as rig:
        rig.ask("POST", "/v2/models/m/infer", body + raw, length)

        def ask() -> None:
            for _ in range(3):
                statuses.append(rig.ask("POST", "/v2/models/m/infer", body + raw, length).status)

        statuses: list[int] = []
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for one in threads:
            one.start()
        waits = []
        while any(one.is_alive() for one in threads):
            began = time.monotonic()
            assert rig.ask("GET", "/v2/health/live").status == 200
            waits.append(time.monotonic() - began)
        assert statuses == [200] * 12
        print(sorted(waits)[-5:])
        assert np.median(waits) < 0.1
