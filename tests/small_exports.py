"""A small network that can read digits, trained in a second by plain PyTorch, and its ONNX file."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import nn

from neocog.described import Described
from neocog.export.program import Program, traced
from neocog.layers import Predictor
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["CLASSES", "Digits", "described", "metadata", "saved", "trained"]

CLASSES = ("zero", "one\ntwo", 'd"r\\ei', "vier 四", "", "five", "six", "siete", "8", "\x00nine")
SPEC = InputSpec(channels=1, size=(8, 8), mean=(0.3,), std=(0.37,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """A network and digits that it has seen and has not seen, N×1×8×8 uint8."""

    predictor: Predictor
    seen: NDArray[Any]
    images: NDArray[Any]
    labels: NDArray[Any]


def described() -> Described:
    return Described(
        model=ModelSpec(name="conv", args={}),
        input=SPEC,
        task=TaskSpec(name="classify", args={"classes": list(CLASSES)}),
        classes=CLASSES,
        manifest=Manifest(config={}, seed=0, versions={"torch": "2"}, argv=(), device={}, data={}),
    )


def metadata() -> str:
    plain = {"described": described().plain(), "digest": "00", "precision": "fp32"}
    return json.dumps({**plain, "task": "classify"}, ensure_ascii=False)


def trained() -> Digits:
    data = load_digits()
    images = (data.images * 15.9375).astype(np.uint8)[:, None]
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)),
    )
    predictor = Predictor(network, SPEC, lambda z: z.softmax(1))
    pixels, labels = torch.from_numpy(images[:1300]), torch.from_numpy(data.target[:1300])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(6):
        for rows in torch.randperm(1300).split(64):
            loss = nn.functional.cross_entropy(predictor.outputs(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Digits(
        predictor=predictor.eval(),
        seen=images[:1300],
        images=images[1300:],
        labels=data.target[1300:],
    )


def saved(predictor: Predictor, path: Path) -> Path:
    """As ONNX, by torch's exporter alone, with metadata."""
    program = traced(Program(predictor).eval(), predictor.input)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities"],
            verbose=False,
        )
    assert made is not None
    proto = made.model_proto
    proto.producer_name, proto.producer_version = "neocog", "0"
    proto.metadata_props.add(key="neocog", value=metadata())
    onnx.save(proto, path)
    return path
