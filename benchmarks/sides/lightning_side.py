"""Lightning's Trainer with its defaults: logger, checkpoints and progress bar on.

The same samples and loader as the tutorial loop. `precision` and `channels_last` are what its
documentation recommends for such a processor; `workers` are loader processes.
"""

from __future__ import annotations

import time
from typing import Any

import lightning
import nets
import torch
import torch.nn.functional as F
from figures import LR, MOMENTUM
from pictures import open_pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sides import Turns, answer, read_order
from sides.tutorial import Samples

__all__ = ["main"]


class Module(lightning.LightningModule):
    """A net, its loss, its optimiser."""

    def __init__(self, network: nn.Module, *, channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.channels_last = channels_last
        if channels_last:
            self.network.to(memory_format=torch.channels_last)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Loss of one batch."""
        images, labels = batch
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As the other sides."""
        return torch.optim.SGD(self.network.parameters(), lr=LR, momentum=MOMENTUM)


class Clock(lightning.Callback):
    """Seconds and last loss of each epoch; ends the run when there are enough.

    Turns end where an epoch does: loader processes have then nothing left to fetch ahead.
    The checkpoint after an epoch is not in its seconds.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began = 0.0
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Begin."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """End. Lightning calls its checkpoint callback after all others."""
        self.seconds.append(time.perf_counter() - self.began)
        self.losses.append(float(trainer.callback_metrics["train_loss"]))
        trainer.should_stop = self.turns.over(self.seconds)


def main() -> None:
    """One round."""
    order = read_order()
    torch.set_num_threads(order.threads)
    options = order.options
    samples = Samples(open_pictures(order.data, order.net))
    workers = options["workers"]
    loader = DataLoader(
        samples,
        batch_size=order.batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    clock = Clock(Turns(order))
    trainer = lightning.Trainer(
        max_epochs=order.epochs,
        accelerator="cpu",
        precision=options["precision"],
        default_root_dir=order.folder,
        callbacks=[clock],
    )
    model = Module(nets.build(order.net), channels_last=options["channels_last"])
    trainer.fit(model, loader)
    answer(
        clock.turns.rates(clock.seconds),
        ("lightning",),
        loss=clock.losses[0],
        **options,
        threads=order.threads,
        augmentation="NumPy, per sample in __getitem__",
    )


if __name__ == "__main__":
    main()
