"""A small bundle, and `neocog serve` as a process of its own, for tests of the server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch

from neocog.bundle import Bundle
from neocog.models import catalog
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["serving", "small_bundle"]

CLASSES = ("ant", "bee", "cat", "dog", "eel")


def small_bundle(
    *,
    channels: int = 3,
    size: tuple[int, ...] = (12, 10),
    task: TaskSpec | None = None,
    classes: tuple[str, ...] = CLASSES,
    line: str = "conv 8 3 pad=same; relu; gap; linear",
    whole: bool = False,
    seed: int = 0,
) -> Bundle:
    """A network in a line with weights by chance, large enough for answers to differ."""
    model = ModelSpec(name=line, args={})
    torch.manual_seed(seed)
    network = catalog.build(line, channels=channels, size=size, outputs=len(classes), args={})
    weights = {name: 3 * value.detach().clone() for name, value in network.state_dict().items()}
    return Bundle(
        model=model,
        weights=weights,
        input=InputSpec(
            channels=channels,
            size=size,
            mean=(0.4,) * channels,
            std=(0.25,) * channels,
            whole=whole,
        ),
        task=task or TaskSpec(name="classify", args={"classes": list(classes)}),
        classes=classes,
        manifest=Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={}),
    )


@contextlib.contextmanager
def serving(*models: Path | str, options: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """What the server says when it listens: `port` and more; `process` is added."""
    command = [sys.executable, "-m", "neocog", "serve", *map(str, models), "--port", "0", "--json"]
    process = subprocess.Popen(
        [*command, "--engine", "torch", "--threads", "1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        text = ""
        while line := process.stdout.readline():
            text += line
            with contextlib.suppress(ValueError):
                yield {**json.loads(text), "process": process}
                return
        raise AssertionError(f"the server did not start: {process.stderr.read()}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
