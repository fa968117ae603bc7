"""What the analysis makes of other people's networks: `python benchmarks/foreign.py`.

Builds the networks of pytorchcv (and, asked for by name, of timm) without memory, traces them, and
compares: parameters with `sum(p.numel())`, multiply-accumulates with half of what
`torch.utils.flop_counter` counts, receptive fields of units with the support of the gradient at the
input (`tests/probe.py`, every so many networks). Prints a table of what does not agree, and totals.

    python benchmarks/foreign.py --part 1/8            # a piece of the list
    python benchmarks/foreign.py --names 'seresnet*'   # by name
    python benchmarks/foreign.py --source timm --names vit_base_patch16_224,convnext_tiny
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import probe
from neocog.analysis.field import fields
from neocog.analysis.recorder import TraceError
from neocog.analysis.summary import node_macs, unknown
from neocog.analysis.trace import trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = ["main"]


@dataclass(slots=True)
class Row:
    """One network."""

    name: str
    said: list[str] = field(default_factory=list)
    """What did not agree."""
    traced: bool = False
    milliseconds: float = 0.0
    units: int = 0
    """Units whose fields were compared."""
    exact: int = 0
    """Of these, those that the analysis calls exact and that equal the support."""


def _declare_torchvision() -> torch.library.Library:
    """Names that torchvision expects of its compiled half; without them it cannot be imported."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _built(source: str, name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network on the meta device, and the shape of its input."""
    with torch.device("meta"):
        if source == "timm":
            import timm

            net = timm.create_model(name, pretrained=False).eval()
            return net, (1, *net.default_cfg["input_size"])
        from pytorchcv.model_provider import get_model

        net = get_model(name, pretrained=False).eval()
    size = getattr(net, "in_size", (224, 224))
    return net, (1, getattr(net, "in_channels", 3), *size)


def _names(source: str) -> list[str]:
    if source == "timm":
        import timm

        return list(timm.list_models())
    from pytorchcv.model_provider import _models

    return sorted(_models)


def _counted(net: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates by PyTorch's counter."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.empty(tuple(shape), device="meta"))
    return int(counter.get_total_flops()) // 2


def _look(row: Row, net: nn.Module, shape: tuple[int, ...], with_fields: bool) -> None:
    began = time.perf_counter()
    try:
        graph = trace(net, shape)
    except TraceError as error:
        named = bool(error.path and error.source)
        row.said.append(f"{'named' if named else 'NOT NAMED'}: {error.op}: {error}")
        return
    fields(graph)
    row.milliseconds = 1000 * (time.perf_counter() - began)
    row.traced = True
    for one in unknown(graph):
        row.said.append(f"unknown: {one.op} in {one.path} at {one.source}")
    parameters = sum(p.numel() for p in net.parameters())
    if graph.parameter_count != parameters:
        row.said.append(f"parameters: {graph.parameter_count:,}, numel says {parameters:,}")
    macs = sum(node_macs(graph, node) for node in graph.nodes)
    try:
        counted = _counted(net, shape)
    except Exception as error:  # noqa: BLE001 — it does not run on the meta device
        row.said.append(f"not counted: {type(error).__name__}: {' '.join(str(error).split())[:90]}")
        counted = macs
    if macs != counted:
        row.said.append(f"MACs: {macs:,}, flop_counter {counted:,}")
    if with_fields:
        _fields(row, net, shape)


def _fields(row: Row, net: nn.Module, shape: tuple[int, ...]) -> None:
    found = probe.compare(net, shape)
    row.units = len(found)
    row.exact = sum(one.equal and one.exact for one in found)
    wrong = [one for one in found if not (one.equal if one.exact else one.covers)]
    if wrong:
        row.said.append(f"fields: {len(wrong)} of {len(found)} differ, first {wrong[0]}")


def main() -> None:
    """Build, trace, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=("pytorchcv", "timm"), default="pytorchcv")
    parser.add_argument("--part", default="1/1", help="K/N: the K-th of N pieces of the list")
    parser.add_argument("--names", default="*", help="patterns, joined by commas")
    parser.add_argument("--every", type=int, default=8, help="fields of every so many networks")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    _library = _declare_torchvision()  # declared as long as this object lives
    patterns = given.names.split(",")
    names = [n for n in _names(given.source) if any(fnmatch.fnmatch(n, p) for p in patterns)]
    piece, pieces = (int(one) for one in given.part.split("/"))
    began = time.perf_counter()
    rows = []
    for index, name in enumerate(names):
        if index % pieces != piece - 1:
            continue
        if given.seconds and time.perf_counter() - began > given.seconds:
            print(f"stopped before {name}")
            break
        rows.append(_row(given.source, name, bool(given.every) and index % given.every == 0))
    _print(rows)


def _row(source: str, name: str, with_fields: bool) -> Row:
    row = Row(name)
    try:
        net, shape = _built(source, name)
        _look(row, net, shape, with_fields)
    except Exception as error:  # noqa: BLE001 — foreign code; the table says so
        row.said.append(f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return row


def _print(rows: list[Row]) -> None:
    for row in rows:
        for said in row.said:
            print(f"{row.name:40} {said}")
    totals: dict[str, Any] = Counter(said.split(":")[0] for row in rows for said in row.said)
    slow = max(rows, key=lambda row: row.milliseconds)
    print(f"networks {len(rows)}, traced {sum(row.traced for row in rows)}")
    times = sorted(row.milliseconds for row in rows if row.traced)
    if times:
        middle = times[len(times) // 2]
        print(f"trace and fields: median {middle:.0f} ms, longest {times[-1]:.0f} ({slow.name})")
    probed = [row for row in rows if row.units]
    print(
        f"fields compared: {len(probed)} networks, {sum(row.units for row in probed)} units,"
        f" {sum(row.exact for row in probed)} exact and equal to the support"
    )
    for kind, count in sorted(totals.items()):
        print(f"{kind}: {count}")


if __name__ == "__main__":
    main()
