"""Reading weights that others made, without trust. Floor 1, room weights.

Imports floor 0; torch and safetensors are loaded when tensors are read. safetensors files are
checked here first, against the published format, then by the library. Whatever is a pickle is
refused, for a pickle is a program; who says `pickle=True` has it read in a process of its own,
which runs none of its calls, and is ended when it reaches for the network or writes anywhere but
to one file; see `child`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from neocog.errors import RunError
from neocog.text import printable
from neocog.weights.header import DTYPES, HEAD, LONGEST, open_regular, parse_json, read_header
from neocog.weights.pickled import Limits, converted, identify, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    import torch
    from torch import Tensor

__all__ = [
    "DTYPES",
    "Contents",
    "Limits",
    "check",
    "contents",
    "open_regular",
    "parse_json",
    "read",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file of weights holds."""

    kind: Literal["safetensors", "pickle"]
    """What the file is."""
    tensors: Mapping[str, Tensor]
    """By name, on the CPU, in memory of their own."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The texts in the header of a safetensors file."""
    under: str = ""
    """The keys of a pickle that led to the tensors, joined by dots; empty: none."""
    left: tuple[str, ...] = ()
    """What else a pickle held: `name: what it is`."""


def read(path: Path, *, pickle: bool = False) -> dict[str, Tensor]:
    """The tensors of a file by name; arguments and errors as `contents`."""
    return dict(contents(path, pickle=pickle).tensors)


def contents(
    path: Path, *, pickle: bool = False, limits: Limits | None = None, longest: int = LONGEST
) -> Contents:
    """What a file of weights holds.

    Args:
        path: a safetensors file, or a .pt or .pth file of PyTorch.
        pickle: also read a .pt or .pth file. Only tensors come out of it. They are looked for at
            the top and, as long as there is one, under the first of the keys `state_dict`,
            `model_state_dict`, `model_state`, `model`, `network`, `net`, `module`, `weights`,
            `params` that holds a mapping; what else lies on the way is listed, not used.
        limits: what reading a pickle may cost.
        longest: bytes of a safetensors file's header at most.

    Raises:
        RunError: no regular file, damaged, a pickle without `pickle`, or one that cannot be read
            within the limits or holds anything that would have to be run.
    """
    where = printable(str(path))
    with open_regular(path) as (file, size):
        head = file.read(HEAD)
        found = identify(head)
        if found is None:
            return _safetensors(file, size, where, longest)
        if not found.readable or not pickle:
            raise RunError(
                f"{where}: expected safetensors, found {found.words}", found.remedy(where)
            )
        file.seek(0)
        with (
            converted(file, size, where, limits or Limits()) as made,
            open_regular(made) as (result, length),
        ):
            plain = _safetensors(result, length, where, longest)
    under, left = told(plain.metadata)
    return Contents(kind="pickle", tensors=plain.tensors, under=under, left=left)


def _safetensors(file: BinaryIO, size: int, where: str, longest: int) -> Contents:
    """The header by us, before anything else is read; then the whole by the library."""
    header = read_header(file, size, where, longest)
    from safetensors import SafetensorError
    from safetensors.torch import load

    file.seek(0)
    try:
        loaded = load(file.read())
    except (SafetensorError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise RunError(f"{where} is damaged: {error}") from error
    tensors = {name: loaded[name] for name in header.entries}
    return Contents(kind="safetensors", tensors=tensors, metadata=header.metadata)


def check(
    where: str,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
) -> None:
    """Tensors have exactly these names, shapes and types.

    Args:
        where: what they are, for the error: "the weights".
        tensors: by name.
        expected: name → shape and type.

    Raises:
        RunError: names every tensor that is missing, unknown, or of another shape or type, with
            what it is and what was expected.
    """
    problems = [f"missing {printable(name)}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"unknown {printable(name)}" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        found = (tuple(tensors[name].shape), tensors[name].dtype)
        if found != expected[name]:
            (shape, dtype), (wanted, kind) = found, expected[name]
            problems.append(f"{printable(name)} is {shape} {dtype}, expected {wanted} {kind}")
    if problems:
        raise RunError(
            f"{where} do not fit the network: {'; '.join(problems)}",
            "build the network with the settings that it was trained with",
        )
