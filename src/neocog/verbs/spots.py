"""Names of single numbers on the command line: an activation, a weight. Floor 5, room verbs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from neocog.errors import ConfigError

__all__ = ["Activation", "Weight", "activation", "weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One number of what a layer answers."""

    layer: str
    """Name of the layer's run; empty: the network itself."""
    channel: int
    """Along the first axis of its answer, from 0."""
    position: tuple[int, ...]
    """Along the axes behind: row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One number that was learnt."""

    name: str
    """Of the parameter."""
    index: tuple[int, ...] | None
    """Its place, from 0; None: the one with the largest derivative."""


def activation(text: str) -> Activation:
    """`LAYER:CHANNEL,ROW,COLUMN` or `LAYER:CHANNEL`.

    Raises:
        ConfigError: something else.

    >>> activation("layer1.0.conv1#2:3,10,12").position, activation("fc:7").channel
    ((10, 12), 7)
    """
    found = re.fullmatch(r"\s*([^:]*):\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*", text)
    if not found:
        raise ConfigError(
            f"{text!r} names no activation, expected LAYER:CHANNEL,ROW,COLUMN",
            "for example --trace layer1.0.conv1:3,10,12, or fc:7; `neocog plan RUN` lists layers",
        )
    channel, *position = _numbers(found[2])
    return Activation(layer=found[1].strip(), channel=channel, position=tuple(position))


def weight(text: str) -> Weight:
    """`NAME` or `NAME[K,C,I,J]`.

    Raises:
        ConfigError: something else.

    >>> weight("conv1.weight[3,0,1,1]").index, weight("fc.bias").index
    ((3, 0, 1, 1), None)
    """
    found = re.fullmatch(r"\s*([^\[\]\s]+)\s*(?:\[\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*\])?\s*", text)
    if not found:
        raise ConfigError(
            f"{text!r} names no weight, expected NAME or NAME[K,C,I,J]",
            'for example --weight "conv1.weight[3,0,1,1]"',
        )
    return Weight(name=found[1], index=tuple(_numbers(found[2])) if found[2] else None)


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]
