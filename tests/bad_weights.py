"""Rows of the battery in `test_bad_inputs` for weights and bundles."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neocog import weights
from neocog.bundle import Bundle
from neocog.models import catalog
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadWeights:
    """One bad thing in a good bundle, which `bundle` writes."""

    item: str
    """As the catalogue has it, with its section."""
    variant: str
    """Which of the things that the item names."""
    name: str = WEIGHTS_FILE
    """The bad file."""
    change: Callable[[bytes], bytes]
    """Its good bytes → its bad ones."""
    read: Callable[[Path], Any]
    """Opens the bundle's folder."""
    expected: tuple[str, ...]
    """Words of the error."""

    def __str__(self) -> str:
        return f"{self.item} [{self.variant}]"


def bundle(folder: Path) -> Path:
    """A small good bundle."""
    args = {"width": 4}
    network = catalog.build("mlp", channels=1, size=(8, 8), outputs=2, args=args)
    Bundle(
        model=ModelSpec(name="mlp", args=args),
        weights=network.state_dict(),
        input=InputSpec(channels=1, size=(8, 8), mean=(0.5,), std=(0.25,)),
        task=TaskSpec(name="classify", args={"classes": ["cat", "dog"]}),
        classes=("cat", "dog"),
        manifest=Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={}),
    ).save(folder)
    return folder


def alone(folder: Path) -> Any:
    return weights.read(folder / WEIGHTS_FILE)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def in_header(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[bytes], bytes]:
    """A change of the tensors' entries, in the order of their places; no digest is left."""

    def changed(data: bytes) -> bytes:
        header, body = split(data)
        header.pop("__metadata__", None)
        change(sorted(header.values(), key=lambda entry: entry["data_offsets"]))
        return joined(header, body)

    return changed


def moved(by: int) -> Callable[[list[dict[str, Any]]], None]:
    """The second tensor lies elsewhere."""

    def change(entries: list[dict[str, Any]]) -> None:
        entries[1]["data_offsets"] = [place + by for place in entries[1]["data_offsets"]]

    return change


def turned(entries: list[dict[str, Any]]) -> None:
    """A matrix with its sides exchanged, which needs as many bytes."""
    matrix = next(entry for entry in entries if len(set(entry["shape"])) == 2)
    matrix["shape"].reverse()


def integers(entries: list[dict[str, Any]]) -> None:
    """Another type of as many bytes."""
    entries[0]["dtype"] = "I32"


def in_json(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        value = json.loads(data)
        change(value)
        return json.dumps(value).encode()

    return changed


def torch_file(data: bytes, *, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"w": torch.ones(2)}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def length(by: int) -> Callable[[bytes], bytes]:
    return lambda data: (int.from_bytes(data[:8], "little") + by).to_bytes(8, "little") + data[8:]


SECTION = "Weights and models: "
PICKLE = SECTION + "pickle in any form unless the caller says so explicitly"
TENSORS = SECTION + (
    "safetensors with wrong header length, overlapping or missing ranges, other dtype or shape "
    "than the spec"
)
FIELDS = SECTION + "`bundle.json` with unknown or missing fields"
PICKLES: dict[str, Callable[[bytes], bytes]] = {
    "zip": lambda data: torch_file(data, zipped=True),
    "old": lambda data: torch_file(data, zipped=False),
    "bare": lambda _: pickle.dumps({"w": [1.0]}),
    "of protocol 0": lambda _: pickle.dumps({"w": [1.0]}, protocol=0),
}
BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "header too long": (length(2**20), "header length"),
    "header past 64 bits": (lambda data: b"\xff" * 8 + data[8:], "header length"),
    "header too short": (length(-9), "in JSON"),
    "overlap": (in_header(moved(-4)), "overlap"),
    "gap": (in_header(moved(4)), "gap"),
    "cut short": (lambda data: data[:-4], "cut short"),
    "trailing": (lambda data: data + bytes(4), "trailing bytes"),
    "shape of other bytes": (
        in_header(lambda entries: entries[0]["shape"].append(2)),
        "data_offsets of",
    ),
    "unknown dtype": (in_header(lambda entries: entries[0].update(dtype="F31")), "a dtype of"),
}
MISFITS = {"other shape": (turned, "expected ("), "other dtype": (integers, "torch.int32")}

WEIGHTS = (
    *(
        BadWeights(
            item=PICKLE, variant=f"{name}, {how}", change=make, read=read, expected=("pickle",)
        )
        for name, make in PICKLES.items()
        for how, read in (("weights", alone), ("bundle", Bundle.load))
    ),
    *(
        BadWeights(
            item=TENSORS,
            variant=f"{name}, {how}",
            change=make,
            read=read,
            expected=("damaged", word),
        )
        for name, (make, word) in BROKEN.items()
        for how, read in (("weights", alone), ("bundle", Bundle.load))
    ),
    *(
        BadWeights(
            item=TENSORS,
            variant=name,
            change=in_header(make),
            read=Bundle.load,
            expected=("do not fit the network", word),
        )
        for name, (make, word) in MISFITS.items()
    ),
    *(
        BadWeights(
            item=FIELDS,
            variant=name,
            name="bundle.json",
            change=in_json(make),
            read=Bundle.load,
            expected=words,
        )
        for name, make, words in (
            ("unknown", lambda value: value.update(code="x"), ("code is unknown",)),
            ("missing", lambda value: value.pop("classes"), ("classes is missing",)),
            (
                "unknown inside",
                lambda value: value["model"].update(code="x"),
                ("ModelSpec", "code is unknown"),
            ),
            (
                "missing inside",
                lambda value: value["input"].pop("mean"),
                ("InputSpec", "mean is missing"),
            ),
        )
    ),
)
