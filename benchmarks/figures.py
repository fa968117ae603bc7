"""What each figure compares: net, pictures, batch, augmentation, sides and bars. Standard library.

A figure is one comparison. Its sides train the same net on the same pictures in batches of the same
size, with the same augmentation and optimiser; only the loop differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BARE",
    "CLASSES",
    "EPOCH",
    "FIGURES",
    "LR",
    "MOMENTUM",
    "RUN",
    "SIDES",
    "Bar",
    "Figure",
    "Side",
]

CLASSES = 10
"""Outputs of every net."""
LR, MOMENTUM = 0.01, 0.9
"""All sides: plain SGD with momentum, no decay. Every peer has it, and it costs little, so that the
loop itself is what is measured."""
EPOCH = 50_000
"""Pictures of an epoch of a usual small set. Epochs are shorter here, so that a figure takes
minutes; what our side does once an epoch is charged at the share that they have of this."""
RUN = 30 * EPOCH
"""Pictures of the run that every side says it is at the beginning of. It is stopped after the
epochs that are measured. How long a run is decides how much measuring our tuner allows itself, and
nobody trains for three epochs of five thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What our rate must reach."""

    over: str
    """A side, or the first word of several, of which the fastest counts."""
    least: float
    """Smallest ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One comparison."""

    name: str
    """As on the command line."""
    title: str
    """As in the plot."""
    channels: int
    """1 or 3."""
    size: int
    """Pixels a side."""
    batch: int
    """Pictures a step."""
    images: int
    """Pictures an epoch: whole batches."""
    seconds: float
    """How long a turn of a side is, at least: so many seconds, and a whole epoch."""
    minutes: int
    """What three rounds of all sides take on two slow cores, roughly; for people."""
    flip: bool
    """Whether half of the pictures are mirrored."""
    shift: int
    """Largest shift per axis in pixels; black comes in."""
    bars: tuple[Bar, ...]
    """What was promised."""


FIGURES: dict[str, Figure] = {
    one.name: one
    for one in (
        Figure(
            name="twoconv",
            title="two convolutions (32 and 64 kernels), 3×32×32, batch 512",
            channels=3,
            size=32,
            batch=512,
            images=5_120,
            seconds=1.0,
            minutes=12,
            flip=True,
            shift=4,
            bars=(
                Bar(over="tutorial", least=4.0),
                Bar(over="lightning", least=2.0),
                Bar(over="keras", least=5.0),
            ),
        ),
        Figure(
            name="resnet18",
            title="ResNet-18, 3×32×32, batch 128",
            channels=3,
            size=32,
            batch=128,
            images=128,
            seconds=1.0,
            minutes=8,
            flip=True,
            shift=4,
            bars=(Bar(over="bare", least=0.9), Bar(over="tutorial", least=3.0)),
        ),
        Figure(
            name="lenet5",
            title="LeNet-5, 1×28×28, batch 128",
            channels=1,
            size=28,
            batch=128,
            images=10_240,
            seconds=1.0,
            minutes=5,
            flip=False,
            shift=2,
            bars=(Bar(over="bare", least=0.9),),
        ),
        Figure(
            name="speednet",
            title="speednet, 3×32×32, batch 512",
            channels=3,
            size=32,
            batch=512,
            images=512,
            seconds=1.0,
            minutes=8,
            flip=True,
            shift=4,
            bars=(Bar(over="bare", least=0.9),),
        ),
        Figure(
            name="loop",
            title="one linear layer, 1×8×8, batch 32: the loop itself",
            channels=1,
            size=8,
            batch=32,
            images=6_400,
            seconds=1.0,
            minutes=4,
            flip=False,
            shift=1,
            bars=(),
        ),
    )
}
"""The last has next to no arithmetic: what a step takes there is what the loop costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to train, in a process of its own."""

    module: str
    """Run as `python -m`."""
    how: str
    """For the table."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the module is told."""
    env: dict[str, str] = field(default_factory=dict)
    """Added to its environment."""


BARE = "sides.bare"
"""Module of the sides that are ceilings."""
SIDES: dict[str, Side] = {
    "tutorial": Side(
        module="sides.tutorial",
        how="plain PyTorch loop: DataLoader, fp32, contiguous, a transform per sample",
    ),
    "ours": Side(
        module="sides.ours",
        how="neocog.fit, all of it: augmentation, statistics, events, progress, checkpoints",
        # The bar is drawn, though into a file.
        env={"FORCE_COLOR": "1", "TERM": "xterm"},
    ),
    "bare": Side(
        module=BARE,
        how="ceiling: the step alone, on one batch in memory, in its fastest configuration",
        options={"kept": False},
    ),
    "bare-kept": Side(
        module=BARE,
        how="the same with freed memory kept, as ours has it",
        options={"kept": True},
    ),
    "lightning": Side(
        module="sides.lightning_side",
        how="Lightning as it comes: 32-true",
        options={"precision": "32-true", "channels_last": False, "workers": 0},
    ),
    "lightning-bf16": Side(
        module="sides.lightning_side",
        how="Lightning, bf16-mixed, channels_last",
        options={"precision": "bf16-mixed", "channels_last": True, "workers": 0},
    ),
    "lightning-bf16-workers": Side(
        module="sides.lightning_side",
        how="Lightning, bf16-mixed, channels_last, 2 loader processes",
        options={"precision": "bf16-mixed", "channels_last": True, "workers": 2},
    ),
    "keras-torch": Side(
        module="sides.keras_side", how="Keras fit on torch", env={"KERAS_BACKEND": "torch"}
    ),
    "keras-jax": Side(
        module="sides.keras_side", how="Keras fit on JAX", env={"KERAS_BACKEND": "jax"}
    ),
}
"""In the order in which they take turns; `bare` after `ours`, whose choice it also tries."""
