"""What two runs must have in common, as SHA-256. Clocks are left out, and nothing else."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from torch import Tensor

from neocog.engine import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.records import TrainState

__all__ = ["different", "file_print", "run_prints", "state_print"]

CLOCKS = {"time", "seconds", "images_per_second", "used", "plan"}
"""Fields that say how long something took."""
ASIDE = {"resume", "save-failed"}
"""Kinds of events that tell of an interruption, which the uninterrupted run did not have."""


def state_print(state: TrainState) -> str:
    """All of a training state: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    parts = (state.step, state.model, state.optimizer, state.schedule, state.ema)
    for value in parts:
        _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Take in a value so that no two different ones read alike."""
    if isinstance(value, Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).numpy().tobytes())
    elif isinstance(value, float):
        digest.update(b"float " + struct.pack("<d", value))
    elif hasattr(value, "items"):
        digest.update(f"dict {len(value)} ".encode())
        for key, inner in value.items():
            _feed(digest, key)
            _feed(digest, inner)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} {len(value)} ".encode())
        for inner in value:
            _feed(digest, inner)
    else:
        digest.update(f"{type(value).__name__} {value!r} ".encode())


def file_print(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_prints(folder: Path) -> dict[str, str]:
    """A finished run folder, part by part: each SHA-256 under the name of what it is of, and the
    names of the files.

    Raises:
        OSError, RunError: a part is missing or damaged.
    """
    found = checkpoint.load_latest(folder / "checkpoints")
    assert found is not None, "a finished run has a checkpoint"
    # Which one stays beside the newest is up to the clock.
    older = sorted((folder / "checkpoints").glob("step-*"))[:-1]
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path not in older[-1:]
    )
    prints = {
        "weights": file_print(folder / "bundle" / "weights.safetensors"),
        "events": _text_print(_events(folder / "events.jsonl")),
        "scores": _text_print(_timeless(json.loads((folder / "evaluation.json").read_text()))),
        "files": " ".join(names),
        "damaged": _text_print(found.warnings),
    }
    for part in ("step", "model", "optimizer", "schedule", "ema"):
        digest = hashlib.sha256()
        _feed(digest, getattr(found.state, part))
        prints[part] = digest.hexdigest()
    copies = sorted((folder / "checkpoints").glob("*.safetensors"))
    prints["copies"] = _text_print(
        {path.stem: _tensors_print(path) for path in copies if not path.stem.startswith("step-")}
    )
    return prints


def different(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of the prints in which two runs differ, then of the files that only one has."""
    odd = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    names = set(one.get("files", "").split()) ^ set(other.get("files", "").split())
    return [*odd, *sorted(names)]


def _events(path: Path) -> list[Any]:
    told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [_timeless(event) for event in told if event["kind"] not in ASIDE]


def _timeless(value: Any) -> Any:
    """The value without its clocks, at any depth."""
    if isinstance(value, dict):
        return {name: _timeless(inner) for name, inner in value.items() if name not in CLOCKS}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return value


def _text_print(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _tensors_print(path: Path) -> str:
    """The tensors of a safetensors file, without its header."""
    digest = hashlib.sha256()
    with safe_open(path, framework="pt", device="cpu") as file:
        for name in sorted(file.keys()):
            _feed(digest, name)
            _feed(digest, file.get_tensor(name))
    return digest.hexdigest()
