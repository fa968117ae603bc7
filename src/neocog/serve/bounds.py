"""Limits as people write them: `body=20MiB`, `seconds=2.5`. Floor 4, room serve."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from neocog.errors import ConfigError, near
from neocog.serve.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["limits_of"]

_SIZES = ("body", "header", "decoded")
"""Those that are bytes."""
_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9}
_TIMES = {"": 1.0, "s": 1.0, "ms": 0.001}
_SOME = 1e15
"""More than any limit may be."""


def limits_of(settings: Iterable[str]) -> Limits:
    """The limits, some of them as they are set.

    Args:
        settings: NAME=VALUE; sizes may end in KiB, MiB or GiB, times in s or ms.

    Raises:
        ConfigError: an unknown name, or a value that is none.

    >>> found = limits_of(["body=20MiB", "queue=64", "latency=5ms"])
    >>> found.body, found.queue, found.latency
    (20971520, 64, 0.005)
    >>> limits_of(["que=64"])
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: there is no limit 'que'
      hint: did you mean 'queue'?
    """
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Limits)}
    found: dict[str, float | int] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"expected NAME=VALUE, found {setting!r}", "--limit queue=64")
        if name not in kinds:
            raise ConfigError(f"there is no limit {name!r}", near(name, kinds))
        found[name] = _seconds(name, text) if kinds[name] is float else _count(name, text)
    return Limits(**found)  # type: ignore[arg-type]


def _count(name: str, text: str) -> int:
    units = _UNITS if name in _SIZES else {"": 1}
    least = 1
    value = _number(text, units)
    if value is None or value != int(value) or not least <= value <= _SOME:
        words = "a size: 20MiB" if name in _SIZES else f"a whole number from {least} on"
        raise ConfigError(f"limit {name}: expected {words}, found {text!r}")
    return int(value)


def _seconds(name: str, text: str) -> float:
    value = _number(text, _TIMES)
    if value is None or not (0 < value <= _SOME or (name == "latency" and value == 0)):
        raise ConfigError(f"limit {name}: expected seconds, as 2.5 or 200ms, found {text!r}")
    return value


def _number(text: str, units: dict[str, float] | dict[str, int]) -> float | None:
    """A number with its unit; None: it is none."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]
