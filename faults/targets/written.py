"""What neocog writes itself: weights, checkpoints, bundles, settings, events."""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import TYPE_CHECKING, Any

from faults.mutate import mutated
from faults.targets.target import Files, Target, seed

if TYPE_CHECKING:
    import random
    from pathlib import Path

__all__ = ["TARGETS"]


@cache
def _tensors() -> bytes:
    import torch
    from safetensors.torch import save

    data: bytes = save({"a.weight": torch.ones(3, 4), "b": torch.arange(5)}, {"note": "x"})
    return data


def _make_tensors(chance: random.Random) -> Files:
    return {"w.safetensors": mutated(_tensors(), seed(chance))}


def _safetensors(header: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


def _tensor_bombs() -> list[Files]:
    entry = b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,%s]}}'
    headers = (
        b"[" * 100_000,
        b'{"a":' * 100_000,
        entry % (b"1099511627776", b"4398046511104"),
        entry % (b"0," * 1_000_000 + b"0", b"0"),
        b'{"__metadata__":{"a":"' + b"x" * (50 << 20) + b'"}}',
    )
    files = [*map(_safetensors, headers), struct.pack("<Q", 2**63) + b"{}", bytes(8)]
    return [{"w.safetensors": data} for data in files]


def _read_tensors(folder: Path) -> None:
    from neocog import weights
    from neocog.engine import checkpoint
    from neocog.errors import NeocogError

    weights.read(folder / "w.safetensors")  # as strangers' files are; ours may have longer headers
    try:
        checkpoint.load_weights(folder / "w.safetensors")
    except NeocogError:
        checkpoint.load(folder / "w.safetensors")


@cache
def _state() -> tuple[str, dict[str, Any]]:
    """Description and tensors of a small checkpoint."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch

    from neocog import weights
    from neocog.engine import checkpoint
    from neocog.records import TrainState

    ones = {"w": torch.ones(2, 3), "b": torch.zeros(2)}
    state = TrainState(
        step=7,
        model=ones,
        optimizer={"state": {0: {"step": 7, "momentum": torch.ones(2)}}, "groups": [(0.9, 1e-3)]},
        schedule={"lowered": [1.0, float("inf")]},
        ema={"w": torch.ones(2, 3)},
    )
    with TemporaryDirectory() as folder:
        path = checkpoint.save(Path(folder), state, meta={"order": [1, None, True, "x"]})
        found = weights.contents(path)
    return found.metadata["neocog"], dict(found.tensors)


def _forged(text: str) -> Files:
    """A checkpoint with this description and the digest that belongs to it."""
    from safetensors.torch import save

    from neocog.engine import checkpoint

    tensors = _state()[1]
    digest = checkpoint.digest_of(text, tensors)
    return {"step-00000007.safetensors": save(tensors, {"neocog": text, "sha256": digest})}


_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0.5,
    10**30,
    "",
    "w",
    [],
    [[]],
    {},
    {"tensor": "w"},
    {"dict": [[[], 1]]},
)


def _exchanged(tree: Any, chance: random.Random) -> Any:
    """A JSON tree with one of its values replaced by an odd one."""
    if not isinstance(tree, list | dict) or not tree or chance.random() < 0.2:
        return chance.choice(_ODD)
    changed: Any = tree.copy()
    place = chance.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    changed[place] = _exchanged(tree[place], chance)
    return changed


def _make_checkpoint(chance: random.Random) -> Files:
    text = _state()[0]
    if chance.random() < 0.3:
        return _forged(mutated(text.encode(), seed(chance)).decode(errors="replace"))
    tree = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        tree = _exchanged(tree, chance)
    return _forged(json.dumps(tree))


def _checkpoint_bombs() -> list[Files]:
    deep = '{"tuple": [' * 900 + "]}" * 900
    parts = '{"format": 1, "step": 7, "model": %s, "ema": %s, "optimizer": 1}'
    texts = (
        *("[" * 100_000, '{"format":' * 100_000, deep, "9" * 100_000),
        *(parts % (deep, deep), parts % ("[" * 50_000 + "]" * 50_000, 1)),
    )
    return [_forged(text) for text in texts]


def _read_checkpoint(folder: Path) -> None:
    from neocog.engine import checkpoint

    (path,) = folder.iterdir()
    checkpoint.load(path)


@cache
def _bundle() -> Files:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from neocog.bundle import Bundle
    from neocog.config import Recipe
    from neocog.models import catalog
    from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
    from neocog.settings import to_dict

    args = {"width": 4}
    network = catalog.build("cnn", channels=1, size=(8, 8), outputs=2, args=args)
    bundle = Bundle(
        model=ModelSpec(name="cnn", args=args),
        weights=network.state_dict(),
        input=InputSpec(channels=1, size=(8, 8), mean=(0.5,), std=(0.5,)),
        task=TaskSpec(name="classify", args={"classes": ["a", "b"]}),
        classes=("a", "b"),
        manifest=Manifest(
            config=to_dict(Recipe()), seed=0, versions={}, argv=(), device={}, data={}
        ),
    )
    with TemporaryDirectory() as folder:
        bundle.save(Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _make_bundle(chance: random.Random) -> Files:
    files = dict(_bundle())
    bad = "bundle.json" if chance.random() < 0.8 else "weights.safetensors"
    return files | {bad: mutated(files[bad], seed(chance))}


def _read_bundle(folder: Path) -> None:
    from neocog.bundle import Bundle

    Bundle.load(folder)


@cache
def _configs() -> Files:
    from neocog.config import Recipe
    from neocog.settings import to_dict

    plain = to_dict(Recipe())
    lines = [f"{name} = {json.dumps(v)}" for name, v in plain.items() if isinstance(v, str | int)]
    for name, values in plain.items():
        if isinstance(values, dict):
            lines.append(f"[{name}]")
            lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None]
    return {
        "recipe.toml": "\n".join(lines).encode(),
        "manifest.json": json.dumps({"config": plain}).encode(),
    }


def _make_config(chance: random.Random) -> Files:
    name = chance.choice(tuple(_configs()))
    return {name: mutated(_configs()[name], seed(chance))}


def _config_bombs() -> list[Files]:
    texts = (
        b"[" * 100_000,
        b"a=" + b"[" * 100_000,
        b"a" + b".a" * 50_000 + b"=1",
        b"a=" + b"9" * 50_000,
    )
    nested = (b"[" * 100_000, b'{"config":' * 50_000, b'{"config":{"seed":' + b"9" * 50_000 + b"}}")
    return [
        *({"recipe.toml": text} for text in texts),
        *({"manifest.json": text} for text in nested),
    ]


def _read_config(folder: Path) -> None:
    from neocog.config import Recipe
    from neocog.settings import from_dict, load_file

    (path,) = folder.iterdir()
    from_dict(Recipe, load_file(path))


_EVENTS = b"".join(
    b'{"step": %d, "kind": "epoch", "values": {"loss": 0.%d}, "time": %d.25}\n' % (i, i, i)
    for i in range(1, 20)
)


def _make_events(chance: random.Random) -> Files:
    return {"events.jsonl": mutated(_EVENTS, seed(chance))}


def _event_bombs() -> list[Files]:
    texts = (
        b"[" * 100_000 + b"\n",
        b'{"step":' * 50_000 + b"\n",
        b'{"step":' + b"9" * 50_000 + b"}\n",
    )
    return [{"events.jsonl": text + _EVENTS} for text in texts]


def _read_events(folder: Path) -> None:
    from neocog.run import read_events

    read_events(folder / "events.jsonl")


TARGETS = {
    "safetensors": Target(make=_make_tensors, read=_read_tensors, bombs=_tensor_bombs),
    "checkpoint": Target(make=_make_checkpoint, read=_read_checkpoint, bombs=_checkpoint_bombs),
    "bundle": Target(make=_make_bundle, read=_read_bundle),
    "config": Target(make=_make_config, read=_read_config, bombs=_config_bombs),
    "events": Target(make=_make_events, read=_read_events, bombs=_event_bombs),
}
