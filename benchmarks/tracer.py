"""What the page's tracer computes, against PyTorch: `python benchmarks/tracer.py [--page FILE]`.

Builds one layer of every kind that `html.Tracer` knows, with stride, padding of every sort,
dilation and groups, in double precision; writes a page with one block for each of some hundred
random units, lets a headless Chromium run it, and compares every number that it shows: inputs,
kernels, products, sums, windows, the value, the value before. Fails where the browser says
anything on its console or where a number is off by more than 1e-6 of the layer's largest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from neocog import html
from neocog.html.tracer import FUNCTIONS, TracedField, TracedLayer, Tracer, fitted

UNITS = 3
"""Random units of each layer."""
SHAPE = (4, 9, 11)
_PARAMETER = {"leaky_relu": 0.2, "elu": 0.7, "celu": 1.3, "softplus": 2.0}


def _apply(name: str, x: torch.Tensor) -> torch.Tensor:
    p = _PARAMETER.get(name, 0.0)
    own: dict[str, Any] = {
        "leaky_relu": lambda: F.leaky_relu(x, p),
        "elu": lambda: F.elu(x, p),
        "celu": lambda: F.celu(x, p),
        "softplus": lambda: F.softplus(x, p),
        "gelu_tanh": lambda: F.gelu(x, approximate="tanh"),
        "square": lambda: x * x,
        "sqrt": lambda: x.sqrt(),
        "exp": x.exp,
        "abs": x.abs,
        "identity": lambda: x,
        "tanh": x.tanh,
        "sigmoid": x.sigmoid,
    }
    return own[name]() if name in own else getattr(F, name)(x)


class Book:
    """Layers as they are made, with their true answers."""

    def __init__(self, seed: int) -> None:
        self.chance = torch.Generator().manual_seed(seed)
        self.x = self.some(*SHAPE)
        self.layers: list[TracedLayer] = []
        self.exact: list[torch.Tensor] = []

    def some(self, *shape: int) -> torch.Tensor:
        """Numbers that float32 holds exactly, as float64."""
        return torch.randn(shape, generator=self.chance).double()

    def add(
        self, name: str, kind: str, answer: torch.Tensor, inputs: tuple[int, ...], **more: Any
    ) -> int:
        """Add a layer; returns its place."""
        answer = answer.reshape(answer.shape[-3:]) if answer.dim() > 3 else answer
        arrays = {
            key: value.float().numpy() if isinstance(value, torch.Tensor) else value
            for key, value in more.items()
        }
        self.layers.append(
            TracedLayer(
                name=name,
                kind=kind,  # type: ignore[arg-type]
                shape=tuple(answer.shape),  # type: ignore[arg-type]
                values=answer.float().numpy(),
                inputs=inputs,
                field=TracedField(first=(-1.0, 2.0), jump=(1.0, 1.0), size=(3.0, 40.0)),
                **arrays,
            )
        )
        self.exact.append(answer)
        return len(self.layers) - 1

    def seen(self, place: int) -> torch.Tensor:
        """What a layer that reads this one is given: float32, as the page has it."""
        return self.x if place < 0 else self.exact[place].float().double()


def book(seed: int) -> Book:
    """One layer of every kind."""
    made = Book(seed)
    x = made.x[None]
    _convolutions(made, x)
    _pools(made, x)
    mean, deviation = made.some(4, 1, 1), made.some(4, 1, 1).abs() + 0.3
    scale, shift = made.some(4, 1, 1), made.some(4, 1, 1)
    made.add("norm", "norm", (x - mean) / deviation * scale + shift, (-1,), mean=mean,
             deviation=deviation, scale=scale, shift=shift)  # fmt: skip
    mean, deviation = made.some(1, 9, 11), made.some(1, 9, 11).abs() + 0.3
    made.add(
        "norm over channels", "norm", (x - mean) / deviation, (-1,), mean=mean, deviation=deviation
    )
    positive = made.add("abs first", "pointwise", x.abs(), (-1,), function="abs")
    for name in FUNCTIONS:
        source = positive if name == "sqrt" else -1
        slope = torch.tensor([_PARAMETER[name]]) if name in _PARAMETER else None
        answer = _apply(name, made.seen(source)[None])
        made.add(name, "pointwise", answer, (source,), function=name, slope=slope)
    slopes = made.some(4)
    made.add("prelu", "pointwise", F.prelu(x, slopes), (-1,), function="leaky_relu", slope=slopes)
    made.add("unheard of", "pointwise", torch.erfinv(x.tanh() * 0.9), (-1,), function="erfinv")
    gate = made.add(
        "gate", "avg_pool", x.mean((2, 3), keepdim=True), (-1,), kernel=(9, 11), adaptive=True
    )
    made.add("gated", "multiply", x * made.seen(gate)[None], (-1, gate))
    made.add("sum", "add", x + made.seen(positive)[None] + x, (-1, positive, -1))
    joined = made.add(
        "cat", "concat", torch.cat([x, made.seen(positive)[None], x], 1), (-1, positive, -1)
    )
    flat = made.add("flatten", "reshape", made.seen(joined).reshape(-1, 1, 1), (joined,))
    weights, bias = made.some(6, 12 * 99), made.some(6)
    made.add("linear", "linear", (weights @ made.seen(flat).flatten() + bias).reshape(6, 1, 1),
             (flat,), weights=weights, bias=bias)  # fmt: skip
    last = made.add("linear of a map", "linear",
                    (weights @ made.seen(joined).flatten() + bias).reshape(6, 1, 1),
                    (joined,), weights=weights, bias=bias)  # fmt: skip
    made.add("other", "other", made.some(3, 2, 2), (-1,))
    made.add("softmax", "softmax", made.seen(last).softmax(0), (last,))
    made.add("softmax of maps", "softmax", x.softmax(1), (-1,))
    return made


def _convolutions(made: Book, x: torch.Tensor) -> None:
    pads = {
        "zeros": "constant",
        "reflect": "reflect",
        "replicate": "replicate",
        "circular": "circular",
    }
    for mode, name in pads.items():
        w, b = made.some(6, 2, 3, 2), made.some(6)
        # Padding alike on both ends, of which only the beginning is told.
        padded = F.pad(x, (1, 1, 2, 2), mode=name)
        answer = F.conv2d(padded, w, b, stride=(2, 1), dilation=(1, 2), groups=2)
        made.add(f"conv {mode}", "convolution", answer, (-1,), kernel=(3, 2), stride=(2, 1),
                 padding=(2, 1), padded_with=mode, dilation=(1, 2), groups=2, weights=w,
                 bias=b)  # fmt: skip
    w = made.some(70, 4, 1, 1)
    made.add("conv 1×1", "convolution", F.conv2d(x, w), (-1,), weights=w)
    w = made.some(4, 1, 5, 5)
    made.add("depthwise", "convolution", F.conv2d(x, w, padding=2, groups=4), (-1,), kernel=(5, 5),
             padding=(2, 2), groups=4, weights=w)  # fmt: skip
    w, b = made.some(4, 3, 3, 3), made.some(6)
    answer = F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2)
    made.add("transposed", "transposed", answer, (-1,), kernel=(3, 3), stride=(2, 2),
             padding=(1, 1), groups=2, weights=w, bias=b)  # fmt: skip


def _pools(made: Book, x: torch.Tensor) -> None:
    answer = F.max_pool2d(x, 3, 2, 1, dilation=(1, 2), ceil_mode=True)
    made.add(
        "max",
        "max_pool",
        answer,
        (-1,),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
        dilation=(1, 2),
    )
    for counted in (True, False):
        answer = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=counted)
        made.add(f"avg {counted}", "avg_pool", answer, (-1,), kernel=(3, 3), stride=(2, 2),
                 padding=(1, 1), count_padding=counted)  # fmt: skip
    made.add("adaptive", "avg_pool", F.adaptive_avg_pool2d(x, (4, 5)), (-1,), adaptive=True)
    made.add("adaptive max", "max_pool", F.adaptive_max_pool2d(x, (4, 5)), (-1,), adaptive=True)


class Panels(HTMLParser):
    """Of every block: its panel's data, and the numbers of each matrix and each step."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what is told of a unit."""
        given = {key: value or "" for key, value in attrs}
        name = given.get("class", "")
        if tag == "div" and name == "sum":
            self.found.append({"data": given, "matrices": [], "exact": [], "units": []})
        elif not self.found:
            return
        elif tag == "div" and name == "matrix":
            self.found[-1]["matrices"].append((given["aria-label"], []))
        elif tag in ("button", "span") and name == "unit":
            self.found[-1]["units"].append(given["title"])
        elif name == "exact":
            self.found[-1]["exact"].append(float(given["title"] or "nan"))
        elif "title" in given and "style" in given and self.found[-1]["matrices"]:
            text = given["title"]
            number = (
                0.0
                if text == "outside the map"
                else float("nan")
                if text == "null"
                else float(text)
            )
            self.found[-1]["matrices"][-1][1].append(number)


def browse(path: Path, *more: str) -> tuple[str, str]:
    """The page as the browser has it after its script, and what it said on its console."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder}", *more, "--dump-dom",
             path.as_uri()],
            capture_output=True, text=True, timeout=170, check=True,
        )  # fmt: skip
    return done.stdout, "\n".join(re.findall(r".*CONSOLE.*", done.stderr))


def check(made: Book, unit: tuple[int, ...], panel: dict[str, Any]) -> dict[str, float]:
    """The largest deviations of one unit's panel, as shares of the layer's largest number."""
    place, *at = unit
    layer, exact = made.layers[place], made.exact[place]
    assert panel["data"]["data-unit"] == f"{place}:{','.join(map(str, at))}", (panel["data"], unit)
    assert layer.values is not None
    size = float(exact.abs().max()) or 1.0
    off = {"value": abs(float(panel["data"]["data-value"]) - float(layer.values[tuple(at)]))}
    unknown = layer.kind == "other" or (
        layer.kind == "pointwise" and layer.function not in FUNCTIONS
    )
    computed = panel["data"]["data-computed"]
    assert unknown == (computed == "null"), (layer.name, computed)
    if not unknown:
        off["computed"] = abs(float(computed) - float(exact[tuple(at)])) / size
    matrices = panel["matrices"]
    if layer.kind in ("convolution", "transposed", "linear") and matrices:
        off["products"] = _products(made, layer, at, matrices) / size
    if layer.kind in ("max_pool", "avg_pool"):
        # Every window's numbers are found in the map that it reads.
        inside = set(made.seen(layer.inputs[0])[at[0]].flatten().tolist()) | {0.0}
        assert set(matrices[0][1]) <= inside, layer.name
    return off


def _products(made: Book, layer: TracedLayer, at: list[int], matrices: list[Any]) -> float:
    """Rows of patch, kernel, products: the products are theirs, and the derivative of the unit by
    what it reads, times that, is their sum (the unit is linear in it)."""
    rows: list[dict[str, np.ndarray]] = []
    for name, numbers in matrices:
        if name == "Input patch":
            rows.append({})
        rows[-1][name] = np.array(numbers)
    worst = 0.0
    for row in rows:
        products = row.get("Products", row["Input patch"] * row["Kernel"])
        worst = max(worst, float(np.abs(row["Input patch"] * row["Kernel"] - products).max()))
    source = made.seen(layer.inputs[0]).clone().requires_grad_()
    answer = _again(layer, source)[tuple(at)]
    (slope,) = torch.autograd.grad(answer, source)
    true = (slope * source).sum((1, 2)).detach().abs().sort(descending=True).values.numpy()
    shown = np.array([abs(float((row["Input patch"] * row["Kernel"]).sum())) for row in rows])
    return max(worst, float(np.abs(true[: len(shown)] - shown).max()))


def _again(layer: TracedLayer, x: torch.Tensor) -> torch.Tensor:
    """A layer that is linear in x, without its bias."""
    w = torch.tensor(layer.weights).double()
    if layer.kind == "linear":
        return (w @ x.flatten()).reshape(-1, 1, 1)
    if layer.kind == "transposed":
        return F.conv_transpose2d(x[None], w, None, layer.stride, layer.padding, 1, layer.groups)[0]
    mode = "constant" if layer.padded_with == "zeros" else layer.padded_with
    high, wide = layer.padding
    x = F.pad(x[None], (wide, wide, high, high), mode=mode)
    return F.conv2d(x, w, None, layer.stride, 0, layer.dilation, layer.groups)[0]


def main() -> None:
    """Build, browse, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="where to leave the page")
    given = parser.parse_args()
    made, draw = book(given.seed), np.random.default_rng(given.seed)
    units = [
        (place, *(int(draw.integers(size)) for size in layer.shape))
        for place, layer in enumerate(made.layers)
        for _ in range(UNITS)
    ]
    picture = html.data_uri(np.clip(128 + 60 * made.x[0].numpy(), 0, 255).astype(np.uint8))
    first = Tracer(
        picture=picture, alt="noise", values=made.x.float().numpy(), layers=tuple(made.layers)
    )
    # In every other block, what the page can work out itself is left out.
    less = replace(first, layers=fitted(made.layers, 1 << 30))
    blocks = tuple(replace(less if at % 2 else first, start=unit) for at, unit in enumerate(units))
    page = html.Page(
        title="Every kind of layer", sections=(html.Section(title="All", blocks=blocks),)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = given.page or Path(folder) / "page.html"
        html.write(page, path)
        text, console = browse(path)
    panels = Panels()
    panels.feed(text)
    assert len(panels.found) == len(units), (len(panels.found), len(units), console)
    worst: dict[str, float] = {}
    for unit, panel in zip(units, panels.found, strict=True):
        for name, off in check(made, unit, panel).items():
            worst[name] = max(worst.get(name, 0.0), off)
    print(f"{len(units)} units of {len(made.layers)} layers, {len(text) / 1e6:.1f} MB")
    for name, off in worst.items():
        print(f"  {name}: off by at most {off:.1e} of the layer's largest")
    if console or max(worst.values()) > 1e-6:
        sys.exit(console or "the page's numbers are not PyTorch's")


if __name__ == "__main__":
    main()
