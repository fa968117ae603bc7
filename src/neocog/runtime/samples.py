"""What may be asked of an engine, and what it answers. Floor 3, room runtime.

Imports layers, floor 0, NumPy and torch.

`layers.Predictor` refuses what a network does not take; a library that computes an exported file
would fail in its own words, or answer for something else. So the same is asked before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog.errors import RunError
from neocog.geometry import LAYOUTS, noun, size_text
from neocog.layers import in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from neocog.described import Described
    from neocog.records import InputSpec

__all__ = ["answered", "check_samples"]


def check_samples(samples: NDArray[Any], spec: InputSpec, dtypes: Sequence[str]) -> None:
    """That these are samples which the network takes.

    Args:
        samples: B×C×h×w, B×C×L or B×C×D×H×W.
        spec: what the network takes.
        dtypes: NumPy names of the types that they may have.

    Raises:
        ValueError: another type, another number of axes or of channels, no samples or no pixels,
            or signals or volumes of another size.

    >>> import numpy as np
    >>> from neocog.records import InputSpec
    >>> spec = InputSpec(channels=1, size=(8, 8), mean=(0.5,), std=(0.2,))
    >>> check_samples(np.zeros((2, 3, 8, 8), np.uint8), spec, ["uint8"])
    Traceback (most recent call last):
        ...
    ValueError: the network takes 1 channel(s), got 3
    """
    dims = len(spec.size)
    if str(samples.dtype) not in dtypes or samples.ndim != dims + 2:
        raise ValueError(
            f"expected {' or '.join(dtypes)} B×{LAYOUTS[dims]}, got {samples.dtype} with shape "
            f"{samples.shape}"
        )
    if samples.shape[1] != spec.channels:
        raise ValueError(f"the network takes {spec.channels} channel(s), got {samples.shape[1]}")
    if 0 in samples.shape:
        raise ValueError(f"expected at least one {noun(spec.size)}, got shape {samples.shape}")
    size = samples.shape[2:]
    if dims != 2 and size != spec.size:
        found = size_text(size)
        raise ValueError(f"expected {noun(spec.size)}s of {size_text(spec.size)}, got {found}")


def answered(
    samples: NDArray[Any], answer: Callable[[NDArray[Any]], NDArray[Any]], described: Described
) -> NDArray[Any]:
    """Answers of a library that takes contiguous arrays; large pictures that are answered for whole
    piece by piece, as `layers.Predictor` does it.

    Args:
        samples: B×C×h×w and so on, checked.
        answer: one call of the library.
        described: what goes in and comes out.

    Raises:
        RunError: answers of another shape than B×K or, for whole pictures, B×K×h×w.
    """
    found: NDArray[Any]
    if described.input.whole:
        pieces = in_pieces(
            torch.from_numpy(samples),
            lambda piece: torch.from_numpy(answer(np.ascontiguousarray(piece.numpy()))),
        )
        found = pieces.numpy()
    else:
        found = answer(np.ascontiguousarray(samples))
    size = samples.shape[2:] if described.input.whole else ()
    expected = (len(samples), len(described.classes), *size)
    if found.shape != expected:
        raise RunError(
            f"the file answers with the shape {found.shape}, where its description has {expected}",
            "export it again with neocog export",
        )
    return found
