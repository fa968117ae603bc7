"""Keras: `compile` and `fit` with their defaults, on the backend that KERAS_BACKEND names.

Pictures come from a `keras.utils.PyDataset` that augments whole batches in NumPy: no TensorFlow is
needed, and it costs less than a transform per sample. The first epoch, in which JAX compiles, is
not counted.
"""

from __future__ import annotations

import os
import time
from typing import Any

import keras
import keras_nets
import numpy as np
from figures import LR, MOMENTUM
from pictures import Pictures, open_pictures

from sides import Turns, answer, read_order

__all__ = ["main"]


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches."""

    def __init__(self, pictures: Pictures, batch: int) -> None:
        super().__init__()
        self.pictures, self.batch = pictures, batch
        self.chance = np.random.default_rng(0)
        self.order = self.chance.permutation(len(pictures.labels))

    def __len__(self) -> int:
        return len(self.order) // self.batch

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        ids = self.order[index * self.batch : (index + 1) * self.batch]
        return self.pictures.many(ids, self.chance)

    def on_epoch_end(self) -> None:
        """Another order for the next one."""
        self.chance.shuffle(self.order)


class Clock(keras.callbacks.Callback):
    """Seconds and mean loss of each epoch; ends the run when there are enough."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns
        self.began = 0.0
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin."""
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End."""
        self.seconds.append(time.perf_counter() - self.began)
        self.losses.append(float(logs["loss"]))
        if self.turns.over(self.seconds):
            self.model.stop_training = True


def main() -> None:
    """One round."""
    order = read_order()
    backend = os.environ["KERAS_BACKEND"]
    if backend == "torch":
        import torch

        torch.set_num_threads(order.threads)
    model = keras_nets.build(order.net, order.facts)
    model.compile(
        optimizer=keras.optimizers.SGD(LR, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pictures = open_pictures(order.data, order.net, channels_last=True)
    clock = Clock(Turns(order))
    model.fit(Batches(pictures, order.batch), epochs=order.epochs, callbacks=[clock])
    answer(
        clock.turns.rates(clock.seconds),
        ("keras", "jax") if backend == "jax" else ("keras",),
        loss=clock.losses[0],
        backend=backend,
        threads=order.threads,
        augmentation="NumPy, per batch in a PyDataset",
    )


if __name__ == "__main__":
    main()
