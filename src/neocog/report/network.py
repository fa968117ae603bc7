"""A network's layers as a drawing that one can read. Floor 4; imports html, types of analysis.

Three foldings make a deep network short, and lose nothing: what belongs to a convolution (norm,
activation, dropout) goes into its box; a concatenation that begins with all that another one
concatenated is drawn as reading that one; equal stretches that follow one another are drawn once,
with how many they are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neocog.html.drawing import Box, Frame, draw
from neocog.report import labels
from neocog.report.stretches import Stretch, common, stretches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.analysis.summary import Layer

__all__ = ["network_boxes", "network_drawing"]

_LIGHT = re.compile(
    r"drop|flatten|identity|permute|transpose|reshape|squeeze|^pad$|pad\dd$|constant_pad|clone|"
    r"contiguous|copy|expand|shuffle|^cat$|roll",
    re.IGNORECASE,
)
_SMALLEST_FRAME = 3
_LARGEST_FRAME = 0.6


@dataclass(slots=True)
class _Draft:
    """A box that grows: layers in a row, one of them the one that counts."""

    layers: list[Layer]
    main: int | None
    """The place of the layer that counts; None while only norms and the like have come."""
    before: tuple[int, ...]
    """Drafts that it reads; −1 is the input."""
    join: bool = False

    @property
    def path(self) -> str:
        """The module of what counts."""
        return self.layers[self.main or 0].path


def network_drawing(
    layers: Sequence[Layer],
    input_shape: Sequence[int],
    *,
    title: str = "",
    subtitle: str = "",
    fold: bool = True,
) -> str:
    """A drawing of a network as one `<svg>` element.

    Args:
        layers: as `analysis.summary.layers` tells them.
        input_shape: B×C×H×W, or with other axes; the batch first.
        title: set above.
        subtitle: a line below it.
        fold: draw equal stretches once, and norms in the box of their convolution; otherwise every
            layer has its own box.
    """
    return draw(network_boxes(layers, input_shape, fold=fold), title=title, subtitle=subtitle)


def network_boxes(
    layers: Sequence[Layer], input_shape: Sequence[int], *, fold: bool = True
) -> tuple[Box, ...]:
    """The boxes of the drawing: the input, then every layer in exactly one box.

    Args:
        layers: as `analysis.summary.layers` tells them.
        input_shape: the batch first.
        fold: whether to fold.
    """
    drafts = _drafts(_chained(layers) if fold else layers, fold=fold)
    start = Box(
        name="",
        family="input",
        kind="input",
        size=labels.size([tuple(input_shape)]),
        channels=input_shape[1] if len(input_shape) > 1 else 1,
    )
    found: tuple[Stretch, ...] = ()
    if fold:
        found = stretches(
            [_kind(draft) for draft in drafts],
            [draft.before for draft in drafts],
            [draft.path for draft in drafts],
        )
    frames = _frames(drafts, found) if fold else [()] * len(drafts)
    run_of = {at: one for one in found for at in range(one.start, one.end)}
    boxes = [start]
    for at, draft in enumerate(drafts):
        run = run_of.get(at)
        if run is not None and at >= run.start + run.period:
            continue
        copies = [draft] if run is None else drafts[at : run.end : run.period]
        read = [_first(one, run_of) for one in draft.before]
        before = tuple(dict.fromkeys("" if one < 0 else _name(drafts[one]) for one in read))
        box = replace(_box(copies, input_shape), before=before, frames=frames[at])
        alone = run is not None and run.period == 1
        boxes.append(replace(box, times=len(copies)) if alone else box)
    return tuple(boxes)


def _name(draft: _Draft) -> str:
    return draft.layers[0].name


def _first(at: int, run_of: dict[int, Stretch]) -> int:
    """The place in the first stretch that stands for a place in any."""
    run = run_of.get(at)
    return at if run is None else run.start + (at - run.start) % run.period


def _chained(layers: Sequence[Layer]) -> list[Layer]:
    """Concatenations that begin with another one's whole read that one instead: DenseNet's."""
    made: dict[tuple[str, ...], Layer] = {}
    found = []
    for layer in layers:
        if layer.kind == "cat" and len(layer.before) > 1:
            for length in range(len(layer.before) - 1, 1, -1):
                other = made.get(layer.before[:length])
                if other is not None and _grown(other.shape, layer.shape):
                    found.append(replace(layer, before=(other.name, *layer.before[length:])))
                    break
            else:
                found.append(layer)
            made.setdefault(layer.before, layer)
        else:
            found.append(layer)
    return found


def _grown(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether shapes are equal but for one axis, which is longer."""
    if len(small) != len(large):
        return False
    different = [(one, two) for one, two in zip(small, large, strict=True) if one != two]
    return len(different) == 1 and different[0][0] < different[0][1]


def _drafts(layers: Sequence[Layer], *, fold: bool) -> list[_Draft]:
    """Layers put together to boxes, in the order of their first."""
    readers = Counter(name for layer in layers for name in layer.before)
    drafts: list[_Draft] = []
    home: dict[str, int] = {"": -1}
    for layer in layers:
        light = _is_light(layer)
        at = _joins_in(layer, light, drafts, home, readers) if fold else None
        if at is None:
            at = len(drafts)
            before = tuple(dict.fromkeys(home[name] for name in layer.before))
            main = None if light and fold else 0
            drafts.append(_Draft([layer], main, before, labels.is_join(layer)))
        else:
            draft = drafts[at]
            if not light:
                draft.main = len(draft.layers)
            draft.layers.append(layer)
        home[layer.name] = at
    return drafts


def _joins_in(
    layer: Layer,
    light: bool,
    drafts: Sequence[_Draft],
    home: dict[str, int],
    readers: Counter[str],
) -> int | None:
    """The draft that a layer goes into, where it is the only one that reads that draft's end."""
    if len(layer.before) != 1:
        return None
    at = home[layer.before[0]]
    if at < 0 or drafts[at].layers[-1].name != layer.before[0]:
        return None
    if _is_idle(layer):
        # It is what it reads: whoever reads the one reads the other.
        readers[layer.name] += readers[layer.before[0]] - 1
        return at
    if readers[layer.before[0]] != 1:
        return None
    if drafts[at].join:
        plain = light and not layer.parameters and labels.family(layer) == "pointwise"
        return at if plain else None
    return at if light or drafts[at].main is None else None


def _is_idle(layer: Layer) -> bool:
    """Whether it concatenates a single thing."""
    return layer.kind == "cat" and len(layer.before) == 1


def _is_light(layer: Layer) -> bool:
    """Whether a layer does too little for a box of its own."""
    if len(layer.before) > 1:
        return False
    return labels.family(layer) == "pointwise" or bool(
        _LIGHT.search(layer.kind) and not layer.parameters
    )


def _kind(draft: _Draft) -> tuple[object, ...]:
    """What must be equal for two boxes to be drawn as one: what they do and what comes out.

    How much comes in may differ, and with it the parameters: so does DenseNet's growing stack.
    """
    shape = draft.layers[-1].shape
    growing = draft.join and draft.layers[0].kind == "cat"
    said = tuple(labels.label(layer) for layer in draft.layers)
    return (said, (shape[0], *shape[2:]) if growing else shape, draft.join)


def _frames(drafts: Sequence[_Draft], found: Sequence[Stretch]) -> list[tuple[Frame, ...]]:
    """The frames round each box: runs of stretches, and modules in which branches join."""
    placed = [
        (run.start, run.end, _repeated(drafts[run.start : run.end], run))
        for run in found
        if run.period > 1
    ]
    for start, end in _modules(drafts):
        fits = all(
            end <= run.start
            or run.end <= start
            or (start <= run.start and run.end <= end and end - start > run.end - run.start)
            or (run.start <= start and end <= run.start + run.period and end - start < run.period)
            for run in found
        )
        if fits:
            title = common([one.path for one in drafts[start:end]])
            placed.append((start, end, Frame(title=title)))
    placed.sort(key=lambda one: one[0] - one[1])
    return [
        tuple(frame for start, end, frame in placed if start <= at < end)
        for at in range(len(drafts))
    ]


def _modules(drafts: Sequence[_Draft]) -> list[tuple[int, int]]:
    """Where modules begin and end that hold a join: the outermost that are not nearly all."""
    found: list[tuple[int, int]] = []
    holders = {draft.path for draft in drafts if draft.join and draft.path}
    for path in sorted(holders, key=len):
        inside = [
            at
            for at, draft in enumerate(drafts)
            if draft.path == path or draft.path.startswith(f"{path}.")
        ]
        start, end = inside[0], inside[-1] + 1
        together = len(inside) == end - start
        large = _SMALLEST_FRAME <= len(inside) <= _LARGEST_FRAME * len(drafts)
        nested = any(one[0] <= start and end <= one[1] for one in found)
        if together and large and not nested:
            found.append((start, end))
    return found


def _repeated(drafts: Sequence[_Draft], run: Stretch) -> Frame:
    """The frame round the first of equal stretches, which stands for all."""
    first = common([one.path for one in drafts[: run.period]])
    last = common([one.path for one in drafts[-run.period :]])
    parameters = sum(layer.parameters for draft in drafts for layer in draft.layers)
    return Frame(
        title=first if first == last else f"{first} … {last.rpartition('.')[2]}",
        times=run.times,
        detail=labels.short([parameters]) if parameters else "",
    )


def _box(copies: Sequence[_Draft], input_shape: Sequence[int]) -> Box:
    """One box for equal drafts, without what it reads."""
    draft = copies[0]
    main = draft.main or 0
    said = ["" if _is_idle(layer) else labels.label(layer) for layer in draft.layers]
    ends = [one.layers[-1] for one in copies]
    weights = [sum(layer.parameters for layer in one.layers) for one in copies]
    shares, sees = labels.sight([ends[0], ends[-1]], input_shape)
    counted = draft.layers[main]
    family = "join" if draft.join else labels.family(counted)
    return Box(
        name=_name(draft),
        members=tuple(layer.name for one in copies for layer in one.layers),
        family=family,
        kind=labels.sign(counted) if draft.join else said[main],
        above=" · ".join(filter(None, said[:main])),
        below=" · ".join(filter(None, said[main + 1 :])),
        size=labels.size([end.shape for end in ends]),
        weight=labels.short(weights) if any(weights) else "",
        channels=labels.channels(counted, family),
        field=shares,
        sees=sees,
        everything=all(end.everything for end in ends),
    )
