"""The drawing of a network: nothing is lost, nothing overlaps, nothing foreign gets in."""

import re
import time
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from defusedxml import ElementTree
from torch import Tensor, nn

from neocog.analysis.field import fields
from neocog.analysis.summary import Layer, layers
from neocog.analysis.trace import trace
from neocog.html.drawing import Box, Frame, draw
from neocog.html.layered import Edge, Item, arrange
from neocog.models import catalog
from neocog.report.network import network_boxes, network_drawing
from neocog.report.stretches import Stretch, stretches

SVG = "{http://www.w3.org/2000/svg}"


class UNet(nn.Module):
    """Ronneberger, Fischer, Brox 2015, with padding."""

    def __init__(self, widths: Sequence[int] = (8, 16, 32, 64)) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Module:
            convs = [nn.Conv2d(one, outputs, 3, padding=1) for one in (inputs, outputs)]
            return nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU())

        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = nn.ModuleList(block(i, o) for i, o in zip((3, *widths), widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in pairs)
        self.decode = nn.ModuleList(block(2 * o, o) for _, o in pairs)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number, block in enumerate(self.down):
            x = block(self.pool(x) if number else x)
            kept.append(x)
        kept.pop()
        for up, block in zip(self.up, self.decode, strict=True):
            x = block(torch.cat((kept.pop(), up(x)), 1))
        return x


def told(name: str, size: int = 64) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
    shape = (1, 1, 32, 32) if name == "lenet5" else (1, 3, size, size)
    with torch.device("meta"):
        if name == "unet":
            module: nn.Module = UNet()
        else:
            module = catalog.build(name, channels=shape[1], size=shape[2:], outputs=10, args={})
    graph = trace(module, shape)
    return layers(graph, fields(graph)), shape


NAMES = ["lenet5", "unet", "resnet18", "resnet50", "densenet121", "googlenet", "efficientnet_b0"]


@pytest.fixture(scope="module", params=NAMES)
def net(request: pytest.FixtureRequest) -> Any:
    found, shape = told(request.param)
    return SimpleNamespace(name=request.param, layers=found, shape=shape)


def bodies(root: Any) -> dict[int, tuple[float, float, float, float]]:
    """The outline of each box: left, top, right, bottom."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        for rect in group.iter(f"{SVG}rect"):
            if "data-body" in rect.attrib:
                x, y, w, h = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
                found[int(group.get("data-box"))] = (x, y, x + w, y + h)
    return found


def points(path: str) -> list[tuple[float, float]]:
    """Many points along a path of M, V, H and C."""
    found: list[tuple[float, float]] = []
    for letter, rest in re.findall(r"([MVHC])([^MVHC]*)", path):
        numbers = [float(one) for one in rest.split()]
        if letter == "M":
            found.append((numbers[0], numbers[1]))
            continue
        x, y = found[-1]
        if letter == "V":
            ends = [(x, y), (x, y), (x, numbers[0]), (x, numbers[0])]
        elif letter == "H":
            ends = [(x, y), (x, y), (numbers[0], y), (numbers[0], y)]
        else:
            ends = [(x, y), *zip(numbers[::2], numbers[1::2], strict=True)]
        # No box is lower than 22, so that no step may be as long.
        count = 12 + int(abs(ends[3][0] - x) + abs(ends[3][1] - y)) // 8
        for step in range(1, count + 1):
            t = step / count
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            found.append(
                tuple(  # type: ignore[arg-type]
                    sum(w * end[axis] for w, end in zip(weights, ends, strict=True))
                    for axis in (0, 1)
                )
            )
    return found


def routes(root: Any) -> dict[tuple[int, int], list[tuple[float, float]]]:
    return {
        tuple(map(int, path.get("data-edge").split("-"))): points(path.get("d"))
        for path in root.iter(f"{SVG}path")
        if "data-edge" in path.attrib
    }


@pytest.mark.parametrize("fold", [True, False])
def test_every_layer_and_every_line_is_there(net: Any, fold: bool) -> None:
    boxes = network_boxes(net.layers, net.shape, fold=fold)
    members = [name for box in boxes for name in box.members]
    assert sorted(members) == sorted(layer.name for layer in net.layers)
    if not fold:
        assert len(boxes) == 1 + len(net.layers)
        assert [box.before for box in boxes[1:]] == [layer.before for layer in net.layers]
    # Whatever a layer reads is its own box, in a box above, or in an equal stretch before it.
    home = {name: box for box in boxes for name in box.members} | {"": boxes[0]}
    above: dict[str, set[str]] = {}
    for box in boxes:
        above[box.name] = set(box.before).union(*(above[name] for name in box.before))
    for layer in net.layers:
        for name in layer.before:
            one, two = home[name], home[layer.name]
            repeated = {frame for frame in one.frames if frame.times > 1} & set(two.frames)
            assert one.name == two.name or one.name in above[two.name] or repeated, layer.name
    root = ElementTree.fromstring(network_drawing(net.layers, net.shape, fold=fold))
    index = {box.name: at for at, box in enumerate(boxes)}
    wanted = {(index[name], index[box.name]) for box in boxes for name in box.before}
    assert set(routes(root)) == wanted
    counts = [int(group.get("data-layers")) for group in root.iter(f"{SVG}g")]
    assert sum(counts) == len(net.layers)


@pytest.mark.parametrize("fold", [True, False])
def test_boxes_stand_apart_and_no_line_runs_through_one(net: Any, fold: bool) -> None:
    if not fold and len(net.layers) > 100:
        net = SimpleNamespace(name="start", layers=net.layers[:60], shape=net.shape)
    root = ElementTree.fromstring(network_drawing(net.layers, net.shape, fold=fold))
    found = bodies(root)
    for one, (left, top, right, bottom) in found.items():
        for two, other in found.items():
            if one < two:
                apart = right <= other[0] or other[2] <= left
                assert apart or bottom <= other[1] or other[3] <= top, (one, two)
    _, _, width, height = (float(one) for one in root.get("viewBox").split())
    for (source, target), way in routes(root).items():
        start, end = found[source], found[target]
        assert start[0] <= way[0][0] <= start[2]
        assert start[3] - 0.2 <= way[0][1] <= start[3] + 9
        assert end[0] <= way[-1][0] <= end[2]
        assert abs(way[-1][1] - end[1]) < 0.2
        for x, y in way:
            assert 0 <= x <= width
            assert 0 <= y <= height
            for left, top, right, bottom in found.values():
                inside = left + 0.3 < x < right - 0.3 and top + 0.3 < y < bottom - 0.3
                assert not inside, (net.name, source, target)


def test_equal_blocks_are_drawn_once() -> None:
    found, shape = told("resnet50")
    frames = {frame for box in network_boxes(found, shape) for frame in box.frames}
    repeated = {frame.title: frame.times for frame in frames if frame.times > 1}
    # He and others 2015, table 1: 3, 4, 6 and 3 blocks, the first of each stage of another kind.
    assert repeated == {
        "layer1.1 … 2": 2,
        "layer2.1 … 3": 3,
        "layer3.1 … 5": 5,
        "layer4.1 … 2": 2,
    }
    found, shape = told("densenet121")
    boxes = network_boxes(found, shape)
    times = [frame.times for box in boxes for frame in box.frames]
    # Huang and others 2016, table 1: 6, 12, 24 and 16 layers; three boxes each.
    assert times == [6] * 3 + [12] * 3 + [24] * 3 + [16] * 3


def test_a_box_says_what_it_is() -> None:
    found, shape = told("resnet18", 224)
    box = network_boxes(found, shape)[1]
    assert (box.kind, box.below) == ("Conv2d 7×7/2", "BatchNorm · ReLU")
    assert (box.size, box.weight) == ("64 × 112 × 112", "9.5\u00a0k")
    assert box.field == pytest.approx((7 / 224,), abs=1e-4)
    text = draw([box_without(box)])
    assert "Conv2d 7×7/2" in text
    assert "BatchNorm · ReLU" in text


def box_without(box: Box) -> Box:
    return Box(name="a", kind=box.kind, below=box.below, family=box.family)


def test_width_follows_channels() -> None:
    boxes = [Box(name=str(width), channels=width) for width in (1, 16, 256, 4096)]
    found = bodies(ElementTree.fromstring(draw(boxes)))
    widths = [found[at][2] - found[at][0] for at in range(4)]
    steps = [two - one for one, two in pairwise(widths)]
    assert min(steps) > 0
    assert steps[1] == pytest.approx(steps[2], rel=0.05)


@pytest.mark.parametrize(
    "name",
    ["</text><script>alert(1)</script>", '" onload="x', "a\x00b\ufffe\ud800", "]]>&amp;<!--"],
)
def test_hostile_names_stay_words(name: str) -> None:
    boxes = [
        Box(name="in"),
        *(
            Box(
                name=name + family, before=("in",), members=(name,), family=family, kind=name,
                above=name, below=name, size=name, weight=name, sees=name, field=(0.5,),
                frames=(Frame(title=name, detail=name, times=2),),
            )
            for family in ("convolution", "join")
        ),
    ]  # fmt: skip
    text = draw(boxes, title=name, subtitle=name)
    root = ElementTree.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "g", "rect", "path", "circle", "text", "title"}
    assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_equal_networks_give_equal_drawings() -> None:
    found, shape = told("resnet18")
    assert network_drawing(found, shape) == network_drawing(list(found), list(shape))


def test_five_hundred_layers_take_no_time() -> None:
    found, shape = told("resnet152")
    assert len(found) > 500
    for fold in (True, False):
        start = time.process_time()
        network_drawing(found, shape, fold=fold)
        assert time.process_time() - start < 2.5


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="one name twice"):
        draw([Box(name="a"), Box(name="a")])
    with pytest.raises(ValueError, match="reads 'b'"):
        draw([Box(name="a", before=("b",)), Box(name="b")])
    frame = (Frame(title="f"),)
    with pytest.raises(ValueError, match="together"):
        draw([Box(name="a", frames=frame), Box(name="b"), Box(name="c", frames=frame)])
    item = Item(left=1, right=1, height=1)
    with pytest.raises(ValueError, match="forward"):
        arrange([item, item], [Edge(source=1, target=0)])


def test_what_is_read_from_behind_ends_a_run() -> None:
    chain = [[at - 1] for at in range(9)]
    assert stretches("abababcde", chain, [""] * 9) == (Stretch(start=0, period=2, times=3),)
    # Place 3, the end of the second pair, is read from far behind: only two pairs may be one.
    read = [*chain[:8], [7, 3]]
    assert stretches("abababcde", read, [""] * 9)[0] == Stretch(start=0, period=2, times=2)
