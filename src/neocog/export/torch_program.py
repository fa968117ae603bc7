"""A trained network as a program of `torch.export`: one .pt2 file for PyTorch alone. Floor 4.

Room export; imports the room's program, files, torch. Reading such a file may unpickle objects, so
that a file from a stranger could run code: `reread` is for what this process wrote itself, and no
other part of neocog opens one.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from neocog.errors import RunError
from neocog.export.program import METADATA, program_of, remedy, traced
from neocog.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.layers import Predictor

__all__ = ["reread", "write"]

_OWN_AFFAIRS = r"No complete tensor found in the group"
"""How a warning begins about weights whose memory is laid out otherwise, as channels last is; they
are stored whole, and the caller compares."""


def write(predictor: Predictor, samples: Tensor, out: Path, metadata: str) -> None:
    """Trace the predictor for any number of samples, and pictures of any size; write the file.

    Args:
        predictor: of the bundle, on the CPU, in evaluation mode; not changed.
        samples: of the type that it shall take; they are neither looked at nor kept.
        out: ends in `.pt2`.
        metadata: JSON text.

    Raises:
        RunError: the network cannot be traced for every size, or the file cannot be written.
    """
    try:
        program = traced(program_of(predictor), predictor.input, samples.dtype)
    except (RuntimeError, ValueError) as error:  # what torch.export raises has no root of its own
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"torch.export cannot trace this network for every size: {why[:300]}",
            remedy(error),
        ) from error
    with tempfile.TemporaryDirectory(prefix="neocog-pt2-") as folder:
        made = Path(folder) / "program.pt2"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _OWN_AFFAIRS)
            torch.export.save(program, made, extra_files={METADATA: metadata})
        write_atomic(out, made.read_bytes())


def reread(path: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What a file that was just written answers: raw samples, NumPy B×C×h×w → B×K float32; of masks
    the probabilities B×K×h×w.

    Args:
        path: written by this process; never one from elsewhere.
    """
    module = torch.export.load(path).module()

    def answer(samples: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            found = module(torch.from_numpy(samples))
        answers: NDArray[Any] = (found[0] if isinstance(found, tuple) else found).numpy()
        return answers

    return answer
