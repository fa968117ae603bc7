"""What must be hidden for the answer to change, and what must be seen for it to stay. Floor 1,
explain; imports floor 0, NumPy, torch, and `analysis`.

The least set is hard to find; these are sets of which no part is superfluous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog.analysis.remark import times
from neocog.errors import ConfigError
from neocog.explain.why.fills import filling
from neocog.explain.why.occlusion import Grid
from neocog.explain.why.probe import Probe, fitting, parts, probing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neocog.explain.why.fills import Fill

__all__ = ["Parts", "must_be_hidden", "must_be_seen"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """Parts of a picture that decide its answer."""

    mask: NDArray[np.bool_]
    """H×W: what was hidden, or what was left to see."""
    share: float
    """Of the picture's pixels, those in `mask`."""
    parts: int
    """How many squares or segments `mask` is made of."""
    before: int
    """The answer for the whole picture: the number of the greatest output."""
    after: int
    """The answer with these parts hidden, or with nothing else to see."""
    found: bool
    """Whether they do what was asked: `after` differs from `before`, or is the same. If not, `mask`
    is the best that the search came to."""
    passes: int
    """Variants of the picture that the network was asked about."""


def must_be_hidden(
    module: nn.Module,
    picture: Tensor,
    *,
    segments: NDArray[np.int64] | None = None,
    side: int | None = None,
    guide: Tensor | None = None,
    fill: Fill = "blur",
    limit: float = 1.0,
    batch: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Parts:
    """Parts of the picture without which the answer is another; with any one of them it is not.

    Parts are hidden one after the other until the answer changes: those that `guide` weighs most
    come first, or, without one, the part whose loss then hurts the answer most. After that each is
    uncovered again if the answer stays changed. Held at a time: `batch` pictures with their
    activations.

    Args:
        module: any network that answers with B×K scores, of which the greatest is its answer.
        picture: 1×C×H×W, as the network takes it.
        segments: H×W, the number of the part that a pixel belongs to; squares if left out.
        side: of the squares, in pixels; an eighth of the shorter side if left out.
        guide: a map of any method, 1×C×H×W or H×W; above zero speaks for the answer.
        fill: what stands where a part is hidden.
        limit: most of the picture that may be hidden, as a share of its pixels.
        batch: variants in a pass.
        seed: of what the network draws, if it does.
        progress: told how many variants were tried, and the most that there can be.
    """
    search = _Search(hide=True, limit=limit, batch=fitting(picture, batch), progress=progress)
    return _asked(search, module, picture, segments, side, guide, fill, seed)


def must_be_seen(
    module: nn.Module,
    picture: Tensor,
    *,
    segments: NDArray[np.int64] | None = None,
    side: int | None = None,
    guide: Tensor | None = None,
    fill: Fill = "blur",
    limit: float = 1.0,
    batch: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Parts:
    """Parts of the picture that suffice for the answer, all else hidden; none can be spared.

    Parts are uncovered as `must_be_hidden` hides them, and then hidden again where they are not
    needed. No part at all is needed where the network answers so for a picture that is hidden
    entirely. Arguments are those of `must_be_hidden`.
    """
    search = _Search(hide=False, limit=limit, batch=fitting(picture, batch), progress=progress)
    return _asked(search, module, picture, segments, side, guide, fill, seed)


def _asked(
    search: _Search,
    module: nn.Module,
    picture: Tensor,
    segments: NDArray[np.int64] | None,
    side: int | None,
    guide: Tensor | None,
    fill: Fill,
    seed: int,
) -> Parts:
    """Prepare the picture and its parts, search, and say what was found."""
    if len(picture) != 1 or picture.dim() != 4:
        raise ConfigError(
            f"expected one picture 1×C×H×W, found {times(picture.shape)}", "ask about one at a time"
        )
    size = (picture.shape[2], picture.shape[3])
    labels = _labels(size, segments, side)
    with probing(module, picture, 0, seed) as probe:
        asked = _Asked(
            probe=probe,
            hidden=filling(probe.x, fill),
            labels=labels,
            hide=search.hide,
            batch=search.batch,
        )
        worth = None if guide is None else _worth(guide, labels)
        chosen, found = search.run(asked, worth)
        after = asked.answers(chosen[None])[0][0]
    mask = chosen[labels]
    return Parts(
        mask=mask,
        share=float(mask.mean()),
        parts=int(chosen.sum()),
        before=asked.before,
        after=int(after),
        found=found,
        passes=asked.passes,
    )


# -- the parts ------------------------------------------------------------------------------------


def _labels(
    size: tuple[int, int], segments: NDArray[np.int64] | None, side: int | None
) -> NDArray[np.int64]:
    """H×W, parts numbered from 0 without gaps."""
    if segments is None:
        side = max(1, round(min(size) / 8)) if side is None else side
        grid = Grid.over(size, side, side)
        rows, columns = (band.int().argmax(0) for band in (grid.rows, grid.columns))
        squares: NDArray[np.int64] = (rows[:, None] * len(grid.columns) + columns).numpy()
        return squares
    if segments.shape != size or side is not None:
        raise ConfigError(
            f"expected segments {times(size)}, found {times(segments.shape)} and a side of {side}",
            "give either segments of the picture's size, or the side of squares",
        )
    _, labels = np.unique(segments, return_inverse=True)
    return labels.reshape(size).astype(np.int64)


def _worth(guide: Tensor, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of a map over each part."""
    values = guide.detach().cpu().double().reshape(-1, *guide.shape[-2:]).sum(0).numpy()
    if values.shape != labels.shape:
        raise ConfigError(
            f"expected a guide {times(labels.shape)}, found {times(guide.shape)}",
            "take a map at the picture's resolution (resize=True)",
        )
    sums: NDArray[np.float64] = np.bincount(labels.ravel(), values.ravel()).astype(np.float64)
    return sums


# -- the search -----------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True, eq=False)
class _Asked:
    """A picture of which parts are hidden, and what the network says to it."""

    probe: Probe
    hidden: Tensor
    """1×C×H×W, what stands where a part is hidden."""
    labels: NDArray[np.int64]
    hide: bool
    """Whether chosen parts are hidden, or all others."""
    batch: int
    before: int = -1
    passes: int = 0

    def __post_init__(self) -> None:
        whole = np.zeros((1, self.count), bool) if self.hide else np.ones((1, self.count), bool)
        self.before = int(self.answers(whole)[0][0])

    @property
    def count(self) -> int:
        """How many parts there are."""
        return int(self.labels.max()) + 1

    def answers(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """For N choices of parts, N×P: the answers, and by how much the first one leads."""
        found, leads = [], []
        for part in parts(len(chosen), self.batch):
            masks = torch.from_numpy(chosen[part][:, self.labels]).to(self.hidden.device)
            covered = masks if self.hide else ~masks
            given = torch.where(covered[:, None], self.hidden, self.probe.x)
            with torch.no_grad():
                output = self.probe.run(given, self.probe.rows(0, len(given)))[1].output
            if output.dim() != 2 or output.shape[1] < 2:
                raise ConfigError(
                    f"expected scores B×K of at least two classes, found {times(output.shape)}",
                    "for another kind of answer take `explain.occlusion`",
                )
            scores = output.cpu().double().numpy()
            answers = scores.argmax(1)
            known = self.before if self.before >= 0 else int(answers[0])
            others = np.delete(scores, known, 1).max(1)
            found.append(answers)
            leads.append(scores[:, known] - others)
            self.passes += len(given)
        return np.concatenate(found), np.concatenate(leads)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Search:
    """How parts are looked for."""

    hide: bool
    limit: float
    batch: int
    progress: Callable[[int, int], None] | None

    def done(self, asked: _Asked, answers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the answers are what was asked for."""
        same: NDArray[np.bool_] = answers == asked.before
        return ~same if self.hide else same

    def run(
        self, asked: _Asked, worth: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.bool_], bool]:
        """The chosen parts, and whether they do it."""
        if not 0 < self.limit <= 1:
            raise ConfigError(f"expected a limit above 0 and at most 1, found {self.limit}")
        sizes = np.bincount(asked.labels.ravel()) / asked.labels.size
        chosen = np.zeros(asked.count, bool)
        if not self.done(asked, asked.answers(chosen[None])[0])[0]:
            chosen, found = (
                self._greedy(asked, sizes) if worth is None else self._led(asked, sizes, worth)
            )
            if not found:
                self._tell(asked, last=True)
                return chosen, False
        chosen = self._pruned(asked, chosen)
        self._tell(asked, last=True)
        return chosen, True

    def _led(
        self, asked: _Asked, sizes: NDArray[np.float64], worth: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], bool]:
        """The parts of most worth a pixel, as few as do it."""
        order = np.argsort(-worth / sizes, kind="stable")
        order = order[np.cumsum(sizes[order]) <= self.limit + 1e-9]
        rank = np.full(asked.count, asked.count)
        rank[order] = np.arange(len(order))
        for part in parts(len(order), self.batch):
            choices = rank[None] <= np.arange(part.start, part.stop)[:, None]
            done = self.done(asked, asked.answers(choices)[0])
            self._tell(asked)
            if done.any():
                return choices[int(done.argmax())], True
        return rank < asked.count, False

    def _greedy(self, asked: _Asked, sizes: NDArray[np.float64]) -> tuple[NDArray[np.bool_], bool]:
        """One part after the other, always the one that helps most."""
        chosen = np.zeros(asked.count, bool)
        sign = -1 if self.hide else 1
        while True:
            left = np.flatnonzero(~chosen & (sizes[chosen].sum() + sizes <= self.limit + 1e-9))
            if not len(left):
                return chosen, False
            choices = np.repeat(chosen[None], len(left), 0)
            choices[np.arange(len(left)), left] = True
            answers, leads = asked.answers(choices)
            done = self.done(asked, answers)
            # A choice that does it leads by less than nothing, and so comes first.
            best = int((sign * leads).argmax())
            chosen = choices[best]
            self._tell(asked)
            if done[best]:
                return chosen, True

    def _pruned(self, asked: _Asked, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Give up parts, one at a time, until none can be."""
        while chosen.any():
            members = np.flatnonzero(chosen)
            choices = np.repeat(chosen[None], len(members), 0)
            choices[np.arange(len(members)), members] = False
            answers, leads = asked.answers(choices)
            done = self.done(asked, answers)
            self._tell(asked)
            if not done.any():
                break
            # Those without which it is the most certain go first, as many as can go together; one
            # alone can.
            sure = np.where(done, -leads if self.hide else leads, -np.inf)
            order = np.argsort(-sure, kind="stable")[: int(done.sum())]
            together = np.repeat(chosen[None], len(order), 0)
            for row in range(len(order)):
                together[row, members[order[: row + 1]]] = False
            most = np.flatnonzero(self.done(asked, asked.answers(together)[0]))
            self._tell(asked)
            # In another batch the last bit of an answer may differ: one alone could be spared.
            chosen = together[int(most.max()) if len(most) else 0]
        return chosen

    def _tell(self, asked: _Asked, *, last: bool = False) -> None:
        if self.progress is not None:
            # How many it will be nobody knows; at the end it is told how many it was.
            most = asked.passes if last else max(8 * asked.count, asked.passes)
            self.progress(asked.passes, most)
