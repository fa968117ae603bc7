"""A layer's arithmetic in words: against torch's own shapes, counts and gradients."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neocog.analysis.field import Fields, fields
from neocog.analysis.summary import Layer, layers
from neocog.analysis.trace import trace
from neocog.analysis.why import why
from neocog.errors import ConfigError
from neocog.models import catalog
from why_pages import GOLDEN

if TYPE_CHECKING:
    from neocog.analysis.graph import Graph


class Small(nn.Module):
    """One layer of each kind, and two branches that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, (3, 5), stride=2, padding=2, dilation=(2, 1), groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.up = nn.ConvTranspose2d(8, 8, (4, 3), stride=2, padding=1, output_padding=(0, 1))
        self.flatten = nn.Flatten()
        self.head = nn.Linear(8 * 16 * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """B×4×32×32 → B×10."""
        fine = self.norm(self.conv(images))
        return self.head(self.flatten(fine + self.up(self.pool(fine))[..., :16, :16]))


def read(module: nn.Module, *shape: int) -> tuple[Graph, Fields, tuple[Layer, ...]]:
    graph = trace(module, shape)
    found = fields(graph)
    return graph, found, layers(graph, found)


def page(module: nn.Module, shape: tuple[int, ...], name: str) -> str:
    text = why(*read(module, *shape), name)
    return re.sub(r"at test_why\.py:\d+", "at test_why.py", text)


@lru_cache(maxsize=8)
def catalogued(name: str, side: int) -> tuple[nn.Module, Graph, Fields, tuple[Layer, ...]]:
    with torch.device("meta"):
        net = catalog.build(name, channels=3, size=(side, side), outputs=1000, args={})
    return net, *read(net, 1, 3, side, side)


def section(text: str, title: str) -> str:
    """One part of a page, empty where it is not there."""
    for part in text.split("\n\n"):
        if part.startswith(title):
            return part
    return ""


def part_of(text: str, title: str) -> list[str]:
    return section(text, title).splitlines()[1:]


def last_number(line: str) -> int:
    return int(re.findall(r"[\d,]+", line)[-1].replace(",", ""))


def said_sizes(text: str, axes: int) -> tuple[int, ...] | None:
    """The sizes that the size lines come to, for each axis."""
    names = ("length",) if axes == 1 else ("depth", "height", "width")[-axes:]
    found: dict[str, int] = {}
    for line in part_of(text, "Size"):
        head = line.strip().split("  ")[0]
        # A later formula (the convolution behind its padding) has the last word.
        found |= {name: last_number(line) for name in names if name in re.split(r", | and ", head)}
    return tuple(found[name] for name in names) if len(found) == axes else None


def work_of(layer: nn.Module, *shape: int) -> int:
    """Half of what torch's own counter counts."""
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(shape))
    return counter.get_total_flops() // 2


# -- golden pages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_the_page_of_a_layer(name: str) -> None:
    assert page(Small(), (2, 4, 32, 32), name) == GOLDEN[name].lstrip("\n")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_numbers_are_those_of_torch(name: str) -> None:
    text = GOLDEN[name]
    layer = Small().get_submodule(name) if name != "add" else nn.Identity()
    before, after = (
        tuple(map(int, shape.split("×"))) for shape in re.findall(r"([\d×]+) → ([\d×]+)", text)[0]
    )
    assert layer(torch.zeros(before)).shape == after
    if section(text, "Size") and len(after) == 4:
        assert said_sizes(text, 2) == after[2:]
    learnt = sum(one.numel() for one in layer.parameters())
    assert [last_number(line) for line in part_of(text, "Parameters")[-1:]] == [learnt][
        : learnt > 0
    ]
    macs = work_of(layer, *before)
    assert [last_number(line) for line in part_of(text, "Mult")[-1:]] == [macs][: macs > 0]


def test_bytes_add_up() -> None:
    text = GOLDEN["conv"]
    given, made, weight = 2 * 4 * 32 * 32, 2 * 8 * 16 * 16, 8 * 2 * 3 * 5
    read, written, ratio = part_of(text, "Bytes")
    assert f"input {4 * given:,} + weight {4 * weight:,} + bias {4 * 8}" in read
    assert last_number(read) == 4 * (given + weight + 8)
    assert last_number(written) == 4 * made
    intensity = 2 * 8 * 16 * 16 * 2 * 15 / (4 * (given + weight + 8 + made))
    assert ratio.endswith(f"= {intensity:.3g} a byte")


def test_batch_norm_counts_what_it_learns() -> None:
    text = page(Small(), (1, 4, 32, 32), "norm")
    formula, besides = part_of(text, "Parameters")
    assert formula.endswith("2·8 = 16")
    assert "16 more numbers, are not learnt" in besides  # the running means and variances
    assert not section(text, "Size")
    assert not section(text, "Multiply")
    assert "no multiply-accumulates" in section(text, "Bytes")


# -- a published network --------------------------------------------------------------------------


def test_resnet18_layer4() -> None:
    _, *known = catalogued("resnet18", 224)
    text = why(*known, "layer4.0.conv1")
    # He et al. 2015: 256 to 512 channels, 14 to 7 positions. The fields by the recursion:
    size, jump, expected = 1, 1, []
    steps = [(7, 2), (3, 2), *[(3, 1)] * 4, (3, 2), *[(3, 1)] * 3, (3, 2), *[(3, 1)] * 3, (3, 2)]
    for kernel, stride in steps:
        size, jump = size + (kernel - 1) * jump, jump * stride
        expected.append(size)
    rows = [line for line in part_of_table(text) if re.search(r"= \d+$", line)]
    assert [last_number(row) for row in rows] == expected
    assert expected[-1] == 243
    assert rows[-1].split()[0] == "layer4.0.conv1"
    assert "⌊(14 + 2·1 − 1·(3 − 1) − 1) / 2⌋ + 1 = ⌊13 / 2⌋ + 1 = 7" in text
    assert f"512·(256/1·3·3 + 0) = {512 * 256 * 9:,}" in text
    assert f"1·512·7·7·256/1·3·3 = {512 * 49 * 256 * 9:,}" in text
    assert "27 over 11 in layer1.0.add" in text
    # 243 wide and 32 apart: the corner's field reaches 121 to both sides of 0.
    assert "corner unit (0, 0)  sees rows 0 … 121, columns 0 … 121: 122×122 of 243×243" in text
    assert "outside the picture: rows −121 … −1, columns −121 … −1" in text
    assert "global" not in text
    assert max(len(line) for line in text.splitlines()) <= 98


def part_of_table(text: str) -> list[str]:
    """The rows of the receptive field's table, which stands behind an empty line."""
    behind = text.split("Receptive field\n")[1]
    words = ("Where", "Besides", "Branches", "At most", "Nothing")
    rows = behind.split("\n\n")[1].splitlines()
    return list(takewhile(lambda row: not row.strip().startswith(words), rows))


def test_the_head_sees_all_by_pooling() -> None:
    _, *known = catalogued("resnet18", 224)
    text = " ".join(why(*known, "fc").split())
    assert "avgpool pools over the whole picture, so each sees all of it" in text
    assert "layer4.1.relu2: a field of 435×435" in text  # Araujo et al. 2019, table 1
    assert "1000·(512 + 1) = 513,000" in text


def test_squeeze_and_excitation_is_said_in_words() -> None:
    _, _, _, lines = known = catalogued("efficientnet_b0", 224)
    behind = next(line for line in lines if line.kind == "mul")
    text = " ".join(why(*known[1:], behind.name).split())
    assert f"scales every position in {behind.name} (squeeze-excitation)" in text
    assert "every unit sees rows 0 … 223, columns 0 … 223" in text


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v2"])
def test_no_layer_of_a_network_lacks_its_formulas(name: str) -> None:
    net, *known = catalogued(name, 224)
    seen = set()
    for line in known[2]:
        if line.kind not in ("Conv2d", "Linear", "MaxPool2d", "AvgPool2d"):
            continue
        seen.add(line.kind)
        text = why(*known, line.name)
        learnt = sum(one.numel() for one in net.get_submodule(line.path).parameters())
        if line.kind != "Linear":
            assert said_sizes(text, 2) == line.shape[2:], line.name
        else:
            assert part_of(text, "Size")[0].endswith(f"= {line.shape[0]}×{line.shape[1]}")
        assert [last_number(one) for one in part_of(text, "Param")[-1:]] == [learnt][: learnt > 0]
        # Every step of the recursion is worked out, none merely stated.
        if line.field is not None:
            for row in part_of_table(text)[2:]:
                assert re.search(r"= \d+$", row), row
    assert {"Conv2d", "Linear"} <= seen


# -- every size -----------------------------------------------------------------------------------

small = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_convolution_always_has_its_size(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    each = st.tuples(*[small] * axes)
    kernel, stride, dilation = (data.draw(each) for _ in range(3))
    padding = data.draw(st.tuples(*[st.integers(0, 2)] * axes))
    groups = data.draw(st.sampled_from([1, 2]))
    transposed = data.draw(st.booleans())
    size = data.draw(st.tuples(*[st.integers(1, 12)] * axes))
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{axes}d")
    more = {}
    if transposed:
        spare = [range(max(s, d)) for s, d in zip(stride, dilation, strict=True)]
        more["output_padding"] = tuple(data.draw(st.sampled_from(one)) for one in spare)
    layer = kind(
        4, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias=data.draw(st.booleans()), **more,
    )  # fmt: skip
    try:
        out = layer(torch.zeros(1, 4, *size)).shape
    except RuntimeError:
        assume(False)
    assume(0 not in out)
    text = page(nn.Sequential(layer), (1, 4, *size), "0")
    assert said_sizes(text, axes) == tuple(out[2:])
    learnt = sum(one.numel() for one in layer.parameters())
    assert last_number(part_of(text, "Parameters")[-1]) == learnt
    assert last_number(part_of(text, "Multiply")[-1]) == work_of(layer, 1, 4, *size)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_pooling_always_has_its_size(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    kind = data.draw(st.sampled_from(["Max", "Avg"]))
    kernel = data.draw(st.integers(1, 4))
    arguments = {
        "stride": data.draw(st.integers(1, 4)),
        "padding": data.draw(st.integers(0, kernel // 2)),
        "ceil_mode": data.draw(st.booleans()),
    }
    if kind == "Max":
        arguments["dilation"] = data.draw(st.integers(1, 2))
    layer = getattr(nn, f"{kind}Pool{axes}d")(kernel, **arguments)
    size = data.draw(st.tuples(*[st.integers(1, 12)] * axes))
    try:
        out = layer(torch.zeros(1, 2, *size)).shape
    except RuntimeError:
        assume(False)
    text = page(nn.Sequential(layer), (1, 2, *size), "0")
    assert said_sizes(text, axes) == tuple(out[2:])


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.ZeroPad2d((1, 2, 3, 4)), ["height  6 + 3 + 4 = 13", "width   6 + 1 + 2 = 9"]),
        (nn.Upsample(scale_factor=2.5), ["height and width  ⌊6·2.5⌋ = 15"]),
        (nn.Upsample(size=(7, 9), mode="bilinear"), ["height  from 6 to 7", "width   from 6 to 9"]),
        (nn.AdaptiveAvgPool2d(3), ["height and width  3 as asked for; windows of 6 / 3 = 2"]),
        (nn.AdaptiveMaxPool2d(4), ["windows overlap, as 6 / 4 is no whole number"]),
        (nn.AdaptiveAvgPool2d(1), ["6·6 = 36 numbers become one"]),
        (nn.PixelShuffle(2), ["channels  4 / 2² = 1", "height    6·2 = 12"]),
        (nn.Flatten(), ["4·6·6 = 144"]),
        (nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"), ["6 + 1 + 1 = 8", "(8 + 2·0"]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_other_sizes(layer: nn.Module, words: list[str]) -> None:
    text = page(nn.Sequential(layer), (1, 4, 6, 6), "0")
    for one in words:
        assert one in section(text, "Size")
    assert f"→ {'×'.join(map(str, layer(torch.zeros(1, 4, 6, 6)).shape))}," in text


def test_a_formula_that_does_not_give_the_recorded_size_is_left_out() -> None:
    graph, found, lines = read(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2)), 1, 3, 9, 9)
    right = why(graph, found, lines, "0")
    assert section(right, "Size")
    assert "1 + (3 − 1)·1·1 = 3" in right
    (node,) = graph.nodes
    wrong = replace(node, args=(*node.args[:3], [3, 3], *node.args[4:]))
    text = why(replace(graph, nodes=(wrong,)), found, lines, "0")
    assert not section(text, "Size")
    assert "1 + (3 − 1)·1·1 = 3" not in text  # nor does the step of the recursion stand there


def test_misaligned_branches_are_said() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 2, stride=2)

        def forward(self, images: Tensor) -> Tensor:
            coarse = self.coarse(images)
            return self.fine(images)[..., : coarse.shape[-2], : coarse.shape[-1]] + coarse

    text = page(Crossed(), (1, 1, 12, 12), "add")
    assert "Branches with different jumps meet" in text


# -- what units see -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers_of",
    [
        [nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(1, 1, (5, 3), padding=(4, 1))],
        [nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 4, 2, 1), nn.Conv2d(1, 1, 3)],
        [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 1, 3, stride=3, padding=1)],
        [nn.Conv2d(1, 1, 3, padding=2, dilation=2), nn.AvgPool2d(3, 2, 1)],
    ],
    ids=["conv", "transposed", "upsampled", "dilated"],
)
def test_units_see_where_the_gradient_is(layers_of: list[nn.Module]) -> None:
    net = nn.Sequential(*layers_of)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    text = page(net, (1, 1, 24, 24), str(len(layers_of) - 1))
    units = re.findall(r"unit \((\d+), (\d+)\)\s+sees rows? (.*?), columns? ([\d …]+)", text)
    assert len(units) == 2
    for row, column, *said in units:
        image = torch.ones(1, 1, 24, 24, requires_grad=True)
        net(image)[0, 0, int(row), int(column)].backward()
        assert image.grad is not None
        for axis, words in enumerate(said):
            seen = image.grad[0, 0].abs().sum(dim=1 - axis).nonzero().flatten()
            ends = [int(one) for one in words.split(" … ")]
            assert (ends[0], ends[-1]) == (int(seen[0]), int(seen[-1]))


def test_a_unit_in_the_padding_sees_nothing() -> None:
    text = page(nn.Sequential(nn.ZeroPad2d(2)), (1, 1, 5, 5), "0")
    assert "corner unit (0, 0)  sees nothing of the picture" in text
    assert "centre unit (4, 4)  sees row 2, column 2" in text


def test_tokens_keep_their_places() -> None:
    """B×L×C behind a patch stem: rows and columns lie in one axis."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.norm(self.patch(images).flatten(2).transpose(1, 2))
            return self.attention(tokens, tokens, tokens, need_weights=False)[0]

    text = page(Tokens(), (1, 3, 12, 20), "norm")
    assert "centre unit (1, 2)  sees rows 4 … 7, columns 8 … 11" in text
    text = page(Tokens(), (1, 3, 12, 20), "attention")
    assert "attention lets all positions attend to all others" in text
    assert "every unit sees rows 0 … 11, columns 0 … 19" in text
    rows, width, heads = 15, 8, 2
    projections = rows * width * 3 * width + rows * width * width
    products = 2 * heads * rows * rows * (width // heads)
    assert part_of(text, "Multiply")[-1].strip() == f"together {projections + products:,}"
    assert last_number(part_of(text, "Parameters")[-1]) == 4 * width * width + 4 * width


# -- names ----------------------------------------------------------------------------------------


def test_shared_parameters_are_named_where_they_are_counted() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
            self.two.weight = self.one.weight

        def forward(self, numbers: Tensor) -> Tensor:
            return self.two(self.one(self.one(numbers)))

    first = section(page(Tied(), (1, 8), "one"), "Parameters")
    assert "one.weight: shared with one#2 and two; counted once, here" in first
    last = section(page(Tied(), (1, 8), "two"), "Parameters")
    assert "8·(8 + 0) = 64" in last
    assert "one.weight: shared with one and one#2; counted once, at one" in last
    assert "new at this layer: 0" in last
    assert "run 2 of one" in page(Tied(), (1, 8), "one#2")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("layer4.0.conv9", "did you mean 'layer4.0.conv"),
        ("layer4", "'layer4' is made of layer4.0."),
        ("zebra", "known: "),
        ("", "known: "),
    ],
)
def test_an_unknown_name_names_near_ones(name: str, hint: str) -> None:
    _, *known = catalogued("resnet18", 224)
    with pytest.raises(ConfigError, match="no layer is called") as caught:
        why(*known, name)
    assert caught.value.hint.startswith(hint)
    assert len(caught.value.hint) <= 300


def test_a_layer_without_work_says_so() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Identity())
    with pytest.raises(ConfigError) as caught:
        page(net, (1, 1, 4, 4), "1")
    assert caught.value.hint == "'1' only hands on what it is given: there is nothing to work out"
