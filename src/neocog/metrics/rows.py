"""From tensors on any device to checked rows on the host. Floor 1, room metrics.

Imports floor 0, NumPy and torch. Each batch costs one transfer, and with it one wait for the
device, however many numbers a row has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog.errors import NonFiniteLossError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.records import Batch

__all__ = ["refuse_nonfinite", "valid_rows"]

_HINT = "the weights may have diverged: lower optim.lr or set optim.clip_norm=1"


def valid_rows(columns: list[Tensor], batch: Batch) -> NDArray[np.float64]:
    """The valid rows of several tensors side by side, on the host: n×p.

    Whole numbers survive as long as they are below 2²⁴.

    Args:
        columns: tensors of shape B or B×k on one device.
        batch: says which rows are valid, and their ids.

    Raises:
        NonFiniteLossError: a valid row holds NaN or infinity. The largest of some numbers with a
            NaN among them is a matter of luck; it must not become a label.
        ValueError: lengths differ.
    """
    rows = batch.valid.shape[0]
    for column in columns:
        if column.shape[0] != rows:
            raise ValueError(f"expected {rows} rows as in the batch, got {tuple(column.shape)}")
    device = columns[0].device
    # Apple's GPUs know no float64; elsewhere it spares float64 answers a rounding.
    kind = torch.float32 if device.type == "mps" else torch.float64
    parts = [*columns, batch.valid.to(device)]
    packed = torch.cat([part.detach().reshape(rows, -1).to(kind) for part in parts], dim=1)
    host = packed.cpu().numpy().astype(np.float64, copy=False)
    valid = host[:, -1] != 0
    kept = host[valid, :-1]
    finite = np.isfinite(kept).all(axis=1)
    if not finite.all():
        ids = batch.ids.cpu().numpy()[valid][~finite]
        shown = ", ".join(str(one) for one in ids[:8]) + (", …" if len(ids) > 8 else "")
        raise NonFiniteLossError(
            f"expected finite answers and losses, got NaN or infinity for {len(ids)} of "
            f"{len(kept)} samples (ids {shown})",
            _HINT,
        )
    return kept


def refuse_nonfinite(answers: Tensor) -> Tensor:
    """The answers on the host, B×K, in float64.

    Raises:
        NonFiniteLossError: an answer is NaN or infinite.
    """
    host = answers.detach().cpu().double()
    bad = (~torch.isfinite(host).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise NonFiniteLossError(
            f"expected finite answers, got NaN or infinity in row(s) {bad[:8]}", _HINT
        )
    return host
