"""Limits as people write them: `body=20MiB`, `seconds=2.5`. Floor 4, room serve."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from neocog.errors import ConfigError, near
from neocog.serve.limits import MIB, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RANGES", "limits_of"]

_KIB, _GIB = 2**10, 2**30
_SIZES = ("body", "header", "decoded", "waiting", "binary")
"""Those that are bytes."""
_UNITS = {"": 1, "b": 1, "kib": _KIB, "mib": MIB, "gib": _GIB}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9}
_TIMES = {"": 1.0, "s": 1.0, "ms": 0.001}
RANGES: dict[str, tuple[float, float]] = {
    "body": (_KIB, _GIB),
    "header": (512, MIB),
    "header_seconds": (0.05, 3600),
    "body_seconds": (0.05, 3600),
    "depth": (8, 512),
    "decoded": (_KIB, 4 * _GIB),
    "batch": (1, 4096),
    "queue": (1, 65536),
    "waiting": (_KIB, 64 * _GIB),
    "seconds": (0.05, 3600),
    "decode": (0.05, 3600),
    "latency": (0, 60),
    "connections": (1, 65536),
    "answer": (1, 2**24),
    "binary": (_KIB, 4 * _GIB),
}
"""The least and the most of each. Less refuses every request: a request in order has a header of
some hundred bytes and eight brackets in each other. More than this is a slip of the pen, which
would take all memory, or more brackets than Python reads."""


def limits_of(settings: Iterable[str]) -> Limits:
    """The limits, some of them as they are set. `decode` follows `seconds` where only that is set.

    Args:
        settings: NAME=VALUE; sizes may end in KiB, MiB or GiB, times in s or ms.

    Raises:
        ConfigError: an unknown name, a value that is none, or one that no server can live with.

    >>> found = limits_of(["body=20MiB", "queue=64", "latency=5ms"])
    >>> found.body, found.queue, found.latency
    (20971520, 64, 0.005)
    >>> limits_of(["que=64"])
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: there is no limit 'que'
      hint: did you mean 'queue'?
    >>> limits_of(["header=1"])
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: limit header: expected a size, found '1'
      hint: from 512 B to 1 MiB
    """
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Limits)}
    found: dict[str, float | int] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"expected NAME=VALUE, found {setting!r}", "--limit queue=64")
        if name not in kinds:
            raise ConfigError(f"there is no limit {name!r}", near(name, kinds))
        value = _value(name, text, whole=kinds[name] is int)
        found[name] = int(value) if kinds[name] is int else value
    if "seconds" in found:
        found.setdefault("decode", max(found["seconds"] / 3, RANGES["decode"][0]))
    limits = Limits(**found)  # type: ignore[arg-type]
    if limits.latency >= limits.seconds:
        raise ConfigError(
            f"limit latency: expected less than the {limits.seconds:g} s that an answer may take,"
            f" found {limits.latency:g} s",
            "a few milliseconds gather what comes at once: latency=2ms",
        )
    return limits


def _value(name: str, text: str, *, whole: bool) -> float:
    """The value of a limit, within its range.

    Raises:
        ConfigError: it is not.
    """
    units: dict[str, float] | dict[str, int] = {"": 1}
    kind = "a whole number"
    if name in _SIZES:
        units, kind = _UNITS, "a size"
    elif not whole:
        units, kind = _TIMES, "seconds"
    value, (least, most) = _number(text, units), RANGES[name]
    if value is None or not least <= value <= most or (whole and value != int(value)):
        shown = _size if name in _SIZES else "{:g} s".format if not whole else "{:,.0f}".format
        raise ConfigError(
            f"limit {name}: expected {kind}, found {text!r}",
            f"from {shown(least)} to {shown(most)}",
        )
    return value


def _size(count: float) -> str:
    """Bytes in the largest unit of which they are whole.

    >>> _size(512), _size(2**20)
    ('512 B', '1 MiB')
    """
    for unit in ("GiB", "MiB", "KiB"):
        if count % _UNITS[unit.lower()] == 0:
            return f"{count / _UNITS[unit.lower()]:.0f} {unit}"
    return f"{count:.0f} B"


def _number(text: str, units: dict[str, float] | dict[str, int]) -> float | None:
    """A number with its unit; None: it is none."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]
