"""An engine that needs no network: its answers follow from the pixels by arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.described import Described
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from neocog.runtime.engine import Kind

TASKS: dict[str, dict[str, Any]] = {
    "classify": {"classes": ["red", "green", "blue"]},
    "multilabel": {"classes": ["red", "green", "blue"]},
    "regress": {"columns": ["red", "green", "blue"], "mean": [0, 0, 0], "std": [1, 1, 1]},
    "segment": {"classes": ["red", "green", "blue"]},
}


class Pretended:
    """Shares of red, green and blue in a picture (in each pixel, where it is answered for whole).

    Args:
        task: a name in `TASKS`.
        size: of the input.
        together: answers also hang, a little, on the other pictures of their batch, so that a batch
            of other pictures shows.
        each: called with every batch, before it is answered.
    """

    kind: Kind = "torch"

    def __init__(
        self,
        task: str = "classify",
        *,
        size: tuple[int, int] = (8, 8),
        together: bool = False,
        each: Callable[[NDArray[Any]], None] = lambda _: None,
    ) -> None:
        names = ("red", "green", "blue")
        self.described = Described(
            model=ModelSpec(name="pretended", args={}),
            input=InputSpec(
                channels=3, size=size, mean=(0.0,) * 3, std=(1.0,) * 3, whole=task == "segment"
            ),
            task=TaskSpec(name=task, args=TASKS[task]),
            classes=names,
            manifest=Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={}),
        )
        self.settings: dict[str, Any] = {"device": "cpu", "threads": 1}
        self.digest = "0" * 64
        self.dtypes = ("uint8",)
        self.together, self.each = together, each
        self.calls = 0

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """B×3×h×w uint8 → B×3, or B×3×h×w."""
        self.calls += 1
        self.each(samples)
        levels = samples.astype(np.float64) + 1
        if not self.described.input.whole:
            levels = levels.mean(axis=(2, 3))
        if self.together:
            levels = levels + 1e-3 * levels.mean()
        shares: NDArray[Any] = (levels / levels.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares
