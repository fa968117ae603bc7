"""All that a run needs to go on, in one file that is whole or absent. Floor 2, room engine.

Imports floor 0, torch and safetensors. A checkpoint is one safetensors file: tensors under
`model.`, `ema.` and `optimizer.`, everything else as JSON in its header. Nothing in it can run.

It is written beside its name, flushed to the disk, then renamed, so a crash at any instant leaves
the old file or the new one. The SHA-256 of the contents stands in the header, not in a second file
that a crash could part from the first. Every load verifies it: a flipped bit in a weight makes a
network that works a little worse, and nobody would ever know.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from neocog import weights
from neocog.errors import ConfigError, RunError
from neocog.records import TrainState
from neocog.text import printable
from neocog.weights.header import OURS
from neocog.weights.write import raw, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "Loaded",
    "check_name",
    "digest_of",
    "flatten",
    "load",
    "load_latest",
    "load_weights",
    "prune",
    "save",
    "save_weights",
    "unflatten",
]

SUFFIX = ".safetensors"
FORMAT = 1
"""Raised when an older neocog could no longer read the file."""

_STEP = re.compile(r"step-(\d{8,})")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What `load_latest` found."""

    state: TrainState
    """The newest state that is whole."""
    meta: dict[str, Any]
    """What was saved beside it."""
    path: Path
    """The file it came from."""
    warnings: tuple[str, ...]
    """One sentence for each newer checkpoint that was damaged; to be shown."""


def save(
    folder: Path, state: TrainState, *, name: str | None = None, meta: Mapping[str, Any]
) -> Path:
    """Write a checkpoint; on return it has reached the disk.

    Args:
        folder: created where it is missing.
        state: tensors may be on any device and in any memory layout.
        name: without the suffix. None: `step-00001234`, which resuming looks for.
        meta: JSON values and tensors that belong with the state.

    Raises:
        RunError: the file cannot be written (names the path and the bytes needed).
        ConfigError: a name that cannot be a file's, or a value that a checkpoint cannot hold.
    """
    if name is not None:
        check_name(name)
    target = folder / ((name or f"step-{state.step:08d}") + SUFFIX)
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {"format": FORMAT, "step": state.step}
    for part, value in (
        ("model", dict(state.model)),
        ("ema", dict(state.ema)),
        ("optimizer", dict(state.optimizer)),
        ("schedule", dict(state.schedule)),
        ("meta", dict(meta)),
    ):
        header[part], found = flatten(value, part)
        tensors |= found
    tensors = _own(tensors)
    text = json.dumps(header, allow_nan=False)
    write(target, tensors, {"neocog": text, "sha256": digest_of(text, tensors)})
    return target


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write a state dict under its own names: a plain safetensors file, readable by anything.

    Raises:
        RunError: the file cannot be written (names the path and the bytes needed).
    """
    tensors = _own(weights)
    write(path, tensors, {"sha256": digest_of("", tensors)})
    return path


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of `save_weights` and verify it.

    Other plain safetensors files are read too; they bring nothing to verify them by.

    Raises:
        RunError: missing or damaged.
    """
    metadata, tensors = _read(path)
    if "sha256" in metadata:
        _verify(path, metadata.get("neocog", ""), tensors, metadata["sha256"])
    return tensors


def load(path: Path) -> tuple[TrainState, dict[str, Any]]:
    """Read a checkpoint and verify every byte of it.

    Tensors are on the processor and contiguous; copying them into the live network, optimiser and
    average brings them to their device and memory layout.

    Returns:
        The state, and the `meta` that was saved with it.

    Raises:
        RunError: missing, damaged, or no checkpoint of this version.
    """
    metadata, tensors = _read(path)
    if "neocog" not in metadata or "sha256" not in metadata:
        raise RunError(f"{path} is no neocog checkpoint: its header lacks our description")
    text = metadata["neocog"]
    _verify(path, text, tensors, metadata["sha256"])
    try:
        return _state(path, json.loads(text), tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged: its description cannot be read: {printable(str(error))[:200]}",
            "resume from another checkpoint",
        ) from error


def _state(
    path: Path, header: dict[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[TrainState, dict[str, Any]]:
    """What a description with the right digest says; it may still be nonsense.

    Raises:
        RunError: it is of another version.
        KeyError, TypeError, ValueError, RecursionError: it is nonsense.
    """
    if header["format"] != FORMAT:
        raise RunError(
            f"{path} has checkpoint format {header['format']!r:.80}, this neocog reads {FORMAT}",
            "use the version of neocog that wrote it",
        )
    step = header["step"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step: expected a whole number, found {step!r:.80}")
    parts = {
        part: unflatten(header[part], tensors)
        for part in ("model", "ema", "optimizer", "schedule", "meta")
    }
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(f"{name}: expected values by name, found {type(part).__name__}")
    for name, value in [*parts["model"].items(), *parts["ema"].items()]:
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{name!r:.80}: expected a tensor, found {type(value).__name__}")
    meta: dict[str, Any] = parts.pop("meta")
    return TrainState(step=step, **parts), meta


def load_latest(folder: Path) -> Loaded | None:
    """The newest checkpoint that is whole; None where there is none at all.

    Newest by step, not by clock: clocks differ between machines and copies lose their times.

    Raises:
        RunError: there are checkpoints, and every one of them is damaged.
    """
    warnings: list[str] = []
    for path in _numbered(folder):
        try:
            state, meta = load(path)
        except RunError as error:
            warnings.append(error.message)
            continue
        return Loaded(state=state, meta=meta, path=path, warnings=tuple(warnings))
    if warnings:
        raise RunError(
            f"no checkpoint in {folder} can be used: " + "; ".join(warnings),
            "train anew into another folder",
        )
    return None


def prune(folder: Path, keep: int = 2) -> tuple[Path, ...]:
    """Delete all but the `keep` newest numbered checkpoints, and what a crash left half-written.

    Named copies stay. Two are kept so that one that was damaged later does not end the run.

    Returns:
        What was deleted.

    Raises:
        ValueError: keep < 1.
    """
    if keep < 1:
        raise ValueError(f"expected to keep at least 1, got {keep}")
    old = [*_numbered(folder)[keep:], *folder.glob(f".*{SUFFIX}.*.tmp")]
    for path in old:
        path.unlink(missing_ok=True)
    return tuple(old)


def check_name(name: str) -> None:
    """Refuse a name that no file may have, or that would pass for a numbered checkpoint.

    Raises:
        ConfigError: with what is wrong with it.

    >>> check_name("03-0.27")
    >>> check_name("a/b")
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: 'a/b' cannot name a checkpoint
      hint: leave out control characters and < > : " / \\ | ? *
    """
    if _FORBIDDEN.search(name):
        raise ConfigError(
            f"{name!r} cannot name a checkpoint",
            'leave out control characters and < > : " / \\ | ? *',
        )
    if not name.strip(" .") or name.startswith(".") or len(name.encode()) > 200:
        raise ConfigError(
            f"{name!r} cannot name a checkpoint", "1 to 200 bytes, and no dot in front"
        )
    if _STEP.fullmatch(name):
        raise ConfigError(
            f"{name!r} would pass for a checkpoint to resume from", "put another word in front"
        )


def flatten(value: Any, prefix: str) -> tuple[Any, dict[str, Tensor]]:
    """Nested dicts, lists and tuples as a JSON tree, and the tensors that hung in it.

    None, booleans, integers, text, lists and finite numbers stand for themselves; what JSON would
    lose is wrapped: `{"tuple": …}`, `{"dict": [[key, value], …]}` (keys may be integers),
    `{"float": "nan"}`, `{"tensor": name}`.

    Args:
        value: what to take apart.
        prefix: the first part of every tensor's name; the rest is its path.

    Raises:
        ConfigError: a value of any other type, named by its path.

    >>> import torch
    >>> tree, tensors = flatten({"step": 3, "w": {0: torch.ones(2)}}, "optimizer")
    >>> tree
    {'dict': [['step', 3], ['w', {'dict': [[0, {'tensor': 'optimizer.w.0'}]]}]]}
    >>> unflatten(tree, tensors)
    {'step': 3, 'w': {0: tensor([1., 1.])}}
    """
    tensors: dict[str, Tensor] = {}
    return _flatten(value, prefix, tensors), tensors


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # Two paths can spell one name ("a.b" in one dict, "a" in "b"): the tree tells which is
        # which, the name only has to be unique and printable.
        name = re.sub(r"[^\x21-\x7e]", "_", path)
        while name in tensors:
            name += "~"
        tensors[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, list):
        return [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str | int):
                raise ConfigError(
                    f"{path} has the key {key!r}, which a checkpoint cannot hold",
                    "use text or integers",
                )
        return {"dict": [[k, _flatten(v, f"{path}.{k}", tensors)] for k, v in value.items()]}
    raise ConfigError(
        f"{path} is a {type(value).__name__}, which a checkpoint cannot hold",
        "use numbers, text, None, lists, tuples, dicts and tensors",
    )


def unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `flatten`: same types, same key types, same order.

    Raises:
        KeyError, TypeError, ValueError, RecursionError: no tree that `flatten` makes.
    """
    if isinstance(tree, list):
        return [unflatten(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, inside),) = tree.items()
    match kind:
        case "tensor":
            return tensors[inside]
        case "float":
            return float(inside)
        case "tuple":
            return tuple(unflatten(item, tensors) for item in inside)
        case "dict":
            return {key: unflatten(item, tensors) for key, item in inside}
    raise ValueError(f"{kind!r:.80} is no kind of value")


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    """The header's texts and the tensors."""
    found = weights.contents(path, longest=OURS)
    return found.metadata, dict(found.tensors)


def _verify(path: Path, text: str, tensors: Mapping[str, Tensor], expected: str) -> None:
    if digest_of(text, tensors) != expected:
        raise RunError(f"{path} is damaged: its contents do not match their SHA-256")


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous processor tensors with memory of their own; tied weights are written twice."""
    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        if place in seen and plain.numel():
            plain = plain.clone()
        seen.add(place)
        owned[name] = plain
    return owned


def digest_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the description and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(raw(value))
    return digest.hexdigest()


def _numbered(folder: Path) -> list[Path]:
    """Numbered checkpoints, the highest step first."""
    found = []
    for path in folder.glob(f"step-*{SUFFIX}"):
        match = _STEP.fullmatch(path.name.removesuffix(SUFFIX))
        if match and path.is_file():
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found, reverse=True)]
