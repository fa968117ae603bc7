"""The block in which a network's arithmetic can be followed: what it holds and what it refuses.

Here everything is computed by loops in NumPy; what the page itself computes of it is compared with
these numbers by `benchmarks/tracer.py`, which needs a browser.
"""

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from neocog import html
from neocog.html.tracer import FUNCTIONS, TracedField, TracedLayer, Tracer, fitted

FLOAT = np.float32
SCRIPTS = Path(html.__file__).parent


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray, padding: int) -> np.ndarray:
    """C×H×W and O×C×k×k, stride 1, in double precision."""
    x = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding)))
    k = w.shape[-1]
    high, wide = x.shape[1] - k + 1, x.shape[2] - k + 1
    windows = np.stack(
        [x[:, i : i + high, j : j + wide] for i in range(k) for j in range(k)], axis=1
    )
    kernels = w.reshape(*w.shape[:2], k * k).astype(np.float64)
    return np.einsum("ock,ckhw->ohw", kernels, windows) + b[:, None, None]


def small(seed: int = 0) -> Tracer:
    """convolution → norm → relu → maximum pool → flat → linear → softmax on a picture of 12×14."""
    draw = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(FLOAT)

    x = some(2, 12, 14)
    w1, b1 = some(7, 2, 3, 3), some(7)
    one = correlate(x, w1, b1, 1).astype(FLOAT)
    mean, deviation = some(7, 1, 1), np.abs(some(7, 1, 1)) + FLOAT(0.5)
    scale, shift = some(7, 1, 1), some(7, 1, 1)
    two = ((one.astype(np.float64) - mean) / deviation * scale + shift).astype(FLOAT)
    three = np.maximum(two, 0)
    four = three.reshape(7, 6, 2, 7, 2).max((2, 4))
    five = four.reshape(-1, 1, 1)
    w2, b2 = some(4, 294) / FLOAT(10), some(4)
    six = (w2.astype(np.float64) @ five[:, 0, 0] + b2).astype(FLOAT).reshape(4, 1, 1)
    power = np.exp(six.astype(np.float64) - six.max())
    seven = (power / power.sum()).astype(FLOAT)
    fields = [TracedField(first=(-1, -1), jump=(1, 1), size=(3, 3))] * 3
    fields.append(TracedField(first=(-1, -1), jump=(2, 2), size=(4, 4)))
    layers = (
        TracedLayer(
            name="conv1",
            kind="convolution",
            shape=one.shape,
            values=one,
            inputs=(-1,),
            kernel=(3, 3),
            padding=(1, 1),
            weights=w1,
            bias=b1,
            field=fields[0],
        ),
        TracedLayer(
            name="bn1",
            kind="norm",
            shape=two.shape,
            values=two,
            inputs=(0,),
            mean=mean,
            deviation=deviation,
            scale=scale,
            shift=shift,
            field=fields[1],
        ),
        TracedLayer(
            name="relu",
            kind="pointwise",
            function="relu",
            shape=three.shape,
            values=three,
            inputs=(1,),
            field=fields[2],
        ),
        TracedLayer(
            name="pool",
            kind="max_pool",
            shape=four.shape,
            values=four,
            inputs=(2,),
            kernel=(2, 2),
            stride=(2, 2),
            field=fields[3],
        ),
        TracedLayer(name="flat", kind="reshape", shape=five.shape, values=five, inputs=(3,)),
        TracedLayer(
            name="fc", kind="linear", shape=six.shape, values=six, inputs=(4,), weights=w2, bias=b2
        ),
        TracedLayer(name="shares", kind="softmax", shape=seven.shape, values=seven, inputs=(5,)),
    )
    picture = np.clip(128 + 60 * x[0], 0, 255).astype(np.uint8)
    return Tracer(
        picture=html.data_uri(picture),
        alt="noise",
        values=x,
        layers=layers,
        channels=("left", "right"),
        labels=("a <b>", "b\u202e", "</script>", "d"),
        text="Without a script: conv1 is a sum of 18 products.",
    )


def page(tracer: Tracer) -> str:
    section = html.Section(title="Inside", blocks=(tracer,))
    return html.render(html.Page(title="Traced", sections=(section,)))


def held(text: str) -> dict:
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    found = json.loads(data)
    assert isinstance(found, dict)
    return found


def numbers(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["shape"])


def test_the_page_holds_every_number_bit_by_bit() -> None:
    tracer = small()
    found = held(page(tracer))
    np.testing.assert_array_equal(numbers(found["input"]), tracer.values)
    for said, layer in zip(found["layers"], tracer.layers, strict=True):
        assert said["name"] == layer.name
        for name in ("values", "weights", "bias", "mean", "deviation", "scale", "shift"):
            array = getattr(layer, name)
            assert (said[name] is None) == (array is None)
            if array is not None:
                np.testing.assert_array_equal(numbers(said[name]), array)


def test_names_cannot_leave_the_data() -> None:
    text = page(small())
    data = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[0]
    assert data.isascii()
    assert not set(data) & set("<>&")
    assert held(text)["labels"] == ["a <b>", r"b\u202e", "</script>", "d"]


def test_only_a_page_with_the_block_carries_its_script() -> None:
    assert "data-tracer" not in html.render(html.Page(title="plain"))
    text = page(small())
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    for name in ("page.js", "tracer_sums.js", "tracer.js"):
        assert (SCRIPTS / name).read_text(encoding="utf-8") in script
    assert script.index("function arithmetic") < script.index("function tracer(")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;;" in text


def test_the_script_makes_no_markup_of_text() -> None:
    for path in SCRIPTS.glob("*.js"):
        script = path.read_text(encoding="utf-8")
        banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\("
        assert not re.search(banned + r"|fetch\(|XMLHttpRequest|https?:", script), path.name
        assert len(script) < 25_000, path.name


def test_without_a_script_there_is_a_sentence_and_the_picture() -> None:
    text = page(small())
    assert "Without a script: conv1 is a sum of 18 products." in text
    assert '<img class="still" src="data:image/png' in text


def test_the_page_knows_every_function_that_it_is_said_to_know() -> None:
    script = (SCRIPTS / "tracer_sums.js").read_text(encoding="utf-8")
    table = script[script.index("const FUNCTIONS = {") :]
    table = table[: table.index("\n};")]
    assert set(re.findall(r"^  (\w+):", table, re.MULTILINE)) == set(FUNCTIONS)


def test_a_budget_is_kept_by_leaving_out_what_costs_least() -> None:
    layers = small().layers
    total = sum(layer.size for layer in layers)
    free = fitted(layers, total)
    assert [layer.values is None for layer in free] == [layer.derived for layer in layers]
    assert [layer.name for layer in layers if layer.derived] == ["relu", "pool", "flat"]
    assert all(one.weights is two.weights for one, two in zip(free, layers, strict=True))
    need = sum(layer.size for layer in free)
    less = fitted(layers, need - 1)
    assert [
        one.name for one in less if one.kind in ("convolution", "linear") and one.weights is None
    ] == ["fc"]
    none = fitted(layers, 0)
    assert all(layer.values is None and layer.weights is None for layer in none)
    for budget in range(0, total, total // 7):
        kept = sum(layer.size for layer in fitted(layers, budget))
        least = sum(layer.size for layer in none)
        assert kept <= max(budget, least)


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        (0, {"values": np.zeros((7, 12, 13), FLOAT)}),
        (0, {"values": np.zeros((7, 12, 14))}),
        (0, {"weights": np.zeros((7, 2, 3, 2), FLOAT)}),
        (0, {"bias": np.zeros(6, FLOAT)}),
        (0, {"groups": 3}),
        (0, {"inputs": (0,)}),
        (0, {"inputs": (-2,)}),
        (0, {"inputs": ()}),
        (0, {"kind": "magic"}),
        (1, {"deviation": None}),
        (1, {"mean": np.zeros((6, 1, 1), FLOAT)}),
        (2, {"inputs": (-1,)}),
        (3, {"shape": (6, 6, 7), "values": None}),
        (4, {"shape": (293, 1, 1), "values": None}),
        (5, {"weights": np.zeros((4, 293), FLOAT)}),
        (5, {"shape": (0, 1, 1), "values": None}),
        (5, {"kind": "concat"}),
        (5, {"kind": "add"}),
    ],
)
def test_layers_that_do_not_fit_are_refused(place: int, changes: dict) -> None:
    tracer = small()
    with pytest.raises(ValueError, match=r"expected|makes"):
        dataclasses.replace(
            tracer,
            layers=tuple(
                dataclasses.replace(layer, **changes) if at == place else layer
                for at, layer in enumerate(tracer.layers)
            ),
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"values": np.zeros((2, 12, 14))},
        {"layers": ()},
        {"channels": ("one",)},
        {"labels": ("one",)},
        {"start": (7, 0, 0, 0)},
        {"start": (0, 0, 12, 0)},
        {"picture": "https://example.org/x.png"},
    ],
)
def test_tracers_that_do_not_fit_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(small(), **changes)
