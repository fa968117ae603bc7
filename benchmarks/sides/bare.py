"""The ceiling: forward, loss, backward and update on one batch that lies ready, nothing else.

The batch is augmented and normalised before the clock starts. The update is PyTorch's fused kernel,
as in our side; with `kept` freed memory is kept, as our loop does.

Without `choices` in its options the ways of computing that our tuner knows (precision, layout,
threads, compiling) are timed in turn, by code of its own, and the fastest is told. With them, each
is measured, epoch by epoch in turn: the fastest of that search, and what our tuner chose in the
same round where that is another. The faster one is the answer, so that neither a wrong search nor a
wrong tuner lowers the ceiling.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import time
from typing import Any

import nets
import numpy as np
import torch
import torch.nn.functional as F
from figures import LR, MOMENTUM
from pictures import open_pictures

from neocog.host import collected_once, memory_kept
from neocog.machine import multiplies_bf16
from sides import Order, Turns, answer, read_order

__all__ = ["main"]

WARM = 3
"""Steps of each way before the clock starts: memory, kernels, the compiler."""
TURNS = 7
"""Steps of each candidate."""
BEHIND = 1.5
"""A candidate that takes this much longer than the leader is not measured further."""


class Step:
    """A training step done in one way."""

    def __init__(self, order: Order, choice: dict[str, Any]) -> None:
        self.choice = choice
        self.times: list[float] = []
        self.loss = float("nan")
        pictures = open_pictures(order.data, order.net)
        images, labels = zip(*(pictures.one(index) for index in range(order.batch)), strict=True)
        self.images, self.labels = torch.from_numpy(np.stack(images)), torch.tensor(labels)
        network = nets.build(order.net).train()
        if choice["layout"] == "channels_last":
            network = network.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.forward: Any = torch.compile(network) if choice["compile"] else network
        trained = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=LR, momentum=MOMENTUM, fused=True)

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        torch.set_num_threads(self.choice["threads"])
        half = self.choice["precision"] == "bf16"
        began = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                outputs = self.forward(self.images)
            loss = F.cross_entropy(outputs.float(), self.labels)
            loss.backward()
            self.optimizer.step()
        spent = time.perf_counter() - began
        self.loss = loss.item()
        return spent

    @property
    def median(self) -> float:
        """The step's usual time."""
        return statistics.median(self.times)


def _race(crew: list[Step], turns: int) -> Step:
    """Steps in turn; the fastest. Who is far behind after one is not measured further."""
    for one in crew:
        if not one.times:
            one.run(WARM if one.choice["compile"] else 1)
            one.times.append(one.run(1))
    for _ in range(turns - 1):
        lead = min(one.median for one in crew)
        for one in crew:
            if one.median <= BEHIND * lead:
                one.times.append(one.run(1))
    return min(crew, key=lambda one: one.median)


def search(order: Order) -> list[Step]:
    """All candidates, timed, the fastest first."""
    turns = 2 if order.quick else TURNS
    compiled = order.compile == "on"
    # Without instructions for it a first step in bf16 takes minutes.
    precisions = ["fp32"] + ["bf16"] * multiplies_bf16(torch.device("cpu"))
    crew = [
        Step(
            order,
            {"precision": precision, "layout": layout, "threads": order.threads}
            | {"compile": compiled},
        )
        for precision, layout in itertools.product(precisions, ("contiguous", "channels_last"))
    ]
    leader = _race(crew, turns)
    for threads in sorted({1, max(1, order.threads // 2)} - {order.threads}):
        crew.append(Step(order, leader.choice | {"threads": threads}))
        leader = min(leader, _race([leader, crew[-1]], turns), key=lambda one: one.median)
    if order.compile == "auto" and not order.quick:
        crew.append(Step(order, leader.choice | {"compile": True}))
        try:
            _race([leader, crew[-1]], turns)
        except Exception as error:  # noqa: BLE001 - a compiler has a thousand ways to fail
            print(f"not compiled: {error}", file=sys.stderr)
            crew.pop()
    return sorted(crew, key=lambda one: one.median)


def measure(order: Order, choices: list[dict[str, Any]]) -> None:
    """Epochs of each way in turn; answers with the faster one."""
    crew = [Step(order, choice) for choice in choices]
    steps = order.images // order.batch
    for one in crew:
        one.run(WARM)
    turns = Turns(order)
    seconds: list[list[float]] = [[] for _ in crew]
    while not turns.over(min(seconds, key=sum)):
        for one, times in zip(crew, seconds, strict=True):
            times.append(one.run(steps))
    rates = [turns.rates(times) for times in seconds]
    best = max(range(len(crew)), key=lambda index: statistics.median(rates[index]))
    answer(
        rates[best],
        **crew[best].choice,
        loss=crew[best].loss,
        tried=[choice | {"rates": each} for choice, each in zip(choices, rates, strict=True)],
        augmentation="none in the loop: one batch",
    )


def main() -> None:
    """The search, or one round of the choices."""
    order = read_order()
    with contextlib.ExitStack() as outside:
        if order.options["kept"]:
            outside.enter_context(memory_kept())
            outside.enter_context(collected_once())
        if choices := order.options.get("choices"):
            measure(order, choices)
        else:
            seek(order)


def seek(order: Order) -> None:
    """Answers with the candidates and the fastest of them."""
    found = search(order)
    answer(
        [order.batch / found[0].median],
        choice=found[0].choice,
        candidates=[one.choice | {"images_per_second": order.batch / one.median} for one in found],
    )


if __name__ == "__main__":
    main()
