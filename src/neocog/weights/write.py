"""Writing tensors to safetensors files that are whole or absent. Floor 1, room weights.

Imports floor 0, its own room and torch.

The format (https://github.com/huggingface/safetensors, "Format"): 8 bytes with the length of the
header, little-endian; the header, JSON padded with spaces, with type, shape and place of each
tensor; their bytes without a gap. The library's own writer puts a file into place by itself, not
flushed, from a second copy of everything; here the pieces go straight from the tensors' memory
through the one way that files are written. Reading is the library's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from neocog.errors import RunError
from neocog.files import write_atomic
from neocog.weights.header import DTYPES, OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["TYPES", "raw", "write"]

TYPES = {getattr(torch, name): code for code, (name, _) in DTYPES.items()}
"""The format's name of each type of number."""


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; on return it has reached the disk.

    Args:
        path: its folder is made where it is missing.
        tensors: on the processor and contiguous; names in printable ASCII.
        metadata: texts for the header.

    Raises:
        RunError: the file cannot be written (names the path and the bytes needed), or its header
            would be longer than what is read again.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # Wide types first: each tensor then begins where its type may begin.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    place = 0
    for name in order:
        value = tensors[name]
        end = place + value.nbytes
        header[name] = {
            "dtype": TYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > OURS:
        raise RunError(
            f"cannot write {path}: the names of {len(tensors):,} tensors and what is said of them "
            f"take {len(text):,} bytes, expected at most {OURS:,}",
            "store fewer tensors, or shorter texts beside them",
        )

    def pieces() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for name in order:
            yield raw(tensors[name])

    write_atomic(path, pieces(), size=8 + len(text) + place)


def raw(value: Tensor) -> memoryview:
    """The bytes of a contiguous processor tensor, not copied.

    >>> bytes(raw(torch.tensor([1, 256], dtype=torch.int16)))
    b'\\x01\\x00\\x00\\x01'
    """
    if not value.numel():
        return memoryview(b"")
    data: memoryview = value.reshape(-1).view(torch.uint8).numpy().data
    return data
