"""Models as a server describes them, one of each kind; nothing of them was trained."""

from __future__ import annotations

from neocog.described import Described
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
from neocog.serve.limits import Limits
from neocog.serve.spec import spec_of

__all__ = ["LIMITS", "MASKS", "PICTURES", "SIGNALS", "SMALL", "VOLUMES", "described"]

LIMITS = Limits()
MANIFEST = Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={})
NAMES = ("cat", "dog: big", "größer 猫", "d")


def described(
    size: tuple[int, ...] = (32, 32),
    task: str = "classify",
    classes: tuple[str, ...] = NAMES,
    channels: int = 3,
) -> Described:
    return Described(
        model=ModelSpec(name="cnn", args={}),
        input=InputSpec(
            channels=channels,
            size=size,
            mean=(0.5,) * channels,
            std=(0.2,) * channels,
            whole=task == "segment",
        ),
        task=TaskSpec(name=task, args={}),
        classes=classes,
        manifest=MANIFEST,
    )


PICTURES = spec_of(described(), "m", LIMITS)
SMALL = spec_of(described(channels=1, classes=("a", "b")), "m", LIMITS)
SIGNALS = spec_of(described((5,), channels=2), "m", LIMITS)
VOLUMES = spec_of(described((2, 3, 4), "regress", ("w",), channels=1), "m", LIMITS)
MASKS = spec_of(described(task="segment"), "m", LIMITS)
