"""Losses that are on their way come out once, in order, and never too many at a time."""

import pytest
import torch

from neocog.engine import ledger
from neocog.engine.ledger import MOST, Ledger
from neocog.engine.step import Stepped


class Switch:
    """An arrival that a test turns on."""

    def __init__(self) -> None:
        self.there = False
        self.waited = False

    def query(self) -> bool:
        return self.there

    def synchronize(self) -> None:
        self.there = self.waited = True


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> list[Switch]:
    made: list[Switch] = []

    def send(loss: torch.Tensor) -> tuple[torch.Tensor, Switch]:
        made.append(Switch())
        return loss, made[-1]

    monkeypatch.setattr(ledger, "_send", send)
    return made


def put(book: Ledger, step: int) -> None:
    book.put(step, 0.1, Stepped(loss=torch.tensor(float(step)), samples=[]))


def steps(book: Ledger, *, wait: bool = False) -> list[int]:
    return [entry.step for entry in book.settled(wait=wait)]


def test_they_come_in_order_and_once(switches: list[Switch]) -> None:
    book = Ledger()
    for step in (1, 2, 3):
        put(book, step)
    switches[1].there = True  # the second is there before the first
    assert steps(book) == []
    switches[0].there = True
    assert steps(book) == [1, 2]
    assert steps(book, wait=True) == [3]
    assert steps(book, wait=True) == []
    assert [switch.waited for switch in switches] == [False, False, True]


def test_the_host_does_not_run_ahead_without_end(switches: list[Switch]) -> None:
    book, told = Ledger(), []
    for step in range(1, 3 * MOST):
        put(book, step)
        told += steps(book)
    assert told == list(range(1, 2 * MOST))
    assert sum(not switch.there for switch in switches) == MOST


def test_on_the_processor_nothing_is_on_its_way() -> None:
    book = Ledger()
    put(book, 1)
    (entry,) = book.settled(wait=False)
    assert entry.value.item() == 1.0
    assert entry.arrival is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_loss_comes_home_from_cuda() -> None:
    book = Ledger()
    book.put(1, 0.1, Stepped(loss=torch.tensor(2.5, device="cuda"), samples=[]))
    (entry,) = book.settled(wait=True)
    assert entry.value.device.type == "cpu"
    assert entry.value.item() == 2.5
