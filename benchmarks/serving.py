"""Does the server stay up, answer right, and answer fast, beside clients that mean it harm?

    python benchmarks/serving.py RUN IMAGES                 # some five minutes
    python benchmarks/serving.py RUN IMAGES --calm 20 --rush 10

RUN is a trained run or an exported file, IMAGES a folder of pictures. `neocog serve` runs as a
process of its own. Told are:

1. the rate at saturation, beside that of the bare engine on batches of the mean size that the
   server made, measured before and after on the same machine;
2. `--calm` seconds of requests that come by chance (Poisson) at 70 % of that rate, then `--rush`
   seconds at three times as many, while other clients send headers and bodies a byte at a time,
   bodies that are too large, pictures that are bombs, and JSON that nests: every answer that is
   given must be the offline one, every refusal a 429 or 503; how long `/v2/health/live` takes;
   how the resident memory of the server and its helpers moves;
3. SIGTERM under load: no request whose body was accepted may stay without an answer.

The exit code is 1 where one of the bars is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import io
import json
import logging
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from neocog.runtime.opened import open_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOLERANCE = 1e-5
"""Largest difference of a probability: batches of other sizes add in another order."""


@dataclasses.dataclass
class Told:
    """What came back."""

    codes: Counter[str] = dataclasses.field(default_factory=Counter)
    wrong: int = 0
    worst: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)
    unsent: int = 0

    def line(self) -> str:
        """In a line."""
        codes = ", ".join(f"{count} × {code}" for code, count in sorted(self.codes.items()))
        found = f"{codes or 'nothing'}; {self.wrong} wrong, largest difference {self.worst:.1e}"
        if self.seconds:
            half, high = np.percentile(self.seconds, [50, 99]) * 1000
            found += f"; median {half:.0f} ms, 99 % {high:.0f} ms"
        return found + (f"; {self.unsent} not sent for want of connections" * bool(self.unsent))


@dataclasses.dataclass
class Ask:
    """A request that is ready, and its offline answer."""

    raw: bytes
    answer: np.ndarray[Any, Any]


def requests(model: str, samples: np.ndarray[Any, Any], answers: Any, each: int) -> list[Ask]:
    """Binary inference requests of `each` samples."""
    found = []
    for at in range(0, len(samples) - each + 1, each):
        some = np.ascontiguousarray(samples[at : at + each])
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "images",
                        "shape": list(some.shape),
                        "datatype": "UINT8",
                        "parameters": {"binary_data_size": some.nbytes},
                    }
                ],
                "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
            }
        ).encode()
        lines = (
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\n"
            f"Content-Type: application/octet-stream\r\n"
            f"Content-Length: {len(head) + some.nbytes}\r\n\r\n"
        ).encode()
        found.append(Ask(lines + head + some.tobytes(), answers[at : at + each]))
    return found


class Link:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes, and read an answer; once more on a fresh connection where a kept one was
        closed meanwhile, as every client does."""
        kept = self.writer is not None
        try:
            return await self._ask(raw)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            if not kept or getattr(error, "partial", b""):
                raise
            self.close()
            return await self._ask(raw)

    async def _ask(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        self.writer.write(raw)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        fields = {k.lower(): v.strip() for k, v in (one.split(":", 1) for one in lines)}
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection", "").lower() == "close":
            self.close()
        return int(first.split()[1]), fields, body

    def close(self) -> None:
        """End it."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def once(link: Link, ask: Ask, told: Told) -> None:
    """One request, compared."""
    began = time.perf_counter()
    try:
        status, fields, body = await asyncio.wait_for(link.ask(ask.raw), 30)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        told.codes[f"lost ({type(error).__name__})"] += 1
        link.close()
        return
    told.codes[str(status)] += 1
    if status != 200:
        return
    told.seconds.append(time.perf_counter() - began)
    at = int(fields["inference-header-content-length"])
    got = np.frombuffer(body[at:], np.float32).reshape(ask.answer.shape)
    gap = float(np.abs(got - ask.answer).max())
    told.worst = max(told.worst, gap)
    told.wrong += gap > TOLERANCE or bool((got.argmax(1) != ask.answer.argmax(1)).any())


async def saturate(port: int, asks: list[Ask], seconds: float, clients: int) -> tuple[float, Told]:
    """Clients that each ask again as soon as they are answered: samples a second."""
    told, ends = Told(), time.monotonic() + seconds

    async def client(number: int) -> None:
        link, at = Link(port), number
        while time.monotonic() < ends:
            await once(link, asks[at % len(asks)], told)
            at += clients
        link.close()

    began = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(clients)))
    served = told.codes["200"] * len(asks[0].answer)
    return served / (time.monotonic() - began), told


async def poisson(port: int, asks: list[Ask], rate: float, seconds: float, told: Told) -> None:
    """Requests that come by chance, `rate` a second, whatever becomes of those before."""
    free: list[Link] = []
    count, tasks = 0, set()
    chance, due = random.Random(0), time.monotonic()
    ends = due + seconds

    async def one(ask: Ask) -> None:
        nonlocal count
        link = free.pop() if free else Link(port)
        await once(link, ask, told)
        free.append(link)
        count -= 1

    while due < ends:
        due += chance.expovariate(rate)
        wait = due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        if count >= 300:
            told.unsent += 1
            continue
        count += 1
        task = asyncio.create_task(one(chance.choice(asks)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for link in free:
        link.close()


def bomb() -> bytes:
    """A PNG of a few kilobytes whose header and data promise 20,000×20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(4_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


async def harm(port: int, kind: str, seen: Counter[str]) -> None:
    """A client that means harm, again and again."""
    post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "png")
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if kind == "slow header":
                for byte in b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 60:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.4)
            elif kind == "slow body":
                writer.write(post + b"Content-Length: 1000\r\n\r\n")
                for byte in small.getvalue()[:60]:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.4)
            elif kind == "oversize":
                writer.write(post + b"Content-Length: 99000000\r\n\r\n" + bytes(200_000))
            elif kind == "oversize in chunks":
                writer.write(post + b"Transfer-Encoding: chunked\r\n\r\n")
                for _ in range(200):
                    writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                    await writer.drain()
            elif kind == "bomb":
                data = bomb()
                writer.write(post + b"Content-Length: %d\r\n\r\n" % len(data) + data)
            elif kind == "nested":
                data = b"[" * 100_000
                line = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n"
                writer.write(line + b"Content-Length: %d\r\n\r\n" % len(data) + data)
            elif kind == "half open":
                writer.write(post + b"Content-Length: 100\r\n\r\n")
                await asyncio.sleep(2)
                writer.close()
                continue
            first = await asyncio.wait_for(reader.readline(), 40)
            seen[f"{kind}: {(first.split() or [b'', b'closed'])[1].decode()}"] += 1
            writer.close()
        except (OSError, TimeoutError):
            seen[f"{kind}: cut off"] += 1
        await asyncio.sleep(0.5)


HARM = ("slow header", "slow body", "oversize", "oversize in chunks", "bomb", "nested", "half open")


LIVE = """
import http.client, json, sys, time
port, ends, found = int(sys.argv[1]), time.monotonic() + float(sys.argv[2]), []
while time.monotonic() < ends:
    began = time.perf_counter()
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    link.request("GET", "/v2/health/live")
    answer = link.getresponse()
    answer.read()
    link.close()
    found.append(time.perf_counter() - began if answer.status == 200 else 9.0)
    time.sleep(0.1)
print(json.dumps(found))
"""


@contextlib.asynccontextmanager
async def live(port: int, seconds: float, found: list[float]) -> AsyncIterator[None]:
    """How long `live` takes, ten times a second, each time on a connection of its own; asked by a
    program of its own, since this one is busy."""
    asking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LIVE, str(port), str(seconds)), stdout=asyncio.subprocess.PIPE
    )
    yield
    said, _ = await asking.communicate()
    found += json.loads(said)


def memory(pid: int) -> int:
    """Bytes that a process and its children hold, shared pages counted in part."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return total


async def watch(pid: int, found: list[tuple[float, int]]) -> None:
    """Memory once a second."""
    began = time.monotonic()
    while True:
        found.append((time.monotonic() - began, memory(pid)))
        await asyncio.sleep(1)


async def storm(port: int, pid: int, asks: list[Ask], rate: float, calm: float, rush: float) -> Any:
    """The second part."""
    seen: Counter[str] = Counter()
    pings: list[float] = []
    held: list[tuple[float, int]] = []
    beside = [asyncio.create_task(harm(port, kind, seen)) for kind in HARM for _ in range(2)]
    beside.append(asyncio.create_task(watch(pid, held)))
    first, second = Told(), Told()
    late: list[float] = []
    async with live(port, calm, pings):
        await poisson(port, asks, 0.7 * rate, calm, first)
    async with live(port, rush, late):
        await poisson(port, asks, 3 * 0.7 * rate, rush, second)
    for task in beside:
        task.cancel()
    found = await asyncio.gather(*beside, return_exceptions=True)
    for one in found:
        if isinstance(one, Exception) and not isinstance(one, asyncio.CancelledError):
            raise one
    return first, second, seen, (pings, late), held


async def term(port: int, process: subprocess.Popen[str], asks: list[Ask]) -> tuple[Told, float]:
    """SIGTERM while 24 clients ask: what became of the requests that were sent before it.

    Those that come later may find nobody listening; they are not counted.
    """
    told, began = Told(), float("inf")

    async def client(number: int) -> None:
        link, at = Link(port), number
        while process.poll() is None:
            own, sent = Told(), time.monotonic()
            await once(link, asks[at % len(asks)], own)
            if sent < began:
                told.codes += own.codes
                told.wrong += own.wrong
                told.worst = max(told.worst, own.worst)
            at += 24
            await asyncio.sleep(0.01)

    clients = [asyncio.create_task(client(number)) for number in range(24)]
    await asyncio.sleep(2)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, 60)
    took = time.monotonic() - began
    await asyncio.gather(*clients)
    return told, took


def bare(engine: Any, samples: np.ndarray[Any, Any], batch: int, seconds: float) -> float:
    """Samples a second of the engine by itself."""
    some = np.ascontiguousarray(np.resize(samples, (batch, *samples.shape[1:])))
    engine(some)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        engine(some)
        count += batch
    return count / (time.perf_counter() - began)


def calls(port: int) -> tuple[float, float]:
    """Samples that the network answered for, and calls of it, from the server's own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    sums = {"sum": 0.0, "count": 0.0}
    for line in text.splitlines():
        for what in sums:
            if line.startswith(f"neocog_batch_size_{what}"):
                sums[what] += float(line.split()[-1])
    return sums["sum"], sums["count"]


def main() -> int:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("images", type=Path)
    parser.add_argument("--calm", type=float, default=120)
    parser.add_argument("--rush", type=float, default=60)
    parser.add_argument("--each", type=int, default=4, help="samples of a request")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    threads = options.threads or len(os.sched_getaffinity(0))
    engine = open_engine(Path(options.run), engine=options.engine, threads=threads)
    size = engine.described.input.size
    files = sorted(one for one in options.images.rglob("*") if one.is_file())
    random.Random(0).shuffle(files)
    pictures = [Image.open(one).convert("RGB").resize((size[1], size[0])) for one in files[:512]]
    samples = np.stack([np.asarray(one).transpose(2, 0, 1) for one in pictures])
    answers = np.concatenate([engine(samples[at : at + 64]) for at in range(0, len(samples), 64)])
    command = [sys.executable, "-m", "neocog", "serve", f"m={options.run}", "--port", "0", "--json"]
    command += ["--engine", options.engine, "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}") or text.count("{") != text.count("}"):
        line = process.stdout.readline()
        if not line:
            print("the server did not start", file=sys.stderr)
            return 1
        text += line
    port = json.loads(text)["port"]
    asks = requests("m", samples, answers, options.each)
    try:
        asyncio.run(saturate(port, asks, 3, 24))
        rates, bares = [], []
        for _ in range(3):
            before = calls(port)
            rates.append(asyncio.run(saturate(port, asks, 6, 24))[0])
            samples_more, calls_more = (a - b for a, b in zip(calls(port), before, strict=True))
            batch = round(samples_more / calls_more)
            bares.append(bare(engine, samples, batch, 4))
        rate, alone = statistics.median(rates), statistics.median(bares)
        share = statistics.median(a / b for a, b in zip(rates, bares, strict=True))
        print(
            f"saturation: {rate:.0f} samples a second in requests of {options.each}; the bare "
            f"engine {alone:.0f} in batches of {batch}: {share:.2f} of it (bar 0.8)"
        )
        first, second, seen, pings, held = asyncio.run(
            storm(port, process.pid, asks, rate / options.each, options.calm, options.rush)
        )
        print(f"calm, 70 %: {first.line()}")
        print(f"rush, 210 %: {second.line()}")
        for name, one in zip(("calm", "rush"), pings, strict=True):
            print(
                f"live, {name}: median {1000 * statistics.median(one):.1f} ms, "
                f"longest {1000 * max(one):.0f} ms of {len(one)} (bar 100 ms)"
            )
        print("harm: " + ", ".join(f"{count} × {what}" for what, count in sorted(seen.items())))
        settled = min(30.0, held[-1][0] / 3)
        warm = [size for at, size in held if settled <= at < settled + 15]
        last = [size for at, size in held if at > held[-1][0] - 10]
        drift = statistics.mean(last) / statistics.mean(warm) - 1
        print(
            f"memory: {statistics.mean(warm) / 2**20:.0f} MiB after {settled:.0f} s, "
            f"{statistics.mean(last) / 2**20:.0f} MiB at the end: {100 * drift:+.1f} % (bar 5 %)"
        )
        ended, took = asyncio.run(term(port, process, asks))
        print(f"SIGTERM: {ended.line()}; ended after {took:.1f} s with code {process.returncode}")
    finally:
        process.kill()
    codes = set(first.codes) | set(second.codes) | set(ended.codes)
    checks = {
        "rate": share >= 0.8,
        "answers": not (first.wrong + second.wrong + ended.wrong),
        "refusals": codes <= {"200", "429", "503"},
        "live": max(pings[0] + pings[1]) < 0.1,
        "memory": abs(drift) < 0.05,
        "SIGTERM": process.returncode == 0,
    }
    print(", ".join(f"{name}: {'ok' if good else 'MISSED'}" for name, good in checks.items()))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # of sockets that others closed
    torch.set_grad_enabled(False)
    sys.exit(main())
