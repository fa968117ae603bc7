"""Numbers as people read them. Room html; floor 1, standard library only.

Percentages carry as many digits as their interval allows, and never claim more than was found: a
share below 1 is never written as 100 %. The space before the sign does not break.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neocog.records import Interval

__all__ = ["count", "duration", "listing", "number", "percent", "percent_range", "size"]


def _digits(low: float, high: float) -> int:
    """Decimal places of a percentage: a tenth of the interval's width must be seen."""
    width = 100 * (high - low)
    return 1 if width >= 0.5 or width <= 0 else 2


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 as a percentage.

    >>> percent(0.98333), percent(0.99996), percent(1.0), percent(0.0)
    ('98.3\\xa0%', '99.996\\xa0%', '100\\xa0%', '0\\xa0%')
    """
    return f"{_bare(share, digits)}\u00a0%"


def _bare(share: float, digits: int) -> str:
    """The number of a percentage without its sign."""
    if not math.isfinite(share):
        return "–"
    if share in (0, 1):
        return f"{100 * share:.0f}"
    text = f"{100 * share:.{digits}f}"
    while float(text) in (0, 100) and digits < 6:
        digits += 1
        text = f"{100 * share:.{digits}f}"
    return text


def percent_range(value: Interval) -> tuple[str, str, str]:
    """A proportion, and both ends of its interval without the sign.

    >>> from neocog.records import Interval
    >>> percent_range(Interval(value=0.9833, low=0.964, high=0.9924, n=360))
    ('98.3\\xa0%', '96.4', '99.2')
    """
    digits = _digits(value.low, value.high)
    return percent(value.value, digits), _bare(value.low, digits), _bare(value.high, digits)


def number(value: float, digits: int = 3) -> str:
    """Any other number, to so many significant digits, with a real minus.

    >>> number(0.01234), number(-1234.5), number(1234567), number(2.0)
    ('0.0123', '−1,234', '1,234,567', '2')
    """
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def count(value: int, one: str, many: str = "") -> str:
    """A number of things.

    >>> count(1, "class", "classes"), count(1797, "picture")
    ('1 class', '1,797 pictures')
    """
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def size(value: float) -> str:
    """A large number in short, as parameters are told.

    >>> size(1234), size(123456), size(11_689_512)
    ('1,234', '123 thousand', '11.7 million')
    """
    for unit, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if value >= 10 * unit or (value >= unit and unit > 1e3):
            digits = 0 if value >= 100 * unit else 1
            return f"{value / unit:.{digits}f} {name}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A time span.

    >>> duration(3.21), duration(34.2), duration(725), duration(3840)
    ('3.2 s', '34 s', '12 min 5 s', '1 h 4 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def listing(items: list[str]) -> str:
    """Items as a phrase.

    >>> listing(["a", "b", "c"]), listing(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
