"""The pictures whose masks were answered worst, for the report. Floor 5, room verbs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog import machine, report
from neocog.plots.masks import overlay, palette

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.engine.evaluate import Evaluation
    from neocog.run import Run

    Pixels = NDArray[np.uint8]

__all__ = ["drawing", "shown"]

SHOWN = 12
"""Pictures in the report."""


def drawing(classes: int) -> Callable[[Pixels, Pixels], Pixels]:
    """Lays a mask of so many classes over its picture, H×W×C uint8 and H×W uint8 → H×W×3."""
    return functools.partial(overlay, colours=palette(classes))


def shown(run: Run, data: Dataset, part: str, result: Evaluation) -> dict[str, Any]:
    """`segmented` of `report.write`: the pictures with the lowest mean Jaccard, worst first.

    Args:
        run: with its bundle.
        data: with masks.
        part: that was scored.
        result: of all pictures of that part, in order.
    """
    jaccard = result.statistics.per_picture()  # type: ignore[attr-defined]
    order = np.argsort(jaccard, kind="stable")[: np.isfinite(jaccard).sum()]  # NaN goes last
    device = machine.device_named(run.recipe.engine.device)
    predictor, masks = run.predictor(device), data.masks
    assert masks is not None
    found = []
    for place in order[:SHOWN].tolist():
        row = int(data.splits[part][place])
        picture = data.images.picture(row)
        with torch.no_grad():
            decoded = predictor(torch.from_numpy(picture).permute(2, 0, 1)[None].to(device))
        found.append(
            report.Segmented(
                picture=picture,
                truth=masks.picture(row)[..., 0],
                answer=decoded[0].argmax(0).to(torch.uint8).cpu().numpy(),
                name=data.names[row],
                jaccard=float(jaccard[place]),
            )
        )
    return {"segmented": found}
