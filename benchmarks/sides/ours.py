"""Our side: `neocog.fit` from a file to a run folder, with everything on.

The rate comes from the run's own events: training steps with augmentation, statistics, events and
progress, and the checkpoint. That one is written once an epoch, so it is charged at the share that
the measured epoch has of one of `EPOCH` pictures. Validation is on, and not counted: no other side
has one. The run is announced as a long one and stopped when enough is measured, so that the tuner
decides as it would for real; every round tunes afresh.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nets
import torch
from figures import EPOCH, LR, MOMENTUM

import neocog
from neocog.config import (
    AugmentRecipe,
    DataRecipe,
    EngineRecipe,
    OptimRecipe,
    Recipe,
    ScheduleRecipe,
)
from sides import Order, Turns, answer, read_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from neocog.engine.control import Control
    from neocog.records import Event

__all__ = ["main", "spent"]


def recipe(order: Order) -> Recipe:
    """What the other sides do, in our words."""
    figure = order.net
    return Recipe(
        data=DataRecipe(source=order.data),
        augment=AugmentRecipe(
            flip=0.5 if figure.flip else 0.0, shift=figure.shift / figure.size, padding="zero"
        ),
        optim=OptimRecipe(name="momentum", momentum=MOMENTUM, lr=LR, weight_decay=0.0),
        schedule=ScheduleRecipe(name="constant", grown=0.0),  # whole pictures, as for all sides
        engine=EngineRecipe(
            epochs=order.epochs, batch=order.batch, device="cpu", compile=order.compile
        ),
    )


def spent(
    events: Iterable[Event], images: int, waited: Mapping[int, float]
) -> tuple[list[float], list[float]]:
    """Seconds of each epoch with its share of what lies between epochs, and that by itself.

    Between the event of one epoch and the first step of the next lie the console's line, the
    callbacks and the checkpoint. The first epoch has nothing before it.

    Args:
        events: of the run.
        images: pictures an epoch.
        waited: epochs that were done → seconds that were then the others'.
    """
    seconds: list[float] = []
    between: list[float] = []
    ended = last = 0.0
    for event in events:
        if event.kind == "step":
            last = event.time
        elif event.kind == "epoch":
            steps = float(event.values["seconds"])
            if seconds:
                idle = waited.get(len(seconds), 0.0)
                between.append(max(0.0, last - ended - idle - steps))
                steps += between[-1] * images / EPOCH
            seconds.append(steps)
            ended = event.time
    return seconds, between


def chosen(folder: Path) -> dict[str, Any]:
    """What our tuner took for the run in a folder."""
    engine = neocog.open(folder).recipe.engine
    return {
        "precision": engine.precision,
        "layout": engine.layout,
        "compile": engine.compile,
        "threads": engine.threads,
    }


def main() -> None:
    """One round."""
    order = read_order()
    torch.set_num_threads(order.threads)
    shutil.rmtree(Path(os.environ["NEOCOG_CACHE"]) / "tuned", ignore_errors=True)
    folder = Path(order.folder) / "run"
    turns = Turns(order)
    seconds: list[float] = []

    def enough(event: Event, control: Control) -> None:
        if event.kind == "epoch":
            seconds.append(event.values["seconds"])
            if turns.over(seconds, **chosen(folder)):
                control.stop("measured")

    model = nets.build(order.net) if order.figure in nets.OWN else order.figure
    began = time.perf_counter()
    run = neocog.fit(model, recipe=recipe(order), out=folder, callbacks=[enough])
    whole = time.perf_counter() - began - sum(turns.waited.values())
    charged, between = spent(run.events, order.images, turns.waited)
    losses = [event.values["loss"] for event in run.events if event.kind == "epoch"]
    answer(
        turns.rates(charged),
        ("pillow",),
        loss=losses[0],
        **chosen(folder),
        neocog=neocog.__version__,
        augment=dataclasses.asdict(run.recipe.augment),
        seconds_between_epochs=[round(one, 4) for one in between],
        seconds_outside_epochs=round(whole - sum(seconds), 2),
        augmentation="neocog's own, per batch on uint8",
    )


if __name__ == "__main__":
    main()
