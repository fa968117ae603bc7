"""The loop that everybody writes first: DataLoader, fp32, contiguous, a transform per sample.

Flip and shift in NumPy in `__getitem__`; torchvision is not needed. The loader works in the main
process, as it does by default.
"""

from __future__ import annotations

import time

import nets
import torch
from figures import LR, MOMENTUM
from pictures import Pictures, open_pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sides import Order, Turns, answer, read_order

__all__ = ["Samples", "main"]


class Samples(Dataset[tuple[Tensor, int]]):
    """One augmented sample at a time."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.pictures.one(index)
        return torch.from_numpy(image), label


def train(order: Order, turns: Turns) -> tuple[list[float], list[float]]:
    """Seconds and mean loss of each epoch."""
    model = nets.build(order.net)
    loader = DataLoader(
        Samples(open_pictures(order.data, order.net)), batch_size=order.batch, shuffle=True
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    seconds: list[float] = []
    losses: list[float] = []
    model.train()
    while not turns.over(seconds):
        began = time.perf_counter()
        running = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
        seconds.append(time.perf_counter() - began)
        losses.append(running / len(loader))
    return seconds, losses


def main() -> None:
    """One round."""
    order = read_order()
    torch.set_num_threads(order.threads)
    turns = Turns(order)
    seconds, losses = train(order, turns)
    answer(
        turns.rates(seconds),
        loss=losses[0],
        precision="fp32",
        layout="contiguous",
        threads=order.threads,
        augmentation="NumPy, per sample in __getitem__, main process",
    )


if __name__ == "__main__":
    main()
