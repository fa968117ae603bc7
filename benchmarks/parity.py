"""Does every network of the catalogue answer the same as an ONNX file? Table and summary.

    python benchmarks/parity.py FOLDER                 all of them, on pictures of class folders
    python benchmarks/parity.py FOLDER cnn unet        some
    python benchmarks/parity.py --table                the table of what was measured

Networks learn for 24 steps: with random weights the deep ones answer so wildly that rounding
alone, against float64, takes them beyond 1e-4. Batch norm statistics are those of real pictures,
and the outputs are scaled to a spread of 2, so that answers differ from picture to picture. Each
is exported at a small input size with `export.onnx.write` and compared by `export.parity` in ONNX
Runtime, on raw pictures that are scaled by the file itself where the network takes larger ones.
Beside each, the file is compared with a run that has another mean, which must be caught. What was
measured is kept in results/parity.json, network by network; `--samples N` takes fewer pictures
than 1,000.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neocog import tasks
from neocog.bundle import Bundle
from neocog.config import DataRecipe
from neocog.data import dataset
from neocog.errors import ConfigError
from neocog.export import onnx
from neocog.export.parity import TOLERANCES, compare
from neocog.export.samples import Samples, of_part
from neocog.layers import Normalize, output_layer
from neocog.models import catalog
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
from neocog.runtime.onnx_engine import OnnxEngine

RESULTS = Path(__file__).parent / "results" / "parity.json"
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
SIDES = (32, 48, 64, 96, 128, 224)
CALIBRATION, SPREAD = 256, 2.0
STEPS, BATCH = 24, 32
PLANTED = (0.511, 0.482, 0.447)
"""The first channel's mean is wrong by 5 of 255."""


def smallest(name: str) -> tuple[nn.Module, int]:
    """The network at the smallest side that it takes."""
    for side in SIDES:
        try:
            torch.manual_seed(0)
            kept: dict[str, Any] = {"channels": 3, "size": (side, side), "outputs": 10}
            return catalog.build(name, args={}, **kept), side
        except ConfigError:
            continue
    raise SystemExit(f"{name} takes none of {SIDES}")


def learn(network: nn.Module, data: dataset.Dataset, side: int) -> None:
    """Some steps of AdamW on real pictures, in place."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    normalize = Normalize(MEAN, STD)
    network.train()
    for step in range(STEPS):
        torch.manual_seed(step)
        ids = torch.randperm(len(data))[:BATCH]
        images = data.images.gather(ids, (32, 32)).float()
        found = network(normalize(nn.functional.interpolate(images, (side, side), mode="bilinear")))
        outputs = found if isinstance(found, torch.Tensor) else found[0]
        targets = data.targets[ids]
        if outputs.dim() == 4:  # each pixel says what the picture shows
            targets = targets[:, None, None].expand(-1, *outputs.shape[2:])
        optimizer.zero_grad()
        nn.functional.cross_entropy(outputs, targets).backward()
        optimizer.step()


def settle(network: nn.Module, images: torch.Tensor) -> None:
    """Batch norm statistics of real pictures, and outputs of a usual spread, in place."""
    norms = [
        part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for some in images.split(32):
            network(some)
        network.eval()
        outputs = network(images[:32])
        last = network.get_submodule(output_layer(network))
        factor = SPREAD / (outputs - outputs.mean(1, keepdim=True)).std().clamp(min=1e-9)
        last.weight.mul_(factor)
        if last.bias is not None:
            last.bias.mul_(factor)


def bundled(name: str, network: nn.Module, side: int, whole: bool) -> Bundle:
    """The network as a trained one."""
    classes = [f"class {k}" for k in range(10)]
    kind = TaskSpec(name="segment" if whole else "classify", args={"classes": classes})
    return Bundle(
        model=ModelSpec(name=name, args={}),
        weights=network.state_dict(),
        input=InputSpec(channels=3, size=(side, side), mean=MEAN, std=STD, whole=whole),
        task=tasks.build(kind).spec,
        classes=tuple(classes),
        manifest=Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={}),
    )


def measure(name: str, data: dataset.Dataset, most: int) -> dict[str, Any]:
    """Export one network, compare, and plant the wrong mean."""
    began = time.monotonic()
    whole = catalog.CATALOG[name].gives == "map"
    network, side = smallest(name)
    images = data.images.gather(torch.arange(0, len(data), len(data) // CALIBRATION), (32, 32))
    fitted = nn.functional.interpolate(images[:CALIBRATION].float(), (side, side), mode="bilinear")
    learn(network, data, side)
    settle(network, Normalize(MEAN, STD)(fitted))
    bundle = bundled(name, network, side, whole)
    predictor = bundle.predictor()
    samples = of_part(data, (), most)
    tolerance = TOLERANCES["fp32"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        onnx.write(bundle, path, predictor=predictor)
        size = path.stat().st_size
        written = time.monotonic() - began
        engine = OnnxEngine(path, threads=torch.get_num_threads())
        found = compare(engine, predictor, samples, bundle.task, tolerance)
        # The file against a run that normalises otherwise.
        wrong = dataclasses.replace(bundle, input=dataclasses.replace(bundle.input, mean=PLANTED))
        few = Samples(data=data, ids=samples.ids[:64], part="all")
        planted = compare(engine, wrong.predictor(), few, bundle.task, tolerance)
    assert found.largest is not None
    assert planted.largest is not None
    return {
        "side": side,
        "parameters": sum(one.numel() for one in network.parameters()),
        "bytes": size,
        "n": found.n,
        "largest": found.largest.apart,
        "mean": found.mean,
        "labels": found.labels,
        "differ": found.other,
        "beyond": found.beyond,
        "own": found.own,
        "values": found.values,
        "own_values": found.own_values,
        "exception": found.exception,
        "problem": found.problem,
        "planted": planted.largest.apart,
        "caught": bool(planted.problem),
        "write_seconds": round(written, 1),
        "seconds": round(time.monotonic() - began, 1),
        "versions": {lib: importlib.metadata.version(lib) for lib in ("torch", "onnxruntime")},
    }


def read() -> dict[str, Any]:
    """What was measured before."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def table() -> int:
    """Print it; how many networks fail."""
    rows = read()
    print(
        "| network | input | file, MB | samples | largest | mean | labels that differ | beyond "
        "| planted |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, one in sorted(rows.items()):
        print(
            f"| {name} | {one['side']}×{one['side']} | {one['bytes'] / 1e6:.1f} | {one['n']:,} | "
            f"{one['largest']:.1e} | {one['mean']:.1e} | {one['differ']:,} of {one['labels']:,} | "
            f"{_beyond(one)} | {one['planted']:.1e}{'' if one['caught'] else ' MISSED'} |"
        )
    bad = [name for name, one in rows.items() if one["problem"] or not one["caught"]]
    missing = sorted(set(catalog.CATALOG) - set(rows))
    worst = max((one["largest"] for one in rows.values()), default=0)
    print(f"\n{len(rows)} networks, largest difference {worst:.1e}; failed: {bad or 'none'}")
    if missing:
        print(f"not measured: {', '.join(missing)}")
    return len(bad) + len(missing)


def _beyond(one: dict[str, Any]) -> str:
    """Samples beyond the tolerance, and how many the run has beyond it when it is compared with
    itself, computed in another order."""
    own = one.get("own")
    return str(one.get("beyond", 0)) + ("" if own is None else f" (the run itself: {own})")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="of class folders, pictures of 32×32 in colour")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.folder and not options.table:
        torch.set_num_threads(options.threads)
        data = dataset.load(DataRecipe(source=options.folder, val=0.0))
        for name in options.names or catalog.CATALOG:
            row = measure(name, data, options.samples)
            RESULTS.write_text(json.dumps(read() | {name: row}, indent=1, sort_keys=True) + "\n")
            told = row["problem"] or "equal"
            print(f"{name}: {row['largest']:.1e}, {told}, {row['seconds']} s", flush=True)
    sys.exit(1 if table() else 0)


if __name__ == "__main__":
    main()
