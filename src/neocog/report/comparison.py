"""What is told of two runs side by side, and the words for it. Floor 4, room report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError
from neocog.html import words
from neocog.measures import called, is_share
from neocog.metrics import direction
from neocog.report.kinds import kind_of
from neocog.report.nouns import PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neocog.metrics.paired import Paired, Seeds
    from neocog.records import Interval, Scores

__all__ = [
    "Clash",
    "Compared",
    "Gap",
    "Side",
    "chance",
    "decided",
    "difference",
    "points",
    "verdict",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two: a run, or some that differ in their seeds alone; the first speaks for all
    where only one can."""

    letter: str
    """`A` or `B`."""
    model: str
    """The network's name."""
    runs: tuple[str, ...]
    """Where the runs are."""
    scores: tuple[Scores, ...]
    """Of each run, on the part that is compared."""
    epochs: tuple[Sequence[Mapping[str, Any]], ...]
    """The epochs of each run, in order."""
    costs: Mapping[str, float | None]
    """Of the first run: `parameters`, `macs`, `epochs`, `seconds`, `images_per_second`."""

    @property
    def name(self) -> str:
        """`A, cnn`."""
        return f"{self.letter}, {self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How a class fares with both."""

    name: str
    """The class."""
    a: Interval
    """Recall of A."""
    b: Interval
    """Recall of B."""
    difference: Interval
    """B − A, with its interval."""
    p: float
    """McNemar's test on the samples of this class, raised for the number of classes (Holm)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """A sample on which one is right and the other wrong."""

    picture: NDArray[np.uint8]
    """H×W×C, C 1 or 3; what is shown of a signal or volume."""
    name: str
    """Where it comes from."""
    truth: str
    """What it is."""
    answers: tuple[str, str]
    """What A and B answer."""
    sure: tuple[float, float]
    """The probability that each gives its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two sides on the same samples; the arguments of the page."""

    a: Side
    b: Side
    task: str
    """Of both."""
    source: str
    """What the data is called."""
    part: str
    """`test`, `val` or `all`."""
    n: int
    """Samples that both answered for."""
    noun: str
    """What a sample is called."""
    paired: Paired | None
    """Right and wrong of the first run of each; None for tasks without right answers."""
    loss: Interval | None
    """Mean loss of B − that of A, sample by sample; None where the losses differ in kind."""
    seeds: Seeds | None
    """Over seeds; None where either side has one run."""
    gaps: tuple[Gap, ...] = ()
    """Classes with samples, largest difference first."""
    settings: tuple[tuple[str, str, str], ...] = ()
    """Settings that differ: name, of A, of B."""
    better_a: tuple[Clash, ...] = ()
    """Samples on which A alone is right, those first on which B is surest."""
    better_b: tuple[Clash, ...] = ()
    """Samples on which B alone is right, those first on which A is surest."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know."""

    @property
    def samples(self) -> str:
        """`180 held-out pictures`."""
        return words.count(self.n, f"{PARTS.get(self.part, '')} {self.noun}".strip())

    @property
    def leading(self) -> str:
        """The metric that the task is judged by."""
        known = self.a.scores[0].metrics
        return next((name for name in (*kind_of(self.task).leading, *known) if name in known), "")

    @property
    def many(self) -> bool:
        """Whether a side has several runs."""
        return len(self.a.runs) + len(self.b.runs) > 2


def chance(p: float) -> str:
    """A p-value as people read it.

    >>> chance(0.0049), chance(0.00001), chance(0.3), chance(1.0)
    ('p = 0.005', 'p < 0.0001', 'p = 0.30', 'p = 1')
    """
    if p < 0.0001:
        return "p < 0.0001"
    if p >= 0.995:
        return "p = 1"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.3f}" if p >= 0.001 else f"p = {p:.4f}"


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign.

    >>> points(0.038), points(-0.0123), points(0.0)
    ('+3.8', '−1.2', '0.0')
    """
    text = f"{100 * share:+.1f}".replace("-", "−")
    return text if float(text.replace("−", "-")) else "0.0"


def difference(one: Interval) -> str:
    """`+3.8 points (95 % interval +1.2 to +6.3)`."""
    ends = f"{points(one.low)} to {points(one.high)}"
    return f"{points(one.value)} points (95\u00a0% interval {ends})"


def verdict(found: Compared) -> list[str]:
    """Which is better, in sentences."""
    sentences = []
    if found.seeds is not None:
        seeds = found.seeds
        name = called(found.leading)
        told = difference(seeds.difference) if is_share(found.leading) else _plain(seeds.difference)
        sentences.append(
            f"Over seeds ({len(seeds.a)} runs of A, {len(seeds.b)} of B), {name} of B minus that "
            f"of A is {told}, {chance(seeds.p)} by Welch's t test: "
            f"{decided(seeds.difference, small=_small(found.leading))}. That is on these "
            "samples; others add the uncertainty that each score's own interval tells."
        )
        if seeds.remark:
            sentences.append(seeds.remark[:1].upper() + seeds.remark[1:] + ".")
    if found.paired is not None:
        one = found.paired
        first = "Of the first run of each: " if found.seeds or found.many else ""
        sentences.append(
            f"{first}B is right on {words.count(one.only_b, found.noun)} where A is wrong, A on "
            f"{one.only_a:,} where B is wrong: {chance(one.p)} by McNemar's test. Accuracy of B "
            f"minus that of A is {difference(one.difference)}: {decided(one.difference)}."
        )
    elif found.loss is not None:
        sentences.append(
            f"Mean loss of B minus that of A, sample by sample, is {_plain(found.loss)}: "
            f"{decided(found.loss, small=True)}."
        )
    return sentences


def _small(name: str) -> bool:
    """Whether a metric should be small."""
    try:
        return direction(name) == "min"
    except ConfigError:  # a metric of the user's own; larger is better more often than not
        return False


def _plain(one: Interval) -> str:
    ends = f"{words.number(one.low)} to {words.number(one.high)}"
    return f"{words.number(one.value)} (95\u00a0% interval {ends})"


def decided(one: Interval, *, small: bool = False) -> str:
    """What an interval of B − A says.

    Args:
        one: the interval.
        small: whether less is better.
    """
    if one.low <= 0 <= one.high:
        return "chance alone could make such a difference"
    return f"{'B' if (one.value > 0) != small else 'A'} is better by more than chance"
