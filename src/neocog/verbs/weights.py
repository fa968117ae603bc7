"""What lies in a file of weights. Floor 5, room verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError
from neocog.text import printable
from neocog.verbs.result import Result
from neocog.weights import contents
from neocog.weights.write import write

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.weights import Contents

__all__ = ["weights"]

_SUFFIX = ".safetensors"


def weights(path: Path, *, pickle: bool, out: Path | None) -> Result:
    """List the tensors of a file, and write them as safetensors if wanted.

    Args:
        path: a safetensors file, or a .pt or .pth file.
        pickle: also read a .pt or .pth file.
        out: a new safetensors file of the same tensors; one that is there is replaced.

    Raises:
        ConfigError: `out` has another suffix.
        RunError: the file is refused, see `neocog.weights.contents`, or `out` cannot be written.
    """
    if out is not None and out.suffix != _SUFFIX:
        raise ConfigError(f"--out takes a file that ends in {_SUFFIX}, got {printable(str(out))}")
    found = contents(path, pickle=pickle)
    if out is not None:
        write(out, found.tensors, found.metadata)
    tensors = [
        {
            "name": name,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "bytes": tensor.nbytes,
        }
        for name, tensor in found.tensors.items()
    ]
    summary: dict[str, Any] = {
        "file": str(path),
        "kind": found.kind,
        "tensors": tensors,
        "numbers": sum(tensor.numel() for tensor in found.tensors.values()),
        "bytes": sum(tensor["bytes"] for tensor in tensors),
        "metadata": dict(found.metadata),
        "under": found.under,
        "left": list(found.left),
        "out": None if out is None else str(out),
    }
    return Result(json=summary, lines=_lines(summary, found))


def _lines(summary: dict[str, Any], found: Contents) -> list[str]:
    """A table of the tensors, their sum, and what was not taken."""
    rows = [
        (
            printable(one["name"]),
            "×".join(map(str, one["shape"])) or "one number",
            one["dtype"],
            f"{one['bytes']:,}",
        )
        for one in summary["tensors"]
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [
        f"{name:{widths[0]}}  {shape:{widths[1]}}  {dtype:{widths[2]}}  {size:>{widths[3]}} bytes"
        for name, shape, dtype, size in rows
    ]
    lines.append(
        f"{len(rows):,} tensors, {summary['numbers']:,} numbers, {summary['bytes']:,} bytes"
    )
    if found.under:
        lines.append(f"found under: {printable(found.under)}")
    if found.left:
        lines += ["not taken:", *(f"  {printable(one)}" for one in found.left)]
    if summary["out"]:
        lines.append(f"written: {printable(summary['out'])}")
    return lines
