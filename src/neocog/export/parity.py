"""Does a file answer as the run does? Compared on real samples. Floor 4, room export.

Imports tasks, metrics, layers, floor 0 and the room's samples. Samples go to both sides as they are
packed, raw, and answers are compared number by number: what one side scales or normalises otherwise
shows at once.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from neocog import tasks
from neocog.errors import RunError
from neocog.export.samples import batches, beside, large
from neocog.layers import Predictor
from neocog.metrics.paired import Paired, paired

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from neocog.data.scan import Progress
    from neocog.engine.task import Statistics
    from neocog.export.samples import Samples
    from neocog.records import Batch, Interval, TaskSpec

    Answer = Callable[[NDArray[Any]], NDArray[Any]]

__all__ = ["TOLERANCES", "Difference", "Parity", "Tolerance", "compare"]

JUMPING = 0.1
"""Share of the samples that may be beyond the tolerance for the run to be compared with itself."""
AS_MANY = 3
"""How many times as many as the run itself has may be beyond the tolerance then: twice as many are
expected where both round by themselves, and chance has its part."""
HALF = 0.5
"""The probability above which a label holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far answers may be apart."""

    numbers: float
    """Each probability; each number x, in units of max(1, |x|)."""
    ties: float
    """A label may be another one where those two are closer than this in the run's own answer."""
    pixels: float
    """The same of one pixel among many: of a hundred million some are always about to change."""


TOLERANCES = {
    "fp32": Tolerance(numbers=1e-4, ties=0.0, pixels=1e-4),
    "fp16": Tolerance(numbers=5e-3, ties=5e-3, pixels=5e-3),
    "int8": Tolerance(numbers=np.inf, ties=np.inf, pixels=np.inf),
}
"""By what a file computes in. Files in 8 bits are judged by their score, not number by number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two answers differ."""

    sample: str
    """What the sample is called, and its size where it was scaled for the comparison."""
    expected: float
    """What the run says."""
    found: float
    """What the file says."""
    apart: float
    """How far, in the tolerance's units."""

    def __str__(self) -> str:
        return (
            f"for {self.sample} the run says {self.expected:.7g}, the file {self.found:.7g} "
            f"({self.apart:.2g} apart)"
        )


@dataclass(slots=True, kw_only=True)
class Parity:
    """What was found; filled while it is counted."""

    tolerance: Tolerance
    """What was allowed."""
    part: str
    """Of the data."""
    whole: bool = False
    """Each pixel is answered for."""
    n: int = 0
    """Samples."""
    largest: Difference | None = None
    """The largest difference of all, other sizes and batches among them."""
    mean: float = 0.0
    """Of the differences of all numbers of the n samples."""
    labels: int = 0
    """Labels that were compared: one a sample, one a pixel, or K a sample; 0: there are none."""
    other: int = 0
    """Labels that differ."""
    ties: int = 0
    """Those of them whose classes the run itself has closer than the tolerance."""
    wrong: str = ""
    """Sample with the first label that differs and is no tie."""
    beyond: int = 0
    """Samples with a number beyond the tolerance, or a label that differs and is no tie; those in
    other sizes and batches among them."""
    values: int = 0
    """Numbers beyond the tolerance, and labels that differ and are no tie, in all of them."""
    own: int | None = None
    """`beyond` of the run compared with itself in float64; None: was not asked."""
    own_values: int | None = None
    """`values` of the same."""
    pieces: float | None = None
    """The largest difference for a picture that the run answers for in pieces, and the file at
    once; not judged. None: there is no such."""
    asked: int = 0
    """Samples that both were asked about, in all sizes and batches."""
    sizes: list[list[int]] = field(default_factory=list)
    """That were tried."""
    batches: list[int] = field(default_factory=list)
    """Samples at once that were tried."""
    before: Mapping[str, Interval] | None = None
    """Scores of the run on the n samples."""
    after: Mapping[str, Interval] | None = None
    """Scores of the file on the same."""
    paired: Paired | None = None
    """Right answers of the run (A) and of the file (B), where each sample has one class."""
    seconds: float = 0.0
    """What comparing took."""

    @property
    def apart(self) -> float:
        """The largest difference."""
        return 0.0 if self.largest is None else self.largest.apart

    @property
    def _off(self) -> str:
        """What is beyond the tolerance; empty: nothing."""
        if not (np.isfinite(self.apart) and self.apart <= self.tolerance.numbers):
            return f"{self.largest}, where {self.tolerance.numbers:g} is allowed"
        if self.other > self.ties:
            count = self.other - self.ties
            return f"{count:,} of {self.labels:,} labels differ, first in {self.wrong}"
        return ""

    @property
    def exception(self) -> str:
        """Why the file is kept although something is beyond the tolerance; empty: nothing is, or it
        is not kept.

        Some networks for masks jump: where a maximum's place decides what is answered (SegNet,
        DeconvNet), two that are equal but for the last bit turn pixels around, in whatever order
        sums are made; no file in fp32 can be nearer than rounding allows. Where the run is beyond
        the tolerance of its own answers in float64, the file may be in about as many samples, and
        with about as many numbers. Where a picture has one answer there is no such exception.
        """
        if not (self._off and self.whole and self.own and np.isfinite(self.apart)):
            return ""
        own, values = self.own, self.own_values or 0
        # As many samples more as make the least count; of the numbers what those may have.
        samples = AS_MANY * (own + 1)
        if self.beyond > samples or self.values > samples * values / own:
            return ""
        return (
            f"{self.values:,} numbers in {self.beyond:,} of {self.asked:,} pictures are beyond the "
            f"tolerance; so are {values:,} in {own:,} of the run's own against its float64: there "
            "rounding decides, as where the place of a maximum does"
        )

    @property
    def problem(self) -> str:
        """What is beyond the tolerance; empty: nothing is, or `exception` says why that may be."""
        return "" if self.exception else self._off

    @property
    def loss(self) -> float:
        """How much worse the file's first score is: of shares the difference, of errors the share
        by which they rose; 0 where there are no scores."""
        if not self.before or not self.after:
            return 0.0
        name = next(iter(self.before))
        run, file = self.before[name].value, self.after[name].value
        if name.partition(":")[0] in ("mae", "rmse"):
            return (file - run) / max(run, np.finfo(np.float64).tiny)
        return run - file

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        numbers, ties = self.tolerance.numbers, self.tolerance.ties
        found = self.largest
        plain: dict[str, Any] = {
            "part": self.part,
            "n": self.n,
            "tolerance": numbers if np.isfinite(numbers) else None,
            "largest": found
            and {
                "difference": found.apart if np.isfinite(found.apart) else None,
                "sample": found.sample,
            },
            "beyond": {
                "samples": self.beyond,
                "values": self.values,
                "own": self.own,
                "own_values": self.own_values,
                "asked": self.asked,
            },
            "exception": self.exception or None,
            "pieces": self.pieces,
            "mean": self.mean if np.isfinite(self.mean) else None,
            "labels": {
                "compared": self.labels,
                "differ": self.other,
                "ties": self.ties,
                "tie": ties if np.isfinite(ties) else None,
            },
            "sizes": self.sizes,
            "batches": self.batches,
            "seconds": round(self.seconds, 3),
        }
        for name, scores in (("before", self.before), ("after", self.after)):
            plain[name] = scores and {key: asdict(value) for key, value in scores.items()}
        plain["paired"] = self.paired and self.paired.to_dict()
        return plain


def compare(
    answer: Answer,
    predictor: Predictor,
    samples: Samples,
    task: TaskSpec,
    tolerance: Tolerance,
    progress: Progress | None = None,
) -> Parity:
    """Ask both about the same samples, as they are packed, and some in other sizes and batches.

    Args:
        answer: of the file: raw samples → answers; see `runtime.engine.Engine`.
        predictor: of the run, on the CPU.
        samples: real ones.
        task: what answers mean.
        tolerance: how far they may be apart.
        progress: told how far it is: what, done, total.
    """
    began = time.monotonic()
    parity = Parity(tolerance=tolerance, part=samples.part, whole=predictor.input.whole)
    count = _Count(parity, predictor, answer, task)
    entry = tasks.CATALOGUE[task.name]
    known = samples.data.kind in (entry.kind, *entry.also)
    total = len(samples.ids)
    for batch in batches(samples):
        names = [str(samples.data.names[one]) for one in batch.ids.tolist()]
        answers = count.compare(batch.images.numpy(), names, counted=True)
        if known:
            count.score(batch, *answers)
        if progress:
            progress("comparing", parity.n, total)
    for images, names in beside(samples, predictor.input):
        count.compare(images, names, counted=False)
    count.finish()
    if parity.whole:
        parity.pieces = count.apart(large(samples, predictor.input))
        if parity.problem and parity.beyond <= JUMPING * parity.asked:
            own = _own(predictor, samples, task, tolerance)
            parity.own, parity.own_values = own.beyond, own.values
    parity.seconds = time.monotonic() - began
    return parity


class _Exact(nn.Module):
    """A network computed in float64.

    Args:
        network: a copy is taken.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).double()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """As the network's, from float32."""
        found: torch.Tensor = self.network(pictures.double())
        return found


def _own(predictor: Predictor, samples: Samples, task: TaskSpec, tolerance: Tolerance) -> Parity:
    """The run compared with itself in float64: rounding alone, without any file, takes it so
    far."""
    exact = Predictor(_Exact(predictor.network), predictor.input, predictor.decode).eval()

    def answer(images: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            found: NDArray[Any] = exact(torch.from_numpy(np.ascontiguousarray(images))).numpy()
        return found

    count = _Count(Parity(tolerance=tolerance, part=samples.part), predictor, answer, task)
    for batch in batches(samples):
        count.compare(batch.images.numpy(), [""] * len(batch.ids), counted=True)
    for images, names in beside(samples, predictor.input):
        count.compare(images, names, counted=False)
    return count.parity


class _Count:
    """The comparison while it goes on."""

    def __init__(
        self, parity: Parity, predictor: Predictor, answer: Answer, task: TaskSpec
    ) -> None:
        self.parity = parity
        self.predictor = predictor
        self.answer = answer
        self.task = tasks.build(task)
        self.numbers = task.name == "regress"
        self.many = task.name == "multilabel"
        self.sum, self.values = 0.0, 0
        self.scores: tuple[Statistics, Statistics] = self.task.statistics(), self.task.statistics()
        self.scored = False
        self.right: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])

    def compare(
        self, samples: NDArray[Any], names: Sequence[str], *, counted: bool
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Both answers, after they were compared.

        Args:
            samples: B×C×h×w and so on.
            names: B.
            counted: as some of the n; else only the largest difference and labels count.
        """
        expected, found, apart = self._both(samples)
        self._largest(apart, expected, found, names)
        far: NDArray[np.bool_] = np.asarray(apart > self.parity.tolerance.numbers)
        turned = self._labels(expected, found, names)
        self.parity.values += int(far.sum()) + int(turned.sum())
        count = len(samples)
        rows = far.reshape(count, -1).any(1) | turned.reshape(count, -1).any(1)
        self.parity.beyond += int(rows.sum())
        self.parity.asked += count
        size, parity = list(samples.shape[2:]), self.parity
        if size not in parity.sizes and len(parity.sizes) < 32:
            parity.sizes.append(size)
        parity.batches = sorted({*parity.batches, len(samples)})
        if counted:
            parity.n += len(samples)
            self.sum, self.values = self.sum + float(apart.sum()), self.values + apart.size
        return expected, found

    def apart(self, samples: NDArray[Any]) -> float | None:
        """How far answers for them are apart at most, uncounted; None: infinitely."""
        most = float(self._both(samples)[2].max())
        return most if np.isfinite(most) else None

    def _both(self, samples: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The run's answers, the file's, and how far they are apart.

        Raises:
            RunError: the file's have another shape.
        """
        with torch.no_grad():
            expected = self.predictor(torch.from_numpy(samples)).numpy()
        found = self.answer(samples)
        if found.shape != expected.shape:
            raise RunError(
                f"for {samples.shape} the exported network answers with {found.shape}, the run "
                f"with {expected.shape}",
                "its forward may not depend on the numbers in its input, nor on their count",
            )
        with np.errstate(invalid="ignore"):
            apart = np.abs(found.astype(np.float64) - expected)
            if self.numbers:
                apart /= np.maximum(1, np.abs(expected))
        # NaN is never within a tolerance; the same infinity is.
        apart = np.where(np.isfinite(apart), apart, np.where(found == expected, 0, np.inf))
        return expected, found, apart

    def _largest(
        self,
        apart: NDArray[Any],
        expected: NDArray[Any],
        found: NDArray[Any],
        names: Sequence[str],
    ) -> None:
        place = np.unravel_index(int(apart.argmax()), apart.shape)
        before = self.parity.largest
        if before is None or apart[place] > before.apart:
            self.parity.largest = Difference(
                sample=names[int(place[0])],
                expected=float(expected[place]),
                found=float(found[place]),
                apart=float(apart[place]),
            )

    def _labels(
        self, expected: NDArray[Any], found: NDArray[Any], names: Sequence[str]
    ) -> NDArray[np.bool_]:
        """Count the labels and those that differ; say which differ and are no tie: of B, B×K, or
        B×h×w."""
        if self.numbers:
            return np.zeros(len(names), np.bool_)
        tie = self.parity.tolerance.pixels if expected.ndim > 2 else self.parity.tolerance.ties
        if self.many:
            labels, others = expected > HALF, found > HALF
            margin = np.abs(expected - HALF)
        else:
            labels, others = expected.argmax(1), found.argmax(1)
            own = np.take_along_axis(expected, labels[:, None], 1)
            margin = (own - np.take_along_axis(expected, others[:, None], 1))[:, 0]
        differ = labels != others
        tied = differ & (margin < tie)
        self.parity.labels += labels.size
        self.parity.other += int(differ.sum())
        self.parity.ties += int(tied.sum())
        turned: NDArray[np.bool_] = differ & ~tied
        if turned.any() and not self.parity.wrong:
            rows = turned.reshape(len(labels), -1).any(1)
            self.parity.wrong = names[int(rows.argmax())]
        return turned

    def score(self, batch: Batch, expected: NDArray[Any], found: NDArray[Any]) -> None:
        """Count how good both are."""
        if not (np.isfinite(expected).all() and np.isfinite(found).all()):
            return  # the comparison has failed by now
        self.scored = True
        nothing = torch.zeros(len(expected))  # the loss is of outputs, which a file does not give
        targets = batch.targets.numpy()
        for statistics, right, answers in zip(
            self.scores, self.right, (expected, found), strict=True
        ):
            statistics.update(torch.from_numpy(answers), nothing, batch)
            if self.task.spec.name == "classify":
                right.append(answers.argmax(1) == targets)

    def finish(self) -> None:
        """Draw the sums."""
        parity = self.parity
        parity.mean = self.sum / max(1, self.values)
        if not self.scored:
            return
        parity.before, parity.after = (
            {name: one for name, one in each.scores().metrics.items() if name != "loss"}
            for each in self.scores
        )
        if self.right[0]:
            parity.paired = paired(*(np.concatenate(one) for one in self.right))
