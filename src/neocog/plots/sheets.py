"""Pictures in rows. Room plots; floor 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neocog.plots.style import MUTED, blank, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def contact_sheet(
    sheet: NDArray[np.uint8], rows: Sequence[str] = (), *, width: float = 860
) -> Figure:
    """A sheet of pictures with the name of each row beside it.

    Args:
        sheet: H×W×3 or H×W, uint8: equally high rows of pictures.
        rows: their names, from the top; none are written where none are given.
        width: of the sheet in the figure.

    Raises:
        ValueError: another shape or type.
    """
    if sheet.dtype != "uint8" or not (sheet.ndim == 2 or (sheet.ndim == 3 and sheet.shape[2] == 3)):
        raise ValueError(f"expected H×W×3 uint8, found {sheet.shape} {sheet.dtype}")
    high, wide = sheet.shape[:2]
    with styled():
        figure = blank(width + (80 if rows else 0), width * high / wide + 8)
        axes = figure.subplots()
        tiny = wide < width
        axes.imshow(sheet, interpolation="none" if tiny else "auto", cmap="gray", vmin=0, vmax=255)
        axes.set_frame_on(False)
        axes.set_xticks([])
        step = high / max(len(rows), 1)
        axes.set_yticks([step * (i + 0.5) - 0.5 for i in range(len(rows))], list(rows))
        axes.tick_params(length=0, labelcolor=MUTED)
    return figure
