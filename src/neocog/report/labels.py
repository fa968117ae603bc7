"""What a layer is called in a drawing. Floor 4, room report; standard library, types of analysis.

Colours and words follow the layer's class or operation; no number does.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.analysis.summary import Layer
    from neocog.html.drawing import Family

__all__ = ["channels", "family", "is_join", "label", "short", "sight", "sign", "size"]

_SIGNS = {"add": "+", "mul": "×", "sub": "−", "cat": "cat", "concat": "cat"}
_FAMILIES: tuple[tuple[Family, re.Pattern[str]], ...] = (
    ("attention", re.compile(r"attention|scaled_dot|^bmm$|^baddbmm$|^matmul$", re.IGNORECASE)),
    ("pooling", re.compile(r"pool|^mean$|^amax$|upsampl|interpolate", re.IGNORECASE)),
    ("convolution", re.compile(r"conv", re.IGNORECASE)),
    (
        "pointwise",
        re.compile(
            r"norm|relu|gelu|silu|swish|sigmoid|tanh|softmax|softplus|softsign|^c?elu$|selu|mish|"
            r"shrink|glu$|dropout|drop_?path|^clamp|^mul$|^add$|^div$|^sub$|^exp$|^pow$",
            re.IGNORECASE,
        ),
    ),
    ("linear", re.compile(r"linear|^mm$|^addmm$|embedding", re.IGNORECASE)),
)
_SETTING = re.compile(r"(\w+)=(\([^)]*\)|[^,\s]+)")


def family(layer: Layer) -> Family:
    """What a layer is coloured by."""
    for name, pattern in _FAMILIES:
        if pattern.search(layer.kind):
            return name
    if "kernel_size=" in layer.extra and layer.parameters + layer.shared:
        return "convolution"
    return "linear" if "in_features=" in layer.extra else "other"


def is_join(layer: Layer) -> bool:
    """Whether branches meet here and nothing is computed but the meeting."""
    return len(layer.before) > 1 and not layer.parameters and not layer.macs


def sign(layer: Layer) -> str:
    """The sign of a join."""
    return _SIGNS.get(layer.kind.lower(), layer.kind)


def label(layer: Layer) -> str:
    """`Conv2d 3×3/2`, `BatchNorm`, `MaxPool2d 2×2/2`: kind, kernel, stride, and what is unusual."""

    kind = re.sub(r"^(\w*Norm|\w*Dropout)\dd$", r"\1", layer.kind.lstrip("_"))
    settings = dict(_SETTING.findall(layer.extra))
    groups = settings.get("groups", "1")
    grouped = groups.isdecimal() and int(groups) > 1
    deep = grouped and layer.extra.startswith(f"{groups}, ")
    words = "Depthwise" if deep else kind
    axes = int(found[1]) if (found := re.search(r"(\d)d$", kind)) else 1
    kernel = _numbers(settings.get("kernel_size", ""), axes)
    if kernel:
        words += " " + "×".join(map(str, kernel))
        stride = _numbers(settings.get("stride", ""), axes)
        if any(one != 1 for one in stride):
            same = len(set(stride)) == 1
            words += "/" + (str(stride[0]) if same else "×".join(map(str, stride)))
    dilation = _numbers(settings.get("dilation", ""), axes)
    if any(one != 1 for one in dilation):
        words += f" dilated {'×'.join(map(str, sorted(set(dilation))))}"
    if grouped and not deep:
        words += f" {groups} groups"
    return words


def _numbers(text: str, axes: int) -> tuple[int, ...]:
    """The numbers of a setting, one for each axis."""
    found = tuple(int(one) for one in re.findall(r"\d+", text))
    return found * axes if len(found) == 1 else found


def short(values: Sequence[int]) -> str:
    """Parameters in short; where copies differ, the least and the greatest.

    >>> short([9408]), short([25_557_032]), short([640, 1_180_000])  # the space does not break
    ('9.4\xa0k', '25.6\xa0M', '640–1.2\xa0M')
    """
    ends = [_short(value) for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else "–".join(ends)


def _short(value: int) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            digits = 0 if value >= 99.95 * unit else 1
            return f"{value / unit:.{digits}f}\u00a0{name}"
    return str(value)


def size(shapes: Sequence[Sequence[int]]) -> str:
    """Sizes without the batch; of copies that differ the first's and the last's.

    >>> size([(1, 64, 56, 56)]), size([(1, 96, 56, 56), (1, 256, 56, 56)])
    ('64 × 56 × 56', '96…256 × 56 × 56')
    """
    first, last = shapes[0], shapes[-1]
    axes = [
        str(one) if one == two else f"{one}…{two}"
        for one, two in zip(first[1:], last[1:], strict=True)
    ]
    return " × ".join(axes)


def channels(layer: Layer, kind: Family) -> int:
    """How many numbers there are at each position."""
    if len(layer.shape) < 2:
        return 1
    return layer.shape[-1] if kind in ("linear", "attention") else layer.shape[1]


def sight(ends: Sequence[Layer], input_shape: Sequence[int]) -> tuple[tuple[float, ...], str]:
    """The shares of the picture's side that the first and the last see, and the size in words."""
    if any(end.field is None for end in ends):
        return (), "all" if all(end.everything for end in ends) else ""
    fields = [end.field or () for end in ends]
    shares = []
    for axes in fields:
        parts = [
            min(1.0, axis.size / whole)
            for axis, whole in zip(axes, input_shape[len(input_shape) - len(axes) :], strict=True)
        ]
        shares.append(round(math.prod(parts) ** (1 / max(1, len(parts))), 4))
    words = ["×".join(map(str, dict.fromkeys(axis.size for axis in axes))) for axes in fields]
    return tuple(dict.fromkeys(shares)), "…".join(dict.fromkeys(words))
