"""Sizes that strangers choose must not make an engine's memory grow."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from neocog.export import onnx
from served import small_bundle

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import json, resource, sys
import numpy as np
from neocog.runtime.opened import open_engine

engine = open_engine(sys.argv[1], engine=sys.argv[2], threads=1)
draws = np.random.default_rng(0)

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def ask(count):
    for _ in range(count):
        height, width = draws.integers(20, 200, 2)
        engine(np.zeros((int(draws.integers(1, 5)), 3, height, width), np.uint8))
    return held()

print(json.dumps([ask(60), ask(150)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_sizes_are_not_kept(engine: str, tmp_path: Path) -> None:
    line = "; ".join(["conv 32 3 pad=same", "relu", "conv 32 3 pad=same", "relu", "gap", "linear"])
    bundle = small_bundle(line=line, size=(64, 64))
    bundle.save(tmp_path / "bundle")
    path = tmp_path / "bundle"
    if engine != "torch":
        path = tmp_path / "small.onnx"
        onnx.write(bundle, path)
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), engine],
        capture_output=True,
        text=True,
        check=True,
    )
    early, late = json.loads(said.stdout)
    assert late < 1.04 * early
