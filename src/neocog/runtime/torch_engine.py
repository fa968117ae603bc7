"""A bundle's network, computed by PyTorch. Floor 3, room runtime; imports bundle and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from neocog.machine import device_named
from neocog.records import FULL_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from neocog.bundle import Bundle
    from neocog.described import Described
    from neocog.runtime.engine import Kind

__all__ = ["AT_ONCE", "TorchEngine"]

AT_ONCE = 16
"""Samples that a processor computes together. More take no less time each (`resnet18` at 32×32 on 2
cores: 3.2 ms with 16, 3.2 to 6.4 with 64), and their maps more memory: a server that is asked for
1 to 64 holds a third less."""


class TorchEngine:
    """`Bundle.predictor` as an engine: what every other one is compared with.

    Args:
        bundle: of the network.
        model: a foreign network, named again; see `Bundle.network`.
        device: `auto`, `cpu`, `cuda`, …
        threads: of the processor; 0: as PyTorch has them. They are set at each call, because
            PyTorch has one number for all.

    Raises:
        ConfigError, RunError: see `Bundle.network`.
    """

    kind: Kind = "torch"

    def __init__(
        self, bundle: Bundle, *, model: str | nn.Module = "", device: str = "cpu", threads: int = 0
    ) -> None:
        self.device = device_named(device)
        self.predictor = bundle.predictor(model=model, device=self.device)
        self.described: Described = bundle.described
        self.digest: str = bundle.digest
        self.threads = threads or torch.get_num_threads()
        pictures = len(bundle.input.size) == 2
        self.dtypes: tuple[str, ...] = ("uint8",) if pictures else tuple(FULL_SCALE)

    @property
    def settings(self) -> dict[str, Any]:
        """Device and threads."""
        return {"device": str(self.device), "threads": self.threads}

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """See `Engine`."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        given = torch.from_numpy(samples)
        parts = torch.split(given, AT_ONCE) if self.device.type == "cpu" else (given,)
        with torch.inference_mode():
            found = [self.predictor(part.to(self.device)) for part in parts]
        answers: NDArray[Any] = (found[0] if len(found) == 1 else torch.cat(found)).cpu().numpy()
        return answers
