"""Our side: `neocog.fit` from a file to a run folder, with everything on.

The rate is what the run's own epoch events say: training steps with augmentation, statistics,
events and progress, without validation and saving. The run is announced as a long one (`RUN`) and
stopped after the epochs that are measured, so that the tuner decides as it would for real; every
round tunes afresh.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nets
import torch
from figures import LR, MOMENTUM, RUN

import neocog
from neocog.config import AugmentRecipe, DataRecipe, EngineRecipe, OptimRecipe, Recipe
from sides import Order, answer, read_order

if TYPE_CHECKING:
    from neocog.engine.control import Control
    from neocog.records import Event

__all__ = ["main"]


def recipe(order: Order) -> Recipe:
    """What the other sides do, in our words."""
    figure = order.net
    epochs = order.epochs if order.quick else max(order.epochs, RUN // order.images)
    return Recipe(
        data=DataRecipe(source=order.data),
        augment=AugmentRecipe(
            flip=0.5 if figure.flip else 0.0, shift=figure.shift / figure.size, padding="zero"
        ),
        optim=OptimRecipe(name="momentum", momentum=MOMENTUM, lr=LR, weight_decay=0.0),
        engine=EngineRecipe(epochs=epochs, batch=order.batch, device="cpu", compile=order.compile),
    )


def main() -> None:
    """One round."""
    order = read_order()
    torch.set_num_threads(order.threads)
    shutil.rmtree(Path(os.environ["NEOCOG_CACHE"]) / "tuned", ignore_errors=True)

    def enough(event: Event, control: Control) -> None:
        if event.kind == "epoch" and event.values["epoch"] >= order.epochs:
            control.stop("measured")

    model = nets.build(order.net) if order.figure in nets.OWN else order.figure
    began = time.perf_counter()
    run = neocog.fit(
        model, recipe=recipe(order), out=Path(order.folder) / "run", callbacks=[enough]
    )
    whole = time.perf_counter() - began
    epochs = [event.values for event in run.events if event.kind == "epoch"]
    engine = run.recipe.engine
    answer(
        [values["images_per_second"] for values in epochs if values["epoch"] >= 2],
        ("pillow",),
        precision=engine.precision,
        layout=engine.layout,
        compile=engine.compile,
        threads=engine.threads,
        neocog=neocog.__version__,
        augment=dataclasses.asdict(run.recipe.augment),
        seconds_outside_epochs=round(whole - sum(values["seconds"] for values in epochs), 2),
        augmentation="neocog's own, per batch on uint8",
    )


if __name__ == "__main__":
    main()
